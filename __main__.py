"""`python -m nnc`: the command line."""

from nnc.runtime.cli import entry_point

entry_point()

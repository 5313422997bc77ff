"""What a training looks like from Python: the bar of a notebook, or what the command line shows on a terminal."""

from .watch import watching

__all__ = ["watching"]

"""Syntax tree -> graph. `Program(source, options)` knows the variables and grows the graph of each entry point."""

from .program import Options, Program

__all__ = ["Options", "Program"]

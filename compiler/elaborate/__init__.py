"""Syntax tree -> graph. `Program(source, settings)` knows the variables and grows the graph of each entry point."""

from .program import Program

__all__ = ["Program"]

"""Loops to LLVM IR text: `emit`."""

from .emit import emit

__all__ = ["emit"]

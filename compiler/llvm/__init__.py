"""Loops to LLVM IR text: `emit` for a program, `support` for what all programs share."""

from .emit import emit
from .support import support

__all__ = ["emit", "support"]

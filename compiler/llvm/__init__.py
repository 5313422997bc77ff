"""Loops to LLVM IR text: `emit` for a program, `support` for what all programs share.

text            types, literals, and a function under construction: scopes, value numbering
values          what an expression evaluates to while a kernel is written
instructions    instructions by dtype
maths           the long scalar functions, as functions of the module
memory          operands in lanes, loads and stores
expressions     expressions
vectors         vector loops, masked tails, reductions in lanes; with transpose
kernel          statements and scalar loops; with parallel
emit            a module: constants, kernels, entries
environment     the floating-point environment, set and restored
threads, epoch  the thread pool and the training loop; `support` puts them into one module
"""

from .emit import emit
from .support import support

__all__ = ["emit", "support"]

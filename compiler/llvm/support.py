"""What every program shares, as a module of its own: the thread pool and the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import threads
from .emit import ATTRIBUTES
from .environment import environment
from .epoch import epoch

if TYPE_CHECKING:
    from ..native.target import Target


def support(target: Target) -> str:
    """LLVM IR that exports `nnc_pool_create`, `nnc_pool_destroy`, `nnc_pool_forget`, `nnc_pool_words`
    and `nnc_epoch`."""
    triple = target.triple
    parts = [threads.declarations(), environment(target), threads.fork(triple), threads.pool(triple), epoch()]
    return "\n".join([f'target triple = "{triple}"\n', *parts, ATTRIBUTES])

"""One thread compiles at a time, and a fork waits for its end.

In compiling, Python and NumPy round to nearest and flush nothing, whatever the process does otherwise.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

_COMPILING = threading.RLock()
LOCKS: list[AbstractContextManager[Any]] = []  # those of libraries that compile, once they are loaded
_HELD: list[AbstractContextManager[Any]] = []


def _before_fork() -> None:
    """A child finds all locks as they are, and nobody who would open them: ours and the libraries' are taken first."""
    _COMPILING.acquire()
    for lock in LOCKS:
        lock.__enter__()
        _HELD.append(lock)


def _after_fork() -> None:
    while _HELD:
        _HELD.pop().__exit__(None, None, None)
    _COMPILING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


@contextmanager
def compiling() -> Iterator[None]:
    """Around all that compiles: one thread at a time (neither Python nor llvmlite would let two), and a fork waits for
    its end. In it Python and NumPy round to nearest and flush nothing, whatever the process does otherwise: for
    literals that are read and constants that are folded."""
    with _COMPILING:
        if sys.platform != "linux":
            yield
            return
        libc, before = ctypes.CDLL(None), ctypes.create_string_buffer(512)  # more than any fenv_t
        libc.fegetenv(before)
        libc.fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
        try:
            yield
        finally:
            libc.fesetenv(before)

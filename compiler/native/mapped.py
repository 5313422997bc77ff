"""An object in memory that runs, without LLVM: a file in memory of which the process maps pages to read and to run.

The system then knows that what was written will run, as processors ask whose caches of instructions see no stores.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterable
from functools import cache

from ...dsl.errors import InternalError
from .shared import laid


class Unmapped(Exception):
    """The system does not let such a file run, or the object has something that is not known here."""


class Mapped:
    """The object, which may call functions of the process of these names; its memory goes with it."""

    def __init__(self, data: bytes, outside: Iterable[str]):
        self._begin = 0
        try:
            image, self._places = laid(data, _functions(tuple(sorted(outside))))
            self._begin, self._nbytes = _map(image), len(image)
        except (OSError, AttributeError, InternalError, struct.error, IndexError, ValueError, KeyError) as e:
            raise Unmapped from e

    def address(self, name: str) -> int:
        return self._begin + self._places[name]

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if self._begin and not ending():  # a thread may still run in it; the process takes all with it
            _libc().munmap(self._begin, self._nbytes)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype, libc.munmap.restype = ctypes.c_void_p, ctypes.c_int
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


@cache
def _functions(names: tuple[str, ...]) -> dict[str, int]:
    """Where functions of the process are."""
    return {name: ctypes.cast(getattr(_libc(), name), ctypes.c_void_p).value or 0 for name in names}


def _map(image: bytes) -> int:
    """Where the image stands. Raises `OSError`."""
    with open(os.memfd_create("nnc"), "wb", buffering=0) as file:
        if file.write(image) != len(image):
            raise OSError("there is no room")
        prot = mmap.PROT_READ | mmap.PROT_EXEC
        begin = _libc().mmap(None, len(image), prot, mmap.MAP_PRIVATE, file.fileno(), 0)
    if begin in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "a file in memory is not run")
    return int(begin)

"""Machine code to functions Python can call: entries, the thread pool and the training loop. LLVM is not needed for it.

An object is loaded only when its undefined symbols are the ones that are allowed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

from .mapped import Mapped, Unmapped
from .room import require
from .symbols import check_symbols
from .target import THREADS

_BASE_BYTES = 1 << 20  # to load an object, beside a few times what it takes
INTERRUPTED, HALF_DONE = -1, -2  # codes of a call that was to stop: nothing was changed; variables may be


class EpochInput(ctypes.Structure):
    """One input of the step: rows, one or more per example."""

    _fields_ = [
        ("rows", ctypes.c_void_p),
        ("row_bytes", ctypes.c_int64),  # of one example
        ("slot", ctypes.c_int64),
        ("buffer", ctypes.c_void_p),  # for `batch` examples; used when there is an order
    ]


class EpochSum(ctypes.Structure):
    """One scalar result of the step to add up."""

    _fields_ = [
        ("slot", ctypes.c_int64),
        ("dtype", ctypes.c_int64),  # 0 f32, 1 f64, 2 i32, 3 i64, 4 bool
        ("kind", ctypes.c_int64),  # 0: times the number of examples; 1: as it is
    ]


class EpochJob(ctypes.Structure):
    """What `nnc_epoch` works on; see `llvm.epoch`. Everything it points to must outlive the call."""

    _fields_ = [
        ("sizes", ctypes.POINTER(ctypes.c_int64)),  # the entry's size arguments
        ("batch_index", ctypes.c_int64),  # which of them counts examples, -1 for none
        ("slots", ctypes.POINTER(ctypes.c_void_p)),  # the entry's slots
        ("arena", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),  # a `Pool`, its address, or None
        ("position", ctypes.c_int64),  # in and out: the next example
        ("stop", ctypes.c_int64),  # run while position < stop
        ("examples", ctypes.c_int64),  # in all; the last batch ends there
        ("batch", ctypes.c_int64),
        ("order", ctypes.c_void_p),  # i64[examples], or None: as they stand
        ("ninputs", ctypes.c_int64),
        ("inputs", ctypes.POINTER(EpochInput)),
        ("nsums", ctypes.c_int64),
        ("sums", ctypes.POINTER(EpochSum)),
        ("totals", ctypes.POINTER(ctypes.c_double)),  # nsums numbers, added to
        ("steps", ctypes.c_int64),  # out: how many were run
        ("nonfinite", ctypes.c_int64),  # out: the step, of these, that gave a NaN or infinity; -1 for none
    ]


class Library:
    """A loaded object; its functions live as long as it does."""

    def __init__(self, data: bytes):
        require(_BASE_BYTES + 4 * len(data), "loading compiled code")
        self.symbols = check_symbols(data)
        try:
            mapped = Mapped(data, THREADS)
            self._addresses: Callable[[str], int] = mapped.address
        except Unmapped:
            from .objects import linked

            self._addresses = linked(data, self.symbols)

    def address(self, name: str) -> int:
        """Where a function is; raises `KeyError` when there is none of that name."""
        if name not in self.symbols:
            raise KeyError(name)
        return self._addresses(name)

    def function(self, name: str) -> Callable[..., int]:
        """An entry: `run(sizes, slots, arena, pool) -> code`, pointers as integers or None."""
        run = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)(self.address(name))
        run.loaded = self  # type: ignore[attr-defined]  # its code lives as long as it does
        return run


class Support(Library):
    """The loaded object of `llvm.support`: the thread pool and the training loop."""

    def __init__(self, data: bytes):
        super().__init__(data)
        pointer = ctypes.c_void_p
        self.pool_create = ctypes.CFUNCTYPE(pointer, ctypes.c_int32)(self.address("nnc_pool_create"))
        self.pool_destroy = ctypes.CFUNCTYPE(None, pointer)(self.address("nnc_pool_destroy"))
        self.pool_forget = ctypes.CFUNCTYPE(None, pointer)(self.address("nnc_pool_forget"))
        self.pool_words = ctypes.CFUNCTYPE(pointer, pointer)(self.address("nnc_pool_words"))
        self._epoch = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer)(self.address("nnc_epoch"))

    def epoch(self, step: int, job: EpochJob) -> int:
        """Run the step at an address over a job; 0, the code of the check that failed, or INTERRUPTED or HALF_DONE.
        Releases the GIL."""
        return int(self._epoch(step, ctypes.addressof(job)))

    def pool(self, threads: int) -> Pool | None:
        """Up to so many threads for parallel loops, the caller's among them, and what interrupts them; None where there
        is no such thing on this system."""
        address = self.pool_create(threads)
        return Pool(self, address) if address else None


class Pool(ctypes.c_void_p):
    """A thread pool, passed where an entry wants one, of one thread too: by it calls are interrupted. Its
    threads end with it; in a child made by fork there are none, so a child must not pass its parent's pool but make its
    own."""

    def __init__(self, support: Support, address: int):
        super().__init__(address)
        self._support, self._owner = support, os.getpid()
        self._words = (ctypes.c_int32 * 3).from_address(support.pool_words(address))

    def interrupt(self, soft: bool = False, hard: bool = False, half: bool = False) -> None:
        """Make native code that runs with this pool return, or let it run. `soft`: between steps of the training loop,
        INTERRUPTED; `hard`: also in a call or a step that has written no variable yet, INTERRUPTED; `half`: also
        in one that has, HALF_DONE."""
        self._words[:] = [INTERRUPTED * soft, INTERRUPTED * hard, HALF_DONE * half]

    def close(self) -> None:
        """Join the threads; the pool is then null, which means the caller's thread alone."""
        address, self.value = self.value, None
        if address:
            (self._support.pool_destroy if self._owner == os.getpid() else self._support.pool_forget)(address)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:  # `sys` may be gone by then
        if not ending():  # a thread may still be at work; the process takes all of them with it
            self.close()

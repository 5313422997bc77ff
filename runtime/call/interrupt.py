"""Ctrl-C and SIGTERM while native code runs.

In: the pool that native calls of the main thread use. Out: they return within moments of a signal, so that Python,
which runs handlers between its own instructions only, can run the one there is. Python writes each signal to a pipe
when it comes; a thread reads it and sets the words of the pool. The pipe is Python's only while a `Watch` is open.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from select import select
from time import monotonic
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 1.0  # seconds that a training step is given to end by itself


class _Watcher:
    """The pipe, the thread that reads it, and the watches that are open, the innermost last. One a process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process = os.getpid()
        self.open: list[Watch] = []
        self.source, self.sink = os.pipe()
        os.set_blocking(self.source, False)
        os.set_blocking(self.sink, False)
        _thread.start_new_thread(self._read, ())  # unknown to `threading`: it holds nothing that a fork would miss

    def _read(self) -> None:
        due: float | None = None
        while True:
            select([self.source], [], [], None if due is None else max(0.0, due - monotonic()))
            with self.lock:
                due = self.tell()

    def tell(self) -> float | None:
        """Tell the innermost watch which signals have come; when to look again. With the lock, which is held while
        watches begin and end: what came to one is never told to the next."""
        numbers = b""
        with suppress(BlockingIOError):
            if self.process == os.getpid():  # in a child it is the parent's
                numbers = os.read(self.source, 256)
        if numbers and self.open and self.open[0].previous >= 0:
            with suppress(OSError):
                os.write(self.open[0].previous, numbers)
        return self.open[-1].told(numbers) if self.open else None


_WATCHERS: dict[int, _Watcher] = {}  # by process


def _watcher() -> _Watcher | None:
    """That of this process; None where no thread can be had."""
    if os.getpid() not in _WATCHERS:
        try:
            _WATCHERS[os.getpid()] = _Watcher()
        except (RuntimeError, OSError):
            return None
    return _WATCHERS[os.getpid()]


def _forked() -> None:
    """The pipe is the parent's, and its thread may have held the lock."""
    for watcher in _WATCHERS.values():
        watcher.lock = threading.Lock()
        if watcher.open:
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Watch:
    """While it is open in the main thread, SIGINT and SIGTERM make native calls with a pool return a negative code.
    Without `grace` at once: with `half` also when variables have been written, else only before. With it, training ends
    after a step that takes at most so many seconds, and after that or at a second signal anywhere. Elsewhere, and
    without a pool, it does nothing."""

    def __init__(self, pool: Any, grace: float | None = None, half: bool = False):
        self.pool, self.grace, self.half = pool, grace, half
        self.due: float | None = None  # when a step is interrupted
        self.deaf = False
        self._watcher: _Watcher | None = None
        self.previous = -1  # who was told of signals before

    def __enter__(self) -> Watch:
        if self.pool and threading.current_thread() is threading.main_thread():
            self._watcher = _watcher()
        if self._watcher is not None:
            with self._watcher.lock:
                self._watcher.tell()
                self._watcher.open.append(self)
                self.previous = signal.set_wakeup_fd(self._watcher.sink, warn_on_full_buffer=False)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._watcher is None:
            return
        signal.set_wakeup_fd(self.previous, warn_on_full_buffer=False)
        with self._watcher.lock:
            self._watcher.tell()
            self._watcher.open.remove(self)
            self.pool.interrupt()

    def told(self, numbers: bytes) -> float | None:
        """Signals have come, or it is time; when to look again. In the watcher's thread, with its lock."""
        ours = sum(n in SIGNALS for n in numbers)
        if self.deaf or (self.due is None and not ours):
            return None
        if self.grace is None:
            self.pool.interrupt(soft=True, hard=True, half=self.half)
            return None
        if self.due is None:
            self.due, ours = monotonic() + self.grace, ours - 1
            self.pool.interrupt(soft=True)
        if not ours and monotonic() < self.due:
            return self.due
        self.pool.interrupt(soft=True, hard=True, half=True)
        return None

    def again(self, deaf: bool = False) -> None:
        """Native code runs on as if nothing had come: until the next signal, or where `deaf` whatever comes."""
        self.due, self.deaf = None, deaf
        with self._watcher.lock if self._watcher is not None else nullcontext():
            if self.pool:
                self.pool.interrupt()


class Interrupt:
    """While a fit lasts Ctrl-C only raises a flag, and makes native code end; `check` then calls the handler there was
    (Python's own raises KeyboardInterrupt) where nothing is half done. So it is with SIGTERM where the process handles
    it. Other threads than the main one cannot catch signals; there it does nothing. Of several processes that train
    together, a signal to one is for all, as they `agree` on in `check` and at the end; neither steps nor callbacks are
    interrupted then."""

    def __init__(self, pool: Any, agree: Callable[[int], int] | None = None) -> None:
        self.watch = Watch(pool, GRACE)
        self.watch.deaf = self._deaf = agree is not None
        self._agree = agree
        self._got: list[int] = []
        self._previous: dict[int, Any] = {}
        self._telling = False

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if callable(previous := signal.getsignal(number)):
                    self._previous[number] = previous
                    signal.signal(number, self._raised)
        self.watch.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.watch.__exit__()
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        if exc[0] is None and (number := self._agreed()):
            self._deliver(number)

    def _raised(self, number: int, frame: Any) -> None:
        self._got.append(number)
        if self._telling and len(self._got) > 1 and self._agree is None:  # a callback that takes its time
            self._deliver(number)

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call a user's function, which the second signal interrupts wherever it is."""
        self._telling = True
        try:
            return call(*args)
        finally:
            self._telling = False

    def check(self) -> None:
        told = self.watch.due is not None or self.watch.deaf is not self._deaf
        if number := self._agreed():
            self._deliver(number)
        elif told:  # the signal went to a handler that was set meanwhile, and that let us go on
            self.watch.again(self._deaf)

    def _agreed(self) -> int:
        """The signal that has come, 0 for none. What comes while processes agree is for the next time: the others do
        not know of it."""
        number = self._got[0] if self._got else 0
        return number if self._agree is None else self._agree(number)

    def _deliver(self, number: int) -> None:
        self._got = []
        self._previous[number](number, None)
        self.watch.again(self._deaf)

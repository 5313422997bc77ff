"""A line of the terminal that changes while something lasts, and is gone before anything else is printed.

No thread draws it, for the compiler makes processes only where there are no other threads: `working` draws from a
timer's signal, which the main thread handles. What is drawn goes past Python's buffers, which a handler must not enter.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TextIO

from ...dsl.render import cells

FRAME = 0.1  # seconds between two pictures of a line
_COLUMNS = 80  # where the terminal does not say

_drawn: list[Line] = []  # the line that is on the screen, if any
_held: list[bool] = []  # not empty while no timer may draw


def is_live(stream: TextIO) -> bool:
    """Whether what was drawn there can be drawn over: on a terminal that knows how, not in a file or a pipe."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def columns(stream: TextIO) -> int:
    """How wide a terminal is."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


def clear() -> None:
    """Take the line off the screen."""
    while _drawn:
        _drawn.pop()._write("")


@contextmanager
def unwatched() -> Iterator[None]:
    """No `working` draws: the line there is says enough."""
    _held.append(True)
    try:
        yield
    finally:
        _held.pop()


@contextmanager
def printing() -> Iterator[None]:
    """Something else is printed: the line is off the screen, and comes again when it is drawn next."""
    with unwatched():
        clear()
        yield


class Line:
    """The line on this stream. It is never longer than the terminal is wide: a line that wraps cannot be drawn over."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._at = 0.0  # when it was last drawn

    @property
    def width(self) -> int:
        """How many columns there are for it: the last one stays free, where some terminals begin a new line."""
        return columns(self._stream) - 1

    @property
    def is_due(self) -> bool:
        """Whether the last picture is old, or gone."""
        return not _drawn or monotonic() - self._at >= FRAME

    def draw(self, text: str) -> None:
        while cells(text) > self.width:
            text = text[:-1]
        self._at = monotonic()
        self._write(text)
        _drawn[:] = [self]

    def _write(self, text: str) -> None:
        with suppress(OSError):  # of a terminal that is gone: what is printed next will say so
            os.write(self._stream.fileno(), f"\r{text}\x1b[K".encode(errors="replace"))


@contextmanager
def working(what: str, stream: TextIO) -> Iterator[None]:
    """While it lasts, say what takes long and for how long so far: `compiling train (1.2 s so far)`."""
    if not is_live(stream) or threading.current_thread() is not threading.main_thread():
        yield
        return
    line, start = Line(stream), monotonic()

    def tick(*_: Any) -> None:
        if not _held:
            line.draw(f"{what} ({monotonic() - start:.1f} s so far)")

    tick()
    handler = signal.signal(signal.SIGALRM, tick)
    timer = signal.setitimer(signal.ITIMER_REAL, FRAME, FRAME)  # that of what this is a part of, if any
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
        if not _held:
            clear()

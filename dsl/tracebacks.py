"""Tracebacks without our frames: what is wrong with a program, or with what was passed, is told by the caller's line.

In: an exception of ours. Out: lines for a notebook; on a terminal the frames of Python's own traceback, without ours.
With the environment variable `NNC_DEBUG` all are shown.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from traceback import format_exception
from types import TracebackType

from .diagnostics import Diagnostic
from .render import render

_ROOT = Path(__file__).parents[1]
_OURS = tuple(f"{_ROOT / room}{os.sep}" for room in ("dsl", "compiler", "runtime"))


def is_debugging() -> bool:
    """Whether all frames are wanted."""
    return bool(os.environ.get("NNC_DEBUG"))


def of_notebook(error: BaseException, diagnostics: tuple[Diagnostic, ...]) -> list[str]:
    """The line that called us, and the diagnostics."""
    if is_debugging():
        return format_exception(error)
    frames = list(_theirs(error.__traceback__))
    lines = []
    if frames:
        file, number = frames[-1].tb_frame.f_code.co_filename, frames[-1].tb_lineno
        lines = [f"line {number}:", f"    {linecache.getline(file, number).strip()}"]
    return [*lines, *(render(d, color=True) for d in diagnostics)]


def hide_ours(kind: type[BaseException]) -> None:
    """Python's own display of uncaught errors of this kind leaves our frames out from now on. One that somebody else
    installed stays."""
    if sys.excepthook is not sys.__excepthook__ or is_debugging():
        return

    def shown(type: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, kind):
            traceback = None
            for frame in reversed(list(_theirs(error.__traceback__))):
                traceback = TracebackType(traceback, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
            error.__traceback__ = traceback
        sys.__excepthook__(type, error, traceback)

    sys.excepthook = shown


def _theirs(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """The frames that are not ours, outermost first."""
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_OURS):
            yield traceback
        traceback = traceback.tb_next

"""How deep the stack becomes: the frames of functions as LLVM lays them out, added along the calls.

In: what LLVM says of frames, and which function calls which. Out: bytes for each function, with all that it calls. LLVM
tells frames in warnings alone, on the process's standard error, so that goes elsewhere while it emits an object.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ...dsl.record import dataclass, field
from .target import Target

ASKED = '"warn-stack-size"="0"'  # the attribute of a function that LLVM is to speak of
OUTSIDE = 128  # bytes for what a compiler's own library takes, such as the arithmetic of f64
_SAID = re.compile(rb"^warning: .*: stack frame size \((\d+)\) exceeds limit \(0\) in function '(.*)'\n?", re.MULTILINE)


@contextmanager
def frames() -> Iterator[Callable[[], dict[str, int]]]:
    """While LLVM emits: the bytes of each frame that it spoke of, to be asked at the end. What else was written to
    standard error in the meantime follows then."""
    found: dict[str, int] = {}
    if sys.stderr is not None:  # as it is where a process has none
        sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        before = _duplicate(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield lambda: found
        finally:
            if before is None:
                os.close(2)
            else:
                os.dup2(before, 2)
                os.close(before)
            aside.seek(0)
            text = aside.read()
            found.update((m[2].decode("utf-8", "replace"), int(m[1])) for m in _SAID.finditer(text))
            if before is not None and (rest := _SAID.sub(b"", text)):
                os.write(2, rest)


def _duplicate(descriptor: int) -> int | None:
    """Another of the same file; None where it is closed."""
    try:
        return os.dup(descriptor)
    except OSError:
        return None


@dataclass(slots=True)
class Function:
    """What counts of one: each call, of which function and with which functions as arguments; to where its frame is
    moved."""

    calls: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)
    alignment: int = 0


def depths(frames: Mapping[str, int], functions: Mapping[str, Function], target: Target) -> dict[str, int]:
    """At most so many bytes for each function, of which none calls itself: its frame, what it is moved by, what is
    pushed around it, and the deepest that it calls; what that is given it may call on top."""
    known: dict[str, int] = {}
    pushed = target.pointer_bits // 8 * (7 if target.triple.startswith("x86_64") else 2)

    def depth(name: str) -> int:
        if name not in functions:
            return OUTSIDE
        if name not in known:
            f, frame = functions[name], frames.get(name, 0)
            moved = max(f.alignment, target.vector_bytes) if frame else 0
            calls = (depth(callee) + max(map(depth, given), default=0) for callee, given in f.calls)
            known[name] = frame + moved + pushed + max(calls, default=0)
        return known[name]

    return {name: depth(name) for name in functions}

"""Processes that judge, watched from outside: what dies or does not end is a failure of the program it was at.

A child judges a block of numbers and says through a pipe what it begins and what it found. The parent reads, looks at
the CPU each child has used, ends those that went too far, and starts another behind the number that failed; behind a
block that is done it starts the next, so that all children have work until the end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait

from .judge import Verdict

Judge = Callable[[int], Verdict]
SECONDS = 40.0  # of CPU for one program: what is slower does not answer to the judge's own limit
WALL_SECONDS = 240.0  # for one that waits for itself
BLOCK = 100  # numbers of one child
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass
class _Child:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    rest: list[int]
    at: int | None = None
    cpu: float = 0.0
    since: float = field(default_factory=time.monotonic)  # when it last said something


def verdicts(judge: Judge, numbers: Sequence[int], jobs: int = 1) -> Iterator[tuple[int, Verdict]]:
    """(number, verdict) in the order in which they come."""
    blocks = iter([list(numbers[k : k + BLOCK]) for k in range(0, len(numbers), BLOCK)])
    children = [_start(judge, block) for block in islice(blocks, jobs)]
    try:
        while children:
            ready = wait([c.pipe for c in children], timeout=1.0)
            for child in list(children):
                if child.pipe in ready:
                    yield from _read(child, children, judge)
                elif _too_long(child):
                    child.process.kill()
                    child.process.join()
                    if child.at is None:
                        raise RuntimeError("a process hangs before it begins, or after it has ended")
                    yield child.at, Verdict("failed", "hang", f"more than {SECONDS:.0f} s of CPU, or asleep")
                    _restart(child, children, judge)
            children += [_start(judge, block) for block in islice(blocks, jobs - len(children))]
    finally:
        for child in children:
            child.process.kill()


def _start(judge: Judge, rest: list[int]) -> _Child:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(judge, rest, ours, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Child(process, ours, rest)


def _work(judge: Judge, rest: list[int], other: Connection, pipe: Connection) -> None:
    other.close()  # so that a send fails when the parent is gone
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in rest:
        pipe.send((number, None))
        pipe.send((number, judge(number)))


def _read(child: _Child, children: list[_Child], judge: Judge) -> Iterator[tuple[int, Verdict]]:
    try:
        number, verdict = child.pipe.recv()
    except EOFError:
        child.process.join()
        if child.at is None:
            children.remove(child)
        else:
            code = child.process.exitcode or 0
            name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            yield child.at, Verdict("failed", f"died: {name}", f"the process ended by {name}")
            _restart(child, children, judge)
        return
    if verdict is None:
        child.at, child.cpu, child.since = number, _cpu(child), time.monotonic()
    else:
        child.at, child.since = None, time.monotonic()
        child.rest = child.rest[child.rest.index(number) + 1 :]
        yield number, verdict


def _restart(child: _Child, children: list[_Child], judge: Judge) -> None:
    children.remove(child)
    rest = child.rest[child.rest.index(child.at) + 1 :]
    if rest:
        children.append(_start(judge, rest))


def _too_long(child: _Child) -> bool:
    busy = child.at is not None and _cpu(child) - child.cpu > SECONDS
    return busy or time.monotonic() - child.since > WALL_SECONDS


def _cpu(child: _Child) -> float:
    """Seconds of CPU a child has used."""
    try:
        with open(f"/proc/{child.process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS

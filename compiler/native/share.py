"""Work shared among processes: the children are forked from this one, so they know all it knows.

In: names and what makes bytes of some of them. Out: the bytes of each. Python and llvmlite each let one thread work at
a time, so that threads do not use the processors there are. A child sends back what it made through a pipe; where it
could not, or where the system grants no more of them or of pipes, this process does its share, and meets the error
itself.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress

Work = Callable[[Iterable[str]], dict[str, bytes]]


def share(work: Work, names: Sequence[str], processes: int) -> dict[str, bytes]:
    """What `work` makes of `names`, in up to `processes` processes; whoever is free takes the next. In this one alone
    where it has other threads, whose locks a child would find as they are now."""
    count = min(processes, len(names)) if hasattr(os, "fork") and threading.active_count() == 1 else 1
    if count < 2:
        return work(names)
    with ExitStack() as ending:
        pipes: list[int] = []
        try:
            rest = _queue(names, ending)
        except OSError:
            return work(names)
        with suppress(OSError):
            for _ in range(1, count):
                pipes.append(_child(work, rest, ending))
        made = work(rest)
        for pipe in pipes:
            made |= _received(pipe)
    missing = [name for name in names if name not in made]
    return made | work(missing) if missing else made


def _queue(names: Sequence[str], ending: ExitStack) -> Iterator[str]:
    """The names, each to be had once by one of the processes: a byte of a pipe stands for every 256th of them."""
    source, sink = os.pipe()
    ending.callback(os.close, source)
    os.write(sink, bytes(range(min(256, len(names)))))
    os.close(sink)
    return (name for byte in iter(lambda: os.read(source, 1), b"") for name in names[byte[0] :: 256])


def _child(work: Work, names: Iterable[str], ending: ExitStack) -> int:
    """A child at work; the pipe to read from. When `ending` is closed the child is gone."""
    source, sink = os.pipe()
    with warnings.catch_warnings():  # of threads: those of NumPy hold nothing that the child needs
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            child = os.fork()
        except OSError:
            os.close(source)
            os.close(sink)
            raise
    if child == 0:
        try:
            with open(sink, "wb") as file:
                file.write(pickle.dumps(work(names)))
        finally:
            os._exit(0)
    os.close(sink)
    ending.callback(os.waitpid, child, 0)
    ending.callback(os.kill, child, signal.SIGKILL)
    ending.callback(os.close, source)
    return source


def _received(pipe: int) -> dict[str, bytes]:
    with open(pipe, "rb", closefd=False) as file:
        try:
            made: dict[str, bytes] = pickle.loads(file.read())
        except (EOFError, pickle.UnpicklingError):
            return {}
    return made

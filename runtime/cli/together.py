"""A command that several processes run together, as MPI starts them: the first one speaks for all.

In: a command with a parameter `ranks`. Out: the command that `mpirun` starts: an error of one process ends all, and is
said once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..distributed.launch import launched

if TYPE_CHECKING:
    from ..distributed.ranks import Ranks

T = TypeVar("T")
_LONGEST = 3600.0  # seconds that others wait for what one does for all


def together(command: Callable[..., int]) -> Callable[..., int]:
    """The command, given the `ranks` that it runs in: None where this process is alone."""

    @wraps(command)
    def in_ranks(*args: Any, **kwargs: Any) -> int:
        ranks = _ranks() if launched() is not None else None
        if ranks is None:
            return command(*args, ranks=None, **kwargs)
        if ranks.rank:  # only the first process prints
            sys.stdout = sys.stderr = open(os.devnull, "w")
        from ..call.column import on_disk

        with ranks.together(), on_disk():
            try:
                return command(*args, ranks=ranks, **kwargs)
            except click.ClickException as e:  # of the command line, which is that of all
                wrong = e
        raise wrong

    return in_ranks


def _ranks() -> Ranks | None:
    from ..distributed.ranks import Ranks

    return Ranks.here(watched=True)


def threads_of(ranks: Ranks | None, threads: int | None) -> int | None:
    """How many threads a process has: as given, or its share of the processors that several may use."""
    if ranks is None or threads is not None:
        return threads
    mine = ranks.host, sorted(os.sched_getaffinity(0))
    return max(1, len(mine[1]) // ranks.gather(mine).count(mine))


def by_first(ranks: Ranks | None, work: Callable[[], T]) -> T:
    """What the first process finds, on all."""
    if ranks is None:
        return work()
    found: T = ranks.first(work() if ranks.rank == 0 else None)
    return found


def first_by_first(ranks: Ranks | None, work: Callable[[], T]) -> T:
    """What `work` gives on each process; the first does it before the others, who find in the cache what it made."""
    if ranks is None:
        return work()
    limit, ranks.limit = ranks.limit, max(ranks.limit, _LONGEST)
    found = [work()] if ranks.rank == 0 else []
    ranks.most(0)
    found = found or [work()]
    ranks.most(0)
    ranks.limit = limit
    return found[0]

"""The processes of one training, and what they agree on.

In: a communicator of mpi4py, or what an MPI launcher left in the environment. Out: `Ranks`: which of how many this is,
small values exchanged, facts compared, waits that end, and one voice when it goes wrong. All ranks call the same
methods in the same order, `wait`, `at` and `abort` aside."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from threading import Lock
from traceback import format_exc
from typing import Any, NoReturn

import numpy as np

from ...dsl.errors import NncError, RankError, UnsupportedError, error
from ..call.messages import argument_error
from ..extras import optional
from . import watch
from .launch import Launch, launched
from .rollcall import Calls, RollCall
from .tree import owned

LIMIT = 30.0  # seconds that a wait for others may take
_WHY = "processes that train together talk by mpi4py"
_SHOWN = 8  # differences that are listed


class Ranks:
    """The processes of a communicator; a library's own calls on `comm` do not meet ours. `limit` is how many seconds
    a wait for others may take, by default `NNC_RANKS_LIMIT` or 30."""

    def __init__(self, comm: Any, limit: float | None = None):
        mpi = _mpi()
        self.calls = Calls(mpi, Lock())
        with self.calls:
            self.comm, beside = comm.Dup(), comm.Dup()
            for c in (self.comm, beside):
                c.Set_errhandler(mpi.ERRORS_RETURN)
            self.rank: int = self.comm.Get_rank()
            self.size: int = self.comm.Get_size()
        watch.begun()
        self._roll = RollCall(self.calls, beside, _limit(limit))
        self._tags = 0
        self.hosts: list[str] = self.gather(mpi.Get_processor_name())
        self._roll.hosts = self.hosts

    @classmethod
    def here(cls, watched: bool = False, limit: float | None = None) -> Ranks | None:
        """The processes that an MPI launcher started, None where this one is alone. `watched` forks: then the process
        that the launcher knows watches over this one and says how it died; call it before there are threads. Raises
        UnsupportedError (E0503) without mpi4py, RankError (E0617) where MPI does not know of the launcher."""
        launch = launched()
        if launch is None or launch.size == 1:
            return None
        optional("mpi4py", "mpi", _WHY)  # says so before there are two processes
        if watched:
            watch.begin(launch)
        world = _mpi().COMM_WORLD
        if world.Get_size() != launch.size:
            raise _not_together(launch, world.Get_size())
        return cls(world, limit)

    @property
    def host(self) -> str:
        return self.hosts[self.rank]

    @property
    def limit(self) -> float:
        """How many seconds a wait for others may take; to be set higher while some ranks do what takes long."""
        return self._roll.limit

    @limit.setter
    def limit(self, seconds: float) -> None:
        self._roll.limit = _limit(seconds)

    def at(self, where: str) -> None:
        """Say what this rank is at, as messages name it: `epoch 2, step 17`. Costs a microsecond."""
        self._roll.where = where
        watch.at(where)

    def owned(self, shards: int) -> range:
        """The shards of this rank (E0603)."""
        return owned(self.rank, self.size, shards)

    def tag(self) -> int:
        """A number for messages that nobody else has; the same on all ranks that make the same things in the same
        order."""
        self._tags += 1
        return self._tags

    # --- waits --------------------------------------------------------------------------------------------------------

    def wait(self, is_over: Callable[[], bool]) -> None:
        """Return when `is_over` says so. Raises RankError (E0618) naming the ranks that do not come within the
        limit."""
        self._roll.wait(is_over)

    def abort(self, message: str, code: int = 1) -> NoReturn:
        """End all ranks. The message is said once: where several abort at about the same time, the first rank's."""
        self._roll.abort(message, code)

    @contextmanager
    def together(self) -> Iterator[None]:
        """While it lasts, an error of this rank ends all, and all leave it at the same time. What all ranks have
        agreed to raise is caught within it."""
        try:
            yield
            self.most(0)  # MPI itself would spin until all have come to its end
        except RankError as e:
            self.abort(str(e), e.exit_code)
        except NncError as e:
            self.abort(f"{self._roll.name(self.rank)}:\n{e}", e.exit_code)
        except KeyboardInterrupt:
            self.abort(f"{self._roll.name(self.rank)} was interrupted", 130)
        except Exception:
            self.abort(f"{self._roll.name(self.rank)}:\n{format_exc()}", 1)

    # --- small values -------------------------------------------------------------------------------------------------

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, on all, in the order of ranks. They are pickled."""
        mine = np.frombuffer(pickle.dumps(value), np.uint8)
        lengths = np.empty(self.size, np.int64)
        with self.calls:
            request = self.comm.Iallgather(np.array([len(mine)], np.int64), lengths)
        self.wait(self._done(request))
        ends = np.cumsum(lengths)
        all = np.empty(int(ends[-1]), np.uint8)
        with self.calls:
            request = self.comm.Iallgatherv(mine, [all, lengths])
        self.wait(self._done(request))
        return [pickle.loads(all[end - length : end].tobytes()) for end, length in zip(ends, lengths, strict=True)]

    def first(self, value: Any) -> Any:
        """Rank 0's value, on all."""
        return self.gather(value if self.rank == 0 else None)[0]

    def most(self, n: int) -> int:
        """The greatest of the ranks' numbers, on all."""
        mine, greatest = np.array([n], np.int64), np.empty(1, np.int64)
        with self.calls:
            request = self.comm.Iallreduce(mine, greatest, self.calls.mpi.MAX)
        self.wait(self._done(request))
        return int(greatest[0])

    def same(self, facts: Mapping[str, str]) -> None:
        """Raises RankError (E0617), on all ranks, where a rank has other facts than rank 0: says which, and of whom."""
        first, *others = self.gather(dict(facts))
        found = [
            f"{self._roll.name(rank)} has another {fact} than {self._roll.name(0)}: "
            f"{theirs.get(fact, 'none')} instead of {first.get(fact, 'none')}"
            for rank, theirs in enumerate(others, 1)
            for fact in {**first, **theirs}
            if theirs.get(fact) != first.get(fact)
        ]
        if found:
            more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
            raise error("E0617", "\n".join([*found[:_SHOWN], *more]), kind=RankError)

    def _done(self, request: Any) -> Callable[[], bool]:
        def is_over() -> bool:
            with self.calls:
                return bool(request.Test())

        return is_over


def _mpi() -> Any:
    """MPI, which begins when this is imported. Raises UnsupportedError (E0503) without mpi4py, or an MPI to load."""
    try:
        return optional("mpi4py.MPI", "mpi", _WHY)
    except NncError:
        raise
    except RuntimeError as e:
        message = f"mpi4py finds no MPI: {str(e).splitlines()[0]}"
        help = "load your cluster's module, or pip install 'nnc[mpi]'"
        raise error("E0503", message, kind=UnsupportedError, help=help) from e


def _limit(seconds: float | None) -> float:
    text = os.environ.get("NNC_RANKS_LIMIT", LIMIT) if seconds is None else seconds
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        name = "NNC_RANKS_LIMIT" if seconds is None else "limit"
        raise argument_error("E0603", f"{name} = {text}: wanted a number of seconds above 0")
    return value


def _not_together(launch: Launch, size: int) -> NncError:
    message = f"the launcher started {launch.size} processes, but for MPI there {'is' if size == 1 else 'are'} {size}"
    help = "start with the `mpirun` of the MPI that mpi4py loads; under Slurm with `srun --mpi=pmi2` or `--mpi=pmix`"
    return error("E0617", message, kind=RankError, help=help)

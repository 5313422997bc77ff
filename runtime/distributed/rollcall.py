"""Waiting for other ranks: never for ever, and when it took too long, who is missing.

A wait looks again and again whether it is over and sleeps in between, so that ranks that share a processor leave it to
one another. A rank that has waited longer than its limit calls the others; who waits as well answers, and who does not
answer in `GRACE` seconds is missing: it was stopped, has died, or is busy with something else. Answers are small
messages on a communicator of their own; nothing runs beside the wait."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any, NoReturn

from ...dsl.errors import RankError, error
from . import watch

GRACE = 5.0  # seconds to answer a call, where the limit is not less
_STRETCHED = 50.0  # seconds to which slow exchanges may stretch the limit: with a call all still end within a minute
_ENDING = 2.0  # seconds that a launcher has to end all ranks after one has aborted; some end those of its machine only
_EVERY = 0.02  # seconds between looks for messages
_QUIET = 0.2  # seconds of a wait in which nobody listens
_YIELDING = 0.2  # seconds of a wait in which the processor is offered to others, but not left
_LONGEST_SLEEP = 1e-3
_CALL, _HERE, _FAILED = b"c", b"h", b"f"


class Calls:
    """The MPI of one rank: every call is made with it as a context, by one thread at a time. An error of MPI in it
    becomes a RankError (E0618)."""

    def __init__(self, mpi: Any, lock: Any):
        self.mpi, self._lock = mpi, lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: object, e: BaseException | None, trace: object) -> None:
        self._lock.release()
        if isinstance(e, self.mpi.Exception):
            raise error("E0618", f"the connection to another rank was lost: {e}", kind=RankError) from e


class RollCall:
    """The waits of a rank. `limit` is how many seconds one may take, or three times what the one before took; `where`
    is what this rank is at, for messages."""

    def __init__(self, calls: Calls, comm: Any, limit: float):
        self.calls, self.comm, self.limit, self.where = calls, comm, limit, ""
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.hosts: Sequence[str] = ()
        self._took = 0.0  # the wait before
        self._here: set[int] = set()  # who answered the last call
        self._failed: dict[int, float] = {}  # ranks that abort, and when that was known
        self._sent: list[tuple[Any, bytes]] = []  # messages under way: not all are ever received

    def name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts[rank]}" if self.hosts else f"rank {rank}"

    def wait(self, is_over: Callable[[], bool]) -> None:
        """Return when `is_over`, which is called often, says so. Raises RankError (E0618) with the ranks that are
        missing where that takes longer than the limit."""
        begun, listened, left = monotonic(), 0.0, None
        while not is_over():
            now = monotonic()
            waited = now - begun
            if waited > _QUIET and now > listened + _EVERY:
                self._listen()
                listened = now
                if self._failed and now > min(self._failed.values()) + _ENDING:
                    self._die(1)
                if left is not None:
                    left -= 1
                    if not left:
                        raise self._missing(waited)
                elif waited > max(self.limit, min(3 * self._took, _STRETCHED)):
                    self._here.clear()
                    self._tell(_CALL)
                    left = int(min(GRACE, self.limit) / _EVERY) + 1  # not by the clock: machines are suspended, too
            _rest(waited)
        self._took = monotonic() - begun

    def abort(self, message: str, code: int) -> NoReturn:
        """Say why all end, and end them. Where several ranks fail at once, the first of them speaks."""
        self._tell(_FAILED)
        begun = monotonic()
        while monotonic() < begun + 1:
            self._listen()
            sleep(0.01)
        if min(self._failed, default=self.size) < self.rank:
            sleep(_ENDING)
        else:
            print(message, file=sys.__stderr__, flush=True)  # also where this rank is not the one that prints
        self._die(code)

    def _die(self, code: int) -> NoReturn:
        """End all, as far as the launcher does it, and this process in any case. It was said why."""
        watch.told()
        with self.calls:
            self.comm.Abort(code)
        os._exit(code)

    def _missing(self, waited: float) -> Exception:
        missing = [r for r in range(self.size) if r != self.rank and r not in self._here]
        at = f" to {self.where}" if self.where else ""
        if not missing:
            message = (
                f"all ranks wait for one another{at} for {waited:.0f} s: messages are lost, or they do not do the same"
            )
        else:
            who = ", ".join(map(self.name, missing[:8])) + (" and others" if len(missing) > 8 else "")
            message = f"{who} {'has' if len(missing) == 1 else 'have'} not come{at} for {waited:.0f} s"
        help = "stopped, out of memory, or busy for longer than the limit, which `NNC_RANKS_LIMIT=SECONDS` sets"
        return error("E0618", message, kind=RankError, help=help)

    def _tell(self, kind: bytes, to: int | None = None) -> None:
        """A message to one rank, or to all others; whether they ever receive it does not matter."""
        with self.calls:
            self._sent = [(request, text) for request, text in self._sent if not request.Test()]
            for rank in range(self.size) if to is None else (to,):
                if rank != self.rank:
                    self._sent.append((self.comm.Isend(kind, rank), kind))

    def _listen(self) -> None:
        """Take the messages that have come, and answer calls."""
        status, text = self.calls.mpi.Status(), bytearray(1)
        answers = []
        with self.calls:
            while self.comm.Iprobe(status=status):
                sender = status.Get_source()
                self.comm.Recv(text, sender)
                if text == _FAILED:
                    self._failed.setdefault(sender, monotonic())
                    watch.told()  # another says why
                else:
                    self._here.add(sender)
                if text == _CALL:
                    answers.append(sender)
        for rank in answers:
            self._tell(_HERE, rank)


def pause(waited: float) -> float:
    """For how many seconds the processor is left to others, after a wait of so many; 0: it is offered to them. Messages
    move on only while one looks, so that a sleep delays those of all ranks."""
    return 0.0 if waited < _YIELDING else min(waited / 100, _LONGEST_SLEEP)


def _rest(waited: float) -> None:
    if seconds := pause(waited):
        sleep(seconds)
    else:
        os.sched_yield()

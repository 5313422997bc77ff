"""Sums of vectors over shards and ranks, the same bits on every rank; several may be under way at a time.

In: a vector for each of the rank's shards. Out: the sum over all shards, on all ranks. `TreeSum` has the same bits
whatever the number of ranks; `PlainSum` is MPI's own, whose bits depend on it. A sum is used again and again: buffers
are made once.

    for shard in total.shards:
        total.add(shard, values)  # read before it returns
    total.begin(out)              # returns at once
    ...                           # `total.advance()` now and then moves it on
    total.end()                   # `out` is the sum
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...dsl.errors import ArgumentTypeError
from ..call.messages import argument_error
from .ranks import Ranks
from .tree import Node, cut, owned, roots, sums

_DIRECT = 64 << 10  # bytes that a rank may send at once: up to that each rank adds all of the vector
LINE = 64  # bytes of a cache line
_IDLE, _SCATTERED, _GATHERED = range(3)  # the exchange of pieces, and that of their sums

_Messages: TypeAlias = list[tuple[NDArray[Any], int]]  # views, and to or from which rank


def _quiet() -> np.errstate:
    """Infinities and NaNs are found by who looks at the sum."""
    return np.errstate(over="ignore", invalid="ignore")


def is_direct(nbytes: int, size: int) -> bool:
    """Whether each of `size` ranks adds all of a vector, instead of a piece of it."""
    return nbytes * (size - 1) <= _DIRECT


class Sum(ABC):
    """What the sums have in common. `ranks` None is one process, in which no MPI is used. All ranks make the same sums
    in the same order, and begin them in the same order.

    - `shards`: those of this rank, to be added in ascending order.
    - Raises ArgumentError where shards and ranks do not fit (E0603), or a vector is another than announced (E0601,
      E0602)."""

    def __init__(self, ranks: Ranks | None, shards: int, length: int, dtype: DTypeLike):
        self.ranks = ranks if ranks is not None and ranks.size > 1 else None
        self.rank, self.size = (self.ranks.rank, self.ranks.size) if self.ranks is not None else (0, 1)
        self.shards = owned(self.rank, self.size, shards)
        self.length, self.dtype = length, np.dtype(dtype)
        self.added = 0  # how many of the shards
        self.out: NDArray[Any] | None = None  # while the exchange is under way

    def add(self, shard: int, values: NDArray[Any]) -> None:
        """The vector of a shard; it is read before this returns, and not changed."""
        if self.out is not None:
            raise argument_error("E0603", "the sum before has not ended, and what is added would be sent with it")
        if self.added == len(self.shards) or shard != self.shards[self.added]:
            raise argument_error(
                "E0603", f"shard {shard} is not the next of {self.shards}, of which {self.added} are added"
            )
        self._check(values)
        with _quiet():
            self._add(shard, values)
        self.added += 1

    def begin(self, out: NDArray[Any]) -> None:
        """All shards were added: start the exchange. `out` is not to be touched until `end`; it may be what was
        added."""
        if self.added < len(self.shards):
            raise argument_error("E0603", f"{self.added} of {len(self.shards)} shards are added")
        self._check(out)
        if not out.flags.c_contiguous:
            raise argument_error("E0601", f"a vector with strides of {out.strides[0]} bytes: wanted one without gaps")
        self.out, self.added = out, 0
        self._begin(out)

    def forget(self) -> None:
        """Drop what was added since the last `begin`: a step that is not finished. All ranks do."""
        self.added = 0

    @abstractmethod
    def advance(self) -> bool:
        """Move the exchange on, without waiting; whether it is over."""

    def end(self) -> None:
        """Wait until `out` is the sum. Raises RankError (E0618) naming the ranks that do not come."""
        if self.ranks is not None:
            self.ranks.wait(self.advance)
        self.out = None

    @abstractmethod
    def _add(self, shard: int, values: NDArray[Any]) -> None: ...

    @abstractmethod
    def _begin(self, out: NDArray[Any]) -> None: ...

    def _check(self, values: NDArray[Any]) -> None:
        if values.shape != (self.length,):
            raise argument_error("E0601", f"a vector of shape {values.shape}: wanted ({self.length},)")
        if values.dtype != self.dtype:
            raise argument_error("E0602", f"a vector of {values.dtype}: wanted {self.dtype}", kind=ArgumentTypeError)


class TreeSum(Sum):
    """The sum in the order of the tree (`tree`).

    Reduce-scatter and all-gather: each rank receives its piece of all roots of the others, adds them as the tree says,
    and sends the sum to the others; so each sends and receives twice the vector where it has one root. A short vector
    is sent whole, and each rank adds all of it: one exchange less."""

    def __init__(self, ranks: Ranks | None, shards: int, length: int, dtype: DTypeLike):
        super().__init__(ranks, shards, length, dtype)
        self._open: list[tuple[Node, NDArray[Any]]] = []  # sums so far, from left to right
        self._places = self._buffers()
        self._stage = _IDLE
        self._requests: list[Any] = []
        if self.ranks is not None:
            self._plan(self.ranks, shards)

    def _buffers(self) -> dict[int, NDArray[Any]]:
        """Where a node is summed, by its first shard. Below a root, of the nodes that are open at a time no two first
        shards are multiples of the same power of two, so that a buffer for each power is enough."""
        firsts = {node.first for node in roots(self.shards)}
        powers: dict[int, NDArray[Any]] = {}
        places = {}
        for shard in self.shards:
            if shard in firsts:
                places[shard] = np.empty(self.length, self.dtype)
            elif not shard & 1:
                power = shard & -shard
                if power not in powers:
                    powers[power] = np.empty(self.length, self.dtype)
                places[shard] = powers[power]
        return places

    def _plan(self, ranks: Ranks, shards: int) -> None:
        """What is sent, received and added: views of buffers, in the order in which they meet."""
        self._direct = is_direct(self.length * self.dtype.itemsize, self.size)
        align = max(1, LINE // self.dtype.itemsize)
        self._pieces = [slice(0, self.length)] * self.size if self._direct else cut(self.length, self.size, align)
        mine = self._pieces[self.rank]
        self._others = [(self.rank + k) % self.size for k in range(1, self.size)]  # not all to the same at a time
        self._tags = ranks.tag(), ranks.tag()
        nodes, parts = [], []
        self._received, self._sent = [], []
        for rank in range(self.size):
            for node in roots(owned(rank, self.size, shards)):
                nodes.append(node)
                if rank == self.rank:
                    whole = self._places[node.first]
                    parts.append(whole[mine])
                    self._sent += [(whole[self._pieces[other]], other) for other in self._others]
                else:
                    parts.append(np.empty(mine.stop - mine.start, self.dtype))
                    self._received.append((parts[-1], rank))
        self._sums = [(parts[left], parts[right]) for left, right in sums(nodes)]

    def forget(self) -> None:
        super().forget()
        self._open.clear()

    def _add(self, shard: int, values: NDArray[Any]) -> None:
        node, total = Node(shard, 1), values
        while self._open and self._open[-1][0].meets(node):
            left, buffer = self._open.pop()
            total = np.add(buffer, total, out=buffer)
            node = left.above
        if total is values:
            total = self._places[shard]
            np.copyto(total, values)
        self._open.append((node, total))

    def _begin(self, out: NDArray[Any]) -> None:
        whole = self._open[0][1]
        self._open.clear()
        if self.ranks is None:
            np.copyto(out, whole)
            return
        self._stage = _SCATTERED
        self._requests = self._exchange(self.ranks, self._received, self._sent, self._tags[0])

    def advance(self) -> bool:
        while self._stage != _IDLE and self.ranks is not None and self.out is not None:
            with self.ranks.calls:
                if not self.ranks.calls.mpi.Request.Testall(self._requests):
                    return False
            if self._stage == _SCATTERED:
                with _quiet():
                    self._add_pieces(self.out)
            if self._stage == _GATHERED or self._direct:
                self._stage = _IDLE
            else:
                self._stage = _GATHERED
                pieces = [(self.out[self._pieces[rank]], rank) for rank in self._others]
                mine = self.out[self._pieces[self.rank]]
                self._requests = self._exchange(
                    self.ranks, pieces, [(mine, rank) for rank in self._others], self._tags[1]
                )
        return True

    def _add_pieces(self, out: NDArray[Any]) -> None:
        """What was received and our own, to the sum in our piece of `out`."""
        *below, (left, right) = self._sums
        for a, b in below:
            np.add(a, b, out=a)
        np.add(left, right, out=out[self._pieces[self.rank]])

    @staticmethod
    def _exchange(ranks: Ranks, received: _Messages, sent: _Messages, tag: int) -> list[Any]:
        byte, comm = ranks.calls.mpi.BYTE, ranks.comm
        with ranks.calls:
            return [comm.Irecv([view, byte], rank, tag) for view, rank in received] + [
                comm.Isend([view, byte], rank, tag) for view, rank in sent
            ]


class PlainSum(Sum):
    """The sum in the order that MPI chooses: the bits depend on the number of ranks."""

    def __init__(self, ranks: Ranks | None, shards: int, length: int, dtype: DTypeLike):
        super().__init__(ranks, shards, length, dtype)
        self._sum = np.empty(length, self.dtype)
        self._request: Any = None

    def _add(self, shard: int, values: NDArray[Any]) -> None:
        if shard == self.shards[0]:
            np.copyto(self._sum, values)
        else:
            np.add(self._sum, values, out=self._sum)

    def _begin(self, out: NDArray[Any]) -> None:
        if self.ranks is None:
            np.copyto(out, self._sum)
            return
        with self.ranks.calls:
            self._request = self.ranks.comm.Iallreduce(self._sum, out)

    def advance(self) -> bool:
        if self._request is not None and self.ranks is not None:
            with self.ranks.calls:
                if not self._request.Test():
                    return False
            self._request = None
        return True

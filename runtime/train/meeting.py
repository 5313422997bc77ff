"""Where the shards of a batch meet: the sums that a stage of a step makes, and their exchange between processes.

In: a stage, which writes what a shard adds to each sum, and says on its way which are complete (`Signature.marks`).
Out: the sums over all shards, where the next stage reads them. Those of a mark and a dtype lie in one vector; while the
last shard of a process is computed, a thread hands on the vectors that are complete, so that they travel meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np

from ...compiler.manifest import Port
from ...compiler.types.sizes import substitute
from ..call.arrays import ALIGNMENT, NUMPY, aligned
from ..call.calls import Call
from ..call.column import Array
from ..distributed.ranks import Ranks
from ..distributed.sums import PlainSum, TreeSum
from .trace import Spans

WORTH = 2e-3  # seconds of a shard, from which on vectors are handed on meanwhile
_LOOK = 1e-4  # seconds between two looks at the mark


@dataclass(slots=True)
class _Vector:
    """Sums of one dtype that are complete at one mark: `part` is what a shard adds, `total` what all come to."""

    mark: int
    offsets: dict[str, int]  # of each sum, in elements
    part: Array
    total: Array
    over: TreeSum | PlainSum
    begun: float = 0.0  # when its exchange began

    def addresses(self, of: Array) -> Iterator[tuple[str, int]]:
        for name, offset in self.offsets.items():
            yield name, of.ctypes.data + offset * of.itemsize


class Meeting:
    """The sums of one stage. Each process adds its shards in their order, then all `end` together."""

    def __init__(
        self, call: Call, sizes: Mapping[str, int], ranks: Ranks | None, shards: int, plain: bool, spans: Spans
    ):
        self.call, self.ranks, self._spans = call, ranks, spans
        self._kind, self._shards = PlainSum if plain else TreeSum, shards
        ports = {p.name: p for p in call.signature.outputs}
        self._vectors: list[_Vector] = []
        for k, names in enumerate(call.signature.marks, 1):
            for dtype in dict.fromkeys(ports[name].dtype for name in names):
                self._vectors.append(self._vector(k, [ports[n] for n in names if ports[n].dtype == dtype], sizes))
        self._faults = self._vector(len(call.signature.marks) + 1, [Port("faults", "i64", ())], sizes)
        self._vectors.append(self._faults)
        self._taken = 0  # how many vectors have the last shard
        self._under_way: list[_Vector] = []
        self._over = True
        self._thread = ThreadPoolExecutor(1) if ranks is not None and ranks.size > 1 else None

    def _vector(self, mark: int, ports: list[Port], sizes: Mapping[str, int]) -> _Vector:
        dtype = NUMPY[ports[0].dtype]
        line = ALIGNMENT // dtype.itemsize
        offsets, end = {}, 0
        for port in ports:
            offsets[port.name] = end
            size = substitute(port.type.size, sizes)
            assert isinstance(size, int)
            end += -(-size // line) * line
        part, total = (aligned((end,), dtype, "sums over shards") for _ in range(2))
        return _Vector(mark, offsets, part, total, self._kind(self.ranks, self._shards, end, dtype))

    def parts(self) -> dict[str, int]:
        """Where a shard writes what it adds, by name."""
        return {name: at for v in self._vectors for name, at in v.addresses(v.part)}

    def totals(self) -> dict[str, int]:
        """Where the sums are, by name."""
        return {name: at for v in self._vectors for name, at in v.addresses(v.total)}

    @property
    def vectors(self) -> list[tuple[int, int]]:
        """Of each vector that is exchanged the mark at which it is complete, and its bytes."""
        return [(v.mark, v.part.nbytes) for v in self._vectors]

    @property
    def is_finite(self) -> bool:
        """Whether all that the shard adds is, which was computed last."""
        return all(bool(np.isfinite(v.part).all()) for v in self._vectors)

    def clear(self) -> None:
        """The next shard adds nothing."""
        for v in self._vectors:
            v.part.fill(0)

    def add(self, shard: int, failed: bool = False) -> None:
        """Add what a shard has written, all that is not yet added; or it has failed."""
        self._faults.part[0] = failed
        for v in self._vectors[self._taken :]:
            v.over.add(shard, v.part)
        self._taken = 0

    def forget(self) -> None:
        """What was added is of a step that is not finished."""
        for v in self._vectors:
            v.over.forget()
        self._taken = 0

    @contextmanager
    def handing_on(self, shard: int, seconds: float) -> Iterator[None]:
        """While it lasts the last shard of this process is computed, which takes about so many seconds; what is
        complete is added and sent."""
        if self._thread is None or seconds < WORTH:
            yield
            return
        self.call.mark[0], self._over = 0, False
        handed = self._thread.submit(self._hand_on, shard)
        try:
            yield
        finally:
            self._over = True
            handed.result()

    def _hand_on(self, shard: int) -> None:
        while not self._over:
            done = int(self.call.mark[0])
            while self._vectors[self._taken].mark <= done:
                v = self._vectors[self._taken]
                v.over.add(shard, v.part)
                self._begin(v)
                self._taken += 1
            self._advance()
            sleep(_LOOK)

    def _begin(self, v: _Vector) -> None:
        v.begun = perf_counter()
        v.over.begin(v.total)
        self._under_way.append(v)

    def _advance(self) -> None:
        for v in list(self._under_way):
            if v.over.advance():
                self._ended(v)

    def _ended(self, v: _Vector) -> None:
        self._under_way.remove(v)
        if self._thread is not None:
            self._spans.add(f"exchange {v.mark}", v.begun)

    def end(self) -> int:
        """The sums are in `totals`. How many shards failed."""
        begun = [v for v in self._vectors if v.begun]
        for v in self._vectors[len(begun) :]:
            self._begin(v)
        for v in self._vectors:
            v.over.end()
            if v in self._under_way:
                self._ended(v)
            v.begun = 0.0
        return int(self._faults.total[0])

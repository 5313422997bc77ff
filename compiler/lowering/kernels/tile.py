"""The register tile of a matrix product: how many rows and vectors of results are in registers at a time.

The choice counts the cycles of the sum's loop on a machine with one or two fused multiply-adds per cycle, four cycles
of latency and two loads per cycle, for the shape at hand with what remains at its edges. Measured with one of 64 bytes:
any tile of 8 to 28 accumulators that divides the shape runs within a few percent of peak, so the smaller one is taken,
which is less code; but when the columns of the right operand under a tile do not stay in the first-level cache, or it
not in the second, tiles narrower than four cache lines are slower, by a tenth to a half. What is elementwise in the
result runs beside the multiply-adds of the next tile, as many as the processor sees ahead: the fewer instructions they
are, the more. Measured, 8 rows of one vector rather than 4 of two: a product in 0.97 of the time, the gradient of a
weight with Adam in 0.92. With two multiply-adds per cycle, of 32 bytes or of 64, 12 accumulators are better than 8 by a
fifth, and rows of a single vector slower by a third: each of their multiply-adds needs a load. With two of 64 bytes and
the right operand in the second-level cache each step of the sum takes 3 to 4 cycles more than its multiply-adds, the
longer the more rows and the more vectors: 24 accumulators are better than 20 by a twentieth, than 16 by a tenth. Where
parts of panels stay in the first-level cache for some tiles, it takes 1 to 2 cycles more whatever the tile: Winograd's
products of 28 rows and 512 columns with 14 rows of two vectors rather than 6 of four in 0.96 of the time.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ....dsl.record import dataclass
from ...graph.cost import number
from ...types.sizes import Dim
from ...types.tensors import BYTES
from .nest import Part, parts
from .sharing import FEW

if TYPE_CHECKING:
    from ...native.target import Target

LATENCY = 8  # accumulators that keep one multiply-add unit busy
BOTH = 12  # and two
AHEAD = 0.03  # what a load beside each multiply-add costs, for less of the next tile is in sight
NEAR = 3  # half cycles of a wait for what is in the first-level cache
LONG = 32  # steps of a sum that are enough to see
UNEVEN = 0.1  # what it costs where threads do not share tiles of columns; measured: half of the time of few rows
UNEVENLY = 8  # tiles of columns of which one more or less is felt
WAYS = 8  # rows whose elements stay in the first-level cache where they are whole pages apart
LARGE = 1 << 19  # bytes of the right operand that do not stay in the second-level cache beside the rest
DEEP = 1 << 15  # and of two vectors for each k, that do not in the first

_Counts = list[tuple[int, int]]  # rows or columns of a kind of tile, and how many there are


@dataclass(frozen=True, slots=True)
class Tile:
    rows: int
    vectors: int
    lanes: int

    def columns(self, extent: Dim) -> list[Part]:
        """Whole tiles; then one of what is left, or single vectors when that is known only at run time."""
        return parts(extent, self.vectors * self.lanes, self.lanes)

    def rows_of(self, extent: Dim) -> list[Part]:
        """Whole tiles; then one of what is left, or single rows."""
        return parts(extent, self.rows)

    @property
    def single(self) -> int:
        """The columns of a tile of one row, in whole tiles of these, that keep the units busy beside its loads."""
        return self.vectors * self.lanes * max(1, LATENCY // self.vectors)


def is_far(columns: Dim, depth: Dim, packed: bool, dtype: str, target: Target) -> bool:
    """Whether the right operand comes from far away when a tile needs it: `depth` rows of `columns`, or in panels."""
    soon = packed and target.units > 1 and target.vector_bytes == 64  # these show that a panel is not quite near
    deep = number(depth) * 2 * target.vector_bytes > (DEEP * 3 // 4 if soon else DEEP)
    return deep or (not packed and number(columns * depth) * BYTES[dtype] > LARGE)


@cache
def choose(rows: Dim, columns: Dim, far: bool, dtype: str, target: Target, width: int = 0, long: bool = False,
           again: int = 0, blocks: tuple[int, ...] = (), shared: bool = False) -> Tile:  # fmt: skip
    """The tile for a result of `rows` x `columns`; of `width` columns, where that is given. Sums are `long` where what
    follows them runs beside the next tile's. What is broadcast for a row waits for the next, where that reads it
    `again` so many steps later. Where rows come in `blocks`, each is taken in whole tiles, which pass over a part of a
    panel that stays in the first-level cache. Where threads are to have columns of their own these are `shared`."""
    lanes = max(1, target.vector_bytes // BYTES[dtype])  # a processor without vectors has numbers of any width
    best: tuple[float, Tile] | None = None
    whole = bool(blocks) and target.units > 1 and target.vector_bytes == 64
    down = [
        [(r, sum(-(-n // r) for n in blocks))] if whole else _counts(Tile(r, 1, lanes).rows_of(rows), rows)
        for r in range(1, target.registers - 3)
    ]
    for vectors in (width // lanes,) if width else range(1, 29):
        across = _counts(Tile(1, vectors, lanes).columns(columns), columns)
        for r in range(1, target.registers - 3):
            beside = vectors + r * again if again else min(r, vectors) + 1
            if r * vectors + beside <= target.registers:
                cycles = _cycles(down[r - 1], across, lanes, far and not whole, long, whole, target)
                cost = cycles * (1 + 0.002 * r * vectors) * (1 + (UNEVEN if shared and _is_uneven(across) else 0))
                if best is None or cost < best[0]:
                    best = cost, Tile(r, vectors, lanes)
    assert best is not None
    return best[1]


def _is_uneven(across: _Counts) -> bool:
    """Whether tiles of columns are few, and no even number of equal ones: threads share rows then, and each reads of
    the panels what another one copied."""
    return sum(n for _, n in across) <= UNEVENLY and (len(across) > 1 or across[0][1] % 2 == 1 or across[0][1] <= FEW)


def _cycles(down: _Counts, across: _Counts, lanes: int, far: bool, long: bool, part: bool, target: Target) -> float:
    """Of one step of k for all results; edges at their true size; a little for every variant of code. Bounds are the
    multiply-adds, their latency, the loads, and the right operand from the second-level cache; where that is far,
    narrow tiles are slower, and two units of 64 bytes wait for it, or less for a `part` of it that is near. With two
    units per cycle it is half cycles; with one, what is broadcast for a single vector is an operand of its
    multiply-adds, no instruction."""
    two, wide = target.units > 1, target.units > 1 and target.vector_bytes == 64
    fetch, narrow = (4, 0.03) if wide else (2.5, 0.15)
    cycles, latency, load = 0.0, BOTH if two else LATENCY, 1.3 if two else 1
    for r, m in down:
        for c, n in across:
            v = -(-c // lanes)
            folded = long and not two and v == 1
            bound = max(r * v, latency, v + r / 2 if folded else load * (r + v), fetch * v + r / 4)
            ahead = AHEAD * (r + v) / (r * v) if long and not two and not folded else 0
            waits = (r + max(0, r - WAYS)) / 2 + 1.2 * v if wide and far else NEAR if part else 0
            cycles += m * n * (bound + waits) * (1 + narrow * max(0, 4 - v) * far) * (1 + ahead)
    return cycles * (1 + 0.01 * (len(down) * len(across)))


def _counts(tiles: list[Part], extent: Dim) -> _Counts:
    """For each kind of tile."""
    out: _Counts = []
    n = number(extent)
    for p in tiles:
        whole = tiles[0].width
        here = n // whole if p.start == 0 else -(-(n % whole) // p.step)
        if here:
            out.append((p.width, here))
    return out

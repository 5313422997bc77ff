"""The register tile of a matrix product: how many rows and vectors of results are in registers at a time.

The choice counts the cycles of the reduction's loop on a machine with one fused multiply-add per cycle and vector, four
cycles of latency and two loads per cycle, for the shape at hand with what remains at its edges. Measured: any tile of 8
to 28 accumulators that divides the shape runs within a few percent of peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ..types import BYTES, Dim
from .cost import number
from .nest import Part, parts

if TYPE_CHECKING:
    from ..native import Target

LATENCY = 8  # accumulators that keep the multiply-add units busy


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


@cache
def choose(rows: Dim, columns: Dim, dtype: str, target: Target) -> Tile:
    """The tile for a result of `rows` x `columns`."""
    lanes = target.vector_bytes // BYTES[dtype]
    best: tuple[float, Tile] | None = None
    down = [_counts(Tile(r, 1, lanes).rows_of(rows), rows) for r in range(1, target.registers - 3)]
    for vectors in range(1, 29):
        across = _counts(Tile(1, vectors, lanes).columns(columns), columns)
        for r in range(1, target.registers - 3):
            if r * vectors + vectors + 1 <= target.registers:
                cost = _cycles(down[r - 1], across, lanes)
                if best is None or cost < best[0]:
                    best = cost, Tile(r, vectors, lanes)
    assert best is not None
    return best[1]


def _cycles(down: list[tuple[int, int]], across: list[tuple[int, int]], lanes: int) -> float:
    """Of one step of k for all results; edges at their true size; a little for every variant of code."""
    cycles = 0.0
    for r, m in down:
        for c, n in across:
            v = -(-c // lanes)
            cycles += m * n * (max(r * v, LATENCY, (r / 2 + v)) + 0.1 * (r + v))
    return cycles * (1 + 0.01 * (len(down) * len(across)))


def _counts(tiles: list[Part], extent: Dim) -> list[tuple[int, int]]:
    """(width, how many) for each kind of tile."""
    out: list[tuple[int, int]] = []
    n = number(extent)
    for p in tiles:
        whole = tiles[0].width
        here = n // whole if p.start == 0 else -(-(n % whole) // p.step)
        if here:
            out.append((p.width, here))
    return out

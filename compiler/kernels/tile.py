"""The register tile of a matrix product: how many rows and vectors of results are in registers at a time.

The choice counts the cycles of the reduction's loop on a machine with one fused multiply-add per cycle and vector, four
cycles of latency and two loads per cycle, for the shape at hand with what remains at its edges. Measured: any tile of 8
to 28 accumulators that divides the shape runs within a few percent of peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..index import quotient
from ..types import BYTES, Dim
from .cost import number

if TYPE_CHECKING:
    from ..native import Target

LATENCY = 8  # accumulators that keep the multiply-add units busy


@dataclass(frozen=True, slots=True)
class Widths:
    """A loop over tiles from `start` to `stop`: steps, and how many elements a tile has."""

    start: Dim
    stop: Dim
    step: int
    width: int
    bounded: bool = False  # fewer at the end, known only at run time

    def padded(self, lanes: int) -> int:
        """The width in whole vectors."""
        return -(-self.width // lanes) * lanes


@dataclass(frozen=True, slots=True)
class Tile:
    rows: int
    vectors: int
    lanes: int

    def columns(self, extent: Dim) -> list[Widths]:
        """Whole tiles; then one of what is left, or single vectors when that is known only at run time."""
        width = self.vectors * self.lanes
        return _parts(extent, width, self.lanes, bounded=True)

    def rows_of(self, extent: Dim) -> list[Widths]:
        """Whole tiles; then one of what is left, or single rows."""
        return _parts(extent, self.rows, 1, bounded=False)


def _parts(extent: Dim, width: int, single: int, bounded: bool) -> list[Widths]:
    if not isinstance(extent, int):
        whole = quotient(extent, width, {}) * width
        return [Widths(0, whole, width, width), Widths(whole, extent, single, single, bounded)]
    whole = extent // width * width
    left = extent - whole
    out = [Widths(0, whole, width, width)] if whole else []
    return out + ([Widths(whole, extent, left, left)] if left else [])


def choose(rows: Dim, columns: Dim, dtype: str, target: Target) -> Tile:
    """The tile for a result of `rows` x `columns`."""
    lanes = target.vector_bytes // BYTES[dtype]
    best: tuple[float, Tile] | None = None
    for vectors in range(1, 29):
        for r in range(1, target.registers - 3):
            if r * vectors + vectors + 1 <= target.registers:
                tile = Tile(r, vectors, lanes)
                cost = _cycles(tile, rows, columns)
                if best is None or cost < best[0]:
                    best = cost, tile
    assert best is not None
    return best[1]


def _cycles(tile: Tile, rows: Dim, columns: Dim) -> float:
    """Of one step of k for all results; edges at their true size; a little for every variant of code."""
    down = _counts(tile.rows_of(rows), rows)
    across = _counts(tile.columns(columns), columns)
    cycles = 0.0
    for r, m in down:
        for c, n in across:
            v = -(-c // tile.lanes)
            cycles += m * n * (max(r * v, LATENCY, (r / 2 + v)) + 0.1 * (r + v))
    return cycles * (1 + 0.01 * (len(down) * len(across)))


def _counts(parts: list[Widths], extent: Dim) -> list[tuple[int, int]]:
    """(width, how many) for each kind of tile."""
    out: list[tuple[int, int]] = []
    n = number(extent)
    for p in parts:
        whole = parts[0].width
        here = n // whole if p.start == 0 else -(-(n % whole) // p.step)
        if here:
            out.append((p.width, here))
    return out

"""The gradient by filters of 3 x 3 by Winograd's algorithm: see `graph.ops.winograd`.

    image     for each tile of 6 x 6 values and each channel 36 sums of them         V[e, t, c]
    gradient  for each tile of 4 x 4 gradients and each filter 36 sums of them       Z[e, t, k]
    product   for each of the 36 positions a product of matrices                     S[e, c, k] += V[e, t, c] Z[e, t, k]

The one idea: V and Z of a block of tiles stay in the cache from one stage to the next, and a block has so many tiles
that S, which may be large, is seldom read and written. Where S is small, threads share the blocks: a few runs of them,
whatever the number of threads, each with V, Z and S of its own, which are added in order. Else they share the tiles of
a block, then the positions. Each sum goes over the tiles of a block in order, and over the blocks in order, so the bits
are the same for any number of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ....dsl.record import dataclass
from ...graph.boxes import flat
from ...graph.cost import number
from ...graph.nodes import Graph, Node
from ...graph.ops.winograd import LARGE, POSITIONS, TILE
from ...loops import ir as L
from ...loops.index import quotient, to_expr
from ...types.sizes import Dim
from ...types.tensors import BYTES
from . import transforms
from .body import Body, lanes
from .nest import Axes, Part, extreme, place
from .schedule import RUNS, UNROLL
from .tile import Tile, choose
from .transforms import two_sided
from .winograd import multiply, plane

if TYPE_CHECKING:
    from ...native.target import Target

NEAR_BYTES = 1 << 19  # of V and Z, together
FEW = 32  # tiles of a block, at least; in one run twice as many
SMALL = 1 << 18  # bytes of S, which each run has
LONG = 512  # tiles of a run for which it matters little that V, Z and S of the run before were near
PART = 64  # of the work is to add up what runs have, or less


@dataclass(frozen=True, slots=True)
class Tiles:
    """Of a node, and its operands: what is computed for a tile, and how many tiles there are."""

    node: Node
    examples: Dim
    down: int
    across: int
    channels: int
    filters: int

    @property
    def rows(self) -> int:
        """Rows of tiles in a block."""
        one = POSITIONS**2 * (self.channels + self.filters) * BYTES[self.node.dtype]
        few, near = (FEW, NEAR_BYTES // RUNS) if self.runs > 1 else (2 * FEW, NEAR_BYTES)
        return max(1, -(-max(few, near // max(1, one)) // max(1, self.across)))

    @property
    def planes(self) -> tuple[int, int]:
        """How far the positions are apart in V and Z."""
        count, dtype = self.rows * self.across, self.node.dtype
        return plane(count * self.channels, dtype), plane(count * self.filters, dtype)

    @property
    def sums(self) -> int:
        """Elements of S."""
        return POSITIONS**2 * self.channels * self.filters

    @property
    def runs(self) -> int:
        """Of blocks: 1, or so many."""
        many = number(self.examples * self.down * self.across) >= RUNS * LONG
        return RUNS if many and self.sums * BYTES[self.node.dtype] <= SMALL else 1

    def scratch(self) -> tuple[int, ...]:
        """Bytes of V, Z, and S where it is not the result."""
        each = [POSITIONS**2 * size for size in self.planes] + [self.sums] * (self.runs > 1)
        return tuple(self.runs * size * BYTES[self.node.dtype] for size in each)


def tiles(node: Node, graph: Graph) -> Tiles:
    shape = graph[node.args[1]].shape
    examples, rows, columns, filters = (shape[k] for k in node.attrs["results"])
    channels = node.shape[1]
    assert isinstance(rows, int) and isinstance(columns, int) and isinstance(channels, int) and isinstance(filters, int)
    return Tiles(node, examples, rows // TILE, columns // TILE, channels, filters)


def filter_gradient(make: Callable[[], Body], t: Tiles, target: Target, parallel: bool) -> Body:
    """The kernel of a node. V and Z come last."""
    body, node = make(), t.node
    result = body.result(node.dtype)
    values, slopes = body.result(node.dtype, "tile"), body.result(node.dtype, "slope")
    sums = body.result(node.dtype, "sum") if t.runs > 1 else result
    tile = choose(t.channels, t.filters, False, node.dtype, target, long=True)
    kernel = _Sums(body, t, tile, sums, values, slopes)
    blocks = extreme(body, "maximum", quotient(t.examples * t.down + t.rows - 1, t.rows, {}), 1)
    if t.runs == 1:
        with body.loop(blocks, around=True, stem="b") as b:
            kernel.block(b, b, parallel)
        return body
    length = quotient(blocks + t.runs - 1, t.runs, {})
    runs = quotient(blocks + length - 1, length, {})
    with body.loop(runs, parallel=parallel, stem="p") as kernel.run:
        first = kernel.run * length
        with body.loop(extreme(body, "minimum", length, blocks - first), stem="b") as b:
            kernel.block(first + b, b, False)
    with body.portion(PART), body.loop(POSITIONS**2, parallel=parallel, stem="e") as e:
        _add_up(body, t, sums, result, runs, e)
    return body


def _add_up(body: Body, t: Tiles, sums: str, result: str, runs: Dim, e: Dim) -> None:
    """The sums of all runs, at one position."""
    size, dtype = t.channels * t.filters, t.node.dtype
    with body.loop(size, lanes=lanes(body.graph), stem="i") as i:
        body.store(result, e * size + i, body.load(sums, e * size + i, dtype))
    with body.loop(runs, start=1, stem="p") as p, body.loop(size, lanes=lanes(body.graph), stem="i") as i:
        terms = (body.load(result, e * size + i, dtype), body.load(sums, p * t.sums + e * size + i, dtype))
        body.store(result, e * size + i, L.Apply("add", terms, dtype))


@dataclass(slots=True)
class _Sums:
    """What is done in a block."""

    body: Body
    tiles: Tiles
    tile: Tile  # of registers
    sums: str
    values: str
    slopes: str
    run: Dim = 0  # whose V, Z and S these are

    def block(self, b: Dim, before: Dim, parallel: bool) -> None:
        """Block `b`, which so many are `before` in its run."""
        body, t = self.body, self.tiles
        all_rows, axes = t.examples * t.down, Axes((0, 1), (t.examples, t.down))
        rows = extreme(body, "minimum", all_rows - b * t.rows, t.rows)
        with body.loop(rows, parallel=parallel, stem="r") as r:
            index: list[Dim] = [0, 0]
            place(b * t.rows + r, axes, index, body)
            with body.loop(t.across, stem="t") as column:
                self.image(index[0], index[1], column, r * t.across + column)
                self.gradient(index[0], index[1], column, r * t.across + column)
        with body.loop(POSITIONS**2, parallel=parallel, stem="e") as e:
            self.product(e, rows * t.across, before)

    def plane(self, side: int, e: Dim) -> Dim:
        """Where V or Z has a position."""
        return (self.run * POSITIONS**2 + e) * self.tiles.planes[side]

    def image(self, n: Dim, down: Dim, across: Dim, t: Dim) -> None:
        top, left = self.tiles.node.attrs["start"]
        corner = (n, TILE * down + top, TILE * across + left)
        self._transform(0, "image", transforms.image, POSITIONS, corner, self.values, t)

    def gradient(self, n: Dim, down: Dim, across: Dim, t: Dim) -> None:
        corner = (n, TILE * down, TILE * across)
        self._transform(1, "results", transforms.gradient, TILE, corner, self.slopes, t)

    def _transform(
        self, side: int, order: str, way: transforms.Transform, size: int, corner: tuple[Dim, ...], to: str, t: Dim
    ) -> None:
        """All channels of one tile of an operand, to a row of V or Z."""
        body, node = self.body, self.tiles.node
        operand, axes = node.args[side], node.attrs[order]
        buffer, shape = body.held[operand], body.graph[operand].shape
        extent = node.shape[1 + side]
        n, top, left = corner
        with body.loop(extent, lanes=self.tile.lanes, stem="c") as c:

            def read(u: int, v: int) -> L.Expr:
                point = (n, top + u, left + v, c)
                return body.bind(body.load(buffer, flat([point[axes.index(a)] for a in range(4)], shape), node.dtype))

            for e, value in enumerate(two_sided(LARGE, body, way, (size, size), read)):
                body.store(to, self.plane(side, e) + t * extent + c, value)

    def product(self, e: Dim, count: Dim, block: Dim) -> None:
        for high in self.tile.rows_of(self.tiles.channels):
            for wide in self.tile.columns(self.tiles.filters):
                with (
                    self.body.loop(high.stop, start=high.start, step=high.step, stem="i") as i,
                    self.body.loop(wide.stop, start=wide.start, step=wide.step, stem="j") as j,
                ):
                    self._tile(e, count, block, i, j, high, wide)

    def _tile(self, e: Dim, count: Dim, block: Dim, i0: Dim, j0: Dim, high: Part, wide: Part) -> None:
        """The sums of a block for some channels and filters, added to those of the blocks before."""
        body, t, dtype, width = self.body, self.tiles, self.tiles.node.dtype, self.tile.lanes
        padded = wide.padded(width)
        sum_at = self.run * t.sums + (e * t.channels + i0) * t.filters + j0
        acc, near = body.register(dtype, high.width * padded), body.register(dtype, padded)
        with body.loop(high.width, unroll=0) as i, body.loop(wide.width, lanes=width, unroll=0) as j:
            body.store(acc, i * padded + j, L.Const(0.0, dtype))
            body.emit(L.Prefetch(self.sums, to_expr(sum_at + i * t.filters + j)))
        with body.loop(count, unroll=UNROLL, stem="t") as row:
            values_at, slopes_at = self.plane(0, e), self.plane(1, e)
            left = self.values, values_at + row * t.channels + i0, 1
            multiply(body, width, wide, high.width, (acc, near), left,
                     (self.slopes, slopes_at + row * t.filters + j0), dtype)  # fmt: skip
        for first in (True, False):
            is_so = L.Apply("eq" if first else "gt", (to_expr(block), L.i64(0)), "bool")
            with body.when(is_so), body.loop(high.width, unroll=0) as i:
                with body.loop(wide.width, lanes=width, unroll=0) as j:
                    at = sum_at + i * t.filters + j
                    value: L.Expr = body.load(acc, i * padded + j, dtype)
                    if not first:
                        value = L.Apply("add", (body.load(self.sums, at, dtype), value), dtype)
                    body.store(self.sums, at, value)

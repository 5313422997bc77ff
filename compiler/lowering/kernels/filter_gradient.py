"""The gradient by filters of 3 x 3 by Winograd's algorithm: see `graph.ops.winograd`.

    image     for each tile of 6 x 6 values and each channel 36 sums of them         V[e, t, c]
    gradient  for each tile of 4 x 4 gradients and each filter 36 sums of them       Z[e, t, k]
    product   for each of the 36 positions a product of matrices                     S[e, c, k] += V[e, t, c] Z[e, t, k]

The one idea: V and Z of a block of tiles stay in the cache from one stage to the next, and a block has so many tiles
that S, which may be large, is seldom read and written. Threads share the tiles of a block, then the positions. Each sum
goes over the tiles of a block in order, and over the blocks in order, so the bits are the same for any number of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ....dsl.record import dataclass
from ...graph.boxes import flat
from ...graph.nodes import Graph, Node
from ...graph.ops.winograd import LARGE, POSITIONS, TILE
from ...loops import ir as L
from ...loops.index import quotient, to_expr
from ...types.sizes import Dim
from ...types.tensors import BYTES
from . import transforms
from .body import Body
from .nest import Axes, Part, extreme, place
from .schedule import UNROLL
from .tile import Tile, choose
from .transforms import two_sided
from .winograd import multiply, plane

if TYPE_CHECKING:
    from ...native.target import Target

NEAR_BYTES = 1 << 19  # of V and Z, together
FEW = 64  # tiles of a block, at least


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
        return max(1, -(-max(FEW, NEAR_BYTES // max(1, one)) // max(1, self.across)))

    @property
    def planes(self) -> tuple[int, int]:
        """How far the positions are apart in V and Z."""
        count, dtype = self.rows * self.across, self.node.dtype
        return plane(count * self.channels, dtype), plane(count * self.filters, dtype)

    def scratch(self) -> tuple[int, int]:
        """Bytes of V and Z."""
        values, slopes = (POSITIONS**2 * size * BYTES[self.node.dtype] for size in self.planes)
        return values, slopes


def tiles(node: Node, graph: Graph) -> Tiles:
    shape = graph[node.args[1]].shape
    examples, rows, columns, filters = (shape[k] for k in node.attrs["results"])
    channels = node.shape[1]
    assert isinstance(rows, int) and isinstance(columns, int) and isinstance(channels, int) and isinstance(filters, int)
    return Tiles(node, examples, rows // TILE, columns // TILE, channels, filters)


def filter_gradient(make: Callable[[], Body], t: Tiles, target: Target, parallel: bool) -> Body:
    """The kernel of a node. V and Z come last."""
    body, node = make(), t.node
    sums = body.result(node.dtype)
    values, slopes = body.result(node.dtype, "tile"), body.result(node.dtype, "slope")
    tile = choose(t.channels, t.filters, False, node.dtype, target, long=True)
    kernel = _Sums(body, t, tile, sums, values, slopes)
    all_rows, axes = t.examples * t.down, Axes((0, 1), (t.examples, t.down))
    blocks = extreme(body, "maximum", quotient(all_rows + t.rows - 1, t.rows, {}), 1)
    with body.loop(blocks, around=True, stem="b") as b:
        rows = extreme(body, "minimum", all_rows - b * t.rows, t.rows)
        with body.loop(rows, parallel=parallel, stem="r") as r:
            index: list[Dim] = [0, 0]
            place(b * t.rows + r, axes, index, body)
            with body.loop(t.across, stem="t") as column:
                kernel.image(index[0], index[1], column, r * t.across + column)
                kernel.gradient(index[0], index[1], column, r * t.across + column)
        with body.loop(POSITIONS**2, parallel=parallel, stem="e") as e:
            kernel.product(e, rows * t.across, b)
    return body


@dataclass(slots=True)
class _Sums:
    """What is done in a block."""

    body: Body
    tiles: Tiles
    tile: Tile  # of registers
    sums: str
    values: str
    slopes: str

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

            for e, value in enumerate(two_sided(LARGE, body, way, size, read)):
                body.store(to, e * self.tiles.planes[side] + t * extent + c, value)

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
        body, t, dtype, lanes = self.body, self.tiles, self.tiles.node.dtype, self.tile.lanes
        padded = wide.padded(lanes)
        acc, near = body.register(dtype, high.width * padded), body.register(dtype, padded)
        with body.loop(high.width, unroll=0) as i, body.loop(wide.width, lanes=lanes, unroll=0) as j:
            body.store(acc, i * padded + j, L.Const(0.0, dtype))
            body.emit(L.Prefetch(self.sums, to_expr((e * t.channels + i0 + i) * t.filters + j0 + j)))
        with body.loop(count, unroll=UNROLL, stem="t") as row:
            values_at, slopes_at = (e * size for size in t.planes)
            left = self.values, values_at + row * t.channels + i0, 1
            multiply(body, lanes, wide, high.width, (acc, near), left,
                     (self.slopes, slopes_at + row * t.filters + j0), dtype)  # fmt: skip
        for first in (True, False):
            is_so = L.Apply("eq" if first else "gt", (to_expr(block), L.i64(0)), "bool")
            with body.when(is_so), body.loop(high.width, unroll=0) as i:
                with body.loop(wide.width, lanes=lanes, unroll=0) as j:
                    at = (e * t.channels + i0 + i) * t.filters + j0 + j
                    value: L.Expr = body.load(acc, i * padded + j, dtype)
                    if not first:
                        value = L.Apply("add", (body.load(self.sums, at, dtype), value), dtype)
                    body.store(self.sums, at, value)

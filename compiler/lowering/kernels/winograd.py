"""Convolutions by Winograd's algorithm: see `graph.ops.winograd`.

    input    for each tile of 6 x 6 values and each channel 36 sums of them            V[e, t, c]
    product  for each of the 36 positions a product of matrices                       M[e, t, k] = V[e, t, c] U[e, c, k]
    output   of 36 products 4 x 4 results, what is elementwise in them, and the store

(or as many as another of `FILTERINGS` has).

The one idea: V and M of a block of tiles stay in the cache from one stage to the next. Of U so many channels are taken
at a time as stay in the first-level cache for all tiles of a block; meanwhile their sums are in M. A block is some rows
of tiles of all images; threads take shares of the blocks, and each thread has its own V and M; of few shares they take
the tiles and the positions in a block. Each element is computed in one way whatever the block, so the bits are the same
for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ....dsl.record import dataclass
from ...graph.boxes import flat
from ...graph.nodes import Graph, Node
from ...graph.ops.contraction import Affine, index_of, is_gathered
from ...graph.ops.winograd import FILTERINGS, LARGE, Filtering, Line
from ...loops import ir as L
from ...loops.index import quotient, to_expr
from ...types.sizes import Dim
from ...types.tensors import BYTES
from . import transforms
from .ahead import LINE, ordered, runs
from .body import Body, Results
from .frame import frame
from .nest import Axes, Part, extreme, parts, place
from .schedule import PART, UNROLL
from .tile import Tile, choose
from .transforms import two_sided

if TYPE_CHECKING:
    from ...native.target import Target

SHARES = 8  # of the blocks, for threads; where they read transforms from afar these share the positions in a block
FEW, SOME, MANY = 12, 24, 48  # large tiles of a block, at least: transforms of filters are read once for each block
NEAR_BYTES, FAR_BYTES = 1 << 20, 1 << 24  # of those transforms: with more the tiles must be more
AFAR = 1 << 22  # that come from beyond the second-level cache for each block


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution: operand `side` is the image, its axes in `image` are of (example, row, column, channel); `result`
    has the axes (example, row, column, filter) of the result. A window begins at row + `start`[0], column + `start`[1].
    """

    node: Node
    side: int
    image: tuple[int, int, int, int]
    result: tuple[int, int, int, int]
    weights: tuple[int, int, int, int]  # axes of the filters: of taps, channels, filters
    start: tuple[int, int]
    flip: tuple[bool, bool]
    shape: tuple[Dim, int, int, int]  # of the result: examples, rows, columns, filters
    channels: int
    how: Filtering = LARGE

    @property
    def tiles(self) -> tuple[int, int]:
        return -(-self.shape[1] // self.how.down.tile), -(-self.shape[2] // self.how.across.tile)

    @property
    def lines(self) -> tuple[Line, Line]:
        return self.how.down, self.how.across

    @property
    def positions(self) -> int:
        """At which there is a product of matrices."""
        return self.how.positions

    @property
    def reach(self) -> tuple[int, int]:
        """How many rows and columns of the image are read."""
        down, across = (line.tile * n + line.taps - 1 for line, n in zip(self.lines, self.tiles, strict=True))
        return self.start[0] + down, self.start[1] + across

    @property
    def transforms(self) -> int:
        """Bytes of the filters' transforms."""
        return self.positions * self.channels * self.shape[3] * BYTES[self.node.dtype]

    def width(self, graph: Graph) -> int:
        """Columns of the panels in which the transforms lie."""
        width = graph[graph[self.node.args[1 - self.side]].args[0]].shape[-1]
        assert isinstance(width, int)
        return width

    def rows(self) -> int:
        """Rows of tiles in a block; of small ones, which are for few examples, no more than one has."""
        least = FEW if self.transforms <= NEAR_BYTES else SOME if self.transforms <= FAR_BYTES else MANY
        rows = max(1, -(-least * LARGE.positions // (self.positions * self.tiles[1])))
        return min(rows, self.tiles[0]) if self.positions < LARGE.positions else rows

    def room(self, tile: Tile) -> int:
        """Rows of V and M for a position: the tiles of a block, in whole register tiles."""
        return -(-self.rows() * self.tiles[1] // tile.rows) * tile.rows

    def steps(self, width: int) -> int:
        """Channels at a time, of panels so wide."""
        most = max(UNROLL, PART // (width * BYTES[self.node.dtype]))
        turns = -(-self.channels // most)
        return self.channels if turns == 1 else -(-self.channels // (turns * UNROLL)) * UNROLL

    def passes(self, tile: Tile) -> int:
        """Over each part of a panel, in the smallest block of an example."""
        rows = self.tiles[0] % self.rows() or self.rows()
        return -(-min(rows, self.tiles[0]) * self.tiles[1] // tile.rows)

    def shares(self, parallel: bool) -> int:
        """Of the blocks: each has a V and an M."""
        return SHARES if parallel and self.transforms <= FAR_BYTES else 1

    def scratch(self, parallel: bool, tile: Tile) -> tuple[int, int]:
        """Bytes of V and M."""
        shares = self.shares(parallel)
        planes, room, dtype = shares * self.positions, self.room(tile), self.node.dtype
        values, products = plane(room * self.channels, dtype), plane(room * self.shape[3], dtype)
        return planes * values * BYTES[dtype], planes * products * BYTES[dtype]


def window(node: Node, graph: Graph, side: int) -> Window | None:
    """The convolution that a contraction is, with operand `side` as the image; None where it is another."""
    return _window(node, side, node.attrs["out"], node.attrs["maps"][1 - side], graph[node.args[1 - side]].shape)


def window_of_gradient(node: Node, graph: Graph, side: int) -> Window | None:
    """The convolution by whose filters a contraction is the gradient, with operand `side` as the image and the other
    as the gradient by the result."""
    return _window(node, side, node.attrs["maps"][1 - side], node.attrs["out"], graph[node.args[1 - side]].shape)


def _window(
    node: Node, side: int, results: Sequence[Affine], weights: Sequence[Affine], shape: Sequence[Dim]
) -> Window | None:
    """The convolution whose results and filters have these indices; the other operand, of a `shape`, is read whole."""
    domain, image = dict(node.attrs["domain"]), node.attrs["maps"][side]
    out, filters, other = ([index_of(e) for e in es] for es in (results, weights, node.attrs["maps"][1 - side]))
    spatial = [k for k, e in enumerate(image) if len(e[1]) == 2]
    if not is_gathered(node) or not len(image) == len(filters) == len(out) == 4 or len(spatial) != 2:
        return None
    rows, columns = (_tap(image[k], out, filters, domain) for k in spatial)
    alone = [index_of(image[k]) for k in range(4) if k not in spatial]
    if rows is None or columns is None or None in alone:
        return None
    example = next((i for i in alone if i in out and i not in filters), None)
    channel = next((i for i in alone if i in filters and i not in out), None)
    filter = next((i for i in out if i in filters), None)
    if example is None or channel is None or filter is None:
        return None
    letters, taps = (example, rows[0], columns[0], filter), (rows[1], columns[1], channel, filter)
    if {*letters} != {*out} or {*taps} != {*filters} or {*domain} != {*letters, *taps}:
        return None
    sizes = [domain[i] for i in letters]
    whole = all(i is not None and domain[i] == n for i, n in zip(other, shape, strict=True))
    numbers = (*sizes[1:], domain[channel])
    how = next((f for f in FILTERINGS.values() if [f.taps, f.taps] == [domain[i] for i in taps[:2]]), None)
    if how is None or not whole or not all(isinstance(n, int) for n in numbers) or out[-1] != filter:
        return None
    lies = {index_of(image[k]): k for k in range(4) if k not in spatial}
    return Window(
        node,
        side,
        (lies[example], spatial[0], spatial[1], lies[channel]),
        tuple(out.index(i) for i in letters),  # type: ignore[arg-type]
        tuple(filters.index(i) for i in taps),  # type: ignore[arg-type]
        (rows[2], columns[2]),
        (rows[3], columns[3]),
        tuple(sizes),
        domain[channel],
        how,
    )


def _tap(
    e: Affine, out: Sequence[str | None], filters: Sequence[str | None], domain: Mapping[str, Dim]
) -> tuple[str, str, int, bool] | None:
    """Of an axis that is read at i + u + a or i - u + a: i, u, where the window begins, and whether it is turned."""
    i = next((i for i, c in e[1] if c == 1 and i in out), None)
    u = next(((u, c) for u, c in e[1] if u in filters and u not in out and abs(c) == 1), None)
    if i is None or u is None or not isinstance(e[0], int):
        return None
    start = e[0] if u[1] == 1 else e[0] - (domain[u[0]] - 1)
    return (i, u[0], start, u[1] == -1) if isinstance(start, int) and start >= 0 else None


def plane(elements: int, dtype: str) -> int:
    """From one position to the next in what has so many elements for each: an odd number of lines of the cache, or the
    36 places that a tile is written to share a few of its sets. Measured: up to a third of the time."""
    return (-(-elements * BYTES[dtype] // LINE) | 1) * LINE // BYTES[dtype]


def tile_of(w: Window, target: Target, width: int = 0) -> Tile:
    """The register tile of the products, for the blocks of an example and another, for these go on in the next one."""
    rows, across = w.rows(), w.tiles[1]
    blocks = tuple(min(rows, w.tiles[0] - first) * across for first in range(0, w.tiles[0], rows))
    blocks = (rows * across, *blocks)
    return choose(rows * across, w.shape[3], w.transforms >= AFAR, w.node.dtype, target, width, blocks=blocks)


def winograd(make: Callable[[], Body], w: Window, target: Target, parallel: bool) -> Body:
    """The kernel of a convolution and what is elementwise in it. V and M come last."""
    body = make()
    image = body.held[w.node.args[w.side]]
    filters, width = body.held[body.graph[w.node.args[1 - w.side]].args[0]], w.width(body.graph)
    outputs = body.results()
    frame(body, outputs)
    values, products = body.result(w.node.dtype, "tile"), body.result(w.node.dtype, "product")
    shares, rows = w.shares(parallel), w.rows()
    tile = tile_of(w, target, width)
    all_rows, room = w.shape[0] * w.tiles[0], w.room(tile)
    planes = plane(room * w.channels, w.node.dtype), plane(room * w.shape[3], w.node.dtype)
    blocks = quotient(all_rows + rows - 1, rows, {})
    each = quotient(blocks + shares - 1, shares, {})
    with body.loop(extreme(body, "minimum", blocks, shares), parallel=parallel, stem="s") as s:
        first = body.first(s)  # V and M of the other shares of a thread take the same place
        starts = first * (w.positions * planes[0]), first * (w.positions * planes[1])
        kernel = _Blocks(body, w, tile, width, planes, image, filters, values, products, starts, outputs,
                         runs(target))  # fmt: skip
        stop = extreme(body, "minimum", (s + 1) * each, blocks)
        with body.loop(stop, start=s * each, around=True, stem="b") as b:
            kernel.block(b * rows, extreme(body, "minimum", all_rows - b * rows, rows), parallel)
    return body


def multiply(body: Body, lanes: int, wide: Part, height: int, registers: tuple[str, str], left: tuple[str, Dim, int],
             right: tuple[str, Dim], dtype: str) -> None:  # fmt: skip
    """One step of a sum: to the `height` rows of the first of the registers is added an element of the left operand, in
    a buffer from a place on, so far from row to row, times a row of the right one, which waits in the second."""
    (acc, near), (values, begin, pitch), (source, at) = registers, left, right
    padded = wide.padded(lanes)
    with body.loop(wide.width, lanes=lanes, unroll=0) as j:
        body.store(near, j, body.load(source, at + j, dtype))
    with body.loop(height, unroll=0) as i:
        value = body.load(values, begin + i * pitch, dtype)
        with body.loop(wide.width, lanes=lanes, unroll=0) as j:
            terms = (value, body.load(near, j, dtype), body.load(acc, i * padded + j, dtype))
            body.store(acc, i * padded + j, L.Apply("fma", terms, dtype))


@dataclass(slots=True)
class _Blocks:
    """The blocks of a share."""

    body: Body
    w: Window
    tile: Tile
    width: int  # of a panel
    planes: tuple[int, int]  # how far the positions are apart in V and M
    image: str
    transforms: str
    values: str  # V
    products: str  # M
    starts: tuple[Dim, Dim]  # of the share in V and M
    outputs: Results
    runs: int  # in which lines are asked for

    def block(self, row: Dim, rows: Dim, parallel: bool) -> None:
        """So many rows of tiles from one on."""
        body, across = self.body, self.w.tiles[1]
        with body.loop(rows * across, parallel=parallel, stem="t") as t:
            self.input(self.place_of(row * across + t), t)
        with body.loop(self.w.positions, parallel=parallel, stem="e") as e:
            self.product(e, rows * across)
        with body.loop(rows * across, parallel=parallel, stem="t") as t:
            self.output(self.place_of(row * across + t), t)

    def place_of(self, tile: Dim) -> tuple[Dim, Dim, Dim]:
        """Example, row and column of a tile."""
        index: list[Dim] = [0, 0, 0]
        place(tile, Axes((0, 1, 2), (self.w.shape[0], *self.w.tiles)), index, self.body)
        return index[0], index[1], index[2]

    def input(self, tile: tuple[Dim, Dim, Dim], t: Dim) -> None:
        (n, down, across), body, w, dtype = tile, self.body, self.w, self.w.node.dtype
        shape, (high, wide) = body.graph[w.node.args[w.side]].shape, (line.tile for line in w.lines)
        size = w.how.down.positions, w.how.across.positions
        with body.loop(w.channels, lanes=self.tile.lanes, stem="c") as c:

            def read(u: int, v: int) -> L.Expr:
                point = (n, high * down + w.start[0] + u, wide * across + w.start[1] + v, c)
                index = [point[w.image.index(axis)] for axis in range(4)]
                return body.bind(body.load(self.image, flat(index, shape), dtype))

            for e, value in enumerate(two_sided(w.how, body, transforms.image, size, read)):
                body.store(self.values, self.starts[0] + e * self.planes[0] + t * w.channels + c, value)

    def product(self, e: Dim, count: Dim) -> None:
        """M[e] = V[e] U[e], in whole register tiles: what is beyond the count is of no meaning, and is not read."""
        body, w = self.body, self.w
        for wide in parts(w.shape[3], self.width):
            with body.loop(wide.stop, start=wide.start, step=self.width, stem="j") as j0:
                for part in parts(w.channels, w.steps(self.width)):
                    with (
                        body.loop(part.stop, start=part.start, step=part.step, stem="c") as c0,
                        body.loop(count, step=self.tile.rows, stem="i") as i0,
                    ):
                        self.add(e, i0, wide, j0, c0, part.width)

    def add(self, e: Dim, i0: Dim, wide: Part, j0: Dim, c0: Dim, steps: int) -> None:
        """The sums over some channels to those of one register tile, which M has unless they are the first."""
        body, w, dtype, lanes, height = self.body, self.w, self.w.node.dtype, self.tile.lanes, self.tile.rows
        padded, tiles = wide.padded(lanes), -(-w.shape[3] // self.width)
        acc, near = body.register(dtype, height * padded), body.register(dtype, padded)

        def each(move: Callable[[Dim, Dim], None]) -> None:
            with body.loop(height, unroll=0) as i, body.loop(wide.width, lanes=lanes, unroll=0) as j:
                move(i * padded + j, self.product_at(e, i0 + i, j0 + j))

        each(lambda at, _: body.store(acc, at, L.Const(0.0, dtype)))
        if steps < w.channels:
            with body.loop(extreme(body, "minimum", c0, 1)):
                each(lambda at, place: body.store(acc, at, body.load(self.products, place, dtype)))
        with body.loop(steps, unroll=UNROLL, stem="c") as c:
            left = self.starts[0] + e * self.planes[0] + i0 * w.channels + c0 + c
            begin = e * tiles * w.channels * self.width + j0 * w.channels + c0 * self.width
            multiply(body, lanes, wide, height, (acc, near), (self.values, left, w.channels),
                     (self.transforms, begin + c * self.width), dtype)  # fmt: skip
            self.ask_ahead(begin, steps, c, i0)
        each(lambda at, place: body.store(self.products, place, body.load(acc, at, dtype)))

    def ask_ahead(self, begin: Dim, steps: int, c: Dim, i0: Dim) -> None:
        """The part of a panel that comes next, of which each pass over one asks for some, into the second-level cache:
        in the first it would take the place of V. Measured: 0.6 of the time with transforms of 16 MB for 16 tiles."""
        line = LINE // BYTES[self.w.node.dtype]
        lines, part = -(-self.width // (line * self.w.passes(self.tile))), self.width * steps
        done = quotient(i0, self.tile.rows, {}) * steps + c
        for k in range(lines):
            at = begin + part + ordered(done * lines + k, -(-part // line), self.runs) * line
            self.body.emit(L.Prefetch(self.transforms, to_expr(at), 2))

    def output(self, tile: tuple[Dim, Dim, Dim], t: Dim) -> None:
        """All results, which take the place of products, then those that the image has."""
        (n, down, across), body, w, lanes = tile, self.body, self.w, self.tile.lanes
        (_, height, width, filters), (high, wide) = w.shape, (line.tile for line in w.lines)
        with body.loop(filters, lanes=lanes, stem="k") as k:
            for e, value in enumerate(self.results(t, k)):
                body.store(self.products, self.product_at(e, t, k), value)
        rows = extreme(body, "minimum", height - high * down, high)
        columns = extreme(body, "minimum", width - wide * across, wide)
        with body.loop(rows, stem="i") as i, body.loop(columns, stem="j") as j:
            with body.loop(filters, lanes=lanes, stem="k") as k:
                point = (n, high * down + i, wide * across + j, k)
                index = tuple(point[w.result.index(axis)] for axis in range(4))
                at = self.product_at(wide * i + j, t, k)
                body.in_register(w.node.name, index, self.products, at)
                body.store_all(self.outputs, [(v, index) for v in self.outputs])

    def product_at(self, e: Dim, t: Dim, k: Dim) -> Dim:
        return self.starts[1] + e * self.planes[1] + t * self.w.shape[3] + k

    def results(self, t: Dim, k: Dim) -> list[L.Expr]:
        """Those of a tile, row by row."""
        body, w = self.body, self.w
        size = _, columns = w.how.down.positions, w.how.across.positions

        def read(a: int, b: int) -> L.Expr:
            return body.now(body.load(self.products, self.product_at(columns * a + b, t, k), w.node.dtype))

        return two_sided(w.how, body, transforms.result, size, read)

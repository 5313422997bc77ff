"""What of a matrix product is copied first: panels of the right operand, strips of the left; see `schedule`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod

from ...graph.product import Product, Walk
from ...loops import ir as L
from ...loops.index import quotient, to_expr, total
from ...types.sizes import Dim, symbol
from .body import Body
from .nest import Part, parts
from .schedule import Schedule
from .tile import Tile

LANES = 16  # elements that are copied together


def each(body: Body, parts: Sequence[Part], parallel: bool, rest: bool = False) -> Iterator[tuple[Part, Dim]]:
    """A loop over the tiles of each part; only whole tiles are enough work for threads, if the `rest` is not too. A
    loop inside of the rest may be shared, where all of it is."""
    for part in parts:
        shared = parallel and (rest or part.start == 0)
        around = parallel and not shared
        with body.loop(part.stop, start=part.start, step=part.step, parallel=shared, around=around) as first:
            yield part, first


def pack(body: Body, p: Product, s: Schedule, right: str, panels: str, parallel: bool,
          at: Mapping[Walk, Dim] | None = None) -> None:  # fmt: skip
    """Panels of one sheet of `right`: for each tile of columns all k, for each k the tile's columns."""
    for columns, j0 in each(body, s.tile.columns(p.columns[-1].size), parallel):
        vectors = parallel and not isinstance(p.columns[-1].size, int) and columns.width > s.tile.lanes
        _pack_columns(body, p, s, right, panels, columns, j0, 0, p.inner[0].size, at or {}, vectors)


def _pack_columns(body: Body, p: Product, s: Schedule, right: str, panels: str, columns: Part, j0: Dim, start: Dim,
                  stop: Dim, at: Mapping[Walk, Dim], parallel: bool = False) -> None:  # fmt: skip
    """One panel, of which the first index of the sum goes from `start` to `stop`. Where rows are not contiguous it goes
    vector by vector: the lines that one gather touches stay in the first-level cache for the next k."""
    first, *rest = p.inner
    here = dict(at)
    with ExitStack() as inside:
        if p.packed:
            width, step = columns.padded(s.tile.lanes), s.tile.lanes
            v = inside.enter_context(body.loop(width, step=step, parallel=parallel, stem="j"))
        for w, begin, end in ((first, start, stop), *((w, 0, w.size) for w in rest)):
            begin, end = clipped(body, p, at, w, begin, end)
            here[w] = inside.enter_context(body.loop(end, start=begin, stem="k"))
        if not p.packed:
            v = inside.enter_context(body.loop(columns.padded(s.tile.lanes), step=s.tile.lanes, unroll=0, stem="j"))
        _copy(body, p, s.tile, here, j0, v, columns, right, panels, s.part(p, start))


def pack_part(body: Body, p: Product, s: Schedule, right: str, panels: str, first: Dim, width: Dim, start: Dim,
               stop: Dim) -> None:  # fmt: skip
    """Panels of some columns and some steps of the sum, which are near until all rows have met them."""
    for columns, j in each(body, s.tile.columns(width), False):
        _pack_columns(body, p, s, right, panels, columns, first + j, start, stop, {})


def pack_rows(body: Body, p: Product, s: Schedule, right: str, panels: str, parallel: bool) -> None:
    """Panels of a large matrix whose rows are contiguous: as many rows at a time as there are pages near."""
    with body.loop(s.last, step=s.deep, parallel=parallel, stem="k") as k0:
        pack_part(body, p, s, right, panels, 0, p.columns[-1].size, k0, k0 + s.deep)
    pack_part(body, p, s, right, panels, 0, p.columns[-1].size, s.last, p.inner[0].size)


def _copy(body: Body, p: Product, tile: Tile, at: Mapping[Walk, Dim], j0: Dim, v: Dim, columns: Part,
          right: str, panels: str, part: tuple[Dim, Dim] | None) -> None:  # fmt: skip
    """A vector of a panel."""
    bound = p.columns[-1].size - j0 - v if columns.bounded or columns.width % tile.lanes else None
    with body.loop(tile.lanes, lanes=tile.lanes, unroll=0, bound=bound, stem="j") as i:
        source = p.right + total(x * w.right for w, x in at.items()) + (j0 + v + i) * p.columns[-1].right
        body.store(panels, panel(p, tile.lanes, at, j0, columns, part) + v + i, body.load(right, source, p.node.dtype))


def clipped(body: Body, p: Product, at: Mapping[Walk, Dim], w: Walk, start: Dim, stop: Dim) -> tuple[Dim, Dim]:
    """Of the turns of a loop from `start` to `stop` those that are inside the operands, at a point of outer loops."""
    clips = [c for c in p.clips if c.index in w.indices]
    if not clips:
        return start, stop
    first, last = to_expr(start), to_expr(stop)
    outer = {i: x for v, x in at.items() for i in v.indices if len(v.indices) == 1}
    for c in clips:
        rest = total([c.rest[0], *(k * outer[i] for i, k in c.rest[1])])
        low, high = (-rest, c.size - rest) if c.step > 0 else (rest - c.size + 1, rest + 1)
        low, high = (quotient(x + (abs(c.step) - 1), abs(c.step), body.ranges) for x in (low, high))
        first = L.Apply("maximum", (first, to_expr(low)), "i64")
        last = L.Apply("minimum", (last, to_expr(high)), "i64")
    return symbol(body.bound_var(first).name), symbol(body.bound_var(last).name)


def cut(body: Body, p: Product, height: int, left: str, strips: str, parallel: bool) -> None:
    """Strips of `left`: for each block of rows all k, for each k the block's rows."""
    rows = p.rows[-1]
    for block, i0 in each(body, parts(rows.size, height, height), parallel):
        here: dict[Walk, Dim] = {}
        with ExitStack() as inside:
            for w in p.inner:
                here[w] = inside.enter_context(body.loop(w.size, stem="k"))
            count = rows.size - i0 if block.bounded else block.width
            i = inside.enter_context(body.loop(count, lanes=LANES, stem="i"))
            source = p.left + total(x * w.left for w, x in here.items()) + (i0 + i) * rows.left
            body.store(strips, strip(p, here, i0, height) + i, body.load(left, source, p.node.dtype))


def strip(p: Product, at: Mapping[Walk, Dim], i0: Dim, height: int) -> Dim:
    """Where the strip of the block of rows at i0 has a step of the sum."""
    return i0 * prod(w.size for w in p.inner) + _step(p, at) * height


def _step(p: Product, at: Mapping[Walk, Dim]) -> Dim:
    """Which step of the sum a point is, over all its loops."""
    k: Dim = 0
    for w in p.inner:
        k = k * w.size + at[w]
    return k


def panel(p: Product, lanes: int, at: Mapping[Walk, Dim], j0: Dim, columns: Part, part: tuple[Dim, Dim] | None) -> Dim:
    """Where the panel of the columns at j0 has its row k; of panels that hold a `part` of the sum, where it begins and
    for how many steps there is room."""
    start, depth = part or (0, prod(w.size for w in p.inner))
    base: Dim = 0
    for w in p.sheets:
        base = base * w.size + at[w]
    row = _step(p, {**at, p.inner[0]: at[p.inner[0]] - start}) * (p.width or columns.padded(lanes))
    return base * p.sheet(lanes) + j0 * depth + row

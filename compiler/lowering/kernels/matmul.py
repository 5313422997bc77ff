"""Matrix products: contractions of two operands, in any order and transposition.

    out[b.., i.., j..] = sum over k.. of left[b.., i.., k..] * right[b.., k.., j..]

`graph.product` says which contractions these are, and which operand is the left one: convolutions are among them.

The one idea: a tile of results lives in registers, some rows by some vectors; for each k the vectors of `right` and one
broadcast element of `left` per row feed it by fused multiply-add. So there is one chain per element, in the order of k,
and the bits are the same for every tile, target and number of threads. What is elementwise in the result is computed on
the tile before it is stored. Operands are read where they lie when `right` is contiguous along the lanes; else it is
transposed first, into panels as wide as the tile.

Goto, van de Geijn, "Anatomy of high-performance matrix multiplication" (2008), with nothing packed that need not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod

from ....dsl.record import replace
from ...graph.boxes import flat
from ...graph.cost import number
from ...graph.ops.contraction import is_plain
from ...graph.product import Product, Walk
from ...loops import ir as L
from ...loops.index import quotient
from ...types.sizes import Dim
from ...types.tensors import BYTES
from .ahead import LINE
from .body import Body, Results, lanes, results
from .nest import Axes, Part, across, extreme, outer, over, parts, portion
from .packing import clipped, cut, each, pack, pack_part, pack_rows
from .register_tile import Ahead, Operands, RegisterTile, Steps, point_in_result
from .schedule import FAR, RUNS, Schedule
from .tile import Tile

NEAR = 1 << 17  # bytes that stay in the second-level cache, beside the rest
HALF = 1 << 19  # that still do
AHEAD = 4  # times what tiles pass over is asked for meanwhile, at most
PART = 16  # of the work is to add up what runs have, or less
CHUNK = 1 << 12  # results for which a thread does at a time
SHORT = 16  # steps of a reduction that are too few to load and store its sums for


def matmul(make: Callable[[], Body], p: Product, s: Schedule, parallel: bool = False) -> Body:
    """The kernel of a matrix product and what is elementwise in it. Buffers for what is copied and summed come last."""
    body = make()
    left, operand = body.lies(p.node.args[p.side]), p.node.args[1 - p.side]
    right = body.lies(body.graph[operand].args[0] if p.width else operand)
    outputs = body.results()
    if s.runs:
        _in_runs(body, p, s, Operands(left, right), outputs, parallel)
        return body
    panels = right if p.width else body.result(p.node.dtype, "panel") if s.panels else ""
    if s.blocks:
        _in_blocks(body, p, s, left, right, panels, outputs, parallel)
        return body
    with ExitStack() as stack:
        points = stack.enter_context(outer(body, [w.size for w in p.sheets], parallel))
        at = dict(zip(p.sheets, points, strict=True))
        if s.panels:  # sheet by sheet: it is used while it is near
            pack(body, p, s, right, panels, parallel, at)
        strips = body.result(p.node.dtype, "strip") if s.strips else ""
        if s.strips:
            cut(body, p, s.height, left, strips, parallel)
        read = Operands(left, right, panels, s.tile.vectors * s.tile.lanes, strips, height=s.height)
        across, down = s.tile.columns(p.columns[-1].size), s.tile.rows_of(p.rows[-1].size if p.rows else 1)
        if s.turned:
            images, lines = p.rows[: s.outside], p.rows[s.outside : -1]
            points = stack.enter_context(outer(body, [w.size for w in images], parallel))
            at |= dict(zip(images, points, strict=True))
            sums = outputs[p.node.name] if results(body.graph) == [p.node.name] else None
            for columns, j0 in each(body, across, parallel):
                if sums is not None and s.steps:
                    _in_steps(body, p, s, read, at, lines, down, columns, j0, sums)
                    continue
                for t in _lines_of(body, p, s, read, at, lines, down, columns, j0):
                    t.write(outputs, p.whole)
            return body
        far, lines = _far(p) if results(body.graph) == [p.node.name] else (), _lines(p)
        far = far if lines or _many(across) * _many(down) > 1 else ()
        before = p.rows[: -1 - len(lines)] if far else p.rows[:-1]
        points = stack.enter_context(outer(body, [w.size for w in before], parallel))
        at |= dict(zip(before, points, strict=True))
        if far:
            sums = outputs[p.node.name]
            assert sums is not None, "the sums of a product are a result"
            _around(body, p, s.tile, read, at, far, lines, sums, p.whole)
        else:
            for rows, i0, columns, j0 in _in_bands(body, p, s, parallel):
                here, share = replace(read, block=i0), _share(p, rows, columns)
                tile = RegisterTile(body, p, s.tile.lanes, here, at, i0, j0, rows.width, columns, share=share)
                tile.write(outputs, p.whole)
    return body


def _each_tile(body: Body, s: Schedule, down: Sequence[Part], columns: Dim,
               parallel: bool, whole: bool = True) -> Iterator[tuple[Part, Dim, Part, Dim]]:  # fmt: skip
    """Loops over the tiles, for each tile of columns all rows, or the other way around. A single row that is left over
    has too few sums to keep the units busy, so it is taken by many tiles of columns at a time. Not all rows are the
    `whole`."""
    single = [part for part in down if s.single and part.width == 1]
    if s.by_rows:
        for rows, i in each(body, down, parallel):
            for wide, j in each(body, s.tile.columns(columns), parallel):
                yield rows, i, wide, j
        return
    for wide, j in each(body, s.tile.columns(columns), parallel):
        for rows, i in each(body, [part for part in down if part not in single], parallel):
            yield rows, i, wide, j
    tiles = quotient(down[0].stop, down[0].width, {}) if single and whole else 0
    with body.portion(tiles + 1):
        for wide, j in each(body, parts(columns, s.single), parallel) if single else ():
            for rows, i in each(body, single, parallel):
                yield rows, i, wide, j


def _in_bands(body: Body, p: Product, s: Schedule, parallel: bool) -> Iterator[tuple[Part, Dim, Part, Dim]]:
    """Loops over the tiles, of some rows at a time where there are many for the columns."""
    rows, columns = p.rows[-1].size if p.rows else 1, p.columns[-1].size
    if not s.band:
        yield from _each_tile(body, s, s.tile.rows_of(rows), columns, parallel)
        return
    with body.loop(rows, step=s.band, parallel=parallel) as i0:
        height = extreme(body, "minimum", s.band, rows - i0)
        for down, i, wide, j in _each_tile(body, s, s.tile.rows_of(height), columns, parallel, whole=False):
            yield down, i0 + i, wide, j


def _in_blocks(body: Body, p: Product, s: Schedule, left: str, right: str, panels: str, outputs: Results,
               parallel: bool) -> None:  # fmt: skip
    """A product of large matrices: some steps of the sum at a time, for all tiles of a block of rows, or of columns
    where rows are few. The sums wait in memory; with the last steps what is elementwise is computed of them. The order
    of k, and so the bits, stay."""
    rows, columns, (first, *rest) = p.rows[-1].size if p.rows else 1, p.columns[-1].size, p.inner
    others = [(w, 0, w.size) for w in rest]
    if s.panels and not s.chunk:
        (pack if p.packed else pack_rows)(body, p, s, right, panels, parallel)
    strips = body.result(p.node.dtype, "strip") if s.strips else ""
    if s.strips:
        cut(body, p, s.height, left, strips, parallel)
    alone = outputs.get(p.node.name) if len(outputs) == 1 and not p.swapped else None
    sums = "" if s.last == 0 and not p.swapped else alone or body.result(p.node.dtype, "sum")
    block = body.result(p.node.dtype, "block") if p.swapped else ""
    alike = sums != "" and sums == alone  # the last steps do what all do
    before = extreme(body, "minimum", s.last, 1) if sums else 0  # whether the last steps have some before them

    def tiles(area: tuple[Dim, Dim, Dim, Dim], share: float, steps: Steps, *, last: bool) -> None:
        i0, height, j0, width = area
        some = extreme(body, "minimum", steps[0][1], 1) if alike else before
        part = s.part(p, steps[0][1])
        read = Operands(left, right, panels, s.tile.vectors * s.tile.lanes, strips, i0, s.height, part)
        for down, i, wide, j in _each_tile(body, s, s.tile.rows_of(height), width, parallel, whole=False):
            own = share * portion(down, height) * portion(wide, width)
            tile = RegisterTile(body, p, s.tile.lanes, read, {}, i0 + i, j0 + j, down.width, wide, share=own)
            tile.write(outputs, steps, sums, some) if last and not block else tile.add_to(
                sums, steps, before if last else 1
            )

    def turn(area: tuple[Dim, Dim, Dim, Dim], share: float, start: Dim, stop: Dim, *, last: bool) -> None:
        _, _, j0, width = area
        steps = [(first, start, stop), *others]
        if not s.chunk:
            return tiles(area, share, steps, last=last)
        pack_part(body, p, s, right, panels, j0, width, start, stop)
        for i, high, of_rows in blocks(False):
            tiles((i, high, j0, width), share * of_rows, steps, last=last)

    def blocks(shared: bool) -> Iterator[tuple[Dim, Dim, float]]:
        """Of rows, and the share of all that blocks like it have. What is left of them is a block by itself, which
        threads share; where that is known only at run time it is the same code."""
        if s.height and not isinstance(rows, int):
            with body.loop(rows, step=s.height, parallel=shared) as i0:
                yield i0, extreme(body, "minimum", s.height, rows - i0), 1
            return
        for high, i0 in each(body, parts(rows, s.height, s.height) if s.height else whole, shared, rest=True):
            yield i0, high.width or rows, portion(high, rows) if s.height else 1

    whole = [Part(0, 1, 1, 0)]  # one turn, of width 0
    for wide, j0 in each(body, parts(columns, s.width, s.width) if s.width else whole, parallel):
        width = columns - j0 if wide.bounded else wide.width or columns
        for i0, height, of_rows in [(0, rows, 1.0)] if s.chunk else blocks(parallel):
            area = i0, height, j0, width
            share = of_rows * (portion(wide, columns) if s.width else 1)
            if alike:
                all_steps = extreme(body, "maximum", first.size, 1)  # without any the sums are 0
                with body.loop(all_steps, step=s.deep, around=True, stem="k") as k0:
                    even = isinstance(first.size, int) and first.size % s.deep == 0
                    stop = k0 + s.deep if even else extreme(body, "minimum", k0 + s.deep, first.size)
                    turn(area, share, k0, stop, last=True)
                continue
            if sums:
                with body.loop(before, around=True):
                    with over(body, [Axes((0,), (height,)), Axes((1,), (width,))], 2, lanes=s.tile.lanes) as (i, j):
                        body.store(sums, (i0 + i) * columns + j0 + j, L.Const(0.0, p.node.dtype))
                with body.loop(s.last, step=s.deep, around=True, stem="k") as k0:
                    turn(area, share, k0, k0 + s.deep, last=False)
            with body.portion(quotient(s.last, s.deep, {}) + 1):
                turn(area, share, s.last, first.size, last=True)
            if block:
                _turn_over(body, p, outputs, sums, block, i0, height, s.height)


def _in_runs(body: Body, p: Product, s: Schedule, read: Operands, outputs: Results, parallel: bool) -> None:
    """A sum over examples in runs of them, so many whatever the number of threads, which are added in order."""
    (first, *_), size, dtype = p.inner, prod(p.node.shape), p.node.dtype
    length = extreme(body, "maximum", quotient(first.size + (RUNS - 1), RUNS, {}), 1)
    runs = extreme(body, "maximum", quotient(first.size + length - 1, length, {}), 1)
    sums, far, lines = body.result(dtype, "sum"), _far(p), _lines(p)
    with body.loop(runs, parallel=parallel, stem="p") as run:
        steps = [(first, run * length, extreme(body, "minimum", run * length + length, first.size)), *p.whole[1:]]
        before = p.rows[: -1 - len(lines)] if far else p.rows[:-1]
        with outer(body, [w.size for w in before], parallel) as points:
            at = dict(zip(before, points, strict=True))
            if far:
                _around(body, p, s.tile, read, at, far, lines, sums, steps, run * size)
            for rows, i, wide, j in [] if far else _each_tile(body, s, s.tile.rows_of(p.rows[-1].size),
                                                              p.columns[-1].size, False):  # fmt: skip
                own = _share(p, rows, wide)
                tile = RegisterTile(body, p, s.tile.lanes, read, at, i, j, rows.width, wide, base=run * size, share=own)
                tile.add_to(sums, steps, 0)
    with body.portion(PART):
        for part, first_of in each(body, parts(size, CHUNK), parallel, rest=True):
            with body.loop(runs, start=1, stem="p") as run, body.loop(part.width, lanes=s.tile.lanes) as i:
                terms = (body.load(sums, first_of + i, dtype), body.load(sums, run * size + first_of + i, dtype))
                body.store(sums, first_of + i, L.Apply("add", terms, dtype))
    with ExitStack() as stack:
        *others, last = p.node.shape
        index = (*(stack.enter_context(body.loop(n)) for n in others),
                 stack.enter_context(body.loop(last, lanes=s.tile.lanes)))  # fmt: skip
        body.in_register(p.node.name, index, sums, flat(index, p.node.shape))
        body.store_all(outputs, [(v, index) for v in outputs])


def _turn_over(body: Body, p: Product, outputs: Results, sums: str, block: str, i0: Dim, height: Dim,
               pitch: int) -> None:  # fmt: skip
    """Of a swapped product some rows, which are columns of the result: their sums are transposed, and what is
    elementwise is computed of them along what are neighbours then."""
    node, (row, column) = p.node, (p.rows[-1], p.columns[-1])
    width, first = lanes(body.graph), i0 * column.size
    for part, i in each(body, parts(height, width, width), False):
        with body.loop(column.size, stem="k") as j, across(body, part, i, height, width) as v:
            value = body.load(sums, (i0 + i + v) * column.size + j, node.dtype)
            body.store(block, first + j * pitch + i + v, value)
    with body.loop(column.size) as j, body.loop(height, lanes=width) as i:
        index = point_in_result(body, p, {row: i0 + i, column: j})
        body.in_register(node.name, index, block, first + j * pitch + i)
        body.store_all(outputs, [(v, index) for v in outputs])


def _lines_of(body: Body, p: Product, s: Schedule, read: Operands, at: Mapping[Walk, Dim], lines: Sequence[Walk],
              down: Sequence[Part], columns: Part, j0: Dim) -> Iterator[RegisterTile]:  # fmt: skip
    """The tiles of some columns, at each point of `lines`."""
    with outer(body, [w.size for w in lines], False) as points:
        here = {**at, **dict(zip(lines, points, strict=True))}
        for rows, i0 in each(body, down, False):
            share = _share(p, rows, columns)
            yield RegisterTile(body, p, s.tile.lanes, read, here, i0, j0, rows.width, columns, share=share)


def _in_steps(body: Body, p: Product, s: Schedule, read: Operands, at: Mapping[Walk, Dim], lines: Sequence[Walk],
              down: Sequence[Part], columns: Part, j0: Dim, sums: str) -> None:  # fmt: skip
    """The same tiles, for some steps of the sum at a time, whose part of a panel stays in the first-level cache for all
    of them; the result holds the sums meanwhile."""
    for t in _lines_of(body, p, s, read, at, lines, down, columns, j0):
        t.clear(sums)
    (*around, last), here = p.inner, dict(at)
    with ExitStack() as stack:
        for w in around:
            start, stop = clipped(body, p, at, w, 0, w.size)
            here[w] = stack.enter_context(body.loop(stop, start=start, stem="k"))
        for part in parts(last.size, s.steps):
            with body.loop(part.stop, start=part.start, step=part.step, stem="k") as k0:
                for t in _lines_of(body, p, s, read, here, lines, down, columns, j0):
                    t.next = _next(body, t, lines, last, k0, part.width, s.asked)
                    t.add_to(sums, [(last, k0, k0 + part.width)])


def _next(body: Body, t: RegisterTile, lines: Sequence[Walk], last: Walk, k0: Dim, steps: int, runs: int) -> Ahead:
    """What a tile asks for, a line in each step: of the panels behind those of these steps each tile has a part, up to
    some times as much as these are. Without them the first to pass waits."""
    across = -(-t.p.rows[-1].size // t.rows)
    tiles: Dim = 0
    for w in lines:
        tiles = tiles * w.size + t.at[w]
    tiles = tiles * across + quotient(t.i0, t.rows, body.ranges)
    most = AHEAD * -(-t.columns.padded(t.lanes) * BYTES[t.p.node.dtype] // LINE)
    behind = t.right_at({**t.at, last: k0 + steps}, t.j0, t.columns)
    count = min(most, number(prod(w.size for w in lines) * across))
    return Ahead(behind, extreme(body, "minimum", tiles, most) * steps - k0, count * steps, runs)


def _far(p: Product) -> tuple[Walk, ...]:
    """The outer indices of a window's reduction, whose loops go around the tiles: what all tiles read for one of their
    points stays near, where else each tile would fetch all of both from afar."""
    if p.packed or is_plain(p.node) or not p.rows:
        return ()
    each = number(p.rows[-1].size + p.columns[-1].size) * BYTES[p.node.dtype]
    if number(prod(w.size for w in p.inner)) * each <= FAR:
        return ()
    left = [number(prod(w.size for w in p.inner[k:])) for k in range(1, len(p.inner))]
    long = {k: steps * each for k, steps in enumerate(left, 1) if steps >= SHORT}
    count = next((k for near in (NEAR, HALF) for k, size in long.items() if size <= near), 0)
    return p.inner[:count]


def _lines(p: Product) -> tuple[Walk, ...]:
    """Loops over rows that go inside of those: all but the first, which threads share, where the sums stay near."""
    if p.clips or len(p.rows) < 3:
        return ()
    sums = number(prod(w.size for w in p.rows[1:]) * p.columns[-1].size) * BYTES[p.node.dtype]
    return p.rows[1:-1] if sums <= NEAR else ()


def _around(body: Body, p: Product, tile: Tile, read: Operands, at: Mapping[Walk, Dim], far: Sequence[Walk],
            lines: Sequence[Walk], sums: str, steps: Steps, base: Dim = 0) -> None:  # fmt: skip
    """The tiles at a point of the outer loops, for each point of `far`, and at each of `lines`; `sums` holds them from
    `base` on meanwhile. Measured: gradients of the weights of 64 filters on 56 x 56 pixels in 0.6 of the time."""

    def tiles(here: Mapping[Walk, Dim]) -> Iterator[RegisterTile]:
        with outer(body, [w.size for w in lines], False) as points:
            for columns, j0 in each(body, tile.columns(p.columns[-1].size), False):
                for rows, i0 in each(body, tile.rows_of(p.rows[-1].size), False):
                    line = dict(zip(lines, points, strict=True))
                    yield RegisterTile(
                        body, p, tile.lanes, read, {**here, **line}, i0, j0, rows.width, columns,
                        base=base, share=_share(p, rows, columns),
                    )  # fmt: skip

    for t in tiles(at):
        t.clear(sums)
    with ExitStack() as stack:
        here = dict(at)
        for w, start, stop in steps[: len(far)]:
            start, stop = clipped(body, p, at, w, start, stop)
            here[w] = stack.enter_context(body.loop(stop, start=start, stem="k"))
        for t in tiles(here):
            t.add_to(sums, steps[len(far) :])


def _share(p: Product, rows: Part, columns: Part) -> float:
    """Of all results those in tiles of this height and width."""
    return portion(rows, p.rows[-1].size if p.rows else 1) * portion(columns, p.columns[-1].size)


def _many(parts: Sequence[Part]) -> int:
    return sum(-(-number(p.stop - p.start) // p.step) for p in parts)

"""Folds whose innermost axis is kept: neighbouring elements are lanes, each folded in the order of its index.

Where rows are many for their columns, threads share the rows: in shares of a fixed size, whatever the number of
threads, whose results are put together in order, sums in f64. So a thread reads in each stage what it read in the one
before, and what it wrote itself where the kernel before went along the same axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import prod

from ....dsl.record import dataclass, field
from ...graph.cost import number
from ...graph.nodes import Graph, Node
from ...graph.ops import OPS
from ...graph.ops.op import MAP, REDUCE, VIEW
from ...loops import ir as L
from ...loops.index import quotient
from ...types.sizes import Dim
from ...types.tensors import BYTES
from .blocks import MANY, WHOLE, Share, Total, cast, least, over_blocks
from .body import Body, Index, Results, lanes
from .nest import Axes, Part, across, over, parts, place
from .sharing import ENOUGH
from .stages import Stages, how, long_sums, of_shares, start

TILE = 4  # vectors of neighbouring elements folded at a time
SHARE = 1 << 15  # elements of a share ...
ROWS = MANY  # ... and rows of it, at least


@dataclass(slots=True)
class _Tile:
    """Some neighbouring kept elements, from `j0` on; what is known of each of them is in a lane of registers."""

    body: Body
    stages: Stages
    outer: Index
    j0: Dim
    last: Axes
    part: Part
    known: dict[str, str] = field(default_factory=dict)  # value -> its registers

    @contextmanager
    def each(self) -> Iterator[tuple[Dim, Index]]:
        """A lane, and the index of the element in it."""
        with self.lane() as j:
            index = list(self.outer)
            place(self.j0 + j, self.last, index, self.body)
            for name, row in self.known.items():
                self.body.in_register(name, self.stages.kept(index), row, j)
            yield j, tuple(index)

    def lane(self) -> AbstractContextManager[Dim]:
        return across(self.body, self.part, self.j0, self.last.size, lanes(self.body.graph))

    @property
    def width(self) -> int:
        return self.part.padded(lanes(self.body.graph))

    def folded(
        self, stage: int, outputs: Results, reduced: list[Axes], share: Share = WHOLE
    ) -> tuple[dict[str, str], dict[str, Total]]:
        """One stage over a share of the reduced axes: the registers of its reductions, and the long sums, which are
        not yet whole."""
        body, stages = self.body, self.stages
        folds = stages.folds(stage)
        long = long_sums(body, folds, [g.size for g in reduced], 1, MANY, self.width, self.lane)
        totals = {r.name: long[r.name].now if r.name in long else body.register(r.dtype, self.width) for r in folds}
        if len(long) < len(folds):
            with self.each() as (j, _):
                for r in folds:
                    if r.name not in long:
                        body.store(totals[r.name], j, start(body, r))
        loops = over_blocks(body, reduced, len(stages.box), [*long.values()], share=share)
        with loops as point, self.each() as (j, at):
            index = stages.join(at, point)
            for r in folds:
                terms = (body.load(totals[r.name], j, r.dtype), body.value(r.args[0], index))
                body.store(totals[r.name], j, L.Apply(L.FOLDS[how(body, r)], terms, r.dtype))
            body.store_all(outputs, [(v, index) for v in stages.stores(stage)])
        return totals, long


def columns(body: Body, stages: Stages, outputs: Results, kept: list[Axes], reduced: list[Axes],
            parallel: bool) -> None:  # fmt: skip
    if parallel and by_rows(body.graph):
        return _by_rows(body, stages, outputs, kept[-1], reduced)
    *rows, last = kept
    with over(body, rows, len(stages.box), parallel=parallel and bool(rows)) as outer:
        for tile in _tiles(body, stages, outer, last, parallel and not rows):
            for stage in range(stages.count):
                for v in stages.between(body, stage):
                    row = body.register(body.graph[v].dtype, tile.width)
                    with tile.each() as (j, at):
                        body.store(row, j, body.value(v, stages.kept(at)))
                    tile.known[v] = row
                totals, long = tile.folded(stage, outputs, reduced)
                for total in long.values():
                    total.finish()
                tile.known |= totals
            _store_rest(tile, outputs)


def _tiles(body: Body, stages: Stages, outer: Index, last: Axes, parallel: bool = False) -> Iterator[_Tile]:
    width = lanes(body.graph)
    for t in parts(last.size, TILE * width, width):
        with body.loop(t.stop, start=t.start, step=t.step, parallel=parallel) as j0:
            sources = dict(body.sources)
            yield _Tile(body, stages, outer, j0, last, t)
            body.sources = sources


def _store_rest(tile: _Tile, outputs: Results) -> None:
    if tile.stages.rest:
        with tile.each() as (_, at):
            tile.body.store_all(outputs, [(v, tile.stages.kept(at)) for v in tile.stages.rest])


# --- rows in shares ---------------------------------------------------------------------------------------------------


def by_rows(graph: Graph) -> list[Node]:
    """The reductions of a graph that are put together from those of shares of rows: of a box of many rows for its
    columns, which are its last axis. Those of f64 are not: what rounding takes from a share would be lost."""
    found = [n for n in graph if OPS[n.op].kind == REDUCE and n.attrs["axes"]]
    box, axes = graph[found[0].args[0]].shape, found[0].attrs["axes"]
    kept = [n for k, n in enumerate(box) if k not in axes and n != 1]
    if len(kept) != 1 or not isinstance(kept[0], int) or (last := _last(box)) is None or last in axes:
        return []
    rows = prod(n for k, n in enumerate(box) if k in axes)
    if isinstance(rows, int) and rows < 2 * _rows(kept[0]):
        return []
    many = number(rows) >= ENOUGH * _rows(kept[0]) or kept[0] < ENOUGH * TILE * lanes(graph)
    return found if many and all(n.dtype != "f64" for n in found) else []


def _last(box: tuple[Dim, ...]) -> int | None:
    """The innermost axis that has more than one element."""
    return next((k for k in reversed(range(len(box))) if box[k] != 1), None)


def _rows(columns: int) -> int:
    """Of a share, in whole blocks."""
    return max(1, SHARE // (columns * ROWS)) * ROWS


def scratch(graph: Graph) -> tuple[Dim, ...]:
    """Bytes for the results of shares, of which there are no more than this; for what they are put together to, and for
    what is computed of that for all rows."""
    out: list[Dim] = []
    found = by_rows(graph)
    for n in found:
        rows, columns = prod(graph[n.args[0]].shape), number(prod(n.shape))
        shares = 2 * rows // (columns * _rows(columns)) + 2
        out.append(shares * columns * BYTES[of_shares(n)])
    kept = [*found, *(_candidates(graph, found) if found else ())]
    return (*out, *(prod(n.shape) * BYTES[n.dtype] for n in kept))


def _candidates(graph: Graph, found: list[Node]) -> list[Node]:
    """What may be computed between stages."""
    behind = {n.name for n in found}
    for n in graph:
        if behind & {*n.args}:
            behind.add(n.name)
    return [
        n for n in graph
        if n.name in behind and OPS[n.op].kind == MAP and prod(n.shape) == prod(found[0].shape)
        and any(OPS[u.op].kind == VIEW for u in graph.users(n.name))
    ]  # fmt: skip


def _by_rows(body: Body, stages: Stages, outputs: Results, last: Axes, reduced: list[Axes]) -> None:
    graph, (first, *inner) = body.graph, reduced
    found, count = by_rows(graph), number(last.size)
    shares_of = {r.name: body.result(of_shares(r), "share") for r in found}
    known = {n.name: body.result(n.dtype, "total") for n in (*found, *_candidates(graph, found))}
    length = max(1, _rows(count) // number(prod(g.size for g in inner)))
    shares = quotient(first.size + (length - 1), length, body.ranges)
    origin = (0,) * len(stages.box)
    for stage in range(stages.count):
        for v in stages.between(body, stage):
            for tile in _tiles(body, stages, origin, last):
                with tile.each() as (j, at):
                    body.store(known[v], tile.j0 + j, body.value(v, stages.kept(at)))
            body.lies_in(v, known[v])
        with body.portion(stages.count), body.loop(shares, parallel=True, stem="p") as p:
            begin, size = p * length, first.size - p * length
            size = length if first.size % length == 0 else least(body, size, length)
            for tile in _tiles(body, stages, origin, last):
                totals, long = tile.folded(stage, outputs, reduced, Share(begin, size))
                for r in stages.folds(stage):
                    _store_share(tile, r, totals[r.name], long.get(r.name), shares_of[r.name], p * count)
        for r in stages.folds(stage):
            for tile in _tiles(body, stages, origin, last):
                _put_together(tile, r, shares_of[r.name], known[r.name], shares, count)
            body.lies_in(r.name, known[r.name])
    for tile in _tiles(body, stages, origin, last):
        _store_rest(tile, outputs)


def _store_share(tile: _Tile, r: Node, now: str, long: Total | None, share: str, at: Dim) -> None:
    body, dtype = tile.body, of_shares(r)
    with tile.each() as (j, _):
        body.store(share, at + tile.j0 + j, cast(body.load(now, j, r.dtype), dtype))
    if long is not None:
        with long.if_long(), tile.each() as (j, _):
            body.store(share, at + tile.j0 + j, body.load(long.sums, j, dtype))


def _put_together(tile: _Tile, r: Node, share: str, total: str, shares: Dim, count: int) -> None:
    body, dtype, kind = tile.body, of_shares(r), how(tile.body, r)
    every = body.register(dtype, tile.width)
    with tile.each() as (j, _):
        body.store(every, j, L.Const(L.identity(kind, dtype), dtype))
    with body.loop(shares, stem="p") as p, tile.each() as (j, _):
        terms = (body.load(every, j, dtype), body.load(share, p * count + tile.j0 + j, dtype))
        body.store(every, j, L.Apply(L.FOLDS[kind], terms, dtype))
    with tile.each() as (j, _):
        body.store(total, tile.j0 + j, cast(body.load(every, j, dtype), r.dtype))

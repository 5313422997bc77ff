"""Fold kernels: reductions of a box over some of its axes, together with what is elementwise around them.

In: a graph whose reductions fold the same axes of one box, and whose results have the shape of the box ("full") or of
its kept axes. Out: one loop nest: kept axes outside, and for each *stage* one loop over the reduced axes. A reduction
belongs to the stage after those its operand needs, a full result to the first stage in which all it needs is there:
softmax is maximum, then sum, then quotient, three loops over a row that stays in cache.

When the innermost axis is reduced, the lanes hold partial results of one element, combined in the fixed order of the
loop IR; where they would be more than the axis is long, as many rows as there are lanes run through together, in that
order too. When it is kept, lanes are neighbouring elements and every element is folded in index order. Either way the
bits depend on the shape alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod

from ...graph.boxes import flat
from ...graph.cost import number, own_weight, waits
from ...graph.nodes import Graph, Node
from ...graph.ops import OPS
from ...graph.ops.op import REDUCE
from ...loops import ir as L
from ...loops.index import quotient
from ...types.sizes import Dim
from ...types.tensors import BYTES
from . import columns as by_columns
from .blocks import MANY, TURNS, WHOLE, Share, cast, least, over_blocks
from .body import Body, Index, Results, lanes, results
from .nest import ABREAST, Axes, collapse, over, place
from .stages import Stages, how, long_sums, of_shares, start

SAVED = 8  # vectors of a row that are kept in registers from one stage to the next
LONG = 1024  # elements of a row that make several chains of partial results worth their combination ...
LIGHT = 8  # ... when it is the latency of the chain that counts: weight of all that is done for an element
CHAINS = 4
SHARE = 1 << 15  # elements of what is reduced to one value, for a thread at a time
CODE = 512  # weight of all that is done for a row, written out, up to which rows run through together
COPIES = 8  # of what is done for a vector of a long sum, in one turn of the loop over a block: fewer branches


def fold(make: Callable[[], Body], parallel: bool = False) -> Body:
    """The kernel of a graph with reductions; results are stored in the order of the graph's outputs."""
    body, stages = make(), Stages(make())
    groups = [g for g in collapse(stages.trial, stages.point, stages.box, stages.reduced) if g.size != 1]
    kept, reduced = ([g for g in groups if stages.reduced[g.axes[0]] == kind] for kind in (False, True))
    outputs = body.results()
    if parallel and shared(body.graph):
        _shares(body, stages, outputs, reduced)
    else:
        innermost = groups[-1] if groups else None
        nest = by_columns.columns if innermost in kept else _abreast if _are_short(stages, kept, reduced) else _rows
        nest(body, stages, outputs, kept, reduced, parallel)
    return body


# --- the innermost axis is reduced -----------------------------------------------------------------------------------


def _rows(body: Body, stages: Stages, outputs: Results, kept: list[Axes], reduced: list[Axes],
          parallel: bool) -> None:  # fmt: skip
    rank, graph = len(stages.box), body.graph
    width = _width(graph, reduced)
    short = len(reduced) == 1 and isinstance(reduced[0].size, int) and 0 < reduced[0].size <= SAVED * width
    saved = stages.saved(graph) if short else {}
    rows: dict[str, str] = {}  # value -> the registers that have it for a row

    def in_row(at: Index) -> Dim:
        return flat([at[k] for k in reduced[0].axes], reduced[0].extents)

    with over(body, kept, rank, parallel=parallel) as outer:
        for stage in range(stages.count):
            first = [n.name for n in graph if saved.get(n.name) == stage]
            new = {v: body.register(graph[v].dtype, _whole(reduced[0].size, width)) for v in first}
            unroll = 0 if saved else None

            def keep(index: Index, point: Index, old: Mapping[str, str] = rows, new: Mapping[str, str] = new) -> None:
                for v, row in old.items():
                    body.in_register(v, index, row, in_row(point))
                for v, row in new.items():
                    body.store(row, in_row(point), body.value(v, index))

            most, wide = MANY if kept else TURNS, max(width, _width(graph, reduced, stages.extreme(stage)))
            totals = _folded(body, stages, stage, outputs, outer, reduced, wide, most, keep, unroll)
            rows = rows | new
            for r in stages.folds(stage):
                body.is_now(r.name, stages.kept(outer), body.bind(body.load(totals[r.name], 0, r.dtype)))
        body.store_all(outputs, [(v, stages.kept(outer)) for v in stages.rest])


def _folded(body: Body, stages: Stages, stage: int, outputs: Results, outer: Index, reduced: Sequence[Axes], width: int,
            most: int, keep: Callable[[Index, Index], None], unroll: int | None = None,
            share: Share = WHOLE) -> dict[str, str]:  # fmt: skip
    """One stage at a point of the kept axes: of each reduction the register that has it. `keep` is told of every point,
    in the box and in the loops."""
    folds, once = stages.folds(stage), lanes(body.graph)

    def lane() -> AbstractContextManager[Dim]:
        return body.loop(once, lanes=once, unroll=0, stem="j")

    totals = {r.name: body.register(r.dtype, 1) for r in folds}
    long = long_sums(body, folds, share.sizes(reduced), width, most, once, lane)
    for r in folds:
        if r.name not in long:
            body.store(totals[r.name], 0, start(body, r))
    if unroll is None:
        light = long and sum(map(own_weight, body.graph)) <= 2 * LIGHT
        unroll = COPIES * once // width if light else ABREAST if waits(body.graph) else 1
    loops = over_blocks(body, reduced, len(stages.box), [*long.values()], lanes=width, unroll=unroll, share=share)
    with loops as point:
        index = stages.join(outer, point)
        keep(index, point)
        for r in folds:
            to, into = (long[r.name].now, once) if r.name in long else (totals[r.name], 1)
            body.fold(to, 0, how(body, r), body.value(r.args[0], index), into)
        body.store_all(outputs, [(v, index) for v in stages.stores(stage)])
    for name, total in long.items():
        total.together(totals[name])
    return totals


# --- it is reduced, and is shorter than a vector ---------------------------------------------------------------------


def _are_short(stages: Stages, kept: Sequence[Axes], reduced: Sequence[Axes]) -> bool:
    """Whether rows fill lanes that their elements would not."""
    graph = stages.trial.graph
    width = lanes(graph)
    if not kept or len(reduced) != 1 or not isinstance(n := reduced[0].size, int) or n > width:
        return False
    many = not isinstance(rows := kept[-1].size, int) or rows >= width
    return many and sum(own_weight(v) * (n if v.shape == stages.box else 1) for v in graph) <= CODE


def _abreast(body: Body, stages: Stages, outputs: Results, kept: list[Axes], reduced: list[Axes],
             parallel: bool) -> None:  # fmt: skip
    """A row in each lane. What `_rows` has in the lanes of one row is here one vector after the other, put together by
    halving as there."""
    rank, (row,), width = len(stages.box), reduced, lanes(body.graph)
    with over(body, kept, rank, lanes=width, parallel=parallel) as outer:
        points: list[Index] = []
        for k in range(number(row.size)):
            index: list[Dim] = [0] * rank
            place(k, row, index, body)
            points.append(stages.join(outer, index))
        for stage in range(stages.count):
            for r in stages.folds(stage):
                terms = [body.value(r.args[0], at) for at in points]
                body.is_now(r.name, stages.kept(outer), body.bind(_halved(terms, L.FOLDS[how(body, r)], width)))
            body.store_all(outputs, [(v, at) for v in stages.stores(stage) for at in points])
        body.store_all(outputs, [(v, stages.kept(outer)) for v in stages.rest])


def _halved(terms: Sequence[L.Expr], fold: str, width: int) -> L.Expr:
    """All terms in one, in the order in which the lanes of a vector are put together."""
    while width > 1:
        width //= 2
        low, high = terms[:width], terms[width:]
        terms = [L.Apply(fold, (a, b), a.dtype) for a, b in zip(low, high, strict=False)] + [*low[len(high) :]]
    return terms[0]


# --- all is reduced, by several threads ------------------------------------------------------------------------------


def shared(graph: Graph) -> list[Node]:
    """The reductions of a graph that are put together from those of shares: of all axes of a large box, where nothing
    that is computed in it needs their results. Those of f64 stay whole: what rounding takes from a share would be lost.
    """
    found = [n for n in graph if OPS[n.op].kind == REDUCE and n.attrs["axes"]]
    behind = {n.name for n in found}
    for n in graph:
        if behind & {*n.args}:
            behind.add(n.name)
    box = graph[found[0].args[0]].shape
    size = prod(box)
    alone = (
        all(len(n.attrs["axes"]) == len(box) and not behind & {*n.args} and n.dtype != "f64" for n in found)
        and all(v not in behind or not graph[v].shape for v in results(graph))
        and all(isinstance(n, int) for n in box[1:])
        and (not isinstance(size, int) or size >= 2 * SHARE)
    )
    return found if alone else []


def scratch(graph: Graph) -> tuple[Dim, ...]:
    """Bytes for the results of shares, of which there are no more than this."""
    return by_columns.scratch(graph) or tuple(
        (2 * prod(graph[n.args[0]].shape) // SHARE + 2) * BYTES[n.dtype] for n in shared(graph)
    )


def _shares(body: Body, stages: Stages, outputs: Results, reduced: list[Axes]) -> None:
    """Shares of a fixed size, whatever the number of threads; their results are put together in order, sums in f64."""
    first, *inner = reduced
    length = max(1, SHARE // number(prod(g.size for g in inner)))
    if isinstance(first.size, int):
        length = next((n for n in range(length, length // 2, -1) if first.size % n == 0), length)
    shares = quotient(first.size + (length - 1), length, body.ranges)
    width = _width(body.graph, reduced)
    parts = {r.name: body.result(r.dtype, "share") for r in stages.folds(0)}
    with body.loop(shares, parallel=True, stem="p") as p:
        start, size = p * length, first.size - p * length
        size = length if first.size % length == 0 else least(body, size, length)
        at = (0,) * len(stages.box)
        totals = _folded(body, stages, 0, outputs, at, reduced, width, TURNS, lambda *_: None, share=Share(start, size))
        for r in stages.folds(0):
            body.store(parts[r.name], p, body.load(totals[r.name], 0, r.dtype))
    for r in stages.folds(0):
        kind, dtype = how(body, r), of_shares(r)
        every = body.register(dtype, 1)
        body.store(every, 0, L.Const(L.identity(kind, dtype), dtype))
        with body.loop(shares, stem="p") as p:
            body.fold(every, 0, kind, cast(body.load(parts[r.name], p, r.dtype), dtype))
        body.is_now(r.name, (), body.bind(cast(body.load(every, 0, dtype), r.dtype)))
    body.store_all(outputs, [(v, ()) for v in stages.rest])


def _width(graph: Graph, reduced: Sequence[Axes], done: Sequence[Node] | None = None) -> int:
    """How many elements of a row are folded together, where all of the graph, or only some of it, is done for each."""
    done = [*graph] if done is None else done
    light = done and sum(map(own_weight, done)) <= LIGHT
    return lanes(graph) * (CHAINS if reduced and number(reduced[-1].size) >= LONG and light else 1)


def _whole(n: Dim, width: int) -> int:
    """A number of elements in whole vectors."""
    assert isinstance(n, int)
    return -(-n // width) * width

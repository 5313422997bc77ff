"""Pointwise kernels: every result has one shape, or is several values of that shape side by side, and its value at a
point is an expression.

Adjacent axes become one loop where all indices allow it, so a chain of elementwise operators over contiguous arrays is
a single vector loop whatever its rank. Where an operand lies in another order, so that the lanes would be far apart,
as many rows as there are lanes run through together: what one reads of a cache line the next read is beside. What is
put side by side along the last axis, or padded there, is a loop for each piece: no lane asks in which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from ...graph.boxes import box_of
from ...graph.cost import waits
from ...graph.nodes import Node
from ...graph.ops.op import MAP
from ...graph.ops.plumbing import constant_expr
from ...loops import ir as L
from ...types.sizes import Dim, Symbol, terms
from .body import Body, Index, Results, Source, lanes, results
from .nest import ABREAST, Axes, collapse, indices, over, place, walk


def pointwise(make: Callable[[], Body], parallel: bool = False) -> Body:
    """The kernel that computes the results of a graph, all at the points of one box. `make` gives a fresh body."""
    body = make()
    outputs = body.results()
    shape = box_of(body.graph, body.graph[next(iter(outputs))])
    trial = make()
    groups = collapse(trial, walk(trial, list(outputs), shape), shape, [0] * len(shape))
    if groups and any(n.op == "transpose" for n in body.graph):
        near = _near(make, groups, shape)
        if near is not None:
            _blocks(body, outputs, groups, near, shape, parallel)
            return body
    side = _divided(body, outputs, shape)
    if side is not None and groups[-1].axes == (len(shape) - 1,):
        _pieces(body, outputs, groups, side, parallel)
        return body
    unroll = ABREAST if waits(body.graph) else 1
    with over(body, groups, len(shape), lanes=lanes(body.graph), unroll=unroll, parallel=parallel) as index:
        body.store_all(outputs, [(r, index) for r in outputs])
    return body


def _near(make: Callable[[], Body], groups: Sequence[Axes], shape: tuple[Dim, ...]) -> int | None:
    """The group along which an operand lies that lies far apart along the last one."""
    trial = make()
    variables: list[str] = []
    with ExitStack() as stack:
        index: list[Dim] = [0] * len(shape)
        for g in groups:
            point = stack.enter_context(trial.loop(g.size))
            variables.append(str(point))
            place(point, g, index, trial)
        for part, _ in (p for r in results(trial.graph) for p in trial.stored(r, tuple(index))):
            trial.store("", 0, trial.value(part, tuple(index)))
        read = [x for s in trial.scopes for x in indices(tuple(s.statements))]
    steps = [[dict(terms(x)).get((Symbol(v),), 0) for v in variables] for x in read]
    far = [s for s in steps if 0 not in (s[-1], s[-1] - 1) and 1 in s]
    return far[0].index(1) if far else None


def _blocks(body: Body, outputs: Results, groups: Sequence[Axes], near: int, shape: tuple[Dim, ...],
            parallel: bool) -> None:  # fmt: skip
    """The lanes of one block of the last group in the innermost loop, the group that is near around it."""
    *rows, last = groups
    width = lanes(body.graph)
    with ExitStack() as stack:
        index: list[Dim] = [0] * len(shape)
        for g in (g for k, g in enumerate(rows) if k != near):
            place(stack.enter_context(body.loop(g.size, parallel=parallel)), g, index, body)
        first = stack.enter_context(body.loop(last.size, step=width, parallel=parallel, stem="j"))
        place(stack.enter_context(body.loop(rows[near].size)), rows[near], index, body)
        whole = isinstance(last.size, int) and last.size % width == 0
        bound = None if whole else last.size - first
        j = stack.enter_context(body.loop(width, lanes=width, unroll=0, bound=bound, stem="j"))
        place(first + j, last, index, body)
        body.store_all(outputs, [(r, tuple(index)) for r in outputs])


def _divided(body: Body, results: Iterable[str], shape: tuple[Dim, ...]) -> Node | None:
    """A concat or a pad along the last axis in which the results are elementwise."""
    last = len(shape) - 1
    if not shape or not isinstance(shape[last], int):
        return None
    reached = set(results)  # by elementwise operators alone: read at the point at which the results are computed
    for n in reversed(list(body.graph)):
        if n.name not in reached or n.name in body.sources or n.shape != shape:
            continue
        if n.op == "concat" and n.attrs["axis"] == last:
            return n
        if n.op == "pad" and (n.attrs["low"][last] != 0 or n.attrs["high"][last] != 0):
            return n
        if body.ops[n.op].kind == MAP:
            reached.update(n.args)
    return None


def _pieces(body: Body, outputs: Results, groups: Sequence[Axes], side: Node, parallel: bool) -> None:
    """A loop along the last axis for each piece of `side`, in which its value is that of the piece."""
    width, rank = lanes(body.graph), len(side.shape)
    pieces: list[tuple[Dim, Source]]  # how long, and the value at a point of it
    if side.op == "concat":
        pieces = [(body.graph[a].shape[-1], partial(body.value, a)) for a in side.args]
    else:
        (*low, left), (*high, right) = side.attrs["low"], side.attrs["high"]
        rows = replace(side, attrs={**side.attrs, "low": (*low, 0), "high": (*high, 0)})  # padded along other axes
        padding, length = constant_expr(side.attrs["value"], side.dtype), body.graph[side.args[0]].shape[-1]
        pieces = [(left, lambda _: padding), (length, partial(body.computed_as, rows)), (right, lambda _: padding)]

    def source(piece: Source, here: Dim, start: Dim) -> Source:
        def value(index: Index) -> L.Expr:
            if index[-1] != here:  # read elsewhere too, in another piece perhaps
                return body.computed(side.name, index)
            return piece((*index[:-1], index[-1] - start))

        return value

    with over(body, groups[:-1], rank, parallel=parallel) as outer:
        start: Dim = 0
        for length, piece in pieces:
            if length != 0:
                with body.loop(start + length, start=start, lanes=width, parallel=parallel) as j:
                    body.sources[side.name] = source(piece, j, start)
                    body.store_all(outputs, [(r, (*outer[:-1], j)) for r in outputs])
            start = start + length

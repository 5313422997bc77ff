"""Reductions: kept axes outside, reduced axes inside.

When the innermost axis is reduced, the lanes hold partial results of one element, combined in the fixed order of the
loop IR. When it is kept, the lanes are neighbouring elements and every element is folded in index order. Either way
the bits depend on the shape alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import loops as L
from ..index import to_expr
from ..ops.reduction import identity
from ..types import FLOATS, Dim
from .body import Body, Index, flat, lanes
from .nest import Axes, collapse, over, place, tiles

TILE = 4  # vectors of neighbouring elements folded at a time


def reduction(make: Callable[[], Body], name: str) -> Body:
    """The kernel of one REDUCE node over any operand with values at points."""
    body = make()
    node = body.graph[name]
    operand, axes = node.args[0], node.attrs["axes"]
    extents = body.graph[operand].shape
    kinds = [int(k in axes) for k in range(len(extents))]
    groups = [g for g in collapse(make, [operand], extents, kinds) if g.size != 1]
    kept, reduced = ([g for g in groups if kinds[g.axes[0]] == kind] for kind in (0, 1))
    y = body.result(node.dtype)
    how = body.ops[node.op].reduce
    if groups and groups[-1] in kept:
        _columns(body, name, y, kept, reduced, how)
        return body
    with over(body, kept, len(extents)) as outer:
        acc = body.register(node.dtype, 1)
        body.store(acc, 0, _start(how, node.dtype))
        with over(body, reduced, len(extents), lanes=lanes(body.graph)) as point:
            body.fold(acc, 0, how, body.value(operand, _join(outer, point, kinds)))
        body.store(y, flat(_drop(outer, kinds), node.shape), body.load(acc, 0, node.dtype))
    return body


def _columns(body: Body, name: str, y: str, kept: list[Axes], reduced: list[Axes], how: str) -> None:
    node = body.graph[name]
    extents = body.graph[node.args[0]].shape
    kinds = [int(k in node.attrs["axes"]) for k in range(len(extents))]
    width = lanes(body.graph)
    *rows, last = kept
    with over(body, rows, len(extents)) as outer:
        for t in tiles(last.size, TILE * width):
            with body.loop(t.stop, start=t.start, step=t.size) as j0:
                acc = body.register(node.dtype, -(-t.size // width) * width)
                inside = {"lanes": width, "unroll": 0, "bound": last.size - j0 if t.bounded else None}
                with body.loop(t.size, **inside) as j:
                    body.store(acc, j, _start(how, node.dtype))
                with over(body, reduced, len(extents)) as point, body.loop(t.size, **inside) as j:
                    at = list(outer)
                    place(j0 + j, last, at, body)
                    value = body.value(node.args[0], _join(at, point, kinds))
                    folded = L.Apply(L.FOLDS[how], (body.load(acc, j, node.dtype), value), node.dtype)
                    body.store(acc, j, folded)
                with body.loop(t.size, **inside) as j:
                    at = list(outer)
                    place(j0 + j, last, at, body)
                    body.store(y, flat(_drop(at, kinds), node.shape), body.load(acc, j, node.dtype))


def _start(how: str, dtype: str) -> L.Const:
    return L.Const(identity(how, dtype), dtype)


def _join(outer: Sequence[Dim], inner: Sequence[Dim], kinds: Sequence[int]) -> Index:
    return tuple(b if kind else a for a, b, kind in zip(outer, inner, kinds, strict=True))


def _drop(index: Sequence[Dim], kinds: Sequence[int]) -> Index:
    return tuple(i for i, kind in zip(index, kinds, strict=True) if not kind)


def argument(make: Callable[[], Body], name: str) -> Body:
    """The kernel of argmax or argmin: the extreme first, then the least index where it is reached. A NaN is extreme."""
    body = make()
    node = body.graph[name]
    operand, axis = node.args[0], node.attrs["axis"]
    how = {"argmax": "max", "argmin": "min"}[node.op]
    type_ = body.graph[operand].type
    kinds = [int(k == axis) for k in range(type_.rank)]
    groups = [g for g in collapse(make, [operand], type_.shape, kinds) if kinds[g.axes[0]] == 0]
    y, width, n = body.result("i32"), lanes(body.graph), type_.shape[axis]

    def point(outer: Index, k: Dim) -> Index:
        return (*outer[:axis], k, *outer[axis + 1 :])

    with over(body, groups, type_.rank) as outer:
        extreme, first = body.register(type_.dtype, 1), body.register("i32", 1)
        body.store(extreme, 0, _start(how, type_.dtype))
        body.store(first, 0, _start("min", "i32"))
        with body.loop(n, lanes=width) as k:
            body.fold(extreme, 0, how, body.value(operand, point(outer, k)))
        best = body.bind(body.load(extreme, 0, type_.dtype))
        with body.loop(n, lanes=width) as k:
            x = body.value(operand, point(outer, k))
            hit: L.Expr = L.Apply("eq", (x, best), "bool")
            if type_.dtype in FLOATS:
                both = [L.Apply("ne", (v, v), "bool") for v in (x, best)]
                hit = L.Apply("or", (hit, L.Apply("and", tuple(both), "bool")), "bool")
            where = L.Apply("select", (hit, L.Apply("cast", (to_expr(k),), "i32"), _start("min", "i32")), "i32")
            body.fold(first, 0, "min", where)
        body.store(y, flat(_drop(outer, kinds), node.shape), body.load(first, 0, "i32"))
    return body

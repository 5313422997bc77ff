"""Contractions of any shape: `out[f(p)] += prod_k in_k[g_k(p)]`, zero outside.

This is the loop nest that is always right, for convolutions and their gradients too. The indices of the result are
outside, the others inside, each element one chain of fused multiply-adds in the order of the domain. Lanes go along
an index that every operand moves along by 0 or 1, preferably one of the result. Where the result's map is not one index
per axis (the adjoint of a strided convolution), the points are scattered one by one instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from .. import loops as L
from ..graph import Node
from ..index import bounds, nonnegative, to_expr
from ..ops.contraction import Map, is_gathered, safe
from ..types import FLOATS, Dim, symbol
from .body import Body, Index, flat, lanes, tensor
from .nest import across, parts

TILE = 4  # vectors of neighbouring results at a time
ROWS = 8  # results at a time when their terms are in lanes


def contraction(make: Callable[[], Body], name: str, parallel: bool = False) -> Body:
    """The kernel of one contract node; what else the graph holds is elementwise in its result (see `is_gathered`)."""
    body = make()
    node = body.graph[name]
    extent: dict[str, Dim] = dict(node.attrs["domain"])
    y = body.results()
    if not is_gathered(node):
        _scatter(body, node, y[name], extent)
        return body
    letters = [i for e in node.attrs["out"] for i, _ in e[1]]
    folded = [i for i in extent if i not in letters]
    lane = _lane(node, letters, folded)
    if lane is not None and lane in letters:
        with ExitStack() as stack:
            at = {i: stack.enter_context(body.loop(extent[i], parallel=parallel)) for i in letters if i != lane}
            _lanes_of_results(body, node, y, extent, at, lane, folded)
        return body
    with ExitStack() as stack:
        at = {i: stack.enter_context(body.loop(extent[i], parallel=parallel)) for i in letters[:-1]}
        _lanes_of_terms(body, node, y, extent, at, lane, folded, letters[-1] if letters else None, parallel)
    return body


def _lane(node: Node, letters: Sequence[str], folded: Sequence[str]) -> str | None:
    """The index of the lanes: one that moves all operands by at most one element, else the last of the result."""
    for i in [*reversed(letters), *reversed(folded)]:
        maps = [*node.attrs["maps"], *([node.attrs["out"]] if i in letters else [])]
        if all(_moves(m, i) for m in maps):
            return i
    return letters[-1] if letters else folded[-1] if folded else None


def _moves(m: Map, i: str) -> bool:
    """One step of the index `i` moves by 0 or 1 elements in memory."""
    return all(dict(e[1]).get(i, 0) == 0 for e in m[:-1]) and (not m or dict(m[-1][1]).get(i, 0) in (0, 1))


def _lanes_of_results(body: Body, node: Node, y: Mapping[str, str], extent: Mapping[str, Dim], at: Mapping[str, Dim],
                      lane: str, folded: Sequence[str]) -> None:  # fmt: skip
    """Neighbouring results in lanes, each folded serially."""
    width, result = lanes(body.graph), node.attrs["out"]
    for t in parts(extent[lane], TILE * width, width):
        with body.loop(t.stop, start=t.start, step=t.step) as j0:
            acc = body.register(node.dtype, t.padded(width))
            with across(body, t, j0, extent[lane], width) as j:
                body.store(acc, j, _zero(node.dtype))
            with ExitStack() as stack:
                point = {**at, **{i: stack.enter_context(body.loop(extent[i])) for i in folded}}
                j = stack.enter_context(across(body, t, j0, extent[lane], width))
                point[lane] = j0 + j
                body.store(acc, j, _accumulated(body, node, point, body.load(acc, j, node.dtype)))
            with across(body, t, j0, extent[lane], width) as j:
                where = _evaluate(result, {**at, lane: j0 + j})
                body.in_register(node.name, acc, j)
                body.store_all(y, [(v, where) for v in y])


def _lanes_of_terms(body: Body, node: Node, y: Mapping[str, str], extent: Mapping[str, Dim], at: Mapping[str, Dim],
                    lane: str | None, folded: Sequence[str], row: str | None, parallel: bool) -> None:  # fmt: skip
    """Terms of one result in lanes, some results at a time: what they share is loaded once."""
    result = node.attrs["out"]
    for t in parts(extent[row] if row else 1, ROWS):
        with body.loop(t.stop, start=t.start, step=t.step, parallel=parallel) as first:
            acc = body.register(node.dtype, t.width)
            with body.loop(t.width, unroll=0) as r:
                body.store(acc, r, _zero(node.dtype))
            with ExitStack() as stack:
                point = dict(at)
                for i in [*(i for i in folded if i != lane), *([lane] if lane else [])]:
                    point[i] = stack.enter_context(body.loop(extent[i], lanes=lanes(body.graph) if i == lane else 1))
                r = stack.enter_context(body.loop(t.width, unroll=0))
                if row:
                    point[row] = first + r
                body.fold(acc, r, "sum", _times(_factors(body, node, point)))
            with body.loop(t.width, unroll=0) as r:
                where = _evaluate(result, {**at, **({row: first + r} if row else {})})
                body.in_register(node.name, acc, r)
                body.store_all(y, [(v, where) for v in y])


def _scatter(body: Body, node: Node, y: str, extent: Mapping[str, Dim]) -> None:
    with body.loop(tensor(node).size, lanes=lanes(body.graph)) as i:
        body.store(y, i, _zero(node.dtype))
    with ExitStack() as stack:
        point = {i: stack.enter_context(body.loop(n)) for i, n in extent.items()}
        where = _evaluate(node.attrs["out"], point)
        guards = [c for i, n in zip(where, node.shape, strict=True) for c in _outside(i, n, body.ranges)]
        if guards:
            stack.enter_context(body.when(_all(guards)))
        body.fold(y, flat(where, node.shape), "sum", _times(_factors(body, node, point)))


def _accumulated(body: Body, node: Node, point: Mapping[str, Dim], acc: L.Expr) -> L.Expr:
    """acc + the product at a point, by one fused multiply-add where there are floats and two operands or more."""
    *factors, last = _factors(body, node, point)
    if node.dtype not in FLOATS or not factors:
        return L.Apply("add", (acc, _times([*factors, last])), node.dtype)
    return L.Apply("fma", (_times(factors), last, acc), node.dtype)


def _times(factors: Sequence[L.Expr]) -> L.Expr:
    product = factors[0]
    for f in factors[1:]:
        product = L.Apply("mul", (product, f), f.dtype)
    return product


def _factors(body: Body, node: Node, point: Mapping[str, Dim]) -> list[L.Expr]:
    """The operands at a point of the domain; 0 where a map leaves its operand."""
    out: list[L.Expr] = []
    for arg, m in zip(node.args, node.attrs["maps"], strict=True):
        shape = body.graph[arg].shape
        where = list(_evaluate(m, point))
        guards: list[L.Expr] = []
        for k, n in enumerate(shape):
            wrong = _outside(where[k], n, body.ranges) if not safe(m[k], n, node) else []
            if wrong:
                guards += wrong
                last = L.sub(to_expr(n), L.i64(1))
                clamped = L.Apply("maximum", (L.Apply("minimum", (to_expr(where[k]), last), "i64"), L.i64(0)), "i64")
                where[k] = symbol(body.bound_var(clamped).name)
        value = body.value(arg, tuple(where))
        if guards:
            value = body.bind(L.Apply("select", (_all(guards), value, _zero(node.dtype)), node.dtype))
        out.append(value)
    return out


def _outside(i: Dim, n: Dim, ranges: Mapping[str, Dim | None]) -> list[L.Expr]:
    """The conditions that 0 <= i < n needs, without those that are certain."""
    low, high = bounds(i, ranges)
    e = to_expr(i)
    conditions: list[L.Expr] = []
    if low is None or not nonnegative(low):
        conditions.append(L.Apply("ge", (e, L.i64(0)), "bool"))
    if high is None or not nonnegative(n - 1 - high):
        conditions.append(L.Apply("lt", (e, to_expr(n)), "bool"))
    return conditions


def _all(conditions: Sequence[L.Expr]) -> L.Expr:
    total = conditions[0]
    for c in conditions[1:]:
        total = L.Apply("and", (total, c), "bool")
    return total


def _evaluate(m: Map, point: Mapping[str, Dim]) -> Index:
    out: list[Dim] = []
    for constant, linear in m:
        position: Dim = constant
        for i, c in linear:
            position = position + point[i] * c
        out.append(position)
    return tuple(out)


def _zero(dtype: str) -> L.Const:
    return L.Const(0.0 if dtype in FLOATS else 0, dtype)

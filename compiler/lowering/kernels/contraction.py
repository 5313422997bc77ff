"""Contractions of any shape: `out[f(p)] += prod_k in_k[g_k(p)]`, zero outside.

This is the loop nest that is always right, for convolutions and their gradients too. The indices of the result are
outside, the others inside, in the order of the domain. Lanes go along an index that every operand moves along by 0 or
1, preferably one of the result: then each element is one chain of fused multiply-adds. Else the terms of an element are
in lanes, one chain for each lane, for a tile of results: what rows and columns share is loaded once. Whole tiles of
columns go around all else, so that a thread has columns of its own. Where the result's map is not one index per axis
(some adjoints of windows), the points are scattered one by one instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from math import prod
from typing import TYPE_CHECKING

from ....dsl.record import replace
from ...graph.boxes import flat
from ...graph.cost import number
from ...graph.nodes import Node
from ...graph.ops.contraction import Map, is_gathered, safe
from ...loops import ir as L
from ...loops.index import bounds, to_expr
from ...types.sizes import Dim, nonnegative, symbol
from ...types.tensors import BYTES, FLOATS
from .body import Body, Index, Results, lanes, tensor
from .nest import across, outer, parts
from .tile import LATENCY

if TYPE_CHECKING:
    from ...native.target import Target

TILE = 4  # vectors of neighbouring results at a time
ROWS = 8  # results at a time when their terms are in lanes and all are of one operand


def contraction(make: Callable[[], Body], name: str, target: Target, parallel: bool = False) -> Body:
    """The kernel of one contract node; what else the graph holds is elementwise in its result."""
    body = make()
    node = body.graph[name]
    extent: dict[str, Dim] = dict(node.attrs["domain"])
    if not is_gathered(node):
        _scatter(body, node, body.result(node.dtype), extent)
        return body
    y = body.results()
    letters = [i for e in node.attrs["out"] for i, _ in e[1]]
    folded = [i for i in extent if i not in letters]
    lane = _lane(node, letters, folded)
    if lane is not None and lane in letters:
        others = [i for i in letters if i != lane]
        with outer(body, [extent[i] for i in others], parallel) as points:
            at = dict(zip(others, points, strict=True))
            _lanes_of_results(body, node, y, extent, at, lane, folded)
        return body
    sides = _sides(node, letters)
    registers = target.registers * target.vector_bytes // (lanes(body.graph) * BYTES[node.dtype])
    high, wide = _tile([extent[i] for i in sides], registers) if len(sides) == 2 else (ROWS, 1)
    others = [i for i in letters if i not in sides]
    down = parts(extent[sides[0]], high) if sides else parts(1, 1)
    across = parts(extent[sides[1]], wide) if len(sides) == 2 else parts(1, 1)
    turns = across[0].stop // across[0].step if len(across) == 1 and isinstance(across[0].stop, int) else 1
    with outer(body, [turns, *(extent[i] for i in others)], parallel) as (turn, *points):
        at = dict(zip(others, points, strict=True))
        for rows in down:
            with body.loop(rows.stop, start=rows.start, step=rows.step, parallel=parallel) as i0:
                for columns in across if turns == 1 else [replace(across[0], stop=across[0].step)]:
                    with body.loop(columns.stop, start=columns.start, step=columns.step, parallel=parallel) as j0:
                        j0 = turn * columns.step + j0
                        tiled = [(i, x, p.width) for i, x, p in zip(sides, (i0, j0), (rows, columns), strict=False)]
                        _lanes_of_terms(body, node, y, extent, at, tiled, lane, folded)
    return body


def _sides(node: Node, letters: Sequence[str]) -> list[str]:
    """The innermost index of the result that only the first operand has, and that only the second has; where not both
    are there, the innermost at all."""
    used = [{i for e in m for i, _ in e[1]} for m in node.attrs["maps"]]
    if len(used) == 2:
        own = [[i for i in letters if i in used[k] and i not in used[1 - k]] for k in (0, 1)]
        if all(own):
            return [own[0][-1], own[1][-1]]
    return list(letters[-1:])


def _tile(extents: Sequence[Dim], registers: int) -> tuple[int, int]:
    """Rows and columns of results, whose sums fit into `registers` vectors: the fewest multiply-adds with what the
    edges waste, and no fewer than hide their latency; then loads, and the length of the code."""
    best: tuple[float, int, int] | None = None
    rows, columns = (max(1, number(n)) for n in extents)
    for r in range(1, min(rows, registers) + 1):
        for c in range(1, min(columns, registers) + 1):
            if r * c == 1 or r * c + min(r, c) < registers - 1:
                cycles = sum(m * k * max(a * b, LATENCY) for a, m in _split(rows, r) for b, k in _split(columns, c))
                cost = cycles * (1 + 0.05 * (r + c) / (r * c) + 0.001 * r * c)
                if best is None or cost < best[0]:
                    best = cost, r, c
    assert best is not None
    return best[1], best[2]


def _split(n: int, width: int) -> list[tuple[int, int]]:
    """(width, how many) of tiles, and of what is left."""
    return [(w, k) for w, k in ((width, n // width), (n % width, 1)) if w and k]


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


def _lanes_of_results(body: Body, node: Node, y: Results, extent: Mapping[str, Dim], at: Mapping[str, Dim],
                      lane: str, folded: Sequence[str]) -> None:  # fmt: skip
    """Neighbouring results in lanes, each folded serially."""
    width, result = lanes(body.graph), node.attrs["out"]
    for t in parts(extent[lane], TILE * width, width):
        with body.loop(t.stop, start=t.start, step=t.step) as j0:
            acc = body.register(node.dtype, t.padded(width))
            with across(body, t, j0, extent[lane], width) as j:
                body.store(acc, j, _zero(node.dtype))
            with _if_filled(body, node), ExitStack() as stack:
                point = {**at, **{i: stack.enter_context(body.loop(extent[i])) for i in folded}}
                j = stack.enter_context(across(body, t, j0, extent[lane], width))
                point[lane] = j0 + j
                body.store(acc, j, _accumulated(body, node, point, body.load(acc, j, node.dtype)))
            with across(body, t, j0, extent[lane], width) as j:
                where = _evaluate(result, {**at, lane: j0 + j})
                body.in_register(node.name, where, acc, j)
                body.store_all(y, [(v, where) for v in y])


def _lanes_of_terms(body: Body, node: Node, y: Results, extent: Mapping[str, Dim], at: Mapping[str, Dim],
                    tile: Sequence[tuple[str, Dim, int]], lane: str | None, folded: Sequence[str]) -> None:  # fmt: skip
    """A tile of results, each the sum of its lanes. Lanes that are not whole groups are added by themselves."""
    width, rest = lanes(body.graph), [i for i in folded if i != lane]
    total = body.register(node.dtype, prod(n for _, _, n in tile))
    with _each(body, tile) as (k, _):
        body.store(total, k, _zero(node.dtype))
    if lane is None:
        with _if_filled(body, node), _each(body, tile) as (k, point):
            body.store(total, k, _times(_factors(body, node, {**at, **point})))
    for t in parts(extent[lane], width, width) if lane is not None else []:
        assert lane is not None
        if t.width < width or t.bounded:
            with _if_filled(body, node), ExitStack() as stack:
                here = {lane: stack.enter_context(body.loop(t.stop, start=t.start, lanes=width))}
                here |= {i: stack.enter_context(body.loop(extent[i])) for i in rest}
                k, point = stack.enter_context(_each(body, tile))
                body.fold(total, k, "sum", _times(_factors(body, node, {**at, **here, **point})))
            continue
        acc = body.register(node.dtype, prod(n for _, _, n in tile) * width)
        with body.loop(width, lanes=width, unroll=0, stem="j") as j, _each(body, tile) as (k, _):
            body.store(acc, k * width + j, _zero(node.dtype))
        with _if_filled(body, node), ExitStack() as stack:
            here = {i: stack.enter_context(body.loop(extent[i])) for i in rest}
            first = stack.enter_context(body.loop(t.stop, start=t.start, step=t.step))
            j = stack.enter_context(body.loop(width, lanes=width, unroll=0, stem="j"))
            k, point = stack.enter_context(_each(body, tile))
            point = {**at, **here, **point, lane: first + j}
            old = body.load(acc, k * width + j, node.dtype)
            body.store(acc, k * width + j, _accumulated(body, node, point, old))
        with body.loop(width, lanes=width, unroll=0, stem="j") as j, _each(body, tile) as (k, _):
            body.fold(total, k, "sum", body.load(acc, k * width + j, node.dtype))
    with _each(body, tile) as (k, point):
        where = _evaluate(node.attrs["out"], {**at, **point})
        body.in_register(node.name, where, total, k)
        body.store_all(y, [(v, where) for v in y])


@contextmanager
def _each(body: Body, tile: Sequence[tuple[str, Dim, int]]) -> Iterator[tuple[Dim, dict[str, Dim]]]:
    """Every result of a tile: its number, and its indices."""
    with ExitStack() as stack:
        k: Dim = 0
        point: dict[str, Dim] = {}
        for i, first, n in tile:
            r = stack.enter_context(body.loop(n, unroll=0, stem="r"))
            k, point[i] = k * n + r, first + r
        yield k, point


def _scatter(body: Body, node: Node, y: str, extent: Mapping[str, Dim]) -> None:
    with body.loop(tensor(node).size, lanes=lanes(body.graph)) as i:
        body.store(y, i, _zero(node.dtype))
    with _if_filled(body, node), ExitStack() as stack:
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


def _if_filled(body: Body, node: Node) -> AbstractContextManager[None]:
    """What is read at a clamped place must have an element: of an operand without any, all that is read is 0."""
    axes = [
        n
        for x, m in zip(node.args, node.attrs["maps"], strict=True)
        for e, n in zip(m, body.graph[x].shape, strict=True)
        if not safe(e, n, node) and not nonnegative(n - 1)
    ]
    if not axes:
        return nullcontext()
    return body.when(_all([L.Apply("gt", (to_expr(n), L.i64(0)), "bool") for n in dict.fromkeys(axes)]))


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

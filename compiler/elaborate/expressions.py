"""Syntax tree -> value: one case per kind of expression."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from ...dsl import ast
from ...dsl.chains import postfixes
from ...dsl.diagnostics import Label
from ...dsl.errors import NncError, error
from ...dsl.source import Span
from ..types.sizes import Dim, SizeTooLarge, symbols
from ..types.tensors import FLOATS, INTS
from . import calls, notation, parts
from .context import Context
from .operations import binary, unary
from .scope import MISSING, Scope, unknown
from .shapes import MASKED, RANGE, at_least, gather_axis, reshape, tensor
from .values import (
    POISON,
    Bound,
    Builtin,
    Defined,
    Group,
    Partial,
    Results,
    Shared,
    Tensor,
    Value,
    is_size,
    is_static,
    kind,
)


def evaluate(cx: Context, e: ast.Expr, scope: Scope) -> Value:
    """The value of an expression."""
    cx.spend(1, e.span)
    while isinstance(e, ast.IfExpr):
        e = e.then if cx.condition(e.condition, scope) else e.otherwise
    try:
        match e:
            case ast.Name(id=name):
                return name_value(cx, name, e.span, scope)
            case ast.Call(function=ast.Name()):  # most calls, and a frame less where they are nested
                return calls.call(cx, e, calls.callee(cx, e.function, scope), scope)
            case ast.Binary():
                return _binary(cx, e, scope)
            case ast.Int(value=v) | ast.Float(value=v) | ast.Bool(value=v) | ast.Str(value=v):
                return v
            case ast.List(items=items):
                listed = tuple(evaluate(cx, item, scope) for item in items)
                return POISON if cx.program.faults is not None and POISON in listed else cx.listed(listed, e.span)
            case ast.Tuple(items=items):
                return cx.listed(Results(None, tuple(evaluate(cx, item, scope) for item in items)), e.span)
            case ast.Unary(op=op, operand=x):
                return unary(cx, op, evaluate(cx, x, scope), e.span)
            case ast.Pipe():
                return calls.pipe(cx, e, scope)
            case ast.Call() | ast.Index() | ast.Attribute():
                return _postfix(cx, e, scope)
            case ast.Comprehension():
                return notation.comprehension(cx, e, scope)
            case ast.Unread(names=names):
                scope.doubtful.update(names)
                return POISON
            case ast.Range():
                raise error("E0307", "a range can only stand in `scan`, `repeat` or beside an index", e.span)
    except SizeTooLarge as large:
        raise error("E0502", str(large), e.span) from None
    raise AssertionError(e)


def _binary(cx: Context, e: ast.Binary, scope: Scope) -> Value:
    # left-deep chains (a + b + c + ...) are walked in a loop: they may be long
    chain: list[ast.Binary] = []
    left: ast.Expr = e
    while isinstance(left, ast.Binary):
        chain.append(left)
        left = left.left
    value = evaluate(cx, left, scope)
    for b in reversed(chain):
        if b.op in ("and", "or") and isinstance(value, bool) and value == (b.op == "or"):
            continue
        value = binary(cx, b.op, value, evaluate(cx, b.right, scope), b.op_span, (b.left.span, b.right.span))
    return value


def name_value(cx: Context, name: str, span: Span, scope: Scope) -> Value:
    value = scope.lookup(name)
    if value is MISSING:
        value = cx.ambient.get(name, MISSING)
        if isinstance(value, Tensor) and value.dtype in FLOATS and value.dtype != cx.real:
            value = cx.emit("cast", value, span=span, dtype=cx.real)
    if value is MISSING:
        if scope.doubts(name):
            return POISON
        raise _unknown(cx, name, span, scope)
    value = cx.program.force(cx, value, span)
    if cx.met is not None:
        cx.met(span, value)
    return value


def _unknown(cx: Context, name: str, span: Span, scope: Scope) -> NncError:
    known = [*scope.visible(), *cx.ambient]
    collected = next((f.collects[name] for f in cx.frames if name in f.collects), None)
    if collected is not None:
        advice = "what the next turn needs is carried: give it a name of its own, with a value before the scan"
        return unknown(name, span, known, "name", advice, Label(collected, f"`{name}` is whole only behind the scan"))
    assigned = next((s.inside[name] for s in scope.chain() if name in s.inside), None)
    if assigned is not None:
        return unknown(
            name,
            span,
            known,
            "name",
            f"assign `{name}` before the scan, and it is carried; or collect a value of each turn: `{name}s[t] = ..`",
            Label(assigned, f"`{name}` is assigned only inside this scan"),
        )
    if name in scope.later:
        return unknown(
            name,
            span,
            known,
            "name",
            "a name can be used below the line that assigns it",
            Label(scope.later[name], f"`{name}` is assigned only here"),
        )
    if name in ("t", "epoch", "steps"):
        return unknown(
            name, span, known, "name", f"`{name}` has a value in train blocks, in optimizers, and in what they call"
        )
    return unknown(name, span, known)


# --- attributes ------------------------------------------------------------------------------------------------------


def _postfix(cx: Context, e: ast.Expr, scope: Scope) -> Value:
    """`x.T[0](a)`, from what stands first, in a loop: there may be many."""
    first, steps = postfixes(e)
    dotted = list(takewhile(lambda s: isinstance(s, ast.Attribute) and s.name != "T", steps))
    path = parts.path_of(dotted[-1], scope) if dotted else None
    steps = steps if path is None else steps[len(dotted) :]
    called = bool(steps) and isinstance(steps[0], ast.Call)
    value: Value
    if path is None:
        value = calls.callee(cx, first, scope) if called else evaluate(cx, first, scope)
    else:
        value = (parts.layer_at if called else parts.value_at)(cx, path, dotted[-1].span)
    for step in steps:
        cx.spend(1, step.span)
        match step:
            case ast.Call():
                value = calls.call(cx, step, value, scope)
            case ast.Index(items=items):
                value = index(cx, value, items, step.span, scope)
            case ast.Attribute(base=base, name=name):
                value = _attribute(cx, value, base.span, name, step.span)
    return value


def _attribute(cx: Context, value: Value, at: Span, name: str, span: Span) -> Value:
    if name == "T" and isinstance(value, tuple):
        value = tensor(cx, value, at)
    match value:
        case Tensor() if name == "T":
            if value.rank < 2:
                raise error("E0303", f"`.T` needs two axes or more, not {value.type}", span)
            order = (*range(value.rank - 2), value.rank - 1, value.rank - 2)
            return cx.emit("transpose", value, span=span, perm=order)
        case Results(names=names, items=items) if names and name in names:
            return items[names.index(name)]
        case Results(names=names) if names:
            raise unknown(name, span, list(names), "result")
    raise error("E0307", f"{kind(value)} has no `.{name}`", span)


# --- indexing --------------------------------------------------------------------------------------------------------


def index(cx: Context, base: Value, items: tuple[Any, ...], span: Span, scope: Scope) -> Value:
    """`x[1:3, -1, ::2, i]`: slices with steps, numbers (drop the axis), integer tensors (gather); `x[]` of a scalar."""
    if isinstance(base, tuple | Results) and len(items) == 1 and not isinstance(items[0], ast.Slice | ast.Rest):
        position = evaluate(cx, items[0], scope)
        if isinstance(position, int) and not isinstance(position, bool):
            sequence = base if isinstance(base, tuple) else base.items
            if not -len(sequence) <= position < len(sequence):
                raise error("E0301", f"index {position} is outside a list of {len(sequence)}", items[0].span)
            return sequence[position]
    if isinstance(base, Results) and len(base.items) == 1:
        base = base.items[0]
    if isinstance(base, Builtin | Defined | Partial | Shared | Bound | Group) or (
        is_static(base) and not isinstance(base, tuple)
    ):
        raise error("E0307", f"{kind(base)} cannot be indexed", span)
    x = base if isinstance(base, Tensor) else tensor(cx, base, span)
    if len(items) > x.rank or (x.rank and not items):
        raise error("E0303", f"{len(items)} indices for {x.type}, which has {x.rank} axes", span)
    starts: list[Dim] = [0] * x.rank
    stops: list[Dim] = list(x.shape)
    steps = [1] * x.rank
    drop: list[int] = []
    gathers: list[tuple[int, Tensor, Span]] = []
    for axis, item in enumerate(items):
        n = x.shape[axis]
        if isinstance(item, ast.Rest):
            raise error("E0309", f"`*{item.name}` belongs to index notation, `y[b, *s] = ...`", item.span)
        if isinstance(item, ast.Binder):
            raise error("E0309", RANGE, item.span)
        if isinstance(item, ast.Slice):
            starts[axis], stops[axis], steps[axis] = _slice(cx, item, n, scope)
            continue
        value = evaluate(cx, item, scope)
        if isinstance(value, Results):
            value = value.items[0]
        if is_size(value):
            position = _position(cx, value, n, item.span)
            starts[axis], stops[axis] = position, position + 1
            drop.append(axis)
        elif isinstance(value, Tensor) and value.dtype in INTS:
            gathers.append((axis, value, item.span))
        elif isinstance(value, tuple):
            gathers.append((axis, tensor(cx, value, item.span, "i32"), item.span))
        else:
            masked = isinstance(value, Tensor) and value.dtype == "bool"
            raise error(
                "E0307",
                f"an index must be a whole number, a slice or an integer tensor, not {kind(value)}",
                item.span,
                help=MASKED if masked else None,
            )
    x = _cut(cx, x, starts, stops, steps, span)
    for axis, positions, at in reversed(gathers):
        x = gather_axis(cx, x, positions, axis, at)
    if drop:
        # a gather at a later axis leaves earlier axes where they are, so dropping from the left is safe
        shift = {a: a + sum(g.rank - 1 for b, g, _ in gathers if b < a) for a in drop}
        gone = set(shift.values())
        x = reshape(cx, x, [s for k, s in enumerate(x.shape) if k not in gone], span)
    return x


def _cut(cx: Context, x: Tensor, starts: list[Dim], stops: list[Dim], steps: list[int], span: Span) -> Tensor:
    """`x[starts:stops:steps]`; of a value from around a scan, each axis as far out as its bounds are known."""
    first, here = cx.level(x), len(cx.frames)
    depth = [
        max((k + 1 for k, f in enumerate(cx.frames) if f.index in symbols(a) | symbols(b)), default=0)
        for a, b in zip(starts, stops, strict=True)
    ]
    for level in range(here if first is None else first, here + 1):
        now = [d == level or (d < level and level == first) for d in depth]
        axes = zip(now, starts, stops, steps, x.shape, strict=True)
        if any(ok and (a, b, k) != (0, n, 1) for ok, a, b, k, n in axes):
            with cx.around(level):
                x = cx.emit(
                    "slice", x, span=span,
                    starts=tuple(a if ok else 0 for ok, a in zip(now, starts, strict=True)),
                    stops=tuple(b if ok else n for ok, b, n in zip(now, stops, x.shape, strict=True)),
                    steps=tuple(k if ok else 1 for ok, k in zip(now, steps, strict=True)),
                )  # fmt: skip
    return x


def _slice(cx: Context, item: ast.Slice, n: Dim, scope: Scope) -> tuple[Dim, Dim, int]:
    step = 1 if item.step is None else cx.integer(item.step, scope, "a step")
    if not isinstance(step, int) or step < 1:
        raise error(
            "E0307", f"a step must be a number from 1, not {step}", item.span, help="`flip(x, axis)` reverses an axis"
        )
    start: Dim = 0 if item.start is None else _bound(cx, cx.integer(item.start, scope, "a slice"), n, item.span)
    stop: Dim = n if item.stop is None else _bound(cx, cx.integer(item.stop, scope, "a slice"), n, item.span)
    message = f"the slice {item.span.text} must not end before it begins"
    if isinstance(start, int) and isinstance(stop, int):
        stop = max(start, stop)
    elif not at_least(cx, stop, start, message, item.span):
        if any(f.index in symbols(start) | symbols(stop) for f in cx.frames):
            raise error("E0301", f"{message}, in any turn", item.span)
        stop = start
    return start, stop, step


def _bound(cx: Context, value: Dim, n: Dim, span: Span) -> Dim:
    """A slice bound, NumPy's way: negative counts from the end. On an axis of known size what is outside is clipped;
    on another it is a run-time error, because the result's size must not depend on which of the two happens."""
    if isinstance(value, int) and isinstance(n, int):
        return min(max(n + value if value < 0 else value, 0), n)
    bound = n + value if isinstance(value, int) and value < 0 else value
    _inside(cx, bound, n, f"the slice {span.text} must stay inside an axis of {n}", span)
    return bound


def _position(cx: Context, value: Dim, n: Dim, span: Span) -> Dim:
    position = n + value if isinstance(value, int) and value < 0 else value
    _inside(cx, position, n, f"index {value} is outside an axis of {n}", span, 1)
    return position


def _inside(cx: Context, position: Dim, n: Dim, message: str, span: Span, width: int = 0) -> None:
    """`width` elements from `position` must be inside an axis of `n`."""
    if not (at_least(cx, position, 0, message, span) and at_least(cx, n, position + width, message, span)):
        raise error("E0301", message, span)

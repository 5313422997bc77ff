"""Second walk: values. Arithmetic lines labels up, comprehensions reduce them, a sum of products is one `contract`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ....dsl import ast
from ....dsl.errors import error
from ....dsl.source import Span
from ...types.sizes import Dim
from .. import calls
from ..context import Context
from ..operations import binary, contract, elementwise, negate, unary
from ..scope import MISSING, Scope
from ..shapes import broadcast_to, check_filled, check_index, tensor
from ..values import Given, Results, Tensor, Value, is_size
from .labels import Indices, Labelled, Reference, is_plain, is_reference, labels_of, own_axis, reference, uses

MAX_FACTORS = 16  # of one contraction
COUNTING = ("+", "-", "*", "//", "%")  # of whole numbers a whole number
REDUCTIONS = {
    "sum": "reduce_sum",
    "mean": "reduce_sum",
    "prod": "reduce_prod",
    "max": "reduce_max",
    "min": "reduce_min",
}


def evaluate(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> Labelled | Value:
    """A `Labelled`, or an ordinary value where no index is involved."""
    while isinstance(e, ast.IfExpr):
        e = e.then if cx.condition(e.condition, scope) else e.otherwise
    match e:
        case ast.Index() if is_reference(e, ix):
            return _materialise(cx, reference(cx, e, ix, scope), ix)
        case ast.Comprehension():
            return _reduce(cx, e, ix, scope)
        case ast.Unary(op=op, operand=x):
            value = evaluate(cx, x, ix, scope)
            if isinstance(value, Labelled):
                return Labelled(negate(cx, op, value.tensor, e.span), value.labels, value.counts)
            return unary(cx, op, value, e.span)
        case ast.Binary(op=op) if op != "@":
            chain: list[ast.Binary] = []
            left: ast.Expr = e
            while isinstance(left, ast.Binary) and left.op != "@":
                chain.append(left)
                left = left.left
            value = evaluate(cx, left, ix, scope)
            for step in reversed(chain):
                value = _combined(cx, step, value, evaluate(cx, step.right, ix, scope), ix)
            return value
        case ast.Call(function=f, arguments=args) if any(uses(a.value, ix) for a in args):
            function = cx.evaluate(f, scope)
            values = [evaluate(cx, a.value, ix, scope) for a in args]

            def invoke(*given: Any) -> Value:
                positional = [v for v, a in zip(given, args, strict=True) if a.name is None]
                named = {a.name: v for v, a in zip(given, args, strict=True) if a.name is not None}
                return calls.apply(cx, function, Given(tuple(positional), named, e.span), scope)

            return _lifted(cx, values, ix, e.span, invoke)
        case ast.Name(id=name) if name in ix.names and scope.lookup(name) is MISSING:
            return _position(cx, name, ix, e.span)
    return cx.evaluate(e, scope)


def _combined(cx: Context, e: ast.Binary, a: Labelled | Value, b: Labelled | Value, ix: Indices) -> Labelled | Value:
    spans = (e.left.span, e.right.span)
    counts = e.op in COUNTING and all(v.counts if isinstance(v, Labelled) else is_size(v) for v in (a, b))
    a, b = _as_beside(cx, a, b, spans[0]), _as_beside(cx, b, a, spans[1])
    value = _lifted(cx, [a, b], ix, e.span, lambda x, y: binary(cx, e.op, x, y, e.op_span, spans))
    return replace(value, counts=counts) if isinstance(value, Labelled) else value


def _as_beside(cx: Context, v: Labelled | Value, other: Labelled | Value, span: Span) -> Labelled | Value:
    """What counts in the dtype of the other operand."""
    if not (isinstance(v, Labelled) and v.counts):
        return v
    x = other.tensor if isinstance(other, Labelled) else other
    if isinstance(x, Results) and len(x.items) == 1:
        x = x.items[0]
    dtype = x.dtype if isinstance(x, Tensor) else cx.real if isinstance(x, float) else v.tensor.dtype
    if dtype in ("bool", v.tensor.dtype):
        return v
    return Labelled(cx.emit("cast", v.tensor, span=span, dtype=dtype), v.labels)


def _position(cx: Context, name: str, ix: Indices, span: Span) -> Labelled:
    """An index as a number: its position along its axis."""
    n = ix.size(name, span)
    check_index(cx, n, span)
    return Labelled(cx.emit("iota", span=span, shape=(n,), axis=0, dtype="i32"), (name,), counts=True)


def _lifted(
    cx: Context, values: Sequence[Labelled | Value], ix: Indices, span: Span, fn: Callable[..., Value]
) -> Labelled | Value:
    """Apply an elementwise function to labelled and ordinary values: labels are lined up first."""
    labels: list[str] = []
    for v in values:
        if isinstance(v, Labelled):
            labels += [label for label in v.labels if label not in labels]
    if not any(isinstance(v, Labelled) for v in values):
        return fn(*values)
    aligned = [align(cx, v, labels, ix, span) if isinstance(v, Labelled) else v for v in values]
    for v in aligned:
        if isinstance(v, Tensor) and v.rank not in (0, len(labels)):
            raise error("E0309", f"{v.type} stands without indices among indexed values", span)
    result = fn(*aligned)
    if not isinstance(result, Tensor) or result.rank != len(labels):
        raise error("E0309", "only functions that work element by element can stand under indices", span)
    return Labelled(result, tuple(labels))


def align(cx: Context, v: Labelled, labels: Sequence[str], ix: Indices, span: Span) -> Tensor:
    """The tensor with one axis per label, in that order; labels it lacks are broadcast."""
    if v.labels == tuple(labels):
        return v.tensor
    shape = [ix.size(label, span) for label in labels]
    order = sorted(range(len(v.labels)), key=lambda k: labels.index(v.labels[k]))
    x = v.tensor
    if order != list(range(len(order))):
        x = cx.emit("transpose", x, span=span, perm=tuple(order))
    kept = [v.labels[k] for k in order]
    return broadcast_to(cx, x, shape, span, tuple(labels.index(label) for label in kept))


def _materialise(cx: Context, r: Reference, ix: Indices) -> Labelled:
    labels = labels_of(r.map)
    full = all(is_plain(entry) for entry in r.map) and len(labels) == r.tensor.rank
    if full and all(ix.extent[n] == s for n, s in zip(labels, r.tensor.shape, strict=True)):
        return Labelled(r.tensor, tuple(labels))
    domain = [(n, ix.extent[n]) for n in labels]
    out = [own_axis(n) for n in labels]
    return Labelled(contract(cx, [r.tensor], domain, [r.map], out, [s for _, s in domain], r.span), tuple(labels))


def _reduce(cx: Context, e: ast.Comprehension, ix: Indices, scope: Scope) -> Labelled:
    bound = [label for b in e.binders for label in (ix.expand(b.name, b.span) if b.rest else [b.name])]
    for label, b in zip(bound, e.binders, strict=False):
        ix.size(label, b.span)
    if e.reduction in ("sum", "mean"):
        product = _product(cx, e.body, ix, scope)
        if product is not None:
            return _scale(cx, _contract(cx, product, bound, ix, e.span), e, bound, ix)
    body = evaluate(cx, e.body, ix, scope)
    if not isinstance(body, Labelled):
        body = Labelled(tensor(cx, body, e.body.span, cx.real), ())
    missing = [label for label in bound if label not in body.labels]
    labels = [*body.labels, *missing]
    x = align(cx, body, labels, ix, e.span)
    if x.dtype == "bool":
        x = cx.emit("cast", x, span=e.span, dtype=cx.real if e.reduction == "mean" else "i32")
    axes = tuple(sorted(labels.index(label) for label in bound))
    if e.reduction in ("max", "min"):
        check_filled(cx, e.reduction, x, axes, e.span)
    reduced = cx.emit(REDUCTIONS[e.reduction], x, span=e.span, axes=axes)
    return _scale(cx, Labelled(reduced, tuple(n for n in labels if n not in bound)), e, bound, ix)


def _scale(cx: Context, v: Labelled, e: ast.Comprehension, bound: list[str], ix: Indices) -> Labelled:
    if e.reduction != "mean":
        return v
    count: Dim = 1
    for label in bound:
        count = count * ix.extent[label]
    return Labelled(elementwise(cx, "/", v.tensor, count, e.span, (e.span, e.span)), v.labels)


def _product(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> list[Reference] | None:
    """The factors of a product of two or more float references, or None where the body is anything else."""
    factors: list[ast.Expr] = []
    stack = [e]
    while stack:
        if len(stack) + len(factors) > MAX_FACTORS:  # ((x^2)^2)^2 has eight
            return None
        x = stack.pop()
        if isinstance(x, ast.Binary) and x.op == "*":
            stack += [x.right, x.left]
        elif isinstance(x, ast.Binary) and x.op == "^" and isinstance(x.right, ast.Int) and x.right.value == 2:
            stack += [x.left, x.left]
        else:
            factors.append(x)
    if len(factors) < 2 or not all(isinstance(f, ast.Index) and is_reference(f, ix) for f in factors):
        return None
    references = [reference(cx, f, ix, scope) for f in factors if isinstance(f, ast.Index)]
    if len({r.tensor.dtype for r in references}) != 1 or references[0].tensor.dtype == "bool":
        return None
    return references


def _contract(cx: Context, factors: list[Reference], bound: list[str], ix: Indices, span: Span) -> Labelled:
    labels = labels_of([axis for r in factors for axis in r.map])
    labels += [n for n in bound if n not in labels]
    free = [n for n in labels if n not in bound]
    domain = [(n, ix.extent[n]) for n in [*free, *(n for n in labels if n in bound)]]
    out = [own_axis(n) for n in free]
    x = contract(
        cx, [r.tensor for r in factors], domain, [r.map for r in factors], out, [ix.extent[n] for n in free], span
    )
    return Labelled(x, tuple(free))

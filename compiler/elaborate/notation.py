"""Index notation: `y[b, k] = sum[c](x[b, c] * w[k, c])`.

An expression under indices is a *labelled* tensor: a tensor whose axes are named. References become labelled tensors,
arithmetic lines labels up, comprehensions reduce them, and a sum of products is one `contract`. `*s` stands for any
further axes and expands to the labels `s.0`, `s.1`, ... once the operand's rank is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..types.sizes import Dim, Size, divide, symbols
from . import calls
from .context import Context
from .operations import (
    at_least,
    binary,
    broadcast_to,
    check_filled,
    check_index,
    contract,
    same_size,
    tensor,
    unary,
)
from .scope import MISSING, Scope
from .values import Given, Results, Tensor, is_size, kind

MAX_FACTORS = 16  # of one contraction
REDUCTIONS = {
    "sum": "reduce_sum",
    "mean": "reduce_sum",
    "prod": "reduce_prod",
    "max": "reduce_max",
    "min": "reduce_min",
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """`tensor` has one axis per label."""

    tensor: Tensor
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """`x[i*2 + u, j]`: per axis (constant, ((label, coefficient), ...))."""

    tensor: Tensor
    map: tuple[tuple[int, tuple[tuple[str, int], ...]], ...]
    span: Span


class Indices:
    """The labels of one statement: which names are indices, how far each runs, how many axes each `*s` stands for."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.rests: dict[str, int | None] = {}
        self.extent: dict[str, Dim] = {}
        self.ranged: set[str] = set()
        self.told: dict[str, Span] = {}  # where an index got its range

    def expand(self, name: str, span: Span) -> list[str]:
        count = self.rests.get(name)
        if count is None:
            raise error("E0309", f"nothing says how many axes `*{name}` stands for", span)
        return [f"{name}.{k}" for k in range(count)]


def assign(cx: Context, s: ast.Assign, scope: Scope) -> Tensor:
    """`y[b, *s] = e`: the value with its axes in the order of the left side."""
    (target,) = s.targets
    ix = Indices()
    assert target.indices is not None
    for item in target.indices:
        match item:
            case ast.Rest(name=name):
                ix.rests.setdefault(name, None)
            case ast.Name(id=name):
                if name in ix.names:
                    raise error("E0309", f"the index `{name}` stands twice on the left", item.span)
                ix.names.add(name)
            case _:
                raise error("E0309", "the left side of index notation takes plain indices", item.span)
    for c in _comprehensions(s.value):
        for b in c.binders:
            if b.name in ix.names:
                raise error("E0309", f"the index `{b.name}` is on the left, so it cannot be bound as well", b.span)
    _prepare(cx, s.value, ix, scope)
    value = _evaluate(cx, s.value, ix, scope)
    wanted: list[str] = []
    for item in target.indices:
        match item:
            case ast.Rest(name=name):
                wanted += ix.expand(name, item.span)
            case ast.Name(id=name):
                wanted.append(name)
    labelled = value if isinstance(value, Labelled) else Labelled(tensor(cx, value, s.value.span, cx.real), ())
    extra = [label for label in labelled.labels if label not in wanted]
    if extra:
        raise error(
            "E0309",
            f"the index `{extra[0]}` is free on the right, but not on the left",
            s.value.span,
            help=f"reduce it, `sum[{extra[0]}](...)`, or add it on the left",
        )
    return _align(cx, labelled, wanted, ix, s.span)


def comprehension(cx: Context, e: ast.Comprehension, scope: Scope) -> Any:
    """`sum[i](x[i] * w[i])` outside of an indexed assignment: every index is bound, the result is a scalar."""
    ix = Indices()
    _prepare(cx, e, ix, scope)
    value = _evaluate(cx, e, ix, scope)
    if isinstance(value, Labelled):
        if value.labels:
            raise error("E0309", f"the index `{value.labels[0]}` is free", e.span, help="write `y[i] = ...` to keep it")
        return value.tensor
    return value


# --- first walk: ranges ----------------------------------------------------------------------------------------------


def _prepare(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> None:
    """Find the indices, the axes that `*s` stands for, and how far each index runs."""
    for c in _comprehensions(e):
        for b in c.binders:
            if b.rest:
                ix.rests.setdefault(b.name, None)
                continue
            if [x.name for x in c.binders].count(b.name) > 1:
                raise error("E0309", f"the index `{b.name}` is bound twice", b.span)
            ix.names.add(b.name)
            if b.range is not None:
                start = cx.integer(b.range.start, scope, "a range")
                stop = cx.integer(b.range.stop, scope, "a range")
                if start != 0:
                    raise error(
                        "E0309",
                        f"the range of `{b.name}` must begin at 0",
                        b.range.span,
                        help=f"shift it: `{b.name} + {start}`",
                    )
                if isinstance(stop, int) and stop < 0:
                    raise error("E0309", f"the range of `{b.name}` is empty", b.range.span)
                ix.extent[b.name] = stop
                ix.ranged.add(b.name)
    references = list(_references(cx, e, ix, scope))
    for base, items, _ in references:
        rests = [i for i in items if isinstance(i, ast.Rest)]
        for r in rests[:1]:
            count = base.rank - (len(items) - 1)
            known = ix.rests.get(r.name)
            if count < 0 or (known is not None and known != count):
                raise error(
                    "E0309", f"`*{r.name}` stands for {known} axes elsewhere, but here for {max(count, 0)}", r.span
                )
            ix.rests[r.name] = count
    waiting = []
    for base, items, span in references:
        entries = _axes(cx, base, items, ix, scope, span)
        for axis, (constant, terms) in enumerate(entries):
            if len(terms) == 1 and terms[0][1] == 1 and constant == 0 and terms[0][0] not in ix.ranged:
                name = terms[0][0]
                size = base.shape[axis]
                if name in ix.extent:
                    agreed = same_size(
                        cx, ix.extent[name], size, f"the index `{name}` runs to {ix.extent[name]} and to {size}", span
                    )
                    if agreed is None:
                        raise error(
                            "E0301",
                            f"the index `{name}` runs to {ix.extent[name]} in one place and to {size} in another",
                            span,
                            f"axis {axis} of {base.type}",
                            *(
                                [Label(ix.told[name], f"{name} runs to {ix.extent[name]} here")]
                                if name in ix.told
                                else []
                            ),
                        )
                    size = agreed
                ix.extent[name] = size
                ix.told.setdefault(name, span)
            else:
                waiting.append((base, axis, constant, terms, span))
    # i*stride + u: the largest i that stays inside, once the others are known
    progress = True
    while waiting and progress:
        progress = False
        for entry in list(waiting):
            base, axis, constant, terms, span = entry
            open_ = [t for t in terms if t[0] not in ix.extent]
            if len(open_) > 1:
                continue
            waiting.remove(entry)
            progress = True
            if open_:
                ((name, coefficient),) = open_
                others = [(ix.extent[n] - 1) * k for n, k in terms if n != name and k > 0]
                room = base.shape[axis] - 1 - constant - sum(others)
                least = constant + sum((ix.extent[n] - 1) * k for n, k in terms if n != name and k < 0)
                if coefficient <= 0 or (isinstance(room, int) and room < 0) or (isinstance(least, int) and least < 0):
                    raise error(
                        "E0309",
                        f"the index `{name}` has no value that stays inside an axis of {base.shape[axis]}",
                        span,
                    )
                ix.extent[name] = divide(room, coefficient)[0] + 1
            else:
                _stays_inside(cx, base, axis, constant, terms, ix, span)
    if waiting:
        names = [n for n, _ in waiting[0][3] if n not in ix.extent]
        bound = {b.name for c in _comprehensions(e) for b in c.binders}
        advice = f"give its range: `{names[0]} in 0..3`" if names[0] in bound else "let it stand alone on some axis"
        raise error("E0309", f"nothing says how far `{names[0]}` runs", waiting[0][4], help=advice)


def _stays_inside(cx: Context, base: Tensor, axis: int, constant: int, terms: Any, ix: Indices, span: Span) -> None:
    """An index expression whose indices have their ranges from elsewhere must not leave its axis."""
    n = base.shape[axis]
    low: Dim = constant + sum((ix.extent[name] - 1) * k for name, k in terms if k < 0)
    high: Dim = constant + sum((ix.extent[name] - 1) * k for name, k in terms if k > 0)
    message = f"the index of axis {axis} of {base.type} runs from {low} to {high}, which must be within 0 to {n - 1}"
    if not (at_least(cx, low, 0, message, span) and at_least(cx, n - 1, high, message, span)):
        raise error(
            "E0309",
            f"the index of axis {axis} runs from {low} to {high}, outside {base.type}",
            span,
            help="an index that stands alone elsewhere spans that whole axis: slice that operand, or `pad` this one",
        )


def _children(e: Any) -> list[ast.Expr]:
    match e:
        case ast.Unary(operand=x):
            return [x]
        case ast.Binary(left=a, right=b):
            return [a, b]
        case ast.IfExpr(then=a, otherwise=b):
            return [a, b]
        case ast.Call(arguments=args):
            return [a.value for a in args]
        case ast.Comprehension(body=body):
            return [body]
        case ast.Index(items=items):
            return [i for i in items if not isinstance(i, ast.Slice | ast.Rest)]
        case ast.Pipe(value=v, target=target):
            return [v, *_children(target)]
    return []


def _walk(e: ast.Expr) -> Iterator[ast.Expr]:
    stack = [e]
    while stack:
        x = stack.pop()
        yield x
        stack.extend(reversed(_children(x)))


def _comprehensions(e: ast.Expr) -> Iterator[ast.Comprehension]:
    return (x for x in _walk(e) if isinstance(x, ast.Comprehension))


def _references(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> Iterator[tuple[Tensor, tuple[Any, ...], Span]]:
    for x in _walk(e):
        if isinstance(x, ast.Index) and _is_reference(x, ix):
            base = cx.evaluate(x.base, scope)
            base = tensor(cx, base.items[0] if isinstance(base, Results) else base, x.base.span)
            yield *_at_turn(cx, base, x, ix, scope), x.span


def _at_turn(cx: Context, base: Tensor, e: ast.Index, ix: Indices, scope: Scope) -> tuple[Tensor, tuple[Any, ...]]:
    """`x[b, t, k]` within `scan t`: a slice of x at t, to be read at [b, k]."""
    rest = [k for k, i in enumerate(e.items) if isinstance(i, ast.Rest)]
    fixed: list[int] = []
    for k, item in enumerate(e.items if cx.frames else ()):
        if not isinstance(item, ast.Slice | ast.Rest) and not any(
            isinstance(x, ast.Name) and (x.id in ix.names or scope.lookup(x.id) is MISSING) for x in _walk(item)
        ):
            value = cx.evaluate(item, scope)
            if isinstance(value, Size) and any(f.index in symbols(value) for f in cx.frames):
                fixed.append(k)
    if not fixed or base.rank < len(e.items) - len(rest):
        return base, e.items
    everything = ast.Slice(None, None, None, span=e.span)
    items: list[Any] = []
    for k, item in enumerate(e.items):
        many = base.rank - len(e.items) + 1 if k in rest else 1
        items += [item] if k in fixed else [everything] * many
    return cx.index(base, tuple(items), e.span, scope), tuple(i for k, i in enumerate(e.items) if k not in fixed)


def _is_reference(e: ast.Index, ix: Indices) -> bool:
    """Whether an index expression uses the statement's indices (otherwise it is an ordinary slice)."""
    for item in e.items:
        if isinstance(item, ast.Rest):
            return True
        if not isinstance(item, ast.Slice) and any(isinstance(x, ast.Name) and x.id in ix.names for x in _walk(item)):
            return True
    return False


def _axes(cx: Context, base: Tensor, items: Sequence[Any], ix: Indices, scope: Scope, span: Span) -> list[Any]:
    """Per axis of `base` the affine expression in the labels."""
    count = sum(len(ix.expand(i.name, i.span)) if isinstance(i, ast.Rest) else 1 for i in items)
    if count != base.rank:
        raise error("E0303", f"{count} indices for {base.type}, which has {base.rank} axes", span)
    entries: list[Any] = []
    for item in items:
        if isinstance(item, ast.Rest):
            entries += [(0, ((label, 1),)) for label in ix.expand(item.name, item.span)]
        elif isinstance(item, ast.Slice):
            raise error("E0309", "a slice cannot stand among indices", item.span)
        else:
            constant, terms = _affine(cx, item, ix, scope)
            if not isinstance(constant, int):
                turn = any(f.index in symbols(constant) for f in cx.frames)
                raise error("E0305", f"an index cannot depend on the size {constant}", item.span,
                            help="slice before: `v = x[t:t + 3]`, then `v[u]`" if turn else None)
            entries.append((constant, tuple(sorted((n, k) for n, k in terms.items() if k))))
    return entries


def _affine(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> tuple[Dim, dict[str, int]]:
    """`i*stride + u - 1` as a constant and coefficients."""
    match e:
        case ast.Name(id=name) if name in ix.names:
            return 0, {name: 1}
        case ast.Unary(op="-", operand=x):
            c, t = _affine(cx, x, ix, scope)
            return -c, {n: -k for n, k in t.items()}
        case ast.Binary(op="+" | "-"):
            chain: list[ast.Binary] = []
            first: ast.Expr = e
            while isinstance(first, ast.Binary) and first.op in "+-":
                chain.append(first)
                first = first.left
            c, t = _affine(cx, first, ix, scope)
            for b in reversed(chain):
                d, u = _affine(cx, b.right, ix, scope)
                sign = 1 if b.op == "+" else -1
                c, t = c + sign * d, {n: t.get(n, 0) + sign * u.get(n, 0) for n in {**t, **u}}
            return c, t
        case ast.Binary(op="*", left=a, right=b):
            c, t = _affine(cx, a, ix, scope)
            d, u = _affine(cx, b, ix, scope)
            if (t and u) or not isinstance(c, int) or not isinstance(d, int):
                raise error("E0309", "an index expression must be a sum of indices times numbers", e.span)
            return c * d, {n: k * (d if t else c) for n, k in {**t, **u}.items()}
    if isinstance(e, ast.Index) and _is_reference(e, ix):
        raise error(
            "E0309",
            "an index expression must be a sum of indices times numbers",
            e.span,
            help="`gather(x, i)` looks up positions that are computed at run time",
        )
    if isinstance(e, ast.Name) and scope.lookup(e.id) is MISSING:
        raise error(
            "E0309",
            f"the index `{e.id}` is neither on the left nor bound",
            e.span,
            help=f"reduce it, `sum[{e.id}](...)`, or add it on the left",
        )
    value = cx.evaluate(e, scope)
    if not is_size(value):
        raise error(
            "E0309",
            f"an index expression must be a sum of indices times numbers, not {kind(value)}",
            e.span,
            help="`gather(x, i)` looks up positions computed at run time",
        )
    return value, {}


# --- second walk: values ---------------------------------------------------------------------------------------------


def _evaluate(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> Any:
    """A `Labelled`, or an ordinary value where no index is involved."""
    while isinstance(e, ast.IfExpr):
        e = e.then if cx.condition(e.condition, scope) else e.otherwise
    match e:
        case ast.Index() if _is_reference(e, ix):
            return _materialise(cx, _reference(cx, e, ix, scope), ix)
        case ast.Comprehension():
            return _reduce(cx, e, ix, scope)
        case ast.Unary(op=op, operand=x):
            value = _evaluate(cx, x, ix, scope)
            if isinstance(value, Labelled):
                return Labelled(unary(cx, op, value.tensor, e.span), value.labels)
            return unary(cx, op, value, e.span)
        case ast.Binary(op=op) if op != "@":
            chain: list[ast.Binary] = []
            left: ast.Expr = e
            while isinstance(left, ast.Binary) and left.op != "@":
                chain.append(left)
                left = left.left
            value = _evaluate(cx, left, ix, scope)
            for step in reversed(chain):
                value = _combined(cx, step, value, _evaluate(cx, step.right, ix, scope), ix)
            return value
        case ast.Call(function=f, arguments=args) if any(_uses(a.value, ix) for a in args):
            function = cx.evaluate(f, scope)
            values = [_evaluate(cx, a.value, ix, scope) for a in args]

            def invoke(*given: Any) -> Any:
                positional = [v for v, a in zip(given, args, strict=True) if a.name is None]
                named = {a.name: v for v, a in zip(given, args, strict=True) if a.name is not None}
                return calls.apply(cx, function, Given(tuple(positional), named, e.span), scope)

            return _lifted(cx, values, ix, e.span, invoke)
        case ast.Name(id=name) if name in ix.names and scope.lookup(name) is MISSING:
            return _position(cx, name, ix, e.span)
    return cx.evaluate(e, scope)


def _combined(cx: Context, e: ast.Binary, a: Any, b: Any, ix: Indices) -> Any:
    spans = (e.left.span, e.right.span)
    return _lifted(cx, [a, b], ix, e.span, lambda x, y: binary(cx, e.op, x, y, e.op_span, spans))


def _uses(e: ast.Expr, ix: Indices) -> bool:
    return any(
        isinstance(x, ast.Comprehension)
        or (isinstance(x, ast.Index) and _is_reference(x, ix))
        or (isinstance(x, ast.Name) and x.id in ix.names)
        for x in _walk(e)
    )


def _position(cx: Context, name: str, ix: Indices, span: Span) -> Labelled:
    """An index as a number: its position along its axis."""
    if name not in ix.extent:
        raise error("E0309", f"nothing says how far `{name}` runs", span, help=f"give its range: `{name} in 0..3`")
    check_index(cx, ix.extent[name], span)
    return Labelled(cx.emit("iota", span=span, shape=(ix.extent[name],), axis=0, dtype="i32"), (name,))


def _lifted(cx: Context, values: list[Any], ix: Indices, span: Span, fn: Any) -> Any:
    """Apply an elementwise function to labelled and ordinary values: labels are lined up first."""
    labels: list[str] = []
    for v in values:
        if isinstance(v, Labelled):
            labels += [label for label in v.labels if label not in labels]
    if not any(isinstance(v, Labelled) for v in values):
        return fn(*values)
    aligned = [_align(cx, v, labels, ix, span) if isinstance(v, Labelled) else v for v in values]
    for v in aligned:
        if isinstance(v, Tensor) and v.rank not in (0, len(labels)):
            raise error("E0309", f"{v.type} stands without indices among indexed values", span)
    result = fn(*aligned)
    if not isinstance(result, Tensor) or result.rank != len(labels):
        raise error("E0309", "only functions that work element by element can stand under indices", span)
    return Labelled(result, tuple(labels))


def _align(cx: Context, v: Labelled, labels: Sequence[str], ix: Indices, span: Span) -> Tensor:
    """The tensor with one axis per label, in that order; labels it lacks are broadcast."""
    if v.labels == tuple(labels):
        return v.tensor
    shape: list[Dim] = []
    for label in labels:
        if label not in ix.extent:
            raise error(
                "E0309", f"nothing says how far `{label}` runs", span, help=f"give its range: `{label} in 0..3`"
            )
        shape.append(ix.extent[label])
    order = sorted(range(len(v.labels)), key=lambda k: labels.index(v.labels[k]))
    x = v.tensor
    if order != list(range(len(order))):
        x = cx.emit("transpose", x, span=span, perm=tuple(order))
    kept = [v.labels[k] for k in order]
    return broadcast_to(cx, x, shape, span, tuple(labels.index(label) for label in kept))


def _reference(cx: Context, e: ast.Index, ix: Indices, scope: Scope) -> Reference:
    base = cx.evaluate(e.base, scope)
    x, items = _at_turn(
        cx, tensor(cx, base.items[0] if isinstance(base, Results) else base, e.base.span), e, ix, scope
    )
    return Reference(x, tuple(_axes(cx, x, items, ix, scope, e.span)), e.span)


def _plain(entry: Any) -> bool:
    constant, terms = entry
    return constant == 0 and len(terms) == 1 and terms[0][1] == 1


def _materialise(cx: Context, r: Reference, ix: Indices) -> Labelled:
    labels: list[str] = []
    for _, terms in r.map:
        labels += [n for n, _ in terms if n not in labels]
    full = all(_plain(entry) for entry in r.map) and len(labels) == r.tensor.rank
    if full and all(ix.extent[n] == s for n, s in zip(labels, r.tensor.shape, strict=True)):
        return Labelled(r.tensor, tuple(labels))
    domain = [(n, ix.extent[n]) for n in labels]
    out = [(0, ((n, 1),)) for n in labels]
    return Labelled(contract(cx, [r.tensor], domain, [r.map], out, [s for _, s in domain], r.span), tuple(labels))


def _reduce(cx: Context, e: ast.Comprehension, ix: Indices, scope: Scope) -> Any:
    bound = [label for b in e.binders for label in (ix.expand(b.name, b.span) if b.rest else [b.name])]
    for label, b in zip(bound, e.binders, strict=False):
        if label not in ix.extent:
            raise error(
                "E0309", f"nothing says how far `{label}` runs", b.span, help=f"give its range: `{label} in 0..3`"
            )
    if e.reduction in ("sum", "mean"):
        product = _product(cx, e.body, ix, scope)
        if product is not None:
            return _scale(cx, _contract(cx, product, bound, ix, e.span), e, bound, ix)
    body = _evaluate(cx, e.body, ix, scope)
    if not isinstance(body, Labelled):
        body = Labelled(tensor(cx, body, e.body.span, cx.real), ())
    missing = [label for label in bound if label not in body.labels]
    labels = [*body.labels, *missing]
    x = _align(cx, body, labels, ix, e.span)
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
    return Labelled(binary(cx, "/", v.tensor, count, e.span, (e.span, e.span)), v.labels)


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
    if len(factors) < 2 or not all(isinstance(f, ast.Index) and _is_reference(f, ix) for f in factors):
        return None
    references = [_reference(cx, f, ix, scope) for f in factors if isinstance(f, ast.Index)]
    if len({r.tensor.dtype for r in references}) != 1 or references[0].tensor.dtype == "bool":
        return None
    return references


def _contract(cx: Context, factors: list[Reference], bound: list[str], ix: Indices, span: Span) -> Labelled:
    labels: list[str] = []
    for r in factors:
        for _, terms in r.map:
            labels += [n for n, _ in terms if n not in labels]
    labels += [n for n in bound if n not in labels]
    free = [n for n in labels if n not in bound]
    domain = [(n, ix.extent[n]) for n in [*free, *(n for n in labels if n in bound)]]
    out = [(0, ((n, 1),)) for n in free]
    x = contract(
        cx, [r.tensor for r in factors], domain, [r.map for r in factors], out, [ix.extent[n] for n in free], span
    )
    return Labelled(x, tuple(free))

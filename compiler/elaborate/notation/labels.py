"""Which names of a statement are indices, and what a reference such as `x[i*2 + u, j]` reads.

A reference has per axis an affine expression in the labels. `*s` stands for any further axes and expands to the labels
`s.0`, `s.1`, ... once the operand's rank is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ....dsl import ast
from ....dsl.errors import error
from ....dsl.record import dataclass
from ....dsl.source import Span
from ...types.sizes import Dim, Size, symbols
from ..context import Context
from ..scope import MISSING, Scope
from ..shapes import RANGE, at_least, refine, tensor
from ..values import Axis, Results, Tensor, is_size, kind
from .quotients import Position, Quotient, without_quotients


@dataclass(frozen=True, slots=True)
class Labelled:
    """`tensor` has one axis per label. `counts` says that it was made of indices and whole numbers alone: beside other
    numbers it takes their dtype, as a literal does."""

    tensor: Tensor
    labels: tuple[str, ...]
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """`x[i*2 + u, j]`: where on each axis of `tensor`."""

    tensor: Tensor
    map: tuple[Axis, ...]
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

    def size(self, label: str, span: Span) -> Dim:
        """How far an index runs."""
        if label not in self.extent:
            advice = f"give its range: `{label} in 0..3`"
            raise error("E0309", f"nothing says how far `{label}` runs", span, help=advice)
        return self.extent[label]


# --- the syntax tree -------------------------------------------------------------------------------------------------


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
            return [i for i in items if not isinstance(i, ast.Slice | ast.Rest | ast.Binder)]
        case ast.Pipe(value=v, target=target):
            return [v, *_children(target)]
    return []


def walk(e: ast.Expr) -> Iterator[ast.Expr]:
    stack = [e]
    while stack:
        x = stack.pop()
        yield x
        stack.extend(reversed(_children(x)))


def comprehensions(e: ast.Expr) -> Iterator[ast.Comprehension]:
    return (x for x in walk(e) if isinstance(x, ast.Comprehension))


def is_reference(e: ast.Index, ix: Indices) -> bool:
    """Whether an index expression uses the statement's indices, or, of a scalar, none (otherwise it is an ordinary
    slice)."""
    if not e.items:
        return True
    for item in e.items:
        if isinstance(item, ast.Rest):
            return True
        if not isinstance(item, ast.Slice | ast.Binder) and any(
            isinstance(x, ast.Name) and x.id in ix.names for x in walk(item)
        ):
            return True
    return False


def uses(e: ast.Expr, ix: Indices) -> bool:
    return any(
        isinstance(x, ast.Comprehension)
        or (isinstance(x, ast.Index) and is_reference(x, ix))
        or (isinstance(x, ast.Name) and x.id in ix.names)
        for x in walk(e)
    )


# --- references ------------------------------------------------------------------------------------------------------


def references(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> Iterator[tuple[Tensor, tuple[Any, ...], Span]]:
    """The tensors that an expression reads under indices, and the indices of each."""
    for x in walk(e):
        if isinstance(x, ast.Index) and is_reference(x, ix):
            yield *_read(cx, x, ix, scope), x.span


def reference(cx: Context, e: ast.Index, ix: Indices, scope: Scope) -> Reference:
    x, items = _read(cx, e, ix, scope)
    positions = positions_of(cx, x, items, ix, scope, e.span)
    for label in labels_in(positions):
        ix.size(label, e.span)
    x, found = without_quotients(cx, x, positions, ix.extent, e.span)
    axes = tuple(at for at in found if at is not None)
    shape = [
        ix.extent[at[1][0][0]] if is_plain(at) and at[1][0][0] not in ix.ranged else n
        for at, n in zip(axes, x.shape, strict=True)
    ]
    return Reference(refine(cx, x, shape, e.span), axes, e.span)


def is_plain(axis: Axis) -> bool:
    """Whether it is one index by itself."""
    constant, terms = axis
    return constant == 0 and len(terms) == 1 and terms[0][1] == 1


def labels_in(positions: Sequence[Position]) -> Iterator[str]:
    """The labels of index expressions, also those in quotients."""
    for term in (term for _, terms in positions for term, _ in terms):
        if isinstance(term, str):
            yield term
        else:
            yield from labels_in([term.inner])


def own_axis(label: str) -> Axis:
    return 0, ((label, 1),)


def labels_of(maps: Sequence[Axis]) -> list[str]:
    """The labels of a reference, each once, in order."""
    return list(dict.fromkeys(label for _, terms in maps for label, _ in terms))


def _read(cx: Context, e: ast.Index, ix: Indices, scope: Scope) -> tuple[Tensor, tuple[Any, ...]]:
    base = cx.evaluate(e.base, scope)
    base = tensor(cx, base.items[0] if isinstance(base, Results) else base, e.base.span)
    return _at_turn(cx, base, e, ix, scope)


def _at_turn(cx: Context, base: Tensor, e: ast.Index, ix: Indices, scope: Scope) -> tuple[Tensor, tuple[Any, ...]]:
    """`x[b, t, k]` within `scan t`: a slice of x at t, to be read at [b, k]."""
    rest = [k for k, i in enumerate(e.items) if isinstance(i, ast.Rest)]
    fixed: list[int] = []
    for k, item in enumerate(e.items if cx.frames else ()):
        if not isinstance(item, ast.Slice | ast.Rest | ast.Binder) and not any(
            isinstance(x, ast.Name) and (x.id in ix.names or scope.lookup(x.id) is MISSING) for x in walk(item)
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
    cut = tensor(cx, cx.index(base, tuple(items), e.span, scope), e.span)
    return cut, tuple(i for k, i in enumerate(e.items) if k not in fixed)


def positions_of(
    cx: Context, base: Tensor, items: Sequence[Any], ix: Indices, scope: Scope, span: Span
) -> list[Position]:
    """Per axis of `base` where it is read: a sum of indices, of quotients and of remainders."""
    count = sum(len(ix.expand(i.name, i.span)) if isinstance(i, ast.Rest) else 1 for i in items)
    if count != base.rank:
        raise error("E0303", f"{count} indices for {base.type}, which has {base.rank} axes", span)
    entries: list[Position] = []
    for item in items:
        if isinstance(item, ast.Rest):
            entries += [own_axis(label) for label in ix.expand(item.name, item.span)]
        elif isinstance(item, ast.Slice):
            raise error("E0309", "a slice cannot stand among indices", item.span)
        elif isinstance(item, ast.Binder):
            raise error("E0309", RANGE, item.span)
        else:
            constant, terms = _affine(cx, item, ix, scope)
            if any(f.index in symbols(constant) for f in cx.frames):
                raise error(
                    "E0305",
                    f"an index cannot depend on {constant}, the turn of a scan",
                    item.span,
                    help="slice before: `v = x[t:t + 3]`, then `v[u]`",
                )
            entries.append(_position(constant, terms))
    return entries


def _position(constant: Dim, terms: dict[str | Quotient, int]) -> Position:
    kept = [(term, k) for term, k in terms.items() if k]
    return constant, tuple(sorted(kept, key=lambda t: (not isinstance(t[0], str), str(t[0]))))


def _links(e: ast.Expr, operators: str) -> tuple[list[ast.Binary], ast.Expr]:
    """The operators of a chain as they are written, and what stands first."""
    links: list[ast.Binary] = []
    while isinstance(e, ast.Binary) and e.op in operators:
        links.append(e)
        e = e.left
    return links[::-1], e


def _affine(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> tuple[Dim, dict[str | Quotient, int]]:
    """`i*stride + u - 1` as a constant and coefficients; `i // 2` and `i % 3` have coefficients like indices."""
    match e:
        case ast.Name(id=name) if name in ix.names:
            return 0, {name: 1}
        case ast.Unary(op="-", operand=x):
            c, t = _affine(cx, x, ix, scope)
            return -c, {n: -k for n, k in t.items()}
        case ast.Binary(op="+" | "-"):
            terms, first = _links(e, "+-")
            c, t = _affine(cx, first, ix, scope)
            for b in terms:
                d, u = _affine(cx, b.right, ix, scope)
                sign = 1 if b.op == "+" else -1
                c, t = c + sign * d, {n: t.get(n, 0) + sign * u.get(n, 0) for n in {**t, **u}}
            return c, t
        case ast.Binary(op="//" | "%" as op, left=left, right=right) if any(
            isinstance(x, ast.Name) and x.id in ix.names for x in walk(left)
        ):
            by, rest = _affine(cx, right, ix, scope)
            if any(rest.values()) or not at_least(cx, by, 1, f"an index is divided by {by}", right.span):
                raise error("E0309", f"an index can be divided by a number from 1, not by {right.span.text}", e.span)
            return 0, {Quotient(op, _position(*_affine(cx, left, ix, scope)), by): 1}
        case ast.Binary(op="*"):
            factors, first = _links(e, "*")
            c, t = _affine(cx, first, ix, scope)
            for b in factors:
                d, u = _affine(cx, b.right, ix, scope)
                by = d if t else c
                if (t and u) or ((t or u) and not isinstance(by, int)):
                    raise error("E0309", "an index expression must be a sum of indices times numbers", b.span)
                c, t = c * d, {n: k * by for n, k in {**t, **u}.items() if isinstance(by, int)}
            return c, t
    if isinstance(e, ast.Index) and is_reference(e, ix):
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

"""From values to tensors, and from one shape to another.

The broadcasting rule of the language: equal ranks stretch size 1, a lower rank must match the trailing axes. What only
run time can decide of sizes becomes a guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from ...dsl.diagnostics import Fix, Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..types.facts import Relation, apart, equal, lowest, shorter
from ..types.sizes import Dim, Size, divide, nonnegative, symbols
from ..types.tensors import FLOATS, INTS, TensorType
from .context import Context
from .limits import check_fits
from .values import OPERATORS, Results, SizeCondition, Tensor, Value, is_size, kind

RANGE = "a range is written with an index on the left of `=`, or with one that is bound: `sum[u in 0..3](x[u])`"
# how many elements a mask keeps only the data say, and a size is known before
MASKED = "a mask keeps the shape: write `where(mask, x, 0)`, or `masked_mean(x, mask)` for the mean of what it keeps"

# --- sizes -----------------------------------------------------------------------------------------------------------


def same_size(cx: Context, a: Dim, b: Dim, what: str, span: Span | None) -> Dim | None:
    """The common size of two that must be equal, or None when they cannot be. What only run time can decide becomes
    a guard, whose message says of `what`."""
    if not equal(a, b, cx.facts):
        if apart(a, b):
            return None
        left, right = lowest(a, b)
        cx.guard(left, right, f"{what}: {left} must equal {right}", span)
    return a if isinstance(a, int) else b if isinstance(b, int) else shorter(a, b)


def at_least(cx: Context, a: Dim, b: Dim, message: str, span: Span | None) -> bool:
    """Whether a >= b. What only run time can decide becomes a guard, and counts as true."""
    if nonnegative(a - b):
        return True
    if len(pairs := cx.turns(a, b, ">=", span)) != 1 or pairs[0] != (a, b):
        return all([at_least(cx, x, y, message, span) for x, y in pairs])
    difference = a - b
    if isinstance(difference, int):
        return difference >= 0
    constant = next((c for m, c in difference.terms if m == ()), 0)
    signs = {c > 0 for m, c in difference.terms if m != ()}
    if signs == {True} and constant >= 0:
        return True
    if signs == {False} and constant < 0:
        return False
    cx.guard(a, b, message, span, ">=")
    return True


def divided(cx: Context, a: Dim, b: Dim, span: Span | None) -> tuple[Dim, Dim]:
    """`a // b` and `a % b`. What only run time divides by is asked to be 1 or more. Raises `ZeroDivisionError`."""
    quotient, remainder = divide(a, b)
    if isinstance(b, Size) and remainder != 0 and not at_least(cx, b, 1, f"{a} is divided by {b}", span):
        raise error("E0307", f"a size can be divided by 1 or more, but not by {b}", span)
    return quotient, remainder


def check_index(cx: Context, n: Dim, span: Span | None, dtype: str = "i32") -> None:
    """Positions along an axis of `n` must fit the whole numbers that they are made of."""
    if dtype == "i32" and not at_least(cx, 2**31 - 1, n, f"the positions along an axis of {n} must fit i32", span):
        raise error("E0302", f"the positions along an axis of {n} do not fit i32", span)


def check_filled(cx: Context, what: str, x: Tensor, axes: Sequence[int], span: Span | None) -> None:
    """What is chosen from elements needs one of them."""
    for k in axes:
        if not at_least(
            cx, x.shape[k], 1, f"`{what}` has nothing to choose from where axis {k} of {x.type} is empty", span
        ):
            raise error("E0301", f"`{what}` has nothing to choose from: axis {k} of {x.type} is empty", span)


def sizes(value: Value, span: Span) -> tuple[Dim, ...]:
    """A list of sizes, or one: what is known when the model is made, or told by the shapes of inputs."""
    listed: list[Dim] = []
    for s in value if isinstance(value, tuple) else (value,):
        if not is_size(s):
            raise error("E0307", f"a shape is a list of sizes, but this has {kind(s)} in it", span)
        listed.append(s)
    return tuple(listed)


# --- shapes ----------------------------------------------------------------------------------------------------------


def reshape(cx: Context, x: Tensor, shape: Sequence[Dim], span: Span | None) -> Tensor:
    return x if tuple(shape) == x.shape else cx.emit("reshape", x, span=span, shape=tuple(shape))


def refine(cx: Context, x: Tensor, shape: Sequence[Dim], span: Span | None) -> Tensor:
    """The same tensor under sizes that a guard has made equal."""
    return x if tuple(shape) == x.shape else cx.emit("assume", x, span=span, shape=tuple(shape))


def expand_axis(cx: Context, x: Tensor, axis: int, span: Span | None) -> Tensor:
    return reshape(cx, x, (*x.shape[:axis], 1, *x.shape[axis:]), span)


def broadcast_to(
    cx: Context, x: Tensor, shape: Sequence[Dim], span: Span | None, axes: Sequence[int] | None = None
) -> Tensor:
    """`x` stretched to `shape`; `axes` says which result axis each axis of `x` is (default: the trailing ones)."""
    if x.shape == tuple(shape):
        return x
    if axes is None:
        axes = range(len(shape) - x.rank, len(shape))
    return cx.emit("broadcast", x, span=span, shape=tuple(shape), axes=tuple(axes))


def broadcast(
    cx: Context, a: Tensor, b: Tensor, span: Span | None, spans: tuple[Span | None, Span | None]
) -> tuple[Tensor, Tensor]:
    """Both operands with one shape, by the rule of the language."""
    if a.shape == b.shape:
        return a, b
    if a.rank == 0:
        return broadcast_to(cx, a, b.shape, span, ()), b
    if b.rank == 0:
        return a, broadcast_to(cx, b, a.shape, span, ())
    if a.rank != b.rank:
        small, large = (a, b) if a.rank < b.rank else (b, a)
        tail = large.shape[large.rank - small.rank :]
        if not all(equal(s, t, cx.facts) for s, t in zip(small.shape, tail, strict=True)):
            raise _trap(cx, small, large, a, b, span, spans)  # what run time could decide is likelier it than meant
        small = refine(cx, small, tail, span)
        small = broadcast_to(cx, small, large.shape, span)
        return (small, large) if a.rank < b.rank else (large, small)
    out: list[Dim] = []
    for axis, (s, t) in enumerate(zip(a.shape, b.shape, strict=True)):
        size = t if s == 1 else s if t == 1 else same_size(cx, s, t, f"{a.type} meets {b.type}", span)
        if size is None:
            labels = label_operands(cx, a, b, spans)
            raise error("E0301", f"sizes must agree, but {s} is not {t} (axis {axis})", span, "", *labels)
        out.append(size)

    def fit(x: Tensor) -> Tensor:
        kept = [1 if n == 1 else o for n, o in zip(x.shape, out, strict=True)]
        return broadcast_to(cx, refine(cx, x, kept, span), out, span)

    return fit(a), fit(b)


def joined(
    cx: Context, parts: Sequence[Tensor], axis: int, span: Span | None, operands: tuple[Span, ...] = ()
) -> Tensor:
    """One after the other along an axis, in whose other sizes they agree."""
    shape: list[Dim] = list(parts[0].shape)
    for t in parts[1:]:
        what = f"{parts[0].type} and {t.type}, joined along axis {axis}"
        agreed = [
            s if k == axis else same_size(cx, s, n, what, span)
            for k, (s, n) in enumerate(zip(shape, t.shape, strict=False))
        ]
        known = [n for n in agreed if n is not None]
        if len(known) != len(shape) or t.rank != len(shape):
            return cx.emit("concat", *parts, span=span, operands=operands, axis=axis)  # which says what is wrong
        shape = known
    fitted = [refine(cx, t, (*shape[:axis], t.shape[axis], *shape[axis + 1 :]), span) for t in parts]
    return cx.emit("concat", *fitted, span=span, operands=operands, axis=axis)


def label_operands(cx: Context, a: Tensor, b: Tensor, spans: tuple[Span | None, Span | None]) -> list[Label]:
    """What each operand is, and where it came from."""
    return [Label(s, f"{t.type}{cx.origin(t)}") for t, s in ((a, spans[0]), (b, spans[1])) if s is not None]


def _trap(cx: Context, small: Tensor, large: Tensor, a: Tensor, b: Tensor, span: Span | None, spans: Any) -> Exception:
    tail = large.shape[large.rank - small.rank :]
    text, other = (_text(x, a, spans) for x in (small, large))
    starts = [k for k in range(large.rank - small.rank) if large.shape[k : k + small.rank] == small.shape]
    advice: str | None = None
    fixes: list[Fix] = []
    at, other_at = (spans[0 if x is a else 1] for x in (small, large))
    if small.rank == 1 and large.rank == 2 and large.shape[1] == 1:
        advice = f"write `squeeze({other}, 1)` without the size-1 axis, or `expand({text}, 1)` with one"
        fixes += [Fix(s, f"{f}({s.text}, 1)") for f, s in (("squeeze", other_at), ("expand", at)) if s is not None]
    elif len(starts) == 1:
        axes = [0] * starts[0] + [*range(starts[0] + small.rank, large.rank)]
        advice = f"write `{_expanded(text, axes)}` to line up the axes that agree"
        fixes += [Fix(at, _expanded(at.text, axes))] if at is not None else []
    return error(
        "E0304",
        f"an operand of lower rank must match the other's trailing axes, but {_show(small.shape)} is not {_show(tail)}",
        span,
        "",
        *label_operands(cx, a, b, spans),
        help=advice,
        fix=tuple(fixes),
    )


def _expanded(text: str, axes: Sequence[int]) -> str:
    return reduce(lambda inner, axis: f"expand({inner}, {axis})", axes, text)


def _text(x: Tensor, a: Tensor, spans: tuple[Span | None, Span | None]) -> str:
    """An operand as it is written, where that is short."""
    span = spans[0 if x is a else 1]
    return span.text if span is not None and len(span.text) <= 30 and "\n" not in span.text else ".."


def _show(shape: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def gather_axis(cx: Context, x: Tensor, positions: Tensor, axis: int, span: Span | None) -> Tensor:
    """`x` at integer `positions` along one axis, which the axes of `positions` replace."""
    if axis:
        order = (axis, *(k for k in range(x.rank) if k != axis))
        x = cx.emit("transpose", x, span=span, perm=order)
    y = cx.emit("gather", x, positions, span=span)
    if axis:
        r = positions.rank
        order = (*range(r, r + axis), *range(r), *range(r + axis, y.rank))
        y = cx.emit("transpose", y, span=span, perm=order)
    return y


# --- from compile time to run time -----------------------------------------------------------------------------------


def tensor(cx: Context, value: Value, span: Span | None, dtype: str | None = None) -> Tensor:
    """A value as a tensor. Literals take `dtype`; without one, numbers with a point are the program's float, others
    i32; lists become constants or stacks."""
    match value:
        case Tensor():
            return cx.here(value, span)
        case bool():
            if dtype not in (None, "bool"):
                raise error(
                    "E0302", f"a bool cannot stand where {dtype} is expected", span, help=f"write `cast(x, {dtype})`"
                )
            return cx.constant(value, "bool", span)
        case int() | float():
            if dtype is None:
                dtype = cx.real if isinstance(value, float) else "i32"
            if dtype in INTS and isinstance(value, float):
                raise error(
                    "E0302",
                    f"the number {value!r} is not a whole number, but {dtype} is expected",
                    span,
                    help="`cast(x, f32)` makes a tensor of integers real",
                )
            if dtype == "bool":
                raise error("E0302", f"the number {value!r} cannot stand where bool is expected", span)
            return cx.constant(value, dtype, span)
        case Size():
            counts = any(f.index in symbols(value) for f in cx.frames)  # the index of a scan is a whole number
            dtype = dtype or ("i32" if counts else cx.real)
            if dtype == "i32" and not (
                at_least(cx, 2**31 - 1, value, f"{value} must fit i32", span)
                and at_least(cx, value, -(2**31), f"{value} must fit i32", span)
            ):
                raise error("E0302", f"{value} does not fit i32", span)
            return cx.emit("size", span=span, size=value, dtype=dtype)
        case tuple():
            return _from_list(cx, value, span, dtype)
        case Results(items=(single,)):
            return tensor(cx, single, span, dtype)
        case SizeCondition(clauses=clauses):
            return _condition(cx, clauses, span)
    raise error("E0307", f"{kind(value)} cannot be used as a tensor", span)


def _condition(cx: Context, clauses: Sequence[Sequence[Relation]], span: Span | None) -> Tensor:
    """A condition on sizes as a bool."""
    every: list[Tensor] = []
    for clause in clauses:
        one: list[Tensor] = []
        for r in clause:
            x, y = (tensor(cx, n, span, cx.real) for n in (r.left, r.right))
            one.append(cx.emit(OPERATORS[r.op], x, y, span=span))
        every.append(reduce(lambda x, y: cx.emit("or", x, y, span=span), one))
    return reduce(lambda x, y: cx.emit("and", x, y, span=span), every)


def _from_list(cx: Context, value: tuple[Any, ...], span: Span | None, dtype: str | None) -> Tensor:
    flat: list[Any] = []
    shape = _literal_shape(value, flat, span)
    if all(isinstance(v, bool) for v in flat) and flat:
        return cx.emit("constant", span=span, values=tuple(flat), type=TensorType("bool", shape))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in flat):
        if dtype is None:
            dtype = cx.real if any(isinstance(v, float) for v in flat) or not flat else "i32"
        if dtype in INTS and any(isinstance(v, float) for v in flat):
            raise error("E0302", f"a list with a fraction in it cannot be {dtype}", span)
        if dtype == "bool":
            raise error("E0302", "a list of numbers cannot stand where bool is expected", span)
        convert = float if dtype in FLOATS else int
        for v in flat:
            check_fits(v, dtype, span)
        return cx.emit("constant", span=span, values=tuple(map(convert, flat)), type=TensorType(dtype, shape))
    tensors = [v for v in flat if isinstance(v, Tensor)]
    dtype = dtype or (tensors[0].dtype if tensors else None)
    parts = [expand_axis(cx, tensor(cx, v, span, dtype), 0, span) for v in flat]
    stacked = joined(cx, parts, 0, span) if parts else cx.emit("concat", span=span, axis=0)
    return stacked if len(shape) == 1 else reshape(cx, stacked, (*shape, *stacked.shape[1:]), span)


def _literal_shape(value: Value, flat: list[Any], span: Span | None) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        flat.append(value)
        return ()
    shapes = [_literal_shape(v, flat, span) for v in value]
    if any(s != shapes[0] for s in shapes):
        raise error(
            "E0303",
            "the rows of a list must have equal lengths, but "
            f"one is {_rows(shapes[0])} and another {_rows(next(s for s in shapes if s != shapes[0]))}",
            span,
        )
    return (len(value), *(shapes[0] if shapes else ()))


def _rows(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} long" if shape else "a single number"

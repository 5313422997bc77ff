"""Sorting and running sums by counting: an element's place is the number of elements that stand before it.

That is n^2 comparisons, which fuse into one reduction without an n x n tensor, run in vector registers, are stable,
and differentiate by the rules of what they are made of. As in NumPy, NaN sorts last; equal elements keep their order.
"""

from __future__ import annotations

from ....dsl.diagnostics import error
from ....dsl.source import Span
from ...types import Dim, product
from ..calls import Arguments
from ..context import Context
from ..operations import broadcast_to, reshape, tensor
from ..values import Results, Tensor, kind
from .elementwise import plain
from .reductions import axis_number


def call_cumsum(cx: Context, a: Arguments) -> Tensor:
    """y_i = sum of x_j for j <= i along the axis."""
    x, axis = _operand(cx, a)
    last = _last(cx, x, axis, a.span)
    pairs, _, mine, other = _pairs(cx, last, a.span)
    zero = broadcast_to(cx, cx.constant(0, x.dtype), pairs, a.span, ())
    kept = cx.emit(
        "where", cx.emit("le", other, mine, span=a.span), _columns(cx, last, pairs, a.span), zero, span=a.span
    )
    return _back(cx, cx.emit("reduce_sum", kept, span=a.span, axes=(len(pairs) - 1,)), axis, a.span)


def call_sort(cx: Context, a: Arguments) -> Tensor:
    """Ascending along the axis."""
    x, axis = _operand(cx, a)
    last = _last(cx, x, axis, a.span)
    return _back(cx, _placed(cx, last, _ranks(cx, last, False, a.span), a.span), axis, a.span)


def call_top_k(cx: Context, a: Arguments) -> Results:
    """The k largest along the last axis, largest first, and their positions (i32); NaN counts as the largest."""
    x = tensor(cx, plain(a.x), a.at("x"))
    if x.rank == 0:
        raise error("E0303", "`top_k` needs an axis, but this is a scalar", a.at("x"))
    n = x.shape[-1]
    if isinstance(a.k, bool) or not isinstance(a.k, int) or a.k < 1:
        raise error("E0307", f"`k` is a compile-time number from 1, not {kind(a.k)}", a.at("k"))
    if isinstance(n, int) and a.k > n:
        raise error("E0301", f"there are only {n} elements, but the top {a.k} are asked for", a.at("k"), str(x.type))
    if not isinstance(n, int):
        cx.builder.guard(n, a.k, f"the top {a.k} of {x.type} need as many elements", a.span, ">=")
    ranks = _ranks(cx, x, True, a.span)
    where = cx.emit("iota", span=a.span, shape=x.shape, axis=x.rank - 1, dtype="i32")
    return Results(None, tuple(_first(cx, _placed(cx, v, ranks, a.span), a.k, a.span) for v in (x, where)))


def _operand(cx: Context, a: Arguments) -> tuple[Tensor, int]:
    x = tensor(cx, plain(a.x), a.at("x"))
    if x.rank == 0:
        raise error("E0303", "this needs an axis, but it is a scalar", a.at("x"))
    if x.dtype == "bool":
        raise error("E0302", "bools have no order", a.at("x"), help="`cast(x, i32)` makes 0 and 1 of them")
    return x, axis_number(a.axis, x.rank, a.at("axis"))


def _last(cx: Context, x: Tensor, axis: int, span: Span) -> Tensor:
    """The axis moved to the end."""
    order = (*(k for k in range(x.rank) if k != axis), axis)
    return x if axis == x.rank - 1 else cx.emit("transpose", x, span=span, perm=order)


def _back(cx: Context, x: Tensor, axis: int, span: Span) -> Tensor:
    order = (*range(axis), x.rank - 1, *range(axis, x.rank - 1))
    return x if axis == x.rank - 1 else cx.emit("transpose", x, span=span, perm=order)


def _columns(cx: Context, x: Tensor, pairs: tuple[Dim, ...], span: Span) -> Tensor:
    """x_j at the pair (i, j)."""
    return broadcast_to(cx, x, pairs, span, (*range(x.rank - 1), x.rank))


def _pairs(cx: Context, x: Tensor, span: Span) -> tuple[tuple[Dim, ...], Tensor, Tensor, Tensor]:
    """The shape of all pairs (i, j) of the last axis, x_i there, i, and j."""
    n = x.shape[-1]
    pairs = (*x.shape, n)
    rows = broadcast_to(cx, x, pairs, span, range(x.rank))
    i, j = (cx.emit("iota", span=span, shape=pairs, axis=k, dtype="i32") for k in (x.rank - 1, x.rank))
    return pairs, rows, i, j


def _ranks(cx: Context, x: Tensor, descending: bool, span: Span) -> Tensor:
    """How many elements of its row stand before each one."""
    pairs, mine, i, j = _pairs(cx, x, span)
    other = _columns(cx, x, pairs, span)

    def before(p: Tensor, q: Tensor) -> Tensor:
        """p < q, NaN after every number."""
        less = cx.emit("lt", p, q, span=span)
        number = cx.emit("eq", p, p, span=span)
        nan = cx.emit("ne", q, q, span=span)
        return cx.emit("or", less, cx.emit("and", number, nan, span=span), span=span)

    first, second = (mine, other) if descending else (other, mine)
    ahead, behind = before(first, second), before(second, first)
    tie = cx.emit("and", cx.emit("not", behind, span=span), cx.emit("lt", j, i, span=span), span=span)
    counted = cx.emit("cast", cx.emit("or", ahead, tie, span=span), span=span, dtype="i32")
    return cx.emit("reduce_sum", counted, span=span, axes=(len(pairs) - 1,))


def _placed(cx: Context, x: Tensor, ranks: Tensor, span: Span) -> Tensor:
    """Each element of a row put at its rank."""
    n, rows = x.shape[-1], product(x.shape[:-1])
    flat = reshape(cx, ranks, (rows, n), span)
    start = cx.emit("iota", span=span, shape=(rows, n), axis=0, dtype="i32")
    width = broadcast_to(cx, tensor(cx, n, span, "i32"), (rows, n), span, ())
    place = cx.emit("add", flat, cx.emit("mul", start, width, span=span), span=span)
    index, values = (reshape(cx, t, (x.type.size,), span) for t in (place, x))
    return reshape(cx, cx.emit("scatter_add", index, values, span=span, size=x.type.size), x.shape, span)


def _first(cx: Context, x: Tensor, k: int, span: Span) -> Tensor:
    stops = (*x.shape[:-1], k)
    if stops == x.shape:
        return x
    return cx.emit("slice", x, span=span, starts=(0,) * x.rank, stops=stops, steps=(1,) * x.rank)

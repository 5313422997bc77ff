"""Running sums and products, and sorting: the axis and the errors here, the construction in `ops.ordering`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ....dsl.errors import error
from ...graph.ops import ordering
from ...graph.ops.op import ShapeError
from ..context import Context
from ..shapes import check_index, tensor
from ..values import Arguments, Results, Tensor, kind
from .elementwise import plain
from .reductions import axis_number

T = TypeVar("T")


def call_cumsum(cx: Context, a: Arguments) -> Tensor:
    """y_i = sum of x_j for j <= i along the axis."""
    return _along(cx, a, ordering.cumsum)


def call_cumprod(cx: Context, a: Arguments) -> Tensor:
    """y_i = product of x_j for j <= i along the axis."""
    return _along(cx, a, ordering.cumprod)


def call_sort(cx: Context, a: Arguments) -> Tensor:
    """From small to large along the axis, or from large to small; NaN is above every number."""
    return _along(cx, a, partial(ordering.sort, descending=_descending(a)))


def call_argsort(cx: Context, a: Arguments) -> Tensor:
    """The positions (i32) that sort."""
    return _along(cx, a, partial(ordering.argsort, descending=_descending(a)))


def _descending(a: Arguments) -> bool:
    if not isinstance(a.descending, bool):
        raise error("E0307", f"`descending` is a compile-time bool, not {kind(a.descending)}", a.at("descending"))
    return a.descending


def call_top_k(cx: Context, a: Arguments) -> Results:
    """The k largest along the last axis, largest first, and their positions (i32)."""
    x = tensor(cx, plain(a.x), a.at("x"))
    if isinstance(a.k, bool) or not isinstance(a.k, int) or a.k < 1:
        raise error("E0307", f"`k` is a compile-time number from 1, not {kind(a.k)}", a.at("k"))
    if x.rank and isinstance(x.shape[-1], int) and a.k > x.shape[-1]:
        raise error("E0301", f"the top {a.k} of only {x.shape[-1]} elements are asked for", a.at("k"))
    if x.rank:
        check_index(cx, x.shape[-1], a.span)
    if x.rank and not isinstance(x.shape[-1], int):
        cx.guard(x.shape[-1], a.k, f"the top {a.k} of {x.type} need as many elements", a.span, ">=")
    return Results(None, tuple(Tensor(n, cx.builder) for n in _built(cx, a, x, lambda b, n: ordering.top_k(b, n, a.k))))


def _along(cx: Context, a: Arguments, construct: Callable[..., str]) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    axis = axis_number(a.axis, x.rank, a.at("axis"))
    check_index(cx, x.shape[axis], a.span)
    return Tensor(_built(cx, a, x, lambda b, n: construct(b, n, axis)), cx.builder)


def _built(cx: Context, a: Arguments, x: Tensor, construct: Callable[..., T]) -> T:
    """What a construction makes of a node, its nodes and its errors at the call's place."""
    cx.builder.span = a.span
    try:
        return construct(cx.builder, x.node)
    except ShapeError as e:
        raise cx.shape_error(e, (x,), a.span, (a.at("x"),)) from None
    finally:
        cx.builder.span = None

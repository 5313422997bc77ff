"""Reductions over axes, over all axes, or over every element of a group."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce as fold

from ....dsl.errors import error
from ....dsl.source import Span
from ...loops.ir import identity
from ...types.sizes import Dim, Size, product
from ...types.tensors import FLOATS
from ..context import Context
from ..operations import elementwise
from ..shapes import check_filled, check_index, reshape, tensor
from ..values import REQUIRED, Arguments, Builtin, Group, Results, Tensor, Value, kind
from .elementwise import plain

EXTREMES = {"max": "maximum", "min": "minimum"}  # what of nothing has no value


def axis_number(value: Value, rank: int, span: Span, extra: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        several = f"several are a list: `[{span.text[1:-1]}]`" if isinstance(value, Results) else None
        raise error("E0307", f"an axis must be a compile-time whole number, not {kind(value)}", span, help=several)
    n = rank + extra
    if not -n <= value < n:
        raise error("E0303", f"axis {value} does not exist: there are {rank} axes", span)
    return value % n


def axes_of(value: Value, rank: int, span: Span) -> tuple[int, ...]:
    if value is None:
        return tuple(range(rank))
    listed = value if isinstance(value, tuple) else (value,)
    axes = sorted(axis_number(v, rank, span) for v in listed)
    if len(set(axes)) != len(axes):
        raise error("E0203", "an axis is named twice", span)
    return tuple(axes)


def _kept(cx: Context, y: Tensor, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    return reshape(cx, y, [1 if k in axes else s for k, s in enumerate(x.shape)], span) if keep else y


def reduce(cx: Context, op: str, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    if not axes:
        return x
    return _kept(cx, cx.emit(op, x, span=span, axes=axes), x, axes, keep, span)


def make_reduction(name: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Value:
        value = plain(a.x)
        if isinstance(value, Group):
            if a.axis is not None:
                raise error("E0203", f"`{name}` of a group has no axis", a.at("axis"))
            if name in EXTREMES and a.initial is not None:
                raise error("E0203", f"`{name}` of a group has no initial value", a.at("initial"))
            return _over_group(cx, name, value, a.span)
        x = tensor(
            cx,
            value,
            a.at("x"),
            cx.real if name in ("mean", "variance", "norm") and not isinstance(value, Tensor) else None,
        )
        if not isinstance(a.keep, bool):
            raise error("E0307", f"`keep` is a compile-time bool, not {kind(a.keep)}", a.at("keep"))
        axes = axes_of(a.axis, x.rank, a.at("axis"))
        if name not in EXTREMES:
            return REDUCE[name](cx, x, axes, a.keep, a.span)
        if a.initial is None:
            check_filled(cx, name, x, axes, a.span)
        y = REDUCE[name](cx, x, axes, a.keep, a.span)
        if a.initial is None or (x.dtype in FLOATS and a.initial == identity(name, x.dtype)):
            return y
        return elementwise(cx, EXTREMES[name], y, a.initial, a.span, (a.at("x"), a.at("initial")))

    more = (("initial", None),) if name in EXTREMES else ()
    return Builtin(name, (("x", REQUIRED), ("axis", None), ("keep", False), *more), call)


def _sum(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    if x.dtype == "bool":
        x = cx.emit("cast", x, span=span, dtype="i32")
    return reduce(cx, "reduce_sum", x, axes, keep, span)


def _mean(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    if x.dtype not in FLOATS:
        x = cx.emit("cast", x, span=span, dtype=cx.real)
    count: Dim = product(x.shape[k] for k in axes)
    return elementwise(cx, "/", _sum(cx, x, axes, keep, span), _count(cx, count, x.dtype, span), span, (span, span))


def _count(cx: Context, n: Dim, dtype: str, span: Span) -> Value:
    return cx.emit("size", span=span, size=n, dtype=dtype) if isinstance(n, Size) else float(n) if n else math.nan


def _variance(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    """mean(d^2) - mean(d)^2 with d = x - mean(x): what rounding left of the mean is taken off again (Chan, Golub and
    LeVeque, Algorithms for computing the sample variance, 1983). The last term is 0 for every x, so it has no
    gradient; of equal numbers it is all there is."""
    mean = _mean(cx, x, axes, True, span)
    x = x if x.dtype in FLOATS else cx.emit("cast", x, span=span, dtype=cx.real)
    d = elementwise(cx, "-", x, mean, span, (span, span))
    squares = _mean(cx, elementwise(cx, "*", d, d, span, (span, span)), axes, keep, span)
    left = _mean(cx, d, axes, keep, span)
    left = cx.emit("minimum", elementwise(cx, "*", left, left, span, (span, span)), squares, span=span)
    return elementwise(cx, "-", squares, cx.emit("stop_grad", left, span=span), span, (span, span))


def _norm(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    squares = elementwise(cx, "*", x, x, span, (span, span))
    return cx.emit("sqrt", _sum(cx, squares, axes, keep, span), span=span)


def _typed(name: str, op: str, wants_bool: bool) -> Callable[..., Tensor]:
    def call(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
        if wants_bool and x.dtype != "bool":
            raise error("E0302", f"`{name}` needs a bool tensor, not {x.type}", span, help="compare: `x != 0`")
        return reduce(cx, op, x, axes, keep, span)

    return call


REDUCE: dict[str, Callable[..., Tensor]] = {
    "sum": _sum, "mean": _mean, "variance": _variance, "norm": _norm,
    "prod": _typed("prod", "reduce_prod", False), "max": _typed("max", "reduce_max", False),
    "min": _typed("min", "reduce_min", False), "any": _typed("any", "reduce_max", True),
    "all": _typed("all", "reduce_min", True),
}  # fmt: skip


def _over_group(cx: Context, name: str, g: Group, span: Span) -> Value:
    """A reduction over every element of every member."""
    if not g.members:
        if name in ("sum", "norm"):
            return 0.0
        raise error("E0307", f"`{name}` of a group without members", span)
    ts = list(g.members.values())
    spans = (span, span)
    if name in ("sum", "norm", "mean"):
        parts = [elementwise(cx, "*", t, t, span, spans) if name == "norm" else t for t in ts]
        total: Tensor = fold(
            lambda p, q: elementwise(cx, "+", p, q, span, spans),
            (_sum(cx, t, tuple(range(t.rank)), False, span) for t in parts),
        )
        if name == "norm":
            return cx.emit("sqrt", total, span=span)
        if name == "mean":
            return elementwise(cx, "/", total, _count(cx, sum(t.type.size for t in ts), ts[0].dtype, span), span, spans)
        return total
    if name in ("max", "min", "any", "all"):
        op = EXTREMES.get(name) or ("or" if name == "any" else "and")
        parts = [REDUCE[name](cx, t, tuple(range(t.rank)), False, span) for t in ts]
        return fold(lambda p, q: cx.emit(op, p, q, span=span), parts)
    raise error("E0307", f"`{name}` does not apply to a group", span)


def make_arg(op: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Tensor:
        x = tensor(cx, plain(a.x), a.at("x"))
        if x.rank == 0:
            raise error("E0303", f"`{op}` needs an axis, but this is a scalar", a.at("x"))
        axis = axis_number(a.axis, x.rank, a.at("axis"))
        check_filled(cx, op, x, (axis,), a.span)
        check_index(cx, x.shape[axis], a.span)
        return cx.emit(op, x, span=a.span, axis=axis)

    return Builtin(op, (("x", REQUIRED), ("axis", -1)), call)

"""Reductions over axes, positions of the largest, running sums."""

from __future__ import annotations

from functools import partial

from ....compiler.types.tensors import FLOATS
from ...onnx.importing.refusals import Refused
from ...onnx.importing.values import Value, number
from ..call import OPERATORS, Call, operator

_REDUCED = {"mean": "mean", "sum": "sum", "amax": "max", "amin": "min", "prod": "prod", "logsumexp": "logsumexp"}


def _over(n: Call) -> str:
    """The arguments of a reduction behind its first."""
    axes = n.axes("dim", n.x.rank)
    if len(axes) == n.x.rank and not n.arg("keepdim"):
        return ""
    return f", axis = {axes[0] if len(axes) == 1 else axes}" + (", keep = true" if n.arg("keepdim") else "")


def _reduction(name: str, n: Call) -> Value:
    x = n.cast(n.x, n.dtype)
    if name == "logsumexp":
        axes = n.axes("dim", x.rank)
        if len(axes) != 1 or n.arg("keepdim"):
            raise Refused("only one axis, that is not kept, is supported")
        return n.emit(f"{{0}} |> logsumexp(axis = {axes[0]})", x)
    return n.emit(f"{name}({{0}}{_over(n)})", x)


OPERATORS.update({op: partial(_reduction, name) for op, name in _REDUCED.items()})


@operator("softmax", "log_softmax")
def softmax(n: Call) -> Value:
    x, axis = n.cast(n.x, n.dtype), n.axis("dim")
    return n.emit(f"{{0}} |> {n.op}" + ("" if axis == x.rank - 1 else f"(axis = {axis})"), x)


@operator("argmax", "argmin")
def positions(n: Call) -> Value:
    x = n.x if n.arg("dim") is not None else n.reshaped(n.x, [-1])
    axis = n.axis("dim") if n.arg("dim") is not None else 0
    if n.arg("dim") is None and n.arg("keepdim"):
        raise Refused("over all axes, which are kept, it is not supported")
    y = n.emit(f"cast({n.op}({{0}}, axis = {axis}), i64)", x)
    return n.emit(f"expand({{0}}, {axis})", y) if n.arg("keepdim") else y


@operator("cumsum")
def cumsum(n: Call) -> Value:
    return n.emit(f"cumsum({{0}}, axis = {n.axis('dim')})", n.cast(n.x, n.dtype))


@operator("max", "min")
def largest(n: Call) -> Value | list[Value]:
    """Of all, of two, or along an axis and where."""
    if n.maybe("other") is not None:
        return n.emit(f"{n.op}imum({{0}}, {{1}})", *n.meet(n.operand("self"), n.operand("other")))
    if n.arg("dim") is None:
        return n.emit(f"{n.op}({{0}})", n.x)
    where = n.cast(n.emit(f"arg{n.op}({{0}}, axis = {n.axis('dim')})", n.x), "i64")
    if n.arg("keepdim"):
        where = n.emit(f"expand({{0}}, {n.axis('dim')})", where)
    return [n.emit(f"{n.op}({{0}}{_over(n)})", n.x), where]


@operator("std")
def deviation(n: Call) -> Value:
    return n.emit("sqrt({0})", variance(n))


@operator("var")
def variance(n: Call) -> Value:
    correction = n.arg("correction") if "correction" in n.attributes else int(n.arg("unbiased"))
    if correction not in (0, 1, None):
        raise Refused(f"the correction {correction} is not supported")
    y = n.emit(f"variance({{0}}{_over(n)})", n.x)
    if correction == 0:
        return y
    count = " * ".join(f"({n.x.shape[a]})" for a in n.axes("dim", n.x.rank))
    return n.emit(f"{{0}} * ({count}) / ({count} - 1)", y)


@operator("linalg_vector_norm", "norm")
def norm(n: Call) -> Value:
    order = n.arg("ord") if "ord" in n.attributes else n.arg("p")
    if order not in (None, 2) or n.x.dtype not in FLOATS:
        raise Refused(f"only the Euclidean norm is supported, not that of order {number(order, 'f32')}")
    return n.emit(f"norm({{0}}{_over(n)})", n.x)

"""Reductions over axes, positions of the largest, running sums."""

from __future__ import annotations

from .....compiler.types.tensors import FLOATS
from ..node import Node, operator
from ..refusals import Refused
from ..values import Value, number

_REDUCED = {
    "ReduceSum": "sum({0}MORE)", "ReduceMean": "mean({0}MORE)", "ReduceMax": "max({0}MORE)",
    "ReduceMin": "min({0}MORE)", "ReduceProd": "prod({0}MORE)", "ReduceL1": "sum(abs({0})MORE)",
    "ReduceL2": "norm({0}MORE)", "ReduceSumSquare": "sum({0} * {0}MORE)", "ReduceLogSum": "log(sum({0}MORE))",
}  # fmt: skip


@operator(*_REDUCED, "ReduceLogSumExp")
def reduction(n: Node) -> Value:
    axes = n.given("axes", 1)
    if not axes and n.attribute("noop_with_empty_axes", 0):
        return _of_each(n)
    named = sorted(n.checked_axis(int(str(a)), n.x.rank) for a in axes) if axes else list(range(n.x.rank))
    keep = ", keep = true" if n.attribute("keepdims", 1) else ""
    if not named:
        return _of_each(n)
    more = f", axis = {named[0] if len(named) == 1 else named}{keep}"
    x = n.x
    empty = any(n.x.shape[a] == 0 for a in named)
    if n.op == "ReduceLogSumExp":
        y = n.x
        top = n.emit(f"max({{0}}, axis = {named}, keep = true, initial = -inf)", y)
        held = n.emit("where(isfinite({0}), {0}, 0)", top)
        total = n.emit(f"log(sum(exp({{0}} - {{1}}){more}))", y, held)
        return n.emit("{0} + {1}", total, held if keep else n.reshaped(held, total.shape))
    if n.op in ("ReduceMax", "ReduceMin") and x.dtype == "bool":
        return n.emit(f"{'any' if n.op == 'ReduceMax' else 'all'}({{0}}{more})", x)
    if n.op in ("ReduceMax", "ReduceMin") and empty:
        if x.dtype not in FLOATS:
            raise Refused("the largest and smallest of no whole numbers are not defined")
        more += f", initial = {'-inf' if n.op == 'ReduceMax' else 'inf'}"
    if n.op in ("ReduceMean", "ReduceL2") and x.dtype not in FLOATS:
        y = n.emit(_REDUCED[n.op].replace("MORE", more), n.emit("cast({0}, f64)", x))
        return n.emit(f"cast({{0}}, {x.dtype})", y)
    return n.emit(_REDUCED[n.op].replace("MORE", more), x)


def _of_each(n: Node) -> Value:
    """Over no axes: what is done to each element."""
    template = {
        "ReduceL1": "abs({0})",
        "ReduceL2": "abs({0})",
        "ReduceSumSquare": "{0} * {0}",
        "ReduceLogSum": "log({0})",
    }
    return n.emit(template.get(n.op, "{0}"), n.x)


@operator("ArgMax", "ArgMin")
def positions(n: Node) -> Value:
    axis = n.axis(default=0)
    name = "argmax" if n.op == "ArgMax" else "argmin"
    if n.attribute("select_last_index", 0):
        y = n.emit(f"{n.x.shape[axis]} - 1 - {name}(flip({{0}}, {axis}), axis = {axis})", n.x)
    else:
        y = n.emit(f"{name}({{0}}, axis = {axis})", n.x)
    y = n.emit("cast({0}, i64)", y)
    return n.emit(f"expand({{0}}, {axis})", y) if n.attribute("keepdims", 1) else y


@operator("CumSum", "CumProd")
def running(n: Node) -> Value:
    axis = n.checked_axis(n.integers(1, "the axis")[0], n.x.rank)
    backwards, exclusive = n.attribute("reverse", 0), n.attribute("exclusive", 0)
    name = n.op.lower()
    y = n.emit(f"flip({{0}}, {axis})", n.x) if backwards else n.x
    if exclusive:
        size = n.x.shape[axis]
        cut = ", ".join([*[":"] * axis, f":{size} - 1"])
        widths = [[0, 0] for _ in n.x.shape]
        widths[axis] = [1, 0]
        first = "" if n.op == "CumSum" else f", value = {number(1, n.x.dtype)}"
        y = n.emit(f"pad({{0}}[{cut}], {widths}{first})", y)
    y = n.emit(f"{name}({{0}}, axis = {axis})", y)
    return n.emit(f"flip({{0}}, {axis})", y) if backwards else y


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(n: Node) -> Value:
    """Before opset 13 all axes from `axis` on are one."""
    name = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}.get(n.op, "")
    old = n.version < 13
    axis = n.axis(default=1 if old else -1)
    x = n.x
    if old and axis != x.rank - 1:
        front = "1" if axis == 0 else " * ".join(f"({d})" for d in x.shape[:axis])
        x, last = n.emit(f"reshape({{0}}, [{front}, -1])", x), 1
    else:
        last = axis
    if name:
        y = n.emit(f"{{0}} |> {name}" + ("" if last == x.rank - 1 else f"(axis = {last})"), x)
    else:
        top = n.emit(f"argmax({{0}}, axis = {last})", x)
        hot = n.emit(f"cast(one_hot({{0}}, {x.shape[last]}), {x.dtype})", top)
        order = [*range(last), x.rank - 1, *range(last, x.rank - 1)]
        y = n.transposed(hot, order)
    return n.reshaped(y, n.x.shape)

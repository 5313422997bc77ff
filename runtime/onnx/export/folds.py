"""Reductions, and what goes along an axis element after element: orders, running sums, the largest of each window."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from ....compiler.graph.nodes import Node
from ....compiler.types.sizes import Dim
from . import windows
from .loops import loop
from .scalars import apply
from .sums import summed
from .values import Scope, Value
from .views import turned
from .walk import Rule, Walk

FOLDS = {"reduce_sum": "ReduceSum", "reduce_prod": "ReduceProd", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}


def _reduce(w: Walk, n: Node) -> Value:
    s, axes = w.scope, list(n.attrs["axes"])
    x = w.full(n.args[0])
    if not axes:
        return x
    if n.op == "reduce_sum":
        return summed(s, x, axes, n.shape)
    found = _largest(w, n)
    if found is not None:
        return found
    if n.dtype == "bool":  # which ONNX reduces only as numbers
        x = s.cast(x, "i32")
    if s.opset < 18:
        y = s.emit(FOLDS[n.op], x, type=(x.dtype, n.shape), axes=axes, keepdims=0)
    else:
        y = s.emit(FOLDS[n.op], x, s.constant(axes, "i64"), type=(x.dtype, n.shape), keepdims=0)
    return s.cast(y, n.dtype)


def _largest(w: Walk, n: Node) -> Value | None:
    """The largest of each window."""
    found = windows.read_in_windows(w.graph, n.name, "reduce_max")
    if found is None:
        return None
    read, inner = found
    return windows.pooled(w.scope, read, w.full(read.args[0]), inner, "MaxPool", -inf)


def _extreme(w: Walk, n: Node) -> Value:
    s, axis = w.scope, n.attrs["axis"]
    op = "ArgMax" if n.op == "argmax" else "ArgMin"
    return s.cast(s.emit(op, w.full(n.args[0]), type=("i64", n.shape), axis=axis, keepdims=0), n.dtype)


def _argsort(w: Walk, n: Node) -> Value:
    """Of equals TopK takes the first first."""
    s, x = w.scope, w.full(n.args[0])
    types = ((x.dtype, n.shape), ("i64", n.shape))
    _, order = s.emits(
        "TopK", x, s.size(n.shape[-1]), types=types, axis=-1, largest=int(n.attrs["descending"]), sorted=1
    )
    return s.cast(order, n.dtype)


def _recurrence(w: Walk, n: Node) -> Value:
    """y[i] = a[i] y[i-1] + b[i]; with `reverse` y[i] = a[i+1] y[i+1] + b[i]."""
    s, axis, back = w.scope, n.attrs["axis"], n.attrs["reverse"]
    if w.number(n.args[0]) == 1:
        axes = s.constant(axis, "i64")
        return s.emit("CumSum", w.full(n.args[1]), axes, type=(n.dtype, n.shape), reverse=int(back))
    a, b = (turned(s, w.full(k), [axis] if back else []) for k in n.args)
    perm = [axis, *(k for k in range(len(n.shape)) if k != axis)]
    a, b = s.transpose(a, perm), s.transpose(b, perm)
    count: Dim = n.shape[axis]
    one: tuple[Dim, ...] = b.shape[1:]
    start = s.expand(s.constant(0, n.dtype), one)

    def turn(inner: Scope, index: Value, carried: list[Value]) -> tuple[list[Value], list[Value], Value | None]:
        """The factor of a turn stands at its own place; backward it is that of the turn before."""

        def at(v: Value, k: Value) -> Value:
            return inner.emit("Gather", v, k, type=(n.dtype, one), axis=0)

        none = inner.constant(0, "i64")
        link = apply(inner, "Max", apply(inner, "Sub", index, inner.constant(1, "i64")), none)
        y = apply(inner, "Add", apply(inner, "Mul", at(a, link if back else index), carried[0]), at(b, index))
        y = apply(inner, "Where", apply(inner, "Equal", index, none, dtype="bool"), at(b, index), y)
        return [y], [y], None

    _, (y,) = loop(s, count, [start], turn, [(n.dtype, one)])
    y = s.transpose(y, [perm.index(k) for k in range(len(perm))])
    return turned(s, y, [axis] if back else [])


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(FOLDS, _reduce), "argmax": _extreme, "argmin": _extreme, "argsort": _argsort,
    "recurrence": _recurrence,
}  # fmt: skip

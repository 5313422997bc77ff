"""Elements at indices that data decide: rows that are gathered, and rows to which is added."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from ....compiler.graph.nodes import Node
from ....compiler.types.tensors import FLOATS
from .scalars import INTS
from .values import Refused, Value, elements
from .walk import Rule, Walk

MODES = {"scatter_add": "add", "scatter_max": "max", "scatter_min": "min"}


def _gather(w: Walk, n: Node) -> Value:
    table, index = map(w.full, n.args)
    return w.scope.emit("Gather", table, index, type=(n.dtype, n.shape), axis=n.attrs.get("axis", 0))


def _take_along(w: Walk, n: Node) -> Value:
    """x[..., index], where the index begins with the axes of x but the last."""
    s = w.scope
    x, index = map(w.full, n.args)
    lead = x.shape[:-1]
    rows = s.reshape(index, [*lead, elements(index.shape[len(lead) :])])
    y = s.emit("GatherElements", x, rows, type=(n.dtype, rows.shape), axis=x.rank - 1)
    return s.reshape(y, n.shape)


def _scatter(w: Walk, n: Node) -> Value:
    s = w.scope
    index, updates = map(w.full, n.args)
    mode = MODES[n.op]
    if mode != "add" and s.opset < 18:
        raise Refused("needs opset 18 or newer")
    least = {"add": 0.0, "max": -inf, "min": inf}[mode]
    if n.dtype not in FLOATS:
        least = {"add": 0, "max": INTS[n.dtype][0], "min": INTS[n.dtype][1]}[mode]
    begin = s.expand(s.constant(least, n.dtype), n.shape)
    rows = s.cast(s.reshape(index, [*index.shape, 1]), "i64")
    return s.emit("ScatterND", begin, rows, updates, type=(n.dtype, n.shape), reduction=mode)


def _add_along(w: Walk, n: Node) -> Value:
    s, lead = w.scope, n.attrs["lead"]
    flat = [*n.shape[:lead], elements(w.graph[n.args[0]].shape[lead:])]
    index, updates = (s.reshape(w.full(a), flat) for a in n.args)
    zeros = s.expand(s.constant(0, n.dtype), n.shape)
    return s.emit(
        "ScatterElements", zeros, s.cast(index, "i64"), updates, type=(n.dtype, n.shape), axis=lead, reduction="add"
    )  # fmt: skip


RULES: Mapping[str, Rule] = {
    "gather": _gather, "take_along": _take_along, **dict.fromkeys(MODES, _scatter), "add_along": _add_along,
}  # fmt: skip

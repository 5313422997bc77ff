"""argmax and argmin as two reductions: the extreme, then the least index at which it is reached.

    m = max_k x[k],   argmax x = min { k : x[k] = m, or both are NaN }

So they fold like any reduction and share a kernel with their neighbours.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..graph.nodes import Node
from ..loops.ir import identity
from ..types.tensors import FLOATS, TensorType

_FOLD = {"argmax": "reduce_max", "argmin": "reduce_min"}
ARGUMENTS = tuple(_FOLD)


class Emits(Protocol):
    """What grows a graph: a builder, or a rewriting pass."""

    def type(self, name: str) -> TensorType: ...

    def emit(self, op: str, *args: str, **attrs: Any) -> str: ...


def expand(b: Emits, node: Node, x: str) -> str:
    """The value of an argmax or argmin node of `x`, in reductions."""
    type_, axis = b.type(x), node.attrs["axis"]
    kept = tuple(k for k in range(type_.rank) if k != axis)

    def spread(v: str) -> str:
        return b.emit("broadcast", v, shape=type_.shape, axes=kept)

    extreme = b.emit(_FOLD[node.op], x, axes=(axis,))
    hit = b.emit("eq", x, spread(extreme))
    if type_.dtype in FLOATS:
        nan = b.emit("and", b.emit("ne", x, x), spread(b.emit("ne", extreme, extreme)))
        hit = b.emit("or", hit, nan)
    index = b.emit("iota", shape=type_.shape, axis=axis, dtype="i32")
    nowhere = b.emit("constant", values=(identity("min", "i32"),), type=TensorType("i32"))
    reached = b.emit("where", hit, index, b.emit("broadcast", nowhere, shape=type_.shape, axes=()))
    return b.emit("reduce_min", reached, axes=(axis,))

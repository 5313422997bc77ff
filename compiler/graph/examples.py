"""Whether a graph computes each example of a batch alone: then a batch may be computed a few examples at a time.

In: a graph of operators, or of kernels. Out: the size that counts examples. The one idea: in such a graph every value
has that size as one whole axis or not at all, and no operator sums, cuts, joins or counts along it. So it is enough to
look at each operator by itself, with the types of its operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..types.sizes import symbols
from ..types.tensors import TensorType, TupleType
from .nodes import Graph, Node, mentions
from .ops import OPS
from .ops.contraction import index_of
from .ops.indexing import SCATTERS
from .ops.layout import regroup
from .ops.op import CONTRACT, LEAF, MAP, TUPLE, Seen


def examples(graph: Graph) -> str | None:
    """The name of the size that is the first axis of every result and of every input that has it, where each example
    is computed alone; None where there is none."""
    first = {graph[v].shape[:1] if isinstance(graph[v].type, TensorType) else () for _, v in graph.outputs}
    if graph.updates or len(first) != 1 or not (size := first.pop()):
        return None
    name = str(size[0])
    if symbols(size[0]) != {name} or mentions([(r.left, r.right) for g in graph.guards for r in g.relations], name):
        return None
    inputs = [n.shape for n in graph if n.op == "input"]
    if not any(s[:1] == size for s in inputs) or any(mentions(s[1:], name) for s in inputs):
        return None
    return name if apart(graph, name) else None


def apart(graph: Graph, name: str) -> bool:
    """Whether no operator brings examples together."""
    places = {n.name: _places(n, name) for n in graph}
    return all(p is not None for p in places.values()) and all(
        _is_apart(n, [graph[a].type for a in n.args], [places[a] for a in n.args], places[n.name], name) for n in graph
    )


def _places(n: Node, name: str) -> tuple[int | None, ...] | None:
    """The axis of examples of each result of a node; None where the size is there in another way."""
    types = n.type.items if isinstance(n.type, TupleType) else (n.type,)
    found: list[int | None] = []
    for t in types:
        axes = [k for k, d in enumerate(t.shape) if name in symbols(d)] if isinstance(t, TensorType) else []
        if len(axes) > 1 or any(str(t.shape[k]) != name for k in axes):
            return None
        found.append(axes[0] if axes else None)
    return tuple(found)


def _is_apart(n: Node, types: Sequence[Any], places: Sequence[Any], result: Any, name: str) -> bool:
    kind, attrs = OPS[n.op].kind, {k: v for k, v in n.attrs.items() if k not in ("shape", "type")}
    if n.op == "fused":
        return apart(attrs["body"], name)
    if kind == TUPLE or kind == LEAF:
        return not mentions(attrs, name)
    if n.op == "scan":
        return not mentions(attrs["count"], name) and apart(attrs["body"], name)
    axes: list[int | None] = [p[0] for p in places]
    q: int | None = result[0]
    if q is None:
        return all(p is None for p in axes) and not mentions(attrs, name)
    if n.op == "broadcast" and axes == [None]:
        return not mentions(attrs, name)
    if all(p is None for p in axes):
        return n.op == "iota" and attrs["axis"] != q
    if n.op in _ALONG:
        return _ALONG[n.op](attrs, types, axes) and not mentions(attrs, name)
    if kind == CONTRACT:
        return _is_index(n, axes, q, name)
    if n.op == "reshape":
        return ((axes[0],), (q,)) in regroup(types[0].shape, n.shape)
    if kind == MAP:
        return not mentions(attrs, name)
    cell, p = OPS[n.op].axes, axes[0]
    seen = cell(n.attrs, types[0].shape, n.shape) if cell is not None else None
    if seen is None or p is None or axes != [p] * len(axes) or seen[p] != Seen(q):
        return False
    return not mentions({k: v[:p] + v[p + 1 :] if isinstance(v, tuple) else v for k, v in attrs.items()}, name)


def _is_index(n: Node, axes: Sequence[int | None], result: int, name: str) -> bool:
    """Of a contraction: whether one index of the result is the example in all operands that have them, and nothing
    else has to do with it."""
    letter = index_of(n.attrs["out"][result])
    others = [e for k, e in enumerate(n.attrs["out"]) if k != result]
    for m, p in zip(n.attrs["maps"], axes, strict=True):
        if p is not None and index_of(m[p]) != letter:
            return False
        others += [e for k, e in enumerate(m) if k != p]
    if letter is None or any(i == letter for _, terms in others for i, _ in terms):
        return False
    if str(dict(n.attrs["domain"])[letter]) != name:
        return False
    rest = {k: v for k, v in n.attrs.items() if k not in ("shape", "domain")}
    return not mentions((rest, [size for i, size in n.attrs["domain"] if i != letter]), name)


# Operators that treat one axis unlike the others, by the axis of examples of each operand: whether that is another.
_Along = Callable[[Mapping[str, Any], Sequence[TensorType], Sequence["int | None"]], bool]


def _gather(attrs: Mapping[str, Any], types: Sequence[TensorType], axes: Sequence[int | None]) -> bool:
    table, index = axes
    return table is None or (index is None and table != attrs.get("axis", 0))


def _scatter(attrs: Mapping[str, Any], types: Sequence[TensorType], axes: Sequence[int | None]) -> bool:
    index, updates = axes
    return index is None and updates is not None and updates >= types[0].rank


_ALONG: Mapping[str, _Along] = {
    "argmax": lambda attrs, types, axes: axes[0] != attrs["axis"],
    "argmin": lambda attrs, types, axes: axes[0] != attrs["axis"],
    "recurrence": lambda attrs, types, axes: axes[0] != attrs["axis"],
    "argsort": lambda attrs, types, axes: axes[0] != types[0].rank - 1,
    "take_along": lambda attrs, types, axes: axes[0] == axes[1] != types[0].rank - 1,
    "add_along": lambda attrs, types, axes: axes[0] is not None and axes[0] < attrs["lead"],
    "gather": _gather,
    **dict.fromkeys(SCATTERS, _scatter),
}

"""What must hold at run time is said in the graph, where no pass loses it.

In: a graph. Out: the same values, with two kinds of checks. `check` reads every index that data decide through
`in_range`, an operator that is there for its effect: it stays when nothing reads it any more, so that a label out of
range is an error in a gradient, too, that only compares it. `guard` asks of every size that is allocated or looped over
that it is not negative: a relation of sizes, which the caller looks at once per combination of sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..graph.nodes import Graph, Guard, Node
from ..graph.ops import OPS
from ..graph.ops.op import LOOP
from ..types.facts import Relation
from ..types.sizes import Dim, nonnegative, symbols
from ..types.tensors import TupleType
from .rewrite import Sweep, Table, rewrite

SAME = ("broadcast", "reshape", "assume", "transpose", "slice", "flip")  # elements that the operand has


def check(graph: Graph) -> Graph:
    """The graph with every index that data decide read through `in_range`."""
    return rewrite(graph, {op.name: (in_range_first,) for op in OPS.values() if op.rows is not None})


# table[i] = table[in_range i]
def in_range_first(s: Sweep, n: Node) -> str | None:
    rows = OPS[n.op].rows
    assert rows is not None
    k, size = rows
    if s[n.args[k]].op == "in_range":
        return None
    named = _input_of(s, n.args[k])
    of = n.op if named is None else f"{n.op} by `{named}`"
    index = s.emit("in_range", n.args[k], size=size(n.attrs, [s.type(a) for a in n.args]), of=of)
    return s.emit(n.op, *n.args[:k], index, *n.args[k + 1 :], **n.attrs)


def _input_of(s: Sweep, name: str) -> str | None:
    """The input whose elements these are; None where they were computed."""
    while (n := s[name]).op in (*SAME, "cast"):
        name = n.args[0]
    return str(n.attrs["name"]) if n.op == "input" else None


# in_range(i) = i, where i certainly is
def in_range_certain(s: Sweep, n: Node) -> str | None:
    return n.args[0] if _is_in_range(s, n.args[0], n.attrs["size"]) else None


def _is_in_range(s: Sweep, name: str, size: Dim) -> bool:
    while (n := s[name]).op in SAME:
        name = n.args[0]
    match n.op:
        case "iota":
            return nonnegative(size - n.shape[n.attrs["axis"]])
        case "argmax" | "argmin":
            return nonnegative(size - s.shape(n.args[0])[n.attrs["axis"]])
        case "argsort":
            return nonnegative(size - n.shape[-1])
        case "in_range":
            return nonnegative(size - n.attrs["size"])
    return False


RULES: Table = {"in_range": (in_range_certain,)}


def guard(graph: Graph) -> Graph:
    """The graph with a guard for every size in it, its loops included, that might be negative."""
    held = {n for node in graph if node.op in ("input", "param") for n in node.shape}
    held |= {r.left - r.right for g in graph.guards for r in g.relations if len(g.relations) == 1 and r.op == ">="}
    guards = list(graph.guards)
    for node, n in _sizes(graph):
        if not nonnegative(n) and n not in held:
            held.add(n)
            guards.append(Guard((Relation(n, ">=", 0),), "a size must not be negative", node.span))
    if len(guards) == len(graph.guards):
        return graph
    return replace(graph, guards=tuple(guards))


def _sizes(graph: Graph) -> Iterator[tuple[Node, Dim]]:
    """What must be 0 or more, with the node that needs it. What depends on the turn of a loop was looked at when the
    loop was built, for its first turn and its last."""
    for node in graph:
        if OPS[node.op].kind == LOOP:
            index = node.attrs["index"]
            yield from ((inner, n) for inner, n in _sizes(node.attrs["body"]) if index not in symbols(n))
        for n in _needed(graph, node):
            yield node, n


def _needed(graph: Graph, node: Node) -> Iterable[Dim]:
    for t in node.type.items if isinstance(node.type, TupleType) else (node.type,):
        yield from t.shape
    if (further := OPS[node.op].sizes) is not None:
        yield from further(node.attrs, [graph[a].type for a in node.args])

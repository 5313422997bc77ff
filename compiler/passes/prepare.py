"""Preparation: what an entry computes of variables alone is computed when they change, not in every call.

In: a graph whose values lie as kernels read them. Out: two, that of `NAME.prepare`, which writes what it computes into
variables of its own, and the rest, which reads them. The one idea: whoever calls an entry knows when variables change.
So weights in the order of the kernels, scales of a normalisation, tables of constants cost nothing in a call.

What is made of nothing, or only renames a buffer, is no work: it stays where it is read.
"""

from __future__ import annotations

from typing import Any

from ..graph.cost import number, own_weight
from ..graph.nodes import Graph, Node, ancestors, may_fail
from ..graph.ops import OPS, PACKED
from ..graph.ops.op import LEAF, MAP, VIEW
from ..types.sizes import Size
from ..types.tensors import TensorType, TupleType
from .rewrite import assemble, live

FREE = ("broadcast", "constant", "iota", "reshape", "assume", "size", *PACKED)  # made of nothing, or not made at all
CHEAP = 4  # weight up to which what is made of nothing is made where it is read
WORTH = 512  # vector instructions of all elements, below which a call does not notice


def prepare(graph: Graph, stem: str = "prepared") -> tuple[Graph, Graph] | None:
    """The graph of `NAME.prepare` and the rest; None where that would not be worth a call. Paths of what is prepared
    begin with `stem`."""
    made = fixed(graph)
    if all(n.op != "input" for n in graph):
        return None
    found = _found(graph, made)
    before = ancestors(graph.nodes, found)
    if sum(_work(graph[name]) for name in before) < WORTH:
        return None
    paths = {name: f"{stem}/{name}" for name in before if name in found}
    nodes = {n.name: _variable(n, paths[n.name]) if n.name in paths else n for n in graph}
    rest = assemble(graph, live(nodes, graph.roots), graph.outputs, graph.updates)
    updates = tuple((path, name) for name, path in paths.items())
    return Graph(f"{graph.name}.prepare", {name: graph[name] for name in before}, (), updates), rest


def fixed(graph: Graph) -> dict[str, int]:
    """The nodes that depend on variables alone, those that the entry does not write. Of what is made of nothing, the
    weight of one element; of all else, more than is cheap."""
    written = {path for path, _ in graph.updates}
    found: dict[str, int] = {}
    for n in graph:
        if n.op == "input" or may_fail(n) or (n.op == "param" and n.attrs["path"] in written):
            continue
        if all(a in found for a in n.args) and _is_static(n.type) and _is_static(n.attrs):
            stored = n.op == "param" or (n.op == "constant" and n.shape)
            made = n.op in FREE or OPS[n.op].kind in (MAP, VIEW)
            found[n.name] = own_weight(n) + sum(found[a] for a in n.args) if made and not stored else CHEAP + 1
    return found


def _is_static(x: Any) -> bool:
    """Whether no size in a type or an attribute is a symbol."""
    match x:
        case Size():
            return False
        case TensorType(_, shape):
            return _is_static(shape)
        case TupleType(items) | tuple(items):
            return all(map(_is_static, items))
        case dict():
            return all(map(_is_static, x.values()))
        case Graph():
            return all(_is_static(n.type) and _is_static(n.attrs) for n in x)
    return True


def _found(graph: Graph, fixed: dict[str, int]) -> set[str]:
    """The values that the rest of the graph reads and that cost something."""
    read = [a for n in graph if n.name not in fixed for a in n.args] + list(graph.roots)
    found: set[str] = set()
    seen: set[str] = set()
    while read:
        name = read.pop()
        if name not in fixed or name in seen:
            continue
        seen.add(name)
        n = graph[name]
        if n.op in FREE or fixed[name] <= CHEAP or not isinstance(n.type, TensorType):
            read += n.args
        elif OPS[n.op].kind != LEAF:
            found.add(name)
    return found


def _work(n: Node) -> int:
    """Vector instructions that a node costs, roughly."""
    if n.op in FREE or OPS[n.op].kind == LEAF or not isinstance(n.type, TensorType):
        return 0
    return number(n.type.size) * max(1, own_weight(n))


def _variable(n: Node, path: str) -> Node:
    """The variable that holds what was a node, under its name."""
    return Node(n.name, "param", (), {"path": path, "type": n.type}, n.type, n.span)

"""Preparation: what an entry computes of variables alone is computed when they change, not in every call.

In: a graph whose values lie as kernels read them. Out: two, that of `NAME.prepare`, which writes what it computes into
variables of its own, and the rest, which reads them. The one idea: whoever calls an entry knows when variables change.
So weights in the order of the kernels, scales of a normalisation, tables of constants cost nothing in a call.

What is made of nothing, or only renames a buffer, is no work: it stays where it is read.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Any

from ..graph.cost import number, own_weight
from ..graph.nodes import Graph, Node, ancestors, may_fail
from ..graph.ops import OPS, PACKED
from ..graph.ops.op import LEAF, LOOP, MAP, VIEW
from ..types.sizes import Size, symbols
from ..types.tensors import TensorType, TupleType
from .rewrite import assemble, live
from .scans import collected_before, each, of_turns, trim

FREE = ("broadcast", "constant", "iota", "reshape", "assume", "size", *PACKED)  # made of nothing, or not made at all
CHEAP = 4  # weight up to which what is made of nothing is made where it is read
WORTH = 512  # vector instructions of all elements, below which a call does not notice


def prepare(graph: Graph, stem: str = "prepared") -> tuple[Graph, Graph] | None:
    """The graph of `NAME.prepare` and the rest; None where that would not be worth a call. Paths of what is prepared
    begin with `stem`."""
    if all(n.op != "input" for n in graph):
        return None
    graph = by_turns(graph)
    made = fixed(graph)
    found = _found(graph, made)
    before = ancestors(graph.nodes, found)
    if sum(_work(graph[name]) for name in before) < WORTH:
        return None
    paths = {name: f"{stem}/{name}" for name in before if name in found}
    nodes = {n.name: _variable(n, paths[n.name]) if n.name in paths else n for n in graph}
    rest = assemble(graph, live(nodes, graph.roots), graph.outputs, graph.updates)
    updates = tuple((path, name) for name, path in paths.items())
    return Graph(f"{graph.name}.prepare", {name: graph[name] for name in before}, (), updates), rest


def by_turns(graph: Graph) -> Graph:
    """The graph with what a scan computes of variables alone, in each turn of others, computed by a scan of its own."""
    made, names = fixed(graph), {*graph.nodes}

    def change(n: Node, before: dict[str, Node]) -> Node | None:
        apart = n.name not in made and not n.attrs["until"] and _is_static(n.attrs["count"])
        inside = of_turns(n, made) if apart else ()
        body = n.attrs["body"]
        found = _found(body, _weighed(body, inside, frozenset({n.attrs["index"]})))
        found -= {x.name for x in body if x.op == "slice" and body[x.args[0]].op == "input"}  # rows, which lie there
        if sum(_work(body[name]) for name in ancestors(body.nodes, found)) * number(n.attrs["count"]) < WORTH:
            return None
        return collected_before(n, [x.name for x in body if x.name in found], before, names)

    return trim(each(graph, change))


def fixed(graph: Graph) -> dict[str, int]:
    """The nodes that depend on variables alone, those that the entry does not write. Of what is made of nothing, the
    weight of one element; of all else, more than is cheap."""
    written = {path for path, _ in graph.updates}
    stored = {n.name for n in graph if n.op == "param" and n.attrs["path"] not in written}
    same: set[str] = set()
    for n in graph:
        if n.name in stored or (n.op not in ("input", "param") and all(a in same for a in n.args) and not may_fail(n)):
            same.add(n.name)
    return _weighed(graph, same)


def _weighed(graph: Graph, same: Collection[str], turn: Set[str] = frozenset()) -> dict[str, int]:
    """Of nodes that are the same in every call, in each `turn`, those of known sizes, and what one element weighs."""
    found: dict[str, int] = {}
    for n in graph:
        if n.name not in same or not _is_static(n.type) or not all(a in found for a in n.args):
            continue
        if _is_static(n.attrs, {*turn, n.attrs["index"]} if OPS[n.op].kind == LOOP else turn):
            stored = n.op in ("param", "input") or (n.op == "constant" and n.shape)
            made = n.op in FREE or OPS[n.op].kind in (MAP, VIEW)
            found[n.name] = own_weight(n) + sum(found[a] for a in n.args) if made and not stored else CHEAP + 1
    return found


def _is_static(x: Any, bound: Set[str] = frozenset()) -> bool:
    """Whether no size in a type or an attribute is a symbol, but for those that are bound."""
    match x:
        case Size():
            return symbols(x) <= bound
        case TensorType(_, shape):
            return _is_static(shape, bound)
        case TupleType(items) | tuple(items):
            return all(_is_static(i, bound) for i in items)
        case dict():
            return all(_is_static(v, bound) for v in x.values())
        case Graph():
            return all(_is_static(n.type, bound) and _is_static(n.attrs, bound) for n in x)
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

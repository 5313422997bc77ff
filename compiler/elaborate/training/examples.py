"""Whether examples are independent: what a model does along the size that counts them.

In: the graph of its inference. Out: why the set cannot be cut into batches and shuffled, in words, or None. Means and
sums over a batch are estimates of those over the set; a scan or a running sum along the examples, an order of them, or
an index from the data that picks among them (the edges of a graph), means the set as it stands.
"""

from __future__ import annotations

from ...graph.nodes import Graph, Node, ancestors
from ...graph.ops import OPS
from ...graph.ops.op import LOOP
from ...types.sizes import symbols


def bound_by(graph: Graph, symbol: str) -> str | None:
    """What binds the examples together, and where."""
    for node in graph:
        if OPS[node.op].kind == LOOP and symbol in symbols(node.attrs["count"]):
            return f"a scan runs along {symbol}{_place(node)}"
        if node.op == "recurrence" and symbol in symbols(node.shape[node.attrs["axis"]]):
            return f"a running sum or product goes along {symbol}{_place(node)}"
        if node.op == "argsort" and symbol in symbols(node.shape[-1]):
            return f"examples are sorted along {symbol}{_place(node)}"
        rows = OPS[node.op].rows
        if rows is None:
            continue
        k, size = rows
        if symbol in symbols(size(node.attrs, [graph[a].type for a in node.args])):
            if any(_is_given(graph[a]) for a in ancestors(graph.nodes, [node.args[k]])):
                return f"an index from the data picks along {symbol}{_place(node)}"
    return None


def _is_given(node: Node) -> bool:
    """Whether positions in a node are those of certain examples: they come from the data, or stand in the program."""
    return node.op == "input" or (node.op == "constant" and node.shape != ())


def _place(node: Node) -> str:
    return "" if node.span is None else f" ({node.span})"

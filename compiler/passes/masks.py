"""Masks: whether a number was the larger of two is seen in the larger.

In: a graph as it lies in memory. Out: the same values, also where they are no numbers; where y = maximum(x, c) is kept
for a product, x > c is y > c, so that x need not be kept beside it until derivatives ask.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph.nodes import Graph, Node
from ..graph.ops import OPS
from ..graph.ops.op import CONTRACT
from .rewrite import assemble

_SEEN_IN = {"gt": "maximum", "lt": "minimum"}


def masks(graph: Graph) -> Graph:
    """The graph whose comparisons read what is kept."""
    kept = {a for n in graph if OPS[n.op].kind == CONTRACT for a in n.args}
    extremes: dict[tuple[str, str, str], str] = {}
    nodes: dict[str, Node] = {}
    for n in graph:
        if n.op in _SEEN_IN:
            x, c = n.args
            n = replace(n, args=(extremes.get((_SEEN_IN[n.op], x, c), x), c))
        elif n.op in _SEEN_IN.values() and n.name in kept:
            x, c = n.args
            extremes[n.op, x, c] = extremes[n.op, c, x] = n.name
        nodes[n.name] = n if n.args != graph[n.name].args else graph[n.name]
    return assemble(graph, nodes, graph.outputs, graph.updates)

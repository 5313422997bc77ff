"""Dead code elimination: what neither an output nor an update depends on is dropped. Inputs stay, as the outside passes
them."""

from __future__ import annotations

from ..graph.nodes import Graph
from .rewrite import assemble, live


def dce(graph: Graph) -> Graph:
    """The graph without the nodes that nothing needs."""
    return assemble(graph, live(graph.nodes, graph.roots), graph.outputs, graph.updates)

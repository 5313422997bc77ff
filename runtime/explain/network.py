"""The picture of the network by layers, whose boxes know the places that they are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...compiler.elaborate import Program
from ...compiler.elaborate.context import Context
from ...compiler.graph.nodes import Graph, Node
from ..picture import drawn


def network(
    program: Program, cx: Context, graph: Graph, placed: Graph, places: Callable[[Node], list[int]]
) -> dict[str, Any]:
    """The SVG of the graph of an entry, as it was grown; a box k of it is a link to `#box{k}`, and has the places at
    position k."""
    svg, boxes = drawn(program, graph, cx, across=True, linked=True)
    nodes = [[n for n in box.nodes if n.op not in ("input", "param")] or box.nodes for box in boxes]
    return {"svg": svg, "boxes": [sorted({p for n in own for p in places(placed[n.name])}) for own in nodes]}

"""A program as a picture: its layers as boxes in an SVG, or a page on which each opens to its operators.

In: a program and the name of an entry. Out: text of a file that any browser shows; nothing else is needed for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...compiler.autodiff.differentiate import differentiate
from .boxes import Box, boxes, shown
from .drawing import draw
from .page import page

if TYPE_CHECKING:
    from ...compiler.elaborate import Program
    from ...compiler.graph.nodes import Node


def picture(program: Program, entry: str, depth: int, as_page: bool) -> str:
    """The SVG of an entry whose layers are opened `depth` times, or the page around it."""
    cx = program.context(entry)
    graph = program.graph(entry, cx)
    root = boxes(graph, cx)
    title = program.model.name if program.model is not None else entry
    found = shown(root, depth)
    if not as_page:
        return draw(graph, found, title)
    origin: dict[str, str] = {}
    derived = differentiate(graph, origin)
    rest = _attach(root, [n for n in derived if n.name in origin], origin)
    about = (
        f"{entry}: {sum(len(b.nodes) for b in root.children)} operators, {len(derived)} with their derivatives; "
        "click a box or a line to open it"
    )
    return page(title, about, draw(graph, found, title, linked=True), root, found, rest)


def _attach(root: Box, derived: list[Node], origin: dict[str, str]) -> list[Node]:
    """Give each derived operator to the boxes whose operator it comes from; the others are returned."""
    owners: dict[str, list[Box]] = {}
    for box in root.walk():
        for node in box.nodes:
            owners.setdefault(node.name, []).append(box)
    rest = []
    for node in derived:
        name = node.name
        while name in origin:
            name = origin[name]
        found = owners.get(name) or [b for b in root.walk() if b.path and name.startswith(f"{b.path}.")]
        for box in found:
            box.backward.append(node)
        if not found and node.op not in ("constant", "size"):
            rest.append(node)
    return rest

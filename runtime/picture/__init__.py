"""A program as a picture: its layers as boxes in an SVG, or a page on which each opens to its operators.

In: a program and the name of an entry. Out: text of a file that any browser shows; nothing else is needed for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ...compiler.autodiff.differentiate import differentiate
from ..store.files import write
from .arrange import arrange
from .boxes import Box, boxes, depth, shown
from .drawing import draw
from .page import page
from .view import view

if TYPE_CHECKING:
    from ...compiler.elaborate import Program
    from ...compiler.graph.nodes import Node


@dataclass(frozen=True, repr=False)
class Picture:
    """An SVG that a notebook shows."""

    svg: str

    def save(self, path: str | PathLike[str]) -> None:
        """To a file, whole or not at all."""
        write(Path(path), self.svg.encode())

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<a picture of {len(self.svg):,} characters; `save(PATH)` writes it>"


def picture(
    program: Program, entry: str, opened: int | None = None, as_page: bool = False, across: bool = False
) -> str:
    """The SVG of an entry whose layers are opened so many times (as far as a picture has room for), or the page around
    it. Boxes stand one below the other, or `across` the page as on a slide."""
    cx = program.context(entry)
    graph = program.graph(entry, cx)
    root = boxes(graph, cx)
    origin: dict[str, str] = {}
    derived = differentiate(graph, origin)
    rest = attach(root, [n for n in derived if n.name in origin], origin)
    found = shown(root, opened or depth(root))
    title = program.model.name if program.model is not None else entry
    title += {title: "", "predict": "", "train": ": a step of training"}.get(entry, f", {entry}")
    svg = draw(arrange(view(graph, found, cx, across, as_page), across), title, across)
    if not as_page:
        return svg
    about = (
        f"{entry}: {sum(len(b.nodes) for b in root.children)} operators, {len(derived)} with their derivatives; "
        "click a box or a line to open it"
    )
    return page(title, about, svg, root, found, rest)


def attach(root: Box, derived: list[Node], origin: dict[str, str]) -> list[Node]:
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

"""A program as a picture: its layers as boxes in an SVG.

In: a program and the name of an entry. Out: text of a file that any browser shows; nothing else is needed for it. The
page on which a picture opens to operators and code is that of `runtime/explain`.
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
from .view import view

if TYPE_CHECKING:
    from ...compiler.elaborate import Program
    from ...compiler.elaborate.context import Context
    from ...compiler.graph.nodes import Graph, Node


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


def picture(program: Program, entry: str, opened: int | None = None, across: bool = False) -> str:
    """The SVG of an entry whose layers are opened so many times (as far as a picture has room for). Boxes stand one
    below the other, or `across` the page as on a slide."""
    program = program.unrolled
    cx = program.context(entry)
    return drawn(program, program.graph(entry, cx), cx, opened, across)[0]


def drawn(
    program: Program,
    graph: Graph,
    cx: Context,
    opened: int | None = None,
    across: bool = False,
    linked: bool = False,
) -> tuple[str, list[Box]]:
    """The SVG of a graph that was grown in `cx`, and its boxes; where it is `linked`, box k is a link to `#box{k}`."""
    root = boxes(graph, cx)
    origin: dict[str, str] = {}
    attach(root, [n for n in differentiate(graph, origin) if n.name in origin], origin)
    found = shown(root, opened or depth(root))
    title = program.model.name if program.model is not None else graph.name
    title += {title: "", "predict": "", "train": ": a step of training"}.get(graph.name, f", {graph.name}")
    return draw(arrange(view(graph, found, cx, across, linked), across), title, across), found


def attach(root: Box, derived: list[Node], origin: dict[str, str]) -> None:
    """Give each derived operator to the boxes whose operator it comes from."""
    owners: dict[str, list[Box]] = {}
    for box in root.walk():
        for node in box.nodes:
            owners.setdefault(node.name, []).append(box)
    for node in derived:
        name = node.name
        while name in origin:
            name = origin[name]
        for box in owners.get(name) or [b for b in root.walk() if b.path and name.startswith(f"{b.path}.")]:
            box.backward.append(node)

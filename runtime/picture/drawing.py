"""Boxes and edges as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...compiler.graph.nodes import Graph
from .boxes import Box, edges, short
from .layered import Layout, Point, layout

_FONT = 13.0
_LINE = 17.0
_LETTER = 7.2  # the width of one, at most
_MARGIN = 16.0
_COLOURS = (
    ("input", "#d5e8f7"), ("conv", "#f7d5dc"), ("dense", "#fbe5c8"), ("embedding", "#fbe5c8"), ("norm", "#e4dcf5"),
    ("pool", "#d9efdf"), ("relu", "#fff3b8"), ("tanh", "#fff3b8"), ("gelu", "#fff3b8"), ("silu", "#fff3b8"),
)  # fmt: skip


def draw(graph: Graph, found: Sequence[Box], title: str, linked: bool = False) -> str:
    """The boxes in layers from top to bottom; with `linked` each leads to `#boxK` on its page."""
    texts = [_text(box) for box in found]
    sizes = [(max(len(t) for t in lines) * _LETTER + 20, len(lines) * _LINE + 12) for lines in texts]
    placed = layout(sizes, edges(graph, found))
    width, height = placed.width + 2 * _MARGIN, placed.height + 2 * _MARGIN + 28
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="{_FONT:g}">',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN:g}" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
        f'<g transform="translate({_MARGIN:g} {_MARGIN + 24:g})">',
        *(_edge(route) for route in placed.routes),
        *(_box(k, box, texts[k], sizes[k], placed, linked) for k, box in enumerate(found)),
        "</g></svg>",
    ]
    return "\n".join(out) + "\n"


def _text(box: Box) -> list[str]:
    around = box.path.rpartition(".")[0].partition(".")[2]  # the layers it is in
    title = f"{around}.{box.title}" if around else box.title
    lines = [short(title), *([short(box.call)] if box.path and "(" in box.call else []), box.result]
    if box.parameters:
        lines.append(f"{box.parameters:,} parameters")
    if box.note and box.note != "result":
        lines.append(f"→ {box.note}")
    return lines


def _box(k: int, box: Box, lines: Sequence[str], size: tuple[float, float], placed: Layout, linked: bool) -> str:
    (x, y), (w, h) = placed.centres[k], size
    plain = box.nodes[0].op == "input" and len(box.nodes) == 1
    kind = "input" if plain else box.title.lower()
    colour = next((c for word, c in _COLOURS if word in kind), "#eeeeee" if not box.path else "#dfe7ee")
    rows = []
    for n, text in enumerate(lines):
        style = ' font-weight="bold"' if n == 0 else ' fill="#444" font-size="11.5"'
        rows.append(
            f'<text x="{x:.1f}" y="{y - h / 2 + 19 + n * _LINE:.1f}" text-anchor="middle"{style}>{escape(text)}</text>'
        )
    drawn = (
        f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" '
        f'rx="{12 if plain else 4}" fill="{colour}" stroke="#555"/>' + "".join(rows)
    )
    return f'<a href="#box{k}">{drawn}</a>' if linked else f"<g>{drawn}</g>"


def _edge(route: Sequence[Point]) -> str:
    """A curve that leaves and arrives vertically."""
    (x, y), *rest = route
    d = f"M{x:.1f} {y:.1f}"
    for a, b in rest:
        half = (y + b) / 2
        d += f"V{b:.1f}" if a == x else f"C{x:.1f} {half:.1f} {a:.1f} {half:.1f} {a:.1f} {b:.1f}"
        x, y = a, b
    return f'<path d="{d}" fill="none" stroke="#555" stroke-width="1.2" marker-end="url(#end)"/>'

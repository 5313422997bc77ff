"""A `Scene` as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from .arrange import Line, Placed, Scene, enlargement
from .layered import Point
from .view import LINE, TEXT, TITLE

_MARGIN = 16.0
_HEAD = 34.0
_ROUND = 8.0  # the corners of edges
_STRAIGHT = 0.05  # what is no slope
_COLOURS = (
    ("input", "#d5e8f7"), ("param", "#fbe5c8"), ("back", "#fdeeea"), ("optimizer", "#e9f3dc"), ("conv", "#f7d5dc"),
    ("dense", "#fbe5c8"), ("embedding", "#fbe5c8"), ("norm", "#e4dcf5"), ("pool", "#d9efdf"), ("relu", "#fff3b8"),
    ("tanh", "#fff3b8"), ("gelu", "#fff3b8"), ("silu", "#fff3b8"), ("function", "#eeeeee"), ("layer", "#dfe7ee"),
)  # fmt: skip
_EDGES = {"there": ("#555", ""), "back": ("#b5432f", ""), "kept": ("#999", ' stroke-dasharray="4 4"')}
_LEGEND = (("there", "forward"), ("back", "backward"), ("kept", "values kept for it"))


def draw(scene: Scene, title: str, across: bool) -> str:
    """The picture with its title; across the page as large as a slide."""
    back = any(line.kind == "back" for line in scene.lines)
    width = max(scene.width, 9.5 * len(title) + (330 if back else 0)) + 2 * _MARGIN
    height = scene.height + 2 * _MARGIN + _HEAD
    scale = enlargement(width, height) if across else 1.0
    left = (width - scene.width) / 2
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * scale:.0f}" height="{height * scale:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="{TITLE:g}">',
        "<defs>",
        *(
            f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
            for kind, (colour, _) in _EDGES.items()
        ),
        "</defs>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN:g}" y="26" font-size="16" font-weight="bold">{escape(title)}</text>',
        *(_legend(width) if back else ()),
        f'<g transform="translate({left:g} {_MARGIN + _HEAD:g})">',
        *(_edge(line, across) for line in scene.lines),
        *(_card(placed) for placed in scene.cards),
        "</g></svg>",
    ]
    return "\n".join(out) + "\n"


def _legend(width: float) -> list[str]:
    x, out = width - _MARGIN - 320, []
    for (kind, text), room in zip(_LEGEND, (85, 95, 140), strict=True):
        colour, dashed = _EDGES[kind]
        out.append(
            f'<path d="M{x:.1f} 21h22" stroke="{colour}" stroke-width="1.6"{dashed} marker-end="url(#{kind})"/>'
            f'<text x="{x + 27:.1f}" y="25" font-size="{TEXT:g}" fill="#444">{text}</text>'
        )
        x += room
    return out


def _card(placed: Placed) -> str:
    card, x, y, w, h = placed.card, placed.x, placed.y, placed.width, placed.height
    colour = next(c for word, c in _COLOURS if word in card.kind)
    lines = (*card.title, *card.lines)
    top = y + (h - len(lines) * LINE) / 2 + 13
    rows = []
    for n, text in enumerate(lines):
        style = ' font-weight="bold"' if n < len(card.title) else f' fill="#444" font-size="{TEXT:g}"'
        rows.append(
            f'<text x="{x + w / 2:.1f}" y="{top + n * LINE:.1f}" text-anchor="middle"{style}>{escape(text)}</text>'
        )
    drawn = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
        f'rx="{12 if card.kind in ("input", "param") else 4}" fill="{colour}" stroke="#555"/>' + "".join(rows)
    )
    return f'<a href="#box{card.link}">{drawn}</a>' if card.link is not None else f"<g>{drawn}</g>"


def _edge(line: Line, across: bool) -> str:
    """Straight along an axis, with round corners; where it changes between layers, a curve that leaves and arrives
    along the way."""
    colour, dashed = _EDGES[line.kind]
    return (
        f'<path d="{_path(line.points, across)}" fill="none" stroke="{colour}" stroke-width="1.3"{dashed} '
        f'marker-end="url(#{line.kind})"/>'
    )


def _path(points: Sequence[Point], across: bool) -> str:
    (x, y), *_ = points
    d = f"M{x:.1f} {y:.1f}"
    for n, ((x, y), (a, b)) in enumerate(pairwise(points)):
        if abs(x - a) > _STRAIGHT and abs(y - b) > _STRAIGHT:
            half = ((x + a) / 2, (y + b) / 2)
            first, second = ((half[0], y), (half[0], b)) if across else ((x, half[1]), (a, half[1]))
            d += f"C{first[0]:.1f} {first[1]:.1f} {second[0]:.1f} {second[1]:.1f} {a:.1f} {b:.1f}"
        elif n + 2 < len(points) and _corner((x, y), (a, b), points[n + 2]):
            c, e = points[n + 2]
            before, after = _towards((a, b), (x, y)), _towards((a, b), (c, e))
            d += f"L{before[0]:.1f} {before[1]:.1f}Q{a:.1f} {b:.1f} {after[0]:.1f} {after[1]:.1f}"
        else:
            d += f"L{a:.1f} {b:.1f}"
    return d


def _corner(p: Point, q: Point, r: Point) -> bool:
    (a, b), (c, d) = ((abs(t[0] - s[0]) < _STRAIGHT, abs(t[1] - s[1]) < _STRAIGHT) for s, t in ((p, q), (q, r)))
    return (a and d) or (b and c)


def _towards(p: Point, q: Point) -> Point:
    """From p towards q, as far as a corner is round."""
    length = abs(q[0] - p[0]) + abs(q[1] - p[1])
    part = min(_ROUND / length, 0.5) if length else 0.0
    return p[0] + part * (q[0] - p[0]), p[1] + part * (q[1] - p[1])

"""Where everything on a picture stands: the panels of a step of training, and across the page in rows like text.

In: a `View`. Out: a `Scene`. Places are found in (u, v): u along the way from inputs to outputs, v beside it; on the
page u goes down, or to the right (`across`), and is then broken into rows so that the whole fills 16:9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .layered import Layout, Point, layout
from .view import Card, View

SLIDE = (1920.0, 1080.0)
_LARGEST = 3.0  # how much a small picture grows on it at most
_ENOUGH = 0.9  # of the size of letters that the best rows allow
_PANEL = 56.0  # between the ways there and back, and to the optimiser
_LANE = 12.0  # beside another, where edges go to the next row
_GUTTER = 22.0  # between rows
_BEFORE = 12.0  # behind a layer, where what goes to the optimiser turns


@dataclass(frozen=True, slots=True)
class Placed:
    """A card and its rectangle."""

    card: Card
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    """An edge; `kind` is "there", "back", or "kept" for a value that waits for the way back."""

    points: tuple[Point, ...]
    kind: str


@dataclass(slots=True)
class Scene:
    width: float = 0.0
    height: float = 0.0
    cards: list[Placed] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def arrange(view: View, across: bool) -> Scene:
    """Each card and edge in its place, without margins."""
    sizes = [c.size[::-1] if across else c.size for c in view.cards]
    other = {k: c.size[::-1] if across else c.size for k, c in view.back.items()}
    long = [(w, max(h, other.get(k, (0, 0))[1])) for k, (w, h) in enumerate(sizes)]  # a row has one length
    there = layout(long, view.edges)
    flat = Scene(there.height, there.width)  # in (u, v)
    _add(flat, [*enumerate(view.cards)], long, there, 0.0, "there")
    if view.back:
        _add_way_back(flat, view, there, {k: (w, long[k][1]) for k, (w, _) in other.items()}, across)
    return _folded(flat, there.rows) if across else _down(flat)


def _add(
    flat: Scene,
    cards: Sequence[tuple[int, Card]],
    sizes: Sequence[tuple[float, float]],
    placed: Layout,
    at: float,
    kind: str,
) -> None:
    for k, card in cards:
        (v, u), (w, h) = placed.centres[k], sizes[k]
        flat.cards.append(Placed(card, u - h / 2, at + v - w / 2, h, w))
    for route in placed.routes:
        points = [(u, at + v) for v, u in route]
        flat.lines.append(Line(tuple(points if kind == "there" else reversed(points)), kind))


def _add_way_back(flat: Scene, view: View, there: Layout, sizes: dict[int, tuple[float, float]], across: bool) -> None:
    """A second panel beside the first, and a bar along it: the optimiser."""
    long = [sizes.get(k, (0.0, 0.0)) for k in range(len(view.cards))]
    back = layout(long, view.returning, there)
    start = there.width + _PANEL
    _add(flat, [*view.back.items()], long, back, start, "back")
    for k in view.back:
        (v, u), w = there.centres[k], (view.cards[k].size[across])
        facing = start + back.centres[k][0]
        beside = [j for j in range(len(view.cards)) if there.layer[j] == there.layer[k]]
        alone = not any(
            there.centres[j][0] > v or (j in view.back and back.centres[j][0] + start < facing) for j in beside
        )
        kind = "back" if k in view.losses else "kept"
        if alone and (k in view.losses or k in view.kept):
            flat.lines.append(Line(((u, v + w / 2), (u, facing - long[k][0] / 2)), kind))
        elif k in view.losses:
            end, turn = u + long[k][1] / 2, there.rows[there.layer[k]][1] + _BEFORE / 2
            flat.lines.append(Line(((end, v), (turn, v), (turn, facing), (end, facing)), kind))
    flat.height = start + back.width
    if view.optimizer is not None and view.trained:
        _add_optimizer(flat, view, view.optimizer, back, start, across)


def _add_optimizer(flat: Scene, view: View, card: Card, back: Layout, start: float, across: bool) -> None:
    bar = flat.height + 0.7 * _PANEL
    for k in sorted(view.trained):
        (v, u), w = back.centres[k], view.back[k].size[across]
        end = back.rows[back.layer[k]][1]
        if any(back.layer[j] == back.layer[k] and back.centres[j][0] > v for j in view.back):
            out, turn = start + v + w / 4, end + _BEFORE / 2
            flat.lines.append(Line(((u, out), (turn, out), (turn, bar)), "back"))
        else:
            flat.lines.append(Line(((u, start + v + w / 2), (u, bar)), "back"))
    layers = [back.layer[k] for k in view.trained]
    long, thick = card.size if across else card.size[::-1]
    low, high = back.rows[min(layers)][0], back.rows[max(layers)][1] + _BEFORE
    long = max(long, high - low)
    flat.cards.append(Placed(card, max(0.0, (low + high - long) / 2), bar, long, thick))
    flat.height = bar + thick
    flat.width = max(flat.width, flat.cards[-1].x + long)


def _down(flat: Scene) -> Scene:
    cards = [Placed(p.card, p.y, p.x, p.height, p.width) for p in flat.cards]
    lines = [Line(tuple((v, u) for u, v in line.points), line.kind) for line in flat.lines]
    return Scene(flat.height, flat.width, cards, lines)


# --- rows across the page ---------------------------------------------------------------------------------------------


def _folded(flat: Scene, layers: Sequence[tuple[float, float]]) -> Scene:
    """The rows that let the picture be largest on a slide, or fewer where it is not much smaller then."""
    found = []
    for bands in {tuple(_bands(layers, end - layers[0][0])): None for _, end in layers}:
        scene = _broken(flat, layers, bands)
        found.append((len(bands), -enlargement(scene.width + 40, scene.height + 80), scene))
    enough = _ENOUGH * min((size for _, size, _ in found), default=0.0)
    return min((f for f in found if f[1] <= enough), key=lambda f: f[:2])[2] if found else flat


def enlargement(width: float, height: float) -> float:
    """How much a picture grows on a slide."""
    return min(SLIDE[0] / width, SLIDE[1] / height, _LARGEST)


def _bands(layers: Sequence[tuple[float, float]], most: float) -> list[tuple[int, int]]:
    """As many layers in each row as are no longer than this."""
    bands = [(0, 0)]
    for n in range(1, len(layers)):
        first, _ = bands[-1]
        if layers[n][1] - layers[first][0] <= most:
            bands[-1] = (first, n)
        else:
            bands.append((n, n))
    return bands


def _broken(flat: Scene, layers: Sequence[tuple[float, float]], bands: Sequence[tuple[int, int]]) -> Scene:
    """The rows one below the other; what goes on in the next turns around between them."""
    starts = [layers[first][0] for first, _ in bands]
    ends = [layers[last][1] + _BEFORE for _, last in bands]

    def row(p: Point) -> int:
        return next((k for k, end in enumerate(ends) if p[0] <= end + 1e-6), len(ends) - 1)

    crossing: list[list[tuple[Point, Point, int, int]]] = [[] for _ in bands]
    for k, line in enumerate(flat.lines):
        for n, (p, q) in enumerate(pairwise(line.points)):
            if row(p) != row(q):
                crossing[min(row(p), row(q))].append((min(p, q), max(p, q), k, n))
    left = (max(map(len, crossing)) + 1) * _LANE if any(crossing) else 0.0
    tops, bottoms, y = [], [], 0.0
    for k, turns in enumerate(crossing):
        low, high = _reach(flat, starts[k], ends[k])
        tops.append(y - low)
        bottoms.append(y + high - low)
        y = bottoms[-1] + _GUTTER + (len(turns) + 1) * _LANE

    def at(p: Point) -> Point:
        return left + p[0] - starts[row(p)], tops[row(p)] + p[1]

    turns_of = {
        (k, n): _turn(at(p), at(q), i, len(turns), left, left + ends[m] - starts[m], bottoms[m])
        for m, turns in enumerate(crossing)
        for i, (p, q, k, n) in enumerate(sorted(turns, key=lambda t: (t[0][1], t[1][1])))
    }
    out = Scene(height=bottoms[-1])
    for placed in flat.cards:
        for low, high in zip(starts, ends, strict=True):
            begin, end = max(placed.x, low), min(placed.x + placed.width, high)
            if begin < end:  # what is longer than a layer is in each row
                out.cards.append(Placed(placed.card, *at((begin, placed.y)), end - begin, placed.height))
    for k, line in enumerate(flat.lines):
        points = [at(line.points[0])]
        for n, (p, q) in enumerate(pairwise(line.points)):
            turn = turns_of.get((k, n), ())
            points += [*(turn if p < q else reversed(turn)), at(q)]
        out.lines.append(Line(tuple(points), line.kind))
    out.width = max((x for line in out.lines for x, _ in line.points), default=0.0)
    out.width = max(out.width, max((p.x + p.width for p in out.cards), default=0.0))
    return out


def _reach(flat: Scene, start: float, end: float) -> tuple[float, float]:
    """From where to where a row reaches beside the way."""
    inside = [v for p in flat.cards if p.x < end and p.x + p.width > start for v in (p.y, p.y + p.height)]
    on = [v for line in flat.lines for u, v in line.points if start <= u <= end]
    return min(inside + on), max(inside + on)


def _turn(p: Point, q: Point, lane: int, count: int, left: float, right: float, bottom: float) -> tuple[Point, ...]:
    """From the end of a row to the beginning of the next, around what is between: the upper the outer on the right, and
    the inner on the left, so that none crosses another."""
    beyond = right + (count - lane) * _LANE
    under = bottom + _GUTTER / 2 + (count - lane) * _LANE
    outer = left - (lane + 1) * _LANE
    return (beyond, p[1]), (beyond, under), (outer, under), (outer, q[1])

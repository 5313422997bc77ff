"""Where the boxes of a directed graph stand: in layers, with few crossings, edges through gaps.

In: the size of each box and the edges. Out: a place for each box and a polyline for each edge. The steps are those of
Sugiyama, Tagawa and Toda (1981): a box's layer is the longest path that leads to it; an edge over several layers passes
a point in each; each layer is ordered by the mean place of its neighbours, downwards and upwards in turn (Eades and
Wormald's barycentres); then everything moves towards its neighbours as far as its own neighbours in the layer allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

Point = tuple[float, float]
Size = tuple[float, float]
_SWEEPS = 12
_GAP, BETWEEN = 26.0, 34.0  # beside boxes, and from layer to layer
_LANE = 12.0  # the width of an edge that passes a layer
_SIDE = 0.01  # how much the wish of a box weighs that has nothing above it


@dataclass(frozen=True, slots=True)
class Layout:
    """`centres` of the boxes, `routes` of the edges from border to border; all coordinates are from 0. `layer` of each
    box, and from where to where a layer reaches, in `rows`."""

    width: float
    height: float
    centres: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]
    layer: tuple[int, ...]
    rows: tuple[tuple[float, float], ...]


def layout(sizes: Sequence[Size], edges: Sequence[tuple[int, int]], beside: Layout | None = None) -> Layout:
    """`sizes` are (width, height); `edges` must have no cycle, pairs of one box are left out. The boxes stand in the
    layers of the same boxes `beside` them, if that is given; one without width is not there."""
    edges = [(a, b) for a, b in edges if a != b]
    width = [w for w, _ in sizes]
    level = [*beside.layer] if beside else _layers(len(sizes), edges)
    layer = level[:]
    chains: list[list[int]] = []
    links: list[tuple[int, int]] = []
    for a, b in edges:
        chain = [a]
        for between in range(layer[a] + 1, layer[b]):
            chain.append(len(width))
            width.append(_LANE)
            level.append(between)
        chain.append(b)
        chains.append(chain)
        links += pairwise(chain)
    above: list[list[int]] = [[] for _ in width]
    below: list[list[int]] = [[] for _ in width]
    for a, b in links:
        below[a].append(b)
        above[b].append(a)
    rows: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for k, n in enumerate(level):
        if width[k]:
            rows[n].append(k)
    _order(rows, above, below)
    x = _place(rows, above, below, width)
    left = min((x[k] - width[k] / 2 for row in rows for k in row), default=0.0)
    x = [v - left for v in x]
    spans = beside.rows if beside else tuple(_spans([[sizes[k][1] for k in row if k < len(sizes)] for row in rows]))
    y, tall = [(a + b) / 2 for a, b in spans], [b - a for a, b in spans]
    return Layout(
        max((x[k] + width[k] / 2 for row in rows for k in row), default=0.0),
        spans[-1][1] if spans else 0.0,
        tuple((x[k], y[level[k]]) for k in range(len(sizes))),
        tuple(_route(chain, level, x, y, tall, sizes) for chain in chains),
        tuple(level[: len(sizes)]),
        spans,
    )


def _spans(heights: Sequence[Sequence[float]]) -> Iterator[tuple[float, float]]:
    """From where to where each layer reaches."""
    top = 0.0
    for row in heights:
        bottom = top + max(row, default=0.0)
        yield top, bottom
        top = bottom + BETWEEN


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest path from the top; what only prepares something for a box, as a weight that is squared, stands right
    above that."""
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    layer: dict[int, int] = {}
    for n in nx.topological_sort(graph):
        layer[n] = max((layer[p] + 1 for p in graph.predecessors(n)), default=0)
    aside: set[int] = set()
    for n in layer:
        if all(p in aside and graph.out_degree(p) == 1 for p in graph.predecessors(n)):
            aside.add(n)
    for n in reversed([*layer]):
        if n in aside and graph.out_degree(n) > 0:
            layer[n] = min(layer[s] for s in graph.successors(n)) - 1
    return [layer[k] for k in range(count)]


def _order(rows: list[list[int]], above: list[list[int]], below: list[list[int]]) -> None:
    place = {k: float(i) for row in rows for i, k in enumerate(row)}
    best, least = [[*row] for row in rows], _crossings(rows, below)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = above if down else below
            row.sort(key=lambda k: _mean([place[n] for n in near[k]], place[k]))
            place |= {k: float(i) for i, k in enumerate(row)}
        if (found := _crossings(rows, below)) < least:
            best, least = [[*row] for row in rows], found
    rows[:] = best


def _crossings(rows: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> int:
    count = 0
    for row, following in pairwise(rows):
        at = {k: i for i, k in enumerate(following)}
        ends = [at[b] for k in row for b in sorted(below[k], key=at.__getitem__)]
        count += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return count


def _place(
    rows: Sequence[Sequence[int]],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    width: Sequence[float],
) -> list[float]:
    """x of each: the order stays, and so do the gaps. What has nothing above it, as a weight, stands aside: what it
    feeds hangs from the others."""
    inner = [[n for n in near if above[n]] or near for near in above]
    x = [0.0] * len(width)
    rows = [row for row in rows if row]
    for row in rows:
        at = 0.0
        for k in row:
            x[k] = at + width[k] / 2
            at += width[k] + _GAP
        for k in row:
            x[k] -= at / 2
    for sweep in range(_SWEEPS, -1, -1):  # the last goes down, so that chains hang straight
        for row in rows if sweep % 2 == 0 else [*reversed(rows)]:
            near = (inner, below)[sweep % 2]
            _settle(
                row,
                [_mean([x[n] for n in near[k]], x[k]) for k in row],
                [1.0 if above[k] else _SIDE for k in row],
                x,
                width,
            )
    return x


def _settle(
    row: Sequence[int], wanted: Sequence[float], weights: Sequence[float], x: list[float], width: Sequence[float]
) -> None:
    """As near to where each wants to be as the gaps allow, in the weighted least squares: less the gaps before it, the
    places must not fall, so neighbours whose wishes do take their mean (Ayer et al., 1955)."""
    gaps = [0.0]
    for a, b in pairwise(row):
        gaps.append(gaps[-1] + (width[a] + width[b]) / 2 + _GAP)
    blocks: list[tuple[float, float, int]] = []
    for wish, gap, weight in zip(wanted, gaps, weights, strict=True):
        mean, count = wish - gap, 1
        while blocks and blocks[-1][0] > mean:
            before, w, n = blocks.pop()
            mean, weight, count = (before * w + mean * weight) / (w + weight), w + weight, n + count
        blocks.append((mean, weight, count))
    free = [mean for mean, _, count in blocks for _ in range(count)]
    for k, place, gap in zip(row, free, gaps, strict=True):
        x[k] = place + gap


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _route(
    chain: Sequence[int],
    level: Sequence[int],
    x: Sequence[float],
    y: Sequence[float],
    tall: Sequence[float],
    sizes: Sequence[tuple[float, float]],
) -> tuple[Point, ...]:
    """From border to border; straight down past each layer on the way, so that it bends between layers only."""
    first, last = chain[0], chain[-1]
    points = [(x[first], y[level[first]] + sizes[first][1] / 2), (x[first], y[level[first]] + tall[level[first]] / 2)]
    for k in chain[1:-1]:
        points += [(x[k], y[level[k]] - tall[level[k]] / 2), (x[k], y[level[k]] + tall[level[k]] / 2)]
    points += [(x[last], y[level[last]] - tall[level[last]] / 2), (x[last], y[level[last]] - sizes[last][1] / 2)]
    return (points[0], *(q for p, q in pairwise(points) if abs(p[0] - q[0]) + abs(p[1] - q[1]) > 1e-6))

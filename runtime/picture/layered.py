"""Where the boxes of a directed graph stand: in layers, with few crossings, edges through gaps.

In: the size of each box and the edges. Out: a place for each box and a polyline for each edge. The steps are those of
Sugiyama, Tagawa and Toda (1981): a box's layer is the longest path that leads to it; an edge over several layers passes
a point in each; each layer is ordered by the mean place of its neighbours, downwards and upwards in turn (Eades and
Wormald's barycentres); then everything moves towards its neighbours as far as its own neighbours in the layer allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

Point = tuple[float, float]
_SWEEPS = 12
_GAP, _BETWEEN = 26.0, 34.0  # beside boxes, and from layer to layer
_LANE = 12.0  # the width of an edge that passes a layer


@dataclass(frozen=True, slots=True)
class Layout:
    """`centres` of the boxes, `routes` of the edges from border to border; all coordinates are from 0."""

    width: float
    height: float
    centres: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]


def layout(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """`sizes` are (width, height); `edges` must have no cycle, pairs of one box are left out."""
    edges = [(a, b) for a, b in edges if a != b]
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(range(len(sizes)))
    graph.add_edges_from(edges)
    layer = _layers(graph)
    width = [w for w, _ in sizes]
    level = [layer[k] for k in range(len(sizes))]
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
        rows[n].append(k)
    _order(rows, above, below)
    x = _place(rows, above, below, width)
    left = min((x[k] - width[k] / 2 for k in range(len(width))), default=0.0)
    x = [v - left for v in x]
    y, tall, top = [0.0] * len(rows), [0.0] * len(rows), 0.0
    for n, row in enumerate(rows):
        tall[n] = max((sizes[k][1] for k in row if k < len(sizes)), default=0.0)
        y[n] = top + tall[n] / 2
        top += tall[n] + _BETWEEN
    routes = tuple(_route(chain, level, x, y, tall, sizes) for chain in chains)
    return Layout(
        max((x[k] + width[k] / 2 for k in range(len(width))), default=0.0),
        max(0.0, top - _BETWEEN),
        tuple((x[k], y[level[k]]) for k in range(len(sizes))),
        routes,
    )


def _layers(graph: nx.DiGraph) -> dict[int, int]:
    """The longest path from the top; a box without anything above stands right above what it feeds."""
    layer: dict[int, int] = {}
    for n in nx.topological_sort(graph):
        layer[n] = max((layer[p] + 1 for p in graph.predecessors(n)), default=0)
    for n in reversed([*layer]):
        if graph.in_degree(n) == 0 and graph.out_degree(n) > 0:
            layer[n] = min(layer[s] for s in graph.successors(n)) - 1
    return layer


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
    """x of each: the order stays, and so do the gaps."""
    x = [0.0] * len(width)
    for row in rows:
        at = 0.0
        for k in row:
            x[k] = at + width[k] / 2
            at += width[k] + _GAP
        for k in row:
            x[k] -= at / 2
    for sweep in range(_SWEEPS, -1, -1):  # the last goes down, so that chains hang straight
        for row in rows if sweep % 2 == 0 else [*reversed(rows)]:
            near = (above, below)[sweep % 2]
            _settle(row, [_mean([x[n] for n in near[k]], x[k]) for k in row], x, width)
    return x


def _settle(row: Sequence[int], wanted: Sequence[float], x: list[float], width: Sequence[float]) -> None:
    """As near to where each wants to be as the gaps allow, in the least squares: less the gaps before it, the places
    must not fall, so neighbours whose wishes do take their mean (Ayer et al., 1955)."""
    gaps = [0.0]
    for a, b in pairwise(row):
        gaps.append(gaps[-1] + (width[a] + width[b]) / 2 + _GAP)
    blocks: list[tuple[float, int]] = []
    for wish, gap in zip(wanted, gaps, strict=True):
        mean, count = wish - gap, 1
        while blocks and blocks[-1][0] > mean:
            before, n = blocks.pop()
            mean, count = (before * n + mean * count) / (n + count), n + count
        blocks.append((mean, count))
    free = [mean for mean, count in blocks for _ in range(count)]
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
    return tuple(p for n, p in enumerate(points) if not n or p != points[n - 1])

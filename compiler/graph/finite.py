"""Where a value stops being finite: the nodes of a graph that make a NaN or an infinity of values that have none.

In: a graph, arrays, and outputs of it that are not finite. Out: which node is to blame, of what it made that. Found by
going back from the outputs: a NaN that is masked, or an infinity that is written as a mask is, is no origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import nan
from typing import Any

import numpy as np

from ...dsl.record import dataclass, replace
from .cost import operations
from .interpret import Arrays, apply, evaluate, sizes_of
from .nodes import Graph, Node, ancestors
from .ops import OPS
from .ops.op import LOOP, MAP

NAN, PLUS, MINUS = 1, 2, 3  # what an element is where it is not finite
_INFINITE = (PLUS, MINUS)

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operand:
    """What a node reads: the range of its values that are no NaN, and the value `at` the element that is looked at,
    where the elements of operand and result belong together."""

    name: str
    low: float
    high: float
    at: float | None


@dataclass(frozen=True, slots=True)
class Made:
    """A node that makes what is not finite: the first such value, and its element. `graph` is the one it stands in,
    `outer` the node of the graph that was asked about: another one where it stands in the body of a scan."""

    graph: Graph
    node: Node
    outer: str
    value: float
    index: Index
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What is to blame; and `then`, where an infinity was first, which node made a NaN of it."""

    blamed: Made
    then: Made | None = None


def work(graph: Graph, roots: Iterable[str], inputs: Arrays) -> int:
    """Operations that looking for what made these outputs takes, roughly."""
    cut = _only(graph, roots)
    sizes = sizes_of(graph, _given(graph, inputs), {})
    return sum(operations(n, [cut[a].type for a in n.args], sizes) for n in cut)


def first_not_finite(
    graph: Graph,
    roots: Iterable[str],
    inputs: Arrays,
    params: Arrays,
    sizes: Mapping[str, int] | None = None,
    nans: bool = False,
) -> Found | None:
    """What makes the first of these outputs (or updates, by path) that is not finite what it is; None where all are
    finite, or hold infinities that are given. With `nans` infinities are no matter."""
    named = dict((*graph.outputs, *graph.updates))
    known = sizes_of(graph, _given(graph, inputs), sizes or {})
    cut = _only(graph, roots)
    ways = _Ways(cut)
    evaluate(cut, inputs, params, known, ways.look)
    steps = next((s for r in roots if (s := ways.to(named[r], nans))), None)
    if steps is None:
        return None
    seen = _Operands(cut, known, steps)
    ends = tuple((s.name, s.name) for s in steps)
    evaluate(_only(replace(cut, outputs=ends, updates=()), dict(ends)), inputs, params, known, seen.look)
    return Found(*(seen.made[s.name] for s in steps))


def _given(graph: Graph, inputs: Arrays) -> dict[str, Any]:
    """The inputs by node, also those that no output needs: they tell sizes."""
    return {n.name: inputs[name] for n in graph if n.op == "input" and (name := n.attrs["name"]) in inputs}


def _only(graph: Graph, roots: Iterable[str]) -> Graph:
    """The graph as far as these outputs and updates need it."""
    wanted = set(roots)
    outputs = tuple((k, v) for k, v in graph.outputs if k in wanted)
    updates = tuple((k, v) for k, v in graph.updates if k in wanted)
    behind = ancestors(graph.nodes, [v for _, v in outputs + updates])
    return replace(graph, outputs=outputs, updates=updates, nodes={name: graph[name] for name in behind})


@dataclass(frozen=True, slots=True)
class _Step:
    """An element of a node where the way back ends or turns."""

    name: str
    index: Index


class _Ways:
    """What elements of which nodes are not finite, and the ways back from there."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.kinds: dict[str, np.ndarray] = {}  # of nodes that are not finite: 0, NAN, PLUS or MINUS of each element

    def look(self, node: Node, args: list[Any], value: Any) -> None:
        """Note a value, as an observer of `evaluate`."""
        value = _flat(value) if isinstance(value, tuple) else np.asarray(value)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            kinds = np.where(
                np.isnan(value), NAN, np.where(value == np.inf, PLUS, np.where(value == -np.inf, MINUS, 0))
            )
            self.kinds[node.name] = kinds.astype(np.int8)

    def to(self, name: str, nans: bool) -> tuple[_Step, ...] | None:
        """What made this value not finite: what is to blame, then what made a NaN of that if it was an infinity."""
        if name not in self.kinds:
            return None
        bad = self.kinds[name] == NAN
        if not bad.any():
            origin = None if nans else self._origin(name, self.kinds[name] != 0, _INFINITE)
            return None if origin is None else (origin,)
        made = self._origin(name, bad, (NAN,))
        assert made is not None
        at = np.zeros(self.kinds[made.name].shape, bool)
        at[made.index] = True
        found = [self._origin(a, of, _INFINITE) for a, of in self._operands(made.name, at, _INFINITE)]
        order = {name: k for k, name in enumerate(self.graph.nodes)}
        origins = sorted((o for o in found if o is not None), key=lambda o: order[o.name])
        return (origins[0], made) if origins else (made,)

    def _origin(self, name: str, at: np.ndarray, kinds: tuple[int, ...]) -> _Step | None:
        """The node that made what is of one of these kinds in the elements `at` of a node, the one farthest back; None
        where it is an infinity that is given."""
        while before := list(self._operands(name, at, kinds)):
            same = (b for b in before if np.isin(self.kinds[b[0]][b[1]], self.kinds[name][at]).any())
            name, at = next(same, before[0])
        if not self.graph[name].args and kinds == _INFINITE:
            return None
        return _Step(name, tuple(map(int, np.unravel_index(np.argmax(at), at.shape))))

    def _operands(self, name: str, at: np.ndarray, kinds: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
        """The operands that the elements `at` of a node may come from, and which elements of them."""
        node = self.graph[name]
        for a in node.args:
            if a in self.kinds:
                of = np.isin(self.kinds[a], kinds)
                of &= at if OPS[node.op].kind == MAP else True
                if of.any():
                    yield a, of


class _Operands:
    """What some nodes are made of; where one is a scan, the node in its body that made it so in the first such turn."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], steps: Iterable[_Step]):
        self.graph, self.sizes, self.made = graph, sizes, dict[str, Made]()
        self._index = {s.name: s.index for s in steps}

    def look(self, node: Node, args: list[Any], value: Any) -> None:
        """Note a value, as an observer of `evaluate`."""
        if (index := self._index.get(node.name)) is None:
            return
        together = index if OPS[node.op].kind == MAP else None
        operands = tuple(_operand(a, x, together) for a, x in zip(node.args, args, strict=True))
        if OPS[node.op].kind == LOOP:
            made = _inside(node, args, self.sizes, bool(np.isnan(_flat(value)[index])))
            self.made[node.name] = made or Made(self.graph, node, node.name, float(_flat(value)[index]), (), operands)
        else:
            value = float(np.asarray(value)[index])
            self.made[node.name] = Made(self.graph, node, node.name, value, index, operands)


def _flat(results: tuple[Any, ...]) -> np.ndarray:
    """The numbers in the results of a scan, one behind the other."""
    return np.concatenate([np.ravel(v) for v in results if np.asarray(v).dtype.kind == "f"] or [np.zeros(0)])


def _operand(name: str, value: Any, index: Index | None) -> Operand:
    value = np.asarray(value)
    known = value[~np.isnan(value)] if value.dtype.kind == "f" else value
    low, high = (float(known.min()), float(known.max())) if known.size else (nan, nan)
    return Operand(name, low, high, None if index is None else float(value[index]))


class _Stop(Exception):
    """What a turn of a scan made."""

    def __init__(self, found: Found):
        self.found = found


def _inside(node: Node, args: list[Any], sizes: Mapping[str, int], nans: bool) -> Made | None:
    """What made a scan not finite, in its first such turn."""

    def turn(body: Graph, inputs: Arrays, at: Mapping[str, int]) -> tuple[Any, ...]:
        found = first_not_finite(body, [k for k, _ in body.outputs], inputs, {}, at, nans)
        if found is not None:
            raise _Stop(found)
        return tuple(evaluate(body, inputs, None, at)[0].values())

    try:
        apply(node, args, sizes, turn)
    except _Stop as stopped:
        return replace(stopped.found.blamed, outer=node.name)
    return None

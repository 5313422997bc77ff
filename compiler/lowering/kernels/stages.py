"""Stages of a fold: what is done in which loop over the reduced axes.

A reduction belongs to the stage after those its operand needs, a full result to the first stage in which all it needs
is there: softmax is maximum, then sum, then quotient, three loops over a row that stays in cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.cost import own_weight
from ...graph.nodes import Graph, Node, ancestors
from ...graph.ops import OPS
from ...graph.ops.op import MAP, REDUCE, VIEW
from ...loops import ir as L
from ...types.sizes import Dim
from ...types.tensors import FLOATS
from .blocks import Each, Total, cut
from .body import Body, Index, results
from .nest import walk

HEAVY = 6  # weight of an operator whose result is kept rather than computed again


class Stages:
    """What is done in which loop over the reduced axes. `trial` was asked for every value at `point`, with reductions
    that are there already: which values are asked for where, and so which axis is meant, is seen there."""

    def __init__(self, trial: Body):
        graph, ops = trial.graph, trial.ops
        self.reductions = [n for n in graph if ops[n.op].kind == REDUCE and n.attrs["axes"]]
        first = self.reductions[0]
        self.box = graph[first.args[0]].shape
        self.reduced = tuple(k in first.attrs["axes"] for k in range(len(self.box)))
        self.level: dict[str, int] = {}
        for n in graph:
            needed = max((self.level[a] for a in n.args), default=0)
            self.level[n.name] = needed + (n in self.reductions)
        self.full = [v for v in results(graph) if graph[v].shape == self.box]
        self.rest = [v for v in results(graph) if graph[v].shape != self.box]
        self.count = 1 + max([self.level[r.args[0]] for r in self.reductions] + [self.level[v] for v in self.full])
        for r in self.reductions:
            trial.lies_in(r.name, r.name)
        self.trial, self.point = trial, walk(trial, [*(r.args[0] for r in self.reductions), *self.full], self.box)

    def kept(self, index: Sequence[Dim]) -> Index:
        """The coordinates of the kept axes."""
        return tuple(i for i, reduced in zip(index, self.reduced, strict=True) if not reduced)

    def join(self, kept: Sequence[Dim], reduced: Sequence[Dim]) -> Index:
        """A point of the box."""
        return tuple(b if r else a for a, b, r in zip(kept, reduced, self.reduced, strict=True))

    def folds(self, stage: int) -> list[Node]:
        return [r for r in self.reductions if self.level[r.args[0]] == stage]

    def stores(self, stage: int) -> list[str]:
        return [v for v in self.full if self.level[v] == stage]

    def extreme(self, stage: int) -> list[Node]:
        """What is done in a stage that does nothing but look for the largest or the smallest; else nothing."""
        folds, graph = self.folds(stage), self.trial.graph
        if self.stores(stage) or any(self.trial.ops[r.op].reduce not in ("max", "min") for r in folds):
            return []
        ends = {r.name for r in self.reductions} - {r.name for r in folds}
        return [graph[v] for v in ancestors(graph.nodes, [r.name for r in folds], ends) if v not in ends]

    def saved(self, graph: Graph) -> dict[str, int]:
        """Heavy values that several stages ask for at the point of the loops, and the first of those."""
        wanted: dict[str, set[int]] = {n.name: set() for n in graph}
        for r in self.reductions:
            wanted[r.args[0]].add(self.level[r.args[0]])
        for v in self.full:
            wanted[v].add(self.level[v])
        out: dict[str, int] = {}
        for n in reversed(list(graph)):
            stages = wanted[n.name]
            if self.is_asked(n.name, self.point) and len(stages) > 1 and own_weight(n) >= HEAVY:
                out[n.name] = min(stages)
                stages = {min(stages)}
            if n not in self.reductions:
                for a in n.args:
                    wanted[a] |= stages
        return out

    def between(self, body: Body, stage: int) -> list[str]:
        """Values that this stage is the first to have and that repeat along the reduced axes: they are asked for at the
        point of the kept ones."""
        return [
            n.name for n in body.graph
            if self.level[n.name] == stage > 0 and body.ops[n.op].kind == MAP
            and self.is_asked(n.name, self.kept(self.point))
            and any(body.ops[u.op].kind == VIEW for u in body.graph.users(n.name))
        ]  # fmt: skip

    def is_asked(self, name: str, at: Index) -> bool:
        return at in self.trial.asked.get(name, ())


def long_sums(body: Body, folds: Sequence[Node], sizes: Sequence[Dim], width: int, most: int,
          length: int, each: Each) -> dict[str, Total]:  # fmt: skip
    """The sums among the reductions of a stage, at so many positions, where they may be long."""
    sums = [r for r in folds if how(body, r) == "sum" and r.dtype in FLOATS]
    at = cut(body, sizes, width, most) if sums else None
    return {r.name: Total(body, at, start(body, r), length, each) for r in sums} if at is not None else {}


def how(body: Body, r: Node) -> str:
    how: str = body.ops[r.op].reduce
    return how


def start(body: Body, r: Node) -> L.Const:
    return L.Const(L.identity(how(body, r), r.dtype), r.dtype)


def of_shares(r: Node) -> str:
    """The dtype in which the results of shares are put together."""
    return "f64" if OPS[r.op].reduce == "sum" and r.dtype in FLOATS else r.dtype

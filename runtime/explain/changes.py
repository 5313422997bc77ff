"""What each pass changed, operator by operator, and what now stands for an operator that is gone.

In: the graphs after each pass, in order. Out: a `Change` for each pass that changed something. A value that is gone is
stood for by what its readers read instead, so that a line whose operators were merged with those of another still leads
to the kernels that compute them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...compiler import passes
from ...compiler.autodiff.differentiate import differentiate
from ...compiler.graph.nodes import Graph, Node, descendants
from ...compiler.graph.text import print_node
from ...compiler.lowering.panels import pack
from ...compiler.lowering.wind import wind
from ...compiler.passes.narrow import narrow
from ...dsl.source import Span


@dataclass(frozen=True, slots=True)
class Change:
    """The nodes that a pass took away and those that it made; one that it changed is in both."""

    step: str
    before: tuple[Node, ...]
    after: tuple[Node, ...]


class Changes:
    """Sees the graph after each pass (an `Observer` of the pipeline), of one entry; others that the pipeline makes of
    it on the way, for many examples or for what is prepared, are not followed."""

    def __init__(self, graph: Graph):
        self.found: list[Change] = []
        self.derived: set[str] = set()  # the nodes that differentiation made
        self.stands_for: dict[str, set[Span]] = {}  # node -> the places of what it replaced
        self._last = graph

    def __call__(self, step: str, graph: Graph) -> None:
        last, self._last = self._last, graph if graph.name == self._last.name else self._last
        if graph is last or self._last is last or step == "fuse":  # what becomes of operators then are the kernels
            return
        stands_for = {name: set(more) for name, more in self.stands_for.items() if _is_kept(last, graph, name)}
        for gone, instead in _replaced(last, graph):
            span = last[gone].span
            more = self.stands_for.get(gone, set()) | ({span} if span is not None else set())
            stands_for.setdefault(instead, set()).update(more)
        self.stands_for = stands_for
        if step == "differentiate":  # which renames what it copies
            origin: dict[str, str] = {}
            differentiate(last, origin)
            self.derived = origin.keys() & graph.nodes.keys()
            before = [n for n in last if n.op == "grad"]
            after = [n for n in graph if n.name in origin]
        else:
            before = [n for n in last if not _same(n, graph.nodes.get(n.name))]
            after = [n for n in graph if not _same(n, last.nodes.get(n.name))]
        if before or after:
            self.found.append(Change(step, tuple(before), tuple(after)))


def _same(one: Node, other: Node | None) -> bool:
    return one is other or (other is not None and print_node(one) == print_node(other))


def _is_kept(before: Graph, after: Graph, name: str) -> bool:
    """Whether a node is still there, also as what it was replaced by. Names are free again when nodes are gone."""
    return name in before.nodes and name in after.nodes and before[name].span == after[name].span


def _replaced(before: Graph, after: Graph) -> Iterator[tuple[str, str]]:
    """Values that are gone and those that are read in their place, by readers that are still there. What is made of
    constants alone is of no line."""
    made = descendants(before.nodes, [n.name for n in before if n.op in ("input", "param")])
    for n in before:
        now = after.nodes.get(n.name)
        if now is not None and _is_kept(before, after, n.name) and now.op == n.op and len(now.args) == len(n.args):
            read = zip(n.args, now.args, strict=True)
            yield from ((a, b) for a, b in read if a in made and not _is_kept(before, after, a))
    for named, again in ((before.outputs, after.outputs), (before.updates, after.updates)):
        now_of = dict(again)
        given = ((v, now_of[k]) for k, v in named if k in now_of)
        yield from ((v, w) for v, w in given if v in made and not _is_kept(before, after, v))


def about() -> dict[str, str]:
    """What each pass does, in the first words of its own documentation."""
    known = {p.__name__: p.__doc__ or "" for p in (*passes.ALWAYS, *passes.OPTIMIZE, wind, narrow, pack)}
    return {name: re.split(r"[.;] |\.$", " ".join(text.split()))[0] for name, text in known.items()}

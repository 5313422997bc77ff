"""Fusion: which operators run in one kernel. In: an optimised graph. Out: the same values, computed by `fused` nodes
whose body is a small graph, so that it prints, verifies and runs like any other.

Two decisions. First, what is stored at all: an elementwise operator or a view is *inline*, computed where it is read,
unless it is expensive and read often; what is stored is a *head* (`heads`). Then heads that walk over the same box of
indices are merged into one *region*, a kernel (`regions`), where their values fit (`fits`). Where an earlier kernel
stores less if it computes what a later one makes of its values, both decisions are made again (`sooner`). At last the
graph is written again with a node for each region (`rebuild`).
"""

from __future__ import annotations

from ...graph.nodes import Graph, Node
from ..argument import ARGUMENTS, expand
from ..cse import cse
from ..rewrite import Sweep, rewrite
from .heads import LARGE, heads
from .rebuild import rebuilt
from .regions import merged
from .sooner import sooner
from .windows import seen

PARTS = 48  # joined by one kernel


def fuse(graph: Graph) -> Graph:
    """Nodes grouped into kernels; a graph that is grouped stays as it is. It must have no `grad` left."""
    if any(n.op == "fused" for n in graph):
        return graph
    if any(n.op in ARGUMENTS for n in graph):
        graph = cse(rewrite(graph, {op: (_as_reductions,) for op in ARGUMENTS}))
    if any(n.op == "concat" and len(n.args) > PARTS for n in graph):
        graph = cse(rewrite(graph, {"concat": (_in_groups,)}))
    if any(n.op == "contract" and len(n.args) == 1 for n in graph):
        graph = rewrite(graph, {"contract": (seen,)})
    regions = merged(graph, heads(graph))
    moved, found = sooner(graph, regions)
    if moved is not graph:
        again = merged(moved, heads(moved, found))
        if all(source in again.of and again.of.get(name) is again.of[source] for name, source in found.items()):
            graph, regions = moved, again
    return rebuilt(graph, regions)


def _as_reductions(s: Sweep, n: Node) -> str | None:
    return expand(s, n, n.args[0])


def _in_groups(s: Sweep, n: Node) -> str | None:
    """Many parts are joined in groups, and those again: LLVM's time grows with the square of a kernel's length."""
    if len(n.args) <= PARTS:
        return None
    groups = [n.args[k : k + PARTS] for k in range(0, len(n.args), PARTS)]
    return s.emit("concat", *(s.emit("concat", *g, **n.attrs) for g in groups), **n.attrs)


__all__ = ["LARGE", "fuse"]

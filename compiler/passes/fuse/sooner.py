"""Fusion, between the decisions: what is computed sooner, so that less is stored for it.

    first kernel   x = .. w, e = f(x), y = x e     stores x, e and y        stores y and s
    later kernel   dx = dy g(x, e)                 reads dy, x and e        reads dy and s = g(x, e)

A later kernel computes a value, element by element, of what an earlier one has in registers. Where fewer bytes are
stored if the earlier one does it, that value becomes a head there. So the derivative of an activation is kept in place
of what it is made of. This is a cut of the elementwise graph between the two; only cuts of one value are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...graph.nodes import Graph, Node, ancestors
from ...graph.ops import OPS
from ...graph.ops.calculus import number
from ...graph.ops.op import MAP
from ...types.tensors import BYTES
from .regions import Region, Regions


def sooner(graph: Graph, regions: Regions) -> tuple[Graph, dict[str, str]]:
    """The graph with each such value behind what it is computed of, one of which is told for each; the graph itself
    where there is none."""
    of, roots = _sources(graph, regions), {*graph.roots}
    taken: set[str] = set()
    found: dict[str, str] = {}
    for name, region in of.items():
        if regions.head[name] or all(of.get(u.name) is region for u in graph.users(name)):
            continue
        made_of = _made_of(graph, regions, of, name)
        spared = [h for h in made_of - taken - roots if not _escapes(graph, regions, of, h, name)]
        if sum(BYTES[graph[h].dtype] for h in spared) > BYTES[graph[name].dtype]:
            taken |= {*spared}
            found[name] = max(made_of, key=regions.position.__getitem__)
    return (_moved(graph, regions, found), found) if found else (graph, found)


def _sources(graph: Graph, regions: Regions) -> dict[str, Region]:
    """Of each value that is computed, element by element, of what one region of its shape computes, that region."""
    of: dict[str, Region] = {}
    for n in graph:
        region = regions.of.get(n.name)
        if region is not None:
            if region.box.kind in ("map", "gathered") and region.box.shape == n.shape:
                of[n.name] = region
        elif OPS[n.op].kind == MAP:
            operands = [of.get(a) for a in n.args if number(graph, a) is None]
            if operands and (first := operands[0]) is not None and all(r is first for r in operands):
                of[n.name] = first
    return of


def _made_of(graph: Graph, regions: Regions, of: Mapping[str, Region], name: str) -> set[str]:
    """The heads of its region that a value is computed of."""
    seen = {name}
    todo = [name]
    while todo:
        new = [a for a in graph[todo.pop()].args if a in of and a not in seen]
        seen.update(new)
        todo += [a for a in new if not regions.head[a]]
    return {a for a in seen if regions.head[a]}


def _escapes(graph: Graph, regions: Regions, of: Mapping[str, Region], head: str, end: str) -> bool:
    """Whether a head is read outside of its region by others than `end` and what leads to that alone."""
    region, seen, todo = of[head], {end}, [head]
    while todo:
        for u in graph.users(todo.pop()):
            if u.name in seen or regions.of.get(u.name) is region:
                continue
            if regions.head[u.name] or of.get(u.name) is not region:
                return True
            seen.add(u.name)
            todo.append(u.name)
    return False


def _moved(graph: Graph, regions: Regions, found: Mapping[str, str]) -> Graph:
    """The graph with the values of `found`, and what is inline in them, behind those that are told."""
    behind: dict[str, list[str]] = {}
    for name, last in found.items():
        behind.setdefault(last, []).append(name)
    nodes: dict[str, Node] = {}
    for n in graph:
        nodes.setdefault(n.name, n)
        for name in behind.get(n.name, ()):
            nodes.update((a, graph[a]) for a in ancestors(graph.nodes, [name], regions.of) if a not in nodes)
    return Graph(graph.name, nodes, graph.outputs, graph.updates, graph.guards)

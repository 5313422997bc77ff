"""Fusion, its result: the graph of regions, each of several nodes a `fused` node whose body is a small graph."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.nodes import Builder, Graph, Node, effects
from ...graph.ops import OPS
from .heads import behind, renames
from .regions import Region, Regions


def rebuilt(graph: Graph, regions: Regions) -> Graph:
    """The graph with a node for each region that is needed."""
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    needed = _needed(graph, regions)
    for n in graph:
        if n.op in ("input", "param"):
            _place(b, graph, n.name)
    for region in regions.order():
        results = [h for h in region.heads if h in needed] or list(effects(graph[h] for h in region.heads))
        if results:
            _add(b, graph, regions, region, results)
    for _, v in graph.outputs + graph.updates:
        _place(b, graph, v)
    return b.finish(graph.outputs, graph.updates)


def _place(b: Builder, graph: Graph, name: str) -> None:
    """Add a buffer or an alias where it is first asked for."""
    pending = [name]
    while pending:
        n = graph[pending[-1]]
        if n.name in b.nodes:
            pending.pop()
        elif renames(graph, n) and n.args[0] not in b.nodes:
            pending.append(n.args[0])
        else:
            attrs = {**n.attrs, "lies": True} if n.op == "slice" else n.attrs
            b.nodes[n.name] = Node(n.name, n.op, n.args, attrs, n.type, n.span)


def _add(b: Builder, graph: Graph, regions: Regions, region: Region, results: Sequence[str]) -> None:
    """Add the node of a region, and an item for each result where there are several; one node stands for itself."""
    inside = regions.inside(region.heads)
    nodes = [graph[v] for v in sorted(inside, key=regions.position.__getitem__)]
    operands = tuple(dict.fromkeys(a for n in nodes for a in n.args if a not in inside))
    for a in operands:
        _place(b, graph, a)
    if len(nodes) == 1:
        b.nodes[nodes[0].name] = nodes[0]
        return
    body = Builder("body", OPS)
    for a in operands:
        body.nodes[a] = Node(a, "input", (), {"name": a, "type": graph[a].type}, graph[a].type, graph[a].span)
    body.nodes.update((n.name, n) for n in nodes)
    attrs = {"body": body.finish(tuple((h, h) for h in results))}
    span = graph[results[-1]].span
    if len(results) == 1:
        b.add("fused", operands, attrs, results[0], span)
        return
    every = b.add("fused", operands, attrs, b.fresh("f"), span)
    for k, h in enumerate(results):
        b.add("item", (every,), {"index": k}, h, graph[h].span)


def _needed(graph: Graph, regions: Regions) -> set[str]:
    """The heads that are read outside their region, or by the outside. What is there for its effect need not be."""
    needed = {behind(graph, v, regions.head) for _, v in graph.outputs + graph.updates}
    for region in {*regions.of.values()}:
        inside = regions.inside(region.heads)
        needed |= {behind(graph, a, regions.head) for n in inside for a in graph[n].args if a not in inside}
    return needed | {graph[v].args[0] for v in needed if graph[v].op == "item"}

"""What passes know about loops: what moves out of the body of a scan, what moves in, and what it need not do.

In: a graph. Out: an equal one. `hoist` takes out what is the same in every turn and costs something; `sink` takes in
what is made of nothing, such as a number that is repeated, so that it is not stored; `trim` drops results that nobody
reads, carried values that only carry themselves, and operands that are not needed or given twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..graph.cost import own_weight
from ..graph.nodes import Builder, Graph, Node, ancestors, effects, may_fail
from ..graph.ops import OPS
from ..graph.ops.op import CONTRACT, KERNEL, LOOP, MAP, REDUCE
from ..types.sizes import Size, symbols
from ..types.tensors import TensorType, TupleType
from .rewrite import assemble

CHEAP = 4  # weight up to which a value is computed again in each turn rather than stored
FREE = ("broadcast", "constant", "iota", "size")  # made of nothing, or of less


@dataclass(frozen=True, slots=True)
class _Scan:
    """A scan taken apart: inputs of its body with what they are given, outputs by name."""

    inputs: list[str]
    args: list[str]
    nodes: dict[str, Node]  # of the body, in order, with its inputs
    outputs: list[tuple[str, str]]
    carries: int


def _apart(n: Node) -> _Scan:
    body = n.attrs["body"]
    inputs = [x.name for x in body if x.op == "input"]
    return _Scan(inputs, list(n.args), {x.name: x for x in body}, list(body.outputs), n.attrs["carries"])


def _together(n: Node, s: _Scan, types: Mapping[str, Any]) -> Node:
    """The scan again; inputs come first in its body, in the order of its operands."""
    b = Builder("body", OPS)
    b.nodes.update((i, s.nodes[i]) for i in s.inputs)
    b.nodes.update((name, x) for name, x in s.nodes.items() if x.op != "input")
    attrs = {**n.attrs, "body": b.finish(tuple(s.outputs)), "carries": s.carries}
    return Node(n.name, "scan", tuple(s.args), attrs, OPS["scan"].infer([types[a] for a in s.args], attrs), n.span)


def _each(graph: Graph, change: Callable[[Node, dict[str, Node]], Node | None]) -> Graph:
    """The graph with scans changed; `change` may add nodes before them and gives None for a scan that stays."""
    nodes: dict[str, Node] = {}
    for n in graph:
        nodes[n.name] = (change(n, nodes) if n.op == "scan" else None) or n
    return assemble(graph, nodes, graph.outputs, graph.updates)


def _varying(s: _Scan, index: str) -> set[str]:
    """The nodes of a body that need not be the same in every turn."""
    varying = set(s.inputs[: s.carries])
    for name, x in s.nodes.items():
        if any(a in varying for a in x.args) or _mentions(x.attrs, index) or may_fail(x):
            varying.add(name)
    return varying


def _mentions(x: Any, index: str) -> bool:
    """Whether an attribute speaks of the index."""
    match x:
        case Size():
            return index in symbols(x)
        case TensorType(_, shape):
            return _mentions(shape, index)
        case TupleType(items) | tuple(items):
            return any(_mentions(i, index) for i in items)
        case dict():
            return any(_mentions(v, index) for v in x.values())
        case Graph():
            return any(_mentions(dict(n.attrs), index) for n in x)
    return False


# --- hoist -----------------------------------------------------------------------------------------------------------


def hoist(graph: Graph) -> Graph:
    """The graph with what costs something and is the same in every turn computed once, before the scan."""
    names = {n.name for n in graph}

    def change(n: Node, before: dict[str, Node]) -> Node | None:
        s = _apart(n)
        if any(x.op == "grad" for x in s.nodes.values()):
            return None  # derivatives are still to come, along the body
        varying = _varying(s, n.attrs["index"])
        given = dict(zip(s.inputs, s.args, strict=True))
        worth = [x for x in s.nodes.values() if x.name not in varying and x.name not in given and _costs(x)]
        if not worth:
            return None
        outside = dict(given)
        for name in ancestors(s.nodes, [x.name for x in worth]):
            if name not in outside:
                x = s.nodes[name]
                made = _fresh(name, names)
                before[made] = Node(made, x.op, tuple(outside[a] for a in x.args), x.attrs, x.type, x.span)
                outside[name] = made
        read = {a for x in s.nodes.values() for a in x.args} | {v for _, v in s.outputs}
        for x in worth:
            if x.name in read and isinstance(x.type, TensorType):
                s.nodes[x.name] = Node(x.name, "input", (), {"name": x.name, "type": x.type}, x.type, x.span)
                s.inputs.append(x.name)
                s.args.append(outside[x.name])
        return _together(n, s, {**{x.name: x.type for x in graph}, **{x.name: x.type for x in before.values()}})

    return _each(graph, change)


def _costs(x: Node) -> bool:
    kind = OPS[x.op].kind
    if x.op == "item":
        return True
    return kind in (CONTRACT, KERNEL, LOOP) or (kind == REDUCE and bool(x.attrs["axes"])) or (
        kind == MAP and own_weight(x) > CHEAP and bool(x.args)
    )


def _fresh(stem: str, taken: set[str]) -> str:
    name, n = stem, 2
    while name in taken:
        name, n = f"{stem}_{n}", n + 1
    taken.add(name)
    return name


# --- sink ------------------------------------------------------------------------------------------------------------


def sink(graph: Graph) -> Graph:
    """The graph with operands of scans that are made of nothing, or repeat what is smaller, made in the body."""

    def change(n: Node, before: dict[str, Node]) -> Node | None:
        s = _apart(n)
        names, found = set(s.nodes), False
        k = s.carries
        while k < len(s.inputs):
            name, x = s.inputs[k], before[s.args[k]]
            if x.op not in FREE or (x.op == "constant" and x.shape):
                k += 1
                continue
            found = True
            del s.inputs[k], s.args[k]
            inner: list[str] = []
            for a in x.args:
                inner.append(_fresh(a, names))
                s.inputs.append(inner[-1])
                s.args.append(a)
            earlier = {i: Node(i, "input", (), {"name": i, "type": before[a].type}, before[a].type)
                       for i, a in zip(inner, x.args, strict=True)}
            made = Node(name, x.op, tuple(inner), x.attrs, x.type, x.span)
            rest = {y: node for y, node in s.nodes.items() if y != name}
            s.nodes.clear()
            s.nodes.update({**earlier, name: made, **rest})
        return _together(n, s, {x.name: x.type for x in before.values()}) if found else None

    return _each(graph, change)


# --- trim ------------------------------------------------------------------------------------------------------------


def trim(graph: Graph) -> Graph:
    """The graph without results of scans that nobody reads, and without what only they need. It must have no `grad`
    left: to that a value is a variable, and equal to no other."""
    if all(n.op != "scan" for n in graph) or any(n.op == "grad" for n in graph):
        return graph
    read = {a for n in graph for a in n.args} | set(graph.roots)
    wanted: dict[str, set[int]] = {}
    for n in graph:
        if n.op == "item" and n.name in read:
            wanted.setdefault(n.args[0], set()).add(n.attrs["index"])
    place: dict[str, dict[int, int | str]] = {}  # scan -> old result -> new position, or the value that it is
    nodes: dict[str, Node] = {}
    new: dict[str, str] = {}
    for n in graph:
        args = tuple(new.get(a, a) for a in n.args)
        if n.op == "item" and n.args[0] in place:
            at = place[n.args[0]].get(n.attrs["index"])
            if isinstance(at, str):
                new[n.name] = at
            elif at is not None:
                nodes[n.name] = Node(n.name, "item", args, {"index": at}, n.type, n.span)
            continue
        if args != n.args:
            n = Node(n.name, n.op, args, n.attrs, n.type, n.span)
        if n.op == "scan":
            made, place[n.name] = _trimmed(n, wanted.get(n.name, set()), nodes)
            n = n if made is None else made
            if made is None:
                del place[n.name]
        nodes[n.name] = n
    outputs, updates = ([(k, new.get(v, v)) for k, v in names] for names in (graph.outputs, graph.updates))
    return assemble(graph, nodes, outputs, updates)


def _trimmed(n: Node, wanted: set[int], nodes: Mapping[str, Node]) -> tuple[Node | None, dict[int, int | str]]:
    """A smaller scan, or None, and where its results went."""
    s = _apart(n)
    until = [len(s.outputs) - 1] * n.attrs["until"]
    same = {k: s.inputs[k] for k in range(s.carries) if s.outputs[k][1] == s.inputs[k]}  # carried as they are
    live = {k for k in wanted if k not in same} | set(until)
    while True:
        reached = ancestors(s.nodes, [*(s.outputs[k][1] for k in live), *effects(s.nodes.values())])
        more = {k for k in range(s.carries) if s.inputs[k] in reached and k not in same} - live
        if not more:
            break
        live |= more
    first: dict[str, int] = {}  # value -> the result that collects it
    merged = {k: first.setdefault(s.outputs[k][1], k) for k in sorted(live) if k >= s.carries and k not in until}
    kept = [k for k in sorted(live) if merged.get(k, k) == k]
    position = {k: p for p, k in enumerate(kept)}
    moved: dict[int, int | str] = {k: position[merged.get(k, k)] for k in live if k not in until}
    moved |= {k: s.args[k] for k in same}
    one: dict[str, str] = {}  # operand -> the input that has it
    renamed: dict[str, str] = {}
    inputs = [s.inputs[k] for k in kept if k < s.carries]
    args = [s.args[k] for k in kept if k < s.carries]
    for k, (i, a) in enumerate(zip(s.inputs, s.args, strict=True)):
        if i in reached and (k >= s.carries or k in same):
            renamed[i] = one.setdefault(a, i)
            if renamed[i] == i:
                inputs.append(i)
                args.append(a)
    needed = {*inputs, *(x for x in reached if s.nodes[x].op != "input")}
    body = {x: node for x, node in s.nodes.items() if x in needed}
    if len(kept) == len(s.outputs) and inputs == s.inputs and len(body) == len(s.nodes):
        return None, {}
    body = {x: node if all(a == renamed.get(a, a) for a in node.args) else
            Node(x, node.op, tuple(renamed.get(a, a) for a in node.args), node.attrs, node.type, node.span)
            for x, node in body.items()}
    outputs = [(s.outputs[k][0], renamed.get(s.outputs[k][1], s.outputs[k][1])) for k in kept]
    small = _Scan(inputs, args, body, outputs, sum(k < s.carries for k in kept))
    return _together(n, small, {name: x.type for name, x in nodes.items()}), moved

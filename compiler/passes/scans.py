"""What passes know about loops: what moves out of the body of a scan, what moves in, and what it need not do.

In: a graph. Out: an equal one. `hoist` takes out what is the same in every turn and costs something; `sink` takes in
what is made of nothing, such as a number that is repeated, so that it is not stored; `trim` drops results that nobody
reads, carried values that only carry themselves, and operands that are not needed or given twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ...dsl.record import dataclass, replace
from ..graph.cost import own_weight
from ..graph.nodes import Builder, Graph, Node, ancestors, effects, may_fail, mentions
from ..graph.ops import OPS
from ..graph.ops.op import CONTRACT, KERNEL, LOOP, MAP, REDUCE
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
    until: bool  # the last output says when it ends


def _apart(n: Node) -> _Scan:
    body = n.attrs["body"]
    inputs = [x.name for x in body if x.op == "input"]
    return _Scan(
        inputs, list(n.args), {x.name: x for x in body}, list(body.outputs), n.attrs["carries"], n.attrs["until"]
    )


def _together(n: Node, s: _Scan, types: Mapping[str, Any], name: str = "") -> Node:
    """The scan again, under another `name` where there is one; inputs come first in its body, in the order of its
    operands."""
    b = Builder("body", OPS)
    b.nodes.update((i, s.nodes[i]) for i in s.inputs)
    b.nodes.update((name, x) for name, x in s.nodes.items() if x.op != "input")
    attrs = {**n.attrs, "body": b.finish(tuple(s.outputs)), "carries": s.carries}
    return Node(
        name or n.name, "scan", tuple(s.args), attrs, OPS["scan"].infer([types[a] for a in s.args], attrs), n.span
    )


def each(graph: Graph, change: Callable[[Node, dict[str, Node]], Node | None]) -> Graph:
    """The graph with scans changed; `change` may add nodes before them and gives None for a scan that stays."""
    nodes: dict[str, Node] = {}
    for n in graph:
        nodes[n.name] = (change(n, nodes) if OPS[n.op].kind == LOOP else None) or n
    return assemble(graph, nodes, graph.outputs, graph.updates)


def _varying(s: _Scan, index: str) -> set[str]:
    """The nodes of a body that need not be the same in every turn."""
    varying = set(s.inputs[: s.carries])
    for name, x in s.nodes.items():
        if any(a in varying for a in x.args) or mentions(x.attrs, index) or may_fail(x):
            varying.add(name)
    return varying


def invariants(n: Node) -> set[str]:
    """The nodes of a scan's body that are the same in every turn."""
    s = _apart(n)
    return s.nodes.keys() - _varying(s, n.attrs["index"])


def of_turns(n: Node, fixed: Collection[str]) -> set[str]:
    """The nodes of a scan's body that depend on the turn and on operands that are `fixed`, and on nothing else: so they
    are the same in every call."""
    s = _apart(n)
    found = {i for i, a in list(zip(s.inputs, s.args, strict=True))[s.carries :] if a in fixed}
    for name, x in s.nodes.items():
        if x.op != "input" and all(a in found for a in x.args) and not may_fail(x):
            found.add(name)
    return found


def collected_before(n: Node, values: Sequence[str], before: dict[str, Node], names: set[str]) -> Node:
    """The scan, which reads `values` of its body from where another one `before` it has collected them, each turn its
    own. They depend on nothing that is carried; new nodes have none of the `names`."""
    s = _apart(n)
    ahead = ancestors(s.nodes, values)
    given = [(i, a) for i, a in zip(s.inputs, s.args, strict=True) if i in ahead]
    nodes = {name: s.nodes[name] for name in ahead}
    first = _Scan([i for i, _ in given], [a for _, a in given], nodes, [(v, v) for v in values], 0, False)
    made = _together(n, first, {name: x.type for name, x in before.items()}, _fresh(n.name, names))
    before[made.name] = made
    assert isinstance(made.type, TupleType)
    b = Builder("body", OPS)
    b.nodes.update(s.nodes)
    for k, v in enumerate(values):
        b.span = s.nodes[v].span
        item = Node(_fresh(v, names), "item", (made.name,), {"index": k}, made.type.items[k], b.span)
        before[item.name] = item
        stack = b.fresh(v)
        s.inputs.append(b.emit("input", name=stack, type=item.type))
        s.args.append(item.name)
        b.nodes[v] = replace(b.nodes.pop(b.row(stack, n.attrs["index"])), name=v)
    rows = {name: x for name, x in b.nodes.items() if name not in s.nodes}
    s.nodes.clear()
    s.nodes.update({**rows, **{v: b.nodes[v] for v in values}, **b.nodes})
    return _together(n, s, {name: x.type for name, x in before.items()})


# --- hoist -----------------------------------------------------------------------------------------------------------


def hoist(graph: Graph) -> Graph:
    """The graph with what costs something and is the same in every turn computed once, before the scan."""
    names = {*graph.nodes}

    def change(n: Node, before: dict[str, Node]) -> Node | None:
        s = _apart(n)
        if any(x.op == "grad" for x in s.nodes.values()):
            return None  # derivatives are still to come, along the body
        varying = _varying(s, n.attrs["index"])
        given = dict(zip(s.inputs, s.args, strict=True))
        copied = {a for x in s.nodes.values() if OPS[x.op].kind == CONTRACT or x.op == "unpack" for a in x.args}
        same = [x for x in s.nodes.values() if x.name not in varying and x.name not in given]
        worth = [x for x in same if _costs(x) or (x.op == "transpose" and x.name in copied)]
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
        called = {s.nodes[i].attrs["name"] for i in s.inputs}
        for x in worth:
            if x.name in read and isinstance(x.type, TensorType):
                attrs = {"name": _fresh(x.name, called), "type": x.type}
                s.nodes[x.name] = Node(x.name, "input", (), attrs, x.type, x.span)
                s.inputs.append(x.name)
                s.args.append(outside[x.name])
        return _together(n, s, {**{x.name: x.type for x in graph}, **{x.name: x.type for x in before.values()}})

    return each(graph, change)


def _costs(x: Node) -> bool:
    kind = OPS[x.op].kind
    if x.op == "item":
        return True
    return (
        kind in (CONTRACT, KERNEL, LOOP)
        or (kind == REDUCE and bool(x.attrs["axes"]))
        or (kind == MAP and own_weight(x) > CHEAP and bool(x.args))
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
            earlier = {
                i: Node(i, "input", (), {"name": i, "type": before[a].type}, before[a].type)
                for i, a in zip(inner, x.args, strict=True)
            }
            made = Node(name, x.op, tuple(inner), x.attrs, x.type, x.span)
            rest = {y: node for y, node in s.nodes.items() if y != name}
            s.nodes.clear()
            s.nodes.update({**earlier, name: made, **rest})
        return _together(n, s, {x.name: x.type for x in before.values()}) if found else None

    return each(graph, change)


# --- trim ------------------------------------------------------------------------------------------------------------


def trim(graph: Graph) -> Graph:
    """The graph without results of scans that nobody reads, and without what only they need. It must have no `grad`
    left: to that a value is a variable, and equal to no other."""
    if all(OPS[n.op].kind != LOOP for n in graph) or any(n.op == "grad" for n in graph):
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
        if OPS[n.op].kind == LOOP and (trimmed := _trimmed(n, wanted.get(n.name, set()), nodes)):
            n, place[n.name] = trimmed
        nodes[n.name] = n
    outputs, updates = ([(k, new.get(v, v)) for k, v in names] for names in (graph.outputs, graph.updates))
    return assemble(graph, nodes, outputs, updates)


def _trimmed(n: Node, wanted: set[int], nodes: Mapping[str, Node]) -> tuple[Node, dict[int, int | str]] | None:
    """A smaller scan, and where its results went; None where it is small."""
    s = _apart(n)
    dropped, went = drop(s, wanted)
    small = merge_inputs(dropped)
    if (len(small.outputs), small.inputs, len(small.nodes)) == (len(s.outputs), s.inputs, len(s.nodes)):
        return None
    return _together(n, small, {name: x.type for name, x in nodes.items()}), went


def drop(s: _Scan, results: set[int]) -> tuple[_Scan, dict[int, int | str]]:
    """The scan with the results named and what they need, and where each result went: its position, or the value that
    it is. A value that is carried as it is is an operand; what is collected twice is collected once."""
    end = [len(s.outputs) - 1] if s.until else []
    same = {k: s.inputs[k] for k in range(s.carries) if s.outputs[k][1] == s.inputs[k]}  # carried as they are
    live, reached = _needed(s, {*results, *end} - same.keys(), same)
    first: dict[str, int] = {}  # value -> the result that collects it
    stands = {k: k if k < s.carries or k in end else first.setdefault(s.outputs[k][1], k) for k in sorted(live)}
    kept = [k for k in stands if stands[k] == k]
    went: dict[int, int | str] = {k: kept.index(stands[k]) for k in stands if k not in end}
    went |= {k: s.args[k] for k in same}
    carried = [k for k in kept if k < s.carries]
    given = [k for k, i in enumerate(s.inputs) if i in reached and (k >= s.carries or k in same)]
    inputs = [s.inputs[k] for k in (*carried, *given)]
    nodes = {name: x for name, x in s.nodes.items() if name in inputs or (name in reached and x.op != "input")}
    args = [s.args[k] for k in (*carried, *given)]
    return _Scan(inputs, args, nodes, [s.outputs[k] for k in kept], len(carried), s.until), went


def _needed(s: _Scan, results: set[int], same: Mapping[int, str]) -> tuple[set[int], Mapping[str, None]]:
    """The results that are needed for some, from turn to turn, and the nodes that they are computed from."""
    live = set(results)
    while True:
        reached = ancestors(s.nodes, [*(s.outputs[k][1] for k in live), *effects(s.nodes.values())])
        more = {k for k in range(s.carries) if s.inputs[k] in reached and k not in same} - live
        if not more:
            return live, reached
        live |= more


def merge_inputs(s: _Scan) -> _Scan:
    """The scan with one input for an operand that is given twice."""
    one: dict[str, str] = {}  # operand -> the input that has it
    other = {i: one.setdefault(a, i) for i, a in list(zip(s.inputs, s.args, strict=True))[s.carries :]}
    kept = [k for k, i in enumerate(s.inputs) if other.get(i, i) == i]

    def merged(x: Node) -> Node:
        args = tuple(other.get(a, a) for a in x.args)
        return x if args == x.args else Node(x.name, x.op, args, x.attrs, x.type, x.span)

    nodes = {name: merged(x) for name, x in s.nodes.items() if other.get(name, name) == name}
    outputs = [(key, other.get(v, v)) for key, v in s.outputs]
    return _Scan([s.inputs[k] for k in kept], [s.args[k] for k in kept], nodes, outputs, s.carries, s.until)

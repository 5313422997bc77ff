"""The order in which kernels run, and what lies in the slots of the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from ...graph.nodes import Graph, may_fail
from ...loops.ir import Place
from .inplace import reachable, readers_to_wait_for
from .values import Value, constant_name, is_kernel, output_slot

Move = tuple[Value, Value, bool]  # a copy from one value's place to another's, early or late; see `plans.Copy`
After = dict[str, list[str]]  # kernel -> kernels that run after it


@dataclass(frozen=True, slots=True)
class Order:
    """The kernels as they run, the values that lie outside the arena, and what is copied."""

    kernels: tuple[str, ...]
    places: Mapping[Value, Place]
    moves: tuple[Move, ...]


def ordered(graph: Graph, root: Mapping[str, Value]) -> Order:
    """An order in which as much as may be is made where it belongs."""
    kernels = [n.name for n in graph if is_kernel(n)]
    readers: dict[Value, list[str]] = {}
    after: After = {k: [] for k in kernels}
    for k in kernels:
        for value in dict.fromkeys(root[a] for a in graph[k].args):
            readers.setdefault(value, []).append(k)
            if value[0] in after:
                after[value[0]].append(k)
    places = _leaves(graph)
    leaves = {n.attrs["path"]: root[n.name] for n in graph if n.op == "param"}
    moves: list[Move] = []
    overwritten = {leaves[path] for path, _ in graph.updates if path in leaves}
    for path, name in graph.updates:
        value, slot, old = root[name], Place("slot", path), leaves.get(path)
        if value == old:
            continue
        first = None if value in places else readers_to_wait_for(graph, root, value, old, readers, after)
        if first is not None:
            for r in first:
                after[r].append(value[0])
            places[value] = slot
            continue
        if value in overwritten:  # one variable takes the old value of another: keep it until the end
            kept = (value[0], -1)
            moves.append((value, kept, True))
            value = kept
        places["update " + path, 0] = slot
        moves.append((value, ("update " + path, 0), False))
    for name, result in graph.outputs:
        value, slot = root[result], Place("slot", output_slot(name))
        if value in places:
            places["output " + name, 0] = slot
            moves.append((value, ("output " + name, 0), value in overwritten))
        else:
            places[value] = slot
    paths = {p for p, _ in graph.updates}
    writers = dict.fromkeys(v[0] for v, p in places.items() if p.base == "slot" and p.name in paths and v[0] in after)
    checks = [k for k in kernels if may_fail(graph[k])]
    return Order(_sorted(kernels, _checks_first(checks, list(writers), after)), places, tuple(dict.fromkeys(moves)))


def _leaves(graph: Graph) -> dict[Value, Place]:
    """Where inputs, variables and constants lie."""
    places: dict[Value, Place] = {}
    for node in graph:
        if node.op == "input":
            places[node.name, 0] = Place("slot", node.attrs["name"])
        elif node.op == "param":
            places[node.name, 0] = Place("slot", node.attrs["path"])
        elif node.op == "constant":
            places[node.name, 0] = Place("constant", constant_name(graph, node))
    return places


def _checks_first(checks: Sequence[str], writers: Sequence[str], after: After) -> After:
    """A step that fails changes nothing: kernels with run-time checks run before those that write variables."""
    after = {k: [*later] for k, later in after.items()}
    for c in checks:
        for w in writers:
            if w != c and c not in reachable(after, w):
                after[c].append(w)
    return after


def _sorted(kernels: Sequence[str], after: After) -> tuple[str, ...]:
    """Topological; among what may run, the first in the order of the graph."""
    position = {name: k for k, name in enumerate(kernels)}
    waiting = dict.fromkeys(kernels, 0)
    for followers in after.values():
        for k in followers:
            waiting[k] += 1
    ready = [position[k] for k in kernels if not waiting[k]]
    heapify(ready)
    order: list[str] = []
    while ready:
        k = kernels[heappop(ready)]
        order.append(k)
        for f in after[k]:
            waiting[f] -= 1
            if not waiting[f]:
                heappush(ready, position[f])
    assert len(order) == len(kernels), "the order of kernels has a cycle"
    return tuple(order)

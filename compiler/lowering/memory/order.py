"""The order in which kernels run, and what lies in the slots of the outside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush

from ....dsl.record import dataclass
from ...graph.cost import number
from ...graph.nodes import Graph, may_fail
from ...loops.ir import Place
from .inplace import Overwrites, readers_to_wait_for
from .values import Value, constant_name, is_kernel, output_slot, types

Move = tuple[Value, Value, bool]  # a copy from one value's place to another's, early or late; see `plans.Copy`


@dataclass(frozen=True, slots=True)
class Order:
    """The kernels as they run, the values that lie outside the arena, and what is copied."""

    kernels: tuple[str, ...]
    places: Mapping[Value, Place]
    moves: tuple[Move, ...]


class _Sequence:
    """Which kernels run after which. Each has a place behind all that run before it; one more that is to run before
    another moves only what stands between the two. Pearce, Kelly, "A dynamic topological sort algorithm" (2007)."""

    def __init__(self, kernels: Sequence[str]):
        self.after: dict[str, list[str]] = {k: [] for k in kernels}
        self._before: dict[str, list[str]] = {k: [] for k in kernels}
        self._place: dict[str, tuple[int, ...]] = {k: (n,) for n, k in enumerate(kernels)}
        self._moves = 0

    def add(self, before: Sequence[str], kernel: str) -> bool:
        """Let some run before a kernel; False, and nothing is changed, where one of them runs after it."""
        end = max((self._place[k] for k in before), default=())
        if self._place[kernel] < end:
            behind, stack = {kernel}, [kernel]
            while stack:
                further = {k for k in self.after[stack.pop()] if k not in behind and self._place[k] <= end}
                behind |= further
                stack += further
            if any(k in behind for k in before):
                return False
            self._moves -= 1  # what is moved last comes first behind the place
            for n, k in enumerate(sorted(behind, key=self._place.__getitem__)):
                self._place[k] = (*end, self._moves, n)
        for k in before:
            self.after[k].append(kernel)
        self._before[kernel] += before
        return True

    def leading_to(self, kernel: str) -> set[str]:
        """A kernel and all that run before it."""
        seen, stack = {kernel}, [kernel]
        while stack:
            further = [k for k in self._before[stack.pop()] if k not in seen]
            seen.update(further)
            stack += further
        return seen

    def in_order(self, numbers: Collection[str]) -> tuple[str, ...]:
        """Topological. What no kernel waits for runs as soon as it may, and so do those that make `numbers` alone, for
        which it may wait: the update of a weight while its gradient's operands are near, which then need not be kept.
        Else the first in the order of the graph."""
        kernels = [*self.after]
        rank = {name: (bool(self.after[name]) and name not in numbers, k) for k, name in enumerate(kernels)}
        waiting = dict.fromkeys(kernels, 0)
        for followers in self.after.values():
            for k in followers:
                waiting[k] += 1
        ready = [rank[k] for k in kernels if not waiting[k]]
        heapify(ready)
        order: list[str] = []
        while ready:
            k = kernels[heappop(ready)[1]]
            order.append(k)
            for f in self.after[k]:
                waiting[f] -= 1
                if not waiting[f]:
                    heappush(ready, rank[f])
        assert len(order) == len(kernels), "the order of kernels has a cycle"
        return tuple(order)

    def late(self, order: Sequence[str], live: _Live) -> tuple[str, ...]:
        """Topological: as given, but what makes more bytes than it is the last to need runs right before the first that
        waits for it, such as a transform of weights. Chosen from the last kernel to the first."""
        turn = {k: -n for n, k in enumerate(order)}
        followers = {k: len(v) for k, v in self.after.items()}
        ready = [(live.rank(k), turn[k]) for k in order if not followers[k]]
        heapify(ready)
        reverse: list[str] = []
        while ready:
            k = order[-heappop(ready)[1]]
            reverse.append(k)
            live.read_by(k)
            for b in self._before[k]:
                followers[b] -= 1
                if not followers[b]:
                    heappush(ready, (live.rank(b), turn[b]))
        assert len(reverse) == len(order), "the order of kernels has a cycle"
        return tuple(reversed(reverse))


class _Live:
    """The values of the arena that are read behind some place in the order, which moves from the end to the start."""

    def __init__(self, graph: Graph, root: Mapping[str, Value], places: Mapping[Value, Place], kernels: Sequence[str]):
        self._graph, self._places = graph, places
        self._read: set[Value] = set()
        self._operands = {k: [*dict.fromkeys(root[a] for a in graph[k].args)] for k in kernels}
        self._alone = {n.name for n in graph if n.op in ("param", "constant")}  # and what is made of these alone
        for k in kernels:
            if all(name in self._alone for name, _ in self._operands[k]):
                self._alone.add(k)

    def read_by(self, kernel: str) -> None:
        self._read.update(self._operands[kernel])

    def rank(self, kernel: str) -> int:
        """0 for what is made of variables alone and not in fewer bytes, which may stand anywhere; 1 for what makes more
        bytes than it is the last to need; 2 for all else."""
        made = self._bytes([(kernel, k) for k in range(len(types(self._graph[kernel])))])
        needed = self._bytes([v for v in self._operands[kernel] if v not in self._read])
        if kernel in self._alone and made and made >= needed:
            return 0
        return 1 if made > needed else 2

    def _bytes(self, values: Sequence[Value]) -> int:
        return sum(number(types(self._graph[n])[k].nbytes) for n, k in values if (n, k) not in self._places)


def ordered(graph: Graph, root: Mapping[str, Value], overwrites: Overwrites) -> Order:
    """An order in which as much as may be is made where it belongs."""
    kernels = [n.name for n in graph if is_kernel(n)]
    readers: dict[Value, list[str]] = {}
    sequence = _Sequence(kernels)
    for k in kernels:
        for value in dict.fromkeys(root[a] for a in graph[k].args):
            readers.setdefault(value, []).append(k)
            if value[0] in sequence.after:
                sequence.add([value[0]], k)
    places = _leaves(graph)
    leaves = {n.attrs["path"]: root[n.name] for n in graph if n.op == "param"}
    moves: list[Move] = []
    overwritten = {leaves[path] for path, _ in graph.updates if path in leaves}
    for path, name in graph.updates:
        value, slot, old = root[name], Place("slot", path), leaves.get(path)
        if value == old:
            continue
        first = None if value in places else readers_to_wait_for(overwrites, value, old, readers)
        if first is not None and sequence.add(first, value[0]):
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
    writers = dict.fromkeys(v[0] for v, p in places.items() if p.base == "slot" and p.name in paths)
    for check in (k for k in kernels if may_fail(graph[k])):  # a step that fails changes nothing
        earlier = sequence.leading_to(check)
        for w in writers:
            if w in sequence.after and w not in earlier:
                sequence.add([check], w)
    numbers = {k for k in kernels if all(t.size == 1 for t in types(graph[k]))}
    late = sequence.late(sequence.in_order(numbers), _Live(graph, root, places, kernels))
    return Order(late, places, tuple(dict.fromkeys(moves)))


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

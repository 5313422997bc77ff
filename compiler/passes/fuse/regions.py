"""Fusion, second decision: which heads are computed by one kernel.

Heads that walk over the same box of indices are merged into one *region*: elementwise operators with their likes, with
the reductions they feed or follow, and with the contraction whose result they read at the same index. A merge must
leave the regions without a cycle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from ....dsl.record import dataclass
from ...graph.boxes import box_of, is_framed
from ...graph.nodes import Graph, Node
from ...graph.ops import OPS
from ...graph.ops.contraction import is_gathered
from ...graph.ops.op import CONTRACT, KERNEL, LOOP, REDUCE
from .fits import Box, fits
from .heads import LARGE, WIDE, behind, is_buffer, renames

BUFFERS = 28  # operands and results of a region


@dataclass(slots=True, eq=False)
class Region:
    box: Box
    heads: list[str]
    place: tuple[int, ...]  # behind those of all that it reads
    last: int  # the position of its last head, which says when it is its turn
    leads_to: str = ""  # a head that is known to be computed from it, by way of whatever


def _box(graph: Graph, n: Node) -> Box:
    kind = OPS[n.op].kind
    if kind == REDUCE and n.attrs["axes"]:
        return Box("fold", graph[n.args[0]].shape, n.attrs["axes"])
    if kind == LOOP:
        return Box("alone", ())
    if kind in (CONTRACT, KERNEL):
        gathered = kind == CONTRACT and is_gathered(n)
        return Box("gathered" if gathered else "alone", n.shape)
    return Box("map", box_of(graph, n))


def _joined(one: Box, other: Box) -> Box | None:
    """The box of two regions together."""
    if one == other and one.kind in ("map", "fold"):
        return one
    if one.kind == "map" and other.kind != "map":
        one, other = other, one
    shapes = {"fold": (one.shape, one.kept), "gathered": (one.shape,)}.get(one.kind, ())
    return one if other.kind == "map" and other.shape in shapes else None


class Regions:
    """The regions so far: which heads are together, and who reads whom. Each region has a place behind all that it
    reads, and a merge moves only what stands between the two, what reads the first or what the second reads, whichever
    is found sooner. Pearce, Kelly, "A dynamic topological sort algorithm" (2007)."""

    def __init__(self, graph: Graph, head: Mapping[str, bool]):
        self.graph, self.head = graph, head
        self.position = {n.name: k for k, n in enumerate(graph)}
        self.of: dict[str, Region] = {}
        self.reads: dict[str, tuple[str, ...]] = {}  # head -> the heads its value is computed from
        self.readers: dict[str, list[str]] = {}  # and the other way
        self.buffers: dict[str, tuple[str, ...]] = {}  # head -> the leaves its value is computed from
        self._inline = {n.name for n in graph if not head[n.name] and not is_buffer(n)}
        self._renames = {n.name for n in graph if renames(graph, n)}
        self._moves = 0
        made_of: dict[str, tuple[str, ...]] = {}  # any node -> the heads and leaves it is computed from
        for n in graph:
            sources = tuple(dict.fromkeys(h for a in n.args for h in made_of[a]))
            named = head[n.name] or is_buffer(n)
            made_of[n.name] = (n.name, *sources) if n.op == "item" else (n.name,) if named else sources
            if head[n.name]:
                self.reads[n.name] = tuple(h for h in sources if head[h])
                self.readers[n.name] = []
                for h in self.reads[n.name]:
                    self.readers[h].append(n.name)
                self.buffers[n.name] = tuple(h for h in sources if not head[h] and graph[h].shape)
                self.of[n.name] = Region(_box(graph, n), [n.name], (len(self.of),), len(self.of))

    def order(self) -> list[Region]:
        """The regions, each behind those it reads; among those that may run, first whose last head comes first."""
        readers: dict[Region, dict[Region, None]] = {r: {} for r in self.of.values()}
        waits = dict.fromkeys(readers, 0)
        for h, reader in self.of.items():
            for r in {self.of[x] for x in self.reads[h]} - {reader}:
                if reader not in readers[r]:
                    readers[r][reader] = None
                    waits[reader] += 1
        ready = [(r.last, r) for r in readers if not waits[r]]  # no two have the same head
        heapify(ready)
        found: list[Region] = []
        while ready:
            found.append(heappop(ready)[1])
            for r in readers[found[-1]]:
                waits[r] -= 1
                if not waits[r]:
                    heappush(ready, (r.last, r))
        return found

    def merge(self, one: Region, other: Region) -> bool:
        """Join two regions, if they fit; whether they did."""
        box = _joined(one.box, other.box) or self._framed(one, other) or self._framed(other, one)
        first, second = (one, other) if one.place < other.place else (other, one)
        if box is None:
            return False
        heads = sorted([*first.heads, *second.heads], key=self.position.__getitem__)
        if not self._fit(box, heads) or not self._moved(first, second):
            return False
        reads = any(self.of[x] is first for h in second.heads for x in self.reads[h])
        kept, gone = (first, second) if reads or first.last < second.last else (second, first)
        for h in gone.heads:
            self.of[h] = kept
        kept.box, kept.heads, kept.place, kept.last = box, heads, first.place, max(first.last, second.last)
        return True

    def _framed(self, one: Region, other: Region) -> Box | None:
        """The box of a convolution at Winograd's points, which can store its results within the margin that another
        region puts around them. Others may have their sums where their results lie."""
        operands = (self.graph[a] for h in one.heads for a in self.graph[h].args)
        if one.box.kind != "gathered" or not any(n.op == "unwind" for n in operands):
            return None
        return one.box if all(is_framed(self.graph, self.graph[h], one.box.shape) for h in other.heads) else None

    def _moved(self, first: Region, second: Region) -> bool:
        """Give the first a place where the second may be, too: behind what the second reads, before what reads the
        first. There is none where the second reads the first by way of a third: one kernel would need itself. Both ways
        are gone step by step, until one ends or they meet; so it takes as long as the shorter. What is nearest to
        the second is looked at first, and what it leads to is remembered: in a deep network the way from one to the
        other is as long as the network, and that of the next pair leads over this one."""
        came = {first: first}  # what reads the first, and by way of what
        needed: dict[Region, None] = {second: None}
        down, up = [first], [second]
        while down and up:
            r = down.pop()
            further = [self.of[x] for h in r.heads for x in self.readers[h]]
            if r.leads_to:
                further.append(self.of[r.leads_to])
            for x in sorted({x for x in further if x not in came and x.place < second.place}, key=_place):
                came[x] = r
                if x in needed:
                    return _remember(came, x)
                down.append(x)
            r = up.pop()
            for x in (self.of[y] for h in r.heads for y in self.reads[h]):
                if x in came and (x is not first or r is not second):
                    return _remember(came, x)
                if x not in needed and x.place > first.place:
                    needed[x] = None
                    up.append(x)
        if not down:
            place, moved = second.place, [first, *sorted(came.keys() - {first}, key=_place)]
        else:
            place, moved = first.place, [*sorted(needed.keys() - {second}, key=_place), first]
        if len(moved) == 1:
            first.place = place
            return True
        self._moves -= 1  # what is moved last comes first behind the place
        for k, r in enumerate(moved):
            r.place = (*place, self._moves, k)
        return True

    def inside(self, heads: Iterable[str]) -> set[str]:
        """The heads and everything inline that they are computed from."""
        nodes = self.graph.nodes
        inside = set(heads)
        stack = list(inside)
        while stack:
            for a in nodes[stack.pop()].args:
                if a not in inside and a in self._inline and not self._is_alias(a, inside):
                    inside.add(a)
                    stack.append(a)
        return inside

    def _is_alias(self, name: str, inside: set[str]) -> bool:
        """A reshape of a buffer that is not made in the same region."""
        if name not in self._renames:
            return False
        x = behind(self.graph, name, self.head)
        return x not in self._inline and x not in inside

    def _fit(self, box: Box, heads: list[str]) -> bool:
        """Whether heads make one kernel over a box, of bearable size."""
        inside = self.inside(heads)
        operands = {x for n in inside for x in self.graph[n].args if x not in inside}
        ordered = [self.graph[n] for n in sorted(inside, key=self.position.__getitem__)]
        size = sum(len(n.args) if n.op == "concat" and len(n.args) > WIDE else 1 for n in ordered)
        return size <= LARGE and len(operands) + len(heads) <= BUFFERS and fits(self.graph, box, heads, ordered)


def _place(region: Region) -> tuple[int, ...]:
    return region.place


def _remember(came: Mapping[Region, Region], end: Region) -> bool:
    """Say to all on the way that led to a region that they lead to it. No merge is possible then."""
    r = end
    while came[r] is not r:
        r = came[r]
        r.leads_to = end.heads[0]
    return False


def merged(graph: Graph, head: Mapping[str, bool]) -> Regions:
    """The heads grouped: each with what it reads, then with those that read the same."""
    regions = Regions(graph, head)
    for h in regions.reads:
        read = sorted(regions.reads[h], key=regions.position.__getitem__, reverse=True)
        # again after each that fits: what did not fit the smaller region may fit the larger
        while any([regions.of[r] is not regions.of[h] and regions.merge(regions.of[r], regions.of[h]) for r in read]):
            pass
    readers: dict[tuple[Box, str | int], str] = {}  # siblings: what walks over one box and reads the same
    for h in regions.reads:
        region = regions.of[h]
        if region.box.kind not in ("map", "fold"):
            continue
        sources: list[str | int] = [*(id(regions.of[r]) for r in regions.reads[h]), *regions.buffers[h]]
        if region.box.kind == "map" and not regions.reads[h]:  # made of variables it can wait for its reader
            sources = [x for x in regions.buffers[h] if graph[x].op != "param"]
        for key in [(region.box, x) for x in sources]:
            other = regions.of[readers.setdefault(key, h)]
            if other is not regions.of[h]:
                regions.merge(other, regions.of[h])
    return regions

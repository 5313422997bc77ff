"""Fusion, second decision: which heads are computed by one kernel.

Heads that walk over the same box of indices are merged into one *region*: elementwise operators with their likes, with
the reductions they feed or follow, and with the contraction whose result they read at the same index. A merge must
leave the regions without a cycle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...graph.boxes import box_of
from ...graph.nodes import Graph, Node
from ...graph.ops import OPS
from ...graph.ops.contraction import is_gathered
from ...graph.ops.op import CONTRACT, KERNEL, LOOP, REDUCE
from .fits import Box, fits
from .heads import LARGE, WIDE, behind, is_buffer, renames

BUFFERS = 28  # operands and results of a region


@dataclass(slots=True)
class Region:
    box: Box
    heads: list[str]
    place: int  # in the order of regions


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
    """The regions so far: which heads are together, and who reads whom. `order` has each after those it reads; a merge
    rearranges only what stands between the two. Pearce, Kelly, "A dynamic topological sort algorithm" (2007)."""

    def __init__(self, graph: Graph, head: Mapping[str, bool]):
        self.graph, self.head = graph, head
        self.position = {n.name: k for k, n in enumerate(graph)}
        self.of: dict[str, Region] = {}
        self.order: list[Region | None] = []  # None where a region was that is now part of another
        self.reads: dict[str, tuple[str, ...]] = {}  # head -> the heads its value is computed from
        self.buffers: dict[str, tuple[str, ...]] = {}  # head -> the leaves its value is computed from
        made_of: dict[str, tuple[str, ...]] = {}  # any node -> the heads and leaves it is computed from
        for n in graph:
            sources = tuple(dict.fromkeys(h for a in n.args for h in made_of[a]))
            named = head[n.name] or is_buffer(n)
            made_of[n.name] = (n.name, *sources) if n.op == "item" else (n.name,) if named else sources
            if head[n.name]:
                self.reads[n.name] = tuple(h for h in sources if head[h])
                self.buffers[n.name] = tuple(h for h in sources if not head[h] and graph[h].shape)
                self.of[n.name] = Region(_box(graph, n), [n.name], len(self.order))
                self.order.append(self.of[n.name])

    def merge(self, one: Region, other: Region) -> bool:
        """Join two regions, if they fit; whether they did."""
        box = _joined(one.box, other.box)
        first, second = (one, other) if one.place < other.place else (other, one)
        if box is None:
            return False
        between = [r for r in self.order[first.place + 1 : second.place] if r is not None]
        after = self._readers(first, between)
        if self._reads_any(second, after):  # by way of a third region: one kernel would need itself
            return False
        heads = sorted([*first.heads, *second.heads], key=self.position.__getitem__)
        if not self._fit(box, heads):
            return False
        first.box, first.heads = box, heads
        for h in second.heads:
            self.of[h] = first
        last = second.place
        moved = [*(r for r in between if id(r) not in after), first, *(r for r in between if id(r) in after)]
        self.order[first.place : last + 1 - len(moved)] = [None] * (last + 1 - len(moved) - first.place)
        for k, r in enumerate(moved, last + 1 - len(moved)):
            self.order[k], r.place = r, k
        return True

    def _fit(self, box: Box, heads: list[str]) -> bool:
        """Whether heads make one kernel over a box, of bearable size."""
        inside = inside_of(self.graph, self.head, heads)
        operands = {x for n in inside for x in self.graph[n].args if x not in inside}
        ordered = [self.graph[n] for n in sorted(inside, key=self.position.__getitem__)]
        size = sum(len(n.args) if n.op == "concat" and len(n.args) > WIDE else 1 for n in ordered)
        return size <= LARGE and len(operands) + len(heads) <= BUFFERS and fits(self.graph, box, heads, ordered)

    def _readers(self, region: Region, between: Iterable[Region]) -> set[int]:
        """Those that read it, directly or not; given and named by identity, in order."""
        found: set[int] = set()
        for r in between:
            if any(self.of[x] is region or id(self.of[x]) in found for h in r.heads for x in self.reads[h]):
                found.add(id(r))
        return found

    def _reads_any(self, region: Region, others: set[int]) -> bool:
        return any(id(self.of[x]) in others for h in region.heads for x in self.reads[h])


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
        for key in [(region.box, x) for x in sources]:
            other = regions.of[readers.setdefault(key, h)]
            if other is not regions.of[h]:
                regions.merge(other, regions.of[h])
    return regions


def inside_of(graph: Graph, head: Mapping[str, bool], heads: Iterable[str]) -> set[str]:
    """The heads and everything inline that they are computed from."""
    inside = set(heads)
    stack = list(inside)
    while stack:
        for a in graph[stack.pop()].args:
            n = graph[a]
            inline = not head[a] and not is_buffer(n) and not _is_alias(graph, head, a, inside)
            if inline and a not in inside:
                inside.add(a)
                stack.append(a)
    return inside


def _is_alias(graph: Graph, head: Mapping[str, bool], name: str, inside: set[str]) -> bool:
    """A reshape of a buffer that is not made in the same region."""
    if not renames(graph, graph[name]):
        return False
    x = behind(graph, name, head)
    return (head[x] or is_buffer(graph[x])) and x not in inside

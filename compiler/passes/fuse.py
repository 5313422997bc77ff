"""Fusion: which operators run in one kernel. In: an optimised graph. Out: the same values, computed by `fused` nodes
whose body is a small graph, so that it prints, verifies and runs like any other.

Two decisions. First, what is stored at all: an elementwise operator or a view is *inline*, computed where it is read,
unless it is expensive and read often; what is stored is a *head*. Then heads that walk over the same box of indices are
merged into one *region*, a kernel: elementwise operators with their likes, with the reductions they feed or follow, and
with the contraction whose result they read at the same index. A merge must leave the regions without a cycle.

Which values fit into a region is a matter of axes (`fits`): each value between two heads must be read where the loop
stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..graph.boxes import box_of, side_by_side
from ..graph.cost import own_weight
from ..graph.nodes import Builder, Graph, Node, effects
from ..graph.ops import OPS
from ..graph.ops.contraction import is_gathered
from ..graph.ops.op import CONTRACT, KERNEL, LOOP, MAP, REDUCE, VIEW
from ..types.sizes import Dim, Size
from .argument import ARGUMENTS, expand
from .cse import cse
from .rewrite import Sweep, rewrite

CHEAP = 4  # weight up to which a value is computed again rather than stored
LOADS = 2  # and the most buffers it may read for that
SCALAR = 12  # the same of a scalar, which is computed once per kernel
SPREAD = 4  # weight up to which a value is computed again for each of its copies
LARGE = 96  # nodes of a region: beyond, registers spill and compilation takes its time
BUFFERS = 28  # operands and results of a region
PARTS = 48  # joined by one kernel
WIDE = 16  # parts of a concatenation that is stored: to choose among more at each read costs more than to read

ALIAS = ("reshape", "assume")  # of a buffer they are that buffer, and so is a slice of whole rows in a scan

Walk = tuple["int | None", ...]  # for each axis of a value the axis of the box it walks along; None: of size 1


def fuse(graph: Graph) -> Graph:
    """Nodes grouped into kernels; a graph that is grouped stays as it is. It must have no `grad` left."""
    if any(n.op == "fused" for n in graph):
        return graph
    if any(n.op in ARGUMENTS for n in graph):
        graph = cse(rewrite(graph, {op: (_as_reductions,) for op in ARGUMENTS}))
    if any(n.op == "concat" and len(n.args) > PARTS for n in graph):
        graph = cse(rewrite(graph, {"concat": (_in_groups,)}))
    return _rebuilt(graph, _merged(graph, _heads(graph)))


def _as_reductions(s: Sweep, n: Node) -> str | None:
    return expand(s, n, n.args[0])


def _in_groups(s: Sweep, n: Node) -> str | None:
    """Many parts are joined in groups, and those again: LLVM's time grows with the square of a kernel's length."""
    if len(n.args) <= PARTS:
        return None
    groups = [n.args[k : k + PARTS] for k in range(0, len(n.args), PARTS)]
    return s.emit("concat", *(s.emit("concat", *g, **n.attrs) for g in groups), **n.attrs)


# --- what is stored --------------------------------------------------------------------------------------------------


def _is_point(n: Node) -> bool:
    """A value that can be computed at any index: elementwise, a view, a number."""
    return OPS[n.op].kind in (MAP, VIEW) or (n.op == "constant" and not n.shape)


def _is_buffer(n: Node) -> bool:
    return n.op in ("input", "param", "item") or (n.op == "constant" and bool(n.shape))


def _heads(graph: Graph) -> dict[str, bool]:
    """For each node whether it is a head. Aliases of stored values are neither heads nor computed anywhere."""
    demanded = {_behind(graph, v, rows=False) for v in graph.roots}
    for n in graph:
        if OPS[n.op].kind in (CONTRACT, LOOP):
            demanded |= {_behind(graph, a) for a in n.args}
    weight: dict[str, int] = {}
    loads: dict[str, int] = {}
    size: dict[str, int] = {}
    head: dict[str, bool] = {}
    stored: set[str] = set()
    flows: set[str] = set()  # elementwise in a contraction that nothing else reads: stored in its stead
    folded: set[str] = set()  # elementwise in a reduction
    for n in graph:
        users = graph.users(n.name)
        kind = OPS[n.op].kind
        if kind == CONTRACT and is_gathered(n) and len(users) == 1:
            flows.add(n.name)
        if kind == REDUCE or (kind == MAP and any(a in folded for a in n.args)):
            folded.add(n.name)
        through = kind == MAP and any(a in flows for a in n.args)
        w = own_weight(n) + sum(weight[a] for a in n.args)
        r = sum(loads[a] for a in n.args) if n.op != "broadcast" else 0  # what is repeated stays at hand
        k = 1 + sum(size[a] for a in n.args)
        if _is_buffer(n):
            head[n.name] = False
        elif not _is_point(n):
            head[n.name] = True
        elif _renames(graph, n) and n.args[0] in stored and not (n.op == "slice" and n.name in demanded):
            head[n.name] = False
        elif n.name in demanded:
            head[n.name] = True
        else:
            cheap = w <= (CHEAP if n.shape else SCALAR) and r <= LOADS and not through
            head[n.name] = (
                (len(users) > 1 and not cheap)
                or k > LARGE // 2
                or (n.op == "concat" and len(n.args) > WIDE)
                or (w > SPREAD and any(_spreads(u, n.name) for u in users))
                or (n.name in folded and any(OPS[u.op].kind == REDUCE for u in users))  # small, and at hand
            )
            if through and not head[n.name]:
                flows.add(n.name)
        if head[n.name] or _is_buffer(n) or (_renames(graph, n) and n.args[0] in stored):
            stored.add(n.name)
        weight[n.name], size[n.name], loads[n.name] = (0, 0, 1) if n.name in stored else (w, k, r)
    return head


def _behind(graph: Graph, name: str, head: Mapping[str, bool] | None = None, rows: bool = True) -> str:
    """What a reshape is a reshape of: the first value that is a head, or no reshape; nor, without `rows`, a slice."""
    while _renames(graph, n := graph[name]) and (rows or n.op in ALIAS) and not (head and head[name]):
        name = n.args[0]
    return name


def _renames(graph: Graph, n: Node) -> bool:
    """A value that lies in its operand, once that is stored: a reshape, or the rows that a turn of a scan reads."""
    if n.op != "slice":
        return n.op in ALIAS
    shape, starts = graph[n.args[0]].shape, n.attrs["starts"]
    first = next((k for k, n in enumerate(n.shape) if n != 1), len(shape))  # of the axis that is cut, at most
    return (all(k == 1 for k in n.attrs["steps"]) and n.shape[first + 1 :] == shape[first + 1 :]
            and any(isinstance(a, Size) for a in starts))


def _spreads(user: Node, name: str) -> bool:
    """The user reads each element many times, in an order that does not allow to keep it meanwhile."""
    if user.op == "broadcast":
        axes = user.attrs["axes"]
        return any(k not in axes and user.shape[k] != 1 for k in range(max(axes, default=-1)))
    return user.op == "gather" and user.args[0] == name


# --- regions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Box:
    """The indices a region walks over: `kind` is map, fold (over `axes`), contract, or alone."""

    kind: str
    shape: tuple[Dim, ...]
    axes: tuple[int, ...] = ()

    @property
    def kept(self) -> tuple[Dim, ...]:
        return tuple(n for k, n in enumerate(self.shape) if k not in self.axes)


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
        return Box("contract" if gathered else "alone", n.shape)
    return Box("map", box_of(graph, n))


def _joined(a: Box, b: Box) -> Box | None:
    """The box of two regions together."""
    if a == b and a.kind in ("map", "fold"):
        return a
    if a.kind == "map" and b.kind != "map":
        a, b = b, a
    shapes = {"fold": (a.shape, a.kept), "contract": (a.shape,)}.get(a.kind, ())
    return a if b.kind == "map" and b.shape in shapes else None


class _Regions:
    """The regions so far: which heads are together, and who reads whom. `order` has each after those it reads; a merge
    rearranges only what stands between the two. Pearce, Kelly, "A dynamic topological sort algorithm" (2007)."""

    def __init__(self, graph: Graph, head: Mapping[str, bool]):
        self.graph, self.head = graph, head
        self.position = {n.name: k for k, n in enumerate(graph)}
        self.of: dict[str, Region] = {}
        self.order: list[Region | None] = []  # None where a region was that is now part of another
        self.reads: dict[str, tuple[str, ...]] = {}  # head -> the heads its value is computed from
        self.buffers: dict[str, tuple[str, ...]] = {}  # head -> the leaves its value is computed from
        behind: dict[str, tuple[str, ...]] = {}  # any node -> the heads and leaves it is computed from
        for n in graph:
            sources = tuple(dict.fromkeys(h for a in n.args for h in behind[a]))
            named = head[n.name] or _is_buffer(n)
            behind[n.name] = (n.name, *sources) if n.op == "item" else (n.name,) if named else sources
            if head[n.name]:
                self.reads[n.name] = tuple(h for h in sources if head[h])
                self.buffers[n.name] = tuple(h for h in sources if not head[h] and graph[h].shape)
                self.of[n.name] = Region(_box(graph, n), [n.name], len(self.order))
                self.order.append(self.of[n.name])

    def merge(self, a: Region, b: Region) -> bool:
        """Join two regions, if they fit; whether they did."""
        box = _joined(a.box, b.box)
        a, b = (a, b) if a.place < b.place else (b, a)
        if box is None:
            return False
        between = [r for r in self.order[a.place + 1 : b.place] if r is not None]
        after = self._readers(a, between)
        if self._reads_any(b, after):  # by way of a third region: one kernel would need itself
            return False
        heads = sorted([*a.heads, *b.heads], key=self.position.__getitem__)
        inside = inside_of(self.graph, self.head, heads)
        operands = {x for n in inside for x in self.graph[n].args if x not in inside}
        ordered = [self.graph[n] for n in sorted(inside, key=self.position.__getitem__)]
        size = sum(len(n.args) if n.op == "concat" and len(n.args) > WIDE else 1 for n in ordered)
        if size > LARGE or len(operands) + len(heads) > BUFFERS or not fits(self.graph, box, heads, ordered):
            return False
        a.box, a.heads = box, heads
        for h in b.heads:
            self.of[h] = a
        last = b.place
        moved = [*(r for r in between if id(r) not in after), a, *(r for r in between if id(r) in after)]
        self.order[a.place : last + 1 - len(moved)] = [None] * (last + 1 - len(moved) - a.place)
        for k, r in enumerate(moved, last + 1 - len(moved)):
            self.order[k], r.place = r, k
        return True

    def _readers(self, a: Region, between: Iterable[Region]) -> set[int]:
        """Those that read `a`, directly or not; given and named by identity, in order."""
        found: set[int] = set()
        for r in between:
            if any(self.of[x] is a or id(self.of[x]) in found for h in r.heads for x in self.reads[h]):
                found.add(id(r))
        return found

    def _reads_any(self, b: Region, regions: set[int]) -> bool:
        return any(id(self.of[x]) in regions for h in b.heads for x in self.reads[h])


def _merged(graph: Graph, head: Mapping[str, bool]) -> _Regions:
    regions = _Regions(graph, head)
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
            inline = not head[a] and not _is_buffer(n) and not _is_alias(graph, head, a, inside)
            if inline and a not in inside:
                inside.add(a)
                stack.append(a)
    return inside


def _is_alias(graph: Graph, head: Mapping[str, bool], name: str, inside: set[str]) -> bool:
    """A reshape of a buffer that is not made in the same region."""
    if not _renames(graph, graph[name]):
        return False
    x = _behind(graph, name, head)
    return (head[x] or _is_buffer(graph[x])) and x not in inside


# --- whether values are read where the loop stands -------------------------------------------------------------------


def fits(graph: Graph, box: Box, heads: list[str], inside: list[Node]) -> bool:
    """Whether a region over a box computes its heads: all that depends on a head is read at the point of the loop.

    Values that depend on no head of the region may be read at any index: they come from buffers."""
    whole: Walk = tuple(range(len(box.shape)))
    kept: Walk = tuple(k for k in whole if k not in box.axes)
    walk: dict[str, Walk] = {}  # of the values that depend on heads
    parted: set[str] = set()  # heads that are stored part by part, so nothing can read them
    for n in inside:
        if any(a in parted for a in n.args):
            return False
        if n.name in heads and side_by_side(graph, n):
            if box.kind != "map" or box_of(graph, n) != box.shape or any(walk.get(a, whole) != whole for a in n.args):
                return False
            parted.add(n.name)
            continue
        along = _along(graph, n, box, walk, whole, kept)
        if isinstance(along, bool):
            return False
        if n.name in heads:
            expected = whole if n.shape == box.shape else kept
            if along not in (None, expected) or n.shape not in (box.shape, box.kept):
                return False
            along = expected
        if along is not None:
            walk[n.name] = along
    return True


def _along(graph: Graph, n: Node, box: Box, walk: Mapping[str, Walk], whole: Walk, kept: Walk) -> Walk | bool | None:
    """The walk of a value: None where it depends on no head, False where it does not fit."""
    operands = [walk.get(a) for a in n.args]
    known = [w for w in operands if w is not None]
    kind = OPS[n.op].kind
    if kind == REDUCE and n.attrs["axes"]:
        return kept if (n.attrs["axes"] == box.axes and operands[0] in (None, whole)) else False
    if kind == CONTRACT:
        return False if known else whole
    if not known:
        return None
    w = known[0]
    if kind in (MAP, REDUCE):
        return w if all(v == w for v in known) else False
    match n.op:
        case "broadcast":
            along: list[int | None] = [None] * len(n.shape)
            for k, a in enumerate(n.attrs["axes"]):
                along[a] = w[k]
            if n.shape == box.shape:  # new axes are those of the box
                return whole if all(v == k for k, v in enumerate(along) if k in n.attrs["axes"]) else False
            return tuple(along) if all(v is not None or m == 1 for v, m in zip(along, n.shape, strict=True)) else False
        case "transpose":
            return tuple(w[k] for k in n.attrs["perm"])
        case "assume":
            return w
        case "reshape":
            return _squeezed(graph[n.args[0]].shape, n.shape, w)
        case "take_along" if operands[0] in (None, whole) and operands[1] in (None, kept):
            return kept if box.axes == (len(box.shape) - 1,) else False
    return False


def _squeezed(old: tuple[Dim, ...], new: tuple[Dim, ...], w: Walk) -> Walk | bool:
    """The walk of a reshape that only adds or drops axes of size 1."""
    if [n for n in old if n != 1] != [n for n in new if n != 1]:
        return False
    left = iter([v for n, v in zip(old, w, strict=True) if n != 1])
    return tuple(None if n == 1 else next(left) for n in new)


# --- the graph of regions --------------------------------------------------------------------------------------------


def _rebuilt(graph: Graph, regions: _Regions) -> Graph:
    head, position = regions.head, regions.position
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    needed = _needed(graph, regions)

    def place(name: str) -> None:
        """Emit a buffer or an alias where it is first asked for."""
        pending = [name]
        while pending:
            n = graph[pending[-1]]
            if n.name in b.nodes or (_renames(graph, n) and n.args[0] not in b.nodes):
                pending.pop() if n.name in b.nodes else pending.append(n.args[0])
                continue
            attrs = {**n.attrs, "lies": True} if n.op == "slice" else n.attrs
            b.nodes[n.name] = Node(n.name, n.op, n.args, attrs, n.type, n.span)
            pending.pop()

    for n in graph:
        if n.op in ("input", "param"):
            place(n.name)
    for region in filter(None, regions.order):
        results = [h for h in region.heads if h in needed]
        if not results and not (results := list(effects(graph[h] for h in region.heads))):
            continue  # dead
        inside = inside_of(graph, head, region.heads)
        nodes = [graph[v] for v in sorted(inside, key=position.__getitem__)]
        operands = list(dict.fromkeys(a for n in nodes for a in n.args if a not in inside))
        for a in operands:
            place(a)
        if len(nodes) == 1:
            b.nodes[nodes[0].name] = nodes[0]
            continue
        body = Builder("body", OPS)
        for a in operands:
            body.nodes[a] = Node(a, "input", (), {"name": a, "type": graph[a].type}, graph[a].type, graph[a].span)
        body.nodes.update((n.name, n) for n in nodes)
        inner = body.finish(tuple((h, h) for h in results))
        span = graph[results[-1]].span
        if len(results) == 1:
            b.add("fused", tuple(operands), {"body": inner}, results[0], span)
            continue
        every = b.add("fused", tuple(operands), {"body": inner}, b.fresh("f"), span)
        for k, h in enumerate(results):
            b.add("item", (every,), {"index": k}, h, graph[h].span)
    for _, v in graph.outputs + graph.updates:
        place(v)
    return b.finish(graph.outputs, graph.updates)


def _needed(graph: Graph, regions: _Regions) -> set[str]:
    """The heads that are read outside their region, or by the outside. What is there for its effect need not be."""
    needed = {_behind(graph, v, regions.head) for _, v in graph.outputs + graph.updates}
    for region in filter(None, regions.order):
        inside = inside_of(graph, regions.head, region.heads)
        needed |= {_behind(graph, a, regions.head) for n in inside for a in graph[n].args if a not in inside}
    return needed | {graph[v].args[0] for v in needed if graph[v].op == "item"}

"""Fusion, whether values fit into a region: each that lies between two heads is read where the loop stands.

That is a matter of axes. The *walk* of a value says, for each of its axes, along which axis of the box it goes.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....dsl.record import dataclass
from ...graph.boxes import box_of, is_framed, side_by_side
from ...graph.nodes import Graph, Node
from ...graph.ops import OPS
from ...graph.ops.op import CONTRACT, MAP, REDUCE
from ...types.sizes import Dim

Walk = tuple["int | None", ...]  # for each axis of a value the axis of the box it walks along; None: of size 1


@dataclass(frozen=True, slots=True)
class Box:
    """The indices a region walks over: `kind` is map, fold (over `axes`), gathered, or alone."""

    kind: str
    shape: tuple[Dim, ...]
    axes: tuple[int, ...] = ()

    @property
    def kept(self) -> tuple[Dim, ...]:
        return tuple(n for k, n in enumerate(self.shape) if k not in self.axes)


def fits(graph: Graph, box: Box, heads: list[str], inside: list[Node]) -> bool:
    """Whether a region over a box computes its heads: all that depends on a head is read at the point of the loop.

    Values that depend on no head of the region may be read at any index: they come from buffers."""
    whole: Walk = tuple(range(len(box.shape)))
    kept: Walk = tuple(k for k in whole if k not in box.axes)
    walk: dict[str, Walk] = {}  # of the values that depend on heads
    parted: set[str] = set()  # heads that are stored part by part, so nothing can read them
    for n in inside:
        if parted and not parted.isdisjoint(n.args):
            return False
        if n.name in heads and side_by_side(graph, n):
            if box.kind != "map" or box_of(graph, n) != box.shape or any(walk.get(a, whole) != whole for a in n.args):
                return False
            parted.add(n.name)
            continue
        if n.name in heads and box.kind == "gathered" and is_framed(graph, n, box.shape):
            if walk.get(n.args[0], whole) != whole:
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
    if n.op == "take_along":
        if len(n.shape) >= len(graph[n.args[0]].shape):  # many of each last axis: at the point of their indices
            return w if operands[0] is None else False
        read = operands[0] in (None, whole) and operands[1] in (None, kept)
        return kept if read and box.axes == (len(box.shape) - 1,) else False
    axes = OPS[n.op].axes
    seen = axes(n.attrs, graph[n.args[0]].shape, n.shape) if axes else None
    if seen is None or any(s.part or s.step < 0 for s in seen):
        return False
    goes = {s.axis: v for s, v in zip(seen, w, strict=True) if s.axis is not None}
    if len(goes) < len(n.shape) and n.shape == box.shape:  # new axes are those of the box
        return whole if all(v == k for k, v in goes.items()) else False
    along = tuple(goes.get(k) for k in range(len(n.shape)))
    return along if all(v is not None or m == 1 for v, m in zip(along, n.shape, strict=True)) else False

"""The body of a scan as an entry of its own, and as steps of what is around it; which scans threads share.

Turns that have nothing of each other are shared one by one; where each example is computed alone (`shares`) threads
take all turns for some of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...dsl.record import dataclass, replace
from ..graph.cost import number
from ..graph.nodes import Builder, Graph, Node
from ..graph.ops import OPS
from ..loops import ir as L
from ..types.sizes import Dim, highest, symbol
from ..types.tensors import TensorType
from .kernels.sharing import FORK
from .memory import Plan

UNTIL = "until"
TURNS = 16  # that threads share, at most: each has an arena of its own


def carry(k: int) -> str:
    return f"carry {k}"


def entry_of(graph: Graph, node: Node) -> Graph:
    """The body of a scan as an entry of its own: what it carries is a variable that each turn updates."""
    body, carries = node.attrs["body"], node.attrs["carries"]
    b = Builder(f"{graph.name}.{node.name}", OPS)
    inputs = [n.name for n in body if n.op == "input"]
    position = {name: k for k, name in enumerate(inputs)}
    for n in body:
        if position.get(n.name, carries) < carries:
            n = Node(n.name, "param", (), {"path": carry(position[n.name]), "type": n.type}, n.type, n.span)
        b.nodes[n.name] = n
    updates = tuple((carry(k), v) for k, (_, v) in enumerate(body.outputs[:carries]))
    last = [UNTIL] * node.attrs["until"]
    names = [*(str(k) for k in range(len(body.outputs) - carries - len(last))), *last]
    outputs = tuple((name, v) for name, (_, v) in zip(names, body.outputs[carries:], strict=True))
    return b.finish(outputs, updates)


@dataclass(frozen=True, slots=True)
class Steps:
    """What one graph becomes: its plan, its steps, and the constants in it and in its loops."""

    plan: Plan
    steps: tuple[L.Step, ...]
    constants: tuple[L.Constant, ...]
    work: Dim  # on one thread, in picoseconds
    types: tuple[tuple[TensorType, ...], ...]  # of what each call reads and writes, but for what it needs for itself
    share: L.Share | None = None  # of the examples, for which the steps are then
    each: int = 0  # bytes of arena for an example, then


def is_parallel(node: Node, lowered: Steps) -> bool:
    """Whether threads share a scan: its examples, or its turns, few, each with an arena of its own, that have nothing
    of each other and much to do."""
    if lowered.share is not None:
        return True
    count, apart = node.attrs["count"], not node.attrs["carries"] and not node.attrs["until"]
    few = isinstance(count, int) and 1 < count <= TURNS
    return apart and few and number(highest(lowered.work, node.attrs["index"], count)) > FORK


def _of_turns(node: Node, lowered: Steps) -> Dim:
    """Bytes of arena that are enough for any turn."""
    return highest(lowered.plan.arena, node.attrs["index"], node.attrs["count"])


def needs(node: Node, lowered: Steps) -> Dim:
    """Bytes of arena for all turns. One is used again in the next, but not by another thread."""
    if lowered.share is not None:
        return (lowered.share.of + lowered.share.grain) * lowered.each
    return _of_turns(node, lowered) * (node.attrs["count"] if is_parallel(node, lowered) else 1)


def begins(node: Node, lowered: Steps) -> Dim:
    """Where in these bytes the arena of a turn is."""
    if lowered.share is not None:
        return symbol(lowered.share.first) * lowered.each
    return symbol(node.attrs["index"]) * _of_turns(node, lowered) if is_parallel(node, lowered) else 0


def moved(steps: tuple[L.Step, ...], slots: Mapping[str, L.Place], arena: L.Place) -> tuple[L.Step, ...]:
    """The steps of a body with its slots and its arena where they are around it."""

    def place(p: L.Place) -> L.Place:
        base = slots[p.name] if p.base == "slot" else arena if p.base == "arena" else None
        return p if base is None else shifted(base, p.offset)

    return tuple(
        replace(s, steps=moved(s.steps, slots, arena), until=None if s.until is None else place(s.until))
        if isinstance(s, L.Loop)
        else replace(s, places=tuple(map(place, s.places)))
        for s in steps
    )


def shifted(place: L.Place, by: Dim) -> L.Place:
    return L.Place(place.base, place.name, place.offset + by)

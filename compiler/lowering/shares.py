"""Scans whose turns compute each example alone: a thread takes all turns for some of the examples, and waits for no
other one between them.

In: the body of a scan as steps. Out: the same steps for some of the examples: kernels are told how many there are, what
lies outside is moved on to the first of them, and what lies in the arena is in a part of it that no other thread has.
No bit changes: within an example nothing depends on how many there are.
"""

from __future__ import annotations

from ...dsl.record import replace
from ..graph.cost import number
from ..graph.examples import apart
from ..graph.nodes import Graph, Node, mentions
from ..loops import ir as L
from ..types.sizes import Dim, highest, substitute, symbol, symbols, terms
from ..types.tensors import TensorType
from .kernels.sharing import FORK
from .memory import is_kernel, types
from .turns import Steps

ROWS = 8  # examples that go together: rows of a tile
FAR = 1 << 20  # bytes that do not depend on examples, which each thread reads in each turn: they stay near
LINE = 64
SEEN = 256  # examples: more of them need no more bytes for each


def shared(node: Node, graph: Graph, lowered: Steps) -> Steps:
    """The body of a scan, such that threads share the examples where that can be and is worth its while."""
    size, index, count = _size(node), node.attrs["index"], node.attrs["count"]
    if size is None or not _is_apart(graph, size, lowered):
        return lowered
    names = {s for n in graph for t in types(n) for d in t.shape for s in symbols(d)} | {index}
    first, some = (_free(f"{index}_{what}", names) for what in ("first", "some"))
    work = highest(lowered.work, index, count) * count
    one = max(1, number(work, {size: 2}) - number(work, {size: 1}))
    share = L.Share(first, some, symbol(size), -(-max(ROWS, -(-FORK // one)) // ROWS) * ROWS)
    each = _bytes(highest(lowered.plan.arena, index, count), size, share.grain)
    if each is None:
        return lowered
    steps = tuple(_of(s, t, share, size) for s, t in zip(lowered.steps, lowered.types, strict=True))
    return replace(lowered, steps=steps, share=share, each=each)


def _size(node: Node) -> str | None:
    """The size that is the first axis of all that a scan carries."""
    carried = types(node)[: node.attrs["carries"]]
    first = {t.shape[0] if t.shape else 1 for t in carried}
    size = first.pop() if len(first) == 1 and not node.attrs["until"] else 1
    return str(size) if symbols(size) == {str(size)} else None


def _is_apart(graph: Graph, size: str, lowered: Steps) -> bool:
    """Whether each kernel computes each example alone, from the same place on in each of its buffers, and needs no
    memory for itself; and what they all read is not much."""
    kernels = [n for n in graph if is_kernel(n)]
    for s, given in zip(lowered.steps, lowered.types, strict=True):
        if isinstance(s, L.Loop) or len(s.places) != len(given) or not _leads(given[-1], size):
            return False
        if any(mentions(t, size) and not _leads(t, size) for t in given):
            return False
    read = {a: t for n in kernels for a in n.args for t in types(graph[a]) if not mentions(t, size)}
    written = all(_leads(t, size) for n in kernels for t in types(n))
    return written and sum(number(t.nbytes) for t in read.values()) <= FAR and apart(graph, size)


def _leads(t: TensorType, size: str) -> bool:
    return bool(t.shape) and str(t.shape[0]) == size and not mentions(t.shape[1:], size)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _bytes(arena: Dim, size: str, grain: int) -> int | None:
    """Of the arena for an example, where there are `grain` or more, and for so many where there are fewer; None where
    that depends on other sizes."""
    if symbols(arena) - {size} or any(len(m) > 1 for m, _ in terms(arena)):
        return None
    most = max(-(-number(arena, {size: n}) // max(n, grain)) for n in range(1, SEEN))
    return -(-most // LINE) * LINE


def _of(step: L.Step, given: tuple[TensorType, ...], share: L.Share, size: str) -> L.Step:
    """A call, for the examples of a share."""
    assert isinstance(step, L.Call)
    some = {size: symbol(share.count)}

    def moved(p: L.Place, t: TensorType) -> L.Place:
        if p.base == "arena":
            return replace(p, offset=substitute(p.offset, some))
        by = t.with_shape(t.shape[1:]).nbytes * symbol(share.first) if _leads(t, size) else 0
        return replace(p, offset=p.offset + by)

    places = tuple(moved(p, t) for p, t in zip(step.places, given, strict=True))
    return replace(step, sizes=tuple(substitute(n, some) for n in step.sizes), places=places)

"""How many examples an entry runs at a time, where it computes each alone: micro-batches.

In: the graph of an entry as kernels, the size that counts examples, bytes of its arena. Out: `loops.Microbatches`. The
one idea: what a kernel writes, the next one finds in the second-level cache, if there are not too many examples; but
parameters are read anew for each micro-batch, so that there must not be too few.
"""

from __future__ import annotations

from ..graph.cost import number
from ..graph.nodes import Graph, Node
from ..graph.ops import OPS
from ..graph.ops.op import LEAF
from ..loops.ir import Microbatches
from ..types.sizes import Dim
from ..types.tensors import TensorType, Type

NEAR = 3 << 18  # bytes of an arena that stay in the second-level cache
READ = 4  # of the bytes between kernels, one in so many may be of a parameter
ROUND = 16  # more examples than that are a multiple of it: whole vectors, whole tiles of rows


def microbatches(graph: Graph, size: str, arena: Dim, step: int) -> Microbatches | None:
    """None where kernels hand nothing to each other. More examples than a `step` are so many times some."""
    one, two = (number(arena, {size: n}) for n in (1, 2))
    always, moved = _traffic(graph, size)
    if one == two or not moved:
        return None
    fit = 1 + max(0, NEAR - one) // (two - one)
    length = max(fit, -(-READ * always // moved), step)
    return Microbatches(size, length if length < ROUND else length // ROUND * ROUND, step)


def _traffic(graph: Graph, size: str) -> tuple[int, int]:
    """Bytes that kernels read and write in any case, and for each example more."""
    always = more = 0
    for n in graph:
        if OPS[n.op].kind == LEAF or n.op == "item":
            continue
        if n.op == "scan":
            turns = number(n.attrs["count"])
            inside = _traffic(n.attrs["body"], size)
            always, more = always + turns * inside[0], more + turns * inside[1]
            continue
        none, one = (sum(_bytes(t, size, k) for t in (n.type, *_given(graph, n))) for k in (0, 1))
        always, more = always + none, more + one - none
    return always, more


def _given(graph: Graph, n: Node) -> list[Type]:
    return [graph[a].type for a in dict.fromkeys(n.args)]


def _bytes(t: Type, size: str, value: int) -> int:
    if isinstance(t, TensorType):
        return number(t.nbytes, {size: value})
    return sum(_bytes(i, size, value) for i in t.items)

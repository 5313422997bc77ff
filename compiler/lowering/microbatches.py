"""How many examples an entry runs at a time, where it computes each alone: micro-batches.

In: the graph of an entry as kernels, the size that counts examples, bytes of its arena. Out: `loops.Microbatches`. The
one idea: what a kernel writes, the next one finds in the second-level cache, if there are not too many examples; but
what does not depend on them is read, or computed, anew for each micro-batch, so that there must not be too few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..graph.cost import number, operations
from ..graph.nodes import Graph
from ..graph.ops import OPS
from ..graph.ops.op import LEAF
from ..loops.ir import Microbatches
from ..types.sizes import Dim
from ..types.tensors import TensorType, Type

NEAR = 3 << 18  # bytes of an arena that stay in the second-level cache
READ = 4  # of the bytes and operations of a micro-batch one in so many may be such as do not depend on the examples
ROUND = 16  # more examples than that are a multiple of it: whole vectors, whole tiles of rows


def microbatches(graph: Graph, size: str, arena: Dim, step: int) -> Microbatches | None:
    """None where kernels hand nothing to each other. More examples than a `step` are so many times some."""
    one, two = (number(arena, {size: n}) for n in (1, 2))
    none, first = (_work(graph, {size: n}) for n in (0, 1))
    if one == two or first.nbytes == none.nbytes:
        return None
    fit = 1 + max(0, NEAR - one) // (two - one)
    read, compute = (-(-READ * k // max(1, n - k)) for k, n in zip(none, first, strict=True))
    length = max(fit, read, compute, step)
    return Microbatches(size, length if length < ROUND else length // ROUND * ROUND, step)


class _Work(NamedTuple):
    nbytes: int  # that kernels read and write
    operations: int


def _work(graph: Graph, sizes: Mapping[str, int]) -> _Work:
    nbytes = done = 0
    for n in graph:
        if OPS[n.op].kind == LEAF or n.op == "item":
            continue
        if n.op == "scan":
            turns = number(n.attrs["count"], sizes)
            inside = _work(n.attrs["body"], {**sizes, n.attrs["index"]: turns // 2})
            nbytes, done = nbytes + turns * inside.nbytes, done + turns * inside.operations
            continue
        given = [graph[a].type for a in dict.fromkeys(n.args)]
        nbytes += sum(_bytes(t, sizes) for t in (n.type, *given))
        done += operations(n, [graph[a].type for a in n.args], sizes)
    return _Work(nbytes, done)


def _bytes(t: Type, sizes: Mapping[str, int]) -> int:
    return number(t.nbytes, sizes) if isinstance(t, TensorType) else sum(_bytes(i, sizes) for i in t.items)

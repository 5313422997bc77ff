"""Offsets in the arena: which values share a buffer, how long each lives, and where it lies.

A size is a polynomial in the size symbols, so buffers are placed by the kind of their size (`1`, `B`, `B*T`): within a
kind lifetimes and offsets are numbers, and the kinds follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from math import gcd

import numpy as np

from ....dsl.record import dataclass
from ...graph.nodes import Graph
from ...graph.ops import OPS
from ...graph.ops.op import LOOP
from ...loops.index import term, total
from ...types.sizes import Dim, terms
from ...types.tensors import BYTES
from .inplace import Overwrites
from .order import Order
from .plans import Line
from .values import Value, types

ALIGNMENT = 64  # of buffers whose size is a number; others, such as 40*B, fill cache lines for some B only, and are
# aligned as the largest element is


@dataclass(slots=True)
class Buffer:
    """Bytes that values share, one after the other, from the kernel that writes the first to the last that reads."""

    values: list[Value]
    size: Dim
    born: int
    dies: int


def buffers(
    graph: Graph,
    root: Mapping[str, Value],
    order: Order,
    scratch: Mapping[str, Sequence[Dim]],
    overwrites: Overwrites,
) -> list[Buffer]:
    """The buffers of the arena, in the order in which they are needed. What a kernel is the last to read it may write
    over."""
    last = {root[a]: k for k, name in enumerate(order.kernels) for a in graph[name].args}
    end = len(order.kernels)
    where: dict[Value, Buffer] = {}
    for source, target, early in order.moves:
        if not early:
            last[source] = end
        elif target not in order.places and target not in where:
            where[target] = Buffer([target], types(graph[source[0]])[source[1]].nbytes, 0, end)
    for k, name in enumerate(order.kernels):
        operands = [root[a] for a in graph[name].args]
        free = [v for v in operands if v in where and where[v].dies == k]  # what this kernel is the last to read
        for r, type_ in enumerate(types(graph[name])):
            value = (name, r)
            if value in order.places:
                continue
            shared = next((where[v] for v in free if overwrites(name, r, v)), None)
            if shared is not None:
                free = [v for v in free if where[v] is not shared]
                shared.values.append(value)
                shared.dies = max(k, last.get(value, k))
                where[value] = shared
            else:
                where[value] = Buffer([value], type_.nbytes, k, last.get(value, k))
        for n, size in enumerate(scratch.get(name, ())):
            where[name, -1 - n] = Buffer([(name, -1 - n)], size, k, k)
    return list({id(buffer): buffer for buffer in where.values()}.values())


def arranged(graph: Graph, buffers: Sequence[Buffer]) -> tuple[list[tuple[Buffer, Dim]], Dim]:
    """Where each buffer begins, kind after kind, and the size of the arena."""
    kinds: dict[Dim, list[tuple[Buffer, int]]] = {}
    for buffer in buffers:
        c, kind = _content(buffer.size)
        kinds.setdefault(kind, []).append((buffer, c))
    element = max((_element(graph, v) for buffer in buffers for v in buffer.values), default=1)
    base: Dim = 0
    found: list[tuple[Buffer, Dim]] = []
    for kind in sorted(kinds, key=lambda d: (d != 1, str(d))):
        offset, used = _fit(kinds[kind], ALIGNMENT if kind == 1 else element)
        found += [(buffer, base + kind * at) for (buffer, _), at in zip(kinds[kind], offset, strict=True)]
        base = base + kind * used
    return found, base


def shown(graph: Graph, buffer: Buffer, offset: Dim) -> Line:
    """A buffer as people know it."""
    return Line(tuple(_shown(graph, v) for v in buffer.values), buffer.size, offset, buffer.born, buffer.dies)


def _shown(graph: Graph, value: Value) -> Value:
    """The node by which people know a value."""
    node, k = graph[value[0]], value[1]
    if OPS[node.op].kind == LOOP and k >= 0:
        items = (n.name for n in graph.users(node.name) if n.op == "item" and n.attrs["index"] == k)
        found = next(items, None)
        return (node.name, -1) if found is None else (found, 0)
    return (node.attrs["body"].outputs[max(0, k)][0], min(0, k)) if node.op == "fused" else value


def _element(graph: Graph, value: Value) -> int:
    """Bytes of the largest element of a value, or of what a node keeps for itself."""
    node, k = graph[value[0]], value[1]
    made = types(node) if k >= 0 else (*types(node), *(t for a in node.args for t in types(graph[a])))
    own = max((BYTES[t.dtype] for t in (made if k < 0 else made[k : k + 1])), default=1)
    if k >= 0 or "body" not in node.attrs:
        return own
    body = node.attrs["body"]
    return max([own, *(_element(body, (n.name, -1)) for n in body)])


def _content(size: Dim) -> tuple[int, Dim]:
    """A size as number times kind: 12*B + 8 is 4 times (3*B + 2)."""
    if isinstance(size, int):
        return size, 1
    c = reduce(gcd, (abs(c) for _, c in terms(size)))
    return c, total(term(m, k // c) for m, k in terms(size))


def _own(buffer: Buffer) -> int:
    """0 of a value, else which of what a kernel keeps for itself: what it needs for some sizes only, such as the sums
    of a long product, comes last, and memory that nobody touches is never taken."""
    return max(0, -buffer.values[0][1])


def _fit(buffers: Sequence[tuple[Buffer, int]], alignment: int) -> tuple[list[int], int]:
    """Offsets for buffers of one kind, values first, the largest first, each into the smallest gap that is free while
    it lives."""
    size = [-(-n // alignment) * alignment for _, n in buffers]
    number = np.int64 if sum(size) < 2**63 else np.object_
    placed = np.zeros((4, len(buffers)), number)  # of those that have a place: start, stop, born, dies; by start
    offset = [0] * len(buffers)
    order = sorted(range(len(buffers)), key=lambda k: (_own(buffers[k][0]), -buffers[k][1], buffers[k][0].born, k))
    for count, k in enumerate(order):
        buffer, n = buffers[k][0], size[k]
        starts, stops, born, dies = placed[:, :count]
        busy = (born <= buffer.dies) & (dies >= buffer.born)
        begins = starts[busy]
        ends = np.maximum.accumulate(np.concatenate(([0], stops[busy])))  # where what lies below is over
        gaps = begins - ends[:-1]
        wide = np.flatnonzero(gaps >= n)
        at = int(ends[wide[np.argmin(gaps[wide])]] if len(wide) else ends[-1])
        after = np.searchsorted(starts, at)
        placed[:, after + 1 : count + 1] = placed[:, after:count]
        placed[:, after] = at, at + n, buffer.born, buffer.dies
        offset[k] = at
    return offset, max((at + n for at, n in zip(offset, size, strict=True)), default=0)

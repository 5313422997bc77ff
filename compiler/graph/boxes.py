"""Where the elements of a value lie, row-major, and the box of points at which a kernel computes one."""

from __future__ import annotations

from collections.abc import Sequence

from ..loops.index import total
from ..types.sizes import Dim
from .nodes import Graph, Node


def strides(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Row-major, in elements."""
    out: list[Dim] = []
    step: Dim = 1
    for n in reversed(shape):
        out.append(step)
        step = step * n
    return tuple(reversed(out))


def flat(index: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    return total(i * s for i, s in zip(index, strides(shape), strict=True))


def side_by_side(graph: Graph, node: Node) -> bool:
    """Whether a result is several values of one shape, each stored at the same point as the others."""
    return node.op == "concat" and len({graph[a].shape for a in node.args}) == 1


def is_framed(graph: Graph, node: Node, box: Sequence[Dim]) -> bool:
    """Whether a result has a margin around a box: what is inside can be stored at the points of the box."""
    if node.op != "pad" or node.shape == (shape := graph[node.args[0]].shape) or shape != tuple(box):
        return False
    return all(isinstance(n, int) and n >= 0 for n in (*node.attrs["low"], *node.attrs["high"]))


def box_of(graph: Graph, node: Node) -> tuple[Dim, ...]:
    """The points at which a kernel without sums computes a result."""
    return graph[node.args[0]].shape if side_by_side(graph, node) else node.shape

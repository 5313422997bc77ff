"""Results with a margin around what a kernel computes: see `graph.boxes.is_framed`.

The one idea: who reads an image under a window wants a margin around it, so it is stored within one at once. The points
of the margin are those that are outside along one axis, inside along those before it, and anywhere along those behind.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import prod

from ...graph.boxes import is_framed, strides
from ...graph.nodes import Node
from ...graph.ops.plumbing import constant_expr
from ...types.sizes import Dim
from .body import Body, Results, lanes


def frame(body: Body, outputs: Results) -> None:
    """Store the margins of the results of a kernel that computes what is inside."""
    for name, buffer in outputs.items():
        node = body.graph[name]
        if buffer is not None and is_framed(body.graph, node, body.graph[body.leading].shape):
            for axis in range(len(node.shape)):
                _beside(body, node, buffer, axis)


def _beside(body: Body, node: Node, buffer: str, axis: int) -> None:
    """What is outside along an axis: before what is inside, and behind it."""
    low, size, value = node.attrs["low"], body.graph[node.args[0]].shape, constant_expr(node.attrs["value"], node.dtype)
    steps, behind = strides(node.shape), prod(node.shape[axis + 1 :])
    for start, count in ((0, low[axis]), (low[axis] + size[axis], node.attrs["high"][axis])):
        if count:
            with ExitStack() as stack:
                at: Dim = start * behind
                for k in range(axis):
                    at = at + (low[k] + stack.enter_context(body.loop(size[k], parallel=True))) * steps[k]
                j = stack.enter_context(body.loop(count * behind, lanes=lanes(body.graph), stem="j"))
                body.store(buffer, at + j, value)

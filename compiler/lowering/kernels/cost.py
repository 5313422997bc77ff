"""How long a kernel takes, roughly: enough to choose between one thread and all."""

from __future__ import annotations

from ...graph.cost import number, own_weight
from ...graph.nodes import Graph
from ...graph.ops import OPS
from ...graph.ops.op import CONTRACT, KERNEL, MAP, REDUCE
from ...types.tensors import BYTES, TensorType

FORK = 20_000.0  # nanoseconds of work below which a parallel region does not pay


def nanoseconds(graph: Graph) -> float:
    """The time of a kernel on one thread: arithmetic at 16 lanes, memory at the speed of the second-level cache."""
    total = 0.0
    for node in graph:
        kind = OPS[node.op].kind
        flops = OPS[node.op].flops
        operands = [t for t in (graph[a].type for a in node.args) if isinstance(t, TensorType)]
        result = node.type if isinstance(node.type, TensorType) else TensorType("f32")
        if (kind == CONTRACT or node.op == "filter_gradient") and flops is not None:
            total += number(flops(operands, dict(node.attrs), result)) / 80
        elif node.op == "argsort" and flops is not None:
            total += number(flops(operands, dict(node.attrs), result)) * 1.5
        elif kind in (REDUCE, KERNEL):
            total += number(operands[0].size if operands else 0) * 0.05
        elif kind == MAP:
            total += number(result.size) * own_weight(node) * 0.015
        elif node.op == "input":
            total += number(result.size) * BYTES[result.dtype] * 0.015
    return total

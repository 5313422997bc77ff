"""What operators cost, roughly: enough to choose between storing and computing again, and between one thread and all.

A weight is in vector instructions per element, measured on the vector mathematics of this back end.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...graph.nodes import Graph, Node
from ...graph.ops import OPS
from ...graph.ops.op import CONTRACT, KERNEL, MAP, REDUCE
from ...types.sizes import Dim, substitute, symbols
from ...types.tensors import BYTES, TensorType

_WEIGHTS = {
    "exp": 14, "log": 20, "log1p": 24, "expm1": 18, "tanh": 18, "logistic": 18, "erf": 25, "sin": 18, "cos": 18,
    "pow": 45, "div": 5, "sqrt": 6, "rsqrt": 10, "floordiv": 20, "mod": 20, "random": 40,
    "stop_grad": 0, "straight_through": 0,
}  # fmt: skip
TYPICAL = 64  # what a size that is not known at compile time is taken to be
FORK = 20_000.0  # nanoseconds of work below which a parallel region does not pay


def own_weight(node: Node) -> int:
    """Of one element of a node, without its operands. Views and constants cost nothing."""
    kind = OPS[node.op].kind
    if kind == MAP:
        return _WEIGHTS.get(node.op, 1) if node.args else int(node.op == "random")
    return 1 if kind == REDUCE else 0


def number(size: Dim, hints: Mapping[str, int] | None = None) -> int:
    """A size as a number, symbols as `hints` say or typical."""
    known = dict.fromkeys(symbols(size), TYPICAL) | dict(hints or {})
    value = substitute(size, known)
    return max(0, value) if isinstance(value, int) else TYPICAL


def nanoseconds(graph: Graph) -> float:
    """The time of a kernel on one thread: arithmetic at 16 lanes, memory at the speed of the second-level cache."""
    total = 0.0
    for node in graph:
        kind = OPS[node.op].kind
        flops = OPS[node.op].flops
        operands = [t for t in (graph[a].type for a in node.args) if isinstance(t, TensorType)]
        result = node.type if isinstance(node.type, TensorType) else TensorType("f32")
        if kind == CONTRACT and flops is not None:
            total += number(flops(operands, dict(node.attrs), result)) / 80
        elif kind in (REDUCE, KERNEL):
            total += number(operands[0].size if operands else 0) * 0.05
        elif kind == MAP:
            total += number(result.size) * own_weight(node) * 0.015
        elif node.op == "input":
            total += number(result.size) * BYTES[result.dtype] * 0.015
    return total



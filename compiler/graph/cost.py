"""What operators cost, roughly: enough to choose between storing a value and computing it again.

A weight is in vector instructions per element; each operator says its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..types.sizes import Dim, substitute, symbols
from ..types.tensors import TensorType, Type
from .nodes import Graph, Node
from .ops import OPS
from .ops.op import LEAF, MAP, REDUCE, VIEW

EXP = OPS["exp"].weight
TYPICAL = 64  # what a size that is not known at compile time is taken to be


def own_weight(node: Node) -> int:
    """Of one element of a node, without its operands. Views and constants cost nothing."""
    op = OPS[node.op]
    return op.weight if op.kind == MAP else int(op.kind == REDUCE)


def waits(graph: Graph) -> bool:
    """Whether long functions wait for one another: one of about twenty instructions, and about as many before or behind
    it in the chain of operators that weighs most. Where one is longer its registers are all there are."""
    chains: dict[str, tuple[int, int]] = {}  # by node the weight of the chain to it, and the heaviest in that
    for n in graph:
        total, heaviest = max((chains[a] for a in n.args), default=(0, 0))
        chains[n.name] = total + own_weight(n), max(heaviest, own_weight(n))
    total, heaviest = max(chains.values(), default=(0, 0))
    return EXP <= heaviest <= 2 * EXP and total - heaviest >= EXP


def operations(node: Node, types: Sequence[Type], sizes: Mapping[str, int]) -> int:
    """How many a node has, roughly, of operands of these types: in a product two for each pair of elements."""
    flops = OPS[node.op].flops
    if "body" in node.attrs:
        body, turns = node.attrs["body"], number(node.attrs.get("count", 1), sizes)
        ends = [{**sizes, node.attrs["index"]: i} for i in (0, turns - 1)] if "index" in node.attrs else [sizes]
        work = (operations(n, [body[a].type for a in n.args], at) for at in ends for n in body)
        return turns * sum(work) // len(ends)  # what grows with the turn grows evenly
    if OPS[node.op].kind in (LEAF, VIEW) or node.op == "constant":
        return 0
    if flops is not None:
        return number(flops(types, dict(node.attrs), node.type), sizes)
    return number(node.type.size, sizes) if isinstance(node.type, TensorType) else 0


def number(size: Dim, hints: Mapping[str, int] | None = None) -> int:
    """A size as a number, symbols as `hints` say or typical."""
    value = value_of(size, dict.fromkeys(symbols(size), TYPICAL) | dict(hints or {}))
    return TYPICAL if value is None else max(0, value)


def value_of(x: Dim, known: Mapping[str, int]) -> int | None:
    """The number that this is for these sizes; None where there is none, as of B // (B - 1) for 1."""
    try:
        value = substitute(x, known)
    except ZeroDivisionError:
        return None
    return value if isinstance(value, int) else None

"""What operators cost, roughly: enough to choose between storing a value and computing it again.

A weight is in vector instructions per element; each operator says its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..types.sizes import Dim, substitute, symbols
from .nodes import Node
from .ops import OPS
from .ops.op import MAP, REDUCE

TYPICAL = 64  # what a size that is not known at compile time is taken to be


def own_weight(node: Node) -> int:
    """Of one element of a node, without its operands. Views and constants cost nothing."""
    op = OPS[node.op]
    return op.weight if op.kind == MAP else int(op.kind == REDUCE)


def number(size: Dim, hints: Mapping[str, int] | None = None) -> int:
    """A size as a number, symbols as `hints` say or typical."""
    known = dict.fromkeys(symbols(size), TYPICAL) | dict(hints or {})
    value = substitute(size, known)
    return max(0, value) if isinstance(value, int) else TYPICAL

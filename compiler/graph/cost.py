"""What operators cost, roughly: enough to choose between storing a value and computing it again.

A weight is in vector instructions per element, measured on the vector mathematics of this back end.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..types.sizes import Dim, substitute, symbols
from .nodes import Node
from .ops import OPS
from .ops.op import MAP, REDUCE

_WEIGHTS = {
    "exp": 14, "log": 20, "log1p": 24, "expm1": 18, "tanh": 18, "logistic": 18, "erf": 25, "sin": 18, "cos": 18,
    "pow": 45, "div": 5, "sqrt": 6, "rsqrt": 10, "floordiv": 20, "mod": 20, "random": 40,
    "stop_grad": 0, "straight_through": 0,
}  # fmt: skip
TYPICAL = 64  # what a size that is not known at compile time is taken to be


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

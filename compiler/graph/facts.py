"""What is certain of a value from how it is made: that it is not negative, not near 0, finite.

Each looks a few operators deep; what it cannot see there is not certain. Overflow is left aside.
"""

from __future__ import annotations

from math import copysign, isfinite

from ..types.tensors import FLOATS
from .ops import OPS
from .ops.calculus import Nodes, number
from .ops.op import CONTRACT, LEAF, REDUCE, VIEW

DEPTH = 8
# finite where their operands are
TAME = frozenset(
    ("add", "sub", "mul", "neg", "abs", "sign", "minimum", "maximum", "floor", "ceil", "round", "where", "cast", "tanh",
     "logistic", "erf", "sin", "cos", "atan", "iota", "size", "stop_grad", "straight_through", "checkpoint")
)  # fmt: skip


def unsigned(g: Nodes, name: str, depth: int = 6) -> bool:
    """Certainly no element is negative or -0 (NaN is allowed)."""
    n = g[name]
    if n.op == "variable":  # of a `grad`: nothing is known of it
        return False
    of = OPS[n.op].unsigned
    if of is not None and not n.args[of]:
        return True
    if n.op == "constant":
        return all(copysign(1, v) > 0 for v in n.attrs["values"])
    if depth == 0:
        return False
    if (n.op == "mul" and n.args[0] == n.args[1]) or (n.op == "pow" and (number(g, n.args[1]) or 1) % 2 == 0):
        return True
    if of is not None:
        return all(unsigned(g, a, depth - 1) for a in n.args[of])
    return n.op == "cast" and g[n.args[0]].dtype == "bool"


def not_negative(g: Nodes, name: str, depth: int = DEPTH) -> bool:
    """Certainly no element is below 0; it may be -0."""
    if unsigned(g, name):
        return True
    n = g[name]
    kind = OPS[n.op].kind
    sums = (
        n.op in ("add", "mul", "div") or kind in (REDUCE, CONTRACT) or (kind == VIEW and n.attrs.get("value", 0) >= 0)
    )
    return depth > 0 and sums and all(not_negative(g, a, depth - 1) for a in n.args)


def positive(g: Nodes, name: str, depth: int = DEPTH) -> bool:
    """Certainly every element is greater than some number above 0 (NaN is allowed)."""
    n = g[name]
    if n.op == "constant":
        return all(v > 0 for v in n.attrs["values"])
    if depth == 0:
        return False
    if n.op == "add":
        x, y = n.args
        return any(positive(g, a, depth - 1) and not_negative(g, b, depth - 1) for a, b in ((x, y), (y, x)))
    if n.op == "maximum":
        return any(positive(g, a, depth - 1) for a in n.args)
    if n.op in ("mul", "div", "pow", "sqrt", "broadcast", "reshape", "transpose"):
        return all(positive(g, a, depth - 1) for a in (n.args[:1] if n.op == "pow" else n.args))
    return n.op == "size"


def finite(g: Nodes, name: str, depth: int = DEPTH) -> bool:
    """Certainly finite where inputs, parameters and sums of products are."""
    n = g[name]
    if n.op == "constant":
        return all(map(isfinite, n.attrs["values"]))
    kind = OPS[n.op].kind
    if kind in (LEAF, CONTRACT) or n.dtype not in FLOATS:
        return True
    if depth == 0 or not n.args:
        return depth > 0 and n.op in TAME
    x, y = n.args[0], n.args[-1]
    match n.op:
        case "div":
            return positive(g, y) and finite(g, x, depth - 1)
        case "rsqrt":
            return positive(g, x)
        case "sqrt" | "log" | "log2":
            known = positive(g, x) or (n.op == "sqrt" and not_negative(g, x))
        case "pow":
            c = number(g, y)
            if c is not None and c < 0:
                return positive(g, x)
            known = c is not None and (c % 1 == 0 or not_negative(g, x))
        case _:
            known = n.op in TAME or kind in (VIEW, REDUCE)
    return known and all(finite(g, a, depth - 1) for a in n.args)

"""Constant folding: an operator on small constants is the constant it computes to, by its own reference.

Constants stay small: a result of more than `LIMIT` elements is left to be computed, and what repeats a number stays a
broadcast of a scalar.
"""

from __future__ import annotations

import numpy as np

from ...graph.nodes import Graph, Node
from ...graph.ops import OPS, require
from ...graph.ops.elementwise import NUMPY
from ...types.sizes import Size
from ...types.tensors import TensorType
from ..rewrite import Sweep, Table, rewrite

LIMIT = 64
_KEEP = ("constant", "broadcast", "stop_grad", "straight_through", "checkpoint", "iota", "random", "fused")


def fold(graph: Graph) -> Graph:
    """The graph with every small constant computed."""
    return rewrite(graph, RULES)


# f(numbers) is a number
def folded(s: Sweep, n: Node) -> str | None:
    operands = []
    for a in n.args:
        x = s[a]
        if x.op != "constant":
            return None
        operands.append(x)
    reference = OPS[n.op].reference
    if reference is None or not isinstance(n.type, TensorType) or _symbolic(tuple(n.attrs.values())):
        return None
    size = n.type.size
    if not isinstance(size, int) or size > LIMIT:
        return None
    arrays = list(map(_array, operands))
    with np.errstate(all="ignore"):
        try:
            value = reference(arrays, n.attrs, n.type)
        except IndexError:  # an index outside its axis is for run time to report
            return None
    return s.emit("constant", values=tuple(np.asarray(value).reshape(-1).tolist()), type=n.type)


def _array(constant: Node) -> np.ndarray:
    return np.array(constant.attrs["values"], NUMPY[constant.dtype]).reshape(require.known(constant.shape))


def _symbolic(x: object) -> bool:
    """Is there a size in an attribute that only run time knows?"""
    return isinstance(x, Size) or (isinstance(x, tuple) and any(map(_symbolic, x)))


RULES: Table = {op: (folded,) for op in OPS if op not in _KEEP}

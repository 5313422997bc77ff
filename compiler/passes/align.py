"""Alignment: the operands of a long sum lie in the order of its indices.

In: a simplified graph. Out: the same values; where two operands of a product have the indices that are summed over in
different orders, the smaller one is copied in the order of the other. The gradient of a weight over sequences is such a
sum: over [B, T, D] and [T, B, H] one of the two is read with a step of many pages, which costs more than a copy.
"""

from __future__ import annotations

from math import prod

from ..graph.cost import number
from ..graph.nodes import Graph, Node
from ..graph.ops.contraction import index_of, is_plain
from .rewrite import Sweep, rewrite

LONG = 512  # terms of a sum, from which the copy pays


def align(graph: Graph) -> Graph:
    """The graph with operands copied where their order is not that of the other."""
    return rewrite(graph, {"contract": (aligned,)})


def aligned(s: Sweep, n: Node) -> str | None:
    """sum over t, b of x[b, t, ..] y[t, b, ..] = that of x'[t, b, ..] y[t, b, ..], x' the transpose of x."""
    if len(n.args) != 2 or not is_plain(n):
        return None
    extent = dict(n.attrs["domain"])
    letters = [[index_of(e) for e in m] for m in n.attrs["maps"]]
    kept = {index_of(e) for e in n.attrs["out"]}
    summed = [[i for i in of if i is not None and i not in kept and extent[i] != 1] for of in letters]
    same = set(summed[0]) == set(summed[1]) and len(set(summed[0])) == len(summed[0])
    if not same or summed[0] == summed[1] or prod(number(extent[i]) for i in summed[0]) < LONG:
        return None
    small = min((0, 1), key=lambda k: number(s.type(n.args[k]).size))
    order = {i: k for k, i in enumerate(summed[1 - small])}
    perm = tuple(sorted(range(len(letters[small])), key=lambda k: order.get(letters[small][k] or "", len(order) + k)))
    maps, args = list(n.attrs["maps"]), list(n.args)
    args[small] = s.emit("transpose", args[small], perm=perm)
    maps[small] = tuple(maps[small][k] for k in perm)
    domain = (*((i, size) for i, size in n.attrs["domain"] if i not in order), *((i, extent[i]) for i in order))
    return s.emit(n.op, *args, **{**n.attrs, "maps": tuple(maps), "domain": domain})

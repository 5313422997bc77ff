"""Scatter: what updates are folded into, in order, where their indices say: rows, or elements of a last axis.

The updates run in order and the elements of a row in lanes, so the sum of equal indices has one order.
"""

from __future__ import annotations

from collections.abc import Callable

from ...graph.boxes import flat
from ...graph.ops.indexing import SCATTERS, start
from ...loops import ir as L
from ...types.sizes import symbol
from ...types.tensors import FLOATS
from .body import Body, lanes, tensor
from .nest import Axes, over


def scatter(make: Callable[[], Body], name: str) -> Body:
    """The kernel of one scatter node."""
    body = make()
    node = body.graph[name]
    fold = SCATTERS[node.op]
    index, updates = node.args
    lead, shape = body.graph[index].shape, body.graph[updates].shape
    y, width = body.result(node.dtype), lanes(body.graph)
    with body.loop(tensor(node).size, lanes=width) as i:
        body.store(y, i, L.Const(start(fold, node.dtype), node.dtype))
    rows = [Axes((k,), (n,)) for k, n in enumerate(lead)]
    with over(body, rows, len(lead)) as at:
        row = body.row(name, index, at, node.shape[0])
        inner = [Axes((k,), (n,)) for k, n in enumerate(shape[len(lead) :])]
        with over(body, inner, len(inner), lanes=width) as point:
            body.fold(y, flat((symbol(row.name), *point), node.shape), fold, body.value(updates, (*at, *point)))
    return body


def add_along(make: Callable[[], Body], name: str, parallel: bool = False) -> Body:
    """The kernel of one add_along node: each of the leading points has a last axis of its own."""
    body = make()
    node = body.graph[name]
    index, updates = node.args
    lead, (*before, size) = node.attrs["lead"], node.shape
    shape = body.graph[index].shape
    y, width = body.result(node.dtype), lanes(body.graph)
    with over(body, [Axes(tuple(range(lead)), tuple(before))], lead, parallel=parallel) as row:
        with body.loop(size, lanes=width) as i:
            body.store(y, flat((*row, i), node.shape), L.Const(0.0 if node.dtype in FLOATS else 0, node.dtype))
        rest = [Axes((k,), (n,)) for k, n in enumerate(shape[lead:])]
        with over(body, rest, len(rest)) as point:
            here = (*row, *point)
            at = body.row(name, index, here, size)
            body.fold(y, flat((*row, symbol(at.name)), node.shape), "sum", body.value(updates, here))
    return body

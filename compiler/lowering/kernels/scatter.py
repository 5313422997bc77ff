"""Scatter: rows into which updates are folded in order, each at the row its index names.

The updates run in order and the elements of a row in lanes, so the sum of equal indices has one order.
"""

from __future__ import annotations

from collections.abc import Callable

from ...graph.boxes import flat
from ...graph.ops.indexing import SCATTERS, start
from ...loops import ir as L
from ...types.sizes import symbol
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

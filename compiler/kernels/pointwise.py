"""Pointwise kernels: every result has one shape, and its value at a point is an expression.

Adjacent axes become one loop where all indices allow it, so a chain of elementwise operators over contiguous arrays is
a single vector loop whatever its rank.
"""

from __future__ import annotations

from collections.abc import Callable

from .body import Body, lanes
from .nest import collapse, over


def pointwise(make: Callable[[], Body], parallel: bool = False) -> Body:
    """The kernel that computes the results of a graph, all of one shape. `make` gives a fresh body."""
    body = make()
    results = [v for _, v in body.graph.outputs]
    shape = body.graph[results[0]].shape
    groups = collapse(make, results, shape, [0] * len(shape))
    outputs = body.results()
    with over(body, groups, len(shape), lanes=lanes(body.graph), parallel=parallel) as index:
        body.store_all(outputs, [(r, index) for r in outputs])
    return body

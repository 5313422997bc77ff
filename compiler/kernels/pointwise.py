"""Pointwise kernels: every result has one shape, and its value at a point is an expression.

Adjacent axes become one loop where all indices allow it, so a chain of elementwise operators over contiguous arrays is
a single vector loop whatever its rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .body import Body, flat, lanes
from .nest import collapse, over


def pointwise(make: Callable[[], Body], results: Sequence[str]) -> Body:
    """The kernel that computes `results` (nodes of one shape) into one buffer each. `make` gives a fresh body."""
    body = make()
    shape = body.graph[results[0]].shape
    groups = collapse(make, results, shape, [0] * len(shape))
    outputs = [body.result(body.graph[r].dtype) for r in results]
    with over(body, groups, len(shape), lanes=lanes(body.graph)) as index:
        # an output may lie where an operand lies: everything is read before anything is written
        values = [body.value(r, index) for r in results]
        for y, value in zip(outputs, values, strict=True):
            body.store(y, flat(index, shape), value)
    return body

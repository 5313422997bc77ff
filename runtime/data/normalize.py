"""Scaling of raw inputs, fitted on the training split: (x - mean) / scale.

`standard`: mean and standard deviation of each feature; `standard_all`: of all features together; `minmax`: least
value and range, so that results lie in [0, 1]. What "each feature" is follows from the shape of the variables: axes
where they have size 1, or that they lack, are summed over. A feature that does not vary has scale 1. Sums are in
float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce

import numpy as np

from ...compiler.manifest import Manifest
from ...dsl.errors import NonFiniteError, error
from ..call.arrays import BAD_DATA, not_finite
from ..call.column import Array, Column, Rows

_BLOCK_BYTES = 2 << 20  # of rows at a time, so that the float64 copies stay small


def fit(
    manifest: Manifest, variables: Mapping[str, Array], columns: Mapping[str, Rows], rows: Array | None = None
) -> dict[str, Array]:
    """`normalize/X/mean` and `normalize/X/scale` of column X, unless the variables are no longer 0 and 1."""
    kind = manifest.train.normalize if manifest.train else None
    found: dict[str, Array] = {}
    if kind is None:
        return found
    for name, column in columns.items():
        mean, scale = variables.get(f"normalize/{name}/mean"), variables.get(f"normalize/{name}/scale")
        if mean is None or scale is None or not len(column) or np.any(mean != 0) or np.any(scale != 1):
            continue
        if (bad := _bad(column, rows)) is not None:
            raise error(
                "E0630", f"input `{name}` {bad}, so it cannot be normalized", help=BAD_DATA, kind=NonFiniteError
            )
        center, width = KINDS[kind](column, mean.shape)
        width = width.astype(scale.dtype)  # which may round it to zero
        found[f"normalize/{name}/mean"] = center
        found[f"normalize/{name}/scale"] = np.where(width > 0, width, 1)
    return found


def _bad(column: Rows, rows: Array | None) -> str | None:
    """How a column is not finite; of one that stays on disk the first block that is not."""
    if not isinstance(column, Column):
        return not_finite(column, rows)
    if column.dtype.kind == "f":
        start = 0
        for block in _blocks(column):
            at = np.arange(start, start + len(block))
            start += len(block)
            if (bad := not_finite(block, at if rows is None else rows[at])) is not None:
                return bad
    return None


def _axes(column: Rows, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the column that a variable of this shape sums over; they include the examples."""
    lacking = column.ndim - len(shape)
    kept = {lacking + k for k, n in enumerate(shape) if n != 1 or column.shape[lacking + k] == 1}
    return tuple(k for k in range(column.ndim) if k == 0 or k not in kept)


def _blocks(column: Rows) -> Iterator[Array]:
    rows = max(1, _BLOCK_BYTES * len(column) // max(1, column.nbytes))
    return (column[k : k + rows] for k in range(0, len(column), rows))


def _standard(column: Rows, shape: tuple[int, ...]) -> tuple[Array, Array]:
    axes = _axes(column, shape)
    count = np.prod([column.shape[k] for k in axes], dtype=np.float64)
    mean = sum(b.sum(axes, dtype=np.float64, keepdims=True) for b in _blocks(column)) / count
    squares = sum(np.square(b - mean).sum(axes, keepdims=True) for b in _blocks(column))
    return mean.reshape(shape), np.sqrt(squares / count).reshape(shape)


def _minmax(column: Rows, shape: tuple[int, ...]) -> tuple[Array, Array]:
    axes = _axes(column, shape)
    low = reduce(np.minimum, (b.min(axes, keepdims=True) for b in _blocks(column))).astype(np.float64)
    high = reduce(np.maximum, (b.max(axes, keepdims=True) for b in _blocks(column))).astype(np.float64)
    return low.reshape(shape), (high - low).reshape(shape)


KINDS: Mapping[str, Callable[[Rows, tuple[int, ...]], tuple[Array, Array]]] = {
    "standard": _standard, "standard_all": _standard, "minmax": _minmax,
}  # fmt: skip

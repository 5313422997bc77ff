"""`windows`: an operand read under a window, each axis at an affine expression of the indices of the result.

    y[i, u, ..] = x[start + step * i + dilation * u, ..]

It is made of contractions of one operand when kernels are chosen (`passes/fuse`): what is seen so is stored once, not
once for each window it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...loops.index import bounds
from ...loops.ir import Expr, add, i64, mul, size_expr
from ...scalar.function import FIRST
from ...types.sizes import Dim, symbol
from ...types.tensors import TensorType, Type
from . import require
from .op import VIEW, Op, Sample, ShapeError

Index = tuple[Expr, ...]
Read = Callable[[int, Index], Expr]


def _infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("windows", types, 1)
    result = t.with_shape(require.sizes("windows", attrs["shape"]))
    require.one_each("windows", t, "starts", attrs["starts"])
    require.one_each("windows", t, "steps", attrs["steps"])
    if any(len(steps) != result.rank for steps in attrs["steps"]):
        raise ShapeError("E0307", f"windows needs a step for each axis of {result}", (0,))
    extent = {f"@{k}": n for k, n in enumerate(result.shape)}
    for start, steps, size in zip(attrs["starts"], attrs["steps"], t.shape, strict=True):
        position: Dim = start
        for k, step in enumerate(steps):
            position = position + symbol(f"@{k}") * step
        low, high = bounds(position, extent)
        if 0 not in result.shape and (_below(low, 0) or (high is not None and _below(size - 1, high))):
            raise ShapeError("E0307", f"the windows of {result} are not within {t}", (0,))
    return result


def _below(a: Dim | None, b: Dim) -> bool:
    """Certainly a < b."""
    difference = None if a is None else a - b
    return isinstance(difference, int) and difference < 0


def _at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    where = []
    for start, steps in zip(node.attrs["starts"], node.attrs["steps"], strict=True):
        position = size_expr(start)
        for i, step in zip(index, steps, strict=True):
            if step:
                position = add(position, mul(i, i64(step)))
        where.append(position)
    return read(0, tuple(where))


def _reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    grid = np.indices(require.known(type.shape), sparse=True)
    places = zip(require.known(attrs["starts"]), attrs["steps"], strict=True)
    where = [start + sum((s * g for s, g in zip(steps, grid, strict=True)), np.int64(0)) for start, steps in places]
    return np.broadcast_to(args[0][tuple(where)], type.shape).copy()  # type: ignore[arg-type]


def _f(*shape: int, dtype: str = "f32") -> TensorType:
    return TensorType(dtype, shape)


WINDOWS = Op(
    name="windows",
    kind=VIEW,
    implied=("shape",),
    unsigned=FIRST,
    infer=_infer,
    at=_at,
    reference=_reference,
    grad="it is made when derivatives have been written out",
    axes=lambda attrs, old, new: None,
    doc="The operand of which axis k is read at starts[k] + sum of steps[k][m] * index[m], within it",
    samples=(
        Sample((_f(7, 4),), {"starts": (0, 0), "steps": ((2, 1, 0), (0, 0, 1)), "shape": (3, 3, 4)}),
        Sample(
            (_f(5, 6, 2),),
            {"starts": (1, 3, 0), "steps": ((1, 1, 0, 0), (0, 0, -1, 0), (0, 0, 0, 1)), "shape": (2, 3, 4, 2)},
        ),
        Sample((_f(9, dtype="i32"),), {"starts": (8,), "steps": ((-2, -1, 0),), "shape": (3, 5, 2)}),
        Sample((_f(3),), {"starts": (0,), "steps": ((1, 1),), "shape": (0, 3)}),
    ),
)

ALL = (WINDOWS,)

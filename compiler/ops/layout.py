"""Layout operators: the operand's elements at other indices. All of them are views: the value at a point is a read of the
operand at an index computed from it, for `pad` and `concat` with a choice of what to read.

`pad` and `concat` read clamped indices where another operand is chosen, so a read is never outside its buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..loops import Apply, Const, Expr, add, floordiv, i64, mod, mul, size_expr, sub
from ..types import Dim, TensorType, Type
from . import require
from .calculus import Value, rule_with_attrs
from .op import VIEW, Op, Sample, ShapeError

Index = tuple[Expr, ...]


def _t(*shape: int, dtype: str = "f32") -> TensorType:
    return TensorType(dtype, shape)


def _shape(node: Any, operand: int = 0) -> tuple[Dim, ...]:
    """The shape of an operand as `at` can know it: views that need it carry it themselves."""
    raise NotImplementedError


# --- broadcast ----------------------------------------------------------------------------------------------------------


def _broadcast_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("broadcast", types, 1)
    shape, axes = require.sizes("broadcast", attrs["shape"]), attrs["axes"]
    result = t.with_shape(shape)
    require.one_each("broadcast", t, "axes", axes)
    require.axes("broadcast", result, axes)
    for k, a in enumerate(axes):
        if t.shape[k] not in (1, shape[a]):
            raise ShapeError("E0302", f"axis {k} of {t} cannot stretch from {t.shape[k]} to {shape[a]}", (0,))
    return result

"""`unpack`: an operand of a product that lies in panels, seen as the tensor it is.

    right[k, j]  lies at  panels[s, j // width, k, j % width]      s: which matrix, where there are several

It is made by the pass that packs what a kernel would else copy in every call (`lowering/panels`); to pack is a
transposition with a margin, for which there are operators. A product reads the panels as they lie; whoever else reads
an `unpack` is right, and slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ...loops.ir import Expr, add, floordiv, i64, mod, mul, size_expr
from ...scalar.function import FIRST
from ...types.tensors import TensorType, Type
from . import require
from .layout import inverse
from .op import VIEW, Op, Sample, ShapeError

Index = tuple[Expr, ...]
Read = Callable[[int, Index], Expr]


def parted(attrs: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The axes of the tensor that say which matrix, those of its rows k, and those of its columns j."""
    perm, sheets, columns = attrs["perm"], attrs["sheets"], attrs["columns"]
    return perm[:sheets], perm[sheets : len(perm) - columns], perm[len(perm) - columns :]


def _infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("unpack", types, 1)
    result = t.with_shape(require.sizes("unpack", attrs["shape"]))
    if sorted(attrs["perm"]) != list(range(result.rank)) or t.rank != 4:
        raise ShapeError("E0303", f"unpack needs each axis of {result} once, and panels of four axes", (0,))
    sheets, rows, columns = (prod(result.shape[k] for k in axes) for axes in parted(attrs))
    width = t.shape[3]
    if not isinstance(width, int) or width < 1 or t.shape != (sheets, -(-columns // width), rows, width):
        raise ShapeError("E0301", f"{t} does not hold the panels of {result}", (0,))
    return result


def _at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    width = size_expr(types[0].shape[3])
    s, k, j = (_flat(index, node.shape, axes) for axes in parted(node.attrs))
    return read(0, (s, floordiv(j, width), k, mod(j, width)))


def _flat(index: Index, shape: Sequence[Any], axes: Sequence[int]) -> Expr:
    at: Expr = i64(0)
    for k in axes:
        at = add(mul(at, size_expr(shape[k])), index[k])
    return at


def _reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    (panels,) = args
    shape = require.known(type.shape)
    s, _, k, width = panels.shape
    columns = prod(shape[a] for a in parted(attrs)[2])
    flat = panels.transpose(0, 2, 1, 3).reshape(s, k, panels.shape[1] * width)[:, :, :columns]
    return flat.reshape([shape[a] for a in attrs["perm"]]).transpose(inverse(attrs["perm"]))


def _f(*shape: int) -> TensorType:
    return TensorType("f32", shape)


UNPACK = Op(
    name="unpack",
    kind=VIEW,
    implied=("shape",),
    unsigned=FIRST,
    infer=_infer,
    at=_at,
    reference=_reference,
    grad="it is made when derivatives have been written out",
    axes=lambda attrs, old, new: None,
    doc="The tensor of `shape` whose panels the operand [matrix, j // width, k, j % width] holds: of its axes, in the "
    "order `perm`, the first `sheets` say which matrix, the last `columns` are j, those between are k",
    samples=(
        Sample((_f(1, 2, 3, 4),), {"perm": (1, 0), "sheets": 0, "columns": 1, "shape": (8, 3)}),
        Sample((_f(1, 2, 3, 4),), {"perm": (0, 1), "sheets": 0, "columns": 1, "shape": (3, 5)}),
        Sample((_f(2, 1, 6, 8),), {"perm": (3, 0, 1, 2), "sheets": 1, "columns": 1, "shape": (3, 2, 7, 2)}),
        Sample((_f(1, 3, 2, 2),), {"perm": (0, 2, 1), "sheets": 0, "columns": 2, "shape": (2, 3, 2)}),
        Sample((_f(0, 1, 2, 4),), {"perm": (0, 1, 2), "sheets": 1, "columns": 1, "shape": (0, 2, 3)}),
    ),
)

ALL = (UNPACK,)

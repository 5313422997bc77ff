"""Layout operators: all of the operand's elements under other indices, repeated, regrouped, permuted.

All are views: the value at a point is a read of the operand at an index computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ...loops.ir import Expr, add, floordiv, i64, mod, mul, size_expr
from ...scalar.function import FIRST
from ...types.sizes import Dim
from ...types.tensors import TensorType, Type
from . import require
from .calculus import Value, rule_with_attrs
from .op import VIEW, Op, Sample, Seen, ShapeError

Index = tuple[Expr, ...]
Read = Callable[[int, Index], Expr]


def _t(*shape: int, dtype: str = "f32") -> TensorType:
    return TensorType(dtype, shape)


# --- broadcast -------------------------------------------------------------------------------------------------------


def _broadcast_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("broadcast", types, 1)
    axes = attrs["axes"]
    result = t.with_shape(require.sizes("broadcast", attrs["shape"]))
    require.one_each("broadcast", t, "axes", axes)
    require.axes("broadcast", result, axes)
    for n, a in zip(t.shape, axes, strict=True):
        if n not in (1, result.shape[a]):
            raise ShapeError("E0301", f"{t} cannot be repeated to {result}: {n} is not {result.shape[a]}", (0,))
    return result


def _broadcast_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    sizes = zip(types[0].shape, node.attrs["axes"], strict=True)
    return read(0, tuple(i64(0) if n == 1 else index[a] for n, a in sizes))


def _broadcast_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    aligned = [1] * type.rank
    for n, a in zip(args[0].shape, attrs["axes"], strict=True):
        aligned[a] = n
    return np.broadcast_to(args[0].reshape(aligned), require.known(type.shape))


def _broadcast_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    """Every copy counts: the sum over new and stretched axes."""
    kept = [a for n, a in zip(x.shape, attrs["axes"], strict=True) if n == y.shape[a]]
    folded = tuple(k for k in range(y.type.rank) if k not in kept)
    dx = dy.apply("reduce_sum", axes=folded) if folded else dy
    return (dx if dx.shape == x.shape else dx.apply("reshape", shape=x.shape),)


def _broadcast_axes(attrs: Any, old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Seen, ...]:
    return tuple(Seen(a, int(n == new[a])) for n, a in zip(old, attrs["axes"], strict=True))


BROADCAST = Op(
    name="broadcast",
    kind=VIEW,
    implied=("shape",),
    unsigned=FIRST,
    infer=_broadcast_infer,
    at=_broadcast_at,
    reference=_broadcast_reference,
    grad=rule_with_attrs(_broadcast_grad),
    axes=_broadcast_axes,
    doc="Axis k becomes axis `axes[k]` of `shape`; other axes are new and repeat it; an axis of size 1 is stretched",
    samples=(
        Sample((_t(3),), {"shape": (2, 3), "axes": (1,)}),
        Sample((_t(2),), {"shape": (2, 3), "axes": (0,)}),
        Sample((_t(),), {"shape": (2, 3), "axes": ()}),
        Sample((_t(3, 1),), {"shape": (3, 4), "axes": (0, 1)}),
        Sample((_t(1, 1),), {"shape": (3, 2, 4), "axes": (0, 2)}),
        Sample((_t(1),), {"shape": (0,), "axes": (0,)}),
        Sample((_t(0),), {"shape": (3, 0), "axes": (1,)}),
        Sample((_t(1),), {"shape": (1, 1), "axes": (1,)}),
        Sample((_t(2, dtype="i32"),), {"shape": (2, 2), "axes": (0,)}),
    ),
)


# --- reshape and assume ----------------------------------------------------------------------------------------------


def _reshape_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("reshape", types, 1)
    result = t.with_shape(require.sizes("reshape", attrs["shape"]))
    if result.size != t.size:
        message = f"reshape must keep the number of elements, but {t} has {t.size} and {result} has {result.size}"
        raise ShapeError("E0306", message, (0,))
    return result


def regroup(old: Sequence[Dim], new: Sequence[Dim]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Runs of axes of `old` and of `new` that hold the same elements, as short as the sizes allow, in order. Axes of
    size 1 stand in runs of their own: ((k,), ()) or ((), (k,)). Without an earlier cut everything left is one run."""
    a = [k for k, n in enumerate(old) if n != 1]
    b = [k for k, n in enumerate(new) if n != 1]
    runs: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((k,), ()) for k, n in enumerate(old) if n == 1]
    runs += [((), (k,)) for k, n in enumerate(new) if n == 1]
    i = j = 0
    while i < len(a) or j < len(b):
        for di, dj in _cuts(len(a) - i, len(b) - j):
            if prod((old[k] for k in a[i : i + di]), start=1) == prod((new[k] for k in b[j : j + dj]), start=1):
                break
        else:
            di, dj = len(a) - i, len(b) - j
        runs.append((tuple(a[i : i + di]), tuple(b[j : j + dj])))
        i, j = i + di, j + dj
    return runs


def _cuts(m: int, n: int) -> list[tuple[int, int]]:
    """Lengths of two leading runs, shortest first, neither empty."""
    return sorted(((i, j) for i in range(1, m + 1) for j in range(1, n + 1)), key=lambda c: (c[0] + c[1], c))


def linear(index: Sequence[Expr], shape: Sequence[Dim]) -> Expr:
    """The row-major position of an index in a shape."""
    total: Expr = i64(0)
    for i, n in zip(index, shape, strict=True):
        total = add(mul(total, size_expr(n)), i)
    return total


def unravel(position: Expr, shape: Sequence[Dim]) -> list[Expr]:
    """The index in a shape of a row-major position."""
    index: list[Expr] = []
    for k in range(len(shape) - 1, 0, -1):
        index.append(mod(position, size_expr(shape[k])))
        position = floordiv(position, size_expr(shape[k]))
    return [*([position] if shape else []), *reversed(index)]


def _reshape_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    old = types[0].shape
    where: list[Expr] = [i64(0)] * len(old)
    for a, b in regroup(old, node.shape):
        if len(a) == len(b) == 1:
            where[a[0]] = index[b[0]]
        elif a and b:
            p = linear([index[k] for k in b], [node.shape[k] for k in b])
            for k, i in zip(a, unravel(p, [old[k] for k in a]), strict=True):
                where[k] = i
    return read(0, tuple(where))


def _reshape_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    return (dy.apply("reshape", shape=x.shape),)


def _reshape_axes(attrs: Any, old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Seen, ...] | None:
    """Of a reshape that only adds or drops axes of size 1."""
    if [n for n in old if n != 1] != [n for n in new if n != 1]:
        return None
    there = iter([k for k, n in enumerate(new) if n != 1])
    return tuple(Seen(None if n == 1 else next(there)) for n in old)


RESHAPE = Op(
    name="reshape",
    kind=VIEW,
    implied=("shape",),
    unsigned=FIRST,
    infer=_reshape_infer,
    at=_reshape_at,
    grad=rule_with_attrs(_reshape_grad),
    reference=lambda args, attrs, type: np.reshape(args[0], type.shape),
    axes=_reshape_axes,
    doc="The same elements in row-major order under another shape; `expand` and `squeeze` are this too",
    samples=(
        Sample((_t(6),), {"shape": (2, 3)}),
        Sample((_t(2, 3),), {"shape": (3, 2)}),
        Sample((_t(),), {"shape": (1, 1)}),
        Sample((_t(2, 1, 3),), {"shape": (2, 3)}),
        Sample((_t(4, 6),), {"shape": (2, 2, 3, 2)}),
        Sample((_t(0, 3),), {"shape": (3, 0)}),
        Sample((_t(2, 3, 4),), {"shape": (1, 6, 2, 2)}),
        Sample((_t(4, dtype="bool"),), {"shape": (2, 2)}),
    ),
)


def _assume_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("assume", types, 1)
    require.one_each("assume", t, "sizes", attrs["shape"])
    for n, m in zip(t.shape, attrs["shape"], strict=True):
        if isinstance(n, int) and isinstance(m, int) and n != m:
            raise ShapeError("E0301", f"{t} is not {t.with_shape(attrs['shape'])}: {n} is not {m}", (0,))
    return t.with_shape(require.sizes("assume", attrs["shape"]))


def _assume_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    return (dy.apply("assume", shape=x.shape),)


def _assume_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    assert args[0].shape == type.shape, "a guard was not checked"
    return args[0]


ASSUME = Op(
    name="assume",
    kind=VIEW,
    implied=("shape",),
    unsigned=FIRST,
    infer=_assume_infer,
    reference=_assume_reference,
    grad=rule_with_attrs(_assume_grad),
    at=lambda node, types, index, read: read(0, index),
    axes=lambda attrs, old, new: tuple(map(Seen, range(len(old)))),
    doc="The operand itself, its sizes written as `shape`: equal at run time, as a guard of the graph makes sure. "
    "One that is marked `again` is read by what `checkpoint` has computed a second time",
    samples=(Sample((_t(2, 3),), {"shape": (2, 3)}), Sample((_t(),), {"shape": ()}), Sample((_t(0),), {"shape": (0,)})),
)


# --- transpose ----------------------------------------------------------------------------------------------------


def _transpose_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("transpose", types, 1)
    perm = attrs["perm"]
    if sorted(perm) != list(range(t.rank)):
        raise ShapeError("E0303", f"transpose needs each axis of {t} once, but is given {list(perm)}", (0,))
    return t.with_shape(t.shape[k] for k in perm)


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """Where each axis went."""
    return tuple(sorted(range(len(perm)), key=lambda k: perm[k]))


def _transpose_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    return read(0, tuple(index[k] for k in inverse(node.attrs["perm"])))


TRANSPOSE = Op(
    name="transpose",
    kind=VIEW,
    unsigned=FIRST,
    infer=_transpose_infer,
    at=_transpose_at,
    axes=lambda attrs, old, new: tuple(map(Seen, inverse(attrs["perm"]))),
    reference=lambda args, attrs, type: np.transpose(args[0], attrs["perm"]),
    grad=rule_with_attrs(lambda attrs, dy, y, x: (dy.apply("transpose", perm=inverse(attrs["perm"])),)),
    doc="Axis k of the result is axis `perm[k]` of the operand",
    samples=(
        Sample((_t(2, 3),), {"perm": (1, 0)}),
        Sample((_t(2, 3, 4),), {"perm": (2, 0, 1)}),
        Sample((_t(),), {"perm": ()}),
        Sample((_t(2, 0, 1),), {"perm": (1, 2, 0)}),
        Sample((_t(2, 3, dtype="i64"),), {"perm": (1, 0)}),
    ),
)

ALL = (BROADCAST, RESHAPE, ASSUME, TRANSPOSE)

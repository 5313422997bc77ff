"""Reductions: axes folded away with an associative function. The attribute `axes` is sorted; those axes disappear.

Over no elements a reduction is the identity of its fold: -0, 1, and the least or greatest value of the dtype. `any` and
`all` are the maximum and the minimum of bools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ...loops.ir import identity
from ...scalar.function import FIRST, NUMBERS
from ...types.sizes import Dim
from ...types.tensors import DTYPES, TensorType, Type
from . import require
from .calculus import Value, rule_with_attrs
from .elementwise import NUMPY
from .op import KERNEL, REDUCE, Op, Sample, Seen, ShapeError


def _infer(op: str, accepts: tuple[str, ...]) -> Callable[..., TensorType]:
    def infer(types: Sequence[Type], attrs: Any) -> TensorType:
        (t,) = require.tensors(op, types, 1)
        require.accepted(op, [t], accepts)
        axes = require.axes(op, t, attrs["axes"])
        return t.with_shape(n for k, n in enumerate(t.shape) if k not in axes)

    return infer


def _kept(x: Value, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(k for k in range(x.type.rank) if k not in axes)


def _back(dy: Value, x: Value, axes: tuple[int, ...]) -> Value:
    """A reduced value, repeated along the axes it was reduced over."""
    return dy.spread(x.shape, _kept(x, axes))


def _sum_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    return (_back(dy, x, attrs["axes"]),)


def other_factors(x: Value, fold: Callable[[Value, str], Value]) -> Value:
    """Of each element of x the product of the other factors of its group, also where some are 0: p / x without zeros
    among the others, where p is the product of those that are not 0; p times the zero where it is a single one, so that
    second derivatives are right, too; else 0. `fold(v, "sum")` and `fold(v, "prod")` give each element what v comes to
    in its group."""
    zero = x.apply("eq", 0)
    one = zero.apply("cast", dtype=x.type.dtype)
    others = zero.where(1, x)
    rest = fold(others, "prod") / others
    count = fold(one, "sum") - one
    its_zero = fold(zero.where(x, 0), "sum") - zero.where(x, 0)
    return count.apply("eq", 0).where(rest, count.apply("eq", 1).where(rest * its_zero, 0))


def _prod_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    axes = attrs["axes"]
    others = other_factors(x, lambda v, fold: _back(v.apply(f"reduce_{fold}", axes=axes), x, axes))
    return (_back(dy, x, axes) * others,)


def position(x: Value, axes: tuple[int, ...]) -> Value:
    """The linear index of each element within the reduced axes, in i32 where it is known to fit."""
    size = prod(x.shape[k] for k in axes)
    dtype = "i32" if isinstance(size, int) and size < 2**31 else "i64"
    stride: Dim = 1
    total: Value | None = None
    for k in reversed(axes):
        p = Value(x.b, x.b.emit("iota", shape=x.shape, axis=k, dtype=dtype))
        if stride != 1:
            p = p * Value(x.b, x.b.emit("size", size=stride, dtype=dtype)).spread(x.shape, ())
        total = p if total is None else p + total
        stride = stride * x.shape[k]
    return (
        total
        if total is not None
        else Value(x.b, x.b.emit("constant", values=(0,), type=TensorType(dtype))).spread(x.shape, ())
    )


def _extreme_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    """All of the gradient goes to the first, in row-major order, of the elements that equal the result."""
    axes = attrs["axes"]
    p = position(x, axes)
    hit = x.apply("eq", _back(y, x, axes))
    first = hit.where(p, int(np.iinfo(NUMPY[p.type.dtype]).max)).apply("reduce_min", axes=axes)
    return (p.apply("eq", _back(first, x, axes)).where(_back(dy, x, axes), 0),)


def _reference(f: Any, fold: str) -> Callable[..., np.ndarray]:
    def reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
        (x,) = args
        start = x.dtype.type(identity(fold, type.dtype))
        return np.asarray(f.reduce(x, axis=attrs["axes"], dtype=x.dtype, initial=start))

    return reference


def _samples(dtype: str) -> tuple[Sample, ...]:
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((3, 4), (0,)),
        ((3, 4), (1,)),
        ((2, 3, 4), (0, 2)),
        ((3, 4), (0, 1)),
        ((5,), ()),
        ((), ()),
        ((0, 3), (0,)),
        ((3, 0), (0,)),
        ((1, 3, 1), (0, 2)),
    )
    return (
        *(Sample((TensorType("f32", s),), {"axes": a}) for s, a in cases),
        Sample((TensorType(dtype, (4, 5)),), {"axes": (1,)}, -9, 9),
    )


def _axes(attrs: Any, old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Seen, ...]:
    kept = [k for k in range(len(old)) if k not in attrs["axes"]]
    return tuple(Seen(kept.index(k)) if k in kept else Seen(None) for k in range(len(old)))


def _reduction(
    name: str,
    fold: str,
    f: Any,
    grad: Callable[..., Any],
    accepts: tuple[str, ...],
    doc: str,
    unsigned: slice | None = None,
) -> Op:
    return Op(
        name=name,
        kind=REDUCE,
        doc=doc,
        infer=_infer(name, accepts),
        reference=_reference(f, fold),
        grad=rule_with_attrs(grad),
        reduce=fold,
        unsigned=unsigned,
        axes=_axes,
        flops=lambda types, attrs, type: types[0].size,
        samples=_samples("bool" if "bool" in accepts else "i32"),
    )


def _arg_infer(op: str) -> Callable[..., TensorType]:
    def infer(types: Sequence[Type], attrs: Any) -> TensorType:
        (t,) = require.tensors(op, types, 1)
        require.accepted(op, [t], NUMBERS)
        axis = require.axis(op, t, attrs["axis"])
        if t.shape[axis] == 0:
            raise ShapeError("E0307", f"{op} has nothing to choose from: axis {axis} of {t} is empty", (0,))
        return TensorType("i32", tuple(n for k, n in enumerate(t.shape) if k != axis))

    return infer


def _arg(name: str, f: Callable[..., Any], what: str) -> Op:
    shapes: tuple[tuple[tuple[int, ...], int], ...] = (((3, 4), 1), ((3, 4), 0), ((5,), 0), ((2, 1, 3), 1), ((0, 3), 1))
    return Op(
        name=name,
        kind=KERNEL,
        doc=f"The index (i32) of the {what} along `axis`: the first of equals, of a NaN if there is one",
        infer=_arg_infer(name),
        flops=lambda types, attrs, type: types[0].size,
        reference=lambda args, attrs, type: np.asarray(f(args[0], axis=attrs["axis"]), np.int32),
        grad=f"the result of {name} is a whole number, and its derivative is zero or undefined everywhere",
        samples=(
            *(Sample((TensorType("f32", s),), {"axis": a}) for s, a in shapes),
            Sample((TensorType("i32", (6, 5)),), {"axis": 1}, -3, 3),
        ),
    )


ALL = (
    _reduction("reduce_sum", "sum", np.add, _sum_grad, NUMBERS, "The sum over `axes`", FIRST),
    _reduction("reduce_prod", "prod", np.multiply, _prod_grad, NUMBERS, "The product over `axes`", FIRST),
    _reduction(
        "reduce_max",
        "max",
        np.maximum,
        _extreme_grad,
        DTYPES,
        "The largest over `axes`, NaN if there is one; the gradient goes to the first of equals",
    ),
    _reduction(
        "reduce_min",
        "min",
        np.minimum,
        _extreme_grad,
        DTYPES,
        "The smallest over `axes`, NaN if there is one; the gradient goes to the first of equals",
    ),
    _arg("argmax", np.argmax, "largest"),
    _arg("argmin", np.argmin, "smallest"),
)

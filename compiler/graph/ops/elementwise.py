"""Elementwise operators: a scalar function of the operands at one index, all of one shape.

Broadcasting is never implied here: it is a `broadcast` node. Each operator has the name and the meaning of the scalar
function in `scalar` (`where` is `select` there), so its value at a point is that function applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...loops.ir import Apply, Expr
from ...scalar import FUNCTIONS, Scalar
from ...scalar.function import BOOL
from ...types.tensors import FLOATS, TensorType, Type
from . import require
from .calculus import Value, rule
from .op import MAP, Op, Sample


def _infer(f: Scalar) -> Callable[..., TensorType]:
    def infer(types: Sequence[Type], attrs: Any) -> TensorType:
        ts = require.tensors(f.name, types, len(f.operands))
        require.accepted(f.name, ts, f.accepts)
        require.same_dtype(f.name, ts)
        require.same_shape(f.name, ts)
        return TensorType(f.result or ts[0].dtype, ts[0].shape)

    return infer


def _at(fn: str) -> Callable[..., Expr]:
    def at(node: Any, types: Sequence[Type], index: tuple[Expr, ...], read: Callable[..., Expr]) -> Expr:
        return Apply(fn, tuple(read(k, index) for k in range(len(types))), node.dtype)

    return at


def _samples(f: Scalar) -> tuple[Sample, ...]:
    shapes: tuple[tuple[int, ...], ...] = ((3, 4), (), (1,), (0, 3), (17,))
    main = "f32" if "f32" in f.accepts else f.accepts[0]
    cases = [(main, s) for s in shapes] + [(d, (2, 3)) for d in f.accepts if d != main]
    return tuple(Sample((TensorType(d, s),) * len(f.operands), {}, f.low, f.high) for d, s in cases)


def _map(f: Scalar, numpy: Callable[..., Any]) -> Op:
    """The operator that applies a scalar function to every element."""
    return Op(
        name=f.name,
        kind=MAP,
        doc=f.doc,
        infer=_infer(f),
        at=_at(f.name),
        weight=f.weight,
        unsigned=f.unsigned,
        grad=rule(f.grad) if callable(f.grad) else f.grad,
        reference=lambda args, attrs, type: numpy(*args),
        samples=_samples(f),
        commutative=f.commutative,
    )


def _where_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    ts = require.tensors("where", types, 3)
    require.accepted("where", ts[:1], BOOL)
    require.same_dtype("where", ts[1:], first=1)
    require.same_shape("where", ts)
    return ts[1]


WHERE = Op(
    name="where",
    kind=MAP,
    doc="x where the condition holds, else y; the condition carries no gradient",
    infer=_where_infer,
    at=_at("select"),
    unsigned=slice(1, None),
    reference=lambda args, attrs, type: np.where(*args),
    grad=rule(lambda dy, z, c, x, y: (None, c.where(dy, 0), c.where(0, dy))),
    samples=tuple(
        Sample((TensorType("bool", s), TensorType(d, s), TensorType(d, s)), {})
        for s, d in (((3, 4), "f32"), ((), "f32"), ((0,), "f64"), ((5,), "i32"), ((5,), "bool"))
    ),
)


def convert(x: np.ndarray, dtype: str) -> np.ndarray:
    """What `cast` means: float to int truncates and saturates, NaN gives 0; anything to bool is != 0."""
    target: Any = np.dtype(NUMPY[dtype])
    if target.kind != "i" or x.dtype.kind != "f":
        return (x != 0) if dtype == "bool" else x.astype(target)
    limits = np.iinfo(target)
    inside = np.where(np.isfinite(x) & (np.abs(x) < 2.0 ** (8 * target.itemsize - 1)), x, 0).astype(target)
    over = 2.0 ** (8 * target.itemsize - 1)
    return np.where(x >= over, limits.max, np.where(x <= -over, limits.min, inside)).astype(target)


NUMPY: Mapping[str, Any] = {
    "f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_, "i8": np.int8,
    "i16": np.int16,
}  # fmt: skip


def _cast_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("cast", types, 1)
    return t.with_dtype(attrs["dtype"])


def _cast_grad(dy: Value, y: Value, x: Value) -> tuple[Value | None]:
    if x.type.dtype not in FLOATS:
        return (None,)
    return (dy.apply("cast", dtype=x.type.dtype),)


CAST = Op(
    name="cast",
    kind=MAP,
    infer=_cast_infer,
    at=_at("cast"),
    grad=rule(_cast_grad),
    implied=("dtype",),
    doc="Conversion: to int truncates, saturates, and gives 0 for NaN; to bool is != 0",
    reference=lambda args, attrs, type: convert(args[0], attrs["dtype"]),
    samples=tuple(
        Sample((TensorType(a, (7,)),), {"dtype": b}, -9, 9)
        for a, b in (
            ("f32", "f64"),
            ("f64", "f32"),
            ("f32", "i32"),
            ("f64", "i64"),
            ("i32", "f32"),
            ("i64", "i32"),
            ("bool", "f32"),
            ("bool", "i32"),
            ("f32", "bool"),
            ("i32", "bool"),
            ("i32", "i64"),
        )
    ),
)

ALL = (*(_map(f, f.numpy) for f in FUNCTIONS.values() if f.numpy is not None), WHERE, CAST)

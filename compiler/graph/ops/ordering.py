"""Along one axis, element after element: recurrences (running sums and products), and the order that sorts.

`recurrence` is closed under differentiation: its gradient is a recurrence that runs the other way along the same links,
without a division. Sorting is `argsort`, which has no gradient, and a `take_along` at its positions, which has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...scalar.function import NUMBERS
from ...types.tensors import FLOATS, TensorType, Type
from ..nodes import Builder
from . import require
from .calculus import Value, rule_with_attrs
from .elementwise import NUMPY
from .op import KERNEL, Op, Sample, ShapeError


def _f(*shape: int, dtype: str = "f32") -> TensorType:
    return TensorType(dtype, shape)


# --- recurrences -----------------------------------------------------------------------------------------------------


def _recurrence_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    a, b = require.tensors("recurrence", types, 2)
    require.accepted("recurrence", [a, b], NUMBERS)
    require.same_dtype("recurrence", [a, b])
    require.same_shape("recurrence", [a, b])
    require.axis("recurrence", b, attrs["axis"])
    return b


def _recurrence_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    a, b = (np.moveaxis(x.astype(np.float64 if type.dtype in FLOATS else x.dtype), attrs["axis"], 0) for x in args)
    y = np.empty_like(b)
    back = int(attrs["reverse"])
    for k in range(len(b)):
        i = len(b) - 1 - k if back else k
        y[i] = a[i + back] * y[i - 1 + 2 * back] + b[i] if k else b[i]
    return np.moveaxis(y, 0, attrs["axis"]).astype(NUMPY[type.dtype])


def _recurrence_grad(attrs: Any, dy: Value, y: Value, a: Value, b: Value) -> tuple[Value | None, Value]:
    """The adjoint of b runs back along the links; that of link i is what came over it times the adjoint where it went.
    Forward that is da[i] = y[i-1] db[i], in reverse da[i] = db[i-1] y[i]."""
    axis, back = attrs["axis"], attrs["reverse"]
    db = a.apply("recurrence", dy, axis=axis, reverse=not back)
    if a.is_literal:
        return None, db
    before, after = (db, y) if back else (y, db)
    low = tuple(int(k == axis) for k in range(y.type.rank))
    before = before.apply("pad", low=low, high=(0,) * y.type.rank, value=0.0)
    before = before.apply("slice", starts=(0,) * y.type.rank, stops=y.shape, steps=(1,) * y.type.rank)
    return _is_first(y.b, y.type, axis).where(0, before * after if back else after * before), db


def _is_first(b: Builder, t: TensorType, axis: int) -> Value:
    return Value(b, b.emit("iota", shape=t.shape, axis=axis, dtype="i32")).apply("eq", 0)


RECURRENCE = Op(
    name="recurrence",
    kind=KERNEL,
    infer=_recurrence_infer,
    reference=_recurrence_reference,
    grad=rule_with_attrs(_recurrence_grad),
    flops=lambda types, attrs, result: 2 * result.size,
    doc="y[i] = a[i] y[i-1] + b[i] along `axis`, y[0] = b[0]; with `reverse` y[i] = a[i+1] y[i+1] + b[i] from the end. "
    "Floats in f64, rounded as they are stored; one after the other, so the order is one",
    samples=(
        Sample((_f(5), _f(5)), {"axis": 0, "reverse": False}),
        Sample((_f(5), _f(5)), {"axis": 0, "reverse": True}),
        Sample((_f(3, 4), _f(3, 4)), {"axis": 1, "reverse": False}),
        Sample((_f(3, 4), _f(3, 4)), {"axis": 0, "reverse": True}),
        Sample((_f(2, 4, 37), _f(2, 4, 37)), {"axis": 1, "reverse": False}, -0.9, 0.9),
        Sample((_f(7, 4, 1), _f(7, 4, 1)), {"axis": 1, "reverse": True}),
        Sample((_f(1, 3), _f(1, 3)), {"axis": 0, "reverse": False}),
        Sample((_f(0, 3), _f(0, 3)), {"axis": 0, "reverse": False}),
        Sample((_f(3, 0), _f(3, 0)), {"axis": 0, "reverse": True}),
        Sample((_f(4, 3, dtype="i32"),) * 2, {"axis": 0, "reverse": False}, -9, 9),
        Sample((_f(6, dtype="i64"),) * 2, {"axis": 0, "reverse": True}, -9, 9),
    ),
)


def cumsum(b: Builder, x: str, axis: int) -> str:
    """y[.., i, ..] = sum_(j <= i) x[.., j, ..]."""
    v = Value(b, x)
    return _along(v.constant(1), v, axis, "cumsum")


def cumprod(b: Builder, x: str, axis: int) -> str:
    """y[.., i, ..] = prod_(j <= i) x[.., j, ..]: to each product nothing is added, which is -0, as 0 is not for -0."""
    v = Value(b, x)
    require.axis("cumprod", v.type, axis)
    return _along(v, _is_first(b, v.type, axis).where(v, -0.0), axis, "cumprod")


def _along(a: Value, b: Value, axis: int, name: str) -> str:
    require.accepted(name, [b.type], NUMBERS)
    require.axis(name, b.type, axis)
    return a.apply("recurrence", b, axis=axis, reverse=False).name


# --- sorting ---------------------------------------------------------------------------------------------------------


def _argsort_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (x,) = require.tensors("argsort", types, 1)
    require.accepted("argsort", [x], NUMBERS)
    if x.rank == 0:
        raise ShapeError("E0303", f"argsort needs an axis, but this is {x}", (0,))
    return x.with_dtype("i32")


def _argsort_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    """NumPy's stable sort; a descending one is an ascending one from behind, of numbers that count from behind."""
    (x,) = args
    if not attrs["descending"]:
        return np.argsort(x, axis=-1, kind="stable").astype(np.int32)
    back = np.argsort(np.flip(x, -1), axis=-1, kind="stable")
    return np.asarray(np.flip(x.shape[-1] - 1 - back, -1), np.int32)


def _comparisons(types: Sequence[Any], attrs: Any, result: Any) -> Any:
    n = result.shape[-1]
    return result.size * (max(1, (n - 1).bit_length()) if isinstance(n, int) else 8)


ARGSORT = Op(
    name="argsort",
    kind=KERNEL,
    infer=_argsort_infer,
    reference=_argsort_reference,
    grad="the positions that sort are whole numbers, and their derivative is zero or undefined everywhere",
    flops=_comparisons,
    doc="The indices (i32) that sort the last axis, large first if `descending`: equals keep their order, 0 and -0 are "
    "equals, and NaN is above every number",
    samples=(
        *(Sample((_f(*s),), {"descending": d}) for s in ((5,), (3, 4), (0, 3), (3, 0), (2, 1)) for d in (False, True)),
        Sample((_f(2, 3, 17),), {"descending": False}),
        Sample((_f(67),), {"descending": True}),
        Sample((_f(3, 33, dtype="i32"),), {"descending": False}, -3, 3),
        Sample((_f(3, 33, dtype="i32"),), {"descending": True}, -3, 3),
        Sample((_f(40, dtype="i64"),), {"descending": True}, -9, 9),
    ),
)


def argsort(b: Builder, x: str, axis: int, descending: bool = False) -> str:
    """The positions along `axis`, in the order of what is there."""
    return _behind(b, x, axis, "argsort", lambda rows: b.emit("argsort", rows, descending=descending))


def sort(b: Builder, x: str, axis: int, descending: bool = False) -> str:
    """The elements along `axis` in order; the gradient goes back to where each came from."""
    return _behind(
        b, x, axis, "sort", lambda rows: b.emit("take_along", rows, b.emit("argsort", rows, descending=descending))
    )


def _behind(b: Builder, x: str, axis: int, name: str, make: Any) -> str:
    """What `make` makes of the operand with `axis` behind all others, with the axes as they were."""
    t = b.type(x)
    require.accepted(name, [t], NUMBERS)
    require.axis(name, t, axis)
    if axis == t.rank - 1:
        made: str = make(x)
        return made
    perm = (*(k for k in range(t.rank) if k != axis), axis)
    back = tuple(sorted(range(t.rank), key=lambda k: perm[k]))
    return b.emit("transpose", make(b.emit("transpose", x, perm=perm)), perm=back)


def top_k(b: Builder, x: str, k: int) -> tuple[str, str]:
    """The k largest of the last axis, from large to small, and their indices (i32)."""
    index = b.emit("argsort", x, descending=True)
    *lead, n = b.shape(index)
    if k < 1 or (isinstance(n, int) and k > n):
        raise ShapeError("E0307", f"top_k asks for {k} of {n} elements", (0,))
    starts, stops = (0,) * (len(lead) + 1), (*lead, k)
    index = b.emit("slice", index, starts=starts, stops=stops, steps=(1,) * len(stops))
    return b.emit("take_along", x, index), index


ALL = (RECURRENCE, ARGSORT)

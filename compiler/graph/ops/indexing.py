"""Indexing by data: `gather` takes rows, `scatter_add` is its adjoint, `scatter_mul` multiplies, `scatter_max` and
`scatter_min` keep the largest and the smallest; `take_along` picks from each last axis for itself, `add_along` is its
adjoint.

An index outside its axis is an error: the reference raises IndexError, and the first pass reads every index through
`in_range`, which ends the step. `at` reads at the nearest index, so that it stays within the buffer whatever the check
does. One-hot vectors are no operator: they are `iota == index`, which is also the gradient of a `take_along` of one
index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...loops.ir import Apply, Expr, i64, identity, size_expr, sub
from ...scalar.function import FIRST, NUMBERS
from ...types.sizes import Dim
from ...types.tensors import FLOATS, INTS, TensorType, Type
from . import require
from .calculus import Value, rule_with_attrs
from .elementwise import NUMPY
from .op import KERNEL, MAP, VIEW, Op, Sample, ShapeError
from .reduction import other_factors, position

Index = tuple[Expr, ...]
Read = Callable[[int, Index], Expr]


def _f(*shape: int, dtype: str = "f32") -> TensorType:
    return TensorType(dtype, shape)


def _i(*shape: int, dtype: str = "i32") -> TensorType:
    return TensorType(dtype, shape)


def _checked(op: str, index: np.ndarray, n: int) -> np.ndarray:
    bad = index[(index < 0) | (index >= n)]
    if bad.size:
        raise IndexError(f"{op}: index {bad.flat[0]} is outside an axis of size {n}")
    return index


def _row(index: Expr, n: Dim) -> Expr:
    """A loaded index as i64, within an axis of size n."""
    wide = index if index.dtype == "i64" else Apply("cast", (index,), "i64")
    return Apply("maximum", (Apply("minimum", (wide, sub(size_expr(n), i64(1))), "i64"), i64(0)), "i64")


def _in_range_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (index,) = require.tensors("in_range", types, 1)
    _whole("in_range", index, 0)
    require.sizes("in_range", [attrs["size"]])
    return index


IN_RANGE = Op(
    name="in_range",
    kind=MAP,
    infer=_in_range_infer,
    grad=lambda b, node, dy: (None,),
    flops=lambda types, attrs, y: 0,
    at=lambda node, types, index, read: read(0, index),  # whoever makes a kernel of it checks what is read
    reference=lambda args, attrs, type: _checked(attrs["of"], args[0], attrs["size"]),
    doc="The operand itself, each element an index `of` an axis of `size`; one that is outside ends the step",
    samples=(
        Sample((_i(4),), {"size": 5, "of": "gather"}, 0, 5),
        Sample((_i(0),), {"size": 0, "of": "gather"}, 0, 5),
        Sample((_i(2, 3, dtype="i64"),), {"size": 2, "of": "gather"}, 0, 2),
        Sample((_i(),), {"size": 1, "of": "gather"}, 0, 1),
    ),
)


def _gather_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    table, index = require.tensors("gather", types, 2)
    axis = require.axis("gather", table, attrs.get("axis", 0))
    _whole("gather", index, 1)
    return table.with_shape((*table.shape[:axis], *index.shape, *table.shape[axis + 1 :]))


def _whole(op: str, index: TensorType, k: int) -> None:
    if index.dtype not in INTS:
        raise ShapeError("E0302", f"the index of {op} must be whole numbers, but this is {index}", (k,))


def _gather_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    axis = node.attrs.get("axis", 0)
    end = axis + types[1].rank
    row = _row(read(1, index[axis:end]), types[0].shape[axis])
    return read(0, (*index[:axis], row, *index[end:]))


def _gather_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    table, index = args
    axis = attrs.get("axis", 0)
    return np.take(table, _checked("gather", index, table.shape[axis]), axis=axis)


def _gather_grad(attrs: Any, dy: Value, y: Value, table: Value, index: Value) -> tuple[Value, None]:
    """A row gets the sum of the gradients of its copies. Axes before `axis` go behind for the time of the addition."""
    axis, n = attrs.get("axis", 0), index.type.rank
    if axis:
        before, middle = tuple(range(axis)), tuple(range(axis, axis + n))
        dy = dy.apply("transpose", perm=(*middle, *before, *range(axis + n, y.type.rank)))
    dx = index.apply("scatter_add", dy, size=table.shape[axis])
    if axis:
        dx = dx.apply("transpose", perm=(*range(1, axis + 1), 0, *range(axis + 1, table.type.rank)))
    return dx, None


GATHER = Op(
    name="gather",
    kind=VIEW,
    unsigned=FIRST,
    rows=(1, lambda attrs, types: types[0].shape[attrs.get("axis", 0)]),
    infer=_gather_infer,
    at=_gather_at,
    reference=_gather_reference,
    grad=rule_with_attrs(_gather_grad),
    doc="Slices of the first operand along `axis` (0) at the indices of the second, whose axes take that axis' place",
    samples=(
        Sample((_f(5, 3), _i(4)), {"axis": 0}, 0, 5),
        Sample((_f(5), _i(2, 3)), {"axis": 0}, 0, 5),
        Sample((_f(2, 5, 3), _i(4, dtype="i64")), {"axis": 1}, 0, 5),
        Sample((_f(5, 3), _i()), {"axis": 0}, 0, 5),
        Sample((_f(5, 0), _i(2)), {"axis": 0}, 0, 5),
        Sample((_f(5, 3), _i(0)), {"axis": 0}, 0, 5),
        Sample((_f(1, 2), _i(3)), {"axis": 0}, 0, 1),
        Sample((_i(5), _i(3)), {"axis": 0}, 0, 5),
    ),
)


def _scatter_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    index, updates = require.tensors("scatter", types, 2)
    _whole("scatter", index, 0)
    require.accepted("scatter", [updates], NUMBERS)
    if updates.shape[: index.rank] != index.shape:
        message = f"scatter needs an update for each index, but {updates} does not begin with the axes of {index}"
        raise ShapeError("E0301", message, (0, 1))
    return updates.with_shape((*require.sizes("scatter", [attrs["size"]]), *updates.shape[index.rank :]))


def _scatter_mul_grad(attrs: Any, dy: Value, y: Value, index: Value, updates: Value) -> tuple[None, Value]:
    """dy times the other updates of the row."""
    ops = {fold: op for op, fold in SCATTERS.items()}

    def fold(v: Value, by: str) -> Value:
        return index.apply(ops[by], v, size=attrs["size"]).apply("gather", index, axis=0)

    return None, dy.apply("gather", index, axis=0) * other_factors(updates, fold)


def _scatter_extreme_grad(attrs: Any, dy: Value, y: Value, index: Value, updates: Value) -> tuple[None, Value]:
    """All of the gradient of an element goes to the first update that equals it."""
    p = position(updates, tuple(range(index.type.rank)))
    hit = updates.apply("eq", y.apply("gather", index, axis=0))
    none = int(np.iinfo(NUMPY[p.type.dtype]).max)
    first = index.apply("scatter_min", hit.where(p, none), size=attrs["size"])
    own = p.apply("eq", first.apply("gather", index, axis=0))
    return None, own.where(dy.apply("gather", index, axis=0), 0)


def _scatter(name: str, fold: str, into: Any, grad: Callable[..., Any], doc: str) -> Op:
    """Rows of what the fold begins with (a sum with 0), into which each update is folded at the row its index names."""

    def reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
        index, updates = args
        result = np.full(require.known(type.shape), start(fold, type.dtype), updates.dtype)
        into.at(result, _checked("scatter", index, attrs["size"]), updates)
        return result

    return Op(
        name=name,
        kind=KERNEL,
        rows=(0, lambda attrs, types: attrs["size"]),
        infer=_scatter_infer,
        reference=reference,
        grad=rule_with_attrs(grad),
        flops=lambda types, attrs, result: types[1].size,
        doc=doc,
        samples=(
            Sample((_i(4), _f(4, 3)), {"size": 5}, 0, 5),
            Sample((_i(2, 3), _f(2, 3)), {"size": 5}, 0, 5),
            Sample((_i(dtype="i64"), _f(3)), {"size": 5}, 0, 5),
            Sample((_i(0), _f(0, 3)), {"size": 5}, 0, 5),
            Sample((_i(6), _i(6)), {"size": 5}, 0, 5),
            Sample((_i(3), _f(3, 0)), {"size": 5}, 0, 5),
        ),
    )


def start(fold: str, dtype: str) -> int | float | bool:
    """What a row holds before the first update, and where there is none."""
    return identity(fold, dtype) if fold != "sum" else 0.0 if dtype in FLOATS else 0


# and what each folds with
SCATTERS = {"scatter_add": "sum", "scatter_mul": "prod", "scatter_max": "max", "scatter_min": "min"}
SCATTER_ADD = _scatter(
    "scatter_add",
    "sum",
    np.add,
    lambda attrs, dy, y, index, updates: (None, dy.apply("gather", index, axis=0)),
    "`size` rows of 0, to which each update is added at the row its index names, in order",
)
SCATTER_MUL = _scatter(
    "scatter_mul",
    "prod",
    np.multiply,
    _scatter_mul_grad,
    "In each of `size` rows the product of the updates whose index names it, 1 where there are none",
)
SCATTER_MAX = _scatter(
    "scatter_max",
    "max",
    np.maximum,
    _scatter_extreme_grad,
    "In each of `size` rows the largest of the updates whose index names it, -inf where there are none; the gradient "
    "goes to the first of equals",
)
SCATTER_MIN = _scatter(
    "scatter_min",
    "min",
    np.minimum,
    _scatter_extreme_grad,
    "In each of `size` rows the smallest of the updates whose index names it, inf where there are none; the gradient "
    "goes to the first of equals",
)


def _take_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    x, index = require.tensors("take_along", types, 2)
    _whole("take_along", index, 1)
    if x.rank == 0 or x.shape[:-1] != index.shape[: x.rank - 1]:
        message = f"take_along needs indices for each last axis, but {index} does not begin with the others of {x}"
        raise ShapeError("E0301", message, (0, 1))
    return x.with_shape(index.shape)


def _take_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    lead = index[: types[0].rank - 1]
    return read(0, (*lead, _row(read(1, index), types[0].shape[-1])))


def _beside(lead: Sequence[int], rank: int) -> tuple[np.ndarray, ...]:
    """The indices of the leading axes, beside an index of so many axes that begins with them."""
    return tuple(np.arange(n).reshape([-1 if j == k else 1 for j in range(rank)]) for k, n in enumerate(lead))


def _take_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    x, index = args
    taken: np.ndarray = x[(*_beside(x.shape[:-1], index.ndim), _checked("take_along", index, x.shape[-1]))]
    return taken


def _take_grad(attrs: Any, dy: Value, y: Value, x: Value, index: Value) -> tuple[Value, None]:
    """dy is added where it was taken from. Where that is one element of each last axis: dy times a one-hot vector."""
    lead = tuple(range(x.type.rank - 1))
    if index.type.rank > len(lead):
        return index.apply("add_along", dy, lead=len(lead), size=x.shape[-1]), None
    here = Value(x.b, x.b.emit("iota", shape=x.shape, axis=len(lead), dtype=index.type.dtype))
    return here.apply("eq", index.spread(x.shape, lead)).where(dy.spread(x.shape, lead), 0), None


TAKE_ALONG = Op(
    name="take_along",
    kind=VIEW,
    rows=(1, lambda attrs, types: types[0].shape[-1]),
    infer=_take_infer,
    at=_take_at,
    reference=_take_reference,
    grad=rule_with_attrs(_take_grad),
    doc="x[..., index]: from each last axis the elements that its part of the index names, one or more",
    samples=(
        Sample((_f(3, 5), _i(3)), {}, 0, 5),
        Sample((_f(5), _i()), {}, 0, 5),
        Sample((_f(0, 5), _i(0)), {}, 0, 5),
        Sample((_f(2, 3, 5), _i(2, 3, dtype="i64")), {}, 0, 5),
        Sample((_f(3, 1), _i(3)), {}, 0, 1),
        Sample((_i(3, 5), _i(3)), {}, 0, 5),
        Sample((_f(3, 5), _i(3, 4)), {}, 0, 5),
        Sample((_f(5), _i(2, 3)), {}, 0, 5),
        Sample((_f(2, 3, 5), _i(2, 3, 5, dtype="i64")), {}, 0, 5),
        Sample((_f(3, 5), _i(3, 0)), {}, 0, 5),
    ),
)


def _along_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    index, updates = require.tensors("add_along", types, 2)
    _whole("add_along", index, 0)
    require.accepted("add_along", [updates], NUMBERS)
    if updates.shape != index.shape or not 0 <= attrs["lead"] < max(1, index.rank):
        raise ShapeError("E0301", f"add_along needs an update for each index, but {updates} is not {index}", (0, 1))
    return updates.with_shape((*index.shape[: attrs["lead"]], *require.sizes("add_along", [attrs["size"]])))


def _along_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    index, updates = args
    result = np.zeros(require.known(type.shape), updates.dtype)
    lead = _beside(index.shape[: attrs["lead"]], index.ndim)
    np.add.at(result, (*lead, _checked("add_along", index, attrs["size"])), updates)
    return result


ADD_ALONG = Op(
    name="add_along",
    kind=KERNEL,
    rows=(0, lambda attrs, types: attrs["size"]),
    infer=_along_infer,
    reference=_along_reference,
    grad=rule_with_attrs(lambda attrs, dy, y, index, updates: (None, dy.apply("take_along", index))),
    flops=lambda types, attrs, result: types[1].size,
    doc="For each point of the first `lead` axes `size` zeros, to which each update is added where its index says, in "
    "order",
    samples=(
        Sample((_i(3, 4), _f(3, 4)), {"lead": 1, "size": 5}, 0, 5),
        Sample((_i(2, 3), _f(2, 3)), {"lead": 0, "size": 5}, 0, 5),
        Sample((_i(2, 3, 4, dtype="i64"), _f(2, 3, 4)), {"lead": 2, "size": 5}, 0, 5),
        Sample((_i(), _f()), {"lead": 0, "size": 5}, 0, 5),
        Sample((_i(3, 0), _f(3, 0)), {"lead": 1, "size": 5}, 0, 5),
        Sample((_i(0, 3), _f(0, 3)), {"lead": 1, "size": 5}, 0, 5),
        Sample((_i(3, 2), _i(3, 2)), {"lead": 1, "size": 5}, 0, 5),
    ),
)

ALL = (IN_RANGE, GATHER, SCATTER_ADD, SCATTER_MUL, SCATTER_MAX, SCATTER_MIN, TAKE_ALONG, ADD_ALONG)

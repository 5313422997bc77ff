"""Leaves, results of several, and the operators that speak to differentiation rather than compute.

`input`, `param` and constants with axes are buffers that are there; scalar constants, `size` and `iota` are computed
where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...loops.ir import Apply, Const, Expr, size_expr
from ...scalar.function import ALWAYS, FIRST, NUMBERS
from ...types.tensors import FLOATS, TensorType, TupleType, Type
from . import require
from .elementwise import NUMPY
from .op import ABSTRACT, LEAF, MAP, TUPLE, Op, Sample, ShapeError


def _leaf_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    require.tensors("a leaf", types, 0)
    t: TensorType = attrs["type"]
    require.sizes("a leaf", t.shape)
    return t


INPUT = Op(
    name="input",
    kind=LEAF,
    infer=_leaf_infer,
    reference=None,
    grad=None,
    implied=("type",),
    named="name",
    doc="A value passed from outside; `name` is what the outside calls it",
)

PARAM = Op(
    name="param",
    kind=LEAF,
    infer=_leaf_infer,
    reference=None,
    grad=None,
    implied=("type",),
    named="path",
    doc="A parameter or a piece of state, by its `path`; its value is that of before the step",
)


def constant_expr(value: float, dtype: str) -> Const:
    """A number as a constant of a dtype."""
    return Const(float(value) if dtype in ("f32", "f64") else bool(value) if dtype == "bool" else int(value), dtype)


def _constant_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    t = _leaf_infer(types, attrs)
    if not isinstance(t.size, int) or len(attrs["values"]) != t.size:
        raise ShapeError("E0307", f"a constant {t} has {t.size} elements, but {len(attrs['values'])} are given")
    return t


def _constant_at(node: Any, types: Sequence[Type], index: tuple[Expr, ...], read: Callable[..., Expr]) -> Expr:
    assert not index, "a constant with axes is a buffer"
    return constant_expr(node.attrs["values"][0], node.dtype)


CONSTANT = Op(
    name="constant",
    kind=LEAF,
    infer=_constant_infer,
    at=_constant_at,
    grad=None,
    implied=("type",),
    reference=lambda args, attrs, type: np.array(attrs["values"], NUMPY[type.dtype]).reshape(type.shape),
    doc="`values` in row-major order",
    samples=(
        Sample((), {"values": (1.5,), "type": TensorType("f32")}),
        Sample((), {"values": (1, 2), "type": TensorType("i64", (2,))}),
        Sample((), {"values": (), "type": TensorType("f64", (0, 3))}),
        Sample((), {"values": (True, False), "type": TensorType("bool", (1, 2))}),
        Sample((), {"values": (float("inf"), float("nan"), -0.0), "type": TensorType("f32", (3,))}),
    ),
)


def _size_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    require.tensors("size", types, 0)
    if attrs["dtype"] not in NUMBERS:
        raise ShapeError("E0302", f"a size is a number, not {attrs['dtype']}")
    return TensorType(attrs["dtype"])


def _to(e: Expr, dtype: str) -> Expr:
    """A size or an index as a number; what every dtype has exactly is a constant."""
    if isinstance(e, Const) and 0 <= e.value < 1 << 24 and dtype != e.dtype:
        return constant_expr(e.value, dtype)
    return e if e.dtype == dtype else Apply("cast", (e,), dtype)


SIZE = Op(
    name="size",
    kind=MAP,
    infer=_size_infer,
    grad=None,
    doc="The size `size` as a number",
    weight=0,
    unsigned=ALWAYS,
    implied=("dtype",),
    at=lambda node, types, index, read: _to(size_expr(node.attrs["size"]), node.dtype),
    reference=lambda args, attrs, type: np.array(attrs["size"], NUMPY[type.dtype]),
    samples=(Sample((), {"size": 7, "dtype": "f32"}), Sample((), {"size": 0, "dtype": "i64"})),
)


def _iota_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    require.tensors("iota", types, 0)
    if attrs["dtype"] not in NUMBERS:
        raise ShapeError("E0302", f"iota counts in numbers, not in {attrs['dtype']}")
    t = TensorType(attrs["dtype"], require.sizes("iota", attrs["shape"]))
    require.axis("iota", t, attrs["axis"])
    return t


def _iota_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    axis = attrs["axis"]
    along = np.arange(type.shape[axis], dtype=NUMPY[type.dtype])
    return np.broadcast_to(along.reshape([-1 if k == axis else 1 for k in range(type.rank)]), require.known(type.shape))


IOTA = Op(
    name="iota",
    kind=MAP,
    infer=_iota_infer,
    reference=_iota_reference,
    grad=None,
    weight=0,
    unsigned=ALWAYS,
    implied=("shape", "dtype"),
    at=lambda node, types, index, read: _to(index[node.attrs["axis"]], node.dtype),
    doc="0, 1, 2, ... along `axis` of `shape`",
    samples=(
        *(
            Sample((), {"shape": s, "axis": k, "dtype": d})
            for s, k, d in (((4,), 0, "i32"), ((2, 3), 1, "f32"), ((2, 0), 0, "i64"), ((3, 1), 0, "i64"))
        ),
    ),
)


def _item_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    if len(types) != 1 or not isinstance(types[0], TupleType):
        raise ShapeError("E0307", "item takes one operand, a tuple")
    items = types[0].items
    index: int = attrs["index"]
    if not 0 <= index < len(items):
        raise ShapeError("E0307", f"item {index} of a tuple of {len(items)}", (0,))
    return items[index]


ITEM = Op(
    name="item",
    kind=TUPLE,
    infer=_item_infer,
    doc="Result `index` of an operator that has several",
    reference=lambda args, attrs, type: args[0][attrs["index"]],
    grad="results of an operator with several are not differentiable",
    samples=(Sample((TupleType((TensorType("f32", (2,)), TensorType("i32"))),), {"index": 1}),),
)


def _fused_infer(types: Sequence[Type], attrs: Any) -> Type:
    body = attrs["body"]
    inputs = [n for n in body if n.op == "input"]
    if [n.type for n in inputs] != list(types):
        wanted = ", ".join(str(n.type) for n in inputs)
        raise ShapeError("E0307", f"the body of fused takes ({wanted}), but is given ({', '.join(map(str, types))})")
    results = tuple(body[v].type for _, v in body.outputs)
    return results[0] if len(results) == 1 else TupleType(results)


def _fused_reference(args: Sequence[np.ndarray], attrs: Any, type: Type) -> Any:
    inputs = [n.attrs["name"] for n in attrs["body"] if n.op == "input"]
    results = attrs["run"](attrs["body"], dict(zip(inputs, args, strict=True)), attrs["sizes"])
    return results[0] if len(results) == 1 else results


FUSED = Op(
    name="fused",
    kind=TUPLE,
    infer=_fused_infer,
    reference=_fused_reference,
    grad="fusion comes after differentiation",
    doc="The graph `body` computed in one go: operands are its inputs in order, results its outputs",
)


# --- differentiation -------------------------------------------------------------------------------------------------


def _grad_infer(types: Sequence[Type], attrs: Any) -> TupleType:
    y, *xs = require.tensors("grad", types, None)
    if y.dtype not in FLOATS or y.shape:
        raise ShapeError(
            "E0402",
            f"only a scalar float can be differentiated, but this is {y}",
            (0,),
            help="add its elements up: `grad(sum(y), x)`" if y.dtype in FLOATS else None,
        )
    for k, x in enumerate(xs, 1):
        if x.dtype not in FLOATS:
            raise ShapeError("E0401", f"only with respect to floats can one differentiate, but this is {x}", (k,))
    return TupleType(tuple(xs))


GRAD = Op(
    name="grad",
    kind=ABSTRACT,
    infer=_grad_infer,
    reference=None,
    grad=None,
    doc="The derivatives of the first operand, a scalar, with respect to each of the others; see `differentiate`",
)


def _across_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (x,) = require.tensors("across", types, 1)
    if attrs["fold"] not in ("mean", "sum"):
        raise ShapeError("E0307", f"shards are combined by mean or sum, not by {attrs['fold']}")
    if attrs["fold"] == "mean" and x.dtype not in FLOATS:
        raise ShapeError("E0302", f"only floats have a mean over the shards of a batch, but this is {x}", (0,))
    return x


ACROSS = Op(
    name="across",
    kind=ABSTRACT,
    infer=_across_infer,
    reference=None,
    grad=lambda b, node, dy: (b.emit("across", dy, fold="mean"),),
    doc="The mean over the shards of a batch, weighed by their examples, or their sum; see `cut`. Adjoints in a shard "
    "are those of its own loss, and the mean of these is the loss, so that the adjoint of the mean is their mean",
)


def _same(op: str) -> Callable[..., TensorType]:
    def infer(types: Sequence[Type], attrs: Any) -> TensorType:
        return require.tensors(op, types, 1)[0]

    return infer


def _straight_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    ts = require.tensors("straight_through", types, 2)
    require.same_dtype("straight_through", ts)
    require.same_shape("straight_through", ts)
    return ts[0]


_IDENTITY_SAMPLES = tuple(Sample((TensorType(d, s),), {}) for d, s in (("f32", (2, 3)), ("f64", ()), ("i32", (0,))))

STOP_GRAD = Op(
    name="stop_grad",
    kind=MAP,
    infer=_same("stop_grad"),
    doc="The operand, as a constant to differentiation",
    weight=0,
    unsigned=FIRST,
    at=lambda node, types, index, read: read(0, index),
    reference=lambda args, attrs, type: args[0],
    grad=lambda b, node, dy: (None,),
    flops=lambda types, attrs, result: 0,
    samples=_IDENTITY_SAMPLES,
)

STRAIGHT_THROUGH = Op(
    name="straight_through",
    kind=MAP,
    infer=_straight_infer,
    weight=0,
    doc="The value of the first operand with the gradient of the second. Bengio, Léonard, Courville (2013)",
    at=lambda node, types, index, read: read(0, index),
    reference=lambda args, attrs, type: args[0],
    grad=lambda b, node, dy: (None, dy),
    flops=lambda types, attrs, result: 0,
    samples=tuple(Sample((TensorType("f32", s),) * 2, {}) for s in ((2, 3), (), (0,))),
)

CHECKPOINT = Op(
    name="checkpoint",
    kind=MAP,
    infer=lambda types, attrs: require.tensors("checkpoint", types, len(types))[0],
    doc="The first operand, which is kept for the backward pass, as are the others; what it is computed from, back to "
    "the others, inputs, parameters and earlier checkpoints, is computed there again. Chen et al. (2016)",
    at=lambda node, types, index, read: read(0, index),
    reference=lambda args, attrs, type: args[0],
    grad=lambda b, node, dy: (dy, *[None] * (len(node.args) - 1)),
    flops=lambda types, attrs, result: 0,
    samples=(*_IDENTITY_SAMPLES, Sample((TensorType("f32", (2, 3)), TensorType("f32", (4,))), {})),
)

ALL = (INPUT, PARAM, CONSTANT, SIZE, IOTA, ITEM, FUSED, GRAD, ACROSS, STOP_GRAD, STRAIGHT_THROUGH, CHECKPOINT)

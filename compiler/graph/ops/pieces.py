"""Pieces: a part of an operand, its axes reversed, operands with something around or beside them.

All are views: the value at a point is a read of the operand at an index computed from it, for `pad` and `concat` with a
choice of what to read. Where another choice is taken they read at a clamped index, so that no read is outside a buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...loops.ir import Apply, Expr, add, i64, mul, size_expr, sub
from ...scalar.function import EACH, FIRST
from ...types.sizes import Dim
from ...types.tensors import TensorType, Type
from . import require
from .calculus import Value, rule_with_attrs
from .layout import Index, Read
from .op import VIEW, Op, Sample, Seen, ShapeError
from .plumbing import constant_expr


def _t(*shape: int, dtype: str = "f32") -> TensorType:
    return TensorType(dtype, shape)


def _slice_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("slice", types, 1)
    shape: list[Dim] = []
    for what in ("starts", "stops", "steps"):
        require.one_each("slice", t, what, attrs[what])
    for k, (start, stop, step) in enumerate(zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)):
        if not isinstance(step, int) or step < 1:
            raise ShapeError("E0307", f"the step of a slice must be at least 1, but is {step}", (0,))
        if _more(0, start) or _more(start, stop) or _more(stop, t.shape[k]):
            message = f"the slice {start}:{stop} is not within axis {k} of {t}, of size {t.shape[k]}"
            raise ShapeError("E0307", message, (0,))
        shape.append((stop - start + step - 1) // step)
    return t.with_shape(shape)


def _more(a: Dim, b: Dim) -> bool:
    """Certainly a > b."""
    difference = a - b
    return isinstance(difference, int) and difference > 0


def _slice_axes(attrs: Any, old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Seen, ...]:
    cut = zip(attrs["starts"], attrs["stops"], attrs["steps"], old, strict=True)
    return tuple(Seen(k, c, a, (a, b, c) != (0, n, 1)) for k, (a, b, c, n) in enumerate(cut))


def _slice_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    starts, steps = node.attrs["starts"], node.attrs["steps"]
    return read(0, tuple(add(size_expr(a), mul(i, i64(s))) for i, a, s in zip(index, starts, steps, strict=True)))


def _slice_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    return args[0][tuple(map(slice, attrs["starts"], attrs["stops"], attrs["steps"]))]


def _slice_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    """What was not taken gets 0. Steps are undone by a contraction, dense[.., step i, ..] += dy[.., i, ..]."""
    starts, stops, steps = attrs["starts"], attrs["stops"], attrs["steps"]
    if any(s != 1 for s in steps):
        names = [f"i{k}" for k in range(y.type.rank)]
        dy = dy.apply(
            "contract",
            domain=tuple(zip(names, y.shape, strict=True)),
            maps=(tuple((0, ((i, 1),)) for i in names),),
            out=tuple((0, ((i, s),)) for i, s in zip(names, steps, strict=True)),
            shape=tuple(b - a for a, b in zip(starts, stops, strict=True)),
        )
    high = tuple(n - b for n, b in zip(x.shape, stops, strict=True))
    return (dy.apply("pad", low=tuple(starts), high=high, value=0.0),)


def _slice_sizes(attrs: Any, types: Sequence[TensorType]) -> Iterator[Dim]:
    yield from attrs["starts"]
    yield from (b - a for a, b in zip(attrs["starts"], attrs["stops"], strict=True))
    yield from (n - b for n, b in zip(types[0].shape, attrs["stops"], strict=True))


SLICE = Op(
    name="slice",
    kind=VIEW,
    sizes=_slice_sizes,
    unsigned=FIRST,
    infer=_slice_infer,
    at=_slice_at,
    reference=_slice_reference,
    grad=rule_with_attrs(_slice_grad),
    axes=_slice_axes,
    doc="From `starts` up to `stops` in `steps`, per axis; within the operand",
    samples=(
        Sample((_t(5, 4),), {"starts": (1, 0), "stops": (4, 4), "steps": (1, 1)}),
        Sample((_t(7, 4),), {"starts": (1, 1), "stops": (7, 4), "steps": (2, 2)}),
        Sample(
            (
                _t(
                    7,
                ),
            ),
            {"starts": (0,), "stops": (7,), "steps": (3,)},
        ),
        Sample((_t(3),), {"starts": (3,), "stops": (3,), "steps": (1,)}),
        Sample((_t(),), {"starts": (), "stops": (), "steps": ()}),
        Sample((_t(4, dtype="i32"),), {"starts": (3,), "stops": (4,), "steps": (1,)}),
    ),
)


def _flip_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("flip", types, 1)
    require.axes("flip", t, attrs["axes"])
    return t


def _flip_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    last = [sub(size_expr(n), i64(1)) for n in node.shape]
    return read(0, tuple(sub(last[k], i) if k in node.attrs["axes"] else i for k, i in enumerate(index)))


def _flip_axes(attrs: Any, old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Seen, ...]:
    return tuple(Seen(k, -1, n - 1) if k in attrs["axes"] else Seen(k) for k, n in enumerate(old))


FLIP = Op(
    name="flip",
    kind=VIEW,
    unsigned=FIRST,
    infer=_flip_infer,
    at=_flip_at,
    axes=_flip_axes,
    reference=lambda args, attrs, type: np.flip(args[0], attrs["axes"]),
    grad=rule_with_attrs(lambda attrs, dy, y, x: (dy.apply("flip", axes=attrs["axes"]),)),
    doc="`axes` in reverse order",
    samples=(
        Sample((_t(4),), {"axes": (0,)}),
        Sample((_t(2, 3),), {"axes": (0, 1)}),
        Sample((_t(2, 3),), {"axes": ()}),
        Sample((_t(2, 0),), {"axes": (1,)}),
        Sample((_t(2, 3, dtype="bool"),), {"axes": (1,)}),
    ),
)


# --- pad and concat --------------------------------------------------------------------------------------------------


def _pad_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("pad", types, 1)
    for what in ("low", "high"):
        require.one_each("pad", t, what, attrs[what])
        if any(isinstance(n, int) and n < 0 for n in attrs[what]):
            raise ShapeError("E0307", f"pad cannot add a negative number of elements: {list(attrs[what])}", (0,))
    return t.with_shape(a + n + b for a, n, b in zip(attrs["low"], t.shape, attrs["high"], strict=True))


def _all(conditions: Sequence[Expr]) -> Expr:
    total = conditions[0]
    for c in conditions[1:]:
        total = Apply("and", (total, c), "bool")
    return total


def _clamp(i: Expr, n: Dim) -> Expr:
    """The nearest index of an axis of size n."""
    return Apply("maximum", (Apply("minimum", (i, sub(size_expr(n), i64(1))), "i64"), i64(0)), "i64")


def _pad_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    conditions: list[Expr] = []
    where = list(index)
    for k, (n, low, high) in enumerate(zip(types[0].shape, node.attrs["low"], node.attrs["high"], strict=True)):
        if low != 0 or high != 0:
            i = sub(index[k], size_expr(low))
            where[k] = _clamp(i, n)
            conditions += [Apply("ge", (i, i64(0)), "bool")] if low != 0 else []
            conditions += [Apply("lt", (i, size_expr(n)), "bool")] if high != 0 else []
    inside = read(0, tuple(where))
    if not conditions:
        return inside
    return Apply("select", (_all(conditions), inside, constant_expr(node.attrs["value"], node.dtype)), node.dtype)


def _pad_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    (x,) = args
    y = np.full(require.known(type.shape), attrs["value"], x.dtype)
    y[tuple(slice(a, a + n) for a, n in zip(attrs["low"], x.shape, strict=True))] = x
    return y


def _pad_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    stops = tuple(a + n for a, n in zip(attrs["low"], x.shape, strict=True))
    return (dy.apply("slice", starts=tuple(attrs["low"]), stops=stops, steps=(1,) * x.type.rank),)


def _pad_axes(attrs: Any, old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Seen, ...]:
    return tuple(Seen(k, 1, -low, n != new[k]) for k, (n, low) in enumerate(zip(old, attrs["low"], strict=True)))


PAD = Op(
    name="pad",
    kind=VIEW,
    sizes=lambda attrs, types: (*attrs["low"], *attrs["high"]),
    infer=_pad_infer,
    at=_pad_at,
    reference=_pad_reference,
    grad=rule_with_attrs(_pad_grad),
    axes=_pad_axes,
    doc="`low` elements of `value` before and `high` after, per axis",
    samples=(
        Sample((_t(3),), {"low": (1,), "high": (2,), "value": 0.0}),
        Sample((_t(2, 3),), {"low": (0, 1), "high": (2, 0), "value": 1.5}),
        Sample((_t(),), {"low": (), "high": (), "value": 0.0}),
        Sample((_t(2, 2, dtype="i32"),), {"low": (1, 0), "high": (0, 0), "value": 7}),
        Sample((_t(0, 2),), {"low": (0, 1), "high": (0, 1), "value": -1.0}),
    ),
)


def _concat_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    ts = require.tensors("concat", types, None)
    if not ts:
        raise ShapeError("E0307", "concat needs at least one operand")
    axis = require.axis("concat", ts[0], attrs["axis"])
    require.same_dtype("concat", ts)
    total: Dim = 0
    for k, t in enumerate(ts):
        if t.shape[:axis] + t.shape[axis + 1 :] != ts[0].shape[:axis] + ts[0].shape[axis + 1 :]:
            message = f"operands of concat must agree in all axes but {axis}, but {ts[0]} and {t} do not"
            raise ShapeError("E0301", message, (0, k))
        total = total + t.shape[axis]
    return ts[0].with_shape(total if k == axis else n for k, n in enumerate(ts[0].shape))


def _concat_at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    axis = node.attrs["axis"]
    ends: list[Dim] = []
    for t in types:
        ends.append((ends[-1] if ends else 0) + t.shape[axis])
    value: Expr | None = None
    for k in range(len(types) - 1, -1, -1):
        if types[k].shape[axis] == 0:
            continue
        i = index[axis] if k == 0 else sub(index[axis], size_expr(ends[k - 1]))
        i = i if len(types) == 1 else _clamp(i, types[k].shape[axis])
        here = read(k, (*index[:axis], i, *index[axis + 1 :]))
        before = Apply("lt", (index[axis], size_expr(ends[k])), "bool")
        value = here if value is None else Apply("select", (before, here, value), node.dtype)
    return value if value is not None else read(0, index)


def _concat_grad(attrs: Any, dy: Value, y: Value, *xs: Value) -> tuple[Value, ...]:
    axis, start, parts = attrs["axis"], 0, []
    for x in xs:
        stop = start + x.shape[axis]
        parts.append(
            dy.apply(
                "slice",
                starts=tuple(start if k == axis else 0 for k in range(y.type.rank)),
                stops=tuple(stop if k == axis else n for k, n in enumerate(y.shape)),
                steps=(1,) * y.type.rank,
            )
        )
        start = stop
    return tuple(parts)


def _concat_axes(attrs: Any, old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Seen, ...]:
    return tuple(Seen(k, part=k == attrs["axis"]) for k in range(len(old)))


CONCAT = Op(
    name="concat",
    kind=VIEW,
    unsigned=EACH,
    infer=_concat_infer,
    at=_concat_at,
    grad=rule_with_attrs(_concat_grad),
    reference=lambda args, attrs, type: np.concatenate(args, attrs["axis"]),
    axes=_concat_axes,
    doc="One after the other along `axis`",
    samples=(
        Sample((_t(2), _t(3)), {"axis": 0}),
        Sample((_t(2, 1), _t(2, 3), _t(2, 2)), {"axis": 1}),
        Sample((_t(2),), {"axis": 0}),
        Sample((_t(0, 2), _t(1, 2)), {"axis": 0}),
        Sample((_t(2, dtype="i32"), _t(1, dtype="i32")), {"axis": 0}),
    ),
)

ALL = (SLICE, FLIP, PAD, CONCAT)

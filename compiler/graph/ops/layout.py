"""Layout operators: the operand's elements at other indices. All are views: the value at a point is a read of the
operand at an index computed from it, for `pad` and `concat` with a choice of what to read.

Where another choice is taken, `pad` and `concat` read at a clamped index, so that no read is outside a buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ...loops.ir import Apply, Const, Expr, add, floordiv, i64, mod, mul, size_expr, sub
from ...scalar.function import EACH, FIRST
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
    name="broadcast", kind=VIEW, implied=("shape",), unsigned=FIRST,
    infer=_broadcast_infer, at=_broadcast_at, reference=_broadcast_reference,
    grad=rule_with_attrs(_broadcast_grad), axes=_broadcast_axes,
    doc="Axis k becomes axis `axes[k]` of `shape`; other axes are new and repeat it; an axis of size 1 is stretched",
    samples=(
        Sample((_t(3),), {"shape": (2, 3), "axes": (1,)}), Sample((_t(2),), {"shape": (2, 3), "axes": (0,)}),
        Sample((_t(),), {"shape": (2, 3), "axes": ()}), Sample((_t(3, 1),), {"shape": (3, 4), "axes": (0, 1)}),
        Sample((_t(1, 1),), {"shape": (3, 2, 4), "axes": (0, 2)}), Sample((_t(1),), {"shape": (0,), "axes": (0,)}),
        Sample((_t(0),), {"shape": (3, 0), "axes": (1,)}), Sample((_t(1),), {"shape": (1, 1), "axes": (1,)}),
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
    name="reshape", kind=VIEW, implied=("shape",), unsigned=FIRST,
    infer=_reshape_infer, at=_reshape_at, grad=rule_with_attrs(_reshape_grad),
    reference=lambda args, attrs, type: np.reshape(args[0], type.shape), axes=_reshape_axes,
    doc="The same elements in row-major order under another shape; `expand` and `squeeze` are this too",
    samples=(
        Sample((_t(6),), {"shape": (2, 3)}), Sample((_t(2, 3),), {"shape": (3, 2)}), Sample((_t(),), {"shape": (1, 1)}),
        Sample((_t(2, 1, 3),), {"shape": (2, 3)}), Sample((_t(4, 6),), {"shape": (2, 2, 3, 2)}),
        Sample((_t(0, 3),), {"shape": (3, 0)}), Sample((_t(2, 3, 4),), {"shape": (1, 6, 2, 2)}),
        Sample((_t(4, dtype="bool"),), {"shape": (2, 2)}),
    ),
)


def _assume_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("assume", types, 1)
    require.one_each("assume", t, "sizes", attrs["shape"])
    for n, m in zip(t.shape, attrs["shape"], strict=True):
        if isinstance(n, int) and isinstance(m, int) and n != m:
            raise ShapeError("E0301", f"{t} has not the shape {list(attrs['shape'])}: {n} is not {m}", (0,))
    return t.with_shape(require.sizes("assume", attrs["shape"]))


def _assume_grad(attrs: Any, dy: Value, y: Value, x: Value) -> tuple[Value]:
    return (dy.apply("assume", shape=x.shape),)


def _assume_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    assert args[0].shape == type.shape, "a guard was not checked"
    return args[0]


ASSUME = Op(
    name="assume", kind=VIEW, implied=("shape",), unsigned=FIRST,
    infer=_assume_infer, reference=_assume_reference, grad=rule_with_attrs(_assume_grad),
    at=lambda node, types, index, read: read(0, index), axes=lambda attrs, old, new: tuple(map(Seen, range(len(old)))),
    doc="The operand itself, its sizes written as `shape`: equal at run time, as a guard of the graph makes sure. "
    "One that is marked `again` is read by what `checkpoint` has computed a second time",
    samples=(Sample((_t(2, 3),), {"shape": (2, 3)}), Sample((_t(),), {"shape": ()}), Sample((_t(0),), {"shape": (0,)})),
)


# --- transpose, slice, flip ------------------------------------------------------------------------------------------


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
    name="transpose", kind=VIEW, unsigned=FIRST,
    infer=_transpose_infer, at=_transpose_at,
    axes=lambda attrs, old, new: tuple(map(Seen, inverse(attrs["perm"]))),
    reference=lambda args, attrs, type: np.transpose(args[0], attrs["perm"]),
    grad=rule_with_attrs(lambda attrs, dy, y, x: (dy.apply("transpose", perm=inverse(attrs["perm"])),)),
    doc="Axis k of the result is axis `perm[k]` of the operand",
    samples=(
        Sample((_t(2, 3),), {"perm": (1, 0)}), Sample((_t(2, 3, 4),), {"perm": (2, 0, 1)}),
        Sample((_t(),), {"perm": ()}), Sample((_t(2, 0, 1),), {"perm": (1, 2, 0)}),
        Sample((_t(2, 3, dtype="i64"),), {"perm": (1, 0)}),
    ),
)


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
            "contract", domain=tuple(zip(names, y.shape, strict=True)), maps=(tuple((0, ((i, 1),)) for i in names),),
            out=tuple((0, ((i, s),)) for i, s in zip(names, steps, strict=True)),
            shape=tuple(b - a for a, b in zip(starts, stops, strict=True)),
        )
    high = tuple(n - b for n, b in zip(x.shape, stops, strict=True))
    return (dy.apply("pad", low=tuple(starts), high=high, value=0.0),)


SLICE = Op(
    name="slice", kind=VIEW, unsigned=FIRST,
    infer=_slice_infer, at=_slice_at, reference=_slice_reference,
    grad=rule_with_attrs(_slice_grad), axes=_slice_axes,
    doc="From `starts` up to `stops` in `steps`, per axis; within the operand",
    samples=(
        Sample((_t(5, 4),), {"starts": (1, 0), "stops": (4, 4), "steps": (1, 1)}),
        Sample((_t(7, 4),), {"starts": (1, 1), "stops": (7, 4), "steps": (2, 2)}),
        Sample((_t(7,),), {"starts": (0,), "stops": (7,), "steps": (3,)}),
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
    name="flip", kind=VIEW, unsigned=FIRST,
    infer=_flip_infer, at=_flip_at, axes=_flip_axes,
    reference=lambda args, attrs, type: np.flip(args[0], attrs["axes"]),
    grad=rule_with_attrs(lambda attrs, dy, y, x: (dy.apply("flip", axes=attrs["axes"]),)),
    doc="`axes` in reverse order",
    samples=(Sample((_t(4),), {"axes": (0,)}), Sample((_t(2, 3),), {"axes": (0, 1)}), Sample((_t(2, 3),), {"axes": ()}),
             Sample((_t(2, 0),), {"axes": (1,)}), Sample((_t(2, 3, dtype="bool"),), {"axes": (1,)})),
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


def constant_expr(value: float, dtype: str) -> Const:
    """A number as a constant of a dtype."""
    return Const(float(value) if dtype in ("f32", "f64") else bool(value) if dtype == "bool" else int(value), dtype)


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
    name="pad", kind=VIEW, infer=_pad_infer, at=_pad_at, reference=_pad_reference, grad=rule_with_attrs(_pad_grad),
    axes=_pad_axes, doc="`low` elements of `value` before and `high` after, per axis",
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
        parts.append(dy.apply(
            "slice", starts=tuple(start if k == axis else 0 for k in range(y.type.rank)),
            stops=tuple(stop if k == axis else n for k, n in enumerate(y.shape)), steps=(1,) * y.type.rank,
        ))
        start = stop
    return tuple(parts)


def _concat_axes(attrs: Any, old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Seen, ...]:
    return tuple(Seen(k, part=k == attrs["axis"]) for k in range(len(old)))


CONCAT = Op(
    name="concat", kind=VIEW, unsigned=EACH,
    infer=_concat_infer, at=_concat_at, grad=rule_with_attrs(_concat_grad),
    reference=lambda args, attrs, type: np.concatenate(args, attrs["axis"]), axes=_concat_axes,
    doc="One after the other along `axis`",
    samples=(
        Sample((_t(2), _t(3)), {"axis": 0}), Sample((_t(2, 1), _t(2, 3), _t(2, 2)), {"axis": 1}),
        Sample((_t(2),), {"axis": 0}), Sample((_t(0, 2), _t(1, 2)), {"axis": 0}),
        Sample((_t(2, dtype="i32"), _t(1, dtype="i32")), {"axis": 0}),
    ),
)

ALL = (BROADCAST, RESHAPE, ASSUME, TRANSPOSE, SLICE, FLIP, PAD, CONCAT)

"""What is known is computed here, with NumPy, by the operators' own meaning.

Each function takes a node all of whose inputs are known, and gives its results, or None where it has no answer: then
the node is written as any other. On arrays of sizes NumPy computes with their own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ....compiler.types.sizes import Size, product
from ...call.arrays import NUMPY
from ...call.column import Array
from .node import Node
from .refusals import Refused
from .types import dtype_of, dtype_of_array
from .values import Value, known

MAX_NUMBERS = 1 << 28  # that are made here, in all
Fold = Callable[[Node], Sequence[Value] | None]


def _arrays(n: Node) -> list[Array]:
    return [v.known for v in n.inputs if v is not None and v.known is not None]


def _check_count(n: Node, count: int) -> None:
    """Of known numbers a graph of a few nodes can make any number; all of them are counted."""
    n.text.folded += count
    if n.text.folded > MAX_NUMBERS:
        raise Refused(f"{n.text.folded:,} numbers would be made of what is known; {MAX_NUMBERS:,} are the limit")


def _one(n: Node, array: Any, dtype: str | None = None, origin: str = "") -> Sequence[Value]:
    return (known(array, dtype or n.x.dtype, origin),)


def _elementwise(f: Callable[..., Any], dtype: str | None = None) -> Fold:
    def fold(n: Node) -> Sequence[Value] | None:
        if {"broadcast", "axis"} & set(n.attributes):  # of the first versions
            return None
        _check_count(n, prod(np.broadcast_shapes(*(a.shape for a in _arrays(n)))))
        with np.errstate(all="ignore"):
            return _one(n, f(*_arrays(n)), dtype)

    return fold


def _numeric(f: Callable[..., Any], dtype: str | None = None) -> Fold:
    """Of numbers alone, not of sizes."""

    def fold(n: Node) -> Sequence[Value] | None:
        return None if any(v is not None and v.is_symbolic for v in n.inputs) else _elementwise(f, dtype)(n)

    return fold


def _divide(a: Array, b: Array) -> Array:
    if a.dtype == object or b.dtype == object:
        return np.asarray(a // b)
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    quotient = np.abs(a) // np.where(b == 0, 1, np.abs(b))  # towards zero
    return np.asarray(np.where(b == 0, 0, quotient * np.sign(a) * np.sign(b)))


def _compare(f: Callable[[Any, Any], Any]) -> Fold:
    """Of sizes only what is certain: of equal ones, and of numbers."""

    def fold(n: Node) -> Sequence[Value] | None:
        if any(v is not None and v.is_symbolic for v in n.inputs):
            a, b = np.broadcast_arrays(*_arrays(n))
            decided = [_certain(f, p, q) for p, q in zip(a.reshape(-1), b.reshape(-1), strict=True)]
            return None if None in decided else _one(n, np.array(decided).reshape(a.shape), "bool")
        return _elementwise(f, "bool")(n)

    return fold


def _certain(f: Callable[[Any, Any], Any], a: Any, b: Any) -> bool | None:
    difference = a - b
    if not isinstance(difference, Size):
        return bool(f(difference, 0))
    constant = next((c for m, c in difference.terms if not m), 0)
    rest = [c for m, c in difference.terms if m]
    if constant > 0 and all(c > 0 for c in rest):  # sizes are not negative
        return bool(f(1, 0))
    if constant < 0 and all(c < 0 for c in rest):
        return bool(f(-1, 0))
    return None


def _where(n: Node) -> Sequence[Value] | None:
    c, a, b = _arrays(n)
    _check_count(n, prod(np.broadcast_shapes(c.shape, a.shape, b.shape)))
    return _one(n, np.where(c, a, b), n.input(1).dtype)


def _gather(n: Node) -> Sequence[Value]:
    x, index = _arrays(n)
    axis = n.axis(default=0)
    _check_count(n, x.size // max(x.shape[axis], 1) * index.size)
    if x.shape[axis] and (index.min(initial=0) < -x.shape[axis] or index.max(initial=0) >= x.shape[axis]):
        raise Refused("an index lies outside its axis")
    return _one(n, np.take(x, index.astype(np.int64), axis=axis), origin=n.x.origin if index.size > 1 else "")


def _concat(n: Node) -> Sequence[Value]:
    origin = next((v.origin for v in n.inputs if v is not None and v.origin), "")
    _check_count(n, sum(a.size for a in _arrays(n)))
    return _one(n, np.concatenate(_arrays(n), axis=n.axis(default=1 if n.version < 4 else None)), origin=origin)


def _axes(n: Node) -> list[int] | None:
    axes = n.given("axes", 1)
    return None if axes is None else [int(a) for a in axes if isinstance(a, int)]


def _unsqueeze(n: Node) -> Sequence[Value]:
    return _one(n, np.expand_dims(_arrays(n)[0], tuple(_axes(n) or ())), origin=n.x.origin)


def _squeeze(n: Node) -> Sequence[Value]:
    axes = _axes(n)
    return _one(n, np.squeeze(_arrays(n)[0], None if axes is None else tuple(axes)), origin=n.x.origin)


def _reshape(n: Node) -> Sequence[Value] | None:
    x = _arrays(n)[0]
    shape = n.given("shape", 1) or []
    if any(isinstance(d, Size) for d in shape):
        return None
    wanted = [x.shape[k] if d == 0 and not n.attribute("allowzero", 0) else int(str(d)) for k, d in enumerate(shape)]
    return _one(n, x.reshape(wanted), origin=n.x.origin)


def _slice(n: Node) -> Sequence[Value] | None:
    x = _arrays(n)[0]
    starts, ends = n.given("starts", 1) or [], n.given("ends", 2) or []
    axes = n.given("axes", 3) or list(range(len(starts)))
    steps = n.given("steps", 4) or [1] * len(starts)
    if any(isinstance(v, Size) for v in (*starts, *ends, *steps)):
        return None
    cut: list[Any] = [slice(None)] * x.ndim
    for axis, a, b, step in zip(axes, starts, ends, steps, strict=True):
        begin, stop = int(str(a)), int(str(b))
        length = x.shape[int(str(axis))]
        if int(str(step)) < 0:
            cut[int(str(axis))] = slice(begin, None if stop < -length else stop, int(str(step)))
        else:
            cut[int(str(axis))] = slice(begin, stop, int(str(step)))
    return _one(n, x[tuple(cut)], origin=n.x.origin)


def _transpose(n: Node) -> Sequence[Value]:
    return _one(n, np.transpose(_arrays(n)[0], n.attribute("perm", None)), origin=n.x.origin)


def _constant_of_shape(n: Node) -> Sequence[Value] | None:
    shape = n.numbers(0, "the shape")
    if not isinstance(count := product(shape), int) or count > MAX_NUMBERS:
        return None
    _check_count(n, count)
    value = n.attribute("value", np.zeros(1, np.float32))
    array = np.full([int(str(d)) for d in shape], value.reshape(-1)[0])
    return _one(n, array, dtype_of_array(value), n.outputs[0] if array.ndim else "")


def _expand(n: Node) -> Sequence[Value] | None:
    shape = n.numbers(1, "the shape")
    if not isinstance(count := product(shape), int) or count > MAX_NUMBERS:
        return None
    _check_count(n, count)
    x = _arrays(n)[0]
    return _one(n, np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(str(d)) for d in shape))))


def _range(n: Node) -> Sequence[Value] | None:
    if any(v is not None and v.is_symbolic for v in n.inputs):
        return None
    start, limit, delta = (a.reshape(-1)[0] for a in _arrays(n))
    if delta == 0:
        raise Refused("a range goes in steps other than 0")
    count = max(int(np.ceil((limit - start) / delta)), 0)
    if count > MAX_NUMBERS:
        return None
    return _one(n, start + np.arange(count).astype(start.dtype) * delta)


def _cast(n: Node) -> Sequence[Value] | None:
    dtype = dtype_of(n.needed("to"))
    if n.x.is_symbolic:
        return _one(n, n.x.known, dtype) if dtype in ("i32", "i64") else None
    with np.errstate(all="ignore"):
        return _one(n, _arrays(n)[0].astype(NUMPY[dtype]), dtype, n.x.origin if dtype in ("f32", "f64") else "")


def _reduce(f: Callable[..., Any]) -> Fold:
    def fold(n: Node) -> Sequence[Value] | None:
        x, axes = _arrays(n)[0], _axes(n)
        if x.dtype == object and f is not np.prod and f is not np.sum:
            return None
        if axes is None and n.attribute("noop_with_empty_axes", 0):
            return _one(n, x)
        keep = bool(n.attribute("keepdims", 1))
        return _one(n, f(x, axis=None if not axes else tuple(axes), keepdims=keep))

    return fold


def _tile(n: Node) -> Sequence[Value] | None:
    repeats = n.numbers(1, "the repeats")
    count = product([*n.x.shape, *repeats])
    if not isinstance(count, int) or count > MAX_NUMBERS:
        return None
    _check_count(n, count)
    return _one(n, np.tile(_arrays(n)[0], [int(str(d)) for d in repeats]))


def _nonzero(n: Node) -> Sequence[Value] | None:
    return None if n.x.is_symbolic else _one(n, np.array(np.nonzero(_arrays(n)[0])), "i64")


def _split(n: Node) -> Sequence[Value] | None:
    x, axis, parts = _arrays(n)[0], n.axis(default=0), n.given("split", 1)
    if parts is None:
        count = n.attribute("num_outputs", len(n.outputs))
        step = -(-x.shape[axis] // count)
        parts = [min(step, max(x.shape[axis] - k * step, 0)) for k in range(count)]
    if any(isinstance(p, Size) for p in parts):
        return None
    ends = np.cumsum([int(str(p)) for p in parts])[:-1]
    return [known(a, n.x.dtype, n.x.origin and f"{n.x.origin}_{k}") for k, a in enumerate(np.split(x, ends, axis))]


def _logical(f: Callable[..., Any]) -> Fold:
    return _numeric(f, "bool")


FOLDED: dict[str, Fold] = {
    "Add": _elementwise(np.add), "Sub": _elementwise(np.subtract), "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide), "Neg": _elementwise(np.negative), "Abs": _numeric(np.abs),
    "Sqrt": _numeric(np.sqrt), "Floor": _numeric(np.floor), "Ceil": _numeric(np.ceil), "Exp": _numeric(np.exp),
    "Log": _numeric(np.log), "Reciprocal": _numeric(lambda x: 1 / x), "Pow": _numeric(lambda a, b: a**b),
    "Min": _numeric(lambda *a: np.minimum.reduce(np.broadcast_arrays(*a))),
    "Max": _numeric(lambda *a: np.maximum.reduce(np.broadcast_arrays(*a))),
    "Equal": _compare(lambda a, b: a == b), "Less": _compare(lambda a, b: a < b),
    "Greater": _compare(lambda a, b: a > b), "LessOrEqual": _compare(lambda a, b: a <= b),
    "GreaterOrEqual": _compare(lambda a, b: a >= b),
    "Mod": _numeric(lambda a, b: np.where(b == 0, 0, a % np.where(b == 0, 1, b)) if a.dtype.kind in "iu" else a % b),
    "Sign": _numeric(np.sign), "Round": _numeric(np.round), "NonZero": _nonzero, "Split": _split,
    "Not": _logical(np.logical_not), "And": _logical(np.logical_and), "Or": _logical(np.logical_or),
    "Xor": _logical(np.logical_xor), "Where": _where, "Gather": _gather, "Concat": _concat, "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze, "Reshape": _reshape, "Slice": _slice, "Transpose": _transpose,
    "ConstantOfShape": _constant_of_shape, "Expand": _expand, "Range": _range, "Cast": _cast, "Tile": _tile,
    "ReduceProd": _reduce(np.prod), "ReduceSum": _reduce(np.sum), "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}  # fmt: skip

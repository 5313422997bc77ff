"""Leaves, and operators that move elements without computing: other shapes, parts, what stands beside or around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ....compiler.graph.nodes import Node
from ....compiler.types.sizes import Dim
from .values import I64_MIN, PLAIN, Scope, Value
from .walk import Rule, Walk


def _constant(w: Walk, n: Node) -> Value:
    return w.scope.constant(
        np.array(n.attrs["values"], PLAIN[n.dtype]).reshape([int(str(k)) for k in n.shape]), n.dtype
    )


def _size(w: Walk, n: Node) -> Value:
    return w.scope.cast(w.scope.scalar(w.scope.size(n.attrs["size"])), n.dtype)


def along(s: Scope, count: Dim, dtype: str) -> Value:
    """0, 1, 2, .. below a size."""
    if isinstance(count, int):
        return s.constant(range(count), dtype)
    ends = s.constant(0, "i64"), s.scalar(s.size(count)), s.constant(1, "i64")
    return s.cast(s.emit("Range", *ends, type=("i64", (count,))), dtype)


def _iota(w: Walk, n: Node) -> Value:
    axis = n.attrs["axis"]
    return w.scope.beside(along(w.scope, n.shape[axis], n.dtype), len(n.shape), (axis,))


def _broadcast(w: Walk, n: Node) -> Value:
    (a,) = n.args
    v, axes = w.thin(a), n.attrs["axes"]
    missing = len(axes) - v.rank
    return w.scope.beside(v, len(n.shape), axes[missing:])


def _reshape(w: Walk, n: Node) -> Value:
    return w.scope.reshape(w.full(n.args[0]), n.shape)


def _assume(w: Walk, n: Node) -> Value:
    v = w.thin(n.args[0])
    known = n.shape[len(n.shape) - v.rank :]
    return Value(v.name, v.dtype, tuple(1 if a == 1 else b for a, b in zip(v.shape, known, strict=True)))


def _transpose(w: Walk, n: Node) -> Value:
    return w.scope.transpose(w.full(n.args[0]), n.attrs["perm"])


def cut(s: Scope, v: Value, starts: Sequence[Dim], stops: Sequence[Dim], steps: Sequence[int]) -> Value:
    """A part of a value, along the axes of which it is not all."""
    pieces = list(zip(starts, stops, steps, v.shape, strict=True))
    axes = [k for k, (a, b, c, size) in enumerate(pieces) if (a, b, c) != (0, size, 1)]
    if not axes:
        return v
    if (found := _uncovered(s, v, starts, stops, axes, steps)) is not None:
        return found
    shape = tuple((b - a + c - 1) // c for a, b, c, _ in pieces)
    bounds = (s.shape([x[k] for k in axes]) for x in (starts, stops))
    which = s.constant(axes, "i64"), s.constant([steps[k] for k in axes], "i64")
    return s.emit("Slice", v, *bounds, *which, type=(v.dtype, shape))


def _uncovered(
    s: Scope, v: Value, starts: Sequence[Dim], stops: Sequence[Dim], axes: Sequence[int], steps: Sequence[int]
) -> Value | None:
    """What a transposed convolution made, less a margin, is what it makes with more padding."""
    made = s.maker(v)
    margins = [*starts[2:], *(n - b for n, b in zip(v.shape[2:], stops[2:], strict=True))]
    known = [n for n in margins if isinstance(n, int)]
    if made is None or made.op != "ConvTranspose" or axes[0] < 2 or set(steps) != {1} or len(known) < len(margins):
        return None
    pads = [a + b for a, b in zip(made.attrs["pads"], known, strict=True)]
    shape = (*v.shape[:2], *(b - a for a, b in zip(starts[2:], stops[2:], strict=True)))
    return s.emit("ConvTranspose", *made.args, type=(v.dtype, shape), **{**made.attrs, "pads": pads})


def _slice(w: Walk, n: Node) -> Value:
    return cut(w.scope, w.full(n.args[0]), n.attrs["starts"], n.attrs["stops"], n.attrs["steps"])


def turned(s: Scope, v: Value, axes: Sequence[int]) -> Value:
    """Axes in reverse order."""
    if not axes:
        return v
    ends = [[-1] * len(axes), [I64_MIN] * len(axes), list(axes), [-1] * len(axes)]
    return s.emit("Slice", v, *(s.constant(e, "i64") for e in ends), type=(v.dtype, v.shape))


def _flip(w: Walk, n: Node) -> Value:
    return turned(w.scope, w.full(n.args[0]), n.attrs["axes"])


def padded(s: Scope, v: Value, low: Sequence[Dim], high: Sequence[Dim], value: float) -> Value:
    """So many elements of `value` around."""
    if not any(n != 0 for n in (*low, *high)):
        return v
    shape = tuple(a + n + b for a, n, b in zip(low, v.shape, high, strict=True))
    around = s.shape([*low, *high]), s.constant(value, v.dtype)
    return s.emit("Pad", v, *around, type=(v.dtype, shape), mode="constant")


def _pad(w: Walk, n: Node) -> Value:
    return padded(w.scope, w.full(n.args[0]), n.attrs["low"], n.attrs["high"], n.attrs["value"])


def _concat(w: Walk, n: Node) -> Value:
    return w.scope.emit("Concat", *map(w.full, n.args), type=(n.dtype, n.shape), axis=n.attrs["axis"])


def _item(w: Walk, n: Node) -> Value:
    v = w.values[n.args[0]]
    assert isinstance(v, tuple)
    return v[n.attrs["index"]]


RULES: Mapping[str, Rule] = {
    "constant": _constant, "size": _size, "iota": _iota, "broadcast": _broadcast, "reshape": _reshape,
    "assume": _assume, "transpose": _transpose, "slice": _slice, "flip": _flip, "pad": _pad, "concat": _concat,
    "item": _item,
}  # fmt: skip

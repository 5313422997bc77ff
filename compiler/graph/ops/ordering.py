"""Running sums and sorting, written with the primitives, so that they differentiate, fuse and lower like all else.

Both compare or add every element with every other: n^2 steps for an axis of n elements, without storing them. That is
the price of having no operators for them; for the axes of networks (classes, words of a sentence) it is a fair one.
"""

from __future__ import annotations

from ...scalar.function import NUMBERS
from ...types.sizes import Dim
from ...types.tensors import FLOATS
from ..nodes import Builder
from . import require
from .calculus import Value
from .contraction import affine, plain
from .op import ShapeError


def cumsum(b: Builder, x: str, axis: int) -> str:
    """y[.., i, ..] = sum_(j <= i) x[.., j, ..]: the contraction y[.., j + k, ..] += x[.., j, ..] over all k from 0,
    where what falls behind the end is dropped."""
    t = b.type(x)
    require.accepted("cumsum", [t], NUMBERS)
    require.axis("cumsum", t, axis)
    letters = [f"i{k}" for k in range(t.rank)]
    here = letters[axis]
    out = tuple(affine((i, 1), ("k", 1)) if i == here else affine((i, 1)) for i in letters)
    domain = (*zip(letters, t.shape, strict=True), ("k", t.shape[axis]))
    return b.emit("contract", x, domain=domain, maps=(plain(letters),), out=out, shape=t.shape)


def order(b: Builder, x: str, descending: bool = False) -> str:
    """The indices (i32) that sort the last axis: `order[.., r]` is where the element of rank r is. Of equals the first
    comes first; NaN is above every number.

    The rank of element i is the number of elements j that come before it; element i is where its rank says."""
    v = Value(b, x)
    require.accepted("sort", [v.type], NUMBERS)
    if v.type.rank == 0:
        raise ShapeError("E0303", f"sort needs an axis, but this is {v.type}", (0,))
    *lead, n = v.shape
    rows = tuple(range(len(lead)))
    square = (*lead, n, n)
    i, j = v.spread(square, (*rows, len(lead))), v.spread(square, (*rows, len(lead) + 1))
    before = j.apply("gt" if descending else "lt", i)
    same = j.apply("eq", i)
    if v.type.dtype in FLOATS:
        nan_i, nan_j = i.apply("ne", i), j.apply("ne", j)
        lone = nan_j.apply("and", nan_i.apply("not")) if descending else nan_i.apply("and", nan_j.apply("not"))
        before, same = before.apply("or", lone), same.apply("or", nan_i.apply("and", nan_j))
    at_i, at_j = (_positions(b, square, len(lead) + k) for k in (0, 1))
    first = same.apply("and", at_j.apply("lt", at_i))
    rank = before.apply("or", first).apply("cast", dtype="i32").apply("reduce_sum", axes=(len(lead) + 1,))
    hit = rank.spread(square, (*rows, len(lead) + 1)).apply("eq", at_i)  # [.., r, i]: element i has rank r
    return hit.where(at_j, 0).apply("reduce_sum", axes=(len(lead) + 1,)).name


def _positions(b: Builder, shape: tuple[Dim, ...], axis: int) -> Value:
    return Value(b, b.emit("iota", shape=shape, axis=axis, dtype="i32"))


def sort(b: Builder, x: str, axis: int) -> str:
    """The elements along `axis` from small to large, NaN last; the gradient goes back to where each came from."""
    t = b.type(x)
    require.axis("sort", t, axis)
    perm = (*(k for k in range(t.rank) if k != axis), axis)
    rows = b.emit("transpose", x, perm=perm)
    back = tuple(sorted(range(t.rank), key=lambda k: perm[k]))
    return b.emit("transpose", _taken(b, rows, order(b, rows)), perm=back)


def top_k(b: Builder, x: str, k: int) -> tuple[str, str]:
    """The k largest of the last axis, from large to small, and their indices (i32)."""
    index = order(b, x, descending=True)
    *lead, n = b.shape(index)
    if k < 1 or (isinstance(n, int) and k > n):
        raise ShapeError("E0307", f"top_k asks for {k} of {n} elements", (0,))
    starts, stops = (0,) * (len(lead) + 1), (*lead, k)
    index = b.emit("slice", index, starts=starts, stops=stops, steps=(1,) * len(stops))
    return _taken(b, x, index), index


def _taken(b: Builder, x: str, index: str) -> str:
    """x[.., index[.., r]] for each r: one element of the row for each index."""
    *lead, r = b.shape(index)
    v = Value(b, x).spread((*lead, r, b.shape(x)[-1]), (*range(len(lead)), len(lead) + 1))
    return v.apply("take_along", Value(b, index)).name

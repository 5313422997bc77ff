"""Sums of products: a matrix product, a convolution or what is left, Einsum.

In: a `contract` node. An operand that is read at sums of indices is read window by window (`windows` has those that are
convolutions), and terms that are added up at such places are scattered. So every contraction has a counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....compiler.graph.nodes import Node
from ....compiler.graph.ops.contraction import Affine, Map, index_of, is_gathered
from ....compiler.types.sizes import Dim, nonnegative
from ....compiler.types.tensors import FLOATS
from . import windows
from .scalars import apply
from .values import Refused, Scope, Value, elements
from .views import along, cut, padded
from .walk import Rule, Walk


@dataclass(frozen=True, slots=True)
class Factor:
    """An operand, with the index of each of its axes."""

    value: Value
    letters: tuple[str, ...]

    def order(self, s: Scope, letters: Sequence[str]) -> Factor:
        """The same with its axes in this order."""
        letters = tuple(letters)
        return Factor(s.transpose(self.value, [self.letters.index(i) for i in letters]), letters)


def _contract(w: Walk, n: Node) -> Value:
    xs = [w.full(a) for a in n.args]
    return contraction(w.scope, n, xs)


def contraction(s: Scope, n: Node, xs: Sequence[Value]) -> Value:
    """`out[f(p)] += prod_k x_k[g_k(p)]` for operands that are there whole."""
    extent: dict[str, Dim] = dict(n.attrs["domain"])
    found = windows.convolution(s, n, xs, extent)
    if found is not None:
        return found
    factors = [spread(s, x, m, extent) for x, m in zip(xs, n.attrs["maps"], strict=True)]
    out: Map = n.attrs["out"]
    used = list(dict.fromkeys(i for e in out for i, _ in e[1]))
    terms = product(s, factors, used, extent)
    if is_gathered(n):
        return s.transpose(terms, [used.index(i) for e in out if (i := index_of(e)) is not None])
    return _scattered(s, terms, used, n)


# --- products of operands that are read at one index along each axis -------------------------------------------------


def product(s: Scope, factors: Sequence[Factor], out: Sequence[str], extent: Mapping[str, Dim]) -> Value:
    """The products, summed over the indices that are not in `out`; axes as `out` has them."""
    there = {i for f in factors for i in f.letters}
    for i in extent:
        if i not in there and i not in out:  # each term counts so often
            count = s.cast(s.scalar(s.size(extent[i])), factors[0].value.dtype)
            first = factors[0]
            factors = [Factor(apply(s, "Mul", first.value, count), first.letters), *factors[1:]]
    known = [i for i in out if i in there]
    result = _product(s, [_alone(s, f, factors, known) for f in factors], known)
    if len(known) < len(out):
        result = s.beside(result, len(out), [out.index(i) for i in known])
        result = s.expand(result, [extent[i] for i in out])
    return result


def _alone(s: Scope, f: Factor, factors: Sequence[Factor], out: Sequence[str]) -> Factor:
    """A factor summed over the indices that nothing else has."""
    if len(set(f.letters)) < len(f.letters):  # a diagonal
        return f
    others = {i for g in factors if g is not f for i in g.letters}
    axes = [k for k, i in enumerate(f.letters) if i not in out and i not in others]
    if not axes:
        return f
    kept = [k for k in range(len(f.letters)) if k not in axes]
    shape = tuple(f.value.shape[k] for k in kept)
    return Factor(summed(s, f.value, axes, shape), tuple(f.letters[k] for k in kept))


def summed(s: Scope, v: Value, axes: Sequence[int], shape: Sequence[Dim]) -> Value:
    count = elements(v.shape[k] for k in axes)
    return s.emit("ReduceSum", v, s.constant(axes, "i64"), type=(v.dtype, shape), keepdims=0, count=count)


def _product(s: Scope, factors: Sequence[Factor], out: Sequence[str]) -> Value:
    plain = all(len(set(f.letters)) == len(f.letters) for f in factors)
    if plain and len(factors) == 1:
        return factors[0].order(s, out).value
    if plain and len(factors) == 2:
        found = _matrices(s, factors[0], factors[1], out)
        if found is not None:
            return found
    return _einsum(s, factors, out)


def _matrices(s: Scope, x: Factor, y: Factor, out: Sequence[str]) -> Value | None:
    """A product of matrices, whichever of the two is the left one; None where neither order is one."""
    inner = [i for i in x.letters if i in y.letters and i not in out]
    if not inner:
        return _outer(s, x, y, out)
    orders = [order for pair in ((x, y), (y, x)) if (order := _Order.of(*pair, inner, out)) is not None]
    if not orders:
        return None
    chosen = next((o for o in orders if o.result == list(out)), orders[0])
    a = _matrix(s, chosen.left.order(s, [*chosen.batch, *chosen.rows, *inner]).value, 0)
    b = _matrix(s, chosen.right.order(s, [*chosen.batch, *inner, *chosen.columns]).value, 1)
    extent = {i: n for f in (x, y) for i, n in zip(f.letters, f.value.shape, strict=True)}
    above, beside = [extent[i] for i in (*chosen.batch, *chosen.rows)], [extent[i] for i in chosen.columns]
    z = s.reshape(_times(s, a, b, (above or [1]) + (beside or [1])), above + beside)
    return s.transpose(z, [chosen.result.index(i) for i in out])


@dataclass(frozen=True, slots=True)
class _Order:
    """Two factors as matrices: the indices of both, and of rows and columns."""

    left: Factor
    right: Factor
    batch: list[str]
    rows: list[str]
    columns: list[str]

    @property
    def result(self) -> list[str]:
        return [*self.batch, *self.rows, *self.columns]

    @classmethod
    def of(cls, left: Factor, right: Factor, inner: Sequence[str], out: Sequence[str]) -> _Order | None:
        """None where `MatMul` has not so many."""
        batch = [i for i in out if i in left.letters and i in right.letters]
        rows = [i for i in out if i in left.letters and i not in right.letters]
        columns = [i for i in out if i in right.letters and i not in left.letters]
        fits = len(inner) == 1 and len(columns) <= 1 and (not batch or len(rows) == len(columns) == 1)
        return cls(left, right, batch, rows, columns) if fits else None


def _matrix(s: Scope, v: Value, axis: int) -> Value:
    """A vector as a matrix of one row or column: ONNX Runtime 1.32 transposes vectors wrongly when it optimises."""
    return v if v.rank > 1 else s.reshape(v, (1, *v.shape) if axis == 0 else (*v.shape, 1))


def _times(s: Scope, a: Value, b: Value, shape: Sequence[Dim]) -> Value:
    made = s.maker(b)
    if a.rank == b.rank == 2 and made is not None and made.op == "Transpose" and a.dtype in FLOATS:
        return s.emit("Gemm", a, made.args[0], type=(a.dtype, shape), transB=1)
    return s.emit("MatMul", a, b, type=(a.dtype, shape))


def _outer(s: Scope, x: Factor, y: Factor, out: Sequence[str]) -> Value:
    """Nothing is summed: a product of elements."""
    parts = []
    for f in (x, y):
        mine = [i for i in out if i in f.letters]
        parts.append(s.beside(f.order(s, mine).value, len(out), [list(out).index(i) for i in mine]))
    return apply(s, "Mul", *parts)


def _einsum(s: Scope, factors: Sequence[Factor], out: Sequence[str]) -> Value:
    extent = {i: n for f in factors for i, n in zip(f.letters, f.value.shape, strict=True)}
    if len(extent) > 52:
        raise Refused("more than 52 indices")
    letter = dict(zip(extent, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", strict=False))
    read = ",".join("".join(letter[i] for i in f.letters) for f in factors)
    equation = f"{read}->{''.join(letter[i] for i in out)}"
    values = [f.value for f in factors]
    return s.emit("Einsum", *values, type=(values[0].dtype, [extent[i] for i in out]), equation=equation)


# --- operands that are read, and results that are written, at sums of indices ----------------------------------------


def spread(s: Scope, x: Value, m: Map, extent: Mapping[str, Dim]) -> Factor:
    """An operand over the indices that it is read at: one axis for each. What lies outside is 0."""
    letters: list[str] = []
    for e, n in zip(m, x.shape, strict=True):
        axis = len(letters)
        i = index_of(e)
        if i is not None and extent[i] == n:
            letters.append(i)
            continue
        mine = [i for i, _ in e[1]]
        x = _read(s, x, axis, e, extent)
        letters += mine
    return Factor(x, tuple(letters))


def _read(s: Scope, x: Value, axis: int, e: Affine, extent: Mapping[str, Dim]) -> Value:
    """The elements along an axis at an affine expression, whose indices take its place."""
    constant, coefficients = e
    n = x.shape[axis]
    if constant == 0 and len(coefficients) == 1:
        ((i, step),) = coefficients
        stop = step * (extent[i] - 1) + 1
        if step >= 1 and nonnegative(n - stop):
            starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
            stops[axis], steps[axis] = stop, step
            return cut(s, x, starts, stops, steps)
    return _gathered(s, x, axis, e, extent)


def _gathered(s: Scope, x: Value, axis: int, e: Affine, extent: Mapping[str, Dim]) -> Value:
    """What lies outside is read from an element of 0 that is put behind the last."""
    n = x.shape[axis]
    low, high = [0] * x.rank, [0] * x.rank
    high[axis] = 1
    if (known := grid(e, extent)) is not None and isinstance(n, int):
        beyond = (known < 0) | (known >= n)
        x = padded(s, x, low, high, 0) if beyond.any() else x
        at = s.constant(np.where(beyond, n, known), "i64")
        return s.emit("Gather", x, at, type=(x.dtype, (*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])), axis=axis)
    x = padded(s, x, low, high, 0)
    at, outside = positions(s, e, n, extent)
    at = apply(s, "Where", outside, s.scalar(s.size(n)), at)
    shape = (*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])
    return s.emit("Gather", x, at, type=(x.dtype, shape), axis=axis)


def grid(e: Affine, extent: Mapping[str, Dim]) -> np.ndarray | None:
    """An affine expression over the grid of its indices, where all is known."""
    constant, coefficients = e
    counts = [n for i, _ in coefficients if isinstance(n := extent[i], int)]
    if not isinstance(constant, int) or len(counts) < len(coefficients):
        return None
    total = np.full((1,) * len(counts), constant, np.int64)
    for k, (n, (_, c)) in enumerate(zip(counts, coefficients, strict=True)):
        total = total + c * np.arange(n).reshape([-1 if j == k else 1 for j in range(len(counts))])
    return total


def positions(s: Scope, e: Affine, n: Dim, extent: Mapping[str, Dim]) -> tuple[Value, Value]:
    """An affine expression over the grid of its indices, i64, and where it is not an index of an axis of size n."""
    constant, coefficients = e
    total = s.scalar(s.size(constant))
    for k, (i, c) in enumerate(coefficients):
        term = s.beside(along(s, extent[i], "i64"), len(coefficients), (k,))
        total = apply(s, "Add", total, apply(s, "Mul", term, s.constant(c, "i64")))
    zero = s.constant(0, "i64")
    ends = (
        s.emit("Less", total, zero, type=("bool", total.shape)),
        apply(s, "GreaterOrEqual", total, s.scalar(s.size(n)), dtype="bool"),
    )
    return total, apply(s, "Or", *ends)


def _scattered(s: Scope, terms: Value, used: Sequence[str], n: Node) -> Value:
    """Terms added up where the map of the result says; what lies outside goes to an element behind the last."""
    extent: dict[str, Dim] = dict(n.attrs["domain"])
    place, outside = s.constant(0, "i64"), s.constant(False, "bool")
    for e, size in zip(n.attrs["out"], n.shape, strict=True):
        at, beyond = positions(s, e, size, extent)
        axes = [used.index(i) for i, _ in e[1]]
        order = sorted(range(len(axes)), key=lambda k: axes[k])
        at, beyond = (s.beside(s.transpose(v, order), len(used), sorted(axes)) for v in (at, beyond))
        place = apply(s, "Add", apply(s, "Mul", place, s.scalar(s.size(size))), at)
        outside = apply(s, "Or", outside, beyond)
    total = elements(n.shape)
    place = apply(s, "Where", outside, s.scalar(s.size(total)), place)
    flat = (elements(terms.shape),)
    place, terms = s.reshape(s.expand(place, terms.shape), flat), s.reshape(terms, flat)
    zeros = s.expand(s.constant([0], terms.dtype), (total + 1,))
    summed = s.emit("ScatterElements", zeros, place, terms, type=(terms.dtype, zeros.shape), axis=0, reduction="add")
    return s.reshape(cut(s, summed, [0], [total], [1]), n.shape)


RULES: Mapping[str, Rule] = {"contract": _contract}

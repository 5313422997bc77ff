"""Winograd's transforms of one tile, as statements: see `graph.ops.winograd`.

Each takes the values along an axis and gives sums of them; `two_sided` applies it to rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from ...graph.ops.winograd import FOUR, Filtering, Line
from ...loops import ir as L
from .body import Body

Transform = Callable[[Line, Body, Sequence[L.Expr]], list[L.Expr]]


def two_sided(
    how: Filtering, body: Body, transform: Transform, size: tuple[int, int], read: Callable[[int, int], L.Expr]
) -> list[L.Expr]:
    """T x Tᵀ of rows and columns of values, row by row."""
    rows, columns = size
    done = [transform(how.down, body, [read(u, v) for u in range(rows)]) for v in range(columns)]
    return [value for row in zip(*done, strict=True) for value in transform(how.across, body, row)]


def image(how: Line, body: Body, d: Sequence[L.Expr]) -> list[L.Expr]:
    """Bᵀ d."""
    if not how.pairs:
        return list(d)
    pairs = [float(p) for p in how.pairs]
    out = [_polynomial(body, pairs, d)]
    for p in pairs:
        others = [q for q in pairs if q != p]
        even, odd = _polynomial(body, others, d[2:]), _polynomial(body, others, d[1:])
        out += [_fma(body, p, odd, even), _fma(body, -p, odd, even)]
    return [*out, _polynomial(body, pairs, d[1:])]


def filter(how: Line, body: Body, w: Sequence[L.Expr]) -> list[L.Expr]:
    """G w."""
    if not how.pairs:
        return list(w)
    rows = [[float(v) for v in row] for row in how.filter]
    out = [_scaled(body, rows[0][0], w[0])]
    for p, row in zip(map(float, how.pairs), rows[1:-1:2], strict=True):  # of the point above 0
        even, odd = _scaled(body, row[0], w[0]), w[-2]
        for k in range(2, how.taps, 2):
            even = _fma(body, row[k], w[k], even)
        for k in range(how.taps - 4, 0, -2):
            odd = _fma(body, p * p, odd, w[k])
        out += [_fma(body, row[1], odd, even), _fma(body, -row[1], odd, even)]
    return [*out, w[-1]]


def _scaled(body: Body, k: float, x: L.Expr) -> L.Expr:
    return x if k == 1 else body.bind(L.Apply("mul", (L.Const(k, x.dtype), x), x.dtype))


def _polynomial(body: Body, pairs: Sequence[float], d: Sequence[L.Expr]) -> L.Expr:
    """The coefficients of the product of x² - p² by every other value."""
    coefficients = [1.0]  # from the highest power on
    for p in pairs:
        coefficients = [a - p * p * b for a, b in zip([*coefficients, 0.0], [0.0, *coefficients], strict=True)]
    total = d[2 * len(pairs)]
    for k, c in enumerate(coefficients[1:], 1):
        total = _fma(body, c, d[2 * (len(pairs) - k)], total)
    return total


def result(how: Line, body: Body, m: Sequence[L.Expr]) -> list[L.Expr]:
    """Aᵀ m."""
    dtype, pairs = m[0].dtype, [float(p) for p in how.pairs]

    def add(x: L.Expr, y: L.Expr, op: str = "add") -> L.Expr:
        return body.bind(L.Apply(op, (x, y), dtype))

    def powers(k: int, values: Sequence[L.Expr]) -> L.Expr:
        """What each pair has, times the power of its point."""
        total = values[-1] if k == 0 else body.bind(L.Apply("mul", (L.Const(pairs[-1] ** k, dtype), values[-1]), dtype))
        for p, x in zip(pairs[-2::-1], values[-2::-1], strict=True):
            total = add(x, total) if k == 0 else _fma(body, p**k, x, total)
        return total

    if not how.pairs:
        return [reduce(add, m)]
    even = [add(m[k], m[k + 1]) for k in range(1, len(m) - 1, 2)]
    odd = [add(m[k], m[k + 1], "sub") for k in range(1, len(m) - 1, 2)]
    out = [powers(k, odd if k % 2 else even) for k in range(how.tile)]
    return [add(m[0], out[0]), *out[1:-1], add(out[-1], m[-1])]


def gradient(how: Line, body: Body, d: Sequence[L.Expr]) -> list[L.Expr]:
    """A d, of the gradient by a tile of results."""
    assert how == FOUR
    out = [d[0]]
    for p in map(float, how.pairs):
        even, odd = (_fma(body, p * p, d[k + 2], d[k]) for k in (0, 1))
        out += [_fma(body, p, odd, even), _fma(body, -p, odd, even)]
    return [*out, d[3]]


def _fma(body: Body, k: float, x: L.Expr, y: L.Expr) -> L.Expr:
    return body.bind(L.Apply("fma", (L.Const(k, x.dtype), x, y), x.dtype))

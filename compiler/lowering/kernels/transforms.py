"""Winograd's transforms of one tile, as statements: see `graph.ops.winograd`.

Each takes the values along an axis and gives sums of them; `two_sided` applies it to rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...graph.ops.winograd import FAR, NEAR
from ...loops import ir as L
from .body import Body

Transform = Callable[[Body, Sequence[L.Expr]], list[L.Expr]]


def two_sided(body: Body, transform: Transform, size: int, read: Callable[[int, int], L.Expr]) -> list[L.Expr]:
    """T x Tᵀ of `size` x `size` values, row by row."""
    columns = [transform(body, [read(u, v) for u in range(size)]) for v in range(size)]
    return [value for row in zip(*columns, strict=True) for value in transform(body, row)]


def image(body: Body, d: Sequence[L.Expr]) -> list[L.Expr]:
    """Bᵀ d."""
    a, b = float(NEAR), float(FAR)
    squares, both = a * a + b * b, a * a * b * b
    out = [_fma(body, both, d[0], _fma(body, -squares, d[2], d[4]))]
    for p, q in ((a, b), (b, a)):
        even, odd = (_fma(body, -q * q, d[k - 2], d[k]) for k in (4, 3))
        out += [_fma(body, p, odd, even), _fma(body, -p, odd, even)]
    return [*out, _fma(body, both, d[1], _fma(body, -squares, d[3], d[5]))]


def result(body: Body, m: Sequence[L.Expr]) -> list[L.Expr]:
    """Aᵀ m."""
    a, b, dtype = float(NEAR), float(FAR), m[0].dtype

    def add(x: L.Expr, y: L.Expr, op: str = "add") -> L.Expr:
        return body.bind(L.Apply(op, (x, y), dtype))

    def both(k: int, x: L.Expr, y: L.Expr) -> L.Expr:
        return _fma(body, a**k, x, body.bind(L.Apply("mul", (L.Const(b**k, dtype), y), dtype)))

    even, odd = (add(m[1], m[2]), add(m[3], m[4])), (add(m[1], m[2], "sub"), add(m[3], m[4], "sub"))
    return [add(m[0], add(*even)), both(1, *odd), both(2, *even), add(both(3, *odd), m[5])]


def gradient(body: Body, d: Sequence[L.Expr]) -> list[L.Expr]:
    """A d, of the gradient by a tile of results."""
    out = [d[0]]
    for p in (float(NEAR), float(FAR)):
        even, odd = (_fma(body, p * p, d[k + 2], d[k]) for k in (0, 1))
        out += [_fma(body, p, odd, even), _fma(body, -p, odd, even)]
    return [*out, d[3]]


def _fma(body: Body, k: float, x: L.Expr, y: L.Expr) -> L.Expr:
    return body.bind(L.Apply("fma", (L.Const(k, x.dtype), x, y), x.dtype))

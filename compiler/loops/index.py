"""Index arithmetic: where a point of a view lies in a buffer.

In: index expressions of the loop IR and the extents of the loop variables. Out: the same index, simplified. The one
idea: an index is a polynomial (`sizes.Size`) over loop variables, size symbols and quotients; a remainder is written
`x - d*(x // d)`, so that `(x // d)*d + x % d` cancels to `x` by itself, and a quotient disappears whenever the ranges
of the loop variables show that it is exact. So a reshape of a reshape of a contiguous array is one flat index again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import gcd

from ..types.sizes import Atom, Dim, Monomial, Quotient, Size, Symbol, divide, nonnegative, symbol, terms
from . import ir as L

Ranges = Mapping[str, "Dim | None"]  # variable v lies in 0 <= v < extent; None: nothing is known (a loaded index)
Bounds = tuple["Dim | None", "Dim | None"]  # least and greatest value, both attained or beyond; None: unknown


def term(monomial: Monomial, c: int = 1) -> Dim:
    return Size(((monomial, c),)) if monomial and c else c


def total(parts: Iterable[Dim]) -> Dim:
    out: Dim = 0
    for p in parts:
        out = out + p
    return out


def quotient(x: Dim, d: Dim, ranges: Ranges) -> Dim:
    """`x // d`, rounding to minus infinity, for `d > 0`. By 0, of an empty axis, nothing divides at run time."""
    if d == 0:
        return 0
    if isinstance(x, int) and isinstance(d, int):
        return x // d
    if d == 1:
        return x
    exact: Dim = 0
    rest: Dim = 0
    for m, c in terms(x):
        q, r = divide(term(m, c), d)
        exact, rest = (exact + q, rest) if r == 0 else (exact, rest + term(m, c))
    if isinstance(d, int):  # a constant beyond d leaves too: (x + 7) // 4 is 1 + (x + 3) // 4
        const = dict(terms(rest)).get((), 0)
        exact, rest = exact + const // d, rest - const // d * d
    if rest == 0 or within(rest, d, ranges):
        return exact
    if isinstance(d, int):
        # multiples of g leave the others when those cannot carry: (5*i + j) // 20 is i // 4 for 0 <= j < 5
        for g in sorted({gcd(c, d) for _, c in terms(rest)} - {1}, reverse=True):
            small = total(term(m, c) for m, c in terms(rest) if c % g)
            if within(small, g, ranges):
                big = total(term(m, c // g) for m, c in terms(rest) if c % g == 0)
                return exact + quotient(big, d // g, ranges)
    match terms(rest):
        case (((Quotient("//", top, bottom),), 1),):  # (x // a) // b is x // (a*b)
            return exact + quotient(top, bottom * d, ranges)
    return exact + term((Quotient("//", rest, d),))


def remainder(x: Dim, d: Dim, ranges: Ranges) -> Dim:
    """`x % d`, in 0 <= r < d, for `d > 0`."""
    return x - d * quotient(x, d, ranges)


def within(x: Dim, d: Dim, ranges: Ranges) -> bool:
    """0 <= x < d is certain."""
    low, high = bounds(x, ranges)
    return low is not None and high is not None and nonnegative(low) and nonnegative(d - 1 - high)


def bounds(x: Dim, ranges: Ranges) -> Bounds:
    """The least and the greatest value, as polynomials over sizes."""
    rest, remainders = split(x)
    low: Dim | None = 0
    high: Dim | None = 0
    for k, _, bottom in remainders:
        for m, c in terms(k):
            low, high = _widen((low, high), c, _product(m, (0, bottom - 1), ranges))
    for m, c in terms(rest):
        low, high = _widen((low, high), c, _product(m, (1, 1), ranges))
    return low, high


def _widen(total: Bounds, c: int, by: Bounds) -> Bounds:
    low, high = by if c > 0 else by[::-1]
    return (
        None if total[0] is None or low is None else total[0] + c * low,
        None if total[1] is None or high is None else total[1] + c * high,
    )


def _product(m: Monomial, start: Bounds, ranges: Ranges) -> Bounds:
    """Bounds of a product of factors none of which is negative; (None, None) when one might be."""
    low, high = start
    for atom in m:
        a, b = _atom_bounds(atom, ranges)
        if a is None:
            return None, None
        low = None if low is None else low * a
        high = None if high is None or b is None else high * b
    return low, high


def _atom_bounds(atom: Atom, ranges: Ranges) -> Bounds:
    match atom:
        case Symbol(name):
            if name not in ranges:
                return symbol(name), symbol(name)
            extent = ranges[name]
            return (None, None) if extent is None else (0, extent - 1)
        case Quotient("//", top, bottom):
            low, high = bounds(top, ranges)
            if low is None or not nonnegative(low):
                return None, None
            return 0, (None if high is None else quotient(high, bottom, ranges))
        case Quotient(_, _, bottom):
            return 0, bottom - 1
    raise AssertionError(atom)


def split(x: Dim) -> tuple[Dim, list[tuple[Dim, Dim, Dim]]]:
    """`x` as rest + sum of k * (top % bottom): finds the remainders again that were written as quotients."""
    found: list[tuple[Dim, Dim, Dim]] = []
    rest = x
    for m, c in terms(x):
        for atom in m:
            if not (isinstance(atom, Quotient) and atom.op == "//"):
                continue
            left = list(m)
            left.remove(atom)
            for top, bottom in _readings(atom, x):
                # a quotient that came from `k*(top % bottom)` has the factor -k*bottom
                k, r = divide(term(tuple(left), -c), bottom)
                if r != 0 or k == 0:
                    continue
                trial = rest - term(m, c) - k * top
                if len(terms(trial)) < len(terms(rest)) - (len(terms(top)) > 1):
                    found.append((k, top, bottom))
                    rest = trial
                    break
    return rest, found


def _readings(q: Quotient, x: Dim) -> list[tuple[Dim, Dim]]:
    """The divisions `top // bottom` that a quotient may be: itself, or (t // a) // b where x has `t // a` too."""
    out = [(q.top, q.bottom)]
    for m, _ in terms(x):
        for p in m:
            if isinstance(p, Quotient) and p.op == "//" and p != q and p.top == q.top:
                b, r = divide(q.bottom, p.bottom)
                if r == 0:
                    out.append((term((p,)), b))
    return out


# --- to and from expressions of the loop IR --------------------------------------------------------------------------


def from_expr(e: L.Expr, ranges: Ranges, bind: Callable[[L.Expr], L.Var]) -> Dim:
    """The polynomial of an index expression; what is not arithmetic is bound to a name by `bind` first."""
    match e:
        case L.Const(value):
            return int(value)
        case L.Var(name):
            return symbol(name)
        case L.Apply("add", (a, b)):
            return from_expr(a, ranges, bind) + from_expr(b, ranges, bind)
        case L.Apply("sub", (a, b)):
            return from_expr(a, ranges, bind) - from_expr(b, ranges, bind)
        case L.Apply("neg", (a,)):
            return -from_expr(a, ranges, bind)
        case L.Apply("mul", (a, b)):
            return from_expr(a, ranges, bind) * from_expr(b, ranges, bind)
        case L.Apply("floordiv" | "mod" as fn, (a, b)):
            bottom = from_expr(b, ranges, bind)
            if nonnegative(bottom - 1) or not isinstance(bottom, int):  # sizes that divide are never zero
                divided = quotient if fn == "floordiv" else remainder
                return divided(from_expr(a, ranges, bind), bottom, ranges)
    return symbol(bind(e).name)


@lru_cache(4096)  # of what is stored in lanes, row by row, the same place is asked for again and again
def to_expr(x: Dim) -> L.Expr:
    """The expression of a polynomial: remainders as `mod`, negative terms subtracted."""
    rest, remainders = split(x)
    plus: list[L.Expr] = []
    minus: list[L.Expr] = []
    for m, c in terms(rest):
        (plus if c > 0 else minus).append(_scaled(abs(c), m))
    for k, top, bottom in remainders:
        part = L.mod(to_expr(top), to_expr(bottom))
        for m, c in terms(k):
            (plus if c > 0 else minus).append(L.mul(part, _scaled(abs(c), m)))
    out: L.Expr = L.i64(0)
    for e in plus:
        out = L.add(out, e)
    for e in minus:
        out = L.sub(out, e)
    return out


def _scaled(c: int, m: Monomial) -> L.Expr:
    out: L.Expr = L.i64(1)
    for atom in m:
        match atom:
            case Symbol(name):
                factor: L.Expr = L.Var(name)
            case Quotient(op, top, bottom):
                factor = (L.floordiv if op == "//" else L.mod)(to_expr(top), to_expr(bottom))
        out = L.mul(out, factor)
    return L.mul(out, L.i64(c))

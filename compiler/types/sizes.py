"""Symbolic sizes.

A size is a Python `int` or a `Size`: a polynomial with integer coefficients over *atoms*, kept in one normal form, so
two sizes are equal exactly when their normal forms are. An atom is a symbol (`B`) or an opaque quotient or remainder
(`(B + 1) // 2`) that did not simplify. All sizes are non-negative.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from math import gcd, inf, prod
from typing import NamedTuple, Union

from ...dsl.record import dataclass, field

MAX_WEIGHT = 400  # of a size: it is text, sorted and compared as such, and a quotient in it is a tree
MAX_COEFFICIENT = 2**40  # in a size: with one more factor it still fits the 64 bits of an address


class SizeTooLarge(ValueError):
    """A size whose formula is longer than any size of a network."""


class Symbol(NamedTuple):  # many are compared
    name: str

    @property
    def weight(self) -> int:
        return 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Quotient:
    """`top // bottom` or `top % bottom`, where the division is not known to be exact."""

    op: str
    top: Dim
    bottom: Dim
    weight: int = field(init=False, compare=False, repr=False)
    _text: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", 8 + weight(self.top) + weight(self.bottom))
        object.__setattr__(self, "_text", f"{_divided(self.top)} {self.op} {_tight(self.bottom)}")

    def __str__(self) -> str:
        return self._text

    def __hash__(self) -> int:
        return hash(self._text)


Atom = Union[Symbol, Quotient]
Monomial = tuple[Atom, ...]  # sorted by text, repeated for powers; () is the constant term


@dataclass(frozen=True, slots=True)
class Size:
    """A polynomial: ((monomial, coefficient), ...), sorted, without zero coefficients, never a constant."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        if not other:
            return self
        if type(other) is int:  # the number comes last
            m, c = self.terms[-1]
            if m != ():
                return Size((*self.terms, ((), other)))
            return Size((*self.terms[:-1], ((), c + other)) if c + other else self.terms[:-1])
        return collect([*self.terms, *terms(other)])

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return Size(tuple([(m, -c) for m, c in self.terms]))

    def __sub__(self, other: Dim) -> Dim:
        if type(other) is int:
            return self + -other
        return collect([*self.terms, *[(m, -c) for m, c in terms(other)]]) if other else self

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __mul__(self, other: Dim) -> Dim:
        if not isinstance(other, Size):
            return Size(tuple([(m, c * int(other)) for m, c in self.terms])) if other else 0
        return collect([(_sorted(m + n), c * d) for m, c in terms(self) for n, d in terms(other)])

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return divide(self, other)[0]

    def __rfloordiv__(self, other: Dim) -> Dim:
        return divide(other, self)[0]

    def __mod__(self, other: Dim) -> Dim:
        return divide(self, other)[1]

    def __rmod__(self, other: Dim) -> Dim:
        return divide(other, self)[1]

    def __str__(self) -> str:
        text = ""
        for monomial, c in self.terms:
            alone = len(monomial) == 1 and (c == 1 or (c == -1 and text != ""))
            factors = [str(monomial[0])] if alone else [_tight(a) for a in monomial]
            if abs(c) != 1 or not factors:
                factors.insert(0, str(abs(c)))
            sign = "-" if c < 0 else "+"
            text += f" {sign} {'*'.join(factors)}" if text else ("-" if c < 0 else "") + "*".join(factors)
        return text

    def __repr__(self) -> str:
        return f"Size({self})"


Dim = Union[int, Size]


def product(sizes: Iterable[Dim]) -> Dim:
    """All sizes multiplied; 1 for none. Raises `SizeTooLarge`."""
    total: Dim = 1
    number = 1
    for n in sizes:
        if type(n) is int:
            number *= n
        else:
            total = bounded(total * n)
    return bounded(total * number)


def bounded(n: Dim) -> Dim:
    """The size itself; raises `SizeTooLarge` where its formula is long or its numbers are large."""
    if isinstance(n, Size) and (weight(n) > MAX_WEIGHT or any(abs(c) > MAX_COEFFICIENT for _, c in n.terms)):
        raise SizeTooLarge("the formula of this size is too long, or its numbers are too large")
    return n


def symbol(name: str) -> Size:
    return Size((((Symbol(name),), 1),))


def _tight(x: Atom | Dim) -> str:
    text = str(x)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _divided(top: Dim) -> str:
    """What is divided: in brackets where it is a sum, or a quotient itself."""
    match terms(top):
        case ((m, c),) if c > 0 and all(isinstance(a, Symbol) for a in m):
            return str(top)
    return f"({top})"


def _sorted(m: Monomial) -> Monomial:
    return tuple(sorted(m, key=str)) if len(m) > 1 else m


def terms(x: Dim) -> tuple[tuple[Monomial, int], ...]:
    """The monomials of a size with their coefficients."""
    if isinstance(x, Size):
        return x.terms
    return (((), int(x)),) if x else ()


def weight(x: Dim) -> int:
    """How long a size is when it is written out."""
    return sum(1 + sum(a.weight for a in m) for m, _ in terms(x))


def collect(parts: Iterable[tuple[Monomial, int]]) -> Dim:
    """The sum of monomials with coefficients."""
    total: dict[Monomial, int] = {}
    for m, c in parts:
        total[m] = total.get(m, 0) + c
    kept = [(m, c) for m, c in total.items() if c]
    if not kept:
        return 0
    if len(kept) == 1:
        return kept[0][1] if kept[0][0] == () else Size((kept[0],))
    kept.sort(key=_rank)
    return Size(tuple(kept))


def _rank(t: tuple[Monomial, int]) -> tuple[int, list[str]]:
    return -len(t[0]), [str(a) for a in t[0]]


def divide(top: Dim, bottom: Dim) -> tuple[Dim, Dim]:
    """Quotient and remainder in lowest terms, so that equal ones are equal data."""
    if bottom == 0:
        raise ZeroDivisionError("a size is divided by zero")
    if isinstance(top, int) and isinstance(bottom, int):
        return top // bottom, top % bottom
    if top == bottom:
        return 1, 0
    common = common_factor(top, bottom)
    if common:
        q, r = divide(_cancel(top, common), _cancel(bottom, common))
        return q, r * Size(((common, 1),))
    if isinstance(bottom, int) and bottom > 0:
        return _divide_by_number(top, bottom)
    exact: list[tuple[Monomial, int]] = []
    rest: list[tuple[Monomial, int]] = []
    by = terms(bottom)
    for m, c in terms(top):
        quotient = divide_term(m, c, *by[0]) if len(by) == 1 else None
        if quotient is None:
            rest.append((m, c))
        else:
            exact.append(quotient)
    q, r = collect(exact), collect(rest)
    if r == 0:
        return q, 0
    return q + _atom("//", r, bottom), _atom("%", r, bottom)


def _divide_by_number(top: Dim, n: int) -> tuple[Dim, Dim]:
    """By n > 0. What n divides leaves the quotient, of a coefficient (5*B // 2 is 2*B + B // 2) and of the number that
    is added ((B - 1) // 4 is (B + 3) // 4 - 1)."""
    whole = [(m, c // n if m == () or c > 0 else -(-c // n)) for m, c in terms(top)]
    q = collect(whole)
    rest = top - q * n
    if isinstance(rest, int):
        return q, rest
    more, r = _reduced(rest, n)
    return q + more, r


def _reduced(top: Size, n: int) -> tuple[Dim, Dim]:
    constant = dict(top.terms).get((), 0)
    common = gcd(n, *(c for m, c in top.terms if m != ()))
    if common > 1:  # (g x + c) // (g n) is (x + c // g) // n
        fewer = collect([(m, c // common) for m, c in top.terms])
        q, r = divide(fewer, n // common)
        return q, r * common + constant % common
    match [t for t in top.terms if t[0] != ()]:
        case [((Quotient("//", x, int(m)),), 1)] if m > 0:  # (x // m + c) // n is (x + c m) // (m n)
            return divide(x + constant * m, m * n)[0], _atom("%", top, n)
    return _atom("//", top, n), _atom("%", top, n)


def _atom(op: str, top: Dim, bottom: Dim) -> Size:
    return Size((((Quotient(op, top, bottom),), 1),))


def common_factor(top: Dim, bottom: Dim) -> Monomial:
    """The atoms that every term of both has."""
    shared: list[Atom] | None = None
    for m, _ in (*terms(top), *terms(bottom)):
        left = list(m)
        shared = list(m) if shared is None else [a for a in shared if a in left and not left.remove(a)]  # type: ignore[func-returns-value]
    return tuple(shared or ())


def _cancel(x: Dim, common: Monomial) -> Dim:
    return collect([t for m, c in terms(x) if (t := divide_term(m, c, common, 1)) is not None])


def divide_term(m: Monomial, c: int, by: Monomial, d: int) -> tuple[Monomial, int] | None:
    """A monomial with its coefficient, divided by another; None where it does not divide."""
    if c % d:
        return None
    left = list(m)
    for atom in by:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left), c // d


def symbols(x: Dim) -> frozenset[str]:
    """The names a size depends on."""
    names: set[str] = set()
    for m, _ in terms(x):
        for atom in m:
            names |= {atom.name} if isinstance(atom, Symbol) else symbols(atom.top) | symbols(atom.bottom)
    return frozenset(names)


def nonnegative(x: Dim) -> bool:
    """Whether a size is certainly 0 or more, whatever its symbols are: they are 0 or more, and divisors are above 0."""
    return least(x) >= 0


def least(x: Dim) -> float:
    """A bound from below; -inf for none. Of what is subtracted only a remainder has one from above."""
    total: float = 0
    for m, c in terms(x):
        if c > 0:
            atoms = [_least_of(a) for a in m]
            total += c * (prod(atoms) if len(atoms) < 2 or min(atoms) >= 0 else -inf)
        elif len(m) == 1 and isinstance(m[0], Quotient) and m[0].op == "%" and isinstance(m[0].bottom, int):
            total += c * (m[0].bottom - 1)
        else:
            total += c if m == () else -inf
    return total


def highest(x: Dim, name: str, bound: Dim) -> Dim:
    """A size without a symbol that is at least `x` where the symbol is from 0 to `bound`. Others are 0 or more,
    divisors above 0; of several factors none is negative."""
    total: Dim = 0
    for m, c in terms(x):
        if all(name not in symbols(collect([((a,), 1)])) for a in m):
            total = total + collect([(m, c)])
        elif c > 0:
            total = total + c * prod((_highest_of(a, name, bound) for a in m), start=1)
        elif len(m) == 1 and isinstance(m[0], Quotient) and m[0].op == "//" and name not in symbols(m[0].bottom):
            total = total - c * divide(highest(-m[0].top, name, bound) + m[0].bottom - 1, m[0].bottom)[0]
    return total


def total_of(x: Dim, name: str, count: Dim) -> Dim:
    """The sum of a size over the values of a symbol from 0 to `count` - 1, where it is linear in that."""
    return count * (substitute(x, {name: 0}) + substitute(x, {name: count - 1})) // 2


def _highest_of(a: Atom, name: str, bound: Dim) -> Dim:
    if isinstance(a, Symbol):
        return bound if a.name == name else symbol(a.name)
    if a.op == "%":
        return highest(a.bottom, name, bound)
    top = highest(a.top, name, bound)
    return top if name in symbols(a.bottom) else divide(top, a.bottom)[0]


def _least_of(a: Atom) -> float:
    if isinstance(a, Symbol) or a.op == "%":
        return 0
    top = least(a.top)
    if -inf < top < 0 and isinstance(a.bottom, int):
        return top // a.bottom
    return 0 if top >= 0 else -inf


def substitute(x: Dim, values: Mapping[str, Dim]) -> Dim:
    """The size with symbols replaced; a Python int when nothing symbolic is left."""
    if isinstance(x, int):
        return x
    total: Dim = 0
    for m, c in x.terms:
        term: Dim = c
        for atom in m:
            if isinstance(atom, Symbol):
                term = term * values.get(atom.name, symbol(atom.name))
            else:
                q, r = divide(substitute(atom.top, values), substitute(atom.bottom, values))
                term = term * (q if atom.op == "//" else r)
        total = total + term
    return total


def parse_size(text: str) -> Dim:
    """Read back what `str(size)` prints."""

    def walk(e: ast.expr) -> Dim:
        match e:
            case ast.Constant(value=int(v)):
                return v
            case ast.Name(id=name):
                return symbol(name)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -walk(inner)
            case ast.BinOp(left=a, op=op, right=b):
                x, y = walk(a), walk(b)
                match op:
                    case ast.Add():
                        return x + y
                    case ast.Sub():
                        return x - y
                    case ast.Mult():
                        return x * y
                    case ast.FloorDiv():
                        return divide(x, y)[0]
                    case ast.Mod():
                        return divide(x, y)[1]
        raise ValueError(f"not a size: {text!r}")

    return walk(ast.parse(text.strip(), mode="eval").body)


def spelled(
    size: Dim, names: Mapping[str, str], number: str = "{}", divide: str = "({} / {})", modulo: str = "({} % {})"
) -> str:
    """A size in another language: what it calls each symbol, how it writes numbers, quotients and remainders."""
    text = ""
    for monomial, k in terms(size):
        factors = [number.format(abs(k))] if abs(k) != 1 or not monomial else []
        for atom in monomial:
            match atom:
                case Symbol(name):
                    factors.append(names[name])
                case Quotient(op, top, bottom):
                    parts = (spelled(n, names, number, divide, modulo) for n in (top, bottom))
                    both = (f"({p})" if isinstance(n, Size) else p for n, p in zip((top, bottom), parts, strict=True))
                    factors.append((divide if op == "//" else modulo).format(*both))
        term = " * ".join(factors)
        text += f" {'-' if k < 0 else '+'} {term}" if text else (f"{number.format(0)} - " if k < 0 else "") + term
    return text or number.format(0)

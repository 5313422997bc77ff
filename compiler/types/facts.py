"""What is known of sizes: whether two are equal, certainly or never; relations that only run time can decide, and what
those say, once they hold, of other sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import gcd

from ...dsl.record import dataclass
from .sizes import (
    Atom,
    Dim,
    Size,
    SizeTooLarge,
    Symbol,
    bounded,
    collect,
    common_factor,
    divide,
    divide_term,
    least,
    symbol,
    terms,
    weight,
)

OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


@dataclass(frozen=True, slots=True)
class Relation:
    """`left op right`, of sizes; `op` is one of == != < <= > >=."""

    left: Dim
    op: str
    right: Dim

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"


Facts = Mapping[str, Dim]  # a symbol written by others, or by a quotient of its own: H = 4*(H // 4), where 4 divides H


def equal(a: Dim, b: Dim, facts: Facts) -> bool:
    """Whether two sizes are certainly equal."""
    try:
        return a == b or _settled(a - b, facts) == 0
    except (SizeTooLarge, ZeroDivisionError):
        return False


def apart(a: Dim, b: Dim) -> bool:
    """Whether two sizes are equal never, or only where something is empty."""
    difference = a - b
    if isinstance(difference, int):
        return difference != 0
    constant = dict(difference.terms).get((), 0)
    if constant % gcd(*(c for m, c in difference.terms if m != ())):
        return True
    plain = all(isinstance(atom, Symbol) for m, _ in difference.terms for atom in m)
    one_sign = len({c > 0 for _, c in difference.terms}) == 1
    return (plain and one_sign) or least(difference) > 0 or least(-difference) > 0


def lowest(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Both without their common factors."""
    common = common_factor(a, b) if a != 0 and b != 0 else ()  # of one alone: that may be what is 0
    number = gcd(*(c for _, c in (*terms(a), *terms(b)))) or 1
    a, b = (collect([t for m, c in terms(x) if (t := divide_term(m, c, common, number))]) for x in (a, b))
    return a, b


def shorter(a: Dim, b: Dim) -> Dim:
    """The one of two equal sizes that is easier to read."""
    return b if weight(b) < weight(a) else a


def learned(facts: Facts, difference: Dim) -> Facts:
    """`facts`, and what `difference == 0` says where it can be solved: for a symbol (A - C, H - 4*(H // 4)), or for the
    quotient that a symbol is known by."""
    try:
        d = lowest(_settled(difference, facts), 0)[0]
        for m, c in terms(d):
            if abs(c) == 1 and len(m) == 1:
                atom = Size(((m, 1),))
                for name, value in _solved(m[0], atom - c * d - atom, facts):
                    own = {name: value}
                    more = {**{k: _settled(v, own) for k, v in facts.items()}, name: value}
                    if all(_settled(v, more) == v for v in more.values()):
                        return more
    except (SizeTooLarge, ZeroDivisionError):
        pass
    return facts


def _solved(atom: Atom, more: Dim, facts: Facts) -> Iterator[tuple[str, Dim]]:
    """The symbols that are known when `atom` is known to be `more` than itself, and what they are."""
    if isinstance(atom, Symbol):
        yield atom.name, symbol(atom.name) + more
    for name, value in facts.items():
        match terms(value):
            case (((a,), n),) | (((a,), n), ((), _)) if a == atom:
                yield name, value + n * more


def _settled(x: Dim, facts: Facts) -> Dim:
    """The size under `facts`, each remainder as `a - b*(a // b)`. Raises `SizeTooLarge`, `ZeroDivisionError`."""
    total: Dim = 0
    for m, c in terms(x):
        term: Dim = c
        for atom in m:
            if isinstance(atom, Symbol):
                value = facts.get(atom.name, symbol(atom.name))
            else:
                top, bottom = _settled(atom.top, facts), _settled(atom.bottom, facts)
                q = divide(top, bottom)[0]
                value = q if atom.op == "//" else top - bottom * q
            term = bounded(term * value)
        total = bounded(total + term)
    return total

"""What an expression evaluates to while a kernel is written: a scalar, lanes, or an index.

An `Index` is an i64 kept as a sum of products, `Σ coefficient * name + constant + stride * lane`. So a constant is seen
as one however it was computed, addresses share their common part, what is invariant leaves the loop, and whether a
vector loop reads memory contiguously is read off the stride.
"""

from __future__ import annotations

from typing import NamedTuple, Union, final

from ..loops.ir import Const


@final
class Value(NamedTuple):  # named tuples here: many are made, and fast
    """An LLVM operand. `lanes` is 1 for a value that is the same in all lanes."""

    ref: str
    dtype: str
    lanes: int
    level: int  # of the scope it belongs to
    const: Const | None = None


class Term(NamedTuple):
    ref: str
    level: int
    coefficient: int


@final
class Index(NamedTuple):
    """An i64: terms with distinct names, outer scopes first; lane l has `stride * l` added."""

    terms: tuple[Term, ...] = ()
    constant: int = 0
    stride: int = 0

    @property
    def dtype(self) -> str:
        return "i64"

    @property
    def known(self) -> bool:
        return not self.terms and not self.stride

    @property
    def level(self) -> int:
        return self.terms[-1].level if self.terms else 0

    @property
    def base(self) -> Index:
        """Its value in lane 0."""
        return self._replace(stride=0) if self.stride else self


Operand = Union[Value, Index]
_new = tuple.__new__  # without the call of a named tuple's own


def plus(a: Index, constant: int) -> Index:
    """a + constant."""
    return _new(Index, (a.terms, a.constant + constant, a.stride)) if constant else a


def sum_of(a: Index, b: Index, sign: int = 1) -> Index:
    """a + sign * b."""
    if not b.terms:
        return _new(Index, (a.terms, a.constant + sign * b.constant, a.stride + sign * b.stride))
    if not a.terms and sign == 1:
        return _new(Index, (b.terms, a.constant + b.constant, a.stride + b.stride))
    total = {t.ref: t for t in a.terms}
    for t in b.terms:
        known = total.get(t.ref)
        c = sign * t.coefficient + (known.coefficient if known else 0)
        if c:
            total[t.ref] = t if known is None and sign == 1 else _new(Term, (t.ref, t.level, c))
        else:
            del total[t.ref]
    terms = sorted(total.values(), key=_level)
    return _new(Index, (tuple(terms), a.constant + sign * b.constant, a.stride + sign * b.stride))


def _level(t: Term) -> int:
    return t.level


def scaled(a: Index, c: int) -> Index:
    """a * c."""
    if c == 1:
        return a
    if c == 0:
        return Index()
    terms = tuple([_new(Term, (ref, level, n * c)) for ref, level, n in a.terms]) if a.terms else ()
    return _new(Index, (terms, a.constant * c, a.stride * c))

"""What an expression evaluates to while a kernel is written: a scalar, lanes, or an index.

An `Index` is an i64 kept as a sum of products, `Σ coefficient * name + constant + stride * lane`. So a constant is seen
as one however it was computed, addresses share their common part, what is invariant leaves the loop, and whether a
vector loop reads memory contiguously is read off the stride.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Union

from ..loops import Const


@dataclass(frozen=True, slots=True)
class Value:
    """An LLVM operand. `lanes` is 1 for a value that is the same in all lanes."""

    ref: str
    dtype: str
    lanes: int
    level: int  # of the scope it belongs to
    const: Const | None = None


@dataclass(frozen=True, slots=True)
class Term:
    ref: str
    level: int
    coefficient: int


@dataclass(frozen=True, slots=True)
class Index:
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
        return max((t.level for t in self.terms), default=0)

    @property
    def base(self) -> Index:
        """Its value in lane 0."""
        return replace(self, stride=0)


Operand = Union[Value, Index]


def sum_of(a: Index, b: Index, sign: int = 1) -> Index:
    """a + sign * b."""
    total = {t.ref: t for t in a.terms}
    for t in b.terms:
        c = sign * t.coefficient + (total[t.ref].coefficient if t.ref in total else 0)
        total[t.ref] = Term(t.ref, t.level, c)
    terms = sorted((t for t in total.values() if t.coefficient), key=lambda t: t.level)
    return Index(tuple(terms), a.constant + sign * b.constant, a.stride + sign * b.stride)


def scaled(a: Index, c: int) -> Index:
    """a * c."""
    if c == 0:
        return Index()
    return Index(tuple(replace(t, coefficient=t.coefficient * c) for t in a.terms), a.constant * c, a.stride * c)

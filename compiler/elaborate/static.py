"""Arithmetic at compile time: numbers stay numbers, sizes stay sizes, and lists of them can be joined and compared."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from itertools import product
from typing import Any

from ...dsl.diagnostics import Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..types.facts import OPPOSITE, Relation, equal
from ..types.sizes import Dim, Size, bounded
from ..types.sizes import product as multiplied
from .context import Context
from .shapes import divided
from .values import SizeCondition, Value, is_static, kind

MAX_CLAUSES = 64  # of a condition on sizes
MAX_BITS = 4096  # of a compile-time whole number
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
STATIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "%": operator.mod,
    "//": operator.floordiv, "^": operator.pow, "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge, "and": lambda a, b: a and b, "or": lambda a, b: a or b,
}  # fmt: skip


def fractional(value: Value) -> bool:
    """Whether a compile-time value is or holds a number that is not whole."""
    return any(map(fractional, value)) if isinstance(value, tuple) else isinstance(value, float)


def static(cx: Context, op: str, a: Value, b: Value, span: Span, spans: tuple[Span, Span]) -> Value | None:
    """`a op b`; None where the result is no compile-time value."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        if op in ("==", "!=") and is_static(a) and is_static(b):
            return bool(STATIC[op](a, b))
        if op == "+" and isinstance(a, tuple) and isinstance(b, tuple):
            return cx.listed(a + b, span)
        return None
    for value, at in ((a, spans[0]), (b, spans[1])):
        if not isinstance(value, bool | int | float | Size | str) and not (
            op in ("and", "or") and isinstance(value, SizeCondition)
        ):
            raise error("E0307", f"`{op}` does not apply to {kind(value)}", span, "", Label(at, kind(value)))
    if op in ("and", "or"):
        x, y = (_truth(op, value, at) for value, at in ((a, spans[0]), (b, spans[1])))
        return _both(x, y, span) if op == "and" else opposite(_both(opposite(x, span), opposite(y, span), span), span)
    if isinstance(a, str) or isinstance(b, str):
        if isinstance(a, str) and isinstance(b, str) and op in ("==", "!=", "+"):
            cx.spend(len(a) + len(b), span)
            joined: bool | str = STATIC[op](a, b)
            return joined
        raise error("E0307", f"`{op}` does not apply to {kind(a)} and {kind(b)}", span)
    try:
        return (_sizes if isinstance(a, Size) or isinstance(b, Size) else _numbers)(cx, op, a, b, span)
    except ZeroDivisionError:
        raise error("E0307", "division by zero", span, "", Label(spans[1], "this is 0")) from None
    except OverflowError:
        raise error("E0307", "this number is too large", span) from None


def _sizes(cx: Context, op: str, a: Any, b: Any, span: Span) -> Size | int | bool | SizeCondition | None:
    """Of sizes that only run time knows: polynomials in one normal form, and conditions on them."""
    if op in COMPARISONS:
        return _compared(cx, MIRRORED[op], b, a) if isinstance(a, float) else _compared(cx, op, a, b)
    if op == "^" and isinstance(b, int) and 0 <= b <= 8:
        return multiplied([a] * b)
    if op in ("/", "^") or isinstance(a, float) or isinstance(b, float):
        return None
    if op in ("//", "%"):
        quotient, remainder = divided(cx, a, b, span)
        return bounded(quotient if op == "//" else remainder)
    value: Size | int = _small(STATIC[op](a, b))
    return value


def _compared(cx: Context, op: str, a: Dim, b: Dim | float) -> bool | SizeCondition:
    if isinstance(b, float):
        if not math.isfinite(b) or (op in ("==", "!=") and b != int(b)):
            return bool(STATIC[op](0, b))  # so for every whole number
        b = math.ceil(b) if op in ("<", ">=") else math.floor(b)
    difference = 0 if equal(a, b, cx.facts) else a - b
    if isinstance(difference, int):
        return bool(STATIC[op](difference, 0))
    return SizeCondition(((Relation(a, op, b),),))


def _truth(op: str, value: Value, at: Span) -> bool | SizeCondition:
    if not isinstance(value, bool | SizeCondition):
        raise error("E0307", f"`{op}` needs a bool, not {kind(value)}", at)
    return value


def _both(a: bool | SizeCondition, b: bool | SizeCondition, span: Span) -> bool | SizeCondition:
    """`a and b`."""
    if isinstance(a, bool) or isinstance(b, bool):
        return (a if b is True else b) if a is not False and b is not False else False
    return _written(tuple(dict.fromkeys((*a.clauses, *b.clauses))), span)


def opposite(c: bool | SizeCondition, span: Span) -> bool | SizeCondition:
    """`not c`: of some clause no relation holds; so for each choice of one from each, the opposite of some."""
    if isinstance(c, bool):
        return not c
    if math.prod(map(len, c.clauses)) > MAX_CLAUSES:
        raise error("E0502", f"this condition on sizes has more than {MAX_CLAUSES} cases", span)
    chosen = product(*c.clauses)
    clauses = (tuple(dict.fromkeys(Relation(x.left, OPPOSITE[x.op], x.right) for x in one)) for one in chosen)
    return _written(tuple(dict.fromkeys(clauses)), span)


def _written(clauses: tuple[tuple[Relation, ...], ...], span: Span) -> SizeCondition:
    if len(clauses) > MAX_CLAUSES:
        raise error("E0502", f"this condition on sizes has more than {MAX_CLAUSES} cases", span)
    return SizeCondition(clauses)


def _numbers(cx: Context, op: str, a: Any, b: Any, span: Span) -> bool | int | float:
    if op == "^" and isinstance(a, int) and isinstance(b, int) and (b < 0 or abs(b) * a.bit_length() > MAX_BITS):
        return float(a) ** b
    if op == "//" and (isinstance(a, float) or isinstance(b, float)):
        raise error("E0302", "`//` is for whole numbers", span, help="write `floor(x / y)`")
    value = _small(STATIC[op](a, b))
    if isinstance(value, complex):
        raise error("E0307", f"{a} ^ {b} is not a real number", span)
    number: bool | int | float = value
    return number


def _small(value: Any) -> Any:
    """A number or a size, if its digits or its terms are few enough. Raises `OverflowError`, `SizeTooLarge`."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError
    return bounded(value) if isinstance(value, Size) else value

"""Arithmetic: sums, products, quotients, signs, the larger and the smaller."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from ..types.tensors import BYTES, FLOATS, INTS
from .code import Code
from .function import ALWAYS, EACH, FLAT, NUMBERS, Number, Scalar
from .numbers import greatest, least, nearest, quotient, rounded
from .rounding import floored


def _add(i: Code, a: str, b: str) -> str:
    return i.either(a, b) if i.dtype == "bool" else i.add(a, b)


def _mul(i: Code, a: str, b: str) -> str:
    return i.both(a, b) if i.dtype == "bool" else i.mul(a, b)


ADD = Scalar(
    name="add",
    sign="+",
    operands=("x", "y"),
    doc="x + y",
    weight=1,
    accepts=NUMBERS,
    commutative=True,
    numpy=np.add,
    grad=lambda dy, z, x, y: (dy, dy),
    unsigned=EACH,
    meaning=lambda x, y: x + y,
    llvm=_add,
    identity=lambda dtype: -0.0 if dtype in FLOATS else 0,
)
SUB = Scalar(
    name="sub",
    sign="-",
    operands=("x", "y"),
    doc="x - y",
    weight=1,
    accepts=NUMBERS,
    numpy=np.subtract,
    grad=lambda dy, z, x, y: (dy, -dy),
    meaning=lambda x, y: x - y,
    llvm=lambda i, a, b: i.sub(a, b),
)
MUL = Scalar(
    name="mul",
    sign="*",
    operands=("x", "y"),
    doc="x y",
    weight=1,
    accepts=NUMBERS,
    commutative=True,
    numpy=np.multiply,
    grad=lambda dy, z, x, y: (dy * y, dy * x),
    unsigned=EACH,
    meaning=lambda x, y: x * y,
    llvm=_mul,
    identity=lambda dtype: 1.0 if dtype in FLOATS else 1,
)
DIV = Scalar(
    name="div",
    sign="/",
    operands=("x", "y"),
    doc="x / y, IEEE 754. d(x/y) = dx / y - (x/y) dy / y",
    weight=5,
    numpy=np.divide,
    grad=lambda dy, z, x, y: (dy / y, -(dy * (z / y))),
    unsigned=EACH,
    low=0.5,
    meaning=quotient,
    llvm=lambda i, a, b: i.div(a, b),
)
NEG = Scalar(
    name="neg",
    sign="-",
    operands=("x",),
    doc="-x",
    weight=1,
    accepts=NUMBERS,
    numpy=np.negative,
    grad=lambda dy, y, x: (-dy,),
    meaning=lambda x: -x,
    llvm=lambda i, a: i.neg(a),
)


# --- whole quotients -------------------------------------------------------------------------------------------------


def _safe_division(i: Code, a: str, b: str) -> tuple[str, str, str]:
    """(quotient, remainder, whether b is 0) towards zero. The divisor is replaced by 1 where it is 0 (undefined) and by
    1 where it is -1 (MIN / -1 traps; the quotient is then the negation)."""
    zero, one, minus = i.const(0), i.const(1), i.const(-1)
    none, negate = i.compare("eq", b, zero), i.compare("eq", b, minus)
    safe = i.select(i.of("bool").either(none, negate), one, b)
    whole, remainder = i.op("sdiv", a, safe), i.op("srem", a, safe)
    return i.select(negate, i.neg(a), whole), remainder, none


def _rounds_down(i: Code, remainder: str, b: str) -> str:
    """Whether truncation went up: a remainder is left and its sign is not the divisor's."""
    zero, bools = i.const(0), i.of("bool")
    return bools.both(i.compare("ne", remainder, zero), i.compare("slt", i.op("xor", remainder, b), zero))


def _by_power(n: int) -> bool:
    """Whether a division by n is a shift."""
    return n > 0 and n & (n - 1) == 0


def _below(i: Code, remainder: str) -> str:
    """All bits where a remainder is negative, none where it is not."""
    return i.op("ashr", remainder, i.const(8 * BYTES[i.dtype] - 1))


def _floordiv(i: Code, a: str, b: str) -> str:
    if i.is_float:
        return i.intrinsic("floor", i.div(a, b))
    if (n := i.whole(b)) is not None and n > 0:  # most divisions are by known sizes, and each of these is shorter
        if _by_power(n):
            return i.op("ashr", a, i.const(n.bit_length() - 1))
        return i.add(i.op("sdiv", a, b), _below(i, i.op("srem", a, b)))
    whole, remainder, none = _safe_division(i, a, b)
    down = i.select(_rounds_down(i, remainder, b), i.const(-1), i.const(0))
    return i.select(none, i.const(0), i.add(whole, down))


def _mod(i: Code, a: str, b: str) -> str:
    if i.is_float:  # a - b * floor(a / b)
        return i.sub(a, i.mul(b, _floordiv(i, a, b)))
    if (n := i.whole(b)) is not None and n > 0:
        if _by_power(n):
            return i.both(a, i.const(n - 1))
        remainder = i.op("srem", a, b)
        return i.add(remainder, i.both(_below(i, remainder), b))
    _, remainder, none = _safe_division(i, a, b)
    shifted = i.select(_rounds_down(i, remainder, b), i.add(remainder, b), remainder)
    return i.select(none, i.const(0), shifted)


def _floordiv_meaning(dtype: str, x: Number, y: Number) -> Number:
    if dtype in FLOATS:
        return floored(rounded(quotient(x, y), dtype))
    return x // y if y else 0


def _mod_meaning(dtype: str, x: Number, y: Number) -> Number:
    if dtype in FLOATS:
        return x - rounded(y * _floordiv_meaning(dtype, x, y), dtype)
    return x % y if y else 0


def _floordiv_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, 0, x // np.where(y == 0, 1, y)).astype(x.dtype)


def _mod_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, 0, x % np.where(y == 0, 1, y)).astype(x.dtype)


FLOORDIV = Scalar(
    name="floordiv",
    sign="//",
    operands=("x", "y"),
    doc="The quotient rounded to minus infinity; by zero it is 0",
    weight=20,
    accepts=INTS,
    low=-9,
    high=9,
    numpy=_floordiv_numpy,
    grad=FLAT.format("`//`"),
    meaning=_floordiv_meaning,
    typed=True,
    llvm=_floordiv,
)
MOD = Scalar(
    name="mod",
    sign="%",
    operands=("x", "y"),
    weight=20,
    accepts=INTS,
    low=-9,
    high=9,
    doc="x - y (x // y): the remainder with the sign of y; by zero it is 0",
    numpy=_mod_numpy,
    grad=FLAT.format("`%`"),
    meaning=_mod_meaning,
    typed=True,
    llvm=_mod,
)


# --- signs -----------------------------------------------------------------------------------------------------------


def _abs(i: Code, a: str) -> str:
    if i.is_float:
        return i.intrinsic("fabs", a)
    return i.select(i.compare("slt", a, i.const(0)), i.neg(a), a)


def _sign(i: Code, a: str) -> str:
    """1, 0 or -1; a NaN stays itself."""
    zero = i.const(0)
    if not i.is_float:
        negative = i.select(i.compare("slt", a, zero), i.const(-1), zero)
        return i.select(i.compare("sgt", a, zero), i.const(1), negative)
    rest = i.select(i.compare("oeq", a, zero), zero, a)
    rest = i.select(i.compare("olt", a, zero), i.const(-1), rest)
    return i.select(i.compare("ogt", a, zero), i.const(1), rest)


ABS = Scalar(
    name="abs",
    operands=("x",),
    doc="|x|; its derivative is sign(x), 0 at 0",
    weight=1,
    accepts=NUMBERS,
    numpy=np.abs,
    grad=lambda dy, y, x: (dy * x.apply("sign").apply("stop_grad"),),
    unsigned=ALWAYS,
    number=abs,
    llvm=_abs,
)
SIGN = Scalar(
    name="sign",
    operands=("x",),
    doc="-1, 0 or 1; NaN of NaN",
    weight=1,
    accepts=NUMBERS,
    numpy=np.sign,
    grad=FLAT.format("sign"),
    number=lambda x: (x > 0) - (x < 0),
    meaning=lambda x: x if x != x else type(x)((x > 0) - (x < 0)),
    llvm=_sign,
)


# --- the larger, the smaller -----------------------------------------------------------------------------------------


def _extreme(i: Code, floats: str, ints: str, bools: str, a: str, b: str) -> str:
    """NaN if either is; of equal zeros the first. `b > a ? b : a` is one instruction on x86 and is already right unless
    b alone is NaN, which a constant b is not."""
    if i.dtype == "bool":
        return i.op(bools, a, b)
    if not i.is_float:
        return i.select(i.compare(ints, b, a), b, a)
    r = i.select(i.compare(floats, b, a), b, a)
    if i.is_a_number(b):
        return r
    return i.select(i.compare("uno", b, b), b, r)


def _chosen(before: str, dy: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The adjoints of two of which the one that comes `before` the other is taken."""
    first = x.apply(before, y)
    second = y.apply(before, x).where(dy, 0) if x.is_literal else first.where(0, dy)
    return first.where(dy, 0), second


MINIMUM = Scalar(
    name="minimum",
    operands=("x", "y"),
    weight=1,
    accepts=NUMBERS,
    doc="The smaller; NaN if either is. The gradient goes to x where x < y, else to y; where a number meets its equal "
    "it goes nowhere",
    numpy=np.minimum,
    grad=lambda dy, z, x, y: _chosen("lt", dy, x, y),
    unsigned=EACH,
    number=min,
    meaning=lambda x, y: y if y < x or y != y else x,
    llvm=lambda i, a, b: _extreme(i, "olt", "slt", "and", a, b),
    identity=greatest,
)
MAXIMUM = Scalar(
    name="maximum",
    operands=("x", "y"),
    weight=1,
    accepts=NUMBERS,
    doc="The larger; NaN if either is. The gradient goes to x where x > y, else to y; where a number meets its equal "
    "it goes nowhere, so that the derivative of maximum(x, 0) and of maximum(0, x) at 0 is 0",
    numpy=np.maximum,
    grad=lambda dy, z, x, y: _chosen("gt", dy, x, y),
    unsigned=EACH,
    number=max,
    meaning=lambda x, y: y if y > x or y != y else x,
    llvm=lambda i, a, b: _extreme(i, "ogt", "sgt", "or", a, b),
    identity=least,
)


# --- what only loops have --------------------------------------------------------------------------------------------


def _fma_meaning(dtype: str, a: Number, b: Number, c: Number) -> Number:
    if dtype not in FLOATS or not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    return nearest(exact, dtype) if exact else a * b + c  # the sign of 0


FMA = Scalar(
    name="fma",
    operands=("x", "y", "z"),
    doc="x y + z, rounded once where the target can, else twice",
    weight=1,
    meaning=_fma_meaning,
    typed=True,
    llvm=lambda i, a, b, c: i.fma(a, b, c),
)

ALL = (ADD, SUB, MUL, DIV, FLOORDIV, MOD, NEG, ABS, SIGN, MINIMUM, MAXIMUM, FMA)

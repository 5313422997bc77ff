"""Comparisons, logic and choice: what gives a bool, or asks one; and the bits of whole numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..types.tensors import BYTES, DTYPES, INTS
from .code import Code
from .function import BOOL, LOGIC, NUMBERS, Number, Scalar


def _compare(
    name: str,
    sign: str,
    doc: str,
    how: tuple[str, str, str],
    numpy: Callable[..., Any],
    accepts: tuple[str, ...] = NUMBERS,
    commutative: bool = False,
) -> Scalar:
    """`how`: LLVM's predicates for floats, whole numbers and bools."""
    floats, ints, bools = how

    def llvm(i: Code, a: str, b: str) -> str:
        return i.compare(floats if i.is_float else bools if i.dtype == "bool" else ints, a, b)

    return Scalar(
        name=name,
        sign=sign,
        operands=("x", "y"),
        doc=doc,
        weight=1,
        accepts=accepts,
        result="bool",
        commutative=commutative,
        numpy=numpy,
        grad=LOGIC.format(sign),
        meaning=getattr(operator, name),
        llvm=llvm,
    )


ORDER = (
    _compare("eq", "==", "x == y; false when either is NaN", ("oeq", "eq", "eq"), np.equal, DTYPES, True),
    _compare("ne", "!=", "x != y; true when either is NaN", ("une", "ne", "ne"), np.not_equal, DTYPES, True),
    _compare("lt", "<", "x < y", ("olt", "slt", "ult"), np.less),
    _compare("le", "<=", "x <= y", ("ole", "sle", "ule"), np.less_equal),
    _compare("gt", ">", "x > y", ("ogt", "sgt", "ugt"), np.greater),
    _compare("ge", ">=", "x >= y", ("oge", "sge", "uge"), np.greater_equal),
)

AND = Scalar(
    name="and",
    operands=("x", "y"),
    doc="Both",
    weight=1,
    accepts=BOOL,
    result="bool",
    commutative=True,
    numpy=np.logical_and,
    grad=LOGIC.format("`and`"),
    meaning=lambda x, y: x and y,
    llvm=lambda i, a, b: i.both(a, b),
)
OR = Scalar(
    name="or",
    operands=("x", "y"),
    doc="Either or both",
    weight=1,
    accepts=BOOL,
    result="bool",
    commutative=True,
    numpy=np.logical_or,
    grad=LOGIC.format("`or`"),
    meaning=lambda x, y: x or y,
    llvm=lambda i, a, b: i.either(a, b),
)
NOT = Scalar(
    name="not",
    operands=("x",),
    doc="Not",
    weight=1,
    accepts=BOOL,
    result="bool",
    numpy=np.logical_not,
    grad=LOGIC.format("`not`"),
    meaning=lambda x: not x,
    llvm=lambda i, a: i.flip(a),
)
ISFINITE = Scalar(
    name="isfinite",
    operands=("x",),
    doc="Neither NaN nor infinite",
    weight=1,
    result="bool",
    numpy=np.isfinite,
    grad=LOGIC.format("isfinite"),
    meaning=math.isfinite,
    llvm=lambda i, a: i.compare("olt", i.intrinsic("fabs", a), i.const(float("inf"))),
)
SELECT = Scalar(
    name="select",
    operands=("c", "x", "y"),
    doc="x where c holds, else y; the operator of it is `where`",
    weight=1,
    meaning=lambda c, x, y: x if c else y,
    llvm=lambda i, c, a, b: i.select(c, a, b),
)


def _of_bits(
    name: str,
    operands: tuple[str, ...],
    doc: str,
    numpy: Callable[..., Any],
    meaning: Callable[..., Number],
    llvm: Callable[..., str],
    typed: bool = False,
) -> Scalar:
    """A function of the bits of whole numbers, negative ones in two's complement; of compile-time numbers those of an
    i64. `meaning` is told the dtype first where it is `typed`."""

    def number(*values: Number) -> Number:
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise ValueError("only whole numbers have bits")
        return meaning("i64", *values) if typed else meaning(*values)

    return Scalar(
        name=name,
        operands=operands,
        doc=doc,
        weight=1,
        accepts=INTS,
        low=-70,
        high=70,
        commutative=operands == ("x", "y"),
        numpy=numpy,
        grad=f"`{name}` is of bits, which have no derivative",
        number=number,
        meaning=meaning,
        typed=typed,
        llvm=llvm,
    )


def _width(dtype: str) -> int:
    return 8 * BYTES[dtype]


def _shift_left(i: Code, a: str, n: str) -> str:
    inside = i.compare("ult", n, i.const(_width(i.dtype)))
    return i.select(inside, i.op("shl", a, i.select(inside, n, i.const(0))), i.const(0))


def _shift_right(i: Code, a: str, n: str) -> str:
    last = i.const(_width(i.dtype) - 1)
    return i.op("ashr", a, i.select(i.compare("ult", n, last), n, last))


def _left_numpy(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    inside = (n >= 0) & (n < 8 * x.dtype.itemsize)
    return np.where(inside, np.left_shift(x, np.where(inside, n, 0)), 0).astype(x.dtype)


def _right_numpy(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    last = 8 * x.dtype.itemsize - 1
    shifted: np.ndarray = np.right_shift(x, np.where((n >= 0) & (n < last), n, last))
    return shifted


BITS = (
    _of_bits(
        "bit_and", ("x", "y"), "The bits that both have", np.bitwise_and, operator.and_, lambda i, a, b: i.both(a, b)
    ),
    _of_bits("bit_or", ("x", "y"), "The bits of either", np.bitwise_or, operator.or_, lambda i, a, b: i.either(a, b)),
    _of_bits(
        "bit_xor", ("x", "y"), "The bits of one alone", np.bitwise_xor, operator.xor, lambda i, a, b: i.op("xor", a, b)
    ),
    _of_bits(
        "bit_not",
        ("x",),
        "The other bits, -1 - x",
        np.invert,
        operator.invert,
        lambda i, a: i.op("xor", a, i.const(-1)),
    ),
    _of_bits(
        "shift_left",
        ("x", "n"),
        "x 2^n without the bits that leave its width; by less than 0 or by the width all have left",
        _left_numpy,
        lambda dtype, x, n: x << n if 0 <= n < _width(dtype) else 0,
        _shift_left,
        typed=True,
    ),
    _of_bits(
        "shift_right",
        ("x", "n"),
        "x / 2^n rounded down; by less than 0 or by the width what is left is the sign, 0 or -1",
        _right_numpy,
        lambda dtype, x, n: x >> (n if 0 <= n < _width(dtype) else _width(dtype) - 1),
        _shift_right,
        typed=True,
    ),
)

ALL = (*ORDER, AND, OR, NOT, ISFINITE, SELECT, *BITS)

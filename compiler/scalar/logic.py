"""Comparisons, logic and choice: what gives a bool, or asks one."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..types.tensors import DTYPES
from .code import Code
from .function import BOOL, LOGIC, NUMBERS, Scalar


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

ALL = (*ORDER, AND, OR, NOT, ISFINITE, SELECT)

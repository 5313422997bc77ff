"""Rounding to whole numbers: down, up, to the nearest."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .code import Code
from .function import FLAT, Number, Scalar


def _of_finite(f: Callable[[float], int]) -> Callable[[Number], Number]:
    return lambda x: math.copysign(f(x), x) if isinstance(x, float) and math.isfinite(x) else x


def _rounded(intrinsic: str) -> Callable[[Code, str], str]:
    return lambda i, a: i.intrinsic(intrinsic, a) if i.is_float else a


floored = _of_finite(math.floor)

FLOOR = Scalar(
    name="floor",
    operands=("x",),
    doc="The largest whole number that is not above x",
    weight=1,
    rounds=True,
    numpy=np.floor,
    grad=FLAT.format("floor"),
    number=math.floor,
    meaning=floored,
    llvm=_rounded("floor"),
)
CEIL = Scalar(
    name="ceil",
    operands=("x",),
    doc="The smallest whole number that is not below x",
    weight=1,
    rounds=True,
    numpy=np.ceil,
    grad=FLAT.format("ceil"),
    number=math.ceil,
    meaning=_of_finite(math.ceil),
    llvm=_rounded("ceil"),
)
ROUND = Scalar(
    name="round",
    operands=("x",),
    doc="The nearest whole number, half to even",
    weight=1,
    rounds=True,
    numpy=np.rint,
    grad=FLAT.format("round"),
    number=round,
    meaning=_of_finite(round),
    llvm=_rounded("roundeven"),
)

ALL = (FLOOR, CEIL, ROUND)

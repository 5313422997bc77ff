"""Numbers of a dtype in Python: rounded, wrapped, converted. Lists of lanes are somebody else's matter."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

from ..types.tensors import INTS
from .function import Number

RANGE = {"i32": (-(1 << 31), (1 << 31) - 1), "i64": (-(1 << 63), (1 << 63) - 1), "bool": (0, 1)}


def wrapped(x: int, dtype: str) -> int:
    bits = int(dtype[1:])
    return (x + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def rounded(x: Number, dtype: str) -> Number:
    """A number of the dtype that it is already meant to be: rounded, wrapped."""
    if dtype == "f64":
        return float(x)
    if dtype == "f32":
        try:
            return struct.unpack("f", struct.pack("f", x))[0]
        except OverflowError:
            return math.copysign(math.inf, x)
    return bool(x) if dtype == "bool" else wrapped(int(x), dtype)


def converted(x: Number, dtype: str) -> Number:
    """Another dtype: float to int saturates, NaN gives 0, to bool is != 0."""
    if dtype == "bool":
        return x != 0
    if isinstance(x, float) and dtype in INTS:
        low, high = RANGE[dtype]
        return 0 if math.isnan(x) else low if x <= low else high if x >= high else int(x)
    return rounded(x, dtype)


def nearest(x: Fraction, dtype: str) -> float:
    """The float nearest to a fraction, ties to even, in one step."""
    digits, least = (24, -149) if dtype == "f32" else (53, -1074)
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    if Fraction(2) ** exponent > abs(x):
        exponent -= 1
    unit = Fraction(2) ** max(exponent - digits + 1, least)
    try:
        return float(rounded(math.copysign(float(round(abs(x) / unit) * unit), x), dtype))
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def quotient(a: float, b: float) -> float:
    """a / b as IEEE 754 has it."""
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def least(dtype: str) -> Number:
    """The identity of the maximum."""
    return -math.inf if dtype not in RANGE else dtype != "bool" and RANGE[dtype][0]


def greatest(dtype: str) -> Number:
    """The identity of the minimum."""
    return math.inf if dtype not in RANGE else dtype == "bool" or RANGE[dtype][1]

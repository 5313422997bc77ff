"""Inverse trigonometry: the angle of a tangent, a sine, a cosine, a point.

Each argument is brought to where a short polynomial suffices, and the angle that is left out is added in two parts, so
that only the polynomial's part is rounded. Coefficients: minimax (Remez exchange on the relative error of the result,
60 digits), then rounded to the dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .code import Code
from .function import ALWAYS, Scalar
from .polynomials import horner

# atan t = t + t³ p(t²), |t| <= √2 - 1; 6.8e-10 and 1.3e-18.
ATAN_F32 = (-0.33333316445350647, 0.19998472929000854, -0.1424354761838913, 0.10593859106302261, -0.06078220158815384)
ATAN_F64 = (-0.333333333333332, 0.19999999999953205, -0.142857142801621, 0.11111110781925615, -0.09090897718468313,
            0.07692059593445402, -0.0666309775717178, 0.058478484818687566, -0.050391406343995214,
            0.03806084604246094, -0.017903592038428378)  # fmt: skip
# asin s = s + s³ q(s²), |s| <= 1/2; 4.9e-9 and 1.5e-17.
ASIN_F32 = (0.16666752099990845, 0.07495298236608505, 0.045470353215932846, 0.02417937107384205, 0.042166873812675476)
ASIN_F64 = (0.16666666666665408, 0.07500000000336994, 0.04464285682834456, 0.030381959136327415,
            0.022371758065214457, 0.017359704544320512, 0.013885237630782385, 0.012169197250123175,
            0.006528038550668321, 0.01952808915870899, -0.016223972465154876, 0.03191207523621448)  # fmt: skip
# π/2 rounded, and what that leaves out; the parts of π and π/4 are these, doubled and halved
HALF_PI = {"f32": (1.5707963705062866, -4.371139000186241e-08), "f64": (1.5707963267948966, 6.123233995736766e-17)}
MIDDLE = math.sqrt(2) - 1  # the tangent of π/8


# --- tangents --------------------------------------------------------------------------------------------------------


def angle_of(i: Code, low: str, high: str, turns: tuple[str, str]) -> str:
    """The angle in [0, π] of a point in the first octant, 0 <= `low` <= `high`; then, where the first of `turns` holds,
    π/2 minus that; then, where the second does, π minus that.

    Above the octant's middle atan(low / high) = π/4 + atan((low - high) / (low + high)). Of infinities and zeros: two
    equal numbers are π/4 apart from the axis, and 0 lies on it."""
    scale = i.select(
        i.compare("ogt", high, i.const(float(2.0 ** (126 if i.dtype == "f32" else 1022)))), i.const(0.25), i.const(1)
    )  # the sum must not overflow
    low, high = i.mul(low, scale), i.mul(high, scale)
    none, whole = i.const(0), i.const(1)
    beyond = i.compare("oge", low, i.mul(high, i.const(MIDDLE)))
    difference = i.select(i.compare("oeq", low, high), none, i.sub(low, high))
    t = i.div(i.select(beyond, difference, low), i.select(beyond, i.add(low, high), high))
    t = i.select(i.compare("oeq", low, none), none, t)  # 0 / 0, too
    z = i.mul(t, t)
    u = i.fma(i.mul(t, z), horner(i, z, ATAN_F32 if i.dtype == "f32" else ATAN_F64), t)
    beyond = i.of("bool").both(beyond, i.compare("one", low, none))
    quarters = i.select(beyond, i.const(0.5), none)  # of π/2
    sign = whole
    for turn, at in zip(turns, (1, 2), strict=True):
        quarters = i.select(turn, i.sub(i.const(at), quarters), quarters)
        sign = i.select(turn, i.neg(sign), sign)
    first, rest = HALF_PI[i.dtype]
    return i.fma(quarters, i.const(first), i.fma(quarters, i.const(rest), i.mul(sign, u)))


def _atan(i: Code, x: str) -> str:
    a = i.intrinsic("fabs", x)
    one = i.const(1)
    steep = i.compare("ogt", a, one)
    angle = angle_of(i, i.select(steep, one, a), i.select(steep, a, one), (steep, i.of("bool").const(False)))
    return i.select(i.compare("uno", x, x), x, i.intrinsic("copysign", angle, x))


def _atan2(i: Code, y: str, x: str) -> str:
    """C99 F.10.1.4: zeros and infinities have the angle of the quadrant their signs name."""
    a, b = i.intrinsic("fabs", y), i.intrinsic("fabs", x)
    steep = i.compare("ogt", a, b)
    left = i.bits.compare("slt", i.to_bits(x), i.bits.const(0))  # -0, too
    angle = angle_of(i, i.select(steep, b, a), i.select(steep, a, b), (steep, left))
    return i.select(i.compare("uno", x, y), i.add(x, y), i.intrinsic("copysign", angle, y))


def _atan2_grad(dz: Any, z: Any, y: Any, x: Any) -> tuple[Any, Any]:
    """(x dy - y dx) / (x^2 + y^2), with both divided by the larger first, so that no square overflows or vanishes."""
    most = x.apply("abs").apply("maximum", y.apply("abs")).apply("stop_grad")
    v, u = y / most, x / most
    scaled = dz / ((u * u + v * v) * most)
    return scaled * u, -(scaled * v)


ATAN = Scalar(
    name="atan",
    operands=("x",),
    doc="The angle in [-π/2, π/2] whose tangent is x; its derivative is 1 / (1 + x^2)",
    weight=20,
    ulp=(2.5, 2.5),
    shared=True,
    numpy=np.arctan,
    grad=lambda dy, y, x: (dy / (x * x + 1),),
    number=math.atan,
    llvm=_atan,
)
ATAN2 = Scalar(
    name="atan2",
    operands=("y", "x"),
    weight=28,
    ulp=(3, 3),
    shared=True,
    numpy=np.arctan2,
    grad=_atan2_grad,
    doc="The angle in [-π, π] of the point (x, y), by the signs of both, zeros included; no derivative at (0, 0): "
    "it is NaN there",
    number=math.atan2,
    llvm=_atan2,
)


# --- sines -----------------------------------------------------------------------------------------------------------


def _halves(i: Code, x: str) -> tuple[str, str, str]:
    """(whether |x| <= 1/2, s, asin s - s) for s = |x| there, and elsewhere s = sqrt((1 - |x|) / 2), where
    asin |x| = π/2 - 2 asin s. Beyond 1 it is NaN."""
    a = i.intrinsic("fabs", x)
    near = i.compare("ole", a, i.const(0.5))
    z = i.select(near, i.mul(a, a), i.mul(i.sub(i.const(1), a), i.const(0.5)))
    s = i.select(near, a, i.intrinsic("sqrt", z))
    return near, s, i.mul(i.mul(s, z), horner(i, z, ASIN_F32 if i.dtype == "f32" else ASIN_F64))


def _asin(i: Code, x: str) -> str:
    near, s, more = _halves(i, x)
    first, rest = HALF_PI[i.dtype]
    far = i.sub(i.sub(i.const(first), i.add(s, s)), i.sub(i.add(more, more), i.const(rest)))
    return i.intrinsic("copysign", i.select(near, i.add(s, more), far), x)


def _acos(i: Code, x: str) -> str:
    """π/2 - asin x; 2 asin s for x > 1/2, π - 2 asin s for x < -1/2."""
    near, s, more = _halves(i, x)
    first, rest = HALF_PI[i.dtype]
    asin = i.add(s, more)
    signed = i.intrinsic("copysign", asin, x)
    middle = i.sub(i.const(first), i.sub(signed, i.const(rest)))
    left = i.sub(i.sub(i.const(2 * first), i.add(s, s)), i.sub(i.add(more, more), i.const(2 * rest)))
    return i.select(near, middle, i.select(i.compare("olt", x, i.const(0)), left, i.add(asin, asin)))


def _slope(dy: Any, x: Any) -> Any:
    """dy / sqrt(1 - x^2), as a product that does not cancel near 1."""
    return dy / ((1 - x) * (x + 1)).apply("sqrt")


ASIN = Scalar(
    name="asin",
    operands=("x",),
    weight=18,
    ulp=(2.5, 2.5),
    shared=True,
    numpy=np.arcsin,
    low=-0.9,
    high=0.9,
    doc="The angle in [-π/2, π/2] whose sine is x, NaN beyond 1; its derivative is 1 / sqrt(1 - x^2), inf at 1 and -1",
    grad=lambda dy, y, x: (_slope(dy, x),),
    number=math.asin,
    llvm=_asin,
)
ACOS = Scalar(
    name="acos",
    operands=("x",),
    weight=18,
    ulp=(1.5, 1.5),
    shared=True,
    numpy=np.arccos,
    low=-0.9,
    high=0.9,
    doc="The angle in [0, π] whose cosine is x, NaN beyond 1; its derivative is -1 / sqrt(1 - x^2), -inf at 1 and -1",
    grad=lambda dy, y, x: (-_slope(dy, x),),
    number=math.acos,
    unsigned=ALWAYS,
    llvm=_acos,
)

ALL = (ATAN, ATAN2, ASIN, ACOS)

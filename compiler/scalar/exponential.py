"""Exponentials and logarithms, and what is made of them: tanh, the logistic function.

NaN, infinities and -0 are as in C99 annex F. Coefficients: minimax (Remez exchange on the relative error of the result,
70 digits), then rounded to the dtype. They suit targets with FMA and without, whose results differ in the last place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .code import Code
from .function import ALWAYS, Scalar
from .polynomials import BIAS, INV_LN2, LN2_PARTS, MANTISSA, clamp, horner, reduce_exp, scale, scaled, split_log

# e^r = 1 + r + r² q(r), |r| <= ln 2 / 2. Relative errors: 3.6e-9 of e^r; 5.4e-10 and 1.2e-17 of e^r - 1.
EXP_F32 = (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.00836874544620514, 0.0013814540579915047)
EXPM1_F32 = (
    0.5,
    0.1666666716337204,
    0.04166645184159279,
    0.00833308044821024,
    0.0013936515897512436,
    0.0002007378643611446,
)
EXP_F64 = (0.5, 0.1666666666666667, 0.041666666666652245, 0.00833333333332613, 0.0013888888895613337,
           0.0001984126987484561, 2.4801574517473e-05, 2.755725535969336e-06, 2.7567935820819667e-07,
           2.5105236719514428e-08, 1.768769844969116e-09)  # fmt: skip
# log(1 + f) = f - f²/2 + f³ p(f); 3.2e-9.
LOG_F32 = (0.3333331346511841, -0.25000008940696716, 0.2000211924314499, -0.1666799634695053, 0.14219552278518677,
           -0.1240558847784996, 0.11888160556554794, -0.11675655096769333, 0.06746648997068405)  # fmt: skip
# log(1 + f) = 2s + s z R(z), s = f / (2 + f), z = s²; 1.4e-18.
LOG_F64 = (0.6666666666666734, 0.39999999999416375, 0.28571428742014543, 0.22222198610890925, 0.1818356239933069,
           0.15314098986466138, 0.14795473645710852)  # fmt: skip


def _exp(i: Code, x: str) -> str:
    high = i.const(89.0 if i.dtype == "f32" else 710.0)
    return exp_below(i, i.select(i.compare("ogt", x, high), high, x))


def exp_below(i: Code, x: str) -> str:
    """For x up to where exp is infinite. Where it is 0 it is not computed: on many processors a product below all
    numbers takes ten times as long as another (measured: 285 cycles for 25), and masks give much of it."""
    nothing, zero = i.compare("olt", x, i.const(-104.0 if i.dtype == "f32" else -746.0)), i.const(0)
    n, r = reduce_exp(i, i.select(nothing, zero, x))
    return i.select(nothing, zero, scaled(i, exp_of(i, r), n))


def exp_of(i: Code, r: str) -> str:
    """e^r for |r| <= ln 2 / 2."""
    q = EXP_F32 if i.dtype == "f32" else EXP_F64
    return i.add(i.fma(i.mul(r, r), horner(i, r, q), r), i.const(1))


def expm1_of(i: Code, r: str) -> str:
    """e^r - 1 for |r| <= ln 2 / 2."""
    return i.fma(i.mul(r, r), horner(i, r, EXPM1_F32 if i.dtype == "f32" else EXP_F64), r)


def _expm1(i: Code, x: str) -> str:
    """2 (2^(n-1) (e^r - 1) + 2^(n-1) - 1/2): the half keeps n = 128 from overflowing early."""
    bounds = (-25.0, 89.0) if i.dtype == "f32" else (-50.0, 710.0)
    n, r = reduce_exp(i, clamp(i, x, *bounds))
    b = i.bits
    s = scale(i, b.sub(n, b.const(1)))
    value = i.mul(i.fma(s, expm1_of(i, r), i.sub(s, i.const(0.5))), i.const(2))
    return i.select(i.compare("oeq", x, i.const(0)), x, value)  # keeps -0


def log_of(i: Code, k: str, f: str) -> str:
    """k ln 2 + log(1 + f)."""
    high, low = LN2_PARTS[i.dtype]
    if i.dtype == "f32":
        square = i.mul(f, f)
        y = i.mul(i.mul(square, f), horner(i, f, LOG_F32))
        y = i.fma(k, i.const(low), y)
        y = i.fma(i.const(-0.5), square, y)
        return i.fma(k, i.const(high), i.add(f, y))
    s = i.div(f, i.add(i.const(2), f))
    z = i.mul(s, s)
    half = i.mul(i.mul(i.const(0.5), f), f)
    tail = i.fma(s, i.add(half, i.mul(z, horner(i, z, LOG_F64))), i.mul(k, i.const(low)))
    return i.fma(k, i.const(high), i.sub(f, i.sub(half, tail)))


def log_edges(i: Code, x: str, value: str) -> str:
    """log where x is not a positive finite number: NaN below 0, -inf at 0, x itself at inf and NaN."""
    value = i.select(i.compare("olt", x, i.const(0)), i.const(float("nan")), value)
    value = i.select(i.compare("oeq", x, i.const(0)), i.const(float("-inf")), value)
    return i.select(i.compare("olt", x, i.const(float("inf"))), value, x)


def _split(i: Code, x: str) -> tuple[str, str]:
    """(k, f) with x = 2^k (1 + f). Subnormals are scaled up first."""
    bits = MANTISSA[i.dtype]
    smallest = 2.0 ** (1 - BIAS[i.dtype])
    tiny = i.compare("olt", x, i.const(smallest))
    k, m = split_log(i, i.select(tiny, i.mul(x, i.const(2.0**bits)), x))
    whole = i.bits.convert("sitofp", k, i.dtype)
    whole = i.select(tiny, i.sub(whole, i.const(bits)), whole)
    return whole, i.sub(m, i.const(1))


def log(i: Code, x: str) -> str:
    return log_edges(i, x, log_of(i, *_split(i, x)))


def _log2(i: Code, x: str) -> str:
    """k + log(1 + f) / ln 2: exact for powers of two."""
    whole, f = _split(i, x)
    return log_edges(i, x, i.add(whole, i.mul(log_of(i, i.const(0), f), i.const(INV_LN2))))


def log_of_sum(i: Code, u: str, c: str, more: str = "") -> str:
    """log(u + c) for a u > 0 that is normal and a c that is small beside it; with `more`, log(2^more (u + c))."""
    b = i.bits
    k, m = split_log(i, u)
    most = b.const(100)
    shift = b.select(b.compare("slt", k, most), k, most)
    f = i.fma(c, scale(i, b.neg(shift)), i.sub(m, i.const(1)))
    whole = b.convert("sitofp", k, i.dtype)
    return log_of(i, i.add(whole, more) if more else whole, f)


def one_and(i: Code, x: str) -> tuple[str, str]:
    """(1 + x rounded, the part rounded away)."""
    one = i.const(1)
    u = i.add(one, x)
    back = i.sub(u, one)
    return u, i.add(i.sub(one, i.sub(u, back)), i.sub(x, back))


def _log1p(i: Code, x: str) -> str:
    """u = 1 + x rounded, c = the part rounded away; log(1 + x) = log(u) + c / u, and c 2^-k joins f."""
    u, c = one_and(i, x)
    value = log_of_sum(i, u, c)
    value = i.select(i.compare("olt", u, i.const(0)), i.const(float("nan")), value)
    value = i.select(i.compare("oeq", u, i.const(0)), i.const(float("-inf")), value)
    value = i.select(i.compare("oeq", x, i.const(float("inf"))), x, value)
    value = i.select(i.compare("uno", x, x), x, value)
    return i.select(i.compare("oeq", x, i.const(0)), x, value)


def _tanh(i: Code, x: str) -> str:
    high = 10.0 if i.dtype == "f32" else 22.0
    a = i.intrinsic("fabs", x)
    a = i.select(i.compare("ogt", a, i.const(high)), i.const(high), a)
    n, r = reduce_exp(i, i.add(a, a))
    s = scale(i, n)
    t = i.fma(s, expm1_of(i, r), i.sub(s, i.const(1)))
    return i.intrinsic("copysign", i.div(t, i.add(t, i.const(2))), x)


def _logistic(i: Code, x: str) -> str:
    e = exp_below(i, i.neg(i.intrinsic("fabs", x)))
    one = i.const(1)
    top = i.select(i.compare("olt", x, i.const(0)), e, one)
    return i.div(top, i.add(one, e))


def _logistic_number(x: float) -> float:
    try:
        return 1 / (1 + math.exp(-x))
    except OverflowError:
        return 0.0


def _logistic_numpy(x: np.ndarray) -> Any:
    e = np.exp(-np.abs(x))  # at most 1, so nothing overflows
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


# x = n ln 2 + r (Cody & Waite 1980), e^r = 1 + r + r² q(r), scaled in two steps
EXP = Scalar(
    name="exp",
    operands=("x",),
    doc="e^x",
    weight=14,
    ulp=(1, 1.1),
    shared=True,
    unsigned=ALWAYS,
    numpy=np.exp,
    grad=lambda dy, y, x: (dy * y,),
    number=math.exp,
    llvm=_exp,
)
# x = 2^k m, √½ <= m < √2; f - f²/2 + f³ p(f), f64 in s = f / (2 + f) (Tang 1990)
LOG = Scalar(
    name="log",
    operands=("x",),
    doc="The natural logarithm; -inf at 0, NaN below",
    weight=20,
    ulp=(1, 1),
    shared=True,
    numpy=np.log,
    grad=lambda dy, y, x: (dy / x,),
    low=0.1,
    number=math.log,
    meaning=lambda x: -math.inf if x == 0 else math.log(x),
    llvm=log,
)
LOG2 = Scalar(
    name="log2",
    operands=("x",),
    doc="The logarithm to base 2; -inf at 0, NaN below",
    weight=20,
    ulp=(2, 2),
    shared=True,
    numpy=np.log2,
    grad=lambda dy, y, x: (dy / (x * math.log(2)),),
    low=0.1,
    number=math.log2,
    meaning=lambda x: -math.inf if x == 0 else math.log2(x),
    llvm=_log2,
)
# log of u = 1 + x with the rounding error of u carried along
LOG1P = Scalar(
    name="log1p",
    operands=("x",),
    doc="log(1 + x), accurate near 0",
    weight=24,
    ulp=(1.5, 1.6),
    shared=True,
    numpy=np.log1p,
    grad=lambda dy, y, x: (dy / (x + 1),),
    low=-0.9,
    number=math.log1p,
    meaning=lambda x: -math.inf if x == -1 else math.log1p(x),
    llvm=_log1p,
)
# as exp: 2^n (e^r - 1) + (2^n - 1)
EXPM1 = Scalar(
    name="expm1",
    operands=("x",),
    doc="e^x - 1, accurate near 0; the derivative is e^x, which y + 1 is not far left of 0",
    weight=18,
    ulp=(1.5, 1.6),
    shared=True,
    numpy=np.expm1,
    grad=lambda dy, y, x: (dy * x.apply("exp"),),
    number=math.expm1,
    llvm=_expm1,
)
# t / (t + 2), t = expm1(2 |x|)
TANH = Scalar(
    name="tanh",
    operands=("x",),
    doc="The hyperbolic tangent; its derivative is 1 - y^2",
    weight=18,
    ulp=(2.5, 2.5),
    shared=True,
    numpy=np.tanh,
    grad=lambda dy, y, x: (dy * (1 - y * y),),
    number=math.tanh,
    llvm=_tanh,
)
# e / (1 + e) or 1 / (1 + e), e = exp(-|x|): no overflow, no cancellation
LOGISTIC = Scalar(
    name="logistic",
    operands=("x",),
    doc="1 / (1 + exp(-x)); its derivative is y (1 - y)",
    weight=18,
    ulp=(2.5, 2.5),
    shared=True,
    unsigned=ALWAYS,
    numpy=_logistic_numpy,
    grad=lambda dy, y, x: (dy * (y * (1 - y)),),
    number=_logistic_number,
    meaning=lambda x: 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x)),
    llvm=_logistic,
)

ALL = (EXP, LOG, LOG2, LOG1P, EXPM1, TANH, LOGISTIC)

"""The logarithm of the gamma function and its derivatives.

All is computed in f64, also for f32. An argument is moved to where a short polynomial suffices, by Γ(x + 1) = x Γ(x),
and what is left of 0 is mirrored to the right. Near a zero errors are those of a result of 1. Coefficients: minimax
(Remez exchange, 40 digits), then rounded to f64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .code import Code
from .exponential import log
from .function import Scalar
from .polynomials import horner, widened
from .trigonometry import sine_and_cosine

# log Γ(2 + d) = d P(d), -1/2 <= d <= 1; 1.6e-18.
NEAR_TWO = (0.42278433509846713, 0.3224670334241132, -0.0673523010531978, 0.020580808427785747,
            -0.007385551028697899, 0.0028905103306956464, -0.0011927539109284283, 0.0005096695252456327,
            -0.00022315477126479412, 9.945751629808891e-05, -4.4926119147452406e-05, 2.050709088528078e-05,
            -9.440076315095183e-06, 4.375947622796509e-06, -2.0379418492689928e-06, 9.506949702446904e-07,
            -4.482895443206541e-07, 2.198983919302143e-07, -1.0940183217333341e-07, 4.698431373374339e-08,
            -1.3659274524770097e-08, 1.873207618764207e-09)  # fmt: skip
# y (log Γ(y) - (y - 1/2)(log y - 1) - (log 2π - 1) / 2) in 1 / y², y >= 8; 3.6e-17 of 1/12.
STIRLING = (0.0833333333333333, -0.00277777777761, 0.0007936506668624145, -0.0005952029368773997,
            0.0008373083776194599, -0.0016532372492024914)  # fmt: skip
# What follows the first two terms of ψ, ψ' and ψ'' for y >= 8, times y², y³, y⁴, in 1 / y²; 2e-19, 4e-18, 6e-17.
TAILS = (
    (-0.08333333333333333, 0.008333333333331734, -0.0039682539660705896, 0.004166665528596362,
         -0.007575464851525754, 0.02105152221243197, -0.0800447858722655, 0.2998159602714169),
    (0.16666666666666666, -0.03333333333330606, 0.023809523772240205, -0.033333313863195456,
         0.07575255583945453, -0.2524033236029335, 1.1097609931614971, -4.5826140447105645),
    (-0.49999999999999994, 0.166666666666177, -0.1666666659960237, 0.2999996490954171, -0.8332426345929956,
         3.2775978953714966, -16.462086225828717, 74.26591459010002),
)  # fmt: skip
FAR = 8.0
HALF_LOG_TAU = (math.log(2 * math.pi) - 1) / 2


def _turn(i: Code, a: str) -> tuple[str, str]:
    """(sin πf, cos πf) for f = a - n, n the whole number nearest to a; their quotient is that of πa."""
    f = i.sub(a, i.intrinsic("roundeven", a))
    size = i.intrinsic("fabs", f)
    near = i.compare("ole", size, i.const(0.25))
    r = i.mul(i.select(near, size, i.sub(i.const(0.5), size)), i.const(math.pi))
    s, c = sine_and_cosine(i, r, i.const(0))
    return i.intrinsic("copysign", i.select(near, s, c), f), i.select(near, c, s)


def _lgamma(i: Code, x: str) -> str:
    """Below 8 log Γ(2 + d) and the logarithm of the factors between; beyond by Stirling. Left of 0 it is
    log(π / |x sin πx|) - log Γ(-x)."""
    a, one = i.intrinsic("fabs", x), i.const(1)
    large, low, lower = (i.compare(p, a, i.const(v)) for p, v in (("oge", FAR), ("olt", 1.5), ("olt", 0.5)))
    d = i.sub(a, i.select(lower, i.const(0), i.select(low, one, i.const(2))))
    factor = i.select(lower, i.mul(a, i.add(a, one)), i.select(low, a, one))
    for _ in range(5):
        down = i.of("bool").both(i.compare("ogt", d, one), i.of("bool").flip(large))
        d = i.select(down, i.sub(d, one), d)
        factor = i.select(down, i.mul(factor, i.add(d, i.const(2))), factor)
    part = log(i, i.select(large, a, factor))
    between = i.fma(d, horner(i, d, NEAR_TWO), i.select(low, i.neg(part), part))
    u = i.div(one, i.select(large, a, one))
    rest = i.fma(u, horner(i, i.mul(u, u), STIRLING), i.const(HALF_LOG_TAU))
    far = i.fma(i.sub(a, i.const(0.5)), i.sub(part, one), rest)
    right = i.select(large, far, between)
    s, _ = _turn(i, a)
    left = i.sub(log(i, i.div(i.const(math.pi), i.mul(a, i.intrinsic("fabs", s)))), right)
    mirrored = i.of("bool").both(i.compare("olt", x, i.const(0)), i.compare("ogt", a, i.const(1e-17)))
    value = i.select(mirrored, left, right)
    value = i.select(i.compare("oeq", a, i.const(math.inf)), a, value)
    return i.select(i.compare("uno", x, x), x, value)


def _polygamma(m: int) -> Callable[[Code, str], str]:
    """ψ, ψ' or ψ'': the sum of (-1)^(m+1) m! / (x + k)^(m+1) up to y = x + n >= 8, as one fraction, and the tail at y.
    Left of 0 it is mirrored: ψ(-a) = ψ(1 + a) + π cot πa, and the derivatives of that."""
    sign = (-1.0, 1.0, -2.0)[m]

    def rule(i: Code, x: str) -> str:
        one, bools = i.const(1), i.of("bool")
        a = i.intrinsic("fabs", x)
        left = bools.both(i.compare("olt", x, i.const(0)), i.compare("ogt", a, i.const(1e-17)))
        y = i.select(left, i.add(a, one), x)
        above, below = i.const(0), one  # the fraction
        for _ in range(8):
            short = i.compare("olt", y, i.const(FAR))
            power = y
            for _ in range(m):
                power = i.mul(power, y)
            above = i.select(short, i.fma(above, power, below), above)
            below = i.select(short, i.mul(below, power), below)
            y = i.select(short, i.add(y, one), y)
        u = i.div(one, y)
        square = i.mul(u, u)
        tail = i.mul(horner(i, square, TAILS[m]), square)
        if m == 0:
            tail = i.add(log(i, y), i.fma(i.const(-0.5), u, tail))
        elif m == 1:
            tail = i.mul(u, i.add(i.fma(i.const(0.5), u, one), tail))
        else:
            tail = i.mul(square, i.sub(tail, i.add(u, one)))
        value = i.fma(i.div(above, below), i.const(sign), tail)
        s, c = _turn(i, a)
        p = i.div(i.const(math.pi), s)
        cot = i.mul(p, c)
        mirrored = (
            i.add(value, cot),
            i.sub(i.mul(p, p), value),
            i.fma(i.mul(i.mul(p, p), cot), i.const(2), value),
        )[m]
        if m != 1:  # at a pole ψ' is infinite; the others change their sign there
            mirrored = i.select(i.compare("oeq", s, i.const(0)), i.const(math.nan), mirrored)
        return i.select(left, mirrored, value)

    return widened(rule)


def _lgamma_number(x: float) -> float:
    if x <= 0 and x % 1 == 0:
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


def _psi(m: int, x: Any) -> Any:
    """The sum up to x + n >= 24, and the first Bernoulli numbers; in the dtype of x."""
    x = np.asarray(x)
    real = x.dtype.type
    with np.errstate(all="ignore"):
        left = x < 0
        y = np.where(left, 1 - x, x)
        total = np.zeros_like(y)
        for _ in range(24):
            short = y < 24
            total = np.where(short, total + 1 / y ** (m + 1), total)
            y = np.where(short, y + 1, y)
        u = 1 / (y * y)
        bernoulli = [real(p) / real(q) for p, q in ((1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6))]
        # ψ = log y - 1/2y - sum B_2n / (2n y^2n), and its derivatives
        if m == 0:
            tail = np.log(y) - 1 / (2 * y) - sum(b / (2 * n) * u**n for n, b in enumerate(bernoulli, 1))
        elif m == 1:
            tail = 1 / y + u / 2 + sum(b * u**n / y for n, b in enumerate(bernoulli, 1))
        else:
            tail = -u - u / y - sum((2 * n + 1) * b * u ** (n + 1) for n, b in enumerate(bernoulli, 1))
        value = tail + (-1.0, 1.0, -2.0)[m] * total
        pi = real(3) + real("0.14159265358979323846264338327950288")
        f = -x - np.rint(-x)
        s, c = np.sin(pi * f), np.cos(pi * f)
        cot = pi * c / s
        mirrored = (value + cot, (pi / s) ** 2 - value, value + 2 * (pi / s) ** 2 * cot)[m]
        if m != 1:
            mirrored = np.where(f == 0, real("nan"), mirrored)
        return np.where(left, mirrored, value).astype(x.dtype)


def _digamma_number(x: float) -> float:
    return float(_psi(0, np.float64(x)))


def _lgamma_numpy(x: np.ndarray) -> Any:
    return np.vectorize(_lgamma_number, otypes=["f8"])(x).astype(x.dtype)


LGAMMA = Scalar(
    name="lgamma",
    operands=("x",),
    doc="log |Γ(x)|, inf at 0, -1, -2 ..; its derivative is digamma(x). Left of 0 it is "
    "accurate by the larger of log Γ(-x) and what mirrors it",
    weight=90,
    ulp=(1, 9),
    shared=True,
    numpy=_lgamma_numpy,
    grad=lambda dy, y, x: (dy * x.apply("digamma"),),
    low=0.3,
    high=5.0,
    number=math.lgamma,
    meaning=_lgamma_number,
    llvm=widened(_lgamma),
)
DIGAMMA = Scalar(
    name="digamma",
    operands=("x",),
    doc="The derivative of log Γ(x), NaN at -1, -2 ..; its derivative is trigamma, "
    "and so on up to the third of log Γ(x)",
    weight=100,
    ulp=(1, 12),
    shared=True,
    numpy=lambda x: _psi(0, x),
    grad=lambda dy, y, x: (dy * x.apply("trigamma"),),
    low=0.3,
    high=5.0,
    number=_digamma_number,
    llvm=_polygamma(0),
)
TRIGAMMA = Scalar(
    name="trigamma",
    operands=("x",),
    doc="The second derivative of log Γ(x)",
    weight=100,
    ulp=(1, 7),
    shared=True,
    numpy=lambda x: _psi(1, x),
    grad=lambda dy, y, x: (dy * x.apply("tetragamma"),),
    low=0.3,
    high=5.0,
    meaning=lambda x: float(_psi(1, np.float64(x))),
    llvm=_polygamma(1),
)
TETRAGAMMA = Scalar(
    name="tetragamma",
    operands=("x",),
    doc="The third derivative of log Γ(x)",
    weight=100,
    ulp=(1, 9),
    shared=True,
    numpy=lambda x: _psi(2, x),
    grad="the fourth derivative of lgamma is not there",
    low=0.3,
    high=5.0,
    meaning=lambda x: float(_psi(2, np.float64(x))),
    llvm=_polygamma(2),
)

ALL = (LGAMMA, DIGAMMA, TRIGAMMA, TETRAGAMMA)

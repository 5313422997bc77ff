"""The error function and what is left of it.

Coefficients: minimax (Remez exchange on the relative error of the result, 70 digits), then rounded to the dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .code import Code
from .exponential import exp_of, log
from .function import ALWAYS, Scalar
from .polynomials import horner, reduce_exp, scale, scaled, widened

# erf(x) = x + x p(x²): |x| <= 0.93, 3.2e-8; |x| <= 1, 2.6e-17.
ERF_F32 = (0.12837915122509003, -0.3761247992515564, 0.11281682550907135, -0.026761719956994057, 0.004985940642654896,
           -0.0005953741492703557)  # fmt: skip
ERF_F64 = (0.12837916709551256, -0.3761263890318352, 0.11283791670944185, -0.02686617064311146, 0.005223977606118426,
           -0.0008548325929311893, 0.00012055293576816174, -1.492471230029015e-05, 1.6447131549126013e-06,
           -1.6206313583187198e-07, 1.3710979620445635e-08, -7.779467009284168e-10)  # fmt: skip
# erf(x) = 1 - exp(-P(x)), 0.91 <= x <= 4.05; 1.8e-9.
ERFC_F32 = (0.00018072691455017775, 1.1277376413345337, 0.6370773911476135, 0.1040239930152893, -0.02227163128554821,
            0.003054474713280797, -0.00019708873878698796)  # fmt: skip
# exp(x²) erfc(x) = Q((x - 3) / (x + 3)), 1 <= x <= 6; 2e-18 of erf(x).
ERFCX_F64 = (0.17900115118138993, -0.32623356004303805, 0.24560380171232557, -0.15011593650041194, 0.0716658372062025,
             -0.024392499256935582, 0.004269136266492681, 0.0007077415934886074, -0.0005971051322597684,
             4.504080625517558e-05, 6.336742496081815e-05, -1.4339093167409359e-05, -1.0048856243109063e-05,
             4.095662914998826e-07, 7.200722263838412e-07)  # fmt: skip

# (3/2 + x) exp(x²) erfc(x) = S((x - 3/2) / (x + 3/2)), 1/2 <= x <= 10.25; 6.1e-9.
SCALED_F32 = (0.9647562503814697, -0.5078500509262085, 0.07562148571014404, 0.04777103289961815, -0.008113395422697067,
              -0.009501810185611248, -0.0008390846778638661, 0.001998174237087369, 0.0008536754758097231,
              -0.0004966870765201747)  # fmt: skip
# (1 + 2x) exp(x²) erfc(x) = S((x - 2) / (x + 2)), 1/2 <= x <= 27.5; 9.4e-19.
SCALED_F64 = (1.2769783815525286, -0.09276382658574604, -0.1660303976152888, 0.16405128003344793, -0.05422000099209482,
              -0.008034015082742162, 0.008722653877924818, 0.0012713389734944876, -0.001456813991695442,
              -0.000454340922556416, 0.00020636774959123064, 0.0001510397480266229, -1.513955772958735e-06,
              -3.6424675303928115e-05, -1.3472561265993823e-05, 3.7059275130384804e-06, 5.1596358097235655e-06,
              1.547690828038176e-06, -5.729674668791301e-07, -9.686215472842063e-07, -3.8232850788449356e-07,
              3.377596351075452e-07, 1.8654649786608114e-07, -1.0210072819193453e-07)  # fmt: skip

# erf⁻¹(x) / x in w = -log(1 - x²): in w - 25/8 up to 25/4, in √w - 13/4 up to 16, in √w - 5 beyond; 3e-17.
CENTRE = (1.6536545626831027, 0.24015818242558826, -0.006033670871427754, -0.0007407025341539626,
          0.00018673420802425717, -1.3882523395776215e-05, -1.3654691844375903e-06, 4.234788190631572e-07,
          -2.9070382771675236e-08, -4.112661969997128e-09, 1.051218396534411e-09, -5.4142392619878e-11,
          -1.2976957643206341e-11, 2.6303551735784588e-12, -8.117022060370844e-14, -3.998987058966072e-14,
          6.594717418323107e-15, -4.2856156417533956e-17, -1.300404568565943e-16, 1.5759155755612985e-17,
          1.1444731372836817e-18, -3.5752603475578273e-19, -1.0102519285128282e-21, 3.3753468619377375e-21)  # fmt: skip
MIDDLE = (3.0838856104922208, 1.0052589676941655, 0.0053709145535714075, -0.003751208508232961,
          0.0024914420969947898, -0.0016882755351936116, 0.0009532893635041298, -0.00035503781738966176,
          2.4031259216553232e-05, 6.828714499217149e-05, -4.7318995479769936e-05, 1.2464903979478998e-05,
          2.9257635978471536e-06, -3.98536767354973e-06, 1.498652372745189e-06, -2.816479447185007e-08,
          -2.712873800076602e-07, 1.320716999667126e-07, 6.740570882424117e-10, -1.548636944896965e-08)  # fmt: skip
TAIL = (4.849906401408584, 1.0103004648645455, -0.00013871931837443582, -0.00021503011983585468,
        7.599527794265489e-05, -1.9681770598285957e-05, 4.526054115651939e-06, -9.930299706270002e-07,
        2.2904465254577888e-07, -6.75543967316765e-08, 2.9042107125841585e-08, -1.5258222172719075e-08,
        7.781971439380086e-09, -3.4681754723169447e-09, 1.354607365866721e-09, -4.3923092629754413e-10,
        4.921866237591594e-11, 4.3230262438947274e-11, -1.5925894501209204e-11)  # fmt: skip


def _erf(i: Code, x: str) -> str:
    a = i.intrinsic("fabs", x)
    z = i.mul(x, x)
    edge, most = (0.92, 4.0) if i.dtype == "f32" else (1.0, 6.0)
    small = ERF_F32 if i.dtype == "f32" else ERF_F64
    near = i.fma(x, horner(i, z, small), x)
    far = i.select(i.compare("ogt", a, i.const(most)), i.const(most), a)
    far = i.select(i.compare("olt", far, i.const(edge)), i.const(edge), far)
    power = i.neg(horner(i, far, ERFC_F32) if i.dtype == "f32" else i.mul(far, far))
    n, r = reduce_exp(i, power)
    tail = i.mul(exp_of(i, r), scale(i, n))
    if i.dtype == "f64":
        u = i.div(i.sub(far, i.const(3)), i.add(far, i.const(3)))
        tail = i.mul(tail, horner(i, u, ERFCX_F64))
    beyond = i.intrinsic("copysign", i.sub(i.const(1), tail), x)
    value = i.select(i.compare("olt", a, i.const(edge)), near, beyond)
    return i.select(i.compare("oeq", x, i.const(0)), x, value)  # keeps -0


def _erfc(i: Code, x: str) -> str:
    """1 - erf(x) up to 1/2; beyond, exp(-x²) times a quotient, which loses no digit, and left of -1/2 it is
    2 - erfc(-x). x² = z² + (x - z)(x + z), where z is x without the lower half of its digits, so that z² is exact."""
    f32, b = i.dtype == "f32", i.bits
    size = i.intrinsic("fabs", x)
    near = i.sub(i.const(1), i.fma(x, horner(i, i.mul(x, x), ERF_F32 if f32 else ERF_F64), x))
    nothing, half = i.compare("ogt", size, i.const(10.25 if f32 else 27.5)), i.const(0.5)
    a = i.select(i.compare("olt", size, half), half, i.select(nothing, half, size))
    z = i.from_bits(b.op("and", i.to_bits(a), b.const(-(1 << 12) if f32 else -(1 << 27))))
    n, r = reduce_exp(i, i.neg(i.mul(z, z)))
    r = i.fma(i.sub(z, a), i.add(z, a), r)
    if f32:  # (x - 3/2) / (x + 3/2) = 1 - 3 t
        t = i.div(i.const(1), i.add(a, i.const(1.5)))
        quotient = i.mul(t, horner(i, i.fma(i.const(-3), t, i.const(1)), SCALED_F32))
    else:
        t = i.div(i.sub(a, i.const(2)), i.add(a, i.const(2)))
        quotient = i.div(horner(i, t, SCALED_F64), i.fma(i.const(2), a, i.const(1)))
    far = i.select(nothing, i.const(0), scaled(i, i.mul(quotient, exp_of(i, r)), n))  # as `exp_below` does
    far = i.select(i.compare("olt", x, i.const(0)), i.sub(i.const(2), far), far)
    value = i.select(i.compare("olt", size, i.const(0.5)), near, far)
    return i.select(i.compare("uno", x, x), x, value)


def _erfinv(i: Code, x: str) -> str:
    """Three polynomials in log(1 - x²). Giles, Approximating the erfinv function, GPU Computing Gems, 2011."""
    one = i.const(1)
    w = i.neg(log(i, i.mul(i.sub(one, x), i.add(one, x))))
    root = i.intrinsic("sqrt", i.select(i.compare("olt", w, i.const(6.25)), i.const(6.25), w))
    far = i.compare("oge", w, i.const(16))
    tail = horner(i, i.sub(root, i.const(5)), TAIL)
    middle = horner(i, i.sub(root, i.const(3.25)), MIDDLE)
    centre = horner(i, i.sub(w, i.const(3.125)), CENTRE)
    slope = i.select(i.compare("olt", w, i.const(6.25)), centre, i.select(far, tail, middle))
    value = i.mul(x, slope)
    return i.select(i.compare("oeq", i.intrinsic("fabs", x), one), i.mul(x, i.const(math.inf)), value)


def _erfinv_number(x: float) -> float:
    """Newton's steps from a bound, on erf near 0 and on erfc beyond."""
    a = abs(x)
    if a >= 1 or x != x:
        return math.copysign(math.inf, x) if a == 1 else math.nan
    y = a * math.sqrt(math.pi) / 2 if a < 0.5 else math.sqrt(-math.log((1 - a) * (1 + a)))
    for _ in range(60):
        error = math.erf(y) - a if a < 0.5 else (1 - a) - math.erfc(y)
        step = error / (2 / math.sqrt(math.pi) * math.exp(-y * y))
        step /= 1 + y * step  # Halley
        y -= step
        if abs(step) <= 1e-17 * y:
            break
    return math.copysign(y, x)


def _erfinv_numpy(x: np.ndarray) -> Any:
    return np.vectorize(_erfinv_number, otypes=["f8"])(x).astype(x.dtype)


def _erfc_numpy(x: np.ndarray) -> Any:
    return np.vectorize(math.erfc, otypes=["f8"])(x).astype(x.dtype)


def _erf_numpy(x: np.ndarray) -> Any:
    return np.vectorize(math.erf, otypes=["f8"])(x).astype(x.dtype)


# x + x p(x²) near 0; beyond, f32 1 - exp(-P(x)), f64 1 - exp(-x²) Q((x - 3) / (x + 3))
ERF = Scalar(
    name="erf",
    operands=("x",),
    doc="2/sqrt(pi) times the integral of exp(-t^2) from 0 to x",
    weight=25,
    ulp=(1.5, 2),
    shared=True,
    numpy=_erf_numpy,
    number=math.erf,
    llvm=_erf,
    grad=lambda dy, y, x: (dy * (2 / math.sqrt(math.pi) * (-(x * x)).apply("exp")),),
)
ERFC = Scalar(
    name="erfc",
    operands=("x",),
    doc="1 - erf(x), accurate where that is small",
    weight=36,
    ulp=(4, 3.5),
    shared=True,
    unsigned=ALWAYS,
    numpy=_erfc_numpy,
    number=math.erfc,
    llvm=_erfc,
    grad=lambda dy, y, x: (dy * (-2 / math.sqrt(math.pi) * (-(x * x)).apply("exp")),),
)

ERFINV = Scalar(
    name="erfinv",
    operands=("x",),
    doc="The inverse of erf: inf at 1, NaN beyond; its derivative is sqrt(pi)/2 exp(y^2)",
    weight=70,
    ulp=(1, 3),
    shared=True,
    numpy=_erfinv_numpy,
    number=_erfinv_number,
    low=-0.9,
    high=0.9,
    llvm=widened(_erfinv),
    grad=lambda dy, y, x: (dy * (math.sqrt(math.pi) / 2 * (y * y).apply("exp")),),
)

ALL = (ERF, ERFC, ERFINV)

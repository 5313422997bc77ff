"""Hyperbolic functions and their inverses, made of the exponential and the logarithm.

A quarter of e^x is taken where e^x itself would be infinite too early, and an inverse is the logarithm of a sum whose
rounding error goes along, so that nothing cancels near 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .code import Code
from .exponential import expm1_of, log_of_sum, one_and
from .function import ALWAYS, Scalar
from .polynomials import clamp, reduce_exp, scale

SMALL = {"f32": 2.0**-13, "f64": 2.0**-28}  # below, f(x) = x + O(x³) is x
LARGE = {"f32": 2.0**60, "f64": 2.0**500}  # beyond, sqrt(x² ± 1) is x, and soon x² does not fit
MOST = {"f32": 89.5, "f64": 710.5}  # beyond, e^x / 2 is infinite


def _quarters(i: Code, a: str) -> tuple[str, str]:
    """(q, p) for a >= 0, with e^a / 4 = q + q p, q a power of two."""
    n, r = reduce_exp(i, clamp(i, a, 0.0, MOST[i.dtype]))
    return scale(i, i.bits.sub(n, i.bits.const(2))), expm1_of(i, r)


def _odd(i: Code, x: str, value: str) -> str:
    """The odd function whose value at |x| is `value`; near 0 it is x, and NaN passes."""
    value = i.intrinsic("copysign", value, x)
    value = i.select(i.compare("olt", i.intrinsic("fabs", x), i.const(SMALL[i.dtype])), x, value)
    return i.select(i.compare("uno", x, x), x, value)


def _sinh(i: Code, x: str) -> str:
    """2 (h + h / (4 h + 1)) with h = (e^a - 1) / 4, a = |x|; the quotient is 1/4 at most, and no more than a rounding
    where 4 h is infinite."""
    q, p = _quarters(i, i.intrinsic("fabs", x))
    h = i.fma(q, p, i.sub(q, i.const(0.25)))
    half = i.add(h, i.div(h, i.fma(i.const(4), h, i.const(1))))
    return _odd(i, x, i.add(half, half))


def _cosh(i: Code, x: str) -> str:
    """2 (h + 1 / (16 h)) with h = e^a / 4, a = |x|."""
    q, p = _quarters(i, i.intrinsic("fabs", x))
    h = i.fma(q, p, q)
    half = i.add(h, i.div(i.const(0.0625), h))
    return i.select(i.compare("uno", x, x), x, i.add(half, half))


def _log_of_root(i: Code, a: str, more: str) -> str:
    """log(1 + `more`), where beyond LARGE that is log(2 a)."""
    u, c = one_and(i, more)
    large = i.compare("ogt", a, i.const(LARGE[i.dtype]))
    zero = i.const(0)
    value = log_of_sum(i, i.select(large, a, u), i.select(large, zero, c), i.select(large, i.const(1), zero))
    return i.select(i.compare("oeq", a, i.const(float("inf"))), a, value)


def _asinh(i: Code, x: str) -> str:
    """log(a + sqrt(a² + 1)) = log(1 + a + a² / (1 + sqrt(a² + 1))), a = |x|."""
    a = i.intrinsic("fabs", x)
    one, z = i.const(1), i.mul(a, a)
    more = i.div(z, i.add(one, i.intrinsic("sqrt", i.add(z, one))))
    return _odd(i, x, _log_of_root(i, a, i.add(a, more)))


def _acosh(i: Code, x: str) -> str:
    """log(x + sqrt(x² - 1)) = log(1 + t + sqrt(t (t + 2))), t = x - 1."""
    t = i.sub(x, i.const(1))
    root = i.intrinsic("sqrt", i.mul(t, i.add(t, i.const(2))))
    value = i.select(i.compare("olt", x, i.const(1)), i.const(float("nan")), _log_of_root(i, x, i.add(t, root)))
    return i.select(i.compare("uno", x, x), x, value)


def _atanh(i: Code, x: str) -> str:
    """log(1 + 2 a / (1 - a)) / 2, a = |x|."""
    a, one = i.intrinsic("fabs", x), i.const(1)
    half = i.mul(log_of_sum(i, *one_and(i, i.div(i.add(a, a), i.sub(one, a)))), i.const(0.5))
    half = i.select(i.compare("oeq", a, one), i.const(float("inf")), half)
    return _odd(i, x, i.select(i.compare("ogt", a, one), i.const(float("nan")), half))


def _sinh_number(x: float) -> float:
    try:
        return math.sinh(x)
    except OverflowError:
        return math.copysign(math.inf, x)


def _root(x: Any) -> Any:
    """sqrt(x² + 1), without x² where that is infinite."""
    most = x.apply("abs").apply("maximum", 1).apply("minimum", 2.0 ** (100 if x.type.dtype == "f32" else 1000))
    most = most.apply("stop_grad")
    u, v = x / most, 1 / most
    return most * (u * u + v * v).apply("sqrt")


SINH = Scalar(
    name="sinh",
    operands=("x",),
    doc="The hyperbolic sine, (e^x - e^-x) / 2; its derivative is cosh x",
    weight=24,
    ulp=(2.5, 2.5),
    shared=True,
    numpy=np.sinh,
    grad=lambda dy, y, x: (dy * x.apply("cosh"),),
    number=math.sinh,
    meaning=_sinh_number,
    llvm=_sinh,
)
COSH = Scalar(
    name="cosh",
    operands=("x",),
    doc="The hyperbolic cosine, (e^x + e^-x) / 2; its derivative is sinh x",
    weight=22,
    ulp=(1.5, 1.5),
    shared=True,
    unsigned=ALWAYS,
    numpy=np.cosh,
    grad=lambda dy, y, x: (dy * x.apply("sinh"),),
    number=math.cosh,
    llvm=_cosh,
)
ASINH = Scalar(
    name="asinh",
    operands=("x",),
    doc="The inverse of sinh, log(x + sqrt(x^2 + 1)); its derivative is 1 / sqrt(x^2 + 1)",
    weight=40,
    ulp=(2, 2),
    shared=True,
    numpy=np.arcsinh,
    grad=lambda dy, y, x: (dy / _root(x),),
    number=math.asinh,
    llvm=_asinh,
)
ACOSH = Scalar(
    name="acosh",
    operands=("x",),
    doc="The inverse of cosh, log(x + sqrt(x^2 - 1)), NaN below 1; its derivative is 1 / sqrt(x^2 - 1), inf at 1",
    weight=38,
    ulp=(2, 2.5),
    shared=True,
    unsigned=ALWAYS,
    numpy=np.arccosh,
    grad=lambda dy, y, x: (dy / ((x - 1).apply("sqrt") * (x + 1).apply("sqrt")),),
    low=1.1,
    high=3.0,
    number=math.acosh,
    llvm=_acosh,
)
ATANH = Scalar(
    name="atanh",
    operands=("x",),
    doc="The inverse of tanh, log((1 + x) / (1 - x)) / 2, inf at 1, NaN beyond; its derivative is 1 / (1 - x^2)",
    weight=36,
    ulp=(2.5, 2.5),
    shared=True,
    numpy=np.arctanh,
    grad=lambda dy, y, x: (dy / ((1 - x) * (x + 1)),),
    low=-0.9,
    high=0.9,
    number=math.atanh,
    meaning=lambda x: math.copysign(math.inf, x) if abs(x) == 1 else math.atanh(x),
    llvm=_atanh,
)

ALL = (SINH, COSH, ASINH, ACOSH, ATANH)

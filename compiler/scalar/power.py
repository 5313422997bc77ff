"""Powers and roots. x^y = exp(y log x), with log x known to more digits than the result needs.

An error of log x is multiplied by y log x, up to 745, so f32 is computed in f64, and f64 keeps log x and y log x as
unevaluated sums of two doubles (Dekker 1971).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..types.tensors import INTS
from .code import Code
from .exponential import EXP_F64
from .function import FIRST, FLAT, Scalar
from .numbers import quotient
from .polynomials import MANTISSA, clamp, horner, reduce_exp, scale, split_log

# For f32: e^r = 1 + r + r² q(r), 5.2e-11; log(1 + f) = 2s + s z R(z), 3e-14.
EXP_SHORT = (0.5000000010471841, 0.16666666718987666, 0.04166659686744068, 0.00833329846956842, 0.0013900490814340045,
             0.00019899295035763788, 1.932349981758197e-05)  # fmt: skip
LOG_SHORT = (0.6666666667576875, 0.3999999563281197, 0.28572107999007773, 0.2217623685757518, 0.19583462903920698)
# For f64: e^r is that of exp; atanh(s) = s (1 + z/3 + z² T(z)), z = s², 1.1e-20.
ATANH = (0.1999999999999999, 0.1428571428572255, 0.1111111110876968, 0.09090909434979855, 0.07692278447598677,
         0.06668158244149208, 0.058374187003389214, 0.05994427882760568)  # fmt: skip
LN2 = 0.6931471805599453
LN2_PARTS = (0.6931471805598903, 5.497923018708371e-14)  # 42 bits, so that k * high is exact, and the rest
THIRD = (0.3333333333333333, 1.850371707708594e-17)

Pair = tuple[str, str]  # high + low


def product(i: Code, a: str, b: str) -> Pair:
    """(a b rounded, its error), exactly."""
    p = i.mul(a, b)
    return p, i.fma(a, b, i.neg(p))


def total(i: Code, a: str, b: str) -> Pair:
    """(a + b rounded, its error), exactly (Knuth)."""
    s = i.add(a, b)
    back = i.sub(s, a)
    return s, i.add(i.sub(a, i.sub(s, back)), i.sub(b, back))


def log_pair(i: Code, k: str, m: str) -> Pair:
    """k ln 2 + log m as two doubles, about 2^-64 apart from the truth; √½ <= m < √2."""
    one = i.const(1)
    f = i.sub(m, one)
    d = i.add(m, one)
    d_low = i.sub(m, i.sub(d, one))
    s = i.div(f, d)
    p, e = product(i, s, d)
    s_low = i.div(i.sub(i.sub(i.sub(f, p), e), i.mul(s, d_low)), d)
    z, z_low = product(i, s, s)
    z_low = i.fma(i.add(s, s), s_low, z_low)
    u, u_low = product(i, z, i.const(THIRD[0]))
    u_low = i.add(u_low, i.fma(z, i.const(THIRD[1]), i.mul(z_low, i.const(THIRD[0]))))
    u, carry = total(i, u, i.mul(i.mul(z, z), horner(i, z, ATANH)))
    u_low = i.add(u_low, carry)
    v, v_low = product(i, s, u)
    v_low = i.add(v_low, i.fma(s, u_low, i.mul(s_low, u)))
    h, low = total(i, s, v)
    low = i.add(low, i.add(v_low, s_low))
    two = i.const(2)
    h, low = i.mul(two, h), i.mul(two, low)
    high, carry = total(i, i.mul(k, i.const(LN2_PARTS[0])), h)
    return high, i.add(i.add(carry, low), i.mul(k, i.const(LN2_PARTS[1])))


def magnitude_f64(i: Code, a: str, y: str) -> str:
    """a^y for a >= 0."""
    tiny = i.compare("olt", a, i.const(2.0**-1022))
    k, m = split_log(i, i.select(tiny, i.mul(a, i.const(2.0 ** MANTISSA["f64"])), a))
    whole = i.bits.convert("sitofp", k, "f64")
    whole = i.select(tiny, i.sub(whole, i.const(MANTISSA["f64"])), whole)
    high, low = log_pair(i, whole, m)
    high = i.select(i.compare("oeq", a, i.const(0)), i.const(float("-inf")), high)
    high = i.select(i.compare("ult", a, i.const(float("inf"))), high, a)
    t, e = product(i, y, high)
    e = i.fma(y, low, e)
    moderate = i.compare("olt", i.intrinsic("fabs", t), i.const(750))
    n, r = reduce_exp(i, clamp(i, t, -750, 710))
    r = i.add(r, i.select(moderate, e, i.const(0)))
    value = i.add(i.fma(i.mul(r, r), horner(i, r, EXP_F64), r), i.const(1))
    b = i.bits
    half = b.op("ashr", n, b.const(1))
    return i.mul(i.mul(value, scale(i, half)), scale(i, b.sub(n, half)))


def magnitude_f32(i: Code, a: str, y: str) -> str:
    """a^y for a >= 0, in f64, where f32 has neither subnormals nor overflow."""
    w = i.of("f64")
    a, y = i.convert("fpext", a, "f64"), i.convert("fpext", y, "f64")
    k, m = split_log(w, a)
    f = w.sub(m, w.const(1))
    s = w.div(f, w.add(f, w.const(2)))
    z = w.mul(s, s)
    log = w.fma(w.mul(s, z), horner(w, z, LOG_SHORT), w.add(s, s))
    log = w.fma(w.bits.convert("sitofp", k, "f64"), w.const(LN2), log)
    log = w.select(w.compare("oeq", a, w.const(0)), w.const(float("-inf")), log)
    log = w.select(w.compare("ult", a, w.const(float("inf"))), log, a)
    n, r = reduce_exp(w, clamp(w, w.mul(y, log), -120, 100))
    value = w.add(w.fma(w.mul(r, r), horner(w, r, EXP_SHORT), r), w.const(1))
    return w.convert("fptrunc", w.mul(value, scale(w, n)), "f32")


def _pow(i: Code, x: str, y: str) -> str:
    """C99 F.10.4.4: x^0 = 1 and 1^y = 1 even for NaN, (-1)^±inf = 1, a negative x has a power only for integers y."""
    b, zero, one = i.of("bool"), i.const(0), i.const(1)
    a = i.intrinsic("fabs", x)
    value = (magnitude_f32 if i.dtype == "f32" else magnitude_f64)(i, a, y)
    value = i.select(i.compare("uno", x, y), i.add(x, y), value)
    value = i.select(b.both(i.compare("oeq", a, one), i.compare("ord", y, y)), one, value)
    half = i.mul(y, i.const(0.5))
    integer = i.compare("oeq", i.intrinsic("floor", y), y)
    odd = b.both(integer, i.compare("une", i.intrinsic("floor", half), half))
    value = i.select(odd, i.intrinsic("copysign", value, x), value)
    bad = b.both(b.both(i.compare("olt", x, zero), i.compare("ogt", x, i.const(float("-inf")))), b.flip(integer))
    value = i.select(b.both(bad, i.compare("ord", y, y)), i.const(float("nan")), value)
    return i.select(b.either(i.compare("oeq", x, one), i.compare("oeq", y, zero)), one, value)


def _pow_numpy(x: np.ndarray, y: np.ndarray) -> Any:
    # of exponents that are one number repeated NumPy makes a root, and pow(-inf, 1/2) is inf, not NaN: so none are
    return np.power(np.atleast_1d(x), np.array(np.atleast_1d(y), order="C")).reshape(x.shape)


def _pow_grad(dy: Any, z: Any, x: Any, y: Any) -> tuple[Any | None, Any]:
    """d(x^y) = y x^(y-1) dx + x^y log(x) dy, both continued to their limit where they read 0 * inf; roots of squares
    are as those of `sqrt`."""
    c = y.number
    if c is None:
        dx = dy * y.apply("eq", 0).where(0, y * x.apply("pow", y - 1))
    elif c == 0:  # x^0 is 1
        dx = None
    else:
        slope = c * x.apply("pow", c - 1)
        dx = dy * (x.apply("eq", 0).where(0, slope) if 0.5 <= c < 1 and x.is_sum_of_squares else slope)
    log_x = x.apply("eq", 0).where(0, x.apply("log"))
    return dx, dy * z * log_x


def _sqrt_grad(dy: Any, y: Any, x: Any) -> tuple[Any]:
    """dx / (2 sqrt(x)), infinite at 0; but the root of a sum of squares has a corner there, as |x| has, and so 0."""
    slope = 0.5 / y
    return (dy * (x.apply("eq", 0).where(0, slope) if x.is_sum_of_squares else slope),)


def _pow_meaning(x: float, y: float) -> float:
    try:
        return math.pow(x, y)
    except (OverflowError, ValueError):
        if x < 0 and y != math.floor(y):
            return math.nan
        return math.copysign(math.inf, x) if y % 2 == 1 else math.inf  # too large, or 0 to a negative power


POW = Scalar(
    name="pow",
    sign="^",
    operands=("x", "y"),
    doc="x^y, IEEE 754 (pow(x, 0) = 1)",
    weight=45,
    ulp=(0.6, 1.5),
    shared=True,
    numpy=_pow_numpy,
    grad=_pow_grad,
    low=0.3,
    meaning=_pow_meaning,
    llvm=_pow,
)


def _whole_power(i: Code, x: str, y: str) -> str:
    """x^y by squares: y's bits say which of x, x², x⁴ ... are factors. Below 0 only 1 and -1 have a power."""
    bits, bools = 32 if i.dtype == "i32" else 64, i.of("bool")
    zero, one, minus = i.const(0), i.const(1), i.const(-1)
    power, square = one, x
    for k in range(bits - 1):
        wanted = i.compare("ne", i.op("and", y, i.const(1 << k)), zero)
        power = i.select(wanted, i.mul(power, square), power)
        square = i.mul(square, square)
    unit = bools.either(i.compare("eq", x, one), i.compare("eq", x, minus))
    return i.select(bools.both(i.compare("slt", y, zero), bools.flip(unit)), zero, power)


def _whole_power_meaning(dtype: str, x: int, y: int) -> int:
    if y < 0:
        return 0 if abs(x) != 1 else x if y % 2 else 1
    bits = 32 if dtype == "i32" else 64
    power = pow(x, y, 1 << bits)
    return power - (1 << bits) if power >> (bits - 1) else power


def _whole_power_numpy(x: np.ndarray, y: np.ndarray) -> Any:
    dtype = "i32" if x.dtype.itemsize == 4 else "i64"
    powers = [_whole_power_meaning(dtype, int(a), int(b)) for a, b in zip(x.ravel(), y.ravel(), strict=True)]
    return np.array(powers, x.dtype).reshape(x.shape)


WHOLE_POWER = Scalar(
    name="whole_pow",
    sign="^",
    operands=("x", "y"),
    doc="x^y of whole numbers, what does not fit wraps; 1/x^-y for y < 0, rounded towards 0",
    weight=100,
    shared=True,
    accepts=INTS,
    low=-5,
    high=9,
    numpy=_whole_power_numpy,
    grad=FLAT.format("`^` of whole numbers"),
    meaning=_whole_power_meaning,
    typed=True,
    llvm=_whole_power,
)
SQRT = Scalar(
    name="sqrt",
    operands=("x",),
    doc="The square root; d sqrt(x) = dx / (2 sqrt(x)), inf at 0, but of a sum of squares 0 there, as that of |x|",
    weight=6,
    ulp=(0.5, 0.5),
    numpy=np.sqrt,
    grad=_sqrt_grad,
    low=0.1,
    unsigned=FIRST,
    number=math.sqrt,
    llvm=lambda i, a: i.intrinsic("sqrt", a),
)
RSQRT = Scalar(
    name="rsqrt",
    operands=("x",),
    doc="1 / sqrt(x); its derivative is -(1/2) y^3",
    weight=10,
    ulp=(2, 2),
    numpy=lambda x: 1 / np.sqrt(x),
    grad=lambda dy, y, x: (dy * (-0.5 * (y * y * y)),),
    low=0.1,
    number=lambda x: 1 / math.sqrt(x),
    meaning=lambda x: quotient(1.0, math.sqrt(x)),
    llvm=lambda i, a: i.div(i.const(1), i.intrinsic("sqrt", a)),
)

ALL = (POW, WHOLE_POWER, SQRT, RSQRT)

"""What the vector functions share: Horner's scheme, splitting a float into power of two and rest, f32 by way of f64.

In and out: operands as text, through `Code`. NaN passes through everything here.
"""

from __future__ import annotations

from collections.abc import Callable

from .code import Code

INV_LN2 = 1.4426950408889634
# ln 2 = high + low; n * high is exact for |n| <= 2100 even without FMA.
LN2_PARTS = {"f32": (0.693359375, -2.12194440e-4), "f64": (0.6931471803691238, 1.9082149292705877e-10)}
MAGIC = {"f32": 12582912.0, "f64": 6755399441055744.0}  # 1.5 * 2^23, 1.5 * 2^52: adding it rounds to an integer
MANTISSA = {"f32": 23, "f64": 52}
BIAS = {"f32": 127, "f64": 1023}


def horner(i: Code, x: str, coefficients: tuple[float, ...]) -> str:
    """c0 + c1 x + c2 x² + ..."""
    *rest, last = coefficients
    total = i.const(last)
    for c in reversed(rest):
        total = i.fma(total, x, i.const(c))
    return total


def clamp(i: Code, x: str, low: float, high: float) -> str:
    """x within [low, high]; NaN passes."""
    x = i.select(i.compare("olt", x, i.const(low)), i.const(low), x)
    return i.select(i.compare("ogt", x, i.const(high)), i.const(high), x)


def scale(i: Code, n: str) -> str:
    """2^n for an integer n (in bits) of a normal result."""
    b = i.bits
    return i.from_bits(b.op("shl", b.add(n, b.const(BIAS[i.dtype])), b.const(MANTISSA[i.dtype])))


def scaled(i: Code, x: str, n: str) -> str:
    """x 2^n, also where that is not normal, rounded once: for an x near 1 one half of n changes no digit, and nothing
    overflows early."""
    if i.scales:
        return i.ldexp(x, n)
    b = i.bits
    half = b.op("ashr", n, b.const(1))
    return i.mul(i.mul(x, scale(i, half)), scale(i, b.sub(n, half)))


def reduce_exp(i: Code, x: str) -> tuple[str, str]:
    """(n, r) with x = n ln 2 + r, |r| <= ln 2 / 2, n an integer in bits. A NaN gives a NaN r and some n."""
    shifted = i.fma(x, i.const(INV_LN2), i.const(MAGIC[i.dtype]))
    whole = i.sub(shifted, i.const(MAGIC[i.dtype]))
    b = i.bits
    n = b.sub(i.to_bits(shifted), i.to_bits(i.const(MAGIC[i.dtype])))
    high, low = LN2_PARTS[i.dtype]
    r = i.fma(i.neg(whole), i.const(high), x)
    return n, i.fma(i.neg(whole), i.const(low), r)


def split_log(i: Code, x: str) -> tuple[str, str]:
    """(k, m) with x = 2^k m, √½ <= m < √2, k an integer in bits, for positive normal x."""
    b = i.bits
    root_half = 0x3F3504F3 if i.dtype == "f32" else 0x3FE6A09E667F3BCD
    bits = i.to_bits(x)
    k = b.op("ashr", b.sub(bits, b.const(root_half)), b.const(MANTISSA[i.dtype]))
    return k, i.from_bits(b.sub(bits, b.op("shl", k, b.const(MANTISSA[i.dtype]))))


def widened(f: Callable[[Code, str], str]) -> Callable[[Code, str], str]:
    """A rule for f64 as one for both."""

    def llvm(i: Code, x: str) -> str:
        if i.dtype == "f64":
            return f(i, x)
        wide = i.of("f64")
        return wide.convert("fptrunc", f(wide, i.convert("fpext", x, "f64")), "f32")

    return llvm

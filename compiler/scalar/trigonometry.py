"""sin and cos: reduction to |r| <= π/4 and two polynomials.

The angle is x = n π/2 + r. Up to 2^20 (f32: 2^16) multiples of a few pieces of π/2 are subtracted, in f64 pieces so
short that the products are exact (Cody & Waite 1980), in f32 with FMA. Beyond, a lane at a time, `nnc.reduce`
multiplies x by the 192 bits of 2/π that matter (Payne & Hanek 1983), which is exact enough for every double.
"""

from __future__ import annotations

import math

import numpy as np

from . import wide
from .code import Code
from .function import Scalar
from .polynomials import horner

# sin r = r + r³ s(r²), cos r = 1 - r²/2 + r⁴ c(r²), |r| <= π/4. Relative errors: 9e-9, 1.3e-10, 8e-18, 1.6e-18.
SIN_F32 = (-0.16666655242443085, 0.008332155644893646, -0.0001951463200384751)
COS_F32 = (0.04166664555668831, -0.0013887309469282627, 2.443241282890085e-05)
SIN_F64 = (-0.1666666666666663, 0.008333333333322005, -0.00019841269829495482, 2.7557313587604367e-06,
           -2.5050742304578302e-08, 1.5895904515146005e-10)  # fmt: skip
COS_F64 = (0.041666666666666595, -0.0013888888888872895, 2.4801587288748237e-05, -2.755731414863221e-07,
           2.0875696573231776e-09, -1.1358310503018683e-11)  # fmt: skip

# π/2 in pieces of 33 bits and a rest.
HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
HALF_PI_F32 = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)  # for FMA, in f32
TWO_OVER_PI = 0.6366197723675814
MAGIC, MAGIC_F32 = 6755399441055744.0, 12582912.0
LARGE = {"f32": 2.0**16, "f64": 2.0**20}

# 64 zeros, then the binary digits of 2/π.
DIGITS = (
    0x0000000000000000, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0, 0x06492EEA09D1921C, 0xFE1DEB1CB129A73E, 0xE88235F52EBB4484, 0xE99C7026B45F7E41,
    0x3991D639835339F4, 0x9C845F8BBDF9283B, 0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D, 0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB,
    0xF0CFBC209AF4361D,
)  # fmt: skip


def difference(i: Code, a: str, b: str) -> tuple[str, str]:
    """(a - b rounded, its error), exactly (Knuth)."""
    d = i.sub(a, b)
    back = i.sub(a, d)
    return d, i.add(i.sub(a, i.add(d, back)), i.sub(back, b))


def reduce(i: Code, x: str) -> tuple[str, str, str]:
    """(quadrant in bits, r, correction to r) for |x| <= LARGE; NaN and infinities give a NaN r."""
    if i.dtype == "f32":
        shifted = i.fma(x, i.const(TWO_OVER_PI), i.const(MAGIC_F32))
        n = i.neg(i.sub(shifted, i.const(MAGIC_F32)))
        r = x
        for part in HALF_PI_F32:
            r = i.fma(n, i.const(part), r)
        return i.to_bits(shifted), r, ""
    shifted = i.add(i.mul(x, i.const(TWO_OVER_PI)), i.const(MAGIC))
    n = i.sub(shifted, i.const(MAGIC))
    bits = i.to_bits(shifted)  # the low bits of an integer added to MAGIC are its own
    first = i.sub(x, i.mul(n, i.const(HALF_PI[0])))
    second, e = difference(i, first, i.mul(n, i.const(HALF_PI[1])))
    third, f = difference(i, second, i.mul(n, i.const(HALF_PI[2])))
    low = i.sub(i.add(e, f), i.mul(n, i.const(HALF_PI[3])))
    r = i.add(third, low)
    return bits, r, i.add(i.sub(third, r), low)


def reduce_all(i: Code, x: str) -> tuple[str, str, str]:
    """The same for every x: where some lane is beyond LARGE, the lanes that are go through `nnc.reduce`."""
    n, r, low = reduce(i, x)
    a = i.intrinsic("fabs", x)
    large = i.of("bool").both(i.compare("ogt", a, i.const(LARGE[i.dtype])), i.compare("olt", a, i.const(float("inf"))))
    name = f"@nnc.reduce.{i.dtype}x{i.lanes}"
    i.define(("nnc.reduce", i.dtype, i.lanes), _reduce_lanes(i, name))
    i.define(("nnc.reduce.one", "", 0), _reduce_one(i.lane))
    wide.define(i)
    b = i.bits
    args = (i.type, x), (i.of("bool").type, large), (b.type, n), (i.type, r)
    n, r = i.call_where(i.some(large), name, args, (("n", b.type, n), ("r", i.type, r)))
    return n, r, low and i.select(large, i.const(0), low)


def sine_and_cosine(i: Code, r: str, low: str) -> tuple[str, str]:
    """(sin, cos) of r + low, |r| <= π/4."""
    z = i.mul(r, r)
    cube = i.mul(r, z)
    half = i.mul(z, i.const(0.5))
    if i.dtype == "f32":
        s = i.fma(cube, horner(i, z, SIN_F32), r)
        c = i.fma(i.mul(z, z), horner(i, z, COS_F32), i.sub(i.const(1), half))
    else:
        s = i.add(r, i.fma(cube, horner(i, z, SIN_F64), i.sub(low, i.mul(half, low))))
        rest = i.sub(i.const(1), half)
        lost = i.sub(i.sub(i.const(1), rest), half)
        tail = i.fma(i.mul(z, z), horner(i, z, COS_F64), i.sub(lost, i.mul(r, low)))
        c = i.add(rest, tail)
    return s, c


def sine(i: Code, x: str, quarter: int) -> str:
    """sin(x + quarter π/2)."""
    n, r, low = reduce_all(i, x)
    b = i.bits
    n = b.add(n, b.const(quarter)) if quarter else n
    s, c = sine_and_cosine(i, r, low)
    odd = b.compare("ne", b.op("and", n, b.const(1)), b.const(0))
    value = i.select(odd, c, s)
    sign = b.op("shl", b.op("and", n, b.const(2)), b.const(30 if i.dtype == "f32" else 62))
    return i.from_bits(b.op("xor", i.to_bits(value), sign))


def _sin(i: Code, x: str) -> str:
    return i.select(i.compare("oeq", x, i.const(0)), x, sine(i, x, 0))  # keeps -0


def _cos(i: Code, x: str) -> str:
    return sine(i, x, 1)


def _tan(i: Code, x: str) -> str:
    """sin r / cos r, and -cos r / sin r in every other quadrant."""
    n, r, low = reduce_all(i, x)
    b = i.bits
    s, c = sine_and_cosine(i, r, low)
    odd = b.compare("ne", b.op("and", n, b.const(1)), b.const(0))
    value = i.div(i.select(odd, i.neg(c), s), i.select(odd, s, c))
    return i.select(i.compare("oeq", x, i.const(0)), x, value)  # keeps -0


# Cody & Waite up to 2^20, Payne & Hanek beyond
SIN = Scalar(
    name="sin",
    operands=("x",),
    doc="sin x",
    weight=18,
    ulp=(2, 2.5),
    shared=True,
    numpy=np.sin,
    grad=lambda dy, y, x: (dy * x.apply("cos"),),
    number=math.sin,
    llvm=_sin,
)
COS = Scalar(
    name="cos",
    operands=("x",),
    doc="cos x",
    weight=18,
    ulp=(2, 2.5),
    shared=True,
    numpy=np.cos,
    grad=lambda dy, y, x: (-(dy * x.apply("sin")),),
    number=math.cos,
    llvm=_cos,
)

TAN = Scalar(
    name="tan",
    operands=("x",),
    doc="The tangent of an angle in radians; its derivative is 1 + y^2",
    weight=32,
    ulp=(4, 3.5),
    shared=True,
    numpy=np.tan,
    grad=lambda dy, y, x: (dy * (y * y + 1),),
    low=-1.2,
    high=1.2,
    number=math.tan,
    llvm=_tan,
)

ALL = (SIN, COS, TAN)


# --- large angles ----------------------------------------------------------------------------------------------------


def _reduce_lanes(i: Code, name: str) -> str:
    """One lane after the other."""
    dtype, lanes, int_type = i.dtype, i.lanes, i.bits.dtype
    t, ti, tb = i.type, i.bits.type, i.of("bool").type
    s = i.lane.type
    widen = "fpext float %given to double" if dtype == "f32" else "fadd double %given, 0x8000000000000000"
    narrow_r = "fptrunc double %r.f64 to float" if dtype == "f32" else "fadd double %r.f64, 0x8000000000000000"
    narrow_n = "trunc i64 %n.i64 to i32" if dtype == "f32" else "add i64 %n.i64, 0"

    def get(type_: str, of: str) -> str:
        return f"extractelement {type_} {of}, i32 %lane" if lanes > 1 else f"freeze {type_} {of}"

    def put(type_: str, into: str, element: str, value: str) -> str:
        return (
            f"insertelement {type_} {into}, {element} {value}, i32 %lane" if lanes > 1 else f"freeze {element} {value}"
        )

    parameters = f"{t} %x, {tb} %large, {ti} %n0, {t} %r0"
    return f"""define internal {{ {ti}, {t} }} {name}({parameters}) noinline #0 {{
entry:
  br label %loop
loop:
  %lane = phi i32 [ 0, %entry ], [ %lane.next, %next ]
  %n = phi {ti} [ %n0, %entry ], [ %n.next, %next ]
  %r = phi {t} [ %r0, %entry ], [ %r.next, %next ]
  %on = {get(tb, "%large")}
  br i1 %on, label %one, label %next
one:
  %given = {get(t, "%x")}
  %x.f64 = {widen}
  %pair = call {{ i64, double }} @nnc.reduce(double %x.f64)
  %n.i64 = extractvalue {{ i64, double }} %pair, 0
  %r.f64 = extractvalue {{ i64, double }} %pair, 1
  %n.lane = {narrow_n}
  %r.lane = {narrow_r}
  %n.new = {put(ti, "%n", int_type, "%n.lane")}
  %r.new = {put(t, "%r", s, "%r.lane")}
  br label %next
next:
  %n.next = phi {ti} [ %n, %loop ], [ %n.new, %one ]
  %r.next = phi {t} [ %r, %loop ], [ %r.new, %one ]
  %lane.next = add i32 %lane, 1
  %more = icmp slt i32 %lane.next, {lanes}
  br i1 %more, label %loop, label %done
done:
  %n.pair = insertvalue {{ {ti}, {t} }} poison, {ti} %n.next, 0
  %both = insertvalue {{ {ti}, {t} }} %n.pair, {t} %r.next, 1
  ret {{ {ti}, {t} }} %both
}}
"""


# |x| = m 2^e with m of 53 bits. Of the digits of 2/π, those before position e - 2 contribute multiples of 4 and are
# dropped; the 192 that follow, w0 w1 w2, give (|x| 2/π mod 4) = (m w mod 2^192) 2^-190. Two bits are the quadrant; the
# rest, as a signed fraction, times π/2 is r. The fraction of a double is never below 2^-62, so 53 good bits remain.
def _reduce_one(i: Code) -> str:
    f64 = i.of("f64")
    digits = ", ".join(f"i64 {i.of('i64').const(d)}" for d in DIGITS)
    return f"""@nnc.two.over.pi = internal unnamed_addr constant [{len(DIGITS)} x i64] [{digits}], align 64

define internal {{ i64, double }} @nnc.reduce(double %x) noinline #0 {{
  %bits = bitcast double %x to i64
  %exponent.high = lshr i64 %bits, 52
  %exponent = and i64 %exponent.high, 2047
  %fraction = and i64 %bits, 4503599627370495
  %m = or i64 %fraction, 4503599627370496
  %position = sub i64 %exponent, {1075 + 2 - 64}
  %word = lshr i64 %position, 6
  %shift = and i64 %position, 63
  %back = sub i64 63, %shift
  %at0 = getelementptr i64, ptr @nnc.two.over.pi, i64 %word
  %at1 = getelementptr i64, ptr %at0, i64 1
  %at2 = getelementptr i64, ptr %at0, i64 2
  %at3 = getelementptr i64, ptr %at0, i64 3
  %d0 = load i64, ptr %at0, align 8
  %d1 = load i64, ptr %at1, align 8
  %d2 = load i64, ptr %at2, align 8
  %d3 = load i64, ptr %at3, align 8
  %h0 = shl i64 %d0, %shift
  %h1 = shl i64 %d1, %shift
  %h2 = shl i64 %d2, %shift
  %s1 = lshr i64 %d1, 1
  %s2 = lshr i64 %d2, 1
  %s3 = lshr i64 %d3, 1
  %l0 = lshr i64 %s1, %back
  %l1 = lshr i64 %s2, %back
  %l2 = lshr i64 %s3, %back
  %w0 = or i64 %h0, %l0
  %w1 = or i64 %h1, %l1
  %w2 = or i64 %h2, %l2
  %p2 = call i128 @nnc.wide.mul(i64 %m, i64 %w2)
  %p1 = call i128 @nnc.wide.mul(i64 %m, i64 %w1)
  %p0 = mul i64 %m, %w0
  %carry = lshr i128 %p2, 64
  %middle = add i128 %p1, %carry
  %top.wide = lshr i128 %middle, 64
  %top.carry = trunc i128 %top.wide to i64
  %top = add i64 %p0, %top.carry
  %mid = trunc i128 %middle to i64
  %bottom = trunc i128 %p2 to i64
  %quadrant = lshr i64 %top, 62
  %top.128 = zext i64 %top to i128
  %mid.128 = zext i64 %mid to i128
  %bottom.bits = lshr i64 %bottom, 62
  %bottom.128 = zext i64 %bottom.bits to i128
  %top.shifted = shl i128 %top.128, 66
  %mid.shifted = shl i128 %mid.128, 2
  %f.high = or i128 %top.shifted, %mid.shifted
  %f = or i128 %f.high, %bottom.128
  %up = icmp slt i128 %f, 0
  %up.i64 = zext i1 %up to i64
  %n = add i64 %quadrant, %up.i64
  %f.negated = sub i128 0, %f
  %f.abs = select i1 %up, i128 %f.negated, i128 %f
  %zeros = call i128 @llvm.ctlz.i128(i128 %f.abs, i1 false)
  %zeros.i64 = trunc i128 %zeros to i64
  %left = and i64 %zeros.i64, 127
  %f.normal = call i128 @nnc.wide.shl(i128 %f.abs, i64 %left)
  %high.wide = lshr i128 %f.normal, 75
  %high.i64 = trunc i128 %high.wide to i64
  %low.up = shl i128 %f.normal, 53
  %low.wide = lshr i128 %low.up, 75
  %low.i64 = trunc i128 %low.wide to i64
  %high = sitofp i64 %high.i64 to double
  %low.int = sitofp i64 %low.i64 to double
  %low = fmul double %low.int, {f64.const(2.0**-53)}
  %scale.exponent = sub i64 {1023 - 53}, %left
  %scale.bits = shl i64 %scale.exponent, 52
  %scale = bitcast i64 %scale.bits to double
  %high.pi = fmul double %high, {f64.const(1.5707963267948966)}
  %high.rest = fmul double %high, {f64.const(6.123233995736766e-17)}
  %low.pi = fmul double %low, {f64.const(1.5707963267948966)}
  %rest = fadd double %high.rest, %low.pi
  %sum = fadd double %high.pi, %rest
  %r.abs = fmul double %sum, %scale
  %r.minus = fneg double %r.abs
  %r.signed = select i1 %up, double %r.minus, double %r.abs
  %negative = icmp slt i64 %bits, 0
  %r.flipped = fneg double %r.signed
  %r = select i1 %negative, double %r.flipped, double %r.signed
  %n.minus = sub i64 0, %n
  %n.signed = select i1 %negative, i64 %n.minus, i64 %n
  %pair = insertvalue {{ i64, double }} poison, i64 %n.signed, 0
  %both = insertvalue {{ i64, double }} %pair, double %r, 1
  ret {{ i64, double }} %both
}}

declare i128 @llvm.ctlz.i128(i128, i1)
"""

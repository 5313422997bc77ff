"""What is left of a division of floats, exactly, with the sign of the divisor, as in Python.

Numbers are positive f64 on the way. A quotient of less than 2^26 is found whole by one division, and what it leaves is
exact: the quotient times either half of the divisor's digits is. Larger ones go a lane at a time through `nnc.fmod`,
which takes off 2^25 times the divisor or more in each turn.
"""

from __future__ import annotations

import math

import numpy as np

from .code import Code
from .function import Scalar

LARGE = 2.0**26
HALF = -(1 << 27)  # the mask of a double's upper digits


def _remainder(i: Code, x: str, y: str) -> str:
    wide, bools = i.of("f64"), i.of("bool")
    f32 = i.dtype == "f32"
    a, b = (i.intrinsic("fabs", v) for v in (x, y))
    if f32:
        a, b = (i.convert("fpext", v, "f64") for v in (a, b))
    quotient = wide.div(a, b)
    q = wide.intrinsic("trunc", quotient)
    high = wide.from_bits(wide.bits.op("and", wide.to_bits(b), wide.bits.const(HALF)))
    r = wide.sub(wide.sub(a, wide.mul(q, high)), wide.mul(q, wide.sub(b, high)))
    r = wide.select(wide.compare("olt", r, wide.const(0)), wide.add(r, b), r)  # the quotient was rounded up
    infinite = wide.compare("oeq", b, wide.const(math.inf))
    r = wide.select(bools.both(infinite, wide.compare("olt", a, b)), a, r)
    large = bools.both(wide.compare("oge", quotient, wide.const(LARGE)), wide.compare("olt", a, wide.const(math.inf)))
    large = bools.both(large, wide.compare("ogt", b, wide.const(0)))
    name = f"@nnc.fmod.x{i.lanes}"
    i.define(("nnc.fmod", "f64", i.lanes), _lanes(i, name))
    i.define(("nnc.fmod.one", "", 0), _one(wide.lane))
    args = (wide.type, a), (wide.type, b), (bools.type, large), (wide.type, r)
    (r,) = wide.call_where(i.some(large), name, args, (("r", wide.type, r),))
    if f32:
        r = wide.convert("fptrunc", r, "f32")
    zero = i.const(0)
    none = i.compare("oeq", r, zero)
    r = i.intrinsic("copysign", r, x)
    other = i.bits.compare("slt", i.bits.op("xor", i.to_bits(x), i.to_bits(y)), i.bits.const(0))
    r = i.select(bools.both(other, bools.flip(none)), i.add(r, y), r)
    return i.select(none, i.intrinsic("copysign", zero, y), r)


def _lanes(i: Code, name: str) -> str:
    """One lane after the other."""
    t, tb, lanes = i.of("f64").type, i.of("bool").type, i.lanes

    def get(type_: str, of: str) -> str:
        return f"extractelement {type_} {of}, i32 %lane" if lanes > 1 else f"freeze {type_} {of}"

    put = f"insertelement {t} %r, double %one.r, i32 %lane" if lanes > 1 else "freeze double %one.r"
    return f"""define internal {{ {t} }} {name}({t} %a, {t} %b, {tb} %large, {t} %r0) noinline #0 {{
entry:
  br label %loop
loop:
  %lane = phi i32 [ 0, %entry ], [ %lane.next, %next ]
  %r = phi {t} [ %r0, %entry ], [ %r.next, %next ]
  %on = {get(tb, "%large")}
  br i1 %on, label %one, label %next
one:
  %one.a = {get(t, "%a")}
  %one.b = {get(t, "%b")}
  %one.r = call double @nnc.fmod(double %one.a, double %one.b)
  %r.new = {put}
  br label %next
next:
  %r.next = phi {t} [ %r, %loop ], [ %r.new, %one ]
  %lane.next = add i32 %lane, 1
  %more = icmp slt i32 %lane.next, {lanes}
  br i1 %more, label %loop, label %done
done:
  %result = insertvalue {{ {t} }} poison, {t} %r.next, 0
  ret {{ {t} }} %result
}}
"""


# While a >= b: s = 2^k b with k so that a / s is from 2^24 to 2^26, or b itself; then a becomes what a / s leaves.
def _one(i: Code) -> str:
    return f"""define internal double @nnc.fmod(double %a0, double %b) noinline #0 {{
entry:
  %b.bits = bitcast double %b to i64
  %b.field = lshr i64 %b.bits, 52
  %b.small = icmp eq i64 %b.field, 0
  %b.zeros = call i64 @llvm.ctlz.i64(i64 %b.bits, i1 false)
  %b.below = sub i64 12, %b.zeros
  %b.exponent = select i1 %b.small, i64 %b.below, i64 %b.field
  br label %loop
loop:
  %a = phi double [ %a0, %entry ], [ %r, %turn ]
  %more = fcmp oge double %a, %b
  br i1 %more, label %turn, label %done
turn:
  %a.bits = bitcast double %a to i64
  %a.field = lshr i64 %a.bits, 52
  %a.small = icmp eq i64 %a.field, 0
  %a.zeros = call i64 @llvm.ctlz.i64(i64 %a.bits, i1 false)
  %a.below = sub i64 12, %a.zeros
  %a.exponent = select i1 %a.small, i64 %a.below, i64 %a.field
  %apart = sub i64 %a.exponent, %b.exponent
  %k.any = sub i64 %apart, 25
  %k.none = icmp slt i64 %k.any, 0
  %k = select i1 %k.none, i64 0, i64 %k.any
  %k.third = udiv i64 %k, 3
  %k.two = shl i64 %k.third, 1
  %k.rest = sub i64 %k, %k.two
  %p.field = add i64 %k.third, 1023
  %p.bits = shl i64 %p.field, 52
  %p = bitcast i64 %p.bits to double
  %q.field = add i64 %k.rest, 1023
  %q.bits = shl i64 %q.field, 52
  %q = bitcast i64 %q.bits to double
  %s.third = fmul double %b, %p
  %s.two = fmul double %s.third, %p
  %s = fmul double %s.two, %q
  %quotient = fdiv double %a, %s
  %n.whole = fptosi double %quotient to i32
  %n = sitofp i32 %n.whole to double
  %s.bits = bitcast double %s to i64
  %high.bits = and i64 %s.bits, {HALF}
  %high = bitcast i64 %high.bits to double
  %low = fsub double %s, %high
  %n.high = fmul double %n, %high
  %n.low = fmul double %n, %low
  %r.high = fsub double %a, %n.high
  %r.both = fsub double %r.high, %n.low
  %r.up = fcmp olt double %r.both, {i.const(0)}
  %r.back = fadd double %r.both, %s
  %r = select i1 %r.up, double %r.back, double %r.both
  br label %loop
done:
  ret double %a
}}

declare i64 @llvm.ctlz.i64(i64, i1)
"""


def _remainder_meaning(x: float, y: float) -> float:
    return x % y if y and math.isfinite(x) else math.nan


REMAINDER = Scalar(
    name="remainder",
    sign="%",
    operands=("x", "y"),
    doc="x - y floor(x / y), exact: the remainder with the sign of y; NaN for y = 0. d(x % y) = dx - floor(x / y) dy",
    weight=30,
    ulp=(0.5, 0.5),
    shared=True,
    numpy=np.remainder,
    grad=lambda dr, r, x, y: (dr, -(dr * (x / y).apply("floor").apply("stop_grad"))),
    low=-9,
    high=9,
    meaning=_remainder_meaning,
    llvm=_remainder,
)

ALL = (REMAINDER,)

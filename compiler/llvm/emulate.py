"""Operations that a processor lacks, in those that it has, with the same bits: fused multiply-add, rounding, roots;
f16.

In: operands. Out: what the instruction would give, as the body of a function of the module. LLVM itself would call libm
for every lane.

Of f32 the product is exact in f64, and the sum is there rounded to odd where rounding it twice would show; of f64
product and sum are pairs of f64, the smaller halves added to odd (Boldo & Melquiond 2008, "Emulation of a FMA and
correctly rounded sums: proved algorithms using rounding to odd"). Where a part of them would overflow or underflow each
lane goes through integers (`fma.ll`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from string import Template

from ..scalar import wide
from .instructions import Instructions
from .text import Function, type_text, vector_literal

_HALFWAY, _BELOW = 0x10000000, 0x1FFFFFFF  # of an f64 between two neighbours of f32, and the bits that an f32 lacks
_NORMAL = 2.0**-126
_SAFE = (2.0**-960, 2.0**990)  # where neither a product nor the halves of its factors leave the range of f64
_SPLIT = 2.0**27 + 1


def _sum(i: Instructions, a: str, b: str) -> tuple[str, str]:
    """(a + b rounded, its error), exactly (Knuth)."""
    s = i.add(a, b)
    back = i.sub(s, a)
    return s, i.add(i.sub(a, i.sub(s, back)), i.sub(b, back))


def _product(i: Instructions, a: str, b: str) -> tuple[str, str]:
    """(a b rounded, its error), exactly (Veltkamp, Dekker)."""
    p = i.mul(a, b)
    (ah, al), (bh, bl) = _halves(i, a), _halves(i, b)
    e = i.sub(i.mul(ah, bh), p)
    e = i.add(i.add(e, i.mul(ah, bl)), i.mul(al, bh))
    return p, i.add(e, i.mul(al, bl))


def _halves(i: Instructions, a: str) -> tuple[str, str]:
    t = i.mul(a, i.const(_SPLIT))
    high = i.sub(t, i.sub(t, a))
    return high, i.sub(a, high)


def _to_odd(i: Instructions, s: str, error: str) -> str:
    """A sum that is inexact and even, moved by one digit towards its error."""
    bits, b, bools = i.to_bits(s), i.bits, i.of("bool")
    zero = i.const(0)
    even = b.compare("eq", b.both(bits, b.const(1)), b.const(0))
    away = bools.op("xor", i.compare("ogt", error, zero), i.compare("olt", s, zero))
    moved = b.add(bits, b.select(away, b.const(1), b.const(-1)))
    return i.from_bits(b.select(bools.both(even, i.compare("one", error, zero)), moved, bits))


def _fma_f32(i: Instructions, x: str, y: str, z: str) -> str:
    w, b, bools = i.of("f64"), i.of("i64"), i.of("bool")
    p = w.mul(i.convert("fpext", x, "f64"), i.convert("fpext", y, "f64"))
    c = i.convert("fpext", z, "f64")
    s = w.add(p, c)
    halfway = b.compare("eq", b.both(w.to_bits(s), b.const(_BELOW)), b.const(_HALFWAY))
    size = w.intrinsic("fabs", s)
    small = bools.both(w.compare("olt", size, w.const(_NORMAL)), w.compare("ogt", size, w.const(0)))
    odd = f"@nnc.odd.f64x{i.lanes}"
    w.define(("nnc.odd", "f64", i.lanes), _odd(w, odd))
    rare = i.some(bools.either(halfway, small))
    (s,) = i.call_where(rare, odd, ((w.type, p), (w.type, c)), (("s", w.type, s),))
    return w.convert("fptrunc", s, "f32")


def _odd(i: Instructions, at: str) -> str:
    """A function: the sum of two, rounded to odd."""
    fn = Function(i.fn.externals)
    j, a, b = i.within(fn), fn.name("x"), fn.name("y")
    result = _to_odd(j, *_sum(j, a, b))
    fn.block.end = f"ret {{ {i.type} }} {fn.value(f'insertvalue {{ {i.type} }} poison, {i.type} {result}, 0', 'pair')}"
    return fn.text(f"define internal {{ {i.type} }} {at}({i.type} {a}, {i.type} {b}) noinline #0")


def _fma_f64(i: Instructions, x: str, y: str, z: str) -> str:
    bools, zero = i.of("bool"), i.const(0)
    p, p_low = _product(i, x, y)
    t, t_low = _sum(i, z, p_low)
    v, v_low = _sum(i, p, t)
    fused = i.add(v, _to_odd(i, *_sum(i, t_low, v_low)))

    def safe(a: str, low: bool) -> str:
        size = i.intrinsic("fabs", a)
        fits = i.compare("ole", size, i.const(_SAFE[1]))
        return bools.both(fits, i.compare("oge", size, i.const(_SAFE[0]))) if low else fits

    nothing = bools.either(i.compare("oeq", x, zero), i.compare("oeq", y, zero))
    alone = i.compare("oeq", z, zero)
    fused = i.select(bools.either(nothing, alone), i.add(p, z), fused)
    product = bools.either(nothing, bools.both(safe(p, True), bools.both(safe(x, False), safe(y, False))))
    rare = bools.flip(bools.both(product, bools.either(alone, safe(z, True))))
    each = f"@nnc.fma.each.f64x{i.lanes}"
    i.define(("nnc.fma.each", "f64", i.lanes), _each(i, each))
    wide.define(i)
    i.define(("nnc.fma.one", "", 0), Path(__file__).with_name("fma.ll").read_text("ascii"))
    args = tuple((i.type, a) for a in (x, y, z))
    (result,) = i.call_where(i.some(rare), each, args, (("t", i.type, fused),))
    return result


def _each(i: Instructions, at: str) -> str:
    """A function: every lane through integers."""
    fn = Function(i.fn.externals)
    args = [fn.name(a) for a in ("x", "y", "z")]
    result = "poison"
    for k in range(i.lanes):
        given = args
        if i.lanes > 1:
            given = [fn.value(f"extractelement {i.type} {a}, i64 {k}", "lane") for a in args]
        result_k = fn.value(f"call double @nnc.fma.one({', '.join(f'double {a}' for a in given)})", "one")
        result = result_k if i.lanes == 1 else fn.value(f"insertelement {i.type} {result}, double {result_k}, i64 {k}")
    fn.block.end = f"ret {{ {i.type} }} {fn.value(f'insertvalue {{ {i.type} }} poison, {i.type} {result}, 0', 'pair')}"
    return fn.text(f"define internal {{ {i.type} }} {at}({', '.join(f'{i.type} {a}' for a in args)}) noinline #0")


def _roundeven(i: Instructions, x: str) -> str:
    """To the nearest integer: where there are digits behind the point, adding as much as has none rounds them away."""
    big, size = i.const(_NO_FRACTION[i.dtype]), i.intrinsic("fabs", x)
    near = i.intrinsic("copysign", i.sub(i.add(size, big), big), x)
    return i.select(i.compare("olt", size, big), near, x)


def _floor(i: Instructions, x: str) -> str:
    near = _roundeven(i, x)
    return i.select(i.compare("ogt", near, x), i.sub(near, i.const(1)), near)


def _ceil(i: Instructions, x: str) -> str:
    return i.neg(_floor(i, i.neg(x)))


def _trunc(i: Instructions, x: str) -> str:
    return i.intrinsic("copysign", _floor(i, i.intrinsic("fabs", x)), x)


def _sqrt(i: Instructions, x: str) -> str:
    """Digit by digit, a lane at a time (`sqrt.ll`)."""
    one = f"@nnc.sqrt.one.{i.dtype}"
    digits, bias, integer, type_ = {"f32": (23, 127, "i32", "float"), "f64": (52, 1023, "i64", "double")}[i.dtype]
    template = Template(Path(__file__).with_name("sqrt.ll").read_text("ascii"))
    i.define(
        ("nnc.sqrt.one", i.dtype, 0),
        template.substitute(
            NAME=one, FLOAT=type_, INTEGER=integer, DIGITS=digits, STEPS=digits + 2, WHOLE=1 << digits,
            FRACTION=(1 << digits) - 1, BIAS=bias, UP=63 - digits,
            WIDEN="zext i32 %bits to i64" if i.dtype == "f32" else "add i64 %bits, 0",
            NARROW="trunc i64 %made to i32" if i.dtype == "f32" else "add i64 %made, 0",
        ),
    )  # fmt: skip
    if i.lanes == 1:
        return i.pure(f"call {type_} {one}({type_} {x})")
    result = "poison"
    for k in range(i.lanes):
        lane = i.pure(f"extractelement {i.type} {x}, i64 {k}")
        root = i.pure(f"call {type_} {one}({type_} {lane})")
        result = i.pure(f"insertelement {i.type} {result}, {type_} {root}, i64 {k}")
    return result


def _relaxed(i: Instructions, x: str, y: str, z: str) -> str:
    """WebAssembly's relaxed multiply-add, four or two lanes at a time; a scalar is a lane of it."""
    n = 4 if i.dtype == "f32" else 2
    part = replace(i, lanes=n)
    name = f"@llvm.wasm.relaxed.madd.v{n}{i.dtype}"
    i.fn.externals.declares.add(f"declare {part.type} {name}({', '.join([part.type] * 3)})")

    def fused(args: list[str]) -> str:
        return i.pure(f"call {part.type} {name}({', '.join(f'{part.type} {a}' for a in args)})")

    if i.lanes == 1:
        given = [i.pure(f"insertelement {part.type} poison, {i.type} {a}, i64 0") for a in (x, y, z)]
        return i.pure(f"extractelement {part.type} {fused(given)}, i64 0")
    if i.lanes < n:
        widths = vector_literal([min(k, i.lanes - 1) for k in range(n)], "i32")
        given = [i.pure(f"shufflevector {i.type} {a}, {i.type} poison, <{n} x i32> {widths}") for a in (x, y, z)]
        first = vector_literal(list(range(i.lanes)), "i32")
        return i.pure(f"shufflevector {part.type} {fused(given)}, {part.type} poison, <{i.lanes} x i32> {first}")
    parts = []
    for at in range(0, i.lanes, n):
        which = vector_literal(list(range(at, at + n)), "i32")
        parts.append(
            fused([i.pure(f"shufflevector {i.type} {a}, {i.type} poison, <{n} x i32> {which}") for a in (x, y, z)])
        )
    while len(parts) > 1:
        n *= 2
        half = f"<{n // 2} x {type_text(i.dtype)}>"
        both = vector_literal(list(range(n)), "i32")
        parts = [
            i.pure(f"shufflevector {half} {a}, {half} {b}, <{n} x i32> {both}")
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _any(i: Instructions, x: str) -> str:
    """Whether a bool is true in any lane: as bytes."""
    n = i.lanes
    name = f"@llvm.vector.reduce.or.v{n}i8"
    i.fn.externals.declares.add(f"declare i8 {name}(<{n} x i8>)")
    narrow = i.pure(f"zext {i.type} {x} to <{n} x i8>")
    return i.pure(f"trunc i8 {i.pure(f'call i8 {name}(<{n} x i8> {narrow})')} to i1")


RELAXED: Mapping[str, Callable[..., str]] = {"fma.f32": _relaxed, "fma.f64": _relaxed}
_NO_FRACTION = {"f32": 2.0**23, "f64": 2.0**52}  # the least that has no digits behind the point


def _half(i: Instructions, x: str) -> str:
    """An f16 as an f32: its digits moved, and its exponent by a product, which is exact also where it is subnormal."""
    b, f = i.of("i32"), i.of("f32")
    bits = i.convert("zext", x, "i32")
    a = b.op("shl", b.both(bits, b.const(0x7FFF)), b.const(13))
    finite = f.to_bits(f.mul(f.from_bits(a), f.const(2.0**112)))
    found = b.select(b.compare("sge", a, b.const(31 << 23)), b.either(a, b.const(0xFF << 23)), finite)
    return f.from_bits(b.either(found, b.op("shl", b.both(bits, b.const(0x8000)), b.const(16))))


_RULES = {"roundeven": _roundeven, "floor": _floor, "ceil": _ceil, "trunc": _trunc, "sqrt": _sqrt}
EMULATED: Mapping[str, Callable[..., str]] = {  # by intrinsic and dtype
    "any.bool": _any,
    "half.f16": _half,
    **{f"{name}.{dtype}": rule for name, rule in _RULES.items() for dtype in ("f32", "f64")},
    "fma.f32": _fma_f32,
    "fma.f64": _fma_f64,
}

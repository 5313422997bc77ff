"""Numbers in fewer bytes than they are computed in: f16, bf16, whole numbers of a byte.

Parameters may be stored so (`passes.narrow`). Those in f16 and bf16 are their bits, as integers: what processors have
for them is to widen them, if that. The results are the same on all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..types.tensors import BYTES
from .code import Code
from .function import Number, Scalar

_WHY = "parameters are stored when derivatives have been written out"
_TOP = 0xFF << 23  # the exponent of an f32 that is infinite or NaN
_MOST = 127  # of a byte: as many below 0 as above

Numpy = Callable[[Any], Any]


def _narrow(name: str, into: str, doc: str, weight: int, numpy: Numpy, llvm: Callable[[Code, str], str]) -> Scalar:
    return Scalar(
        name=name,
        operands=("x",),
        doc=doc,
        weight=weight,
        accepts=("f32",),
        result=into,
        low=-200,
        high=200,
        numpy=numpy,
        grad=_WHY,
        meaning=lambda x: int(numpy(np.float32(x))),
        llvm=llvm,
    )


def _widen(
    name: str, of: str, most: int, doc: str, weight: int, numpy: Numpy, llvm: Callable[[Code, str], str]
) -> Scalar:
    """`most`: what stands for the largest number."""

    def meaning(x: Number) -> Number:
        return float(numpy(np.array(x, f"i{BYTES[of]}")))

    return Scalar(
        name=name,
        operands=("x",),
        doc=doc,
        weight=weight,
        accepts=(of,),
        result="f32",
        low=0,
        high=most,
        numpy=numpy,
        grad=_WHY,
        meaning=meaning,
        llvm=llvm,
    )


def _magnitude(i: Code, x: str) -> tuple[str, str]:
    """The bits of an f32 without its sign, and the sign where that of 16 bits is."""
    b = i.bits
    bits = i.to_bits(x)
    return b.both(bits, b.const(0x7FFFFFFF)), b.both(b.op("lshr", bits, b.const(16)), b.const(0x8000))


def _rounded(b: Code, bits: str, dropped: int) -> str:
    """Without so many bits at the end, half to even."""
    last = b.both(b.op("lshr", bits, b.const(dropped)), b.const(1))
    return b.op("lshr", b.add(bits, b.add(last, b.const((1 << (dropped - 1)) - 1))), b.const(dropped))


def _to_f16(i: Code, x: str) -> str:
    b = i.bits
    a, sign = _magnitude(i, x)
    normal = _rounded(b, b.sub(a, b.const(112 << 23)), 13)
    # 1/2 has the units that the smallest numbers of f16 have: to add it rounds to them
    small = b.sub(i.to_bits(i.add(i.from_bits(a), i.const(0.5))), b.const(126 << 23))
    found = b.select(b.compare("slt", a, b.const(113 << 23)), small, normal)
    found = b.select(b.compare("sge", a, b.const(0x477FF000)), b.const(0x7C00), found)
    found = b.select(b.compare("sgt", a, b.const(_TOP)), b.const(0x7E00), found)
    return b.convert("trunc", b.either(found, sign), "i16")


def _to_bf16(i: Code, x: str) -> str:
    b = i.bits
    a, sign = _magnitude(i, x)
    found = b.select(b.compare("sgt", a, b.const(_TOP)), b.const(0x7FC0), _rounded(b, a, 16))
    return b.convert("trunc", b.either(found, sign), "i16")


def _from_bf16(i: Code, x: str) -> str:
    b = i.of("i32")
    return i.of("f32").from_bits(b.op("shl", i.convert("zext", x, "i32"), b.const(16)))


def _to_i8(i: Code, x: str) -> str:
    b = i.bits
    whole = i.saturate(i.intrinsic("roundeven", x), "i32")
    for predicate, end in (("slt", -_MOST), ("sgt", _MOST)):
        whole = b.select(b.compare(predicate, whole, b.const(end)), b.const(end), whole)
    return b.convert("trunc", whole, "i8")


def _numpy_to_f16(x: Any) -> Any:
    with np.errstate(over="ignore"):
        bits = np.asarray(x).astype(np.float16).view(np.int16)
    return np.where(np.isnan(x), bits & np.int16(-0x8000) | np.int16(0x7E00), bits)


def _numpy_to_bf16(x: Any) -> Any:
    bits = np.asarray(x).view(np.uint32).astype(np.uint64)
    near = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    quiet = (bits >> 16 & 0x8000 | 0x7FC0).astype(np.uint16)
    return np.where(np.isnan(x), quiet, near).view(np.int16)


def _numpy_to_i8(x: Any) -> Any:
    return np.clip(np.nan_to_num(np.rint(x), nan=0.0), -_MOST, _MOST).astype(np.int8)


TO_F16 = _narrow("to_f16", "i16", "The bits of the f16 nearest to x, half to even", 16, _numpy_to_f16, _to_f16)
FROM_F16 = _widen(
    "from_f16", "i16", 0x7BFF, "The f16 with these bits", 4,
    lambda x: np.asarray(x).view(np.float16).astype(np.float32), lambda i, x: i.half(x),
)  # fmt: skip
TO_BF16 = _narrow("to_bf16", "i16", "The upper half of the bits of x, half to even", 9, _numpy_to_bf16, _to_bf16)
FROM_BF16 = _widen(
    "from_bf16", "i16", 0x7F7F, "The f32 whose upper half these bits are", 2,
    lambda x: (np.asarray(x).astype(np.int32) << 16).view(np.float32), _from_bf16,
)  # fmt: skip
TO_I8 = _narrow(
    "to_i8", "i8", "The nearest whole number from -127 to 127, half to even; NaN gives 0", 9, _numpy_to_i8, _to_i8
)
FROM_I8 = _widen(
    "from_i8", "i8", _MOST, "The number", 2,
    lambda x: np.asarray(x).astype(np.float32), lambda i, x: i.convert("sitofp", x, "f32"),
)  # fmt: skip

ALL = (TO_F16, FROM_F16, TO_BF16, FROM_BF16, TO_I8, FROM_I8)

"""Conversion between dtypes."""

from __future__ import annotations

from ..types.tensors import FLOATS
from .code import Code
from .function import Scalar
from .numbers import converted


def _cast(i: Code, a: str, to: str) -> str:
    source = i.dtype
    if source == to:
        return a
    if to == "bool":
        return i.compare("une" if i.is_float else "ne", a, i.const(0))
    if source == "bool":
        return i.convert("uitofp" if to in FLOATS else "zext", a, to)
    match source in FLOATS, to in FLOATS:
        case True, True:
            return i.convert("fpext" if to == "f64" else "fptrunc", a, to)
        case True, False:
            return i.saturate(a, to)
        case False, True:
            return i.convert("sitofp", a, to)
        case _:
            return i.convert("sext" if to == "i64" else "trunc", a, to)


CAST = Scalar(
    name="cast",
    operands=("x",),
    weight=1,
    meaning=lambda dtype, x: converted(x, dtype),
    typed=True,
    llvm=_cast,
    doc="The value in the result's dtype: float to int saturates and NaN gives 0; to bool is != 0",
)

ALL = (CAST,)

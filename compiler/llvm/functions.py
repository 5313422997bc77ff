"""The scalar functions of the loop IR as instructions, one short paragraph each.

In: a function's name and its operands, all of one lane count. Out: the operand that holds the result. Nothing here
depends on the lane count, so a scalar and a lane have the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..types.tensors import FLOATS
from .instructions import Instructions
from .text import fault

Rule = Callable[..., str]

_NUMBER = re.compile(r"0x(?![7F]FF(?!0000000000000))[0-9A-F]{16}\)?$")  # a float literal that is not NaN

_FLOAT_ORDER = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_INT_ORDER = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}
_BOOL_ORDER = {"eq": "eq", "ne": "ne", "lt": "ult", "le": "ule", "gt": "ugt", "ge": "uge"}
_WIDTH = {"bool": 1, "i32": 32, "i64": 64}


def least(dtype: str) -> int | float | bool:
    """The identity of `maximum`."""
    return float("-inf") if dtype in FLOATS else False if dtype == "bool" else -(1 << (_WIDTH[dtype] - 1))


def greatest(dtype: str) -> int | float | bool:
    """The identity of `minimum`."""
    return float("inf") if dtype in FLOATS else True if dtype == "bool" else (1 << (_WIDTH[dtype] - 1)) - 1


def identity(fold: str, dtype: str) -> int | float | bool:
    """What a fold begins with. A float sum begins with -0, so that a sum of -0 alone stays -0."""
    match fold:
        case "sum":
            return -0.0 if dtype in FLOATS else 0
        case "prod":
            return 1
        case "max":
            return least(dtype)
        case _:
            return greatest(dtype)


def order(i: Instructions, fn: str, a: str, b: str) -> str:
    """A comparison of operands of `i`'s dtype; the result is a bool."""
    table = _FLOAT_ORDER if i.is_float else _BOOL_ORDER if i.dtype == "bool" else _INT_ORDER
    return i.compare(table[fn], a, b)


def _add(i: Instructions, a: str, b: str) -> str:
    return i.either(a, b) if i.dtype == "bool" else i.add(a, b)


def _mul(i: Instructions, a: str, b: str) -> str:
    return i.both(a, b) if i.dtype == "bool" else i.mul(a, b)


def _abs(i: Instructions, a: str) -> str:
    if i.is_float:
        return i.intrinsic("fabs", a)
    return i.select(i.compare("slt", a, i.const(0)), i.neg(a), a)


def _sign(i: Instructions, a: str) -> str:
    """1, 0 or -1; a NaN stays itself."""
    zero = i.const(0)
    if not i.is_float:
        negative = i.select(i.compare("slt", a, zero), i.const(-1), zero)
        return i.select(i.compare("sgt", a, zero), i.const(1), negative)
    rest = i.select(i.compare("oeq", a, zero), zero, a)
    rest = i.select(i.compare("olt", a, zero), i.const(-1), rest)
    return i.select(i.compare("ogt", a, zero), i.const(1), rest)


def _safe_division(i: Instructions, a: str, b: str) -> tuple[str, str, str]:
    """(quotient, remainder, whether b is 0) towards zero. The divisor is replaced by 1 where it is 0 (undefined) and by
    1 where it is -1 (MIN / -1 traps; the quotient is then the negation)."""
    zero, one, minus = i.const(0), i.const(1), i.const(-1)
    none, negate = i.compare("eq", b, zero), i.compare("eq", b, minus)
    safe = i.select(i.of("bool").either(none, negate), one, b)
    quotient, remainder = i.op("sdiv", a, safe), i.op("srem", a, safe)
    return i.select(negate, i.neg(a), quotient), remainder, none


def _rounds_down(i: Instructions, remainder: str, b: str) -> str:
    """Whether truncation went up: a remainder is left and its sign is not the divisor's."""
    zero, bools = i.const(0), i.of("bool")
    return bools.both(i.compare("ne", remainder, zero), i.compare("slt", i.op("xor", remainder, b), zero))


def _floordiv(i: Instructions, a: str, b: str) -> str:
    if i.is_float:
        return i.intrinsic("floor", i.div(a, b))
    quotient, remainder, none = _safe_division(i, a, b)
    down = i.select(_rounds_down(i, remainder, b), i.const(-1), i.const(0))
    return i.select(none, i.const(0), i.add(quotient, down))


def _mod(i: Instructions, a: str, b: str) -> str:
    if i.is_float:  # a - b * floor(a / b)
        return i.sub(a, i.mul(b, _floordiv(i, a, b)))
    _, remainder, none = _safe_division(i, a, b)
    shifted = i.select(_rounds_down(i, remainder, b), i.add(remainder, b), remainder)
    return i.select(none, i.const(0), shifted)


def maximum(i: Instructions, a: str, b: str) -> str:
    """The larger; NaN if either is; of equal zeros the first. `b > a ? b : a` is one instruction on x86 and is already
    right unless b alone is NaN, which a constant b is not."""
    return _extreme(i, "ogt", "sgt", "or", a, b)


def minimum(i: Instructions, a: str, b: str) -> str:
    """The smaller; otherwise as `maximum`."""
    return _extreme(i, "olt", "slt", "and", a, b)


def _extreme(i: Instructions, floats: str, ints: str, bools: str, a: str, b: str) -> str:
    if i.dtype == "bool":
        return i.op(bools, a, b)
    if not i.is_float:
        return i.select(i.compare(ints, b, a), b, a)
    r = i.select(i.compare(floats, b, a), b, a)
    if _NUMBER.search(b):
        return r
    return i.select(i.compare("uno", b, b), b, r)


def _isfinite(i: Instructions, a: str) -> str:
    return i.compare("olt", i.intrinsic("fabs", a), i.const(float("inf")))


def _rounded(intrinsic: str) -> Rule:
    return lambda i, a: i.intrinsic(intrinsic, a) if i.is_float else a


def _rsqrt(i: Instructions, a: str) -> str:
    return i.div(i.const(1), i.intrinsic("sqrt", a))


RULES: Mapping[str, Rule] = {
    "add": _add, "sub": Instructions.sub, "mul": _mul, "neg": Instructions.neg, "abs": _abs, "sign": _sign,
    "div": Instructions.div, "floordiv": _floordiv, "mod": _mod, "fma": Instructions.fma,
    "minimum": minimum, "maximum": maximum,
    "and": Instructions.both, "or": Instructions.either, "not": Instructions.flip,
    "floor": _rounded("floor"), "ceil": _rounded("ceil"), "round": _rounded("roundeven"),
    "sqrt": lambda i, a: i.intrinsic("sqrt", a), "rsqrt": _rsqrt, "isfinite": _isfinite,
}  # fmt: skip

FOLD_RULES: Mapping[str, Rule] = {"sum": _add, "prod": _mul, "max": maximum, "min": minimum}


def cast(i: Instructions, a: str, to: str) -> str:
    """The value in another dtype: float to int saturates and NaN gives 0; to bool is `!= 0`."""
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


def rule(fn: str) -> Rule:
    """The rule of a function that is neither a comparison, `select`, `cast`, nor vector mathematics."""
    if fn not in RULES:
        raise fault(f"the loop IR has no function '{fn}'")
    return RULES[fn]

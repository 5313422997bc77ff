"""The meaning of the loop IR, in plain Python: slow and obvious. What generated code must do, bit for bit.

In: a kernel, its sizes, and a list of numbers per buffer; or an entry of a module with bytes per slot. Out: the code of
the check that failed, or 0; what is given is changed in place. Lanes of a vector loop run in lockstep, statement by
statement. `fma` rounds once. Of the functions that `math` computes, the last place is not defined.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ..types.sizes import Dim, substitute
from ..types.tensors import BYTES, FLOATS
from .ir import (
    Apply,
    Call,
    Check,
    Const,
    Entry,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Loop,
    Module,
    Prefetch,
    Reduce,
    Register,
    Step,
    Stmt,
    Store,
    Var,
)
from .philox import philox_reference

Number = Any  # int, float or bool; or a list of them, one per lane

_CODE = {"f32": "f", "f64": "d", "i32": "i", "i64": "q", "bool": "?"}
RANGE = {"i32": (-(1 << 31), (1 << 31) - 1), "i64": (-(1 << 63), (1 << 63) - 1), "bool": (0, 1)}


class _Failed(Exception):
    """A check was false."""


@dataclass(slots=True)
class _Lanes:
    on: list[bool]
    partial: dict[tuple[int, int], tuple[Reduce, list[Number]]] = field(default_factory=dict)  # by statement, index


@dataclass(slots=True)
class _State:
    names: dict[str, Number]
    buffers: dict[str, tuple[str, list[Number]]]
    lanes: _Lanes | None = None


def evaluate(kernel: Kernel, sizes: Mapping[str, int], buffers: Mapping[str, list[Number]]) -> int:
    """Run a kernel on lists."""
    state = _State(dict(sizes), {b.name: (b.dtype, buffers[b.name]) for b in kernel.buffers})
    try:
        _body(kernel.body, state)
    except _Failed as e:
        return int(e.args[0])
    return 0


def run(module: Module, entry: Entry, sizes: Mapping[str, int], slots: Mapping[str, bytearray]) -> int:
    """Run an entry on memory. The arena begins as bytes that mean nothing."""
    memory = {("slot", name): data for name, data in slots.items()}
    memory["arena", ""] = bytearray(b"\xa5" * _number(entry.arena, sizes))
    for c in module.constants:
        memory["constant", c.name] = bytearray(struct.pack(f"{len(c.values)}{_CODE[c.dtype]}", *c.values))
    kernels = {k.name: k for k in module.kernels}

    def steps(some: tuple[Step, ...], known: Mapping[str, int]) -> int:
        for s in some:
            if isinstance(s, Loop):
                turns = range(_number(s.count, known))
                for k in reversed(turns) if s.reverse else turns:
                    inside = {**known, s.index: k}
                    if code := steps(s.steps, inside):
                        return code
                    if s.until is not None and memory[s.until.base, s.until.name][_number(s.until.offset, inside)]:
                        break
            elif code := _call(kernels[s.kernel], s, known, memory):
                return code
        return 0

    return steps(entry.steps, sizes)


def _number(x: Dim, sizes: Mapping[str, int]) -> int:
    n = substitute(x, sizes)
    assert isinstance(n, int), f"{x} is not known"
    return n


def _call(kernel: Kernel, call: Call, sizes: Mapping[str, int], memory: Mapping[tuple[str, str], bytearray]) -> int:
    """A kernel on memory: each of its buffers reaches from its place to the end of what that is in."""
    buffers: dict[str, list[Number]] = {}
    before: dict[str, list[Number]] = {}
    where: dict[str, tuple[bytearray, int]] = {}
    for b, place in zip(kernel.buffers, call.places, strict=True):
        data, at = memory[place.base, place.name], _number(place.offset, sizes)
        count = (len(data) - at) // BYTES[b.dtype]
        buffers[b.name] = list(struct.unpack_from(f"{count}{_CODE[b.dtype]}", data, at))
        before[b.name], where[b.name] = list(buffers[b.name]), (data, at)
    code = evaluate(kernel, {n: _number(x, sizes) for n, x in zip(kernel.sizes, call.sizes, strict=True)}, buffers)
    for b in kernel.buffers:
        data, at = where[b.name]
        for k, (old, new) in enumerate(zip(before[b.name], buffers[b.name], strict=True)):
            if b.mutable and (old is not new):
                struct.pack_into(_CODE[b.dtype], data, at + k * BYTES[b.dtype], new)
    return code


def _body(stmts: tuple[Stmt, ...], outer: _State) -> None:
    state = _State(dict(outer.names), dict(outer.buffers), outer.lanes)
    for s in stmts:
        _statement(s, state)


def _statement(s: Stmt, state: _State) -> None:
    match s:
        case Let(name, value):
            state.names[name] = _eval(value, state)
        case Store(buffer, index, value):
            memory = state.buffers[buffer][1]
            for on, i, v in _each(state, _eval(index, state), _eval(value, state)):
                if on:
                    memory[i] = v
        case Reduce():
            _reduce(s, _eval(s.index, state), _eval(s.value, state), state)
        case Register(name, dtype, length):
            state.buffers[name] = (dtype, [0] * length)
        case If(condition, body):
            if _eval(condition, state):
                _body(body, state)
        case Check(condition, code):
            if any(on and not ok for on, ok in _each(state, _eval(condition, state))):
                raise _Failed(code)
        case Prefetch():
            pass  # changes nothing
        case For():
            _loop(s, state)


def _loop(s: For, state: _State) -> None:
    start, stop = _eval(s.start, state), _eval(s.stop, state)
    bound = _eval(s.bound, state) if s.bound is not None else stop
    outer = state.lanes
    if s.lanes == 1:
        for i in range(start, stop, s.step):
            _body(s.body, _State({**state.names, s.var: i}, state.buffers, outer))
        return
    lanes = _Lanes([])
    for first in range(start, stop, s.step * s.lanes):
        indices = [first + k * s.step for k in range(s.lanes)]
        lanes.on = [i < stop and i < bound for i in indices]
        if any(lanes.on):
            _body(s.body, _State({**state.names, s.var: indices}, state.buffers, lanes))
    for (_, index), (reduce, partial) in lanes.partial.items():
        dtype, memory = state.buffers[reduce.buffer]
        rule = FOLDS[reduce.fold]
        while len(partial) > 1:
            half = len(partial) // 2
            partial = [_cast(rule(partial[k], partial[k + half]), dtype) for k in range(half)]
        memory[index] = _cast(rule(memory[index], partial[0]), dtype)


def _reduce(s: Reduce, index: Number, value: Number, state: _State) -> None:
    dtype, memory = state.buffers[s.buffer]
    rule = FOLDS[s.fold]
    if state.lanes is None or isinstance(index, list):
        for on, i, v in _each(state, index, value):
            if on:
                memory[i] = _cast(rule(memory[i], v), dtype)
        return
    unit = _identity(s.fold, dtype)
    _, partial = state.lanes.partial.setdefault((id(s), index), (s, [unit] * len(state.lanes.on)))
    for k, (on, v) in enumerate(_each(state, value)):
        if on:
            partial[k] = _cast(rule(partial[k], v), dtype)


def _identity(fold: str, dtype: str) -> Number:
    """What a fold begins with; a sum of floats with -0, so that a sum of -0 alone stays -0."""
    if dtype in FLOATS:
        return {"sum": -0.0, "prod": 1.0, "max": -math.inf, "min": math.inf}[fold]
    low, high = RANGE[dtype]
    return _cast({"sum": 0, "prod": 1, "max": low, "min": high}[fold], dtype)


def _each(state: _State, *values: Number) -> list[tuple[Any, ...]]:
    """(on, value, ...) per lane, or once."""
    if state.lanes is None:
        return [(True, *values)]
    n = len(state.lanes.on)
    return list(zip(state.lanes.on, *(v if isinstance(v, list) else [v] * n for v in values), strict=True))


def _eval(e: Expr, state: _State) -> Number:
    match e:
        case Const(value, dtype):
            return _cast(value, dtype)
        case Var(name):
            return state.names[name]
        case Load(buffer, index, _):
            memory, i = state.buffers[buffer][1], _eval(index, state)
            if isinstance(i, list):
                assert state.lanes
                return [memory[k] if on else 0 for on, k in zip(state.lanes.on, i, strict=True)]
            return memory[i]
        case Apply(fn, args, dtype):
            values = [_eval(a, state) for a in args]
            source = args[0].dtype
            if any(isinstance(v, list) for v in values):
                return [_apply(fn, v, source, dtype) for _, *v in _each(state, *values)]
            return _apply(fn, values, source, dtype)


def _apply(fn: str, args: list[Number], source: str, dtype: str) -> Number:
    if fn == "cast":
        return _convert(args[0], dtype)
    if fn == "random":
        return float(philox_reference(args[0], args[1], dtype))
    if fn in ("add", "sub", "mul", "neg", "fma", "abs") and dtype in ("i32", "i64"):
        return _wrap(EXACT[fn](*args), dtype)
    if dtype == "bool" and fn in ("add", "mul", "maximum", "minimum"):
        return bool(args[0] or args[1]) if fn in ("add", "maximum") else bool(args[0] and args[1])
    if fn == "fma":
        return _fma(args[0], args[1], args[2], dtype)
    if fn in ("floordiv", "mod") and dtype in FLOATS:
        quotient = _floor(_cast(_divide(args[0], args[1]), dtype))
        return quotient if fn == "floordiv" else _cast(args[0] - _cast(args[1] * quotient, dtype), dtype)
    if fn in EXACT:
        return _cast(EXACT[fn](*args), dtype)
    try:
        return _cast(MATHS[fn](*args), dtype)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


def _fma(a: float, b: float, c: float, dtype: str) -> float:
    if not all(map(math.isfinite, (a, b, c))):
        return _cast(a * b + c, dtype)
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    return _round(exact, dtype) if exact else _cast(a * b + c, dtype)  # the sign of 0


def _round(x: Fraction, dtype: str) -> float:
    """To nearest even, in one step."""
    digits, least = (24, -149) if dtype == "f32" else (53, -1074)
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    if Fraction(2) ** exponent > abs(x):
        exponent -= 1
    unit = Fraction(2) ** max(exponent - digits + 1, least)
    try:
        return _cast(math.copysign(float(round(abs(x) / unit) * unit), x), dtype)
    except OverflowError:
        return math.copysign(math.inf, x)


def _wrap(x: int, dtype: str) -> int:
    bits = int(dtype[1:])
    return (x + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def _cast(x: Number, dtype: str) -> Number:
    """A number of the dtype that it is already meant to be: rounded, wrapped."""
    if dtype == "f64":
        return float(x)
    if dtype == "f32":
        try:
            return struct.unpack("f", struct.pack("f", x))[0]
        except OverflowError:
            return math.copysign(math.inf, x)
    return bool(x) if dtype == "bool" else _wrap(int(x), dtype)


def _convert(x: Number, dtype: str) -> Number:
    """Another dtype: float to int saturates, NaN gives 0, to bool is != 0."""
    if dtype == "bool":
        return x != 0
    if isinstance(x, float) and dtype in ("i32", "i64"):
        low, high = RANGE[dtype]
        return 0 if math.isnan(x) else low if x <= low else high if x >= high else int(x)
    return _cast(x, dtype)


def _divide(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def _maximum(a: Number, b: Number) -> Number:
    return b if b > a or b != b else a


def _minimum(a: Number, b: Number) -> Number:
    return b if b < a or b != b else a


def _sign(x: Number) -> Number:
    return x if x != x else type(x)((x > 0) - (x < 0))


def _rounding(f: Callable[[float], int]) -> Callable[[Number], Number]:
    return lambda x: math.copysign(f(x), x) if isinstance(x, float) and math.isfinite(x) else x


_floor = _rounding(math.floor)

FOLDS: Mapping[str, Callable[[Number, Number], Number]] = {
    "sum": lambda a, b: a + b, "prod": lambda a, b: a * b, "max": _maximum, "min": _minimum,
}  # fmt: skip
EXACT: Mapping[str, Callable[..., Number]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "neg": lambda a: -a,
    "abs": abs, "sign": _sign, "div": _divide,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
    "fma": lambda a, b, c: a * b + c, "minimum": _minimum, "maximum": _maximum,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "and": lambda a, b: a and b, "or": lambda a, b: a or b, "not": lambda a: not a,
    "select": lambda c, a, b: a if c else b, "isfinite": math.isfinite,
    "floor": _floor, "ceil": _rounding(math.ceil), "round": _rounding(round),
}  # fmt: skip
MATHS: Mapping[str, Callable[..., float]] = {
    "exp": math.exp, "log": lambda x: -math.inf if x == 0 else math.log(x),
    "log1p": lambda x: -math.inf if x == -1 else math.log1p(x), "expm1": math.expm1, "sqrt": math.sqrt,
    "rsqrt": lambda x: _divide(1.0, math.sqrt(x)), "sin": math.sin, "cos": math.cos, "tanh": math.tanh,
    "erf": math.erf, "pow": math.pow,
    "logistic": lambda x: 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x)),
}  # fmt: skip

"""The meaning of the loop IR, in plain Python: slow and obvious. What generated code must do, bit for bit.

In: a kernel, its sizes, and a list of numbers per buffer; or an entry of a module with bytes per slot. Out: the code of
the check that failed, or 0; what is given is changed in place. Lanes of a vector loop run in lockstep, statement by
statement. Of the functions that `math` computes, the last place is not defined.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from ...dsl.record import dataclass, field, replace
from ..scalar import FUNCTIONS
from ..scalar.function import Number
from ..scalar.numbers import rounded
from ..types.sizes import Dim, substitute
from ..types.tensors import BYTES
from .ir import (
    FOLDS,
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
    Microbatches,
    Module,
    Prefetch,
    Reduce,
    Register,
    Step,
    Stmt,
    Store,
    Var,
    identity,
    walk,
)

# a Number is here also a list of them, one per lane

_CODE = {"f32": "f", "f64": "d", "i32": "i", "i64": "q", "bool": "?", "i8": "b", "i16": "h"}


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


def shares(kernel: Kernel, sizes: Mapping[str, int]) -> bool:
    """Whether threads share a loop of a kernel at these sizes."""
    state = _State(dict(sizes), {})
    for s in walk(kernel.body):
        try:
            if isinstance(s, Let):
                state.names[s.name] = _eval(s.value, state)
            elif isinstance(s, For) and s.parallel and (s.when is None or _eval(s.when, state)):
                return True
        except KeyError:
            pass  # it is known in a loop only, and no condition speaks of it
    return False


def run(module: Module, entry: Entry, sizes: Mapping[str, int], slots: Mapping[str, bytearray]) -> int:
    """Run an entry on memory. The arena begins as bytes that mean nothing."""
    if entry.microbatches is not None:
        return _microbatches(module, replace(entry, microbatches=None), entry.microbatches, sizes, slots)
    if entry.many is not None and sizes[entry.many.size] >= entry.many.least:
        entry = next(e for e in module.entries if e.name == entry.many.entry)
    memory = {("slot", name): data for name, data in slots.items()}
    memory["arena", ""] = bytearray(b"\xa5" * _number(entry.arena, sizes))
    for c in module.constants:
        memory["constant", c.name] = bytearray(struct.pack(f"{len(c.values)}{_CODE[c.dtype]}", *c.values))
    kernels = {k.name: k for k in module.kernels}

    def steps(some: tuple[Step, ...], known: Mapping[str, int]) -> int:
        for s in some:
            if isinstance(s, Loop) and s.share is not None:
                whole, each = _number(s.share.of, known), s.share.grain
                for first in reversed(range(0, whole, each)):
                    inside = {**known, s.share.first: first, s.share.count: min(each, whole - first)}
                    if code := steps((replace(s, share=None, parallel=False),), inside):
                        return code
            elif isinstance(s, Loop):
                turns = range(_number(s.count, known))
                for k in reversed(turns) if s.reverse or s.parallel else turns:
                    inside = {**known, s.index: k}
                    if code := steps(s.steps, inside):
                        return code
                    if s.until is not None and memory[s.until.base, s.until.name][_number(s.until.offset, inside)]:
                        break
            elif code := _call(kernels[s.kernel], s, known, memory):
                return code
        return 0

    code = steps(entry.steps, sizes)
    if entry.marks and not code:
        memory["slot", entry.slots[-1].name][:] = struct.pack("q", len(entry.marks))
    return code


def _microbatches(
    module: Module, entry: Entry, m: Microbatches, sizes: Mapping[str, int], slots: Mapping[str, bytearray]
) -> int:
    """Some examples after the others, on their part of the slots."""
    one = {s.name: stride for s in entry.slots if (stride := _number(m.stride(s), sizes))}
    start, code = 0, 0
    while not code and (start < sizes[m.size] or not start):
        count = m.next(sizes[m.size] - start)
        spans = {name: slice(start * n, (start + count) * n) for name, n in one.items()}
        parts = {name: data[spans[name]] if name in one else data for name, data in slots.items()}
        code = run(module, entry, {**sizes, m.size: count}, parts)
        for name, span in spans.items():
            slots[name][span] = parts[name]
        start += max(1, count)
    return code


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
    if s.first:
        state = _State({**state.names, s.first: start}, state.buffers, outer)
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
        while len(partial) > reduce.into:
            half = len(partial) // 2
            partial = [_fold(reduce.fold, partial[k], partial[k + half], dtype) for k in range(half)]
        for k, v in enumerate(partial):
            memory[index + k] = _fold(reduce.fold, memory[index + k], v, dtype)


def _reduce(s: Reduce, index: Number, value: Number, state: _State) -> None:
    dtype, memory = state.buffers[s.buffer]
    if state.lanes is None or isinstance(index, list):
        for on, i, v in _each(state, index, value):
            if on:
                memory[i] = _fold(s.fold, memory[i], v, dtype)
        return
    unit = identity(s.fold, dtype)
    _, partial = state.lanes.partial.setdefault((id(s), index), (s, [unit] * len(state.lanes.on)))
    for k, (on, v) in enumerate(_each(state, value)):
        if on:
            partial[k] = _fold(s.fold, partial[k], v, dtype)


def _each(state: _State, *values: Number) -> list[tuple[Any, ...]]:
    """(on, value, ...) per lane, or once."""
    if state.lanes is None:
        return [(True, *values)]
    n = len(state.lanes.on)
    return list(zip(state.lanes.on, *(v if isinstance(v, list) else [v] * n for v in values), strict=True))


def _eval(e: Expr, state: _State) -> Number:
    match e:
        case Const(value, dtype):
            return rounded(value, dtype)
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
            if any(isinstance(v, list) for v in values):
                return [_apply(fn, v, dtype) for _, *v in _each(state, *values)]
            return _apply(fn, values, dtype)


def _apply(fn: str, args: list[Number], dtype: str) -> Number:
    return rounded(FUNCTIONS[fn].value(dtype, *args), dtype)


def _fold(fold: str, old: Number, new: Number, dtype: str) -> Number:
    return _apply(FOLDS[fold], [old, new], dtype)

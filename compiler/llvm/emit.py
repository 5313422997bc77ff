"""A module of the loop IR as LLVM IR text.

In: kernels, entries, constants, and the target. Out: text, the same for the same input, that needs nothing from outside
but the thread calls of `threads`. Kernels are internal; entries are exported with the ABI of `loops.Entry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..loops import Call, Constant, Entry, Kernel, Loop, Module, Place, Step, size_expr
from ..types import Dim

if TYPE_CHECKING:
    from ..native import Target
from . import threads
from .environment import environment, guarded
from .expressions import Evaluator
from .kernel import has_checks, has_parallel, write
from .maths import definitions
from .text import Externals, Function, fault, literal, memory_type, symbol
from .values import Index, Term, plus

PARAMETERS = "ptr %sizes, ptr %slots, ptr %arena, ptr %pool"  # of an entry
ATTRIBUTES = 'attributes #0 = { nounwind "no-builtins" }\n'


def emit(module: Module, target: Target) -> str:
    """The text of a module for a target."""
    fused = target.has_fma
    externals = Externals()
    kernels = {k.name: k for k in module.kernels}
    shared = _shared_places(module)
    parts = [_constant(c) for c in module.constants]
    parts += [write(k, externals, fused, shared.get(k.name, set())) for k in module.kernels]
    parts += [_entry(e, kernels, module) for e in module.entries]
    if module.entries:
        parts.append(environment(target.triple))
    if any(map(has_parallel, module.kernels)):
        parts += [threads.declarations(), threads.fork(target.triple)]
    parts += definitions(externals, fused, "\n".join(parts))
    return "\n".join([f'target triple = "{target.triple}"\n', *parts, *sorted(externals.declares), "", ATTRIBUTES])


def _shared_places(module: Module) -> dict[str, set[int]]:
    """By kernel, the buffers that some call gives the same place as another (an in-place update)."""
    shared: dict[str, set[int]] = {}
    for entry in module.entries:
        for call in entry.calls:
            first: dict[Place, int] = {}
            for k, place in enumerate(call.places):
                if first.setdefault(place, k) != k:
                    shared.setdefault(call.kernel, set()).update({first[place], k})
    return shared


def _constant(c: Constant) -> str:
    element = memory_type(c.dtype)
    stored = "i8" if c.dtype == "bool" else c.dtype
    values = ", ".join(f"{element} {literal(v, stored)}" for v in c.values) or f"{element} {literal(0, stored)}"
    count = max(1, len(c.values))
    return f"{symbol(c.name, '@')} = internal unnamed_addr constant [{count} x {element}] [{values}], align 64\n"


def _entry(entry: Entry, kernels: dict[str, Kernel], module: Module) -> str:
    e = Evaluator(Function(Externals()), False)
    fn = e.fn
    for name in ("sizes", "slots", "arena", "pool"):
        fn.fresh(name)
    for k, size in enumerate(entry.sizes):
        at = fn.pure(f"getelementptr i64, ptr %sizes, i64 {k}", 0, "at")
        e.names[size] = Index((Term(fn.value(f"load i64, ptr {at}, align 8", size), 0, 1),))
    slots: dict[str, str] = {}
    for k, slot in enumerate(entry.slots):
        at = fn.pure(f"getelementptr ptr, ptr %slots, i64 {k}", 0, "at")
        slots[slot.name] = fn.value(f"load ptr, ptr {at}, align 8", slot.name)
    constants = {c.name for c in module.constants}
    _steps(e, entry.steps, kernels, slots, constants)
    fn.block.end = "ret i32 0"
    outer, signature = guarded(entry.name, PARAMETERS)
    return "\n".join([fn.text(signature), outer])


def _steps(e: Evaluator, steps: tuple[Step, ...], kernels: dict[str, Kernel], slots: dict[str, str],
           constants: set[str]) -> None:
    for s in steps:
        if isinstance(s, Loop):
            _loop(e, s, kernels, slots, constants)
        elif s.kernel in kernels:
            _call(e, s, kernels[s.kernel], slots, constants)
        else:
            raise fault(f"'{s.kernel}' is called, which is not a kernel")


def _loop(e: Evaluator, loop: Loop, kernels: dict[str, Kernel], slots: dict[str, str], constants: set[str]) -> None:
    """Rotated, as loops in kernels are: `if (there is a turn) do { ... } while (there is another)`."""
    fn, var, outer = e.fn, loop.index, dict(e.names)
    count = e.evaluate(size_expr(loop.count))
    bound = e.scalar(count).ref
    first = e.scalar(plus(e.index(count), -1)).ref if loop.reverse else "0"
    enter = fn.value(f"icmp sgt i64 {bound}, 0", f"{var}.enter")
    before = fn.block
    head = fn.push(f"{var}.loop")
    i = fn.name(var)
    e.names[var] = Index((Term(i, fn.level, 1),))
    _steps(e, loop.steps, kernels, slots, constants)
    following = fn.value(f"add i64 {i}, {-1 if loop.reverse else 1}", f"{var}.next")
    more = fn.value(f"icmp sge i64 {following}, 0" if loop.reverse else f"icmp slt i64 {following}, {bound}",
                    f"{var}.more")
    if loop.until is not None:
        stop = fn.value(f"load i8, ptr {_place(e, loop.until, slots, constants)}, align 1", "stop")
        on = fn.value(f"icmp eq i8 {stop}, 0", "on")
        more = fn.value(f"and i1 {more}, {on}", f"{var}.more")
    end = fn.pop()
    head.lines.insert(0, f"{i} = phi i64 [ {first}, {symbol(before.label)} ], [ {following}, {symbol(end.label)} ]")
    after = fn.start(f"{var}.end")
    end.end = f"br i1 {more}, label {symbol(head.label)}, label {symbol(after.label)}"
    before.end = f"br i1 {enter}, label {symbol(head.label)}, label {symbol(after.label)}"
    e.names = outer


def _call(e: Evaluator, call: Call, kernel: Kernel, slots: dict[str, str], constants: set[str]) -> None:
    if len(call.sizes) != len(kernel.sizes) or len(call.places) != len(kernel.buffers):
        raise fault(f"kernel '{kernel.name}' takes {len(kernel.sizes)} sizes and {len(kernel.buffers)} buffers, "
                    f"but is given {len(call.sizes)} and {len(call.places)}")
    args = [f"i64 {_size(e, s)}" for s in call.sizes]
    args += [f"ptr {_place(e, p, slots, constants)}" for p in call.places]
    if has_parallel(kernel):
        args.append("ptr %pool")
    target = f"{symbol(kernel.name, '@')}({', '.join(args)})"
    if not has_checks(kernel):
        e.fn.line(f"call void {target}")
        return
    code = e.fn.value(f"call i32 {target}", "code")
    fine = e.fn.value(f"icmp eq i32 {code}, 0", "fine")
    before = e.fn.block
    bad = e.fn.start("failed")
    bad.end = f"ret i32 {code}"
    good = e.fn.start("passed")
    before.end = f"br i1 {fine}, label {symbol(good.label)}, label {symbol(bad.label)}"


def _size(e: Evaluator, size: Dim) -> str:
    return e.scalar(e.evaluate(size_expr(size))).ref


def _place(e: Evaluator, place: Place, slots: dict[str, str], constants: set[str]) -> str:
    match place.base:
        case "slot" if place.name in slots:
            base = slots[place.name]
        case "constant" if place.name in constants:
            base = symbol(place.name, "@")
        case "arena":
            base = "%arena"
        case _:
            raise fault(f"there is no {place.base} '{place.name}'")
    if place.offset == 0:
        return base
    offset = e.scalar(e.evaluate(size_expr(place.offset)))
    return e.fn.pure(f"getelementptr i8, ptr {base}, i64 {offset.ref}", offset.level, "place")

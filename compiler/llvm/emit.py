"""A module of the loop IR as LLVM IR text.

In: kernels, entries, constants, and the target. Out: text, the same for the same input, that needs nothing from outside
but the thread calls of `threads`. Kernels are internal; entries are exported with the ABI of `loops.Entry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING

from ...dsl.record import dataclass, field, replace
from ..loops.ir import (
    Call,
    Constant,
    Entry,
    Kernel,
    Loop,
    Many,
    Module,
    Place,
    Share,
    Step,
    calls,
    loops,
    places,
    size_expr,
)
from ..types.sizes import Dim

if TYPE_CHECKING:
    from ..native.target import Target
from . import microbatches, parallel, threads
from .emulate import EMULATED, RELAXED
from .environment import environment, guarded
from .expressions import Evaluator
from .kernel import Facts, facts, write
from .located import Located
from .maths import definitions
from .text import Externals, Function, fault, literal, memory_type, symbol
from .values import Index, Term, plus

WIDTH = 8  # bytes of what is no vector
MANY = 64  # steps of one function: LLVM's time grows faster than a function is long
PARAMETERS = "ptr %sizes, ptr %slots, ptr %arena, ptr %pool"  # of an entry
ATTRIBUTES = 'attributes #0 = { nounwind "no-builtins" }\n'


def emit(
    module: Module, target: Target, interface: str = "", small: bool = False, located: Located | None = None
) -> str:
    """The text of a module for a target. Where there is an `interface`, functions as text, these are what the outside
    calls and not the entries. Where code is to be `small`, and there are no vectors, lanes become turns of loops. Where
    instructions are to be `located`, those of kernels say of which line of their loops they are."""
    written = {name: EMULATED[name] for name in target.lacks if name in EMULATED}
    written |= RELAXED if target.relaxed else {}
    serial = small and target.vector_bytes <= WIDTH
    externals = Externals(
        "masked.memory" not in target.lacks, written, target.has_scale, target.has_indexed, serial, located
    )
    kernels = {k.name: k for k in module.kernels}
    about = {k.name: facts(k) for k in module.kernels}
    shared = _shared_places(module)
    parts = [_constant(c) for c in module.constants]
    parts += [write(k, about[k.name], externals, shared.get(k.name, set())) for k in module.kernels]
    parts += [
        _entry(e, kernels, about, module, externals.helpers, "internal " if interface else "") for e in module.entries
    ]
    if interface:
        parts.append(externals.declared(interface))
    if module.entries:
        parts.append(environment(target))
    apart = any(e.microbatches is not None for e in module.entries)
    if apart:
        parts.append(threads.microbatches_alone() if interface else threads.microbatches(target.triple))
    if any("@nnc.never" in p for p in parts):
        parts.append(threads.NEVER)
    shared_turns = any(loop.parallel for e in module.entries for loop in loops(e.steps))
    if (apart and not interface) or shared_turns or any(a.parallel for a in about.values()):
        parts += [threads.declarations(), threads.fork(target.triple)]
    parts += definitions(externals, "\n".join(parts))
    last = [ATTRIBUTES] if located is None else [ATTRIBUTES, located.text()]
    return "\n".join([f'target triple = "{target.triple}"\n', *parts, *sorted(externals.declares), "", *last])


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


@dataclass(slots=True)
class _Entry:
    """A function of an entry while it is written: where its places are, and what may interrupt it. There is one for all
    steps, or one for each `MANY` of them and one that calls those."""

    entry: Entry
    kernels: Mapping[str, Kernel]
    about: Mapping[str, Facts]
    constants: Set[str]
    variables: Set[str]  # the slots that are no input and no output
    position: Mapping[str, int]  # of each slot
    parts: list[str]  # the text of what it calls
    helpers: parallel.Helpers  # what the module needs
    e: Evaluator
    indices: tuple[str, ...] = ()  # of the loops around
    slots: dict[str, str] = field(default_factory=dict)  # name -> pointer
    word: int = threads.CLEAN  # HALF once a variable may have been written


def _entry(
    entry: Entry,
    kernels: Mapping[str, Kernel],
    about: Mapping[str, Facts],
    module: Module,
    helpers: parallel.Helpers,
    linkage: str,
) -> str:
    variables = {s.name for s in entry.slots if s.role == "param"}
    position = {slot.name: k for k, slot in enumerate(entry.slots)}
    constants = {c.name for c in module.constants}
    written = _Entry(entry, kernels, about, constants, variables, position, [], helpers, _evaluator(entry))
    if entry.many is not None:
        _instead(written.e, entry.many)
    if len(entry.steps) <= MANY:
        _load_slots(written, position)
    _steps(written, entry.steps, 0)
    written.e.fn.block.end = "ret i32 0"
    outer, signature = guarded(entry.name, PARAMETERS, linkage)
    if entry.microbatches is None:
        return "\n".join([*written.parts, written.e.fn.text(signature), outer])
    steps, whole = symbol(f"nnc.steps.{entry.name}", "@"), _evaluator(entry)
    microbatches.batch(entry, whole, PARAMETERS, steps)
    some = microbatches.some(entry, _evaluator(entry), PARAMETERS, steps)
    inner = written.e.fn.text(f"define internal i32 {steps}({PARAMETERS}) noinline #0")
    return "\n".join([*written.parts, inner, some, whole.fn.text(signature), outer])


def _instead(e: Evaluator, many: Many) -> None:
    """Run the other entry, where there are so many."""
    fn = e.fn
    enough = fn.value(f"icmp sge i64 {e.scalar(e.names[many.size]).ref}, {many.least}", "enough")
    before = fn.block
    other = fn.start("many")
    code = fn.value(f"call i32 {symbol(many.entry, '@')}({PARAMETERS})", "code")
    other.end = f"ret i32 {code}"
    few = fn.start("few")
    before.end = f"br i1 {enough}, label {symbol(other.label)}, label {symbol(few.label)}"


def _evaluator(entry: Entry) -> Evaluator:
    """The beginning of a function: the sizes."""
    e = Evaluator(Function(Externals()))
    fn = e.fn
    for name in ("sizes", "slots", "arena", "pool"):
        fn.fresh(name)
    for k, size in enumerate(entry.sizes):
        at = fn.pure(f"getelementptr i64, ptr %sizes, i64 {k}", 0, "at")
        e.names[size] = Index((Term(fn.value(f"load i64, ptr {at}, align 8", size), 0, 1),))
    return e


def _load_slots(entry: _Entry, names: Iterable[str]) -> None:
    fn = entry.e.fn
    for name in names:
        at = fn.pure(f"getelementptr ptr, ptr %slots, i64 {entry.position[name]}", 0, "at")
        entry.slots[name] = fn.value(f"load ptr, ptr {at}", name)


def _steps(entry: _Entry, steps: tuple[Step, ...], before: int | None = None) -> None:
    """Some steps; those that are in no loop know how many there are `before` them."""
    if len(steps) > MANY:
        for k in range(0, len(steps), MANY):
            _part(entry, steps[k : k + MANY], None if before is None else before + k)
        return
    for k, s in enumerate(steps, 1):
        if not isinstance(s, Loop) and s.kernel not in entry.kernels:
            raise fault(f"'{s.kernel}' is called, which is not a kernel")
        if _writes(entry, s):
            entry.word = threads.HALF
        if isinstance(s, Loop):
            _loop(entry, s)
        else:
            _call(entry, s, entry.kernels[s.kernel])
        if before is not None and before + k in entry.entry.marks:
            _mark(entry, before + k)


def _mark(entry: _Entry, steps: int) -> None:
    """Say that so many steps are done: what they wrote is seen before this is."""
    fn, marks = entry.e.fn, entry.entry.marks
    at = fn.pure(f"getelementptr ptr, ptr %slots, i64 {len(entry.position) - 1}", 0, "at")
    word = fn.value(f"load ptr, ptr {at}", "mark")
    fn.line(f"store atomic i64 {len(marks) - marks[::-1].index(steps)}, ptr {word} release, align 8")


def _part(entry: _Entry, steps: tuple[Step, ...], before: int | None) -> None:
    """Write a function of some steps, and call it with what the entry is called with and the turns of the loops
    around."""
    part = replace(entry, e=_evaluator(entry.entry), slots={})
    _load_slots(part, dict.fromkeys(p.name for p in places(steps) if p.name in entry.position))
    parameters, given = [PARAMETERS], [PARAMETERS]
    for index in entry.indices:
        ref = part.e.fn.name(index)
        part.e.names[index] = Index((Term(ref, 0, 1),))
        parameters.append(f"i64 {ref}")
        given.append(f"i64 {entry.e.scalar(entry.e.names[index]).ref}")
    _steps(part, steps, before)
    part.e.fn.block.end = "ret i32 0"
    name = symbol(f"nnc.part.{len(entry.parts)}.{entry.entry.name}", "@")
    entry.parts.append(part.e.fn.text(f"define internal i32 {name}({', '.join(parameters)}) #0"))
    _leave(entry.e.fn, entry.e.fn.value(f"call i32 {name}({', '.join(given)})", "code"))
    entry.word = part.word


def _writes(entry: _Entry, step: Step) -> bool:
    """Whether a step writes a variable."""
    return any(
        b.mutable and p.base == "slot" and p.name in entry.variables
        for c in calls((step,))
        if c.kernel in entry.kernels
        for p, b in zip(c.places, entry.kernels[c.kernel].buffers, strict=False)
    )


def _word(entry: _Entry) -> str:
    """The address of the word that interrupts what comes next; none where nobody interrupts."""
    fn = entry.e.fn
    if all(k.alone for k in entry.kernels.values()):
        return ""
    alone, own, words = threads.words("%pool")
    alone, own = fn.pure(alone, 0, "alone"), fn.pure(own, 0, "own")
    words = fn.pure(words.replace("%alone", alone).replace("%own", own), 0, "words")
    return fn.pure(f"getelementptr i8, ptr {words}, i64 {entry.word}", 0, "word")


def _loop(entry: _Entry, loop: Loop) -> None:
    """A loop of steps: all turns in order, or shared by threads."""
    e, share, indices = entry.e, loop.share, entry.indices
    if share is not None and loop.parallel:
        _shared(entry, loop, e.scalar(e.evaluate(size_expr((share.of + share.grain - 1) // share.grain))).ref)
        return
    count = e.evaluate(size_expr(loop.count))
    bound = e.scalar(count).ref
    if share is not None:
        e.names |= {share.first: Index(constant=0), share.count: e.index(e.evaluate(size_expr(share.of)))}
        entry.indices = (*indices, share.first, share.count)
    if loop.parallel:
        _shared(entry, loop, bound)
    else:
        _turns(entry, loop, e.scalar(plus(e.index(count), -1)).ref if loop.reverse else "0", "0", bound)
    entry.indices = indices


def _shared(entry: _Entry, loop: Loop, bound: str) -> None:
    """Write a function of some turns, and have threads call it."""
    fn = entry.e.fn
    body = replace(entry, e=_evaluator(entry.entry), slots={})
    context = parallel.Context()
    for name in ("sizes", "slots", "arena", "pool"):
        context.add("ptr", f"%{name}", f"%{name}")
    for index in entry.indices:
        ref = body.e.fn.name(index)
        body.e.names[index] = Index((Term(ref, 0, 1),))
        context.add("i64", entry.e.scalar(entry.e.names[index]).ref, ref)
    _load_slots(body, dict.fromkeys(p.name for p in places((loop,)) if p.name in entry.position))
    low, high = body.e.fn.name("low"), body.e.fn.name("high")
    if loop.share is not None:
        _known(body, loop.share, low, high)
        _loop(body, replace(loop, share=None, parallel=False))
    else:
        _turns(body, replace(loop, reverse=False), low, low, high)
    body.e.fn.block.end = "ret i32 0"
    name = f"nnc.turns.{len(entry.parts)}.{entry.entry.name}"
    entry.parts.append(body.e.fn.text(parallel.signature(name, low, high, context)))
    forked = parallel.fork(fn, name, bound, context, "%pool", _word(entry), entry.helpers)
    _leave(fn, fn.value(f"call i32 {forked}", "code"))
    entry.word = body.word


def _known(entry: _Entry, share: Share, low: str, high: str) -> None:
    """Where a share begins and how much it is, of so many grains."""
    e, fn = entry.e, entry.e.fn
    first = fn.value(f"mul i64 {low}, {share.grain}", share.first)
    most = fn.value(f"mul i64 {high}, {share.grain}", "most")
    of = e.scalar(e.evaluate(size_expr(share.of))).ref
    less = fn.value(f"icmp slt i64 {most}, {of}", "less")
    end = fn.value(f"select i1 {less}, i64 {most}, i64 {of}", "end")
    count = fn.value(f"sub i64 {end}, {first}", share.count)
    e.names |= {share.first: Index((Term(first, 0, 1),)), share.count: Index((Term(count, 0, 1),))}
    entry.indices = (*entry.indices, share.first, share.count)


def _turns(entry: _Entry, loop: Loop, first: str, low: str, bound: str) -> None:
    """The turns from `low` up to `bound`, of which one is the `first`. Rotated, as loops in kernels are: `if (there is
    a turn) do { ... } while (there is another)`."""
    e = entry.e
    fn, var, word = e.fn, loop.index, _word(entry)
    names, indices = dict(e.names), entry.indices
    enter = fn.value(f"icmp sgt i64 {bound}, {low}", f"{var}.enter")
    before = fn.block
    head = fn.push(f"{var}.loop")
    i = fn.name(var)
    e.names[var] = Index((Term(i, fn.level, 1),))
    if word:
        _leave(fn, fn.value(f"load atomic i32, ptr {word} monotonic, align 4", "now"))
    entry.indices = (*indices, var)
    _steps(entry, loop.steps)
    following = fn.value(f"add i64 {i}, {-1 if loop.reverse else 1}", f"{var}.next")
    more = fn.value(
        f"icmp sge i64 {following}, 0" if loop.reverse else f"icmp slt i64 {following}, {bound}", f"{var}.more"
    )
    if loop.until is not None:
        stop = fn.value(f"load i8, ptr {_place(entry, loop.until)}, align 1", "stop")
        on = fn.value(f"icmp eq i8 {stop}, 0", "on")
        more = fn.value(f"and i1 {more}, {on}", f"{var}.more")
    end = fn.pop()
    head.lines.insert(0, f"{i} = phi i64 [ {first}, {symbol(before.label)} ], [ {following}, {symbol(end.label)} ]")
    after = fn.start(f"{var}.end")
    end.end = f"br i1 {more}, label {symbol(head.label)}, label {symbol(after.label)}"
    before.end = f"br i1 {enter}, label {symbol(head.label)}, label {symbol(after.label)}"
    e.names, entry.indices = names, indices


def _leave(fn: Function, code: str) -> None:
    """Return a code that is not 0."""
    fine = fn.value(f"icmp eq i32 {code}, 0", "fine")
    before = fn.block
    bad = fn.start("failed")
    bad.end = f"ret i32 {code}"
    good = fn.start("passed")
    before.end = f"br i1 {fine}, label {symbol(good.label)}, label {symbol(bad.label)}"


def _call(entry: _Entry, call: Call, kernel: Kernel) -> None:
    if len(call.sizes) != len(kernel.sizes) or len(call.places) != len(kernel.buffers):
        raise fault(
            f"kernel '{kernel.name}' takes {len(kernel.sizes)} sizes and {len(kernel.buffers)} buffers, "
            f"but is given {len(call.sizes)} and {len(call.places)}"
        )
    about = entry.about[kernel.name]
    args = [f"i64 {_size(entry.e, s)}" for s in call.sizes]
    args += [f"ptr {_place(entry, p)}" for p in call.places]
    if about.parallel:
        args.append("ptr %pool")
    if about.long:
        args.append(f"ptr {_word(entry)}")
    target = f"{symbol(kernel.name, '@')}({', '.join(args)})"
    if about.code:
        _leave(entry.e.fn, entry.e.fn.value(f"call i32 {target}", "code"))
    else:
        entry.e.fn.line(f"call void {target}")


def _size(e: Evaluator, size: Dim) -> str:
    return e.scalar(e.evaluate(size_expr(size))).ref


def _place(entry: _Entry, place: Place) -> str:
    match place.base:
        case "slot" if place.name in entry.slots:
            base = entry.slots[place.name]
        case "constant" if place.name in entry.constants:
            base = symbol(place.name, "@")
        case "arena":
            base = "%arena"
        case _:
            raise fault(f"there is no {place.base} '{place.name}'")
    if place.offset == 0:
        return base
    e = entry.e
    offset = e.scalar(e.evaluate(size_expr(place.offset)))
    return e.fn.pure(f"getelementptr i8, ptr {base}, i64 {offset.ref}", offset.level, "place")

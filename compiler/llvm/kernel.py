"""Kernels: statements and loops of the loop IR as blocks of LLVM instructions.

In: a kernel. Out: one internal function, and two more for each parallel loop. Expressions are evaluated in
`expressions`, lanes are in `vectors`; this file is statements and scalar control flow. A loop is written rotated,
`if (start < stop) do { ... } while (...)`; what is constant is decided here and leaves no branch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from ..loops.ir import Apply, Check, Const, Expr, For, If, Kernel, Let, Prefetch, Reduce, Register, Stmt, Store, walk
from . import parallel, transpose
from .located import lines
from .memory import ALIGNMENT, Memory
from .text import Externals, Function, fault, symbol, type_text
from .values import Index, Operand, Term, Value, plus, sum_of
from .vectors import VectorLoops

MAX_REGISTER_BYTES = 1 << 16  # what does not become registers stands on the stack
_SOON = 1 << 24  # turns that take a tenth of a second at most
_UNKNOWN = float(1 << 20)  # a size that is known when it runs
_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": lambda a, b: a / (b or 1.0),
    "minimum": min, "maximum": max,
}  # fmt: skip


def has_checks(kernel: Kernel) -> bool:
    return any(isinstance(s, Check) for s in walk(kernel.body))


def has_parallel(kernel: Kernel) -> bool:
    return any(isinstance(s, For) and s.parallel for s in walk(kernel.body))


def is_long(s: For | Kernel) -> bool:
    """Whether a loop, or some loop of a kernel, may take so long that each of its turns looks whether it is to stop:
    one that does not end soon, as far as sizes are known. Where it holds no other loop a look costs something: a
    parallel one is looked after by `threads` where it is shared, and another whose length is not known must be likely
    to be longer."""
    if isinstance(s, Kernel):
        return not s.alone and any(isinstance(x, For) and (x.parallel or is_long(x)) for x in walk(s.body))
    if any(isinstance(x, For) and x.unroll for x in walk(s.body)):
        return _turns((s,)) > _SOON
    known = isinstance(s.start, Const) and isinstance(s.stop, Const)
    return not (s.parallel and s.when is None) and _turns((s,)) > (_SOON if known else 64 * _SOON)


def _turns(stmts: tuple[Stmt, ...]) -> float:
    """How often the innermost loops among statements turn, about."""
    total = 0.0
    for s in stmts:
        if isinstance(s, If):
            total += _turns(s.body)
        elif isinstance(s, For):
            trips = (_about(s.stop) - _about(s.start)) / (s.step * s.lanes)
            total += max(1.0, trips) * max(1.0, _turns(s.body))
    return total


def _about(e: Expr) -> float:
    """An index as a number, where all that is known when it runs is `_UNKNOWN`."""
    match e:
        case Const(value):
            return float(value)
        case Apply(fn, (a, b)) if fn in _ARITHMETIC:
            return _ARITHMETIC[fn](_about(a), _about(b))
    return _UNKNOWN


def _is_known(v: Operand | None) -> bool:
    return (isinstance(v, Index) and v.known) or (isinstance(v, Value) and v.const is not None)


class Facts(NamedTuple):
    """What those who call a kernel must know: whether it has parallel loops, may be interrupted, returns a code."""

    parallel: bool
    long: bool
    code: bool


def facts(kernel: Kernel) -> Facts:
    long = is_long(kernel)
    return Facts(has_parallel(kernel), long, long or has_checks(kernel))


def write(kernel: Kernel, about: Facts, externals: Externals, shared: set[int]) -> str:
    """The text of a kernel's functions. `externals` grows by what they use; `shared`: the buffers that some call
    gives the place of another. The others are `noalias`."""
    apart = frozenset(b.name for k, b in enumerate(kernel.buffers) if k not in shared)
    w = Writer(kernel, about.code, externals, apart)
    w.fn.fresh("entry")
    parameters = []
    for s in kernel.sizes:
        ref = w.fn.name(s)
        w.names[s] = Index((Term(ref, 0, 1),))
        parameters.append(f"i64 {ref}")
    for b in kernel.buffers:
        ref = w.fn.name(b.name)
        w.memory[b.name] = Memory(ref, b.dtype)
        parameters.append(" ".join(filter(None, ("ptr", w.attributes(b.name), ref))))
    if about.parallel:
        w.pool = w.fn.name("pool")
        parameters.append(f"ptr {w.pool}")
    if about.long:
        w.word = w.fn.name("word")
        parameters.append(f"ptr {w.word}")
    w.body(kernel.body)
    w.fn.block.end = "ret i32 0" if w.checks else "ret void"
    result = "i32" if w.checks else "void"
    signature = f"define internal {result} {symbol(kernel.name, '@')}({', '.join(parameters)}) #0"
    return "\n".join([*w.outlined, w.fn.text(signature)])


class Writer(VectorLoops):
    """Writes one function. Holds the text so far, the names in scope and the lanes of the vector loop around."""

    def __init__(self, kernel: Kernel, checks: bool, externals: Externals, apart: frozenset[str], name: str = ""):
        super().__init__(Function(externals))
        self.kernel = kernel
        self.name = name or kernel.name
        self.checks = checks
        self.apart = apart  # buffers that overlap no other
        self.pool = ""  # where the kernel has parallel loops
        self.word = ""  # where it may be interrupted
        self.outlined: list[str] = []  # the bodies of parallel loops
        self._lines = lines(kernel) if externals.located is not None else {}

    def attributes(self, buffer: str) -> str:
        """Of a buffer's parameter."""
        mutable = any(b.name == buffer and b.mutable for b in self.kernel.buffers)
        return " ".join(["noalias"] * (buffer in self.apart) + ["readonly"] * (not mutable))

    # --- statements ------------------------------------------------------------------------------------------------

    def body(self, stmts: tuple[Stmt, ...], **bound: Operand) -> None:
        """Statements in a scope of names of their own."""
        outer_names, outer_memory = self.names, self.memory
        self.names, self.memory = {**outer_names, **bound}, dict(outer_memory)
        for s in stmts:
            self.statement(s)
        self.names, self.memory = outer_names, outer_memory

    def statement(self, s: Stmt) -> None:
        if not self._lines:
            self._write(s)
            return
        outer, self.fn.at = self.fn.at, self._lines.get(id(s), 0)
        self._write(s)
        self.fn.at = outer

    def _write(self, s: Stmt) -> None:
        match s:
            case Let(name, value):
                self.names[name] = self.evaluate(value, name)
            case Store(buffer, index, value):
                self.store(buffer, self.index_of(index), self.evaluate(value))
            case Reduce():
                self.reduce(s)
            case Register(name, dtype, length):
                if not 0 < length * ALIGNMENT[dtype] <= MAX_REGISTER_BYTES:
                    raise fault(f"registers '{name}' are {length} of {dtype}; the most is {MAX_REGISTER_BYTES} bytes")
                ref = self.fn.alloca(f"[{length} x {type_text(dtype)}]", name)
                self.memory[name] = Memory(ref, dtype, length)
            case For():
                self.loop(s)
            case If(condition, body):
                self.branch(self.scalar(self.evaluate(condition)), body)
            case Check(condition, code):
                self.check(self.evaluate(condition), code)
            case Prefetch(buffer, index, level):
                self.prefetch(buffer, self.index(self.evaluate(index)), level)

    def branch(self, condition: Value, body: tuple[Stmt, ...]) -> None:
        if condition.const is not None:
            if condition.const.value:
                self.body(body)
            return
        before = self.fn.block
        then = self.fn.push("then")
        self.body(body)
        last = self.fn.pop()
        after = self.fn.start("endif")
        before.end = f"br i1 {condition.ref}, label {symbol(then.label)}, label {symbol(after.label)}"
        last.end = f"br label {symbol(after.label)}"

    def check(self, condition: Operand, code: int) -> None:
        """Return `code` when the condition is false in a lane that is on."""
        ok = self.in_lanes(condition) if self.lanes and self.varies(condition) else self.scalar(condition)
        if ok.const is not None and ok.const.value:
            return
        i = self.instructions(ok, dtype="bool", lanes=ok.lanes)
        failed = i.flip(ok.ref)
        here = replace(i, level=self.fn.level)
        if ok.lanes > 1 and self.lanes and self.lanes.mask:
            failed = here.both(failed, self.lanes.mask)
        elif self.lanes and self.lanes.some:
            failed = here.both(failed, self.lanes.some)
        if ok.lanes > 1:
            failed = self.any_lane(failed, ok.lanes)
        self.leave(failed, str(code))

    def leave(self, condition: str, code: str) -> None:
        """Return `code` where the condition holds."""
        before = self.fn.block
        bad = self.fn.start("failed")
        bad.end = f"ret i32 {code}"
        good = self.fn.start("passed")
        before.end = f"br i1 {condition}, label {symbol(bad.label)}, label {symbol(good.label)}"

    def look(self, s: For) -> None:
        """At the beginning of a turn: return the code in the word, if one is there."""
        if self.word and is_long(s):
            now = self.fn.value(f"load atomic i32, ptr {self.word} monotonic, align 4", "now")
            self.leave(self.fn.value(f"icmp ne i32 {now}, 0", "interrupted"), now)

    # --- loops -----------------------------------------------------------------------------------------------------

    def loop(self, s: For) -> None:
        start, stop = self.index(self.evaluate(s.start)), self.index(self.evaluate(s.stop))
        if s.step < 1 or s.lanes < 1 or s.lanes & (s.lanes - 1):
            raise fault(f"loop '{s.var}' has step {s.step} and {s.lanes} lanes")
        if start.stride or stop.stride:
            raise fault(f"the bounds of loop '{s.var}' differ between lanes")
        if s.parallel:
            self.parallel_loop(s, start, stop)
        else:
            self.loop_over(s, start, stop)

    def loop_over(self, s: For, start: Index, stop: Index) -> None:
        """A loop on this thread."""
        if s.first:
            self.names[s.first] = start
        if s.lanes > 1:
            self.vector_loop(s, start, stop)
        elif s.unroll == 0:
            for k in range(self.constant_trips(s, start, stop)):
                self.body(s.body, **{s.var: plus(start, k * s.step)})
        else:
            self.scalar_loop(s, start, stop)

    def scalar_loop(self, s: For, start: Index, stop: Index) -> None:
        """`unroll` copies in one turn as long as all of them fit, then one at a time."""

        def copies(n: int) -> Callable[[Index], None]:
            def turn(i: Index) -> None:
                self.look(s)
                for k in range(n):
                    self.body(s.body, **{s.var: plus(i, k * s.step)})

            return turn

        copy = transpose.copy_in(s) if not self.fn.externals.serial else None
        if copy is not None and {copy.store.buffer, copy.load.buffer} <= self.apart:
            start = self.transposed(s, copy, start, stop)
        if s.unroll > 1:
            start = self.turns(s.var, start, stop, s.step, s.unroll, copies(s.unroll))
        self.turns(s.var, start, stop, s.step, 1, copies(1), rest=False)

    def turns(
        self, var: str, start: Index, stop: Index, step: int, n: int, body: Callable[[Index], None], rest: bool = True
    ) -> Index:
        """`for (i = start; i + (n-1) * step < stop; i += n * step) body(i)`; returns where it stopped if there is a
        `rest` to be done."""
        stride = n * step
        length = sum_of(stop, start, -1)
        if length.known:
            full = max(0, (-(-length.constant // step)) // n)
            if full == 0:
                return start
            if full == 1:
                body(start)
                return plus(start, stride)
        fn = self.fn
        last = plus(stop, -(n - 1) * step)  # run while i < last
        first, bound = self.scalar(start), self.scalar(last)
        before = fn.block
        head = fn.push(f"{var}.loop")
        i = fn.name(var)
        body(Index((Term(i, fn.level, 1),)))
        following = fn.following(i, stride, f"{var}.next")
        more = fn.value(f"icmp slt i64 {following}, {bound.ref}", f"{var}.more")
        end = fn.pop()
        head.lines.insert(
            0, f"{i} = phi i64 [ {first.ref}, {symbol(before.label)} ], [ {following}, {symbol(end.label)} ]"
        )
        after = fn.start(f"{var}.end")
        end.end = f"br i1 {more}, label {symbol(head.label)}, label {symbol(after.label)}"
        if length.known:
            before.end = f"br label {symbol(head.label)}"
            return plus(start, full * stride)
        enter = f"icmp slt i64 {first.ref}, {bound.ref}"
        guard = fn.name(f"{var}.enter")
        before.lines.append(f"{guard} = {enter}")
        before.end = f"br i1 {guard}, label {symbol(head.label)}, label {symbol(after.label)}"
        if not rest:
            return stop
        reached = fn.value(
            f"phi i64 [ {first.ref}, {symbol(before.label)} ], [ {following}, {symbol(end.label)} ]", f"{var}.rest"
        )
        return Index((Term(reached, fn.level, 1),))

    # --- parallel loops --------------------------------------------------------------------------------------------

    def parallel_loop(self, s: For, start: Index, stop: Index) -> None:
        """`nnc.fork(pool, word, name, context, turns)`, or all turns on this thread where that is not worth while."""
        fn = self.fn
        if self.lanes or not self.pool:
            raise fault(f"parallel loop '{s.var}' is in lanes")
        if s.bound is not None:
            stop = self.smaller(stop, self.index(self.evaluate(s.bound)))
        stride = s.step * s.lanes
        length = self.scalar(plus(sum_of(stop, start, -1), stride - 1)).ref
        turns = length if stride == 1 else fn.value(f"sdiv i64 {length}, {stride}", "turns")
        name, context = self.outline(f"{self.name}.{fn.fresh(s.var)}", s, start, stop)
        if s.when is None:
            code = self.fork(name, turns, context)
        else:
            condition = self.scalar(self.evaluate(s.when)).ref
            before, many = fn.block, fn.push("many")
            forked = self.fork(name, turns, context)
            many_end, few = fn.pop(), fn.push("few")
            alone = fn.value(parallel.directly(name, turns, context), "code")
            few_end, after = fn.pop(), fn.start("ran")
            before.end = f"br i1 {condition}, label {symbol(many.label)}, label {symbol(few.label)}"
            many_end.end = few_end.end = f"br label {symbol(after.label)}"
            ways = f"[ {forked}, {symbol(many_end.label)} ], [ {alone}, {symbol(few_end.label)} ]"
            code = fn.value(f"phi i32 {ways}", "code")
        self.stores += 1
        self.leave(fn.value(f"icmp ne i32 {code}, 0", "failed"), code)

    def outline(self, name: str, s: For, start: Index, stop: Index) -> tuple[str, parallel.Context]:
        """Write the functions of a parallel loop, where they are not those of one that was written before; gives their
        name, and what they are to be called with."""
        inner = Writer(self.kernel, self.checks, self.fn.externals, self.apart, name)
        inner.fn.fresh("entry")
        low, high = inner.fn.name("low"), inner.fn.name("high")
        context, stride = parallel.Context(), s.step * s.lanes
        form, values, buffers = parallel.form(s)
        first = inner.index(inner.receive("start", start, self, context))
        last = inner.index(inner.receive("stop", stop, self, context))
        inner.word = inner.fn.name("word")
        context.add("ptr", self.word, inner.word)
        if any(isinstance(x, For) and x.parallel for x in walk(s.body)):
            inner.pool = inner.fn.name("pool")
            context.add("ptr", self.pool, inner.pool)
        for value in filter(self.names.__contains__, values):
            inner.names[value] = inner.receive(value, self.names[value], self, context)
        for buffer in filter(self.memory.__contains__, buffers):
            m = self.memory[buffer]
            if m.length is not None:
                raise fault(f"registers '{buffer}' do not reach into a parallel loop")
            inner.memory[buffer] = Memory(inner.fn.name(buffer), m.dtype)
            context.add("ptr", m.ref, inner.memory[buffer].ref, self.attributes(buffer))
        known = [repr(v) if _is_known(v) else "" for v in (start, stop, *map(self.names.get, values))]
        dtypes = [self.memory[b].dtype if b in self.memory else "" for b in buffers]
        key = (form, is_long(s), context.form, *known, *dtypes)
        if self.fn.externals.located is None and key in self.fn.externals.outlined:
            return self.fn.externals.outlined[key], context
        self.fn.externals.outlined[key] = name
        last = inner.smaller(last, sum_of(first, Index((Term(high, 0, stride),))))
        inner.loop_over(replace(s, bound=None), sum_of(first, Index((Term(low, 0, stride),))), last)
        inner.fn.block.end = "ret i32 0"
        self.outlined += [
            *inner.outlined,
            inner.fn.text(parallel.signature(name, low, high, context)),
        ]
        return name, context

    def fork(self, name: str, turns: str, context: parallel.Context) -> str:
        """The code of a loop that threads share."""
        helpers = self.fn.externals.helpers
        forked = parallel.fork(self.fn, name, turns, context, self.pool, self.word, helpers)
        return self.fn.value(f"call i32 {forked}", "code")

    def receive(self, name: str, v: Operand, outer: Writer, context: parallel.Context) -> Index | Value:
        """The same value in a parallel body; what is not constant is passed in the context."""
        if _is_known(v):
            return v
        given = outer.scalar(v)
        ref = self.fn.name(name)
        if given.dtype == "bool":
            context.add("i8", outer.stored(given), ref)
            ref = self.fn.pure(f"trunc i8 {ref} to i1", 0)
        else:
            context.add(type_text(given.dtype), given.ref, ref)
        return self.result(Value(ref, given.dtype, 1, 0))

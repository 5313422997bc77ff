"""Kernels: statements and loops of the loop IR as blocks of LLVM instructions.

In: a kernel. Out: one internal function, and one more for each parallel loop. Expressions are evaluated in
`expressions`; this file is control flow: what a loop, a vector loop and its masked tail look like.

A loop is written rotated, `if (start < stop) do { ... } while (...)`. A vector loop of unknown length is a loop over
whole groups of lanes followed by one masked group; what is constant is decided here and leaves no branch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..loops import (
    MAX_UNROLL,
    Apply,
    Check,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Reduce,
    Register,
    Stmt,
    Store,
    Var,
    walk,
)
from . import functions
from .expressions import Evaluator, Lanes, Memory
from .instructions import Instructions
from .text import Externals, Function, fault, literal, symbol, type_text, vector_literal
from .values import Index, Operand, Term, Value, sum_of


def has_checks(kernel: Kernel) -> bool:
    return any(isinstance(s, Check) for s in walk(kernel.body))


def has_parallel(kernel: Kernel) -> bool:
    return any(isinstance(s, For) and s.parallel for s in walk(kernel.body))


def write(kernel: Kernel, externals: Externals, fused: bool, distinct: bool) -> str:
    """The text of a kernel's functions. `externals` grows by what they use; `fused`: the target has FMA;
    `distinct`: no call gives one place to two buffers."""
    w = Writer(kernel, externals, fused)
    alias = "noalias " if distinct else ""
    parameters = []
    for s in kernel.sizes:
        ref = w.fn.name(s)
        w.names[s] = Index((Term(ref, 0, 1),))
        parameters.append(f"i64 {ref}")
    for b in kernel.buffers:
        ref = w.fn.name(b.name)
        w.memory[b.name] = Memory(ref, b.dtype)
        parameters.append(f"ptr {alias}{'' if b.mutable else 'readonly '}{ref}")
    if has_parallel(kernel):
        w.pool = w.fn.name("pool")
        parameters.append(f"ptr {w.pool}")
    w.body(kernel.body)
    w.fn.block.end = "ret i32 0" if w.checks else "ret void"
    result = "i32" if w.checks else "void"
    signature = f"define internal {result} {symbol(kernel.name, '@')}({', '.join(parameters)}) #0"
    return "\n".join([*w.outlined, w.fn.text(signature)])


class Writer(Evaluator):
    """Writes one function. Holds the text so far, the names in scope and the lanes of the vector loop around."""

    def __init__(self, kernel: Kernel, externals: Externals, fused: bool):
        super().__init__(Function(externals), fused)
        self.kernel = kernel
        self.checks = has_checks(kernel)
        self.pool = ""  # where the kernel has parallel loops
        self.outlined: list[str] = []  # the bodies of parallel loops

    # --- statements ------------------------------------------------------------------------------------------------

    def body(self, stmts: tuple[Stmt, ...], **bound: Operand) -> None:
        """Statements in a scope of names of their own."""
        outer_names, outer_memory = self.names, self.memory
        self.names, self.memory = {**outer_names, **bound}, dict(outer_memory)
        for s in stmts:
            self.statement(s)
        self.names, self.memory = outer_names, outer_memory

    def statement(self, s: Stmt) -> None:
        match s:
            case Let(name, value):
                self.names[name] = self.evaluate(value, name)
            case Store(buffer, index, value):
                self.store(buffer, self.evaluate(index), self.evaluate(value))
            case Reduce(buffer, index, fold, value):
                self.reduce(buffer, self.evaluate(index), fold, self.evaluate(value))
            case Register(name, dtype, length):
                ref = self.fn.alloca(f"[{length} x {type_text(dtype)}]", name)
                self.memory[name] = Memory(ref, dtype, length)
            case For():
                self.loop(s)
            case If(condition, body):
                self.branch(self.scalar(self.evaluate(condition)), body)
            case Check(condition, code):
                self.check(self.evaluate(condition), code)

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
        if ok.lanes > 1 and self.lanes and self.lanes.mask:
            failed = replace(i, level=self.fn.level).both(failed, self.lanes.mask)
        if ok.lanes > 1:
            failed = self.any_lane(failed, ok.lanes)
        before = self.fn.block
        bad = self.fn.start("failed")
        bad.end = f"ret i32 {code}"
        good = self.fn.start("passed")
        before.end = f"br i1 {failed}, label {symbol(bad.label)}, label {symbol(good.label)}"

    # --- loops -----------------------------------------------------------------------------------------------------

    def loop(self, s: For) -> None:
        start, stop = self.index(self.evaluate(s.start)), self.index(self.evaluate(s.stop))
        if s.step < 1 or s.lanes < 1 or s.lanes & (s.lanes - 1):
            raise fault(f"loop '{s.var}' has step {s.step} and {s.lanes} lanes")
        if start.stride or stop.stride:
            raise fault(f"the bounds of loop '{s.var}' differ between lanes")
        if s.parallel:
            self.parallel_loop(s, start, stop)
        elif s.lanes > 1:
            self.vector_loop(s, start, stop)
        elif s.unroll == 0:
            for k in range(self.constant_trips(s, start, stop)):
                self.body(s.body, **{s.var: sum_of(start, Index((), k * s.step))})
        else:
            self.scalar_loop(s, start, stop)

    def constant_trips(self, s: For, start: Index, stop: Index) -> int:
        """The trip count of a loop that is unrolled completely."""
        length = sum_of(stop, start, -1)
        if not length.known:
            raise fault(f"loop '{s.var}' is to be unrolled, but its trip count is not constant")
        trips = max(0, -(-length.constant // s.step))
        if trips > MAX_UNROLL * s.lanes:
            raise fault(f"loop '{s.var}' is to be unrolled {trips} times; the most is {MAX_UNROLL}")
        return trips

    def scalar_loop(self, s: For, start: Index, stop: Index) -> None:
        """`unroll` copies in one turn as long as all of them fit, then one at a time."""
        def copies(n: int) -> Callable[[Index], None]:
            def turn(i: Index) -> None:
                for k in range(n):
                    self.body(s.body, **{s.var: sum_of(i, Index((), k * s.step))})
            return turn

        if s.unroll > 1:
            start = self.turns(s.var, start, stop, s.step, s.unroll, copies(s.unroll))
        self.turns(s.var, start, stop, s.step, 1, copies(1), rest=False)

    def turns(self, var: str, start: Index, stop: Index, step: int, n: int, body: Callable[[Index], None],
              rest: bool = True) -> Index:
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
                return sum_of(start, Index((), stride))
        fn = self.fn
        last = sum_of(stop, Index((), (n - 1) * step), -1)  # run while i < last
        first, bound = self.scalar(start), self.scalar(last)
        before = fn.block
        head = fn.push(f"{var}.loop")
        i = fn.name(var)
        body(Index((Term(i, fn.level, 1),)))
        following = fn.value(f"add i64 {i}, {stride}", f"{var}.next")
        more = fn.value(f"icmp slt i64 {following}, {bound.ref}", f"{var}.more")
        end = fn.pop()
        head.lines.insert(0, f"{i} = phi i64 [ {first.ref}, {symbol(before.label)} ], "
                             f"[ {following}, {symbol(end.label)} ]")
        after = fn.start(f"{var}.end")
        end.end = f"br i1 {more}, label {symbol(head.label)}, label {symbol(after.label)}"
        if length.known:
            before.end = f"br label {symbol(head.label)}"
            return sum_of(start, Index((), full * stride))
        enter = f"icmp slt i64 {first.ref}, {bound.ref}"
        guard = fn.name(f"{var}.enter")
        before.lines.append(f"{guard} = {enter}")
        before.end = f"br i1 {guard}, label {symbol(head.label)}, label {symbol(after.label)}"
        if not rest:
            return stop
        reached = fn.value(f"phi i64 [ {first.ref}, {symbol(before.label)} ], [ {following}, {symbol(end.label)} ]",
                           f"{var}.rest")
        return Index((Term(reached, fn.level, 1),))

    # --- vector loops ----------------------------------------------------------------------------------------------

    def vector_loop(self, s: For, start: Index, stop: Index) -> None:
        if self.lanes:
            raise fault(f"vector loop '{s.var}' stands inside another")
        level, before = self.fn.level, self.fn.block
        bound = self.index(self.evaluate(s.bound)) if s.bound is not None else None
        if bound is not None and bound.stride:
            raise fault(f"the bound of loop '{s.var}' differs between lanes")
        self.lanes = Lanes(s.lanes, level, before)
        lanes = self.lanes
        if s.unroll == 0:
            trips = self.constant_trips(s, start, stop)
            for k in range(0, trips, s.lanes):
                self.group(s, sum_of(start, Index((), k * s.step)), min(s.lanes, trips - k), bound)
        else:
            if bound is not None:
                stop = self.smaller(stop, bound)
            for n in (s.unroll, 1) if s.unroll > 1 else (1,):
                start = self.turns(s.var, start, self.whole(s, start, stop), s.step * s.lanes, n, self.groups(s, n))
            self.tail(s, start, stop)
        self.lanes = None
        self.finish(lanes)

    def whole(self, s: For, start: Index, stop: Index) -> Index:
        """Where the last whole group ends: the loop over groups runs while i < this."""
        return sum_of(stop, Index((), (s.lanes - 1) * s.step), -1)

    def groups(self, s: For, n: int) -> Callable[[Index], None]:
        def turn(i: Index) -> None:
            for k in range(n):
                self.group(s, sum_of(i, Index((), k * s.step * s.lanes)), s.lanes, None)
        return turn

    def group(self, s: For, first: Index, count: int, bound: Index | None) -> None:
        """The body for one group of lanes, of which the first `count` are on, and of these the ones before `bound`."""
        assert self.lanes
        mask = None if count == s.lanes else vector_literal([k < count for k in range(s.lanes)], "bool")
        if bound is not None:
            left = sum_of(bound, first, -1)
            if left.known:
                count = min(count, max(0, -(-left.constant // s.step)))
                mask = None if count == s.lanes else vector_literal([k < count for k in range(s.lanes)], "bool")
            else:
                before_bound = self.prefix(left, s)
                i = Instructions(self.fn, "bool", s.lanes, left.level, self.fused, "mask")
                mask = before_bound if mask is None else i.both(before_bound, mask)
        if mask is not None and count == 0:
            return
        self.lanes.mask = mask
        self.body(s.body, **{s.var: replace(first, stride=s.step)})
        self.lanes.mask = None

    def tail(self, s: For, start: Index, stop: Index) -> None:
        """The last, incomplete group, if there is one."""
        assert self.lanes
        left = sum_of(stop, start, -1)
        if left.known:
            count = -(-left.constant // s.step)
            if count > 0:
                self.group(s, start, count, None)
            return
        first, bound = self.scalar(start), self.scalar(stop)
        before = self.fn.block
        rest = self.fn.push(f"{s.var}.tail")
        self.lanes.mask = self.prefix(left, s)
        self.body(s.body, **{s.var: replace(start, stride=s.step)})
        self.lanes.mask = None
        last = self.fn.pop()
        guard = self.fn.name(f"{s.var}.rest")
        before.lines.append(f"{guard} = icmp slt i64 {first.ref}, {bound.ref}")
        after = self.fn.start(f"{s.var}.done")
        before.end = f"br i1 {guard}, label {symbol(rest.label)}, label {symbol(after.label)}"
        last.end = f"br label {symbol(after.label)}"

    def prefix(self, left: Index, s: For) -> str:
        """The mask of lanes l with l * step < left."""
        assert self.lanes
        n, level = s.lanes, left.level
        i = Instructions(self.fn, "i64", 1, level, self.fused, "left")
        remaining = self.scalar(left).ref
        clipped = i.intrinsic("smin", i.intrinsic("smax", remaining, "0"), str(n * s.step))
        count = i.convert("trunc", clipped, "i32")
        i32 = Instructions(self.fn, "i32", n, level, self.fused, "mask")
        iota = vector_literal([k * s.step for k in range(n)], "i32")
        return i32.compare("slt", iota, self.splat(Value(count, "i32", 1, level), n).ref)

    def smaller(self, a: Index, b: Index) -> Index:
        difference = sum_of(a, b, -1)
        if difference.known:
            return a if difference.constant <= 0 else b
        level = max(a.level, b.level)
        i = Instructions(self.fn, "i64", 1, level, self.fused, "stop")
        return Index((Term(i.intrinsic("smin", self.scalar(a).ref, self.scalar(b).ref), level, 1),))

    # --- parallel loops --------------------------------------------------------------------------------------------

    def parallel_loop(self, s: For, start: Index, stop: Index) -> None:
        """`nnc.fork(pool, body, context, turns)`: the body becomes a function of a range of turns, a turn being one
        iteration or one group of lanes, that finds what it reads in the context."""
        fn = self.fn
        if fn.level or self.lanes or not self.pool:
            raise fault(f"parallel loop '{s.var}' is not the outermost loop")
        if s.bound is not None:
            stop = self.smaller(stop, self.index(self.evaluate(s.bound)))
        stride = s.step * s.lanes
        i = Instructions(fn, "i64", 1, fn.level, self.fused, "turns")
        length = self.scalar(sum_of(stop, Index((), stride - 1 - start.constant), 1) if start.known
                         else sum_of(sum_of(stop, start, -1), Index((), stride - 1)))
        turns = i.op("sdiv", length.ref, str(stride))
        inner = Writer(self.kernel, fn.externals, self.fused)
        name = f"{self.kernel.name}.{fn.fresh(f'parallel.{s.var}')}"
        given = {"": start, "\0": stop, **self.names}
        used = _free(s)
        context: list[str] = []
        for key, v in given.items():
            if key and key != "\0" and key not in used:
                continue
            inner.names[key] = inner.captured(v, self, context)
        for key, m in self.memory.items():
            if key in used:
                if m.length is not None:
                    raise fault(f"registers '{key}' do not reach into a parallel loop")
                at = inner.slot(len(context))
                inner.memory[key] = Memory(inner.fn.pure(f"load ptr, ptr {at}, align 8", 0, key), m.dtype)
                context.append(f"ptr {m.ref}")
        where = fn.alloca(f"[{max(1, len(context))} x i64]", "context")
        for k, text in enumerate(context):
            fn.line(f"store {text}, ptr {fn.pure(f'getelementptr i64, ptr {where}, i64 {k}', 0, 'p')}, align 8")
        self.outlined.append(inner.outline(name, s))
        args = f"ptr {self.pool}, ptr {symbol(name, '@')}, ptr {where}, i64 {turns}"
        code = fn.value(f"call i32 @nnc.fork({args})", "code")
        self.stores += 1
        if self.checks:
            before = fn.block
            bad = fn.start("failed")
            bad.end = f"ret i32 {code}"
            good = fn.start("passed")
            fine = fn.name("fine")
            before.lines.append(f"{fine} = icmp eq i32 {code}, 0")
            before.end = f"br i1 {fine}, label {symbol(good.label)}, label {symbol(bad.label)}"

    def slot(self, k: int) -> str:
        """Where the k-th captured value is."""
        return self.fn.pure(f"getelementptr i64, ptr %context, i64 {k}", 0, "at")

    def captured(self, v: Operand, outer: Writer, context: list[str]) -> Operand:
        """The same value inside the outlined function; what is not constant is passed in the context."""
        if (isinstance(v, Index) and v.known) or (isinstance(v, Value) and v.const is not None):
            return v
        given = outer.scalar(v)
        stored = Value(outer.stored(given), "i8", 1, given.level) if given.dtype == "bool" else given
        type_ = type_text(stored.dtype)
        ref = self.fn.pure(f"load {type_}, ptr {self.slot(len(context))}, align 8", 0)
        context.append(f"{type_} {stored.ref}")
        if given.dtype == "bool":
            ref = self.fn.pure(f"trunc i8 {ref} to i1", 0)
        return self.result(Value(ref, given.dtype, 1, 0))

    def outline(self, name: str, s: For) -> str:
        """The function of a range of turns of a parallel loop; `names` already holds what the body reads."""
        fn = self.fn
        fn.fresh("context")
        low, high = fn.name("low"), fn.name("high")
        start, stop = self.index(self.names.pop("")), self.index(self.names.pop("\0"))
        stride = s.step * s.lanes
        first = sum_of(start, Index((Term(low, 0, stride),)))
        last = self.smaller(stop, sum_of(start, Index((Term(high, 0, stride),))))
        returns_code, self.checks = self.checks, True
        if s.lanes > 1:
            self.vector_loop(replace(s, bound=None), first, last)
        else:
            self.scalar_loop(s, first, last)
        self.checks = returns_code
        fn.block.end = "ret i32 0"
        return fn.text(f"define internal i32 {symbol(name, '@')}(ptr %context, i64 {low}, i64 {high}) #0")

    # --- reductions ------------------------------------------------------------------------------------------------

    def reduce(self, buffer: str, index: Operand, fold: str, value: Operand) -> None:
        """`buffer[index] fold= value`. In a vector loop, with an index that is the same in all lanes, the lanes keep
        partial results that `finish` combines after the loop."""
        memory = self.memory[buffer]
        rule = functions.FOLD_RULES[fold]
        if self.lanes is None or self.varies(index):
            self.update(buffer, index, value, rule)
            return
        assert isinstance(index, Index)
        lanes = self.lanes
        if index.level > lanes.level:
            raise fault(f"'{buffer}' is reduced in lanes at an index that changes inside the vector loop")
        key = (buffer, index, fold)
        type_ = type_text(memory.dtype, lanes.count)
        if key not in lanes.partial:
            ref = self.fn.alloca(type_, f"{buffer}.{fold}")
            start = literal(functions.identity(fold, memory.dtype), memory.dtype, lanes.count)
            self.fn.line(f"store {type_} {start}, ptr {ref}, align 64", lanes.before)
            lanes.partial[key] = ref
        ref = lanes.partial[key]
        old = self.fn.value(f"load {type_}, ptr {ref}, align 64", f"{buffer}.{fold}")
        i = Instructions(self.fn, memory.dtype, lanes.count, self.fn.level, self.fused, f"{buffer}.{fold}")
        new = rule(i, old, self.in_lanes(value).ref)
        if lanes.mask:
            new = i.select(lanes.mask, new, old)
        self.fn.line(f"store {type_} {new}, ptr {ref}, align 64")

    def finish(self, lanes: Lanes) -> None:
        """Combine the partial results by halving and fold them into memory."""
        for (buffer, index, fold), ref in lanes.partial.items():
            memory, n = self.memory[buffer], lanes.count
            rule, stem = functions.FOLD_RULES[fold], f"{buffer}.{fold}"
            type_ = type_text(memory.dtype, n)
            total = self.fn.value(f"load {type_}, ptr {ref}, align 64", stem)
            while n > 2:
                n //= 2
                low, high = (
                    self.fn.value(f"shufflevector {type_} {total}, {type_} poison, <{n} x i32> "
                                  + vector_literal(list(range(at, at + n)), "i32"), stem)
                    for at in (0, n)
                )
                type_ = type_text(memory.dtype, n)
                total = rule(Instructions(self.fn, memory.dtype, n, self.fn.level, self.fused, stem), low, high)
            low, high = (self.fn.value(f"extractelement {type_} {total}, i64 {k}", stem) for k in (0, 1))
            total = rule(Instructions(self.fn, memory.dtype, 1, self.fn.level, self.fused, stem), low, high)
            self.update(buffer, index, self.result(Value(total, memory.dtype, 1, self.fn.level)), rule)

    def update(self, buffer: str, index: Operand, value: Operand, rule: functions.Rule) -> None:
        """Load, fold, store. Lanes that hit one element (a scatter) take turns, first lane first."""
        memory = self.memory[buffer]
        if (isinstance(index, Value) and index.lanes > 1) or (isinstance(index, Index) and index.stride not in (0, 1)):
            self.update_lanes(buffer, index, value, rule)
            return
        wide = self.varies(index)
        old = self.in_lanes(self.load(buffer, index)) if wide else self.scalar(self.load(buffer, index))
        lanes = old.lanes
        new = self.in_lanes(value).ref if wide else self.scalar(value).ref
        level = self.fn.level
        i = Instructions(self.fn, memory.dtype, lanes, level, self.fused, buffer)
        self.store(buffer, index, self.result(Value(rule(i, old.ref, new), memory.dtype, lanes, level)))

    def update_lanes(self, buffer: str, index: Operand, value: Operand, rule: functions.Rule) -> None:
        assert self.lanes
        memory, n, mask = self.memory[buffer], self.lanes.count, self.lanes.mask
        at, values = self.in_lanes(index).ref, self.in_lanes(value).ref
        fn, level = self.fn, self.fn.level
        outer, self.lanes = self.lanes, None
        before = fn.block
        head = fn.push(f"{buffer}.lane")
        lane = fn.name("lane")
        head.lines.append(f"{lane} = phi i64 [ 0, {symbol(before.label)} ], [ {lane}.next, %LATCH ]")
        before.end = f"br label {symbol(head.label)}"
        skip = None
        if mask:
            on = fn.value(f"extractelement <{n} x i1> {mask}, i64 {lane}", "on")
            then = fn.start(f"{buffer}.on")
            head_end, skip = (head, on), then
        where = fn.value(f"extractelement <{n} x i64> {at}, i64 {lane}", "at")
        what = fn.value(f"extractelement {type_text(memory.dtype, n)} {values}, i64 {lane}", buffer)
        self.update(buffer, Index((Term(where, level + 1, 1),)),
                    self.result(Value(what, memory.dtype, 1, level + 1)), rule)
        body_end = fn.block
        latch = fn.start(f"{buffer}.next")
        body_end.end = f"br label {symbol(latch.label)}"
        if skip:
            head_end[0].end = f"br i1 {head_end[1]}, label {symbol(skip.label)}, label {symbol(latch.label)}"
        head.lines[0] = head.lines[0].replace("%LATCH", symbol(latch.label))
        fn.line(f"{lane}.next = add i64 {lane}, 1")
        more = fn.value(f"icmp slt i64 {lane}.next, {n}", "lane.more")
        end = fn.pop()
        after = fn.start(f"{buffer}.lanes")
        end.end = f"br i1 {more}, label {symbol(head.label)}, label {symbol(after.label)}"
        self.lanes = outer


def _free(loop: For) -> set[str]:
    """The names of values and buffers that a loop reads or writes, whether bound inside or outside."""
    names: set[str] = set()
    pending: list[Expr] = []
    for s in walk((loop,)):
        match s:
            case Let(_, value):
                pending.append(value)
            case Store(buffer, index, value) | Reduce(buffer, index, _, value):
                names.add(buffer)
                pending += [index, value]
            case For(start=start, stop=stop, bound=bound):
                pending += [start, stop] if bound is None else [start, stop, bound]
            case If(condition, _) | Check(condition, _):
                pending.append(condition)
    while pending:
        match pending.pop():
            case Var(name):
                names.add(name)
            case Load(buffer, index, _):
                names.add(buffer)
                pending.append(index)
            case Apply(_, args, _):
                pending += args
    return names

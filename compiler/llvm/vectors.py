"""Vector loops: groups of lanes, masked tails, and reductions over lanes.

In: a vector loop. Out: a loop over whole groups of lanes, then one masked group for what is left; what is constant is
decided here and leaves no branch. A reduction to a place that is the same in all lanes keeps one partial result per
lane; they are combined by halving after the loop, so the bits depend on the number of lanes and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..loops.ir import FOLDS, MAX_UNROLL, Expr, For, Let, Load, Reduce, Stmt, Store, expressions, identity, parts
from ..scalar import FUNCTIONS
from .expressions import Evaluator
from .instructions import Instructions
from .memory import ALIGNMENT, Lanes, Partial, Serial
from .serial import independent
from .text import fault, literal, symbol, type_text, vector_literal
from .transpose import PART, Copy, transpose
from .values import Index, Operand, Term, Value, plus, sum_of

Rule = Callable[..., str]  # (instructions, old, new) -> the folded value


def straight(body: tuple[Stmt, ...]) -> bool:
    """Whether it is the same if each statement is done for several groups of lanes before the next one: there are no
    loops among them, and what one writes no other reads or writes."""
    written = [s.buffer for s in body if isinstance(s, Store | Reduce)]
    read = {e.buffer for s in body for x in expressions(s) for e in parts(x) if isinstance(e, Load)}
    plain = all(isinstance(s, Let | Store | Reduce) for s in body)
    return plain and len({*written}) == len(written) and read.isdisjoint(written)


class VectorLoops(Evaluator):
    """Adds to `Evaluator` the loops that run in lanes. `body`, `statement` and `turns`, statements and scalar loops,
    are the kernel writer's."""

    def body(self, stmts: tuple[Stmt, ...], **bound: Operand) -> None:
        raise NotImplementedError

    def statement(self, s: Stmt) -> None:
        raise NotImplementedError

    def turns(
        self, var: str, start: Index, stop: Index, step: int, n: int, body: Callable[[Index], None], rest: bool = True
    ) -> Index:
        raise NotImplementedError

    def look(self, s: For) -> None:
        raise NotImplementedError

    def constant_trips(self, s: For, start: Index, stop: Index) -> int:
        """The trip count of a loop that is unrolled completely."""
        length = sum_of(stop, start, -1)
        if not length.known:
            raise fault(f"loop '{s.var}' is to be unrolled, but its trip count is not constant")
        trips = max(0, -(-length.constant // s.step))
        if trips > MAX_UNROLL * s.lanes:
            raise fault(f"loop '{s.var}' is to be unrolled {trips} times; the most is {MAX_UNROLL}")
        return trips

    def vector_loop(self, s: For, start: Index, stop: Index) -> None:
        if self.lanes:
            raise fault(f"vector loop '{s.var}' stands inside another")
        if self.fn.externals.serial and independent(s):
            self.serial_loop(s, start, stop)
            return
        level, before = self.fn.level, self.fn.block
        bound = self.index(self.evaluate(s.bound)) if s.bound is not None else None
        if bound is not None and bound.stride:
            raise fault(f"the bound of loop '{s.var}' differs between lanes")
        self.lanes = Lanes(s.lanes, level, before)
        lanes = self.lanes
        if s.unroll == 0:
            trips = self.constant_trips(s, start, stop)
            for k in range(0, trips, s.lanes):
                self.group(s, plus(start, k * s.step), min(s.lanes, trips - k), bound)
        else:
            if bound is not None:
                stop = self.smaller(stop, bound)
            for n in (s.unroll, 1) if s.unroll > 1 else (1,):
                start = self.turns(s.var, start, self.whole(s, start, stop), s.step * s.lanes, n, self.groups(s, n))
            self.tail(s, start, stop)
        self.lanes = None
        self.finish(lanes)

    def serial_loop(self, s: For, start: Index, stop: Index) -> None:
        """The lanes one after the other: a reduction still has a partial result for each."""
        if s.bound is not None:
            stop = self.smaller(stop, self.index(self.evaluate(s.bound)))
        lanes = Lanes(s.lanes, self.fn.level, self.fn.block)

        def turn(i: Index) -> None:
            self.look(s)
            turns = Instructions(self.fn, "i64", 1, self.fn.level, "lane")
            passed = self.scalar(sum_of(i, start, -1)).ref
            passed = passed if s.step == 1 else turns.op("udiv", passed, str(s.step))
            self.serial = Serial(lanes, turns.both(passed, str(s.lanes - 1)))
            self.body(s.body, **{s.var: i})
            self.serial = None

        self.turns(s.var, start, stop, s.step, 1, turn, rest=False)
        self.finish(lanes)

    def whole(self, s: For, start: Index, stop: Index) -> Index:
        """Where the last whole group ends: the loop over groups runs while i < this."""
        return plus(stop, -(s.lanes - 1) * s.step)

    def groups(self, s: For, n: int) -> Callable[[Index], None]:
        def turn(i: Index) -> None:
            self.look(s)
            firsts = [plus(i, k * s.step * s.lanes) for k in range(n)]
            if n > 1 and straight(s.body):
                self.abreast(s, firsts)
                return
            for first in firsts:
                self.group(s, first, s.lanes, None)

        return turn

    def abreast(self, s: For, firsts: Sequence[Index]) -> None:
        """The body for several groups of lanes, each statement for all of them before the next one: a processor looks
        only so far ahead, and where each function waits for the one before it finds the next group's in time."""
        outer, scopes = self.names, [{**self.names, s.var: first._replace(stride=s.step)} for first in firsts]
        for statement in s.body:
            for names in scopes:
                self.names = names
                self.statement(statement)
        self.names = outer

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
                remaining = self.scalar(left)
                self.lanes.some = self.instructions(remaining).compare("sgt", remaining.ref, "0")
                i = Instructions(self.fn, "bool", s.lanes, left.level, "mask")
                mask = before_bound if mask is None else i.both(before_bound, mask)
        if mask is not None and count == 0:
            return
        self.lanes.mask = mask
        self.body(s.body, **{s.var: Index(first.terms, first.constant, s.step)})
        self.lanes.mask = self.lanes.some = None

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
        self.body(s.body, **{s.var: start._replace(stride=s.step)})
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
        i = Instructions(self.fn, "i64", 1, level, "left")
        remaining = self.scalar(left).ref
        clipped = i.intrinsic("smin", i.intrinsic("smax", remaining, "0"), str(n * s.step))
        count = i.convert("trunc", clipped, "i32")
        i32 = Instructions(self.fn, "i32", n, level, "mask")
        iota = vector_literal([k * s.step for k in range(n)], "i32")
        return i32.compare("slt", iota, self.splat(Value(count, "i32", 1, level), n).ref)

    def smaller(self, a: Index, b: Index) -> Index:
        difference = sum_of(a, b, -1)
        if difference.known:
            return a if difference.constant <= 0 else b
        level = max(a.level, b.level)
        i = Instructions(self.fn, "i64", 1, level, "stop")
        return Index((Term(i.intrinsic("smin", self.scalar(a).ref, self.scalar(b).ref), level, 1),))

    # --- copies that transpose -------------------------------------------------------------------------------------

    def transposed(self, s: For, copy: Copy, start: Index, stop: Index) -> Index:
        """As many turns of a loop that is a transposing copy as fill squares; returns where it stopped."""
        inner, n = copy.inner, copy.inner.lanes

        def at(e: Expr, k: Index, j: Index) -> Index:
            return self.index(self.within(e, **{s.var: k, inner.var: j}))

        begin = at(inner.start, start, Index())
        ends = [at(e, start, Index()) for e in (inner.stop, inner.bound) if e is not None]
        if (
            self.lanes
            or s.step != 1
            or inner.step != 1
            or inner.var == s.var
            or not all(sum_of(e, begin, -1).known for e in ends)
        ):
            return start

        def step(e: Expr, k: int, j: int) -> Index:
            """How far an index moves with the variables."""
            return sum_of(at(e, plus(start, k), plus(begin, j)), at(e, start, begin), -1)

        one = Index((), 1)
        if step(copy.load.index, 1, 0) != one or step(copy.load.index, 0, 1) == one:
            return start
        if step(copy.store.index, 0, 1) != one or at(copy.store.index, start, begin._replace(stride=1)).stride != 1:
            return start
        trips = min(sum_of(e, begin, -1).constant for e in ends)

        def turns(k: Index, count: int) -> None:
            for first in range(0, trips, n):
                self.square(copy, at, k, plus(begin, first), min(n, trips - first), count)

        reached = self.turns(s.var, start, stop, 1, n, lambda k: turns(k, n))
        left = sum_of(stop, reached, -1)
        if not left.known or left.constant < n // PART or not self.fn.externals.masks:
            return reached
        turns(reached, left.constant)
        return stop

    def square(
        self, copy: Copy, at: Callable[[Expr, Index, Index], Index], k: Index, j: Index, count: int, wide: int
    ) -> None:
        """`count` rows from j on, each from k on and so `wide`, are read; their columns are written."""
        n, dtype = copy.inner.lanes, copy.load.dtype
        self.lanes = Lanes(n, self.fn.level, self.fn.block)
        self.lanes.mask = vector_literal([c < wide for c in range(n)], "bool") if wide < n else None
        rows = [
            self.in_lanes(self.load(copy.load.buffer, at(copy.load.index, k, plus(j, r))._replace(stride=1))).ref
            for r in range(count)
        ]
        columns = transpose(self.fn, dtype, rows + ["zeroinitializer"] * (n - count))
        self.lanes.mask = vector_literal([r < count for r in range(n)], "bool") if count < n else None
        for c, column in enumerate(columns[:wide]):
            to = at(copy.store.index, plus(k, c), j._replace(stride=1))
            self.store(copy.store.buffer, to, Value(column, dtype, n, self.fn.level))
        self.lanes = None

    def within(self, e: Expr, **bound: Operand) -> Operand:
        """An expression with more names bound."""
        outer, self.names = self.names, {**self.names, **bound}
        value = self.evaluate(e)
        self.names = outer
        return value

    # --- reductions ------------------------------------------------------------------------------------------------

    def reduce(self, s: Reduce) -> None:
        """`buffer[index] fold= value`. In a vector loop, with an index that is the same in all lanes, the lanes keep
        partial results that `finish` combines after the loop."""
        index, value = self.index_of(s.index), self.evaluate(s.value)
        if self.serial is not None and isinstance(index, Index) and index.level <= self.serial.lanes.level:
            self.reduce_serially(s, index, value, self.serial)
            return
        if self.lanes is None or self.varies(index):
            if s.into > 1:
                raise fault(f"'{s.buffer}' has no lanes to be reduced into {s.into} elements")
            self.update(s.buffer, index, value, FUNCTIONS[FOLDS[s.fold]].llvm)
            return
        lanes, index = self.lanes, self.index(index)
        dtype, stem = self.buffer(s.buffer).dtype, f"{s.buffer}.{s.fold}"
        if index.level > lanes.level:
            raise fault(f"'{s.buffer}' is reduced in lanes at an index that changes inside the vector loop")
        type_ = type_text(dtype, lanes.count)
        partial = self.partial(s, index, lanes)
        old = self.fn.value(f"load {type_}, ptr {partial.ref}, align 64", stem)
        i = Instructions(self.fn, dtype, lanes.count, self.fn.level, stem)
        new = FUNCTIONS[FOLDS[s.fold]].llvm(i, old, self.in_lanes(value).ref)
        if lanes.mask:
            new = i.select(lanes.mask, new, old)
        self.fn.line(f"store {type_} {new}, ptr {partial.ref}, align 64")

    def reduce_serially(self, s: Reduce, index: Index, value: Operand, serial: Serial) -> None:
        """The same for the lane whose turn it is."""
        dtype, stem = self.buffer(s.buffer).dtype, f"{s.buffer}.{s.fold}"
        partial, type_ = self.partial(s, index, serial.lanes), type_text(dtype)
        at = self.fn.value(f"getelementptr {type_}, ptr {partial.ref}, i64 {serial.lane}", "at")
        old = self.fn.value(f"load {type_}, ptr {at}, align {ALIGNMENT[dtype]}", stem)
        i = Instructions(self.fn, dtype, 1, self.fn.level, stem)
        new = FUNCTIONS[FOLDS[s.fold]].llvm(i, old, self.scalar(value).ref)
        self.fn.line(f"store {type_} {new}, ptr {at}, align {ALIGNMENT[dtype]}")

    def partial(self, s: Reduce, index: Index, lanes: Lanes) -> Partial:
        """The partial results of a reduction, which begin at the fold's identity before the loop."""
        found = lanes.partial.get((id(s), index))
        if found is None:
            dtype = self.buffer(s.buffer).dtype
            type_ = type_text(dtype, lanes.count)
            place = self.fn.alloca(type_, f"{s.buffer}.{s.fold}")
            found = lanes.partial[id(s), index] = Partial(s.buffer, index, s.fold, s.into, place)
            start = literal(identity(s.fold, dtype), dtype, lanes.count)
            self.fn.line(f"store {type_} {start}, ptr {place}, align 64", lanes.before)
        return found

    def finish(self, lanes: Lanes) -> None:
        """Combine the partial results by halving and fold them into memory."""
        for p in lanes.partial.values():
            dtype, n = self.buffer(p.buffer).dtype, lanes.count
            rule, stem = FUNCTIONS[FOLDS[p.fold]].llvm, f"{p.buffer}.{p.fold}"
            total = self.fn.value(f"load {type_text(dtype, n)}, ptr {p.ref}, align 64", stem)
            while n > max(p.into, 2):
                type_, n = type_text(dtype, n), n // 2
                low, high = (
                    self.fn.value(
                        f"shufflevector {type_} {total}, {type_} poison, <{n} x i32> "
                        + vector_literal(list(range(at, at + n)), "i32"),
                        stem,
                    )
                    for at in (0, n)
                )
                total = rule(Instructions(self.fn, dtype, n, self.fn.level, stem), low, high)
            if p.into > 1:
                self.lanes = Lanes(n, self.fn.level, self.fn.block)
                self.update(p.buffer, p.index._replace(stride=1), Value(total, dtype, n, self.fn.level), rule)
                self.lanes = None
                continue
            low, high = (self.fn.value(f"extractelement {type_text(dtype, 2)} {total}, i64 {k}", stem) for k in (0, 1))
            total = rule(Instructions(self.fn, dtype, 1, self.fn.level, stem), low, high)
            self.update(p.buffer, p.index, self.result(Value(total, dtype, 1, self.fn.level)), rule)

    def update(self, buffer: str, index: Operand, value: Operand, rule: Rule) -> None:
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
        i = Instructions(self.fn, memory.dtype, lanes, level, buffer)
        self.store(buffer, index, self.result(Value(rule(i, old.ref, new), memory.dtype, lanes, level)))

    def update_lanes(self, buffer: str, index: Operand, value: Operand, rule: Rule) -> None:
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
        self.update(
            buffer, Index((Term(where, level + 1, 1),)), self.result(Value(what, memory.dtype, 1, level + 1)), rule
        )
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

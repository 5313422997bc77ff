"""Operands in lanes, and loads and stores.

In: operands, the buffers in scope, the vector loop around. Out: operands of other kinds, instructions that read and
write. A load whose index is affine in the loop's variable with coefficient 1 is one vector load.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...dsl.record import dataclass, field
from ..types.tensors import BYTES
from . import masked
from .instructions import Instructions
from .text import Block, Function, fault, literal, memory_type, symbol, type_text, vector_literal
from .values import Index, Operand, Term, Value

ALIGNMENT = BYTES  # of an element


@dataclass(frozen=True, slots=True)
class Partial:
    """The partial results, one per lane, of a reduction into a place that is the same in all lanes."""

    buffer: str
    index: Index
    fold: str
    into: int  # elements from there on
    ref: str  # registers


@dataclass(slots=True)
class Lanes:
    """The vector loop around: how many lanes, which are on (all when None), and its reductions so far."""

    count: int
    level: int  # of the scope the loop stands in
    before: Block  # ends where the loop begins
    mask: str | None = None
    some: str | None = None  # whether any lane is on, where that is not certain
    partial: dict[tuple[int, Index], Partial] = field(default_factory=dict)  # by statement and place


@dataclass(frozen=True, slots=True)
class Serial:
    """The loop around whose turns are lanes, and the number of the one whose turn it is."""

    lanes: Lanes
    lane: str


@dataclass(frozen=True, slots=True)
class Memory:
    """A buffer: a pointer, or registers when it has a length."""

    ref: str
    dtype: str
    length: int | None = None


class Accesses:
    """The buffers in scope, and the function that grows."""

    def __init__(self, fn: Function):
        self.fn = fn
        self.memory: dict[str, Memory] = {}
        self.lanes: Lanes | None = None
        self.serial: Serial | None = None
        self._addresses: dict[tuple[str, tuple[Term, ...]], tuple[str, int]] = {}
        self.stores = 0  # stores to memory so far: a load may be reused until the next

    # --- from one kind of operand to another ------------------------------------------------------------------------

    def varies(self, v: Operand) -> bool:
        """Whether it may differ between lanes."""
        return bool(v.stride) if isinstance(v, Index) else v.lanes > 1

    def instructions(self, v: Value, dtype: str | None = None, lanes: int | None = None) -> Instructions:
        return Instructions(self.fn, dtype or v.dtype, lanes or v.lanes, v.level)

    def index(self, v: Operand) -> Index:
        if not isinstance(v, Index):
            raise fault("a size or a bound is not a scalar i64")
        return v

    def scalar(self, v: Operand) -> Value:
        """The operand of a value that is the same in all lanes."""
        if isinstance(v, Value):
            if v.lanes > 1:
                raise fault("a value that differs between lanes stands where one value is needed")
            return v
        if v.stride:
            raise fault("a value that differs between lanes stands where one value is needed")
        if v.known:
            return Value(str(v.constant), "i64", 1, 0)
        total, level = "", 0
        for t in v.terms:
            level = max(level, t.level)
            op, factor = ("sub", -t.coefficient) if t.coefficient < 0 else ("add", t.coefficient)
            ref = t.ref if factor == 1 else self.fn.pure(f"mul i64 {t.ref}, {factor}", t.level)
            total = ref if not total and op == "add" else self.fn.pure(f"{op} i64 {total or 0}, {ref}", level)
        if v.constant:
            total = self.fn.pure(f"add i64 {total}, {v.constant}", level)
        return Value(total, "i64", 1, level)

    def in_lanes(self, v: Operand) -> Value:
        """The operand as a vector."""
        assert self.lanes
        n = self.lanes.count
        if isinstance(v, Value):
            return v if v.lanes > 1 else self.splat(v, n)
        base = self.splat(self.scalar(v.base), n)
        if not v.stride:
            return base
        steps = vector_literal([k * v.stride for k in range(n)], "i64")
        return Value(self.fn.pure(f"add <{n} x i64> {base.ref}, {steps}", base.level), "i64", n, base.level)

    def splat(self, v: Value, n: int) -> Value:
        """The same value in n lanes, in the form that folds into the instruction that uses it."""
        if v.const is not None:
            return Value(literal(v.const.value, v.dtype, n), v.dtype, n, 0)
        if v.ref[0] != "%" and v.ref.lstrip("-").isdigit():
            return Value(literal(int(v.ref), v.dtype, n), v.dtype, n, 0)
        return Value(Instructions(self.fn, v.dtype, n, v.level).splat(v.ref), v.dtype, n, v.level)

    def any_lane(self, ref: str, n: int) -> str:
        """Whether a bool is true in any lane."""
        return Instructions(self.fn, "bool", n, self.fn.level).some(ref)

    def result(self, v: Value) -> Operand:
        """A scalar i64 is an index."""
        if v.dtype == "i64" and v.lanes == 1:
            return Index((Term(v.ref, v.level, 1),))
        return v

    # --- memory ----------------------------------------------------------------------------------------------------

    def buffer(self, name: str) -> Memory:
        if name not in self.memory:
            raise fault(f"there is no buffer '{name}' here")
        return self.memory[name]

    def address(self, memory: Memory, index: Index) -> tuple[str, int]:
        """(pointer, level) of the element in lane 0. Terms are added from the outermost scope inwards, the constant
        last, so that accesses share pointers and differ in displacements."""
        key = (memory.ref, index.terms)
        known = self._addresses.get(key)
        if known is None:
            known = self._addresses[key] = self._pointer(memory, index.terms)
        at, level = known
        self.fn.scopes[-1].pointers.add(at)
        if index.constant:
            type_ = memory_type(memory.dtype)
            at = self.fn.pure(f"getelementptr {type_}, ptr {at}, i64 {index.constant}", level, "at")
        return at, level

    def _pointer(self, memory: Memory, terms: tuple[Term, ...]) -> tuple[str, int]:
        type_ = memory_type(memory.dtype)
        at, level = memory.ref, 0
        by_level: dict[int, list[Term]] = {}
        for t in terms:
            by_level.setdefault(t.level, []).append(t)
        for k in sorted(by_level):
            level = k
            offset = self.scalar(Index(tuple(by_level[k]))).ref
            at = self.fn.pure(f"getelementptr {type_}, ptr {at}, i64 {offset}", k, "at")
        return at, level

    def register(self, memory: Memory, index: Operand) -> tuple[str, int]:
        """(pointer, lanes) of a register access."""
        if self.serial is not None and isinstance(index, Index) and index.terms:
            return self.address(memory, index)[0], 1
        if not isinstance(index, Index) or index.terms or index.stride not in (0, 1):
            raise fault(f"an index of registers {memory.ref} is not constant")
        lanes = self.lanes.count if self.lanes and index.stride else 1
        assert memory.length is not None
        if index.constant < 0 or index.constant + lanes > memory.length or index.constant % lanes:
            raise fault(f"registers {memory.ref} have no {lanes} elements at {index.constant}")
        if index.constant == 0:
            return memory.ref, lanes
        return self.fn.pure(
            f"getelementptr {type_text(memory.dtype)}, ptr {memory.ref}, i64 {index.constant}", 0, "at"
        ), lanes

    def load(self, buffer: str, index: Operand, stem: str = "t") -> Operand:
        memory = self.buffer(buffer)
        dtype, mask = memory.dtype, self.lanes.mask if self.lanes else None
        if memory.length is not None:
            at, lanes = self.register(memory, index)
            align = min(64, lanes * ALIGNMENT[dtype])
            text = f"load {type_text(dtype, lanes)}, ptr {at}, align {align}"
            return self.result(Value(self.fn.value(text, stem), dtype, lanes, self.fn.level))
        in_memory, n = "i8" if dtype == "bool" else dtype, self.lanes.count if self.lanes else 1
        align = ALIGNMENT[dtype]
        if isinstance(index, Index) and index.stride in (0, 1):
            at, _ = self.address(memory, index)
            if not index.stride:
                return self.loaded(f"load {memory_type(dtype)}, ptr {at}, align {align}", dtype, 1, stem)
            vector = type_text(in_memory, n)
            if mask is None:
                return self.loaded(f"load {vector}, ptr {at}, align {align}", dtype, n, stem)
            full = masked.function(self.fn.externals, "load", in_memory, n)
            return self.loaded(
                f"call {vector} {full}(ptr {at}, i32 {align}, <{n} x i1> {mask}, {vector} zeroinitializer)",
                dtype,
                n,
                stem,
            )
        pointers = self.pointers(memory, index)
        vector = type_text(in_memory, n)
        full = masked.function(self.fn.externals, "gather", in_memory, n, mask is None)
        on = mask or "splat (i1 true)"
        return self.loaded(
            f"call {vector} {full}(<{n} x ptr> {pointers}, i32 {align}, <{n} x i1> {on}, {vector} zeroinitializer)",
            dtype,
            n,
            stem,
        )

    def loaded(self, text: str, dtype: str, lanes: int, stem: str) -> Operand:
        """A load; the same load in the same scope with no store between is the same value."""
        key = f"{self.stores}: {text}"
        table, level = self.fn.scopes[-1].table, self.fn.level
        if key not in table:
            table[key] = self.fn.value(text, stem)
        ref = table[key]
        if dtype == "bool":
            zero = literal(0, "i8", lanes)
            ref = self.fn.pure(f"icmp ne {type_text('i8', lanes)} {ref}, {zero}", level, stem)
        return self.result(Value(ref, dtype, lanes, level))

    def pointers(self, memory: Memory, index: Operand) -> str:
        """A pointer per lane: where they are evenly apart one pointer and so many steps, which processors that gather
        take as they are, 16 at a time."""
        assert self.lanes
        n = self.lanes.count
        if isinstance(index, Index) and n * abs(index.stride) < 1 << 31:
            at, level = self.address(memory, index.base)
            steps = vector_literal([k * index.stride for k in range(n)], "i32")
            return self.fn.pure(
                f"getelementptr {memory_type(memory.dtype)}, ptr {at}, <{n} x i32> {steps}", level, "at"
            )
        v = self.in_lanes(index)
        return self.fn.pure(
            f"getelementptr {memory_type(memory.dtype)}, ptr {memory.ref}, <{v.lanes} x i64> {v.ref}", v.level, "at"
        )

    def store(self, buffer: str, index: Operand, value: Operand) -> None:
        memory = self.buffer(buffer)
        dtype, mask = memory.dtype, self.lanes.mask if self.lanes else None
        if memory.length is not None:
            if self.varies(index):  # lanes that are off become undefined: a blend would double the work of a tile
                self.store_register(memory, index, value)
            else:
                with self.where_some():
                    self.store_register(memory, index, value)
            return
        self.stores += 1
        align = ALIGNMENT[dtype]
        if not self.varies(index):
            assert isinstance(index, Index)
            at, _ = self.address(memory, index)
            v = self.stored(self.scalar(value))
            with self.where_some():
                self.fn.line(f"store {memory_type(dtype)} {v}, ptr {at}, align {align}")
            return
        assert self.lanes
        n = self.lanes.count
        wide = self.in_lanes(value)
        v = self.stored(wide)
        vector = type_text("i8" if dtype == "bool" else dtype, n)
        in_memory = "i8" if dtype == "bool" else dtype
        if isinstance(index, Index) and index.stride == 1:
            at, _ = self.address(memory, index)
            if mask is None:
                self.fn.line(f"store {vector} {v}, ptr {at}, align {align}")
                return
            full = masked.function(self.fn.externals, "store", in_memory, n)
            self.fn.line(f"call void {full}({vector} {v}, ptr {at}, i32 {align}, <{n} x i1> {mask})")
            return
        pointers = self.pointers(memory, index)
        full = masked.function(self.fn.externals, "scatter", in_memory, n, mask is None)
        on = mask or "splat (i1 true)"
        self.fn.line(f"call void {full}({vector} {v}, <{n} x ptr> {pointers}, i32 {align}, <{n} x i1> {on})")

    def prefetch(self, buffer: str, index: Index, level: int) -> None:
        """Ask for the line of the element in lane 0; where that is outside the buffer nothing happens."""
        at, _ = self.address(self.buffer(buffer), index)
        self.fn.externals.declares.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.fn.line(f"call void @llvm.prefetch.p0(ptr {at}, i32 0, i32 {4 - level}, i32 1)")

    @contextmanager
    def where_some(self) -> Iterator[None]:
        """What is done once for all lanes is not done when all of them are off."""
        some = self.lanes.some if self.lanes else None
        if some is None:
            yield
            return
        before, then = self.fn.block, self.fn.push("some")
        yield
        last, after = self.fn.pop(), self.fn.start("none")
        before.end = f"br i1 {some}, label {symbol(then.label)}, label {symbol(after.label)}"
        last.end = f"br label {symbol(after.label)}"

    def stored(self, v: Value) -> str:
        """The operand as it stands in memory: a bool is a byte."""
        if v.dtype != "bool":
            return v.ref
        return self.fn.pure(f"zext {type_text('bool', v.lanes)} {v.ref} to {type_text('i8', v.lanes)}", v.level)

    def store_register(self, memory: Memory, index: Operand, value: Operand) -> None:
        at, lanes = self.register(memory, index)
        v = self.in_lanes(value).ref if lanes > 1 else self.scalar(value).ref
        type_ = type_text(memory.dtype, lanes)
        align = min(64, lanes * ALIGNMENT[memory.dtype])
        self.fn.line(f"store {type_} {v}, ptr {at}, align {align}")

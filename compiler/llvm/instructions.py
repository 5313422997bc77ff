"""Instructions by dtype: `add` is `fadd` or `add`, on a scalar or in lanes.

In: operands as text. Out: the result as text. Every instruction is pure, so it is written through `Function.pure` at
the level of its operands. Floats carry no fast-math flags: the result is the IEEE one, the same on every target.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ...dsl.record import dataclass, replace
from .text import Function, literal, suffix, symbol, type_text

FEW = 25  # instructions of a function that is inlined wherever it is called
_SPLIT_INT = {"f32": "i32", "f64": "i64"}
_NUMBER = re.compile(r"0x(?![7F]FF(?!0000000000000))[0-9A-F]{16}\)?$")  # a float literal that is not NaN
_WHOLE = re.compile(r"(?:splat \(i\d+ )?(-?\d+)\)?")  # an integer literal, in one lane or in all


@dataclass(frozen=True, slots=True)
class Instructions:
    """Writes instructions of one dtype, lane count and level into a function."""

    fn: Function
    dtype: str
    lanes: int
    level: int
    stem: str = "t"

    @property
    def scales(self) -> bool:
        return self.fn.externals.scales

    def of(self, dtype: str) -> Instructions:
        """The same lanes in another dtype."""
        return self if dtype == self.dtype else replace(self, dtype=dtype)

    @property
    def bits(self) -> Instructions:
        """The integers of the float's width."""
        return self.of(_SPLIT_INT[self.dtype])

    @property
    def lane(self) -> Instructions:
        """One of the lanes."""
        return replace(self, lanes=1)

    def within(self, fn: Function) -> Instructions:
        """The same in another function, outside of its loops."""
        return replace(self, fn=fn, level=0)

    @property
    def type(self) -> str:
        return type_text(self.dtype, self.lanes)

    @property
    def is_float(self) -> bool:
        return self.dtype in _SPLIT_INT

    def pure(self, text: str) -> str:
        return self.fn.pure(text, self.level, self.stem)

    def const(self, value: int | float | bool) -> str:
        return literal(value, self.dtype, self.lanes)

    def splat(self, a: str) -> str:
        """A scalar in all lanes, in the form that folds into the instruction that uses it."""
        if self.lanes == 1:
            return a
        first = self.pure(f"insertelement {self.type} poison, {type_text(self.dtype)} {a}, i64 0")
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return self.pure(f"shufflevector {self.type} {first}, {self.type} poison, {zeros}")

    def op(self, name: str, a: str, b: str) -> str:
        return self.pure(f"{name} {self.type} {a}, {b}")

    def intrinsic(self, name: str, *args: str) -> str:
        """`llvm.name` whose operands and result have this type; what the target lacks is written out."""
        externals, key, type_ = self.fn.externals, (name, self.dtype, self.lanes), self.type
        full = externals.intrinsics.get(key)
        if full is None:
            if rule := externals.lacks.get(f"{name}.{self.dtype}"):
                return self._emulated(name, rule, args)
            full = externals.intrinsics[key] = f"@llvm.{name}.{suffix(self.dtype, self.lanes)}"
            externals.declares.add(f"declare {type_} {full}({', '.join([type_] * len(args))})")
        given = f", {type_} ".join(args)
        return self.fn.pure(f"call {type_} {full}({type_} {given})", self.level, self.stem)

    def _emulated(self, name: str, rule: Callable[..., str], args: tuple[str, ...]) -> str:
        """A call of a function of the module that does the same; it is written once."""
        at = symbol(f"nnc.{name}.{self.dtype}x{self.lanes}", "@")
        key = (f"nnc.{name}", self.dtype, self.lanes)
        if key not in self.fn.externals.helpers:
            fn = Function(self.fn.externals)
            parameters = [fn.name(a) for a in ("x", "y", "z")[: len(args)]]
            fn.block.end = f"ret {self.type} {rule(self.within(fn), *parameters)}"
            typed = ", ".join(f"{self.type} {a}" for a in parameters)
            how = "alwaysinline" if len(fn.blocks) == 1 and fn.size <= FEW else "noinline"
            self.define(key, fn.text(f"define internal {self.type} {at}({typed}) {how} #0"))
        return self.pure(f"call {self.type} {at}({', '.join(f'{self.type} {a}' for a in args)})")

    def ldexp(self, a: str, n: str) -> str:
        """a 2^n for an n in bits."""
        b = self.bits
        full = f"@llvm.ldexp.{suffix(self.dtype, self.lanes)}.{suffix(b.dtype, b.lanes)}"
        self.fn.externals.declares.add(f"declare {self.type} {full}({self.type}, {b.type})")
        return self.pure(f"call {self.type} {full}({self.type} {a}, {b.type} {n})")

    def add(self, a: str, b: str) -> str:
        return self.op("fadd" if self.is_float else "add", a, b)

    def sub(self, a: str, b: str) -> str:
        return self.op("fsub" if self.is_float else "sub", a, b)

    def mul(self, a: str, b: str) -> str:
        return self.op("fmul" if self.is_float else "mul", a, b)

    def div(self, a: str, b: str) -> str:
        return self.op("fdiv", a, b)

    def neg(self, a: str) -> str:
        return self.pure(f"fneg {self.type} {a}") if self.is_float else self.sub(self.const(0), a)

    def fma(self, a: str, b: str, c: str) -> str:
        """a*b + c, rounded once."""
        return self.intrinsic("fma", a, b, c)

    def compare(self, predicate: str, a: str, b: str) -> str:
        """A bool: `olt`, `une`, ... on floats, `slt`, `ne`, ... on integers."""
        return self.pure(f"{'fcmp' if self.is_float else 'icmp'} {predicate} {self.type} {a}, {b}")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.pure(f"select {type_text('bool', self.lanes)} {condition}, {self.type} {a}, {self.type} {b}")

    def convert(self, op: str, a: str, to: str) -> str:
        """`zext`, `sitofp`, `fpext`, `bitcast`, ... to another dtype of as many lanes."""
        return self.pure(f"{op} {self.type} {a} to {type_text(to, self.lanes)}")

    def saturate(self, a: str, to: str) -> str:
        """Float to integer, towards zero; out of range becomes the nearest integer, NaN becomes 0."""
        result, arg = type_text(to, self.lanes), self.type
        full = f"@llvm.fptosi.sat.{suffix(to, self.lanes)}.{suffix(self.dtype, self.lanes)}"
        self.fn.externals.declares.add(f"declare {result} {full}({arg})")
        return self.pure(f"call {result} {full}({arg} {a})")

    def to_bits(self, a: str) -> str:
        return self.convert("bitcast", a, self.bits.dtype)

    def from_bits(self, a: str) -> str:
        return self.bits.convert("bitcast", a, self.dtype)

    def half(self, a: str) -> str:
        """The f32 that is the f16 of these bits."""
        if rule := self.fn.externals.lacks.get("half.f16"):
            return rule(self, a)
        halves = f"<{self.lanes} x half>" if self.lanes > 1 else "half"
        return self.pure(f"fpext {halves} {self.pure(f'bitcast {self.type} {a} to {halves}')} to {self.of('f32').type}")

    def both(self, a: str, b: str) -> str:
        """a and b, of bools or integers."""
        return self.op("and", a, b)

    def either(self, a: str, b: str) -> str:
        return self.op("or", a, b)

    def flip(self, a: str) -> str:
        """not a."""
        return self.op("xor", a, self.const(True if self.dtype == "bool" else -1))

    def is_a_number(self, a: str) -> bool:
        """Whether it is a float literal that is not NaN."""
        return _NUMBER.search(a) is not None

    def whole(self, a: str) -> int | None:
        """The integer that a literal is, in each lane; None for what is no such literal."""
        found = _WHOLE.fullmatch(a)
        return int(found[1]) if found else None

    def some(self, a: str) -> str:
        """Whether a bool is true in any lane."""
        if self.lanes == 1:
            return a
        if rule := self.fn.externals.lacks.get("any.bool"):
            return rule(self.of("bool"), a)
        bools = type_text("bool", self.lanes)
        full = f"@llvm.vector.reduce.or.v{self.lanes}i1"
        self.fn.externals.declares.add(f"declare i1 {full}({bools})")
        return self.pure(f"call i1 {full}({bools} {a})")

    def define(self, key: tuple[str, str, int], text: str) -> None:
        """A function that the module needs beside this one, once under each key; what it declares, the module does."""
        self.fn.externals.helpers[key] = self.fn.externals.declared(text)

    def call_where(
        self, condition: str, name: str, args: Sequence[tuple[str, str]], values: Sequence[tuple[str, str, str]]
    ) -> list[str]:
        """`values`, each (stem, type, operand), or where the condition, a scalar, holds, what the function of that name
        makes of `args`, each (type, operand): a struct of as many."""
        fn = self.fn
        fast, slow = fn.block, fn.start("large")
        struct = f"{{ {', '.join(t for _, t, _ in values)} }}"
        made = fn.value(f"call {struct} {name}({', '.join(f'{t} {a}' for t, a in args)})", "pair")
        parts = [fn.value(f"extractvalue {struct} {made}, {k}", "slow") for k in range(len(values))]
        both = fn.start("both")
        fast.end = f"br i1 {condition}, label %{slow.label}, label %{both.label}"
        slow.end = f"br label %{both.label}"
        return [
            fn.value(f"phi {t} [ {v}, %{fast.label} ], [ {part}, %{slow.label} ]", stem)
            for (stem, t, v), part in zip(values, parts, strict=True)
        ]

"""LLVM IR as text: types, literals, and one function being written.

In: instructions one by one. Out: the text of a function. The idea: a pure instruction is written once, in the outermost
scope in which its operands exist, so value numbering and loop-invariant code motion happen while writing and no LLVM
pass has to find them again. A scope is the body of a loop or a branch; the block from which it was entered stays open
until the scope is left, and that is where invariant instructions go.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Hashable, Mapping
from functools import cache, lru_cache
from hashlib import sha256

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError
from ...dsl.record import dataclass, field
from .located import Located

TYPES = {"f32": "float", "f64": "double", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "bool": "i1"}
SUFFIX = {"f32": "f32", "f64": "f64", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "bool": "i1"}
MAX_NAME = 200  # characters of a local name, of up to four bytes
FEW = 8  # pointers that a loop moves: they and what else it counts fit the registers of x86-64
MAX_LINES = 30_000  # of one function; LLVM's time grows faster than the code

_PLAIN = re.compile(r"[A-Za-z_.$][A-Za-z0-9_.$]*")


def fault(message: str) -> InternalError:
    """A broken rule of the loop IR: whoever wrote the loops is to blame, never the user's program."""
    return InternalError(Diagnostic("E0901", message))


@cache
def type_text(dtype: str, lanes: int = 1) -> str:
    """`float`, `<16 x float>`."""
    return TYPES[dtype] if lanes == 1 else f"<{lanes} x {TYPES[dtype]}>"


def memory_type(dtype: str) -> str:
    """The type of one element in memory: a bool is a byte."""
    return "i8" if dtype == "bool" else TYPES[dtype]


@cache
def suffix(dtype: str, lanes: int = 1) -> str:
    """The mangled type in an intrinsic's name: `f32`, `v16f32`."""
    return SUFFIX[dtype] if lanes == 1 else f"v{lanes}{SUFFIX[dtype]}"


@lru_cache(1 << 16)
def symbol(name: str, sigil: str = "%") -> str:
    """`%name`, quoted where LLVM needs it. LLVM reads 1024 bytes of a local name: a long one ends in a hash."""
    if sigil != "@" and len(name) > MAX_NAME:
        name = f"{name[:MAX_NAME]}#{sha256(name.encode()).hexdigest()[:16]}"
    if _PLAIN.fullmatch(name):
        return sigil + name
    safe = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\{b:02X}" for b in name.encode())
    return f'{sigil}"{safe}"'


def float_bits(value: float, dtype: str) -> str:
    """A float literal, exactly: LLVM writes both widths as the bits of a double."""
    if dtype == "f32":
        try:
            value = struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('>Q', struct.pack('>d', value))[0]:016X}"


def literal(value: int | float | bool, dtype: str, lanes: int = 1) -> str:
    """A constant operand, the same in every lane."""
    match dtype:
        case "bool":
            text = "true" if value else "false"
        case "f32" | "f64":
            text = float_bits(float(value), dtype)
        case _:
            bits = int(dtype[1:])
            text = str((int(value) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1)))
    return text if lanes == 1 else f"splat ({TYPES[dtype]} {text})"


def vector_literal(values: list[int | float | bool], dtype: str) -> str:
    """A constant vector operand."""
    return f"<{', '.join(f'{TYPES[dtype]} {literal(v, dtype)}' for v in values)}>"


@dataclass(slots=True)
class Externals:
    """What the functions of a module use and do not define: intrinsics, as declarations; vector mathematics, as
    (function, dtype, lanes); and what that calls in turn, as text. And what the target can do."""

    masks: bool = True  # it loads and stores the lanes that are on
    lacks: Mapping[str, Callable[..., str]] = field(default_factory=dict)  # by intrinsic and dtype, what is written
    scales: bool = False  # it multiplies by a power of two in one rounding
    indexed: bool = False  # its loads add a base, a scaled index and a number
    serial: bool = False  # it has no vectors and code is to be small: lanes take turns
    located: Located | None = None  # where instructions say where they are from
    declares: set[str] = field(default_factory=set)
    maths: set[tuple[str, str, int]] = field(default_factory=set)
    helpers: dict[tuple[str, str, int], str] = field(default_factory=dict)  # by (name, dtype, lanes)
    intrinsics: dict[tuple[str, str, int], str] = field(default_factory=dict)  # names, by (name, dtype, lanes)
    outlined: dict[Hashable, str] = field(default_factory=dict)  # functions of parallel loops, by what makes them equal

    def declared(self, text: str) -> str:
        """Functions without what they declare, which the module does, once."""
        lines = text.splitlines()
        self.declares.update(d for d in lines if d.startswith("declare "))
        return "\n".join(d for d in lines if not d.startswith("declare ")) + "\n"


@dataclass(slots=True)
class Block:
    """A basic block; `end` is its terminator and may be set before the last line is written."""

    label: str
    lines: list[str] = field(default_factory=list)
    end: str = ""


@dataclass(slots=True)
class Scope:
    block: Block  # where its instructions go now
    table: dict[str, str] = field(default_factory=dict)  # text of a pure instruction -> its result
    pointers: set[str] = field(default_factory=set)  # to which what it reads and writes is so many numbers away


class Function:
    """A function under construction. Operands are LLVM text; `level` is the scope an operand belongs to."""

    def __init__(self, externals: Externals):
        self.externals = externals  # the module's; grows as the function uses them
        self.allocas: list[str] = []
        self.blocks = [Block("entry")]
        self.scopes = [Scope(self.blocks[0])]
        self._taken: dict[str, int] = {}
        self.size = 0  # instructions so far
        self.at = 0  # the line of the loops that instructions are from, where that is known
        self._subprogram = 0  # of its locations, where it has some

    @property
    def level(self) -> int:
        return len(self.scopes) - 1

    @property
    def block(self) -> Block:
        return self.scopes[-1].block

    def fresh(self, stem: str) -> str:
        """A name not yet taken: `h`, `h.1`, `h.2`."""
        taken = self._taken
        while True:
            n = taken.get(stem, 0)
            taken[stem] = n + 1
            if n == 0:
                return stem
            name = f"{stem}.{n}"
            if name not in taken:
                taken[name] = 1
                return name

    def name(self, stem: str) -> str:
        """A fresh local value."""
        return symbol(self.fresh(stem))

    def line(self, text: str, block: Block | None = None) -> None:
        """Append an instruction to the current block."""
        self.size += 1
        if self.size > MAX_LINES:
            raise fault(f"a kernel unrolls to more than {MAX_LINES} instructions")
        if self.at and self.externals.located is not None:
            self._subprogram = self._subprogram or self.externals.located.function()
            text = f"{text}, !dbg !{self.externals.located.at(self._subprogram, self.at)}"
        (block or self.scopes[-1].block).lines.append(text)

    def value(self, text: str, stem: str = "t") -> str:
        """Append an instruction that has a result, here and now (loads, phis)."""
        ref = self.name(stem)
        self.line(f"{ref} = {text}")
        return ref

    def pure(self, text: str, level: int, stem: str = "t") -> str:
        """An instruction without effects on operands of `level` and outside: written there, once."""
        scope = self.scopes[level]
        ref = scope.table.get(text)
        if ref is None:
            ref = scope.table[text] = self.name(stem)
            self.line(f"{ref} = {text}", scope.block)
        return ref

    def following(self, i: str, step: int, stem: str) -> str:
        """The index of the next turn of the loop that ends here. With few pointers LLVM is not to see that it is a sum:
        strength reduction of loops takes half of the time of an object, and has nothing to gain where loads add a base,
        a scaled index and a number by themselves."""
        following = self.value(f"add i64 {i}, {step}", stem)
        if not self.externals.indexed or len(self.scopes[-1].pointers) > FEW:
            return following
        self.externals.declares.add("declare i64 @llvm.expect.i64(i64, i64)")
        return self.value(f"call i64 @llvm.expect.i64(i64 {following}, i64 0)", stem)

    def alloca(self, type_: str, stem: str) -> str:
        """Space that becomes registers: accesses are whole slices at constant offsets."""
        ref = self.name(stem)
        self.allocas.append(f"{ref} = alloca {type_}, align 64")
        return ref

    def start(self, stem: str) -> Block:
        """Continue the current scope in a new block."""
        block = Block(self.fresh(stem))
        self.blocks.append(block)
        self.scopes[-1].block = block
        return block

    def push(self, stem: str) -> Block:
        """Enter a scope in a new block; the block before it stays open for invariant code."""
        block = Block(self.fresh(stem))
        self.blocks.append(block)
        self.scopes.append(Scope(block))
        return block

    def pop(self) -> Block:
        """Leave a scope; returns its last block, which the caller ends."""
        left = self.scopes.pop()
        self.scopes[-1].pointers |= left.pointers
        return left.block

    def text(self, signature: str) -> str:
        """The function: `signature` is everything before the brace."""
        located = f" !dbg !{self._subprogram}" if self._subprogram else ""
        out = [f"{signature}{located} {{"]
        for i, block in enumerate(self.blocks):
            assert block.end, f"block {block.label} has no end"
            out.append(f"{symbol(block.label, '')}:")
            if i == 0:
                out.extend(f"  {line}" for line in self.allocas)
            out.extend(f"  {line}" for line in block.lines)
            out.append(f"  {block.end}")
        out.append("}\n")
        return "\n".join(out)

"""The loop IR as text, both ways: `parse_loops(print_loops(m)) == m`.

The grammar is that of `loops`, with these particulars. `+ - *` stand for `add sub mul`, left to right. A constant
carries its dtype, `1.5:f32`, unless it is an i64 or a bool. A function shows its dtype, `cast.f32(x)`, where its
operands do not determine it, a variable or load where it is not the one it was bound with. Names that are not plain
are quoted. A kernel's note is the comment above it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from ..types.sizes import Dim, parse_size
from ..types.tensors import DTYPES, TensorType
from .ir import (
    Apply,
    Buffer,
    Call,
    Check,
    Const,
    Constant,
    Entry,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Loop,
    Module,
    Place,
    Prefetch,
    Reduce,
    Register,
    Slot,
    Step,
    Stmt,
    Store,
    Var,
    i64,
)

T = TypeVar("T")
INFIX = {"add": "+", "sub": "-", "mul": "*"}
PRECEDENCE = {"add": 1, "sub": 1, "mul": 2}
BOOLEAN = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "isfinite"})
KEYWORDS = frozenset({
    "constant", "kernel", "entry", "mut", "let", "register", "for", "in", "step", "vector", "bound", "parallel",
    "unroll", "reverse", "until", "if", "check", "else", "true", "false", "slot", "arena", "inf", "nan", *DTYPES,
})  # fmt: skip
ATOM = 9


def natural(fn: str, args: tuple[Expr, ...]) -> str | None:
    """The dtype of a function that its operands determine."""
    if fn in BOOLEAN:
        return "bool"
    if fn in ("cast", "random") or not args:
        return None
    return args[1].dtype if fn == "select" else args[0].dtype


# --- printing ---------------------------------------------------------------------------------------------------


def print_loops(module: Module) -> str:
    """The text of a module."""
    parts = [
        f"constant {_name(c.name)}: {c.dtype} = ({', '.join(_number(v) for v in c.values)})\n" for c in module.constants
    ]
    parts += ["\n".join(_kernel(k)) + "\n" for k in module.kernels]
    parts += ["\n".join(_entry(e)) + "\n" for e in module.entries]
    return "\n".join(parts)


def _name(name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name not in KEYWORDS
    return name if plain else json.dumps(name)


def _number(value: int | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return repr(value)


def _kernel(k: Kernel) -> Iterator[str]:
    if k.note:
        yield from (f"# {line}" for line in k.note.splitlines())
    buffers = ", ".join(f"{'mut ' if b.mutable else ''}{_name(b.name)}: {b.dtype}" for b in k.buffers)
    yield f"kernel {_name(k.name)}({', '.join(map(_name, k.sizes))})({buffers}) {{"
    names = dict.fromkeys(k.sizes, "i64")
    yield from _body(k.body, names, {b.name: b.dtype for b in k.buffers}, "    ")
    yield "}"


def _body(stmts: tuple[Stmt, ...], names: dict[str, str], buffers: dict[str, str], indent: str) -> Iterator[str]:
    names, buffers = dict(names), dict(buffers)

    def text(e: Expr) -> str:
        return _expr(e, names, buffers)

    for s in stmts:
        match s:
            case Let(name, value):
                yield f"{indent}let {_name(name)} = {text(value)}"
                names[name] = value.dtype
            case Store(buffer, index, value):
                yield f"{indent}{_name(buffer)}[{text(index)}] = {text(value)}"
            case Reduce(buffer, index, fold, value):
                yield f"{indent}{_name(buffer)}[{text(index)}] {fold}= {text(value)}"
            case Register(name, dtype, length):
                yield f"{indent}register {_name(name)}: {dtype}[{length}]"
                buffers[name] = dtype
            case For():
                yield f"{indent}for {_name(s.var)} in {text(s.start)}..{text(s.stop)}{_how(s, text)} {{"
                yield from _body(s.body, {**names, s.var: "i64"}, buffers, indent + "    ")
                yield indent + "}"
            case If(condition, body):
                yield f"{indent}if {text(condition)} {{"
                yield from _body(body, names, buffers, indent + "    ")
                yield indent + "}"
            case Check(condition, code):
                yield f"{indent}check {text(condition)} else {code}"
            case Prefetch(buffer, index):
                yield f"{indent}prefetch {_name(buffer)}[{text(index)}]"


def _how(s: For, text: Callable[[Expr], str]) -> str:
    """What a loop says after its range."""
    words = []
    if s.step != 1:
        words.append(f"step {s.step}")
    if s.lanes != 1:
        words.append(f"vector {s.lanes}")
    if s.bound is not None:
        words.append(f"bound {text(s.bound)}")
    if s.parallel:
        words.append("parallel")
    if s.unroll != 1:
        words.append(f"unroll {s.unroll}")
    return "".join(f" {w}" for w in words)


def _expr(expr: Expr, names: dict[str, str], buffers: dict[str, str]) -> str:
    """Operands before functions, on a stack: (text, precedence)."""
    done: list[tuple[str, int]] = []
    work: list[tuple[Expr, bool]] = [(expr, False)]
    while work:
        e, ready = work.pop()
        match e:
            case Const(value, dtype):
                bare = dtype == "bool" if isinstance(value, bool) else dtype == "i64" and isinstance(value, int)
                done.append((_number(value) + ("" if bare else f":{dtype}"), ATOM))
            case Var(name, dtype):
                done.append((_name(name) + ("" if names.get(name) == dtype else f":{dtype}"), ATOM))
            case Load(buffer, index, dtype):
                if not ready:
                    work += [(e, True), (index, False)]
                    continue
                at, _ = done.pop()
                done.append((f"{_name(buffer)}[{at}]" + ("" if buffers.get(buffer) == dtype else f":{dtype}"), ATOM))
            case Apply(fn, args, dtype):
                if not ready:
                    work.append((e, True))
                    work += [(a, False) for a in reversed(args)]
                    continue
                operands = done[len(done) - len(args) :]
                del done[len(done) - len(args) :]
                if fn in INFIX and len(args) == 2 and dtype == args[0].dtype:
                    level = PRECEDENCE[fn]
                    left, right = (t if p >= level + k else f"({t})" for k, (t, p) in enumerate(operands))
                    done.append((f"{left} {INFIX[fn]} {right}", level))
                else:
                    shown = fn if natural(fn, args) == dtype else f"{fn}.{dtype}"
                    done.append((f"{shown}({', '.join(t for t, _ in operands)})", ATOM))
    return done[0][0]


def _entry(e: Entry) -> Iterator[str]:
    yield f"entry {_name(e.name)}({', '.join(map(_name, e.sizes))})("
    for s in e.slots:
        yield f"    {s.role} {_name(s.name)}: {s.type},"
    yield f") arena {e.arena} {{"
    yield from _steps(e.steps, "    ")
    yield "}"


def _steps(steps: tuple[Step, ...], indent: str) -> Iterator[str]:
    for s in steps:
        if isinstance(s, Loop):
            how = " reverse" * s.reverse + (f" until {_place(s.until)}" if s.until is not None else "")
            yield f"{indent}for {_name(s.index)} in 0..{s.count}{how} {{"
            yield from _steps(s.steps, indent + "    ")
            yield indent + "}"
        else:
            places = ", ".join(map(_place, s.places))
            yield f"{indent}{_name(s.kernel)}({', '.join(map(str, s.sizes))})({places})"


def _place(p: Place) -> str:
    if p.base == "arena":
        return f"arena + {p.offset}"
    return f"{p.base} {_name(p.name)}" + (f" + {p.offset}" if p.offset != 0 else "")


# --- parsing ---------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"""
    (?P<space>[ \t\r\n]+) | (?P<comment>\#[^\n]*)
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<number>\d+(?:\.(?!\.)\d*)?(?:[eE][-+]?\d+)?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<mark>\.\.|[-+*/%(){}\[\],:=.])
""", re.VERBOSE)  # fmt: skip


def parse_loops(text: str) -> Module:
    """The module a text stands for; raises `ValueError`, with the line, where it is not one."""
    return _Parser(text).module()


class _Parser:
    """A position in a list of tokens (kind, text, line)."""

    def __init__(self, text: str):
        self.tokens: list[tuple[str, str, int]] = []
        self.notes: dict[int, list[str]] = {}  # token index -> comment lines just above it
        at, line = 0, 1
        while at < len(text):
            found = _TOKEN.match(text, at)
            if not found:
                raise ValueError(f"line {line}: {text[at]!r} is not loop IR")
            kind, token = found.lastgroup or "", found.group()
            if kind == "comment":
                self.notes.setdefault(len(self.tokens), []).append(token[1:].removeprefix(" "))
            elif kind != "space":
                self.tokens.append((kind, token, line))
            line += token.count("\n")
            at = found.end()
        self.tokens.append(("end", "", line))
        self.at = 0

    def fail(self, wanted: str) -> NoReturn:
        _, token, line = self.tokens[self.at]
        raise ValueError(f"line {line}: expected {wanted}, found {token or 'the end'!r}")

    def peek(self, *texts: str) -> bool:
        kind, token, _ = self.tokens[self.at]
        return token in texts and kind in ("name", "mark")

    def accept(self, *texts: str) -> str:
        """The token, when it is one of these."""
        if self.peek(*texts):
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    def expect(self, *texts: str) -> str:
        return self.accept(*texts) or self.fail(" or ".join(map(repr, texts)))

    def name(self) -> str:
        kind, token, _ = self.tokens[self.at]
        if kind == "string":
            self.at += 1
            return str(json.loads(token))
        if kind != "name" or token in KEYWORDS:
            self.fail("a name")
        self.at += 1
        return token

    def integer(self) -> int:
        kind, token, _ = self.tokens[self.at]
        if kind != "number" or not token.isdigit():
            self.fail("an integer")
        self.at += 1
        return int(token)

    def dtype(self) -> str:
        return self.expect(*DTYPES)

    def listed(self, item: Callable[[], T], opening: str = "(", closing: str = ")") -> tuple[T, ...]:
        """Items between brackets, separated by commas, one may follow the last."""
        self.expect(opening)
        items: list[T] = []
        while not self.accept(closing):
            items.append(item())
            if not self.peek(closing):
                self.expect(",")
        return tuple(items)

    def size(self) -> Dim:
        """A size reaches to the next comma, closing bracket, brace or keyword outside brackets."""
        depth, first = 0, self.at
        while True:
            kind, token, _ = self.tokens[self.at]
            if kind == "end" or (depth == 0 and token in (",", ")", "]", "{", "reverse", "until")):
                break
            depth += (token == "(") - (token == ")")
            self.at += 1
        text = " ".join(t for _, t, _ in self.tokens[first : self.at]).replace("/ /", "//")
        try:
            return parse_size(text)
        except (SyntaxError, ValueError):
            self.at = first
            self.fail("a size")

    def number(self) -> int | float | bool:
        sign = -1 if self.accept("-") else 1
        if word := self.accept("true", "false"):
            return word == "true"
        if word := self.accept("inf", "nan"):
            return sign * float(word)
        kind, token, _ = self.tokens[self.at]
        if kind != "number":
            self.fail("a number")
        self.at += 1
        return sign * (int(token) if token.isdigit() else float(token))

    def module(self) -> Module:
        constants, kernels, entries = [], [], []
        while self.tokens[self.at][0] != "end":
            note = "\n".join(self.notes.get(self.at, ()))
            match self.expect("constant", "kernel", "entry"):
                case "constant":
                    constants.append(self.constant())
                case "kernel":
                    kernels.append(self.kernel(note))
                case _:
                    entries.append(self.entry())
        return Module(tuple(kernels), tuple(entries), tuple(constants))

    def constant(self) -> Constant:
        name = self.name()
        self.expect(":")
        dtype = self.dtype()
        self.expect("=")
        return Constant(name, dtype, self.listed(self.number))

    def kernel(self, note: str) -> Kernel:
        name, sizes, buffers = self.name(), self.listed(self.name), self.listed(self.buffer)
        body = self.block(dict.fromkeys(sizes, "i64"), {b.name: b.dtype for b in buffers})
        return Kernel(name, sizes, buffers, body, note)

    def buffer(self) -> Buffer:
        mutable = bool(self.accept("mut"))
        name = self.name()
        self.expect(":")
        return Buffer(name, self.dtype(), mutable)

    def block(self, names: dict[str, str], buffers: dict[str, str]) -> tuple[Stmt, ...]:
        names, buffers = dict(names), dict(buffers)
        self.expect("{")
        stmts: list[Stmt] = []
        while not self.accept("}"):
            stmts.append(self.statement(names, buffers))
        return tuple(stmts)

    def statement(self, names: dict[str, str], buffers: dict[str, str]) -> Stmt:
        def expr() -> Expr:
            return self.expression(names, buffers)

        match self.accept("let", "register", "for", "if", "check", "prefetch"):
            case "let":
                name = self.name()
                self.expect("=")
                value = expr()
                names[name] = value.dtype
                return Let(name, value)
            case "register":
                name = self.name()
                self.expect(":")
                dtype = self.dtype()
                (length,) = self.listed(self.integer, "[", "]")
                buffers[name] = dtype
                return Register(name, dtype, length)
            case "for":
                return self.loop(names, buffers)
            case "if":
                condition = expr()
                return If(condition, self.block(names, buffers))
            case "check":
                condition = expr()
                self.expect("else")
                return Check(condition, self.integer())
            case "prefetch":
                buffer = self.name()
                (index,) = self.listed(expr, "[", "]")
                return Prefetch(buffer, index)
        buffer = self.name()
        (index,) = self.listed(expr, "[", "]")
        fold = self.accept("sum", "prod", "max", "min")
        self.expect("=")
        return Reduce(buffer, index, fold, expr()) if fold else Store(buffer, index, expr())

    def loop(self, names: dict[str, str], buffers: dict[str, str]) -> For:
        var = self.name()
        self.expect("in")
        start = self.expression(names, buffers)
        self.expect("..")
        stop = self.expression(names, buffers)
        how: dict[str, Any] = {}
        while word := self.accept("step", "vector", "bound", "parallel", "unroll"):
            match word:
                case "bound":
                    how["bound"] = self.expression(names, buffers)
                case "parallel":
                    how["parallel"] = True
                case "vector":
                    how["lanes"] = self.integer()
                case _:
                    how[word] = self.integer()
        return For(var, start, stop, self.block({**names, var: "i64"}, buffers), **how)

    def expression(self, names: dict[str, str], buffers: dict[str, str]) -> Expr:
        """Operators and open brackets wait on a stack, so that depth costs no Python frames. An open bracket is
        (what, name, dtype, operands before it)."""
        values: list[Expr] = []
        waiting: list[tuple[str, str, str, int]] = []

        def reduce_to(level: int) -> None:
            while waiting and waiting[-1][0] == "op" and PRECEDENCE[waiting[-1][1]] >= level:
                fn = waiting.pop()[1]
                right = values.pop()
                left = values.pop()
                values.append(Apply(fn, (left, right), left.dtype))

        while True:
            if not self.operand(values, waiting, names):
                continue  # an opening bracket: an operand follows
            while True:
                if op := self.accept("+", "-", "*"):
                    fn = {"+": "add", "-": "sub", "*": "mul"}[op]
                    reduce_to(PRECEDENCE[fn])
                    waiting.append(("op", fn, "", 0))
                    break
                reduce_to(0)
                if not waiting:
                    (value,) = values
                    return value
                if self.accept(","):
                    if waiting[-1][0] != "call":
                        self.fail("')'")
                    break
                self.close(values, waiting.pop(), buffers)

    def operand(self, values: list[Expr], waiting: list[tuple[str, str, str, int]], names: dict[str, str]) -> bool:
        """A constant, a variable, or an opening bracket; whether it is complete."""
        kind, _, _ = self.tokens[self.at]
        if self.accept("("):
            waiting.append(("group", "", "", len(values)))
            return False
        if kind == "number" or self.peek("-", "true", "false", "inf", "nan"):
            value = self.number()
            dtype = self.dtype() if self.accept(":") else "bool" if isinstance(value, bool) else "i64"
            values.append(i64(value) if dtype == "i64" and isinstance(value, int) else Const(value, dtype))
            return True
        name = self.name()
        if self.accept("["):
            waiting.append(("load", name, "", len(values)))
            return False
        dtype = ""
        if kind == "name" and self.accept("."):
            dtype = self.dtype()
        if self.accept("("):
            waiting.append(("call", name, dtype, len(values)))
            return False
        if self.accept(":"):
            dtype = self.dtype()
        if not dtype and name not in names:
            self.at -= 1
            self.fail("a name that is bound")
        values.append(Var(name, dtype or names[name]))
        return True

    def close(self, values: list[Expr], bracket: tuple[str, str, str, int], buffers: dict[str, str]) -> None:
        """A closing bracket: what was inside becomes one operand."""
        what, name, dtype, before = bracket
        self.expect("]" if what == "load" else ")")
        if what == "load":
            dtype = self.dtype() if self.accept(":") else buffers.get(name) or self.fail(f"a dtype for '{name}'")
            values.append(Load(name, values.pop(), dtype))
        elif what == "call":
            args = tuple(values[before:])
            del values[before:]
            dtype = dtype or natural(name, args) or self.fail(f"a dtype for '{name}'")
            values.append(Apply(name, args, dtype))

    def entry(self) -> Entry:
        name, sizes, slots = self.name(), self.listed(self.name), self.listed(self.slot)
        self.expect("arena")
        arena = self.size()
        self.expect("{")
        return Entry(name, sizes, slots, arena, self.steps())

    def steps(self) -> tuple[Step, ...]:
        """Calls and loops up to the brace that ends them."""
        done: list[list[Step]] = [[]]
        heads: list[tuple[str, Dim, bool, Place | None]] = []
        while True:
            if self.accept("}"):
                if not heads:
                    return tuple(done[0])
                index, count, reverse, until = heads.pop()
                steps = tuple(done.pop())
                done[-1].append(Loop(index, count, steps, reverse, until))
            elif self.accept("for"):
                index = self.name()
                self.expect("in")
                if self.integer() != 0:
                    self.fail("a loop from 0")
                self.expect("..")
                count, reverse = self.size(), bool(self.accept("reverse"))
                heads.append((index, count, reverse, self.place() if self.accept("until") else None))
                done.append([])
                self.expect("{")
            else:
                done[-1].append(Call(self.name(), self.listed(self.size), self.listed(self.place)))

    def slot(self) -> Slot:
        role, name = self.name(), self.name()
        self.expect(":")
        dtype = self.dtype()
        return Slot(name, TensorType(dtype, self.listed(self.size, "[", "]") if self.peek("[") else ()), role)

    def place(self) -> Place:
        match self.expect("slot", "arena", "constant"):
            case "arena":
                self.expect("+")
                return Place("arena", offset=self.size())
            case base:
                return Place(base, self.name(), self.size() if self.accept("+") else 0)

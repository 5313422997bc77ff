"""Reading the loop IR: the text that `text.print_loops` writes, back to a module.

Expressions and steps are read on a stack of their own, so depth costs no Python frames.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from ..types.sizes import Dim, parse_size
from ..types.tensors import EVERY, TensorType
from .ir import (
    FOLDS,
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
    Many,
    Microbatches,
    Module,
    Place,
    Prefetch,
    Reduce,
    Register,
    Share,
    Slot,
    Step,
    Stmt,
    Store,
    Var,
    i64,
)
from .text import INFIX, KEYWORDS, PRECEDENCE, natural

T = TypeVar("T")

_ENDS = frozenset({",", ")", "]", "{", "reverse", "parallel", "until", "share", "by"})  # of a size
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

    def at_number(self) -> bool:
        return self.tokens[self.at][0] == "number"

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
        return self.expect(*EVERY)

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
            if kind == "end" or (depth == 0 and token in _ENDS):
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
                level = self.integer() if self.at_number() else 1
                buffer = self.name()
                (index,) = self.listed(expr, "[", "]")
                return Prefetch(buffer, index, level)
        buffer = self.name()
        (index,) = self.listed(expr, "[", "]")
        into = 1 if self.peek("=", *FOLDS) else self.integer()
        fold = self.accept(*FOLDS)
        self.expect("=")
        return Reduce(buffer, index, fold, expr(), into) if fold else Store(buffer, index, expr())

    def loop(self, names: dict[str, str], buffers: dict[str, str]) -> For:
        var = self.name()
        self.expect("in")
        start = self.expression(names, buffers)
        self.expect("..")
        stop = self.expression(names, buffers)
        how: dict[str, Any] = {}
        while word := self.accept("step", "vector", "bound", "parallel", "from", "unroll"):
            match word:
                case "bound":
                    how["bound"] = self.expression(names, buffers)
                case "parallel":
                    how["parallel"] = True
                    if self.accept("if"):
                        how["when"] = self.expression(names, buffers)
                case "from":
                    how["first"] = self.name()
                case "vector":
                    how["lanes"] = self.integer()
                case _:
                    how[word] = self.integer()
        return For(var, start, stop, self.block({**names, var: "i64", how.get("first", var): "i64"}, buffers), **how)

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
                    fn = next(f for f, sign in INFIX.items() if sign == op)
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
        many = self.many() if self.accept("many") else None
        apart = self.microbatches() if self.accept("microbatches") else None
        marks = self.listed(self.integer) if self.accept("marks") else ()
        self.expect("arena")
        arena = self.size()
        self.expect("{")
        return Entry(name, sizes, slots, arena, self.steps(), many, apart, marks)

    def many(self) -> Many:
        entry = self.name()
        self.expect("from")
        return Many(entry, self.name(), self.integer())

    def microbatches(self) -> Microbatches:
        size, length = self.name(), self.integer()
        self.expect("step")
        return Microbatches(size, length, self.integer())

    def steps(self) -> tuple[Step, ...]:
        """Calls and loops up to the brace that ends them."""
        done: list[list[Step]] = [[]]
        heads: list[Loop] = []  # whose steps are still to come
        while True:
            if self.accept("}"):
                if not heads:
                    return tuple(done[0])
                steps = tuple(done.pop())
                done[-1].append(replace(heads.pop(), steps=steps))
            elif self.accept("for"):
                index = self.name()
                self.expect("in")
                if self.integer() != 0:
                    self.fail("a loop from 0")
                self.expect("..")
                count, reverse, parallel = self.size(), bool(self.accept("reverse")), bool(self.accept("parallel"))
                until = self.place() if self.accept("until") else None
                share = self.share() if self.accept("share") else None
                heads.append(Loop(index, count, (), reverse, until, parallel, share))
                done.append([])
                self.expect("{")
            else:
                done[-1].append(Call(self.name(), self.listed(self.size), self.listed(self.place)))

    def share(self) -> Share:
        first = self.name()
        self.expect(",")
        count = self.name()
        self.expect("of")
        of = self.size()
        self.expect("by")
        return Share(first, count, of, self.integer())

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

"""Parallel loops: the body as a function of a range of turns, which `threads` divides.

In: a parallel loop. Out: a function and a call of `nnc.fork`, and one for all turns where it is not shared. A turn is
one iteration or one group of lanes. What the body reads is passed in a context of 8-byte fields; the function that
receives it unpacks it into parameters of the function with the loop, so that the buffers there are `noalias` as they
are in the kernel.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import groupby
from typing import NamedTuple

from ...dsl.record import dataclass, field, replace
from ..loops.ir import (
    Apply,
    Check,
    Const,
    For,
    If,
    Let,
    Load,
    Prefetch,
    Reduce,
    Register,
    Store,
    Var,
    expressions,
    i64,
    parts,
    walk,
)
from .text import Function, symbol


class Field(NamedTuple):
    """One value that a parallel body is given: its type, the operand outside and the parameter inside."""

    type: str
    outside: str
    inside: str
    attributes: str


@dataclass(slots=True)
class Context:
    """What a parallel body is given."""

    fields: list[Field] = field(default_factory=list)

    def add(self, type_: str, outside: str, inside: str, attributes: str = "") -> None:
        self.fields.append(Field(type_, outside, inside, attributes))

    @property
    def given(self) -> list[Field]:
        """The fields in the order in which they are passed, by type: most contexts are then of a few forms."""
        return sorted(self.fields, key=lambda f: f.type)

    @property
    def form(self) -> Hashable:
        """What equal functions of loops are given alike."""
        return tuple((f.type, f.attributes) for f in self.fields)


Helpers = dict[tuple[str, str, int], str]  # what a module needs beside its kernels, see `text.Externals`


def unpack(context: Context, helpers: Helpers) -> str:
    """The name of the function that `nnc.fork` calls, `i32 name(context, low, high)`, which calls the one whose address
    the context begins with. There is one for each form of context."""
    types = [f.type for f in context.given]
    form = ".".join(f"{t}.{len([*same])}" for t, same in groupby(types))
    name = symbol(f"nnc.given.{form}", "@")
    if ("nnc.given", form, 0) not in helpers:
        lines, args = ["  %body = load ptr, ptr %context, align 8"], ["i64 %low", "i64 %high"]
        for k, type_ in enumerate(types, 1):
            lines += [
                f"  %at{k} = getelementptr i64, ptr %context, i64 {k}",
                f"  %field{k} = load {type_}, ptr %at{k}, align 8",
            ]
            args.append(f"{type_} %field{k}")
        lines += [f"  %code = call i32 %body({', '.join(args)})", "  ret i32 %code"]
        head = f"define internal i32 {name}(ptr %context, i64 %low, i64 %high) #0 {{"
        helpers["nnc.given", form, 0] = "\n".join([head, *lines, "}\n"])
    return name


def fork(fn: Function, body: str, turns: str, context: Context, pool: str, word: str, helpers: Helpers) -> str:
    """A call that has threads do all turns."""
    where = fn.alloca(f"[{len(context.fields) + 1} x i64]", "context")
    for k, (type_, outside) in enumerate([("ptr", symbol(body, "@")), *((f.type, f.outside) for f in context.given)]):
        at = fn.pure(f"getelementptr i64, ptr {where}, i64 {k}", 0, "at")
        fn.line(f"store {type_} {outside}, ptr {at}, align 8")
    return f"@nnc.fork(ptr {pool}, ptr {word}, ptr {unpack(context, helpers)}, ptr {where}, i64 {turns})"


def directly(body: str, turns: str, context: Context) -> str:
    """A call of the function with the loop, for all turns."""
    args = ["i64 0", f"i64 {turns}", *(f"{f.type} {f.outside}" for f in context.given)]
    return f"call i32 {symbol(body, '@')}({', '.join(args)})"


def signature(body: str, low: str, high: str, context: Context) -> str:
    """Of the function with the loop."""
    parameters = [f"i64 {low}", f"i64 {high}"]
    parameters += [" ".join(filter(None, (f.type, f.attributes, f.inside))) for f in context.given]
    return f"define internal i32 {symbol(body, '@')}({', '.join(parameters)}) #0"


def form(loop: For) -> tuple[tuple[Hashable, ...], list[str], list[str]]:
    """What a loop does between its bounds, with numbers in place of names, in the order in which they are met; and the
    names of values and of buffers that it reads or writes, whether bound inside or outside. Loops of one form differ in
    names alone."""
    loop = replace(loop, start=i64(0), stop=i64(0), bound=None, when=None)
    values, buffers, out = dict[str, int](), dict[str, int](), list[Hashable]()

    def value(name: str) -> int:
        return values.setdefault(name, len(values))

    def buffer(name: str) -> int:
        return buffers.setdefault(name, len(buffers))

    for s in walk((loop,)):
        match s:
            case For(var, body=body, bound=bound, when=when):
                how = s.step, s.lanes, s.unroll, s.parallel, bound is None, when is None
                out.append(("for", value(var), value(s.first), len(body), *how))
            case If(_, body):
                out.append(("if", len(body)))
            case Let(name):
                out.append(("let", value(name)))
            case Store(name):
                out.append(("store", buffer(name)))
            case Reduce(name, _, fold, _, into):
                out.append(("reduce", buffer(name), fold, into))
            case Prefetch(name, _, level):
                out.append(("prefetch", buffer(name), level))
            case Register(name, dtype, length):
                out.append(("register", buffer(name), dtype, length))
            case Check(_, code):
                out.append(("check", code))
        for x in expressions(s):
            for e in parts(x):
                if type(e) is Var:
                    out.append(value(e.name))
                elif type(e) is Apply:
                    out.append((e.fn, len(e.args), e.dtype))
                elif type(e) is Load:
                    out.append((buffer(e.buffer), e.dtype))
                else:
                    assert type(e) is Const
                    out.append((repr(e.value), e.dtype))  # 0.0 and -0.0 are equal
    return tuple(out), [*values], [*buffers]

"""Parallel loops: the body as a function of a range of turns, which `threads` divides.

In: a parallel loop. Out: two functions and a call of `nnc.fork`, and one for all turns where it is not shared. A turn
is one iteration or one group of lanes. What the body reads is passed in a context of 8-byte fields; the function that
receives it unpacks it into parameters of the function with the loop, so that the buffers there are `noalias` as they
are in the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..loops.ir import For, Load, Prefetch, Reduce, Store, Var, expressions, parts, walk
from .text import Function, symbol


@dataclass(slots=True)
class Context:
    """What a parallel body is given, field by field: the type, the operand outside and the parameter inside."""

    fields: list[tuple[str, str, str]] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)

    def add(self, type_: str, outside: str, inside: str, attributes: str = "") -> None:
        self.fields.append((type_, outside, inside))
        self.attributes.append(attributes)


def unpack(name: str, body: str, context: Context) -> str:
    """The function `nnc.fork` calls: `i32 name(context, low, high)`."""
    lines, args = [], ["i64 %low", "i64 %high"]
    for k, (type_, _, _) in enumerate(context.fields):
        lines += [
            f"  %at{k} = getelementptr i64, ptr %context, i64 {k}",
            f"  %field{k} = load {type_}, ptr %at{k}, align 8",
        ]
        args.append(f"{type_} %field{k}")
    lines += [f"  %code = call i32 {symbol(body, '@')}({', '.join(args)})", "  ret i32 %code"]
    head = f"define internal i32 {symbol(name, '@')}(ptr %context, i64 %low, i64 %high) #0 {{"
    return "\n".join([head, *lines, "}\n"])


def fork(fn: Function, name: str, turns: str, context: Context, pool: str, word: str) -> str:
    """A call that has threads do all turns."""
    where = fn.alloca(f"[{max(1, len(context.fields))} x i64]", "context")
    for k, (type_, outside, _) in enumerate(context.fields):
        at = fn.pure(f"getelementptr i64, ptr {where}, i64 {k}", 0, "at")
        fn.line(f"store {type_} {outside}, ptr {at}, align 8")
    return f"@nnc.fork(ptr {pool}, ptr {word}, ptr {symbol(name, '@')}, ptr {where}, i64 {turns})"


def directly(body: str, turns: str, context: Context) -> str:
    """A call of the function with the loop, for all turns."""
    args = ["i64 0", f"i64 {turns}", *(f"{type_} {outside}" for type_, outside, _ in context.fields)]
    return f"call i32 {symbol(body, '@')}({', '.join(args)})"


def signature(body: str, low: str, high: str, context: Context) -> str:
    """Of the function with the loop."""
    parameters = [f"i64 {low}", f"i64 {high}"]
    for (type_, _, inside), attributes in zip(context.fields, context.attributes, strict=True):
        parameters.append(" ".join(filter(None, (type_, attributes, inside))))
    return f"define internal i32 {symbol(body, '@')}({', '.join(parameters)}) #0"


def names_in(loop: For) -> set[str]:
    """The names of values and buffers that a loop reads or writes, whether bound inside or outside."""
    names = {s.buffer for s in walk((loop,)) if isinstance(s, Store | Reduce | Prefetch)}
    for e in (e for s in walk((loop,)) for x in expressions(s) for e in parts(x)):
        if isinstance(e, Var):
            names.add(e.name)
        elif isinstance(e, Load):
            names.add(e.buffer)
    return names

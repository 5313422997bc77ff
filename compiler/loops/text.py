"""The loop IR as text, both ways: `parse_loops(print_loops(m)) == m`. Printing; `parse` reads.

The grammar is that of `ir`, with these particulars. `+ - *` stand for `add sub mul`, left to right. A constant
carries its dtype, `1.5:f32`, unless it is an i64 or a bool. A function shows its dtype, `cast.f32(x)`, where its
operands do not determine it, a variable or load where it is not the one it was bound with. Names that are not plain
are quoted. A kernel's note is the comment above it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator

from ..scalar import FUNCTIONS
from ..types.tensors import DTYPES
from .ir import (
    Apply,
    Check,
    Const,
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
    Share,
    Step,
    Stmt,
    Store,
    Var,
)

INFIX = {"add": "+", "sub": "-", "mul": "*"}
PRECEDENCE = {"add": 1, "sub": 1, "mul": 2}
KEYWORDS = frozenset({
    "constant", "kernel", "entry", "mut", "let", "register", "for", "in", "step", "vector", "bound", "parallel",
    "unroll", "reverse", "until", "share", "of", "by", "if", "check", "else", "true", "false", "slot", "arena", "inf",
    "nan", *DTYPES,
})  # fmt: skip
ATOM = 9


def natural(fn: str, args: tuple[Expr, ...]) -> str | None:
    """The dtype of a function that its operands determine."""
    if fn in FUNCTIONS and FUNCTIONS[fn].result:
        return FUNCTIONS[fn].result
    if fn in ("cast", "random") or not args:
        return None
    return args[1].dtype if fn == "select" else args[0].dtype


def print_loops(module: Module) -> str:
    """The text of a module."""
    parts = [
        f"constant {_name(c.name)}: {c.dtype} = ({', '.join(_number(v) for v in c.values)})\n" for c in module.constants
    ]
    parts += [print_kernel(k) + "\n" for k in module.kernels]
    parts += [print_entry(e) + "\n" for e in module.entries]
    return "\n".join(parts)


def print_kernel(kernel: Kernel) -> str:
    """The text of a kernel."""
    return "\n".join(_kernel(kernel))


def print_entry(entry: Entry) -> str:
    """The text of an entry: its slots, and the kernels that it calls."""
    return "\n".join(_entry(entry))


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
            case Reduce(buffer, index, fold, value, into):
                several = f" {into}" if into > 1 else ""
                yield f"{indent}{_name(buffer)}[{text(index)}]{several} {fold}= {text(value)}"
            case Register(name, dtype, length):
                yield f"{indent}register {_name(name)}: {dtype}[{length}]"
                buffers[name] = dtype
            case For():
                yield f"{indent}for {_name(s.var)} in {text(s.start)}..{text(s.stop)}{_how(s, text)} {{"
                yield from _body(s.body, {**names, s.var: "i64", s.first: "i64"}, buffers, indent + "    ")
                yield indent + "}"
            case If(condition, body):
                yield f"{indent}if {text(condition)} {{"
                yield from _body(body, names, buffers, indent + "    ")
                yield indent + "}"
            case Check(condition, code):
                yield f"{indent}check {text(condition)} else {code}"
            case Prefetch(buffer, index, level):
                yield f"{indent}prefetch {'' if level == 1 else f'{level} '}{_name(buffer)}[{text(index)}]"


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
        words.append("parallel" if s.when is None else f"parallel if {text(s.when)}")
    if s.first:
        words.append(f"from {_name(s.first)}")
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
    many = f" many {_name(e.many.entry)} from {_name(e.many.size)} {e.many.least}" if e.many is not None else ""
    m = e.microbatches
    apart = f" microbatches {_name(m.size)} {m.length} step {m.step}" if m is not None else ""
    marks = f" marks ({', '.join(map(str, e.marks))})" if e.marks else ""
    yield f"){many}{apart}{marks} arena {e.arena} {{"
    yield from _steps(e.steps, "    ")
    yield "}"


def _steps(steps: tuple[Step, ...], indent: str) -> Iterator[str]:
    for s in steps:
        if isinstance(s, Loop):
            how = (
                " reverse" * s.reverse
                + " parallel" * s.parallel
                + (f" until {_place(s.until)}" if s.until is not None else "")
                + (_share(s.share) if s.share is not None else "")
            )
            yield f"{indent}for {_name(s.index)} in 0..{s.count}{how} {{"
            yield from _steps(s.steps, indent + "    ")
            yield indent + "}"
        else:
            places = ", ".join(map(_place, s.places))
            yield f"{indent}{_name(s.kernel)}({', '.join(map(str, s.sizes))})({places})"


def _share(s: Share) -> str:
    return f" share {_name(s.first)}, {_name(s.count)} of {s.of} by {s.grain}"


def _place(p: Place) -> str:
    if p.base == "arena":
        return f"arena + {p.offset}"
    return f"{p.base} {_name(p.name)}" + (f" + {p.offset}" if p.offset != 0 else "")

"""The stages that golden cases can name: input text and arguments in, output text out.

A stage that meets a wrong program raises its `NncError`; the runner renders it. Keep outputs free of anything that
depends on the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import getcomments
from pathlib import Path

from nnc.compiler.elaborate import Program
from nnc.compiler.graph.text import parse_graph, print_graph
from nnc.compiler.llvm import emit
from nnc.compiler.loops.parse import parse_loops
from nnc.compiler.loops.text import print_loops
from nnc.compiler.lowering.lower import Variant, lower
from nnc.compiler.lowering.memory import plan
from nnc.compiler.lowering.panels import pack
from nnc.compiler.lowering.wind import wind
from nnc.compiler.native.target import level
from nnc.compiler.passes import ALWAYS, OPTIMIZE, REWRITE, run
from nnc.compiler.passes.narrow import narrow
from nnc.compiler.passes.prepare import fixed, prepare
from nnc.compiler.passes.rewrite import Rule, rewrite
from nnc.compiler.passes.rules.adjoint import windows_padded
from nnc.compiler.passes.simplify import RULES as SIMPLIFY
from nnc.compiler.settings import Settings
from nnc.dsl import ast
from nnc.dsl.errors import SourceError
from nnc.dsl.format import format
from nnc.dsl.parser import parse
from nnc.dsl.source import Source
from nnc.runtime.check.diagnose import diagnose
from nnc.runtime.data.formats import NAMES

NAME = "input.nn"  # what the input of a case is called in messages


def parse_stage(text: str, args: str) -> str:
    """The syntax tree, one node a line."""
    return "\n".join(line for d in parse(Source(NAME, text)).definitions for line in _tree_lines(d))


def format_stage(text: str, args: str) -> str:
    source = Source(NAME, text)
    return format(parse(source), source)


def errors_stage(text: str, args: str) -> str:
    """What a program that checks says: its entries. A wrong one raises."""
    program = Program(Source(NAME, text), Settings(sources=lambda: NAMES))
    found = program.check()
    if found:
        raise SourceError(found)
    return "no error in " + ", ".join(program.entries)


def check_stage(text: str, args: str) -> str:
    """All that `nnc check` says of a text."""
    found = diagnose(text, Path(NAME))
    if found.errors:
        raise SourceError(found.diagnostics)
    return "no errors"


PASSES = {p.__name__: (p,) for p in (*ALWAYS, *OPTIMIZE)}
PASSES["optimize"] = (*ALWAYS, *REWRITE)


def graph_stage(text: str, args: str) -> str:
    """A graph, read and written."""
    return print_graph(parse_graph(text, NAME))


def passes_stage(text: str, args: str) -> str:
    """A graph after the passes named."""
    return print_graph(run([p for name in args.split() for p in PASSES[name]], parse_graph(text, NAME)))


def prepare_stage(text: str, args: str) -> str:
    """What a graph computes of variables alone, and the rest."""
    graph = parse_graph(text, NAME)
    return "\n".join(map(print_graph, prepare(graph) or (graph,)))


def wind_stage(text: str, args: str) -> str:
    """A graph with convolutions by the transforms of their filters, for the target named and one example."""
    return print_graph(wind(parse_graph(text, NAME), level(args), 1))


def narrow_stage(text: str, args: str) -> str:
    """A graph with fixed operands in the format named."""
    graph = parse_graph(text, NAME)
    return print_graph(narrow(graph, fixed(graph), args))


def pack_stage(text: str, args: str) -> str:
    """A graph with the operands in panels that are the same in every call, for the target named."""
    graph = parse_graph(text, NAME)
    return print_graph(pack(graph, fixed(graph), level(args)))


RULES: dict[str, dict[str, tuple[Rule, ...]]] = {}  # a rewrite rule by name, for the operators that have it
for _table in (SIMPLIFY, {"contract": (windows_padded,)}):
    for _op, _rules in _table.items():
        for _rule in _rules:
            RULES.setdefault(_rule.__name__, {})[_op] = (_rule,)


def rule_stage(text: str, args: str) -> str:
    """What one rewrite rule alone makes of a graph, below the mathematics that stand above the rule."""
    table = RULES[args]
    rule = next(iter(table.values()))[0]
    return (getcomments(rule) or "") + print_graph(rewrite(parse_graph(text, NAME), table))


def backward_stage(text: str, args: str) -> str:
    """A graph with its derivatives written out, and nothing else done to it."""
    return passes_stage(text, "differentiate dce")


def entry_stage(text: str, args: str) -> str:
    """One entry of a program, after the passes that know mathematics and before those that know machines."""
    graph = Program(Source(NAME, text), Settings()).graph(args)
    return print_graph(run((*ALWAYS, *REWRITE), graph))


def loops_stage(text: str, args: str) -> str:
    """Loops, read and written."""
    return print_loops(parse_loops(text))


def lower_stage(text: str, args: str) -> str:
    """The loops of a graph for the target named."""
    graph = parse_graph(text, NAME)
    inputs = {n.attrs["name"]: n.type for n in graph if n.op == "input"}
    variables = {n.attrs["path"]: n.type for n in graph if n.op == "param"}
    return print_loops(lower(Variant(graph), inputs, variables, level(args)).module)


def plan_stage(text: str, args: str) -> str:
    """The order of kernels and where values lie; the lower bound at the sizes named, `B=32`."""
    sizes = {k: int(v) for k, v in (a.split("=") for a in args.split())}
    planned = plan(parse_graph(text, NAME))
    lines = [f"order: {' '.join(planned.order)}"]
    for b in planned.lines:
        names = " ".join(name if k == 0 else f"{name} (scratch)" for name, k in b.values)
        lines.append(f"{names}: {b.size} bytes at {b.offset}, from {b.born} to {b.dies}")
    for (name, k), place in planned.places.items():
        if place.base == "slot":
            lines.append(f"{name}{f'.{k}' if k else ''}: slot {place.name}")
    for c in planned.copies:
        where = [p.name or f"arena + {p.offset}" for p in (c.source, c.target)]
        lines.append(f"copy {where[0]} to {where[1]} {'first' if c.early else 'last'}")
    least, kernel = planned.lower_bound(sizes)
    lines.append(f"arena: {planned.arena}; at {args} at least {least} live at once, in {planned.order[kernel]}")
    return "\n".join(lines)


def llvm_stage(text: str, args: str) -> str:
    """LLVM IR, before any pass, for the target named, on Linux."""
    return emit(parse_loops(text), level(args))


def _tree_lines(node: ast.Tree, indent: str = "", role: str = "") -> list[str]:
    """`Binary '+'` with its children below; a field that holds a plain value stands beside the name."""
    plain: list[str] = []
    below: list[str] = []
    for f in fields(node):
        value = getattr(node, f.name)
        if f.name == "span" or f.name == "op_span" or value is None or value == () or value == "":
            continue
        if isinstance(value, ast.Tree):
            below += _tree_lines(value, indent + "  ", f"{f.name}: ")
        elif isinstance(value, tuple) and isinstance(value[0], ast.Tree):
            for item in value:
                below += _tree_lines(item, indent + "  ", f"{f.name}: ")
        else:
            plain.append(f"{f.name}={value!r}")
    return [f"{indent}{role}{type(node).__name__} {' '.join(plain)}".rstrip(), *below]


STAGES: dict[str, Callable[[str, str], str]] = {
    "parse": parse_stage,
    "format": format_stage,
    "errors": errors_stage,
    "check": check_stage,
    "graph": graph_stage,
    "passes": passes_stage,
    "wind": wind_stage,
    "narrow": narrow_stage,
    "pack": pack_stage,
    "prepare": prepare_stage,
    "rule": rule_stage,
    "backward": backward_stage,
    "lower": lower_stage,
    "plan": plan_stage,
    "loops": loops_stage,
    "llvm": llvm_stage,
    "entry": entry_stage,
}

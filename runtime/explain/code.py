"""The code of each kernel three times, its loops, their LLVM IR, the assembly, and which lines belong together.

In: a module of loops and a target. Out: a `Code` for each kernel and each entry. The lines of IR and assembly say of
which line of the loops they are (`compiler/llvm/located`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...compiler.llvm import emit
from ...compiler.llvm.located import Located, lines
from ...compiler.loops import ir as L
from ...compiler.loops.text import print_entry, print_kernel
from ...compiler.native import objects
from ...compiler.native.target import Target

_LOCATION = re.compile(r"^!(\d+) = !DILocation\(line: (\d+)", re.MULTILINE)
_AT = re.compile(r",? !dbg !(\d+)")
_DEFINE = re.compile(r'^define .*?@"?([\w.$-]+)"?\(')
_LABEL = re.compile(r'^"?([\w.$-]+)"?:')
_HERE = re.compile(r"\s+\.loc\s+\d+ (\d+)")
_UNSAID = re.compile(r"\s*(\.(loc|file|cfi_\w+|p2align|size|type)\b|#|$)|\.(Ltmp|Lfunc_\w+?)\d+:")


@dataclass(slots=True)
class Text:
    """Lines, and for each the line of the loops, from 1, that it is of; 0 where it is of none."""

    lines: list[str]
    at: list[int]


@dataclass(frozen=True, slots=True)
class Code:
    name: str
    loops: str
    statements: tuple[int, ...]  # the line of each statement, in the order of `walk`
    llvm: Text
    assembly: Text


def codes(module: L.Module, target: Target) -> list[Code]:
    """Of the kernels, then of the entries that call them."""
    ir = emit(module, target, located=Located())
    llvm, assembly = _functions(ir), _symbols(objects.assembly(ir, target))
    found = []
    for kernel in module.kernels:
        at = lines(kernel)
        numbers = tuple(at[id(s)] for s in L.walk(kernel.body))
        found.append(_code(kernel.name, print_kernel(kernel), numbers, llvm, assembly))
    found += [_code(e.name, print_entry(e), (), llvm, assembly) for e in module.entries]
    return found


def _code(name: str, loops: str, numbers: tuple[int, ...], llvm: dict[str, Text], assembly: dict[str, Text]) -> Code:
    """What is written for parallel loops is called after the kernel, `NAME.i0`; the steps of an entry `nnc.in.NAME`."""
    of = re.compile(rf"(nnc\.(in|steps|some|part\.\d+)\.)?{re.escape(name)}(\.i\d+)*")

    def joined(texts: dict[str, Text]) -> Text:
        own = [t for f, t in texts.items() if of.fullmatch(f)]
        return Text([line for t in own for line in t.lines], [n for t in own for n in t.at])

    return Code(name, loops, numbers, joined(llvm), joined(assembly))


def _functions(ir: str) -> dict[str, Text]:
    """The functions of LLVM IR by name."""
    line_of = {n: int(line) for n, line in _LOCATION.findall(ir)}
    found: dict[str, Text] = {}
    text = None
    for line in ir.splitlines():
        if m := _DEFINE.match(line):
            text = found[m[1]] = Text([], [])
        if text is not None:
            at = _AT.search(line)
            text.lines.append(_AT.sub("", line))
            text.at.append(line_of.get(at[1], 0) if at else 0)
        if line == "}":
            text = None
    return found


def _symbols(assembly: str) -> dict[str, Text]:
    """The functions of assembly by name, without what directives say of places."""
    found: dict[str, Text] = {}
    text, at = None, 0
    functions = set(re.findall(r'^\s+\.type\s+"?([\w.$-]+)"?,\s*[@%]function', assembly, re.MULTILINE))
    for line in assembly.splitlines():
        if (m := _LABEL.match(line)) and m[1] in functions:
            text, at = found.setdefault(m[1], Text([], [])), 0
        elif line.startswith(".Lfunc_end"):
            text = None
        elif m := _HERE.match(line):
            at = int(m[1])
        if text is not None and not _UNSAID.match(line):
            text.lines.append(line.expandtabs(8))
            text.at.append(0 if _LABEL.match(line) else at)
    return found

"""The header of an interface: C99, and C++17."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..native.target import Target
from ..types.sizes import Dim, spelled
from . import epoch
from .glue import alignment
from .interface import FAULTS, C, Call, Interface
from .structs import Field, Struct

_SAID = {
    "init": "Begin: a network that has learned nothing, from a seed; `steps` are those that schedules count on.",
    "prepare": "Make what predictions read of the weights: once, and again whenever these have changed.",
    "predict": "Results in inference mode. Several callers may share what is prepared, each with scratch of its own.",
    "train": "One step over so many examples: losses, gradients, optimizer. Metrics are of before the update.",
    "evaluate": "The metrics in inference mode; nothing changes.",
}


def header(face: Interface, prefix: str, target: Target, about: str, trained: bool) -> str:
    """Types and functions begin with the prefix, macros with its capitals."""
    big = prefix.upper()
    lines = [
        f"/* {about} */",
        f"#ifndef {big}_H", f"#define {big}_H", "",
        "#include <stddef.h>", "#include <stdint.h>", "",
        "#ifdef __cplusplus", 'extern "C" {', "#endif", "",
        "/* What the bytes of a state, or of weights, are: names, shapes, types, places. */",
        f"#define {big}_LAYOUT UINT64_C(0x{face.layout:016x})",
        "/* What this header says of all these, of functions, and of the memory they want. */",
        f"#define {big}_HEADER UINT64_C(0x{face.header:016x})", "",
    ]  # fmt: skip
    for struct in face.structs:
        lines += [*_struct(struct, prefix), ""]
    lines += _codes(face, big)
    for c in face.calls:
        lines += [*_scratch(c, big, target), ""]
    lines += [f"const char *{prefix}_message(int32_t code);  /* what a code says */", "",
              "/* Whether header and object are of the same network, and the processor has the instructions. */",
              f"int32_t {prefix}_check(uint64_t header);  /* of {big}_HEADER */", ""]  # fmt: skip
    for c in face.calls:
        given = ", ".join(re.sub(r"\$(\w+)", rf"{prefix}_\1", p.declared) for p in c.parameters)
        lines += [f"/* {_SAID.get(c.name, f'`{c.name}` of the program.')} */",
                  f"int32_t {prefix}_{c.name}({given});", ""]  # fmt: skip
    for c in face.calls:
        if c.name == "train":
            lines += epoch.declarations(face, c, epoch.rows(face, c), prefix)
    if trained:
        lines += ["/* What was learned, ready for predictions. */",
                  f"extern const {prefix}_prepared {prefix}_trained;", ""]  # fmt: skip
    lines += ["#ifdef __cplusplus", "}", "#endif", "", f"#endif  /* {big}_H */", ""]
    return "\n".join(lines)


def _struct(struct: Struct, prefix: str) -> list[str]:
    """The type, and a line that does not compile where it would be laid out in another way."""
    name = f"{prefix}_{struct.name}"
    size = f"typedef char {name}_size[sizeof({name}) == {struct.nbytes} ? 1 : -1];"
    return [f"typedef struct {name} {{", *_members(struct, prefix, "    "), f"}} {name};", size]


def _members(struct: Struct, prefix: str, indent: str) -> Iterator[str]:
    for f in struct.fields:
        if f.struct is None:
            yield f"{indent}{C[f.dtype]} {f.name}{''.join(f'[{n}]' for n in f.shape)};{_origin(f)}"
        elif f.struct.name:
            yield f"{indent}{prefix}_{f.struct.name} {f.name};"
        else:
            yield f"{indent}struct {{"
            yield from _members(f.struct, prefix, indent + "    ")
            yield f"{indent}}} {f.name};"


def _origin(f: Field) -> str:
    return f"  /* {f.path.replace('*/', '* /')} */" if f.path and f.path != f.name else ""


def _codes(face: Interface, big: str) -> list[str]:
    """What functions return: 0, a fault of the caller, or a check of the data that failed, which changed nothing."""
    rows = [("OK", 0, "")]
    rows += [(f"E_{name}", -k, message) for k, (name, message) in enumerate(FAULTS.items(), 1)]
    rows += [(f"E_{name}", k, message) for k, (name, message) in enumerate(face.checks, 1)]
    shown = [f"    {big}_{name} = {code},{f'  /* {text} */' if text else ''}" for name, code, text in rows]
    return ["enum {", *shown, "};", ""]


def _scratch(call: Call, big: str, target: Target) -> list[str]:
    """How many bytes of scratch memory a call wants."""
    name = f"{big}_{call.name.upper()}_SCRATCH"
    parameters = [parameter for _, parameter in call.sizes]
    more = alignment(target) - 1 if call.arena != 0 else 0
    names = {size: f"(size_t)({p})" for size, p in call.sizes}
    for size, most in call.most.items():
        names[size] = f"({names[size]} < {most} ? {names[size]} : {most})"
    text = f"({c_size(call.arena, names)} + {more}u)" if more else "0u"
    return [f"#define {name}{f'({chr(44).join(parameters)})' if parameters else ''} {text}"]


def c_size(formula: Dim, names: Mapping[str, str]) -> str:
    """A size in C, of unsigned numbers."""
    return spelled(formula, names, number="{}u")

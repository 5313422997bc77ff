"""A program that shows how a network is called; it compiles without warnings and runs as it is."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ...compiler.manifest import Port
from ...compiler.standalone.interface import C, Call, Interface, Parameter
from ...compiler.types.sizes import substitute

_SIZE = 4  # of each size that a call leaves open
_SEED = 42


def example(face: Interface, prefix: str, trained: bool) -> str:
    """In C99: it trains a few steps on numbers that mean nothing where the network trains, and predicts."""
    calls = {c.name: c for c in face.calls}
    lines = [f'#include "{prefix}.h"', "#include <stdio.h>", ""]
    if "train" in calls:
        lines += [f"static {prefix}_state state;"]
    elif "prepare" in calls and not trained:
        lines += [f"static {prefix}_weights weights;  /* to be filled, from a file that `nnc state export` wrote */"]
    if "prepare" in calls and not trained:
        lines += [f"static {prefix}_prepared prepared;"]
    shown = [c for name in ("init", "prepare", "predict", "train") if (c := calls.get(name)) is not None]
    arrays: dict[str, str] = {}
    for c in shown:
        arrays |= dict(_arrays(c))
    lines += arrays.values()
    lines += _scratch(shown, prefix)
    lines += ["", "static int failed(int32_t code) {",
              f'    if (code) printf("error %d: %s\\n", (int)code, {prefix}_message(code));',
              "    return code != 0;", "}", "", "int main(void) {",
              f"    if (failed({prefix}_check({prefix.upper()}_LAYOUT))) return 1;"]  # fmt: skip
    if "train" in calls:
        lines += _training(face, calls, prefix)
    if "prepare" in calls and not trained:
        of = "&state.weights" if "train" in calls else "&weights"
        given = [of if "$weights" in p.declared else str(_SEED) for p in calls["prepare"].parameters[:-3]]
        given += ["&prepared", "scratch", "sizeof scratch"]
        lines += [f"    if (failed({prefix}_prepare({', '.join(given)}))) return 1;"]
    if "predict" in calls:
        c = calls["predict"]
        lines += [f"    if (failed({prefix}_predict({_arguments(c, face, prefix, trained)}))) return 1;"]
        lines += [line for name, dtype in _results(c) for line in _print(name, dtype)]
    return "\n".join([*lines, "    return 0;", "}", ""])


def _training(face: Interface, calls: dict[str, Call], prefix: str) -> Iterator[str]:
    yield f"    if (failed({prefix}_init(&state, {_SEED}, 10, scratch, sizeof scratch))) return 1;"
    train = calls["train"]
    metric = next(iter(face.metrics.fields), None)
    if metric is not None:
        yield f"    {prefix}_metrics metrics;"
    yield "    for (int step = 0; step < 10; step++) {"
    yield f"        if (failed({prefix}_train({_arguments(train, face, prefix, False)}))) return 1;"
    if metric is not None:
        yield f'        printf("{metric.name} %g\\n", (double)metrics.{metric.name});'
    yield "    }"


def _shape(c: Call, port: Port) -> tuple[int, ...]:
    """Where every size is `_SIZE`."""
    sizes = dict.fromkeys((size for size, _ in c.sizes), _SIZE)
    return tuple(int(str(substitute(n, sizes))) for n in port.shape)


def _arrays(c: Call) -> Iterator[tuple[str, str]]:
    """What is passed, by the name of the parameter, as a variable of the program."""
    for p in c.parameters:
        if p.port is None or c.begins:
            continue
        shape = _shape(c, p.port)
        inner = "".join(f"[{n}]" for n in shape) if "[" in p.declared else f"[{max(1, prod(shape))}]"
        yield p.name, f"static {C[p.port.dtype]} {p.name}{inner if p.type == 'ptr' else ''};"


def _results(c: Call) -> Iterator[tuple[str, str]]:
    for p in c.parameters:
        if p.port is not None and p.port in c.outputs:
            yield p.name, p.port.dtype


def _print(name: str, dtype: str) -> list[str]:
    kind, cast = ("%g", "double") if dtype in ("f32", "f64") else ("%ld", "long")
    pointer = f"({C[dtype]} *){name}"
    return [
        f"    for (size_t k = 0; k < sizeof {name} / sizeof({C[dtype]}) && k < 10; k++)",
        f'        printf("{name} {kind}\\n", ({cast})(({pointer})[k]));',
    ]


def _arguments(c: Call, face: Interface, prefix: str, trained: bool) -> str:
    given: list[str] = []
    holders = {
        "$state": "&state",
        "$weights": "&state.weights" if any(x.begins for x in face.calls) else "&weights",
        "$prepared": f"&{prefix}_trained" if trained else "&prepared",
        "$metrics": "&metrics",
    }
    sizes = {parameter for _, parameter in c.sizes}
    for p in c.parameters[:-2]:
        holder = next((v for k, v in holders.items() if k in p.declared), None)
        if holder is not None:
            given.append(holder)
        elif p.name in sizes:
            given.append(str(_SIZE))
        else:
            const = f"({_cast(p)})" if p.declared.startswith("const ") and p.declared.count("[") > 1 else ""
            given.append(f"{const}{p.name}" if p.port is not None else str(_SEED))
    return ", ".join([*given, "scratch", "sizeof scratch"])


def _cast(p: Parameter) -> str:
    """The type of an array of arrays as a pointer: C99 adds no `const` to one by itself."""
    assert p.port is not None
    return f"const {C[p.port.dtype]} (*){p.declared[p.declared.index(']') + 1 :]}"


def _scratch(shown: list[Call], prefix: str) -> list[str]:
    """Memory that is enough for every call."""
    names = [f"{prefix}_{c.name}_SCRATCH".upper() + (f"({', '.join([str(_SIZE)] * len(c.sizes))})" if c.sizes else "")
             for c in shown]  # fmt: skip
    return [f"static unsigned char scratch[1 + {' + '.join(names)}];"] if names else []

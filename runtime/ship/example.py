"""Programs that show how a network is called: in C, which compiles without a warning and runs as it is; for Arduino.

In: an interface. Out: text. They train a few steps on numbers that mean nothing where the network trains, and predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from ...compiler.manifest import Port
from ...compiler.standalone.interface import C, Call, Interface, Parameter
from ...compiler.standalone.structs import free
from ...compiler.types.sizes import substitute

_SIZE = 4  # of each size that a call leaves open
_SEED, _STEPS = 42, 10
_OWN = ("state", "weights", "prepared", "metrics", "scratch", "failed", "main", "step", "k", "setup", "loop", "Serial")


def example(face: Interface, prefix: str, trained: bool) -> str:
    """In C99."""
    p = _Program(face, prefix, trained)
    lines = [
        f'#include "{prefix}.h"', "#include <stdio.h>", "", *p.declared(), "",
        "static int failed(int32_t code) {",
        f'    if (code) printf("error %d: %s\\n", (int)code, {prefix}_message(code));',
        "    return code != 0;", "}", "", "int main(void) {",
        f"    if (failed({prefix}_check({prefix.upper()}_HEADER))) return 1;",
    ]  # fmt: skip
    for call, metric in p.training():
        if call.name == "init":
            lines += [f"    if (failed({p.call(call)})) return 1;"]
            continue
        lines += [
            f"    for (int step = 0; step < {_STEPS}; step++) {{",
            f"        if (failed({p.call(call)})) return 1;",
        ]
        if metric:
            lines += [f'        printf("{metric} %g\\n", (double)metrics.{metric});']
        lines += ["    }"]
    for call in p.predicting():
        lines += [f"    if (failed({p.call(call)})) return 1;"]
    for name, dtype in p.results():
        kind, cast = ("%g", "double") if dtype in ("f32", "f64") else ("%ld", "long")
        lines += [
            f"    for (size_t k = 0; k < sizeof {name} / sizeof({C[dtype]}) && k < 10; k++)",
            f'        printf("{name} {kind}\\n", ({cast})((({C[dtype]} *){name})[k]));',
        ]
    return "\n".join([*lines, "    return 0;", "}", ""])


def sketch(face: Interface, prefix: str, trained: bool) -> str:
    """For Arduino: it says what it finds on the serial line, again and again."""
    p = _Program(face, prefix, trained, size=1)
    lines = [
        f"#include <{prefix}.h>", "", *p.declared(), "",
        "static bool failed(int32_t code) {",
        f"    if (code) Serial.println({prefix}_message(code));",
        "    return code != 0;", "}", "", "void setup() {", "    Serial.begin(115200);",
        f"    failed({prefix}_check({prefix.upper()}_HEADER));",
        *(f"    failed({p.call(c)});" for c, _ in p.training() if c.name == "init"),
        "}", "", "void loop() {",
    ]  # fmt: skip
    for call, metric in p.training():
        if call.name != "init":
            lines += [f"    if (!failed({p.call(call)})) Serial.println({f'metrics.{metric}' if metric else '0'});"]
    lines += [f"    failed({p.call(call)});" for call in p.predicting()]
    for name, dtype in p.results():
        lines += [f"    Serial.println((({C[dtype]} *){name})[0]);"]
    return "\n".join([*lines, "    delay(1000);", "}", ""])


@dataclass(slots=True)
class _Program:
    """What both have in common: which functions are called, on which variables."""

    face: Interface
    prefix: str
    trained: bool
    size: int = _SIZE
    names: dict[tuple[str, str], str] = field(default_factory=dict)  # of variables, by function and parameter
    arrays: dict[str, str] = field(default_factory=dict)  # declarations, by name

    def __post_init__(self) -> None:
        for c in (*(c for c, _ in self.training()), *self.predicting()):
            for p in c.parameters:
                if p.port is None or c.begins:
                    continue
                shape = self._shape(c, p.port)
                inner = "".join(f"[{n}]" for n in shape) if "[" in p.declared else f"[{max(1, prod(shape))}]"
                name = free(p.name, _OWN)
                text = f"static {C[p.port.dtype]} {{}}{inner if p.type == 'ptr' else ''};"
                if self.arrays.get(name, text) != text:
                    name = free(name, (*_OWN, *self.arrays))
                self.names[c.name, p.name], self.arrays[name] = name, text

    def _shape(self, c: Call, port: Port) -> tuple[int, ...]:
        sizes = dict.fromkeys((size for size, _ in c.sizes), self.size)
        return tuple(int(str(substitute(n, sizes))) for n in port.shape)

    def _calls(self, *names: str) -> list[Call]:
        calls = {c.name: c for c in self.face.calls}
        return [calls[n] for n in names if n in calls]

    def training(self) -> list[tuple[Call, str]]:
        """`init` and `train`, and the metric to show."""
        metric = next((f.name for f in self.face.metrics.fields), "")
        return [(c, metric) for c in self._calls("init", "train")]

    def predicting(self) -> list[Call]:
        return self._calls(*(["prepare"] if not self.trained else []), "predict")

    def declared(self) -> Iterator[str]:
        """The variables, and memory that is enough for every call."""
        made = [c for c, _ in self.training()] + self.predicting()
        kinds = {p.held for c in made for p in c.parameters}
        for kind in ("state", "metrics", "weights", "prepared"):
            held = kind == "weights" and "state" in kinds, kind == "prepared" and self.trained
            if kind in kinds and not any(held):
                yield f"static {self.prefix}_{kind} {kind};"
        yield from (text.format(name) for name, text in self.arrays.items())
        sizes = [f"({', '.join([str(self.size)] * len(c.sizes))})" if c.sizes else "" for c in made]
        names = [f"{self.prefix}_{c.name}_SCRATCH".upper() + s for c, s in zip(made, sizes, strict=True)]
        if names:
            yield f"static unsigned char scratch[1 + {' + '.join(names)}];"

    def call(self, c: Call) -> str:
        """With all its arguments."""
        trains = any(x.begins for x in self.face.calls)
        holders = {
            "$state": "&state",
            "$weights": "&state.weights" if trains else "&weights",
            "$prepared": f"&{self.prefix}_trained" if self.trained else "&prepared",
            "$metrics": "&metrics",
        }
        sizes = {parameter for _, parameter in c.sizes}
        given: list[str] = []
        for p in c.parameters[:-2]:
            holder = next((v for k, v in holders.items() if f"{k} " in p.declared), None)
            if holder is not None:
                given.append(holder)
            elif p.name in sizes:
                given.append(str(self.size))
            elif (c.name, p.name) in self.names:
                given.append(f"{_cast(p)}{self.names[c.name, p.name]}")
            else:
                given.append(str({"steps": _STEPS}.get(p.name, _SEED)))
        return f"{self.prefix}_{c.name}({', '.join([*given, 'scratch', 'sizeof scratch'])})"

    def results(self) -> Iterator[tuple[str, str]]:
        """The variables that hold what was predicted, and their dtypes."""
        for c in self._calls("predict"):
            for p in c.parameters:
                if p.port is not None and p.port in c.outputs:
                    yield self.names[c.name, p.name], p.port.dtype


def _cast(p: Parameter) -> str:
    """An array of arrays as a pointer to what is not changed: C99 adds no `const` to one by itself."""
    if not p.declared.startswith("const ") or p.declared.count("[") < 2:
        return ""
    assert p.port is not None
    return f"(const {C[p.port.dtype]} (*){p.declared[p.declared.index(']') + 1 :]})"

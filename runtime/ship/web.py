"""A network as a folder for npm and the browser: two WebAssembly modules, and what calls them from JavaScript.

In: a network. Out: files by name. The modules are the same but for the multiply-add: one uses what the engine fuses,
the other writes it out; `load` takes the first where that is fused, so both give the bits of every other target.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

from ...compiler.native import wasm
from ...compiler.standalone.interface import Call, Interface, Parameter
from ...compiler.standalone.structs import Struct
from ...compiler.types.sizes import Dim, spelled
from ..network import Network
from .build import Build, build

_ARRAYS = {
    "f32": "Float32Array",
    "f64": "Float64Array",
    "i32": "Int32Array",
    "i64": "BigInt64Array",
    "bool": "Uint8Array",
}
_OWN = ("init", "prepare")  # methods that are the same for every network
_TAKEN = ("constructor", "exports", "relaxed", "top", "spare", "trained", "hold", "init", "prepare", "order")
_HELD = """export interface Held {
    readonly kind: string;
    bytes: Uint8Array;
    readonly fields: string[];
    get(path: string): number | bigint | ArrayLike<number> | ArrayLike<bigint>;
    set(path: string, value: number | bigint | ArrayLike<number> | ArrayLike<bigint>): void;
    free(): void;
}
"""


def web(network: Network, prefix: str, names: list[str], trained: str | None = None) -> tuple[dict[str, bytes], Build]:
    """The files, and the build that they are of."""
    made = {t: build(network, t, prefix, names, trained, "speed") for t in ("wasm32", "wasm32-relaxed")}
    exact, relaxed = made.values()
    files = {
        f"{prefix}.wasm": wasm.link(exact.files[f"{prefix}.o"], f"{prefix}_epoch"),
        f"{prefix}-relaxed.wasm": wasm.link(relaxed.files[f"{prefix}.o"], f"{prefix}_epoch"),
        "index.mjs": module(exact.interface, prefix, trained is not None).encode(),
        "index.d.ts": types(exact.interface, trained is not None).encode(),
        "package.json": package(network.name, prefix).encode(),
        f"{prefix}.lock": exact.files[f"{prefix}.lock"],
    }
    return files, exact


def package(name: str, prefix: str) -> str:
    """What npm is told."""
    described = {
        "name": prefix.replace("_", "-"),
        "version": "1.0.0",
        "description": f"{name}, a neural network as WebAssembly, made by nnc",
        "type": "module",
        "exports": {".": {"types": "./index.d.ts", "default": "./index.mjs"}},
        "types": "./index.d.ts",
        "files": ["*.wasm", "index.mjs", "index.d.ts"],
    }
    return json.dumps(described, indent=2) + "\n"


def module(face: Interface, prefix: str, trained: bool) -> str:
    """`index.mjs`: the facts of a network in what is the same for all."""
    text = Path(__file__).with_name("index.mjs").read_text("utf-8")
    methods = [_method(c) for c in face.calls if c.name not in _OWN]
    return text.replace("/*FACTS*/ {}", _facts(face, prefix, trained)).replace("/*METHODS*/", "\n".join(methods))


def _facts(face: Interface, prefix: str, trained: bool) -> str:
    structs = "\n".join(f"        {s.name}: {_struct(s)}," for s in face.structs)
    calls = "\n".join(f"        {c.name}: {_call(c)}," for c in face.calls)
    return f"""{{
    prefix: {json.dumps(prefix)},
    exact: {json.dumps(prefix + ".wasm")},
    relaxed: {json.dumps(prefix + "-relaxed.wasm")},
    header: "{face.header}",
    trained: {json.dumps(f"{prefix}_trained" if trained else "")},
    structs: {{
{structs}
    }},
    calls: {{
{calls}
    }},
}}"""


def _struct(s: Struct) -> str:
    fields = {
        path: {"at": at, "dtype": f.dtype, "count": prod(f.shape), "scalar": not f.shape} for path, at, f in s.places()
    }
    weights = s.offset("weights")
    return json.dumps({"bytes": s.nbytes, "weights": weights, "fields": fields})


def _call(c: Call) -> str:
    sizes = dict((parameter, size) for size, parameter in c.sizes)
    parameters = ", ".join(_parameter(p, c, sizes) for p in c.parameters[:-2])
    most = {size: f"Math.min(n.{size}, {n})" for size, n in c.most.items()}
    names = {size: most.get(size, f"n.{size}") for size, _ in c.sizes}
    more = 15 if c.arena != 0 else 0
    return f"{{ parameters: [{parameters}], scratch: (n) => {_size(c.arena, names)} + {more} }}"


def _parameter(p: Parameter, c: Call, sizes: dict[str, str]) -> str:
    if p.held == "metrics":
        return "{ metrics: true }"
    if p.type == "ptr" and p.port is None:
        return f'{{ held: "{p.held}" }}'
    if p.name in sizes:
        return f'{{ size: "{sizes[p.name]}" }}'
    if p.port is None:
        return f'{{ name: "{p.name}", dtype: "{"i64" if p.type == "i64" else "i32"}" }}'
    named = f'name: {json.dumps(p.port.name)}, dtype: "{p.port.dtype}", type: {json.dumps(str(p.port.type))}'
    if p.type != "ptr":
        return f"{{ {named} }}"
    dims = ", ".join(f"(n) => {_size(n, {s: f'n.{s}' for s, _ in c.sizes})}" for n in p.port.shape)
    first = str(p.port.shape[0]) if p.port.shape else ""
    rows = f', rows: "{first}"' if first in {s for s, _ in c.sizes} else ""
    output = ", output: true" if p.port in c.outputs else ""
    return f"{{ {named}, shape: [{dims}]{rows}{output} }}"


def _size(formula: Dim, names: dict[str, str]) -> str:
    """A size in JavaScript."""
    return spelled(formula, names, divide="Math.floor({} / {})")


def _holders(c: Call) -> list[str]:
    return [p.held for p in c.parameters if p.held not in ("", "metrics")]


def _method_name(c: Call) -> str:
    """That of the function, but for what a network has in JavaScript."""
    return f"{c.name}_" if c.name in _TAKEN else c.name


def _method(c: Call) -> str:
    """A method around a function."""
    held = _holders(c)
    given = f"{held[0]}, " if held else ""
    inside = f"[{held[0]}.kind]: {held[0]}" if held else ""
    return (
        f"Network.prototype.{_method_name(c)} = function ({given}given = {{}}, sizes = {{}}) {{\n"
        f'    return this._call("{c.name}", {{ {inside} }}, given, sizes);\n}};'
    )


def types(face: Interface, trained: bool) -> str:
    """`index.d.ts`."""
    lines = [_HELD, "export interface Network {", "    readonly relaxed: boolean;"]
    lines += ["    readonly trained: Held;"] if trained else []
    lines += ["    hold(kind: string, bytes: Uint8Array): Held;"]
    names = {c.name for c in face.calls}
    if "init" in names:
        lines += ["    init(options?: { seed?: number; steps?: number }): Held;",
                  "    order(n: number, seed: number, epoch: number): Uint32Array;"]  # fmt: skip
    if "prepare" in names:
        lines += ["    prepare(from: Held, numbers?: Record<string, number>, into?: Held): Held;"]
    for c in face.calls:
        if c.name not in _OWN:
            lines.append(f"    {_declared(c, face)}")
    modules = "{ exact?: BufferSource; relaxed?: BufferSource }"
    lines += ["}", "", f"export function load(modules?: {modules}): Promise<Network>;", ""]
    return "\n".join(lines)


def _declared(c: Call, face: Interface) -> str:
    inputs, results = [], []
    for p in c.parameters[:-2]:
        if p.port is not None and p.port in c.outputs:
            results.append(f"{p.port.name}: {_ARRAYS[p.port.dtype]}")
        elif p.port is not None:
            kind = _ARRAYS[p.port.dtype] if p.type == "ptr" else "number"
            inputs.append(f"{p.port.name}: {kind}")
        elif p.type == "i64":
            inputs.append(f"{p.name}: number")
        elif p.held == "metrics":
            results += [f"{f.path}: number" for f in face.metrics.fields]
    held = "".join(f"{h}: Held, " for h in _holders(c)[:1])
    sizes = "; ".join(f"{s}?: number" for s, _ in c.sizes)
    return (
        f"{_method_name(c)}({held}given: {{ {'; '.join(inputs)} }}, sizes?: {{ {sizes} }}): {{ {'; '.join(results)} }};"
    )

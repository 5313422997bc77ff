"""A network as a Python wheel: a library for each level of x86-64, or one for aarch64, and a thin module over it; no
llvmlite, no compiler.

In: a network. Out: the bytes of the wheel, the same for the same network ("The Python Packaging User Guide: Binary
distribution format").
"""

from __future__ import annotations

import io
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

from ...compiler.native import shared
from ...compiler.native.target import LEVELS
from ...compiler.standalone.interface import Call, Interface, Parameter
from ...compiler.standalone.structs import Struct
from ...compiler.types.sizes import Dim, Symbol, spelled, symbols, terms
from ..network import Network
from .build import Build, build
from .learned import read

_DATE = (1980, 1, 1, 0, 0, 0)  # the first that an archive can have
# the targets for a machine, the best first
_TARGETS: Mapping[str, tuple[str, ...]] = {"x86_64": tuple(reversed(LEVELS)), "aarch64": ("aarch64",)}


def wheel(
    network: Network,
    prefix: str,
    names: list[str],
    trained: str | None = None,
    version: str = "1.0",
    machine: str = "x86_64",
) -> tuple[str, bytes, Build]:
    """The name of the file, its bytes, and a build: that for the middle level."""
    made = {target: build(network, target, prefix, names, trained) for target in _TARGETS[machine]}
    typical = list(made.values())[len(made) // 2]
    tag = f"py3-none-manylinux2014_{machine}"  # it needs nothing of the system's libraries
    files = {
        f"{prefix}/__init__.py": Path(__file__).with_name("module.py").read_bytes(),
        f"{prefix}/facts.py": _facts(network, made, typical.interface, prefix, trained is not None).encode(),
        f"{prefix}/py.typed": b"",
    }
    for level, b in made.items():
        files[f"{prefix}/{level}.so"] = shared.link(b.files[f"{prefix}.o"], f"{prefix}-{level}.so")
    if trained is not None:
        files[f"{prefix}/weights.bin"] = read(network, typical.interface.weights)
    info = f"{prefix}-{version}.dist-info"
    about = f"{network.name}, a neural network made by nnc"
    metadata = f"Metadata-Version: 2.1\nName: {prefix}\nVersion: {version}\nSummary: {about}\n"
    files[f"{info}/METADATA"] = f"{metadata}Requires-Python: >=3.10\nRequires-Dist: numpy\n".encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: nnc\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    record = f"{info}/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    return f"{prefix}-{version}-{tag}.whl", _archive(files), typical


def _digest(data: bytes) -> str:
    return urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def _archive(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def _facts(network: Network, made: Mapping[str, Build], face: Interface, prefix: str, trained: bool) -> str:
    """The module of what is of this network alone. What is prepared, and scratch memory, differ by level."""
    spec = network.manifest.train
    libraries = {f"{level}.so": b.interface.header for level, b in made.items()}
    sums = [m.name for m in spec.metrics if m.over == "sum"] if spec is not None else []
    train = next((c for c in face.calls if c.name == "train"), None)
    rows = [p.name for p in train.inputs if spec and p.shape and str(p.shape[0]) == spec.batch_size] if train else []
    weights = face.state.offset("weights")
    lines = [
        f'"""What the package is of: {network.name}."""',
        f"PREFIX, LAYOUT, LIBRARIES = {prefix!r}, {face.layout}, {libraries!r}",
        f"TRAINED = {f'{prefix}_trained' if trained else ''!r}",
        f"BATCH, SHUFFLE, SEED = {spec.batch if spec else None}, {spec.shuffle if spec else True}, {network.seed}",
        f"SUMS, ROWS = {sums!r}, {rows!r}  # metrics that are added up, inputs that come by examples",
        f"WEIGHTS = {weights}  # where they lie in a state",
        "STRUCTS = {  # bytes, and of each variable where it lies, its dtype and its shape",
    ]
    for s in face.structs:
        lines += _struct(s) if s.name != "prepared" else []
    lines.append("}\nPREPARED = {")
    for level, b in made.items():
        found = [s for s in b.interface.structs if s.name == "prepared"]
        lines += [f"    '{level}.so': {{", *(line for s in found for line in _struct(s)), "    },"]
    lines.append("}\nSCRATCH = {  # bytes")
    for level, b in made.items():
        calls = [f"        {_key(c)!r}: lambda n: {_scratch(c)}," for c in b.interface.calls]
        lines += [f"    '{level}.so': {{", *calls, "    },"]
    lines.append("}\nCALLS = {  # the function, parameters, sizes")
    for c in face.calls:
        lines.append(f"    {_key(c)!r}: ({c.name!r}, [")
        lines += [f"        {_parameter(p, c)}," for p in c.parameters[:-2]]
        lines.append(f"    ], {[s for s, _ in c.sizes]!r}),")
    return "\n".join([*lines, "}", ""])


def _key(c: Call) -> str:
    """What Python calls a function: as the program does."""
    return "prepare" if c.name == "prepare" else c.entry


def _struct(s: Struct) -> list[str]:
    fields = [f"        {path!r}: ({at}, {f.dtype!r}, {f.shape!r})," for path, at, f in s.places()]
    return [f"    {s.name!r}: ({s.nbytes}, {{", *fields, "    }),"]


def _parameter(p: Parameter, c: Call) -> str:
    """(kind, name, dtype, shape)."""
    sizes = {parameter: size for size, parameter in c.sizes}
    if p.held == "metrics":
        return "('metrics', '', '', ())"
    if p.name in sizes:
        return f"('size', {sizes[p.name]!r}, 'size', ())"
    if p.port is None:
        if p.type != "ptr":
            return f"('progress', {p.name!r}, 'i64', ())"
        return f"('held', {p.held!r}, '', ())"
    if p.type != "ptr":
        return f"('number', {p.port.name!r}, {p.port.dtype!r}, ())"
    if p.port in c.outputs:
        return f"('output', {p.port.name!r}, {p.port.dtype!r}, ({''.join(f'{_formula(n)}, ' for n in p.port.shape)}))"
    free = set(sizes.values())
    shape = "".join(f"{_said(n, free)}, " for n in p.port.shape)
    return f"('input', {p.port.name!r}, {p.port.dtype!r}, ({shape}))"


def _said(n: Dim, free: Collection[str]) -> str:
    """A size that an array says: a name, a multiple of one, or else a formula to be checked."""
    if str(n) in free:
        return repr(str(n))
    match terms(n):
        case ((((Symbol(name),), times)),) if times > 0:
            return repr((times, name))
    return _formula(n)


def _formula(n: Dim) -> str:
    return f"lambda n: {_text(n)}"


def _text(n: Dim) -> str:
    """A size in Python, of `n`, the sizes by name."""
    return spelled(n, {name: f"n[{name!r}]" for name in symbols(n)}, divide="({} // {})")


def _scratch(c: Call) -> str:
    if c.arena == 0:
        return "0"
    most = ", ".join(f"{size!r}: min(n[{size!r}], {k})" for size, k in c.most.items())
    return f"(lambda n: {_text(c.arena)} + 63)({{**n, {most}}})" if most else f"{_text(c.arena)} + 63"

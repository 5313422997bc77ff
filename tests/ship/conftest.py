"""Builds, compilers and emulators; and a library called by its addresses, as from any language that can `dlopen`."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.compiler.standalone.build import entries
from nnc.compiler.standalone.interface import Call, Interface
from nnc.compiler.standalone.structs import Struct
from nnc.runtime.call.arrays import NUMPY
from nnc.runtime.ship.build import Build, build

MODELS = Path(nnc.__file__).parent / "models"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O1")
CROSS = {  # compiler, emulator and its arguments: Debian's gcc-aarch64-linux-gnu, gcc-riscv64-linux-gnu, qemu-user
    "aarch64": ("aarch64-linux-gnu-gcc", ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")),
    "riscv64": ("riscv64-linux-gnu-gcc", ("qemu-riscv64", "-L", "/usr/riscv64-linux-gnu")),
}
LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


def ship(net: nnc.Model, target: str, folder: Path, trains: bool = True, **more: Any) -> Build:
    """Build, and write the files."""
    made = build(net, target, "net", entries(net.manifest, trains, more.pop("exports", ())), **more)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in made.files.items():
        (folder / name).write_bytes(data)
    return made


def host() -> str:
    """The best target that this machine can run."""
    level = "x86-64-v3"
    try:
        nnc.compile("export f(x: f32[N]) -> f32[N] = x", target_cpu=level)
    except nnc.UnsupportedError:
        return "x86-64-v2"
    return level


def compile_c(target: str, source: Path, folder: Path, to: Path, *flags: str) -> list[str]:
    """Compile a program against a build; the command that runs it. Skips where there is no compiler or emulator."""
    compiler, emulator = CROSS.get(target, ("cc", ()))
    for tool in (compiler, *emulator[:1]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if target in LEVELS:
        try:
            nnc.compile("export f(x: f32[N]) -> f32[N] = x", target_cpu=target)
        except nnc.UnsupportedError as e:
            pytest.skip(str(e))
    command = [compiler, *(flags or STRICT), f"-I{folder}", str(source), str(folder / "libnet.a"), "-o", str(to)]
    subprocess.run(command, check=True)
    return [*emulator, str(to)]


@dataclass
class Library:
    """A build as a shared object. `call("train", state=.., sizes={"B": 4}, x=..)` gives (code, outputs by name)."""

    face: Interface
    loaded: ctypes.CDLL

    def call(self, name: str, held: Mapping[str, np.ndarray], sizes: Mapping[str, int], **given: Any) -> Any:
        c = next(c for c in self.face.calls if c.name == name)
        arguments, outputs = [], {}
        for p in c.parameters[:-2]:
            if holder := next((h for h in held if f"${h} " in p.declared), None):
                arguments.append(ctypes.c_void_p(held[holder].ctypes.data))
            elif "$metrics" in p.declared:
                outputs["metrics"] = np.zeros(self.face.metrics.nbytes, np.uint8)
                arguments.append(ctypes.c_void_p(outputs["metrics"].ctypes.data))
            elif p.type == "size":
                arguments.append(ctypes.c_size_t(next(sizes[s] for s, parameter in c.sizes if parameter == p.name)))
            elif p.port is not None and p.port in c.outputs:
                shape = tuple(int(str(nnc_size(n, sizes))) for n in p.port.shape)
                outputs[p.port.name] = np.zeros(shape, NUMPY[p.port.dtype])
                arguments.append(ctypes.c_void_p(outputs[p.port.name].ctypes.data))
            elif p.type == "ptr":
                assert p.port is not None
                given[p.name] = np.ascontiguousarray(given[p.port.name], NUMPY[p.port.dtype])
                arguments.append(ctypes.c_void_p(given[p.name].ctypes.data))
            else:
                kind = {"float": ctypes.c_float, "double": ctypes.c_double, "i32": ctypes.c_int32, "i8": ctypes.c_int8}
                arguments.append(kind.get(p.type, ctypes.c_int64)(given[p.port.name if p.port else p.name]))
        nbytes = self.scratch(c, sizes)
        scratch = np.zeros(nbytes + 1, np.uint8)[:nbytes]
        run = getattr(self.loaded, f"net_{name}")
        return run(*arguments, ctypes.c_void_p(scratch.ctypes.data), ctypes.c_size_t(nbytes)), outputs

    def scratch(self, c: Call, sizes: Mapping[str, int]) -> int:
        at_once = {s: min(n, c.most.get(s, n)) for s, n in sizes.items()}
        arena = int(str(nnc_size(c.arena, at_once)))
        return arena + 63 if c.arena != 0 else 0


def nnc_size(n: Any, sizes: Mapping[str, int]) -> Any:
    from nnc.compiler.types.sizes import substitute

    return substitute(n, dict(sizes))


def loaded(made: Build, folder: Path) -> Library:
    """Linked by the C compiler from the archive, and loaded."""
    to = folder / "libnet.so"
    whole = ("-Wl,--whole-archive", str(folder / "libnet.a"), "-Wl,--no-whole-archive")
    subprocess.run(["cc", "-shared", "-nostdlib", *whole, "-o", str(to)], check=True)
    return Library(made.interface, ctypes.CDLL(str(to)))


def variables(net: nnc.Model, struct: Struct, data: np.ndarray) -> dict[str, tuple[bytes, bytes]]:
    """By path, what a struct holds and what the network does."""
    return {
        path: (data[at : at + f.nbytes].tobytes(), net.variables[path].tobytes())
        for path, at, f in struct.places()
        if path in net.variables
    }

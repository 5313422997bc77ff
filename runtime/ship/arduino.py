"""A network as a library for Arduino: a header, a compiled library for each kind of processor, a sketch.

In: a network. Out: files by name, in the folders of the "Arduino library specification" (1.5, precompiled libraries).
The header is one, for what a caller sees is the same on all of them.
"""

from __future__ import annotations

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError
from ..network import Network
from .build import Build, build
from .example import sketch

# the folder in which Arduino looks for a library: of the processor, then of its floats
_FOLDERS = {
    "cortex-m0plus": "cortex-m0plus",
    "cortex-m4": "cortex-m4/fpv4-sp-d16-hard",
    "cortex-m7": "cortex-m7/fpv5-d16-hard",
    "cortex-m33": "cortex-m33/fpv5-sp-d16-hard",
}


def arduino(
    network: Network, prefix: str, names: list[str], trained: str | None = None
) -> tuple[dict[str, bytes], Build]:
    """The files, and the build for the Cortex-M4."""
    made = {target: build(network, target, prefix, names, trained) for target in _FOLDERS}
    headers = {b.files[f"{prefix}.h"].partition(b"*/")[2] for b in made.values()}
    if len(headers) != 1:
        raise InternalError(Diagnostic("E0901", "headers for different processors differ"))
    about = f"{network.name}, a neural network made by nnc"
    one = made["cortex-m4"]
    files = {
        "library.properties": _properties(prefix, about).encode(),
        f"src/{prefix}.h": f"/* {about} */".encode() + headers.pop(),
        **{f"src/{folder}/lib{prefix}.a": made[t].files[f"lib{prefix}.a"] for t, folder in _FOLDERS.items()},
        f"examples/{prefix}/{prefix}.ino": sketch(one.interface, prefix, trained is not None).encode(),
        f"extras/{prefix}.lock": one.files[f"{prefix}.lock"],
    }
    return files, one


def _properties(prefix: str, about: str) -> str:
    return f"""name={prefix}
version=1.0.0
author=nnc
maintainer=nnc
sentence={about}.
paragraph=It needs no other library; all memory is the caller's.
category=Data Processing
url=
architectures=*
includes={prefix}.h
precompiled=full
ldflags=-l{prefix}
"""

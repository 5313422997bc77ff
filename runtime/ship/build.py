"""A network as files for another program: header, object, library, what build systems ask, an example.

In: a network, a target. Out: a `Build`, of files by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...compiler.native import objects as native
from ...compiler.native import shared
from ...compiler.native.symbols import symbols
from ...compiler.native.target import LEVELS
from ...compiler.session import Session
from ...compiler.standalone.build import build as compiled
from ...compiler.standalone.glue import alignment
from ...compiler.standalone.interface import Call, Interface
from ...compiler.types.sizes import substitute
from ...dsl.errors import UnsupportedError, error
from ..network import Network
from .example import example
from .learned import prepared
from .lock import lock
from .packaging import cmake, pkg_config
from .weights import weights


@dataclass(frozen=True, slots=True)
class Build:
    """`files` by name; `interface` and `facts` of what was built."""

    prefix: str
    target: str
    files: Mapping[str, bytes]
    interface: Interface
    facts: Mapping[str, Any]

    def shared(self) -> dict[str, bytes]:
        """The library as a shared object, by its name. Raises `UnsupportedError` (E0632) for another processor than
        x86-64 and aarch64."""
        if self.target not in (*LEVELS, "aarch64"):
            what = f"a shared object for {self.target} is not made here"
            help = f"link lib{self.prefix}.a with the compiler for it: `-shared -Wl,--whole-archive`"
            raise error("E0632", what, help=help, kind=UnsupportedError)
        name = f"lib{self.prefix}.so"
        return {name: shared.link(self.files[f"{self.prefix}.o"], name)}


def build(
    network: Network,
    target: str,
    prefix: str,
    names: list[str],
    trained: str | None = None,
    optimize: str | None = None,
    as_text: bool = False,
) -> Build:
    """Of the entries of those names. With `trained`, the path that the parameters are from, what predictions read is a
    constant, `as_text` in a file of C rather than in the object. Without a word how to `optimize`, code for a target
    without an operating system is small. Raises `UnsupportedError` (E0504) for a target that is none."""
    made_for, session = native.target_alone(target), network.session
    assert isinstance(session, Session)
    target = made_for.name
    optimize = optimize or ("speed" if made_for.position_independent else "size")
    about = f"{network.name}, made by nnc for {target}"

    constant = partial(prepared, network) if trained is not None else None
    b = compiled(session, made_for, prefix, names, about, constant, optimize == "size", not as_text)
    files = {
        f"{prefix}.h": b.header.encode(),
        f"{prefix}.o": b.object,
        f"lib{prefix}.a": b.archive,
        f"{prefix}-config.cmake": cmake(prefix, as_text).encode(),
        f"{prefix}.pc": pkg_config(prefix, about).encode(),
        "example.c": example(b.interface, prefix, trained is not None).encode(),
    }
    if as_text and b.constant is not None:
        files[f"{prefix}_weights.c"] = weights(b.interface.prepared, prefix, b.constant).encode()
    files[f"{prefix}.lock"] = (
        lock(network.manifest, session.settings, (target, optimize, as_text), prefix, names, trained, files)
        .text()
        .encode()
    )
    _, undefined = symbols(b.object)
    spec, calls = network.manifest.train, {c.name: c for c in b.interface.calls}
    batch = spec.batch if spec is not None and spec.batch else 1
    facts = {
        "target": target,
        "flash": native.flash(b.object),
        "state": b.interface.state.nbytes,
        "weights": b.interface.weights.nbytes,
        "prepared": b.interface.prepared.nbytes,
        "scratch": {
            "predict": scratch(calls.get("predict"), 1, alignment(made_for)),
            "train": scratch(calls.get("train"), batch, alignment(made_for)),
        },
        "stack": dict(b.stack),
        "batch": batch,
        "undefined": list(undefined),
        "functions": [f"{prefix}_{c}" for c in calls],
    }
    return Build(prefix, target, files, b.interface, facts)


def scratch(call: Call | None, batch: int, alignment: int) -> int | None:
    """Bytes of scratch memory of a call where every size is the batch."""
    if call is None:
        return None
    sizes = {size: min(batch, call.most.get(size, batch)) for size, _ in call.sizes}
    arena = substitute(call.arena, sizes)
    assert isinstance(arena, int)
    return arena + alignment - 1 if call.arena != 0 else 0

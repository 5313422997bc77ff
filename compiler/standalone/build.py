"""A network as an object file and a header: all that it does without us.

In: a session, a target, which entries. Out: `Built`. Every entry takes the way of the pipeline, up to loops; these
become one module that runs on its caller's thread, with the functions of the interface around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ...dsl.record import dataclass
from ..llvm import emit
from ..loops.alone import alone
from ..manifest import Manifest
from ..native import objects as native
from ..native.lock import compiling
from ..native.symbols import symbols
from ..native.target import Target
from ..pipeline import Stages, stages
from ..session import Session
from .archive import archive
from .glue import glue
from .header import header
from .interface import Interface, interface

TRAINING = ("init", "train", "evaluate")


@dataclass(frozen=True, slots=True)
class Built:
    interface: Interface
    header: str
    object: bytes
    archive: bytes
    stack: Mapping[str, int]  # bytes that each function needs at most, with what it calls
    constant: bytes | None  # what predictions read, where that is known
    made: Mapping[str, Stages]


def entries(manifest: Manifest, trains: bool, wanted: Iterable[str] = ()) -> list[str]:
    """The entries of a build: `predict`, those of training, and of the exports those `wanted`."""
    return [e for e in manifest.entries if e == "predict" or (trains and e in TRAINING) or e in wanted]


@compiling()
def build(
    session: Session,
    target: Target,
    prefix: str,
    names: Iterable[str],
    about: str = "",
    trained: Callable[[Interface, Stages], bytes] | None = None,
    small: bool = False,
    within: bool = True,
) -> Built:
    """Compile the entries of those names. `trained` gives the bytes of the prepared weights, for a constant, `within`
    the object or not, and what makes them is left out where there is no training. A `small` build has code for few
    examples alone."""
    names = list(names)
    program, made = session.program, {}
    for n in names:  # what a call itself writes cannot be prepared before it
        apart = n == "predict" and not program.graph(n).updates
        made[n] = stages(program, n, target, apart=apart, variants=not small)
    face = interface(session.manifest, made, "train" in names)
    constant = trained(face, made["predict"]) if trained is not None else None
    if constant is not None and "train" not in names:
        face = face.without("prepare")
    functions = glue(face, prefix, target, constant if within else None)
    module = alone(m.lowered.module for m in made.values())
    data, depths = native.compile_measured(emit(module, target, functions, small), target)
    defined, _ = symbols(data)
    text = header(face, prefix, target, about, constant is not None)
    stack = {name.removeprefix(f"{prefix}_"): n for name, n in depths.items() if name.startswith(f"{prefix}_")}
    return Built(face, text, data, archive({f"{prefix[:12]}.o": (data, defined)}), stack, constant, made)

"""What a network has learned, as the bytes of C structs.

In: a network, structs. Out: bytes, and back. What predictions read of the parameters is computed here, by the loops of
the target made for this machine, which gives the same bits as there.
"""

from __future__ import annotations

import numpy as np

from ...compiler.llvm import emit
from ...compiler.loops.alone import alone
from ...compiler.native import objects as native
from ...compiler.native.loading import Library
from ...compiler.native.lock import compiling
from ...compiler.pipeline import Stages
from ...compiler.standalone.interface import Interface
from ...compiler.standalone.structs import Struct
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError, ResourceError, UnsupportedError, error
from ..call.arrays import NUMPY, address_of, aligned_bytes
from ..call.column import Array
from ..call.messages import human
from ..network import Network

MOST = 256 << 20  # bytes of a constant: it is text on its way to LLVM


def read(network: Network, struct: Struct, layout: int | None = None) -> bytes:
    """The bytes of a struct of variables, as they are now; a state begins with its layout."""
    data = np.zeros(struct.nbytes, np.uint8)
    for path, at, f in struct.places():
        if path in network.variables:
            data[at : at + f.nbytes] = np.ascontiguousarray(network.variables[path]).reshape(-1).view(np.uint8)
    if layout is not None:
        data[:8] = np.frombuffer(layout.to_bytes(8, "little"), np.uint8)
    return data.tobytes()


def prepared(network: Network, face: Interface, stages: Stages) -> bytes:
    """What predictions read, of the parameters as they are now."""
    if not face.prepared.fields:
        what = f"`predict` of {network.name} reads no weights, so there are none to be a constant"
        raise error("E0632", what, kind=UnsupportedError)
    if face.prepared.nbytes > MOST:
        what = f"weights of {human(face.prepared.nbytes)} are too large for a constant of a program ({human(MOST)})"
        raise error("E0605", what, help="`nnc state export` writes them into a file", kind=ResourceError)
    data = bytearray(read(network, face.prepared))
    s = stages.signature
    if not s.prepared:
        return bytes(data)
    host = native.target()
    with compiling():
        library = Library(native.compile_object(emit(alone((stages.lowered.module,)), host), host))
    arrays: list[Array] = [np.ascontiguousarray(network.variables[path]) for path in s.variables]
    computed = {p.name: np.zeros([int(str(n)) for n in p.shape], NUMPY[p.dtype]) for p in s.prepared}
    slots = np.array([address_of(a) for a in (*arrays, *computed.values())], np.uintp)
    arena = aligned_bytes(s.preparing, "scratch memory")
    if code := library.function(f"{s.name}.prepare")(None, address_of(slots), address_of(arena), None):
        raise InternalError(Diagnostic("E0901", f"preparing the weights of {network.name} failed with code {code}"))
    for path, at, f in face.prepared.places():
        if path in computed:
            data[at : at + f.nbytes] = computed[path].reshape(-1).view(np.uint8).tobytes()
    return bytes(data)


def take(network: Network, struct: Struct, data: bytes) -> None:
    """Take the variables of a struct from its bytes."""
    found = {}
    for path, at, f in struct.places():
        found[path] = np.frombuffer(data[at : at + f.nbytes], NUMPY[f.dtype]).reshape(f.shape)
    with network.workspace.lock:
        network.variables.write({path: a for path, a in found.items() if path in network.variables})

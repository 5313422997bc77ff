"""An entry of a network as an ONNX file.

In: a network with its parameters, the name of an entry. Out: a file that ONNX's own checker has passed, whose metadata
say of which program it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from os.path import relpath
from pathlib import Path
from typing import Any

from ....compiler.session import Session
from ....dsl.diagnostics import Diagnostic
from ....dsl.errors import ArgumentError, InternalError, ResourceError, UnsupportedError, error
from ...call.messages import human, unknown
from ...network import Network
from ...store.files import write
from .model import Export
from .start import apart as split
from .values import onnx

OLDEST, USUAL = 17, 20  # opsets; Gelu is there from 20 on
MOST = 2**31 - 1  # bytes of a protocol buffer
OTHERS = ("init", "evaluate", "loss", "gradients", "taps")  # entries that are for us


def export(
    network: Network,
    path: Path,
    entry: str = "predict",
    opset: int = USUAL,
    license: str | None = None,
    functions: bool = True,
    apart: bool = False,
) -> Mapping[str, Any]:
    """Write an entry as an ONNX file; facts about it. Without `functions` all is one graph. With `apart` its variables
    begin in a file beside it, NAME.start.onnx (see `start`). Raises UnsupportedError (E0632) where something has no
    counterpart, ResourceError (E0605) where a file would be too large, DataError (E0625) where it cannot be written."""
    if apart and path.suffix != ".onnx":
        what = f"the path must end in .onnx, for variables go to NAME.start.onnx beside it, got {path.name}"
        raise error("E0603", what, kind=ArgumentError)
    model = build(network, entry, opset, license, functions)
    if apart:
        with network.workspace.lock:
            start, model = split(network, model)
        _checked(start)
        _checked(model)
        write(path.with_suffix(".start.onnx"), start.SerializeToString())
    size = model.ByteSize()
    if size > MOST:
        raise _too_large(network, size)
    write(path, model.SerializeToString())
    counted: dict[str, int] = {}
    for node in (*model.graph.node, *(n for f in model.functions for n in f.node)):
        counted[node.op_type] = counted.get(node.op_type, 0) + 1
    return {
        "file": str(path),
        "entry": entry,
        "opset": opset,
        "bytes": size,
        "inputs": [i.name for i in model.graph.input],
        "outputs": [o.name for o in model.graph.output],
        "functions": [f.name for f in model.functions],
        "nodes": dict(sorted(counted.items())),
    }


def build(
    network: Network,
    entry: str = "predict",
    opset: int = USUAL,
    license: str | None = None,
    functions: bool = True,
) -> Any:
    """An entry as a `ModelProto` that the checker of ONNX has passed."""
    _check(network, entry, opset)
    session = network.session
    assert isinstance(session, Session)
    program = session.program.unrolled
    cx = program.context(entry)
    graph = program.graph(entry, cx)
    given: list[str] = []
    if entry == "train":  # where the way back reads what is inside of layers
        functions, given = False, [v.path for v in network.manifest.variables if v.role == "train"]
    with network.workspace.lock:
        model = Export(network.name, graph, network.variables, opset, cx, functions, given).model()
    _describe(network, model, license)
    _checked(model)
    return model


def _check(network: Network, entry: str, opset: int) -> None:
    newest = onnx().defs.onnx_opset_version()
    if not isinstance(opset, int) or not OLDEST <= opset <= newest:
        what = f"opset must be a whole number from {OLDEST} to {newest}, got {opset!r}"
        raise error("E0603", what, kind=ArgumentError)
    able = [e for e in network.manifest.entries if e not in OTHERS]
    if entry not in able:
        raise unknown("entry to export", entry, able)
    session = network.session
    if isinstance(session, Session) and session.settings.weights_dtype != "f32":
        what = f"parameters are exported as f32, not as {session.settings.weights_dtype}"
        raise error("E0632", what, help="leave out --weights-dtype", kind=UnsupportedError)
    total = sum(a.nbytes for a in network.variables.values())
    if total > MOST:
        raise _too_large(network, total)


def _too_large(network: Network, size: int) -> Exception:
    what = f"{network.name} would be an ONNX file of {human(size)}, and one has at most {human(MOST)}"
    return error("E0605", what, kind=ResourceError)


def _describe(network: Network, model: Any, license: str | None) -> None:
    """What a file says of itself: the program, its digest, the names of classes, the licence."""
    first = next(iter(network.manifest.sources))
    sources = {relpath(name, Path(first).parent): text for name, text in network.manifest.sources.items()}
    main = next(iter(sources))
    facts = {
        "nnc.file": main,
        "nnc.source": sources[main] if len(sources) == 1 else json.dumps(sources),
        "nnc.source_sha256": sha256("\0".join(sources.values()).encode()).hexdigest(),
        "nnc.hyper": json.dumps({h.name: h.value for h in network.manifest.hypers}),
    }
    if network.schema is not None and network.schema.classes is not None:
        facts["classes"] = json.dumps(list(network.schema.classes))
    if license is not None:
        facts["license"] = license
    onnx().helper.set_model_props(model, facts)


def _checked(model: Any) -> None:
    """ONNX's own checker must pass: what it finds is our fault."""
    lib = onnx()
    try:
        lib.checker.check_model(model, full_check=True)
    except (lib.checker.ValidationError, lib.shape_inference.InferenceError) as e:
        raise InternalError(Diagnostic("E0901", f"the checker of ONNX refuses what was exported: {e}")) from e

"""An ONNX file as a ModelProto.

Nothing in it is believed: its size is bounded before it is read, what it holds before it is allocated, and numbers in
other files are read only where that is asked, from inside its folder, through no link.
"""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import IO, Any

from ....dsl.errors import DataError, NncError, error
from ....dsl.files import open_regular
from ...call.messages import human
from ...data.files import unreadable
from ...extras import optional

MAX_BYTES = 2 << 30  # of a protobuf
MAX_NODES = 200_000


def read_model(path: Path, external: bool = False) -> Any:
    """The model of a file. With `external` numbers may stand in files beside it.

    Raises DataError (E0635) for what is no ONNX file, or is larger than it may be.
    """
    proto = optional("onnx", "onnx", "an ONNX file is read with onnx")
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise _wrong(path, f"at most {human(MAX_BYTES)}", human(size))
        data = file.read(MAX_BYTES + 1)
    model = proto.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as e:  # DecodeError of protobuf, which is of no class that onnx names
        raise _wrong(path, "an ONNX model", f"a file that is none: {str(e)[:80]}") from None
    if not model.HasField("graph") or not model.opset_import:
        raise _wrong(path, "an ONNX model", "a file without a graph or an opset")
    if len(model.graph.node) > MAX_NODES:
        raise _wrong(path, f"at most {MAX_NODES:,} nodes", f"{len(model.graph.node):,}")
    for t in model.graph.initializer:
        if t.data_location == t.EXTERNAL:
            if not external:
                raise error(
                    "E0635",
                    f"{path}: `{t.name}` is in another file",
                    kind=DataError,
                    help="`--external` reads what stands in files of the model's own folder",
                )
            _read_external(path, t)
        elif prod(t.dims) > MAX_BYTES or min(t.dims, default=0) < 0:
            raise _wrong(path, f"an array `{t.name}` that fits the file", f"one of {list(t.dims)}")
    return model


def _read_external(path: Path, t: Any) -> None:
    """The bytes of a tensor from a file in the model's folder."""
    facts = {e.key: e.value for e in t.external_data}
    name = facts.get("location", "")
    folder = path.resolve().parent
    wanted = folder / name
    if not name or wanted.is_symlink() or folder not in wanted.resolve().parents:
        raise _wrong(path, "arrays in files of its own folder", f"`{t.name}` in `{name}`")
    try:
        offset = int(facts.get("offset", 0))
        length = int(facts["length"]) if "length" in facts else None
    except ValueError:
        raise _wrong(path, "an offset and a length", f"{facts.get('offset')!r}, {facts.get('length')!r}") from None
    with _opened(wanted) as file:
        size = os.fstat(file.fileno()).st_size
        length = max(size - offset, 0) if length is None else length
        if min(offset, length) < 0 or offset + length > size:
            raise _wrong(wanted, f"{length:,} bytes of `{t.name}` from {offset:,} on", f"a file of {size:,}")
        file.seek(offset)
        t.raw_data = file.read(length)
    t.data_location = t.DEFAULT
    del t.external_data[:]


def _opened(path: Path) -> IO[bytes]:
    """Raises DataError (E0620) for what cannot be read."""
    try:
        return open_regular(path)
    except OSError as e:
        raise unreadable(path, e) from e


def _wrong(path: Path, expected: str, found: str) -> NncError:
    return error("E0635", f"{path}: expected {expected}, found {found}", kind=DataError)

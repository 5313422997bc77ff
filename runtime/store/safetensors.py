"""The safetensors format: a table of tensors, and their bytes, in one file without code.

    file     ::= length (u64, little-endian)  header (JSON)  tensors, one after another
    header   ::= { NAME: {"dtype", "shape", "data_offsets"}, ..., "__metadata__": {text: text} }

In: an open file. Out: metadata, the table in the order of the tensors, and where they begin; all of it compared with
the size of the file before anything is believed (E0623).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...dsl.errors import DataError, NncError, error
from ..call.arrays import is_shape
from ..call.column import Array

MAX_HEADER = 100 << 20  # the limit of the safetensors library
MAX_TENSORS = 1 << 15
_MAX_ENTRY = 4096  # bytes of what is said of one tensor
_MAX_TEXTS = 2000  # names and values in the metadata
_DTYPES: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
SIZES: Mapping[str, int] = {**{name: np.dtype(code).itemsize for name, code in _DTYPES.items()}, "BF16": 2}

_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OBJECT = rb'\{[^{}"]*+(?:' + _TEXT + rb'[^{}"]*+)*+\}'  # none inside another
_EMPTY, _SPACE = re.compile(rb"\{\s*+\}\s*+"), re.compile(rb"\s*+")
_MEMBER = re.compile(rb"\s*+(" + _TEXT + rb")\s*+:\s*+(" + _OBJECT + rb")\s*+([,}])")
_TEXTS = re.compile(rb"\{[\s:,]*+(?:" + _TEXT + rb"[\s:,]*+){0,%d}+\}" % _MAX_TEXTS)


def corrupt(path: Path, expected: object, found: object) -> NncError:
    return error("E0623", f"{path}: expected {expected}, found {found}", kind=DataError)


def read_header(f: IO[bytes], path: Path) -> tuple[dict[str, str], dict[str, Any], int]:
    """Metadata, table, and where the tensors begin. Takes little more memory than the header is long."""
    total = f.seek(0, os.SEEK_END)
    f.seek(0)
    length = int.from_bytes(f.read(8), "little")
    if total < 8 or length < 2 or length > min(MAX_HEADER, total - 8):
        raise corrupt(
            path,
            "a file that begins with the length of its header",
            f"a file of {total:,} bytes" if total < 8 else f"the length {length:,} in a file of {total:,} bytes",
        )
    try:
        metadata, table = _parse(f.read(length), path)
    except ValueError as e:
        raise corrupt(path, "a JSON header", str(e)[:80]) from e
    return metadata, _in_order(path, table, total - 8 - length), 8 + length


def read_bytes(f: IO[bytes], entry: Mapping[str, Any], start: int) -> bytes:
    """Those of one tensor of the table."""
    begin, end = entry["data_offsets"]
    f.seek(start + begin)
    return f.read(end - begin)


def array_of(data: bytes, entry: Mapping[str, Any]) -> Array:
    """The tensor that they are. bfloat16 is widened to f32."""
    if entry["dtype"] == "BF16":
        flat = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        flat = np.frombuffer(data, _DTYPES[entry["dtype"]])
    return flat.reshape(entry["shape"])


def _parse(header: bytes, path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The two parts of a header, member by member, so that one that is not like this is refused before the whole of it
    is in memory as Python's objects."""
    metadata: dict[str, str] = {}
    table: dict[str, Any] = {}
    if _EMPTY.fullmatch(header):
        return metadata, table
    if not header.startswith(b"{"):
        raise ValueError("no object")
    place, separator = 1, b","
    while separator == b",":
        member = _MEMBER.match(header, place)
        if member is None:
            raise ValueError(f"something else than the next tensor at byte {place:,}")
        name, place, separator = json.loads(member[1].decode()), member.end(), member[3]
        if name in table or (name == "__metadata__" and metadata):
            raise ValueError("a name occurs twice")
        if name == "__metadata__":
            if not _TEXTS.fullmatch(member[2]):
                raise ValueError(f"metadata that are not up to {_MAX_TEXTS // 2:,} texts by name")
            metadata = json.loads(member[2])
        elif len(member[2]) > _MAX_ENTRY or len(table) == MAX_TENSORS:
            raise ValueError(
                f"more than {MAX_TENSORS:,} tensors"
                if len(table) == MAX_TENSORS
                else f"{len(member[2]):,} bytes about one tensor"
            )
        elif not _agrees(entry := json.loads(member[2].decode())):
            known = isinstance(dtype := entry.get("dtype"), str) and dtype in SIZES
            wanted = f"dtype, shape and place of `{name}` that agree" if known else f"`{name}` of {', '.join(SIZES)}"
            raise corrupt(path, wanted, json.dumps(entry)[:120])
        else:
            table[name] = entry
    if not _SPACE.fullmatch(header, place):
        raise ValueError("more behind its end")
    return metadata, table


def _in_order(path: Path, table: Mapping[str, Any], available: int) -> dict[str, Any]:
    """The table in the order the tensors lie in: they fill the rest of the file without gaps."""
    places = {name: tuple(entry["data_offsets"]) for name, entry in table.items()}
    end = 0
    for name in (ordered := sorted(places, key=places.__getitem__)):
        if places[name][0] != end:
            raise corrupt(path, f"`{name}` at {end:,}, right behind the tensor before it", f"{places[name][0]:,}")
        end = places[name][1]
    if end != available:
        raise corrupt(path, f"{end:,} bytes of tensors", f"{available:,}")
    return {name: table[name] for name in ordered}


def _agrees(entry: Mapping[str, Any]) -> bool:
    """Whether a tensor is as long as its dtype and its shape, which NumPy can have, say."""
    dtype, shape, place = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in SIZES or not isinstance(shape, list) or not isinstance(place, list):
        return False
    if len(place) != 2 or not is_shape(place, 1) or not is_shape(shape, SIZES[dtype]):
        return False
    return bool(place[1] - place[0] == prod(shape) * SIZES[dtype])

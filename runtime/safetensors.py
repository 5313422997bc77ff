"""The safetensors format: a table of tensors, and their bytes, in one file without code.

    file     ::= length (u64, little-endian)  header (JSON)  tensors, one after another
    header   ::= { NAME: {"dtype", "shape", "data_offsets"}, ..., "__metadata__": {text: text} }

In: an open file. Out: metadata, the table in the order of the tensors, and where they begin; all of it compared with
the size of the file before anything is believed (E0623).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

from ..dsl.diagnostics import DataError, NncError, error

MAX_HEADER = 100 << 20  # the limit of the safetensors library
SIZES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1,
}  # fmt: skip


def corrupt(path: Path, expected: object, found: object) -> NncError:
    return error("E0623", f"{path}: expected {expected}, found {found}", kind=DataError)


def read_header(f: IO[bytes], path: Path) -> tuple[Mapping[str, Any], dict[str, Any], int]:
    """Metadata, table, and where the tensors begin."""
    total = os.fstat(f.fileno()).st_size
    length = int.from_bytes(f.read(8), "little")
    if total < 8 or length < 2 or length > min(MAX_HEADER, total - 8):
        raise corrupt(path, "a file that begins with the length of its header", f"a file of {total:,} bytes"
                      if total < 8 else f"the length {length:,} in a file of {total:,} bytes")
    try:
        table = json.loads(f.read(length), object_pairs_hook=_unique)
        metadata = table.pop("__metadata__", None) or {}
        metadata.get("")
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise corrupt(path, "a JSON header", str(e)[:80]) from e
    return metadata, check_table(path, table, total - 8 - length), 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def check_table(path: Path, table: Mapping[str, Any], available: int) -> dict[str, Any]:
    """Tensors fill the rest of the file without gaps, each as long as dtype and shape say; in the order they lie in."""
    places = {}
    for name, entry in table.items():
        try:
            dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            sizes = [int(n) for n in shape]
            right = all(n >= 0 for n in sizes) and dtype in SIZES and 0 <= start <= stop \
                and stop - start == prod(sizes) * SIZES[dtype]
            places[name] = (start, stop)
        except (KeyError, TypeError, ValueError):
            right = False
        if not right:
            raise corrupt(path, f"dtype, shape and place of `{name}` that agree", json.dumps(entry)[:120])
    end = 0
    for name in (ordered := sorted(places, key=places.__getitem__)):
        if places[name][0] != end:
            raise corrupt(path, f"`{name}` at {end:,}, right behind the tensor before it", f"{places[name][0]:,}")
        end = places[name][1]
    if end != available:
        raise corrupt(path, f"{end:,} bytes of tensors", f"{available:,}")
    return {name: table[name] for name in ordered}

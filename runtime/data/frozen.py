"""Arrays that a program has inside: the bytes of a file as the values of a constant.

In: the bytes of a `.npy`, an `.npz` or a `.csv` of nothing but numbers; the type that the constant declares. Out: its
values in row-major order, converted as a user's array is. What does not fit is named with path, expected and found.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np

from ...compiler.types.tensors import TensorType
from ...dsl.files import MAX_BYTES
from ..call.arrays import NUMPY, Wanted, bind
from ..call.column import Array
from ..call.messages import human, listed
from .files import malformed
from .npy import read_stream
from .npz import check_packed
from .table import number

MAX_NUMBERS = 1 << 18  # in a line of csv, and lines of it: more than a constant may have are not taken apart


def values(path: str, data: bytes, member: str | None, name: str, type: TensorType) -> tuple[Any, ...]:
    """Raises NncError."""
    if path.endswith(".npz"):
        array = _of_archive(path, data, member)
    elif member is not None:
        raise malformed(path, f"an .npz, which has arrays by name, such as {member!r}", "another file")
    else:
        array = _of_csv(path, data, type) if path.endswith(".csv") else _of_npy(path, data)
    want = Wanted(name, NUMPY[type.dtype], type.shape, type)
    (bound,), _ = bind(path if member is None else f"{path}[{member}]", (want,), (array,))
    return tuple(bound.reshape(-1).tolist())


def _of_npy(path: str, data: bytes) -> Array:
    return np.asarray(read_stream(path, io.BytesIO(data), len(data)))


def _of_archive(path: str, data: bytes, member: str | None) -> Array:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            there = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
            if member is None or member not in there:
                wanted = "the name of an array" if member is None else f"an array `{member}`"
                raise malformed(path, wanted, listed(list(there)) or "none", f'say `file("{path}", NAME)`')
            info = there[member]
            check_packed(f"{path}[{member}]", info)
            if info.file_size > MAX_BYTES:
                raise malformed(f"{path}[{member}]", f"at most {human(MAX_BYTES)}", human(info.file_size))
            with archive.open(info) as f:
                return np.asarray(read_stream(f"{path}[{member}]", f, info.file_size))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise malformed(path, "a complete npz archive", str(e).lower()) from e


def _of_csv(path: str, data: bytes, type: TensorType) -> Array:
    """Lines of as many numbers, between commas; of one axis a line, or a number a line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise malformed(path, "UTF-8 text", f"byte {e.object[e.start]:#04x}") from e
    rows: list[list[float]] = []
    for k, written in enumerate(io.StringIO(text), 1):
        if not written.strip():
            continue
        if len(rows) > MAX_NUMBERS or written.count(",") > MAX_NUMBERS:
            raise malformed(path, f"{type} of numbers", f"more in line {k}")
        line = written.split(",")
        found = [number(cell) for cell in line]
        if None in found:
            raise malformed(path, f"a number in line {k}", repr(line[found.index(None)].strip()[:40]))
        if rows and len(found) != len(rows[0]):
            raise malformed(path, f"{len(rows[0])} numbers in line {k}", len(found))
        rows.append([n for n in found if n is not None])
    array: Array = np.array(rows, np.float64).reshape(len(rows), len(rows[0]) if rows else 0)
    if type.rank == 1 and 1 in array.shape:
        array = array.reshape(-1)
    if type.dtype not in ("f32", "f64"):
        whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            raise malformed(path, "whole numbers", f"{array[whole != array].flat[0]:g}")
        array = whole
    return array

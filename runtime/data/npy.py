"""Arrays in files of their own, as `numpy.save` writes them.

In: a path, and that of the targets. Out: the columns `x` and `y`. Sizes in headers are compared with the file; a large
array stays on disk.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from ..call.arrays import check_nbytes
from ..call.column import Rows, fits, mapped
from ..call.messages import human
from .dataset import Dataset
from .files import Columns, check_shape, malformed, mapping, opened
from .format import Format, Option
from .table import Schema


def read(path: Path, _: Schema | None, /, target: Path | None) -> Dataset:
    columns: Columns = {"x": _examples(path)}
    if target is not None:
        columns["y"] = _examples(target)
    return Dataset("", columns, None, tuple(columns))


def _examples(path: Path) -> Rows:
    rows: Rows = read_array(path, in_part=True)
    if not rows.ndim:
        raise malformed(path, "an array whose first axis counts examples", "one number")
    return rows


def inputs(path: Path, _: Mapping[str, Any], __: Schema | None) -> Dataset:
    return Dataset("", {"x": read_array(path)}, None, ("x",))


def read_array(path: Path, in_part: bool = False) -> Any:
    """One array in a file of its own; with `in_part` it stays on disk where it is large."""
    with opened(path) as f:
        packed = isinstance(f, gzip.GzipFile)
        return read_stream(str(path), f, path.stat().st_size, (path, 0) if in_part and not packed else None)


def read_stream(where: str, f: IO[bytes], available: int, place: tuple[Path, int] | None = None) -> Rows:
    """An array from a stream of `available` bytes at most; `place` is the file, and where in it the stream begins, if
    the bytes lie there as they are."""
    try:
        version = np.lib.format.read_magic(f)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise malformed(where, "npy version 1.0 or 2.0", f"{version[0]}.{version[1]}")
        shape, fortran, dtype = read_header[version](f)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as e:  # of a literal
        raise malformed(where, "an npy header", str(e).lower().partition(": <")[0]) from e
    if dtype.kind not in "fiub":
        what = "pickled objects, which are not read" if dtype.hasobject else str(dtype)
        narrow = "NumPy's files do not say what bfloat16 is: save it as float32" if dtype.str[1:] == "V2" else None
        raise malformed(where, "an array of numbers", what, help=narrow)
    check_shape(where, shape, dtype)
    needed = math.prod(shape) * dtype.itemsize
    if needed > available:
        raise malformed(where, f"{human(needed)} of data for the shape {list(shape)}", human(available))
    if place is not None and len(shape) > 1 and not fits(needed):
        if f.tell() + needed != available:
            raise malformed(where, f"{human(needed)} of data for the shape {list(shape)}", "more")
        array = mapping(place[0], dtype, place[1] + f.tell(), shape, "F" if fortran else "C")
        return mapped([array], shape[1:], dtype.newbyteorder("="))
    check_nbytes(shape, dtype, where)
    data = f.read(needed + 1)
    if len(data) != needed:
        found = human(len(data)) if len(data) < needed else "more"
        raise malformed(where, f"{human(needed)} of data for the shape {list(shape)}", found)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


NPY = Format(
    name="npy",
    about="An array in a file of its own, as `numpy.save` writes it, and its targets in another: `x` and `y`, whose "
    "first axes count the examples. It stays on disk where it is large.",
    example='npy("x.npy", target = "y.npy")',
    read=read,
    options=(
        Option("path", str, "the file", is_path=True),
        Option("target", str | None, "the file of what is to be learned", None, is_path=True),
    ),
    takes="file",
    suffixes=(".npy",),
    inputs=inputs,
)

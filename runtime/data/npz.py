"""NumPy archives, and folders of .npy files: arrays by name.

In: a path. Out: columns of equal length. Sizes in headers are checked against the archive. A large array stays on disk
where it was stored without compression; a mapped member is not checked against its CRC.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...dsl.errors import NncError
from ...dsl.files import open_regular
from ..call.column import Rows
from ..call.messages import human
from .dataset import Dataset
from .files import GZIP_RATIO, Columns, malformed, unreadable
from .format import Format, Option
from .npy import read_array, read_stream
from .table import Schema

T = TypeVar("T")


def read(path: Path, _: Schema | None, /, **names: str) -> Dataset:
    """`x = "images"` names the array of an input; without names the arrays are taken by their own. Arrays
    `NAME_train` and `NAME_test` are training and test set."""
    if not names:
        columns = npz(path)
        names = {n: n for n in columns}
        if any(n.endswith("_train") for n in names) and any(n.endswith("_test") for n in names):
            train = {n.removesuffix("_train"): c for n, c in columns.items() if n.endswith("_train")}
            test = {n.removesuffix("_test"): c for n, c in columns.items() if n.endswith("_test")}
            return Dataset("", train, test, tuple(train))
    else:
        found = npz(path, list(names.values()))
        columns = {n: found[a] for n, a in names.items()}
    return Dataset("", columns, None, tuple(columns))


def inputs(path: Path, _: Mapping[str, Any], __: Schema | None) -> Dataset:
    columns: Columns = {n: c[:] if c.ndim else c for n, c in npz(path).items()}
    return Dataset("", columns, None, tuple(columns))


def npz(path: Path, names: Sequence[str] | None = None) -> Columns:
    """Arrays of a NumPy archive, or of a folder of .npy files, by name (all of them, or `names`). Sizes in headers are
    checked against the archive. A large array stays on disk where it was stored without compression."""
    if path.is_dir():
        files = {p.stem: p for p in sorted(path.glob("*.npy"))}
        return {n: read_array(p, in_part=True) for n, p in _chosen(path, files, names).items()}
    try:
        with open_regular(path) as raw, zipfile.ZipFile(raw) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
            return {n: _member(path, n, archive, info) for n, info in _chosen(path, members, names).items()}
    except NncError:
        raise
    except OSError as e:
        raise unreadable(path, e) from e
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise malformed(path, "a complete npz archive", str(e).lower()) from e


def _chosen(path: Path, there: Mapping[str, T], names: Sequence[str] | None) -> dict[str, T]:
    for name in names or ():
        if name not in there:
            raise malformed(path, f"an array `{name}`", ", ".join(f"`{m}`" for m in there) or "none")
    return {n: there[n] for n in (names if names is not None else there)}


def _member(path: Path, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Rows:
    where = f"{path}[{name}]"
    check_packed(where, info)
    with archive.open(info) as f:
        stored = info.compress_type == zipfile.ZIP_STORED
        return read_stream(where, f, info.file_size, (path, _content(path, info.header_offset)) if stored else None)


def check_packed(where: str, info: zipfile.ZipInfo) -> None:
    """A member is as large as its packed bytes can be."""
    if info.file_size > max(info.compress_size, 1) * GZIP_RATIO:
        raise malformed(where, "a size that its packed bytes can have", human(info.file_size))


def _content(path: Path, header: int) -> int:
    """Where the content of a zip's member begins: after its own header, with a name and an extra field."""
    with open(path, "rb") as raw:
        raw.seek(header + 26)
        name, extra = struct.unpack("<HH", raw.read(4).ljust(4, b"\0"))
    return header + 30 + int(name) + int(extra)


NPZ = Format(
    name="npz",
    about="Arrays of a NumPy archive, or of a folder of .npy files, each named in the train block or taken by its own "
    "name. Arrays `NAME_train` and `NAME_test` are training set and test set. An archive stored without "
    "compression stays on disk where it is large.",
    example='npz("file.npz", x = "x", label = "y")',
    read=read,
    options=(
        Option("path", str, "the archive, or the folder", is_path=True),
        Option("names", str, "the array of the input NAME", many=True),
    ),
    takes="either",
    suffixes=(".npz",),
    holds="*.npy",
    inputs=inputs,
)

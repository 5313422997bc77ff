"""Files of data into NumPy columns: IDX, CIFAR-10 binary, npz, and the digits that ship with nnc (csv and text have
files of their own, `table` and `text`).

In: a path. Out: named columns of equal length. Whatever a header claims is compared with the size of the file before
anything is allocated; what would not fit in memory stays on disk where its layout allows that (plain IDX, CIFAR-10,
npz stored without compression); a file that is not what it should be is a `DataError` with path, expected and
found (E0620 missing or unreadable, E0621 malformed). Nothing here unpickles.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, TypeVar

import numpy as np

from ...dsl.errors import DataError, NncError, error
from ...dsl.files import open_regular
from ..call.arrays import Array, check_nbytes, is_shape
from ..call.column import Rows, fits, mapped
from ..call.messages import human

Columns = dict[str, Rows]
T = TypeVar("T")
_GZIP_RATIO = 1040  # deflate cannot expand further than 1032:1
_IDX_TYPES: Mapping[int, str] = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_LINE = 16 << 20
_CIFAR_RECORD = 1 + 3 * 32 * 32


def malformed(path: object, expected: object, found: object, help: str | None = None) -> NncError:
    return error("E0621", f"{path}: expected {expected}, found {found}", help=help, kind=DataError)


def unreadable(path: object, e: Exception) -> NncError:
    reason = "no such file" if isinstance(e, FileNotFoundError) else (getattr(e, "strerror", None) or str(e)).lower()
    return error("E0620", f"{path}: {reason}", kind=DataError)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it begins like gzip; every way reading fails is a DataError."""
    try:
        with open_regular(path) as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.open(raw) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise malformed(path, "a complete gzip stream", str(e).lower()) from e
    except OSError as e:
        if isinstance(e, NncError):
            raise
        raise unreadable(path, e) from e


def text_lines(f: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text, line ends included; one that goes on without end is refused before memory is full of it."""
    text = io.TextIOWrapper(f, encoding, newline="")
    while line := text.readline(_MAX_LINE + 1):
        if len(line) > _MAX_LINE:
            raise malformed(path, f"lines of at most {_MAX_LINE:,} characters", "a longer one")
        yield line


# --- IDX --------------------------------------------------------------------------------------------------------------


def idx(folder: Path) -> tuple[Columns, Columns]:
    """The four standard IDX files of MNIST and its relatives: training and test set, images in [0, 1] as
    f32[N, 1, H, W], labels i32[N]."""
    return _idx_pair(folder, "train"), _idx_pair(folder, "t10k")


def _idx_pair(folder: Path, part: str) -> Columns:
    images_path, labels_path = _find_idx(folder, f"{part}-images", 3), _find_idx(folder, f"{part}-labels", 1)
    images, labels = read_idx(images_path, 3, in_part=True), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise malformed(labels_path, f"{len(images)} labels, one for each image of {images_path.name}", len(labels))
    if not all(images.shape[1:]):
        raise malformed(images_path, "images with pixels", " x ".join(map(str, images.shape[1:])))
    with np.errstate(invalid="ignore"):
        label = labels.astype(np.int32)
    if (label != labels).any():
        row = (label != labels).argmax()
        raise malformed(labels_path, "labels that are whole numbers below 2^31", f"{labels[row]} in row {row}")
    x = mapped([images], (1, *images.shape[1:]), np.dtype(np.float32), 255 if images.dtype == np.uint8 else 1)
    return {"x": x[:] if fits(x.nbytes) else x, "label": label}


def _find_idx(folder: Path, stem: str, rank: int) -> Path:
    for name in (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte"):
        for suffix in ("", ".gz"):
            if (path := folder / (name + suffix)).is_file():
                return path
    if not folder.is_dir():
        raise unreadable(folder, NotADirectoryError(0, "no such folder"))
    raise malformed(folder, f"a file {stem}-idx{rank}-ubyte or {stem}-idx{rank}-ubyte.gz", "none")


def read_idx(path: Path, rank: int | None = None, in_part: bool = False) -> Array:
    """One IDX file, plain or gz, in native byte order; with `in_part` a plain one that is large is a memory map."""
    with opened(path) as f:
        head = f.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not 1 <= head[3] <= 8:
            raise malformed(path, f"an IDX header (00 00 08 {rank or 3:02x})", head.hex(" ") or "an empty file")
        if rank is not None and head[3] != rank:
            raise malformed(path, f"IDX data with {rank} axes", head[3])
        sizes = f.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise malformed(path, f"{head[3]} sizes after the magic number", f"{len(sizes) // 4}")
        shape = struct.unpack(f">{head[3]}I", sizes)
        dtype = np.dtype(_IDX_TYPES[head[2]])
        needed, there = math.prod(shape) * dtype.itemsize, path.stat().st_size
        packed = isinstance(f, gzip.GzipFile)
        if needed > (there * _GZIP_RATIO if packed else there):
            raise malformed(path, f"{needed:,} bytes of data for the sizes {list(shape)}", f"a file of {there:,} bytes")
        _check_shape(path, shape, dtype)
        if in_part and not packed and not fits(4 * math.prod(shape)):
            start = 4 + 4 * len(shape)
            if there != start + needed:
                raise malformed(path, f"{start + needed:,} bytes for the sizes {list(shape)}", f"{there:,}")
            return mapping(path, dtype, start, shape)
        check_nbytes(shape, dtype, str(path))
        data = f.read(needed + 1)
        if len(data) != needed:
            found = f"{len(data):,}" if len(data) < needed else "more"
            raise malformed(path, f"{needed:,} bytes of data for the sizes {list(shape)}", found)
    values = np.frombuffer(data, dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _check_shape(where: object, shape: Sequence[Any], dtype: np.dtype[Any]) -> None:
    if not is_shape(shape, dtype.itemsize):
        raise malformed(where, "a shape that an array can have", f"{list(shape)!s:.80}")


def mapping(path: Path, dtype: np.dtype[Any], start: int, shape: Sequence[int], order: Any = "C") -> Array:
    """An array that lies in a file."""
    try:
        return np.memmap(path, dtype, "r", start, tuple(shape), order).view(np.ndarray)
    except (OSError, ValueError) as e:
        raise unreadable(path, e) from e


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------


def cifar10(folder: Path) -> tuple[Columns, Columns]:
    """The binary version: training batches and test batch, images in [0, 1] as f32[N, 3, 32, 32], labels i32[N]."""
    return _cifar(folder, "data_batch_*.bin"), _cifar(folder, "test_batch*.bin")


def _cifar(folder: Path, pattern: str) -> Columns:
    if not folder.is_dir():
        raise unreadable(folder, NotADirectoryError(0, "no such folder"))
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise malformed(folder, f"files {pattern}", "none")
    counts = []
    for path in paths:
        records, rest = divmod(path.stat().st_size, _CIFAR_RECORD)
        if rest or not records:
            raise malformed(path, f"records of {_CIFAR_RECORD} bytes", f"{path.stat().st_size:,} bytes")
        counts.append(records)
    parts = [mapping(p, np.dtype(np.uint8), 0, (n, _CIFAR_RECORD)) for p, n in zip(paths, counts, strict=True)]
    for path, rows in zip(paths, parts, strict=True):
        if rows[:, 0].max() > 9:
            raise malformed(path, "labels from 0 to 9", rows[:, 0].max())
    label = np.concatenate([rows[:, 0] for rows in parts]).astype(np.int32)
    x = mapped([rows[:, 1:] for rows in parts], (3, 32, 32), np.dtype(np.float32), 255)
    return {"x": x[:] if fits(x.nbytes) else x, "label": label}


# --- npz --------------------------------------------------------------------------------------------------------------


def npz(path: Path, names: Sequence[str] | None = None) -> Columns:
    """Arrays of a NumPy archive, or of a folder of .npy files, by name (all of them, or `names`). Sizes in headers are
    checked against the archive. A large array stays on disk where it was stored without compression."""
    if path.is_dir():
        files = {p.stem: p for p in sorted(path.glob("*.npy"))}
        return {n: npy(p, in_part=True) for n, p in _chosen(path, files, names).items()}
    try:
        with open_regular(path) as raw, zipfile.ZipFile(raw) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
            return {n: _npy(path, n, archive, info) for n, info in _chosen(path, members, names).items()}
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


def npy(path: Path, in_part: bool = False) -> Any:
    """One array in a file of its own; with `in_part` it stays on disk where it is large."""
    with opened(path) as f:
        packed = isinstance(f, gzip.GzipFile)
        return _read_npy(str(path), f, path.stat().st_size, (path, 0) if in_part and not packed else None)


def _npy(path: Path, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Rows:
    where = f"{path}[{name}]"
    if info.file_size > max(info.compress_size, 1) * _GZIP_RATIO:
        raise malformed(where, "a size that its packed bytes can have", human(info.file_size))
    with archive.open(info) as f:
        stored = info.compress_type == zipfile.ZIP_STORED
        return _read_npy(where, f, info.file_size, (path, _content(path, info.header_offset)) if stored else None)


def _content(path: Path, header: int) -> int:
    """Where the content of a zip's member begins: after its own header, with a name and an extra field."""
    with open(path, "rb") as raw:
        raw.seek(header + 26)
        name, extra = struct.unpack("<HH", raw.read(4).ljust(4, b"\0"))
    return header + 30 + name + extra


def _read_npy(where: str, f: IO[bytes], available: int, place: tuple[Path, int] | None = None) -> Rows:
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
        raise malformed(where, "an array of numbers", what)
    _check_shape(where, shape, dtype)
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


# --- digits ----------------------------------------------------------------------------------------------------------


def digits(path: Path | None = None) -> dict[str, Array]:
    """The 1,797 handwritten 8x8 digits that ship with nnc: grey values in [0, 1] as f32[N, 1, 8, 8], labels i32[N]."""
    path = path or Path(__file__).parents[2] / "models" / "data" / "digits.csv.gz"
    with opened(path) as f:
        try:
            table = np.loadtxt(text_lines(f, path, "ascii"), np.uint8, delimiter=",", ndmin=2)
        except ValueError as e:
            raise malformed(path, "rows of 65 small integers", str(e).lower()) from e
    if table.shape[1] != 65:
        raise malformed(path, "rows of 65 small integers", f"{table.shape[1]} columns")
    x = (table[:, :64].astype(np.float32) / 16).reshape(-1, 1, 8, 8)
    return {"x": x, "label": table[:, 64].astype(np.int32)}

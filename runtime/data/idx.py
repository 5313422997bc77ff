"""IDX files, as MNIST and its relatives come.

In: a folder with the four standard files, plain or gz. Out: training and test set, images in [0, 1] as f32[N, 1, H, W],
labels i32[N].
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..call.arrays import check_nbytes
from ..call.column import Array, fits, mapped
from .dataset import Dataset
from .files import GZIP_RATIO, Columns, check_shape, is_folder, malformed, mapping, opened
from .format import Format, Option
from .table import Schema

_TYPES: Mapping[int, str] = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read(path: Path, _: Schema | None, /) -> Dataset:
    return Dataset("", _pair(path, "train"), _pair(path, "t10k"), ("x", "label"))


def _pair(folder: Path, part: str) -> Columns:
    images_path, labels_path = _find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1)
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


def _find(folder: Path, stem: str, rank: int) -> Path:
    for name in (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte"):
        for suffix in ("", ".gz"):
            if (path := folder / (name + suffix)).is_file():
                return path
    is_folder(folder)
    raise malformed(folder, f"a file {stem}-idx{rank}-ubyte or {stem}-idx{rank}-ubyte.gz", "none")


def read_idx(path: Path, rank: int | None = None, in_part: bool = False) -> Array:
    """One IDX file, plain or gz, in native byte order; with `in_part` a plain one that is large is a memory map."""
    with opened(path) as f:
        head = f.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 8:
            raise malformed(path, f"an IDX header (00 00 08 {rank or 3:02x})", head.hex(" ") or "an empty file")
        if rank is not None and head[3] != rank:
            raise malformed(path, f"IDX data with {rank} axes", head[3])
        sizes = f.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise malformed(path, f"{head[3]} sizes after the magic number", f"{len(sizes) // 4}")
        shape = struct.unpack(f">{head[3]}I", sizes)
        dtype = np.dtype(_TYPES[head[2]])
        needed, there = math.prod(shape) * dtype.itemsize, path.stat().st_size
        packed = isinstance(f, gzip.GzipFile)
        if needed > (there * GZIP_RATIO if packed else there):
            raise malformed(path, f"{needed:,} bytes of data for the sizes {list(shape)}", f"a file of {there:,} bytes")
        check_shape(path, shape, dtype)
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


IDX = Format(
    name="idx",
    about="The four standard IDX files of MNIST and its relatives, plain or gz: `x` f32[B, 1, H, W] in [0, 1], `label` "
    "i32[B]; training set and test set.",
    example='idx("folder")',
    read=read,
    options=(Option("path", str, "the folder", is_path=True),),
    takes="folder",
)

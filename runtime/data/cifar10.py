"""CIFAR-10 as its binary version comes.

In: a folder with `data_batch_*.bin` and `test_batch.bin`. Out: training and test set, images in [0, 1] as
f32[N, 3, 32, 32], labels i32[N].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..call.column import fits, mapped
from .dataset import Dataset
from .files import Columns, is_folder, malformed, mapping
from .format import Format, Option
from .table import Schema

_RECORD = 1 + 3 * 32 * 32  # bytes
_TRAINING, _TEST = "data_batch_*.bin", "test_batch*.bin"


def read(path: Path, _: Schema | None, /) -> Dataset:
    return Dataset("", _columns(path, _TRAINING), _columns(path, _TEST), ("x", "label"))


def _columns(folder: Path, pattern: str) -> Columns:
    is_folder(folder)
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise malformed(folder, f"files {pattern}", "none")
    counts = []
    for path in paths:
        records, rest = divmod(path.stat().st_size, _RECORD)
        if rest or not records:
            raise malformed(path, f"records of {_RECORD} bytes", f"{path.stat().st_size:,} bytes")
        counts.append(records)
    parts = [mapping(p, np.dtype(np.uint8), 0, (n, _RECORD)) for p, n in zip(paths, counts, strict=True)]
    for path, rows in zip(paths, parts, strict=True):
        if rows[:, 0].max() > 9:
            raise malformed(path, "labels from 0 to 9", rows[:, 0].max())
    label = np.concatenate([rows[:, 0] for rows in parts]).astype(np.int32)
    x = mapped([rows[:, 1:] for rows in parts], (3, 32, 32), np.dtype(np.float32), 255)
    return {"x": x[:] if fits(x.nbytes) else x, "label": label}


CIFAR10 = Format(
    name="cifar10",
    about="The binary version of CIFAR-10: `x` f32[B, 3, 32, 32] in [0, 1], `label` i32[B]; training set and test set.",
    example='cifar10("folder")',
    read=read,
    options=(Option("path", str, "the folder", is_path=True),),
    takes="folder",
    holds=_TRAINING,
)

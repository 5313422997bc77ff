"""Arrays to predict from, and predictions, as files: csv, npz, npy."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...dsl.diagnostics import ArgumentError, DataError, error
from .. import formats
from ..arrays import Array
from ..data import Dataset
from ..files import replacing

if TYPE_CHECKING:
    from ..calls import Call


def read_inputs(path: Path, call: Call, target: str | None) -> dict[str, Any]:
    """The inputs of an entry by name. A csv has a column per feature; a column of the training target is left out."""
    names = [p.name for p in call.signature.inputs]
    match path.name.removesuffix(".gz").rpartition(".")[2]:
        case "csv":
            columns = formats.csv(path)
            if target is not None and target not in names:
                columns.pop(target, None)
            positions: tuple[str, ...] = ("",)
        case "npz":
            columns = formats.npz(path)
            positions = tuple(columns)
        case "npy":
            columns = {"": formats.npy(path)}
            positions = ("",)
            return dict(zip(names, columns.values(), strict=False))
        case other:
            raise error("E0612", f"{path}: expected a .csv, .npz or .npy file, found .{other}", kind=DataError)
    dataset = Dataset(str(path), columns, None, positions)
    return dict(zip(names, dataset.for_training(names, call.wants), strict=True))


def write_outputs(outputs: Mapping[str, Array], path: str | None) -> None:
    """csv has a column per output, or per element of its rows; npz has an array per output, npy the only one."""
    kind = "csv" if path is None else path.rpartition(".")[2]
    buffer = io.BytesIO()
    match kind:
        case "csv":
            buffer.write(_csv(outputs).encode())
        case "npz":
            np.savez(buffer, **outputs)  # type: ignore[arg-type]
        case "npy" if len(outputs) == 1:
            np.save(buffer, next(iter(outputs.values())))
        case _:
            allowed = ".csv, .npz or .npy" if len(outputs) == 1 else ".csv or .npz"
            raise error("E0612", f"{path}: the output must be a {allowed} file", kind=ArgumentError)
    if path is None:
        sys.stdout.buffer.write(buffer.getvalue())
        sys.stdout.buffer.flush()
        return
    with replacing(Path(path)) as f:
        f.write(buffer.getvalue())


def _csv(outputs: Mapping[str, Array]) -> str:
    header: list[str] = []
    columns: list[Array] = []
    rows = {len(a) if a.ndim else 1 for a in outputs.values()}
    if len(rows) > 1:
        raise error("E0613", "outputs of different lengths do not fit one table", kind=ArgumentError,
                    help="write them to an .npz file: -o out.npz")
    for name, array in outputs.items():
        table = array.reshape(len(array) if array.ndim else 1, -1)
        header += [name] if array.ndim < 2 else [f"{name}_{k}" for k in range(table.shape[1])]
        columns += list(table.T)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))  # NumPy scalars print as short as their dtype allows
    return text.getvalue()

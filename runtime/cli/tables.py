"""Arrays to predict from, and predictions, as files: csv, npz, npy."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...dsl.errors import ArgumentError, DataError, error
from ..call.arrays import Array
from ..call.messages import listed
from ..data import formats, table
from ..data.sources import Dataset
from ..data.table import Schema, Table
from ..store.files import write

if TYPE_CHECKING:
    from ..call.calls import Call
    from ..model import Model


def read_inputs(path: Path, call: Call, net: Model) -> dict[str, Any]:
    """The inputs of an entry by name. A csv has a column per feature, by the names the model was trained with; the
    training target may be there and is left out. Scalar inputs with a default need no column."""
    ports = call.signature.inputs
    schema: Schema | None = None
    match path.name.removesuffix(".gz").rpartition(".")[2]:
        case "csv":
            found = _read_csv(path, call, net)
            columns, schema = found.columns, found.schema
            positions: tuple[str, ...] = ("",)
        case "npz":
            columns = {n: c[:] if c.ndim else c for n, c in formats.npz(path).items()}
            positions = tuple(columns)
        case "npy":
            return {ports[0].name: formats.npy(path)} if ports else {}
        case other:
            raise error("E0612", f"{path}: expected a .csv, .npz or .npy file, found .{other}", kind=DataError)
    taken = [k for k, p in enumerate(ports) if p.default is None or p.name in columns]
    names = [ports[k].name for k in taken]
    if len(names) > len(positions) and (missing := [n for n in names if n not in columns]):
        raise error("E0613", f"{path} has the columns {listed(list(columns))}, but {call.signature.name} also wants "
                    f"{listed(missing)}", kind=DataError, help="an .npz file holds any arrays by their names")
    dataset = Dataset(str(path), columns, None, positions, schema)
    return dict(zip(names, dataset.for_training(names, [call.wants[k] for k in taken]), strict=True))


def _read_csv(path: Path, call: Call, net: Model) -> Table:
    """A file like the one of training is read as that was; one for other inputs by itself."""
    spec = net.manifest.train.data if net.manifest.train is not None else None
    options: dict[str, Any] = {}
    if spec is not None and spec.source == "csv":
        names = ("path", "target", "header", "skip", "delimiter")
        options = {**dict(zip(names, spec.args, strict=False)), **spec.kwargs}
        options.pop("path", None)
    schema = net.schema
    wants = [w for w, p in zip(call.wants, call.signature.inputs, strict=True) if p.default is None]
    if schema is not None and schema.characters is not None:  # of a text
        schema = None
    if schema is not None and not any(w.name in schema.features for w in wants):
        width = wants[0].axes[1] if wants and len(wants[0].axes) == 2 else None
        if isinstance(width, int) and width != len(schema.features):
            schema = None
    found = table.read(path, **options, schema=schema, target_needed=False)
    if found.schema.target is None or found.schema.target in [w.name for w in wants]:
        return found
    return Table({n: c for n, c in found.columns.items() if n != found.schema.target}, found.schema)


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
    write(Path(path), buffer.getvalue())


def _csv(outputs: Mapping[str, Array]) -> str:
    header: list[str] = []
    columns: list[Array] = []
    rows = {len(a) if a.ndim else 1 for a in outputs.values()}
    if len(rows) > 1:
        raise error("E0613", "outputs of different lengths do not fit one table", kind=ArgumentError,
                    help="write them to an .npz file: -o out.npz")
    for name, array in outputs.items():
        cells = array.reshape(len(array) if array.ndim else 1, prod(array.shape[1:]))
        header += [name] if array.ndim < 2 else [f"{name}_{k}" for k in range(cells.shape[1])]
        columns += list(cells.T)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))  # NumPy scalars print as short as their dtype allows
    return text.getvalue()

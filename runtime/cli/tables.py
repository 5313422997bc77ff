"""Arrays to predict from, and predictions, as files."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...dsl.errors import ArgumentError, DataError, error
from ...dsl.render import printable
from ..call.arrays import Wanted
from ..call.column import Array
from ..call.messages import listed
from ..data.format import Format
from ..data.formats import by_suffix, formats
from ..data.sources import check
from ..data.table import Schema
from ..store.files import write

if TYPE_CHECKING:
    from ..call.calls import Call
    from ..model import Model


def read_inputs(path: Path, call: Call, net: Model, given: Collection[str] = ()) -> dict[str, Any]:
    """The inputs of an entry by name, but those that are `given`. A table has a column per feature, by the names the
    model was trained with; the training target may be there and is left out. Scalar inputs with a default need no
    column."""
    format = _format(path, net)
    assert format.inputs is not None
    ports = [p for p in call.signature.inputs if p.name not in given]
    wants = [w for w in call.wants if w.name not in given]
    needed = [w for w, p in zip(wants, ports, strict=True) if p.default is None]
    read = format.inputs(path, _options(format, net), _schema(net, needed))
    target = read.schema.target if read.schema is not None else None
    columns = {n: c for n, c in read.train.items() if n != target or n in [w.name for w in needed]}
    positions = tuple(n for n in read.by_position if n != target)
    taken = [w for w, p in zip(wants, ports, strict=True) if p.default is None or p.name in columns]
    names = [w.name for w in taken]
    dataset = replace(read, name=str(path), train=columns, by_position=positions)
    if dataset.match(columns, names, taken) is None:
        missing = [n for n in names if n not in columns]
        raise error(
            "E0613",
            f"{path} has the columns {listed(list(columns))}, but {call.signature.name} also wants {listed(missing)}",
            kind=DataError,
            help="an .npz file holds any arrays by their names",
        )
    return dict(zip(names, dataset.for_training(names, taken), strict=True))


def _format(path: Path, net: Model) -> Format:
    """By its suffix; a folder is what the model was trained on."""
    spec = net.manifest.train.data if net.manifest.train is not None else None
    format = by_suffix(path.name)
    if path.is_dir() and spec is not None:
        format = formats().get(spec.source)
        if format is None or format.inputs is None or format.takes == "file":
            raise error("E0612", f"{path}: expected a file, found a folder", kind=DataError)
    if format is None or format.inputs is None:
        *some, last = [s for f in formats().values() if f.inputs is not None for s in f.suffixes[:2]]
        found = path.name.removesuffix(".gz").rpartition(".")[2]
        raise error("E0612", f"{path}: expected a {', '.join(some)} or {last} file, found .{found}", kind=DataError)
    return format


def _options(format: Format, net: Model) -> dict[str, Any]:
    """How the train block reads files of this format, but for the path."""
    spec = net.manifest.train.data if net.manifest.train is not None else None
    options = check(spec) if spec is not None and spec.source == format.name else {}
    return {name: value for name, value in options.items() if name != "path"}


def _schema(net: Model, needed: Sequence[Wanted]) -> Schema | None:
    """That of training, by which a table is read; one for other inputs is read by itself."""
    schema = net.schema
    if schema is None or schema.characters is not None:  # of a text
        return None
    if not any(w.name in schema.features for w in needed):
        width = needed[0].axes[1] if needed and len(needed[0].axes) == 2 else None
        if isinstance(width, int) and width != len(schema.features):
            return None
    return schema


def write_outputs(outputs: Mapping[str, Array], path: str | None, classes: Sequence[str] = ()) -> None:
    """csv has a column per output, or per element of its rows; npz has an array per output, npy the only one. Scores of
    `classes` have their names in csv, and the best is a column of its own."""
    kind = "csv" if path is None else path.rpartition(".")[2]
    buffer = io.BytesIO()
    match kind:
        case "csv":
            buffer.write(_csv(outputs, classes).encode())
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


def _csv(outputs: Mapping[str, Array], classes: Sequence[str]) -> str:
    header: list[str] = []
    columns: list[Sequence[Any]] = []
    rows = {len(a) if a.ndim else 1 for a in outputs.values()}
    if len(rows) > 1:
        raise error(
            "E0613",
            "outputs of different lengths do not fit one table",
            kind=ArgumentError,
            help="write them to an .npz file: -o out.npz",
        )
    for name, array in outputs.items():
        cells = array.reshape(len(array) if array.ndim else 1, prod(array.shape[1:]))
        scores = array.ndim == 2 and array.dtype.kind == "f" and cells.shape[1] == len(classes)
        parts = [printable(c) for c in classes] if scores else range(cells.shape[1])
        header += [name] if array.ndim < 2 else [f"{name}_{part}" for part in parts]
        columns += list(cells.T)
        if scores:
            header.append("class" if "class" not in header and "class" not in outputs else f"{name}_class")
            columns.append([parts[k] for k in cells.argmax(1)])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))  # NumPy scalars print as short as their dtype allows
    return text.getvalue()

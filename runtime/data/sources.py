"""The data of a train block: what it names, read; and what is held out.

In: what a train block says (`data = csv("iris.csv", target = "species")`). Out: a `Dataset`. Which examples are held
out depends on the seed alone: the source's own test set where it has one, otherwise a share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.manifest import DataSpec
from ...dsl.errors import ArgumentError, error
from ..call.column import Array, Rows, select
from .dataset import Dataset
from .files import malformed
from .format import Format, type_name
from .formats import by_suffix, formats
from .order import split
from .table import Schema, fill, fills

_OTHER_FOLDERS = "idx"  # what a folder is read as that holds no other format's files


def load(
    spec: DataSpec,
    folder: Path,
    *,
    validation: float | None,
    seed: int,
    override: str | Path | None = None,
    schema: Schema | None = None,
) -> Dataset:
    """Read the data a train block names. Paths are relative to `folder`; `override` (the command line's `--data`)
    takes the place of the path, and where it is another kind of file, of the source. `validation` is the share to hold
    out (0: what the source is used to, None: nothing) where there is no test set; `schema` is how to read a table."""
    if override is not None:
        spec = _override(spec, Path(override))
    options = check(spec)
    format = formats()[spec.source]
    for option in format.options:
        if option.is_path and options[option.name] is not None:
            options[option.name] = folder / options[option.name]
    dataset = format.read(options.pop("path"), schema, **options)
    name = f"{spec.source}({', '.join(repr(a) for a in spec.args)})"
    lengths = {n: len(c) for n, c in dataset.train.items() if c.ndim}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{n}: {k}" for n, k in lengths.items())
        raise malformed(name, "as many rows in each column", found)
    dataset = replace(dataset, name=name)
    share = 0.0 if validation is None else validation or format.held_out
    if dataset.held_out is None and share and lengths:
        dataset = _split(dataset, share, seed, format.in_order)
    return _filled(dataset)


def check(spec: DataSpec) -> dict[str, Any]:
    """The options of a source by name. Refuses a source that there is not, and arguments that it does not take or that
    are of another kind (E0612), without reading anything."""
    format = formats().get(spec.source)
    if format is None:
        known = ", ".join(f"{s}()" for s in formats())
        raise error("E0612", f"there is no data source `{spec.source}`", help=f"there is {known}", kind=ArgumentError)
    try:
        bound = format.signature.bind(*spec.args, **spec.kwargs)
    except TypeError as e:
        raise error("E0612", f"wrong arguments for the data source `{spec.source}`: {e}", kind=ArgumentError) from e
    bound.apply_defaults()
    options: dict[str, Any] = dict(bound.arguments)
    for option in format.options:
        given = options.pop(option.name) if option.many else {option.name: options[option.name]}
        for name, value in given.items():
            _check_option(format, name, option.type, value)
        options |= given
    return options


def _check_option(format: Format, name: str, wanted: Any, value: Any) -> None:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise error(
            "E0612",
            f"wrong arguments for the data source `{format.name}`: `{name}` must be {type_name(wanted)}, not {value!r}",
            kind=ArgumentError,
        )


def _override(spec: DataSpec, path: Path) -> DataSpec:
    """A path in place of the one named; read as that was if it can be."""
    here = str(path.absolute())
    other = by_suffix(path.name)
    format = formats().get(spec.source)
    if other is None and path.is_dir() and (format is None or format.takes != "folder"):
        holding = (f for f in formats().values() if f.holds and any(path.glob(f.holds)))
        other = next(holding, formats()[_OTHER_FOLDERS])
    if other is not None and other.name != spec.source:
        return DataSpec(other.name, (here,))
    return replace(spec, args=(here, *spec.args[1:]))


def _split(dataset: Dataset, share: float, seed: int, in_order: bool) -> Dataset:
    """Hold out a share; of text the end, otherwise examples chosen by the seed, of each class its share."""
    columns = dataset.train
    n = next(len(c) for c in columns.values() if c.ndim)
    if in_order:
        cut = n - min(max(1, round(n * share)), n - 1)
        keep, hold = np.arange(cut), np.arange(cut, n)
    else:
        keep, hold = split(n, share, seed, classes_of(columns.values()))
    return replace(
        dataset,
        train={k: select(c, keep) if c.ndim else c for k, c in columns.items()},
        held_out={k: select(c, hold) if c.ndim else c for k, c in columns.items()},
        train_rows=keep,
    )


def _filled(dataset: Dataset) -> Dataset:
    """Without gaps: what stands there is of the training part."""
    schema = dataset.schema
    if dataset.missing is None or schema is None:
        return dataset
    schema = replace(schema, fill=fills(dataset.train, schema, dataset.missing))
    held_out = None if dataset.held_out is None else fill(dataset.held_out, schema)
    return replace(dataset, train=fill(dataset.train, schema), held_out=held_out, schema=schema, missing=None)


def classes_of(columns: Iterable[Rows]) -> Array | None:
    """The column that looks like class labels: ints, one per example, few different ones."""
    for c in reversed(list(columns)):
        if isinstance(c, np.ndarray) and c.ndim == 1 and c.dtype.kind in "iu":
            if len(np.unique(c)) <= max(2, len(c) // 10):
                return c
    return None

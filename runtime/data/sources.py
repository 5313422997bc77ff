"""Data sets: named columns for training and for holding the model to account.

In: what a train block says (`data = csv("iris.csv", target = "species")`). Out: a `Dataset`, whose columns are matched
with the inputs of the train block: by name where the source has columns of those names, otherwise in order, features
before target. An image is flat or `[C, H, W]`, as the input wants it. Which examples are held out depends on the seed
alone: the source's own test set where it has one, otherwise a share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from ...compiler.manifest import DataSpec, Port
from ...dsl.errors import ArgumentError, DataError, error
from ..call.arrays import Array, Wanted, describe, wanted
from ..call.column import Rows, select
from ..call.messages import listed
from . import formats, pictures, table, text
from .order import split
from .table import Schema
from .text import Vocabulary

_DIGITS_HELD_OUT = 0.2  # of the digits that ship with nnc, where the train block does not say


@dataclass(frozen=True, slots=True)
class Dataset:
    """`train` and `held_out` (None: nothing is held out) have the same columns."""

    name: str
    train: Mapping[str, Rows]
    held_out: Mapping[str, Rows] | None
    by_position: tuple[str, ...]  # the columns for inputs whose names are not columns; "" is all features as a matrix
    schema: Schema | None = None  # of a table or a text
    train_rows: Array | None = None  # where the training examples stand in the source (None: as they are)

    def for_training(self, inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows]:
        """The training columns in the order and shape of the inputs."""
        return self._columns(self.train, inputs, wants)

    def for_validation(self, inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows] | None:
        return None if self.held_out is None else self._columns(self.held_out, inputs, wants)

    def for_evaluation(self, inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows]:
        """What is held out, or the training columns where nothing is."""
        return self._columns(self.train if self.held_out is None else self.held_out, inputs, wants)

    def _columns(self, columns: Mapping[str, Rows], inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows]:
        by_name = all(name in columns for name in inputs)
        if not by_name and len(inputs) > len(self.by_position):
            raise error("E0613", f"{self.name} has the columns {listed(list(columns))}, the train block wants "
                        f"{listed(inputs)}", kind=DataError)
        found = []
        for k, want in enumerate(wants):
            column = columns[inputs[k]] if by_name else self._at(columns, k)
            self._check_width(column, want, inputs[k] if by_name else self.by_position[k])
            found.append(_reshape(column, want, self.name))
        return found

    def _check_width(self, column: Rows, want: Wanted, name: str) -> None:
        """A table's features are as many as the input wants."""
        if self.schema is None or name or len(want.axes) != 2 or want.axes[1] == column.shape[-1]:
            return
        if isinstance(want.axes[1], int):
            raise error("E0613", f"`{want.name}` wants {want.type}, but {self.name} has {column.shape[1]} feature "
                        f"columns: {listed(self.schema.features)}", kind=DataError)

    def _at(self, columns: Mapping[str, Rows], k: int) -> Rows:
        name = self.by_position[k]
        if name:
            return columns[name]
        targets = set(self.by_position)
        return np.stack([c[:] for n, c in columns.items() if n not in targets], axis=1)

    def sizes(self, inputs: Sequence[str], ports: Sequence[Port]) -> dict[str, int]:
        """What the symbols of the inputs are in this data, the number of examples left out."""
        wants = tuple(map(wanted, ports))
        found: dict[str, int] = {}
        for want, column in zip(wants, self.for_training(inputs, wants), strict=True):
            if column.ndim == len(want.axes):
                found |= {axis: n for axis, n in zip(want.axes[1:], column.shape[1:], strict=True)
                          if isinstance(axis, str)}
        return found


def _reshape(column: Rows, want: Wanted, source: str) -> Rows:
    """A row as the input wants it: flattened, `[H, W]` for one channel, or with axes of size 1 added."""
    axes = want.axes
    if not axes or column.ndim == len(axes):
        return column
    if column.ndim == 0:
        raise error("E0613", f"`{want.name}` wants {want.type}, but {source} gives one number", kind=DataError)
    rows, row = len(column), column.shape[1:]
    if len(axes) == 1 and row == (1,):
        return column.reshape(rows)
    if len(axes) == 2:
        return column.reshape(rows, math.prod(row))
    if len(axes) == 3 and len(row) == 3 and row[0] == 1:
        return column.reshape(rows, *row[1:])
    fixed = [a for a in axes[1:] if isinstance(a, int)]
    if len(fixed) == len(axes) - 1 and math.prod(fixed) == math.prod(row):
        return column.reshape(rows, *fixed)
    raise error("E0613", f"`{want.name}` wants {want.type}, but {source} gives {describe(column)}", kind=DataError)


# --- the sources of a train block -------------------------------------------------------------------------------------


def load(spec: DataSpec, folder: Path, *, validation: float | None, seed: int, override: str | Path | None = None,
         schema: Schema | None = None) -> Dataset:
    """Read the data a train block names. Paths are relative to `folder`; `override` (the command line's `--data`)
    takes the place of the path, and where it is another kind of file, of the source. `validation` is the share to hold
    out (0: what the source is used to, None: nothing) where there is no test set; `schema` is how to read a table."""
    source, args, kwargs = spec.source, spec.args, dict(spec.kwargs)
    if override is not None:
        source, kwargs = _override(source, Path(override), kwargs)
        args = (str(Path(override).absolute()), *args[1:])
    check(replace(spec, source=source, args=args, kwargs=kwargs))
    dataset = _SOURCES[source](folder, schema, *args, **kwargs)
    name = f"{source}({', '.join(repr(a) for a in args)})"
    lengths = {n: len(c) for n, c in dataset.train.items() if c.ndim}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{n}: {k}" for n, k in lengths.items())
        raise formats.malformed(name, "as many rows in each column", found)
    dataset = replace(dataset, name=name)
    share = 0.0 if validation is None else validation or (_DIGITS_HELD_OUT if source == "digits" else 0.0)
    if dataset.held_out is None and share and lengths:
        return _split(dataset, share, seed, source == "text")
    return dataset


def check(spec: DataSpec) -> None:
    """Refuse a source that there is not, and arguments that it does not take or that are of another kind (E0612),
    without reading anything."""
    reader = _SOURCES.get(spec.source)
    if reader is None:
        known = ", ".join(f"{s}()" for s in _SOURCES)
        raise error("E0612", f"there is no data source `{spec.source}`", help=f"there is {known}", kind=ArgumentError)
    try:
        given = signature(reader).bind(None, None, *spec.args, **spec.kwargs).arguments
    except TypeError as e:
        raise error("E0612", f"wrong arguments for the data source `{spec.source}`: {e}", kind=ArgumentError) from e
    hints = get_type_hints(reader)
    for name, value in [*given.items(), *given.get("names", {}).items()][2:]:
        wanted = hints.get(name, str)
        if name != "names" and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)):
            kind = getattr(wanted, "__name__", str(wanted))
            raise error("E0612", f"wrong arguments for the data source `{spec.source}`: `{name}` must be {kind}, "
                        f"not {value!r}", kind=ArgumentError)


def _override(source: str, path: Path, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The source that reads this path: the one named if it can."""
    name = path.name.removesuffix(".gz")
    for suffix, by_suffix in ((".csv", "csv"), (".npz", "npz")):
        if name.endswith(suffix) and source != by_suffix:
            return by_suffix, {}
    if path.is_dir() and source not in ("idx", "cifar10", "images"):
        for pattern, by_content in (("data_batch_*.bin", "cifar10"), ("*.npy", "npz")):
            if any(path.glob(pattern)):
                return by_content, kwargs if by_content == source else {}
        return "idx", {}
    return source, kwargs


def _split(dataset: Dataset, share: float, seed: int, in_order: bool) -> Dataset:
    """Hold out a share; of text the end, otherwise examples chosen by the seed, of each class its share."""
    columns = dataset.train
    n = next(len(c) for c in columns.values() if c.ndim)
    if in_order:
        cut = n - min(max(1, round(n * share)), n - 1)
        keep, hold = np.arange(cut), np.arange(cut, n)
    else:
        keep, hold = split(n, share, seed, classes_of(columns.values()))
    return replace(dataset, train={k: select(c, keep) if c.ndim else c for k, c in columns.items()},
                   held_out={k: select(c, hold) if c.ndim else c for k, c in columns.items()}, train_rows=keep)


def classes_of(columns: Any) -> Array | None:
    """The column that looks like class labels: ints, one per example, few different ones."""
    for c in reversed(list(columns)):
        labels = isinstance(c, np.ndarray) and c.ndim == 1 and c.dtype.kind in "iu"
        if labels and len(np.unique(c)) <= max(2, len(c) // 10):
            return c
    return None


def _digits(folder: Path, _: Schema | None, /, path: str | None = None) -> Dataset:
    return Dataset("", formats.digits(None if path is None else folder / path), None, ("x", "label"))


def _idx(folder: Path, _: Schema | None, /, path: str) -> Dataset:
    return Dataset("", *formats.idx(folder / path), ("x", "label"))


def _cifar10(folder: Path, _: Schema | None, /, path: str) -> Dataset:
    return Dataset("", *formats.cifar10(folder / path), ("x", "label"))


def _csv(folder: Path, schema: Schema | None, /, path: str, target: str | int | None = None, header: bool = True,
         skip: int = 0, delimiter: str = ",") -> Dataset:
    return of_table(table.read(folder / path, target, header=header, skip=skip, delimiter=delimiter, schema=schema))


def of_table(found: table.Table) -> Dataset:
    """A table's features as a matrix, then its target."""
    target = found.schema.target
    return Dataset("", found.columns, None, ("", target) if target in found.columns and target else ("",), found.schema)


def _npz(folder: Path, _: Schema | None, /, path: str, **names: str) -> Dataset:
    """`x = "images"` names the array of an input; without names the arrays are taken by their own. Arrays
    `NAME_train` and `NAME_test` are training and test set."""
    if not names:
        columns = formats.npz(folder / path)
        names = {n: n for n in columns}
        if any(n.endswith("_train") for n in names) and any(n.endswith("_test") for n in names):
            train = {n.removesuffix("_train"): c for n, c in columns.items() if n.endswith("_train")}
            test = {n.removesuffix("_test"): c for n, c in columns.items() if n.endswith("_test")}
            return Dataset("", train, test, tuple(train))
    else:
        found = formats.npz(folder / path, list(names.values()))
        columns = {n: found[a] for n, a in names.items()}
    return Dataset("", columns, None, tuple(columns))


def _text(folder: Path, schema: Schema | None, /, path: str, context: int = 64) -> Dataset:
    known = Vocabulary(schema.characters) if schema is not None and schema.characters is not None else None
    columns, vocabulary = text.read(folder / path, context, known)
    return Dataset("", columns, None, ("x", "y"), Schema((), characters=vocabulary.characters))


def _images(folder: Path, _: Schema | None, /, path: str, grey: bool = False) -> Dataset:
    return Dataset("", *pictures.images(folder / path, grey), ("x", "label"))


_SOURCES: Mapping[str, Callable[..., Dataset]] = {
    "digits": _digits, "idx": _idx, "cifar10": _cifar10, "csv": _csv, "npz": _npz, "text": _text, "images": _images,
}  # fmt: skip

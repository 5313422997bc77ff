"""A data set: named columns for training and for holding the model to account.

Columns are matched with the inputs of the train block: by name where the source has columns of those names, otherwise
in order, features before target. An image is flat or `[C, H, W]`, as the input wants it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...compiler.manifest import Port
from ...dsl.errors import DataError, error
from ..call.arrays import Wanted, describe, wanted
from ..call.column import Array, Rows
from ..call.messages import listed
from .table import Schema, Table


@dataclass(frozen=True, slots=True)
class Dataset:
    """`train` and `held_out` (None: nothing is held out) have the same columns."""

    name: str
    train: Mapping[str, Rows]
    held_out: Mapping[str, Rows] | None
    by_position: tuple[str, ...]  # the columns for inputs whose names are not columns; "" is all features as a matrix
    schema: Schema | None = None  # of a table or a text
    train_rows: Array | None = None  # where the training examples stand in the source (None: as they are)
    text: str | None = None  # of a target that became classes: its first cell, and where that stands
    missing: str | float | None = None  # what the gaps of a table, NaN as yet, are to be

    @property
    def counts(self) -> tuple[int, int]:
        """How many examples there are to train on, and how many are held out."""
        train, held_out = (0 if c is None else len(next(iter(c.values()), ())) for c in (self.train, self.held_out))
        return train, held_out

    def for_training(self, inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows]:
        """The training columns in the order and shape of the inputs."""
        return self._columns(self.train, inputs, wants)

    def for_validation(self, inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows] | None:
        return None if self.held_out is None else self._columns(self.held_out, inputs, wants)

    def for_evaluation(self, inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows]:
        """What is held out, or the training columns where nothing is."""
        return self._columns(self.train if self.held_out is None else self.held_out, inputs, wants)

    def _columns(self, columns: Mapping[str, Rows], inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows]:
        names = self.match(columns, inputs, wants)
        if names is None:
            raise error(
                "E0613",
                f"{self.name} has the columns {listed(list(columns))}, the train block wants {listed(inputs)}",
                kind=DataError,
            )
        unread = [n for n in self._categories if n in columns and n not in names]
        if unread and "" in names:
            raise error(
                "E0613",
                f"{self.name}: `{unread[0]}` is names, and no input is called so",
                kind=DataError,
                help=f"`{unread[0]}: i32[..]` takes their numbers",
            )
        found = []
        for name, want in zip(names, wants, strict=True):
            column = columns[name] if name else self._matrix(columns, names)
            self._check_width(column, want, name)
            self._check_classes(want, name)
            found.append(self._whole(reshape(column, want, self.name), want, name))
        return found

    def match(self, columns: Mapping[str, Rows], inputs: Sequence[str], wants: Sequence[Wanted]) -> list[str] | None:
        """The column of each input, "" for the features as a matrix; None where there are not enough. By name where
        all have one (of several features one is not the matrix that an input wants, whatever it is called); otherwise
        in order, but names of categories always, and a single number by its name where without that there are too
        few. Where all features have inputs of their names, what is left is the target."""
        several = len(self._features) > 1
        matrices = [n for n, w in zip(inputs, wants, strict=True) if several and len(w.axes) == 2 and w.axes[1] != 1]
        if all(n in columns and not (n in matrices and columns[n].ndim == 1) for n in inputs):
            return list(inputs)
        single = [n for n, w in zip(inputs, wants, strict=True) if n in self._features and len(w.axes) == 1]
        for named in ([n for n in inputs if n in self._categories], single):
            unnamed = not self._features or {*self._features} - {*self._categories, *named}
            positions = [p for p in self.by_position if p or unnamed]
            if len(inputs) - len(named) <= len(positions):
                left = iter(positions)
                return [n if n in named else next(left) for n in inputs]
        return None

    @property
    def _features(self) -> tuple[str, ...]:
        return self.schema.features if self.schema is not None else ()

    @property
    def _categories(self) -> Mapping[str, tuple[str, ...]]:
        return self.schema.categories if self.schema is not None else {}

    def _matrix(self, columns: Mapping[str, Rows], taken: Sequence[str]) -> Array:
        """The features that are numbers and have no input of their own."""
        apart = {*self.by_position, *self._categories, *taken}
        chosen = [c[:] for n, c in columns.items() if n not in apart]
        rows = len(next(iter(columns.values())))
        return np.stack(chosen, axis=1) if chosen else np.empty((rows, 0))

    def _whole(self, column: Rows, want: Wanted, name: str) -> Rows:
        """Numbers of a table for an input of whole ones: as they are, if they are whole."""
        if want.dtype.kind != "i" or column.dtype.kind != "f" or self.schema is None:
            return column
        numbers = column[:]
        odd = np.argwhere(numbers != np.floor(numbers))  # also NaN
        if not len(odd) and np.isfinite(numbers).all():
            return numbers.astype(np.int64)
        at = tuple(odd[0]) if len(odd) else tuple(np.argwhere(~np.isfinite(numbers))[0])
        what = f"`{name}`" if name else f"the features {listed(self._features)}"
        raise error(
            "E0613",
            f"`{want.name}` wants {want.type}, but {what} of {self.name} has {numbers[at]:g}",
            kind=DataError,
        )

    def _check_width(self, column: Rows, want: Wanted, name: str) -> None:
        """A table's features are as many as the input wants."""
        if self.schema is None or name or len(want.axes) != 2 or want.axes[1] == column.shape[-1]:
            return
        if isinstance(want.axes[1], int):
            raise error(
                "E0613",
                f"`{want.name}` wants {want.type}, but {self.name} has {column.shape[1]} feature "
                f"columns: {listed(self.schema.features)}",
                kind=DataError,
            )

    def _check_classes(self, want: Wanted, name: str) -> None:
        """A name is no number to come near to."""
        if name in self._categories and want.dtype.kind == "f":
            raise error(
                "E0613",
                f"`{want.name}` wants {want.type}, but `{name}` of {self.name} is names",
                kind=DataError,
                help=f"take their numbers as `{want.name}: i32[..]`, for `Embedding` or `one_hot`",
            )
        if self.text is None or self.schema is None or name != self.schema.target or want.dtype.kind != "f":
            return
        raise error(
            "E0613",
            f"`{want.name}` wants {want.type}, but `{name}` of {self.name} is text: {self.text}",
            kind=DataError,
            help=f"if they are classes, take them as `{want.name}: i32[..]`",
        )

    def sizes(self, inputs: Sequence[str], ports: Sequence[Port]) -> dict[str, int]:
        """What the symbols of the inputs are in this data, the number of examples left out."""
        wants = tuple(map(wanted, ports))
        found: dict[str, int] = {}
        for want, column in zip(wants, self.for_training(inputs, wants), strict=True):
            if column.ndim == len(want.axes):
                found |= {
                    axis: n for axis, n in zip(want.axes[1:], column.shape[1:], strict=True) if isinstance(axis, str)
                }
        return found


def reshape(column: Rows, want: Wanted, source: str) -> Rows:
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


def of_table(found: Table) -> Dataset:
    """A table's features, as a matrix where each is a number, then its target."""
    target = found.schema.target
    features = [n for n in found.columns if n != target]
    features = [n for n in features if n not in found.schema.categories]
    single = all(found.columns[n].ndim == 1 for n in features)
    by_position = ("",) if single else tuple(features)
    if target is not None and target in found.columns:
        by_position += (target,)
    return Dataset("", found.columns, None, by_position, found.schema, text=found.text)

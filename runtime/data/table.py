"""A table, whatever file it comes from, and what its columns mean.

A `Table` is columns by name, the target last; its `Schema` has the names of the features in order and the classes that
text in the target stands for. A model remembers the schema it was trained with; another file is then read by it:
columns are found by name, classes keep their numbers, and what does not fit is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...dsl.errors import DataError, NncError, error
from ...dsl.record import dataclass, field
from ..call.column import Array, Rows
from ..call.messages import listed
from .files import malformed

TEXT_BYTES = 100  # of a short text, as Python keeps it


@dataclass(frozen=True, slots=True)
class Schema:
    """What the columns of a table mean, or the numbers of a text."""

    features: tuple[str, ...]
    target: str | None = None
    classes: tuple[str, ...] | None = None  # of a target that is text, in the order of their numbers
    characters: str | None = None  # of a text, in the order of their numbers
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of features that are text, likewise
    fill: Mapping[str, float] = field(default_factory=dict)  # of features: what stands where nothing does


@dataclass(frozen=True, slots=True)
class Table:
    columns: Mapping[str, Rows]  # features in the order of the schema, then the target where the file has it
    schema: Schema
    text: str | None = None  # of a target that became classes: its first cell, and where that stands


def check_features(path: Path, names: Sequence[str], schema: Schema) -> None:
    """The file has the features the model learned from, in any order, and no others."""
    missing = [n for n in schema.features if n not in names]
    more = [n for n in names if n not in schema.features]
    if not missing and not more:
        return
    found = [f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    found += [f"{listed(more)} {'was' if len(more) == 1 else 'were'} not there in training"] if more else []
    raise error(
        "E0613",
        f"{path}: {' and '.join(found)}",
        kind=DataError,
        help=f"the model was trained on the columns {listed(schema.features)}",
    )


def number(text: str) -> float | None:
    """As people write numbers in files: Python's `1_234` is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if "_" in text else value


def target_column(
    path: Path,
    name: str,
    texts: Sequence[str],
    lines: Sequence[int],
    number: Callable[[str], float | None] = number,
) -> tuple[Array, tuple[str, ...] | None]:
    """A target as it is written in `lines`: numbers as they are (ints where all are), or texts as classes. Where some
    are numbers and some are not it is not known which are meant (E0621)."""
    numbers = [number(t) for t in texts]
    missing = numbers.count(None)
    if not missing:
        return whole(np.array(numbers, np.float64)), None
    if missing < len(texts):
        usual = 2 * missing <= len(texts)
        odd = next(k for k, n in enumerate(numbers) if (n is None) == usual)
        wanted = "a number" if usual else "a name, as in most lines,"
        raise malformed(
            path,
            f"{wanted} for `{name}` in line {lines[odd]}",
            repr(texts[odd][:40]),
            "say `classes = true` in `csv(...)` where all of them are names",
        )
    return class_column(path, texts, None)


def class_column(
    path: Path, texts: Sequence[str], schema: Schema | None, number: Callable[[str], float | None] = number
) -> tuple[Array, tuple[str, ...] | None]:
    """A column that is text whatever it looks like, and its classes, in sorted order or as those of a schema's target
    are."""
    if schema is not None:
        return _known_classes(path, texts, schema, number), schema.classes
    names, index = np.unique(np.array(texts), return_inverse=True)
    return index.astype(np.int32), tuple(map(str, names))


def fill(columns: Mapping[str, Rows], schema: Schema) -> dict[str, Rows]:
    """The columns with what a schema fills where nothing stood."""
    return {n: np.where(np.isnan(c[:]), schema.fill[n], c[:]) if n in schema.fill else c for n, c in columns.items()}


def fills(columns: Mapping[str, Rows], schema: Schema, missing: str | float) -> dict[str, float]:
    """What stands where a number of a feature is missing, by these columns (E0613 where one has none)."""
    found: dict[str, float] = {}
    for name in (n for n in schema.features if n not in schema.categories):
        column = columns[name][:]
        there = column[~np.isnan(column)]
        if isinstance(missing, str) and not len(there):
            raise error("E0613", f"`{name}` has no number, so it has no {missing}", kind=DataError)
        found[name] = float(FILLS[missing](there)) if isinstance(missing, str) else float(missing)
    return found


FILLS: Mapping[str, Callable[[Array], Any]] = {"mean": np.mean, "median": np.median}


def whole(numbers: Array) -> Array:
    """Ints where all are."""
    fits = np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all() and np.abs(numbers).max() < 2**53
    return numbers.astype(np.int64) if fits else numbers


def _known_classes(path: Path, texts: Sequence[str], schema: Schema, number: Callable[[str], float | None]) -> Array:
    """The numbers that the classes had in training."""
    if schema.classes is None:
        numbers = [number(t) for t in texts]
        if None in numbers:
            row = numbers.index(None)
            raise malformed(path, f"a number for `{schema.target}` in row {row + 1}", repr(texts[row][:40]))
        return whole(np.array(numbers, np.float64))
    known = {name: k for k, name in enumerate(schema.classes)}
    for row, t in enumerate(texts):
        if t not in known:
            raise _unknown_class(path, t, row, schema)
    return np.array([known[t] for t in texts], np.int32)


def _unknown_class(path: Path, name: str, row: int, schema: Schema) -> NncError:
    return error(
        "E0613",
        f"{path}: the class {name[:40]!r} in row {row + 1} was not there in training",
        kind=DataError,
        help=f"the model knows {listed(schema.classes or ())} as `{schema.target}`",
    )

"""A csv file into columns, and what its columns mean.

In: a path. Out: a `Table`: float columns by name, the target last, and the `Schema`: the names of the features in order
and the classes that text in the target stands for. A model remembers the schema it was trained with; another file is
then read by it: columns are found by name, classes keep their numbers, and what does not fit is named.
"""

from __future__ import annotations

import csv
from array import array as typed_array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...dsl.errors import DataError, NncError, error
from ..call.arrays import Array, check_bytes
from ..call.column import Rows
from ..call.messages import listed
from .formats import malformed, opened, text_lines

_TEXT_BYTES = 100  # of a short text, as Python keeps it


@dataclass(frozen=True, slots=True)
class Schema:
    """What the columns of a table mean, or the numbers of a text."""

    features: tuple[str, ...]
    target: str | None = None
    classes: tuple[str, ...] | None = None  # of a target that is text, in the order of their numbers
    characters: str | None = None  # of a text, in the order of their numbers


@dataclass(frozen=True, slots=True)
class Table:
    columns: Mapping[str, Rows]  # features in the order of the schema, then the target where the file has it
    schema: Schema


def read(path: Path, target: str | int | None = None, *, header: bool = True, skip: int = 0, delimiter: str = ",",
         schema: Schema | None = None, target_needed: bool = True) -> Table:
    """A table of numbers with a header, plain or gz. `target` is a column's name (or number, from 0, -1 the last); text
    there becomes classes, numbered from 0 in sorted order. With a `schema` the file is read as that says."""
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise error("E0612", f"the delimiter of csv must be one character, got {delimiter!r}", kind=DataError)
    if skip < 0:
        raise error("E0612", f"the lines of csv to skip must be at least 0, got {skip}", kind=DataError)
    with opened(path) as f:
        lines = csv.reader(text_lines(f, path, "utf-8-sig"), delimiter=delimiter, strict=True)
        try:
            for k in range(skip):
                if next(lines, None) is None:
                    raise malformed(path, f"more than the {skip} lines to skip", k)
            first = next(lines, None)
            if not first:
                raise malformed(path, "a header line" if header else "a line of numbers", "an empty file")
            wanted = target if schema is None else schema.target
            names = _names(path, first, delimiter, wanted) if header else [f"c{k}" for k in range(len(first))]
            at = _target_index(path, names, wanted, target_needed)
            if schema is not None:
                _check_features(path, [n for k, n in enumerate(names) if k != at], schema)
            matrix, texts = _cells(path, names, at, lines, [] if header else [first])
        except UnicodeDecodeError as e:
            raise malformed(path, "UTF-8 text", f"byte {e.object[e.start]:#04x}") from e
        except csv.Error as e:
            raise malformed(path, "a csv table", f"{e} in line {lines.line_num}") from e
    features = [n for k, n in enumerate(names) if k != at]
    columns = {name: matrix[:, k] for k, name in enumerate(features)}
    if schema is not None:
        columns = {name: columns[name] for name in schema.features}
    if at is None:
        return Table(columns, schema or Schema(tuple(features)))
    column, classes = _classes(texts) if schema is None else (_known_classes(path, texts, schema), schema.classes)
    columns[names[at]] = column
    return Table(columns, schema or Schema(tuple(features), names[at], classes))


def _names(path: Path, first: Sequence[str], delimiter: str, target: str | int | None) -> list[str]:
    """The names of a header; a line of numbers is none, nor is one of numbers and a class."""
    names = [n.strip() for n in first]
    texts = [n for n in names if not _is_number(n)]
    if not texts or (len(texts) == 1 < len(names) and target is not None and target not in names):
        raise malformed(path, "a line of column names", "a line of values",
                        "add a line of names to the file, or say `header = false` in `csv(...)`")
    if len(names) == 1:
        for other, written in ((";", ";"), ("\t", "\\t"), (",", ",")):
            if other in names[0]:
                raise malformed(path, f"columns separated by {delimiter!r}", f"a header with {other!r} in it",
                                f'say `delimiter = "{written}"` in `csv(...)`')
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise malformed(path, "different column names", f"`{twice}` twice")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _target_index(path: Path, names: Sequence[str], target: str | int | None, needed: bool) -> int | None:
    if target is None:
        return None
    if isinstance(target, int) and -len(names) <= target < len(names):
        return target % len(names)
    if target in names:
        return names.index(str(target))
    if not needed:
        return None
    raise malformed(path, f"a column `{target}`", listed(names))


def _check_features(path: Path, names: Sequence[str], schema: Schema) -> None:
    """The file has the features the model learned from, in any order, and no others."""
    missing = [n for n in schema.features if n not in names]
    more = [n for n in names if n not in schema.features]
    if not missing and not more:
        return
    found = [f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    found += [f"{listed(more)} {'was' if len(more) == 1 else 'were'} not there in training"] if more else []
    raise error("E0613", f"{path}: {' and '.join(found)}", kind=DataError,
                help=f"the model was trained on the columns {listed(schema.features)}")


def _cells(path: Path, names: Sequence[str], at: int | None, lines: Any, pending: list[list[str]]
           ) -> tuple[Array, list[str]]:
    """The features as a matrix, and the text of the target."""
    values, texts = typed_array("d"), list[str]()
    rows = 0
    for row in _rows(lines, pending):
        if len(row) != len(names):
            raise malformed(path, f"{len(names)} columns ({listed(names)}) in line {lines.line_num}", len(row))
        for k, cell in enumerate(row):
            if k == at:
                if not cell.strip():
                    raise malformed(path, f"a value for `{names[k]}` in line {lines.line_num}", "an empty cell")
                texts.append(cell.strip())
                continue
            try:
                values.append(float(cell))
            except ValueError:
                found = f"{cell.strip()[:40]!r}" if cell.strip() else "an empty cell"
                raise malformed(path, f"a number for `{names[k]}` in line {lines.line_num}", found) from None
        rows += 1
        if rows % 65536 == 0:
            check_bytes(values.itemsize * len(values) * 3 + _TEXT_BYTES * len(texts), str(path))
    if not rows:
        raise malformed(path, "rows below the header", "none")
    features = len(names) - (at is not None)
    matrix = np.frombuffer(values, np.float64).reshape(rows, features) if features else np.empty((rows, 0))
    return matrix, texts


def _rows(lines: Any, pending: list[list[str]]) -> Iterator[list[str]]:
    """Every line that is not empty."""
    for source in (pending, lines):
        for row in source:
            if row and row != [""]:
                yield row


def _classes(texts: Sequence[str]) -> tuple[Array, tuple[str, ...] | None]:
    """Numbers as they are (ints where all are), anything else as classes in sorted order."""
    try:
        return _numbers(texts), None
    except ValueError:
        names, index = np.unique(np.array(texts), return_inverse=True)
        return index.astype(np.int32), tuple(map(str, names))


def _numbers(texts: Sequence[str]) -> Array:
    numbers = np.array([float(t) for t in texts])
    whole = np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all() and np.abs(numbers).max() < 2**53
    return numbers.astype(np.int64) if whole else numbers


def _known_classes(path: Path, texts: Sequence[str], schema: Schema) -> Array:
    """The numbers that the classes had in training."""
    if schema.classes is None:
        try:
            return _numbers(texts)
        except ValueError:
            row = next(k for k, t in enumerate(texts) if not _is_number(t))
            raise malformed(path, f"a number for `{schema.target}` in row {row + 1}", repr(texts[row][:40])) from None
    known = {name: k for k, name in enumerate(schema.classes)}
    for row, t in enumerate(texts):
        if t not in known:
            raise _unknown_class(path, t, row, schema.classes)
    return np.array([known[t] for t in texts], np.int32)


def _unknown_class(path: Path, name: str, row: int, known: Sequence[str]) -> NncError:
    return error("E0613", f"{path}: the class {name[:40]!r} in row {row + 1} was not there in training", kind=DataError,
                 help=f"the model knows {listed(known)}")

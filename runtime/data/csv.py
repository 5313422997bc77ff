"""csv files: a table of numbers, and a target that may be text.

In: a path. Out: float columns by name, the target last.
"""

from __future__ import annotations

import csv
from array import array as typed_array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...dsl.errors import DataError, error
from ..call.arrays import check_bytes
from ..call.column import Array
from ..call.messages import listed
from .dataset import Dataset, of_table
from .files import malformed, opened, text_lines
from .format import Format, Option
from .table import TEXT_BYTES, Schema, Table, check_features, is_number, target_column


def read(
    path: Path, schema: Schema | None, /, target: str | int | None, header: bool, skip: int, delimiter: str
) -> Dataset:
    return of_table(read_table(path, target, header=header, skip=skip, delimiter=delimiter, schema=schema))


def inputs(path: Path, options: Mapping[str, Any], schema: Schema | None) -> Dataset:
    return of_table(read_table(path, schema=schema, **options, target_needed=False))


def read_table(
    path: Path,
    target: str | int | None = None,
    *,
    header: bool = True,
    skip: int = 0,
    delimiter: str = ",",
    schema: Schema | None = None,
    target_needed: bool = True,
) -> Table:
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
                check_features(path, [n for k, n in enumerate(names) if k != at], schema)
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
    columns[names[at]], classes = target_column(path, texts, schema)
    return Table(columns, schema or Schema(tuple(features), names[at], classes))


def _names(path: Path, first: Sequence[str], delimiter: str, target: str | int | None) -> list[str]:
    """The names of a header; a line of numbers is none, nor is one of numbers and a class."""
    names = [n.strip() for n in first]
    texts = [n for n in names if not is_number(n)]
    if not texts or (len(texts) == 1 < len(names) and target is not None and target not in names):
        raise malformed(
            path,
            "a line of column names",
            "a line of values",
            "add a line of names to the file, or say `header = false` in `csv(...)`",
        )
    if len(names) == 1:
        for other, written in ((";", ";"), ("\t", "\\t"), (",", ",")):
            if other in names[0]:
                raise malformed(
                    path,
                    f"columns separated by {delimiter!r}",
                    f"a header with {other!r} in it",
                    f'say `delimiter = "{written}"` in `csv(...)`',
                )
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise malformed(path, "different column names", f"`{twice}` twice")
    return names


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


def _cells(
    path: Path, names: Sequence[str], at: int | None, lines: Any, pending: list[list[str]]
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
            check_bytes(values.itemsize * len(values) * 3 + TEXT_BYTES * len(texts), str(path))
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


CSV = Format(
    name="csv",
    about="A table of numbers, plain or gz: the features as a matrix in the order of their columns, then the target, "
    "where text becomes classes, numbered from 0 in sorted order.",
    example='csv("file.csv", target = "species")',
    read=read,
    options=(
        Option("path", str, "the file", is_path=True),
        Option("target", str | int | None, "the column to learn: its name, or its number from 0, -1 the last", None),
        Option("header", bool, "whether the first line has the names of the columns", True),
        Option("skip", int, "lines before the table", 0),
        Option("delimiter", str, "the character between cells", ","),
    ),
    takes="file",
    suffixes=(".csv",),
    inputs=inputs,
)

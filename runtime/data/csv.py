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
from .table import TEXT_BYTES, Schema, Table, check_features, class_column, number, target_column


def read(
    path: Path,
    schema: Schema | None,
    /,
    target: str | int | None,
    header: bool,
    skip: int,
    delimiter: str,
    classes: bool,
) -> Dataset:
    found = read_table(path, target, header=header, skip=skip, delimiter=delimiter, classes=classes, schema=schema)
    return of_table(found)


def inputs(path: Path, options: Mapping[str, Any], schema: Schema | None) -> Dataset:
    return of_table(read_table(path, schema=schema, **options, target_needed=False))


def read_table(
    path: Path,
    target: str | int | None = None,
    *,
    header: bool = True,
    skip: int = 0,
    delimiter: str = ",",
    classes: bool = False,
    schema: Schema | None = None,
    target_needed: bool = True,
) -> Table:
    """A table of numbers with a header, plain or gz. `target` is a column's name (or number, from 0, -1 the last); text
    there becomes classes, numbered from 0 in sorted order, and so does all with `classes`. With a `schema` the file is
    read as that says."""
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
            first = _first(path, lines, skip, header)
            wanted = target if schema is None else schema.target
            names = _names(path, first, delimiter, wanted) if header else [f"c{k}" for k in range(len(first))]
            at = _target_index(path, names, wanted, target_needed)
            if schema is not None:
                check_features(path, [n for k, n in enumerate(names) if k != at], schema)
            matrix, texts, places = _cells(path, names, at, lines, [] if header else [first])
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
    if classes or schema is not None:
        columns[names[at]], known = class_column(path, texts, schema)
    else:
        columns[names[at]], known = target_column(path, names[at], texts, places)
    text = None if known is None else f"{texts[0][:40]!r} in line {places[0]}"
    return Table(columns, schema or Schema(tuple(features), names[at], known), text)


def _first(path: Path, lines: Any, skip: int, header: bool) -> list[str]:
    """The first line of the table. What stands above it is not guessed."""
    what = "a header line" if header else "a line of numbers"
    first: list[str] | None = next(lines, None)
    above = 0
    while first is not None and (not first or first == [""] or first[0].lstrip().startswith("#")):
        above, first = above + 1, next(lines, None)
    if first is None:
        raise malformed(path, what, "an empty file" if not above else "no line of values")
    if above:
        raise malformed(
            path,
            f"{what} at line {skip + 1}",
            "a blank line or a comment",
            f"say `skip = {skip + above}` in `csv(...)`",
        )
    return first


def _names(path: Path, first: Sequence[str], delimiter: str, target: str | int | None) -> list[str]:
    """The names of a header; a line of numbers is none, nor is one of numbers and a class."""
    names = [n.strip() for n in first]
    texts = [n for n in names if number(n) is None]
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
    if "" in names:
        raise malformed(
            path,
            "a name for each column",
            f"none for column {names.index('') + 1}",
            "name it, or take the column out: a header that ends with a comma has one more, and so does what pandas "
            "writes without `index=False`",
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
) -> tuple[Array, list[str], typed_array[int]]:
    """The features as a matrix, the text of the target, and the line of each row."""
    values, texts, places = typed_array("d"), list[str](), typed_array("q")
    rows = 0
    for row in _rows(lines, pending):
        if len(row) != len(names):
            help = "the line ends with a comma" if len(row) == len(names) + 1 and not row[-1].strip() else None
            raise malformed(path, f"{len(names)} columns ({listed(names)}) in line {lines.line_num}", len(row), help)
        for k, cell in enumerate(row):
            if k == at:
                if not cell.strip():
                    raise malformed(path, f"a value for `{names[k]}` in line {lines.line_num}", "an empty cell")
                texts.append(cell.strip())
                continue
            value = number(cell)
            if value is None:
                found = f"{cell.strip()[:40]!r}" if cell.strip() else "an empty cell"
                raise malformed(path, f"a number for `{names[k]}` in line {lines.line_num}", found)
            values.append(value)
        places.append(lines.line_num)
        rows += 1
        if rows % 65536 == 0:
            check_bytes(values.itemsize * len(values) * 3 + TEXT_BYTES * len(texts), str(path))
    if not rows:
        raise malformed(path, "rows below the header", "none")
    features = len(names) - (at is not None)
    matrix = np.frombuffer(values, np.float64).reshape(rows, features) if features else np.empty((rows, 0))
    return matrix, texts, places


def _rows(lines: Any, pending: list[list[str]]) -> Iterator[list[str]]:
    """Every line that is not empty."""
    for source in (pending, lines):
        for row in source:
            if row and row != [""]:
                yield row


CSV = Format(
    name="csv",
    about="A table of numbers, plain or gz: the features as a matrix in the order of their columns, then the target, "
    "where text becomes classes, numbered from 0 in sorted order; an input that takes it as f32 refuses them.",
    example='csv("file.csv", target = "species")',
    read=read,
    options=(
        Option("path", str, "the file", is_path=True),
        Option("target", str | int | None, "the column to learn: its name, or its number from 0, -1 the last", None),
        Option("header", bool, "whether the first line has the names of the columns", True),
        Option("skip", int, "lines before the table", 0),
        Option("delimiter", str, "the character between cells", ","),
        Option("classes", bool, "whether the target is names whatever they look like", False),
    ),
    takes="file",
    suffixes=(".csv",),
    inputs=inputs,
)

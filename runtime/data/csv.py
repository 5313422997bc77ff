"""csv files: a table of numbers, columns of names that were asked for, and a target that may be text.

In: a path. Out: float columns by name, i32 where they are names, the target last.
"""

from __future__ import annotations

import csv
from array import array as typed_array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from ...dsl.errors import DataError, NncError, error
from ..call.arrays import check_bytes
from ..call.column import Array, Rows
from ..call.messages import listed
from .dataset import Dataset, of_table
from .files import malformed, opened, text_lines
from .format import Format, Option
from .table import FILLS, TEXT_BYTES, Schema, Table, check_features, class_column, fill, number, target_column


def read(
    path: Path,
    schema: Schema | None,
    /,
    target: str | int | None,
    header: bool,
    skip: int,
    delimiter: str,
    classes: bool,
    decimal: str,
    categories: str | Sequence[str],
    missing: str | float | None,
) -> Dataset:
    layout = Layout(header, skip, delimiter, decimal, _names_of(categories), missing is not None)
    _check_missing(missing)
    dataset = of_table(read_table(path, target, layout, classes=classes, schema=schema))
    return replace(dataset, missing=missing) if schema is None else dataset


def inputs(path: Path, options: Mapping[str, Any], schema: Schema | None) -> Dataset:
    given = dict(options)
    layout = Layout(
        given.pop("header", True),
        given.pop("skip", 0),
        given.pop("delimiter", ","),
        given.pop("decimal", "."),
        _names_of(given.pop("categories", ())),
        schema is not None and bool(schema.fill),
    )
    found = read_table(
        path, given.get("target"), layout, classes=given.get("classes", False), schema=schema, target_needed=False
    )
    return of_table(found)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is written: `categories` are columns of names; `gaps` says whether a number may be missing."""

    header: bool = True
    skip: int = 0
    delimiter: str = ","
    decimal: str = "."
    categories: tuple[str, ...] = ()
    gaps: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1:
            raise _wrong(f"the delimiter of csv must be one character, got {self.delimiter!r}")
        if self.decimal not in (".", ","):
            raise _wrong(f'the decimal sign of csv must be "." or ",", got {self.decimal!r}')
        if self.skip < 0:
            raise _wrong(f"the lines of csv to skip must be at least 0, got {self.skip}")

    def number(self, cell: str) -> float | None:
        """A cell as a number; with a decimal comma a point is no part of one."""
        if self.decimal == ".":
            return number(cell)
        return None if "." in cell else number(cell.replace(",", "."))


def _wrong(what: str) -> NncError:
    return error("E0612", what, kind=DataError)


def _names_of(categories: str | Sequence[str]) -> tuple[str, ...]:
    names = (categories,) if isinstance(categories, str) else tuple(categories)
    if not all(isinstance(n, str) for n in names):
        raise _wrong(f"`categories` of csv are names of columns, got {list(names)!r:.80}")
    return names


def _check_missing(missing: str | float | None) -> None:
    if isinstance(missing, str) and missing not in FILLS:
        raise _wrong(f"`missing` of csv is {', '.join(map(repr, FILLS))} or a number, got {missing!r}")


def read_table(
    path: Path,
    target: str | int | None = None,
    layout: Layout | None = None,
    *,
    classes: bool = False,
    schema: Schema | None = None,
    target_needed: bool = True,
) -> Table:
    """A table of numbers with a header, plain or gz. `target` is a column's name (or number, from 0, -1 the last); text
    there becomes classes, numbered from 0 in sorted order, and so does all with `classes`. With a `schema` the file is
    read as that says."""
    layout = layout or Layout()
    with opened(path) as f:
        lines = csv.reader(text_lines(f, path, "utf-8-sig"), delimiter=layout.delimiter, strict=True)
        try:
            for k in range(layout.skip):
                if next(lines, None) is None:
                    raise malformed(path, f"more than the {layout.skip} lines to skip", k)
            first = _first(path, lines, layout.skip, layout.header)
            wanted = target if schema is None else schema.target
            names = _names(path, first, layout, wanted) if layout.header else [f"c{k}" for k in range(len(first))]
            at = _target_index(path, names, wanted, target_needed)
            features = [n for k, n in enumerate(names) if k != at]
            if schema is not None:
                check_features(path, features, schema)
            named = layout.categories if schema is None else tuple(schema.categories)
            for name in named:
                if name not in features:
                    raise malformed(path, f"a column `{name}` beside the target", listed(features))
            kinds = ["target" if k == at else "names" if n in named else "numbers" for k, n in enumerate(names)]
            matrix, texts, places = _cells(path, names, kinds, lines, [] if layout.header else [first], layout)
        except UnicodeDecodeError as e:
            raise malformed(path, "UTF-8 text", f"byte {e.object[e.start]:#04x}") from e
        except csv.Error as e:
            raise malformed(path, "a csv table", f"{e} in line {lines.line_num}") from e
    columns: dict[str, Rows] = dict(zip((n for n in features if n not in named), matrix.T, strict=True))
    coded: dict[str, tuple[str, ...]] = {}
    for name in named:
        known = None if schema is None else Schema((), name, schema.categories[name])
        columns[name], found = class_column(path, texts[name], known)
        coded[name] = found or ()
    columns = {n: columns[n] for n in (features if schema is None else schema.features)}
    if schema is not None:
        columns = fill(columns, schema)
    learned = schema or Schema(tuple(features), None if at is None else names[at], categories=coded)
    if at is None:
        return Table(columns, learned)
    goal = texts[names[at]]
    if classes or schema is not None:
        columns[names[at]], known_classes = class_column(path, goal, schema, layout.number)
    else:
        columns[names[at]], known_classes = target_column(path, names[at], goal, places, layout.number)
    text = None if known_classes is None else f"{goal[0][:40]!r} in line {places[0]}"
    return Table(columns, schema or replace(learned, classes=known_classes), text)


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


def _names(path: Path, first: Sequence[str], layout: Layout, target: str | int | None) -> list[str]:
    """The names of a header; a line of numbers is none, nor is one of numbers and a class."""
    names = [n.strip() for n in first]
    texts = [n for n in names if layout.number(n) is None]
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
                    f"columns separated by {layout.delimiter!r}",
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
    path: Path, names: Sequence[str], kinds: Sequence[str], lines: Any, pending: list[list[str]], layout: Layout
) -> tuple[Array, dict[str, list[str]], typed_array[int]]:
    """The columns of numbers as a matrix, NaN where one is missing; the texts of the others; the line of each row."""
    values, places = typed_array("d"), typed_array("q")
    texts: dict[str, list[str]] = {n: [] for n, kind in zip(names, kinds, strict=True) if kind != "numbers"}
    rows = 0
    for row in _rows(lines, pending):
        if len(row) != len(names):
            help = "the line ends with a comma" if len(row) == len(names) + 1 and not row[-1].strip() else None
            raise malformed(path, f"{len(names)} columns ({listed(names)}) in line {lines.line_num}", len(row), help)
        for name, kind, cell in zip(names, kinds, row, strict=True):
            if kind != "numbers":
                if not cell.strip():
                    raise malformed(path, f"a value for `{name}` in line {lines.line_num}", "an empty cell")
                texts[name].append(cell.strip())
                continue
            value = nan if layout.gaps and not cell.strip() else layout.number(cell)
            if value is None:
                raise _no_number(path, name, lines.line_num, cell.strip())
            values.append(value)
        places.append(lines.line_num)
        rows += 1
        if rows % 65536 == 0:
            check_bytes(values.itemsize * len(values) * 3 + TEXT_BYTES * rows * len(texts), str(path))
    if not rows:
        raise malformed(path, "rows below the header", "none")
    numbers = len(names) - len(texts)
    matrix = np.frombuffer(values, np.float64).reshape(rows, numbers) if numbers else np.empty((rows, 0))
    return matrix, texts, places


def _no_number(path: Path, name: str, line: int, cell: str) -> NncError:
    """What a cell is instead, and the option that reads it, where there is one for it."""
    if not cell:
        help = 'say `missing = "mean"` in `csv(...)` to fill such cells'
    elif number(cell.replace(",", ".")) is not None:
        help = 'say `decimal = ","` in `csv(...)` where that is a decimal comma'
    else:
        help = f'say `categories = ["{name}"]` in `csv(...)` where its texts are names, for an input of i32'
    found = f"{cell[:40]!r}" if cell else "an empty cell"
    return malformed(path, f"a number for `{name}` in line {line}", found, help)


def _rows(lines: Any, pending: list[list[str]]) -> Iterator[list[str]]:
    """Every line that is not empty."""
    for source in (pending, lines):
        for row in source:
            if row and row != [""]:
                yield row


CSV = Format(
    name="csv",
    about="A table of numbers, plain or gz: the features as a matrix in the order of their columns, then the target, "
    "where text becomes classes, numbered from 0 in sorted order; an input that takes it as f32 refuses them. So are "
    "the columns of `categories`, each for the input of its name. `missing` fills empty cells and `nan` by those of "
    "the training part, and the run remembers with what.",
    example='csv("file.csv", target = "species")',
    read=read,
    options=(
        Option("path", str, "the file", is_path=True),
        Option("target", str | int | None, "the column to learn: its name, or its number from 0, -1 the last", None),
        Option("header", bool, "whether the first line has the names of the columns", True),
        Option("skip", int, "lines before the table", 0),
        Option("delimiter", str, "the character between cells", ","),
        Option("classes", bool, "whether the target is names whatever they look like", False),
        Option("decimal", str, "the decimal sign, a point or a comma", "."),
        Option("categories", str | tuple | list, "the columns whose texts are names, numbered in sorted order", ()),
        Option("missing", str | int | float | None, "what empty cells of numbers become: mean, median, a number", None),
    ),
    takes="file",
    suffixes=(".csv",),
    inputs=inputs,
)

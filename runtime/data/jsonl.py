"""JSON lines: an object per line, whose keys are columns.

In: a path. Out: columns by key, the target last. A value is a number, true or false, a list of lists of these that has
the same shape in each line, or, in the target, a text, which is a class. Lines are read one by one, and numbers kept as
eight bytes each.
"""

from __future__ import annotations

import json
from array import array as typed_array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..call.arrays import check_bytes, is_shape
from ..call.column import Array, Rows
from ..call.messages import listed
from .dataset import Dataset, of_table
from .files import malformed, opened, text_lines
from .format import Format, Option
from .table import TEXT_BYTES, Schema, Table, check_features, class_column

_MAX_VALUES = 4 << 20  # in a line
_STEP = 16 << 20  # bytes read between two looks at the memory
_MAX_WHOLE = 2**53  # whole numbers below it are themselves in eight bytes


def read(path: Path, schema: Schema | None, /, target: str | None) -> Dataset:
    return of_table(read_table(path, target, schema))


def inputs(path: Path, options: Mapping[str, Any], schema: Schema | None) -> Dataset:
    return of_table(read_table(path, options.get("target"), schema, target_needed=False))


def read_table(
    path: Path, target: str | None = None, schema: Schema | None = None, target_needed: bool = True
) -> Table:
    """The columns of a file, plain or gz. With a `schema` the file is read as that says."""
    if schema is not None:
        target = schema.target
    columns: dict[str, _Values] = {}
    checked = 0
    with opened(path) as f:
        for place, row in _rows(_lines(f, path), path):
            if not columns:
                columns = {name: _Values(name, name == target) for name in row}
                _check_names(path, columns, target, schema, target_needed)
            if row.keys() != columns.keys():
                raise malformed(path, f"the keys {listed(list(columns))} in {place}", listed(list(row)) or "none")
            for name, value in row.items():
                columns[name].add(value, path, place)
            if (nbytes := sum(c.nbytes for c in columns.values())) > checked:
                check_bytes(3 * nbytes, str(path))
                checked = nbytes + _STEP
    if not columns:
        raise malformed(path, "a JSON object in each line", "an empty file")
    goal = columns.pop(target, None) if target is not None else None
    features = schema.features if schema is not None else tuple(columns)
    found: dict[str, Rows] = {name: columns[name].array() for name in features}
    if goal is None:
        return Table(found, schema or Schema(features))
    if schema is not None and schema.classes is not None and not goal.texts:
        raise malformed(path, f"classes as `{goal.name}`, as in training", "numbers")
    found[goal.name], classes = class_column(path, goal.texts, schema) if goal.texts else (goal.array(), None)
    text = f"{goal.texts[0][:40]!r} in the first line" if goal.texts else None
    return Table(found, schema or Schema(features, target, classes), text)


def _check_names(
    path: Path, names: Mapping[str, object], target: str | None, schema: Schema | None, needed: bool
) -> None:
    if not names:
        raise malformed(path, "an object with keys", "{}")
    if needed and target is not None and target not in names:
        raise malformed(path, f"a key `{target}`", listed(list(names)))
    if schema is not None:
        check_features(path, [n for n in names if n != target], schema)


def _lines(f: Any, path: Path) -> Iterator[str]:
    try:
        yield from text_lines(f, path, "utf-8-sig")
    except UnicodeDecodeError as e:
        raise malformed(path, "UTF-8 text", f"byte {e.object[e.start]:#04x}") from e


def _rows(lines: Iterator[str], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of each line that is not empty, and where it stands, in words."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        if line.count(",") + line.count("[") + line.count("{") > _MAX_VALUES:
            raise malformed(path, f"at most {_MAX_VALUES:,} values in {place}", "more")
        try:
            row = json.loads(line, object_pairs_hook=_object, parse_constant=_constant)
        except (ValueError, RecursionError) as e:  # of a depth, or of digits without end, as well
            found = e.msg.lower() if isinstance(e, json.JSONDecodeError) else str(e)
            raise malformed(path, f"a JSON object in {place}", found) from e
        if not isinstance(row, dict):
            raise malformed(path, f"a JSON object in {place}", _short(row))
        yield place, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [n for n, _ in pairs]
        raise ValueError(f"the key `{next(n for n in names if names.count(n) > 1)}` twice")
    return row


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON")


@dataclass(slots=True)
class _Values:
    """A column while it is read: its numbers one after the other, or the texts of a target."""

    name: str
    is_target: bool
    rows: int = 0
    shape: tuple[int, ...] | None = None  # of each value, once one was seen
    kinds: set[type] = field(default_factory=set)
    numbers: typed_array[float] = field(default_factory=lambda: typed_array("d"))
    texts: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return self.numbers.itemsize * len(self.numbers) + TEXT_BYTES * len(self.texts)

    def add(self, value: Any, path: Path, place: str) -> None:
        """One more value. Raises `DataError` E0621 where it is not like the others."""
        self.rows += 1
        where = f"`{self.name}` in {place}"
        if self.texts or (self.is_target and isinstance(value, str) and self.shape is None):
            if not isinstance(value, str):
                raise malformed(path, f"a text for {where}", _short(value))
            self.texts.append(value)
            return
        shape, values = _flatten(value)
        if shape is None or not is_shape(shape, self.numbers.itemsize):
            raise malformed(path, f"lists of one length for {where}", _short(value))
        if self.shape is None:
            self.shape = shape
        for v in values:
            if type(v) not in (int, float, bool):
                raise malformed(path, f"a number for {where}", _short(v))
        if shape != self.shape:
            wanted = f"a list of the shape {list(self.shape)}" if self.shape else "a number"
            raise malformed(path, f"{wanted} for {where}", f"one of {list(shape)}" if shape else _short(value))
        self.kinds.update(map(type, values))
        try:
            self.numbers.extend(values)
        except OverflowError:
            raise malformed(path, f"numbers that f64 can hold for {where}", "a larger one") from None

    def array(self) -> Array:
        """The numbers: true and false, whole ones, or floats, as they all are."""
        found = np.frombuffer(self.numbers, np.float64).reshape(self.rows, *(self.shape or ()))
        if self.kinds == {bool}:
            return found.astype(np.bool_)
        whole = self.kinds <= {int, bool} and np.abs(found).max(initial=0) < _MAX_WHOLE
        return found.astype(np.int64) if whole else found


def _flatten(value: Any) -> tuple[tuple[int, ...] | None, list[Any]]:
    """The shape of lists of lists (None where those of a level differ in length), and what is in them."""
    shape: list[int] = []
    level = [value]
    while any(isinstance(v, list) for v in level):
        lengths = {len(v) if isinstance(v, list) else -1 for v in level}
        if len(lengths) > 1:
            return None, level
        shape.append(lengths.pop())
        level = [x for v in level for x in v]
    return tuple(shape), level


def _short(value: Any) -> str:
    """A value as JSON writes it, cut off where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


JSONL = Format(
    name="jsonl",
    about="An object per line, plain or gz, whose keys are columns: numbers, true and false, lists of lists of these "
    "of one shape, and in the target also text, which becomes classes, numbered from 0 in sorted order. Features "
    "that are all single numbers are a matrix, in the order of the first line.",
    example='jsonl("file.jsonl", target = "species")',
    read=read,
    options=(
        Option("path", str, "the file", is_path=True),
        Option("target", str | None, "the key of what is to be learned", None),
    ),
    takes="file",
    suffixes=(".jsonl", ".ndjson"),
    inputs=inputs,
)

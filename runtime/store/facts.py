"""Facts in JSON that nnc wrote earlier and reads again. Files can be edited, so nothing is believed: the text is
bounded before it is parsed, and each field is what its annotation says.

In: a text, or what JSON made of it, and a dataclass. Out: the dataclass, or a `Wrong` that names the field.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ...dsl.files import open_regular

T = TypeVar("T")
Scalar = bool | int | float | str
MAX_CHARACTERS = 100 << 20
MAX_FILE = 16 << 20  # bytes
MAX_VALUES = 4 << 20
_LARGEST = 2**63 - 1
_NAMES: Mapping[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null",
}  # fmt: skip


class Wrong(ValueError):
    """A field is not what it must be."""

    def __init__(self, field: str, expected: str, found: str):
        super().__init__(f"expected {expected} as `{field}`, found {found}")


def parse(text: str | bytes, most: int = MAX_CHARACTERS) -> Any:
    """JSON of bounded length, depth and number of values. Raises ValueError."""
    if len(text) > most:
        raise ValueError(f"{len(text):,} characters of JSON, more than {most:,}")
    marks: Any = b"[{," if isinstance(text, bytes) else "[{,"
    if sum(text.count(marks[k : k + 1]) for k in range(len(marks))) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values in JSON")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def load(path: Path) -> Any:
    """The JSON of a file. Raises OSError and ValueError."""
    with open_regular(path) as f:
        return parse(f.read(MAX_FILE + 1), MAX_FILE)


def read(kind: type[T], facts: Any, name: str = "", least: int | None = None) -> T:
    """A dataclass from an object with its fields, and perhaps others. Whole numbers are at least `least`."""
    if not isinstance(facts, dict):
        raise Wrong(name or "the whole", "an object", short(facts))
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        path = f"{name}.{field.name}" if name else field.name
        if field.name in facts:
            values[field.name] = check(hints[field.name], facts[field.name], path, least)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise Wrong(path, _expected(hints[field.name], least), "nothing")
    return kind(**values)


def check(kind: Any, value: Any, name: str, least: int | None = None) -> Any:
    """The value, if it is of this kind: `int | None`, `list[str]`, `Mapping[str, float]`, a dataclass. A whole number
    is also a number; true is none. Texts are such as can be written, or are names of files."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        for one in inner:
            if _fits(one, value):
                return check(one, value, name, least)
        raise Wrong(name, _expected(kind, least), short(value))
    if not _fits(kind, value):
        raise Wrong(name, _expected(kind, least), short(value))
    if is_dataclass(kind):
        return read(kind, value, name, least)  # type: ignore[arg-type]
    if isinstance(value, list):
        return (origin or list)(check(inner[0], v, f"{name}[{k}]", least) for k, v in enumerate(value))
    if isinstance(value, dict):
        return {check(str, k, name): check(inner[1], v, f"{name}.{k[:40]}", least) for k, v in value.items()}
    if type(value) is int and not (-_LARGEST if least is None else least) <= value <= _LARGEST:
        raise Wrong(name, _expected(int, least), short(value))
    if isinstance(value, str) and not _encodes(value):
        raise Wrong(name, _expected(str, least), short(value))
    return value


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value is of this kind as far as can be seen from outside."""
    if is_dataclass(kind):
        return isinstance(value, dict)
    match get_origin(kind) or kind:
        case origin if origin in (list, tuple):
            return isinstance(value, list)
        case origin if origin in (dict, Mapping):
            return isinstance(value, dict)
        case origin if origin is float:
            return type(value) in (int, float)
        case origin:
            return type(value) is origin


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _expected(kind: Any, least: int | None) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_expected(one, least) for one in get_args(kind))
    if kind is int:
        return f"a whole number from {least} to 2^63-1" if least is not None else "a whole number below 2^63"
    return _NAMES.get(kind) or ("a list" if get_origin(kind) in (list, tuple) else "an object")


def short(found: object) -> str:
    """What was found, in a few words."""
    match found:
        case dict():
            return "an object"
        case list():
            return "a list"
        case int() if not isinstance(found, bool) and abs(found) > _LARGEST:
            return f"a number of {found.bit_length()} bits"
        case None | bool():
            return json.dumps(found)
    text = repr(found)
    return text if len(text) <= 40 else text[:40] + ".."

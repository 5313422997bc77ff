"""What a data format is: one record, which the reader, the train block, the command line and the documentation read.

In: nothing. A format's file makes the record beside the function that reads; `formats` lists the records. Whatever is
told of a format is a cell of it, and a test names the cells that are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from ...dsl.record import dataclass
from .dataset import Dataset
from .table import Schema

NEEDED = Parameter.empty  # the default of an option that has none
Inputs = Callable[[Path, Mapping[str, Any], Schema | None], Dataset]


@dataclass(frozen=True, slots=True)
class Option:
    """An argument of a source: its name, type, default and meaning. With `many` it stands for any further names."""

    name: str
    type: type | UnionType
    about: str
    default: Any = NEEDED
    many: bool = False
    is_path: bool = False  # relative to the program

    @property
    def parameter(self) -> Parameter:
        kind = Parameter.VAR_KEYWORD if self.many else Parameter.POSITIONAL_OR_KEYWORD
        return Parameter(self.name, kind, default=self.default)


@dataclass(frozen=True, slots=True)
class Format:
    """`read(path, schema, **options)` makes the data set; `schema` is how an earlier file of the kind was read.

    `options`: what a train block may say, the path first. `takes`: whether that is a file, a folder or either.
    `suffixes`: a file of such a name is of this format whatever the train block says. `holds`: so is a folder with
    files that match this pattern. `inputs(path, options, schema)` reads a file to predict from, whose target may be
    missing. `held_out`: the share where the train block says none. `in_order`: what is held out is the end."""

    name: str
    about: str  # what is read, and the columns it gives
    example: str
    read: Callable[..., Dataset]
    options: tuple[Option, ...]
    takes: Literal["file", "folder", "either"]
    suffixes: tuple[str, ...] = ()
    holds: str = ""
    inputs: Inputs | None = None
    held_out: float = 0.0
    in_order: bool = False

    @property
    def signature(self) -> Signature:
        return Signature([o.parameter for o in self.options])

    def page(self) -> str:
        """The documentation, in Markdown."""
        lines = [f"# {self.example}", "", self.about, ""]
        for o in self.options:
            default = "" if o.default is NEEDED else f", by default {_written(o.default)}"
            name = "NAME = .." if o.many else o.name
            lines.append(f"- `{name}`: {_type_name(o.type)}{default}; {o.about}")
        if self.suffixes:
            lines += ["", f"A file for `--data` is read so where its name ends in {' or '.join(self.suffixes)}."]
        return "\n".join(lines) + "\n"


def type_name(wanted: Any) -> str:
    """A type as errors about options name it."""
    return str(getattr(wanted, "__name__", wanted))


def _type_name(wanted: Any) -> str:
    words = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list"}
    return " or ".join(words[part] for part in type_name(wanted).split(" | ") if part in words)


def _written(value: Any) -> str:
    """A default as a program writes it."""
    if value is None:
        return "none"
    if value == ():
        return "[]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)

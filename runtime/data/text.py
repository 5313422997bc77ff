"""A text as data: its characters become numbers, its windows examples.

In: a path. Out: columns `x` and `y`, i32[N, context], where y is the character that follows each of x; and the
`Vocabulary`, which a model remembers, so that its numbers can be read as text again.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...dsl.errors import DataError, error
from ..call.arrays import check_bytes
from ..call.column import Array, fits, mapped, memory_limit
from ..call.messages import argument_error
from .dataset import Dataset
from .files import Columns, malformed, mapping, opened
from .format import Format, Option
from .table import Schema

_PIECE = 1 << 24  # characters counted at a time


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The characters of a text, in the order of their numbers."""

    characters: str

    def encode(self, text: str) -> Array:
        """The numbers of the characters, i32[len(text)]. Raises `ArgumentError` E0603 where one is not known."""
        numbers = {c: k for k, c in enumerate(self.characters)}
        strange = next((k for k, c in enumerate(text) if c not in numbers), None)
        if strange is not None:
            raise argument_error(
                "E0603",
                f"the model does not know the character {text[strange]!r} (at {strange}); "
                f"it was trained on {self.characters!r}",
            )
        return np.array([numbers[c] for c in text], np.int32)

    def decode(self, numbers: Sequence[int] | Array) -> str:
        """The characters of whole numbers, in order whatever the shape. Raises E0603 where one is out of range."""
        flat = np.asarray(numbers).reshape(-1)
        if flat.dtype.kind not in "iu" and flat.size:
            raise argument_error("E0603", f"characters have whole numbers, but these are {flat.dtype}")
        bad = flat[(flat < 0) | (flat >= len(self.characters))]
        if bad.size:
            raise argument_error("E0603", f"there are {len(self.characters)} characters, none has the number {bad[0]}")
        return "".join(self.characters[k] for k in flat)


def read(path: Path, schema: Schema | None, /, context: int) -> Dataset:
    known = Vocabulary(schema.characters) if schema is not None and schema.characters is not None else None
    columns, vocabulary = windows(path, context, known)
    return Dataset("", columns, None, ("x", "y"), Schema((), characters=vocabulary.characters))


def windows(path: Path, context: int, known: Vocabulary | None = None) -> tuple[Columns, Vocabulary]:
    """A UTF-8 text, plain or gz, in windows that follow one another; what does not fill one at the end is left out. The
    characters are numbered from 0 in the order of their code points, or as `known` says, which then has all of them."""
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise error("E0612", f"the context of text must be at least 1, got {context!r}", kind=DataError)
    points = _points(path)
    count = (len(points) - 1) // context
    if count < 1:
        raise malformed(path, f"at least {context + 1} characters, one more than the context", len(points))
    found = np.flatnonzero(_counts(points))
    known = known or Vocabulary("".join(map(chr, found)))
    number = np.zeros(found[-1] + 1, np.int32)
    number[found] = _numbers(path, found, known)
    columns: Columns = {}
    for name, start in (("x", 0), ("y", 1)):
        lines = points[start : start + count * context].reshape(count, context)
        column = mapped([lines], (context,), lines.dtype).then(number.dtype, number.__getitem__)
        columns[name] = column[:] if fits(2 * 4 * count * context) else column
    return columns, known


def _points(path: Path) -> Array:
    """The code points of a text. Where it is ASCII they are its bytes, and may stay on disk."""
    size = path.stat().st_size if path.exists() else 0
    with opened(path) as f:
        if not isinstance(f, gzip.GzipFile) and not fits(16 * size):
            data = mapping(path, np.dtype(np.uint8), 0, (size,))
        else:
            check_bytes(16 * size, str(path))
            data = np.frombuffer(f.read(memory_limit() // 16 + 1), np.uint8)  # packed it may be more than `size`
            size = len(data)
            check_bytes(16 * size, str(path))
    if not _counts(data)[128:].any():
        return data
    check_bytes(16 * size, f"{path}, which is not ASCII,")
    text = data.tobytes()
    try:
        return np.frombuffer(text.decode("utf-8").encode("utf-32-le"), np.uint32)
    except UnicodeDecodeError as e:
        raise malformed(path, "UTF-8 text", f"byte {text[e.start]:#04x} at {e.start}") from e


def _counts(points: Array) -> Array:
    """How often each code point occurs; piece by piece, for what is on disk."""
    total = np.zeros(256 if points.dtype == np.uint8 else sys.maxunicode + 1, np.int64)
    for k in range(0, len(points), _PIECE):
        total += np.bincount(points[k : k + _PIECE], minlength=len(total))
    return total


def _numbers(path: Path, found: Array, known: Vocabulary) -> list[int]:
    numbers = {ord(c): k for k, c in enumerate(known.characters)}
    strange = next((p for p in found if p not in numbers), None)
    if strange is not None:
        raise malformed(path, f"the {len(known.characters)} characters the model was trained on", repr(chr(strange)))
    return [numbers[p] for p in found]


TEXT = Format(
    name="text",
    about="A UTF-8 text, plain or gz, cut into windows of `context` characters: `x` i32[B, T], and those that follow "
    "each, `y`. Characters are numbered in the order of their code points; what is held out is the end.",
    example='text("file.txt", context = 64)',
    read=read,
    options=(Option("path", str, "the file", is_path=True), Option("context", int, "characters in a window", 64)),
    takes="file",
    in_order=True,
)

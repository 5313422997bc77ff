"""Reading files of data: opened, unpacked, mapped, and every way this fails in words.

In: a path. Out: bytes, lines or an array that lies in the file. A file that is not what it should be is a `DataError`
with path, expected and found (E0620 missing or unreadable, E0621 malformed). Sizes that a header claims are compared
with the size of the file before anything is allocated.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...dsl.errors import DataError, NncError, error
from ...dsl.files import open_regular
from ..call.arrays import is_shape
from ..call.column import Array, Rows

Columns = dict[str, Rows]
GZIP_RATIO = 1040  # deflate cannot expand further than 1032:1
MAX_LINE = 16 << 20


def malformed(path: object, expected: object, found: object, help: str | None = None) -> NncError:
    return error("E0621", f"{path}: expected {expected}, found {found}", help=help, kind=DataError)


def unreadable(path: object, e: Exception) -> NncError:
    reason = "no such file" if isinstance(e, FileNotFoundError) else (getattr(e, "strerror", None) or str(e)).lower()
    return error("E0620", f"{path}: {reason}", kind=DataError)


def is_folder(path: Path) -> None:
    """E0620 where it is none."""
    if not path.is_dir():
        raise unreadable(path, NotADirectoryError(0, "no such folder"))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it begins like gzip; every way reading fails is a DataError."""
    try:
        with open_regular(path) as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.open(raw) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise malformed(path, "a complete gzip stream", str(e).lower()) from e
    except OSError as e:
        if isinstance(e, NncError):
            raise
        raise unreadable(path, e) from e


def text_lines(f: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text, line ends included; one that goes on without end is refused before memory is full of it."""
    text = io.TextIOWrapper(f, encoding, newline="")
    while line := text.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise malformed(path, f"lines of at most {MAX_LINE:,} characters", "a longer one")
        yield line


def check_shape(where: object, shape: Sequence[Any], dtype: np.dtype[Any]) -> None:
    if not is_shape(shape, dtype.itemsize):
        raise malformed(where, "a shape that an array can have", f"{list(shape)!s:.80}")


def mapping(path: Path, dtype: np.dtype[Any], start: int, shape: Sequence[int], order: Any = "C") -> Array:
    """An array that lies in a file."""
    try:
        return np.memmap(path, dtype, "r", start, tuple(shape), order).view(np.ndarray)
    except (OSError, ValueError) as e:
        raise unreadable(path, e) from e

"""Writing files so that nothing is lost: the old content or the new, never half of either. And the files of a folder,
where no link is followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path, PurePath
from threading import get_native_id

from ...dsl.errors import DataError, NncError, error
from ..call.messages import human

_LEFT = re.compile(r"\..+\.(\d+)\.tmp", re.DOTALL)  # half-written, and the thread that writes it


def write(path: Path, *parts: bytes | memoryview) -> None:
    """Put a file with this content in the place of `path`; where that fails nothing changes and no trace is left
    (E0625). What is no regular file is not replaced."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{get_native_id()}.tmp")
    with writing(path, sum(memoryview(part).nbytes for part in parts)):
        if target.exists() and not target.is_file():
            raise IsADirectoryError(0, "is a directory") if target.is_dir() else OSError(0, "not a regular file")
        sweep(target.parent, target.name)
        try:
            with open(temporary, "xb") as f:
                f.writelines(parts)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, target)
            _sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, which is made where it is not there; not through a link (E0625)."""
    with writing(path, len(content)):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(path, flags, 0o666), "ab") as f:
            f.write(content)


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Errors of the file system, met while so many bytes are written to `path`, as DataError (E0625)."""
    try:
        yield
    except OSError as e:
        if isinstance(e, NncError):
            raise
        what = str(path) if size is None else f"{path} ({human(size)})"
        raise error("E0625", f"{what} cannot be written: {(e.strerror or str(e)).lower()}", kind=DataError) from e


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what was half written to files of this name (`.last.nnw.NUMBER.tmp`) by threads that are no more, or that
    had the number of this one."""
    for path in folder.glob(f".{name if name == '*' else escape(name)}.*.tmp"):
        found = _LEFT.fullmatch(path.name)
        if found and (int(found[1]) == get_native_id() or not Path("/proc", found[1]).exists()):
            with suppress(OSError):
                path.unlink()


def part(folder: Path, name: str | PurePath) -> Path:
    """The path of a file in a folder (E0622 where it or a folder on the way to it is a link, or it lies elsewhere):
    whoever made a link would choose what is read, and what is overwritten."""
    path, pieces = folder, PurePath(name).parts
    if not pieces or ".." in pieces or PurePath(name).is_absolute():
        raise error("E0622", f"{folder}: expected a file in this folder, found `{name}`", kind=DataError)
    for piece in pieces:
        path = path / piece
        if path.is_symlink():
            raise error(
                "E0622",
                f"{path}: expected a file in this folder, found a link to {os.readlink(path)}",
                help="a copy of the file itself is read: `cp -rL FOLDER COPY`",
                kind=DataError,
            )
    return path


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last; some file systems cannot sync a folder, and then need not."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

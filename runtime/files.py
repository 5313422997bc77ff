"""Writing files so that nothing is lost: the old content or the new, never half of either."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..dsl.diagnostics import DataError, NncError, error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well, and leaves no trace when it does not (E0625)."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, target)
            _sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the file system, met while something is written to `path`, as DataError (E0625)."""
    try:
        yield
    except OSError as e:
        if isinstance(e, NncError):
            raise
        raise error("E0625", f"{path} cannot be written: {(e.strerror or str(e)).lower()}", kind=DataError) from e


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last; some file systems cannot sync a folder, and then need not."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

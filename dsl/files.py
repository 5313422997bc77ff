"""Files that are read: regular ones. A device, a pipe or a folder under a file's name is an error at once, not a wait
without end; so is a name that no file can have.
"""

from __future__ import annotations

import errno
import os
import stat
from hashlib import sha256
from typing import IO


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """A regular file, open for reading. Raises OSError for what cannot be opened and for what is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as e:  # a zero byte, half of a surrogate pair
        raise OSError(errno.EINVAL, "no file can have this name", os.fspath(path)) from e
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


SUFFIXES = (".npy", ".npz", ".csv")
MAX_BYTES = 64 << 20


def digest_of(path: str | os.PathLike[str]) -> str | None:
    """The sha256 of what `read_numbers` reads; None where it reads nothing."""
    try:
        return sha256(read_numbers(path)).hexdigest()
    except OSError:
        return None


def read_numbers(path: str | os.PathLike[str]) -> bytes:
    """The file of a constant: of numbers by its name, itself and not a link to it, not large. Raises OSError."""
    name = os.fspath(path)
    if not name.endswith(SUFFIXES):
        raise OSError(errno.EINVAL, f"only files whose names end in {', '.join(SUFFIXES)} are read", name)
    if os.path.islink(path):
        raise OSError(errno.EINVAL, "a link to another file", name)
    with open_regular(path) as f:
        data = f.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MAX_BYTES >> 20} MB", name)
    return data

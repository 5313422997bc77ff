"""The cache of compiled programs: bytes under keys, on disk, shared by processes.

In: a key that is a hash of everything the bytes depend on. Out: the bytes, or None. An entry is one file, a JSON header
line with the payload's length and SHA-256 and then the payload, written to a temporary name and renamed, so readers see
a whole entry or none. A cache that cannot be used costs time, never a result: every failure ends in None or in nothing
stored, the first of a process with a warning.

The directory is `$NNC_CACHE`, or `$XDG_CACHE_HOME/nnc`, or `~/.cache/nnc`; private (0700), and refused when somebody
else owns it or may write to it, because what is in it is run. `NNC_CACHE=` (empty) turns the cache off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import warnings
from pathlib import Path

LIMIT = 512 * 2**20  # bytes; beyond it the entries used longest ago go
SUFFIX = ".nnc"
_MAGIC = "nnc-cache-1"
_HEADER_LIMIT = 4096


def default_directory() -> Path | None:
    """Where the cache is, by the environment; None when it is turned off or there is no home."""
    chosen = os.environ.get("NNC_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    if base and os.path.isabs(base):
        return Path(base, "nnc")
    try:
        return Path.home() / ".cache" / "nnc"
    except RuntimeError:
        return None


class Cache:
    """`get` and `put`; neither raises. `directory` None means the default."""

    def __init__(self, directory: Path | str | None = None, limit: int = LIMIT):
        self.limit = limit
        self._warned = False
        self.directory = self._open(Path(directory) if directory is not None else default_directory())

    def get(self, key: str) -> bytes | None:
        """The bytes stored under a key, or None. A damaged entry is removed, with a warning."""
        if self.directory is None:
            return None
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            self._warn(f"cannot read {path}: {e.strerror or e}")
            return None
        payload = _payload(data)
        if payload is None:
            with contextlib.suppress(OSError):
                path.unlink()
            self._warn(f"{path} is damaged; it is built again")
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now: it goes last
        return payload

    def put(self, key: str, data: bytes) -> None:
        """Store bytes under a key, whole or not at all."""
        if self.directory is None:
            return
        header = {"format": _MAGIC, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if len(data) > self.limit:
            return
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(prefix="tmp-", dir=self.directory)
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(data)
            os.replace(temporary, self._path(key))
            self._shrink()
        except OSError as e:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            self._warn(f"cannot write to {self.directory}: {e.strerror or e}")

    def _path(self, key: str) -> Path:
        assert self.directory is not None
        return self.directory / (hashlib.sha256(key.encode()).hexdigest() + SUFFIX)

    def _open(self, directory: Path | None) -> Path | None:
        """The directory, made if need be, when it is ours alone."""
        if directory is None:
            return None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = directory.stat()
        except OSError as e:
            self._warn(f"cannot use {directory}: {e.strerror or e}")
            return None
        if not stat.S_ISDIR(info.st_mode):
            self._warn(f"{directory} is not a directory")
            return None
        if hasattr(os, "getuid") and info.st_uid != os.getuid():
            self._warn(f"{directory} belongs to somebody else")
            return None
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            self._warn(f"{directory} can be written by others")
            return None
        return directory

    def _shrink(self) -> None:
        """Remove the entries used longest ago until the cache is within its limit; and what a killed process left."""
        assert self.directory is not None
        entries = []
        with os.scandir(self.directory) as files:
            for file in files:
                with contextlib.suppress(OSError):  # another process may have removed it
                    info = file.stat(follow_symlinks=False)
                    if file.name.endswith(SUFFIX) or file.name.startswith("tmp-"):
                        entries.append((info.st_mtime, file.path, info.st_size))
        total = sum(size for _, _, size in entries)
        for _, path, size in sorted(entries):
            if total <= self.limit:
                return
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size

    def _warn(self, message: str) -> None:
        """Once per cache: it works without, only slower."""
        if not self._warned:
            self._warned = True
            with contextlib.suppress(RuntimeWarning):  # where warnings are errors
                warnings.warn(f"the compilation cache: {message}", RuntimeWarning, stacklevel=3)


def _payload(data: bytes) -> bytes | None:
    """What an entry holds, when header and payload agree."""
    end = data.find(b"\n", 0, _HEADER_LIMIT)
    if end < 0:
        return None
    try:
        header = json.loads(data[:end])
        payload = data[end + 1 :]
        good = (
            header["format"] == _MAGIC
            and header["bytes"] == len(payload)
            and header["sha256"] == hashlib.sha256(payload).hexdigest()
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return payload if good else None

"""The cache of compiled programs: bytes under keys, on disk, shared by processes.

In: a key that is a hash of everything the bytes depend on. Out: the bytes, or None. An entry is one file, a JSON header
line with the payload's length and SHA-256 and then the payload, written to a temporary name and renamed, so readers see
a whole entry or none. A cache that cannot be used costs time, never a result: every failure ends in None or in nothing
stored, the first of a process with a warning.

The header holds the key as well: an entry under another's name is a damaged one. The directory is that of `dsl/home`,
private (0700), and refused when somebody else owns it or may write to it, because what is in it is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path

from ...dsl.home import default_directory, make_private

LIMIT = 512 * 2**20  # bytes; beyond it the entries used longest ago go
SUFFIX = ".nnc"
_FORMAT = "nnc-cache-2"
_HEADER_LIMIT = 4096


class Cache:
    """`get` and `put`; neither raises. `directory` None means the default."""

    def __init__(self, directory: Path | str | None = None, limit: int = LIMIT):
        self.limit = limit
        self._warned = False
        self.directory: Path | None = None
        try:
            wanted = Path(directory) if directory is not None else default_directory()
            self.directory = make_private(wanted) if wanted is not None else None
        except OSError as e:
            self._warn(str(e))

    def get(self, key: str) -> bytes | None:
        """The bytes stored under a key, or None. A damaged entry is removed, with a warning."""
        if self.directory is None:
            return None
        path = self.directory / (_name(key) + SUFFIX)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            self._warn(f"cannot read {path}: {e.strerror or e}")
            return None
        payload = _payload(data, _name(key))
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
        name = _name(key)
        header = {"key": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if len(data) > self.limit:
            return
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(prefix="tmp-", dir=self.directory)
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(data)
            os.replace(temporary, self.directory / (name + SUFFIX))
            self._shrink()
        except OSError as e:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            self._warn(f"cannot write {len(data):,} bytes to {self.directory}: {e.strerror or e}")

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
        """Once per cache: it works without, only slower. It is about no line of code, so none is shown."""
        if not self._warned:
            self._warned = True
            with contextlib.suppress(RuntimeWarning):  # where warnings are errors
                warnings.warn_explicit(
                    f"the compilation cache: {message}",
                    RuntimeWarning,
                    "nnc",
                    0,
                    registry=globals().setdefault("__warningregistry__", {}),
                )


def _name(key: str) -> str:
    return hashlib.sha256(f"{_FORMAT} {key}".encode()).hexdigest()


def _payload(data: bytes, name: str) -> bytes | None:
    """What an entry of this name holds, when name, header and payload agree."""
    end = data.find(b"\n", 0, _HEADER_LIMIT)
    if end < 0:
        return None
    try:
        header = json.loads(data[:end])
        payload = data[end + 1 :]
        good = (
            header["key"] == name
            and header["bytes"] == len(payload)
            and header["sha256"] == hashlib.sha256(payload).hexdigest()
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return payload if good else None

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
import time
import warnings
from pathlib import Path

from ...dsl.home import default_directory, make_private

LIMIT = 512 * 2**20  # bytes; beyond it the entries used longest ago go
ENTRIES = 16_384  # at most, for to keep within limits all of them are looked through
SUFFIX = ".nnc"
_SWEPT = "swept"  # an empty file, as old as the last look
_PAUSE = 600  # seconds in which another process need not look again
_FORMAT = "nnc-cache-2"
_HEADER_LIMIT = 4096


_left: dict[Path, tuple[int, int]] = {}  # bytes and entries that may be stored before this process looks again


class Cache:
    """`get` and `put`; neither raises. `directory` None means the default."""

    def __init__(self, directory: Path | str | None = None, limit: int = LIMIT, entries: int = ENTRIES):
        self.limit, self.entries = limit, entries
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
            self._keep_within(len(data))
        except OSError as e:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            self._warn(f"cannot write {len(data):,} bytes to {self.directory}: {e.strerror or e}")

    def _keep_within(self, stored: int) -> None:
        """Keep the limits after so many bytes more; whoever stores little looks through the entries rarely."""
        assert self.directory is not None
        most = self.limit // 16, self.entries // 16
        left = _left.get(self.directory) or (most if self._is_swept() else (0, 0))
        left = left[0] - stored, left[1] - 1
        if min(left) < 0:
            free = self._shrink()
            left = min(free[0], most[0]), min(free[1], most[1])
        _left[self.directory] = left

    def _is_swept(self) -> bool:
        """Whether another process has looked through the entries a moment ago."""
        assert self.directory is not None
        try:
            return 0 <= time.time() - (self.directory / _SWEPT).stat().st_mtime < _PAUSE
        except OSError:
            return False

    def _shrink(self) -> tuple[int, int]:
        """Remove the entries used longest ago until the cache is within its limits, and what a killed process left. The
        bytes and entries that it is below them."""
        assert self.directory is not None
        entries = []
        with os.scandir(self.directory) as files:
            for file in files:
                with contextlib.suppress(OSError):  # another process may have removed it
                    info = file.stat(follow_symlinks=False)
                    if file.name.endswith(SUFFIX) or file.name.startswith("tmp-"):
                        entries.append((info.st_mtime, file.path, info.st_size))
        total, count = sum(size for _, _, size in entries), len(entries)
        if total > self.limit or count > self.entries:
            for _, path, size in sorted(entries):
                if total <= self.limit - self.limit // 64 and count <= self.entries - self.entries // 64:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total, count = total - size, count - 1
        (self.directory / _SWEPT).touch()
        return self.limit - total, self.entries - count

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

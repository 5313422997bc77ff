"""Where nnc keeps what it has made once: a directory of this user alone, because what is in it is run.

It is `$NNC_CACHE`, which turns it off where empty, or `$XDG_CACHE_HOME/nnc`, or `~/.cache/nnc`; always an absolute
path, so that no command leaves a folder where it happens to run.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def default_directory() -> Path | None:
    """Where the cache is, by the environment; None where it is turned off. Raises OSError where there is no place."""
    chosen = os.environ.get("NNC_CACHE")
    if chosen == "":
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    if chosen is None and os.path.isabs(base):
        return Path(base, "nnc")
    directory = Path(chosen if chosen is not None else os.path.expanduser("~/.cache/nnc"))
    if not directory.is_absolute():
        raise OSError(
            f"NNC_CACHE={chosen} is not an absolute path"
            if chosen is not None
            else "there is no home directory, and NNC_CACHE names no other place"
        )
    return directory


def make_private(directory: Path) -> Path:
    """The directory, made if need be. Raises OSError where it is not ours alone."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = directory.stat()
    except OSError as e:
        raise OSError(f"cannot use {directory}: {e.strerror or e}") from e
    if not stat.S_ISDIR(info.st_mode):
        raise OSError(f"{directory} is not a directory")
    if hasattr(os, "getuid") and info.st_uid != os.getuid():
        raise OSError(f"{directory} belongs to somebody else")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{directory} can be written by others")
    return directory

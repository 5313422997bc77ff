"""The variables of a network: one array each, 64-byte aligned and never moved, so that entry points keep pointers.

The one idea: whoever writes says so. What an entry has prepared of variables is of a certain `version` of them; only
`write` and native code that updates variables raise it, for what is read here is read-only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ...compiler.manifest import Variable
from .arrays import NUMPY, aligned, check_bytes, nbytes
from .column import Array


class State(Mapping[str, Array]):
    """Variables by path, as they are now: read-only arrays that change when the variable does."""

    __slots__ = ("_read", "_seen", "_stored", "version")

    def __init__(self, variables: Iterable[Variable]):
        """Zeros. Raises E0605 where they do not fit."""
        declared = list(variables)
        check_bytes(sum(nbytes(v.shape, NUMPY[v.dtype]) for v in declared), "the variables")
        self._stored = {v.path: aligned(v.shape, NUMPY[v.dtype], f"`{v.path}`") for v in declared}
        self._seen = {path: _read_only(array) for path, array in self._stored.items()}
        self._read: set[str] = set()  # by what has been prepared
        self.version = 0

    def __getitem__(self, path: str) -> Array:
        return self._seen[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)

    def write(self, values: Mapping[str, Any]) -> None:
        """Copy values of the right shapes into variables."""
        for path, value in values.items():
            np.copyto(self._stored[path], value, casting="same_kind")
        self.version += 1

    def stored(self, path: str) -> Array:
        """The array itself, for an entry point that says what it has `written`."""
        return self._stored[path]

    def prepares(self, paths: Iterable[str]) -> None:
        """Something is prepared of these variables from now on."""
        self._read.update(paths)

    def written(self, paths: Collection[str]) -> None:
        """Native code has written variables."""
        if not self._read.isdisjoint(paths):
            self.version += 1


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view

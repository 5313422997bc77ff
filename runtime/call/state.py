"""The variables of a network: one array each, 64-byte aligned and never moved, so that entry points keep pointers.
Those of a stack are one after the other in one; all are in one block of memory.

The one idea: whoever writes says so. What an entry has prepared of variables is of a certain `version` of them; only
`write` and native code that updates variables raise it, for what is read here is read-only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ...compiler.manifest import Variable
from ...compiler.types.stacks import members
from .arrays import NUMPY, aligned_arrays
from .column import Array


class State(Mapping[str, Array]):
    """Variables by path, as they are now: read-only arrays that change when the variable does."""

    __slots__ = ("_of", "_read", "_seen", "_stored", "version")

    def __init__(self, variables: Iterable[Variable], stacks: Iterable[str] = ()):
        """Zeros. Raises E0605 where they do not fit."""
        shapes = {v.path: (v.shape, NUMPY[v.dtype]) for v in variables}
        declared = list(shapes)
        self._of: dict[str, str] = {}  # by the path of a variable in a stack: that of the stack
        for stack in stacks:
            of = members(stack)
            (shape, dtype), *_ = [shapes.pop(path) for path in of]
            shapes[stack] = (len(of), *shape), dtype
            self._of |= dict.fromkeys(of, stack)
        self._stored = dict(zip(shapes, aligned_arrays(shapes.values(), "the variables"), strict=True))
        for stack in dict.fromkeys(self._of.values()):
            self._stored |= apart(stack, self._stored[stack])
        self._seen = {path: _read_only(self._stored[path]) for path in declared}
        self._read: set[str] = set()  # by what has been prepared: of a stack its own path
        self.version = 0

    def __getitem__(self, path: str) -> Array:
        return self._seen[path] if path in self._seen else _read_only(self._stored[path])

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
        """The array itself, or that of a stack, for an entry point that says what it has `written`."""
        return self._stored[path]

    def prepares(self, paths: Iterable[str]) -> None:
        """Something is prepared of these variables from now on."""
        self._read.update(self._whole(paths))

    def written(self, paths: Collection[str]) -> None:
        """Native code has written variables."""
        if not self._read.isdisjoint(self._whole(paths) if self._of else paths):
            self.version += 1

    def _whole(self, paths: Iterable[str]) -> list[str]:
        """The paths of what is stored."""
        return [self._of.get(path, path) for path in paths]


def apart(stack: str, whole: Array) -> dict[str, Array]:
    """The members of a stack by path, as parts of the array of all."""
    return {path: whole[k : k + 1].reshape(whole.shape[1:]) for k, path in enumerate(members(stack))}


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view

"""A column of a data set that stays on disk: its shape and dtype are known, its rows are read when they are asked for.

In: a reader of rows by index. Out: something that stands where an array stands until the rows of a batch are needed.
Sources that can be read piece by piece give columns where the whole would not fit (`fits`) and arrays where it does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any

import numpy as np

from ...dsl.record import dataclass, replace

Array = np.ndarray[Any, Any]
SHARE = 0.25  # of the memory that one file's columns may take; what is larger stays on disk


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """`read(index)` gives the rows of these numbers (int64): an array of `dtype`, `[len(index), *shape[1:]]`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Array], Array]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        """Rows in memory."""
        return self.read(np.arange(*rows.indices(len(self))))

    def select(self, rows: Array) -> Column:
        """Some of the rows, still on disk."""
        read = self.read
        return replace(self, shape=(len(rows), *self.shape[1:]), read=lambda index: read(rows[index]))

    def reshape(self, *shape: int) -> Column:
        """Each row in another shape; the first axis stays."""
        read = self.read
        return replace(self, shape=shape, read=lambda index: read(index).reshape(len(index), *shape[1:]))

    def then(self, dtype: np.dtype[Any], change: Callable[[Array], Array]) -> Column:
        """The same rows after a change that keeps their shape."""
        read = self.read
        return replace(self, dtype=dtype, read=lambda index: change(read(index)))


Rows = Array | Column


def select(rows: Rows, index: Array) -> Rows:
    """Some rows: a copy of an array, a view of a column."""
    return rows.select(index) if isinstance(rows, Column) else rows[index]


def mapped(parts: Sequence[Array], row: Sequence[int], dtype: np.dtype[Any], divisor: int = 1) -> Column:
    """Rows that lie in memory maps, one part after the other: each brought to the shape `row`, converted to `dtype`,
    and divided."""
    ends = np.cumsum([len(p) for p in parts])

    def read(index: Array) -> Array:
        out = np.empty((len(index), *row), dtype)
        which = np.searchsorted(ends, index, "right")
        for k in np.unique(which):
            here = which == k
            out[here] = parts[k][index[here] - (ends[k - 1] if k else 0)].reshape(-1, *row)
        if divisor != 1:
            out /= dtype.type(divisor)
        return out

    return Column((int(ends[-1]), *row), dtype, read)


_APART = ContextVar("apart", default=False)  # whether nothing is held that can be read row by row


def fits(nbytes: int) -> bool:
    """Whether columns of so many bytes are held in memory."""
    return not _APART.get() and nbytes <= SHARE * memory_limit()


@contextmanager
def on_disk() -> Iterator[None]:
    """Within it what can be read row by row stays on disk, however small: each of several processes reads some rows."""
    before = _APART.set(True)
    try:
        yield
    finally:
        _APART.reset(before)


def memory_limit() -> int:
    """Bytes this process may hope for: physical memory, or the control group's limit where that is lower."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as f:
            text = f.read().strip()
    except OSError:
        return limit
    return min(limit, int(text)) if text.isdigit() else limit

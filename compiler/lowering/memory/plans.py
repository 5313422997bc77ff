"""The memory plan of one entry, as data: the order of its kernels, where values lie, what is copied."""

from __future__ import annotations

from collections.abc import Mapping

from ....dsl.record import dataclass
from ...loops.ir import Place
from ...types.sizes import Dim, substitute
from ...types.tensors import TensorType
from .values import Value


@dataclass(frozen=True, slots=True)
class Copy:
    """A value that is needed at a second place; `early` before the kernels run, else after."""

    type: TensorType
    source: Place
    target: Place
    early: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One buffer of the arena: bytes, where it begins, the kernels (by position) that write and last read it. `values`
    are the nodes that lie there, one after the other; results of a kernel with several are the `item` nodes."""

    values: tuple[tuple[str, int], ...]
    size: Dim
    offset: Dim
    born: int
    dies: int


@dataclass(frozen=True, slots=True)
class Plan:
    order: tuple[str, ...]  # the nodes that are kernels, in the order they run
    places: Mapping[Value, Place]
    copies: tuple[Copy, ...]
    lines: tuple[Line, ...]
    arena: Dim

    def lower_bound(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """The largest sum of live bytes at given sizes, and the kernel where it is reached."""
        live = [0] * len(self.order)
        for line in self.lines:
            n = substitute(line.size, sizes)
            assert isinstance(n, int)
            for k in range(line.born, min(line.dies + 1, len(live))):
                live[k] += n
        best = max(range(len(live)), key=lambda k: live[k], default=0)
        return (live[best] if live else 0), best

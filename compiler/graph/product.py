"""Contractions seen as matrix products: which indices are rows, which columns, and which are summed over.

    out[b.., i.., j..] = sum over k.. of A[b.., i.., k..] * B[b.., k.., j..]

In: a contract node of two operands. Out: its indices by kind, as walks: how far a step of each goes in A, in B and in
the result. A convolution is such a product, too: only its indices, not its axes, are in A, in B or in both. Where a
window leaves its operand, and outer indices decide where that is, the sum is clipped: it runs over fewer points there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

from ..loops.index import total
from ..types.sizes import Dim
from ..types.tensors import FLOATS
from .boxes import strides
from .cost import number
from .nodes import Node
from .ops.contraction import Affine, Map, is_gathered, is_plain, safe

DEPTH = 256  # steps of a long reduction at a time


@dataclass(frozen=True, slots=True)
class Walk:
    """One or more indices that are one loop, and how far a step goes in A, in B and in the result."""

    indices: tuple[str, ...]
    extents: tuple[Dim, ...]
    a: Dim
    b: Dim
    out: Dim

    @property
    def size(self) -> Dim:
        return prod(self.extents)


@dataclass(frozen=True, slots=True)
class Clip:
    """The index u of a sum runs only where 0 <= step * u + rest < size, a `rest` of outer indices, `step` 1 or -1."""

    index: str
    step: int
    rest: Affine
    size: Dim


@dataclass(frozen=True, slots=True)
class Product:
    """A contraction seen as a matrix product. `left` is the position of the operand A. The last of `columns` has the
    lanes: the result is contiguous along it. The last of `rows` is tiled, the last of `inner` innermost."""

    node: Node
    left: int
    batch: tuple[Walk, ...]
    rows: tuple[Walk, ...]
    columns: tuple[Walk, ...]
    inner: tuple[Walk, ...]
    a: Dim  # where A begins
    b: Dim  # where B begins
    clips: tuple[Clip, ...] = ()

    @property
    def packed(self) -> bool:
        """B is not contiguous along the lanes."""
        return self.columns[-1].b != 1

    @property
    def blocked(self) -> bool:
        """A long sum in which A is read across its rows, as the gradient of a weight is over many examples: lines of
        memory would be gone before their other elements are wanted."""
        sizes = [w.size for w in (*self.rows, *self.columns)]
        return (not self.packed and len(self.rows) == len(self.columns) == 1 and not self.batch and self.rows[0].a == 1
                and all(isinstance(n, int) for n in sizes) and prod(number(w.size) for w in self.inner) > 2 * DEPTH)

    @property
    def sheets(self) -> tuple[Walk, ...]:
        """The loops for each point of which B is one matrix."""
        return self.batch + self.columns[:-1]

    def sheet(self, lanes: int) -> Dim:
        """The number of elements of one such matrix in panels."""
        n = self.columns[-1].size
        whole = -(-n // lanes) * lanes if isinstance(n, int) else n + lanes
        return prod(w.size for w in self.inner) * whole

    def panels(self, lanes: int) -> Dim:
        """The number of elements of B in panels."""
        return prod(w.size for w in self.sheets) * self.sheet(lanes)


class Nodes(Protocol):
    """What has nodes by name: a graph, or one that is being rewritten."""

    def __getitem__(self, name: str) -> Node: ...


def product(node: Node, graph: Nodes) -> Product | None:
    """The matrix product a contract node is, or None where it is another kind of contraction."""
    if len(node.args) != 2 or node.dtype not in FLOATS or not is_gathered(node):
        return None
    leaving = [(e, n) for x, m in zip(node.args, node.attrs["maps"], strict=True)
               for e, n in zip(m, graph[x].shape, strict=True) if not safe(e, n, node)]
    apart = {i for e, _ in leaving for i, _ in e[1]}
    extent = dict(node.attrs["domain"])
    steps = [_steps(m, graph[x].shape) for m, x in zip(node.attrs["maps"], node.args, strict=True)]
    out = _steps(node.attrs["out"], node.shape)
    for left in (0, 1):
        a, b = steps[left], steps[1 - left]
        kinds: dict[tuple[bool, bool, bool], list[Walk]] = {}
        for i, n in extent.items():
            if n != 1:
                walk = Walk((i,), (n,), a.get(i, 0), b.get(i, 0), out.get(i, 0))
                kinds.setdefault((i in a, i in b, i in out), []).append(walk)
        batch, rows, columns, inner = (_joined(kinds.pop(k, []), apart) for k in _KINDS)
        if not kinds and inner and columns and columns[-1].out == 1 and (columns[-1].b == 1 or is_plain(node)):
            rows = tuple(sorted(rows, key=lambda w: number(w.size) if is_plain(node) else -number(w.a)))
            starts = [_start(m, graph[x].shape) for m, x in zip(node.attrs["maps"], node.args, strict=True)]
            p = Product(node, left, batch, rows, columns, inner, starts[left], starts[1 - left])
            clips = [_clip(e, n, p) for e, n in leaving]
            if None not in clips and not (clips and p.packed):
                return replace(p, clips=tuple(c for c in clips if c is not None))
    return None


def _clip(e: Affine, n: Dim, p: Product) -> Clip | None:
    """How to keep an expression inside an axis of size n, where outer loops and one of the sum decide."""
    summed = {i for w in p.inner for i in w.indices}
    outside = {i for w in (*p.sheets, *p.rows[:-1]) for i in w.indices}
    taps = [(i, c) for i, c in e[1] if i in summed]
    if len(taps) != 1 or abs(taps[0][1]) != 1 or not {i for i, _ in e[1]} <= outside | {taps[0][0]}:
        return None
    return Clip(*taps[0], (e[0], tuple(t for t in e[1] if t not in taps)), n)


_KINDS = ((True, True, True), (True, False, True), (False, True, True), (True, True, False))  # is in A, in B, in out


def _steps(m: Map, shape: Sequence[Dim]) -> dict[str, Dim]:
    """How far a step of each index goes in memory."""
    out: dict[str, Dim] = {}
    for (_, linear), s in zip(m, strides(shape), strict=True):
        for i, c in linear:
            out[i] = out.get(i, 0) + c * s
    return out


def _start(m: Map, shape: Sequence[Dim]) -> Dim:
    """Where in memory the point is at which all indices are 0."""
    return total(e[0] * s for e, s in zip(m, strides(shape), strict=True))


def _joined(walks: Iterable[Walk], apart: Collection[str] = ()) -> tuple[Walk, ...]:
    """Neighbours joined where they are one loop, but for those of `apart`; the one along which the result is contiguous
    last."""
    out: list[Walk] = []
    for w in walks:
        v = out[-1] if out else None
        here = (w.a * w.size, w.b * w.size, w.out * w.size)
        if v is not None and (v.a, v.b, v.out) == here and not {*v.indices, *w.indices} & {*apart}:
            out[-1] = Walk((*v.indices, *w.indices), (*v.extents, *w.extents), w.a, w.b, w.out)
        else:
            out.append(w)
    return tuple(sorted(out, key=lambda w: w.out == 1))

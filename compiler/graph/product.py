"""Contractions seen as matrix products: which indices are rows, which columns, and which are summed over.

    out[b.., i.., j..] = sum over k.. of left[b.., i.., k..] * right[b.., k.., j..]

                k ->                 j ->                 j ->
        i  [ left       ]    k  [ right      ]    i  [ out        ]       for each b

In: a contract node of two operands. Out: a `Product`.

    Product = batch rows columns inner clips     walks by kind, in the order in which they are walked
    Walk    = indices left right out             one loop, and how far a step of it goes in each tensor's memory
    Clip    = index, where it runs               a sum that is shorter at some points of the loops around it

An index is of the kind that the tensors say which have it:

              left  right  out        y[n, o, i] += w[o, c, u] * x[n, c, i + u], with w as left:
    batch      x     x     x
    rows       x           x          o        steps in w: C*U, in y: I
    columns          x     x          n, i     steps in x: C*L and 1, in y: O*I and 1: the lanes go along i
    inner      x     x                c, u     steps in w: U and 1, in x: L and 1

So a convolution is a product, too: only its indices, not its axes, are in left, in right or in both. Where a window
leaves its operand, and outer indices decide where that is, the sum is clipped: it runs over fewer points there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import prod
from typing import Protocol

from ...dsl.record import dataclass, replace
from ..loops.index import total
from ..types.sizes import Dim
from ..types.tensors import FLOATS
from .boxes import strides
from .cost import number
from .nodes import Node
from .ops.contraction import Affine, Map, is_gathered, is_plain, safe

SOME = 16  # rows, enough for any tile


@dataclass(frozen=True, slots=True)
class Walk:
    """One or more indices that are one loop, and how far a step goes in the operands and in the result."""

    indices: tuple[str, ...]
    extents: tuple[Dim, ...]
    left: Dim
    right: Dim
    out: Dim

    @property
    def size(self) -> Dim:
        return prod(self.extents)


@dataclass(frozen=True, slots=True)
class Clip:
    """The index u of a sum runs only where 0 <= step * u + rest < size, a `rest` of outer indices."""

    index: str
    step: int
    rest: Affine
    size: Dim


@dataclass(frozen=True, slots=True)
class Product:
    """A contraction seen as a matrix product. `side` is the position of the left operand. The last of `columns` has the
    lanes: the result is contiguous along it, unless operands are `swapped`. The last of `rows` is tiled, the last of
    `inner` innermost."""

    node: Node
    side: int
    batch: tuple[Walk, ...]
    rows: tuple[Walk, ...]
    columns: tuple[Walk, ...]
    inner: tuple[Walk, ...]
    left: Dim  # where the left operand begins
    right: Dim
    clips: tuple[Clip, ...] = ()
    width: int = 0  # columns of a panel, where the right operand lies in panels
    matrix: Dim = 0  # elements of one of its matrices, of which only the first columns may be read, then

    @property
    def packed(self) -> bool:
        """The right operand is not contiguous along the lanes: it is read from a copy that is."""
        return self.columns[-1].right != 1 and not self.width

    @property
    def swapped(self) -> bool:
        """The result is contiguous along the rows: it is that of a product of the same operands the other way round."""
        return self.columns[-1].out != 1

    @property
    def sheets(self) -> tuple[Walk, ...]:
        """The loops for each point of which the right operand is one matrix."""
        return self.batch + self.columns[:-1]

    @property
    def whole(self) -> list[tuple[Walk, Dim, Dim]]:
        """All steps of the sum: its loops, with where they begin and end."""
        return [(w, 0, w.size) for w in self.inner]

    @property
    def clipped_in_sheets(self) -> bool:
        """The outer indices that shorten a sum are those that say which matrix the right operand is."""
        outside = {i for w in self.sheets for i in w.indices}
        return all({i for i, _ in c.rest[1]} <= outside for c in self.clips)

    def sheet(self, lanes: int) -> Dim:
        """The number of elements of one such matrix in panels."""
        if self.width:
            return self.matrix
        n = self.columns[-1].size
        whole = -(-n // lanes) * lanes if isinstance(n, int) else n + lanes
        return prod(w.size for w in self.inner) * whole

    def panels(self, lanes: int) -> Dim:
        """The number of elements of the right operand in panels."""
        return prod(w.size for w in self.sheets) * self.sheet(lanes)


def swap(p: Product) -> Product:
    """The product the other way round: rows are columns."""
    rows, columns, inner = (
        tuple(replace(w, left=w.right, right=w.left) for w in walks) for walks in (p.columns, p.rows, p.inner)
    )
    return replace(p, side=1 - p.side, rows=rows, columns=columns, inner=inner, left=p.right, right=p.left)


class Nodes(Protocol):
    """What has nodes by name: a graph, or one that is being built."""

    def __getitem__(self, name: str) -> Node: ...


def product(node: Node, graph: Nodes) -> Product | None:
    """The matrix product a contract node is, or None where it is another kind of contraction."""
    if len(node.args) != 2 or node.dtype not in FLOATS or not is_gathered(node):
        return None
    leaving = [
        (e, n)
        for x, m in zip(node.args, node.attrs["maps"], strict=True)
        for e, n in zip(m, graph[x].shape, strict=True)
        if not safe(e, n, node)
    ]
    for side in (0, 1):
        p = _from_side(node, graph, side, {i for e, _ in leaving for i, _ in e[1]})
        if p is not None:
            clips = [_clip(e, n, p) for e, n in leaving]
            if None not in clips and not (clips and p.packed):
                return replace(p, clips=tuple(c for c in clips if c is not None))
    return None


_KINDS = ((True, True, True), (True, False, True), (False, True, True), (True, True, False))  # in left, right, out


def _from_side(node: Node, graph: Nodes, side: int, apart: Collection[str]) -> Product | None:
    """The product with one of the operands as the left one, where every index is of a kind and the lanes can go along
    the last column; indices of `apart` stay loops of their own."""
    operands = [(m, graph[x].shape) for x, m in zip(node.args, node.attrs["maps"], strict=True)]
    left, right = (_steps(*operands[k]) for k in (side, 1 - side))
    out = _steps(node.attrs["out"], node.shape)
    kinds: dict[tuple[bool, bool, bool], list[Walk]] = {}
    for i, n in node.attrs["domain"]:
        if n != 1:
            walk = Walk((i,), (n,), left.get(i, 0), right.get(i, 0), out.get(i, 0))
            kinds.setdefault((i in left, i in right, i in out), []).append(walk)
    batch, rows, columns, inner = (_joined(kinds.pop(k, []), apart) for k in _KINDS)
    if kinds or not inner or not columns or columns[-1].out != 1 or (columns[-1].right != 1 and not is_plain(node)):
        return None
    rows = tuple(sorted(rows, key=lambda w: _tiled(w.size) if is_plain(node) else (False, -number(w.left))))
    begins = [_start(m, shape) for m, shape in operands]
    right_one = graph[node.args[1 - side]]
    panels = graph[right_one.args[0]].shape if right_one.op == "unpack" else (0, 0)
    width, matrix = panels[-1], prod(panels[1:])
    assert isinstance(width, int)
    return Product(node, side, batch, rows, columns, inner, begins[side], begins[1 - side], width=width, matrix=matrix)


def _tiled(n: Dim) -> tuple[bool, int]:
    """Which of several rows are tiled: the longest; but one whose size is known, and not small, before one that may be
    of a single example."""
    return isinstance(n, int) and n >= SOME, number(n)


def _clip(e: Affine, n: Dim, p: Product) -> Clip | None:
    """How to keep an expression inside an axis of size n, where outer loops and one of the sum decide."""
    summed = {i for w in p.inner for i in w.indices}
    outside = {i for w in (*p.sheets, *p.rows[:-1]) for i in w.indices}
    taps = [(i, c) for i, c in e[1] if i in summed]
    if len(taps) != 1 or not {i for i, _ in e[1]} <= outside | {taps[0][0]}:
        return None
    return Clip(*taps[0], (e[0], tuple(t for t in e[1] if t not in taps)), n)


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
        here = (w.left * w.size, w.right * w.size, w.out * w.size)
        if v is not None and (v.left, v.right, v.out) == here and not {*v.indices, *w.indices} & {*apart}:
            out[-1] = Walk((*v.indices, *w.indices), (*v.extents, *w.extents), w.left, w.right, w.out)
        else:
            out.append(w)
    return tuple(sorted(out, key=lambda w: w.out == 1))

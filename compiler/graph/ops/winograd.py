"""Convolutions of 3 x 3 by Winograd's algorithm: `wind` makes the transforms of filters, `unwind` is filters that lie
as their transforms, seen as the filters they are; `filter_gradient` is the gradient by such filters at the same points.

A convolution of filters of 3 x 3 is computed for 4 x 4 results at a time, from 6 x 6 values, with 36 products in the
place of 144; or, where few results meet large transforms, for 2 x 2 with 16 in the place of 36, or for two in a row,
from 3 x 4, with 12 in the place of 18; one of 5 x 5 for 2 x 2, from 6 x 6 values, with 36 in the place of 100. With the
rows of B, G and A at the points 0, ±3/4, ±3/2 and infinity, or 0, ±1 and infinity, which are exact in binary:

    y = Aᵀ (G w Gᵀ * Bᵀ x B) A

The operand holds G w Gᵀ in panels, [position, j // width, c, j % width]; the filters are what G⁺ makes of it. A kernel
reads the transforms as they lie; whoever else reads an `unwind` is right, and slow. The gradient by filters of 3 x 3 is
the adjoint, with sums over all tiles of all examples:

    dw = Gᵀ (sum of Bᵀ x B * A dy Aᵀ) G

Winograd, "Arithmetic complexity of computations" (1980); Lavin and Gray, "Fast algorithms for convolutional neural
networks" (2015); Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution" (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ....dsl.record import dataclass
from ...loops.ir import Apply, Const, Expr, floordiv, i64, mod, size_expr
from ...types.sizes import Dim
from ...types.tensors import TensorType, Type
from . import require
from .layout import inverse
from .op import KERNEL, VIEW, Op, Sample, ShapeError

Index = tuple[Expr, ...]
Read = Callable[[int, Index], Expr]


@dataclass(frozen=True)
class Line:
    """F(tile, taps), Winograd's name for so many results at a time along an axis, at the points 0, plus and minus each
    of `pairs`, and infinity; where there are no pairs, of one result, the taps themselves stand for points."""

    tile: int
    taps: int
    pairs: tuple[Fraction, ...] = ()

    @property
    def positions(self) -> int:
        """Values along an axis that a tile reads, and points."""
        return self.tile + self.taps - 1

    @cached_property
    def points(self) -> tuple[Fraction, ...]:
        """All but infinity."""
        return (Fraction(0), *(q for p in self.pairs for q in (p, -p)))

    @cached_property
    def filter(self) -> tuple[tuple[Fraction, ...], ...]:
        """G, [positions, taps], row by row: what the filter, a polynomial, is at each point, over the product of the
        distances of the point to the others; at infinity its last coefficient."""
        if not self.pairs:
            return tuple(tuple(Fraction(k == p) for k in range(self.taps)) for p in range(self.taps))
        scales = [prod(p - q for q in self.points if q != p) for p in self.points]
        rows = [tuple(p**k / scale for k in range(self.taps)) for p, scale in zip(self.points, scales, strict=True)]
        return (*rows, tuple(Fraction(k == self.taps - 1) for k in range(self.taps)))

    @cached_property
    def back(self) -> np.ndarray:
        """G⁺, [taps, positions]."""
        return np.linalg.pinv(np.array([[float(v) for v in row] for row in self.filter]))

    @cached_property
    def image(self) -> np.ndarray:
        """Bᵀ, [positions, positions]: the polynomials that are 0 at all other points; the last at all."""
        if not self.pairs:
            return np.eye(self.taps)
        points = [float(p) for p in self.points]
        roots = (*([q for q in points if q != p] for p in points), points)
        return np.array([[*np.poly(r)[::-1], *[0.0] * (self.positions - 1 - len(r))] for r in roots])

    @cached_property
    def results(self) -> np.ndarray:
        """Aᵀ, [tile, positions]: powers of the points."""
        if not self.pairs:
            return np.ones((1, self.taps))
        at_infinity = [[float(k == self.tile - 1)] for k in range(self.tile)]
        return np.hstack([[[float(p) ** k for p in self.points] for k in range(self.tile)], at_infinity])


@dataclass(frozen=True)
class Filtering:
    """How a convolution is computed along its rows, and along its columns."""

    down: Line
    across: Line

    @property
    def taps(self) -> int:
        """Of a filter, along each axis."""
        return self.down.taps

    @property
    def positions(self) -> int:
        """At which there is a product of matrices."""
        return self.down.positions * self.across.positions


FOUR, TWO = Line(4, 3, (Fraction(3, 4), Fraction(3, 2))), Line(2, 3, (Fraction(1),))
LARGE, SMALL, FLAT = Filtering(FOUR, FOUR), Filtering(TWO, TWO), Filtering(Line(1, 3), TWO)
WIDE = Filtering(Line(2, 5, FOUR.pairs), Line(2, 5, FOUR.pairs))
FILTERINGS: dict[tuple[Dim, Dim], Filtering] = {(f.positions, f.taps): f for f in (LARGE, SMALL, FLAT, WIDE)}
TAPS, TILE, POSITIONS = FOUR.taps, FOUR.tile, FOUR.positions  # those of the gradient


def _infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("unwind", types, 1)
    result = t.with_shape(require.sizes("unwind", attrs["shape"]))
    perm = attrs["perm"]
    if sorted(perm) != list(range(4)) or result.rank != 4 or t.rank != 4 or t.dtype not in ("f32", "f64"):
        raise ShapeError("E0303", f"unwind needs each axis of {result} once, and panels of four axes", (0,))
    rows, columns, channels, filters = (result.shape[k] for k in perm)
    width = t.shape[3]
    if not isinstance(width, int) or width < 1 or rows != columns or (t.shape[0], rows) not in FILTERINGS:
        raise ShapeError("E0301", f"{t} does not hold the transforms of {result}", (0,))
    if t.shape[1:] != (-(-filters // width), channels, width):
        raise ShapeError("E0301", f"{t} does not hold the transforms of {result}", (0,))
    return result


def _at(node: Any, types: Sequence[TensorType], index: Index, read: Read) -> Expr:
    u, v, c, k = (index[a] for a in node.attrs["perm"])
    width = size_expr(types[0].shape[3])
    how = FILTERINGS[types[0].shape[0], node.shape[node.attrs["perm"][0]]]

    def part(back: np.ndarray, tap: Expr, row: int, flip: bool) -> Expr:
        """The coefficient of a position for a tap that only run time knows."""
        values = [float(x) for x in (back[::-1] if flip else back)[:, row]]
        e: Expr = Const(values[-1], node.dtype)
        for n in reversed(range(how.taps - 1)):
            e = Apply("select", (Apply("eq", (tap, i64(n)), "bool"), Const(values[n], node.dtype), e), node.dtype)
        return e

    total: Expr = Const(0.0, node.dtype)
    rows, columns = node.attrs["flip"]
    for a in range(how.down.positions):
        for b in range(how.across.positions):
            parts = part(how.down.back, u, a, rows), part(how.across.back, v, b, columns)
            weight = Apply("mul", parts, node.dtype)
            value = read(0, (i64(how.across.positions * a + b), floordiv(k, width), c, mod(k, width)))
            total = Apply("add", (total, Apply("mul", (weight, value), node.dtype)), node.dtype)
    return total


def _reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    (wound,) = args
    shape = [require.known(type.shape)[a] for a in attrs["perm"]]
    count, tiles, channels, width = wound.shape
    how = FILTERINGS[count, shape[0]]
    points = how.down.positions, how.across.positions
    u = wound.transpose(0, 2, 1, 3).reshape(*points, channels, tiles * width)[..., : shape[3]]
    w = np.einsum("ua,vb,abck->uvck", how.down.back, how.across.back, u.astype(np.float64))
    rows, columns = (slice(None, None, -1 if f else 1) for f in attrs["flip"])
    turned: np.ndarray = w[rows, columns].astype(wound.dtype)
    return turned.transpose(inverse(attrs["perm"]))


def _f(*shape: int, dtype: str = "f32") -> TensorType:
    return TensorType(dtype, shape)


def _infer_wind(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("wind", types, 1)
    perm, width, positions = attrs["perm"], attrs["width"], attrs["positions"]
    if t.rank != 4 or sorted(perm) != list(range(4)) or t.dtype not in ("f32", "f64"):
        raise ShapeError("E0303", f"wind needs filters of floats with four axes, not {t}", (0,))
    rows, columns, channels, filters = (t.shape[k] for k in perm)
    if not isinstance(channels, int) or not isinstance(filters, int):
        raise ShapeError("E0301", f"wind needs sizes that are known, not {t}", (0,))
    if rows != columns or (positions, rows) not in FILTERINGS or width < 1:
        raise ShapeError("E0301", f"{t} has no filters for {positions} positions", (0,))
    return t.with_shape((positions, -(-filters // width), channels, width))


def _wind_reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    count, tiles, channels, width = require.known(type.shape)
    how = FILTERINGS[count, args[0].shape[attrs["perm"][0]]]
    down, across = (np.array([[float(v) for v in row] for row in line.filter]) for line in (how.down, how.across))
    rows, columns = (slice(None, None, -1 if f else 1) for f in attrs["flip"])
    w = args[0].transpose(attrs["perm"])[rows, columns].astype(np.float64)
    u = np.einsum("au,bv,uvck->abck", down, across, w).reshape(count, channels, w.shape[3])
    u = np.pad(u, ((0, 0), (0, 0), (0, tiles * width - w.shape[3])))
    return u.reshape(count, channels, tiles, width).transpose(0, 2, 1, 3).astype(args[0].dtype)


WIND = Op(
    name="wind",
    kind=KERNEL,
    infer=_infer_wind,
    reference=_wind_reference,
    grad="it is made when derivatives have been written out",
    flops=lambda types, attrs, result: 2 * result.size,
    doc="The Winograd transforms [position, k // width, c, k % width], at so many `positions`, of filters "
    "whose axes in the order `perm` are the taps, which `flip` turns around, c and k; 0 beyond the last filter",
    samples=(
        Sample((_f(3, 3, 2, 4),), {"perm": (0, 1, 2, 3), "flip": (False, False), "positions": 36, "width": 4}),
        Sample((_f(21, 17, 3, 3),), {"perm": (2, 3, 1, 0), "flip": (False, True), "positions": 36, "width": 32}),
        Sample((_f(20, 33, 3, 3),), {"perm": (2, 3, 0, 1), "flip": (True, True), "positions": 36, "width": 32}),
        Sample((_f(3, 19, 3, 16),), {"perm": (0, 2, 1, 3), "flip": (True, False), "positions": 16, "width": 16}),
        Sample((_f(3, 19, 3, 16),), {"perm": (0, 2, 1, 3), "flip": (False, True), "positions": 12, "width": 16}),
        Sample((_f(5, 5, 3, 18),), {"perm": (0, 1, 2, 3), "flip": (False, True), "positions": 36, "width": 16}),
        Sample(
            (_f(3, 3, 2, 3, dtype="f64"),), {"perm": (1, 0, 3, 2), "flip": (False, False), "positions": 16, "width": 2}
        ),
    ),
)


UNWIND = Op(
    name="unwind",
    kind=VIEW,
    implied=("shape",),
    infer=_infer,
    at=_at,
    reference=_reference,
    grad="it is made when derivatives have been written out",
    axes=lambda attrs, old, new: None,
    doc="The filters of `shape` whose Winograd transforms the operand [position, k // width, c, k % width] holds; of "
    "their axes, in the order `perm`, two are those of the taps, which `flip` turns around, then c and k",
    samples=(
        Sample((_f(36, 1, 2, 4),), {"perm": (0, 1, 2, 3), "flip": (False, False), "shape": (3, 3, 2, 4)}),
        Sample((_f(36, 2, 3, 4),), {"perm": (2, 3, 1, 0), "flip": (True, False), "shape": (5, 3, 3, 3)}),
        Sample((_f(16, 1, 2, 4),), {"perm": (0, 1, 2, 3), "flip": (False, True), "shape": (3, 3, 2, 4)}),
        Sample((_f(12, 1, 2, 4),), {"perm": (0, 1, 2, 3), "flip": (True, False), "shape": (3, 3, 2, 4)}),
        Sample((_f(36, 1, 2, 4),), {"perm": (2, 1, 0, 3), "flip": (True, False), "shape": (2, 5, 5, 3)}),
        Sample((_f(36, 1, 1, 2, dtype="f64"),), {"perm": (0, 1, 3, 2), "flip": (True, True), "shape": (3, 3, 2, 1)}),
    ),
)


def _infer_gradient(types: Sequence[Type], attrs: Any) -> TensorType:
    image, results = require.tensors("filter_gradient", types, 2)
    orders = attrs["image"], attrs["results"]
    if any(t.rank != 4 or sorted(o) != list(range(4)) for t, o in zip((image, results), orders, strict=True)):
        raise ShapeError("E0303", f"filter_gradient needs each axis of {image} and {results} once", (0, 1))
    if image.dtype != results.dtype or image.dtype not in ("f32", "f64"):
        raise ShapeError("E0302", f"filter_gradient needs floats of one dtype, not {image} and {results}", (0, 1))
    examples, down, across, channels = (image.shape[k] for k in attrs["image"])
    count, rows, columns, filters = (results.shape[k] for k in attrs["results"])
    for size, n, start in ((down, rows, attrs["start"][0]), (across, columns, attrs["start"][1])):
        if not isinstance(size, int) or not isinstance(n, int) or start < 0:
            raise ShapeError("E0301", f"filter_gradient needs sizes that are known, not {image} and {results}", (0, 1))
        if n % TILE or (n and size < start + n + TAPS - 1):
            raise ShapeError("E0301", f"whole tiles of {results} from {attrs['start']} on do not fit {image}", (0, 1))
    if examples != count:
        raise ShapeError("E0301", f"{image} and {results} are not of equally many examples", (0, 1))
    return TensorType(image.dtype, (POSITIONS**2, channels, filters))


def _tiles(results: TensorType, attrs: Any) -> Dim:
    """Of all examples."""
    examples, rows, columns = (results.shape[k] for k in attrs["results"][:3])
    count: Dim = examples * (rows // TILE) * (columns // TILE)
    return count


def _sums(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    x, dy = (a.transpose(order) for a, order in zip(args, (attrs["image"], attrs["results"]), strict=True))
    top, left = attrs["start"]
    out = np.zeros(require.known(type.shape))
    for i in range(0, dy.shape[1], TILE):
        for j in range(0, dy.shape[2], TILE):
            tile = x[:, top + i : top + i + POSITIONS, left + j : left + j + POSITIONS].astype(np.float64)
            values = np.einsum("au,bv,nuvc->abnc", FOUR.image, FOUR.image, tile)
            slopes = np.einsum("ua,vb,nuvk->abnk", FOUR.results, FOUR.results, dy[:, i : i + TILE, j : j + TILE])
            out += np.einsum("abnc,abnk->abck", values, slopes).reshape(out.shape)
    return out.astype(x.dtype)


FILTER_GRADIENT = Op(
    name="filter_gradient",
    kind=KERNEL,
    infer=_infer_gradient,
    reference=_sums,
    grad="it is made when derivatives have been written out",
    flops=lambda types, attrs, result: 2 * result.size * _tiles(types[1], attrs),
    doc="The gradient by filters of 3 x 3 at Winograd's points [position, c, k]: sums over tiles of A dy Aᵀ, of 4 x 4 "
    "results, by Bᵀ x B, of 6 x 6 values of the image from `start` on; `image` and `results` say which axes of theirs "
    "are (example, row, column, channel)",
    samples=(
        Sample((_f(2, 10, 7, 3), _f(2, 8, 4, 2)), {"image": (0, 1, 2, 3), "results": (0, 1, 2, 3), "start": (0, 1)}),
        Sample((_f(1, 9, 2, 6), _f(4, 1, 4, 5)), {"image": (0, 3, 1, 2), "results": (1, 2, 0, 3), "start": (0, 0)}),
    ),
)

ALL = (WIND, UNWIND, FILTER_GRADIENT)

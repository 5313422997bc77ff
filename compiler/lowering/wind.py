"""Winograd's algorithm, where it pays: filters become what they are at the points of `graph.ops.winograd`.

In: a graph whose values lie as kernels read them. Out: the same graph, up to rounding, in which such a convolution
reads the transforms of its filters, and the gradient by them is summed at the same points. What leads to and from those
is made by operators, so what is fixed is prepared; where a window of the last tile would leave the image, that gets a
margin of 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..graph.nodes import Builder, Graph, Node
from ..graph.ops import OPS
from ..graph.ops.contraction import plain
from ..graph.ops.op import CONTRACT, LOOP
from ..graph.ops.winograd import FILTERINGS, FOUR, POSITIONS, TAPS, TILE
from ..types.sizes import Dim
from ..types.tensors import TensorType
from .kernels.winograd import AFAR, Window, tile_of, window, window_of_gradient

if TYPE_CHECKING:
    from ..native.target import Target

TILES = tuple(FILTERINGS.values())
LEAST = 16  # channels and filters: with fewer the transforms of tiles cost more than the products save
READ = 24  # products with weights take as long as to read these, where they come from afar
MANY = 32  # and sums for a gradient


def wind(graph: Graph, target: Target, examples: int) -> Graph:
    """The graph with convolutions by Winograd's algorithm, where that pays for so many examples, also in the bodies of
    scans; itself where none."""
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    new: dict[str, str] = {}
    changed = False
    for n in graph:
        b.span = n.span
        args = [new[a] for a in n.args]
        if OPS[n.op].kind == CONTRACT and len(n.args) == 2 and n.dtype == "f32":
            if (w := _convolution(n, graph, examples)) is not None:
                args[w.side] = _wide(b, args[w.side], w)
                args[1 - w.side] = _wound(b, args[1 - w.side], w, target)
                changed = True
            elif (w := _gradient_of(n, graph, examples)) is not None:
                new[n.name] = _gradient(b, args[w.side], args[1 - w.side], w)
                changed = True
                continue
        if OPS[n.op].kind == LOOP and (body := wind(n.attrs["body"], target, examples)) is not n.attrs["body"]:
            n, changed = replace(n, attrs={**n.attrs, "body": body}), True
        new[n.name] = b.copy(n, tuple(args))
    outputs, updates = (tuple((k, new[v]) for k, v in names) for names in (graph.outputs, graph.updates))
    return b.finish(outputs, updates) if changed else graph


def _convolution(n: Node, graph: Graph, examples: int) -> Window | None:
    """The convolution that a contraction is, with the tiles that pay most for so many examples; None where none do."""
    found = [w for side in (0, 1) if (w := window(n, graph, side)) is not None]
    enough = [w for w in found if min(w.channels, w.shape[3]) >= LEAST and 0 not in w.tiles]
    ways = [replace(w, how=how) for how in TILES for w in enough if how.taps == w.how.taps]
    best = min(ways, key=lambda w: _cost(w, examples), default=None)
    return best if best is not None and _cost(best, examples) <= _cost(best, examples, direct=True) else None


def _gradient_of(n: Node, graph: Graph, examples: int) -> Window | None:
    """The convolution by whose filters a contraction is the gradient, where sums at more points pay."""
    found = (window_of_gradient(n, graph, side) for side in (0, 1))
    return next((w for w in found if w is not None and w.how.taps == TAPS and _pays_gradient(w, examples)), None)


def _pays_gradient(w: Window, examples: int) -> bool:
    """Whether there are enough channels, which lie side by side, and enough tiles for sums at more points than the
    filters have: these are stored, and read."""
    many = _count(w, examples) * w.tiles[0] * w.tiles[1] >= MANY
    return many and min(w.channels, w.shape[3]) >= LEAST and w.image[3] == 3 and w.result[3] == 3


def _cost(w: Window, examples: int, direct: bool = False) -> int:
    """Multiply-adds for each channel and filter, and how many take as long as it does to read transforms, or `direct`ly
    the filters, that come from afar: no processor's own number, for what is computed must be the same on each."""
    far = max(replace(w, how=how).transforms for how in TILES if how.taps == w.how.taps) >= AFAR
    weights, (down, across) = (w.how.taps**2, w.shape[1:3]) if direct else (w.positions, w.tiles)
    return weights * (_count(w, examples) * down * across + READ * far)


def _count(w: Window, examples: int) -> int:
    return w.shape[0] if isinstance(w.shape[0], int) else examples


def _gradient(b: Builder, image: str, results: str, w: Window) -> str:
    """Gᵀ S G, as the filters lie."""
    more = [0] * 4  # rows and columns, or the last tile is none
    for axis, extent, count in zip(w.result[1:3], w.shape[1:3], w.tiles, strict=True):
        more[axis] = TILE * count - extent
    if any(more):
        results = b.emit("pad", results, low=(0,) * 4, high=tuple(more), value=0.0)
    sums = b.emit("filter_gradient", _wide(b, image, w), results, image=w.image, results=w.result, start=w.start)
    _, channels, filters = b.shape(sums)
    size = {"e": POSITIONS**2, "u": TAPS, "v": TAPS, "c": channels, "k": filters}
    return b.emit(
        "contract",
        _both(b, w),
        sums,
        domain=tuple((i, size[i]) for i in (*_letters(w), "e")),
        maps=(plain("uve"), plain("eck")),
        out=plain(_letters(w)),
        shape=tuple(size[i] for i in _letters(w)),
    )


def _wide(b: Builder, image: str, w: Window) -> str:
    """The image with as many rows and columns as all tiles read."""
    shape = b.shape(image)
    more: list[Dim] = [0] * 4
    for axis, reach in zip(w.image[1:3], w.reach, strict=True):
        size = shape[axis]
        more[axis] = max(0, reach - size) if isinstance(size, int) else reach
    if not any(more):
        return image
    node, low = b[image], (0,) * 4
    if node.op == "pad" and node.attrs["value"] == 0:
        image, low = node.args[0], node.attrs["low"]
        more = [h + m for h, m in zip(node.attrs["high"], more, strict=True)]
    return b.emit("pad", image, low=low, high=tuple(more), value=0.0)


def _wound(b: Builder, filters: str, w: Window, target: Target) -> str:
    """G w Gᵀ in panels."""
    shape, tile, node, perm = b.shape(filters), tile_of(w, target), b[filters], w.weights
    if node.op == "transpose":  # it reads them as they lie
        filters, perm = node.args[0], tuple(node.attrs["perm"][k] for k in perm)
    width = tile.vectors * tile.lanes
    wound = b.emit("wind", filters, perm=perm, flip=w.flip, positions=w.positions, width=width)
    return b.emit("unwind", wound, perm=w.weights, flip=w.flip, shape=shape)


def _letters(w: Window) -> str:
    """The indices of the filters, as their axes lie: u and v of taps, c of channels, k of filters."""
    return "".join(i for _, i in sorted(zip(w.weights, "uvck", strict=True)))


def _both(b: Builder, w: Window) -> str:
    """G along both axes, [row of taps, column of taps, position]: sums are read once, and nothing between is stored."""
    rows, columns = ([row[::-1] if flip else row for row in FOUR.filter] for flip in w.flip)
    values = (float(r[u] * c[v]) for u in range(TAPS) for v in range(TAPS) for r in rows for c in columns)
    return b.emit("constant", values=tuple(values), type=TensorType(w.node.dtype, (TAPS, TAPS, w.positions)))

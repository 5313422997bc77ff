"""Winograd's algorithm, where it pays: filters of 3 x 3 become what they are at the points of `graph.ops.winograd`.

In: a graph whose values lie as kernels read them. Out: the same graph, up to rounding, in which such a convolution
reads the transforms of its filters. They are made by operators, so what is fixed is prepared; where a window of the
last tile would leave the image, that gets a margin of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..graph.nodes import Builder, Graph
from ..graph.ops import OPS
from ..graph.ops.contraction import plain
from ..graph.ops.op import CONTRACT
from ..graph.ops.winograd import FILTER, POSITIONS, TAPS
from ..types.sizes import Dim
from ..types.tensors import TensorType
from .kernels.winograd import FAR_BYTES, Window, tile_of, window
from .panels import panels

if TYPE_CHECKING:
    from ..native.target import Target

LEAST = 32  # channels and filters: with fewer the transforms of tiles cost more than the products save
ENOUGH = 8  # tiles: with fewer to read large transforms costs more


def wind(graph: Graph, target: Target, examples: int) -> Graph:
    """The graph with convolutions by Winograd's algorithm, where that pays for so many examples; itself where none."""
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    new: dict[str, str] = {}
    changed = False
    for n in graph:
        b.span = n.span
        args = [new[a] for a in n.args]
        if OPS[n.op].kind == CONTRACT and len(n.args) == 2 and n.dtype == "f32":
            found = (window(n, graph, side) for side in (0, 1))
            w = next((w for w in found if w is not None and _pays(w, examples)), None)
            if w is not None:
                args[w.side] = _wide(b, args[w.side], w)
                args[1 - w.side] = _wound(b, args[1 - w.side], w, target)
                changed = True
        new[n.name] = b.copy(n, tuple(args))
    outputs, updates = (tuple((k, new[v]) for k, v in names) for names in (graph.outputs, graph.updates))
    return b.finish(outputs, updates) if changed else graph


def _pays(w: Window, examples: int) -> bool:
    """Whether there are enough channels, and enough tiles for transforms of filters that come from afar."""
    if 0 in w.tiles:
        return False
    count = w.shape[0] if isinstance(w.shape[0], int) else examples
    near = w.transforms <= FAR_BYTES or count * w.tiles[0] * w.tiles[1] >= ENOUGH
    return near and min(w.channels, w.shape[3]) >= LEAST


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
    shape, dtype = b.shape(filters), b.type(filters).dtype
    letters = [""] * 4
    for axis, i in zip(w.weights, "uvck", strict=True):
        letters[axis] = i
    size = {i: shape[axis] for axis, i in zip(w.weights, "uvck", strict=True)}

    def at_points(x: str, map: str, turned: bool, before: str, tap: str, point: str, after: str) -> str:
        rows = [[float(v) for v in (row[::-1] if turned else row)] for row in FILTER]
        g = b.emit("constant", values=tuple(v for row in rows for v in row), type=TensorType(dtype, (POSITIONS, TAPS)))
        extent = {**size, "a": POSITIONS, "b": POSITIONS}
        out = before + point + after
        return b.emit(
            "contract",
            g,
            x,
            domain=tuple((i, extent[i]) for i in out + tap),
            maps=(plain(point + tap), plain(map)),
            out=plain(out),
            shape=tuple(extent[i] for i in out),
        )

    half = at_points(filters, "".join(letters), w.flip[0], "", "u", "a", "vck")
    whole = at_points(half, "avck", w.flip[1], "a", "v", "b", "ck")
    tile = tile_of(w, target)
    wound = panels(b, b.emit("reshape", whole, shape=(POSITIONS**2, size["c"], size["k"])), tile.vectors * tile.lanes)
    return b.emit("unwind", wound, perm=w.weights, flip=w.flip, shape=shape)

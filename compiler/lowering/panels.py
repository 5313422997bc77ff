"""Packing: what kernels would copy to panels in every call lies in panels, where it is the same in every call.

In: a graph whose values lie as kernels read them, and the values that are `fixed`. Out: the same graph, in which the
right operand of a product is packed by operators of its own, so that it is prepared like all else that is fixed.

    [matrix.., k.., j..]  ->  [matrix, k, j]  ->  margin, j = (t, i)  ->  [matrix, t, k, i]      i < width of a tile
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ..graph.nodes import Builder, Graph
from ..graph.ops import OPS, PACKED, WIDENING
from ..graph.ops.contraction import index_of
from ..graph.ops.op import CONTRACT, LOOP
from ..graph.product import Product, product
from ..passes.scans import invariants, of_turns
from ..types.tensors import FLOATS
from .kernels.schedule import is_large, schedule
from .kernels.tile import Tile

if TYPE_CHECKING:
    from ..native.target import Target

OTHERS = 4, 2  # vectors of a tile that divide what is read in part more often


def pack(graph: Graph, fixed: Collection[str], target: Target) -> Graph:
    """The graph with fixed right operands in panels, and in scans those that are the same in every turn, or in the same
    turn of every call; itself where there are none. They are packed where they are read: `hoist` and `prepare` know
    what to do about that."""
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    made: dict[tuple[object, ...], str] = {}
    new: dict[str, str] = {}
    changed = False
    for n in graph:
        b.span = n.span
        args = [new[a] for a in n.args]
        lies = any(graph[a].op in PACKED and graph[a].op not in WIDENING for a in n.args)
        p = product(n, graph) if OPS[n.op].kind == CONTRACT and n.name not in fixed and not lies else None
        axes = _axes(p, graph) if p is not None and n.args[1 - p.side] in fixed else None
        if p is not None and axes is not None and _pays(p, target):
            right, width = args[1 - p.side], _width(p, graph, schedule(p, target).tile)
            if width:
                key = right, axes, width
                if key not in made:
                    made[key] = _packed(b, right, axes, width)
                args[1 - p.side] = made[key]
        if OPS[n.op].kind == LOOP:
            body = pack(n.attrs["body"], invariants(n) | of_turns(n, fixed), target)
            if body is not n.attrs["body"]:
                n, changed = replace(n, attrs={**n.attrs, "body": body}), True
        new[n.name] = b.copy(n, tuple(args))
    outputs, updates = (tuple((k, new[v]) for k, v in names) for names in (graph.outputs, graph.updates))
    return b.finish(outputs, updates) if made or changed else graph


def _axes(p: Product, graph: Graph) -> tuple[tuple[int, ...], ...] | None:
    """The axes of the right operand that say which matrix, those of its rows and those of its columns, in the order in
    which the kernel walks; None where it is read under a window, or in part, but for the first of its columns."""
    shape, letters = graph[p.node.args[1 - p.side]].shape, _letters(p)
    if None in letters or len({*letters}) != len(letters):
        return None
    groups = [[i for w in walks for i in w.indices] for walks in (p.sheets, p.inner, p.columns[-1:])]
    walked = {i for g in groups for i in g}
    alone = [k for k, i in enumerate(letters) if i not in walked]  # of size 1
    sheets, rows, columns = ([letters.index(i) for i in g if i in letters] for g in groups)
    whole = {*range(len(shape))} - ({*columns} if len(columns) == 1 else set())
    extent = dict(p.node.attrs["domain"])
    if sum(map(len, (alone, sheets, rows, columns))) != len(shape) or any(
        extent[letters[k]] != shape[k] for k in whole
    ):
        return None
    if not all(isinstance(shape[k], int) for k in (*rows, *columns)):
        return None
    return (*alone, *sheets), tuple(rows), tuple(columns)


def _letters(p: Product) -> list[str | None]:
    return [index_of(e) for e in p.node.attrs["maps"][1 - p.side]]


def _is_whole(p: Product, graph: Graph) -> bool:
    """Whether all columns of the right operand are read. Of a part whole panels are."""
    extent = dict(p.node.attrs["domain"])
    return all(
        extent[i] == n for i, n in zip(_letters(p), graph[p.node.args[1 - p.side]].shape, strict=True) if i is not None
    )


def _width(p: Product, graph: Graph, tile: Tile) -> int:
    """Columns of a panel: those of the tile, or, where a part is read that is not so many panels, of another; 0 where
    it is none of those."""
    widths = [v * tile.lanes for v in (tile.vectors, *OTHERS)]
    return next((w for w in widths if _is_whole(p, graph) or p.columns[-1].size % w == 0), 0)


def _pays(p: Product, target: Target) -> bool:
    """Whether the kernel would copy the operand itself, or reads it from afar."""
    return p.packed or schedule(p, target).panels or is_large(p)


def _packed(b: Builder, right: str, axes: tuple[tuple[int, ...], ...], width: int) -> str:
    shape = b.shape(right)
    sheets, rows, columns = (prod(shape[k] for k in a) for a in axes)
    perm = tuple(k for a in axes for k in a)
    widening = b[right].op if b[right].op in WIDENING else None
    if widening is not None:  # what is stored lies in panels, and is widened there
        (right,) = b[right].args
    x = right if perm == tuple(range(len(perm))) else b.emit("transpose", right, perm=perm)
    x = panels(b, b.emit("reshape", x, shape=(sheets, rows, columns)), width)
    x = b.emit(widening, x) if widening is not None else x
    return b.emit("unpack", x, perm=perm, sheets=len(axes[0]), columns=len(axes[2]), shape=shape)


def panels(b: Builder, x: str, width: int) -> str:
    """[matrix, k, j] as [matrix, t, k, i], with j = width * t + i."""
    sheets, rows, columns = b.shape(x)
    assert isinstance(columns, int)
    tiles = -(-columns // width)
    if tiles * width != columns:
        x = b.emit(
            "pad", x, low=(0, 0, 0), high=(0, 0, tiles * width - columns), value=0.0 if b.type(x).dtype in FLOATS else 0
        )
    x = b.emit("reshape", x, shape=(sheets, rows, tiles, width))
    return b.emit("transpose", x, perm=(0, 2, 1, 3))

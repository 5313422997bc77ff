"""Fusion, windows: a contraction of one operand stores each element once for each window it is in. Seen instead, it is
read where the largest of a window is looked for, or where the windows are summed.

    y[i, u] += x[2 i + u]                   y = windows x
    y[i] += x[2 i + u]    for u < 3         y = reduce_sum (windows x)
"""

from __future__ import annotations

from ...graph.nodes import Node
from ...graph.ops.contraction import index_of, is_gathered, safe
from ..rewrite import Sweep


def seen(s: Sweep, n: Node) -> str | None:
    """The value of such a contraction, where all reads are inside and the lanes are along an axis that lies so, too."""
    if len(n.args) != 1 or not is_gathered(n) or not n.shape:
        return None
    (map,), extent = n.attrs["maps"], dict(n.attrs["domain"])
    if not any(len(e[1]) > 1 for e in map) or not all(
        safe(e, m, n) for e, m in zip(map, s.shape(n.args[0]), strict=True)
    ):
        return None
    letters = [index_of(e) for e in n.attrs["out"]]
    *others, lane = letters
    folded = [i for i in extent if i not in letters]
    if folded and index_of(map[-1]) != lane:
        return None
    axes = [*others, *folded, lane]
    windows = s.emit(
        "windows",
        *n.args,
        starts=tuple(e[0] for e in map),
        steps=tuple(tuple(dict(e[1]).get(i, 0) for i in axes) for e in map),
        shape=tuple(extent[i] for i in axes),
    )
    return s.emit("reduce_sum", windows, axes=tuple(range(len(others), len(axes) - 1))) if folded else windows

"""The transforms of filters for Winograd's algorithm: see `graph.ops.winograd`.

    U[e, k // width, c, k % width] = (G w Gᵀ)[e]       of the taps w of channel c and filter k

The one idea: each filter is read once, and of its taps in registers all transforms are computed and stored. Lanes
go along the filters; where these are not side by side in memory, some channels of a panel's are copied first, so that
they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING

from ...graph.boxes import strides
from ...graph.nodes import Graph, Node
from ...graph.ops import require
from ...graph.ops.winograd import FILTERINGS
from ...loops import ir as L
from ...loops.index import total
from ...types.sizes import Dim
from ...types.tensors import BYTES
from . import transforms
from .body import Body
from .nest import parts
from .packing import LANES
from .transforms import two_sided

if TYPE_CHECKING:
    from ...native.target import Target

CHANNELS = 16  # copied at a time: their taps stay in the first-level cache


def filter_transform(make: Callable[[], Body], node: Node, target: Target, parallel: bool) -> Body:
    """The kernel of a node. What is copied comes last."""
    body = make()
    kernel = _Transform(body, node, max(1, target.vector_bytes // BYTES[node.dtype]))
    channels, width, filters = kernel.channels, kernel.width, kernel.filters
    for panel in parts(filters, width):
        with body.loop(panel.stop, start=panel.start, step=width, parallel=parallel, stem="k") as k0:
            for part in parts(channels, CHANNELS):
                with body.loop(part.stop, start=part.start, step=part.step, stem="c") as c0:
                    kernel.panel(k0, panel.width, c0, part.width)
    return body


def scratch(node: Node, graph: Graph) -> tuple[Dim, ...]:
    """Bytes for the taps of some channels of each panel."""
    shape, (_, panels, _, width) = graph[node.args[0]].shape, node.shape
    lies = strides(shape)[node.attrs["perm"][3]] == 1
    taps = prod(shape[k] for k in node.attrs["perm"][:2])
    return () if lies else (panels * width * taps * CHANNELS * BYTES[node.dtype],)


class _Transform:
    """Of the operand of a node, `lanes` filters at a time."""

    def __init__(self, body: Body, node: Node, lanes: int):
        self.body, self.node, self.lanes = body, node, lanes
        shape, perm, self.width = body.graph[node.args[0]].shape, node.attrs["perm"], node.attrs["width"]
        taps, _, self.channels, self.filters = require.known([shape[k] for k in perm])
        self.how = FILTERINGS[node.shape[0], taps]
        *self.steps, self.step = (require.known(strides(shape))[k] for k in perm)
        self.source, self.result = body.held[node.args[0]], body.result(node.dtype)
        self.taps = "" if self.step == 1 else body.result(node.dtype, "taps")

    def panel(self, k0: Dim, filters: int, c0: Dim, channels: int) -> None:
        """The transforms of some channels of a panel, which has so many filters from one on."""
        body, node, width = self.body, self.node, self.width
        how, source, pitch, base = self.how, self.source, [*self.steps, self.step], c0 * self.steps[2] + k0 * self.step
        if self.taps:
            source, base = self.taps, k0 * (how.taps**2 * CHANNELS)
            pitch = self.copy(k0, filters, c0, channels, base)
        with body.loop(channels, stem="c") as c:

            def at(e: Dim, k: Dim) -> Dim:
                place: Dim = (e * node.shape[1] * width + k0) * self.channels + (c0 + c) * width + k
                return place

            with body.loop(filters, lanes=self.lanes, stem="k") as k:

                def read(u: int, v: int) -> L.Expr:
                    tap = (how.taps - 1 - t if flip else t for t, flip in zip((u, v), node.attrs["flip"], strict=True))
                    where = base + total(i * p for i, p in zip((*tap, c, k), pitch, strict=True))
                    return body.bind(body.load(source, where, node.dtype))

                for n, value in enumerate(two_sided(how, body, transforms.filter, (how.taps, how.taps), read)):
                    body.store(self.result, at(n, k), value)
            if filters < width:
                with body.loop(how.positions, stem="e") as e, body.loop(width, start=filters, stem="k") as k:
                    body.store(self.result, at(e, k), L.Const(0.0, node.dtype))

    def copy(self, k0: Dim, filters: int, c0: Dim, channels: int, base: Dim) -> list[int]:
        """The taps of some channels, so that those of all filters of the panel lie side by side; gives how far a step
        of rows, columns, channels and filters goes there. They are read in the order in which they lie."""
        body, width = self.body, self.width
        counts = (self.how.taps, self.how.taps, channels)
        order = sorted(range(3), key=lambda k: -self.steps[k])
        pitch = [0, 0, 0, 1]
        for m, k in enumerate(order, 1):
            pitch[k] = width * prod(counts[n] for n in order[m:])
        loops: list[tuple[int, int, int]] = []  # turns, and how far each goes here and there
        for k in order:
            turns = counts[k]
            if loops and loops[-1][1] == self.steps[k] * turns:  # one loop with that around it
                turns *= loops.pop()[0]
            loops.append((turns, self.steps[k], pitch[k]))
        for part in parts(filters, LANES):
            with body.loop(part.stop, start=part.start, step=part.step, stem="i") as i0, ExitStack() as stack:
                points = [stack.enter_context(body.loop(turns, stem="q")) for turns, _, _ in loops]
                i = stack.enter_context(body.loop(part.width, lanes=LANES, unroll=0, stem="i"))
                here = total(x * step for x, (_, step, _) in zip(points, loops, strict=True))
                there = total(x * to for x, (_, _, to) in zip(points, loops, strict=True))
                source = c0 * self.steps[2] + (k0 + i0 + i) * self.step + here
                body.store(self.taps, base + there + i0 + i, body.load(self.source, source, self.node.dtype))
        return pitch

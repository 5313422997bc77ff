"""Passes: functions from graph to graph. Their order is a tuple, and the verifier runs after each one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..autodiff.differentiate import differentiate
from ..graph.nodes import Graph, Node
from ..graph.ops import OPS
from ..graph.ops.op import LOOP
from ..graph.verify import verify
from .align import align
from .cse import cse
from .dce import dce
from .fuse import fuse
from .guard import check, guard
from .layout import layout, layout_of_many
from .masks import masks
from .rewrite import assemble
from .rules.adjoint import margins
from .rules.fold import fold
from .scans import hoist, sink, trim
from .simplify import simplify

Pass = Callable[[Graph], Graph]

ALWAYS: tuple[Pass, ...] = (check, guard, dce, differentiate, dce)
REWRITE: tuple[Pass, ...] = (sink, fold, cse, simplify, cse, simplify, hoist, cse, trim, dce)  # the mathematics
LAYOUT: tuple[Pass, ...] = (layout, margins, align, masks, cse)  # how it lies in memory
KERNELS: tuple[Pass, ...] = (guard, fuse)  # what runs together
OPTIMIZE: tuple[Pass, ...] = (*REWRITE, *LAYOUT, *KERNELS)

LAYOUT_OF_MANY: tuple[Pass, ...] = (layout_of_many, *LAYOUT[1:])  # and for many examples, where that is another matter
OUTWARDS: tuple[Pass, ...] = (hoist, cse, trim)  # out of scans, what is the same in every turn


def _inside(step: Pass, graph: Graph) -> Graph:
    """The graph after a pass over the bodies of its scans, and over the bodies in those."""
    changed = False
    nodes: dict[str, Node] = {}
    for n in graph:
        if OPS[n.op].kind == LOOP:
            body = step(_inside(step, n.attrs["body"]))
            if body is not n.attrs["body"]:
                n, changed = Node(n.name, n.op, n.args, {**n.attrs, "body": body}, n.type, n.span), True
        nodes[n.name] = n
    return assemble(graph, nodes, graph.outputs, graph.updates) if changed else graph


def run(passes: Sequence[Pass], graph: Graph, observe: Callable[[str, Graph], None] | None = None) -> Graph:
    """The graph after all `passes` in order; `observe(name, graph)` sees it after each."""
    verified: Graph | None = None
    for step in passes:
        made = step(_inside(step, graph))
        if made is not graph:
            graph = verified = verify(made, step.__name__, verified)
        if observe is not None:
            observe(step.__name__, graph)
    return graph

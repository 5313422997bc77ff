"""Passes: functions from graph to graph. Their order is a tuple, and the verifier runs after each one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..autodiff import differentiate
from ..graph import Graph
from ..verify import verify
from .adjoint import margins
from .cse import cse
from .dce import dce
from .fold import fold
from .fuse import fuse
from .layout import layout
from .simplify import simplify

Pass = Callable[[Graph], Graph]

ALWAYS: tuple[Pass, ...] = (dce, differentiate, dce)
REWRITE: tuple[Pass, ...] = (fold, cse, simplify, cse, simplify, cse, dce)  # the mathematics
KERNELS: tuple[Pass, ...] = (margins, layout, cse, fuse)  # how it lies in memory, and what runs together
OPTIMIZE: tuple[Pass, ...] = (*REWRITE, *KERNELS)


def run(passes: Sequence[Pass], graph: Graph, observe: Callable[[str, Graph], None] | None = None) -> Graph:
    """The graph after all `passes` in order; `observe(name, graph)` sees it after each."""
    for step in passes:
        made = step(graph)
        graph = made if made is graph else verify(made, after=step.__name__)
        if observe is not None:
            observe(step.__name__, graph)
    return graph

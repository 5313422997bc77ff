"""The memory plan: where every value lies, and in which order the kernels run.

In: a graph. Out: a `Plan`. A value that is an output or an update is made where it belongs when nothing speaks against
it; a variable is updated in place once everybody who wants its old value has run (`order`, `inplace`). The rest lies in
the arena (`offsets`), whose size is `a + b*B`, whatever B will be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...graph.nodes import Graph
from ...loops.ir import Place
from ...types.sizes import Dim
from .inplace import Overwrites
from .offsets import arranged, buffers, shown
from .order import ordered
from .plans import Copy, Plan
from .values import constant_name, is_kernel, output_slot, roots, shift, types


def plan(
    graph: Graph, scratch: Mapping[str, Sequence[Dim]] | None = None, equal: Mapping[str, Graph] | None = None
) -> Plan:
    """The plan of one entry. `scratch` gives bytes a kernel needs for itself while it runs; for `equal` see
    `Overwrites`."""
    root = roots(graph)
    overwrites = Overwrites(graph, root, equal or {})
    order = ordered(graph, root, overwrites)
    found, arena = arranged(graph, buffers(graph, root, order, scratch or {}, overwrites))
    places = {**order.places, **{v: Place("arena", offset=at) for buffer, at in found for v in buffer.values}}
    lines = sorted((shown(graph, buffer, at) for buffer, at in found), key=lambda line: (line.born, line.values))
    copies = tuple(
        Copy(types(graph[source[0]])[max(0, source[1])], places[source], places[target], early)
        for source, target, early in order.moves
    )
    return Plan(order.kernels, places, copies, tuple(lines), arena)


__all__ = ["Copy", "Plan", "constant_name", "is_kernel", "output_slot", "plan", "roots", "shift", "types"]

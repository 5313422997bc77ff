"""The whole compiler on one screen: a program's entry, from its graph to loops.

syntax tree -> graph -> derivatives -> optimised graph -> kernels -> plan and loops -> LLVM IR -> object -> callable
`elaborate`    `passes.ALWAYS`  `REWRITE`   `KERNELS`     `lowering`       `llvm`     `native`    `session`
"""

from __future__ import annotations

from collections.abc import Callable

from ..dsl.record import dataclass, replace
from . import passes
from .elaborate import Program
from .graph.cost import TYPICAL
from .graph.examples import examples
from .graph.nodes import Graph
from .graph.verify import verify
from .lowering.lower import Lowered, Variant, lower
from .lowering.marks import marked
from .lowering.microbatches import microbatches
from .lowering.panels import pack
from .lowering.signature import signature
from .lowering.wind import wind
from .manifest import Signature
from .native.target import Target
from .passes.layout import LANES, batch_in_lanes
from .passes.narrow import narrow
from .passes.prepare import fixed, prepare
from .settings import Settings
from .types.sizes import Size, symbols

Observer = Callable[[str, Graph], None]

ONCE = ("init", "train", "loss", "gradients")  # entries whose variables are others at each call, more often than not
STORED = ("predict", "evaluate")  # entries that read parameters in the format that these are stored in


@dataclass(frozen=True, slots=True)
class Stages:
    """Everything one entry was on its way to machine code."""

    graph: Graph  # as written
    backward: Graph  # with derivatives
    optimized: Graph
    fused: Graph  # the same, grouped into kernels
    prepare: Graph | None  # what is computed when variables change, grouped as well; None where nothing is
    many: Variant | None  # both for many examples, where that is other code
    lowered: Lowered  # plan and loops
    signature: Signature


def stages(
    program: Program,
    entry: str,
    target: Target,
    observe: Observer | None = None,
    apart: bool = True,
    variants: bool = True,
    graph: Graph | None = None,
) -> Stages:
    """Run the pipeline for one entry, or a `graph` in place of its own, up to loops. What depends on variables alone is
    an entry `apart`. Without `variants` the code for few examples runs many, too, and all at once."""
    graph, optimize = graph or program.graph(entry), program.settings.optimize
    backward = passes.run(passes.ALWAYS, graph, observe)
    optimized = passes.run(passes.REWRITE, backward, observe) if optimize else backward
    size = batch_in_lanes(optimized) if optimize and variants and not optimized.updates else None
    again = entry.partition(".")[0] not in ONCE
    format = program.settings.weights_dtype if apart and entry in STORED and not optimized.updates else "f32"
    how = _How(program.settings, target, again, apart and again, format, observe)
    few, many = how.variant(optimized, passes.LAYOUT), None
    if isinstance(size, Size) and (name := str(size)) in symbols(size):
        graph_of_many = replace(optimized, name=f"{optimized.name}.many")
        many = how.variant(graph_of_many, passes.LAYOUT_OF_MANY, "prepared/many"), name, LANES
    inputs = {n.attrs["name"]: n.attrs["type"] for n in graph if n.op == "input"}
    used = {n.attrs["path"] for n in optimized if n.op == "param"} | {path for path, _ in optimized.updates}
    variables = program.types(used)
    lowered = marked(lower(few, inputs, variables, target, many), graph)
    if optimize and variants and (counted := examples(optimized)) is not None:
        lowered = lowered.in_microbatches(microbatches(few.graph, counted, lowered.arena, LANES if many else 1))
    other = many[0] if many is not None else None
    told = signature([v.graph for v in (few, other) if v is not None], inputs, variables, lowered)
    return Stages(graph, backward, optimized, few.graph, few.before, other, lowered, told)


@dataclass(frozen=True, slots=True)
class _How:
    """An optimised graph to kernels. The entry is called `again` with the same variables or not: what it computes, and
    so its bits, depend on that and on their `format` alone; what depends on them alone may be an entry `apart`."""

    settings: Settings
    target: Target
    again: bool
    apart: bool
    format: str
    observe: Observer | None

    def variant(self, graph: Graph, layout: tuple[passes.Pass, ...], stem: str = "prepared") -> Variant:
        if not self.settings.optimize:
            return Variant(graph)
        laid = passes.run(layout, graph, self.observe)
        if not self.settings.precise and self.format == "f32":
            laid = self._moved("wind", wind(laid, self.target, 1 if self.again else TYPICAL), laid)
        made = prepare(self._stored(laid), stem) if self.apart else None
        rest = made[1] if made else self._moved("pack", pack(laid, (), self.target), laid)
        before = passes.run(passes.KERNELS, verify(made[0], "prepare"), self.observe) if made else None
        return Variant(passes.run(passes.KERNELS, rest, self.observe), before)

    def _stored(self, graph: Graph) -> Graph:
        """What depends on variables alone in the format wanted, and in panels where kernels would copy it to some."""
        stored = self._moved("narrow", narrow(graph, fixed(graph), self.format), graph)
        return self._moved("pack", pack(stored, fixed(stored), self.target), stored)

    def _moved(self, name: str, made: Graph, graph: Graph) -> Graph:
        """What a pass made; what is the same in every turn of a scan is taken out of it."""
        return graph if made is graph else self._seen(name, passes.run(passes.OUTWARDS, verify(made, name, graph)))

    def _seen(self, name: str, graph: Graph) -> Graph:
        if self.observe is not None:
            self.observe(name, graph)
        return graph

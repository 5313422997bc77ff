"""The whole compiler on one screen: a program's entry, from its graph to loops.

syntax tree -> graph -> derivatives -> optimised graph -> kernels -> plan and loops -> LLVM IR -> object -> callable
`elaborate`    `passes.ALWAYS`  `REWRITE`   `KERNELS`     `lowering`       `llvm`     `native`    `session`
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from . import passes
from .elaborate import Program
from .graph.cost import TYPICAL
from .graph.examples import examples
from .graph.nodes import Graph
from .graph.verify import verify
from .lowering.lower import Lowered, Variant, lower
from .lowering.microbatches import microbatches
from .lowering.panels import pack
from .lowering.signature import signature
from .lowering.wind import wind
from .manifest import Signature
from .native.target import Target
from .passes.cse import cse
from .passes.layout import LANES, batch_in_lanes
from .passes.prepare import fixed, prepare
from .passes.scans import hoist, trim
from .types.sizes import Size, symbols
from .types.tensors import TensorType

Observer = Callable[[str, Graph], None]

ONCE = ("init", "train", "loss", "gradients")  # entries whose variables are others at each call, more often than not


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
    optimize: bool = True,
    observe: Observer | None = None,
    apart: bool = True,
    variants: bool = True,
) -> Stages:
    """Run the pipeline for one entry, up to loops. What depends on variables alone is an entry `apart`. Without
    `variants` the code for few examples runs many, too, and all at once."""
    graph = program.graph(entry)
    backward = passes.run(passes.ALWAYS, graph, observe)
    optimized = passes.run(passes.REWRITE, backward, observe) if optimize else backward
    size = batch_in_lanes(optimized) if optimize and variants and not optimized.updates else None
    how = _How(target, apart, entry not in ONCE, program.settings.precise, optimize, observe)
    few, many = how.variant(optimized, passes.LAYOUT), None
    if isinstance(size, Size) and (name := str(size)) in symbols(size):
        graph_of_many = replace(optimized, name=f"{optimized.name}.many")
        many = how.variant(graph_of_many, passes.LAYOUT_OF_MANY, "prepared/many"), name, LANES
    inputs, variables = _inputs(graph), _variables(program, optimized)
    lowered = lower(few, inputs, variables, target, many)
    if optimize and variants and (counted := examples(optimized)) is not None:
        lowered = lowered.in_microbatches(
            microbatches(few.graph, counted, lowered.arena, LANES if many is not None else 1)
        )
    other = many[0] if many is not None else None
    told = signature([v.graph for v in (few, other) if v is not None], inputs, variables, lowered)
    return Stages(graph, backward, optimized, few.graph, few.before, other, lowered, told)


@dataclass(frozen=True, slots=True)
class _How:
    """An optimised graph to kernels; what depends on variables alone may be an entry `apart`. The entry is called
    `again` with the same variables or not: what it computes, and so its bits, depend on that alone."""

    target: Target
    apart: bool
    again: bool
    precise: bool
    optimize: bool
    observe: Observer | None

    def variant(self, graph: Graph, layout: tuple[passes.Pass, ...], stem: str = "prepared") -> Variant:
        if not self.optimize:
            return Variant(graph)
        laid = passes.run(layout, graph, self.observe)
        if not self.precise:
            laid = verify(wind(laid, self.target, 1 if self.again else TYPICAL), "wind", laid)
        made = prepare(_packed(laid, fixed(laid), self.target), stem) if self.apart and self.again else None
        before, rest = made or (None, _packed(laid, (), self.target))
        fused = passes.run(passes.KERNELS, rest, self.observe)
        if before is not None:
            before = passes.run(passes.KERNELS, verify(before, "prepare"), self.observe)
        return Variant(fused, before)


def _packed(graph: Graph, fixed: Collection[str], target: Target) -> Graph:
    """What is the same in every call, or in every turn of a scan, in panels where kernels would copy it to some."""
    packed = pack(graph, fixed, target)
    return graph if packed is graph else passes.run((hoist, cse, trim), verify(packed, "pack", graph))


def _inputs(graph: Graph) -> dict[str, TensorType]:
    return {n.attrs["name"]: n.attrs["type"] for n in graph if n.op == "input"}


def _variables(program: Program, graph: Graph) -> dict[str, TensorType]:
    used = {n.attrs["path"] for n in graph if n.op == "param"} | {path for path, _ in graph.updates}
    return {path: d.type for path, d in program.variables.items() if path in used}

"""The whole compiler on one screen: a program's entry, from its graph to loops.

syntax tree -> graph -> derivatives -> optimised graph -> kernels -> plan and loops -> LLVM IR -> object -> callable
`elaborate`    `passes.ALWAYS`  `REWRITE`   `KERNELS`     `lowering`       `llvm`     `native`    `session`
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from . import passes
from .elaborate import Program
from .graph.cost import TYPICAL
from .graph.nodes import Graph, Guard
from .graph.verify import verify
from .lowering.lower import Lowered, lower
from .lowering.panels import pack
from .lowering.wind import wind
from .manifest import GuardSpec, Port, Signature
from .native.target import Target
from .passes.cse import cse
from .passes.prepare import fixed, prepare
from .passes.scans import hoist, trim
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
    lowered: Lowered  # plan and loops
    signature: Signature


def stages(
    program: Program, entry: str, target: Target, optimize: bool = True, observe: Observer | None = None
) -> Stages:
    """Run the pipeline for one entry, up to loops."""
    graph = program.graph(entry)
    backward = passes.run(passes.ALWAYS, graph, observe)
    optimized = passes.run(passes.REWRITE, backward, observe) if optimize else backward
    laid = passes.run(passes.LAYOUT, optimized, observe) if optimize else optimized
    direct = program.settings.precise or not optimize
    wound = laid if direct else verify(wind(laid, target, TYPICAL if entry in ONCE else 1), "wind", laid)
    before, rest = _prepared(wound, target, entry not in ONCE) if optimize else (None, laid)
    kernels = passes.KERNELS if optimize else ()
    fused = passes.run(kernels, rest, observe)
    before = passes.run(kernels, verify(before, "prepare"), observe) if before is not None else None
    inputs, variables = _inputs(graph), _variables(program, optimized)
    lowered = lower(fused, inputs, variables, target, before)
    return Stages(graph, backward, optimized, fused, before, lowered, _signature(fused, inputs, variables, lowered))


def _prepared(graph: Graph, target: Target, apart: bool) -> tuple[Graph | None, Graph]:
    """What an entry computes of variables alone, where that is to be an entry `apart` and worth it, and the rest."""
    return (prepare(_packed(graph, fixed(graph), target)) if apart else None) or (None, _packed(graph, (), target))


def _packed(graph: Graph, fixed: Collection[str], target: Target) -> Graph:
    """What is the same in every call, or in every turn of a scan, in panels where kernels would copy it to some."""
    packed = pack(graph, fixed, target)
    return graph if packed is graph else passes.run((hoist, cse, trim), verify(packed, "pack", graph))


def _inputs(graph: Graph) -> dict[str, TensorType]:
    return {n.attrs["name"]: n.attrs["type"] for n in graph if n.op == "input"}


def _variables(program: Program, graph: Graph) -> dict[str, TensorType]:
    used = {n.attrs["path"] for n in graph if n.op == "param"} | {path for path, _ in graph.updates}
    return {path: d.type for path, d in program.variables.items() if path in used}


def _signature(
    graph: Graph, inputs: Mapping[str, TensorType], variables: Mapping[str, TensorType], lowered: Lowered
) -> Signature:
    default = {n.attrs["name"]: n.attrs.get("default") for n in graph if n.op == "input"}
    outputs = [s.type for s in lowered.entry.slots if s.role == "output"]
    prepared = [(s.name, s.type) for s in lowered.entry.slots if s.role == "param" and s.name not in variables]
    return Signature(
        name=graph.name,
        sizes=lowered.entry.sizes,
        inputs=tuple(Port(n, t.dtype, t.shape, default[n]) for n, t in inputs.items()),
        variables=tuple(variables),
        updates=tuple(path for path, _ in graph.updates),
        outputs=tuple(Port(n, t.dtype, t.shape) for (n, _), t in zip(graph.outputs, outputs, strict=True)),
        guards=tuple(GuardSpec(g.relations, _placed(g)) for g in graph.guards),
        arena=lowered.arena,
        checks=lowered.checks,
        prepared=tuple(Port(path, t.dtype, t.shape) for path, t in prepared),
        preparing=lowered.preparing,
    )


def _placed(guard: Guard) -> str:
    """The message of a guard with the place that asked for it."""
    return f"{guard.message} ({guard.span})" if guard.span is not None else guard.message

"""What the runtime is told of an entry: its `manifest.Signature`, from graphs and loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..graph.nodes import Graph, Guard
from ..manifest import GuardSpec, Port, Signature
from ..types.tensors import TensorType
from .lower import Lowered


def signature(
    graphs: Sequence[Graph], inputs: Mapping[str, TensorType], variables: Mapping[str, TensorType], lowered: Lowered
) -> Signature:
    """Of an entry, from the graphs that it became, for few examples and for many, and their loops."""
    graph, guards = graphs[0], dict.fromkeys(g for graph in graphs for g in graph.guards)
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
        guards=tuple(GuardSpec(g.relations, _placed(g)) for g in guards),
        arena=lowered.arena,
        checks=lowered.checks,
        prepared=tuple(Port(path, t.dtype, t.shape) for path, t in prepared),
        preparing=lowered.preparing,
        marks=lowered.marks,
        microbatch=(apart.size, apart.length) if (apart := lowered.entry.microbatches) is not None else None,
    )


def _placed(guard: Guard) -> str:
    """The message of a guard with the place that asked for it."""
    return f"{guard.message} ({guard.span})" if guard.span is not None else guard.message

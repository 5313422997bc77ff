"""A graph of ours as an ONNX model.

In: a graph as it is written, what its variables are, the context in which it was elaborated. Out: a `ModelProto`, or a
refusal that names all that has no counterpart in ONNX, each with its line of the program.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ....compiler.autodiff.differentiate import differentiate
from ....compiler.elaborate.context import Context
from ....compiler.elaborate.noted import Called
from ....compiler.elaborate.values import Tensor
from ....compiler.graph.nodes import Graph, Node
from ....compiler.passes import run
from ....dsl.diagnostics import Diagnostic, Label
from ....dsl.errors import UnsupportedError
from ...call.arrays import NUMPY
from ...call.column import Array
from . import folds, indexing, layers, library, loops, protos, random, scalars, sums, views
from .values import Scope, Value, onnx
from .walk import Call, Rule, Walk

RULES: Mapping[str, Rule] = {
    **scalars.RULES, **views.RULES, **sums.RULES, **folds.RULES, **indexing.RULES, **loops.RULES, **random.RULES,
}  # fmt: skip


@dataclass(slots=True)
class Export:
    """One graph on its way. `calls` are what is known of its calls; without `functions` all is one graph. Variables
    that the graph changes are inputs, and so are those in `given`."""

    name: str
    graph: Graph
    variables: Mapping[str, Array]
    opset: int
    calls: Context | None = None
    functions: bool = True
    given: Collection[str] = ()
    made: layers.Functions = field(default_factory=layers.Functions)

    def model(self) -> Any:
        """The model. Raises UnsupportedError (E0632)."""
        graph, names = derived(self.graph)
        scope = Scope(self.opset)
        values = self._leaves(graph, scope)
        wanted = [scope.fresh(name) for name, _ in graph.outputs] + [f"next/{path}" for path, _ in graph.updates]
        walk = self._walk(graph, scope, values, names)
        results = walk.run(v for _, v in (*graph.outputs, *graph.updates))
        if walk.refused:
            raise _refusal(walk)
        return self._assembled(graph, scope, dict(zip(wanted, results, strict=True)))

    def _leaves(self, graph: Graph, scope: Scope) -> dict[str, Value]:
        """Inputs and variables, by node."""
        values: dict[str, Value] = {}
        for n in graph:
            if n.op == "input":
                values[n.name] = Value(scope.fresh(n.attrs["name"]), n.dtype, n.shape)
                scope.sources.append(values[n.name])
        for n in graph:
            if n.op == "param":
                values[n.name] = Value(scope.fresh(n.attrs["path"]), n.dtype, n.shape)
        return values

    def _walk(self, graph: Graph, scope: Scope, values: dict[str, Value], names: Mapping[str, str]) -> Walk:
        called = [c for c in self.calls.called if c.builder is self.calls.root] if self.calls is not None else []
        known = layers.Layers(called, graph.nodes, names)
        return Walk(
            graph.nodes,
            scope,
            RULES,
            dict(values),
            library.calls(called, graph.nodes, names, self.opset),
            known.labels(),
            known.regions() if self.functions else {},
            base=self.name,
            enter=self.made.enter,
            within=self._within,
        )

    def _within(self, body: Graph) -> Mapping[str, Call]:
        """The calls that a loop has in its body, whose nodes are those of the calls themselves."""
        called = self.calls.called if self.calls is not None else []
        same = {name: name for name in body.nodes}
        own = [c for c in called if all(_is_in(body, c, r) for r in c.results)]
        return library.calls(own, body.nodes, same, self.opset)

    def _assembled(self, graph: Graph, scope: Scope, results: Mapping[str, Value]) -> Any:
        helper = onnx().helper
        outputs = protos.named(scope, results)
        nodes, read = protos.nodes(scope, outputs), scope.live(outputs)[1]
        changed = {path for path, _ in graph.updates}
        inputs, initial = [], []
        for n in graph:
            if n.op == "input":
                inputs.append(protos.info(n.attrs["name"], n.dtype, n.shape))
                if "default" in n.attrs:
                    initial.append(protos.tensor(n.attrs["name"], np.array(n.attrs["default"], NUMPY[n.dtype])))
            elif n.op == "param" and ((path := n.attrs["path"]) in read or path in changed):
                array = np.ascontiguousarray(self.variables[path]).reshape([int(str(k)) for k in n.shape])
                initial.append(protos.tensor(path, array))
                if path in changed or path in self.given:
                    inputs.append(protos.info(path, n.dtype, n.shape))
        infos = [protos.info(name, results[name].dtype, results[name].shape) for name in outputs]
        imports = [helper.make_opsetid("", self.opset)]
        if self.made.protos:
            imports.append(helper.make_opsetid(layers.DOMAIN, 1))
        return helper.make_model(
            helper.make_graph(nodes, self.name or "graph", inputs, infos, initial),
            opset_imports=imports,
            functions=self.made.protos,
            producer_name="nnc",
            ir_version=helper.find_min_ir_version_for(imports[:1]),
        )


def _is_in(body: Graph, c: Called, result: object) -> bool:
    return isinstance(result, Tensor) and body.nodes.get(result.node) is c.builder.nodes.get(result.node)


def derived(graph: Graph) -> tuple[Graph, Mapping[str, str]]:
    """The graph with its derivatives written out, and for each of its nodes what it is called there: derivatives must
    not take the names of nodes that calls are known by."""
    if not _differentiates(graph):
        return graph, {n.name: n.name for n in graph}
    new = {n.name: f"@{n.name}" if n.op not in ("param", "input") else n.name for n in graph}
    nodes = {
        new[n.name]: Node(new[n.name], n.op, tuple(new[a] for a in n.args), n.attrs, n.type, n.span) for n in graph
    }
    moved = replace(
        graph,
        nodes=nodes,
        outputs=tuple((k, new[v]) for k, v in graph.outputs),
        updates=tuple((k, new[v]) for k, v in graph.updates),
    )
    return run((differentiate,), moved), new


def _differentiates(graph: Graph) -> bool:
    return any(n.op == "grad" or ("body" in n.attrs and _differentiates(n.attrs["body"])) for n in graph)


def _refusal(walk: Walk) -> Exception:
    """All that has no counterpart, each once."""
    found = []
    for (op, span), why in walk.refused.items():
        labels = (Label(span),) if span is not None else ()
        found.append(Diagnostic("E0632", f"`{op}` is not exported to ONNX: it {why}", labels))
    return UnsupportedError(found)

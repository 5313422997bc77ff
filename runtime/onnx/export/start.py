"""How variables begin, apart from the entry that changes them.

In: a network and an entry of it as a model. Out: two models. One has no inputs; its outputs are the variables by path.
The other is given all those that it changes: ONNX Runtime Web takes nothing for an input that has a value.
"""

from __future__ import annotations

from typing import Any

from ...network import Network
from ...store.weights import loadable
from . import protos
from .values import onnx


def apart(network: Network, model: Any) -> tuple[Any, Any]:
    """The variables as they are now: those that are inputs, and all others that were learned, so that whoever saves the
    outputs has what `nnc load-weights` wants. And the model without values for its inputs."""
    helper = onnx().helper
    start, entry = type(model)(), type(model)()
    start.CopyFrom(model)
    entry.CopyFrom(model)
    inputs = {i.name for i in model.graph.input}
    wanted = {v.path for v in loadable(network)} | inputs
    nodes, infos = [], []
    for v in (v for v in network.manifest.variables if v.path in wanted):
        value = protos.tensor(v.path, network.variables[v.path])
        nodes.append(helper.make_node("Constant", [], [v.path], value=value))
        infos.append(protos.info(v.path, v.dtype, v.shape))
    start.graph.CopyFrom(helper.make_graph(nodes, f"{model.graph.name}_start", [], infos))
    del start.functions[:], entry.graph.initializer[:]
    given = inputs & {v.path for v in network.manifest.variables}
    entry.graph.initializer.extend(t for t in model.graph.initializer if t.name not in given)
    return start, entry

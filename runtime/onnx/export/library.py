"""Calls of the standard library that are one operator of ONNX: what they were given takes the place of what they are
made of.

A softmax of the library is 0 where all of a row is -inf, that of ONNX is NaN. So it is followed by a choice where its
operand is not certainly finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from ....compiler.elaborate.noted import Called
from ....compiler.elaborate.values import Tensor
from ....compiler.graph.facts import finite
from ....compiler.graph.nodes import Node
from ....compiler.types.tensors import FLOATS
from . import windows
from .scalars import apply
from .values import Scope, Value
from .walk import Call, Walk


def calls(called: Iterable[Called], graph: Mapping[str, Node], names: Mapping[str, str], opset: int) -> dict[str, Call]:
    """By the node of its result, each call that has a counterpart; `names` are those in the graph of the nodes that the
    calls know."""
    found: dict[str, Call] = {}
    for c in called:
        make = MAKERS.get(c.name) if c.std and len(c.results) == 1 else None
        result = c.results[0]
        if make is None or not isinstance(result, Tensor) or result.builder is not c.builder:
            continue
        call = make(_Given(c, graph, names, opset))
        if call is not None and names.get(result.node) in graph and result.dtype in FLOATS:
            found[names[result.node]] = call
    return found


@dataclass(frozen=True, slots=True)
class _Given:
    called: Called
    graph: Mapping[str, Node]
    names: Mapping[str, str]
    opset: int

    def tensor(self, name: str) -> str | None:
        """The node of an argument, where it is a tensor of this graph."""
        t = self.called.arguments[name]
        node = self.names.get(t.node) if isinstance(t, Tensor) and t.builder is self.called.builder else None
        return node if node in self.graph else None

    def static(self, name: str, kind: type) -> Any:
        """An argument that is known at compile time; None where it is no such number."""
        value = self.called.arguments[name]
        whole = kind is float and isinstance(value, int) and not isinstance(value, bool)
        return float(value) if whole else value if isinstance(value, kind) else None

    def parameters(self, *names: str) -> tuple[str, ...] | None:
        paths = tuple(f"{self.called.path}.{name}" for name in names)
        return paths if all(path in self.graph for path in paths) else None


def _unary(op: str, since: int = 1, numbers: Mapping[str, str] | None = None, **attrs: Any) -> Any:
    """A function of elements; `numbers` are arguments that are attributes of the operator."""

    def make(g: _Given) -> Call | None:
        x = g.tensor("x")
        more = {attr: g.static(name, float) for name, attr in (numbers or {}).items()}
        if x is None or g.opset < since or None in more.values():
            return None

        def rule(w: Walk, n: Node) -> Value:
            v = w.thin(x)
            return w.scope.emit(op, v, type=(v.dtype, v.shape), **attrs, **more)

        return Call(rule, (x,))

    return make


def _softmax(op: str) -> Any:
    def make(g: _Given) -> Call | None:
        x, axis = g.tensor("x"), g.static("axis", int)
        if x is None or axis is None:
            return None

        def rule(w: Walk, n: Node) -> Value:
            v = w.full(x)
            y = w.scope.emit(op, v, type=(v.dtype, v.shape), axis=axis)
            return y if _certain(w.graph, x) else _chosen(w.scope, v, y, axis % v.rank, op)

        return Call(rule, (x,))

    return make


def _certain(g: Mapping[str, Node], name: str) -> bool:
    """Whether no element is infinite where what is summed up is not; inputs may hold masks."""
    seen, todo = {name}, [name]
    while todo:
        n = g[todo.pop()]
        if n.op == "input" and n.dtype in FLOATS:
            return False
        new = [a for a in n.args if a not in seen] if n.op != "contract" else []
        seen.update(new)
        todo += new
    return finite(g, name)


def _chosen(s: Scope, x: Value, y: Value, axis: int, op: str) -> Value:
    """What is chosen where a row is -inf: nothing."""
    shape = tuple(1 if k == axis else n for k, n in enumerate(x.shape))
    if s.opset < 18:
        top = s.emit("ReduceMax", x, type=(x.dtype, shape), axes=[axis], keepdims=1)
    else:
        top = s.emit("ReduceMax", x, s.constant([axis], "i64"), type=(x.dtype, shape), keepdims=1)
    none = s.constant(-inf, x.dtype)
    empty = apply(s, "Equal", top, none, dtype="bool")
    return apply(s, "Where", empty, s.constant(0, x.dtype) if op == "Softmax" else none, y)


def _batch_norm(g: _Given) -> Call | None:
    x, eps = g.tensor("x"), g.static("eps", float)
    parameters = g.parameters("gamma", "beta", "running_mean", "running_var")
    if x is None or eps is None or parameters is None or g.called.training:
        return None

    def rule(w: Walk, n: Node) -> Value:
        v = w.full(x)
        of = map(w.full, parameters)
        return w.scope.emit("BatchNormalization", v, *of, type=(v.dtype, v.shape), epsilon=eps)

    return Call(rule, (x, *parameters))


def _layer_norm(g: _Given) -> Call | None:
    x, eps, parameters = g.tensor("x"), g.static("eps", float), g.parameters("gamma", "beta")
    if x is None or eps is None or parameters is None:
        return None

    def rule(w: Walk, n: Node) -> Value:
        v = w.full(x)
        of = map(w.full, parameters)
        return w.scope.emit("LayerNormalization", v, *of, type=(v.dtype, v.shape), axis=-1, epsilon=eps)

    return Call(rule, (x, *parameters))


def _avg_pool(g: _Given) -> Call | None:
    """The sum of each window, divided by how much of it counts: all, or what is not padding."""
    counted, ceil = g.static("count_pad", bool), g.static("ceil", bool)
    result = g.graph.get(g.names.get(g.called.results[0].node, ""))  # type: ignore[union-attr]
    if result is None or result.op != "div" or counted is None or (counted and ceil):
        return None
    found = windows.read_in_windows(g.graph, result.args[0], "reduce_sum")
    if found is None:
        return None
    sums, inner = found
    (read,), (total, count) = sums.args, result.args
    pad = g.graph[read]
    around = pad.op == "pad" and any(n != 0 for n in (*pad.attrs["low"], *pad.attrs["high"]))
    include = int(counted or not around)  # without padding of its own what is around x is part of it

    def rule(w: Walk, n: Node) -> Value:
        mean = windows.pooled(w.scope, sums, w.full(read), inner, "AveragePool", 0, count_include_pad=include)
        return mean or apply(w.scope, "Div", w.thin(total), w.thin(count))

    return Call(rule, (read, total, count))


def _local_response_norm(g: _Given) -> Call | None:
    """In ONNX alpha is divided by the size, and an even neighbourhood has its odd channel on the other side. ONNX
    Runtime takes images alone."""
    x, size = g.tensor("x"), g.static("size", int)
    alpha, beta, k = (g.static(name, float) for name in ("alpha", "beta", "k"))
    if x is None or size is None or size % 2 == 0 or None in (alpha, beta, k) or len(g.graph[x].shape) != 4:
        return None

    def rule(w: Walk, n: Node) -> Value:
        v = w.full(x)
        return w.scope.emit("LRN", v, type=(v.dtype, v.shape), size=size, alpha=alpha * size, beta=beta, bias=k)

    return Call(rule, (x,))


MAKERS: Mapping[str, Any] = {
    "softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"),
    "gelu": _unary("Gelu", 20),
    "gelu_tanh": _unary("Gelu", 20, approximate="tanh"),
    "leaky_relu": _unary("LeakyRelu", numbers={"slope": "alpha"}),
    "elu": _unary("Elu", numbers={"alpha": "alpha"}),
    "softplus": _unary("Softplus"),
    "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "avg_pool": _avg_pool,
    "local_response_norm": _local_response_norm,
}

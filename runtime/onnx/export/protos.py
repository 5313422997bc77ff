"""What was made in a scope, as protocol buffers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ....compiler.types.sizes import Dim
from .values import Body, Made, Scope, Value, onnx

TYPES = {"f32": "FLOAT", "f64": "DOUBLE", "i32": "INT32", "i64": "INT64", "bool": "BOOL", "u64": "UINT64"}
OURS = {"count", "kept", "of"}  # attributes that are for us


def code(dtype: str) -> int:
    """The number that ONNX has for a dtype."""
    return int(getattr(onnx().TensorProto, TYPES[dtype]))


def info(name: str, dtype: str, shape: Sequence[Dim] | None) -> Any:
    """A value with its type; sizes that are not known have names."""
    dims = None if shape is None else [n if isinstance(n, int) else str(n) for n in shape]
    return onnx().helper.make_tensor_value_info(name, code(dtype), dims)


def tensor(name: str, array: Any) -> Any:
    return onnx().numpy_helper.from_array(array, name)


def nodes(s: Scope, results: Iterable[str]) -> list[Any]:
    """The nodes that the results depend on, constants first."""
    made, read = s.live(results)
    return [*_constants(s, read), *(_node(m) for m in made)]


def _constants(s: Scope, read: set[str]) -> list[Any]:
    make = onnx().helper.make_node
    return [
        make("Constant", [], [name], name=name, value=tensor("", a)) for name, a in s.constants.items() if name in read
    ]


def _node(m: Made) -> Any:
    attrs: dict[str, Any] = {k: v for k, v in m.attrs.items() if k not in OURS}
    if m.op == "Cast":
        attrs["to"] = code(attrs["to"])
    if m.bodies:
        attrs["body"] = _body(m.bodies[0])
    name = m.results[0]
    return onnx().helper.make_node(m.op, [v.name for v in m.args], list(m.results), name=name, domain=m.domain, **attrs)


def _body(b: Body) -> Any:
    """Sizes of what is carried are known from outside."""
    names = [v.name for v in b.results]
    inputs = [info(v.name, v.dtype, _known(v)) for v in b.given]
    outputs = [info(v.name, v.dtype, _known(v)) for v in b.results]
    return onnx().helper.make_graph(nodes(b, names), "turn", inputs, outputs)


def _known(v: Value) -> list[Any]:
    return [n if isinstance(n, int) else None for n in v.shape]


def named(scope: Scope, results: Mapping[str, Value]) -> list[str]:
    """The results under their names: a node's own, or one of a copy."""
    now: dict[str, str] = {}  # of values that are a result already
    for name, v in results.items():
        if scope.maker(v) is None or v.name in now:  # an input, a constant, or what another result is
            v = scope.emit("Identity", replace(v, name=now.get(v.name, v.name)), type=(v.dtype, v.shape), of=name)
        scope.renamed(v.name, name)
        now[v.name] = name
    return list(results)

"""A graph of ONNX, node by node, into a text.

What is known, as weights, shapes and constants are, is computed with NumPy; an operator of ours writes the rest; an
operator that has none but is a function of others, by ONNX's own definition or the model's, is written as these.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.types.sizes import symbol
from ....compiler.types.tensors import TensorType
from ...call.arrays import NUMPY, Wanted, bind
from ...call.column import Array
from ...call.messages import unknown
from ...extras import optional
from . import operators
from .control import CONTROL
from .fold import FOLDED
from .modules import module_of
from .node import OPERATORS, Node
from .operators.unsigned import of_unsigned
from .refusals import Refusal, Refused, RefusedImport
from .result import Imported
from .text import Text
from .types import DTYPES, dtype_of, initial_dtype, tensor
from .values import Value, known

_COUNTS = {"batch": "B", "batch_size": "B", "n": "N"}  # sizes that are called so everywhere
_MOVING = ("ConstantOfShape", "Expand", "Gather", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")
MAX_NESTED = 40  # functions in functions
MALFORMED = (ArithmeticError, LookupError, TypeError, ValueError, StopIteration)  # of a node that the checker let pass


@dataclass(slots=True)
class Import:
    """The state of an import. `opsets` are the versions of the domains."""

    proto: Any  # the `onnx` package
    text: Text
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], Any]
    reads: Counter[str] = field(default_factory=Counter)  # how often each value is read
    module: tuple[str, ...] = ()  # that a function was called in
    taken: Counter[str] = field(default_factory=Counter)
    refusals: list[Refusal] = field(default_factory=list)

    def run(
        self, nodes: Sequence[Any], values: dict[str, Value], attributes: Mapping[str, Any], depth: int = 0
    ) -> None:
        """Write nodes; `values` by name grow by what they make; `attributes` are those of the function around them."""
        self.reads.update(i for node in nodes for i in node.input)
        for node in nodes:
            self._node(node, values, attributes, depth)

    def _node(self, node: Any, values: dict[str, Value], outer: Mapping[str, Any], depth: int) -> None:
        inputs: list[Value | None] = []
        for name in node.input:
            if name and name not in values:
                return  # of a node that was refused
            inputs.append(values[name] if name else None)
        name = node.name or next(iter(node.output), "")
        operator_name = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        self.text.module = (*self.module, *module_of(node))
        try:
            if operator_name in CONTROL and any(v is not None and v.unsigned for v in inputs):
                raise Refused("words without a sign do not go into a graph of its own")
            if operator_name in CONTROL:
                made: Sequence[Value | None] = CONTROL[operator_name](self, node, values, outer, depth)
            else:
                made = self._results(node, operator_name, name, tuple(inputs), outer, depth)
        except (*MALFORMED, Refused) as e:
            said = str(e) if isinstance(e, Refused) else f"its inputs and attributes do not fit one another: {e}"
            if depth:
                raise Refused(said) from None
            self.refusals.append(Refusal(name, operator_name, said))
            return
        if not depth:
            self.taken[operator_name] += 1
        values |= {n: v for n, v in zip(node.output, made, strict=False) if n and v is not None}

    def _results(
        self, node: Any, op: str, name: str, inputs: tuple[Value | None, ...], outer: Mapping[str, Any], depth: int
    ) -> Sequence[Value | None]:
        attributes = self._attributes(node, outer)
        unsigned = any(v is not None and v.unsigned for v in inputs)
        function = self.functions.get((node.domain, node.op_type))
        if function is not None and not unsigned:
            return self._call(function, inputs, attributes, len(node.output), depth)
        schema = self._schema(node)
        version = schema.since_version if schema is not None else 1
        once = tuple(self.reads[i] == 1 for i in node.input)
        outputs = tuple(o if self.reads[o] else "" for o in node.output)
        n = Node(op, name, version, inputs, attributes, outputs, self.text, once)
        words = of_unsigned(n)
        if words is not None:
            return (words,)
        if op in FOLDED and all(v is None or v.known is not None for v in inputs):
            folded = FOLDED[op](n)
            if folded is not None:
                return folded
        if op in OPERATORS:
            made = OPERATORS[op](n)
            return (_spread(n, made),) if isinstance(made, Value) else made
        body = self._body(schema, _resolved(self.proto, node, outer), inputs) if schema is not None else None
        if body is None:
            raise Refused("there is no such operator here" if schema is None else "this operator is not supported")
        defaults = {
            key: _plain(self.proto, a.default_value) for key, a in schema.attributes.items() if a.default_value.name
        }
        return self._call(body, inputs, {**defaults, **attributes}, len(node.output), depth)

    def _schema(self, node: Any) -> Any:
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            return self.proto.defs.get_schema(node.op_type, self.opsets.get(domain, 1), domain)
        except self.proto.defs.SchemaError:
            return None

    def _attributes(self, node: Any, outer: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for a in node.attribute:
            if a.ref_attr_name:
                if a.ref_attr_name in outer:
                    found[a.name] = outer[a.ref_attr_name]
                continue
            found[a.name] = _plain(self.proto, a)
        return found

    def _body(self, schema: Any, node: Any, inputs: Sequence[Value | None]) -> Any:
        """The function that an operator is by ONNX's definition, if it is one."""
        opset = self.opsets.get("" if node.domain == "ai.onnx" else node.domain, 1)
        if schema.has_function:
            versions = [v for v in schema.function_opset_versions if v <= opset]
            if versions:
                return _function(self.proto, schema.get_function_with_opset_version(max(versions)))
        if schema.has_context_dependent_function:
            versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
            if versions:
                types = [_type_proto(self.proto, v) for v in inputs]
                data = schema.get_context_dependent_function_with_opset_version(
                    max(versions), node.SerializeToString(), [t.SerializeToString() for t in types]
                )
                return _function(self.proto, data)
        return None

    def _call(
        self, function: Any, inputs: Sequence[Value | None], attributes: Mapping[str, Any], results: int, depth: int
    ) -> Sequence[Value | None]:
        if depth >= MAX_NESTED:
            raise Refused("functions call one another without end")
        defaults = {a.name: _plain(self.proto, a) for a in function.attribute_proto}
        values = {n: v for n, v in zip(function.input, inputs, strict=False) if v is not None}
        opsets = {o.domain: o.version for o in function.opset_import} or self.opsets
        inner = Import(self.proto, self.text, opsets, self.functions, module=self.text.module)
        inner.reads.update(i for node in function.node for i in node.input)
        inner.reads.update(function.output)
        for node in function.node:
            missing = [i for i in node.input if i and i not in values]
            if missing and all(i in function.input for i in missing):  # an input that the call leaves out
                node_ = type(node)()
                node_.CopyFrom(node)
                del node_.input[:]
                node_.input.extend("" if i in missing else i for i in node.input)
                inner._node(node_, values, {**defaults, **attributes}, depth + 1)
            else:
                inner._node(node, values, {**defaults, **attributes}, depth + 1)
        return [values.get(n) for n in list(function.output)[:results]]


def _spread(n: Node, made: Value) -> Value:
    """What moves the elements of a value that is one number everywhere makes another such value."""
    if made.known is not None or n.op not in _MOVING:
        return made
    number = n.attribute("value", np.zeros(1)).reshape(-1)[0] if n.op == "ConstantOfShape" else n.x.everywhere
    return replace(made, fill=None if number is None else float(number))


def _plain(proto: Any, a: Any) -> Any:
    """The value of an attribute: numbers, text, NumPy arrays, or lists of them."""
    value = proto.helper.get_attribute_value(a)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, proto.TensorProto):
        return tensor(proto, value)
    if isinstance(value, proto.GraphProto | proto.SparseTensorProto):
        raise Refused("graphs inside of nodes and sparse tensors are not supported")
    listed = not isinstance(value, int | float)
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value] if listed else value


def _resolved(proto: Any, node: Any, outer: Mapping[str, Any]) -> Any:
    """A node of a function whose attributes are those of the call: ONNX makes the body of another function of it."""
    if not any(a.ref_attr_name for a in node.attribute):
        return node
    made = type(node)()
    made.CopyFrom(node)
    del made.attribute[:]
    for a in node.attribute:
        if not a.ref_attr_name:
            made.attribute.append(a)
        elif a.ref_attr_name in outer:
            made.attribute.append(proto.helper.make_attribute(a.name, outer[a.ref_attr_name]))
    return made


def _function(proto: Any, data: Any) -> Any:
    if not isinstance(data, bytes):
        return data
    function = proto.FunctionProto()
    function.ParseFromString(data)
    return function


def _type_proto(proto: Any, v: Value | None) -> Any:
    made = proto.TypeProto()
    if v is not None:
        made.tensor_type.elem_type = next(k for k, d in DTYPES.items() if d == v.dtype)
        made.tensor_type.shape.SetInParent()
        for n in v.shape:
            dim = made.tensor_type.shape.dim.add()
            if isinstance(n, int):
                dim.dim_value = n
            else:
                dim.dim_param = str(n)
    return made


def import_graph(model: Any, path: str, *, name: str = "Net", fixed: Mapping[str, Any] | None = None) -> Imported:
    """A ModelProto as a text. `fixed` has values for inputs that are then constants of the text, as a shape is that an
    input gives.

    Raises RefusedImport (E0634), with all that cannot be imported; of `fixed`, UnknownNameError (E0608) for what is no
    input, and ArgumentError (E0601 to E0606) for a value that does not fit its input.
    """
    proto = optional("onnx", "onnx", "an ONNX graph is read with onnx")
    graph = model.graph
    given = [i.name for i in graph.input]
    for wrong in (fixed or {}).keys() - set(given):
        raise unknown("input", wrong, given)
    arrays, refusals = _initialisers(proto, graph)
    text = Text(name)
    values = {n: known(array, dtype, n) for n, (array, dtype) in arrays.items()}
    names, sizes = dict[str, str](), dict[str, str]()
    for info in graph.input:
        if info.name in arrays and info.name not in (fixed or {}):
            continue
        try:
            dtype, shape = _input_type(info, sizes, text)
            if fixed and info.name in fixed:
                values[info.name] = _constant(info.name, fixed[info.name], dtype, shape)
            else:
                values[info.name] = text.input(info.name, dtype, shape)
                names[values[info.name].name] = info.name
        except Refused as e:
            refusals.append(Refusal(info.name, "input", str(e)))
    if refusals:
        raise RefusedImport(path, refusals)
    if not graph.output:
        raise RefusedImport(path, [Refusal(graph.name, "graph", "it has no outputs")])
    twice = [n for n, k in Counter(n for node in graph.node for n in node.output if n).items() if k > 1 or n in values]
    twice += [n for n, k in Counter(i.name for i in graph.input).items() if k > 1]
    if twice:
        raise RefusedImport(path, [Refusal(n, "graph", "several values have this name") for n in twice])
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import} or {"": 1}
    newest = proto.defs.onnx_opset_version()
    if not 1 <= opsets.get("", 1) <= newest:
        said = f"what its operators mean is said up to opset {newest}, and this is {opsets['']}"
        raise RefusedImport(path, [Refusal(graph.name, "graph", said)])
    functions = {(f.domain, f.name): f for f in model.functions}
    state = Import(proto, text, opsets, functions, Counter(o.name for o in graph.output))
    _check_order(graph, values, path)
    state.run(graph.node, values, {})
    if state.refusals:
        raise RefusedImport(path, state.refusals)
    lacking = [Refusal(o.name, "output", "nothing makes it") for o in graph.output if o.name not in values]
    if lacking:
        raise RefusedImport(path, lacking)
    results = [(o.name, values[o.name]) for o in graph.output]
    if words := [Refusal(n, "output", "it has words without a sign") for n, v in results if v.unsigned]:
        raise RefusedImport(path, words)
    try:
        written = text.finish(results, _doc(model, path))
    except Refused as e:
        raise RefusedImport(path, [Refusal(path, "graph", str(e))]) from None
    outputs = {v.name: o.name for v, o in zip(written.outputs, graph.output, strict=True)}
    made_by = {o: node.op_type for node in graph.node for o in node.output}
    return Imported(
        written.text, name, written.arrays, dict(state.taken), names, outputs,
        {v.name: v.type for v in written.outputs}, {n: made_by.get(o, "") for n, o in outputs.items()},
    )  # fmt: skip


def _doc(model: Any, path: str) -> str:
    """Where the text is from."""
    maker = " ".join(filter(None, (model.producer_name, model.producer_version)))
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    said = f"# Imported from {Path(path).name}, opset {opset}" + (f", made by {maker}" if maker else "")
    return re.sub(r"[^\x20-\x7e]", "?", said) + ".\n"


def _check_order(graph: Any, values: Mapping[str, Value], path: str) -> None:
    """Each node stands behind those whose results it reads, as ONNX says."""
    seen, wrong = set(values), []
    for node in graph.node:
        wrong += [
            Refusal(node.name or node.op_type, node.op_type, f"it reads `{i}`, which no node before it makes")
            for i in node.input
            if i and i not in seen
        ]
        seen.update(node.output)
    if wrong:
        raise RefusedImport(path, wrong)


def _initialisers(proto: Any, graph: Any) -> tuple[dict[str, tuple[Array, str]], list[Refusal]]:
    arrays: dict[str, tuple[Array, str]] = {}
    refusals: list[Refusal] = []
    for t in graph.initializer:
        try:
            arrays[t.name] = tensor(proto, t), initial_dtype(t.data_type)
        except Refused as e:
            refusals.append(Refusal(t.name, "initialiser", str(e)))
    return arrays, refusals


def _input_type(info: Any, sizes: dict[str, str], text: Text) -> tuple[str, list[int | str]]:
    """The dtype of an input and its axes; free sizes keep their names."""
    if info.type.WhichOneof("value") != "tensor_type":
        raise Refused(f"an input must be a tensor, not a {info.type.WhichOneof('value') or 'value without a type'}")
    t = info.type.tensor_type
    dtype = dtype_of(t.elem_type)
    if not t.HasField("shape"):
        raise Refused("the number of its axes is not said")
    shape: list[int | str] = []
    for k, d in enumerate(t.shape.dim):
        if d.HasField("dim_value"):
            shape.append(d.dim_value)
            continue
        stem = d.dim_param or f"{info.name}_{k}"
        if stem not in sizes:
            sizes[stem] = text.size_name(_COUNTS.get(stem.lower(), stem))
        shape.append(sizes[stem])
    return dtype, shape


def _constant(name: str, value: Any, dtype: str, shape: Sequence[int | str]) -> Value:
    """The value of an input that is to be a constant, if it is one that the input could have."""
    type_ = TensorType(dtype, tuple(symbol(n) if isinstance(n, str) else n for n in shape))
    (array,), _ = bind("the graph", [Wanted(name, NUMPY[dtype], tuple(shape), type_)], [value])
    return known(array, dtype)


assert operators  # registers what it holds

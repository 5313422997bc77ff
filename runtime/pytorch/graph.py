"""A graph of PyTorch, call by call, into a text.

Parameters that one layer of the library reads are that layer's; others are declared by their names. Arithmetic on sizes
is done here, on the language's own sizes.
"""

from __future__ import annotations

import operator as python
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...compiler.elaborate.draft import Draft
from ...compiler.types.sizes import substitute
from ..call.column import Array
from ..onnx.importing.refusals import Refusal, Refused, RefusedImport
from ..onnx.importing.result import Imported
from ..onnx.importing.text import Text, formatted, identifier
from ..onnx.importing.types import unsupported
from ..onnx.importing.values import Value, known
from . import operators
from .call import OPERATORS, Call, Views, array_of
from .capture import Axes, Captured, capture, counts_batches, short
from .guards import guards
from .wholes import Whole, call_of, wholes

DTYPES = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "bool": "bool"}
_ON_SIZES = {python.add, python.sub, python.mul, python.floordiv, python.mod, python.neg, python.getitem}
_CHECKS = ("_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "sym_constrain_range_for_size")
_COMPARISONS = {python.eq, python.ne, python.lt, python.le, python.gt, python.ge}
# calls by which a layer of the library owns the parameters that it reads, at these arguments
_OWNING = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm",
    "layer_norm", "group_norm", "instance_norm", "rms_norm", "embedding", "lstm", "gru", "rnn_tanh", "rnn_relu",
)  # fmt: skip
# what gives the same memory, or may
_VIEWS = {
    "view", "reshape", "flatten", "unflatten", "transpose", "permute", "t", "unsqueeze", "squeeze", "expand", "select",
    "slice", "chunk", "split", "split_with_sizes", "unbind", "contiguous", "detach", "alias", "numpy_T", "movedim",
    "expand_as", "view_as", "getitem", "to", "narrow", "diagonal", "type_as", "dropout", "feature_dropout",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Taken:
    """A module as text. `paths` has for each entry of the module's state the variables of the text that hold it, one
    behind the other along axis 0; `rest` the tensors of those that the text does not hold."""

    imported: Imported
    paths: Mapping[str, tuple[str, ...]]
    rest: Mapping[str, Any]
    order: tuple[str, ...]  # all entries, as the module has them
    frozen: tuple[str, ...]  # parameters of layers that ask for no gradient; outside of layers they are states


@dataclass(slots=True)
class Walk:
    """The state of an import: values by the names of nodes; what a refused node should have made is not there."""

    text: Text
    captured: Captured
    origins: dict[str, str]  # by placeholder: the name of a parameter or buffer in the module's state
    state: Mapping[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    views: Views = field(default_factory=Views)
    wholes: Mapping[str, Whole] = field(default_factory=dict)
    zeros: set[str] = field(default_factory=set)
    named: dict[int, tuple[str, int]] = field(default_factory=dict)  # by the identity of an array: whose part it is
    declared: dict[int, Value] = field(default_factory=dict)  # by the identity of a tensor: what reads it by name
    kept: list[Array] = field(default_factory=list)  # so that identities last

    def run(self) -> list[Any]:
        """Write all nodes; the results."""
        results: list[Any] = []
        reads = self._reads()
        self.wholes = {
            n: w
            for n, w in self.wholes.items()
            if all(reads[id(p)] == 1 for p in w.module.parameters()) and _agree(list(w.module.parameters()))
        }
        for node in self.captured.program.graph.nodes:
            try:
                if node.op == "placeholder":
                    self._placeholder(node, reads)
                elif node.op == "output":
                    results = list(node.args[0])
                    for condition in guards(self.captured.program, self.captured.sizes):
                        self.text.require(condition, "the module was traced for other sizes")
                elif not _is_idle(node):
                    self._call(node)
            except Refused as e:
                kind = short(node.target)
                if node.op == "placeholder":
                    kind = "state" if node.name in self.origins else "input"
                self.refusals.append(Refusal(self.origins.get(node.name, node.name), kind, str(e)))
        return [] if self.refusals else [self.values[r.name] if hasattr(r, "name") else r for r in results]

    def paths(self, arrays: Mapping[str, Array]) -> dict[str, tuple[str, ...]]:
        """By the names of the module's state, the variables of the text of which each is made, which are `arrays`."""
        parts: dict[str, dict[int, str]] = {}
        for path, array in arrays.items():
            if id(array) in self.named:
                name, k = self.named[id(array)]
                parts.setdefault(name, {})[k] = path
        return {name: tuple(of_it[k] for k in sorted(of_it)) for name, of_it in parts.items()}

    # --- what is given

    def _reads(self) -> Counter[int]:
        """How often each parameter or buffer is read, whatever names it has."""
        reads: Counter[int] = Counter()
        for node in self.captured.program.graph.nodes:
            if node.op == "placeholder" and node.name in self.origins:
                users = sum(sum(a is node for a in u.all_input_nodes) for u in node.users if not counts_batches(u))
                reads[id(self.state[self.origins[node.name]])] += users
        return reads

    def _placeholder(self, node: Any, reads: Mapping[int, int]) -> None:
        if node.name not in self.origins:
            self.values[node.name] = self._input(node)
            return
        origin = self.origins[node.name]
        tensor = self.state[origin]
        users = [u for u in node.users if not counts_batches(u)]
        if not users:
            return
        array = self._array(tensor, origin)
        is_parameter = bool(tensor.requires_grad) or type(tensor).__name__ == "Parameter"
        owned = reads[id(tensor)] == 1 and short(users[0].target) in _OWNING and (is_parameter or _learns(users[0]))
        owned = owned and _agree(
            [self.state[self.origins[a]] for a in map(str, users[0].all_input_nodes) if a in self.origins]
        )
        dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
        if is_parameter and dtype != "f32":
            raise Refused('parameters are of float32: take `module.float()`, and dtype = "f64" computes in float64')
        if owned:
            self.values[node.name] = known(array, dtype, origin)
        elif id(tensor) in self.declared:
            self.values[node.name] = self.declared[id(tensor)]
        else:
            role = ("bias" if array.ndim < 2 else "weight") if tensor.requires_grad else "state"
            self.values[node.name] = self.declared[id(tensor)] = self.text.variable(role, origin, dtype, array)

    def _array(self, tensor: Any, origin: str) -> Array:
        name = str(tensor.dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise unsupported(name)
        array = array_of(tensor)
        self.kept.append(array)
        self.named[id(array)] = origin, 0
        return array

    def _input(self, node: Any) -> Value:
        value = node.meta["val"]
        dtype = DTYPES.get(str(value.dtype).removeprefix("torch."))
        if dtype is None:
            raise unsupported(str(value.dtype).removeprefix("torch."))
        if dtype == "i64" and all(short(u.target) in ("embedding", "sym_size") for u in node.users):
            dtype = "i32"  # rows of a table are counted so
        shape: list[int | str] = []
        for d in value.shape:
            if not isinstance(d, int) and str(d) not in self.captured.sizes:
                raise Refused(f"its shape {list(value.shape)} depends on another's")
            shape.append(d if isinstance(d, int) else self.captured.sizes[str(d)])
        return self.text.input(node.name, dtype, shape)

    # --- what is computed

    def _call(self, node: Any) -> None:
        if node.op == "get_attr":
            raise Refused("a block of its own, as under `no_grad` or `autocast`, is not supported: use `detach`")
        whole = self.wholes.get(node.name)
        if whole is not None:
            if node is whole.result and whole.source.name in self.values:
                self.values[node.name] = self._attention(whole)
                self.taken["multi_head_attention"] += 1
            return
        if any(a.name not in self.values for a in node.all_input_nodes):
            return  # of a node that was refused
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        self.text.module = tuple(str(stack[-1][0]).split(".")) if stack and stack[-1][0] else ()
        op = short(node.target)
        if node.target is python.getitem:
            parts, k = self._read(node.args[0]), node.args[1]
            if k >= len(parts):
                raise Refused(f"result {k} of `{short(node.args[0].target)}` is not supported")
            self.values[node.name] = parts[k]
            return
        if node.target in _ON_SIZES:
            self.values[node.name] = node.target(*self._read(node.args))
            return
        if node.target in _COMPARISONS:
            self.values[node.name] = None  # of sizes, for a check: the text has checks of its own
            return
        writer = op if op in OPERATORS or not op.endswith("_") else op[:-1]
        if writer != op:
            self._check_in_place(node)
        if writer not in OPERATORS:
            raise Refused("this operator is not supported")
        made = OPERATORS[writer](self._of(node, writer))
        if writer != op:
            self.values[node.args[0].name] = made
        self._check(node, made)
        self.values[node.name] = made
        self.taken[op] += 1

    def _attention(self, whole: Whole) -> Value:
        """A module of attention as the library's layer; what it has in one matrix are three layers there."""
        module, x = whole.module, self.values[whole.source.name]
        arrays: dict[str, Array] = {}
        for of_module, of_layer in (("in_proj_weight", "W"), ("in_proj_bias", "b")):
            if getattr(module, of_module) is None:
                continue
            array = self._array(getattr(module, of_module), f"{whole.path}.{of_module}")
            for k, part in enumerate(("query", "key", "value")):
                rows = arrays[f"{part}.{of_layer}"] = array[k * len(array) // 3 : (k + 1) * len(array) // 3]
                self.kept.append(rows)
                self.named[id(rows)] = f"{whole.path}.{of_module}", k
        arrays["result.W"] = self._array(module.out_proj.weight, f"{whole.path}.out_proj.weight")
        if module.out_proj.bias is not None:
            arrays["result.b"] = self._array(module.out_proj.bias, f"{whole.path}.out_proj.bias")
        if not module.batch_first:
            x = self.text.emit("transpose({0}, [1, 0, 2])", x, stem=whole.path)
        y = self.text.layer(x, whole.path, call_of(whole), arrays)
        return y if module.batch_first else self.text.emit("transpose({0}, [1, 0, 2])", y, stem=whole.path)

    def _read(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._read(v) for v in value]
        return self.values[value.name] if hasattr(value, "all_input_nodes") else value

    def _of(self, node: Any, op: str) -> Call:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            raise Refused("this operator is not supported")
        named: dict[str, Any] = {a.name: a.default_value for a in schema.arguments}
        named |= {a.name: self._read(v) for a, v in zip(schema.arguments, node.args, strict=False)}
        named |= {n: self._read(v) for n, v in node.kwargs.items()}
        tensors = tuple(v for v in named.values() if isinstance(v, Value))
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]) if stack else ""
        first = _first(node.meta.get("val"))
        dtype = DTYPES.get(str(getattr(first, "dtype", "")).removeprefix("torch."), "")
        label = path.replace(".", "_")
        return Call(op, node.name, 0, tensors, named, (node.name,), self.text, (), label, dtype, self.views, self.zeros)

    def _check_in_place(self, node: Any) -> None:
        """What is changed in place is a new value, where nothing looks at the same memory later by another name."""
        root = node.args[0]
        while root.op == "call_function" and short(root.target) in _VIEWS:
            root = root.args[0]
        later = False
        for n in _same_memory(root):
            later |= n is not node.args[0] and n < node and any(node < u for u in n.users)
        if later or root.op == "placeholder":
            raise Refused("it changes in place what is also seen elsewhere: an input, a parameter or a view")

    def _check(self, node: Any, made: Any) -> None:
        """What was written has the dtype and the sizes that PyTorch says."""
        values = made if isinstance(made, list | tuple) else [made]
        metas = node.meta.get("val")
        metas = metas if isinstance(metas, list | tuple) else [metas]
        for value, meta in zip(values, metas, strict=False):
            if not isinstance(value, Value) or not hasattr(meta, "dtype"):
                continue
            dtype = DTYPES.get(str(meta.dtype).removeprefix("torch."))
            found = [substitute(d, self.captured.examples) for d in value.shape]
            wanted_sizes = [d if isinstance(d, int) else d.node.hint for d in meta.shape]
            if found != wanted_sizes or dtype != value.dtype:
                wanted = f"{dtype}{list(meta.shape)}"
                raise Refused(f"the text would make {value.type} of it, PyTorch makes {wanted}")


def _same_memory(root: Any) -> list[Any]:
    """A node and all that are, or may be, views of it."""
    found = [root]
    for n in found:
        found += [u for u in n.users if short(u.target) in _VIEWS and u.args[0] is n]
    return found


def _is_idle(node: Any) -> bool:
    """Whether nothing depends on a node: a check, a count of batches, a result that nobody reads."""
    unread = node.target is python.getitem and not node.users
    return unread or short(node.target) in _CHECKS or counts_batches(node)


def _learns(node: Any) -> bool:
    """Whether a call has running averages that it goes on with."""
    return short(node.target) == "batch_norm" and bool(node.args[5])


def _agree(tensors: Sequence[Any]) -> bool:
    """Whether the parameters of one layer are all trained, or none: the language freezes layers."""
    return len({t.requires_grad for t in tensors if type(t).__name__ == "Parameter"}) < 2


def _first(meta: Any) -> Any:
    return _first(meta[0]) if isinstance(meta, list | tuple) and meta else meta


def import_module(
    module: Any, inputs: Any, *, axes: Axes | None = None, mode: str = "both", name: str = "", train: str = ""
) -> Taken:
    """A module as the text of a model; see `capture` for the arguments. `train` is a train block, or more, that stands
    behind the model. Raises RefusedImport (E0634), with all that cannot be written."""
    captured = capture(module, inputs, axes, mode)
    kind = type(module).__name__
    made = identifier(name or kind)
    text = Text(made if not Draft(made).is_taken(made) else f"{made}Net")
    program = captured.program
    spec = program.graph_signature
    origins = {**spec.inputs_to_parameters, **spec.inputs_to_buffers, **spec.inputs_to_lifted_tensor_constants}
    state = _tensors(module, program)
    walk = Walk(text, captured, origins, state, wholes=wholes(module, program))
    results = walk.run()
    if walk.refusals:
        raise RefusedImport(kind, walk.refusals)
    try:
        written = text.finish(_called(program, results))
    except Refused as e:
        raise RefusedImport(kind, [Refusal(kind, "graph", str(e))]) from None
    entries = module.state_dict(keep_vars=True)
    by_tensor = {id(state[n]): paths for n, paths in walk.paths(written.arrays).items()}
    held = {n: by_tensor[id(t)] for n, t in entries.items() if id(t) in by_tensor}
    rest = {n: t.detach().clone() for n, t in entries.items() if n not in held}
    still = [n for n, p in module.named_parameters() if not p.requires_grad]
    frozen = tuple(path for n in still for path in held.get(n, ()) if path.count(".") > 1)
    inputs_ = {v.name: n for v, n in zip(text.inputs, captured.inputs, strict=True)}
    types = {v.name: v.type for v in written.outputs}
    source = formatted(f"{written.text}\n{train}") if train else written.text
    imported = Imported(
        source, text.model, written.arrays, dict(walk.taken), inputs_, {n: n for n in types}, types, {}
    )  # fmt: skip
    return Taken(imported, held, rest, tuple(entries), frozen)


def _tensors(module: Any, program: Any) -> dict[str, Any]:
    """Parameters, buffers and constants by name; those with several names are one tensor."""
    named = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    return {**program.constants, **named}


def _called(program: Any, results: Sequence[Any]) -> list[tuple[str, Value]]:
    """Results by what they are called: by the keys of a dict, else y, or y_1, y_2 ..."""
    values: list[Value] = []
    for r in results:
        if not isinstance(r, Value):
            raise RefusedImport("the module", [Refusal("output", "output", f"it must be a tensor, not {r}")])
        values.append(r)
    spec = program.call_spec.out_spec
    keys = spec.context if spec.type is dict else None
    if keys is not None and len(keys) == len(values):
        return [(str(k), v) for k, v in zip(keys, values, strict=True)]
    return [("y" if len(values) == 1 else f"y_{k + 1}", v) for k, v in enumerate(values)]


assert operators  # registers what it holds

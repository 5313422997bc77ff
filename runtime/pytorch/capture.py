"""What a module computes, by `torch.export`: one graph of operators, that of training, which inference shares.

A module is exported in both modes. They may differ in what batch normalisation and dropout do, which the language says
by layers of its own; where they differ in more, neither graph alone is the module.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..call.messages import argument_error
from ..extras import optional
from ..onnx.importing.refusals import Refusal, RefusedImport

Axes = Mapping[str, Mapping[int, str]]  # by input: the axes that are free, and what their sizes are called
_FLAGS = {"batch_norm": 5, "instance_norm": 5, "lstm": 6, "gru": 6, "rnn_tanh": 6, "rnn_relu": 6}  # "is it training"
_ASSIGNED = re.compile(r"self\.[\w.]+")  # attributes, in a warning of torch that they were assigned
_ALWAYS = "it does in inference what belongs to training: give it `training = self.training`"
_DROPOUT = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


@dataclass(frozen=True, slots=True)
class Captured:
    """`program` is the ExportedProgram; `sizes` the names of its symbols, `examples` what these are in the inputs."""

    program: Any
    sizes: Mapping[str, str]
    examples: Mapping[str, int]
    inputs: tuple[str, ...]


def capture(module: Any, inputs: Any, axes: Axes | None = None, mode: str = "both") -> Captured:
    """`inputs` is a tensor, a tuple of positional ones, or a dict by the names that `forward` has for them. By default
    axis 0 of each is free and called B; `axes` says which are, {} that none is.

    `mode` "both" wants that training and inference are one computation but for batch normalisation and dropout; "eval"
    and "train" take that of one of them. Raises RefusedImport (E0634).
    """
    torch = optional("torch", "torch", "a PyTorch module is read with torch")
    if not isinstance(module, torch.nn.Module):
        raise argument_error("E0602", f"the module must be a torch.nn.Module, not {type(module).__name__}")
    if mode not in ("both", "train", "eval"):
        raise argument_error("E0603", f'mode must be "both", "train" or "eval", not {mode!r}')
    given = _bound(torch, module, inputs)
    free = _free(given, axes)
    given = _widened(torch, given, free)
    shapes = {n: dict.fromkeys(free[n], torch.export.Dim.DYNAMIC) or None for n in given}
    kind = type(module).__name__
    with _modes_kept(module):
        program = _exported(torch, module, given, shapes, training=mode != "eval")
        if mode == "both":
            refusals = _differences(program.graph, _exported(torch, module, given, shapes, training=False).graph)
            if refusals:
                raise RefusedImport(kind, refusals)
    examples = {name: int(given[n].shape[axis]) for n, axes_ in free.items() for axis, name in axes_.items()}
    return Captured(program, _symbols(program, free), examples, tuple(given))


def _bound(torch: Any, module: Any, inputs: Any) -> dict[str, Any]:
    """The examples by the names of the parameters of `forward`."""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    if isinstance(inputs, Mapping):
        kwargs = inputs
    else:
        args = inputs if isinstance(inputs, tuple | list) else (inputs,)
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as e:
        raise argument_error("E0604", f"the example inputs are not those of `forward`: {e}") from None
    for name, value in bound.arguments.items():
        if not isinstance(value, torch.Tensor):
            what = f"the example of `{name}` must be a tensor, not {type(value).__name__}"
            raise argument_error("E0602", what, "what is no tensor is said in a module around this one")
    return dict(bound.arguments)


def _free(given: Mapping[str, Any], axes: Axes | None) -> dict[str, Mapping[int, str]]:
    if axes is None:
        return {n: {0: "B"} if x.dim() else {} for n, x in given.items()}
    for name in axes:
        if name not in given:
            raise argument_error("E0604", f"axes names `{name}`, but the inputs are {', '.join(given)}")
        for axis, size in axes[name].items():
            if not 0 <= axis < given[name].dim():
                raise argument_error("E0603", f"`{name}` has no axis {axis}: it has {given[name].dim()} axes")
            if not (isinstance(size, str) and size.isidentifier()):
                raise argument_error("E0602", f"axis {axis} of `{name}` must be called by a name, not {size!r}")
    return {n: axes.get(n, {}) for n in given}


def _widened(torch: Any, given: Mapping[str, Any], free: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """A size of 1 cannot be told from one that is always 1, so an example of it is taken twice."""
    single = {name for n, x in given.items() for axis, name in free[n].items() if x.shape[axis] == 1}
    made: dict[str, Any] = {}
    for n, x in given.items():
        for axis, name in free[n].items():
            x = torch.cat([x, x], axis) if name in single else x
        made[n] = x
    return made


@contextmanager
def _modes_kept(module: Any) -> Iterator[None]:
    """Whatever happens, each part is in the mode in which it was."""
    modes = {m: m.training for m in module.modules()}
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


def _exported(torch: Any, module: Any, given: Mapping[str, Any], shapes: Mapping[str, Any], training: bool) -> Any:
    module.train(training)
    kinds = [p.kind for n, p in inspect.signature(module.forward).parameters.items() if n in given]
    args = tuple(x for x, k in zip(given.values(), kinds, strict=True) if k is not inspect.Parameter.KEYWORD_ONLY)
    named = dict(list(given.items())[len(args) :])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            program = torch.export.export(module, args, named, dynamic_shapes=dict(shapes), strict=False)
        except Exception as e:  # whatever the module's own code raises when it is traced
            said = " ".join(str(e).split())[:400] or type(e).__name__
            raise RefusedImport(type(module).__name__, [Refusal("forward", "torch.export", said)]) from e
    for text in (str(w.message) for w in told):
        kept = [n for n in _ASSIGNED.findall(text) if "_flat_weights" not in n] if "during export" in text else []
        if kept:
            what = f"`{kept[0]}` is kept from call to call: register it as a buffer, or return it"
            raise RefusedImport(type(module).__name__, [Refusal("forward", "torch.export", what)])
    return program


def _symbols(program: Any, free: Mapping[str, Mapping[int, str]]) -> dict[str, str]:
    """What symbols of torch are called in the text: those of one name are one size there."""
    found: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in free:
            for axis, name in free[node.name].items():
                found[str(node.meta["val"].shape[axis])] = name
    return found


# --- the two modes ----------------------------------------------------------------------------------------------------


def short(target: Any) -> str:
    """The name of an operator: `conv2d` of `aten::conv2d`."""
    schema = getattr(target, "_schema", None)
    return str(schema.name.partition("::")[2]) if schema is not None else getattr(target, "__name__", str(target))


def counts_batches(node: Any) -> bool:
    """Whether a node counts the batches that a batch normalisation has seen, which nothing but more counting reads."""
    base = node
    while short(base.target) == "add_":
        base = base.args[0]
    counted = base is not node and base.op == "placeholder" and base.name.endswith("num_batches_tracked")
    return bool(counted) and all(counts_batches(u) for u in node.users)


def _differences(train: Any, inference: Any) -> list[Refusal]:
    always = [Refusal(n.name, short(n.target), _ALWAYS) for n in inference.nodes if _is_training(n)]
    if always:
        return always
    a, b = _steps(train), _steps(inference)
    for one, other in zip(a, b, strict=False):
        if one[1:] != other[1:]:
            said = f"in training the module computes this, in inference `{other[1]}`"
            return [Refusal(one[0], one[1], f'{said}: choose by `mode = "eval"` or "train"')]
    if len(a) != len(b):
        extra, which = (a[len(b)], "training") if len(a) > len(b) else (b[len(a)], "inference")
        return [
            Refusal(
                extra[0], extra[1], f'the module computes this only in {which}: choose by `mode = "eval"` or "train"'
            )
        ]
    return []


def _is_training(node: Any) -> bool:
    """Whether a call drops, or takes the averages of the batch."""
    if node.op != "call_function":
        return False
    name, args = short(node.target), dict(enumerate(node.args))
    if name in _DROPOUT:
        return bool(args.get(2) and args.get(1))
    if name == "scaled_dot_product_attention":
        return bool(args.get(4) or node.kwargs.get("dropout_p"))
    return name == "batch_norm" and bool(args.get(5)) and args.get(3) is not None


def _steps(graph: Any) -> list[tuple[str, str, str]]:
    """Each node as its name, its operator and what it reads, numbered in their order; without what the modes may differ
    in."""
    numbers: dict[str, str] = {}
    found: list[tuple[str, str, str]] = []
    for node in graph.nodes:
        name = short(node.target) if node.op == "call_function" else node.op
        if name in _DROPOUT:
            numbers[node.name] = numbers[node.args[0].name]
            continue
        if node.op == "call_function" and counts_batches(node):
            continue
        args = list(node.args)
        if name in _FLAGS and _FLAGS[name] < len(args):
            args[_FLAGS[name]] = None
        if name == "scaled_dot_product_attention":
            args = [a for k, a in enumerate(args) if k != 4 and not (k == 3 and a is None)]
        if node.op == "placeholder":
            args = [node.target]
        numbers[node.name] = f"%{len(found)}"
        found.append((node.name, name, _read(args, numbers) + _read(sorted(node.kwargs.items()), numbers)))
    return found


def _read(value: Any, numbers: Mapping[str, str]) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_read(v, numbers) for v in value)}]"
    return numbers[value.name] if hasattr(value, "all_input_nodes") else repr(value)

"""The graph of one step: forward, loss and metrics; in `train` also backward, the optimiser, what training counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ....dsl import ast
from ....dsl.errors import error
from ...manifest import Port
from ...types.tensors import FLOATS
from ..context import Context, Home
from ..inputs import call_model, input_leaf
from ..scope import Instance, Scope
from ..shapes import tensor
from ..values import Group, Results, Tensor
from ..variables import group, step_names
from .optimization import gradients, optimize
from .settings import SETTINGS, is_sum, stop_condition

TRAINABLE = ("weight", "bias")  # roles of variables


@dataclass(slots=True)
class _Step:
    """A forward pass, and what the train block makes of it."""

    train: ast.Train
    model: str
    scope: Scope
    inputs: dict[str, Tensor]
    parameters: Group
    loss: Tensor | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, ast.Assign] = field(default_factory=dict)  # that are parts of the graph

    @property
    def outputs(self) -> dict[str, Tensor]:
        return self.metrics if self.loss is None else {"loss": self.loss, **self.metrics}


def grow(cx: Context, entry: str) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """The graph of `train`, `evaluate`, `loss` or `gradients`: outputs by name, updates by path."""
    step = _forward(cx, training=entry != "evaluate")
    if entry != "train":
        cx.updates.clear()
    _body(cx, step, with_metrics=entry in ("train", "evaluate"))
    match entry:
        case "train":
            return _train(cx, step)
        case "evaluate":
            return step.outputs, {}
    assert step.loss is not None
    if entry == "loss":
        return {"loss": step.loss}, {}
    floats = {name: t for name, t in step.inputs.items() if t.dtype in FLOATS}
    return gradients(cx, step.loss, {**step.parameters.members, **floats}, step.train), {}


def ports(program: Home) -> tuple[Port, ...]:
    """The inputs of the train block, in its order."""
    leaves = _inputs(program.context("ports"), Scope(program.scope))
    return tuple(Port(name, t.dtype, t.shape) for name, t in leaves.items())


def _forward(cx: Context, training: bool) -> _Step:
    """The model called on the block's inputs; its results and variables bound to their names."""
    train, model = cx.program.train, cx.program.model
    assert train is not None and model is not None
    cx.training = training
    cx.ambient = dict(step_names(cx))
    scope = Scope(cx.program.scope, Instance(model.name))
    inputs = _inputs(cx, scope)
    value = call_model(cx, model, {p.name: inputs[p.name] for p in model.parameters if p.name in inputs})
    results = value.items if isinstance(value, Results) else (value,)
    for r, item in zip(model.results, results, strict=False):
        scope.bind(r.name or "output", item, r.span)
    return _Step(train, model.name, scope, inputs, _bind_variables(cx, model.name, scope))


def _body(cx: Context, step: _Step, with_metrics: bool) -> None:
    """What the statements of the block say, in order; settings of the optimiser wait for the loss."""
    for item in step.train.body:
        match item:
            case ast.Assign(targets=(ast.Target(name="loss", indices=None),), value=e):
                step.loss = _loss(cx, e, step.scope)
            case ast.Assign(targets=(ast.Target(name=name, indices=None),)) if name in SETTINGS:
                step.settings[name] = item
            case ast.Assign():
                cx.run((item,), step.scope)
            case ast.Metric(name=name, value=e) if with_metrics:
                step.metrics[name] = _metric(cx, name, e, step.scope)
                step.scope.bind(name, step.metrics[name], item.span)


def _loss(cx: Context, e: ast.Expr, scope: Scope) -> Tensor:
    loss = tensor(cx, cx.evaluate(e, scope), e.span, cx.real)
    if loss.rank or loss.dtype not in FLOATS:
        raise error(
            "E0402",
            f"the loss must be a scalar float, but this is {loss.type}",
            e.span,
            help="average it: `mean(...)`",
        )
    scope.bind("loss", loss, e.span)
    return loss


def _metric(cx: Context, name: str, e: ast.Expr, scope: Scope) -> Tensor:
    m = tensor(cx, cx.evaluate(e, scope), e.span, cx.real)
    if m.rank:
        raise error(
            "E0303", f"a metric must be a scalar, but `{name}` is {m.type}", e.span, help="average it: `mean(...)`"
        )
    if m.dtype == "bool" or (m.dtype not in FLOATS and not is_sum(e)):
        return cx.emit("cast", m, span=e.span, dtype=cx.real)
    return m


def _train(cx: Context, step: _Step) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """The outputs with those that only `stop when` looks at, and the updates."""
    outputs = step.outputs
    hidden: list[ast.Expr] = []
    for s in step.train.body:
        if isinstance(s, ast.StopWhen):
            stop_condition(cx, s.condition, set(outputs), hidden)
    for k, e in enumerate(hidden):
        h = tensor(cx, cx.evaluate(e, step.scope), e.span, cx.real)
        if h.rank:
            raise error("E0303", f"`stop when` compares scalars, but this is {h.type}", e.span)
        outputs[f"stop_{k + 1}"] = h if h.dtype == cx.real else cx.emit("cast", h, span=e.span, dtype=cx.real)
    rules = [i for i in step.train.body if isinstance(i, ast.UpdateRule)]
    if rules:
        cx.run(rules[-1].body, step.scope)
    else:
        assert step.loss is not None
        parameters = group(cx, step.model, TRAINABLE)  # also those that only the loss called for
        optimize(cx, step.scope, parameters, step.loss, step.settings, step.train)
    t = cx.variable("train/t")
    cx.updates["train/t"] = cx.emit("add", t, cx.constant(1, "i64"), span=None)
    return outputs, cx.updates


def _inputs(cx: Context, scope: Scope) -> dict[str, Tensor]:
    """Leaves for the train block's parameters: the model's inputs with the model's types, then the targets."""
    train, model = cx.program.train, cx.program.model
    assert train is not None and model is not None
    own = {p.name: p for p in model.parameters}
    local = Scope(cx.program.scope)
    out: dict[str, Tensor] = {}
    for p in sorted(train.parameters, key=lambda p: p.name not in own):
        declared = own[p.name] if p.type is None or p.name in own else p
        out[p.name] = input_leaf(cx, declared, local)
    for p in train.parameters:
        scope.bind(p.name, out[p.name], p.span)
    for name, value in local.names.items():
        if name not in scope.names:
            scope.bind(name, value)
    return {p.name: out[p.name] for p in train.parameters}


def _bind_variables(cx: Context, model: str, scope: Scope) -> Group:
    """Bind `weights`, `biases`, `params` and the model's own variables by name; returns the trainable ones."""
    assert scope.instance is not None
    trainable = group(cx, model, TRAINABLE)
    scope.bind("params", trainable)
    scope.bind("weights", group(cx, model, ("weight",)))
    scope.bind("biases", group(cx, model, ("bias",)))
    prefix = f"{model}."
    for path in cx.program.variables:
        name = path[len(prefix) :]
        if path.startswith(prefix) and name.isidentifier() and "." not in name:
            scope.instance.variables[name] = path
            if name not in scope.names:
                scope.bind(name, cx.variable(path))
    return trainable

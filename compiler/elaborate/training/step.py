"""The graph of one step: forward, loss and metrics; in `train` also backward, the optimiser, what training counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from functools import partial, reduce

from ....dsl import ast
from ....dsl.diagnostics import Label
from ....dsl.errors import error
from ....dsl.record import dataclass, field
from ....dsl.source import Span
from ....dsl.tree import walk
from ...manifest import Port
from ...types.tensors import FLOATS, TensorType
from ..context import Context
from ..home import Home
from ..inputs import call_model, home_of, input_leaf
from ..scope import Instance, Scope
from ..shapes import tensor
from ..signatures import is_kind
from ..values import POISON, Group, Results, Tensor, Value, kind
from ..variables import GROUPS, group, meet, step_names
from .optimization import Goal, gradients, optimize
from .settings import SETTINGS, is_sum, stop_condition

TRAINABLE = GROUPS["params"]
GROUP = "for example `params(Net.body)`"


@dataclass(slots=True)
class _Step:
    """A forward pass, and what the train block makes of it."""

    train: ast.Train
    model: str
    scope: Scope
    inputs: dict[str, Tensor]
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, ast.Assign] = field(default_factory=dict)  # that are parts of the graph

    @property
    def outputs(self) -> dict[str, Tensor]:
        return {**self.losses, **self.metrics}


def grow(cx: Context, entry: str) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """The graph of `train`, `evaluate`, `loss` or `gradients`: outputs by name, updates by path. That of `shards` is
    the one of `train` where a batch is cut into some: they meet in metrics, states and gradients."""
    cx.shards = entry == "shards"
    step = _forward(cx, training=entry != "evaluate")
    if entry not in ("train", "shards"):
        cx.updates.clear()
    _body(cx, step, with_metrics=entry in ("train", "shards", "evaluate"))
    match entry:
        case "train" | "shards":
            return _train(cx, step)
        case "evaluate":
            return step.outputs, {}
    if entry == "loss":
        return step.losses, {}
    return _gradients(cx, step), {}


def ports(program: Home) -> tuple[Port, ...]:
    """The inputs of the train block, in its order."""
    leaves = _inputs(program.context("ports"), Scope(program.scope))
    return tuple(Port(name, t.dtype, t.shape) for name, t in leaves.items() if isinstance(t, Tensor))


def _forward(cx: Context, training: bool) -> _Step:
    """The model called on the block's inputs; its results and variables bound to their names."""
    train, model = cx.program.train, cx.program.model
    assert train is not None and model is not None
    cx.training = training
    cx.site = "train"  # the block draws the same numbers in all of its entries
    cx.ambient = dict(step_names(cx))
    scope = Scope(cx.program.scope, Instance(model.name))
    inputs = _inputs(cx, scope)
    value: Value = POISON
    with cx.recovering():
        given = (p for p in model.parameters if p.name in inputs or not is_kind(p.type))
        value = call_model(cx, model, {p.name: inputs.get(p.name, POISON) for p in given})
    results = value.items if isinstance(value, Results) else (value,)
    if value is POISON:
        results = (POISON,) * len(model.results)
    for r, item in zip(model.results, results, strict=False):
        scope.bind(r.name or "output", item, r.span)
    _bind_variables(cx, model.name, scope)
    if cx.is_unknown(model.name) or POISON in results:
        scope.doubtful.update(_assigned(model))
    return _Step(train, model.name, scope, {n: t for n, t in inputs.items() if isinstance(t, Tensor)})


def _assigned(model: ast.Layer) -> Iterator[str]:
    """The names that the body of a model gives a value, or may give one."""
    for node in walk(model):
        match node:
            case ast.Variable(name=name) | ast.Target(name=name):
                yield name
            case ast.Unread(names=names):
                yield from names


def _body(cx: Context, step: _Step, with_metrics: bool) -> None:
    """What the statements of the block say, in order; settings of the optimiser wait for the loss."""
    for item in step.train.body:
        match item:
            case ast.Unread():
                cx.run((item,), step.scope)
            case ast.Assign(targets=(ast.Target(name="loss", indices=None),), value=e):
                step.losses["loss"] = _loss(cx, "loss", e, step.scope)
            case ast.Minimize(name=name, value=e):
                step.losses[name] = _loss(cx, name, e, step.scope)
            case ast.Assign(targets=(ast.Target(name=name, indices=None),)) if name in SETTINGS:
                step.settings[name] = item
            case ast.Assign():
                cx.run((item,), step.scope)
            case ast.Metric(name=name, value=e) if with_metrics:
                step.scope.bind(name, POISON, item.span)
                with cx.recovering():
                    step.metrics[name] = _metric(cx, name, e, step.scope)
                    step.scope.bind(name, step.metrics[name], item.span)


def _loss(cx: Context, name: str, e: ast.Expr, scope: Scope) -> Tensor:
    """A loss by its name; one that is faulty is some scalar."""
    with cx.recovering():
        return _scalar_loss(cx, name, e, scope)
    loss = cx.stand_in(TensorType(cx.real), e.span)
    scope.bind(name, loss, e.span)
    return loss


def _scalar_loss(cx: Context, name: str, e: ast.Expr, scope: Scope) -> Tensor:
    if cx.shards and is_sum(e):
        what = f"`{name}` is a sum over the examples, and shards of a batch share means (`shards`)"
        raise error("E0203", what, e.span, help="`mean(...)` weighs examples in batches of any size alike")
    loss = tensor(cx, cx.evaluate(e, scope), e.span, cx.real)
    if loss.rank or loss.dtype not in FLOATS:
        raise error(
            "E0402",
            f"{'the loss' if name == 'loss' else f'`{name}`'} must be a scalar float, but this is {loss.type}",
            e.span,
            help="average it: `mean(...)`",
        )
    scope.bind(name, loss, e.span)
    return loss


def _goals(cx: Context, step: _Step) -> list[Goal]:
    """What is minimized, and over which parameters: each by one optimizer at most, what is frozen by none."""
    frozen: set[str] = set()
    if "freeze" in step.settings:
        with cx.recovering():
            frozen = set(_parameters(cx, "`freeze`", step.settings["freeze"].value, step.scope).members)
    goals: list[Goal] = []
    first: dict[str, Span] = {}
    if "loss" in step.losses and "optimizer" in step.settings:
        item = step.settings["optimizer"]
        whole = group(cx, [step.model], TRAINABLE)  # also those that only the loss called for
        over = _without(whole, frozen, step)
        return [Goal("loss", step.losses["loss"], ((over, item.value, item.span),), step.train.span)]
    for s in step.train.body:
        if isinstance(s, ast.Minimize):
            parts: list[tuple[Group, ast.Expr, Span]] = []
            for e, optimizer in zip(s.groups, s.optimizers, strict=True):
                part = Group({})
                with cx.recovering():
                    part = _parameters(cx, "`over`", e, step.scope)
                    for path in part.members:
                        if path in first:
                            what = f"`{path}` is trained twice, but a parameter learns from one loss"
                            raise error("E0203", what, e.span, "", Label(first[path], "first here"))
                        first[path] = e.span
                parts.append((_without(part, frozen, step), optimizer, optimizer.span))
            goals.append(Goal(s.name, step.losses[s.name], tuple(parts), s.span))
    return goals


def _without(group: Group, frozen: Set[str], step: _Step) -> Group:
    left = {p: t for p, t in group.members.items() if p not in frozen}
    if group.members and not left:
        raise error("E0203", "`freeze` leaves no parameter to train", step.settings["freeze"].value.span)
    return group.of(left)


def _parameters(cx: Context, what: str, e: ast.Expr, scope: Scope) -> Group:
    """A group of parameters as they are before the step."""
    value = cx.evaluate(e, scope)
    if not isinstance(value, Group):
        raise error("E0307", f"{what} takes a group of parameters, not {kind(value)}", e.span, help=GROUP)
    for path, t in value.members.items():
        if cx.program.variables[path].role not in TRAINABLE or t != cx.variable(path):
            raise error("E0307", f"{what} takes parameters, but `{path}` is none here", e.span, help=GROUP)
    return value


def _gradients(cx: Context, step: _Step) -> dict[str, Tensor]:
    """The derivative of each loss with respect to what learns from it; of all together with respect to inputs."""
    goals = _goals(cx, step)
    floats = {name: t for name, t in step.inputs.items() if t.dtype in FLOATS}
    if len(goals) == 1:
        return gradients(cx, goals[0].loss, {**goals[0].trained, **floats}, step.train)
    total = reduce(lambda a, b: cx.emit("add", a, b, span=None), step.losses.values())
    found = [gradients(cx, g.loss, g.trained, step.train) for g in goals]
    return {p: t for by_path in (*found, gradients(cx, total, floats, step.train)) for p, t in by_path.items()}


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
    for path, value in cx.updates.items():
        if value.dtype in FLOATS:
            cx.updates[path] = cx.variables[path] = meet(cx, value, "mean", None)
    for s in step.train.body:
        if isinstance(s, ast.StopWhen):
            stop_condition(cx, s.condition, set(outputs), hidden)
    for k, e in enumerate(hidden):
        with cx.recovering():
            h = tensor(cx, cx.evaluate(e, step.scope), e.span, cx.real)
            if h.rank:
                raise error("E0303", f"`stop when` compares scalars, but this is {h.type}", e.span)
            outputs[f"stop_{k + 1}"] = h if h.dtype == cx.real else cx.emit("cast", h, span=e.span, dtype=cx.real)
    if cx.shards:
        assert cx.program.spec is not None
        over = {m.name: m.over for m in cx.program.spec.metrics}
        outputs = {name: meet(cx, t, over[name], None) for name, t in outputs.items()}
    rules = [i for i in step.train.body if isinstance(i, ast.UpdateRule)]
    if rules:
        cx.learning = True
        cx.run(rules[-1].body, step.scope)
        _assign(cx, step)
    else:
        goals = _goals(cx, step)
        if len(goals) > 1:
            cx.trained = {p: goal.name for goal in goals for p in goal.trained}
        optimize(cx, step.scope, goals, step.settings, partial(_assign, cx, step), step.train)
    t = cx.variable("train/t")
    cx.updates["train/t"] = cx.emit("add", t, cx.constant(1, "i64"), span=None)
    return outputs, cx.updates


def _assign(cx: Context, step: _Step) -> None:
    """The assignments of the block, in order, behind the step: a variable is there what the step has made of it."""
    scope = step.scope.child(Instance(step.model))
    _bind_variables(cx, step.model, scope)
    cx.learning = True
    cx.run([s for s in step.train.body if isinstance(s, ast.Update)], scope)


def _inputs(cx: Context, scope: Scope) -> dict[str, Value]:
    """Leaves for the train block's parameters: the model's inputs with the model's types, then the targets."""
    train, model = cx.program.train, cx.program.model
    assert train is not None and model is not None
    own = {p.name: p for p in model.parameters}
    local = Scope(home_of(cx, model))
    out = {p.name: _leaf(cx, own[p.name], local) for p in train.parameters if p.name in own}
    local = Scope(cx.program.scope, names=local.names)
    out |= {p.name: _leaf(cx, p, local) for p in train.parameters if p.name not in own}
    for p in train.parameters:
        scope.bind(p.name, out[p.name], p.span)
    for name, value in local.names.items():
        if name not in scope.names:
            scope.bind(name, value)
    return {p.name: out[p.name] for p in train.parameters}


def _leaf(cx: Context, p: ast.Parameter, scope: Scope) -> Value:
    with cx.recovering():
        return input_leaf(cx, p, scope) if p.type is not None and p.type.base else POISON
    return POISON


def _bind_variables(cx: Context, model: str, scope: Scope) -> None:
    """Bind `weights`, `biases`, `params`, `states` and the model's own variables by name."""
    assert scope.instance is not None
    for name, roles in GROUPS.items():
        members = group(cx, [model], roles)
        scope.bind(name, members if members.members or not cx.is_unknown(model) else POISON)
    prefix = f"{model}."
    for path in cx.program.variables:
        name = path[len(prefix) :]
        if path.startswith(prefix) and name.isidentifier() and "." not in name:
            scope.instance.variables[name] = path
            if name not in scope.names:
                scope.bind(name, cx.variable(path))

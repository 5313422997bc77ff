"""Train blocks: settings for the runtime, and one graph for a step — forward, loss, backward, optimiser, metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..manifest import DataSpec, MetricSpec, Port, TrainSpec
from ..types.sizes import Size
from ..types.tensors import FLOATS
from .context import Context, Home
from .inputs import call_model, input_leaf
from .optimization import gradients, optimize
from .scope import MISSING, Instance, Scope, suggest, unknown
from .shapes import tensor
from .signatures import is_kind
from .values import Group, Results, Tensor, is_static, kind
from .variables import group, step_names

SETTINGS = (
    "loss",
    "optimizer",
    "clip",
    "accumulate",
    "average",
    "data",
    "normalize",
    "batch",
    "epochs",
    "seed",
    "shuffle",
    "validation",
    "patience",
)
TRAINABLE = ("weight", "bias")  # roles of variables
RESERVED = ("epoch", "seconds")  # columns of the history
NORMALIZE = ("standard", "standard_all", "minmax")
DEFAULT_EPOCHS = 10


# --- settings --------------------------------------------------------------------------------------------------------


def settings(program: Home) -> TrainSpec:
    """What the runtime needs to know of the train block."""
    train, model = program.train, program.model
    assert train is not None and model is not None
    cx = program.context("settings")
    given: dict[str, ast.Assign] = {}
    metrics: list[MetricSpec] = []
    hidden: list[ast.Expr] = []
    stop: Any = None
    has_update = any(isinstance(i, ast.UpdateRule) for i in train.body)
    for item in train.body:
        match item:
            case ast.Assign(targets=(ast.Target(name=name, indices=None),)) if name in SETTINGS:
                if name in given:
                    raise error("E0202", f"`{name}` is set twice", item.span, "", Label(given[name].span, "first here"))
                given[name] = item
            case ast.Assign(targets=targets):
                _check_local(train, item, targets)
            case ast.Metric(name=name, value=value):
                if name in RESERVED or name.startswith("val_"):
                    raise error(
                        "E0202", f"a metric cannot be called `{name}`: the history has a column of that name", item.span
                    )
                if name == "loss" or any(m.name == name for m in metrics):
                    first = [
                        Label(i.span, "first here") for i in train.body if isinstance(i, ast.Metric) and i.name == name
                    ]
                    raise error("E0202", f"the metric `{name}` is defined twice", item.span, "", *first[:1])
                metrics.append(MetricSpec(name, "sum" if _is_sum(value) else "mean"))
    if "loss" in given:
        metrics.insert(0, MetricSpec("loss", "mean"))
        if has_update:
            raise error("E0203", "a train block has a `loss` or an `update`, not both", given["loss"].span)
        if "optimizer" not in given:
            raise error(
                "E0203",
                f"training `{model.name}` needs an optimizer",
                train.span,
                help="for example `optimizer = SGD(lr = 0.1)`",
            )
    elif not has_update:
        raise error("E0203", f"training `{model.name}` needs a `loss` or an `update`", train.span)
    elif of_optimizer := [given[n] for n in ("optimizer", "clip", "accumulate", "average") if n in given]:
        raise error("E0203", "an `update` says its own rule, so there is nothing to optimize", of_optimizer[0].span)
    for item in train.body:
        if isinstance(item, ast.StopWhen):
            if stop is not None:
                raise error("E0202", "`stop when` stands twice", item.span, help="join the conditions with `or`")
            if not _is_condition(item.condition):
                raise error("E0307", "`stop when` needs a condition", item.condition.span, help="compare: `loss < 0.1`")
            stop = _stop(cx, item.condition, [m.name for m in metrics], hidden)

    def number(name: str, default: Any, low: Any, whole: bool) -> Any:
        if name not in given:
            return default
        value = cx.evaluate(given[name].value, program.scope)
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or value < low:
            wanted = f"{'a whole number' if whole else 'a number'} from {low}"
            found = value if fits else kind(value)
            raise error("E0203", f"`{name}` must be {wanted}, not {found}", given[name].value.span)
        return value

    shuffle = cx.evaluate(given["shuffle"].value, program.scope) if "shuffle" in given else True
    if not isinstance(shuffle, bool):
        raise error("E0203", f"`shuffle` must be true or false, not {kind(shuffle)}", given["shuffle"].value.span)
    validation = number("validation", 0.0, 0, False)
    if validation >= 1:
        raise error("E0203", f"`validation` is a share below 1, not {validation}", given["validation"].value.span)
    return TrainSpec(
        inputs=tuple(_parameter_names(program)),
        batch_size=_batch_symbol(program),
        batch=number("batch", None, 1, True),
        epochs=number("epochs", DEFAULT_EPOCHS, 0, True),
        seed=number("seed", 0, 0, True),
        shuffle=shuffle,
        validation=float(validation),
        data=_data(cx, given.get("data")),
        normalize=_normalize(given.get("normalize")),
        metrics=(*metrics, *(MetricSpec(f"stop_{k + 1}", "mean", True) for k in range(len(hidden)))),
        stop=stop,
        patience=number("patience", None, 1, True),
        accumulate=number("accumulate", 1, 1, True),
    )


def averaging(train: ast.Train | None) -> Span | None:
    """The setting that asks for averages of the parameters."""
    for item in train.body if train is not None else ():
        match item:
            case ast.Assign(targets=(ast.Target(name="average", indices=None),), value=value):
                return value.span
    return None


def ports(program: Home) -> tuple[Port, ...]:
    """The inputs of the train block, in its order."""
    cx = program.context("ports")
    return tuple(Port(n, t.dtype, t.shape) for n, t in _inputs(cx, Scope(program.scope)).items())


def _is_sum(e: ast.Expr) -> bool:
    match e:
        case ast.Call(function=ast.Name(id="sum")) | ast.Comprehension(reduction="sum"):
            return True
        case ast.Pipe(target=ast.Name(id="sum") | ast.Call(function=ast.Name(id="sum"))):
            return True
    return False


def _check_local(train: ast.Train, item: ast.Assign, targets: tuple[ast.Target, ...]) -> None:
    """A name that is no setting must be used further down, or it is a misspelt setting."""
    later = train.body[train.body.index(item) + 1 :]
    used = {n for x in later for n in _mentions(x)}
    for t in targets:
        if t.name not in used:
            near = suggest(t.name, list(SETTINGS))
            raise error(
                "E0203",
                f"a train block has no setting `{t.name}`, and nothing below uses it",
                t.span,
                help=f"did you mean `{near}`?" if near else f"the settings are {', '.join(SETTINGS)}",
            )


def _mentions(tree: Any) -> set[str]:
    names: set[str] = set()
    stack: list[Any] = [tree]
    while stack:
        x = stack.pop()
        if isinstance(x, ast.Name):
            names.add(x.id)
        if isinstance(x, tuple):
            stack += x
        elif isinstance(x, ast.Tree):
            fields = [getattr(x, field) for field in getattr(x, "__match_args__", ())]
            stack += [v for v in fields if isinstance(v, ast.Tree | tuple)]
    return names


def _data(cx: Context, item: ast.Assign | None) -> DataSpec | None:
    if item is None:
        return None
    e = item.value
    ask = cx.program.settings.sources
    sources = ask() if ask is not None else None
    if not (isinstance(e, ast.Call) and isinstance(e.function, ast.Name)):
        raise error(
            "E0203",
            "`data` names a source with its arguments, such as `digits()`",
            e.span,
            help=f"the sources are {', '.join(sources)}" if sources else None,
        )
    if sources is not None and e.function.id not in sources:
        raise unknown(e.function.id, e.function.span, list(sources), "data source")
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for a in e.arguments:
        value = cx.evaluate(a.value, cx.program.scope)
        if not is_static(value) or isinstance(value, Size):
            raise error("E0307", f"an argument of a data source is known at compile time, not {kind(value)}", a.span)
        if a.name is None:
            args.append(value)
        else:
            kwargs[a.name] = value
    return DataSpec(e.function.id, tuple(args), kwargs)


def _normalize(item: ast.Assign | None) -> str | None:
    if item is None:
        return None
    if not isinstance(item.value, ast.Name) or item.value.id not in NORMALIZE:
        near = suggest(item.value.id, list(NORMALIZE)) if isinstance(item.value, ast.Name) else None
        raise error(
            "E0203",
            f"`normalize` is one of {', '.join(NORMALIZE)}",
            item.value.span,
            help=f"did you mean `{near}`?" if near else None,
        )
    return item.value.id


def _parameter_names(program: Home) -> list[str]:
    train, model = program.train, program.model
    assert train is not None and model is not None
    mine = {p.name for p in model.parameters}
    names = [p.name for p in train.parameters]
    for p in train.parameters:
        if p.name not in mine and p.type is None:
            near = suggest(p.name, sorted(mine))
            raise error(
                "E0203",
                f"`{p.name}` is no input of `{model.name}`, so it needs a type",
                p.span,
                help=f"did you mean `{near}`?" if near else f"for example `{p.name}: i32[B]`",
            )
    missing = [p.name for p in model.parameters if p.name not in names and not is_kind(p.type)]
    if missing:
        raise error("E0203", f"the train block does not name the input `{missing[0]}` of `{model.name}`", train.span)
    return names


def _batch_symbol(program: Home) -> str | None:
    """The size that counts examples: the first axis of the first input that has one."""
    assert program.model is not None and program.train is not None
    for p in (*program.model.parameters, *program.train.parameters):
        if p.type is not None and p.type.dims and isinstance(p.type.dims[0], ast.Name):
            name = p.type.dims[0].id
            known = name in program.sizes or program.scope.lookup(name) is not MISSING
            return None if known else name
    return None


def _is_condition(e: ast.Expr) -> bool:
    match e:
        case ast.Binary(op=op):
            return op in ("<", "<=", ">", ">=", "==", "!=", "and", "or")
        case ast.Unary(op=op):
            return op == "not"
    return isinstance(e, ast.Bool)


OPERATORS = ("<", "<=", ">", ">=", "==", "!=", "and", "or", "+", "-", "*", "/")


def _stop(cx: Context, e: ast.Expr, metrics: Collection[str], hidden: list[ast.Expr]) -> Any:
    """The condition as data: comparisons of metrics. Any other scalar goes to `hidden` and is the metric `stop_K`."""
    match e:
        case ast.Binary(op=op, left=a, right=b) if op in OPERATORS:
            return [op, _stop(cx, a, metrics, hidden), _stop(cx, b, metrics, hidden)]
        case ast.Unary(op=op, operand=x):
            return ["not" if op == "not" else "neg", _stop(cx, x, metrics, hidden)]
        case ast.Int(value=v) | ast.Float(value=v) | ast.Bool(value=v):
            return ["const", v]
        case ast.Name(id=name) if name in metrics:
            return ["metric", name]
        case ast.Name(id="epoch"):
            return ["epoch"]
        case ast.Name(id=name):
            value = cx.program.scope.lookup(name)
            if value is not MISSING:
                value = cx.program.force(cx, value, e.span)
                if isinstance(value, int | float):
                    return ["const", value]
    hidden.append(e)
    return ["metric", f"stop_{len(hidden)}"]


# --- the step --------------------------------------------------------------------------------------------------------


def grow(cx: Context, entry: str) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """The graph of `train`, `evaluate`, `loss` or `gradients`: outputs by name, updates by path."""
    train, model = cx.program.train, cx.program.model
    assert train is not None and model is not None
    cx.training = entry != "evaluate"
    cx.ambient = dict(step_names(cx))
    scope = Scope(cx.program.scope, Instance(model.name))
    inputs = _inputs(cx, scope)
    value = call_model(cx, model, {p.name: inputs[p.name] for p in model.parameters if p.name in inputs})
    results = value.items if isinstance(value, Results) else (value,)
    for r, item in zip(model.results, results, strict=False):
        scope.bind(r.name or "output", item, r.span)
    mine = _variables(cx, scope)
    if entry != "train":
        cx.updates.clear()

    outputs: dict[str, Tensor] = {}
    update_rule: ast.UpdateRule | None = None
    stops: list[ast.Expr] = []
    metrics: dict[str, Tensor] = {}
    deferred: dict[str, ast.Assign] = {}
    wanted = entry in ("train", "evaluate")
    for item in train.body:
        match item:
            case ast.Assign(targets=(ast.Target(name="loss", indices=None),), value=e):
                loss = tensor(cx, cx.evaluate(e, scope), e.span, cx.real)
                if loss.rank or loss.dtype not in FLOATS:
                    raise error(
                        "E0402",
                        f"the loss must be a scalar float, but this is {loss.type}",
                        e.span,
                        help="average it: `mean(...)`",
                    )
                scope.bind("loss", loss, e.span)
                outputs["loss"] = loss
            case ast.Assign(targets=(ast.Target(name=name, indices=None),)) if name in SETTINGS:
                deferred[name] = item
            case ast.Assign():
                cx.run((item,), scope)
            case ast.Metric(name=name, value=e) if wanted:
                m = tensor(cx, cx.evaluate(e, scope), e.span, cx.real)
                if m.rank:
                    raise error(
                        "E0303",
                        f"a metric must be a scalar, but `{name}` is {m.type}",
                        e.span,
                        help="average it: `mean(...)`",
                    )
                if m.dtype == "bool" or (m.dtype not in FLOATS and not _is_sum(e)):
                    m = cx.emit("cast", m, span=e.span, dtype=cx.real)
                metrics[name] = m
                scope.bind(name, m, item.span)
            case ast.UpdateRule():
                update_rule = item
            case ast.StopWhen(condition=e):
                stops.append(e)
    if entry == "loss":
        return {"loss": outputs["loss"]}, {}
    if entry == "gradients":
        return gradients(
            cx, outputs["loss"], {**mine.members, **{n: t for n, t in inputs.items() if t.dtype in FLOATS}}, train
        ), {}
    outputs |= metrics
    if entry == "evaluate":
        return outputs, {}
    hidden: list[ast.Expr] = []
    for s in stops:
        _stop(cx, s, set(outputs), hidden)
    for k, e in enumerate(hidden):
        h = tensor(cx, cx.evaluate(e, scope), e.span, cx.real)
        if h.rank:
            raise error("E0303", f"`stop when` compares scalars, but this is {h.type}", e.span)
        outputs[f"stop_{k + 1}"] = h if h.dtype == cx.real else cx.emit("cast", h, span=e.span, dtype=cx.real)
    if update_rule is not None:
        cx.run(update_rule.body, scope)
    else:
        parameters = group(cx, model.name, TRAINABLE)  # also those that only the loss called for
        optimize(cx, scope, parameters, outputs["loss"], deferred, train)
    t = cx.variable("train/t")
    cx.updates["train/t"] = cx.emit("add", t, cx.constant(1, "i64"), span=None)
    return outputs, cx.updates


def _inputs(cx: Context, scope: Scope) -> dict[str, Tensor]:
    """Leaves for the train block's parameters: the model's inputs with the model's types, then the targets."""
    assert cx.program.train is not None and cx.program.model is not None
    own = {p.name: p for p in cx.program.model.parameters}
    local = Scope(cx.program.scope)
    out: dict[str, Tensor] = {}
    for p in sorted(cx.program.train.parameters, key=lambda p: p.name not in own):
        declared = own[p.name] if p.type is None or p.name in own else p
        out[p.name] = input_leaf(cx, declared, local)
    for p in cx.program.train.parameters:
        scope.bind(p.name, out[p.name], p.span)
    for name, value in local.names.items():
        if name not in scope.names:
            scope.bind(name, value)
    return {p.name: out[p.name] for p in cx.program.train.parameters}


def _variables(cx: Context, scope: Scope) -> Group:
    """Bind `weights`, `biases`, `params` and the model's own variables by name; returns the trainable ones."""
    assert cx.program.model is not None and scope.instance is not None
    model = cx.program.model.name
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

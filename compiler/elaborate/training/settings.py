"""The settings of a train block: a table of them, and what the runtime is told."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ....dsl import ast
from ....dsl.diagnostics import Label
from ....dsl.errors import error
from ....dsl.record import dataclass
from ....dsl.source import Span
from ....dsl.tokens import MAX_DEPTH
from ....dsl.tree import walk
from ...manifest import DataSpec, MetricSpec, TrainSpec
from ...types.sizes import Size
from ..context import Context
from ..home import Home
from ..scope import MISSING, suggest, unknown
from ..signatures import is_kind
from ..values import is_static, kind


@dataclass(frozen=True, slots=True)
class Setting:
    """`kind`: of `graph`, it is a part of the step; `word` and `source` are read as they are written; `whole`,
    `number` from `low` and `flag` are known at compile time."""

    name: str
    kind: str
    doc: str
    default: int | float | bool | None = None
    low: int = 0


SETTINGS = {
    s.name: s
    for s in (
        Setting("loss", "graph", "what becomes small: a scalar float"),
        Setting("optimizer", "graph", "what a step does to each parameter"),
        Setting("freeze", "graph", "a group of parameters that stay as they are"),
        Setting("clip", "graph", "a function of the gradients, before the optimizer sees them"),
        Setting("accumulate", "whole", "batches whose gradients make one step", 1, 1),
        Setting(
            "shards", "whole", "parts of a batch, whose sums meet in a fixed order: for several processes", None, 1
        ),
        Setting("average", "graph", "the running average of each parameter, which inference reads"),
        Setting("data", "source", "where the examples come from"),
        Setting("normalize", "word", "how float inputs are scaled, as the training examples say"),
        Setting("batch", "whole", "examples in a batch; without it, all at once", None, 1),
        Setting("epochs", "whole", "passes over the examples", 10),
        Setting("seed", "whole", "of the first parameters, the order of examples, and random draws", 0),
        Setting("shuffle", "flag", "whether each epoch has an order of its own", True),
        Setting("validation", "number", "the share of the examples that is held out", 0.0),
        Setting("patience", "whole", "epochs without a better loss before training ends", None, 1),
    )
}
OF_OPTIMIZER = ("optimizer", "freeze", "clip", "accumulate", "average")
RESERVED = ("epoch", "seconds")  # columns of the history
NORMALIZE = ("standard", "standard_all", "minmax")

Given = dict[str, ast.Assign]


def spec(program: Home) -> TrainSpec:
    """What the runtime needs to know of the train block."""
    train, model = program.train, program.model
    assert train is not None and model is not None
    cx = program.context("settings")
    given, metrics = _items(cx, train)
    with cx.recovering():
        _check_rule(train, given)
    if "loss" in given:
        metrics.insert(0, MetricSpec("loss", "mean", minimized=True))
    hidden: list[ast.Expr] = []
    stop = _stop_when(cx, train, [m.name for m in metrics], hidden)

    def value(name: str) -> Any:
        with cx.recovering():
            return _value(cx, SETTINGS[name], given.get(name))
        return SETTINGS[name].default

    shuffle, validation, shards = value("shuffle"), value("validation"), value("shards")
    if validation >= 1:
        what = f"`validation` is a share below 1, not {validation}"
        cx.give_up(error("E0203", what, given["validation"].value.span))
    if shards is not None and shards & (shards - 1):
        cx.give_up(error("E0203", f"`shards` is a power of two, not {shards}", given["shards"].value.span))
    return TrainSpec(
        inputs=_inputs(cx, train, model),
        batch_size=_batch_symbol(program, train, model),
        batch=value("batch"),
        epochs=value("epochs"),
        seed=value("seed"),
        shuffle=shuffle,
        validation=float(validation),
        data=_data(cx, given.get("data")),
        normalize=_normalize(cx, given.get("normalize")),
        metrics=(*metrics, *(MetricSpec(f"stop_{k + 1}", "mean", True) for k in range(len(hidden)))),
        stop=stop,
        patience=value("patience"),
        accumulate=value("accumulate"),
        shards=shards,
    )


def averaging(train: ast.Train | None) -> Span | None:
    """The setting that asks for averages of the parameters."""
    for item in train.body if train is not None else ():
        match item:
            case ast.Assign(targets=(ast.Target(name="average", indices=None),), value=value):
                return value.span
    return None


# --- the block -------------------------------------------------------------------------------------------------------


def _items(cx: Context, train: ast.Train) -> tuple[Given, list[MetricSpec]]:
    """The settings that are given, and the metrics."""
    given: Given = {}
    losses: dict[str, MetricSpec] = {}
    metrics: dict[str, MetricSpec] = {}
    for item in train.body:
        with cx.recovering():
            match item:
                case ast.Assign(targets=(ast.Target(name=name, indices=None),)) if name in SETTINGS:
                    if name in given:
                        first = Label(given[name].span, "first here")
                        raise error("E0202", f"`{name}` is set twice", item.span, "", first)
                    given[name] = item
                case ast.Assign(targets=targets):
                    if near := _check_local(cx, train, item, targets):
                        given.setdefault(near, item)
                case ast.Metric(name=name, value=value):
                    _check_column(train, item)
                    metrics[name] = MetricSpec(name, "sum" if is_sum(value) else "mean")
                case ast.Minimize(name=name):
                    _check_column(train, item)
                    losses[name] = MetricSpec(name, "mean", minimized=True)
    return given, [*losses.values(), *metrics.values()]


def _check_column(train: ast.Train, item: ast.Metric | ast.Minimize) -> None:
    """The history has a column for each loss and metric, and some of its own."""
    name = item.name
    if name in RESERVED or name.startswith("val_"):
        raise error("E0202", f"a metric cannot be called `{name}`: the history has a column of that name", item.span)
    before = train.body[: train.body.index(item)]
    same = [i for i in before if isinstance(i, ast.Metric | ast.Minimize) and i.name == name]
    if same or (name == "loss" and isinstance(item, ast.Metric)):
        first = [Label(i.span, "first here") for i in same[:1]]
        raise error("E0202", f"the metric `{name}` is defined twice", item.span, "", *first)


def _check_rule(train: ast.Train, given: Given) -> None:
    """A block has a loss and an optimizer, losses that it minimizes, or a rule of its own."""
    goals = [i for i in train.body if isinstance(i, ast.Minimize)]
    rules = [i for i in train.body if isinstance(i, ast.UpdateRule)]
    if "loss" in given:
        if rules:
            raise error("E0203", "a train block has a `loss` or an `update`, not both", given["loss"].span)
        if goals:
            raise error("E0203", "a train block has a `loss` or `minimize`, not both", goals[0].span)
        if "optimizer" not in given:
            raise error(
                "E0203",
                f"training `{train.model}` needs an optimizer",
                train.span,
                help="for example `optimizer = SGD(lr = 0.1)`",
            )
    elif goals:
        if rules:
            raise error("E0203", "a train block has `minimize` or an `update`, not both", goals[0].span)
        if "optimizer" in given:
            raise error("E0203", "each `minimize` names its optimizers, behind `with`", given["optimizer"].span)
    elif not rules:
        raise error("E0203", f"training `{train.model}` needs a `loss` or an `update`", train.span)
    elif of_optimizer := [given[n] for n in OF_OPTIMIZER if n in given]:
        raise error("E0203", "an `update` says its own rule, so there is nothing to optimize", of_optimizer[0].span)
    if "patience" in given and "loss" not in given and not any(g.name == "loss" for g in goals):
        raise error("E0203", "`patience` watches `loss`, which this block has not", given["patience"].span)


def is_sum(e: ast.Expr) -> bool:
    match e:
        case ast.Call(function=ast.Name(id="sum")) | ast.Comprehension(reduction="sum"):
            return True
        case ast.Pipe(target=ast.Name(id="sum") | ast.Call(function=ast.Name(id="sum"))):
            return True
    return False


def _check_local(cx: Context, train: ast.Train, item: ast.Assign, targets: tuple[ast.Target, ...]) -> str | None:
    """A name that is no setting must be used further down, or it is a misspelt setting: the one that is meant."""
    later = train.body[train.body.index(item) + 1 :]
    used = {n.id for x in later for n in walk(x) if isinstance(n, ast.Name)}
    unread = {n for x in later for u in walk(x) if isinstance(u, ast.Unread) for n in u.names}
    for t in targets:
        if t.name not in used | unread:
            near = suggest(t.name, list(SETTINGS))
            if cx.faults is not None and near is None and suggest(t.name, list(used)):
                continue  # it is used under a name that is misspelt there
            help = f"did you mean `{near}`?" if near else f"the settings are {', '.join(SETTINGS)}"
            what = f"a train block has no setting `{t.name}`, and nothing below uses it"
            cx.give_up(error("E0203", what, t.span, help=help, fix=near))
            return near
    return None


# --- the settings ----------------------------------------------------------------------------------------------------


def _value(cx: Context, setting: Setting, item: ast.Assign | None) -> Any:
    """A setting that is known at compile time."""
    if item is None:
        return setting.default
    value: Any = cx.evaluate(item.value, cx.program.scope)
    at = item.value.span
    if setting.kind == "flag":
        if not isinstance(value, bool):
            raise error("E0203", f"`{setting.name}` must be true or false, not {kind(value)}", at)
        return value
    whole = setting.kind == "whole"
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or value < setting.low:
        wanted = f"{'a whole number' if whole else 'a number'} from {setting.low}"
        raise error("E0203", f"`{setting.name}` must be {wanted}, not {value if fits else kind(value)}", at)
    return value


def _data(cx: Context, item: ast.Assign | None) -> DataSpec | None:
    if item is not None:
        with cx.recovering():
            return _source(cx, item.value)
    return None


def _source(cx: Context, e: ast.Expr) -> DataSpec | None:
    if isinstance(e, ast.Unread):
        return None
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


def _normalize(cx: Context, item: ast.Assign | None) -> str | None:
    if item is None or isinstance(item.value, ast.Unread):
        return None
    if not isinstance(item.value, ast.Name) or item.value.id not in NORMALIZE:
        near = suggest(item.value.id, list(NORMALIZE)) if isinstance(item.value, ast.Name) else None
        help = f"did you mean `{near}`?" if near else None
        cx.give_up(
            error("E0203", f"`normalize` is one of {', '.join(NORMALIZE)}", item.value.span, help=help, fix=near)
        )
        return None
    return item.value.id


def _inputs(cx: Context, train: ast.Train, model: ast.Layer) -> tuple[str, ...]:
    """The names of the block's inputs: those of the model, and targets."""
    mine = {p.name for p in model.parameters}
    names = tuple(p.name for p in train.parameters)
    for p in train.parameters:
        if p.name not in mine and p.type is None:
            near = suggest(p.name, sorted(mine))
            help = f"did you mean `{near}`?" if near else f"for example `{p.name}: i32[B]`"
            what = f"`{p.name}` is no input of `{model.name}`, so it needs a type"
            cx.give_up(error("E0203", what, p.span, help=help, fix=near))
            return names
    missing = [p.name for p in model.parameters if p.name not in names and not is_kind(p.type)]
    if missing:
        what = f"the train block does not name the input `{missing[0]}` of `{model.name}`"
        cx.give_up(error("E0203", what, train.span))
    return names


def _batch_symbol(program: Home, train: ast.Train, model: ast.Layer) -> str | None:
    """The size that counts examples: the first axis of the first input that has one."""
    for p in (*model.parameters, *train.parameters):
        if p.type is not None and p.type.dims and isinstance(p.type.dims[0], ast.Name):
            name = p.type.dims[0].id
            known = name in program.sizes or program.scope.lookup(name) is not MISSING
            return None if known else name
    return None


# --- when to stop ----------------------------------------------------------------------------------------------------

OPERATORS = ("<", "<=", ">", ">=", "==", "!=", "and", "or", "+", "-", "*", "/")


def _stop_when(cx: Context, train: ast.Train, metrics: Collection[str], hidden: list[ast.Expr]) -> Any:
    """The condition of the block as data, or None."""
    found = [i for i in train.body if isinstance(i, ast.StopWhen)]
    stop: Any = None
    for item in found[:2]:
        with cx.recovering():
            if item is not found[0]:
                raise error("E0202", "`stop when` stands twice", item.span, help="join the conditions with `or`")
            if not _is_condition(item.condition):
                raise error("E0307", "`stop when` needs a condition", item.condition.span, help="compare: `loss < 0.1`")
            stop = stop_condition(cx, item.condition, metrics, hidden)
    return stop


def _is_condition(e: ast.Expr) -> bool:
    match e:
        case ast.Binary(op=op):
            return op in ("<", "<=", ">", ">=", "==", "!=", "and", "or")
        case ast.Unary(op=op):
            return op == "not"
        case ast.Unread():
            return True
    return isinstance(e, ast.Bool)


def stop_condition(
    cx: Context, e: ast.Expr, metrics: Collection[str], hidden: list[ast.Expr], depth: int = MAX_DEPTH
) -> Any:
    """A condition as data: comparisons of metrics. Any other scalar goes to `hidden` and is the metric `stop_K`."""
    if not depth:
        raise error(
            "E0502",
            f"`stop when` takes at most {MAX_DEPTH} operators in a row",
            e.span,
            help="make a metric of a part of it: `metric part = ..`",
        )

    def inside(x: ast.Expr) -> Any:
        return stop_condition(cx, x, metrics, hidden, depth - 1)

    match e:
        case ast.Binary(op=op, left=a, right=b) if op in OPERATORS:
            return [op, inside(a), inside(b)]
        case ast.Unary(op=op, operand=x):
            return ["not" if op == "not" else "neg", inside(x)]
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

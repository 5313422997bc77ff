"""The entries of a program: which there are, and the graph of each but those of training and tests.

An entry calls the model, or a function, as anybody would: with inputs as its leaves, in a context of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.errors import error
from ...dsl.record import dataclass
from ...dsl.source import Source
from ...dsl.tree import walk
from ..graph.nodes import Graph
from ..manifest import ENTRIES
from ..types.tensors import FLOATS, TensorType
from . import calls
from .context import Context
from .home import AVERAGE, Declared
from .inputs import call_model, inputs
from .modules import Modules
from .scope import MISSING, Scope, unknown
from .shapes import tensor
from .stacked import member
from .statements import store
from .values import POISON, Defined, Given, Partial, Results, Tensor, Value, kind


@dataclass(frozen=True, slots=True)
class Entries:
    """What a file defines that has entries; `model` is the one that the program is about, `train` its train block."""

    models: dict[str, ast.Layer]
    exports: dict[str, tuple[ast.Export, Scope]]
    functions: dict[str, ast.Function]
    tests: tuple[ast.Test, ...]
    model: ast.Layer | None
    train: ast.Train | None
    alone: tuple[
        ast.Unread | ast.Train, ...
    ] = ()  # no entries: what they belong to does not parse, but their body does

    @property
    def names(self) -> tuple[str, ...]:
        """All entries, those of the model first."""
        names: list[str] = []
        if self.model is not None:
            names += ["init", "predict"]
            if self.train is not None:
                names += ["train", "evaluate", *(["loss", "gradients"] if self._has_loss else [])]
            names.append("taps")
        return (*names, *self.exports, *(self.functions if self.model is None else ()))

    @property
    def _has_loss(self) -> bool:
        return self.train is not None and any(
            isinstance(i, ast.Minimize) or (isinstance(i, ast.Assign) and i.targets[0].name == "loss")
            for i in self.train.body
        )


def find_entries(modules: Modules, wanted: str | None, beside: Source) -> Entries:
    """What the file defines, and what is exported `beside` it; `wanted` is the model's name, where the caller says."""
    definitions = modules.module.definitions
    models = {d.name: d for d in definitions if isinstance(d, ast.Layer) and d.top}
    more, scope = modules.beside(beside)
    exports = {d.name: (d, modules.scope) for d in definitions if isinstance(d, ast.Export)}
    exports |= {d.name: (d, scope) for d in more.definitions if isinstance(d, ast.Export)}
    for d, _ in list(exports.values()):
        if d.name in ENTRIES:
            what = f"an export cannot be called `{d.name}`: every model has an entry of that name"
            modules.refuse(error("E0202", what, d.span))
            del exports[d.name]
    trains = [d for d in definitions if isinstance(d, ast.Train)]
    for t in trains:  # they may be of models from other files
        found = modules.scope.lookup(t.model) if t.model not in models else None
        if isinstance(found, Defined) and isinstance(found.definition, ast.Layer) and found.definition.top:
            models = {t.model: found.definition, **models}
        elif found is MISSING and not modules.scope.doubts(t.model):
            modules.refuse(unknown(t.model, t.span, list(models), "model"))
        elif found not in (None, MISSING, POISON):
            what = kind(found) if isinstance(found, Defined) else "a number"
            modules.refuse(error("E0307", f"`train` takes a model, but `{t.model}` is {what}", t.span))
    model = _chosen(models, [t for t in trains if t.model in models], wanted)
    mine = [t for t in trains if model is not None and t.model == model.name]
    if len(mine) > 1:
        twice = f"`{mine[1].model}` is trained twice"
        modules.refuse(error("E0202", twice, mine[1].span, "", Label(mine[0].span, "first here")))
    return Entries(
        models,
        exports,
        {d.name: d for d in definitions if isinstance(d, ast.Function)},
        tuple(d for d in definitions if isinstance(d, ast.Test)),
        model,
        mine[0] if mine else None,
        (
            *(d for d in definitions if isinstance(d, ast.Unread) and d.body),
            *(t for t in trains if t.model not in models),
        ),
    )


def models_named(exports: Iterable[tuple[ast.Export, Scope]]) -> list[str]:
    """The models that exports name, themselves or through functions and layers of the user's."""
    found: dict[str, None] = {}
    seen: set[int] = set()
    waiting: list[tuple[ast.Tree, Scope]] = list(exports)
    while waiting:
        tree, scope = waiting.pop()
        own = {*scope.names, *(scope.known() if scope.known is not None else ())}
        for name in sorted({n.id for n in walk(tree) if isinstance(n, ast.Name)} & own):
            match scope.lookup(name):
                case Defined(definition=ast.Layer(top=True)):
                    found[name] = None
                case Defined(definition=d, scope=home) if id(d) not in seen:
                    seen.add(id(d))
                    waiting.append((d, home))
    return list(found)


def _chosen(models: dict[str, ast.Layer], trains: list[ast.Train], wanted: str | None) -> ast.Layer | None:
    if wanted is not None:
        if wanted not in models:
            raise unknown(wanted, None, list(models), "model")
        return models[wanted]
    return models[trains[0].model] if trains else next(reversed(models.values()), None)


# --- graphs ----------------------------------------------------------------------------------------------------------


def finish(cx: Context, outputs: Mapping[str, Tensor], updates: Mapping[str, Tensor]) -> Graph:
    return cx.builder.finish(
        tuple((n, t.node) for n, t in outputs.items()), tuple((p, t.node) for p, t in updates.items())
    )


def predict(cx: Context, model: ast.Layer) -> Graph:
    value = call_model(cx, model)
    return finish(cx, _outputs(cx, model, value), cx.updates)


def taps(cx: Context, model: ast.Layer) -> Graph:
    """The values of the model's labelled calls."""
    call_model(cx, model)
    return finish(cx, cx.taps, {})


def export(cx: Context, d: ast.Export | ast.Function, scope: Scope) -> Graph:
    values = inputs(cx, d.parameters, scope)
    value = calls.call_function(cx, Defined(d, scope), Given(tuple(values.values()), {}, d.span))
    return finish(cx, _outputs(cx, d, value), cx.updates)


def _outputs(cx: Context, d: ast.Layer | ast.Export | ast.Function, value: Value) -> dict[str, Tensor]:
    items = value.items if isinstance(value, Results) else (value,)
    names = [r.name for r in d.results] if len(d.results) == len(items) else [None] * len(items)
    out: dict[str, Tensor] = {}
    for k, (name, item) in enumerate(zip(names, items, strict=True)):
        out[name or ("result" if len(items) == 1 else f"result_{k + 1}")] = tensor(cx, item, d.span)
    return out


def init(cx: Context, variables: Mapping[str, Declared]) -> Graph:
    """Every variable's first value, drawn with the input `seed`."""
    seed = Tensor(cx.builder.emit("input", name="seed", type=TensorType("i64")), cx.builder)
    cx.key = cx.emit("mul", seed, cx.constant(2**32, "i64"), span=None)
    for path, d in variables.items():
        if d.role in ("train", "normalize"):
            continue
        if isinstance(d.init, int | float):
            with cx.recovering():
                store(cx, path, _constant(cx, d), d.span, "its initial value")
            continue
        with cx.recovering(), member(cx, path, d.init.span):
            store(cx, path, _first_value(cx, d), d.init.span, "its initial value")
    return finish(cx, {}, cx.updates)


def _constant(cx: Context, d: Declared) -> Value:
    return cx.variable(d.path.removeprefix(AVERAGE)) if d.role == "average" else d.init  # type: ignore[return-value]


def _first_value(cx: Context, d: Declared) -> Value:
    assert not isinstance(d.init, int | float)
    cx.site, cx.shape = d.path, d.type.shape
    assert d.scope is not None
    scope = d.scope
    if d.role == "slot":  # `state average = p` begins as the parameter does
        scope = scope.child()
        scope.bind("p", cx.variable(d.path.rsplit("/", 1)[0]))
    real = d.type.dtype if d.type.dtype in FLOATS else cx.real
    with cx.calling(d.path, d.asked), cx.reading(real):
        value = cx.evaluate(d.init, scope)
        if isinstance(value, Partial | Defined):
            value = calls.apply(cx, value, Given((), {}, d.init.span), d.scope)
    cx.shape = None
    return value

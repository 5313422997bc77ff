"""A program: its definitions, the variables its models own, and the graph of each entry point.

Elaboration is by entry: each graph is grown in a fresh `Context`, calling the model as a test or an export would. The
variables are common to all entries and are known once `predict` and `train` have been grown.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Diagnostic, Label
from ...dsl.errors import SourceError, error
from ...dsl.source import Source, Span
from ..graph.nodes import Builder, Graph
from ..graph.ops import OPS
from ..manifest import ENTRIES, DataSizes, HyperSpec, Manifest, Port, TrainSpec, Variable
from ..settings import Settings
from ..types.sizes import Dim, symbol
from ..types.tensors import DTYPES, TensorType
from . import calls, checks, symmetry, training
from .context import AVERAGE, Context, Declared, check_type
from .expressions import evaluate
from .modules import Lazy, Modules
from .operations import binary, broadcast_to, tensor
from .outline import Row, outline
from .scope import MISSING, Scope, unknown
from .signatures import KINDS, Given, check_kind, is_kind
from .statements import store
from .values import Defined, Group, Partial, Results, Tensor, is_size, is_static, kind


class Program:
    """One source text under one set of settings; `data_sizes` says what the free sizes of inputs are in the data."""

    def __init__(self, source: Source, settings: Settings, data_sizes: DataSizes | None = None):
        self.settings = settings
        self._data_sizes = data_sizes
        self.modules = Modules(source)
        self.variables: dict[str, Declared] = {}
        self.unread: Set[str] = frozenset()  # variables that are known, but neither stored nor drawn
        self.sizes: dict[str, int] = dict(settings.sizes)
        self.warnings: dict[str, None] = {}  # each once, in order
        self._hypers: dict[str, HyperSpec] = {}
        self._constants: dict[int, Any] = {}
        self._evaluating: list[Any] = []
        self._discovered: set[str] = set()
        self._outlines: dict[str, tuple[Row, ...]] = {}
        self._listing: set[str] = set()  # the models whose inner values are being listed
        self.spec: TrainSpec | None = None
        module = self.modules.module
        self.models = {d.name: d for d in module.definitions if isinstance(d, ast.Layer) and d.top}
        self.exports = {d.name: d for d in module.definitions if isinstance(d, ast.Export)}
        beside, self.beside = self.modules.beside(Source("<beside>", settings.beside))
        self.exports |= {d.name: d for d in beside.definitions if isinstance(d, ast.Export)}
        for d in self.exports.values():
            if d.name in ENTRIES:
                raise error("E0202", f"an export cannot be called `{d.name}`: every model has an entry of that name",
                            d.span)
        self.functions = {d.name: d for d in module.definitions if isinstance(d, ast.Function)}
        self.tests = [d for d in module.definitions if isinstance(d, ast.Test)]
        trains = [d for d in module.definitions if isinstance(d, ast.Train)]
        self.model = self._choose(settings.model, trains, source)
        mine = [t for t in trains if self.model is not None and t.model == self.model.name]
        for t in trains:
            if t.model not in self.models and self.modules.scope.lookup(t.model) is MISSING:
                raise unknown(t.model, t.span, list(self.models), "model")
        if len(mine) > 1:
            raise error(
                "E0202", f"`{mine[1].model}` is trained twice", mine[1].span, "", Label(mine[0].span, "first here")
            )
        self.train = mine[0] if mine else None
        self._settled = False
        self._check_hypers()
        self._settle()
        self._settled = True

    def _choose(self, wanted: str | None, trains: list[ast.Train], source: Source) -> ast.Layer | None:
        if wanted is not None:
            if wanted not in self.models:
                raise unknown(wanted, Span(source, 0, 0), list(self.models), "model")
            return self.models[wanted]
        trained = [self.models[t.model] for t in trains if t.model in self.models]
        if trained:
            return trained[0]
        return next(reversed(self.models.values()), None)

    def _settle(self) -> None:
        """Grow the entries that declare variables; take sizes from the data where the model needs them."""
        if self.model is None:
            return
        try:
            self._grow_all()
        except SourceError as e:
            if e.code != "E0305" or self._data_sizes is None or self.spec is None or self.spec.data is None:
                raise
            taken = self._data_sizes(self.spec, training.ports(self))
            if not taken.keys() - self.sizes.keys():
                raise
            self.sizes = {**taken, **self.sizes}
            self.variables.clear()
            self._discovered.clear()
            self._outlines.clear()
            self._grow_all()

    def _grow_all(self) -> None:
        assert self.model is not None
        if self.train is not None:
            self.spec = training.settings(self)
        forward = self.graph("predict")
        self._discovered.add(self.model.name)
        self.warnings |= dict.fromkeys(symmetry.warnings(self.context("symmetry"), forward))
        if self.train is not None:
            self.graph("train")

    def check(self) -> tuple[Diagnostic, ...]:
        """Everything that is wrong in any entry or test, each fault once; nothing more behind what is too large."""
        from ..autodiff.differentiate import differentiate

        found: dict[Diagnostic, None] = {}
        for entry in self.entries:
            try:
                differentiate(self.graph(entry))
            except SourceError as e:
                found |= dict.fromkeys(e.diagnostics)
                if e.code == "E0502":
                    return tuple(found)
        for k in range(len(self.tests)):
            plan = checks.plan(self, k)
            found |= dict.fromkeys(d for c in plan.checks for d in c.diagnostics)
        return tuple(found)

    # --- asked by elaboration ----------------------------------------------------------------------------------------

    def dtype_name(self, name: str) -> str:
        return self.settings.dtype if name == "f32" else name

    def dtype(self, t: ast.Type) -> str:
        if t.base not in DTYPES:
            raise unknown(t.base, t.span, [*DTYPES, *KINDS], "type")
        return self.dtype_name(t.base)

    def force(self, cx: Context, value: Any, span: Span) -> Any:
        """The value behind a `const` or `hyper`; anything else is itself."""
        if not isinstance(value, Lazy):
            return value
        d = value.definition
        key = id(d)
        if key in self._constants:
            return self._constants[key]
        if any(d is other for other in self._evaluating):
            raise error("E0205", f"`{d.name}` is defined by itself", d.span)
        self._evaluating.append(d)
        try:
            result = evaluate(cx, d.value, value.scope) if isinstance(d, ast.Const) else self._hyper(cx, d, value.scope)
        finally:
            self._evaluating.pop()
        if isinstance(d, ast.Const) and is_kind(d.type):
            result = check_kind(ast.Parameter(d.name, d.type, None, span=d.span), result, d.value.span, "this file")
        if is_static(result):
            self._constants[key] = result
        return result

    def _hyper(self, cx: Context, d: ast.Hyper, scope: Scope) -> Any:
        parameter = ast.Parameter(d.name, d.type, None, span=d.span)
        default = check_kind(parameter, evaluate(cx, d.default, scope), d.default.span, "")
        choices = self._choices(cx, d, scope)
        value = self.settings.hyper.get(d.name, default)
        if d.name in self.settings.hyper:
            value = _parse_hyper(d, value)
        if not _within(value, choices):
            raise error(
                "E0308",
                f"hyper `{d.name}` is {value!r}, which is outside its range",
                d.span,
                f"{d.choices.span.text if d.choices is not None else ''}",
            )
        self._hypers[d.name] = HyperSpec(d.name, d.type.base, value, default, choices)
        return value

    def _choices(self, cx: Context, d: ast.Hyper, scope: Scope) -> Any:
        match d.choices:
            case None:
                return None
            case ast.Range(start=a, stop=b):
                return ["range", evaluate(cx, a, scope), evaluate(cx, b, scope)]
            case ast.Call(function=ast.Name(id="log"), arguments=(low, high)):
                return ["log", evaluate(cx, low.value, scope), evaluate(cx, high.value, scope)]
            case ast.List(items=items):
                return ["in", [evaluate(cx, i, scope) for i in items]]
        raise error("E0308", "a range is a list `[a, b]`, an interval `a..b` or `log(a, b)`", d.choices.span)

    def _check_hypers(self) -> None:
        declared: dict[str, tuple[ast.Hyper, Scope]] = {}
        for module, scope in self.modules._files.values():
            declared |= {d.name: (d, scope) for d in module.definitions if isinstance(d, ast.Hyper)}
        for name in self.settings.hyper:
            if name not in declared:
                span = Span(self.modules.module.span.source, 0, 0)
                raise unknown(name, span, list(declared), "hyper")
        cx = Context(self, Builder("hypers", OPS))
        for d, scope in declared.values():
            self.force(cx, Lazy(d, scope), d.span)

    def declare(self, d: Declared) -> None:
        check_type(d.type, d.asked or d.span)
        known = self.variables.get(d.path)
        if known is None:
            self.variables[d.path] = d
        elif known.type != d.type:
            raise error(
                "E0301",
                f"`{d.path}` is {d.type} here, but {known.type} elsewhere",
                d.span,
                help="a shared layer has one set of parameters, so its inputs must have one size",
            )

    def group(self, cx: Context, model: str, roles: tuple[str, ...]) -> Group:
        self.discover(model)
        paths = [p for p, d in self.variables.items() if p.startswith(f"{model}.") and d.role in roles]
        return Group({p: cx.variable(p) for p in paths})

    def discover(self, model: str) -> None:
        """Make sure the variables of a model are known."""
        if model in self._discovered:
            return
        self._discovered.add(model)
        defined = self.modules.scope.lookup(model)
        if isinstance(defined, Defined) and isinstance(defined.definition, ast.Layer):
            self.outline(model)

    def inner_values(self, model: str) -> dict[str, TensorType]:
        """The values inside a model that can be read where it was called, by path."""
        defined = self.modules.scope.lookup(model)
        if model in self._listing or not (isinstance(defined, Defined) and isinstance(defined.definition, ast.Layer)):
            return {}  # a model that reads its own inside, before it has one
        self._listing.add(model)
        try:
            cx = self.context("inner")
            self.call_model(cx, defined.definition, self.inputs(cx, defined.definition.parameters))
        finally:
            self._listing.remove(model)
        return {p: t.type for p, t in cx.inner.items() if p != model}

    def key(self, cx: Context) -> Tensor:
        """The key of this step's random draws: seed * 2^32 + step."""
        if cx.key is None and self._settled and "train/seed" not in self.variables:
            cx.key = cx.constant(0, "i64")  # a function or a test: there is no step to draw for
        if cx.key is None:
            for path in ("train/seed", "train/t"):
                self.training_state(path)
            seed, t = cx.variable("train/seed"), cx.variable("train/t")
            high = cx.emit("mul", seed, cx.constant(2**32, "i64"), span=None)
            cx.key = cx.emit("add", high, t, span=None)
        return cx.key

    def training_state(self, path: str) -> None:
        if path not in self.variables:
            self.declare(Declared(path, TensorType("i64"), "train", 0, False, None, None))

    def step_names(self, cx: Context) -> dict[str, Tensor]:
        """`t` (from 1), `epoch` (from 0) and `steps` as floats. `t` and `steps` are the optimiser's: several batches
        are one step where gradients accumulate."""
        every = self.spec.accumulate if self.spec is not None else 1
        names = {}
        for name in ("t", "epoch", "steps"):
            self.training_state(f"train/{name}")
            value = cx.variable(f"train/{name}")
            if every > 1 and name != "epoch":
                value = cx.emit("floordiv", value, cx.constant(every, "i64"), span=None)
            if name == "t":
                value = cx.emit("add", value, cx.constant(1, "i64"), span=None)
            names[name] = cx.emit("cast", value, span=None, dtype=cx.real)
        return names

    def normalize(self, cx: Context, d: ast.Layer, scope: Scope) -> None:
        """(x - mean) / scale for the float inputs of the trained model, where its train block asks for it."""
        if self.spec is None or self.spec.normalize is None or self.train is None or d.name != self.train.model:
            return
        for p in d.parameters:
            x = scope.names[p.name]
            if not (isinstance(x, Tensor) and x.dtype == cx.real and x.rank >= 2):
                continue
            shape = (
                ()
                if self.spec.normalize == "standard_all"
                else (x.shape[1:] if x.rank == 2 else (x.shape[1], *[1] * (x.rank - 2)))
            )
            if not all(isinstance(n, int) for n in shape):
                raise error("E0305", f"`normalize` needs the sizes of `{p.name}`, but it is {x.type}", p.span)
            for name, start in (("mean", 0), ("scale", 1)):
                path = f"normalize/{p.name}/{name}"
                self.declare(Declared(path, TensorType(cx.real, shape), "normalize", start, False, None, p.span))  # type: ignore[arg-type]
                operand = (
                    broadcast_to(cx, cx.variable(path), x.shape, p.span)
                    if len(shape) == x.rank - 1
                    else cx.variable(path)
                )
                x = binary(cx, "-" if name == "mean" else "/", x, operand, p.span, (p.span, p.span))
            scope.bind(p.name, x, p.span)

    # --- entries -----------------------------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[str, ...]:
        names: list[str] = []
        if self.model is not None:
            names += ["init", "predict"]
            if self.train is not None:
                names += ["train", "evaluate", *(["loss", "gradients"] if self.has_loss else [])]
            names.append("taps")
        return (*names, *self.exports, *(self.functions if self.model is None else ()))

    @property
    def has_loss(self) -> bool:
        return self.train is not None and any(
            isinstance(i, ast.Assign) and i.targets[0].name == "loss" for i in self.train.body
        )

    def graph(self, entry: str, cx: Context | None = None) -> Graph:
        """The graph of one entry, as written: before differentiation and passes. `cx`, a new `context(entry)`, knows
        afterwards which layer made what."""
        cx = self.context(entry) if cx is None else cx
        match entry:
            case "init":
                return self._init(cx)
            case "predict":
                assert self.model is not None
                value = self.call_model(cx, self.model, self.inputs(cx, self.model.parameters))
                return self._finish(cx, self._outputs(cx, self.model, value), cx.updates)
            case "taps":
                assert self.model is not None
                self.call_model(cx, self.model, self.inputs(cx, self.model.parameters))
                return self._finish(cx, dict(cx.taps), {})
            case "train" | "evaluate" | "loss" | "gradients":
                outputs, updates = training.grow(self, cx, entry)
                return self._finish(cx, outputs, updates)
        if entry.startswith("test:"):
            return checks.plan(self, int(entry[5:])).graph
        definition = self.exports.get(entry) or self.functions.get(entry)
        if definition is None:
            raise KeyError(entry)
        scope = self.beside if definition.span.source.name == "<beside>" else self.modules.scope
        inputs = self.inputs(cx, definition.parameters, scope)
        value = calls.call_function(cx, Defined(definition, scope), Given(tuple(inputs.values()), {}, definition.span))
        return self._finish(cx, self._outputs(cx, definition, value), cx.updates)

    def context(self, entry: str) -> Context:
        learning = entry in ("init", "train", "loss", "gradients")
        return Context(self, Builder(entry, OPS), site=entry, averaged=not learning)

    def _finish(self, cx: Context, outputs: Mapping[str, Tensor], updates: Mapping[str, Tensor]) -> Graph:
        return cx.builder.finish(
            tuple((n, t.node) for n, t in outputs.items()), tuple((p, t.node) for p, t in updates.items())
        )

    def inputs(
        self, cx: Context, parameters: tuple[ast.Parameter, ...], home: Scope | None = None
    ) -> dict[str, Any]:
        """An `input` leaf for each tensor parameter; compile-time parameters take their defaults."""
        scope = Scope(home or self.modules.scope)
        values: dict[str, Any] = {}
        for p in parameters:
            if p.type is None:
                raise error(
                    "E0203", f"the input `{p.name}` needs a type", p.span, help=f"for example `{p.name}: f32[B, 10]`"
                )
            if is_kind(p.type):
                if p.default is None:
                    raise error("E0203", f"`{p.name}` is compile-time configuration and needs a default here", p.span)
                values[p.name] = evaluate(cx, p.default, scope)
            else:
                default = None if p.default is None else evaluate(cx, p.default, scope)
                values[p.name] = self.input(cx, p, scope, default)
            scope.bind(p.name, values[p.name], p.span)
        return values

    def input(self, cx: Context, p: ast.Parameter, scope: Scope, default: Any = None) -> Tensor:
        assert p.type is not None
        shape: list[Dim] = []
        for d in p.type.dims or ():
            if isinstance(d, ast.Rest):
                raise error(
                    "E0305",
                    f"the number of axes of the input `{p.name}` must be known",
                    d.span,
                    help="write each axis: `f32[B, D]`",
                )
            for name in _names(d):
                if scope.lookup(name) is MISSING:
                    scope.bind(name, self.sizes.get(name, symbol(name)), d.span)
            size = evaluate(cx, d, scope)
            if not is_size(size):
                shared = isinstance(d, ast.Name) and not is_static(size)
                raise error("E0307", f"a size must be a whole number, not {kind(size)}", d.span,
                            help="give one of the two another name" if shared else None)
            if isinstance(size, int) and size < 0:
                raise error("E0301", f"a size cannot be negative, but this is {size}", d.span)
            shape.append(size)
        type_ = TensorType(self.dtype(p.type), tuple(shape))
        check_type(type_, p.span)
        if default is not None and (shape or not is_static(default)):
            raise error("E0307", f"only a scalar input can have a default, but `{p.name}` is {type_}", p.span)
        attrs = {"default": default} if default is not None else {}
        return Tensor(cx.builder.emit("input", name=p.name, span=p.span, type=type_, **attrs), cx.builder)

    def call_model(self, cx: Context, model: ast.Layer, inputs: Mapping[str, Any]) -> Any:
        given = Given(tuple(inputs.values()), {}, model.span)
        return calls.call_layer(cx, Defined(model, self.modules.scope), given, model.name)

    def _outputs(self, cx: Context, d: Any, value: Any) -> dict[str, Tensor]:
        items = value.items if isinstance(value, Results) else (value,)
        names = [r.name for r in d.results] if len(d.results) == len(items) else [None] * len(items)
        out: dict[str, Tensor] = {}
        for k, (name, item) in enumerate(zip(names, items, strict=True)):
            out[name or ("result" if len(items) == 1 else f"result_{k + 1}")] = tensor(cx, item, d.span)
        return out

    def _init(self, cx: Context) -> Graph:
        """Every variable's first value, drawn with the input `seed`."""
        seed = Tensor(cx.builder.emit("input", name="seed", type=TensorType("i64")), cx.builder)
        cx.key = cx.emit("mul", seed, cx.constant(2**32, "i64"), span=None)
        for path, d in list(self.variables.items()):
            if d.role in ("train", "normalize") or path in self.unread:
                continue
            if d.role == "average":
                value: Any = cx.variable(path.removeprefix(AVERAGE))
            elif isinstance(d.init, int | float):
                value = d.init
            else:
                cx.site, cx.shape = path, d.type.shape
                assert d.scope is not None
                scope = d.scope
                if d.role == "slot":  # `state average = p` begins as the parameter does
                    scope = scope.child()
                    scope.bind("p", cx.variable(path.rsplit("/", 1)[0]))
                with cx.calling(path, d.asked):
                    value = evaluate(cx, d.init, scope)
                    if isinstance(value, Partial | Defined):
                        value = calls.apply(cx, value, Given((), {}, d.init.span), d.scope)
                cx.shape = None
            store(cx, path, value, d.init.span if not isinstance(d.init, int | float) else d.span, "its initial value")
        return self._finish(cx, {}, cx.updates)

    # --- what the runtime is told ------------------------------------------------------------------------------------

    def manifest(self) -> Manifest:
        roles = {"weight": 0, "bias": 0, "state": 1, "normalize": 2, "average": 3, "slot": 4, "train": 5}
        stored = [d for path, d in self.variables.items() if path not in self.unread]
        ordered = sorted(stored, key=lambda d: roles[d.role])
        return Manifest(
            model=self.model.name if self.model is not None else None,
            dtype=self.settings.dtype,
            variables=tuple(Variable(d.path, d.type.dtype, d.type.shape, d.role) for d in ordered),  # type: ignore[arg-type]
            entries=self.entries,
            train=self.spec,
            hypers=tuple(self._hypers.values()),
            sizes=dict(self.sizes),
            sources=dict(self.modules.sources),
            warnings=tuple(self.warnings),
        )

    def outline(self, model: str) -> tuple[Row, ...]:
        """The layers of a model and what they take."""
        if model not in self._outlines:
            definition = self.modules.scope.lookup(model).definition
            cx = self.context("outline")
            self.call_model(cx, definition, self.inputs(cx, definition.parameters))
            self._outlines[model] = outline(cx, model, self.variables)
        return self._outlines[model]

    def ports(self, model: str) -> tuple[Port, ...]:
        """The inputs of a model."""
        inputs = self.inputs(self.context("ports"), self.modules.scope.lookup(model).definition.parameters)
        return tuple(Port(n, t.dtype, t.shape) for n, t in inputs.items() if isinstance(t, Tensor))

    def macs(self, model: str) -> int:
        """Multiply-accumulates of one example's forward pass: the iteration points of every contraction."""
        counted = self.outline(model)[0].macs
        if not isinstance(counted, int):
            raise SourceError(error("E0305", f"the work of `{model}` depends on {counted}").diagnostics)
        return counted


def _names(d: ast.Expr) -> list[str]:
    found: list[str] = []
    stack: list[Any] = [d]
    while stack:
        e = stack.pop()
        match e:
            case ast.Name(id=name):
                found.append(name)
            case ast.Binary(left=a, right=b):
                stack += [b, a]
            case ast.Unary(operand=x):
                stack.append(x)
    return found


def _parse_hyper(d: ast.Hyper, value: Any) -> Any:
    """A hyper given from outside, perhaps as text."""
    wanted = {"int": int, "float": float, "bool": bool, "str": str}.get(d.type.base)
    try:
        if isinstance(value, str) and wanted is bool:
            return {"true": True, "false": False}[value]
        if wanted is int and (isinstance(value, bool) or (isinstance(value, float) and value != int(value))):
            raise ValueError
        if wanted is float and isinstance(value, bool):
            raise ValueError
        if wanted is not None:
            return wanted(value)
    except (ValueError, KeyError, TypeError, OverflowError):
        pass
    raise error("E0308", f"hyper `{d.name}` is of the kind {d.type.base}, not {value!r}", d.span)


def _within(value: Any, choices: Any) -> bool:
    match choices:
        case ["in", listed]:
            return value in listed
        case [_, low, high]:
            return low <= value <= high
    return True

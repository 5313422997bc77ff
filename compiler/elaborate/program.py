"""A program: one source text under one set of settings; its variables, and the graph of each of its entries.

The variables are common to all entries. They are declared by growing the entries that meet them all, `predict` and
`train`; these graphs are kept, and any other is grown when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import replace
from typing import TypeVar

from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError, SourceError, error
from ...dsl.source import Source, Span
from ..autodiff.differentiate import differentiate
from ..graph.nodes import Builder, Graph
from ..graph.ops import OPS
from ..manifest import DataSizes, Manifest, Port, TrainSpec, Variable
from ..settings import Settings
from ..types.stacks import is_stack, members, runs, stacked
from ..types.tensors import TensorType
from . import checks, entries, symmetry, training
from .context import Context
from .elaborator import Elaborator
from .entries import find_entries
from .faults import Faults, Poisoned
from .frames import NotRolled
from .home import Declared
from .hypers import Hypers
from .inputs import call_model, inputs
from .modules import Lazy, Modules
from .outline import Row, outline
from .scope import Scope
from .values import Defined, Shared, Tensor, Value

Grown = TypeVar("Grown")
ORDER = {"weight": 0, "bias": 0, "state": 1, "normalize": 2, "average": 3, "slot": 4, "train": 5}  # in the manifest


class Program:
    """What the session asks for, and the `Home` of elaboration. `data_sizes` says what the free sizes of inputs are in
    the data. With `faults` a program is made of what is right in a wrong text, and these tell what is wrong; else equal
    turns of `repeat` are `rolled` into a scan where they `may` be and nobody asks for one of them."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        data_sizes: DataSizes | None = None,
        faults: Faults | None = None,
        may_roll: bool = True,
    ):
        self.source, self.settings, self.may_roll = source, settings, may_roll and faults is None
        self.faults = faults
        self.modules = Modules(source, faults)
        self.variables: dict[str, Declared] = {}  # and stacks of them
        self.stacks: dict[str, str] = {}
        self.has_rolled = False
        self.averages: dict[str, Declared] = {}
        self.unread: Set[str] = frozenset()  # variables that are known, but neither stored nor drawn
        self.sizes: dict[str, int] = dict(settings.sizes)
        self.warnings: dict[str, None] = {}
        self.spec: TrainSpec | None = None
        self.complete = False
        self._unrolled: Program | None = None
        self._grown: dict[str, Graph] = {}
        self._discovered: set[str] = set()
        self._outlines: dict[str, tuple[Row, ...]] = {}
        self._called: dict[str, Context] = {}  # in which each model was called, to know what is inside
        self.found = find_entries(self.modules, settings.model, Source("<beside>", settings.beside))
        self.models, self.model, self.train = self.found.models, self.found.model, self.found.train
        self.averaging = training.averaging(self.train)
        self._hypers = Hypers(settings.hyper)
        self._hypers.check(self.context("hypers"), self.modules)
        self._declare(data_sizes)
        self.complete = True

    # --- variables

    def _declare(self, data_sizes: DataSizes | None) -> None:
        """Meet all variables. Whether a size must be known shows where a variable, a `repeat` or a list depends on it,
        in whatever was computed from it; the data are read only then, for most programs name sizes that nobody needs,
        and the data may not be at hand. What was grown up to there holds a symbol in the size's place, so the
        graph begins anew."""
        if self.model is None:
            return
        if self.faults is not None:
            self.faults.sizes = "told" if data_sizes is None else "raised"
        try:
            self._begin(self.model)
        except SourceError as e:
            taken = self._taken(e, data_sizes)
            self.sizes = {**taken, **self.sizes}
            self._forget()
            self._begin(self.model)
        if self.faults is not None:
            self.faults.sizes = "told"

    def _taken(self, e: SourceError, data_sizes: DataSizes | None) -> Mapping[str, int]:
        """The sizes that the data say, where one is not known; raises the error that says so where they do not."""
        has_data = data_sizes is not None and self.spec is not None and self.spec.data is not None
        taken: Mapping[str, int] = {}
        if e.code == "E0305" and has_data:
            assert data_sizes is not None and self.spec is not None
            try:
                taken = data_sizes(self.spec, training.ports(self))
            except NncError as unread:
                if self.faults is None:
                    raise
                self.faults.tell(unread)
                self.faults.sizes = "silent"
                return {}
        if not taken.keys() - self.sizes.keys():
            if self.faults is None or e.code != "E0305":
                raise e
            self.faults.sizes = "told"
        return taken

    def _begin(self, model: ast.Layer) -> None:
        """Grow with turns rolled; where that cannot be, or something is wrong, written out."""
        may_roll = self.may_roll
        try:
            self._grow(model)
        except (NotRolled, SourceError) as e:
            if isinstance(e, SourceError) and not self.has_rolled:
                raise
            self._forget()
            self.may_roll = False
            try:
                self._grow(model)
            except SourceError:
                self.may_roll = may_roll
                raise

    def _forget(self) -> None:
        for met in (
            self.variables, self.stacks, self.averages, self._discovered, self._called, self._outlines, self._grown,
            self.warnings,
        ):  # fmt: skip
            met.clear()
        self.has_rolled = False

    @property
    def unrolled(self) -> Program:
        """The same program with all turns written out: itself, where none is rolled. What is inside of a model is known
        there, and each variable is one."""
        if not self.has_rolled:
            return self
        if not self.complete:
            raise NotRolled
        if self._unrolled is None:
            self._unrolled = Program(self.source, replace(self.settings, sizes=self.sizes), may_roll=False)
        return self._unrolled

    def types(self, paths: Collection[str]) -> dict[str, TensorType]:
        """The types of what is stored at these paths, in the order in which it was declared."""
        found = {path: stacked(path, d.type) for path, d in self.variables.items() if path in paths}
        if len(found) < len(paths):  # of an entry that is written out
            found |= {path: d.type for path, d in self.unrolled.variables.items() if path in paths}
        return found

    def _grow(self, model: ast.Layer) -> None:
        if self.train is not None:
            self.spec = training.spec(self)
        cx = self.context("predict")
        with cx.recovering():
            self._predict(cx)
        self._discovered.add(model.name)
        if self.train is not None:
            learned = self.context("train")
            with learned.recovering():
                self._grown["train"] = self.graph("train", learned)
            assert self.spec is not None
            self.spec = replace(self.spec, trained=learned.trained)
        for name in entries.models_named(self.found.exports.values()):
            with cx.recovering():
                self.discover(name)

    def _predict(self, cx: Context) -> None:
        forward = self.graph("predict", cx)
        if not cx.grouped:  # or training may know of more parameters
            self._grown["predict"] = forward
        if self.spec is not None and self.spec.batch_size is not None:
            self.spec = replace(self.spec, bound_by=training.bound_by(forward, self.spec.batch_size))
        self.warnings |= dict.fromkeys(symmetry.warnings(self.context("symmetry"), forward))

    def discover(self, model: str) -> None:
        """Make sure the variables of a model are known."""
        if model in self._discovered:
            return
        self._discovered.add(model)
        self._inside(model)

    # --- asked by elaboration

    @property
    def scope(self) -> Scope:
        return self.modules.scope

    def context(self, entry: str) -> Context:
        """A new context, to grow the graph of an entry in."""
        learning = entry in ("init", "train", "shards", "loss", "gradients")
        rolls = self.may_roll and entry != "taps"
        return Elaborator(self, Builder(entry, OPS), site=entry, averaged=not learning, rolls=rolls, faults=self.faults)

    def force(self, cx: Context, value: Value, span: Span) -> Value:
        """The value behind a `const` or `hyper`; anything else is itself."""
        if not isinstance(value, Lazy):
            return value
        with cx.reading(self.settings.dtype):
            return self._hypers.force(cx, value)

    def inner_values(self, model: str) -> dict[str, TensorType]:
        """The values inside a model that can be read where it was called, by path."""
        return {p: t.type for p, t in self.unrolled._inside(model).inner.items() if p != model}

    def inner_layers(self, model: str) -> dict[str, Shared]:
        """The layers inside a model by path, as they are called in inference."""
        return {p: layer for p, layer in self.unrolled._inside(model).layers.items() if p != model}

    def _inside(self, model: str) -> Context:
        """A context in which a model was called; an empty one where a model reads its own inside, before it has one."""
        if model not in self._called:
            layer = self._layer(model)
            self._called[model] = self.context("inner")
            if layer is not None:
                cx = self.context("inner")
                try:
                    call_model(cx, layer)
                except BaseException:
                    del self._called[model]
                    raise
                self._called[model] = cx
        return self._called[model]

    def _layer(self, name: str) -> ast.Layer | None:
        defined = self.scope.lookup(name)
        layer = defined.definition if isinstance(defined, Defined) else None
        return layer if isinstance(layer, ast.Layer) else None

    # --- entries

    @property
    def entries(self) -> tuple[str, ...]:
        return self.found.names

    def graph(self, entry: str, cx: Context | None = None) -> Graph:
        """The graph of one entry, as written: before differentiation and passes. `cx`, a new `context(entry)`, knows
        afterwards which layer made what. Raises `KeyError` where there is no such entry."""
        if cx is not None:
            return self._graph(entry, cx)
        if entry in self._grown:
            return self._grown[entry]
        return self._or_unrolled(lambda p: p._graph(entry, p.context(entry)), entry == "taps")

    def _or_unrolled(self, grow: Callable[[Program], Grown], written_out: bool = False) -> Grown:
        """What is grown of this program, or of that with all turns written out."""
        try:
            return grow(self.unrolled if written_out else self)
        except (NotRolled, SourceError):
            if not self.has_rolled:
                raise
        return grow(self.unrolled)

    def _graph(self, entry: str, cx: Context) -> Graph:
        found = self.found
        if entry in ("train", "shards", "evaluate", "loss", "gradients"):
            return entries.finish(cx, *training.grow(cx, entry))
        if entry.startswith("test:"):
            return self.plan_test(int(entry[5:])).graph
        if entry in found.exports:
            return entries.export(cx, *found.exports[entry])
        if found.model is None or entry not in ("init", "predict", "taps"):
            return entries.export(cx, found.functions[entry], self.scope)
        if entry == "init":
            return entries.init(cx, {p: d for p, d in self.variables.items() if p not in self.unread})
        return entries.predict(cx, found.model) if entry == "predict" else entries.taps(cx, found.model)

    def plan_test(self, k: int) -> checks.TestPlan:
        """The k-th test of the file."""
        test = self.found.tests[k]
        rejects = any(isinstance(item, ast.Reject) for item in test.body)
        plan = self._or_unrolled(lambda p: checks.plan(p, test, f"test:{k}"), rejects)
        if self.has_rolled and any(c.passed is False for c in plan.checks):  # the reason is told of turns written out
            plan = checks.plan(self.unrolled, test, f"test:{k}")
        return plan

    def check(self) -> tuple[Diagnostic, ...]:
        """Everything that is wrong in any entry or test, each fault once; nothing more behind what is too large."""
        found: dict[Diagnostic, None] = {}
        for entry in self.entries:
            try:
                differentiate(self.graph(entry))
            except Poisoned:
                continue
            except SourceError as e:
                found |= dict.fromkeys(e.diagnostics)
                if e.code == "E0502":
                    break
        else:
            for d in self.found.alone:
                training.alone(self.context("alone"), d, self.found.alone)
            for k in range(len(self.found.tests)):
                found |= dict.fromkeys(d for c in self.plan_test(k).checks for d in c.diagnostics)
        if self.faults is None:
            return tuple(found)
        self.faults.add(found, SourceError)
        return tuple(d for e in self.faults.errors for d in e.diagnostics)

    # --- what the runtime is told

    def manifest(self) -> Manifest:
        stored = [d for path, d in self.variables.items() if path not in self.unread]
        ordered = sorted(stored, key=lambda d: ORDER[d.role])
        by_path = {d.path: d for d in ordered}
        spec = self.spec
        if spec is not None:
            spec = replace(spec, trained={member: loss for p, loss in spec.trained.items() for member in members(p)})
        return Manifest(
            model=self.model.name if self.model is not None else None,
            dtype=self.settings.dtype,
            variables=tuple(
                Variable(path, d.type.dtype, d.type.shape, d.role)  # type: ignore[arg-type]
                for run in runs([d.path for d in ordered])
                for paths in zip(*map(members, run), strict=True)
                for path, d in zip(paths, (by_path[p] for p in run), strict=True)
            ),
            stacks=tuple(d.path for d in ordered if is_stack(d.path)),
            entries=self.entries,
            train=spec,
            hypers=tuple(self._hypers.specs.values()),
            sizes=dict(self.sizes),
            sources=dict(self.modules.sources),
            warnings=tuple(self.warnings),
            files=dict(self._hypers.files.digests),
        )

    def outline(self, model: str) -> tuple[Row, ...]:
        """The layers of a model and what they take."""
        if self.unrolled is not self:
            return self.unrolled.outline(model)
        if model not in self._outlines:
            self._outlines[model] = outline(self._inside(model), model, self.variables)
        return self._outlines[model]

    def ports(self, model: str) -> tuple[Port, ...]:
        """The inputs of a model."""
        leaves = inputs(self.context("ports"), self.scope.lookup(model).definition.parameters)
        return tuple(Port(n, t.dtype, t.shape) for n, t in leaves.items() if isinstance(t, Tensor))

    def macs(self, model: str, span: Span | None = None) -> int:
        """Multiply-accumulates of one example's forward pass, the iteration points of every contraction; `span` is
        where they are asked for."""
        if self.unrolled is not self:
            return self.unrolled.macs(model, span)
        if not self._inside(model).parts:
            raise error("E0502", f"`{model}` is asked for its work from inside, before it is made", span)
        counted = self.outline(model)[0].macs
        if not isinstance(counted, int):
            raise SourceError(error("E0305", f"the work of `{model}` depends on {counted}").diagnostics)
        return counted

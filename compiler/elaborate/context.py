"""The state of elaborating one entry point: the graph being grown, and what has been met on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from zlib import crc32

from ...dsl import ast
from ...dsl.diagnostics import Diagnostic, Label
from ...dsl.errors import NncError, SourceError, error
from ...dsl.record import dataclass, field, replace
from ...dsl.source import Span
from ..graph.nodes import Builder
from ..graph.ops.op import ShapeError
from ..types.facts import Facts, Relation, learned
from ..types.sizes import Dim, nonnegative, product, symbol, symbols
from ..types.stacks import is_stack, members, stacked
from ..types.tensors import FLOATS, MAX_RANK, TensorType
from .faults import Faults, Poisoned
from .frames import Frame, NotRolled, Turn, add_input
from .home import Home
from .limits import MAX_BODIES, MAX_CALLS, MAX_EVALUATED, check_fits, check_type, endless
from .noted import Called, Part
from .scope import Scope
from .turns import extremes
from .values import Poison, Results, Shared, Tensor, Value, is_size, kind

Listed = TypeVar("Listed", bound="tuple[Value, ...] | Results")


def is_std(span: Span) -> bool:
    """Whether a place is in the standard library."""
    return span.source.name.startswith("std/")


def _seen_from(d: Diagnostic, name: str, span: Span) -> Diagnostic:
    """A fault met inside std, told from the user's call of `name`."""
    inside = tuple(Label(x.span, x.text or f"in `{name}`") for x in d.labels)
    return replace(d, labels=(Label(span), *inside), fixes=())


@dataclass(slots=True)
class Context:
    """Where one graph grows. The walks that grow it are filled in by `elaborator`, so that what they call upon in turn
    need not import them."""

    program: Home
    builder: Builder  # of the graph that grows now: the entry's, or the innermost scan's
    training: bool = False
    averaged: bool = True  # parameters are read as their running averages, where they have one
    ambient: dict[str, Any] = field(default_factory=dict)  # t, epoch, steps where they mean something
    key: Tensor | None = None  # of random draws
    shape: tuple[Dim, ...] | Poison | None = None  # the variable being drawn, right of `~`
    site: str = ""  # names the draw site: equal names draw equal numbers
    draws: dict[str, int] = field(default_factory=dict)
    variables: dict[str, Tensor] = field(default_factory=dict)  # current value by path: leaf, or pending update
    updates: dict[str, Tensor] = field(default_factory=dict)
    taps: dict[str, Tensor] = field(default_factory=dict)  # the values of labelled calls by path
    inner: dict[str, Tensor] = field(default_factory=dict)  # and of every layer: those of the last call
    layers: dict[str, Shared] = field(default_factory=dict)  # by path, as they were last called
    parts: list[Part] = field(default_factory=list)  # in order of completion
    called: list[Called] = field(default_factory=list)  # likewise
    calls: list[tuple[str, Span | None]] = field(default_factory=list)
    returned: Span | None = None  # the expression of the last `return`
    root: Builder = field(init=False)  # of the entry
    real: str = field(init=False)  # the float dtype here: of numbers without a tensor, of draws, of `f32` in std
    met: Callable[[Span, Value], None] | None = field(init=False)  # is told what a place is worth
    frames: list[Frame] = field(default_factory=list)  # the scans around this point, outermost first
    bodies: int = 0  # written out so far
    evaluated: int = 0  # expressions and elements of lists so far
    facts: Facts = field(default_factory=dict)  # what guards say of sizes
    learning: bool = False  # what runs are the updates of a train block, which may be of any variable
    trained: dict[str, str] = field(default_factory=dict)  # of several losses, the one that each parameter learns from
    rolls: bool = False  # equal turns of `repeat` become a scan
    shards: bool = False  # a batch is cut into shards, which meet where it is said
    grouped: bool = False  # it asked for all parameters of a model, of which others may come to know more
    faults: Faults | None = None  # where they are collected; otherwise the first one is raised
    stood_in: set[str] = field(default_factory=set)  # nodes in the place of what nobody knows

    def __post_init__(self) -> None:
        self.root = self.builder
        self.real = self.program.settings.dtype
        self.met = self.program.settings.met

    # --- the walks

    def evaluate(self, e: ast.Expr, scope: Scope) -> Value:
        """The value of an expression."""
        raise NotImplementedError

    def index(self, base: Value, items: tuple[Any, ...], span: Span, scope: Scope) -> Value:
        """`base[items]`."""
        raise NotImplementedError

    def as_function(self, e: ast.Expr, scope: Scope) -> Value:
        """An expression as a function: a call is a partial application."""
        raise NotImplementedError

    def run(self, body: Sequence[ast.Statement], scope: Scope, last: bool = True) -> Value | None:
        """Execute statements; the value of `return`, or None."""
        raise NotImplementedError

    def condition(self, e: ast.Expr, scope: Scope) -> bool:
        """A compile-time truth."""
        value = self.evaluate(e, scope)
        if isinstance(value, bool):
            return value
        if isinstance(value, Tensor):
            raise error(
                "E0307",
                f"a condition must be known at compile time, but this is a tensor, {value.type}",
                e.span,
                help="over tensors write `where(c, a, b)`",
            )
        late = (
            "at run time `where(c, a, b)` chooses" if self.frames and not isinstance(value, int | float | str) else None
        )
        raise error("E0307", f"a compile-time condition must be a bool, not {kind(value)}", e.span, help=late)

    def integer(self, e: ast.Expr, scope: Scope, what: str) -> Dim:
        """A compile-time whole number or size."""
        value = self.evaluate(e, scope)
        if not is_size(value):
            raise error("E0307", f"{what} must be a compile-time whole number, not {kind(value)}", e.span)
        return value

    # --- faults

    def give_up(self, e: NncError | Poisoned, span: Span | None = None) -> None:
        """Tell a fault and go on without what failed, at `span`. Raises it where faults are not collected, where it is
        in the library, for the call of that is what is wrong, and where it ends all."""
        if self.faults is None or (span is not None and is_std(span)) or self.faults.ends(e):
            raise e
        if isinstance(e, NncError):
            self.faults.tell(e)

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """What fails in here is given up."""
        try:
            yield
        except (SourceError, Poisoned) as e:
            self.give_up(e)

    def doubt(self, scope: Scope) -> None:
        """Something was given up in a body: not all is known of the instance that it belongs to."""
        if self.faults is not None and scope.instance is not None and not scope.instance.optimizer:
            self.faults.unknown.add(scope.instance.path)

    def is_unknown(self, path: str) -> bool:
        """Whether not all is known that is at a path or inside, for something there was given up."""
        return self.faults is not None and self.faults.inside(path)

    def stand_in(self, type_: TensorType, span: Span | None) -> Tensor:
        """A tensor of a type that is known in the place of a value that is not."""
        try:
            node = self.root.emit("input", name=self.root.fresh("unknown"), type=type_, span=span)
        except ShapeError:  # what is wrong with it is told where the type is of a value
            raise Poisoned from None
        self.stood_in.add(node)
        return self.here(Tensor(node, self.root), span)

    # --- nodes

    def read_dtype(self, name: str, span: Span) -> str:
        """The dtype that a dtype written at `span` is read as."""
        if name != "f32":
            return name
        return self.real if is_std(span) else self.program.settings.dtype

    @contextmanager
    def reading(self, real: str) -> Iterator[None]:
        """In here `real` is the float dtype."""
        outer, self.real = self.real, real
        try:
            yield
        finally:
            self.real = outer

    def emit(self, op: str, *args: Tensor, span: Span | None, operands: tuple[Span, ...] = (), **attrs: Any) -> Tensor:
        """One operator; its node points at the user's own line, also where std wrote it (then to the library's, too). A
        `ShapeError` becomes a diagnostic whose labels give each operand's type and origin."""
        local = [self.here(a, span) for a in args]
        try:
            asked = self.asked() if span is not None and is_std(span) else None
            told = span if asked is None else replace(asked, std=span)
            made = Tensor(self.builder.emit(op, *(a.node for a in local), span=told, **attrs), self.builder)
            if isinstance(self.builder[made.node].type, TensorType):
                check_type(made.type, span)
                self._check_size(made.type, span)
            return made
        except ShapeError as e:
            raise self.shape_error(e, args, span, operands) from None

    def shape_error(
        self, e: ShapeError, args: tuple[Tensor, ...], span: Span | None, operands: tuple[Span, ...]
    ) -> NncError:
        labels = []
        for k, a in enumerate(args):
            at = operands[k] if k < len(operands) else None
            if at is not None and (not e.operands or k in e.operands):
                labels.append(Label(at, f"{a.type}{self.origin(a)}"))
        return error(e.code, e.message, span, "", *labels, help=e.help)

    def origin(self, t: Tensor) -> str:
        """Where a value came from, in words."""
        for frame, outer in zip(reversed(self.frames), reversed(self._levels()[:-1]), strict=True):
            if frame.builder is t.builder and t.builder[t.node].op == "input":
                captured = next((a for a, i in frame.captured.items() if i == t.node), None)
                if captured is None:
                    return f", carried by the scan over `{frame.name}`"
                t = Tensor(captured, outer)
        node = t.builder[t.node]
        if node.span is None:
            return ""
        line, column = node.span.position
        if node.op == "param":
            return f", declared at {line}:{column}"
        if node.op == "input" and t.node not in self.stood_in:
            return f", the input `{node.attrs['name']}`"
        return ""

    def constant(self, value: int | float | bool, dtype: str, span: Span | None = None) -> Tensor:
        check_fits(value, dtype, span)
        converted = float(value) if dtype in FLOATS else bool(value) if dtype == "bool" else int(value)
        return self.emit("constant", span=span, values=(converted,), type=TensorType(dtype))

    def variable(self, path: str) -> Tensor:
        """The current value of a declared variable in this entry; in inference a parameter's average if it has one. Of
        a stack it is the variable of this turn, and outside of turns all of them."""
        if self.frames and is_stack(path):
            turn = self.turn
            if turn is None:
                raise NotRolled(path)
            if path not in turn.members:
                with self.around(0):
                    whole = self.variable(path)
                turn.members[path] = self.of_turn(whole)
            return turn.members[path]
        if path not in self.variables:
            declared = self.program.averages.get(path) if self.averaged else None
            declared = declared or self.program.variables[path]
            type_ = stacked(declared.path, declared.type)
            made = self.root.emit("param", path=declared.path, type=type_, name=path, span=declared.span)
            self.variables[path] = Tensor(made, self.root)
        return self.variables[path]

    def variable_type(self, path: str) -> TensorType:
        """The type of what `variable` gives here."""
        declared = self.program.variables[path].type
        return declared if self.frames else stacked(path, declared)

    def update(self, path: str, value: Tensor) -> None:
        """Give what `variable` gives here a new value when the step ends."""
        turn = self.turn
        current, updates = (self.variables, self.updates) if turn is None else (turn.members, turn.updates)
        current[path] = updates[path] = value

    @property
    def turn(self) -> Turn | None:
        """The turn that is written here for all."""
        return self.frames[0].turn if self.frames else None

    def of_turn(self, whole: Tensor) -> Tensor:
        """The part of this turn: the element along the first axis."""
        with self.around(1):
            n = symbol(self.frames[0].index)
            starts, stops = (n, *(0 for _ in whole.shape[1:])), (n + 1, *whole.shape[1:])
            row = self.emit("slice", whole, span=None, starts=starts, stops=stops, steps=(1,) * whole.rank)
            return self.emit("reshape", row, span=None, shape=whole.shape[1:])

    def note(self, path: str, parent: str, kind: str, first: int, value: Value, span: Span | None) -> None:
        """A call that ended with `value`; its nodes begin at `first`."""
        items = value.items if isinstance(value, Results) else (value,)
        results = tuple(t.node for t in items if isinstance(t, Tensor) and t.builder is self.builder)
        turns = product(f.count for f in self.frames)
        self.parts.append(Part(path, parent, kind, self.builder, turns, first, len(self.builder.nodes), results, span))

    def note_call(
        self, d: ast.Layer | ast.Function | ast.Export, path: str, given: Mapping[str, Any], first: int, value: Value
    ) -> None:
        """A call of a definition, with what its parameters were when it began; its nodes begin at `first`."""
        results = value.items if isinstance(value, Results) else (value,)
        last = len(self.builder.nodes)
        self.called.append(
            Called(d.name, is_std(d.span), self.training, path, given, self.builder, first, last, results)
        )

    @contextmanager
    def drawing(self, shape: tuple[Dim, ...] | Poison | None) -> Iterator[None]:
        """In here a variable of this shape is drawn."""
        outer, self.shape = self.shape, shape
        try:
            yield
        finally:
            self.shape = outer

    # --- scans

    def here(self, t: Tensor, span: Span | None) -> Tensor:
        """A value in the graph that grows now: one from around a scan becomes an input of its body. A number is made
        again, so that it stays a number."""
        if t.builder is self.builder:
            return t
        level = self.level(t)
        if level is None:
            raise error("E0307", "an initial value cannot depend on the model's input", span)
        for frame in self.frames[level:]:
            node = t.builder[t.node]
            if t.node not in frame.captured:
                if node.op in ("constant", "size") and not t.shape:
                    frame.captured[t.node] = frame.builder.add(node.op, (), node.attrs, span=node.span)
                else:
                    frame.captured[t.node] = add_input(frame.builder, node.name, t.type, node.span)
            t = Tensor(frame.captured[t.node], frame.builder)
        return t

    @contextmanager
    def around(self, level: int) -> Iterator[None]:
        """What is made in here belongs to the entry (level 0), or to the scan of that level around this point."""
        builder, frames = self.builder, self.frames
        self.builder, self.frames = self._levels()[level], frames[:level]
        try:
            yield
        finally:
            self.builder, self.frames = builder, frames

    def level(self, t: Tensor) -> int | None:
        """Where a value is: 0 in the entry, k in the k-th scan from outside; None for that of another entry."""
        return next((k for k, b in enumerate(self._levels()) if b is t.builder), None)

    def _levels(self) -> list[Builder]:
        return [self.root, *(f.builder for f in self.frames)]

    def guard(self, left: Dim, right: Dim, message: str, span: Span | None, relation: str = "==") -> None:
        """A relation of sizes for run time to decide; of the index of a scan, for all its turns."""
        self.demand([Relation(left, relation, right)], message, span)

    def demand(self, relations: Sequence[Relation], message: str, span: Span | None) -> None:
        """One of these relations must hold. What holds of all calls that run is known from here on."""
        (first, *others) = relations
        asked = {name for r in relations for n in (r.left, r.right) for name in symbols(n)}
        if others and any(f.index in asked for f in self.frames):
            raise error("E0305", "what may hold in one of several ways cannot depend on the turn of a scan", span)
        for a, b in self.turns(first.left, first.right, first.op, span):
            self.root.guard((Relation(a, first.op, b), *others), message, span)
            if first.op == "==" and not others:
                self.facts = learned(self.facts, a - b)

    def turns(self, left: Dim, right: Dim, relation: str, span: Span | None) -> list[tuple[Dim, Dim]]:
        """The relations without indices of scans that together say that it holds in every turn: those of the first
        turn or of the last, whichever is harder."""
        pairs = [(left, right)]
        for f in reversed(self.frames):
            pairs = [p for pair in pairs for p in extremes(f.name, f.index, f.count, *pair, relation, span)]
        return pairs

    def _check_size(self, t: TensorType, span: Span | None) -> None:
        """What depends on the turn of a scan is 0 or more in every turn; of other sizes that is asked in the end."""
        for n in t.shape:
            if nonnegative(n) or not any(f.index in symbols(n) for f in self.frames):
                continue
            message = f"the size {n} must not be negative"
            if any(isinstance(a, int) and isinstance(b, int) and a < b for a, b in self.turns(n, 0, ">=", span)):
                raise error("E0307", message, span)
            self.guard(n, 0, message, span, ">=")

    def asked(self) -> Span | None:
        """The innermost call that stands in a user's file."""
        return next((s for _, s in reversed(self.calls) if s is not None and not is_std(s)), None)

    def draw_sites(self) -> tuple[int, ...]:
        """A number for the next random draw, stable under edits elsewhere; where a turn is written for all, that of
        each turn, as if they were written out."""
        n = self.draws.get(self.site, 0)
        self.draws[self.site] = n + 1
        if self.turn is None:
            names = [f"{self.site}#{n}"]
        elif is_stack(self.site):
            names = [f"{site}#{n}" for site in members(self.site)]
        else:
            turns, stride = self.frames[0].count, self.turn.draws.get(self.site)
            if stride is None or not isinstance(turns, int):  # an optimiser's: they are counted parameter by parameter
                raise NotRolled(self.site)
            names = [f"{self.site}#{n + k * stride}" for k in range(turns)]
        return tuple([crc32(name.encode()) for name in names])

    def unroll(self, bodies: int, span: Span | None) -> None:
        """Count bodies that are about to be written out."""
        self.bodies += bodies
        if self.bodies > MAX_BODIES:
            raise error(
                "E0502",
                f"each call and each turn of `repeat` is written out, and these are more than {MAX_BODIES:,}",
                span,
            )

    def spend(self, work: int, span: Span) -> None:
        """Count what is evaluated at compile time."""
        self.evaluated += work
        if self.evaluated > MAX_EVALUATED:
            raise error(
                "E0502",
                f"more than {MAX_EVALUATED:,} expressions and elements of lists are evaluated at compile time",
                span,
            )

    def listed(self, value: Listed, span: Span) -> Listed:
        """A list or tuple that was made: its elements count as evaluated, so that no list is too long or nested too
        deep for a walk over it."""
        lists: list[tuple[Value, ...] | Results] = [value]
        depth = 0
        while level := [x for v in lists for x in (v.items if isinstance(v, Results) else v)]:
            depth += 1
            if depth > MAX_RANK:
                raise error("E0303", f"a list is nested at most {MAX_RANK} deep", span)
            self.spend(len(level), span)
            lists = [x for x in level if isinstance(x, tuple | Results)]
        return value

    @contextmanager
    def calling(self, name: str, span: Span | None) -> Iterator[None]:
        self.unroll(1, span)
        if len(self.calls) >= MAX_CALLS:
            raise endless(f"definitions call one another more than {MAX_CALLS} deep, in `{name}`", span)
        self.calls.append((name, span))
        try:
            yield
        except RecursionError:  # calls inside expressions inside calls: Python's own end comes before ours
            raise endless(f"definitions call one another too deeply, in `{name}`", span) from None
        except SourceError as e:
            if span is None or e.span is None or is_std(span) or not is_std(e.span):
                raise
            raise type(e)([_seen_from(d, name, span) for d in e.diagnostics]) from None
        finally:
            self.calls.pop()

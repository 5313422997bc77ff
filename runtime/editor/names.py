"""What each name of a file means, also where nothing is elaborated: in branches not taken, in what nobody calls.

The rules are those of elaboration, on its own `Scope`s: files and the library are looked up by `Modules`, a body binds
its names in order, a scan has names of its own. A test holds the two together. A name is one `Symbol` in a body,
however often it is assigned there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from ...compiler.elaborate.checks import STEP_NAMES
from ...compiler.elaborate.modules import Lazy, Modules, path_of
from ...compiler.elaborate.scope import MISSING, Scope
from ...compiler.elaborate.training.settings import SETTINGS
from ...compiler.elaborate.values import POISON, Builtin, Defined
from ...dsl import ast
from ...dsl.source import Source, Span
from ...dsl.tree import walk
from .symbols import Names, Symbol, Words
from .uses import Uses

words_of = lru_cache(64)(Words)
KINDS = {
    ast.Function: "fn", ast.Layer: "layer", ast.Optimizer: "optimizer", ast.Export: "export", ast.Const: "const",
    ast.Hyper: "hyper",
}  # fmt: skip


def kind_of(d: ast.Definition) -> str:
    return "model" if isinstance(d, ast.Layer) and d.top else KINDS[type(d)]


class Resolver:
    """The symbols of a file, of what it imports, and of what it uses of the library."""

    def __init__(self, modules: Modules):
        self.modules = modules
        self.later: list[Callable[[], None]] = []  # what needs to know the inside of layers
        self._symbols: dict[int | str, Symbol] = {}
        self._names: dict[str, Names] = {}
        self._walked: set[int] = set()

    def file(self, module: ast.Module, scope: Scope) -> Names:
        """All names of a file."""
        for kinds in (ast.Import | ast.Const | ast.Hyper, ast.Function | ast.Layer | ast.Optimizer | ast.Export,
                      ast.Train | ast.Test | ast.Unread):  # fmt: skip
            for d in module.definitions:
                if isinstance(d, kinds):
                    self.walk(d, scope)
        while self.later:
            self.later.pop(0)()
        return self.names(module.span.source)

    def names(self, source: Source) -> Names:
        return self._names.setdefault(source.name, Names(words_of(source)))

    def walk(self, d: Any, scope: Scope) -> None:
        """Note the names of a definition, which closes over a scope."""
        if id(d) not in self._walked:
            self._walked.add(id(d))
            _Walk(self, self.names(d.span.source)).definition(d, scope)

    def symbol(self, value: Any, name: str) -> Symbol | None:
        """What a scope has under a name."""
        match value:
            case Symbol():
                return value
            case Defined(definition=d) | Lazy(definition=d):
                return self.defined(d)
            case _ if value is POISON:
                return None
            case _ if value is MISSING:
                return self.told(name, "step") if name in STEP_NAMES else None
        return self.told(name, "builtin" if isinstance(value, Builtin) else "constant", value)

    def defined(self, d: Any) -> Symbol:
        if id(d) not in self._symbols:
            place = words_of(d.span.source).named(d.name, d.span.start)
            self._symbols[id(d)] = Symbol(d.name, kind_of(d), d, [place])
        return self._symbols[id(d)]

    def told(self, name: str, kind: str, value: Any = None) -> Symbol:
        """What only the compiler knows."""
        return self._symbols.setdefault(name, Symbol(name, kind, value))

    def inside(self, symbol: Symbol) -> Symbol:
        """The symbol, once its parameters, results and members are known."""
        d = symbol.made_by
        if isinstance(d, ast.Layer | ast.Function | ast.Optimizer | ast.Export):
            self.walk(d, self._home(d))
        return symbol

    def _home(self, d: Any) -> Scope:
        """The definitions of the file that a definition is from."""
        if d.span.source.name in self.modules.files:
            return self.modules.files[d.span.source.name][1]
        return self.modules.std


class _Walk(Uses):
    """One definition: what its statements give names to."""

    resolver: Resolver

    def definition(self, d: Any, scope: Scope) -> None:
        match d:
            case ast.Import():
                self._import(d, scope)
            case ast.Const() | ast.Hyper():
                self._own(d)
                if d.type is not None:
                    self._type(d.type, scope, binds=False)
                for e in (d.value,) if isinstance(d, ast.Const) else (d.default, d.choices):
                    if e is not None:
                        self.expression(e, scope)
            case ast.Train():
                self._train(d, scope)
            case ast.Unread():
                self._unread(d, scope)
                inner = Scope(scope)
                self.out.bodies.append((d.span, inner))
                for item in d.body:
                    self._test_item(item, inner)
            case ast.Test():
                inner = Scope(scope)
                self.out.bodies.append((d.span, inner))
                for item in d.body:
                    self._test_item(item, inner)
            case _:
                self._body_of(d, scope)

    # --- definitions

    def _own(self, d: Any) -> Symbol:
        symbol = self.resolver.defined(d)
        self._mark(symbol.places[0], symbol)
        return symbol

    def _import(self, d: ast.Import, scope: Scope) -> None:
        text = self.words.tokens[self.words.first(d.span.start) + 1].span
        if found := self.resolver.modules.files.get(path_of(d)):
            self._mark(text, Symbol(d.path, "file", found[0], [Span(found[0].span.source, 0, 0)]))
        after = text.end
        for name in d.names or ():
            span = self.words.named(name, after)
            self._use(name, span, scope)
            after = span.end

    def _body_of(self, d: ast.Function | ast.Layer | ast.Optimizer | ast.Export, home: Scope) -> None:
        own, scope = self._own(d), Scope(home)
        self.out.bodies.append((d.span, scope))
        for p in d.parameters:
            if p.type is not None:
                self._type(p.type, scope)
            if p.default is not None:
                self.expression(p.default, scope)
            own.parameters[p.name] = self._bind(scope, p.name, self.words.named(p.name, p.span.start), "parameter", p)
        own.sizes.update((n, s) for n, s in scope.names.items() if s.kind == "size")
        if isinstance(d, ast.Optimizer):
            for name in ("p", "g", "role"):
                scope.bind(name, Symbol(name, "given", d))
        else:
            for r in d.results:
                if r.name is not None:
                    span = self.words.named(r.name, r.span.start)
                    own.results[r.name] = self.results[r.name] = self._mark(span, Symbol(r.name, "result", r, [span]))
        self.owner = own if isinstance(d, ast.Layer) else None
        if isinstance(d.body, tuple):
            self._statements(d.body, scope)
        else:
            self.expression(d.body, scope)
        for r in () if isinstance(d, ast.Optimizer) else d.results:
            self._type(r.type, scope)

    def _type(self, t: ast.Type, scope: Scope, binds: bool = True) -> None:
        """The sizes of a type; in a signature a name that means no size yet is one from here on."""
        for d in t.dims or ():
            if isinstance(d, ast.Rest):
                span = self.words.named(d.name, d.span.start)
                if not self._is_local(d.name, scope):
                    self._bind(scope, d.name, span, "size", d)
                else:
                    self._use(d.name, span, scope)
                continue
            if binds:
                for name in walk(d):
                    if isinstance(name, ast.Name) and not isinstance(scope.lookup(name.id), Symbol | Lazy):
                        self._bind(scope, name.id, name.span, "size", name)
            self.expression(d, scope)

    def _train(self, d: ast.Train, home: Scope) -> None:
        scope = Scope(home)
        self.out.bodies.append((d.span, scope))
        model = self._use(d.model, self.words.named(d.model, d.span.start), home)
        if model is not None:
            self.resolver.inside(model)
            self.owner = model
            scope.names |= model.sizes
        inputs = model.parameters if model is not None else {}
        for p in d.parameters:
            span = self.words.named(p.name, p.span.start)
            if p.name in inputs:
                scope.bind(p.name, inputs[p.name])
                self._mark(span, inputs[p.name]).places.append(span)
                continue
            if p.type is not None:
                self._type(p.type, scope)
            self._bind(scope, p.name, span, "parameter", p)
        if model is not None:
            scope.names |= model.results
            for name, member in model.members.items():
                if member.kind in ("weight", "bias", "state") and name not in scope.names:
                    scope.bind(name, member)
        for item in d.body:
            self._train_item(item, scope, home)

    def _train_item(self, item: Any, scope: Scope, home: Scope) -> None:
        match item:
            case ast.Assign(targets=(ast.Target(name=name, indices=None) as t,), value=e) if name in SETTINGS:
                self._mark(t.span, self.resolver.told(f"{name} =", "setting", SETTINGS[name]))
                if SETTINGS[name].kind == "word":
                    return
                if SETTINGS[name].kind == "source" and isinstance(e, ast.Call) and isinstance(e.function, ast.Name):
                    source = self.resolver.told(f"{e.function.id}()", "source", e.function.id)
                    self._mark(e.function.span, source)
                    for a in e.arguments:
                        self.expression(a.value, home)
                    return
                self.expression(e, scope)
                if name == "loss":
                    self._bind(scope, name, t.span, "metric", item)
            case ast.Metric(name=name, value=e) | ast.Minimize(name=name, value=e):
                self.expression(e, scope)
                self._bind(scope, name, self.words.named(name, item.span.start + 1), "metric", item)
                for x in (*item.groups, *item.optimizers) if isinstance(item, ast.Minimize) else ():
                    self.expression(x, scope)
            case ast.StopWhen(condition=e):
                self.expression(e, scope)
            case ast.UpdateRule(body=body):
                self._statements(body, scope)
            case _:
                self._statements((item,), scope)

    def _test_item(self, item: Any, scope: Scope) -> None:
        match item:
            case ast.Case(call=call, expected=expected, within=within):
                self._all((call, expected, within), scope)
            case ast.Expect(condition=condition, within=within):
                self._all((condition, within), scope)
            case ast.GradCheck(model=model):
                self._use(model, self.words.named(model, item.span.start + 1), scope)
            case ast.Reject(value=e):
                self.expression(e, scope)
            case _:
                self._statements((item,), scope)

    def _all(self, several: Sequence[ast.Expr | None], scope: Scope) -> None:
        for e in several:
            if e is not None:
                self.expression(e, scope)

    # --- statements

    def _statements(self, body: Sequence[Any], scope: Scope, turn: str = "") -> None:
        """In order; `turn` is the index of the scan whose body it is."""
        for s in body:
            while isinstance(s, ast.If):  # `else if` may come many times
                self.expression(s.condition, scope)
                self._statements(s.then, scope, turn)
                if len(s.otherwise) != 1 or not isinstance(s.otherwise[0], ast.If):
                    self._statements(s.otherwise, scope, turn)
                    break
                s = s.otherwise[0]
            else:
                self._statement(s, scope, turn)

    def _statement(self, s: Any, scope: Scope, turn: str) -> None:
        match s:
            case ast.Assign(targets=(ast.Target(indices=indices) as t,)) if indices is not None:
                self._indexed(s, t, scope, turn)
            case ast.Assign(targets=targets, value=e):
                self.expression(e, scope)
                made = [self._bind(scope, t.name, self.words.named(t.name, t.span.start), "value", s) for t in targets]
                if len(made) == 1 and len(made[0].places) == 1:
                    made[0].of = self._callee(e, scope)
            case ast.Update(target=ast.Name(id=name, span=span), value=e) if self._is_local(name, scope):
                self.expression(e, scope)
                self._bind(scope, name, span, "state", s)
            case ast.Update(target=target, value=e):
                self.expression(e, scope)
                self.expression(target, scope)
            case ast.Variable(name=name):
                if s.type is not None:
                    self._type(s.type, scope, binds=False)
                self.expression(s.init, scope)
                symbol = self._bind(scope, name, self.words.named(name, s.span.start + 1), s.role, s)
                if self.owner is not None:
                    self.owner.members[name] = symbol
            case ast.Share(name=name, value=e):
                self.expression(e, scope)
                symbol = self._bind(scope, name, self.words.named(name, s.span.start + 1), "shared", s)
                symbol.of = self._callee(e, scope)
                if self.owner is not None:
                    self.owner.members[name] = symbol
            case ast.Return(value=e) | ast.Evaluate(value=e):
                self.expression(e, scope)
            case ast.Unread(gives=gives, body=body):
                self._unread(s, scope)
                for name in filter(None, gives):
                    self._bind(scope, name, self.words.named(name, s.span.start), "value", s)
                self._statements(body, scope, turn)
            case ast.When(training=a, otherwise=b):
                self._statements((*a, *b), scope, turn)
            case ast.Repeat(index=name, count=count, body=body):
                self.expression(count, scope)
                if name is not None:
                    self._bind(scope, name, self.words.named(name, s.span.start + 1), "index", s)
                self._statements(body, scope, turn)
            case ast.Scan(index=name, body=body):
                self.expression(s.range, scope)
                inner = scope.child()
                self.out.bodies.append((s.span, inner))
                span = self.words.named(name, s.span.start + 1)
                inner.bind(name, self._mark(span, Symbol(name, "index", s, [span])))
                self._statements(body, inner, name)
                if s.until is not None:
                    self.expression(s.until, inner)

    def _indexed(self, s: ast.Assign, target: ast.Target, scope: Scope, turn: str) -> None:
        """`y[b, k] = e`: its indices mean something in it alone; with the index of the scan around it, y is collected
        for behind the scan."""
        inner, outer = scope.child(), scope
        assert target.indices is not None
        for i in target.indices:
            if isinstance(i, ast.Binder) and i.range is not None:
                self.expression(i.range, scope)
            if isinstance(i, ast.Name) and i.id == turn:
                self._use(i.id, i.span, scope)
                outer = scope.parent or scope
            elif isinstance(i, ast.Name | ast.Binder | ast.Rest):
                self._index(i, inner)
            else:
                self.expression(i, scope)
        self.out.bodies.append((s.span, inner))
        self.expression(s.value, inner)
        self._bind(outer, target.name, self.words.named(target.name, target.span.start), "value", s)

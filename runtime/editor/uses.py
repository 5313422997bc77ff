"""Names that are used: in expressions, in the order in which they mean something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Protocol

from ...compiler.elaborate.scope import Scope
from ...compiler.elaborate.values import Builtin
from ...dsl import ast
from ...dsl.chains import postfixes
from ...dsl.source import Span
from .symbols import Names, Open, Symbol


class Lookup(Protocol):
    """What is asked of all that a file knows."""

    later: list[Callable[[], None]]  # what needs to know the inside of layers

    def symbol(self, value: Any, name: str) -> Symbol | None:
        """What a scope has under a name."""

    def inside(self, symbol: Symbol) -> Symbol:
        """The symbol, once its parameters, results and members are known."""


class Uses:
    """The names of one definition, and the scopes that they are looked up in."""

    def __init__(self, resolver: Lookup, names: Names):
        self.resolver, self.out, self.words = resolver, names, names.words
        self.results: dict[str, Symbol] = {}  # of the signature, not assigned yet
        self.owner: Symbol | None = None  # the layer whose body this is

    def expression(self, e: ast.Expr, scope: Scope) -> None:
        waiting: list[tuple[Any, Scope]] = [(e, scope)]
        while waiting:
            x, scope = waiting.pop()
            match x:
                case ast.Name(id=name, span=span):
                    self._use(name, span, scope)
                case ast.Rest(name=name, span=span):
                    self._use(f"*{name}", self.words.named(name, span.start), scope)
                case ast.Call() | ast.Index() | ast.Attribute():
                    waiting += [(y, scope) for y in self._postfix(x, scope)]
                case ast.Pipe(value=value, target=target, label=label):
                    if label is not None:
                        self._label(label, x, scope)
                    waiting += [(value, scope), (target, scope)]
                case ast.Comprehension(binders=binders, body=body):
                    inner = scope.child()
                    for b in binders:
                        if b.range is not None:
                            self.expression(b.range, scope)
                        self._index(b, inner)
                    self.out.bodies.append((x.span, inner))
                    waiting.append((body, inner))
                case ast.Unread():
                    self._unread(x, scope)
                case ast.Tree():
                    waiting += [(y, scope) for y in _below(x)]

    def _unread(self, u: ast.Unread, scope: Scope) -> None:
        """Text that does not parse: what its words mean, of those that mean something."""
        tokens = self.words.tokens
        inside = [(b.span.start, b.span.end) for b in u.body]
        for k in range(self.words.first(u.span.start), self.words.first(u.span.end)):
            start = tokens[k].span.start
            argument = k + 1 < len(tokens) and tokens[k + 1].type == "EQUALS" and start != u.span.start
            if tokens[k].type != "NAME" or argument or (k and tokens[k - 1].type == "DOT"):
                continue
            if not any(a <= start < b for a, b in inside):
                self._use(tokens[k].text, tokens[k].span, scope)

    def _postfix(self, e: ast.Expr, scope: Scope) -> list[Any]:
        """`Net.body(x)[0].y`: the first name now, what it has inside later; what else there is to look at."""
        first, steps = postfixes(e)
        head: Symbol | None = None
        more: list[Any] = [first]
        if isinstance(first, ast.Name):
            head, more = self._use(first.id, first.span, scope), []
        self.resolver.later.append(partial(self._steps, head, steps))
        for step in steps:
            match step:
                case ast.Call(arguments=arguments):
                    more += [a.value for a in arguments]
                case ast.Index(items=items):
                    more += items
        return more

    def _steps(self, symbol: Symbol | None, steps: Sequence[Any]) -> None:
        called = False
        for step in steps:
            match step:
                case ast.Attribute(name="T"):
                    symbol = None
                case ast.Attribute(name=name):
                    span = self.words.last_named(name, step.span.end)
                    symbol, called = self._member(symbol, name, span, called), False
                case ast.Call(arguments=arguments):
                    symbol = self._meant(symbol)
                    self._named(symbol, arguments)
                    called = True
                case _:
                    symbol = None

    def _member(self, symbol: Symbol | None, name: str, span: Span, called: bool) -> Symbol | None:
        if symbol is not None:
            owner = self._meant(symbol)
            inside = {} if owner is None else owner.results if called or symbol.kind == "value" else owner.members
            if name in inside:
                inside[name].uses.append(span)
                return self._mark(span, inside[name])
        self.out.open.append(Open(name, span))
        return None

    def _named(self, symbol: Symbol | None, arguments: Sequence[ast.Argument]) -> None:
        """The named arguments of a call."""
        for a in arguments:
            if a.name is None:
                continue
            span = self.words.named(a.name, a.span.start)
            parameter = symbol.parameters.get(a.name) if symbol is not None else None
            if parameter is not None:
                parameter.uses.append(span)
                self._mark(span, parameter)
            elif symbol is not None and isinstance(symbol.made_by, Builtin):
                self._mark(span, Symbol(a.name, "parameter", symbol.made_by))
            else:
                self.out.open.append(Open(a.name, span))

    def _meant(self, symbol: Symbol | None) -> Symbol | None:
        """What is called by a name: the layer behind a label or a shared name, whose inside is then known."""
        if symbol is not None and symbol.of is not None:
            symbol = symbol.of
        return self.resolver.inside(symbol) if symbol is not None else None

    def _label(self, label: str, e: ast.Pipe, scope: Scope) -> None:
        after = self.words.first(e.value.span.end)
        span = self.words.named(label, self.words.tokens[after].span.start)
        symbol = self.owner.members.get(label) if self.owner is not None else None
        if symbol is None:
            symbol = Symbol(label, "label", e)
            if self.owner is not None:
                self.owner.members[label] = symbol
        symbol.places.append(span)
        symbol.of = self._callee(e.target, scope)
        self._mark(span, symbol)

    def _callee(self, e: ast.Expr, scope: Scope) -> Symbol | None:
        """What an expression is a call of, by its name."""
        while isinstance(e, ast.Pipe | ast.Call):
            e = e.target if isinstance(e, ast.Pipe) else e.function
        return self.resolver.symbol(scope.lookup(e.id), e.id) if isinstance(e, ast.Name) else None

    def _index(self, i: ast.Name | ast.Binder | ast.Rest, scope: Scope) -> None:
        name = i.id if isinstance(i, ast.Name) else i.name
        rest = isinstance(i, ast.Rest) or (isinstance(i, ast.Binder) and i.rest)
        span = self.words.named(name, i.span.start)
        scope.bind(f"*{name}" if rest else name, self._mark(span, Symbol(name, "index", i, [span])))

    # --- names

    def _mark(self, span: Span, symbol: Symbol) -> Symbol:
        self.out.at[span.start] = (span, symbol)
        return symbol

    def _use(self, name: str, span: Span, scope: Scope) -> Symbol | None:
        symbol = self.resolver.symbol(scope.lookup(name), name)
        if symbol is not None:
            self._mark(span, symbol).uses.append(span)
        return symbol

    def _is_local(self, name: str, scope: Scope) -> bool:
        return any(name in s.names for s in takewhile(lambda s: s.find is None, scope.chain()))

    def _bind(self, scope: Scope, name: str, span: Span, kind: str, made_by: Any) -> Symbol:
        """One more place where a name gets a value; in a body, or around a scan, it is one symbol."""
        symbol: Symbol
        if self._is_local(name, scope) and isinstance(scope.lookup(name), Symbol):
            symbol = scope.lookup(name)
        elif name in self.results:
            symbol = self.results[name]
            scope.bind(name, symbol)
        else:
            symbol = Symbol(name, kind, made_by)
            scope.bind(name, symbol)
        symbol.places.append(span)
        return self._mark(span, symbol)


def _below(x: ast.Tree) -> list[Any]:
    """What a node holds."""
    fields: tuple[str, ...] = x.__match_args__
    held = [getattr(x, f) for f in fields]
    return [y for x in held for y in (x if isinstance(x, tuple) else (x,))]

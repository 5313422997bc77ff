"""Files and their names: the user's file, what it imports, and the standard library.

A file's scope looks up its own definitions, then what it imports, then std, then the builtins. What std defines is
parsed when it is first used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.errors import DataError, NncError, SourceError, error
from ...dsl.parser import by_name, parse, read_source
from ...dsl.record import dataclass, field, replace
from ...dsl.recovery import recover
from ...dsl.source import Source, Span
from .builtins import BUILTINS
from .faults import Faults
from .scope import MISSING, Scope, suggest
from .values import POISON, Defined

STD = Path(__file__).parents[2] / "dsl" / "std"
NAMED = (ast.Const, ast.Hyper, ast.Function, ast.Layer, ast.Optimizer, ast.Export)  # what others can name
_DEFINITION = re.compile(r"^(?:fn|layer|model|optimizer|const)\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class Lazy:
    """A `const` or `hyper`, evaluated when first asked for."""

    definition: ast.Const | ast.Hyper
    scope: Scope = field(repr=False)


@cache
def std_index() -> dict[str, Path]:
    """Which std file defines a name. Reading a few small files is far cheaper than parsing them."""
    return {name: path for path in sorted(STD.glob("*.nn")) for name in _DEFINITION.findall(path.read_text("utf-8"))}


def path_of(d: ast.Import) -> str:
    """The path of an imported file, beside the file that imports it."""
    name = d.span.source.name
    return str(Path(name).parent / d.path) if name != "<text>" else d.path


@cache
def _std_file(path: Path) -> dict[str, Callable[[], Any]]:
    return by_name(Source(f"std/{path.name}", path.read_text("utf-8")))


@cache
def std_definition(name: str) -> Any:
    """A definition of std, parsed when it is first used; its tree is common to all programs."""
    return _std_file(std_index()[name])[name]()


def _check_signature(d: ast.Definition) -> None:
    """The names of a signature are distinct."""
    named = [*getattr(d, "parameters", ()), *(r for r in getattr(d, "results", ()) if r.name is not None)]
    seen: dict[str, Span] = {}
    for p in named:
        if p.name in seen:
            raise error(
                "E0202",
                f"`{p.name}` stands twice in the signature of `{getattr(d, 'name', 'train')}`",
                p.span,
                "",
                Label(seen[p.name], "first here"),
            )
        seen[p.name] = p.span


class Modules:
    """Every file met so far, parsed once. `sources` are the user's files, by name; `read` gives those that are
    imported. Where `faults` are collected, what parses of a file that is wrong is its module, and a name that a faulty
    definition would have is poison."""

    def __init__(self, root: Source, faults: Faults | None = None, read: Callable[[str, bool], Source] = read_source):
        self.faults, self._read = faults, read
        self.sources: dict[str, str] = {}
        self.std = Scope(Scope(names=dict(BUILTINS)), find=self._find_std, known=lambda: iter(std_index()))
        self.files: dict[str, tuple[ast.Module, Scope]] = {}
        self.module, self.scope = self._load(root, ())

    def beside(self, source: Source) -> tuple[ast.Module, Scope]:
        """A text that knows the models of the file, also imported ones, and the standard library, but none of the
        file's other names: what it says does not depend on what the user calls things."""
        module, scope = parse(source), Scope(self.std)
        assert self.scope.known is not None
        for name in self.scope.known():
            value = self.scope.lookup(name)
            if isinstance(value, Defined) and isinstance(value.definition, ast.Layer) and value.definition.top:
                scope.names[name] = value
        own = [d for d in module.definitions if isinstance(d, ast.Function | ast.Export)]
        scope.names |= {d.name: Defined(d, scope) for d in own}
        return module, scope

    def _find_std(self, name: str) -> Any:
        return self._value(std_definition(name), self.std) if name in std_index() else MISSING

    def _load(self, source: Source, importing: tuple[str, ...]) -> tuple[ast.Module, Scope]:
        if source.name in self.files:
            return self.files[source.name]
        module = self._parsed(source)
        if self.faults is not None:
            module = replace(module, definitions=tuple(map(self._sound, module.definitions)))
        self.sources[source.name] = source.text
        table: dict[str, tuple[Any, Scope | None]] = {}
        spans: dict[str, Span] = {}
        scope = Scope(self.std)

        def find(name: str) -> Any:
            found = table.get(name)
            return MISSING if found is None else self._value(found[0], found[1] or scope)

        def known() -> Iterator[str]:
            return iter(table)

        scope.find, scope.known = find, known

        def define(name: str, definition: Any, home: Scope | None, span: Span) -> None:
            if name in table and table[name][0] is not definition:
                raise error("E0202", f"`{name}` is defined twice", span, "", Label(spans[name], "first here"))
            table[name], spans[name] = (definition, home), span

        for d in module.definitions:
            try:
                if self.faults is None:
                    _check_signature(d)
                match d:
                    case ast.Import():
                        self._import(d, source, (*importing, source.name), define)
                    case ast.Unread():
                        scope.doubtful.update(d.names)
                    case _ if isinstance(d, NAMED):
                        define(d.name, d, None, d.span)
            except SourceError as e:
                self.refuse(e)
                if isinstance(d, ast.Import):
                    scope.doubtful.update(d.names or ("*",))
        unread = (name for d in module.definitions if isinstance(d, ast.Unread) for name in d.gives)
        scope.names |= {name: POISON for name in unread if name not in table}
        self.files[source.name] = (module, scope)
        return module, scope

    def _sound(self, d: ast.Definition) -> ast.Definition:
        """A definition, or only the body of one whose signature is faulty."""
        try:
            _check_signature(d)
        except SourceError as e:
            self.refuse(e)
            names = (p.name for p in (*getattr(d, "parameters", ()), *getattr(d, "results", ())) if p.name)
            body = getattr(d, "body", ())
            body = body if isinstance(body, tuple) else (ast.Evaluate(body, span=body.span),)
            name: str = getattr(d, "name", None) or d.model  # type: ignore[union-attr]
            return ast.Unread((name,), tuple(names), body, span=d.span)
        return d

    def refuse(self, e: NncError) -> None:
        """Tell a fault of a definition, or raise it where faults are not collected."""
        if self.faults is None:
            raise e
        self.faults.tell(e)

    def _parsed(self, source: Source) -> ast.Module:
        if self.faults is None:
            return parse(source)
        module, found = recover(source)
        self.faults.add(found, SourceError)
        return module

    def _import(self, d: ast.Import, source: Source, importing: tuple[str, ...], define: Any) -> None:
        path = path_of(d)
        if path in importing:
            raise error("E0205", f"{d.path!r} imports itself", d.span, " -> ".join([*importing, path]))
        try:
            other = self._read(path, True)
        except DataError as e:
            raise error("E0204", f"the import {e.diagnostics[0].message}", d.span) from None
        module, scope = self._load(other, importing)
        exported = {x.name: x for x in module.definitions if isinstance(x, NAMED)}
        unread = {n for x in module.definitions if isinstance(x, ast.Unread) for n in (*x.gives, *x.names)}
        for name in d.names if d.names is not None else exported:
            if name not in exported and name in unread:
                raise error("E0204", f"`{name}` of {d.path!r} does not parse", d.span)
            if name not in exported:
                near = suggest(name, list(exported))
                help = f"did you mean `{near}`?" if near else None
                self.refuse(error("E0204", f"{d.path!r} has no `{name}`", d.span, help=help))
                for meant in filter(None, (near, name)):
                    define(meant, exported[near] if near else POISON, scope, d.span)
                continue
            define(name, exported[name], scope, d.span)

    @staticmethod
    def _value(definition: Any, scope: Scope) -> Any:
        if definition is POISON:
            return POISON
        return Lazy(definition, scope) if isinstance(definition, ast.Const | ast.Hyper) else Defined(definition, scope)

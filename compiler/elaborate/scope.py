"""Names in scope. A scope maps names to values, looks outward through its parents, and knows the layer instance that
parameters declared in it belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import takewhile
from typing import Any

from ...dsl.diagnostics import Label
from ...dsl.errors import NncError, error
from ...dsl.record import dataclass, field
from ...dsl.source import Span
from ..types.stacks import members, numbers


@dataclass(slots=True)
class Instance:
    """One layer instance: where its parameters live, and how many of each layer it has made so far."""

    path: str
    counts: dict[str, int] = field(default_factory=dict)
    labels: dict[str, Span] = field(default_factory=dict)  # of all parts, also those that are numbered or shared
    declared: dict[str, Span] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # name in the source -> path
    optimizer: bool = False  # variables are slots of the parameter at `path`
    turns: int = 1  # that what is numbered now stands for; then
    strides: dict[str, int] = field(default_factory=dict)  # how many of each layer a turn makes

    def number(self, layer: str, span: Span) -> str:
        """The path of the next unlabelled instance of `layer` in here: `Mlp.dense_2`."""
        stem = layer.lower()
        n = self.counts[stem] = self.counts.get(stem, 0) + 1
        name = f"{stem}_{n if self.turns == 1 else numbers(n, self.turns, self.strides.get(stem, 1))}"
        return self.part(name, span, f"`{name}`, as a `{layer}` without a label is called here, is a name already")

    def part(self, name: str, span: Span, said: str) -> str:
        """The path of a new part. Raises E0202, which says `said`, where another has the name: they would be one."""
        for one in members(name):
            if one in self.labels:
                raise error("E0202", said, span, "", Label(self.labels[one], "first here"))
            self.labels[one] = span
        return self.child(name)

    def child(self, name: str) -> str:
        return f"{self.path}{'/' if self.optimizer else '.'}{name}" if self.path else name


@dataclass(slots=True)
class Scope:
    parent: Scope | None = None
    instance: Instance | None = None
    names: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    find: Callable[[str], Any] | None = None  # for names that are made when first asked for (definitions)
    known: Callable[[], Iterator[str]] | None = None  # their names, for suggestions
    later: dict[str, Span] = field(default_factory=dict)  # names the body assigns somewhere
    inside: dict[str, Span] = field(default_factory=dict)  # names that a scan above assigns, for itself
    doubtful: set[str] = field(default_factory=set)  # names in text that does not parse; `*` is any name

    def child(self, instance: Instance | None = None) -> Scope:
        return Scope(self, instance or self.instance)

    def bind(self, name: str, value: Any, span: Span | None = None) -> None:
        self.names[name] = value
        if span is not None:
            self.spans[name] = span

    def lookup(self, name: str) -> Any:
        """The value, or `MISSING`."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            if scope.find is not None:
                value = scope.find(name)
                if value is not MISSING:
                    return value
            scope = scope.parent
        return MISSING

    def doubts(self, name: str) -> bool:
        """Whether a name that is missing may be one of text that does not parse."""
        return any(not s.doubtful.isdisjoint((name, "*")) for s in self.chain())

    def where(self, name: str) -> Span | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.spans.get(name)
            scope = scope.parent
        return None

    def chain(self) -> Iterator[Scope]:
        """This scope and those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def local(self, name: str) -> bool:
        """Whether the name is bound in the body that this scope is of, not among definitions around it."""
        return any(name in s.names for s in takewhile(lambda s: s.find is None, self.chain()))

    def visible(self) -> Iterator[str]:
        scope: Scope | None = self
        while scope is not None:
            yield from scope.names
            if scope.known is not None:
                yield from scope.known()
            scope = scope.parent


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()


def suggest(name: str, known: Iterator[str] | list[str], alike: float = 0.6) -> str | None:
    """The nearest known name, for `help`; how much `alike` it must be, of 1."""
    candidates = sorted(set(known))
    near = get_close_matches(name, candidates, 1, alike)
    if not near:
        near = [c for c in candidates if c.lower() == name.lower()]
    return near[0] if near else None


def unknown(
    name: str,
    span: Span | None,
    known: Iterator[str] | list[str],
    what: str = "name",
    help: str | None = None,
    *labels: Label,
) -> NncError:
    """`span` is None where the name came from outside the file."""
    listed = sorted(set(known))
    near = suggest(name, listed) if help is None else None
    if near is not None:
        help = f"did you mean `{near}`?"
    elif help is None and what != "name":  # names in scope are too many to list
        help = f"there is {', '.join(f'`{k}`' for k in listed[:12])}" if listed else "there is none"
    return error("E0201", f"unknown {what} `{name}`", span, "", *labels, help=help, fix=near)

"""What names mean: a `Symbol` for each thing that has a name, with the places where it is named."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...compiler.elaborate.scope import Scope
from ...dsl import ast
from ...dsl.source import Source, Span
from ...dsl.tokens import RESERVED, Token, tokenize


@dataclass(eq=False, slots=True)
class Symbol:
    """`kind` is what the language calls it: `layer`, `parameter`, `size`, `label`, `setting`, ...; `made_by` defines
    it, or is None for what only the compiler knows. `places` are where it gets a value, the first one first; `uses` all
    else. What a label or a shared name stands for is `of`; what is inside a layer, `members`."""

    name: str
    kind: str
    made_by: Any = None
    places: list[Span] = field(default_factory=list)
    uses: list[Span] = field(default_factory=list)
    of: Symbol | None = None
    members: dict[str, Symbol] = field(default_factory=dict)
    results: dict[str, Symbol] = field(default_factory=dict)
    parameters: dict[str, Symbol] = field(default_factory=dict)
    sizes: dict[str, Symbol] = field(default_factory=dict)  # that its signature names

    @property
    def place(self) -> Span | None:
        return self.places[0] if self.places else None

    @property
    def key(self) -> tuple[str, int] | None:
        """The same for a symbol met from two files."""
        return (self.places[0].source.name, self.places[0].start) if self.places else None

    def before(self, offset: int) -> Span | None:
        """Where it got the value that it has at an offset of its own file."""
        above = [s for s in self.places if s.start <= offset]
        return above[-1] if above else self.place


@dataclass(frozen=True, slots=True)
class Open:
    """A name that only elaboration could tell: `init(fan_in = 3)` of a function that is given."""

    name: str
    span: Span


@dataclass(eq=False, slots=True)
class Names:
    """The names of one file. `bodies` are stretches of text with the names that mean something in them, from outside
    inwards."""

    words: Words
    at: dict[int, tuple[Span, Symbol]] = field(default_factory=dict)
    bodies: list[tuple[Span, Scope]] = field(default_factory=list)
    open: list[Open] = field(default_factory=list)

    def find(self, offset: int) -> tuple[Span, Symbol] | None:
        """The name that an offset is in, or right behind."""
        for start in self.words.starts_near(offset):
            found = self.at.get(start)
            if found is not None and found[0].start <= offset <= found[0].end:
                return found
        return None

    def visible(self, offset: int) -> Iterator[Symbol]:
        """What is local at an offset: the innermost first."""
        for span, scope in reversed(self.bodies):
            if span.start <= offset <= span.end:
                seen: set[str] = set()
                for s in scope.chain():
                    if s.find is not None:
                        return
                    for name, symbol in s.names.items():
                        if name not in seen and any(p.start < offset for p in symbol.places or [span]):
                            seen.add(name)
                            yield symbol
                return


class Words:
    """The tokens of a source, and where its words stand."""

    def __init__(self, source: Source):
        self.source = source
        lexed = tokenize(source)
        self.tokens: tuple[Token, ...] = lexed.tokens
        self.comments: tuple[ast.Comment, ...] = lexed.comments
        self._starts = [t.span.start for t in self.tokens]

    def first(self, after: int) -> int:
        """The number of the first token at or behind an offset."""
        return bisect_left(self._starts, after)

    def last(self, before: int) -> int:
        """The number of the last token that begins before an offset; -1 where there is none."""
        return bisect_left(self._starts, before) - 1

    def starts_near(self, offset: int) -> list[int]:
        """Where the tokens begin that an offset is in or right behind."""
        k = bisect_right(self._starts, offset)
        return self._starts[max(k - 2, 0) : k][::-1]

    def named(self, name: str, after: int) -> Span:
        """The first word of this text at or behind an offset."""
        for token in self.tokens[self.first(after) :]:
            if token.text == name and (token.type == "NAME" or token.text.isidentifier()):
                return token.span
        raise AssertionError(f"`{name}` is in the tree, but not in the text")

    def last_named(self, name: str, before: int) -> Span:
        """The last word of this text that ends at or before an offset."""
        k = self.first(before) - 1
        while self.tokens[k].text != name:
            k -= 1
        return self.tokens[k].span


def is_word(text: str) -> bool:
    """Whether something can be called so."""
    return text.isidentifier() and text not in RESERVED

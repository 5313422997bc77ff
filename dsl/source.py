"""Where text came from: a `Source` is a file's text, a `Span` a stretch of it.

Every later stage keeps spans, so that any message can point at the user's own line.
"""

from __future__ import annotations

from bisect import bisect_right

from .record import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One text and the name it is known by (`models/mlp.nn`, `<text>`, `std/losses.nn`)."""

    name: str
    text: str = field(repr=False)
    _starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts = [0] + [i + 1 for i, c in enumerate(self.text) if c == "\n"]
        object.__setattr__(self, "_starts", starts)

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of a character offset."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of line `number` (from 1), without its newline."""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` up to, not including, `end` of a source. Of a call of the library `std` is the place in
    there that is meant."""

    source: Source
    start: int
    end: int
    std: Span | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return ":".join(map(str, (self.source.name, *self.position)))

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    @property
    def position(self) -> tuple[int, int]:
        return self.source.position(self.start)

    def to(self, other: Span) -> Span:
        """The span from here to the end of `other`."""
        return Span(self.source, self.start, max(self.end, other.end))

"""Offsets into a text, and lines and columns as an editor counts them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

_UNITS: dict[str, Callable[[str], int]] = {
    "utf-8": lambda s: len(s.encode()),
    "utf-16": lambda s: len(s) + sum(c > "\uffff" for c in s),
    "utf-32": len,
}


class Positions:
    """Of one text, whose lines end with a newline. Lines and columns count from 0, columns in units of `encoding`."""

    def __init__(self, text: str, encoding: str):
        self._text, self._units = text, _UNITS[encoding]
        self._starts = [0] + [i + 1 for i, c in enumerate(text) if c == "\n"]

    def position(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset) - 1
        return line, self._units(self._text[self._starts[line] : offset])

    def offset(self, line: int, column: int) -> int:
        """What is behind the end of a line, or of the text, is at its end."""
        if line >= len(self._starts):
            return len(self._text)
        start = at = self._starts[line]
        end = self._starts[line + 1] - 1 if line + 1 < len(self._starts) else len(self._text)
        if self._text[start:end].isascii():
            return min(start + column, end)
        while at < end and column > 0:
            column -= self._units(self._text[at])
            at += 1
        return at

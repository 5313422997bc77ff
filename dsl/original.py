"""What only the author's text knows, and the syntax tree does not: comments, newlines, and where the braces are.

The formatter asks it by offset, and takes each comment out once. For trees that a program made there is no text: every
answer is then no.
"""

from __future__ import annotations

from bisect import bisect_left

from . import ast
from .source import Source
from .tokens import scan


class Original:
    """A source with the comments that have found no place in the new text yet."""

    def __init__(self, module: ast.Module, source: Source):
        self._text = source.text
        self._comments = sorted(module.comments, key=lambda c: c.span.start)
        self._starts = [c.span.start for c in self._comments]
        self._taken = [False] * len(self._comments)
        self._opens: list[int] = []
        self._closes: dict[int, int] = {}
        stack: list[int] = []
        for token in scan(source)[0]:
            if token.type == "LBRACE":
                self._opens.append(token.span.start)
                stack.append(token.span.start)
            elif token.type == "RBRACE" and stack:
                self._closes[stack.pop()] = token.span.start

    @property
    def end(self) -> int:
        """An offset behind everything."""
        return len(self._text) + 1

    def take(self, start: int, end: int) -> list[ast.Comment]:
        """The comments between two offsets that have no place yet; now they have."""
        found = []
        i = bisect_left(self._starts, start)
        while i < len(self._comments) and self._starts[i] < end:
            if not self._taken[i]:
                self._taken[i] = True
                found.append(self._comments[i])
            i += 1
        return found

    def has_comment(self, start: int, end: int) -> bool:
        """Whether a comment between two offsets has no place yet."""
        return not all(self._taken[bisect_left(self._starts, start) : bisect_left(self._starts, end)])

    def line_end(self, offset: int) -> int:
        end = self._text.find("\n", offset)
        return len(self._text) if end < 0 else end

    def find(self, text: str, start: int) -> int:
        return self._text.find(text, start)

    def broken(self, start: int, end: int) -> bool:
        """Whether the author put a newline between two offsets."""
        return self._text.find("\n", start, end) >= 0

    def blank_before(self, start: int, end: int) -> bool:
        """Whether an empty line stands between two things that have nothing but space between them."""
        return self._text.count("\n", start, end) > 1

    def braces(self, after: int) -> tuple[int, int]:
        """What lies between the first brace that opens at or after an offset and the one that closes it."""
        at = bisect_left(self._opens, after)
        if at == len(self._opens):
            return after, after
        return self._opens[at] + 1, self._closes.get(self._opens[at], len(self._text))

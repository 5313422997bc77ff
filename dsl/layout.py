"""Documents that know where they may break, and the printer that decides where they do.

A document is a string, a tuple of documents, or one of the nodes below (Wadler 2003, "A prettier printer"; filling as
in Prettier). `lay_out` turns one into lines of at most `WIDTH` columns where it can. The printer keeps a stack of its
own, so documents may be nested as deep as memory allows.
"""

from __future__ import annotations

from typing import Literal, Union

from .record import dataclass

WIDTH = 120
INDENT = 4


@dataclass(frozen=True, slots=True)
class Line:
    """A newline; `flat` in its place where the group around it fits on one line."""

    flat: str = " "
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Nest:
    """Lines inside begin one step further right."""

    body: Doc
    hard: bool


@dataclass(frozen=True, slots=True)
class Group:
    """On one line if it fits, else every line of its own breaks."""

    body: Doc
    hard: bool


@dataclass(frozen=True, slots=True)
class Fill:
    """Items, with a line after each but the last that breaks only where the next item does not fit."""

    items: tuple[Doc, ...]
    hard: bool


@dataclass(frozen=True, slots=True)
class Trailing:
    """A comment at the end of its line; it takes no part in the width."""

    text: str


@dataclass(frozen=True, slots=True)
class Broken:
    """Text that is there only where the group around it takes several lines."""

    text: str


Doc = Union[str, "tuple[Doc, ...]", Line, Nest, Group, Fill, Trailing, Broken]

LINE = Line()
SOFT = Line("")
HARD = Line(hard=True)


def is_hard(doc: Doc) -> bool:
    """Whether the document holds a line that must break."""
    match doc:
        case str() | Trailing() | Broken():
            return False
        case tuple():
            return any(is_hard(d) for d in doc)
    return doc.hard


def nest(*body: Doc) -> Doc:
    return Nest(body, is_hard(body))


def group(*body: Doc) -> Doc:
    return Group(body, is_hard(body))


def fill(items: list[Doc]) -> Doc:
    return Fill(tuple(items), is_hard(tuple(items)))


Mode = Literal["flat", "break"]
Command = tuple[int, Mode, Doc, int]  # indentation, mode, document, first item of a fill


def lay_out(doc: Doc) -> str:
    """The text of a document; comments that trail consecutive lines begin in one column."""
    lines: list[tuple[str, str]] = []  # code, trailing comment
    line: list[str] = []
    column = 0
    comment = ""
    stack: list[Command] = [(0, "break", doc, 0)]
    while stack:
        indent, mode, current, start = stack.pop()
        match current:
            case str():
                line.append(current)
                column += len(current)
            case tuple():
                stack.extend((indent, mode, d, 0) for d in reversed(current))
            case Trailing(text):
                comment = text
            case Broken(text):
                if mode == "break":
                    line.append(text)
                    column += len(text)
            case Nest(body, _):
                stack.append((indent + INDENT, mode, body, 0))
            case Group(body, hard):
                flat = not hard and (mode == "flat" or _fits(WIDTH - column, (indent, "flat", body, 0), stack))
                stack.append((indent, "flat" if flat else "break", body, 0))
            case Line(flat=text) if mode == "flat" and not current.hard:
                line.append(text)
                column += len(text)
            case Line():
                lines.append(("".join(line).rstrip(), comment))
                line, comment = [" " * indent], ""
                column = indent
            case Fill(items, _) if start < len(items):
                item: Command = (indent, "flat", items[start], 0)
                rest: Command = (indent, mode, current, start + 1)
                ahead = [rest] if start + 1 < len(items) else stack
                flat = mode == "flat" or not is_hard(items[start])
                if start and mode == "break" and not (flat and _fits(WIDTH - column - 1, item, ahead)):
                    lines.append(("".join(line).rstrip(), comment))
                    line, comment = [" " * indent], ""
                    column = indent
                elif start:
                    line.append(" ")
                    column += 1
                flat = mode == "flat" or (flat and _fits(WIDTH - column, item, ahead))
                stack += [rest, (indent, "flat" if flat else "break", items[start], 0)]
    lines.append(("".join(line).rstrip(), comment))
    return "\n".join(_with_comments(lines))


def _fits(room: int, first: Command, rest: list[Command]) -> bool:
    """Whether `first`, and what follows it up to the next possible newline, takes at most `room` columns."""
    stack = [first]
    below = len(rest)
    while room >= 0:
        if not stack:
            if not below:
                return True
            below -= 1
            stack.append(rest[below])
        indent, mode, current, start = stack.pop()
        match current:
            case str():
                room -= len(current)
            case tuple():
                stack.extend((indent, mode, d, 0) for d in reversed(current))
            case Trailing():
                return True
            case Broken(text):
                room -= len(text) if mode == "break" else 0
            case Nest(body, _) | Group(body, _):
                # a group further on can still break, but what stands before its first line must fit here
                stack.append((indent, mode, body, 0))
            case Line():
                if mode == "break" or current.hard:
                    return True
                room -= len(current.flat)
            case Fill(items, _):
                if mode == "break" and start:
                    return True
                for i in range(len(items) - 1, start - 1, -1):
                    stack.append((indent, mode, items[i], 0))
                    if i:
                        stack.append((indent, mode, LINE, 0))
    return False


def _with_comments(lines: list[tuple[str, str]]) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(lines):
        run = i
        while run < len(lines) and lines[run][1]:
            run += 1
        if run == i:
            out.append(lines[i][0])
            i += 1
            continue
        column = max(len(code) for code, _ in lines[i:run]) + 2
        aligned = all(column + len(comment) <= WIDTH for _, comment in lines[i:run])
        width = column - 2 if aligned else 0
        out += [f"{code:<{width}}  {comment}" for code, comment in lines[i:run]]
        i = run
    return out

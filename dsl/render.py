"""A `Diagnostic` as text for people, or as a dict for programs.

    error[E0301]: inner sizes of @ must agree, but 576 is not 400
      --> lenet5.nn:6:16
       |
     6 |     z = c5 @ W5.T + b5
       |         -- ^ ---- f32[400, 84], declared at 5:17
       |         |
       |         f32[B, 576], from `flatten` of 16 x 6 x 6 at 4:31
       = help: with `kernel = 5` at 3:28 the maps are 5 x 5 and flatten to 400

The first label is the place itself, underlined by `^`; the others are facts about other places, underlined by `-`. The
text of the rightmost label of a line stands beside its underline, the others hang below theirs. On a terminal of so
many columns texts are broken between words, and of a line of the source what fits is shown.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from textwrap import fill, wrap
from typing import Any

from .diagnostics import Diagnostic, Label
from .record import dataclass
from .source import Source, Span

TAB = 4
WIDTH = 160  # longer lines are shown around their labels
LEAST = 24  # columns that a line or a label has, however narrow the terminal is

LONGEST = 1000  # characters of a message, a label or a help

_STYLES = {"error": "1;31", "warning": "1;33", "frame": "1;34", "fact": "1;34", "bold": "1"}


def render(diagnostic: Diagnostic, color: bool = False, columns: int | None = None) -> str:
    """The diagnostic in the style above, without a newline at the end; `color` adds ANSI escapes, and nothing but a
    path is wider than `columns`."""

    def paint(text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color and text.strip() else text

    severity = diagnostic.severity
    labels = [_Mark(label, i == 0) for i, label in enumerate(diagnostic.labels)]
    gutter = len(str(max((m.line for m in labels), default=1)))
    room = WIDTH if columns is None else max(LEAST, columns - gutter - len("  | ......"))
    what = f"{severity}[{diagnostic.code}]"
    message = _wrapped(f"{what}: {_clean(diagnostic.message)}", columns, "  ")
    out = [paint(what, severity) + paint(message.removeprefix(what), "bold")]
    for source, marks in _by_source(labels):
        first = marks[0].label.span
        line, column = first.position
        out.append(f"{' ' * (gutter + 1)}{paint('-->', 'frame')} {_clean(source.name)}:{line}:{column}")
        out.append(paint(f"{' ' * (gutter + 2)}|", "frame"))
        shown = 0
        for number, group in groupby(sorted(marks, key=lambda m: m.line), key=lambda m: m.line):
            if shown and number > shown + 2:
                out.append(paint(" ...", "frame"))
            elif shown and number == shown + 2:  # one line between two is shown, not left out
                between = _Line.of(source, shown + 1, (), room).text
                out.append(f"{paint(f' {shown + 1:>{gutter}} |', 'frame')} {between}".rstrip())
            shown = number
            on_line = list(group)
            text = _Line.of(source, number, on_line, room)
            out.append(f"{paint(f' {number:>{gutter}} |', 'frame')} {text.text}".rstrip())
            for row in _rows(text, on_line, severity, room if columns is not None else LONGEST):
                pieces = [("".join(c for c, _ in run), style) for style, run in groupby(row, key=lambda c: c[1])]
                painted = "".join(paint(piece, style) for piece, style in pieces).rstrip()
                out.append(f"{paint(' ' * (gutter + 2) + '|', 'frame')} {painted}")
    indent = " " * (gutter + 2) if labels else "  "
    for help in diagnostic.help:
        text_of = _wrapped(f"{indent}= help: {_clean(help)}", columns, indent + " " * len("= help: "))
        out.append(text_of.replace(f"{indent}= help", f"{paint(f'{indent}=', 'frame')} {paint('help', 'bold')}", 1))
    return "\n".join(out)


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """The same facts as plain data; lines and columns count from 1, offsets from 0, ends are exclusive."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "labels": [{**_place(label.span), "text": label.text} for label in diagnostic.labels],
        "help": list(diagnostic.help),
    }


def _place(span: Span) -> dict[str, Any]:
    line, column = span.position
    end_line, end_column = span.source.position(span.end)
    return {
        "file": span.source.name, "line": line, "column": column, "end_line": end_line, "end_column": end_column,
        "start": span.start, "end": span.end,
    }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Mark:
    label: Label
    primary: bool

    @property
    def line(self) -> int:
        return self.label.span.position[0]

    @property
    def text(self) -> str:
        return _clean(self.label.text)


def _by_source(marks: Sequence[_Mark]) -> list[tuple[Source, list[_Mark]]]:
    """Marks grouped by file, in the order of first mention, so that the place itself comes first."""
    groups: list[tuple[Source, list[_Mark]]] = []
    for mark in marks:
        source = mark.label.span.source
        for known, group in groups:
            if known is source:
                group.append(mark)
                break
        else:
            groups.append((source, [mark]))
    return groups


@dataclass(frozen=True, slots=True)
class _Line:
    """A source line as it is shown: `columns[i]` is where its i-th character from `first` on stands."""

    text: str
    first: int
    columns: tuple[int, ...]

    @staticmethod
    def of(source: Source, number: int, marks: Sequence[_Mark], room: int) -> _Line:
        line = source.line(number).rstrip("\r")
        first = 0
        if len(line) > room:
            ends = [m.label.span.position[1] - 1 + len(m.label.span.text) for m in marks]
            if max(ends, default=0) > room:
                first = max(0, min(m.label.span.position[1] for m in marks) - 1 - room // 3)
            cut = line[first : first + room]
            prefix, suffix = "..." if first else "", "..." if first + room < len(line) else ""
        else:
            cut, prefix, suffix = line, "", ""
        shown, column, columns = [prefix], len(prefix), []
        for c in cut:
            columns.append(column)
            piece = " " * (TAB - column % TAB) if c == "\t" else printable(c)
            shown.append(piece)
            column += cells(piece)
        return _Line("".join(shown) + suffix, first, (*columns, column))

    def column(self, offset: int) -> int:
        """Where the character at `offset` of the whole line is shown, or the nearest shown place."""
        return self.columns[min(max(offset - self.first, 0), len(self.columns) - 1)]


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


Cell = tuple[str, str]  # a character and its style


def _rows(line: _Line, marks: Sequence[_Mark], severity: str, room: int) -> list[list[Cell]]:
    """What stands below a line: the underlines, then the hanging texts from right to left, in so many columns as far as
    a text has a few from its place on."""
    spans: list[tuple[int, int, _Mark]] = []
    for mark in marks:
        source, start = mark.label.span.source, mark.label.span.start
        begin = start - (source.position(start)[1] - 1)
        left = line.column(start - begin)
        right = line.column(min(mark.label.span.end, begin + len(source.line(mark.line))) - begin)
        spans.append((left, max(right, left + 1), mark))
    spans.sort(key=lambda s: (s[0], s[1]))

    def style(mark: _Mark) -> str:
        return severity if mark.primary else "fact"

    under: list[Cell] = [(" ", "bold")] * max(right for _, right, _ in spans)
    for left, right, mark in sorted(spans, key=lambda s: s[2].primary):
        under[left:right] = [("^" if mark.primary else "-", style(mark))] * (right - left)
    rows = [under]
    hanging = [s for s in spans if s[2].text]
    last = hanging and hanging[-1][1] >= len(under) and hanging[-1][0] == max(left for left, _, _ in spans)
    if last and len(under) + 1 + cells(hanging[-1][2].text) <= room:
        under += [(c, style(hanging[-1][2])) for c in " " + hanging[-1][2].text]
        hanging.pop()
    if hanging:
        rows.append(_connectors(hanging, style))
    while hanging:
        left, _, mark = hanging.pop()
        for text in wrap(mark.text, max(LEAST, room - left), break_long_words=False, break_on_hyphens=False):
            row = _connectors([s for s in hanging if s[0] < left], style)
            rows.append(row + [(" ", "bold")] * (left - len(row)) + [(c, style(mark)) for c in text])
    return rows


def _connectors(spans: Sequence[tuple[int, int, _Mark]], style: Any) -> list[Cell]:
    row: list[Cell] = []
    for left, _, mark in spans:
        if left >= len(row):
            row += [(" ", "bold")] * (left - len(row)) + [("|", style(mark))]
    return row


def _wrapped(text: str, columns: int | None, indent: str) -> str:
    """The text in lines of so many columns, broken between words; further lines are indented."""
    if columns is None:
        return text
    begin = text[: len(text) - len(text.lstrip())]
    return fill(
        text.lstrip(), columns, initial_indent=begin, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _clean(text: str) -> str:
    """One line of bearable length."""
    if len(text) > LONGEST:
        text = text[: LONGEST - 3] + "..."
    return printable(text.replace("\n", " ").replace("\t", " "))


def printable(text: str, keep: str = "") -> str:
    """The text without control characters, but for those to keep: what users write, and what their files are called,
    must not drive the terminal."""
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)

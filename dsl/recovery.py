"""Parsing of what is wrong: each mistake is told once, the text around it is set aside, and the rest is parsed.

In: a source. Out: its tree, and the diagnostics of `parse` without those that only follow from others. A stretch that
is set aside is one token for the grammar, UNREAD, and an `ast.Unread` (or a type without a name) in the tree: the right
side of an assignment, one parameter's type, a signature, a statement, or a definition, whichever is the least that
holds the mistake. A brace that is missing is put where the indentation says, one too many is left out. Then the text is
read again, until nothing new is found.
"""

from __future__ import annotations

from bisect import bisect_right
from difflib import get_close_matches

from . import ast
from .diagnostics import Diagnostic
from .parser import MAX_ERRORS, read
from .record import dataclass
from .source import Source, Span
from .tokens import CONTINUES, DEFINITIONS, OPENING, Lexed, Token, arrange, scan

_BLOCKS = ("layer", "model", "optimizer", "train", "test", "if", "when", "repeat", "scan", "update")


def recover(source: Source) -> tuple[ast.Module, list[Diagnostic]]:
    """What of a source parses, and what is wrong with it, in the order of the text."""
    return _Recovery(source).run()


@dataclass(frozen=True, slots=True)
class _Line:
    """Tokens `start` up to `end` that stand on one line, and on those that it goes on in; the indentation."""

    start: int
    end: int
    indent: int


class _Recovery:
    """The tokens of a source, and what is changed about them before they are read once more."""

    def __init__(self, source: Source):
        self.source = source
        self.tokens, self.comments, self.lexical = scan(source)
        self.starts = [t.span.start for t in self.tokens]
        self.types = [t.type for t in self.tokens]
        self.lines = _lines(self.tokens)
        self.aside: list[range] = []  # each is one UNREAD
        self.out: set[int] = set()  # tokens that are left out
        self.more: dict[int, list[Token]] = {}  # tokens that are put before one
        self.meant: dict[int, str] = {}  # words that are read as others
        self.told: list[Diagnostic] = []

    def run(self) -> tuple[ast.Module, list[Diagnostic]]:
        for _ in range(MAX_ERRORS):
            module, found = read(self.source, self.edited())
            if any(d.code == "E0111" for d in found):
                self.told = found
                break
            if not found:
                break
            causes = [d for d in found if not self.follows(d)]
            for d in causes or found[:1]:
                self.repair(d)
        return module, sorted(self.told, key=lambda d: d.span.start if d.span else 0)[:MAX_ERRORS]

    def edited(self) -> Lexed:
        """The tokens with all changes, arranged."""
        aside = {r.start: r for r in self.aside}
        tokens: list[Token] = []
        k = 0
        while k <= len(self.tokens):
            tokens += (Token(t.type, t.text, t.span) for t in self.more.get(k, ()))
            if k in aside:
                r = aside[k]
                first, last = self.tokens[r.start].span, self.tokens[r.stop - 1].span
                tokens.append(Token("UNREAD", "", Span(self.source, first.start, last.end)))
                k = r.stop
                continue
            if k < len(self.tokens) and k not in self.out:
                t = self.tokens[k]
                tokens.append(Token(self.types[k], self.word(k), t.span))
            k += 1
        lexical = [d for d in self.lexical if d.span and not self.covered(self.at(d))]
        return arrange(tokens, self.comments, lexical)

    # --- where a mistake is

    def at(self, d: Diagnostic) -> int:
        """The token at which a diagnostic points, or that before the place."""
        assert d.span is not None
        opened = d.code == "E0103" and len(d.labels) > 1 and d.span.text == "}"
        start = d.labels[1].span.start if opened else d.span.start
        k = max(bisect_right(self.starts, start) - 1, 0)
        return k - 1 if k and self.types[k] == "NEWLINE" else k

    def covered(self, k: int) -> range | None:
        """What is set aside around a token."""
        return next((r for r in self.aside if k in r), None)

    def follows(self, d: Diagnostic) -> bool:
        """Whether it may be that it only complains of lines without a definition around them."""
        assert d.span is not None
        line = self.line(self.at(d))
        if d.span.text == "}":
            return d.code in ("E0103", "E0113")
        return line.indent > 0 and (d.code == "E0113" or self.word(line.start) in DEFINITIONS)

    def is_told(self, r: range) -> bool:
        """Whether something was told of a stretch of tokens."""
        return any(d.span is not None and self.at(d) in r for d in self.told)

    def word(self, k: int) -> str:
        return self.meant.get(k, self.tokens[k].text)

    def line(self, k: int) -> _Line:
        return next((line for line in self.lines if line.start <= k < line.end), self.lines[-1])

    # --- what is done about it

    def repair(self, d: Diagnostic) -> None:
        """Tell a mistake, unless what was set aside is a part of it, and change the tokens so that it is gone."""
        k = self.at(d)
        near = next((r for j in (k, k - 1, k + 1) if (r := self.covered(j))), None)
        if near is not None:
            self.widen(near)
            return
        token = self.tokens[k]
        line = self.line(k)
        stray = d.code == "E0113" or token.type == "RBRACE"
        if not (stray and self.follows(d) and self.is_told(self.definition(line))):
            self.told.append(d)
        if d.code == "E0103" and token.type == "LBRACE":
            self.close(line)
        elif d.code == "E0103" and token.type == "RBRACE":
            self.out.add(k)
        elif d.code == "E0113":
            self.define(k, line)
        elif self.wants_brace(d, line):
            self.more.setdefault(line.end, []).append(self.sign("LBRACE", "{", line.end - 1))
        else:
            unit = self.unit(k, line)
            if unit.start > line.start and self.types[unit.start - 1] == "RBRACE":
                self.out.update(unit)  # nothing stands there
            else:
                self.set_aside(unit)

    def sign(self, type: str, text: str, k: int) -> Token:
        """A sign that is not written, behind the token k."""
        end = self.tokens[k].span.end
        return Token(type, text, Span(self.source, end, end))

    def close(self, opening: _Line) -> None:
        """Put the `}` that is missing where a line stands as far left as one that opened a block."""
        open_lines: list[_Line] = []
        for line in self.lines:
            closes = self.types[line.start] == "RBRACE"
            while (
                open_lines
                and line.indent <= open_lines[-1].indent
                and not (closes and line.indent == open_lines[-1].indent)
            ):
                if open_lines.pop().start >= opening.start:
                    self.more.setdefault(line.start, []).extend(
                        (self.sign("RBRACE", "}", line.start - 1), self.sign("NEWLINE", "\n", line.start - 1))
                    )
                    return
            if closes and open_lines:
                open_lines.pop()
            if self.types[line.end - 1] == "LBRACE":
                open_lines.append(line)
        self.more.setdefault(len(self.tokens), []).append(self.sign("RBRACE", "}", len(self.tokens) - 1))

    def define(self, k: int, line: _Line) -> None:
        """What begins no definition: a word that is nearly one of those that do is read as it; all else is set aside,
        with the lines inside it."""
        close = get_close_matches(self.tokens[k].text, DEFINITIONS, 1)
        following = self.types[k + 1] if k + 1 < len(self.tokens) else ""
        if close and following in ("NAME", "STRING") and k not in self.meant:
            self.meant[k] = close[0]
        elif line.indent == 0:
            self.set_aside(self.definition(line))
        else:
            self.out.update(self.definition(line))

    def wants_brace(self, d: Diagnostic, line: _Line) -> bool:
        """Whether a line ends where its block should begin."""
        if d.code != "E0101" or "too early" not in d.message:
            return False
        following = next((x for x in self.lines if x.start >= line.end), None)
        return (
            self.word(line.start) in _BLOCKS
            and "LBRACE" not in self.types[line.start : line.end]
            and following is not None
            and following.indent > line.indent
        )

    def widen(self, r: range) -> None:
        """What was set aside was too little: the whole line, the whole definition, or all of its tokens."""
        line = self.line(r.start)
        whole = self.definition(line)
        types = self.types[line.start : line.end]
        if len(r) < line.end - line.start and types.count("LBRACE") == types.count("RBRACE"):
            self.set_aside(range(line.start, max(line.end, r.stop)))
        elif len(r) < len(whole):
            self.set_aside(whole)
        else:
            self.aside.remove(r)
            self.out.update(r)

    def set_aside(self, r: range) -> None:
        r = range(r.start, max(r.stop, r.start + 1))
        inside = [x for x in self.aside if x.start < r.stop and r.start < x.stop]
        self.aside = [x for x in self.aside if x not in inside]
        self.aside.append(range(min(x.start for x in (r, *inside)), max(x.stop for x in (r, *inside))))

    def definition(self, line: _Line) -> range:
        """The tokens of the definition that a line stands in."""
        begins = [x for x in self.lines if self.word(x.start) in DEFINITIONS and x.indent == 0]
        before = [x.start for x in begins if x.start <= line.start]
        start = before[-1] if before and line.indent else line.start
        end = next((x.start for x in begins if x.start > line.start), len(self.tokens))
        while end > start + 1 and self.types[end - 1] == "NEWLINE":
            end -= 1
        return range(start, end)

    def unit(self, k: int, line: _Line) -> range:
        """The least around a token that can be set aside."""
        start, end = self.in_braces(k, line)
        word = self.word(start)
        head = start == line.start and word in DEFINITIONS and line.indent == 0
        equals = next((j for j in self.outside(start, end) if self.types[j] in ("EQUALS", "DEFINE", "TILDE")), end)
        if equals < k or (equals == k and equals + 1 < end):
            return range(equals + 1, end) if k > equals else range(start, end)
        if head and word not in ("import", "from", "const", "hyper", "test"):
            return self.in_signature(k, start, equals)
        return range(start, end) if not head or word == "test" else self.definition(line)

    def in_braces(self, k: int, line: _Line) -> tuple[int, int]:
        """The part of a line around a token that is inside the same braces, without those."""
        start, end = line.start, line.end
        for j in range(line.start, k):
            if self.types[j] in ("LBRACE", "RBRACE"):
                start = j + 1
        for j in range(max(k, start), line.end):
            if self.types[j] in ("LBRACE", "RBRACE"):
                end = j
                break
        return start, max(end, start + 1)

    def outside(self, start: int, end: int) -> list[int]:
        """The tokens of a stretch that stand outside of brackets."""
        depth, found = 0, []
        for j in range(start, end):
            if self.types[j] in ("RPAR", "RSQB"):
                depth -= 1
            elif self.types[j] in ("LPAR", "LSQB"):
                depth += 1
            elif depth == 0:
                found.append(j)
        return found

    def in_signature(self, k: int, start: int, end: int) -> range:
        """Of a signature the type of the parameter or result that is wrong, where that is clear; or all behind the
        name."""
        if k <= start + 1 or self.types[start + 1] != "NAME":
            return range(start, end)
        if self.depth(start, end):
            return range(start + 2, end)
        opened: list[str] = []
        first = start + 2
        for j in range(start + 2, end + 1):
            sign = self.types[j] if j < end else "ARROW"
            ends = sign == "ARROW" or (sign == "COMMA" and opened == ["LPAR"]) or (sign == "RPAR" and len(opened) == 1)
            if ends and first <= k < j:
                return self.piece(first, j, k, range(start + 2, end))
            if sign in ("LPAR", "LSQB"):
                opened.append(sign)
            elif sign in ("RPAR", "RSQB") and opened:
                opened.pop()
            if ends or (sign == "LPAR" and len(opened) == 1):
                first = j + 1
        return range(start + 2, end)

    def piece(self, first: int, end: int, k: int, whole: range) -> range:
        """Of a parameter or a result what stands behind its name; of a result without a name all of it."""
        if self.types[first - 1] == "ARROW" and self.types[first] != "LPAR":
            return range(first, end)
        return range(first + 1, end) if self.types[first] == "NAME" and k > first else whole

    def depth(self, start: int, end: int) -> int:
        return sum((self.types[j] in ("LPAR", "LSQB")) - (self.types[j] in ("RPAR", "RSQB")) for j in range(start, end))


def _lines(tokens: list[Token]) -> list[_Line]:
    """The lines as they are laid out: one goes on where brackets are open or a sign wants more, and the next stands
    further right."""
    lines: list[_Line] = []
    depth = 0
    begin = True
    start = indent = 0
    for k, t in enumerate(tokens):
        if t.type == "NEWLINE":
            begin = True
            continue
        if begin:
            column = t.span.position[1] - 1
            last = tokens[k - 2].type if k > 1 else "LBRACE"
            wants = last != "LBRACE" and (depth > 0 or last in CONTINUES or t.type == "PIPE")
            if not (wants and (column > indent or t.type in ("RPAR", "RSQB"))):
                if k:
                    lines.append(_Line(start, k - 1, indent))
                start, indent, depth = k, column, 0
            begin = False
        if t.type in OPENING and t.type != "LBRACE":
            depth += 1
        elif t.type in ("RPAR", "RSQB"):
            depth -= 1
    end = len(tokens)
    while end > start + 1 and tokens[end - 1].type == "NEWLINE":
        end -= 1
    return [*lines, _Line(start, max(end, start + 1), indent)]

"""Source -> syntax tree: `parse(source)` gives an `ast.Module`, or a `SourceError` with everything that is wrong.

`tokens.py` cuts the file into definitions, the LALR(1) tables that Lark makes of `grammar.lark` recognise each of them
alone, `actions.py` builds the nodes, and `mistakes.py` says in the language's own words what went wrong where.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from . import ast
from .chains import deepest
from .diagnostics import Diagnostic
from .errors import DataError, SourceError, error
from .files import open_regular
from .mistakes import explain_unexpected, too_deep
from .source import Source, Span
from .tokens import MAX_DEPTH, Lexed, Token, tokenize

MAX_ERRORS = 50  # told of one source
MAX_BYTES = 16 << 20  # of a source file; MAX_TOKENS is reached long before by anything but comments


def read_source(path: str | os.PathLike[str], imported: bool = False) -> Source:
    """The text of a `.nn` file under the name it was asked for; line ends become newlines, a byte order mark goes.

    Raises DataError when the file cannot be read (E0681), is not UTF-8 text (E0682), or is larger than 16 MB (E0683).
    What a program imports is a program: a file of another name, also behind a link, is not opened, or a diagnostic
    would show its lines (E0681).
    """
    name = os.fspath(path)
    try:
        if imported and not os.path.realpath(path).endswith(".nn"):
            raise OSError(errno.EINVAL, "only files whose names end in .nn are imported")
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:  # ValueError: a name that no file can have
        reason = (getattr(e, "strerror", None) or str(e)).lower()
        raise error("E0681", f"cannot read `{name}`: {reason}", kind=DataError, help=_nearby(Path(name))) from None
    return decode(name, data)


def decode(name: str, data: bytes) -> Source:
    """The text of what was read, `MAX_BYTES + 1` bytes at most, under a name (E0682, E0683)."""
    if len(data) > MAX_BYTES:
        raise error("E0683", f"`{name}` is larger than 16 MB", kind=DataError)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        found = f"byte 0x{data[e.start]:02x} in line {line}"
        raise error("E0682", f"`{name}` is not UTF-8 text: {found}", kind=DataError) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error("E0682", f"`{name}` is not text: a zero byte in line {line}", kind=DataError)
    return Source(name, text.replace("\r\n", "\n").replace("\r", "\n"))


def _nearby(path: Path) -> str | None:
    """A file of almost that name beside the one that is missing."""
    from difflib import get_close_matches

    try:
        names = sorted(p.name for p in path.parent.iterdir() if p.is_file()) if not path.exists() else []
    except (OSError, ValueError):
        return None
    close = get_close_matches(path.name, names, 1)
    return f"did you mean `{path.with_name(close[0])}`?" if close else None


def parse(source: Source) -> ast.Module:
    """The syntax tree of a source.

    Raises SourceError (E01xx) with one diagnostic for each wrong definition. The tree is at most `MAX_DEPTH` levels
    deep, so that plain recursion over it is safe; chains in it (see `deepest`) may be long, and are walked in loops.
    """
    module, errors = read(source, tokenize(source))
    if errors:
        raise SourceError(errors)
    return module


def read(source: Source, lexed: Lexed) -> tuple[ast.Module, list[Diagnostic]]:
    """The tree of the definitions that parse, and what is wrong in the order of the text."""
    errors = list(lexed.diagnostics)
    definitions: list[ast.Definition] = []
    own_line = _own_line(lexed)
    for tokens in lexed.definitions:
        try:
            definition = _documented(tokens, own_line)
        except SourceError as e:
            errors.extend(e.diagnostics)
            continue
        definitions.append(definition)
    errors = sorted(errors, key=lambda d: d.span.start if d.span else 0)[:MAX_ERRORS]
    return ast.Module(tuple(definitions), lexed.comments, span=Span(source, 0, len(source.text))), errors


def by_name(source: Source) -> dict[str, Callable[[], Any]]:
    """What parses each definition of a source without imports and tests, by the name behind its first word. Raises
    SourceError where the source has no tokens, and each of them where its definition does not parse."""
    lexed = tokenize(source)
    if lexed.diagnostics:
        raise SourceError(list(lexed.diagnostics))
    own_line = _own_line(lexed)
    return {tokens[1].text: partial(_documented, tokens, own_line) for tokens in lexed.definitions}


def _documented(tokens: list[Token], own_line: dict[int, ast.Comment]) -> Any:
    definition = _parse_definition(tokens)
    if isinstance(definition, ast.Import | ast.Unread):
        return definition
    return replace(definition, doc=_doc(own_line, definition.span.position[0]))


def _own_line(lexed: Lexed) -> dict[int, ast.Comment]:
    """By line, the comments that have one to themselves."""
    return {c.span.position[0]: c for c in lexed.comments if _stands_alone(c)}


def _parse_definition(tokens: list[Token]) -> Any:
    from lark.exceptions import UnexpectedToken  # Lark costs 60 ms: only who parses pays

    from .tables import load_tables

    last = tokens[-1].span
    end = Token("$END", "", Span(last.source, last.end, last.end))
    feed: Any = load_tables().parse_interactive().parser_state.feed_token
    found, at = end, len(tokens)
    try:
        for at, found in enumerate(tokens):  # noqa: B007
            feed(found)
        found, at = end, len(tokens)
        definition = feed(end, True)
    except UnexpectedToken:
        # Feeding the bad token has already reduced what stood before it: ask a fresh parser what could have followed.
        again: Any = load_tables().parse_interactive()
        for token in tokens[:at]:
            again.feed_token(token)
        raise explain_unexpected(tokens, at, found, again.accepts() - {"UNREAD"}) from None
    if len(tokens) > MAX_DEPTH and (node := deepest(definition)):
        raise too_deep(node)
    return definition


def _stands_alone(comment: ast.Comment) -> bool:
    text, start = comment.span.source.text, comment.span.start
    return not text[text.rfind("\n", 0, start) + 1 : start].strip()


def _doc(comments: dict[int, ast.Comment], line: int) -> str:
    """The text of the comment lines right above a line."""
    lines: list[str] = []
    while comment := comments.get(line - len(lines) - 1):
        lines.append(comment.text[1:].removeprefix(" "))
    return "\n".join(reversed(lines))

"""A Pygments lexer for `.nn` files; the only module that needs Pygments.

It follows `tokens.py`: a word is a keyword only where it stands like one, so that a weight may be called `state`.
"""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, words  # type: ignore[import-untyped]
from pygments.token import (  # type: ignore[import-untyped]
    STANDARD_TYPES,
    Comment,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Whitespace,
)

from .actions import DTYPES, KINDS
from .tokens import DEFINITIONS, RESERVED, STATEMENTS

_NAME = r"[^\W\d]\w*"
_DECLARING = "|".join(w for w in (*DEFINITIONS, *STATEMENTS) if w not in ("import", "from", "test"))
_START = r"(?:(?<=\n)|(?<=\{)|(?<![\s\S]))([ \t]*)"  # of a statement: of a line, of a block, of the text


class NnLexer(RegexLexer):  # type: ignore[misc]
    """The language of nnc: networks, how they are trained, and the tests that hold them to account."""

    name = "nnc"
    url = ""
    aliases: ClassVar[list[str]] = ["nn", "nnc"]
    filenames: ClassVar[list[str]] = ["*.nn"]

    tokens: ClassVar = {
        "root": [
            (r"#.*", Comment.Single),
            (rf"{_START}(fn|layer|model|optimizer|export)([ \t]+)({_NAME})",
             bygroups(Whitespace, Keyword.Declaration, Whitespace, Name.Function)),
            (rf"{_START}(train|gradcheck)([ \t]+)({_NAME})",
             bygroups(Whitespace, Keyword.Declaration, Whitespace, Name.Class)),
            (rf"{_START}({_DECLARING})(?=[ \t]+[^\W\d])",
             bygroups(Whitespace, Keyword.Declaration)),
            (rf"{_START}(import|from|test|reject)(?=[ \t]*\")", bygroups(Whitespace, Keyword.Declaration)),
            (rf"{_START}(repeat|case|expect)(?=[ \t]+[^\s=:.,|)\]])", bygroups(Whitespace, Keyword)),
            (rf"{_START}(stop)([ \t]+)(when)\b", bygroups(Whitespace, Keyword, Whitespace, Keyword)),
            (rf"{_START}(when)([ \t]+)(training)\b", bygroups(Whitespace, Keyword, Whitespace, Keyword)),
            (rf"{_START}(update)(?=[ \t]*\{{)", bygroups(Whitespace, Keyword)),
            (r"(?<=\")([ \t]+)(import)\b", bygroups(Whitespace, Keyword.Namespace)),
            (r"(?<=[\w)\]])([ \t]+)(until|within)(?=[ \t]+[^\s=])", bygroups(Whitespace, Keyword)),
            (r"(\|>)(\s*)(" + _NAME + r")(\s*)(:)(?!=)",
             bygroups(Operator, Whitespace, Name.Label, Whitespace, Punctuation)),
            (r"(\.)(" + _NAME + ")", bygroups(Operator, Name.Attribute)),
            (words(("true", "false"), prefix=r"\b", suffix=r"\b"), Keyword.Constant),
            (words(("and", "or", "not", "in"), prefix=r"\b", suffix=r"\b"), Operator.Word),
            (words(tuple(w for w in RESERVED if w not in ("true", "false", "and", "or", "not", "in")),
                   prefix=r"\b", suffix=r"\b"), Keyword),
            (rf"(?<=[:>])([ \t]*)({'|'.join((*DTYPES, *KINDS))})\b(?![ \t]*\()", bygroups(Whitespace, Keyword.Type)),
            (rf"{_NAME}(?=\()", Name.Function),
            (_NAME, Name),
            (r"[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)", Number.Float),
            (r"[0-9]+", Number.Integer),
            (r'"(?:[^"\\\n]|\\[^\n])*"', String.Double),
            (r"\|>|:=|=>|->|==|!=|<=|>=|\.\.|//|[-+*/%@^<>=~]", Operator),
            (r"[()\[\]{},:.]", Punctuation),
            (r"\n+|[^\S\n]+", Whitespace),  # apart, because a statement begins right after its newline
        ],
    }  # fmt: skip


def highlighted(text: str) -> list[list[tuple[str, str]]]:
    """The lines of a text in pieces, each with the short name of its token, as HTML calls classes: `kd`, `nf`, `c1`."""
    lines: list[list[tuple[str, str]]] = [[]]
    for kind, value in NnLexer(stripnl=False, ensurenl=False).get_tokens(text):
        first, *more = value.split("\n")
        lines[-1].append((STANDARD_TYPES.get(kind, ""), first))
        lines += [[(STANDARD_TYPES.get(kind, ""), piece)] for piece in more]
    return [[piece for piece in line if piece[1]] for line in lines[: len(text.splitlines())]]

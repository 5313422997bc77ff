"""A Pygments lexer for `.nn` files; the only module that needs Pygments."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups  # type: ignore[import-untyped]
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

from .highlight import RULES

_TOKENS = {
    "comment": Comment.Single, "space": Whitespace, "declaration": Keyword.Declaration, "keyword": Keyword,
    "namespace": Keyword.Namespace, "function": Name.Function, "class": Name.Class, "label": Name.Label,
    "attribute": Name.Attribute, "name": Name, "constant": Keyword.Constant, "logic": Operator.Word,
    "type": Keyword.Type, "float": Number.Float, "integer": Number.Integer, "string": String.Double,
    "operator": Operator, "punctuation": Punctuation,
}  # fmt: skip


class NnLexer(RegexLexer):  # type: ignore[misc]
    """The language of nnc: networks, how they are trained, and the tests that hold them to account."""

    name = "nnc"
    url = ""
    aliases: ClassVar[list[str]] = ["nn", "nnc"]
    filenames: ClassVar[list[str]] = ["*.nn"]

    tokens: ClassVar = {
        "root": [
            *((p, bygroups(*(_TOKENS[k] for k in kinds)) if isinstance(kinds, tuple) else _TOKENS[kinds])
              for p, kinds in RULES),
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

"""What to say about a token that the grammar does not take: terminals in, a teaching `SourceError` out.

The parser knows which terminals it would have accepted; here they become the language's own words ("an expression",
"the end of the line"), and the mistakes that people make often get a sentence of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from . import ast
from .diagnostics import Fix
from .errors import NncError, error
from .source import Span
from .tokens import BEGINS_OPERAND, CONTINUES, DEFINITIONS, MAX_DEPTH, OPERATORS, RESERVED, STATEMENTS, Token

_SIGNS = {terminal: f"`{sign}`" for sign, terminal in OPERATORS.items()}
_COMPARISONS = frozenset(("EQ", "NE", "LT", "LE", "GT", "GE"))
_INFIX = _COMPARISONS | {
    "PIPE", "AND", "OR", "DOTS", "PLUS", "MINUS", "STAR", "SLASH", "DOUBLE_SLASH", "PERCENT", "AT", "CARET",
    "LPAR", "LSQB", "DOT",
}  # fmt: skip
_WORDS = (
    *DEFINITIONS, *STATEMENTS, "return", "if", "when", "repeat", "stop", "update", "case", "expect", "reject", "else"
)  # fmt: skip

_ELSEWHERE = {
    "def": "a function is written `fn f(x) = ...`", "func": "a function is written `fn f(x) = ...`",
    "function": "a function is written `fn f(x) = ...`", "class": "write `layer` or `model`",
    "let": "write `y = ...`", "var": "write `y = ...`, or `state y = ...` where it outlives the step",
    "for": "code is repeated by `repeat 3 { }`, a loop at run time is `scan t in 0..T { }`",
    "while": "a loop at run time is `scan t in 0..T until done { }`", "elif": "write `else if`",
    "param": "write `weight`, `bias` or `state`", "parameter": "write `weight`, `bias` or `state`",
    "lambda": "a function is written `fn f(x) = ...`", "assert": "write `expect` in a `test`",
    "elseif": "write `else if`", "network": "write `model`", "net": "write `model`",
    "module": "write `layer` or `model`",
}  # fmt: skip


def explain_unexpected(tokens: Sequence[Token], at: int, found: Token, accepts: set[str]) -> NncError:
    """The error for `found` (at index `at`, past the end for the definition's end) where `accepts` could stand."""
    before = tokens[at - 1] if at else None
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    kind = found.type
    if kind == "NEWLINE" and "$END" in accepts and after and after.type != "LBRACE":
        return _no_definition(after, tokens[at + 2 : at + 3])
    if before is None:
        return _no_definition(found, tokens[1:2])
    if kind in _COMPARISONS and "AND" in accepts:
        return error("E0106", "comparisons do not chain", found.span, help="write `a < b and b < c`")
    if kind == "DOT" and after and after.type in ("INT", "FLOAT") and after.span.start == found.span.end:
        span = found.span.to(after.span)
        return error("E0105", f"`{span.text}` is not a number", span, help=f"write `0{span.text}`", fix=f"0{span.text}")
    named = after is not None and after.type in ("EQUALS", "COLON", "DEFINE")
    if found.text in RESERVED and kind != "NAME" and "NAME" in accepts and (named or "INT" not in accepts):
        return _reserved(found)
    if before.text in RESERVED and before.type != "NAME" and kind in ("EQUALS", "COLON", "DEFINE"):
        return _reserved(before)
    new_line = (kind == "RBRACE" or before.type in CONTINUES) and found.span.position[0] > before.span.position[0]
    if kind in ("NEWLINE", "$END") or new_line:
        where = Span(before.span.source, before.span.end, before.span.end + 1)
        subject = "definition" if kind == "$END" else "line"
        return error("E0101", f"the {subject} ends too early", where, _expected(accepts, before),
                     help=_early_help(tokens, at, accepts, after))  # fmt: skip
    if kind.lower() in DEFINITIONS and kind.lower() == found.text and "RBRACE" in accepts:
        return error("E0101", f"`{found.text}` cannot stand inside a block", found.span,
                     help=f"`{found.text}` begins a definition; definitions stand at the top of a file")  # fmt: skip
    fixes: list[Fix] = []
    help = _misplaced_help(tokens, at, found, before, accepts, fixes)
    return error("E0101", f"`{_shown(found)}` cannot stand here", found.span, _expected(accepts, before), help=help,
                 fix=tuple(fixes))  # fmt: skip


def too_deep(node: ast.Tree) -> NncError:
    return error("E0110", f"the definition is nested more than {MAX_DEPTH} deep", node.span,
                 help="give inner parts a name of their own")  # fmt: skip


def _no_definition(first: Token, second: Sequence[Token]) -> NncError:
    word = first.text
    shown = _shown(first)
    help = "a file holds " + ", ".join(f"`{w}`" for w in DEFINITIONS[:-1]) + f" and `{DEFINITIONS[-1]}` definitions"
    near = None
    if first.type == "NAME" and second and second[0].type in ("NAME", "STRING"):
        if word in _ELSEWHERE:
            help = _ELSEWHERE[word]
        elif close := get_close_matches(word, DEFINITIONS, 1):
            near = close[0]
            help = f"did you mean `{near}`?"
    elif first.type == "NAME" and second and second[0].type == "EQUALS":
        help = f"a constant is written `const {word} = ...`, a setting `hyper {word}: float = ...`"
    return error("E0113", f"`{shown}` does not begin a definition", first.span, help=help, fix=near)


def _reserved(token: Token) -> NncError:
    return error("E0112", f"`{token.text}` is a reserved word and cannot be a name", token.span,
                 help="reserved are " + ", ".join(f"`{w}`" for w in RESERVED))  # fmt: skip


def _early_help(tokens: Sequence[Token], at: int, accepts: set[str], after: Token | None) -> str | None:
    start = _statement_start(tokens, at)
    if after and after.type == "LBRACE" and "LBRACE" in accepts:
        return "`{` stands on the line that it belongs to"
    if "TILDE" in accepts:
        word = tokens[start].text
        return f"a `{word}` has a first value: `= 0`, or `~ normal(0, 1)` to draw it"
    return None


def _misplaced_help(
    tokens: Sequence[Token], at: int, found: Token, before: Token, accepts: set[str], fixes: list[Fix]
) -> str | None:
    """Advice, which is added to `fixes` where it is one definite word."""
    start = _statement_start(tokens, at)
    first = tokens[start]
    if found.type == "ELSE" and before.type == "NEWLINE":
        return "write `} else {` on one line"
    if found.text in _ELSEWHERE and found.type == "NAME":
        return _ELSEWHERE[found.text]
    if start == at - 1 and first.type == "NAME" and found.type in ("NAME", "STRING", *BEGINS_OPERAND):
        if first.text in _ELSEWHERE:
            return _ELSEWHERE[first.text]
        if first.text in ("stop", "when"):
            return "write `stop when`" if first.text == "stop" else "write `when training {`"
        if close := get_close_matches(first.text, _WORDS, 1):
            fixes.append(Fix(first.span, close[0]))
            return f"did you mean `{close[0]}`?"
        if "EQUALS" in accepts:
            return f"a value is given by `{first.text} = ...`"
    if found.type == "EQUALS" and "EQ" in accepts:
        fixes.append(Fix(found.span, "=="))
        return "a comparison is written `==`"
    if found.type == "EQUALS" and accepts == {"COLON"}:
        return f"a `{first.text}` says its type: `{first.text} {before.text}: float = ...`"
    if before.type in ("INT", "FLOAT", "RPAR") and found.type in ("NAME", "LPAR") and "STAR" in accepts:
        return "a product is written `a * b`"
    if found.type == "STAR" and before.type == "IMPORT":
        return "to have everything, write `import` and the file's name"
    if found.type == "DEFINE" and "EQUALS" in accepts:
        return "`:=` updates a state or a parameter inside a block; here stands `=`"
    return None


def _statement_start(tokens: Sequence[Token], at: int) -> int:
    start = min(at, len(tokens)) - 1
    while start > 0 and tokens[start - 1].type not in ("NEWLINE", "LBRACE"):
        start -= 1
    return max(start, 0)


def _shown(token: Token) -> str:
    return "the end" if token.type == "$END" else token.text if len(token.text) <= 40 else token.text[:37] + "..."


def _expected(accepts: set[str], before: Token) -> str:
    """`accepts`, after `before`, in the language's own words."""
    left = set(accepts)
    words: list[str] = []
    if "RETURN" in left:
        words.append("a statement")
        left &= {"RBRACE"}
    elif "METRIC" in left:
        words += ["a setting `name = value`", "`metric`", "`stop when`", "`update`"]
        left &= {"RBRACE"}
    elif "EXPECT" in left:
        words += ["`case`", "`expect`", "`gradcheck`", "`reject`", "`name = value`"]
        left &= {"RBRACE"}
    if {"INT", "MINUS"} <= left and "SLASH" not in left:
        words.append("an expression")
        left -= BEGINS_OPERAND | {"REDUCTION"}
    if {"SLASH", "PLUS"} <= left:
        words.append("an operator")
        left -= _INFIX
    if "LPAR" in left and "LSQB" in left and "DOT" in left:
        left -= {"DOT"}
    ends = [w for t, w in (("NEWLINE", "the end of the line"), ("$END", "the end of the definition")) if t in left]
    if ends:
        left.discard("RBRACE")
    left -= {"NEWLINE", "$END"}
    for terminal in ("NAME", "STRING"):
        if terminal in left:
            name = "a type" if before.type in ("COLON", "ARROW") else "a name"
            words.append(name if terminal == "NAME" else 'a text between `"`')
            left.discard(terminal)
    words += sorted(_SIGNS.get(t, f"`{t.lower()}`") for t in left)
    words += ends
    if len(words) == 1:
        return f"expected {words[0]}"
    return f"expected {', '.join(words[:-1])} or {words[-1]}"

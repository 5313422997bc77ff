"""Text -> the tokens of each definition.

In comes a `Source`, out come the token lists of its definitions, its comments, and what was wrong on the way. The one
idea: everything that depends on lines and on brackets is settled here, so that the grammar sees neither. `scan` cuts
the text; `arrange` drops every newline that does not end a statement, decides which words are keywords where they
stand, checks the brackets, and cuts the file before each word that begins a definition, so that one broken definition
does not hide the errors of the next.
"""

from __future__ import annotations

import re
import unicodedata

from . import ast
from .diagnostics import Diagnostic, Fix, Label
from .record import dataclass
from .source import Source, Span

# A walk over the syntax tree that spends at most four frames a level stays within the default recursion limit
# of 1000: brackets and trees deeper than this are refused (E0110).
MAX_DEPTH = 200
# About a second of parsing; the largest file anybody wrote by hand has a twentieth of it (E0111).
MAX_TOKENS = 50_000

DEFINITIONS = ("import", "from", "const", "hyper", "fn", "layer", "model", "optimizer", "train", "export", "test")
STATEMENTS = ("weight", "bias", "state", "share", "scan", "metric", "minimize", "gradcheck")  # keywords before a name
RESERVED = ("if", "then", "else", "and", "or", "not", "true", "false", "in", "return")
REDUCTIONS = ("sum", "mean", "prod", "max", "min")
OPERATORS = {
    "|>": "PIPE", ":=": "DEFINE", "=>": "FAT_ARROW", "->": "ARROW", "==": "EQ", "!=": "NE", "<=": "LE", ">=": "GE",
    "..": "DOTS", "//": "DOUBLE_SLASH", "=": "EQUALS", "~": "TILDE", "+": "PLUS", "-": "MINUS", "*": "STAR",
    "/": "SLASH", "%": "PERCENT", "@": "AT", "^": "CARET", "<": "LT", ">": "GT", ",": "COMMA", ":": "COLON",
    ".": "DOT", "(": "LPAR", ")": "RPAR", "[": "LSQB", "]": "RSQB", "{": "LBRACE", "}": "RBRACE",
}  # fmt: skip
OPENING = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
CLOSING = frozenset(OPENING.values())

# After one of these a line may end without ending the statement.
CONTINUES = frozenset((
    "PLUS", "MINUS", "STAR", "SLASH", "DOUBLE_SLASH", "PERCENT", "AT", "CARET", "EQ", "NE", "LT", "LE", "GT", "GE",
    "DOTS", "PIPE", "AND", "OR", "NOT", "COMMA", "EQUALS", "DEFINE", "TILDE", "ARROW", "FAT_ARROW", "OVER", "WITH",
))  # fmt: skip
ENDS_OPERAND = frozenset(("NAME", "INT", "FLOAT", "STRING", "TRUE", "FALSE", "RPAR", "RSQB"))
BEGINS_OPERAND = frozenset(
    ("NAME", "INT", "FLOAT", "STRING", "TRUE", "FALSE", "LPAR", "LSQB", "MINUS", "NOT", "IF")
)  # fmt: skip

_TOKEN = re.compile(
    r"""(?P<SPACE>[ \t\r\f]+)
      | (?P<NEWLINE>\n[ \t\r\f\n]*)
      | (?P<COMMENT>\#[^\n]*)
      | (?P<NAME>[^\W\d]\w*)
      | (?P<NUMBER>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
      | (?P<STRING>"(?:[^"\\\n]|\\[^\n])*")
      | (?P<FOREIGN>\*\*=?|&&|\|\||[-+*/%@^]=|\+\+|===|<-|<>)
      | (?P<OPERATOR>\|>|:=|=>|->|==|!=|<=|>=|\.\.|//|[-+*/%@^<>=~.,:()\[\]{}])
      | (?P<UNKNOWN>.)""",
    re.VERBOSE,
)

_MEANT = {
    "**": "^", "&&": "and", "&": "and", "||": "or", "!": "not", "===": "==", "<>": "!=", "<-": "=", "−": "-", "–": "-",
    "×": "*", "·": "*", "÷": "/", "∼": "~", "≤": "<=", "≥": ">=", "≠": "!=", "→": "->", "≔": ":=", "²": "^2", "³": "^3",
}  # fmt: skip
_ADVICE = {
    **{sign: f"write `{meant}`" for sign, meant in _MEANT.items()},
    "**": "a power is written `^`", "**=": "write `x = x^y`", "^=": "write `x = x^y`", "++": "write `x = x + 1`",
    "|": "a pipe is written `|>`, the logical operator `or`", "√": "write `sqrt(x)`",
    "∑": "write `sum[i](x[i])`", "∏": "write `prod[i](x[i])`",
    "'": 'strings stand between `"`', "“": 'strings stand between `"`', "”": 'strings stand between `"`',
    ";": "a statement ends where its line ends", "?": "a choice is written `if c then a else b`",
    "\\": "a statement goes on inside `( )` and after an operator",
}  # fmt: skip


@dataclass(slots=True)
class Token:
    """`type` is the grammar's terminal, `text` what was written (of a name: in Unicode's compatible form)."""

    type: str
    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Lexed:
    definitions: tuple[list[Token], ...]  # the sound ones; each ends at its last token
    tokens: tuple[Token, ...]  # all, each as the keyword that it is where it stands
    comments: tuple[ast.Comment, ...]
    diagnostics: tuple[Diagnostic, ...]


def tokenize(source: Source) -> Lexed:
    """Cut a source into the tokens of its definitions; a definition with a lexical error is left out."""
    return arrange(*scan(source))


def arrange(tokens: list[Token], comments: list[ast.Comment], errors: list[Diagnostic]) -> Lexed:
    """The definitions of what was scanned; decides in place which words are keywords."""
    if len(tokens) > MAX_TOKENS:
        span = tokens[MAX_TOKENS].span
        too_large = Diagnostic(
            "E0111", f"the source has more than {MAX_TOKENS:,} words and signs", (Label(span, "this is one more"),),
            ("split it over several files and `import` them; data belongs into a data file",),
        )  # fmt: skip
        return Lexed((), tuple(tokens), tuple(comments), (too_large,))
    arrangement = _Arrangement(tokens, bad=[e.span.start for e in errors if e.span])
    arrangement.run()
    found = sorted(errors + arrangement.errors, key=lambda d: d.span.start if d.span else 0)
    return Lexed(tuple(arrangement.definitions), tuple(tokens), tuple(comments), tuple(found))


# --- cutting ---------------------------------------------------------------------------------------------------------


def scan(source: Source) -> tuple[list[Token], list[ast.Comment], list[Diagnostic]]:
    """All tokens with every newline; words are NAME or a reserved word. A sign outside the language is an error."""
    text = source.text
    tokens: list[Token] = []
    comments: list[ast.Comment] = []
    errors: list[Diagnostic] = []
    add = tokens.append
    skip_to = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "SPACE" or (kind == "NEWLINE" and (not tokens or tokens[-1].type == "NEWLINE")):
            continue
        start, end = match.span()
        if start < skip_to:
            continue
        if len(tokens) > MAX_TOKENS:
            break
        word, span = match.group(), Span(source, start, end)
        match kind:
            case "NAME":
                if not word.isascii():
                    if not word.isidentifier():
                        errors.append(_bad_name(span))
                    word = unicodedata.normalize("NFKC", word)
                add(Token(word.upper() if word in RESERVED else "NAME", word, span))
            case "OPERATOR":
                add(Token(OPERATORS[word], word, span))
            case "NEWLINE":
                add(Token("NEWLINE", "\n", span))
            case "NUMBER":
                bad = _NUMBER_TAIL.match(text, end)
                if bad:
                    skip_to = bad.end()
                    span = Span(source, start, bad.end())
                    errors.append(_bad_number(span))
                elif problem := _unfit_number(word):
                    errors.append(Diagnostic("E0105", problem, (Label(span),)))
                    word = "0"
                add(Token("INT" if word.isdigit() else "FLOAT", word, span))
            case "STRING":
                add(Token("STRING", word, span))
                if "\\" in word and (bad_escape := _bad_escape(span)):
                    errors.append(bad_escape)
            case "COMMENT":
                word = word.rstrip()
                comments.append(ast.Comment(word, span=Span(source, start, start + len(word))))
            case _ if word == '"':
                end = text.find("\n", start)
                skip_to = len(text) if end < 0 else end
                span = Span(source, start, start + len(text[start:skip_to].rstrip()))
                help = 'a `"` inside a string is written `\\"`' if text[start:skip_to].endswith('\\"') else ""
                message = "the string is not closed before its line ends"
                errors.append(_error("E0104", message, span, "begins here", help))
                add(Token("STRING", '""', span))
            case _ if word == "\ufeff" and start == 0:
                pass  # a byte order mark
            case _:
                errors.append(_bad_sign(span))
                add(Token("UNKNOWN", word, span))
    return tokens, comments, errors


_NUMBER_TAIL = re.compile(r"(?!\.\.)(?:[\w.]*\w|\.)")


def _error(code: str, message: str, span: Span, label: str = "", help: str = "", *meant: str) -> Diagnostic:
    """`meant` is what could stand there instead."""
    fixes = tuple(Fix(span, text) for text in meant)
    return Diagnostic(code, message, (Label(span, label),), (help,) if help else (), fixes=fixes)


def _bad_name(span: Span) -> Diagnostic:
    at = next(i for i in range(1, len(span.text) + 1) if not span.text[:i].isidentifier())
    where = Span(span.source, span.start + at - 1, span.start + at)
    help = _ADVICE.get(where.text, "")
    return _error("E0102", f"`{where.text}` cannot be part of a name", where, "", help, *_meant(where))


def _bad_sign(span: Span) -> Diagnostic:
    sign = span.text
    if not sign.isprintable() or sign.isspace():
        named = unicodedata.name(sign, f"U+{ord(sign):04X}").lower()
        space = unicodedata.category(sign) == "Zs"
        help = "write an ordinary space" if space else "delete it: nobody can see it"
        return _error("E0102", f"the character `{named}` is not part of the language", span, "", help, " " * space)
    assignment = len(sign) > 1 and sign.endswith("=") and sign not in _ADVICE
    help = f"write `x = x {sign[:-1]} y`" if assignment else _ADVICE.get(sign, "")
    return _error("E0102", f"`{sign}` is not part of the language", span, "", help, *_meant(span))


def _meant(sign: Span) -> list[str]:
    """What a sign of another language is here; a word stands between spaces."""
    meant = _MEANT.get(sign.text)
    if meant is None or not meant.isalpha():
        return [meant] if meant is not None else []
    text = sign.source.text
    before, after = text[sign.start - 1 : sign.start], text[sign.end : sign.end + 1]
    return [" " * (not before.isspace() and before not in "([") + meant + " " * (not after.isspace())]


def _bad_number(span: Span) -> Diagnostic:
    text = span.text if len(span.text) < 40 else span.text[:40] + "..."
    help, meant = "", []
    if text.endswith(".") and text[:-1].isdigit():
        meant = [f"{text}0", text[:-1]]
        help = f"write `{meant[0]}`, or `{meant[1]}` for an integer"
    elif text[-1] in "eE" and text[:-1].replace(".", "", 1).isdigit():
        help = f"write the exponent: `{text}3`"
    elif "_" in text and text.replace("_", "").isdigit():
        meant = [text.replace("_", "")]
        help = f"write `{meant[0]}`"
    elif text[0].isdigit() and text.lstrip("0123456789").isidentifier():
        digits = len(text) - len(text.lstrip("0123456789"))
        meant = [f"{text[:digits]}*{text[digits:]}"]
        help = f"a name cannot begin with a digit; a product is written `{meant[0]}`"
    return _error("E0105", f"`{text}` is not a number", span, "", help, *(meant if text == span.text else ()))


def _unfit_number(text: str) -> str:
    if text.isdigit():
        return "the integer does not fit into 64 bits" if len(text) > 20 or int(text) >= 1 << 64 else ""
    return "the number is larger than any f64" if float(text) == float("inf") else ""


_ESCAPE = re.compile(r'\\(?:[nt"\\]|(?P<unknown>.))')


def _bad_escape(span: Span) -> Diagnostic | None:
    for match in _ESCAPE.finditer(span.text):
        if match["unknown"]:
            where = Span(span.source, span.start + match.start(), span.start + match.end())
            return _error("E0104", f"`{where.text}` stands for nothing in a string", where, "",
                          r'there are `\n`, `\t`, `\"` and `\\`; a folder separator is best written `/`')  # fmt: skip
    return None


_WORD = re.compile(r"[^\W\d]\w*")
_NO_CODE = re.compile(r'#[^\n]*|"(?:[^"\\\n]|\\[^\n])*"')
_GIVEN = re.compile(r"([^\W\d]\w*)\s*(?:\[[^\]\n]*\]\s*)?:?=(?!=)|\(([\w\s,]+)\)\s*=(?!=)")


def unread_names(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of text that does not parse: the names that it would give a value, as far as one can see, and all that stand in
    it."""
    text = _NO_CODE.sub("", text)
    words = _WORD.findall(text)
    first = next((w for w in words if w not in (*DEFINITIONS, *STATEMENTS, *RESERVED, "repeat")), "")
    gives = [name for given in _GIVEN.finditer(text) for name in _WORD.findall(given[0])]
    return tuple(dict.fromkeys([first, *gives])), tuple(dict.fromkeys(words))


# --- arranging -------------------------------------------------------------------------------------------------------


class _Arrangement:
    """The state of one pass over the tokens: the open brackets, the definition at hand, what was found."""

    def __init__(self, tokens: list[Token], bad: list[int]):
        self.tokens = tokens
        self.bad = bad  # offsets of lexical errors, ascending
        self.definitions: list[list[Token]] = []
        self.errors: list[Diagnostic] = []
        self.chunk: list[Token] = []
        self.open: list[tuple[Token, int, int]] = []  # opening bracket, its place in the chunk, its line's indentation
        self.sound = True  # no bracket error in this chunk
        self.suspect: tuple[Token, Token] | None = None  # a { } pair whose lines are indented differently
        self.closed_at = -1  # where the `[` of the last `]` stands in the chunk
        self.indentation = 0  # of the line at hand
        self.first = True  # the token at hand is the first of its line

    def run(self) -> None:
        end = Token("NEWLINE", "", self.tokens[-1].span) if self.tokens else None
        self.first = True
        for i, token in enumerate(self.tokens):
            after = self.tokens[i + 1] if i + 1 < len(self.tokens) else end
            assert after is not None
            if token.type == "NEWLINE":
                self.first = True
                self.newline(token, after)
                continue
            if self.first:
                self.indentation = token.span.position[1] - 1
            if self.first and self.begins_definition(token, after):
                self.finish(token)
                token.type = token.text.upper()
            elif self.first and self.is_over() and token.type in ("NAME", "RPAR", "RSQB", "RBRACE", "UNREAD"):
                self.finish(token)  # no definition goes on after its line, so this begins something else
            elif token.text in RESERVED and self.chunk and self.chunk[-1].type == "DOT":
                token.type = "NAME"  # after a dot every word is a name
            elif token.type == "NAME":
                self.keyword(token, after)
            if token.type in OPENING:
                if not self.opens(token):
                    self.errors, self.definitions = self.errors[-1:], []
                    return
            elif token.type in CLOSING:
                self.closes(token)
            self.chunk.append(token)
            self.first = False
        self.finish()

    def begins_definition(self, token: Token, after: Token) -> bool:
        """At the top any of the words does; inside brackets (one is not closed, then) only where no doubt is left."""
        if token.text not in DEFINITIONS or token.type != "NAME":
            return False
        if self.is_over():
            return True
        fits = "STRING" if token.text in ("import", "from", "test") else "NAME"
        return after.type == fits and self.indentation <= self.chunk[0].span.position[1] - 1

    def is_over(self) -> bool:
        """Whether nothing of the chunk at hand can stand on a further line."""
        return not self.open and not (self.chunk and self.chunk[-1].type in CONTINUES)

    def newline(self, token: Token, after: Token) -> None:
        """Keep the newline only where it ends a statement."""
        if not self.chunk or self.chunk[-1].type in CONTINUES or self.chunk[-1].type == "LBRACE":
            return
        if self.open and self.open[-1][0].type != "LBRACE":
            return
        if after.type not in ("PIPE", "RBRACE"):
            self.chunk.append(token)

    def keyword(self, token: Token, after: Token) -> None:
        """Make a NAME the keyword that it is at this place, and only there."""
        word, previous = token.text, self.chunk[-1].type if self.chunk else "NEWLINE"
        if previous in ("NEWLINE", "LBRACE"):
            follows = after.type
            named = follows == "NAME" or (after.text in RESERVED and after.text not in ("and", "or"))
            if (
                (word in STATEMENTS and named)
                or (word == "when" and follows == "NAME")
                or (word == "stop" and after.text == "when")
                or (word == "update" and follows == "LBRACE")
                or (word == "reject" and follows == "STRING")
                or (word == "repeat" and follows in BEGINS_OPERAND and follows != "LSQB")
                or (word in ("case", "expect") and follows in BEGINS_OPERAND)
                or (word in DEFINITIONS and follows == ("STRING" if word in ("import", "from", "test") else "NAME"))
            ):
                token.type = word.upper()
        elif (
            (previous == "WHEN" and word == "training")
            or (previous == "STOP" and word == "when")
            or (word == "import" and len(self.chunk) == 2 and self.chunk[0].type == "FROM")
            or (word in ("until", "within", "over", "with") and previous in ENDS_OPERAND)
        ):
            token.type = word.upper()

    def opens(self, token: Token) -> bool:
        if token.type == "LPAR" and self.closed_at > 0 and self.chunk[-1].type == "RSQB":
            word = self.chunk[self.closed_at - 1]
            attribute = self.closed_at > 1 and self.chunk[self.closed_at - 2].type == "DOT"
            if word.type == "NAME" and word.text in REDUCTIONS and not attribute:
                word.type = "REDUCTION"  # sum[i](...), as opposed to sum(...) and to an array called `sum`
        self.open.append((token, len(self.chunk), self.indentation))
        if len(self.open) > MAX_DEPTH:
            self.errors.append(_error("E0110", f"brackets are nested more than {MAX_DEPTH} deep", token.span, "",
                                      "name the inner parts"))  # fmt: skip
            return False
        return True

    def closes(self, token: Token) -> None:
        if not any(OPENING[t.type] == token.type for t, *_ in self.open):
            self.not_opened(token)
            return
        while OPENING[self.open[-1][0].type] != token.type:
            self.never_closed(self.open.pop()[0], token)
        opening, place, indentation = self.open.pop()
        self.closed_at = place if token.type == "RSQB" else -1
        if token.type == "RBRACE" and self.suspect is None and self.first and self.indentation != indentation:
            self.suspect = opening, token

    def not_opened(self, token: Token) -> None:
        if self.open and self.open[-1][0].type != "LBRACE":
            opening = self.open.pop()[0]
            message, facts = f"`{token.text}` cannot close `{opening.text}`", [Label(opening.span, "opened here")]
        else:
            message, facts = f"`{token.text}` was never opened", []
        if self.sound:
            self.errors.append(Diagnostic("E0103", message, (Label(token.span), *facts)))
        self.sound = False

    def never_closed(self, opening: Token, noticed: Token | None) -> None:
        """`noticed` is the token that showed it, or None at the end of the source."""
        if self.sound:
            labels = [Label(opening.span, "opened here")]
            if noticed is not None:
                begins = noticed.text in DEFINITIONS
                labels.append(Label(noticed.span, "the next definition" if begins else f"`{noticed.text}` comes first"))
            if self.suspect and self.suspect[0].span.start > opening.span.start and opening.type == "LBRACE":
                inner, closing = self.suspect
                line = inner.span.position[0]
                labels.append(Label(closing.span, f"closes the `{{` of line {line}, but is indented differently"))
                labels.append(Label(inner.span, "perhaps this one is meant"))
            self.errors.append(Diagnostic("E0103", f"`{opening.text}` is never closed", tuple(labels)))
        self.sound = False

    def finish(self, following: Token | None = None) -> None:
        """The chunk at hand is over: keep it if its brackets are whole and nothing in it was misspelt."""
        while self.chunk and self.chunk[-1].type == "NEWLINE":
            self.chunk.pop()
        if self.open:
            self.never_closed(self.open[-1][0], following)
        if self.chunk and self.sound:
            start, end = self.chunk[0].span.start, self.chunk[-1].span.end
            if not any(start <= at < end for at in self.bad):
                self.definitions.append(self.chunk)
        self.chunk, self.open, self.sound, self.suspect, self.closed_at = [], [], True, None, -1

"""What each word and sign is, for who colours text by patterns: Pygments, and editors with TextMate's grammars.

The rules follow `tokens.py`: a word is a keyword only where it stands like one, so that a weight may be called `state`.
They are tried in order at each place of a line; what they mean is the same to Python and to Oniguruma.
"""

from __future__ import annotations

from .actions import DTYPES, KINDS
from .tokens import DEFINITIONS, OPERATORS, RESERVED, STATEMENTS

_NAME = r"[^\W\d]\w*"
_DECLARING = "|".join(w for w in (*DEFINITIONS, *STATEMENTS) if w not in ("import", "from", "test"))
_START = r"(?:^|(?<=\{))([ \t]*)"  # of a statement: of a line, or of a block
_LOGIC = ("and", "or", "not", "in")
_VALUES = ("true", "false")
_PUNCTUATION = ",:.()[]{}"


def _words(*words: str) -> str:
    return rf"\b(?:{'|'.join(words)})\b"


def _signs() -> str:
    """The operators, long ones first."""
    signs = sorted((s for s in OPERATORS if s not in _PUNCTUATION), key=lambda s: (-len(s), s))
    return "|".join("".join(f"\\{c}" for c in s) for s in signs)


# a pattern, and what the whole of it is, or each of its groups
RULES: tuple[tuple[str, str | tuple[str, ...]], ...] = (
    (r"#.*", "comment"),
    (rf"{_START}(fn|layer|model|optimizer|export)([ \t]+)({_NAME})", ("space", "declaration", "space", "function")),
    (rf"{_START}(train|gradcheck)([ \t]+)({_NAME})", ("space", "declaration", "space", "class")),
    (rf"{_START}({_DECLARING})(?=[ \t]+[^\W\d])", ("space", "declaration")),
    (rf"{_START}(import|from|test|reject)(?=[ \t]*\")", ("space", "declaration")),
    (rf"{_START}(repeat|case|expect)(?=[ \t]+[^\s=:.,|)\]])", ("space", "keyword")),
    (rf"{_START}(stop)([ \t]+)(when)\b", ("space", "keyword", "space", "keyword")),
    (rf"{_START}(when)([ \t]+)(training)\b", ("space", "keyword", "space", "keyword")),
    (rf"{_START}(update)(?=[ \t]*\{{)", ("space", "keyword")),
    (r"(?<=\")([ \t]+)(import)\b", ("space", "namespace")),
    (r"(?<=[\w)\]])([ \t]+)(until|within|over|with)(?=[ \t]+[^\s=])", ("space", "keyword")),
    (rf"(\|>)([ \t]*)({_NAME})([ \t]*)(:)(?!=)", ("operator", "space", "label", "space", "punctuation")),
    (rf"(\.)({_NAME})", ("operator", "attribute")),
    (_words(*_VALUES), "constant"),
    (_words(*_LOGIC), "logic"),
    (_words(*(w for w in RESERVED if w not in (*_VALUES, *_LOGIC))), "keyword"),
    (rf"(?<=[:>])([ \t]*)({'|'.join((*DTYPES, *KINDS))})\b(?![ \t]*\()", ("space", "type")),
    (rf"{_NAME}(?=\()", "function"),
    (_NAME, "name"),
    (r"[0-9]+(?:\.[0-9]+(?:[eE][+\-]?[0-9]+)?|[eE][+\-]?[0-9]+)", "float"),
    (r"[0-9]+", "integer"),
    (r'"(?:[^"\\\n]|\\[^\n])*"', "string"),
    (_signs(), "operator"),
    (r"[()\[\]{},:.]", "punctuation"),
)

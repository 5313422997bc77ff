"""What can be written at a place, and what the call around it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...compiler.elaborate.modules import Lazy
from ...compiler.elaborate.scope import Scope
from ...compiler.elaborate.training.settings import NORMALIZE, SETTINGS
from ...compiler.elaborate.values import Defined
from ...compiler.types.tensors import DTYPES
from ...dsl.actions import KINDS
from ...dsl.tokens import DEFINITIONS, STATEMENTS, Token
from ..data.formats import NAMES
from .about import Head, head
from .calls import Around, around, path_before
from .document import Document
from .names import kind_of
from .symbols import Symbol, Words

_IN_BODY = ("weight", "bias", "state", "share", "scan", "return", "if", "when", "repeat")
_IN = {
    "TRAIN": ("metric", "minimize", "stop when", "update"),
    "TEST": ("case", "expect", "gradcheck", "reject"),
}
_DECLARES = (*DEFINITIONS, *STATEMENTS)
_ANYWHERE = ("if", "not", "true", "false")


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be written. `kind` is that of a symbol, or `keyword`, `type`, `argument`, `word`."""

    name: str
    kind: str
    detail: str = ""
    text: str | None = None  # to be written, where it is not the name


def complete(document: Document, offset: int) -> list[Item]:
    """All that can stand at an offset, whatever of it is written already; the likeliest first."""
    words = document.words
    if any(c.span.start < offset <= c.span.end for c in words.comments):
        return []
    at = words.last(offset)
    if at >= 0 and words.tokens[at].span.end >= offset and _is_word(words.tokens[at]):
        at -= 1  # the word that is being written
    before = words.tokens[at] if at >= 0 else None
    if before is not None and before.type == "STRING" and before.span.end > offset:
        return []
    if before is not None and before.type == "DOT":
        return list(_members(document, words, at))
    block = _block(words, at)
    if before is None or (before.type == "NEWLINE" or _ends_line(words, at, offset)):
        if block is None:
            return [Item(w, "keyword") for w in DEFINITIONS]
        return [*_statements(block), *_names(document, offset)]
    if before.type == "LBRACE":
        return [*_statements(block or ""), *_names(document, offset)]
    if before.type == "ARROW" or (before.type == "COLON" and _is_annotation(words, at)):
        return [Item(t, "type") for t in (*DTYPES, *KINDS)]
    if before.type == "EQUALS" and block == "TRAIN" and (told := _setting(words.tokens[at - 1].text)):
        return told
    call = around(words, offset)
    arguments = _arguments(document, call) if call is not None and before.type in ("LPAR", "COMMA") else []
    return [*arguments, *_names(document, offset), *(Item(w, "keyword") for w in _ANYWHERE)]


def signature(document: Document, offset: int) -> tuple[Symbol, Head, int] | None:
    """What the call around an offset takes, and which of it is being written."""
    call = around(document.words, offset)
    symbol = called(document, call) if call is not None else None
    shown = head(symbol) if symbol is not None else None
    if call is None or symbol is None or shown is None:
        return None
    if call.named is not None and call.named in shown.names:
        return symbol, shown, shown.names.index(call.named)
    return symbol, shown, call.argument


def called(document: Document, call: Around) -> Symbol | None:
    """What a call is of."""
    return _at_path(document, call.path)


def _at_path(document: Document, path: tuple[Token, ...]) -> Symbol | None:
    """What `Net.body` names: the layer, not the part."""
    symbol = document.lookup(path[0].text, path[0].span.start)
    resolver = document.reading.resolver
    for token in (*path[1:], None):
        if symbol is None:
            return None
        symbol = resolver.inside(symbol.of if symbol.of is not None else symbol)
        if token is not None:
            symbol = symbol.members.get(token.text)
    return symbol


def _members(document: Document, words: Words, dot: int) -> Iterator[Item]:
    """What can stand behind a dot."""
    path = path_before(words, dot)
    symbol = _at_path(document, path) if path else None
    if symbol is not None:
        yield from (Item(s.name, s.kind, s.of.name if s.of else "") for s in symbol.members.values())
        prefix = ".".join(t.text for t in path) + "."
        yield from (Item(n, "label") for n in document.parts_below(prefix) if n not in symbol.members)
    if symbol is None or symbol.kind not in ("model", "layer"):
        yield Item("T", "value", "the last two axes exchanged")


def _names(document: Document, offset: int) -> Iterator[Item]:
    """Names that mean something at an offset: those of the body, of the file, of the library."""
    seen: set[str] = set()
    for s in document.locals(offset):
        seen.add(s.name)
        place = s.place
        worth = document.worth(place) if place is not None else []
        yield Item(s.name, s.kind, str(worth[0]) if worth else "")
    for reading, _ in document.readings:
        scope = reading.modules.scope
        own = {*(scope.known() if scope.known is not None else ())}
        for name in scope.visible():
            if name and name not in seen:  # what does not parse may have no name
                seen.add(name)
                yield Item(name, _kind(name, scope if name in own else None))


def _kind(name: str, scope: Scope | None) -> str:
    """Of a name of the file's; of one of the library as it looks: that is not read for it."""
    if scope is None:
        return "layer" if name[0].isupper() else "fn"
    value = scope.lookup(name)
    return kind_of(value.definition) if isinstance(value, Defined | Lazy) else "constant"


def _arguments(document: Document, call: Around) -> list[Item]:
    """The parameters of a call that are not given yet, by name."""
    symbol = called(document, call)
    shown = head(symbol) if symbol is not None else None
    if shown is None:
        return []
    left = list(zip(shown.names, shown.parameters, strict=True))[call.argument :]
    return [Item(n, "argument", text, f"{n} = ") for n, text in left if n not in call.given]


def _statements(block: str) -> Iterator[Item]:
    if block == "TRAIN":
        yield from (Item(s.name, "setting", s.doc, f"{s.name} = ") for s in SETTINGS.values())
    yield from (Item(w, "keyword") for w in _IN.get(block, _IN_BODY))


def _setting(name: str) -> list[Item]:
    if name == "data":
        return [Item(n, "source", "", f"{n}(") for n in NAMES]
    return [Item(n, "word") for n in NORMALIZE] if name == "normalize" else []


def _is_word(token: Token) -> bool:
    return token.text[:1].isalpha() or token.text[:1] == "_"


def _block(words: Words, at: int) -> str | None:
    """The word that the definition around a token begins with; None at the top of the file."""
    depth = 0
    for k in range(at, -1, -1):
        t = words.tokens[k]
        depth += (t.type == "LBRACE") - (t.type == "RBRACE")
        if t.type in _WORDS and (k == 0 or words.tokens[k - 1].type in ("NEWLINE", "RBRACE") or t.text != t.type):
            return t.type if depth > 0 else None
    return None


_WORDS = frozenset(w.upper() for w in DEFINITIONS)


def _ends_line(words: Words, at: int, offset: int) -> bool:
    """Whether a new line begins between a token and an offset, outside of round and square brackets."""
    before = words.tokens[at]
    if "\n" not in words.source.text[before.span.end : offset]:
        return False
    depth = 0
    for k in range(at, -1, -1):
        t = words.tokens[k].type
        depth += (t in ("RPAR", "RSQB", "RBRACE")) - (t in ("LPAR", "LSQB", "LBRACE"))
        if depth < 0:
            return t == "LBRACE"
    return True


def _is_annotation(words: Words, colon: int) -> bool:
    """Whether a type stands behind a colon, not the target of a pipe or the end of a slice."""
    if colon < 1 or words.tokens[colon - 1].type != "NAME":
        return False
    for k in range(colon - 1, -1, -1):
        t = words.tokens[k]
        if t.type in ("PIPE", "LSQB"):
            return False
        if t.text in _DECLARES and t.type != "NAME":
            return True
        if t.type in ("NEWLINE", "RBRACE", "LBRACE"):
            return False
    return False

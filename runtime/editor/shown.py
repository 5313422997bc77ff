"""What an editor shows in the text: what each word is, and the shapes of what is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...compiler.types.tensors import DTYPES, TensorType
from ...dsl import ast
from ...dsl.actions import KINDS
from ...dsl.source import Span
from ...dsl.tokens import OPERATORS
from ...dsl.tree import walk
from .document import Document
from .symbols import Symbol
from .worth import Worth

TYPES = (
    "keyword", "comment", "string", "number", "operator", "type", "function", "class", "parameter", "variable",
    "property", "typeParameter", "label",
)  # fmt: skip
MODIFIERS = ("declaration", "readonly", "defaultLibrary")
_CLASSES = {
    "fn": "function", "export": "function", "builtin": "function", "source": "function", "layer": "class",
    "model": "class", "optimizer": "class", "parameter": "parameter", "size": "typeParameter", "weight": "property",
    "bias": "property", "state": "property", "setting": "property", "label": "label", "shared": "class",
    "constant": "type", "file": "string",
}  # fmt: skip
_READONLY = ("const", "hyper", "constant", "size", "index")
_SIGNS = frozenset(OPERATORS) - {"LPAR", "RPAR", "LSQB", "RSQB", "LBRACE", "RBRACE", "COMMA", "COLON", "DOT"}


@dataclass(frozen=True, slots=True)
class Word:
    """A stretch of the text, one of `TYPES`, and some of `MODIFIERS`."""

    start: int
    end: int
    type: str
    modifiers: tuple[str, ...] = ()


def words(document: Document) -> list[Word]:
    """Every word, number, text and sign of a file, in order."""
    lexed = document.words
    out = [Word(c.span.start, c.span.end, "comment") for c in lexed.comments]
    for k, t in enumerate(lexed.tokens):
        start, end = t.span.start, t.span.end
        if t.type in ("INT", "FLOAT"):
            out.append(Word(start, end, "number"))
        elif t.type == "STRING":
            out.append(Word(start, end, "string"))
        elif t.type in _SIGNS:
            out.append(Word(start, end, "operator"))
        elif t.type in ("NAME", "REDUCTION"):
            found = document.symbol(start)
            if found is not None and found[3].name.split()[0].rstrip("()") == t.text:
                out.append(_named(start, end, found[3], found[2]))
            elif t.text in (*DTYPES, *KINDS) and k and lexed.tokens[k - 1].type in ("COLON", "ARROW"):
                out.append(Word(start, end, "type"))
            elif t.type == "REDUCTION":
                out.append(Word(start, end, "function", ("defaultLibrary",)))
        elif t.text.isidentifier():
            out.append(Word(start, end, "keyword"))
    return sorted(out, key=lambda w: w.start)


def _named(start: int, end: int, symbol: Symbol, span: Span) -> Word:
    place = symbol.place
    more = ["declaration"] if span in symbol.places else []
    more += ["readonly"] if symbol.kind in _READONLY else []
    library = place is None or place.source.name.startswith("std/")
    more += ["defaultLibrary"] if library and symbol.kind not in ("index", "given", "parameter") else []
    return Word(start, end, _CLASSES.get(symbol.kind, "variable"), tuple(more))


def hints(document: Document, start: int, end: int) -> Iterator[tuple[int, str]]:
    """Where the shape of a value is shown, and how: behind the names that are assigned, behind parameters that say no
    type, and at the end of each line of a pipeline."""
    seen: set[int] = set()
    for reading, shift in document.readings:
        for d in reading.module.definitions:
            for x in walk(d):
                at = shift.new(x.span.start, x.span.end)
                if at is None or at[1] < start or at[0] > end or at[0] in seen:
                    continue
                here = Span(document.words.source, *at)
                match x:
                    case ast.Target(indices=None) | ast.Parameter(type=None):
                        place, text = here.end, merged(document.worth(here))
                    case ast.Pipe(target=target) if (to := shift.new(target.span.start, target.span.end)) is not None:
                        if "\n" not in document.text[at[0] : to[0]] or not _ends(document, to[1]):
                            continue
                        place, text = to[1], merged(document.worth(Span(here.source, *to)))
                        at = to
                    case _:
                        continue
                if text:
                    seen.add(at[0])
                    yield place, f": {text}"


def _ends(document: Document, offset: int) -> bool:
    """Whether nothing but a comment stands behind an offset on its line."""
    rest = document.text[offset:].partition("\n")[0].strip()
    return not rest or rest.startswith("#")


def merged(values: Sequence[Worth]) -> str:
    """The type of a value; of several calls what they have in common, `f32[B, 16|32, 8, 8]`; empty where they differ
    in more than sizes."""
    types = [w for w in values if isinstance(w, TensorType)]
    if not types or len(types) < len(values):
        return ""
    if len({(t.dtype, t.rank) for t in types}) > 1:
        return ""
    axes = ["|".join(dict.fromkeys(str(n) for n in axis)) for axis in zip(*(t.shape for t in types), strict=True)]
    return types[0].dtype + (f"[{', '.join(axes)}]" if axes else "")

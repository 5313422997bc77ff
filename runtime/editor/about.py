"""What is said of a symbol: its head, its documentation, its source. Hover, completion and signature help say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import getdoc

from ...compiler.elaborate.training.settings import Setting
from ...compiler.elaborate.values import REQUIRED, Builtin
from ...compiler.scalar import FUNCTIONS
from ...compiler.types.tensors import TensorType
from ...dsl import ast
from ...dsl.source import Span
from ..data.formats import formats
from .document import Document
from .names import words_of
from .symbols import Symbol
from .worth import Worth

LONGEST = 30  # lines of source that are shown whole
MOST = 6  # values of one place that are shown
_WORDS = {
    "parameter": "a parameter", "size": "a size", "index": "an index", "result": "a result", "label": "a part",
    "shared": "a shared layer", "value": "a value", "metric": "a metric", "given": "given in an optimizer",
    "step": "where training stands: `t` from 1, `epoch` from 0, `steps` in all",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    """How something is called: the text, and each parameter as it stands in it."""

    text: str
    parameters: tuple[str, ...]
    names: tuple[str, ...]


def head(symbol: Symbol) -> Head | None:
    """Of what can be called."""
    match symbol.made_by:
        case ast.Function() | ast.Layer() | ast.Optimizer() | ast.Export() as d:
            shown = tuple(" ".join(p.span.text.split()) for p in d.parameters)
            return Head(_head_text(d), shown, tuple(p.name for p in d.parameters))
        case Builtin(name=name, parameters=parameters):
            shown = tuple(p if default is REQUIRED else f"{p} = {_written(default)}" for p, default in parameters)
            return Head(f"{name}({', '.join(shown)})", shown, tuple(p for p, _ in parameters))
    return None


def _written(default: object) -> str:
    plain = {None: "..", True: "true", False: "false"}
    return plain.get(default, str(default)) if isinstance(default, bool | None) else str(default)


def _head_text(d: ast.Function | ast.Layer | ast.Optimizer | ast.Export) -> str:
    """A definition without its body."""
    depth, words = 0, words_of(d.span.source)
    for token in words.tokens[words.first(d.span.start) :]:
        if depth == 0 and token.type in ("LBRACE", "EQUALS"):
            return " ".join(d.span.source.text[d.span.start : token.span.start].split())
        depth += (token.type in ("LPAR", "LSQB")) - (token.type in ("RPAR", "RSQB"))
    return d.name


def document_of(symbol: Symbol) -> str:
    """The comment above a definition; what the compiler says of what it knows."""
    match symbol.made_by:
        case Builtin(name=name, call=call):
            said = FUNCTIONS[name].doc if name in FUNCTIONS else (getdoc(call) or "").split("\n\n")[0]
            return said.replace("\n", " ")
        case Setting(doc=doc, default=default):
            return doc if default is None else f"{doc}; {_written(default)} where nothing is said"
        case str() as source if symbol.kind == "source" and source in formats():
            return formats()[source].page()
    said = getattr(symbol.made_by, "doc", "")
    return said if isinstance(said, str) else ""


def hover(document: Document, offset: int) -> tuple[Span, str] | None:
    """What a name at an offset means, in Markdown, and where the name stands."""
    found = document.symbol(offset)
    if found is None:
        return None
    _, shift, span, symbol = found
    at = shift.new(span.start, span.end)
    if at is None:
        return None
    here = Span(document.reading.source, *at)
    callable = symbol.of if symbol.of is not None and symbol.kind in ("label", "shared") else symbol
    text = _code(symbol, callable, document.worth(here))
    return here, "\n\n".join(x for x in (text, *_made(document, here, callable), *_told(callable)) if x)


def _code(symbol: Symbol, callable: Symbol, values: Sequence[Worth]) -> str:
    """The head, or the name with what it is worth."""
    shown = head(callable)
    if shown is not None:
        return f"```nn\n{shown.text}\n```"
    d = symbol.made_by
    if isinstance(d, ast.Const | ast.Hyper | ast.Variable):
        text = "\n".join(d.span.text.splitlines()[:LONGEST])
        return f"```nn\n{text}\n```{_values(values) if not isinstance(d, ast.Variable) else ''}"
    if symbol.kind in ("setting", "source"):
        return f"`{symbol.name}`"
    types = [w for w in values if isinstance(w, TensorType)]
    kind = _WORDS.get(symbol.kind, symbol.kind)
    if not values or not types:
        written = getattr(getattr(d, "type", None), "span", None)
        more = f": {written.text}" if written is not None else ""
        return f"```nn\n{symbol.name}{more}\n```\n\n{kind}{_values(values)}"
    lines = [f"{symbol.name}: {w}" for w in values[:MOST]]
    more = f"\n\nand {len(values) - MOST} more" if len(values) > MOST else ""
    return "```nn\n" + "\n".join(lines) + f"\n```{more}\n\n{kind}"


def _values(values: Sequence[Worth]) -> str:
    shown = ", ".join(str(w) for w in values[:MOST]) + (", .." if len(values) > MOST else "")
    return f"\n\n= {shown}" if shown else ""


def _made(document: Document, here: Span, callable: Symbol) -> list[str]:
    """What the call gives, and how many parameters it made."""
    call = document.called(here.start) if head(callable) is not None else None
    if call is None:
        return []
    values = document.worth(call)
    gives = ", ".join(f"`{w}`" for w in values[:MOST]) + (", .." if len(values) > MOST else "")
    out = [f"→ {gives}"] if gives else []
    parts = document.parameters(call)
    if any(parts.values()):
        shown = [f"`{path}` {n:,}" for path, n in parts.items()]
        total = f"{sum(parts.values()):,} parameters: " if len(parts) > 1 else "parameters: "
        out.append(total + ", ".join(shown[:MOST]) + (", .." if len(shown) > MOST else ""))
    return out


def describe(symbol: Symbol) -> str:
    """A name that might be written: how it is called, and what it is."""
    return "\n\n".join(x for x in (_code(symbol, symbol, ()), *_told(symbol)) if x)


def documented(symbol: Symbol) -> str:
    return _escaped(document_of(symbol))


def _told(symbol: Symbol) -> list[str]:
    """The documentation, the source where it is short, and where that is."""
    out = [documented(symbol)]
    d = symbol.made_by
    if isinstance(d, ast.Function | ast.Layer | ast.Optimizer | ast.Export):
        lines = d.span.text.splitlines()
        if len(lines) <= LONGEST:
            out.append("```nn\n" + "\n".join(lines) + "\n```")
        out.append(f"{d.span.source.name}:{d.span.position[0]}")
    elif isinstance(d, Builtin):
        out.append("built in")
    return out


def _escaped(text: str) -> str:
    """Formulas as they stand, not as Markdown, but for what stands between backticks."""
    pieces = text.split("`")
    return "`".join(p if k % 2 else re.sub(r"([*_<\\])", r"\\\1", p) for k, p in enumerate(pieces)).replace(
        "\n", "  \n"
    )

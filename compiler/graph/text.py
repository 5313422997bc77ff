"""Graphs as text and back: what is printed can be read, so every pass is tested alone, from a file.

    graph    ::= graph @NAME { line* }
    line     ::= %NAME = OP [%NAME, ...] [attrs] : type
               | output NAME = %NAME | update NAME = %NAME | guard SIZE RELATION SIZE [or ...] "message"
    attrs    ::= { KEY = value, ... }                            for contract { map += map * map ... for i < SIZE, ... }
    map      ::= [ affine, ... ]                                 affine expressions such as 2*i + u - 1
    value    ::= number | "text" | true | false | none | SIZE | type | [ value, ... ] | graph
    type     ::= DTYPE [ [ SIZE, ... ] ] | ( type, ... )

Attributes that repeat the type (`shape`, `dtype`, `type`) are not written, nor are names that a leaf shares with its
node. `#` begins a comment. Spans of a graph that was read are its lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from ...dsl.errors import error
from ...dsl.source import Source, Span
from ..types.facts import Relation
from ..types.sizes import Dim, Size, parse_size
from ..types.tensors import EVERY, TensorType, TupleType, Type
from .interpret import RELATIONS
from .nodes import Builder, Graph, Node
from .ops import OPS
from .ops.op import ShapeError

CODE = "E0120"
DEPTH = 50  # of values within values
_WORD = re.compile(r"[\w./:]+")


# --- printing --------------------------------------------------------------------------------------------------------


def print_graph(graph: Graph, indent: str = "") -> str:
    """The text of a graph, one node a line."""
    inner = indent + "  "
    lines = [f"graph @{_word(graph.name)} {{"]
    lines += [inner + print_node(n, inner) for n in graph]
    lines += [f"{inner}guard {' or '.join(map(str, g.relations))} {_quoted(g.message)}" for g in graph.guards]
    lines += [f"{inner}output {_word(k)} = %{_word(v)}" for k, v in graph.outputs]
    lines += [f"{inner}update {_word(k)} = %{_word(v)}" for k, v in graph.updates]
    return "\n".join([*lines, indent + "}"])


def print_node(n: Node, indent: str = "") -> str:
    """One line of it."""
    op = OPS[n.op]
    attrs = {k: v for k, v in n.attrs.items() if k not in op.implied and (k != op.named or v != n.name)}
    if op.written is not None:
        written = f" {{{op.written(attrs)}}}"
    else:
        pairs = ", ".join(f"{k} = {_print_value(v, indent)}" for k, v in attrs.items())
        written = f" {{{pairs}}}" if pairs else ""
    args = " " + ", ".join("%" + _word(a) for a in n.args) if n.args else ""
    return f"%{_word(n.name)} = {n.op}{args}{written} : {n.type}"


def _print_value(v: Any, indent: str) -> str:
    match v:
        case None:
            return "none"
        case bool():
            return str(v).lower()
        case int() | float() | Size() | TensorType() | TupleType():
            return str(v)
        case str():
            return _quoted(v)
        case tuple():
            return f"[{', '.join(_print_value(x, indent) for x in v)}]"
        case Graph():
            return print_graph(v, indent)
    raise TypeError(f"an attribute cannot be {v!r}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _word(text: str) -> str:
    return text if _WORD.fullmatch(text) else _quoted(text)


# --- reading ---------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<skip>(?:[ \t\n]|\#[^\n]*)+)
    | (?P<text>"(?:[^"\\\n]|\\.)*")
    | (?P<number>(?:\d+\.\d*|\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<word>[\w./:]*[\w.](?![\w.]))
    | (?P<sign>//|\+=|[=!<>]=|[-+*%@{}()\[\],=:<>])""",
    re.VERBOSE,
)


class _Reader:
    """A position in a text, and what can be read from there."""

    def __init__(self, source: Source):
        self.source = source
        self.tokens = list(self._scan())
        self.at = 0
        self.depth = 0

    def _scan(self) -> Iterator[tuple[str, str, int]]:
        at, text = 0, self.source.text
        while at < len(text):
            m = _TOKEN.match(text, at)
            if m is None:
                raise error(CODE, f"{text[at]!r} has no meaning in a graph", Span(self.source, at, at + 1))
            if m.lastgroup != "skip":
                yield str(m.lastgroup), m.group(), at
            at = m.end()

    def _here(self) -> Span:
        return Span(self.source, self.start, self.start + len(self.text))

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else "end"

    @property
    def text(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    @property
    def start(self) -> int:
        if self.at < len(self.tokens):
            return self.tokens[self.at][2]
        return self.tokens[-1][2] + len(self.tokens[-1][1]) if self.tokens else 0

    def fail(self, wanted: str) -> Exception:
        found = f"`{self.text}`" if self.text else "the end of the text"
        return error(CODE, f"expected {wanted}, found {found}", self._here())

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1][1]

    def take(self, sign: str) -> bool:
        """Step over `sign` if it is next."""
        if self.text != sign or self.kind == "text":
            return False
        self.at += 1
        return True

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise self.fail(f"`{sign}`")

    def name(self, what: str) -> str:
        if self.kind == "text":
            return self.string()
        if self.kind not in ("word", "number"):
            raise self.fail(what)
        return self.next()

    def string(self) -> str:
        if self.kind != "text":
            raise self.fail("a text in quotes")
        try:
            return str(json.loads(self.text))
        except ValueError:
            raise self.fail("a text in quotes") from None
        finally:
            self.at += 1

    def several(self, close: str, item: Callable[[], Any]) -> tuple[Any, ...]:
        """Items with commas between them, up to and with `close`."""
        items: list[Any] = []
        while not self.take(close):
            if items:
                self.need(",")
            items.append(item())
        return tuple(items)

    def size(self) -> Dim:
        """A size: everything up to what cannot belong to one."""
        first, parentheses = self.at, 0
        while self.kind in ("number", "word") or self.text in ("+", "-", "*", "//", "%", "(", ")"):
            if (self.text == ")" and not parentheses) or (self.text == "%" and self.at == first):
                break
            if self.text in ("or", "where"):
                break
            parentheses += {"(": 1, ")": -1}.get(self.text, 0)
            self.at += 1
        try:
            return parse_size(" ".join(t for _, t, _ in self.tokens[first : self.at]))
        except (ValueError, SyntaxError, RecursionError, MemoryError, ZeroDivisionError):
            self.at = first
            raise self.fail("a size") from None

    def relation(self) -> Relation:
        left = self.size()
        if self.text not in RELATIONS:
            raise self.fail(f"one of {' '.join(RELATIONS)}")
        return Relation(left, self.next(), self.size())

    def type(self) -> Type:
        return TupleType(self.several(")", self.tensor_type)) if self.take("(") else self.tensor_type()

    def tensor_type(self) -> TensorType:
        if self.text not in EVERY:
            raise self.fail("a type")
        dtype = self.next()
        return TensorType(dtype, self.several("]", self.size) if self.take("[") else ())

    def value(self) -> Any:
        self.depth += 1
        if self.depth > DEPTH:
            raise error(CODE, f"values are nested more than {DEPTH} deep", self._here())
        try:
            return self._value()
        finally:
            self.depth -= 1

    def _value(self) -> Any:
        words: dict[str, Any] = {"none": None, "true": True, "false": False, "inf": float("inf"), "nan": float("nan")}
        if self.kind == "text":
            return self.string()
        if self.take("["):
            return self.several("]", self.value)
        if self.text in words:
            return words[self.next()]
        if self.text in EVERY or (self.text == "(" and self._ahead(1)[1] in EVERY):
            return self.type()
        if self.text == "graph":
            return self.graph()
        sign = -1 if self.text == "-" else 1
        kind, text = self._ahead(int(sign < 0))
        if text == "inf" or (kind == "number" and not text.isdigit()):
            self.at += 2 if sign < 0 else 1
            return sign * float(text)
        return self.size()

    def _ahead(self, k: int) -> tuple[str, str]:
        return self.tokens[self.at + k][:2] if self.at + k < len(self.tokens) else ("end", "")

    def graph(self) -> Graph:
        self.need("graph")
        self.need("@")
        b = Builder(self.name("a name"), OPS)
        outputs: list[tuple[str, str]] = []
        updates: list[tuple[str, str]] = []
        self.need("{")
        while not self.take("}"):
            start = self.start
            if self.take("%"):
                self._node(b, start)
            elif self.take("guard"):
                relations = [self.relation()]
                while self.take("or"):
                    relations.append(self.relation())
                b.guard(tuple(relations), self.string(), self._span(start))
            elif self.text in ("output", "update"):
                named = outputs if self.next() == "output" else updates
                key = self.name("a name")
                self.need("=")
                named.append((key, self.operand(b)))
            else:
                raise self.fail("a node, `output`, `update`, `guard` or `}`")
        return b.finish(tuple(outputs), tuple(updates))

    def operand(self, b: Builder) -> str:
        start = self.start
        self.need("%")
        name = self.name("a name")
        if name not in b.nodes:
            raise error(CODE, f"there is no %{name} above", self._span(start))
        return name

    def _span(self, start: int) -> Span:
        last = self.tokens[self.at - 1]
        return Span(self.source, start, last[2] + len(last[1]))

    def _node(self, b: Builder, start: int) -> None:
        name = self.name("a name")
        if name in b.nodes:
            raise error(CODE, f"%{name} is there twice", self._span(start))
        self.need("=")
        if self.text not in OPS:
            raise self.fail("an operator")
        op = self.next()
        args: list[str] = []
        while self.text == "%":
            args.append(self.operand(b))
            if not self.take(","):
                break
        attrs: dict[str, Any] = {}
        if self.take("{"):
            own = OPS[op].read
            attrs = own(self) if own is not None else dict(self.several("}", self._attribute))
        self.need(":")
        written = self.type()
        if (named := OPS[op].named) is not None:
            attrs.setdefault(named, name)
        for key in OPS[op].implied:
            if not isinstance(written, TensorType):
                raise error(CODE, f"{op} gives a tensor, not {written}", self._span(start))
            attrs[key] = {"type": written, "shape": written.shape, "dtype": written.dtype}[key]
        span = self._span(start)
        try:
            b.add(op, tuple(args), attrs, name, span)
        except ShapeError as e:
            raise error(e.code, e.message, span, help=e.help) from None
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            raise error(CODE, f"attributes of {op} are missing or of the wrong kind: {e}", span) from None
        if b[name].type != written:
            raise error(CODE, f"{op} gives {b[name].type} here, not {written}", span)

    def _attribute(self) -> tuple[str, Any]:
        key = self.name("an attribute")
        self.need("=")
        return key, self.value()


def parse_graph(text: str, name: str = "<graph>") -> Graph:
    """The graph that `print_graph` wrote. Raises `SourceError` with the place where it is not one."""
    reader = _Reader(Source(name, text))
    graph = reader.graph()
    if reader.kind != "end":
        raise reader.fail("the end of the text")
    return graph

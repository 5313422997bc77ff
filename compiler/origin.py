"""Where in a program a value stopped being finite, in the words of the program.

In: the graph of an entry, and the arrays of the step that went wrong. Out: an `Origin`: the expression in the user's
file, the line of the library behind it, and what its operands were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from re import fullmatch
from typing import Any

from ..dsl import ast
from ..dsl.diagnostics import Diagnostic, Label
from ..dsl.errors import ResourceError
from ..dsl.parser import parse
from ..dsl.record import dataclass
from ..dsl.source import Span
from ..dsl.tree import walk
from .autodiff.differentiate import differentiate
from .graph.finite import Made, Operand, first_not_finite, work
from .graph.nodes import Graph, Node
from .graph.ops import OPS
from .graph.ops.op import VIEW
from .passes import ALWAYS, run

_QUICK = 3_000_000_000  # operations of the interpreter that take seconds
_ARTICLE = "the "  # before what has no name of its own
_LONG = 60  # characters of an expression that are quoted


@dataclass(frozen=True, slots=True)
class Origin:
    """An expression whose value, or `derivative`, is not finite where what it is made of is. `std` is where the
    library computes it for the user's `span`; `value` the first such value, at `index`; `operands` by what they are
    called. `then` is what made a NaN of an infinity."""

    span: Span
    std: Span | None
    derivative: bool
    value: float
    index: tuple[int, ...]
    operands: Mapping[str, Operand]
    then: Origin | None = None

    @property
    def title(self) -> str:
        """What it is, and where."""
        text = self.span.text
        quoted = f"`{text}` at {self.span}" if _short(text) else str(self.span)
        return f"the derivative of {quoted}" if self.derivative else quoted

    @property
    def labels(self) -> tuple[Label, ...]:
        """The place with what was computed there, the line of the library, and what became of it."""
        found = [Label(self.span, ("the derivative is " if self.derivative else "") + self._made())]
        if self.std is not None:
            found.append(Label(self.std, "by this line of the library"))
        if self.then is not None and self.then.span != self.span:
            found.append(Label(self.then.span, f"then {self.then._made()}"))
        return tuple(found)

    def _made(self) -> str:
        at = f" at {list(self.index)}" if self.index else ""
        operands = " and ".join(_said(name, x) for name, x in self.operands.items())
        return f"{self.value:g}{at}" + (f", of {operands}" if operands else "")


def _said(name: str, x: Operand) -> str:
    """What an operand was: its value where the result is not finite, and its range."""
    name = name if name.startswith(_ARTICLE) else f"`{name}`"
    whole = "not a number" if isnan(x.low) else f"{x.low:.4g}" if x.low == x.high else f"in [{x.low:.4g}, {x.high:.4g}]"
    if x.at is None or x.low == x.high:
        return f"{name} {whole if whole[0] in 'in' else f'= {whole}'}"
    return f"{name} = {x.at:.4g} ({whole})"


def _short(text: str) -> bool:
    return len(text) <= _LONG and "\n" not in text


def origin(
    graph: Graph, root: str, inputs: Mapping[str, Any], variables: Mapping[str, Any], patient: bool
) -> Origin | None:
    """Where an output or update that is not finite became so; see `Session.origin`."""
    derived: dict[str, str] = {}

    def noting(graph: Graph) -> Graph:
        derived.clear()  # of the graphs that are differentiated the last is the entry's
        return differentiate(graph, derived)

    written = run([noting if step is differentiate else step for step in ALWAYS], graph)
    if root not in dict((*written.outputs, *written.updates)):
        return None
    if not patient and work(written, [root], inputs) > _QUICK:
        raise ResourceError(Diagnostic("E0605", "to run this step by the interpreter would take long"))
    found = first_not_finite(written, [root], inputs, variables)
    if found is None:
        return None
    then = _origin(found.then, derived, None) if found.then is not None else None
    return _origin(found.blamed, derived, then)


def _origin(made: Made, derived: Mapping[str, str], then: Origin | None) -> Origin | None:
    span = made.node.span
    if span is None:
        return then
    own = made.graph.nodes.get(made.outer) is made.node  # not one of a scan's body
    operands = dict(_titled(made, derived if own else {}))
    std = expression(span.std) if span.std is not None else None
    return Origin(expression(span), std, made.outer in derived, made.value, made.index, operands, then)


def _titled(made: Made, derived: Mapping[str, str]) -> Iterable[tuple[str, Operand]]:
    """The operands by what they are called in the program; numbers are known."""
    for x in made.operands:
        node = made.graph[x.name]
        while OPS[node.op].kind == VIEW and len(node.args) == 1:
            node = made.graph[node.args[0]]
        if node.op != "constant":
            yield _title(node, made.node, made.graph.nodes, derived), x


def _title(node: Node, user: Node, nodes: Mapping[str, Node], derived: Mapping[str, str]) -> str:
    """What the operand of a node is called: by its name or its expression, in the library where both are there."""
    if node.op == "param":
        return str(node.attrs["path"])
    if node.op == "input" and not fullmatch(r"v\d+", node.name):  # which a scan calls what it captures
        return str(node.attrs["name"])
    if node.name in derived:
        return f"{_ARTICLE}gradient that arrives"
    if node.span is None:
        return f"{_ARTICLE}operand"
    span = node.span
    if span.std is not None and user.span is not None and span == user.span:
        span = span.std
    text = named(span) or expression(span).text
    return text if _short(text) else f"{_ARTICLE}operand at {span}"


def expression(span: Span) -> Span:
    """The whole expression where the span is that of an operator's own sign."""
    whole = (e.span for e in walk(parse(span.source)) if isinstance(e, ast.Binary) and e.op_span == span)
    return next(whole, span)


def named(span: Span) -> str | None:
    """The name that is given to an expression."""
    span = expression(span)
    given = (e for e in walk(parse(span.source)) if isinstance(e, ast.Assign) and e.value.span == span)
    return next((e.targets[0].name for e in given if len(e.targets) == 1), None)

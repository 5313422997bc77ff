"""Where in the program an operator is from: its text, the layer that it is part of, and the calls that led there.

In: the graph of an entry as it was grown. Out: the same graph, whose nodes have a `Place` for a span. All that comes
after keeps spans: a derivative has that of what it is derived from, and what a rule makes that of what it replaces. So
a place goes along to the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.elaborate import Program
from ...compiler.elaborate.context import Context, is_std
from ...compiler.elaborate.noted import Part
from ...compiler.graph.nodes import Graph, Node
from ...dsl.record import dataclass, replace
from ...dsl.source import Span
from ..picture.boxes import chain_of


@dataclass(frozen=True, slots=True)
class Place(Span):
    """A span, the `path` of the layer it is in, and what the user wrote that led there, innermost first: the text
    itself where it is the user's, and the calls around it; at least one."""

    path: str = ""
    written: tuple[Span, ...] = ()


def placed(graph: Graph, program: Program, cx: Context) -> Graph:
    """The graph with a place for each node. What no text asks for, as to count the steps, is of the entry itself."""
    parts = [p for p in cx.parts if p.builder is cx.root]
    where = {name: k for k, name in enumerate(cx.root.nodes)}
    home = _home(program, graph.name)
    nodes = {n.name: _placed(n, [parts[k] for k in chain_of(parts, where[n.name])], home) for n in graph}
    return replace(graph, nodes=nodes)


def _home(program: Program, entry: str) -> Span | None:
    """The definition that an entry is of."""
    found = program.found
    if entry in found.exports:
        return found.exports[entry][0].span
    if entry in found.functions:
        return found.functions[entry].span
    if entry in ("train", "evaluate", "loss", "gradients") and program.train is not None:
        return program.train.span
    return program.model.span if program.model is not None else None


def _placed(node: Node, around: Sequence[Part], home: Span | None) -> Node:
    own = node.span or home
    if own is None:
        return node
    calls = [p.span for p in reversed(around) if p.span is not None]
    written = dict.fromkeys(head(s) for s in (own, *calls) if not is_std(s))
    if not written and home is not None:
        written = {head(home): None}
    path = next((p.path for p in reversed(around) if p.path), "")
    own = head(own)
    place = Place(own.source, own.start, own.end, own.std, path, tuple(written) or (own,))
    attrs = node.attrs
    if "body" in attrs:
        body = attrs["body"]
        attrs = {**attrs, "body": replace(body, nodes={n.name: _placed(n, around, place) for n in body})}
    return replace(node, attrs=attrs, span=place)


def head(span: Span) -> Span:
    """The span, or of a block its first line."""
    text = span.text
    return Span(span.source, span.start, span.start + text.index("\n")) if "{" in text and "\n" in text else span

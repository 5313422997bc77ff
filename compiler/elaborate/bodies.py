"""The body of a scan: a graph that grows by itself, and the operator that it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...dsl.record import dataclass
from ...dsl.source import Span
from ..graph.nodes import Graph
from ..types.sizes import symbols
from .context import Context
from .frames import Frame
from .limits import check_type
from .values import Tensor


@contextmanager
def inside(cx: Context, frame: Frame) -> Iterator[None]:
    """What is made in here is in the body."""
    outer, cx.builder = cx.builder, frame.builder
    cx.frames.append(frame)
    try:
        yield
    finally:
        cx.builder = outer
        cx.frames.pop()


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was elaborated: what it carries on, and what it was found to need."""

    frame: Frame
    carried: dict[str, Any]  # new values: tensors of the body
    until: Tensor | None = None


def index_symbol(cx: Context, name: str) -> str:
    """A symbol for the index that no size is called by."""
    taken = {n for node in cx.root.nodes.values() if node.op == "input" for d in node.shape for n in symbols(d)}
    taken |= {f.index for f in cx.frames} | set(cx.program.sizes)
    unique, k = name, 2
    while unique in taken:
        unique, k = f"{name}_{k}", k + 1
    return unique


def emit(cx: Context, span: Span | None, given: dict[str, Tensor], body: Body) -> dict[str, Tensor]:
    """The scan as an operator: what it carried and what it collected, by name."""
    frame = body.frame
    outputs = [(name, t.node) for name, t in body.carried.items()]
    outputs += [(name, t.node) for name, (t, _, _) in frame.collected.items()]
    if body.until is not None:
        outputs.append(("until", body.until.node))
    graph: Graph = frame.builder.finish(_unique(outputs))
    b = cx.builder
    first = [cx.here(t, span).node for t in given.values()]
    order = {i: around for around, i in frame.captured.items() if frame.builder[i].op == "input"}
    args = [*first, *(order[n.name] for n in graph if n.op == "input" and n.name in order)]
    made = b.emit(
        "scan",
        *args,
        span=span,
        body=graph,
        index=frame.index,
        count=frame.count,
        carries=len(first),
        reverse=False,
        until=body.until is not None,
    )
    names = [*given, *frame.collected]
    results = {name: Tensor(b.emit("item", made, index=k, span=span), b) for k, name in enumerate(names)}
    for value in results.values():
        check_type(value.type, span)
    for name, (_, axis, at) in frame.collected.items():
        if axis:
            perm = (*range(1, axis + 1), 0, *range(axis + 1, results[name].rank))
            results[name] = cx.emit("transpose", results[name], span=at, perm=perm)
    return results


def _unique(outputs: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Outputs under names that are not taken by another."""
    found: dict[str, str] = {}
    for name, node in outputs:
        found[name if name not in found else f"{name}_{len(found)}"] = node
    return tuple(found.items())

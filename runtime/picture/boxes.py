"""A graph by what the source calls: layers, functions and expressions as boxes, one inside the other.

In: the graph of an entry and the context that grew it, which noted every layer and labelled call (`Part`). Out: a tree
of `Box`es. Operators that belong to no layer of their own are together where one expression of the source asked for
them: `relu`, `h + x`. Constants and what no result depends on are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from ...compiler.elaborate.context import Context, Declared, Part
from ...compiler.graph.nodes import Graph, Node
from ...dsl.source import Span

_LONG = 30  # characters of a title


@dataclass(eq=False)
class Box:
    """`nodes` are all that is inside, also inside its children, in order."""

    title: str  # empty until it is known what is inside
    path: str = ""  # of an instance
    kind: str = ""  # its layer or function
    call: str = ""  # how the source calls it
    depth: int = 0
    children: list[Box] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    backward: list[Node] = field(default_factory=list)  # derived from these nodes
    result: str = ""  # the type of what leaves it
    parameters: int = 0
    note: str = ""  # inputs and outputs

    def walk(self) -> Iterator[Box]:
        yield self
        for child in self.children:
            yield from child.walk()


def boxes(graph: Graph, cx: Context) -> Box:
    """The tree of a graph: its root is the entry, whose children are inputs, the model's layers, and the outputs."""
    live = _live(graph)
    where = {name: k for k, name in enumerate(cx.root.nodes)}
    parts = [p for p in cx.parts if p.builder is cx.root]
    root = Box(graph.name)
    by_part: dict[int, Box] = {}
    loose: dict[tuple[int, object], Box] = {}
    trainable = {p: d for p, d in cx.program.variables.items() if d.role in ("weight", "bias")}
    model = cx.program.model.name if cx.program.model is not None else ""
    for node in live:
        chain = _chain(parts, where[node.name])
        parent = root
        for k in chain:
            if parts[k].path == model:
                continue
            if k not in by_part:
                by_part[k] = _instance(parts[k], parent, trainable)
                parent.children.append(by_part[k])
            parent = by_part[k]
        if node.op == "param":
            continue
        inside = chain[-1] if chain else -1
        key: tuple[int, object] = (inside, node.name if node.op == "input" else _at(node.span))
        last = parent.children[-1] if parent.children else None
        box = loose.get(key)
        if box is None or (box is not last and chain):  # inside the model an expression is met once, or again
            box = loose[key] = _expression(node, parent, [parts[k].kind for k in chain])
            parent.children.append(box)
        box.nodes.append(node)
    _finish(root, graph)
    return root


def _live(graph: Graph) -> list[Node]:
    """What a result depends on and computes something of its own."""
    wanted = set(graph.roots)
    for node in reversed([*graph]):
        if node.name in wanted:
            wanted.update(node.args)
    return [n for n in graph if n.name in wanted and not _constant(graph, n)]


def _constant(graph: Graph, node: Node) -> bool:
    source = graph[node.args[0]] if node.op == "broadcast" else node
    return source.op in ("constant", "size", "iota")


def _chain(parts: Sequence[Part], at: int) -> list[int]:
    """The parts around a node, outermost first: a part that ends later is noted later."""
    return [k for k in reversed(range(len(parts))) if parts[k].first <= at < parts[k].last]


def _instance(part: Part, parent: Box, trainable: Mapping[str, Declared]) -> Box:
    own = [d for p, d in trainable.items() if p.startswith(f"{part.path}.")]
    count = sum(prod(n for n in d.type.shape if isinstance(n, int)) for d in own)
    name = part.path.rpartition(".")[2]
    return Box(
        name if name.rstrip("_0123456789") == part.kind.lower() else f"{name}: {part.kind}",
        part.path,
        part.kind,
        depth=parent.depth + 1,
        parameters=count,
    )


def _at(span: Span | None) -> object:
    return (span.source.name, span.start, span.end) if span is not None else None


def _expression(node: Node, parent: Box, around: Sequence[str]) -> Box:
    """The box of an expression. What a layer of the library does has no text in the user's file but the call of that
    layer, so it is called after its operators."""
    if node.op == "input":
        title = node.attrs["name"]
    elif any(a.startswith("normalize/") for a in node.args):
        title = "normalize"
    elif node.op in ("grad", "item") and not parent.path:
        title = "gradients"
    else:
        title = " ".join(node.span.text.split()) if node.span is not None else "step"
        if title.partition("(")[0] in around:
            return Box("", call=title, depth=parent.depth + 1)
    return Box(title, depth=parent.depth + 1)


def short(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _finish(root: Box, graph: Graph) -> None:
    """Fill each box from what is inside it."""
    for box in reversed([*root.walk()]):
        if box.path and len(box.children) == 1 and not box.children[0].path:  # a layer of the library: one call
            only = box.children[0]
            box.call = only.call if only.call.startswith(box.kind) else ""
            box.nodes, box.children = only.nodes, []
        box.nodes = [n for child in box.children for n in child.nodes] + box.nodes
        if box.nodes:
            box.result = str(box.nodes[-1].type)
        box.title = box.title or " ".join(dict.fromkeys(n.op for n in box.nodes if n.op != "broadcast"))
    outputs = {value: name for name, value in graph.outputs}
    for box in root.walk():
        if box is not root and box.nodes and box.nodes[-1].name in outputs:
            box.note = outputs[box.nodes[-1].name]


def shown(root: Box, depth: int) -> list[Box]:
    """The boxes of a picture: those without children, and those at the depth where it stops."""
    found: list[Box] = []
    stack = [*reversed(root.children)]
    while stack:
        box = stack.pop()
        if box.children and box.depth < depth:
            stack += reversed(box.children)
        elif box.nodes:
            found.append(box)
    return found


def edges(graph: Graph, found: Sequence[Box]) -> list[tuple[int, int]]:
    """From which box to which values flow, each pair once, in order; always from one that begins earlier."""
    owner = {n.name: k for k, box in enumerate(found) for n in box.nodes}
    pairs: dict[tuple[int, int], None] = {}
    for k, box in enumerate(found):
        for node in box.nodes:
            for a in node.args:
                if (j := owner.get(a, k)) < k:
                    pairs[j, k] = None
    return [*pairs]

"""A graph by what the source calls: layers, functions and expressions as boxes, one inside the other.

In: the graph of an entry and the context that grew it, which noted every layer and every call of the user's functions
(`Part`). Out: a tree of `Box`es. Operators that belong to no layer of their own are together where one expression of
the source asked for them: `relu`, `h + x`. Weights, biases and state that the user declared have boxes; those of a
layer of the library are inside it. Constants and what no result depends on are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from ...compiler.elaborate.context import Context, is_std
from ...compiler.elaborate.home import Declared
from ...compiler.elaborate.noted import Part
from ...compiler.graph.nodes import Graph, Node
from ...dsl.source import Span

_PLAIN = re.compile(r"(\w+ = )?[\w.]+|\w+ = .*|\[[\w., \[\]/*+-]*\]")  # an argument that is a name, a number, a setting
LEAST, MOST = 8, 40  # boxes of a picture whose depth nobody said


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
    note: str = ""  # what is called so: a result, a variable
    inside: bool = False  # the model
    is_std: bool = False  # what is inside is not the user's

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
    at = {p.path: k for k, p in reversed([*enumerate(parts)]) if p.path}
    own = {
        p: d
        for p, d in cx.program.variables.items()
        if "/" not in p and d.span is not None and not is_std(d.span)  # as in `normalize/mean`, `w/velocity`
    }

    def around(chain: Sequence[int]) -> Box:
        """The box of the innermost of these parts."""
        parent = root
        for k in chain:
            if parts[k].path == model:
                continue
            if k not in by_part:
                by_part[k] = _instance(parts[k], parent, trainable)
                by_part[k].inside = model in (parts[c].path for c in chain)
                parent.children.append(by_part[k])
            parent = by_part[k]
        return parent

    for node in live:
        if node.op == "param":
            if node.attrs["path"] in own:
                k = at.get(node.attrs["path"].rpartition(".")[0])
                chain = chain_of(parts, parts[k].first) if k is not None else []
                parent = around(chain[: chain.index(k) + 1] if k in chain else [])
                parent.children.append(_variable(node, own[node.attrs["path"]], parent))
            continue
        chain = chain_of(parts, where[node.name])
        parent = around(chain)
        inside = chain[-1] if chain else -1
        key: tuple[int, object] = (inside, node.name if node.op == "input" else _at(node.span))
        last = parent.children[-1] if parent.children else None
        box = loose.get(key)
        if box is None or (box is not last and chain):  # inside the model an expression is met once, or again
            box = loose[key] = _expression(node, parent, [parts[k].kind for k in chain])
            box.inside = model in (parts[c].path for c in chain)
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


def chain_of(parts: Sequence[Part], at: int) -> list[int]:
    """The parts around a node, outermost first: a part that ends later is noted later. Under a label a function is
    noted twice."""
    found = [k for k in reversed(range(len(parts))) if parts[k].first <= at < parts[k].last]
    return [
        k
        for outer, k in zip([None, *found], found, strict=False)
        if outer is None or parts[k].path or (parts[k].first, parts[k].last) != (parts[outer].first, parts[outer].last)
    ]


def _variable(node: Node, declared: Declared, parent: Box) -> Box:
    name = declared.path.rpartition(".")[2]
    return Box(name, kind=declared.role, call=declared.role, depth=parent.depth + 1, nodes=[node], inside=True)


def _instance(part: Part, parent: Box, trainable: Mapping[str, Declared]) -> Box:
    call = written(part.span) if part.span is not None and not is_std(part.span) else ""
    if not part.path:
        return Box(_brief(call) or part.kind, kind=part.kind, call=call, depth=parent.depth + 1)
    own = [d for p, d in trainable.items() if p.startswith(f"{part.path}.")]
    count = sum(prod(n for n in d.type.shape if isinstance(n, int)) for d in own)
    name = part.path.rpartition(".")[2]
    return Box(
        name if name.rstrip("_0123456789") == part.kind.lower() else f"{name}: {part.kind}",
        part.path,
        part.kind,
        call,
        depth=parent.depth + 1,
        parameters=count,
    )


def _at(span: Span | None) -> object:
    return (span.source.name, span.start, span.end) if span is not None else None


def written(span: Span) -> str:
    """The text of a span in one line."""
    return " ".join(span.text.split())


def _brief(text: str) -> str:
    """A call without the arguments that are computed: those have boxes of their own."""
    if text.startswith("scan "):
        return text.partition(" {")[0]
    name, opens, inside = text.partition("(")
    if not opens or not name.isidentifier() or not inside.endswith(")"):
        return text
    arguments, level = [""], 0
    for c in inside[:-1]:
        level += (c in "([") - (c in ")]")
        if level < 0:
            return text  # `f(x) + g(y)`
        if c == "," and level == 0:
            arguments.append("")
        else:
            arguments[-1] += c
    plain = [a.strip() if _PLAIN.fullmatch(a.strip()) else "…" for a in arguments]
    return name if set(plain) == {"…"} else f"{name}({', '.join(plain)})"


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
        text = written(node.span) if node.span is not None else "step"
        if text.partition("(")[0] in around:
            parent.is_std = True
            return Box("", call=text, depth=parent.depth + 1)
        title = _brief(text)
    return Box(title, depth=parent.depth + 1)


def _finish(root: Box, graph: Graph) -> None:
    """Fill each box from what is inside it."""
    for box in reversed([*root.walk()]):
        if box.kind and len(box.children) == 1 and not box.children[0].path:  # a layer of the library: one call
            box.nodes, box.children = box.children[0].nodes, []
        box.nodes = [n for child in box.children for n in child.nodes] + box.nodes
        if box.nodes:
            box.result = str(box.nodes[-1].type)
        box.title = box.title or " ".join(dict.fromkeys(n.op for n in box.nodes if n.op != "broadcast"))
    ends = {value: f":= {path.partition('.')[2] or path}" for path, value in graph.updates}
    ends |= {value: f"→ {name}" for name, value in graph.outputs}
    for box in root.walk():
        if box is not root and box.nodes and box.nodes[-1].op not in ("input", "param"):
            box.note = ends.get(box.nodes[-1].name, "")


def depth(root: Box) -> int:
    """How far to open layers so that the model has from `LEAST` to `MOST` boxes: no further than there, and as far as
    that where there are fewer. Layers of the library stay closed."""
    best = 1
    for tried in range(1, 1 + max((c.depth for box in root.walk() if not box.is_std for c in box.children), default=0)):
        found = shown(root, tried)
        count = sum(box.inside for box in found) or len(found)
        if count <= MOST:
            best = tried
        if count >= LEAST:
            break
    return best


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

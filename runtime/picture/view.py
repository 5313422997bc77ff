"""What a picture shows: cards with text and the edges between them; of a step of training also the way back.

In: the boxes of a graph. Out: a `View`, without any place yet. A step of training is the graph of the loss, beside it
what is derived from it, box by box, and what the optimiser does with the derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...compiler.elaborate.context import Context
from ...compiler.graph.nodes import Graph, Node, ancestors, descendants
from ...compiler.types.tensors import FLOATS, TensorType
from ...dsl import ast
from .boxes import Box, edges, written

LINE, PADDING = 17.0, 10.0
TITLE, TEXT = 13.0, 11.5  # how large letters are
_LONG, _NARROW = 30, 17  # how many of them a line has, where boxes stand above each other and side by side
_THIN, _WIDE = frozenset("ijlft.,:;|'()[]I! "), frozenset("mwMW@%→∂…")


@dataclass(frozen=True, slots=True)
class Card:
    """A title in bold, and lines of text. `kind` is a word for its colour, `link` where it leads on a page."""

    title: tuple[str, ...]
    lines: tuple[str, ...]
    kind: str
    link: int | None = None

    @property
    def size(self) -> tuple[float, float]:
        widths = [*(_width(t, TITLE, bold=True) for t in self.title), *(_width(t, TEXT) for t in self.lines)]
        return max(widths) + 2 * PADDING, (len(self.title) + len(self.lines)) * LINE + 12


@dataclass(slots=True)
class View:
    """`edges` are pairs of cards. The way back has a card beside some of them, in `back`, and goes along `returning`,
    pairs that are read backwards; it begins at `losses` and reads the values of `kept`, and what it makes at `trained`
    goes to the `optimizer`."""

    cards: list[Card]
    edges: list[tuple[int, int]]
    back: dict[int, Card] = field(default_factory=dict)
    returning: list[tuple[int, int]] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    losses: set[int] = field(default_factory=set)
    trained: set[int] = field(default_factory=set)
    optimizer: Card | None = None


def view(graph: Graph, found: Sequence[Box], cx: Context, across: bool, linked: bool) -> View:
    """The boxes `found` in a graph; of one that is trained by derivatives, those that its loss is made of."""
    letters = _NARROW if across else _LONG
    nodes = {n.name: n for n in graph}
    lines = 2 if across else 1
    number = {id(box): k for k, box in enumerate(found)}
    trained = [n for n in graph if n.op == "grad" and _updates(graph, nodes, n)]
    shown = [box for box in found if box.title != "step"]
    if trained:
        wanted = ancestors(nodes, [n.args[0] for n in trained])
        shown = [box for box in shown if any(n.name in wanted for n in box.nodes)]
    around = {box.path.rpartition(".")[0].partition(".")[2] for box in shown if box.path}
    inside = around.pop() if len(around) == 1 else ""  # the layer that all are in goes without saying
    cards = [_card(box, inside, letters, lines, number[id(box)] if linked else None) for box in shown]
    result = View(cards, edges(graph, shown))
    if trained:
        _go_back(result, nodes, shown, trained)
        first, *more = [wrapped(s, 80 if across else 18, 6) for s in _settings(cx)] or [["optimizer"]]
        result.optimizer = Card(tuple(first), tuple(line for s in more for line in s), "optimizer")
    return result


def _updates(graph: Graph, nodes: dict[str, Node], grad: Node) -> bool:
    """Whether these are derivatives by parameters, and change a variable."""
    if not any(nodes[a].op == "param" for a in grad.args[1:]):
        return False  # as those that a transposed convolution is made of
    after = descendants(nodes, [grad.name])
    return any(value in after for _, value in graph.updates)


def _go_back(result: View, nodes: dict[str, Node], shown: Sequence[Box], trained: Sequence[Node]) -> None:
    """Where derivatives flow: along the paths from what is trained to a loss, against them."""
    ends = {name for name, n in nodes.items() if n.op == "stop_grad"}
    below = {name: nodes[name] for n in trained for name in ancestors(nodes, n.args[:1], ends)}
    xs = dict.fromkeys(a for n in trained for a in n.args[1:] if a in below)
    active = {
        a
        for a in descendants(below, xs, "stop_grad")
        if not isinstance(t := nodes[a].type, TensorType) or t.dtype in FLOATS
    }
    of = {n.name: k for k, box in enumerate(shown) for n in box.nodes}
    path = {a: nodes[a].attrs["path"] for a in xs if nodes[a].op == "param"}
    result.returning = [
        (j, k)
        for j, k in result.edges
        if any(a in active and of.get(a) == j for n in shown[k].nodes if n.name in active for a in n.args)
    ]
    result.losses = {of[n.args[0]] for n in trained if n.args[0] in of}
    for k, box in enumerate(shown):
        own = [p for a, p in path.items() if of.get(a) == k or (box.path and p.startswith(f"{box.path}."))]
        if own or any(n.name in active for n in box.nodes):
            passed = [shown[j].result for j, at in result.returning if at == k]
            names = [f"∂{p.rpartition('.')[2]}" for p in own]
            made = ", ".join(names) if len(names) < 4 else f"∂ of {len(names)} parameters"
            text = [*([made] if box.path and made else []), *dict.fromkeys(passed or [box.result] * (not box.path))]
            title = "∂ " + box.title.partition("(")[0].partition(":")[0]
            result.back[k] = Card((title,), tuple(text), "back", result.cards[k].link)
        direct = [a for n in box.nodes if n.name in active for a in n.args if a in path and a not in of]
        if own or direct:
            result.trained.add(k)
        if any(a in nodes and nodes[a].op not in ("param", "constant", "size") for n in box.backward for a in n.args):
            result.kept.add(k)


def _settings(cx: Context) -> Iterator[str]:
    """The settings of the train block that say what becomes of derivatives."""
    for statement in cx.program.train.body if cx.program.train is not None else ():
        match statement:
            case ast.Assign(targets=(ast.Target(name="optimizer"),), value=value):
                yield written(value.span)
            case ast.Minimize():
                yield written(statement.span).rpartition(" over ")[2]
            case ast.Assign(targets=(ast.Target(name="clip" | "average" | "accumulate"),)):
                yield written(statement.span)


# --- text -------------------------------------------------------------------------------------------------------------


def _card(box: Box, inside: str, letters: int, most: int, link: int | None) -> Card:
    around = box.path.rpartition(".")[0].partition(".")[2].removeprefix(inside)  # the layers it is in
    title = f"{around}.{box.title}" if around else box.title
    call = box.call if box.path or box.nodes[0].op == "param" else ""
    if not box.path and "(" in title and len(title) > letters:
        title, _, call = title[:-1].partition("(")
    lines = [*wrapped(call, letters, most + 1), box.result]
    if box.parameters:
        lines.append(f"{box.parameters:,} parameters")
    if box.note:
        lines.append(box.note)
    first = box.nodes[0]
    kind = "layer " if box.path else "function "
    if not any(n.op == "random" for n in box.nodes):
        kind = first.op if first.op in ("input", "param") and len(box.nodes) == 1 else kind + box.title.lower()
    return Card(tuple(wrapped(title, letters, most)), tuple(lines), kind, link)


def wrapped(text: str, letters: int, most: int) -> list[str]:
    """At most so many lines of so many letters; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    while text:
        if len(text) <= letters or len(lines) == most - 1:
            word = min((k for c in " (." if (k := text.find(c)) >= 0), default=len(text))
            lines.append(text if len(text) <= max(letters, word) else text[: max(letters - 1, word)] + "…")
            break
        cut = max(text.rfind(c, 0, letters + (c == " ")) + 1 for c in " (.")
        if cut <= letters // 3:  # a word is not cut
            cut = min((k + 1 for c in " (." if (k := text.find(c, letters)) >= 0), default=len(text))
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return lines


def _width(text: str, size: float, bold: bool = False) -> float:
    """An upper bound over the usual sans-serif faces, the widest of which is DejaVu Sans."""
    em = sum(0.4 if c in _THIN else 1.0 if c in _WIDE else 0.77 if c.isupper() else 0.64 for c in text)
    return size * em * (1.1 if bold else 1.0)

"""The computation graph: typed nodes; where algorithms of networkx are wanted, as a multigraph of it.

A graph is a value. Passes read one and build another with a `Builder`, which infers and checks every type as it goes,
so a graph that exists is well-typed. Node order in the graph is a topological order and is deterministic: it is the
order of building. Nodes know what they read; who reads them is found when it is first asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...dsl.errors import error
from ...dsl.record import dataclass, field
from ...dsl.source import Span
from ..types.facts import Relation
from ..types.sizes import Dim, Size, symbol, symbols
from ..types.tensors import TensorType, TupleType, Type

if TYPE_CHECKING:
    import networkx as nx

MAX_NODES = 300_000  # of one graph

Attrs = Mapping[str, Any]  # values are hashable: int, Size, float, str, bool, None, tuples of these, Graph


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One application of an operator. `name` is unique in its graph; `args` are names of earlier nodes."""

    name: str
    op: str
    args: tuple[str, ...]
    attrs: Attrs
    type: Type
    span: Span | None = None

    @property
    def shape(self) -> tuple[Dim, ...]:
        assert isinstance(self.type, TensorType)
        return self.type.shape

    @property
    def dtype(self) -> str:
        assert isinstance(self.type, TensorType)
        return self.type.dtype


@dataclass(frozen=True, slots=True)
class Guard:
    """What only run time can decide: one of these relations of sizes must hold; `message` says what it means, `span`
    where it was asked."""

    relations: tuple[Relation, ...]
    message: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Graph:
    """One entry point: `nodes` by name in topological order, with the leaves `input` and `param`; named `outputs`;
    and `updates` (parameter path, new value) that commit together when the step ends."""

    name: str
    nodes: Mapping[str, Node]
    outputs: tuple[tuple[str, str], ...]
    updates: tuple[tuple[str, str], ...] = ()
    guards: tuple[Guard, ...] = ()

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __iter__(self) -> Iterator[Node]:
        """Nodes in topological order."""
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def dag(self) -> nx.MultiDiGraph:
        """The names as a networkx graph: edges operand -> user, key = position."""
        import networkx as nx  # a third of what a process loads, and few need it

        dag = nx.MultiDiGraph()
        dag.add_nodes_from(self.nodes)
        dag.add_edges_from((a, n.name, k) for n in self for k, a in enumerate(n.args))
        return dag

    @property
    def roots(self) -> tuple[str, ...]:
        """The nodes the outside sees: outputs, updates, and what has an effect."""
        return (*(v for _, v in self.outputs + self.updates), *effects(self))

    def users(self, name: str) -> list[Node]:
        """The nodes that read `name`, each once, in order."""
        return self._users.get(name, [])

    @cached_property
    def _users(self) -> dict[str, list[Node]]:
        users: dict[str, list[Node]] = {}
        for n in self:
            for a in dict.fromkeys(n.args):
                users.setdefault(a, []).append(n)
        return users


class Builder:
    """Grows a graph node by node. `emit` infers the type from the operator's own rule and refuses ill-typed nodes.

    Values are node names. A builder is append-only, so any prefix of it is a valid graph.
    """

    def __init__(self, name: str, ops: Mapping[str, Any]):
        self.name = name
        self.ops = ops
        self.nodes: dict[str, Node] = {}
        self.guards: list[Guard] = []
        self.span: Span | None = None  # given to nodes emitted without one
        self._next: dict[str, int] = {}  # by stem, the first number that may be free

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def type(self, name: str) -> TensorType:
        t = self.nodes[name].type
        assert isinstance(t, TensorType), f"{name} is a tuple"
        return t

    def shape(self, name: str) -> tuple[Dim, ...]:
        return self.type(name).shape

    def emit(self, op: str, *args: str, name: str | None = None, span: Span | None = None, **attrs: Any) -> str:
        """Append one node and return its name. Raises `ops.op.ShapeError` from the operator's `infer`."""
        if op == "input":
            attrs.setdefault("name", name)  # what the outside calls it: the node may have to be called otherwise
        return self.add(op, args, attrs, name, span)

    def add(
        self, op: str, args: tuple[str, ...], attrs: Attrs, name: str | None = None, span: Span | None = None
    ) -> str:
        """`emit` with the attributes as a mapping."""
        inferred = self.ops[op].infer([self.nodes[a].type for a in args], attrs)
        if name is None or name in self.nodes:
            name = self.fresh(name or "v")
        return self._put(Node(name, op, args, attrs, inferred, span or self.span))

    def row(self, stack: str, turn: str) -> str:
        """Of what a scan collects, or reads turn by turn, the part that is of the turn whose index is a symbol."""
        shape, t = self.shape(stack), symbol(turn)
        starts, stops = (t, *[0] * (len(shape) - 1)), (t + 1, *shape[1:])
        row = self.emit("slice", stack, starts=starts, stops=stops, steps=(1,) * len(shape))
        return self.emit("reshape", row, shape=shape[1:])

    def fresh(self, stem: str) -> str:
        """A name not yet taken: `v7`, `h_2`."""
        n = self._next.get(stem, 0 if stem == "v" else 2)
        between = "" if stem == "v" else "_"
        while f"{stem}{between}{n}" in self.nodes:
            n += 1
        self._next[stem] = n
        return f"{stem}{between}{n}"

    def guard(self, relations: tuple[Relation, ...], message: str, span: Span | None = None) -> None:
        g = Guard(relations, message, span)
        if g not in self.guards:
            self.guards.append(g)

    def copy(self, node: Node, args: tuple[str, ...]) -> str:
        """The same operator on other operands; keeps name and span where it can."""
        name = node.name if node.name not in self.nodes else self.fresh("v")
        inferred = node.type if not args else self.ops[node.op].infer([self.nodes[a].type for a in args], node.attrs)
        return self._put(Node(name, node.op, args, node.attrs, inferred, node.span))

    def _put(self, node: Node) -> str:
        if len(self.nodes) >= MAX_NODES:
            raise error("E0502", f"this makes a graph of more than {MAX_NODES:,} operators", node.span)
        self.nodes[node.name] = node
        return node.name

    def finish(self, outputs: Iterable[tuple[str, str]], updates: Iterable[tuple[str, str]] = ()) -> Graph:
        return Graph(self.name, {**self.nodes}, tuple(outputs), tuple(updates), tuple(self.guards))


def effects(nodes: Iterable[Node]) -> tuple[str, ...]:
    """The nodes that are there for what they do, which is to fail, whether or not anybody reads them: checks, and loops
    with checks in them."""
    return tuple([n.name for n in nodes if n.op == "in_range" or ("body" in n.attrs and may_fail(n))])


def may_fail(node: Node) -> bool:
    """Whether running a node may end the step with an error."""
    return node.op == "in_range" or any(map(may_fail, node.attrs.get("body", ())))


def ancestors(nodes: Mapping[str, Node], names: Iterable[str], ends: Collection[str] = ()) -> dict[str, None]:
    """`names` and all that they are computed from, in topological order; the way ends at what is in `ends`."""
    seen = set(names)
    todo = list(seen)
    while todo:
        name = todo.pop()
        if name in ends:
            continue
        for a in nodes[name].args:
            if a not in seen:
                seen.add(a)
                todo.append(a)
    return dict.fromkeys(nodes if len(seen) == len(nodes) else [x for x in nodes if x in seen])


def descendants(nodes: Mapping[str, Node], names: Iterable[str], but: str = "") -> set[str]:
    """`names` and all that is computed from them, where nothing passes through the operator `but`."""
    seen = set(names)
    for name, n in nodes.items():
        if n.op != but and any(a in seen for a in n.args):
            seen.add(name)
    return seen


__all__ = [
    "Attrs", "Builder", "Graph", "Guard", "Node", "TensorType", "TupleType", "ancestors", "descendants", "effects",
    "may_fail",
]  # fmt: skip


def mentions(x: Any, name: str) -> bool:
    """Whether a size in it, an attribute, a type or a graph, has to do with a symbol."""
    match x:
        case Size():
            return name in symbols(x)
        case TensorType(_, shape):
            return mentions(shape, name)
        case TupleType(items) | tuple(items) | list(items):
            return any(mentions(i, name) for i in items)
        case Mapping():
            return any(mentions(v, name) for v in x.values())
        case Graph():
            return any(mentions(n.attrs, name) for n in x)
    return False

"""From a graph of ours to nodes of ONNX, operator by operator.

In: a graph and a scope. Out: for each of its nodes a `Value`. Repetition is put off: a `broadcast` is a value with axes
of size 1, which elementwise operators of ONNX repeat by themselves, and is written out where somebody else reads it.
What has no counterpart is noted with its place, so that all of it can be said at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ....compiler.graph.nodes import Graph, Node
from ....compiler.graph.ops.calculus import Number, number
from ....compiler.types.tensors import TensorType
from ....dsl.source import Span
from .values import Refused, Scope, Value

Rule = Callable[["Walk", Node], "Value | tuple[Value, ...]"]


@dataclass(frozen=True, slots=True)
class Call:
    """What takes the place of a node: a rule, and the nodes that it reads instead of those that the node does."""

    rule: Rule
    read: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The nodes of a layer, which become a function of that name; `path` is that of the instance."""

    name: str
    path: str


# What makes a function of a region: for those of its nodes that are read elsewhere it gives their values.
Enter = Callable[["Walk", Region, Sequence[str]], Mapping[str, Value]]


@dataclass(slots=True)
class Walk:
    """A graph on its way into a scope. `rules` are by operator, `calls` by node. `regions` has for a node those that it
    is in, from outside, of which the walk itself is in the first `depth`, and in the layer at `base`."""

    graph: Mapping[str, Node]
    scope: Scope
    rules: Mapping[str, Rule]
    values: dict[str, Value | tuple[Value, ...]] = field(default_factory=dict)
    calls: Mapping[str, Call] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)  # of nodes: the path of the layer that they are of
    regions: Mapping[str, Sequence[Region]] = field(default_factory=dict)
    depth: int = 0
    base: str = ""
    enter: Enter | None = None
    within: Callable[[Graph], Mapping[str, Call]] = lambda body: {}  # the calls in the body of a loop
    refused: dict[tuple[str, Span | None], str] = field(default_factory=dict)
    place: Mapping[str, int] = field(default_factory=dict)  # of each node in the graph

    def __post_init__(self) -> None:
        self.place = self.place or {name: k for k, name in enumerate(self.graph)}

    def run(self, results: Iterable[str]) -> list[Value]:
        """The values of nodes, whole, and of all that they depend on."""
        wanted = list(results)
        needed = self.ordered(self.needed(wanted))
        exposed = self._exposed(wanted, needed)
        for name in needed:
            if name in self.values:
                continue
            region = self.region(name)
            if region is None or self.enter is None:
                self.values[name] = self._value(self.graph[name])
            elif region in exposed:
                self.values |= self.enter(self, region, self.ordered(exposed.pop(region)))
        return [self.full(name) for name in wanted]

    def _value(self, node: Node) -> Value | tuple[Value, ...]:
        call = self.calls.get(node.name)
        rule = call.rule if call is not None else self.rules.get(node.op)
        self.scope.label = self.labels.get(node.name, self.base).removeprefix(self.base).lstrip(".")
        try:
            if rule is None:
                raise Refused("has no counterpart")
            return rule(self, node)
        except Refused as e:
            self.refused.setdefault((node.op, node.span), str(e))
            types = (node.type,) if isinstance(node.type, TensorType) else node.type.items
            stand_in = tuple(Value("refused", t.dtype, t.shape) for t in types)
            return stand_in[0] if isinstance(node.type, TensorType) else stand_in

    def args(self, name: str) -> Sequence[str]:
        """What a node reads."""
        return self.calls[name].read if name in self.calls else self.graph[name].args

    def needed(self, results: Iterable[str]) -> Collection[str]:
        """The nodes that results depend on, and that are still to be made."""
        seen = set(results)
        todo = list(seen)
        while todo:
            name = todo.pop()
            if name not in self.values:
                args = self.args(name)
                todo += [a for a in args if a not in seen]
                seen.update(args)
        return seen

    def region(self, name: str) -> Region | None:
        """The layer below that of the walk that a node is in."""
        around = self.regions.get(name, ())
        return around[self.depth] if len(around) > self.depth else None

    def ordered(self, names: Iterable[str]) -> list[str]:
        """Nodes in the order of the graph."""
        return sorted(names, key=self.place.__getitem__)

    def _exposed(self, wanted: Sequence[str], needed: Sequence[str]) -> dict[Region, set[str]]:
        """By region the nodes that are read from outside of it."""
        read = set(wanted)
        for name in needed:
            if name not in self.values:
                read |= {a for a in self.args(name) if self.region(a) is not self.region(name)}
        found: dict[Region, set[str]] = {}
        for name in read:
            if (region := self.region(name)) is not None:
                found.setdefault(region, set()).add(name)
        return found

    # --- asked by rules

    def thin(self, name: str) -> Value:
        """A value as it is: axes of size 1 may stand for more."""
        v = self.values[name]
        assert isinstance(v, Value)
        return v

    def full(self, name: str) -> Value:
        """A value with all its elements."""
        return self.scope.expand(self.thin(name), self.graph[name].shape)

    def number(self, name: str) -> Number | None:
        """The number that a value is everywhere, if the program writes one."""
        return number(self.graph, name)

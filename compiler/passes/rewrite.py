"""The engine of the rewriting passes: a graph and a table of rules in, the graph at the rules' fixed point out.

A rule is a function `(sweep, node) -> value | None`: it looks at a node whose operands are already rebuilt and gives
the name of an equal value, made with `sweep.emit`, or None. One sweep rebuilds the graph in order; what rules emit is
offered to the rules at once. So a sweep is linear and two or three reach the fixed point; `SWEEPS` bounds them.

A value that a `grad` node differentiates with respect to is a variable there, not just a number: it is never replaced
and rules cannot look through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..graph.nodes import Builder, Graph, Node, ancestors, effects
from ..graph.ops import OPS
from ..types.sizes import Dim
from ..types.tensors import TensorType

SWEEPS = 12
DEPTH = 24  # of rules firing on what rules emitted

Rule = Callable[["Sweep", Node], "str | None"]
Table = Mapping[str, Sequence[Rule]]  # operator -> rules, the first that applies wins


class Sweep:
    """The graph under reconstruction, and what rules may ask of it."""

    def __init__(self, nodes: Mapping[str, Node], roots: Sequence[str], rules: Table):
        self.b = Builder("", OPS)
        self.rules = rules
        self.fired = 0
        self.differentiated = any(n.op == "grad" for n in nodes.values())  # derivatives are still to come
        self._nodes = nodes
        self._hidden = {a for n in nodes.values() if n.op == "grad" for a in n.args[1:]}
        self._uses = dict.fromkeys(nodes, 0)
        self._depth = self._count = 0
        for name in (*(a for n in nodes.values() for a in n.args), *roots, *effects(nodes.values())):
            self._uses[name] += 1

    def __getitem__(self, name: str) -> Node:
        """A rebuilt node, to be looked into; one that must not be is shown as an opaque leaf."""
        node = self.b.nodes[name]
        return node if name not in self._hidden else Node(name, "variable", (), {}, node.type)

    def type(self, name: str) -> TensorType:
        return self.b.type(name)

    def shape(self, name: str) -> tuple[Dim, ...]:
        return self.b.shape(name)

    def single(self, name: str) -> bool:
        """Certainly read only once, so that work moved into its reader is not done twice."""
        return self._uses.get(name, 2) == 1

    def emit(self, op: str, *args: str, **attrs: Any) -> str:
        """A value: a rule's answer, or a new node."""
        b = self.b
        node = Node("", op, args, attrs, OPS[op].infer([b.nodes[a].type for a in args], attrs), b.span)
        found = self._rewritten(node)
        if found is None:
            found = self._fresh()
            b.nodes[found] = Node(found, op, args, attrs, node.type, b.span)
            for a in args:
                if a in self._uses:
                    self._uses[a] += 1
        return found

    def _fresh(self) -> str:
        """A name that neither the new graph has nor the old one, whose nodes keep theirs."""
        while (name := f"v{self._count}") in self.b.nodes or name in self._nodes:
            self._count += 1
        return name

    def _rewritten(self, node: Node) -> str | None:
        if self._depth == DEPTH:
            return None
        self._depth += 1
        for rule in self.rules.get(node.op, ()):
            found = rule(self, node)
            if found is not None:
                got = self.b.nodes[found].type
                assert got == node.type, f"{rule.__name__}: {got}, not {node.type}"
                self.fired += 1
                self._depth -= 1
                return found
        self._depth -= 1
        return None

    def run(self) -> dict[str, str]:
        """Rebuild every node; old name -> new name."""
        new: dict[str, str] = {}
        for name, node in self._nodes.items():
            self.b.span = node.span
            args = tuple([new[a] for a in node.args])
            moved = node if args == node.args else Node(name, node.op, args, node.attrs, node.type, node.span)
            before = len(self.b.nodes)
            found = self._rewritten(moved) if node.op in self.rules and name not in self._hidden else None
            if found is None:
                found = name
                self.b.nodes[name] = moved
            elif len(self.b.nodes) > before and found == next(reversed(self.b.nodes)):
                last = self.b.nodes.pop(found)  # nothing reads it yet: it takes the name of what it stands for
                found = name
                self.b.nodes[name] = Node(name, last.op, last.args, last.attrs, last.type, node.span)
            elif found in self._uses:
                self._uses[found] += self._uses[name] - 1
            new[name] = found
        return new


def rewrite(graph: Graph, rules: Table) -> Graph:
    """Sweep until no rule applies. What nothing needs any more disappears, inputs stay."""
    nodes = graph.nodes
    outputs, updates = graph.outputs, graph.updates
    if not any(n.op in rules for n in graph):
        return assemble(graph, live(nodes, [v for _, v in outputs + updates]), outputs, updates)
    for _ in range(SWEEPS):
        sweep = Sweep(nodes, [v for _, v in outputs + updates], rules)
        new = sweep.run()
        outputs = tuple((k, new[v]) for k, v in outputs)
        updates = tuple((k, new[v]) for k, v in updates)
        nodes = live(sweep.b.nodes, [v for _, v in outputs + updates])
        if not sweep.fired:
            break
    return assemble(graph, nodes, outputs, updates)


def live(nodes: Mapping[str, Node], roots: Sequence[str]) -> dict[str, Node]:
    """The nodes that the roots and what has an effect depend on, and all inputs: they are part of the interface."""
    inputs = [name for name, n in nodes.items() if n.op == "input"]
    return {name: nodes[name] for name in ancestors(nodes, [*inputs, *roots, *effects(nodes.values())])}


def assemble(
    graph: Graph, nodes: Mapping[str, Node], outputs: Sequence[tuple[str, str]], updates: Sequence[tuple[str, str]]
) -> Graph:
    """A graph of other nodes with the name and the guards of `graph`; the graph itself where they are its own."""
    same = len(nodes) == len(graph) and all(nodes.get(n.name) is n for n in graph)
    if same and tuple(outputs) == graph.outputs and tuple(updates) == graph.updates:
        return graph
    return Graph(graph.name, nodes, tuple(outputs), tuple(updates), graph.guards)

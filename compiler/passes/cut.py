"""A training step cut into stages: what each shard of a batch computes for itself, and what is made of all of them.

In: the graph of a step with `across` where shards meet, derivatives taken, and the size that counts examples. Out: a
graph for each stage; the last one is for the batch, the others for a shard. Whatever is the same for all shards, as it
is computed from variables and from what shards made together, is computed where it is used. Of what is a shard's own a
later stage is given what an earlier one `kept`.

    shard s of n_s examples:  w_s = n_s x_s          (fold `sum`: w_s = x_s)
    between stages:           w = sum_s w_s          (not here: the runtime's)
    a later stage:            across(x) = w / sum_s n_s

So shards weigh as their examples do. A draw for each example counts on from the examples before the shard: it is that
of the batch as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...dsl.errors import NncError, error
from ...dsl.source import Span
from ..graph.nodes import Attrs, Builder, Graph, Node, ancestors, effects, mentions
from ..graph.ops import OPS
from ..graph.ops.calculus import Value
from ..graph.ops.op import LOOP
from ..manifest import ACROSS, FIRST, KEPT, WHOLE
from ..types.sizes import product, substitute, symbol, symbols
from ..types.tensors import TensorType


def cut(graph: Graph, size: str, stem: str) -> tuple[Graph, ...]:
    """The stages, called by a stem and their number. Raises `SourceError` E0203 where the last one needs what is
    a shard's own, and where shards that may be of different sizes have no mean."""
    stages = _Stages(graph, size)
    return tuple(stages.stage(k, f"{stem}{k}") for k in range(stages.last + 1))


class _Stages:
    """Which nodes are a shard's own, and the first stage that can compute each."""

    def __init__(self, graph: Graph, size: str):
        self.graph, self.size = graph, size
        self.own: set[str] = set()
        self.level: dict[str, int] = {}
        for n in graph:
            self.level[n.name] = max((self.level[a] for a in n.args), default=0)
            mine = any(a in self.own for a in n.args)
            if n.op == "across":
                self.level[n.name] += mine
            elif mine or mentions(n.type, size) or (n.op != "size" and mentions(n.attrs, size)):
                self.own.add(n.name)
        self.last = max((self.level[n.name] for n in graph if self._meets(n)), default=0)
        self.meeting: dict[str, list[Node]] = {}  # by what shards give, where they meet
        for n in graph:
            if self._meets(n):
                self.meeting.setdefault(n.args[0], []).append(n)
        self.roots = [self._roots(k) for k in range(self.last + 1)]
        self.read: dict[int, dict[str, None]] = {}  # by stage
        self.kept: list[set[str]] = [set() for _ in self.roots]  # what later stages read of each
        for k in range(self.last, -1, -1):  # what is kept is a root of the stage that makes it
            given = self._given(k)
            self.read[k] = ancestors(graph.nodes, self.roots[k], given)
            for name in self.read[k]:
                level = self.level[name]
                if name in given and name in self.own and name not in self.kept[level]:
                    self.kept[level].add(name)
                    self.roots[level].append(name)

    def _meets(self, n: Node) -> bool:
        """Whether shards meet in a node."""
        return n.op == "across" and n.args[0] in self.own

    def _roots(self, k: int) -> list[str]:
        """What a stage is for: sums over shards, the results, and what may fail."""
        wanted = [n.args[0] for n in self.graph if self._meets(n) and self.level[n.args[0]] == k]
        if k == self.last:
            wanted += [v for _, v in self.graph.outputs + self.graph.updates]
        return [*wanted, *(e for e in effects(self.graph) if self.level[e] == k)]

    def _given(self, k: int) -> set[str]:
        """What a stage is given, if it reads it."""
        return {
            n.name
            for n in self.graph
            if self._meets(n) or (n.name in self.own and self.level[n.name] < k and n.op != "input")
        }

    def stage(self, k: int, name: str) -> Graph:
        graph, last = self.graph, k == self.last
        b = Builder(name, OPS)
        read, given, new, sums = self.read[k], self._given(k), dict[str, str](), dict[str, str]()
        if last:
            self._check_common(read)
        else:
            b.guards = list(graph.guards)
        for n in graph:
            b.span = n.span
            if n.name in read and n.name in given:
                new[n.name] = self._taken(b, n)
            elif n.op == "across":
                if n.name in read:
                    new[n.name] = new[n.args[0]]
            elif n.name in read or (n.op == "input" and not last):
                new[n.name] = b.copy(self._placed(n), tuple(new[a] for a in n.args))
            for meeting in self.meeting.get(n.name, ()) if self.level[n.name] == k and n.name in new else ():
                sums[ACROSS + meeting.name] = self._added(b, new[n.name], meeting)
        if last:
            named = [(p, new[v]) for p, v in graph.outputs], [(p, new[v]) for p, v in graph.updates]
            return b.finish(*named)
        return b.finish([*sums.items(), *((KEPT + name, new[name]) for name in graph.nodes if name in self.kept[k])])

    def _added(self, b: Builder, value: str, n: Node) -> str:
        """What a shard adds to a sum, made as soon as it can be: it may then be handed on."""
        if mentions(n.type, self.size):
            what = f"{n.type} is of another size in each shard of a batch, so it has no mean over them"
            raise _refused(what, n.span)
        b.span = n.span
        x = Value(b, value)
        return x.name if n.attrs["fold"] == "sum" else (x * _number(x, self.size)).name

    def _taken(self, b: Builder, n: Node) -> str:
        """What an earlier stage kept, or shards made together."""
        assert isinstance(n.type, TensorType)
        if n.op != "across":
            return b.emit("input", name=KEPT + n.name, type=n.type)
        total = Value(b, b.emit("input", name=ACROSS + n.name, type=n.type))
        return (total if n.attrs["fold"] == "sum" else total / _number(total, WHOLE)).name

    def _placed(self, n: Node) -> Node:
        """The node with draws of the examples that it is about, in the bodies of scans as well."""
        if OPS[n.op].kind == LOOP:
            body = n.attrs["body"]
            nodes = {x.name: self._placed(x) for x in body}
            return _with(n, body=Graph(body.name, nodes, body.outputs, body.updates, body.guards))
        if n.op != "random" or not mentions(n.type, self.size):
            return n
        each, *rest = n.shape
        one = substitute(each, {self.size: 1})
        if not isinstance(one, int) or each != one * symbol(self.size) or any(self.size in symbols(r) for r in rest):
            raise _refused(f"a draw of {n.type} has no part for each example", n.span)
        return _with(n, first=symbol(FIRST) * one * product(rest))

    def _check_common(self, read: Iterable[str]) -> None:
        """Refuse results that are made of single examples."""
        owned = [n for n in read if n in self.own]
        if not owned:
            return
        for path, value in (*self.graph.updates, *self.graph.outputs):
            met = ancestors(self.graph.nodes, [value], self._given(self.last))
            if first := next((n for n in owned if n in met), None):
                what = f"`{path}` is made of the examples themselves, but shards of a batch share means and sums alone"
                raise _refused(what, self.graph[value].span or self.graph[first].span)


def _with(n: Node, **attrs: object) -> Node:
    changed: Attrs = {**n.attrs, **attrs}
    return Node(n.name, n.op, n.args, changed, n.type, n.span)


def _number(x: Value, size: str) -> Value:
    """A size as a number like those of x."""
    return Value(x.b, x.b.emit("size", size=symbol(size), dtype=x.type.dtype)).spread(x.shape, ())


def _refused(what: str, span: Span | None) -> NncError:
    return error("E0203", f"{what} (`shards`)", span, help="train without `shards`, on one machine")

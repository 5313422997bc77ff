"""Layers as functions of ONNX, so that a picture of the file reads like the program.

In: the calls that elaboration noted. A layer of the user's, and one of the library that has layers inside, is a
function; instances that do the same share one. What a function reads is passed to it: values, parameters, and sizes
that the shapes of these do not tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ....compiler.elaborate.noted import Called
from ....compiler.elaborate.values import Tensor
from ....compiler.graph.nodes import Node
from ....compiler.types.sizes import symbol
from . import protos
from .values import Refused, Scope, Value, onnx
from .walk import Region, Walk

DOMAIN = "nnc"


class Layers:
    """Which nodes of a graph are of which calls; `names` are those in the graph of the nodes that calls know."""

    def __init__(self, called: Sequence[Called], graph: Mapping[str, Node], names: Mapping[str, str]):
        self.called = [c for c in called if c.path]
        self.graph = graph
        self.order = list(graph)
        place = {name: k for k, name in enumerate(self.order)}
        known = list(self.called[0].builder.nodes) if self.called else []
        self.places = [place.get(names[n]) for n in known]  # of the nodes that calls know

    def regions(self) -> dict[str, list[Region]]:
        """For each node the layers that it is in and that become functions, from outside."""
        holds = {c.path.rpartition(".")[0] for c in self.called}
        found: dict[str, list[Region]] = {}
        for c in reversed(self.called):  # those that are around others end after them
            own = not c.std or c.path in holds
            if "." in c.path and own and all(isinstance(r, Tensor) for r in c.results):
                region = Region(c.name, c.path)
                for name in self._nodes(c):
                    found.setdefault(name, []).append(region)
        return found

    def labels(self) -> dict[str, str]:
        """The path of the innermost layer that each node is of."""
        found: dict[str, str] = {}
        for c in self.called:
            for name in self._nodes(c):
                found.setdefault(name, c.path)
        return found

    def _nodes(self, c: Called) -> list[str]:
        """The nodes of a call, with the derivatives that are among them."""
        mine = [k for k in self.places[c.first : c.last] if k is not None]
        between = self.order[min(mine) : max(mine) + 1] if mine else []
        return [name for name in between if self.graph[name].op not in ("param", "input", "constant")]


@dataclass(slots=True)
class Functions:
    """The functions that were made, by what they do; `enter` is asked by walks."""

    made: dict[str, str] = field(default_factory=dict)  # what a function does, as text: its name
    protos: list[Any] = field(default_factory=list)
    count: dict[str, int] = field(default_factory=dict)

    def enter(self, w: Walk, region: Region, results: Sequence[str]) -> Mapping[str, Value]:
        """Call the function that a region is; the values of its nodes that are read from outside."""
        inner = Scope(w.scope.opset)
        inside = replace(w, scope=inner, values={}, depth=w.depth + 1, base=region.path)
        given = self._given(w, inside, region, results)
        outputs = [inner.fresh("y") for _ in results]
        values = inside.run(results)
        named = protos.named(inner, dict(zip(outputs, values, strict=True)))
        read = inner.live(named)[1]
        sizes = {inner.bound[s].name: w.scope.size(symbol(s)) for s in inner.asked if inner.bound[s].name in read}
        passed = {formal: v for formal, v in given.items() if formal in read} | sizes
        name = self._function(region, list(passed), named, inner)
        w.scope.label = region.path.removeprefix(w.base).lstrip(".")
        types = [(v.dtype, v.shape) for v in values]
        made = w.scope.emits(name, *passed.values(), types=types, domain=DOMAIN)
        return dict(zip(results, made, strict=True))

    def _given(self, w: Walk, inside: Walk, region: Region, results: Sequence[str]) -> dict[str, Value]:
        """What a region reads from around it, by the names that it has inside. Constants are made again there."""
        given: dict[str, Value] = {}
        for name in _around(w, region, results):
            v, node = w.values[name], w.graph[name]
            if isinstance(v, tuple):
                raise Refused("has results that are read inside of a layer")
            known = w.scope.array(v)
            if known is not None:
                inside.values[name] = inside.scope.constant(known, v.dtype)
                continue
            path = node.attrs["path"] if node.op == "param" else "x"
            formal = replace(v, name=inside.scope.fresh(path.removeprefix(f"{region.path}.")))
            inside.values[name] = formal
            inside.scope.sources.append(formal)
            given[formal.name] = v
        return given

    def _function(self, region: Region, inputs: Sequence[str], outputs: Sequence[str], inner: Scope) -> str:
        """The name of the function that does this."""
        helper = onnx().helper
        imports = [helper.make_opsetid("", inner.opset), helper.make_opsetid(DOMAIN, 1)]
        proto = helper.make_function(DOMAIN, "", inputs, outputs, protos.nodes(inner, outputs), imports)
        does = f"{region.name} {proto.SerializeToString(deterministic=True)!r}"
        if does not in self.made:
            n = self.count[region.name] = self.count.get(region.name, 0) + 1
            proto.name = self.made[does] = region.name if n == 1 else f"{region.name}_{n}"
            self.protos.append(proto)
        return self.made[does]


def _around(w: Walk, region: Region, results: Sequence[str]) -> list[str]:
    """The nodes outside of a region that its results read, constants left out, parameters last."""
    seen, around = set(results), set()
    todo = list(results)
    while todo:
        for a in w.args(todo.pop()):
            if w.region(a) is not region:
                around.add(a)
            elif a not in seen:
                seen.add(a)
                todo.append(a)
    found = w.ordered(name for name in around if w.graph[name].op != "constant")
    return sorted(found, key=lambda name: w.graph[name].op == "param")

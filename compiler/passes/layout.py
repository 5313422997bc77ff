"""Layout: in which order the axes of each value lie in memory, chosen for the kernels that read it.

In: a simplified graph. Out: the same values, some of them with permuted axes, and transposes where orders meet. The one
idea: `contract` carries index maps, so a contraction in another order is a contraction. One whose lanes can go along an
index that only one operand has gets that index innermost in its result and in that operand; whatever is elementwise,
reduced, padded or cut behind it follows, and where a value is asked for as it was declared (outputs, variables,
products of matrices) it is transposed.

The lanes of a convolution go along its filters. Weights are small, so to transpose them in each step costs little.
Where too many lanes would be idle (6 filters) they go along the batch instead. A gradient of weights then has its terms
in the lanes. In inference a batch may be small: an entry without updates is laid out in both ways (`layout_of_many`),
and which runs is a matter of the size of a call.

An order is a permutation: axis k of what lies in memory is axis `order[k]` of the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from ..graph.cost import number
from ..graph.nodes import Builder, Graph, Node
from ..graph.ops import OPS
from ..graph.ops.contraction import Map, index_of, is_gathered
from ..graph.ops.layout import inverse, regroup
from ..graph.ops.op import CONTRACT, LOOP, MAP
from ..types.sizes import Dim
from ..types.tensors import TensorType
from .carried import Order, settled, turns

FREE = ("broadcast", "iota", "constant")  # made in any order at no cost
LANES = 16
IDLE = 1.25  # times the work of full lanes, above which the lanes go along the batch


def layout(graph: Graph) -> Graph:
    """The graph with orders chosen; itself where no contraction asks for one."""
    return _laid(graph, lambda g: batch_in_lanes(g) if g.updates else None) if _asks(graph) else graph


def layout_of_many(graph: Graph) -> Graph:
    """The same, with the lanes along the batch wherever that saves work."""
    return _laid(graph, batch_in_lanes) if _asks(graph) else graph


def _asks(graph: Graph) -> bool:
    return any(_is_window(graph, n) or (OPS[n.op].kind == LOOP and turns(n)) for n in graph)


def _laid(graph: Graph, lanes: Callable[[Graph], Dim | None]) -> Graph:
    """The graph with orders chosen; `lanes` is the size along which those of a graph go, if there is one."""
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    made = _Orders(graph, b, lanes)
    for n in graph:
        b.span = n.span
        made.place(n)
    outputs, updates = (tuple((k, made.declared(v)) for k, v in names) for names in (graph.outputs, graph.updates))
    return b.finish(outputs, updates)


def _is_window(graph: Graph, n: Node) -> bool:
    """A contraction that reads an operand under a window of several axes of space or channels."""
    return (
        OPS[n.op].kind == CONTRACT
        and len(n.args) == 2
        and is_gathered(n)
        and any(len(e[1]) > 1 for m in n.attrs["maps"] for e in m)
    )


def batch_in_lanes(graph: Graph) -> Dim | None:
    """The size along which the lanes should go in all of the graph, if it is large; None where along filters."""
    windows = [n for n in graph if _is_window(graph, n)]
    sizes = {n for w in windows for _, n in w.attrs["domain"] if not isinstance(n, int)}
    if len(sizes) != 1:
        return None
    full = filters = 0.0
    for w in windows:
        work = prod(number(n) for _, n in w.attrs["domain"])
        if not work:
            continue
        extent = dict(w.attrs["domain"])
        lanes = [*(i for i, _ in _alone(w)), *_common(w)]
        wide = [n for i in lanes if isinstance(n := extent[i], int)]
        full, filters = full + work, filters + work * min((-(-n // LANES) * LANES / n for n in wide), default=LANES)
    return sizes.pop() if filters > IDLE * full else None


def _alone(n: Node) -> list[tuple[str, int]]:
    """The indices of the result that are an axis of one operand and nowhere else, with that operand."""
    found = []
    used = [[i for e in m for i, _ in e[1]] for m in n.attrs["maps"]]
    for e in n.attrs["out"]:
        i = index_of(e)
        found += [
            (i, k)
            for k, m in enumerate(n.attrs["maps"])
            if i is not None
            and used[k].count(i) == 1
            and any(index_of(f) == i for f in m)
            and all(i not in u for j, u in enumerate(used) if j != k)
        ]
    return found


def _common(n: Node) -> list[str]:
    """The indices that are an axis of the result and of every operand: the channels of a depthwise convolution."""
    return [
        i
        for i in map(index_of, n.attrs["out"])
        if i is not None and all(any(index_of(e) == i for e in m) for m in n.attrs["maps"])
    ]


class _Orders:
    """The new graph so far: of each old value the new node that holds it, and its order. The lanes go along `batch`,
    where that is a size."""

    def __init__(self, graph: Graph, b: Builder, lanes: Callable[[Graph], Dim | None]):
        self.graph, self.b, self.batch, self.lanes_of = graph, b, lanes(graph), lanes
        self.held: dict[str, tuple[str, Order]] = {}
        self.turned: dict[tuple[str, Order], str] = {}
        self.went: dict[str, Mapping[int, Order]] = {}  # of scans: the orders of results
        looped = {a for n in graph if OPS[n.op].kind == LOOP for a in n.args}
        items = [n for n in graph if n.op == "item" and n.name in looped]
        self.read = {(n.args[0], n.attrs["index"]) for n in items}  # results of scans that scans read

    # --- values in an order

    def plain(self, name: str) -> Order:
        return tuple(range(len(self.graph[name].shape)))

    def declared(self, name: str) -> str:
        """The value in the order it was declared in."""
        tensor = isinstance(self.graph[name].type, TensorType)
        return self.within(name, self.plain(name)) if tensor else self.held[name][0]

    def within(self, name: str, order: Order) -> str:
        """The value in an order."""
        held, has = self.held[name]
        if has == order:
            return held
        key = name, order
        if key not in self.turned:
            n = self.graph[name]
            if n.op in FREE:
                self.turned[key] = self.free(n, order)
            else:
                self.turned[key] = self.b.emit("transpose", held, perm=tuple(has.index(k) for k in order))
        return self.turned[key]

    def free(self, n: Node, order: Order) -> str:
        """A broadcast, an iota or a constant, made in an order."""
        shape = tuple(n.shape[k] for k in order)
        went = inverse(order)
        match n.op:
            case "iota":
                return self.b.emit("iota", **{**n.attrs, "shape": shape, "axis": went[n.attrs["axis"]]})
            case "broadcast":
                places = [went[a] for a in n.attrs["axes"]]
                inner = tuple(sorted(range(len(places)), key=places.__getitem__))
                return self.b.emit("broadcast", self.within(n.args[0], inner), shape=shape, axes=tuple(sorted(places)))
        held, has = self.held[n.name]
        return self.b.emit("transpose", held, perm=tuple(has.index(k) for k in order))

    # --- nodes

    def place(self, n: Node) -> None:
        """Make a node in the order that suits it."""
        if OPS[n.op].kind == LOOP:
            return self.loop(n)
        order = self.chosen(n)
        if order is None:
            made = self.b.copy(n, tuple(self.declared(a) for a in n.args))
            self.held[n.name] = made, self.plain(n.name) if isinstance(n.type, TensorType) else ()

    def loop(self, n: Node) -> None:
        """A scan, what it carries in the order in which its body makes it."""
        collected = range(n.attrs["carries"], len(n.attrs["body"].outputs))
        stacks = [k for k in collected if (n.name, k) in self.read]
        lies = [self.held[a][1] for a in n.args]
        done, wanted, self.went[n.name] = settled(n, lies, stacks, lambda body: _laid(body, self.lanes_of))
        args = (self.within(a, wanted.get(k, self.plain(a))) for k, a in enumerate(n.args))
        self.held[n.name] = self.b.copy(done, tuple(args)), ()

    def add(self, n: Node, args: Sequence[str], order: Order, **attrs: object) -> Order:
        self.held[n.name] = self.b.add(n.op, tuple(args), {**n.attrs, **attrs}, name=n.name), order
        return order

    def chosen(self, n: Node) -> Order | None:
        """Makes a node in an order other than the declared one, and says which; None where that is not needed."""
        if n.op == "transpose":
            held, order = self.held[n.args[0]]
            self.held[n.name] = held, tuple(n.attrs["perm"].index(k) for k in order)
            return self.held[n.name][1]
        if n.op == "item" and (went := self.went.get(n.args[0], {}).get(n.attrs["index"])):
            self.held[n.name] = self.b.copy(n, (self.held[n.args[0]][0],)), went
            return went
        if _is_window(self.graph, n):
            return self.window(n)
        orders = [self.held[a][1] for a in n.args if a in self.held]
        moved = [o for a, o in zip(n.args, orders, strict=False) if o != tuple(sorted(o))]
        if not moved or len(orders) != len(n.args):
            return None
        kind = OPS[n.op].kind
        if kind == MAP:
            if any(self.graph[a].op == "param" for a in n.args):
                return None
            return self.add(n, [self.within(a, moved[0]) for a in n.args], moved[0])
        if kind == CONTRACT:
            return self.contracted(n)
        if n.op == "reshape":
            return self.reshaped(n)
        if n.op == "broadcast":
            return self.spread(n)
        return self.followed(n, moved[0])

    def followed(self, n: Node, order: Order) -> Order | None:
        """What goes axis by axis follows the order of its operands."""
        axes = OPS[n.op].axes
        seen = axes(n.attrs, self.graph[n.args[0]].shape, n.shape) if axes else None
        if seen is None:
            return None
        went = tuple(a for a in (seen[k].axis for k in order) if a is not None)
        attrs = {name: _reordered(name, value, order) for name, value in n.attrs.items()}
        return self.add(n, [self.within(a, order) for a in n.args], went, **attrs)

    def reshaped(self, n: Node) -> Order | None:
        """A reshape that splits or joins axes which lie side by side."""
        old, order = self.graph[n.args[0]].shape, self.held[n.args[0]][1]
        become: dict[int, tuple[int, ...]] = {}
        alone: list[int] = []
        for a, c in regroup(old, n.shape):
            if not a:
                alone += c
                continue
            at = order.index(a[0])
            if order[at : at + len(a)] != a:
                return None
            become[a[0]] = c
        new = (*alone, *(k for a in order for k in become.get(a, ())))
        x = self.within(n.args[0], order)
        return self.add(n, [x], new, shape=tuple(n.shape[k] for k in new))

    def spread(self, n: Node) -> Order:
        """A broadcast keeps the order of what it repeats; new axes come first."""
        order = self.held[n.args[0]][1]
        new = tuple(k for k in range(len(n.shape)) if k not in n.attrs["axes"])
        full = (*new, *(n.attrs["axes"][k] for k in order))
        self.held[n.name] = self.free(n, full), full
        return full

    # --- contractions

    def contracted(self, n: Node) -> Order | None:
        """Any contraction reads its operands as they lie; one of a single operand writes its result like that."""
        maps = tuple(tuple(m[k] for k in self.held[a][1]) for a, m in zip(n.args, n.attrs["maps"], strict=True))
        args = [self.held[a][0] for a in n.args]
        letters = [index_of(e) for e in n.attrs["out"]]
        order = self.plain(n.name)
        if len(args) == 1 and is_gathered(n):
            seen = list(dict.fromkeys(i for e in maps[0] for i, _ in sorted(e[1], key=lambda t: -t[1])))
            order = tuple(sorted(order, key=lambda k: seen.index(letters[k]) if letters[k] in seen else -1))
        elif len(args) == 2 and is_gathered(n) and len(n.shape) > 2:
            return self.window(n)
        return self.add(
            n,
            args,
            order,
            maps=maps,
            out=tuple(n.attrs["out"][k] for k in order),
            shape=tuple(n.shape[k] for k in order),
        )

    def window(self, n: Node) -> Order | None:
        """The lanes go along an index of the result that one operand has for itself: it becomes the last axis."""
        if self.batch is not None:
            return self.along_batch(n)
        found = self.lanes(n)
        if found is None:
            return self.in_common(n)
        lane, right = found
        lies, mine = self.held[n.args[1 - right]][1], n.attrs["maps"][right]
        walked = [i for k in lies for i, _ in sorted(n.attrs["maps"][1 - right][k][1], key=lambda t: -t[1])]
        wanted = self.held[n.args[right]][1]
        if not wanted or index_of(mine[wanted[-1]]) != lane:
            wanted = _after(mine, walked, lane)
        order = _last(n.attrs["out"], lane)
        self.contract(n, (wanted, lies) if right == 0 else (lies, wanted), order, walked)
        if self.weighs(n):
            self.held[n.name] = self.declared(n.name), self.plain(n.name)
        return order

    def in_common(self, n: Node) -> Order | None:
        """Where there is none, along an index that all have."""
        extent = dict(n.attrs["domain"])
        lane = max((i for i in _common(n) if isinstance(extent[i], int)), key=lambda i: number(extent[i]), default=None)
        if lane is None:
            return None
        orders = [
            o if index_of(m[o[-1]]) == lane else _last(m, lane)
            for m, o in zip(n.attrs["maps"], (self.held[a][1] for a in n.args), strict=True)
        ]
        order = _last(n.attrs["out"], lane)
        self.contract(n, (orders[0], orders[1]), order, list(extent))
        if self.weighs(n):
            self.held[n.name] = self.declared(n.name), self.plain(n.name)
        return order

    def along_batch(self, n: Node) -> Order | None:
        """The lanes go along the batch: in the result and the operand that has it, or in both operands as terms."""
        maps = n.attrs["maps"]
        lane, *more = [i for i, size in n.attrs["domain"] if size == self.batch] or [None]
        places = [[k for k, e in enumerate(m) if lane in dict(e[1])] for m in (*maps, n.attrs["out"])]
        if (
            lane is None
            or more
            or any(index_of(m[k]) != lane for m, p in zip(maps, places, strict=False) for k in p)
            or len(places[0]) + len(places[1]) + len(places[2]) != 2
            or max(map(len, places)) > 1
        ):
            return None
        orders = []
        for a, m, p in zip(n.args, maps, places, strict=False):
            held = self.held[a][1]
            orders.append(held if not p or held[-1] == p[0] else _last(m, lane))
        order = _last(n.attrs["out"], lane)
        self.contract(n, (orders[0], orders[1]), order, [*(i for i, _ in n.attrs["domain"] if i != lane), lane])
        return order

    def contract(self, n: Node, orders: tuple[Order, Order], order: Order, walked: Sequence[str]) -> str:
        """Make a contraction of operands in `orders`; indices that are summed over stand as they are walked."""
        domain, written = dict(n.attrs["domain"]), {i for e in n.attrs["out"] for i, _ in e[1]}
        inner = dict.fromkeys(i for i in walked if i not in written)
        made = self.b.emit(
            n.op,
            *(self.within(a, o) for a, o in zip(n.args, orders, strict=True)),
            domain=tuple((i, domain[i]) for i in (*(i for i in domain if i not in inner), *inner)),
            maps=tuple(tuple(m[k] for k in o) for m, o in zip(n.attrs["maps"], orders, strict=True)),
            out=tuple(n.attrs["out"][k] for k in order),
            shape=tuple(n.shape[k] for k in order),
        )
        self.held[n.name] = made, order
        return made

    def lanes(self, n: Node) -> tuple[str, int] | None:
        """The index for the lanes and the operand that has it: the longest, of whole vectors where there is one. What
        the other operand is stays as it lies, so it is one that lies as kernels like it, or is read under a window."""
        extent = dict(n.attrs["domain"])
        moved = [
            self.held[a][1] != self.plain(a) or any(len(e[1]) > 1 for e in m)
            for a, m in zip(n.args, n.attrs["maps"], strict=True)
        ]
        found = [(i, k) for i, k in _alone(n) if moved[1 - k] and isinstance(extent[i], int)]
        return max(found, key=lambda f: (number(extent[f[0]]) % LANES == 0, number(extent[f[0]])), default=None)

    def weighs(self, n: Node) -> bool:
        """The gradient of weights: the longer part of each window is summed over. It is asked for as declared."""
        extent, out = dict(n.attrs["domain"]), {index_of(e) for e in n.attrs["out"]}
        windows = [e[1] for m in n.attrs["maps"] for e in m if len(e[1]) > 1]
        return any(max(w, key=lambda t: number(extent[t[0]]))[0] not in out for w in windows)


def _reordered(name: str, value: Any, order: Order) -> Any:
    """An attribute of an operator that goes axis by axis, with its axes in an order; see `ops.op.Axes`."""
    if name == "axis":
        return order.index(value)
    if name == "axes":
        return tuple(sorted(order.index(k) for k in value))
    return tuple(value[k] for k in order) if isinstance(value, tuple) else value


def _last(m: Map, lane: str) -> Order:
    """The axes of a map, that of the lanes last."""
    return tuple(sorted(range(len(m)), key=lambda k: index_of(m[k]) == lane))


def _after(m: Map, walked: Sequence[str], lane: str) -> Order:
    """The axes of an operand in the order in which the other walks, the lanes last."""

    def key(k: int) -> tuple[int, int]:
        first = next((walked.index(i) for i, _ in m[k][1] if i in walked), -1)
        return (len(walked), 0) if index_of(m[k]) == lane else (first, k)

    return tuple(sorted(range(len(m)), key=key))

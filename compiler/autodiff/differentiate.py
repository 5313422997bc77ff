"""Reverse-mode differentiation: a graph with `grad` nodes in, the same graph with the derivatives written out.

The one idea: an operator's gradient rule returns graph, so derivatives are ordinary nodes, can be optimised with the
rest and differentiated again. `grad` nodes are expanded in topological order, so an inner one is ordinary by the time
an outer one meets it. Adjoints flow only along paths from the x to y; each derived node keeps the span of its forward
node.

Griewank, Walther, "Evaluating Derivatives" (2008), chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice

from ...dsl.diagnostics import Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..graph.nodes import Builder, Graph, Node, ancestors, descendants
from ..graph.ops import OPS
from ..graph.ops.calculus import constant
from ..graph.ops.op import LOOP, MAP, NoGradient
from ..graph.ops.require import spelled
from ..types.sizes import Dim
from ..types.tensors import FLOATS, TensorType
from .preaccumulate import Paths, derivative
from .scans import recomputed, reverse
from .taken import Taken


def differentiate(graph: Graph, origin: dict[str, str] | None = None) -> Graph:
    """Every `grad` node replaced by the derivatives it stands for; `origin` is told for each new node which node's rule
    made it. Raises `SourceError` E0401 where a path from x to y leads through an operator without a derivative."""
    if not any(node.op == "grad" for node in graph):
        return graph
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    taken = {node.name for node in graph}
    new: dict[str, str] = {}  # node of `graph` -> node of `b`
    derived: dict[str, tuple[str, ...]] = {}  # grad node of `graph` -> its results in `b`
    titles: dict[str, str] = {}  # node of `b` -> a better name, for the derivatives
    origin = {} if origin is None else origin
    for node in graph:
        b.span = node.span
        if node.op == "grad":
            y, *xs = (new[a] for a in node.args)
            derived[node.name] = _gradients(b, y, xs, node.span, titles, origin)
        elif node.op == "item" and node.args[0] in derived:
            new[node.name] = derived[node.args[0]][node.attrs["index"]]
        else:
            new[node.name] = b.copy(node, tuple(new[a] for a in node.args))
    outputs = tuple((k, new[v]) for k, v in graph.outputs)
    updates = tuple((k, new[v]) for k, v in graph.updates)
    return _titled(b.finish(outputs, updates), titles, taken, origin)


def _gradients(
    b: Builder, y: str, xs: Sequence[str], span: Span | None, titles: dict[str, str], origin: dict[str, str]
) -> tuple[str, ...]:
    """d y / d x for each x, as nodes of `b`."""
    total = backward(b, {y: (constant(b, 1.0, b.type(y)),)}, xs, span, titles, _Recomputed(b, y), origin=origin)
    return tuple(total[x] if x in total else constant(b, 0.0, b.type(x)) for x in xs)


def backward(
    b: Builder,
    seeds: Mapping[str, Sequence[str]],
    xs: Iterable[str],
    span: Span | None,
    titles: dict[str, str],
    again: Callable[[Node], Node],
    leaves: Collection[str] = (),
    origin: dict[str, str] | None = None,
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The adjoints of the xs that have one, where each y of `seeds` has the adjoints given. `again(node)` is the node
    whose values a rule may use; nothing flows on from `leaves`. `known` says of adjoints given which elements of them
    are taken."""
    order = _between(b, seeds, set(xs))
    taken = Taken(b, known or {})
    active, paths = set(order), Paths(b, order, {*xs, *seeds, *leaves})
    adjoints: dict[str, list[str]] = {y: list(dys) for y, dys in seeds.items()}
    items: dict[str, dict[int, str]] = {}  # of scans: the adjoints of their results
    total: dict[str, str] = {}
    for name in reversed(order):
        node = b[name]
        if name not in adjoints and name not in items:
            continue
        b.span, made = node.span, len(b.nodes)
        args: Sequence[str] = node.args
        if OPS[node.op].kind == LOOP:
            dxs = _of_scan(b, again(node), items[name], [a in active for a in node.args], span, taken)
        else:
            dy = total[name] = _sum(b, adjoints.pop(name))
            if not _anonymous(name) and _anonymous(dy):
                titles.setdefault(dy, f"d_{name}")
            _note(origin, b, made, name)
            if name in leaves or not any(a in active for a in node.args):
                continue
            if node.op == "item":
                items.setdefault(node.args[0], {})[node.attrs["index"]] = dy
                continue
            first = len(b.nodes)
            if one := paths.of_one(name):
                args, dxs = (one[1],), (_at_once(b, one[0], dy, again, active, span),)
            else:
                dxs = _rule(b, node, again(node), dy, active, span)
            rule = frozenset(islice(reversed(b.nodes), len(b.nodes) - first))
            dxs = [
                d if d is None or a not in active else taken.chosen(d, dy if OPS[node.op].kind == MAP else d, rule)
                for a, d in zip(args, dxs, strict=True)
            ]
        _note(origin, b, made, name)
        for a, dx in zip(args, dxs, strict=True):
            if dx is not None and a in active and b.type(a).dtype in FLOATS:
                adjoints.setdefault(a, []).append(dx)
    b.span = span
    return {x: total[x] for x in xs if x in total}


def _at_once(
    b: Builder, inside: Sequence[str], dy: str, again: Callable[[Node], Node], active: set[str], span: Span | None
) -> str:
    """The adjoint of the one value that elementwise nodes are computed from, of which the first has the adjoint dy."""

    def rule(name: str, d: str) -> dict[str, str]:
        node = b[name]
        found: dict[str, str] = {}
        for a, dx in zip(node.args, _rule(b, node, again(node), d, active, span), strict=True):
            if dx is not None and a in active:
                found[a] = b.emit("add", found[a], dx) if a in found else dx
        return found

    seed = constant(b, 1.0, b.type(inside[0]))
    return b.emit("mul", dy, derivative(inside, seed, rule, lambda terms: _sum(b, terms)))


def _of_scan(
    b: Builder, node: Node, dys: Mapping[int, str], active: Sequence[bool], span: Span | None, taken: Taken
) -> Sequence[str | None]:
    """The adjoints of a scan's operands, of those that are active."""
    if node.attrs["until"]:
        raise _undefined(node, span)
    return reverse(b, node, dys, active, backward, {k: t for k, dy in dys.items() if (t := taken.near(dy)) is not None})


def _note(origin: dict[str, str] | None, b: Builder, made: int, name: str) -> None:
    """What was made after the first `made` nodes comes from the node `name`."""
    if origin is not None:
        origin.update((new, name) for new in islice(reversed(b.nodes), len(b.nodes) - made))


def _anonymous(name: str) -> bool:
    return name[0] == "v" and name[1:].isdigit()


def _between(b: Builder, ys: Iterable[str], xs: set[str]) -> list[str]:
    """The nodes on paths from the xs to the ys, in topological order. `stop_grad` ends a path."""
    ends = {name for name, n in b.nodes.items() if n.op == "stop_grad"}
    below = {name: b[name] for name in ancestors(b.nodes, ys, ends)}
    active = descendants(below, xs & below.keys(), "stop_grad")
    return [name for name in below if name in active]


def _sum(b: Builder, terms: Sequence[str]) -> str:
    """The sum of adjoints. Those of slices that lie side by side are put there: what `split` took apart is whole."""
    while len(joined := _joined(b, terms)) < len(terms):
        terms = joined
    total = terms[0]
    for t in terms[1:]:
        total = b.emit("add", total, t)
    return total


def _joined(b: Builder, terms: Sequence[str]) -> Sequence[str]:
    """pad(x) + pad(y) = pad(concat [x, y]), where y begins in one axis where x ends and both are 0 elsewhere."""
    for axis in range(len(b.shape(terms[0]))):
        rows: dict[tuple[Dim, ...], list[int]] = {}
        for k, t in enumerate(terms):
            if b[t].op == "pad" and b[t].attrs["value"] == 0:
                low, shape = b[t].attrs["low"], b.shape(b[t].args[0])
                rows.setdefault((*low[:axis], *low[axis + 1 :], *shape[:axis], *shape[axis + 1 :]), []).append(k)
        new: dict[int, list[str]] = {}
        for row in rows.values():
            for run in _runs(b, terms, row, axis):
                new |= {run[0]: [_one(b, [terms[k] for k in run], axis)], **{k: [] for k in run[1:]}}
        terms = [x for k, t in enumerate(terms) for x in new.get(k, [t])]
    return terms


def _runs(b: Builder, terms: Sequence[str], row: Sequence[int], axis: int) -> list[list[int]]:
    """The pads that lie end to end along an axis, two or more, by their positions among the terms. One of nothing lies
    nowhere."""
    row = [k for k in row if b.shape(b[terms[k]].args[0])[axis] != 0]
    start = {k: b[terms[k]].attrs["low"][axis] for k in row}
    end = {k: start[k] + b.shape(b[terms[k]].args[0])[axis] for k in row}
    beginning: dict[Dim, list[int]] = {}
    for k in reversed(row):
        beginning.setdefault(start[k], []).append(k)
    inner = set(end.values())
    runs = []
    for k in row:
        if start[k] not in inner:
            beginning[start[k]].remove(k)
            run = [k]
            while following := beginning.get(end[run[-1]]):
                run.append(following.pop())
            runs.append(run)
    return [run for run in runs if len(run) > 1]


def _one(b: Builder, run: Sequence[str], axis: int) -> str:
    """Pads that lie end to end as the pad of one concatenation."""
    first, last = b[run[0]], b[run[-1]]
    parts = [
        c
        for t in run
        for a in b[t].args
        for c in (b[a].args if b[a].op == "concat" and b[a].attrs["axis"] == axis else (a,))
    ]
    high = (*first.attrs["high"][:axis], last.attrs["high"][axis], *first.attrs["high"][axis + 1 :])
    return b.emit("pad", b.emit("concat", *parts, axis=axis), low=first.attrs["low"], high=high, value=0.0)


def _rule(b: Builder, node: Node, same: Node, dy: str, active: set[str], span: Span | None) -> Sequence[str | None]:
    """The operands' adjoints by the operator's rule, or the error that it has none; `same` is the node whose values
    the rule may use."""
    rule = OPS[node.op].grad
    if node.op == "cast" and b.type(node.args[0]).dtype not in FLOATS:
        raise _undefined(_culprit(b, node, active), span)
    if not callable(rule):
        raise _undefined(node, span)
    try:
        return rule(b, same, dy)
    except NoGradient as e:
        raise _undefined(node, span, str(e)) from None


class _Recomputed:
    """What the backward pass reads in the place of a forward node. A value that a `checkpoint` is computed from is
    computed again, from inputs, parameters, earlier checkpoints and what it is said to be computed from, so that the
    forward one need not be kept.

    Those are read through an `assume` that is marked `again`: it costs nothing and keeps the second computation apart
    from the first. Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost" (2016)."""

    def __init__(self, b: Builder, y: str):
        self._b = b
        marked = [b[a] for a in ancestors(b.nodes, [y]) if b[a].op == "checkpoint"]
        self._given = {a for n in marked for a in n.args[1:]}
        self._before = dict.fromkeys(x for n in marked for x in recomputed(b.nodes, n))
        self._copies: dict[str, str] = {}

    def __call__(self, node: Node) -> Node:
        """The node as the backward pass sees it: itself, or computed again."""
        if node.name not in self._before or self._kept(node):
            return node
        return self._b[self._copy(node.name)]

    def _copy(self, wanted: str) -> str:
        b, copies, todo = self._b, self._copies, [wanted]
        while todo:
            node = b[todo[-1]]
            if node.name in copies:
                todo.pop()
            elif self._kept(node):
                copies[node.name] = b.emit("assume", node.name, shape=node.shape, again=True)
            elif missing := [a for a in node.args if a not in copies]:
                todo += missing
            elif node.op == "in_range":  # the first computation has seen to that
                copies[node.name] = copies[node.args[0]]
            else:
                copies[node.name] = b.add(node.op, tuple(copies[a] for a in node.args), node.attrs)
        return copies[wanted]

    def _kept(self, node: Node) -> bool:
        return node.op in ("input", "param", "checkpoint") or node.name in self._given


def _culprit(b: Builder, node: Node, active: set[str]) -> Node:
    """The operator through which a path left the floats: the nearest above with an active float operand."""
    while True:
        above = [b[a] for a in node.args if a in active]
        floats = [n for n in above if isinstance(n.type, TensorType) and n.dtype in FLOATS]
        if floats or not above:
            return node
        node = above[0]


def _undefined(node: Node, span: Span | None, why: str | None = None) -> Exception:
    """The diagnostic for a path that leads through `node`."""
    grad = OPS[node.op].grad
    if why is None:
        why = grad if isinstance(grad, str) else "its result is not a float, and only floats have derivatives"
    asked = (Label(span, "differentiated here"),) if span is not None and node.span not in (None, span) else ()
    return error(
        "E0401",
        f"cannot differentiate {spelled(node.op)}",
        node.span or span,
        why,
        *asked,
        help="`stop_grad(x)` takes x as a constant, `straight_through(hard, soft)` takes the gradient of soft",
    )


def _titled(graph: Graph, titles: dict[str, str], taken: set[str], origin: dict[str, str]) -> Graph:
    """Derivatives are called `d_h` after the `h` they are with respect to, as far as such names are free."""
    names: dict[str, str] = {}
    used = {node.name for node in graph}
    for old, wanted in titles.items():
        if old not in taken and wanted not in used:
            names[old] = wanted
            used.add(wanted)
    for old, new in names.items():
        if old in origin:
            origin[new] = origin.pop(old)
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    for node in graph:
        args = tuple(names.get(a, a) for a in node.args)
        name = names.get(node.name, node.name)
        b.nodes[name] = Node(name, node.op, args, node.attrs, node.type, node.span)
    return b.finish(
        tuple((k, names.get(v, v)) for k, v in graph.outputs), tuple((k, names.get(v, v)) for k, v in graph.updates)
    )

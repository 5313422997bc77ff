"""Lowering: graph to loops. In: an optimised graph, one entry point. Out: a module of the loop IR with that entry.

Each node that is not a leaf or a mere renaming is one kernel; a `fused` node is one kernel for its whole body. Values
are pulled (`kernels/body.py`), so views and elementwise operators need no code here, only the choice of the loop nest.
Kernels that are equal up to the names of their nodes are one. A `scan` is a loop over the steps of its body, which is
planned like an entry of its own and then moved to where its operands and its arena are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ...dsl.record import dataclass, replace
from ..graph.nodes import Builder, Graph, Node
from ..graph.ops import OPS
from ..graph.ops.calculus import constant
from ..graph.ops.indexing import SCATTERS
from ..graph.ops.op import CONTRACT, LOOP, REDUCE
from ..graph.ops.winograd import FILTERINGS
from ..graph.product import Product, product, swap
from ..loops import ir as L
from ..passes.argument import ARGUMENTS, expand
from ..types.sizes import Dim, Monomial, collect, highest, symbol, symbols, terms
from ..types.tensors import TensorType
from .alike import alike
from .kernels.body import Body, Checks, results
from .kernels.contraction import contraction
from .kernels.filter_gradient import filter_gradient, tiles
from .kernels.filter_transform import filter_transform
from .kernels.filter_transform import scratch as transforming
from .kernels.fold import fold
from .kernels.fold import scratch as folding
from .kernels.matmul import matmul
from .kernels.ordering import argsort, recurrence
from .kernels.ordering import scratch as sorting
from .kernels.pointwise import pointwise
from .kernels.scatter import add_along, scatter
from .kernels.schedule import is_better_swapped, schedule
from .kernels.sharing import is_shared, work
from .kernels.winograd import Window, tile_of, window, winograd
from .memory import Copy, Plan, constant_name, is_kernel, output_slot, plan, roots, shift, types
from .shares import shared
from .turns import UNTIL, Steps, begins, carry, entry_of, is_parallel, moved, needs, shifted

if TYPE_CHECKING:
    from ..native.target import Target  # which imports llvmlite


@dataclass(frozen=True, slots=True)
class Lowered:
    module: L.Module
    plan: Plan
    checks: tuple[str, ...]  # the message of check code k + 1
    plan_of_many: Plan | None = None  # of the entry for many examples
    marks: tuple[tuple[str, ...], ...] = ()  # results that are complete at each mark (see `lowering.marks`)

    @property
    def entry(self) -> L.Entry:
        return self.module.entries[0]

    @property
    def arena(self) -> Dim:
        """Bytes that are enough for few examples and for many."""
        return _largest(e.arena for e in self.module.entries if e.name in (self.entry.name, self._many))

    def in_microbatches(self, microbatches: L.Microbatches | None) -> Lowered:
        """With an entry that runs those. The arena of one is enough for few examples and for many."""
        first, *more = self.module.entries
        first = replace(first, microbatches=microbatches, arena=self.arena if microbatches is not None else first.arena)
        return replace(self, module=replace(self.module, entries=(first, *more)))

    @property
    def preparing(self) -> int:
        """Bytes that the entry needs which prepares what this one reads."""
        arenas = [e.arena for e in self.module.entries[1:] if e.name != self._many]
        return sum(a for a in arenas if isinstance(a, int))  # it has no sizes

    @property
    def _many(self) -> str:
        return self.entry.many.entry if self.entry.many is not None else ""


def _largest(sizes: Iterable[Dim]) -> Dim:
    """A polynomial that is at least as large as each, whatever the symbols are, where each has no negative value."""
    different = list(dict.fromkeys(sizes))
    if len(different) == 1:
        return different[0]
    most: dict[Monomial, int] = {}
    for m, c in (t for size in different for t in terms(size)):
        most[m] = max(c, most.get(m, 0))
    return collect(most.items())


@dataclass(frozen=True, slots=True)
class Variant:
    """What an entry is for some batches: its kernels, and those of what is computed before, of variables alone."""

    graph: Graph
    before: Graph | None = None


def lower(
    few: Variant,
    inputs: Mapping[str, TensorType],
    variables: Mapping[str, TensorType],
    target: Target,
    many: tuple[Variant, str, int] | None = None,
) -> Lowered:
    """Loops for one entry named like its graph. Its slots are `inputs`, then `variables` (by path), whether or not the
    graph uses them, then the graph's outputs. Its size arguments are the symbols of all of these, sorted. What is to be
    computed `before`, of variables alone, is an entry too, with slots for them; what it updates follows the variables.
    `many` is another graph for batches where a size, which is named, is so large, at least.
    """
    graph = few.graph
    checks, library = Checks(), _Library(graph.name, target)
    variants = [few, *([many[0]] if many is not None else [])]
    befores = [v.before for v in variants if v.before is not None]
    prepared = {path: _type(b, value) for b in befores for path, value in b.updates}
    stored = tuple(L.Slot(path, t, "param") for path, t in {**variables, **prepared}.items())
    given = tuple(L.Slot(name, t, "input") for name, t in inputs.items())
    results = tuple(L.Slot(output_slot(name), _type(graph, v), "output") for name, v in graph.outputs)
    instead = L.Many(many[0].graph.name, *many[1:]) if many is not None else None
    lowered = [_steps(v.graph, checks, library) for v in variants]
    slots = (*given, *stored, *results)
    entries = [_entry(v.graph.name, slots, made) for v, made in zip(variants, lowered, strict=True)]
    entries[0] = replace(entries[0], many=instead)
    first = [_steps(b, checks, library) for b in befores]
    if first:
        steps = tuple(s for f in first for s in f.steps)
        entries.append(L.Entry(f"{graph.name}.prepare", (), stored, _largest(f.plan.arena for f in first), steps))
    used = {p.name for e in entries for c in e.calls for p in c.places if p.base == "constant"}
    constants = tuple(c for part in (*lowered, *first) for c in part.constants if c.name in used)
    module = alike(L.Module(library.kernels(), tuple(entries), constants))
    of_many = lowered[1].plan if many is not None else None
    return Lowered(module, lowered[0].plan, tuple(checks.messages), of_many)


def _entry(name: str, slots: tuple[L.Slot, ...], steps: Steps) -> L.Entry:
    sizes = {s for slot in slots for n in slot.type.shape for s in symbols(n)}
    sizes |= {s for n in _told(steps.steps) for s in symbols(n)}
    return L.Entry(name, tuple(sorted(sizes)), slots, steps.plan.arena, steps.steps)


def _told(steps: Sequence[L.Step]) -> Iterator[Dim]:
    """The sizes that kernels are given, but for those of loops around."""
    for s in steps:
        if isinstance(s, L.Loop):
            own = {s.index, *((s.share.first, s.share.count) if s.share is not None else ())}
            yield from (n for n in (*_told(s.steps), s.count) if not own & symbols(n))
        else:
            yield from s.sizes


def _steps(graph: Graph, checks: Checks, library: _Library) -> Steps:
    """The calls and loops of a graph; places of leaves and outputs are slots, those of all else offsets in an arena."""

    def copied(c: Copy) -> tuple[L.Step, tuple[TensorType, ...]]:
        return _copy(c.type, c.source, c.target, checks, library), (c.type, c.type)

    bodies = {n.name: library.shared(_body_of(graph, n)) for n in graph if is_kernel(n) and OPS[n.op].kind != LOOP}
    inner = {n.name: entry_of(graph, n) for n in graph if OPS[n.op].kind == LOOP}
    loops = {name: shared(graph[name], g, _steps(g, checks, library)) for name, g in inner.items()}
    scratch = {name: library.scratch(body) for name, body in bodies.items()}
    for name, loop in loops.items():
        scratch[name] = (needs(graph[name], loop), 1)[: 1 + graph[name].attrs["until"]]
    planned, root = plan(graph, scratch, {name: body for name, (body, _) in bodies.items()}), roots(graph)
    steps: list[tuple[L.Step, tuple[TensorType, ...]]] = [copied(c) for c in planned.copies if c.early]
    for name in planned.order:
        node = graph[name]
        operands = [shifted(planned.places[root[a]], shift(graph, a)) for a in node.args]
        results = [planned.places[name, k] for k in range(len(types(node)))]
        own = [planned.places[name, -1 - k] for k in range(len(scratch[name]))]
        given: tuple[TensorType, ...] = ()
        if OPS[node.op].kind == LOOP:
            made = _loop(node, loops[name], operands, results, own, checks, library)
        else:
            given = (*(_type(graph, a) for a in node.args), *types(node))
            made = iter((library.call(bodies[name], checks, name, str(node.span or ""), [*operands, *results, *own]),))
        steps += ((replace(step, node=name), given) for step in made)
    steps += [copied(c) for c in planned.copies if not c.early]
    constants = [
        L.Constant(constant_name(graph, n), n.dtype, tuple(n.attrs["values"])) for n in graph if n.op == "constant"
    ]
    every = (*constants, *(c for loop in loops.values() for c in loop.constants))
    total: Dim = sum((library.work(body) for body in bodies.values()), 0)
    for name, loop in loops.items():
        count = graph[name].attrs["count"]
        total += highest(loop.work, graph[name].attrs["index"], count) * count
    return Steps(planned, tuple(s for s, _ in steps), every, total, tuple(given for _, given in steps))


def _loop(
    node: Node,
    lowered: Steps,
    operands: Sequence[L.Place],
    results: Sequence[L.Place],
    own: Sequence[L.Place],
    checks: Checks,
    library: _Library,
) -> Iterator[L.Step]:
    """What is carried begins where it ends; what is collected moves on with the index."""
    body, carries, index = node.attrs["body"], node.attrs["carries"], symbol(node.attrs["index"])
    given = types(node)
    for type_, first, place in zip(given[:carries], operands, results, strict=False):
        if first != place:
            yield _copy(type_, first, place, checks, library)
    inputs = [n.attrs["name"] for n in body if n.op == "input"]
    slots = {carry(k): place for k, place in enumerate(results[:carries])}
    slots |= dict(zip(inputs[carries:], operands[carries:], strict=True))
    for k, (type_, place) in enumerate(zip(given[carries:], results[carries:], strict=True)):
        slots[output_slot(str(k))] = shifted(place, index * TensorType(type_.dtype, type_.shape[1:]).nbytes)
        if node.attrs["until"]:
            yield _zeros(type_, place, checks, library)
    until = own[1] if node.attrs["until"] else None
    if until is not None:
        slots[output_slot(UNTIL)] = until
    steps = moved(lowered.steps, slots, shifted(own[0], begins(node, lowered)))
    how = node.attrs["reverse"], until, is_parallel(node, lowered), lowered.share
    yield L.Loop(node.attrs["index"], node.attrs["count"], steps, *how)


def _type(graph: Graph, name: str) -> TensorType:
    type_ = graph[name].type
    assert isinstance(type_, TensorType)
    return type_


_Body = tuple[Graph, tuple[str, ...]]  # the graph of one kernel, and its inputs in the order of the operands


class _Library:
    """The kernels made so far. Equal ones, whatever nodes they are for, are one, and of equal graphs only the first is
    looked at."""

    def __init__(self, entry: str, target: Target):
        self.entry, self.target = entry, target
        self.names: dict[L.Kernel, str] = {}
        self._taken: set[str] = set()  # names
        self._first: dict[Hashable, _Body] = {}
        self._scratch: dict[_Body, tuple[Dim, ...]] = {}
        self._work: dict[_Body, Dim] = {}
        self._made: dict[_Body, L.Kernel] = {}  # with its name

    def shared(self, body: _Body) -> _Body:
        """The first body that is equal to this one; what is asked below is asked of it."""
        return self._first.setdefault(_pattern(body), body)

    def scratch(self, body: _Body) -> tuple[Dim, ...]:
        """The bytes a kernel needs for itself."""
        if body not in self._scratch:
            self._scratch[body] = _scratch(body[0], self.target)
        return self._scratch[body]

    def work(self, body: _Body) -> Dim:
        """Picoseconds of a kernel on one thread."""
        if body not in self._work:
            self._work[body] = work(body[0])
        return self._work[body]

    def call(self, body: _Body, checks: Checks, name: str, note: str, places: Sequence[L.Place]) -> L.Call:
        if body not in self._made:
            kernel = _kernel(body, checks, self.target).kernel("", note)
            stem = "".join(c if c.isascii() and c.isalnum() else "_" for c in f"{self.entry}_{name}")
            unique, n = stem, 2
            while unique in self._taken:
                unique, n = f"{stem}_{n}", n + 1
            unique = self.names.setdefault(kernel, unique)  # its hash is that of all that is in it
            self._taken.add(unique)
            self._made[body] = replace(kernel, name=unique)
        kernel = self._made[body]
        return L.Call(kernel.name, tuple(symbol(s) for s in kernel.sizes), tuple(places), origin=kernel.origin)

    def kernels(self) -> tuple[L.Kernel, ...]:
        return tuple(replace(k, name=name) for k, name in self.names.items())


def _pattern(of: _Body) -> Hashable:
    """What two bodies have in common exactly when they are equal but for the names of their nodes."""
    graph, operands = of
    number = {n.name: k for k, n in enumerate(graph)}
    nodes = tuple(
        (n.op, tuple(number[a] for a in n.args), "" if n.op == "input" else repr(sorted(n.attrs.items())), n.type)
        for n in graph
    )  # attributes as text: 0.0 and -0.0 are equal, 1 and True are too
    return nodes, tuple(number[x] for x in operands), tuple(number[v] for _, v in graph.outputs)


def _body_of(graph: Graph, node: Node) -> _Body:
    """The graph of one kernel and, for each operand of `node`, the input of that graph that stands for it."""
    if node.op == "fused":
        body = node.attrs["body"]
        return body, tuple(n.name for n in body if n.op == "input")
    b = Builder(node.name, OPS)
    names = tuple(b.emit("input", name=f"x{k}", type=_type(graph, a)) for k, a in enumerate(node.args))
    result = expand(b, node, names[0]) if node.op in ARGUMENTS else b.add(node.op, names, node.attrs, name="y")
    return b.finish((("y", result),)), names


ALONG: Mapping[str, Callable[..., Body]] = {"add_along": add_along, "recurrence": recurrence, "argsort": argsort}


def _kernel(of: _Body, checks: Checks, target: Target) -> Body:
    """The loop nest for a small graph: chosen by the node that is not pointwise, if there is one."""
    graph, operands = of
    leading = next((n for n in graph if _leads(n)), None)

    def make() -> Body:
        body = Body(graph, OPS, checks, leading.name if leading is not None else "")
        for x in operands:
            body.operand(x)
        return body

    parallel = is_shared(graph)
    if leading is None:
        return pointwise(make, parallel)
    if OPS[leading.op].kind == CONTRACT:
        if (w := _wound(leading, graph)) is not None:
            return winograd(make, w, target, parallel)
        p = _product(leading, graph)
        if p is None:
            return contraction(make, leading.name, target, parallel)
        return matmul(make, p, schedule(p, target), parallel)
    if OPS[leading.op].kind == REDUCE:
        return fold(make, parallel)
    if leading.op == "wind":
        return filter_transform(make, leading, target, parallel)
    if leading.op == "filter_gradient":
        return filter_gradient(make, tiles(leading, graph), target, parallel)
    if leading.op in SCATTERS:
        return scatter(make, leading.name)
    return ALONG[leading.op](make, leading.name, parallel)


def _leads(node: Node) -> bool:
    """Whether a node is not pointwise, so that loops are made for it."""
    kind = OPS[node.op].kind
    sums = kind == CONTRACT or (kind == REDUCE and bool(node.attrs["axes"]))
    return sums or node.op in ("wind", "filter_gradient") or node.op in SCATTERS or node.op in ALONG


def _product(node: Node, graph: Graph) -> Product | None:
    """The matrix product that a contraction is, where that is worth its while."""
    p = product(node, graph)
    if p is None or (p.packed and not p.rows):
        return None
    return swap(p) if is_better_swapped(p) else p


def _wound(node: Node, graph: Graph) -> Window | None:
    """The convolution that reads the transforms of its filters."""
    side = next((k for k, a in enumerate(node.args) if graph[a].op == "unwind"), None)
    w = None if side is None else window(node, graph, 1 - side)
    if side is None or w is None:
        return None
    (transforms,) = graph[node.args[side]].args
    return replace(w, how=FILTERINGS[graph[transforms].shape[0], w.how.taps])


def _scratch(graph: Graph, target: Target) -> tuple[Dim, ...]:
    for node in graph:
        if OPS[node.op].kind == CONTRACT:
            if (w := _wound(node, graph)) is not None:
                return w.scratch(is_shared(graph), tile_of(w, target, w.width(graph)))
            p = _product(node, graph)
            if p is not None:
                return schedule(p, target).scratch(p, results(graph) == [node.name])
        if OPS[node.op].kind == REDUCE and node.attrs["axes"]:
            return folding(graph) if is_shared(graph) else ()
        if node.op == "wind":
            return transforming(node, graph)
        if node.op == "filter_gradient":
            return tiles(node, graph).scratch()
        if node.op == "argsort":
            return sorting(graph, node, is_shared(graph))
    return ()


def _copy(type_: TensorType, source: L.Place, target: L.Place, checks: Checks, library: _Library) -> L.Call:
    b = Builder("copy", OPS)
    x = b.emit("input", name="x", type=TensorType(type_.dtype, (type_.size,)))
    return library.call(library.shared((b.finish((("y", x),)), (x,))), checks, "copy", "", [source, target])


def _zeros(type_: TensorType, target: L.Place, checks: Checks, library: _Library) -> L.Call:
    b = Builder("zeros", OPS)
    zero = constant(b, 0, TensorType(type_.dtype, (type_.size,)))
    return library.call(library.shared((b.finish((("y", zero),)), ())), checks, "zeros", "", [target])

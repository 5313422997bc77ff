"""The memory plan: where every value lies, and in which order the kernels run.

In: a graph. Out: a `Plan`. A value that is an output or an update is made where it belongs when nothing speaks against
it; a variable is updated in place once everybody who wants its old value has run. The rest lies in the arena. A size is
a polynomial in the size symbols, so values are planned by the kind of their size (`1`, `B`, `B*T`): within a kind
lifetimes and offsets are numbers, and the kinds follow one another. So the arena is `a + b*B`, whatever B will be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from heapq import heapify, heappop, heappush
from math import gcd

from ..graph.boxes import flat, side_by_side
from ..graph.nodes import Graph, Node, may_fail
from ..graph.ops import OPS
from ..graph.ops.op import MAP, REDUCE
from ..loops.index import term, terms, total
from ..loops.ir import Place
from ..types.sizes import Dim, substitute
from ..types.tensors import BYTES, TensorType, TupleType

ALIGNMENT = 64  # of buffers whose size is a number; others, such as 40*B, fill cache lines for some B only, and are
# aligned as the largest element is

Value = tuple[str, int]  # a node and which of its results


@dataclass(frozen=True, slots=True)
class Copy:
    """A value that is needed at a second place; `early` before the kernels run, else after."""

    type: TensorType
    source: Place
    target: Place
    early: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One buffer of the arena: bytes, where it begins, the kernels (by position) that write and last read it. `values`
    are the nodes that lie there, one after the other; results of a kernel with several are the `item` nodes."""

    values: tuple[tuple[str, int], ...]
    size: Dim
    offset: Dim
    born: int
    dies: int


@dataclass(frozen=True, slots=True)
class Plan:
    order: tuple[str, ...]  # the nodes that are kernels, in the order they run
    places: Mapping[Value, Place]
    copies: tuple[Copy, ...]
    lines: tuple[Line, ...]
    arena: Dim

    def lower_bound(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """The largest sum of live bytes at given sizes, and the kernel where it is reached."""
        live = [0] * len(self.order)
        for b in self.lines:
            n = substitute(b.size, sizes)
            assert isinstance(n, int)
            for k in range(b.born, min(b.dies + 1, len(live))):
                live[k] += n
        best = max(range(len(live)), key=lambda k: live[k], default=0)
        return (live[best] if live else 0), best


def types(node: Node) -> tuple[TensorType, ...]:
    """The types of a node's results."""
    return node.type.items if isinstance(node.type, TupleType) else (node.type,)


def output_slot(name: str) -> str:
    """The slot of an output. An output may be called like an input or a variable (a gradient is), its slot may not."""
    return f"{name} (output)"


def constant_name(graph: Graph, node: Node) -> str:
    """The name of a constant in the module, where kernels and entries have names too."""
    return f"{graph.name}.{node.name}"


def roots(graph: Graph) -> dict[str, Value]:
    """For each node the value whose buffer it lies in: a reshape lies where its operand does, a slice in it where
    fusion says so, an item is a result of its operand, and all that read one variable read one buffer."""
    out: dict[str, Value] = {}
    leaf: dict[tuple[str, str], str] = {}
    for n in graph:
        match n.op:
            case "reshape" | "assume":
                out[n.name] = out[n.args[0]]
            case "slice" if n.attrs.get("lies"):
                out[n.name] = out[n.args[0]]
            case "item":
                out[n.name] = (n.args[0], n.attrs["index"])
            case "input" | "param":
                key = (n.op, n.attrs["name" if n.op == "input" else "path"])
                out[n.name] = (leaf.setdefault(key, n.name), 0)
            case _:
                out[n.name] = (n.name, 0)
    return out


def is_kernel(node: Node) -> bool:
    """Whether code runs for a node: not for leaves, nor for those that only rename a buffer."""
    renames = ("input", "param", "item", "reshape", "assume", "constant")
    return node.op not in renames and not node.attrs.get("lies")


def shift(graph: Graph, name: str) -> Dim:
    """How many bytes behind the beginning of its root's buffer a node lies."""
    node = graph[name]
    total: Dim = 0
    while node.op in ("reshape", "assume") or node.attrs.get("lies"):
        of = graph[node.args[0]]
        if node.op == "slice":
            total = total + flat(node.attrs["starts"], of.shape) * BYTES[of.dtype]
        node = of
    return total


def plan(graph: Graph, scratch: Mapping[str, Sequence[Dim]] | None = None) -> Plan:
    """The plan of one entry. `scratch` gives bytes a kernel needs for itself while it runs."""
    root = roots(graph)
    order, places, moves = _order(graph, root)
    return _offsets(graph, root, order, places, moves, scratch or {})


# --- order, and what lies in slots -----------------------------------------------------------------------------------


Move = tuple[Value, Value, bool]  # a copy from one value's place to another's, early or late; see `Copy`


def _order(graph: Graph, root: Mapping[str, Value]) -> tuple[tuple[str, ...], dict[Value, Place], list[Move]]:
    kernels = [n.name for n in graph if is_kernel(n)]
    position = {name: k for k, name in enumerate(kernels)}
    reads = {k: [root[a] for a in graph[k].args] for k in kernels}
    readers: dict[Value, list[str]] = {}
    after: dict[str, list[str]] = {k: [] for k in kernels}
    for k in kernels:
        for value in dict.fromkeys(reads[k]):
            readers.setdefault(value, []).append(k)
            if value[0] in position:
                after[value[0]].append(k)

    places: dict[Value, Place] = {}
    leaves: dict[str, Value] = {}  # path -> the leaf
    for node in graph:
        if node.op == "input":
            places[node.name, 0] = Place("slot", node.attrs["name"])
        elif node.op == "param":
            places[node.name, 0] = Place("slot", node.attrs["path"])
            leaves[node.attrs["path"]] = root[node.name]
        elif node.op == "constant":
            places[node.name, 0] = Place("constant", constant_name(graph, node))
    moves: list[Move] = []
    overwritten = {leaves[path] for path, _ in graph.updates if path in leaves}
    for path, name in graph.updates:
        value, slot, old = root[name], Place("slot", path), leaves.get(path)
        if value == old:
            continue
        if value not in places and _update_in_place(graph, root, value, old, readers, after):
            places[value] = slot
            continue
        if value in overwritten:  # one variable takes the old value of another: keep it until the end
            kept = (value[0], -1)
            moves.append((value, kept, True))
            value = kept
        places["update " + path, 0] = slot
        moves.append((value, ("update " + path, 0), False))
    for name, result in graph.outputs:
        value, slot = root[result], Place("slot", output_slot(name))
        if value in places:
            places["output " + name, 0] = slot
            moves.append((value, ("output " + name, 0), value in overwritten))
        else:
            places[value] = slot
    _checks_first(graph, kernels, places, after)
    return _sorted(kernels, position, after), places, list(dict.fromkeys(moves))


def _update_in_place(graph: Graph, root: Mapping[str, Value], value: Value, old: Value | None,
                     readers: Mapping[Value, list[str]], after: dict[str, list[str]]) -> bool:
    """Whether a kernel may write a variable's new value over the old one; adds what must run before it to `after`."""
    maker = value[0]
    if may_fail(graph[maker]):
        return False  # with a part of it written
    if old is None:
        return True
    others = [r for r in readers.get(old, ()) if r != maker]
    if maker in readers.get(old, ()) and not overwrites(graph, root, maker, value[1], old):
        return False
    if others and any(r in _reachable(after, maker) for r in others):
        return False  # somebody wants the old value after the new one is made
    for r in others:
        after[r].append(maker)
    return True


def overwrites(graph: Graph, root: Mapping[str, Value], kernel: str, result: int, operand: Value) -> bool:
    """Whether a kernel reads an operand only at the index at which it then writes a result of the same type."""
    node = graph[kernel]
    given = [k for k, a in enumerate(node.args) if root[a] == operand]
    if any(graph[node.args[k]].type != types(node)[result] or shift(graph, node.args[k]) != 0 for k in given):
        return False
    if node.op == "scan":  # carries it on
        return given == [result] and result < node.attrs["carries"]
    if node.op != "fused":
        return OPS[node.op].kind == MAP
    body = node.attrs["body"]
    inputs = [n.name for n in body if n.op == "input"]
    return _overwrites(body, [inputs[k] for k in given], body.outputs[result][1])


def _overwrites(body: Graph, operands: list[str], result: str) -> bool:
    """The same of the inputs of a fused body. What they flow into elementwise is read at the point of the loop. In a
    fold a value of the kept axes is stored when all stages of its row are done; one of the whole box is stored in its
    stage, so no later stage may read the operand."""
    folds = [n for n in body if OPS[n.op].kind == REDUCE]
    box = body[folds[0].args[0]].shape if folds else ()
    kept = tuple(k for k in range(len(box)) if k not in folds[0].attrs["axes"]) if folds else ()
    row = bool(folds) and body[result].shape != box
    stage: dict[str, int] = {}  # in which a value can be computed first
    for n in body:
        stage[n.name] = max((stage[a] for a in n.args), default=0) + (OPS[n.op].kind == REDUCE)
    seen, stack = set(operands), list(operands)
    while stack:
        name = stack.pop()
        for user in body.users(name):
            match OPS[user.op].kind:
                case "map":
                    pass
                case "view" if side_by_side(body, user) and any(v == user.name for _, v in body.outputs):
                    continue  # stored part by part, where the loop stands
                case "view" if row and user.op == "broadcast" and user.shape == box and user.attrs["axes"] == kept:
                    pass
                case "reduce" if row:
                    pass
                case "reduce" if stage[name] <= stage[result]:
                    continue  # what comes of it does not read the operand again
                case _:
                    return False
            if user.name not in seen:
                seen.add(user.name)
                stack.append(user.name)
    return row or all(stage[v] <= stage[result] for _, v in body.outputs if v in seen)


def _reachable(after: Mapping[str, list[str]], start: str) -> set[str]:
    seen, stack = {start}, [start]
    while stack:
        for k in after[stack.pop()]:
            if k not in seen:
                seen.add(k)
                stack.append(k)
    return seen


def _checks_first(graph: Graph, kernels: Sequence[str], places: Mapping[Value, Place],
                  after: dict[str, list[str]]) -> None:
    """A step that fails changes nothing: kernels with run-time checks run before those that write variables."""
    paths = {p for p, _ in graph.updates}
    written = [v[0] for v, p in places.items() if p.base == "slot" and p.name in paths and v[0] in after]
    writers = list(dict.fromkeys(written))
    for c in kernels:
        if may_fail(graph[c]):
            for w in writers:
                if w != c and c not in _reachable(after, w):
                    after[c].append(w)


def _sorted(kernels: Sequence[str], position: Mapping[str, int], after: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Topological; among what may run, the first in the order of the graph."""
    waiting = dict.fromkeys(kernels, 0)
    for followers in after.values():
        for k in followers:
            waiting[k] += 1
    ready = [position[k] for k in kernels if not waiting[k]]
    heapify(ready)
    order: list[str] = []
    while ready:
        k = kernels[heappop(ready)]
        order.append(k)
        for f in after[k]:
            waiting[f] -= 1
            if not waiting[f]:
                heappush(ready, position[f])
    assert len(order) == len(kernels), "the order of kernels has a cycle"
    return tuple(order)


# --- offsets ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Buffer:
    values: list[Value]
    size: Dim
    born: int
    dies: int


def _offsets(graph: Graph, root: Mapping[str, Value], order: tuple[str, ...], places: dict[Value, Place],
             moves: list[Move], scratch: Mapping[str, Sequence[Dim]]) -> Plan:
    last: dict[Value, int] = {}
    for k, name in enumerate(order):
        for a in graph[name].args:
            last[root[a]] = k
    end = len(order)
    buffers: list[_Buffer] = []
    where: dict[Value, _Buffer] = {}
    for source, target, early in moves:
        if not early:
            last[source] = end
        elif target not in places and target not in where:
            where[target] = _Buffer([target], types(graph[source[0]])[source[1]].nbytes, 0, end)
            buffers.append(where[target])
    for k, name in enumerate(order):
        operands = [root[a] for a in graph[name].args]
        free = [v for v in operands if v in where and where[v].dies == k]  # what this kernel is the last to read
        for r, type_ in enumerate(types(graph[name])):
            value = (name, r)
            if value in places:
                continue
            shared = next((where[v] for v in free if overwrites(graph, root, name, r, v)), None)
            if shared is not None:
                free = [v for v in free if where[v] is not shared]
                shared.values.append(value)
                shared.dies = max(k, last.get(value, k))
                where[value] = shared
            else:
                where[value] = _Buffer([value], type_.nbytes, k, last.get(value, k))
                buffers.append(where[value])
        for n, size in enumerate(scratch.get(name, ())):
            value = (name, -1 - n)
            where[value] = _Buffer([value], size, k, k)
            buffers.append(where[value])

    kinds: dict[Dim, list[tuple[_Buffer, int]]] = {}
    for b in buffers:
        c, kind = _content(b.size)
        kinds.setdefault(kind, []).append((b, c))
    element = max((_element(graph, v) for b in buffers for v in b.values), default=1)
    base: Dim = 0
    lines: list[Line] = []
    for kind in sorted(kinds, key=lambda d: (d != 1, str(d))):
        offset, used = _fit(kinds[kind], ALIGNMENT if kind == 1 else element)
        for (b, _), at in zip(kinds[kind], offset, strict=True):
            lines.append(Line(tuple(_shown(graph, v) for v in b.values), b.size, base + kind * at, b.born, b.dies))
            for v in b.values:
                places[v] = Place("arena", offset=base + kind * at)
        base = base + kind * used
    lines.sort(key=lambda line: (line.born, line.values))
    copies = tuple(
        Copy(types(graph[source[0]])[max(0, source[1])], places[source], places[target], early)
        for source, target, early in moves
    )
    return Plan(order, places, copies, tuple(lines), base)


def _shown(graph: Graph, value: Value) -> Value:
    """The node by which people know a value."""
    node, k = graph[value[0]], value[1]
    if node.op == "scan" and k >= 0:
        items = (n.name for n in graph.users(node.name) if n.op == "item" and n.attrs["index"] == k)
        found = next(items, None)
        return (node.name, -1) if found is None else (found, 0)
    return (node.attrs["body"].outputs[max(0, k)][0], min(0, k)) if node.op == "fused" else value


def _element(graph: Graph, value: Value) -> int:
    """Bytes of the largest element of a value, or of what a node keeps for itself."""
    node, k = graph[value[0]], value[1]
    own = max((BYTES[t.dtype] for t in (types(node) if k < 0 else types(node)[k : k + 1])), default=1)
    if node.op != "scan" or k >= 0:
        return own
    body = node.attrs["body"]
    return max([own, *(_element(body, (n.name, -1)) for n in body)])


def _content(size: Dim) -> tuple[int, Dim]:
    """A size as number times kind: 12*B + 8 is 4 times (3*B + 2)."""
    if isinstance(size, int):
        return size, 1
    c = reduce(gcd, (abs(c) for _, c in terms(size)))
    return c, total(term(m, k // c) for m, k in terms(size))


def _fit(buffers: Sequence[tuple[_Buffer, int]], alignment: int) -> tuple[list[int], int]:
    """Offsets for buffers of one kind, the largest first, each into the smallest gap that is free while it lives."""
    offset = [0] * len(buffers)

    def aligned(n: int) -> int:
        return -(-n // alignment) * alignment

    placed: list[int] = []
    used = 0
    for k in sorted(range(len(buffers)), key=lambda k: (-buffers[k][1], buffers[k][0].born, k)):
        b, n = buffers[k]
        busy = sorted((offset[j], offset[j] + aligned(buffers[j][1])) for j in placed
                      if buffers[j][0].born <= b.dies and b.born <= buffers[j][0].dies)
        best, at = None, 0
        for start, stop in busy:
            if start - at >= aligned(n) and (best is None or start - at < best[0]):
                best = (start - at, at)
            at = max(at, stop)
        offset[k] = best[1] if best else at
        used = max(used, offset[k] + aligned(n))
        placed.append(k)
    return offset, used

"""The derivative of a scan: another scan, that runs the other way.

In: a scan, and the adjoints of its results. Out: the adjoints of its operands. The body's own derivative is written
next to the body, in one graph; that graph is cut in two. What the derivative needs of the forward pass is either
computed again from what lies before it, where that is cheap, or collected by the forward scan. The second half becomes
the body of a scan in which the adjoints of the carried values are carried.

An operand that every turn reads has the sum over turns of what each contributes. Where that is linear in values of the
turn (the weights of a product, a bias), the values are collected and the sum is one contraction behind the scan,
instead of an addition in each turn. A slice at the index is an operand of its own turn: its adjoints are collected and
put side by side. So nothing grows with the square of the number of turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...dsl.record import dataclass, field
from ..graph.cost import own_weight
from ..graph.nodes import Builder, Graph, Node, ancestors, descendants, effects, mentions
from ..graph.ops import OPS
from ..graph.ops.calculus import constant
from ..graph.ops.op import CONTRACT, KERNEL, MAP, REDUCE
from ..types.sizes import Dim, substitute, symbol, symbols
from ..types.tensors import FLOATS, TensorType, Type

CHEAP = 6  # weight of a value that is computed again rather than collected

Backward = Callable[..., dict[str, str]]  # `differentiate.backward`


def reverse(
    around: Builder,
    node: Node,
    dys: Mapping[int, str],
    active: Sequence[bool],
    backward: Backward,
    taken: Mapping[int, str],
) -> Sequence[str | None]:
    """The adjoint of each operand of a scan that is active, as nodes of `around`; `dys` are those of its results, by
    position, and `taken` says which elements of them are. The scan itself is replaced by one that collects more."""
    turn = _differentiated(around, node, dys, active, backward, taken)
    plan = _planned(turn)
    stacks = _collect(around, node, turn, plan)
    results = _emit(around, node, dys, turn, plan, stacks)
    return _operands(around, node, turn, plan, stacks, results)


# --- one turn --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Turn:
    """The body of a scan with its derivative, in one graph."""

    inside: Builder
    inputs: list[str]  # of the body
    carries: int
    index: str
    count: Dim
    original: set[str]  # the nodes of the body
    d_carries: dict[int, str]  # position -> the input that is the adjoint of the carried value behind the turn
    d_results: dict[int, str]  # position -> the input that is the adjoint of what is collected, of all turns
    conditions: dict[str, str]  # the input that says which of those are taken, of all turns -> what it is outside
    adjoints: dict[str, str]  # of the body's inputs, and of slices at the index
    slices: dict[str, str]  # slice at the index -> the input it is of
    backward: set[str]  # nodes that depend on an adjoint
    kept: set[str]  # values of a `checkpoint` in the body that are given to it
    again: set[str]  # nodes that one says are not to be kept


def _differentiated(
    around: Builder,
    node: Node,
    dys: Mapping[int, str],
    active: Sequence[bool],
    backward: Backward,
    taken: Mapping[int, str],
) -> _Turn:
    body, carries, index = node.attrs["body"], node.attrs["carries"], node.attrs["index"]
    inside = Builder("body", OPS)
    inside.span = node.span  # of what is of no node of the body
    inside.nodes.update((n.name, n) for n in body)
    original = set(inside.nodes)
    inputs = [n.name for n in body if n.op == "input"]
    outputs = [v for _, v in body.outputs]
    wanted = _active(body, inputs, active, outputs[:carries])
    d_carries: dict[int, str] = {}
    d_results: dict[int, str] = {}
    seeds: dict[str, list[str]] = {}
    conditions: dict[str, str] = {}
    known: dict[str, str] = {}
    for k, v in enumerate(outputs):
        if k < carries and inputs[k] in wanted:
            d_carries[k] = _input(inside, f"d_{inputs[k]}", inside.type(v))
            seeds.setdefault(v, []).append(d_carries[k])
        elif k >= carries and k in dys:
            d_results[k] = _input(inside, f"d_{body.outputs[k][0]}", around.type(dys[k]))
            row = inside.row(d_results[k], index)
            seeds.setdefault(v, []).append(row)
            if k in taken:
                condition = _input(inside, f"taken_{body.outputs[k][0]}", around.type(taken[k]))
                conditions[condition] = taken[k]
                known[row] = inside.row(condition, index)
    slices = {
        n.name: n.args[0]
        for n in body
        if n.op == "slice" and n.args[0] in inputs[carries:] and _moves(n, index) is not None
    }
    xs = [n.name for n in body if n.name in wanted or slices.get(n.name) in wanted]
    adjoints = backward(inside, seeds, xs, node.span, {}, lambda n: n, slices.keys(), known=known)
    late = descendants(inside.nodes, [*d_carries.values(), *d_results.values()])
    again = {
        a
        for n in body
        if n.op == "checkpoint"
        for a in recomputed(inside.nodes, n)
        if inside[a].op != "input" and a not in n.args[1:]
    }
    for n in inside.nodes.values():
        if n.name not in original and n.name not in late and any(a in again for a in n.args):
            again.add(n.name)
    count = node.attrs["count"]
    kept = {a for n in body if n.op == "checkpoint" for a in n.args[1:] if a == n.args[0]}
    given = inside, inputs, carries, index, count, original, d_carries, d_results, conditions
    return _Turn(*given, adjoints, slices, late, kept, again)


def recomputed(nodes: Mapping[str, Node], checkpoint: Node) -> dict[str, None]:
    """What a checkpoint is computed from, back to what it is given and with that. Given itself, it is kept: nothing
    that only it is needed for is computed again."""
    value, *given = checkpoint.args
    return ancestors(nodes, [value], {*given} - {value})


def _input(b: Builder, stem: str, type_: TensorType) -> str:
    name = stem if stem not in b.nodes else b.fresh(stem)
    return b.emit("input", name=name, type=type_)


def _active(body: Graph, inputs: Sequence[str], given: Sequence[bool], carried: Sequence[str]) -> set[str]:
    """The float inputs of a body that depend on operands that count, in the first turn or in a later one."""
    floats = [t.dtype in FLOATS for t in map(_tensor, (body[i].type for i in inputs))]
    wanted = {i for i, counts, real in zip(inputs, given, floats, strict=True) if counts and real}
    nodes = body.nodes
    while True:
        reached = descendants(nodes, wanted, "stop_grad")
        more = {i for i, v, real in zip(inputs, carried, floats, strict=False) if v in reached and real} - wanted
        if not more:
            return wanted
        wanted |= more


def _tensor(t: Type) -> TensorType:
    assert isinstance(t, TensorType)
    return t


def _moves(n: Node, index: str) -> tuple[int, int, Dim] | None:
    """Of a slice that takes one element of one axis, at index + c or at c - index, and of other axes the same in each
    turn: that axis, 1 or -1, and c."""
    found: tuple[int, int, Dim] | None = None
    for axis, (start, stop, step) in enumerate(zip(*(n.attrs[k] for k in ("starts", "stops", "steps")), strict=True)):
        if index not in symbols(start) | symbols(stop):
            if step != 1:
                return None
            continue
        c = substitute(start, {index: 0})
        slope = start - c
        if found is not None or stop - start != 1 or slope not in (symbol(index), -symbol(index)):
            return None
        found = (axis, 1 if slope == symbol(index) else -1, c)
    return found


# --- what is collected, carried and added up -------------------------------------------------------------------------


@dataclass(slots=True)
class _Plan:
    """What the two scans do: `saved` values are collected by the forward one, `collected` by the backward one, `added`
    inputs have an accumulator, `summed` ones are a sum of collected values behind the scan."""

    saved: list[str] = field(default_factory=list)
    collected: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    summed: list[str] = field(default_factory=list)


def _planned(turn: _Turn) -> _Plan:
    plan = _Plan()
    whole = [i for i in turn.inputs[turn.carries :] if i in turn.adjoints]
    stacked: dict[str, None] = {}  # values whose stacks the sums behind the scan read
    plan.collected = [_of_slice(turn, s) for s in turn.slices if s in turn.adjoints]
    for last in (False, True):  # a sum over axes is worth it where its operand is collected for another's sake
        for i in whole if not turn.again else ():  # who asks to keep little has the sums in the turns
            needs: list[str] = []
            have = {*plan.collected, *stacked}
            if i not in plan.summed and _linear(turn, turn.adjoints[i], needs, have if last else None):
                plan.summed.append(i)
                stacked |= dict.fromkeys(needs)
    plan.added = [i for i in whole if i not in plan.summed]
    plan.collected = list(dict.fromkeys([*plan.collected, *(v for v in stacked if v in turn.backward)]))
    saved = {v for v in stacked if v not in turn.backward}
    roots = [
        *(turn.adjoints[i] for k, i in enumerate(turn.inputs[: turn.carries]) if i in turn.adjoints),
        *(turn.adjoints[i] for i in plan.added),
        *plan.collected,
    ]
    forward = [name for name in turn.inside.nodes if name not in turn.backward]
    kept = {name for name in forward if name in saved or _worth(turn, name)}
    reached = ancestors(turn.inside.nodes, roots, kept)
    plan.saved = [name for name in forward if name in saved or (name in kept and name in reached)]
    return plan


def _of_slice(turn: _Turn, name: str) -> str:
    """What is collected for the adjoint of a slice: the value itself, whatever axes of size 1 it is given then."""
    found = turn.adjoints[name]
    while turn.inside[found].op == "reshape" and turn.inside[found].args[0] in turn.backward:
        found = turn.inside[found].args[0]
    return found


def _worth(turn: _Turn, name: str) -> bool:
    """Whether the backward pass reads a value of the forward pass from memory: what is carried, and what costs more to
    compute than to load."""
    n = turn.inside[name]
    if n.op == "input":
        return name in turn.inputs[: turn.carries]
    if name in turn.again or mentions(n.type, turn.index):
        return False
    kind = OPS[n.op].kind
    return (
        kind in (CONTRACT, KERNEL)
        or (kind == REDUCE and bool(n.attrs["axes"]))
        or n.op in ("item", "checkpoint")
        or name in turn.kept
        or (kind == MAP and own_weight(n) > CHEAP)
    )


def _varies(turn: _Turn, name: str) -> bool:
    """Whether a value has to be stacked: an operand of the scan is the same in every turn."""
    return name not in turn.inputs[turn.carries :]


def _again(turn: _Turn, name: str) -> bool:
    """Whether a value, and not only a part of an operand, is one that a `checkpoint` says is not to be kept."""
    while turn.inside[name].op == "reshape":
        name = turn.inside[name].args[0]
    return name in turn.again and name not in turn.slices


def _linear(turn: _Turn, name: str, needs: list[str], have: set[str] | None) -> bool:
    """Whether the sum over turns of a value is an operator on collected values, which `needs` gets. With `have`, sums
    over axes of those count too."""
    n = turn.inside[name]
    if name not in turn.backward or mentions((n.attrs, n.type), turn.index):
        return False
    match n.op:
        case "add":
            return all(_linear(turn, a, needs, have) for a in n.args)
        case "transpose" | "reshape":
            return _linear(turn, n.args[0], needs, have)
        case "contract" | "scatter_add":
            needs += [a for a in n.args if _varies(turn, a)]
            return not any(_again(turn, a) or mentions(turn.inside[a].type, turn.index) for a in n.args)
        case "reduce_sum":
            if _linear(turn, n.args[0], needs, have):
                return True
            needs.append(n.args[0])
            return not mentions(turn.inside[n.args[0]].type, turn.index) and have is not None and n.args[0] in have
    return False


# --- the two scans ---------------------------------------------------------------------------------------------------


def _collect(around: Builder, node: Node, turn: _Turn, plan: _Plan) -> dict[str, str]:
    """Let the forward scan collect what is saved: the node in `around` is replaced. Gives the stacks."""
    old: Graph = node.attrs["body"]
    names = {k for k, _ in old.outputs}
    outputs = list(old.outputs)
    for v in plan.saved:
        key, n = v, 2
        while key in names:
            key, n = f"{v}_{n}", n + 1
        names.add(key)
        outputs.append((key, v))
    forward = Builder("body", OPS)
    needed = ancestors(turn.inside.nodes, [*(v for _, v in outputs), *effects(old)]).keys() | set(turn.inputs)
    forward.nodes.update((name, n) for name, n in turn.inside.nodes.items() if name in needed)
    attrs = {**node.attrs, "body": forward.finish(tuple(outputs))}
    type_ = OPS["scan"].infer([around[a].type for a in node.args], attrs)
    around.nodes[node.name] = Node(node.name, "scan", node.args, attrs, type_, node.span)
    return {v: around.emit("item", node.name, index=len(old.outputs) + k) for k, v in enumerate(plan.saved)}


def _emit(
    around: Builder, node: Node, dys: Mapping[int, str], turn: _Turn, plan: _Plan, stacks: Mapping[str, str]
) -> dict[str, str]:
    """The backward scan. Gives what its results are: adjoints of carried inputs, of added ones, collected values."""
    inside, body = turn.inside, Builder("body", OPS)
    body.span = node.span
    args: list[str] = []

    def operand(name: str, given: str, type_: TensorType) -> str:
        """An input of the body, and what the scan is given for it."""
        args.append(given)
        return _input(body, name, type_)

    new: dict[str, str] = {}  # node of the turn -> of the backward body
    for k, d in turn.d_carries.items():
        given = dys[k] if k in dys else constant(around, 0.0, inside.type(d))
        new[d] = operand(d, given, inside.type(d))
    sums = {i: operand(f"sum_{i}", constant(around, 0.0, inside.type(i)), inside.type(i)) for i in plan.added}
    rows = {v: operand(v, stacks[v], around.type(stacks[v])) for v in plan.saved}

    adjoint = {i: turn.adjoints[i] for i in turn.inputs if i in turn.adjoints}
    roots = [
        *(adjoint[turn.inputs[k]] for k in turn.d_carries if turn.inputs[k] in adjoint),
        *(adjoint[i] for i in plan.added),
        *plan.collected,
    ]
    needed = [inside[name] for name in ancestors(inside.nodes, roots, rows) if name not in new]
    outer = dict(zip(turn.inputs, node.args, strict=True))
    outer |= {d: dys[k] for k, d in turn.d_results.items()} | turn.conditions
    for n in needed:
        if n.op == "input" and n.name not in rows:
            new[n.name] = operand(n.name, outer[n.name], inside.type(n.name))
    for n in needed:
        if n.name in rows:
            new[n.name] = body.row(rows[n.name], turn.index)
        elif n.op == "in_range":  # the way forward has seen to that
            new[n.name] = new[n.args[0]]
        elif n.name not in new:
            new[n.name] = body.copy(n, tuple(new[a] for a in n.args))
    outputs: list[tuple[str, str]] = []
    for k, d in turn.d_carries.items():
        i = turn.inputs[k]
        outputs.append((i, new[adjoint[i]] if i in adjoint else constant(body, 0.0, inside.type(d))))
    outputs += [(i, body.emit("add", sums[i], new[adjoint[i]])) for i in plan.added]
    carries = len(outputs)
    outputs += [(f"collected {k}", new[v]) for k, v in enumerate(plan.collected)]
    made = around.emit(
        "scan",
        *args,
        body=body.finish(tuple(outputs)),
        index=turn.index,
        count=turn.count,
        carries=carries,
        reverse=not node.attrs["reverse"],
        until=False,
    )
    keys = [*(turn.inputs[k] for k in turn.d_carries), *plan.added, *plan.collected]
    return {key: around.emit("item", made, index=k) for k, key in enumerate(keys)}


# --- behind the scan -------------------------------------------------------------------------------------------------


def _operands(
    around: Builder, node: Node, turn: _Turn, plan: _Plan, stacks: Mapping[str, str], results: Mapping[str, str]
) -> list[str | None]:
    """The adjoint of each operand."""
    outer = dict(zip(turn.inputs, node.args, strict=True))
    everything = {**stacks, **{v: results[v] for v in plan.collected}}
    total: list[str | None] = []
    for i in turn.inputs:
        terms: list[str] = []
        if i in results and i not in plan.collected:
            terms.append(results[i])
        if i in plan.summed:
            terms.append(_sum_of_turns(around, turn, turn.adjoints[i], everything, outer))
        terms += [
            _beside(around, turn.inside[s], turn, results[_of_slice(turn, s)], around.type(outer[i]))
            for s, of in turn.slices.items()
            if of == i and s in turn.adjoints
        ]
        dx: str | None = None
        for term in terms:
            dx = term if dx is None else around.emit("add", dx, term)
        total.append(dx)
    return total


def _sum_of_turns(around: Builder, turn: _Turn, name: str, stacks: Mapping[str, str], outer: Mapping[str, str]) -> str:
    """The sum over turns of a value that `_linear` accepted: sum_t A_t B_t is one contraction, with t as one more
    index of its sum."""
    n = turn.inside[name]

    def again(a: str) -> str:
        return _sum_of_turns(around, turn, a, stacks, outer)

    match n.op:
        case "add":
            return around.emit("add", again(n.args[0]), again(n.args[1]))
        case "transpose" | "reshape":
            return around.add(n.op, (again(n.args[0]),), n.attrs)
        case "scatter_add":
            index, updates = (stacks[a] if a in stacks else _repeated(around, outer[a], turn.count) for a in n.args)
            return around.emit("scatter_add", index, updates, size=n.attrs["size"])
        case "reduce_sum" if n.args[0] in stacks:
            return around.emit("reduce_sum", stacks[n.args[0]], axes=(0, *(k + 1 for k in n.attrs["axes"])))
        case "reduce_sum":
            return around.emit("reduce_sum", again(n.args[0]), axes=n.attrs["axes"])
    assert n.op == "contract", n.op
    letters = {i for i, _ in n.attrs["domain"]}
    letter = turn.index
    while letter in letters:
        letter += "_"
    turns = (0, ((letter, 1),))
    maps = tuple((turns, *m) if a in stacks else m for a, m in zip(n.args, n.attrs["maps"], strict=True))
    args = [stacks.get(a) or outer[a] for a in n.args]
    domain = ((letter, turn.count), *n.attrs["domain"])
    return around.emit("contract", *args, **{**n.attrs, "maps": maps, "domain": domain})


def _repeated(around: Builder, x: str, count: Dim) -> str:
    shape = around.shape(x)
    return around.emit("broadcast", x, shape=(count, *shape), axes=tuple(range(1, len(shape) + 1)))


def _beside(around: Builder, n: Node, turn: _Turn, stack: str, whole: TensorType) -> str:
    """The adjoint of what a slice at the index is of: the turns' adjoints side by side, and 0 around them."""
    moved = _moves(n, turn.index)
    assert moved is not None
    axis, sign, c = moved
    shape = n.shape
    x = around.emit("reshape", stack, shape=(turn.count, *shape[:axis], *shape[axis + 1 :]))
    x = around.emit("transpose", x, perm=(*range(1, axis + 1), 0, *range(axis + 1, len(shape))))
    low: list[Dim] = list(n.attrs["starts"])
    high: list[Dim] = [size - stop for size, stop in zip(whole.shape, n.attrs["stops"], strict=True)]
    if sign < 0:
        x = around.emit("flip", x, axes=(axis,))
    low[axis] = c if sign > 0 else c - (turn.count - 1)
    high[axis] = whole.shape[axis] - low[axis] - turn.count
    return around.emit("pad", x, low=tuple(low), high=tuple(high), value=0.0)

"""Fusion, first decision: which values are stored, as heads of kernels, and which are computed where they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from ....dsl.record import dataclass
from ...graph.cost import number, own_weight
from ...graph.nodes import Graph, Node
from ...graph.ops import OPS, PACKED, STORED
from ...graph.ops.contraction import is_gathered
from ...graph.ops.op import CONTRACT, LOOP, MAP, REDUCE, VIEW
from ...types.sizes import Size

CHEAP = 4  # weight up to which a value is computed again rather than stored
LOADS = 2  # and the most buffers it may read for that
SCALAR = 12  # the same of a scalar, which is computed once per kernel
SPREAD = 4  # weight up to which a value is computed again for each of its copies
LARGE = 96  # nodes of a region: beyond, registers spill and compilation takes its time
WIDE = 16  # parts of a concatenation that is stored: to choose among more at each read costs more than to read

ALIAS = ("reshape", "assume")  # of a buffer they are that buffer, and so is a slice of whole rows in a scan


@dataclass(frozen=True, slots=True)
class _Value:
    """What the readers of a node want to know of it."""

    head: bool
    stored: bool  # it lies in memory: a head, a buffer, or an alias of one of those
    weight: int  # of one element, from what is stored
    loads: int  # buffers that are read for it
    size: int  # nodes that are computed for it
    flows: bool  # it comes elementwise of a contraction that nothing else reads: stored in its stead
    folded: bool  # it comes elementwise of a reduction


def heads(graph: Graph, wanted: Iterable[str] = ()) -> dict[str, bool]:
    """For each node whether it is a head; those `wanted` are. Aliases of stored values are neither heads nor computed
    anywhere."""
    demanded = {behind(graph, v, rows=False) for v in graph.roots} | {*wanted}
    for n in graph:
        if OPS[n.op].kind in (CONTRACT, LOOP) or n.op in STORED:
            demanded |= {behind(graph, a) for a in n.args if graph[a].op not in PACKED}
    values: dict[str, _Value] = {}
    for n in graph:
        values[n.name] = _value(graph, n, [values[a] for a in n.args], n.name in demanded)
    return {name: v.head for name, v in values.items()}


def _value(graph: Graph, n: Node, operands: Sequence[_Value], demanded: bool) -> _Value:
    kind = OPS[n.op].kind
    users = graph.users(n.name)
    weight = own_weight(n) + sum(x.weight for x in operands)
    loads = sum(x.loads for x in operands) if n.op != "broadcast" else 0  # what is repeated stays at hand
    size = 1 + sum(x.size for x in operands)
    through = kind == MAP and any(x.flows for x in operands)
    folded = kind == REDUCE or (kind == MAP and any(x.folded for x in operands))
    alias = renames(graph, n) and operands[0].stored
    if is_buffer(n):
        head = False
    elif not _is_point(n):
        head = True
    elif alias and not (n.op == "slice" and demanded):
        head = False
    else:
        cheap = weight <= (CHEAP if n.shape else SCALAR) and loads <= LOADS and not through
        head = (
            demanded
            or (len(users) > 1 and not cheap)
            or size > LARGE // 2
            or (n.op == "concat" and len(n.args) > WIDE)
            or (weight > SPREAD and any(_spreads(u, n) for u in users))
            or (folded and any(OPS[u.op].kind == REDUCE for u in users))  # small, and at hand
        )
    flows = (through and not head) or (kind == CONTRACT and is_gathered(n) and len(users) == 1)
    if head or alias or is_buffer(n):
        return _Value(head, True, 0, 1, 0, flows, folded)
    return _Value(head, False, weight, loads, size, flows, folded)


def _is_point(n: Node) -> bool:
    """A value that can be computed at any index: elementwise, a view, a number."""
    return OPS[n.op].kind in (MAP, VIEW) or (n.op == "constant" and not n.shape)


def is_buffer(n: Node) -> bool:
    """A value that is there before any kernel of the graph runs, or is a part of what one has stored."""
    return n.op in ("input", "param", "item") or (n.op == "constant" and bool(n.shape))


def behind(graph: Graph, name: str, head: Mapping[str, bool] | None = None, rows: bool = True) -> str:
    """What a reshape is a reshape of: the first value that is a head, or no reshape; nor, without `rows`, a slice."""
    while renames(graph, n := graph[name]) and (rows or n.op in ALIAS) and not (head and head[name]):
        name = n.args[0]
    return name


def renames(graph: Graph, n: Node) -> bool:
    """A value that lies in its operand, once that is stored: a reshape, or the rows that a turn of a scan reads."""
    if n.op != "slice":
        return n.op in ALIAS
    shape, starts = graph[n.args[0]].shape, n.attrs["starts"]
    first = next((k for k, n in enumerate(n.shape) if n != 1), len(shape))  # of the axis that is cut, at most
    return (
        all(k == 1 for k in n.attrs["steps"])
        and n.shape[first + 1 :] == shape[first + 1 :]
        and any(isinstance(a, Size) for a in starts)
    )


def _spreads(user: Node, n: Node) -> bool:
    """The user reads each element many times, in an order that does not allow to keep it meanwhile."""
    if user.op == "windows":  # which overlap
        return number(prod(user.shape)) > number(prod(n.shape))
    if user.op == "broadcast":
        axes = user.attrs["axes"]
        return any(k not in axes and user.shape[k] != 1 for k in range(max(axes, default=-1)))
    if user.op in ("recurrence", "argsort"):  # one element at a time, not in lanes
        return True
    return user.op == "gather" and user.args[0] == n.name

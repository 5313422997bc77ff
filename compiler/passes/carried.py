"""In which order the values lie that go from turn to turn of a scan, into it and out of it.

In: a scan whose body is laid out, and the orders in which its operands lie. Out: the same scan, whose carried values
lie as the body makes them, so that they are transposed once before the scan and once behind it instead of twice in each
turn. What is collected lies as the body makes it; of an operand that is read row by row each row lies as it was given.

An order is a permutation: axis k of what lies in memory is axis `order[k]` of the value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from ..graph.nodes import Builder, Graph, Node, mentions
from ..graph.ops import OPS
from ..graph.ops.layout import inverse
from ..types.tensors import TensorType

Order = tuple[int, ...]

ATTEMPTS = 4  # to find orders of carried values that a body given them makes


def turns(n: Node) -> bool:
    """Whether the body of a scan makes values in another order than they are given on."""
    body = n.attrs["body"]
    return any(_made(body, v) is not None for _, v in body.outputs)


def settled(
    n: Node, lies: Sequence[Order], stacks: Collection[int], lay: Callable[[Graph], Graph]
) -> tuple[Node, Mapping[int, Order], Mapping[int, Order]]:
    """The scan, and the orders of its operands and of its results that are not the declared ones, by position. Its
    operands lie in the orders `lies`, `stacks` are the results that other scans read, and `lay` lays a body out."""
    body, carries = n.attrs["body"], n.attrs["carries"]
    inputs = [x.name for x in body if x.op == "input"]
    made = _carried(body, carries)
    read = {k: o for k, o in enumerate(lies) if k >= carries and _is_moved(o) and _by_rows(body, inputs[k], n, o)}
    for attempt in range(ATTEMPTS):
        if not made and not read:
            break
        laid = lay(_given(n.attrs["body"], {inputs[k]: order for k, order in (made | read).items()}))
        found = _carried(laid, carries)
        if found == made:
            body = laid
            break
        made = found if attempt == 0 else {k: order for k, order in made.items() if found.get(k) == order}
    else:
        made, read = {}, {}
    wanted, went = made | read, dict(made)
    for k in stacks:
        if (order := _made(body, body.outputs[k][1])) is not None:
            went[k] = (0, *(a + 1 for a in order))
    outputs = tuple((name, body[v].args[0] if k in went else v) for k, (name, v) in enumerate(body.outputs))
    body = Graph(body.name, body.nodes, outputs, (), body.guards)
    return (replace(n, attrs={**n.attrs, "body": body}) if wanted or went else n), wanted, went


def _carried(body: Graph, carries: int) -> dict[int, Order]:
    """The carried values that a body makes in another order, by position."""
    return {k: order for k, (_, v) in enumerate(body.outputs[:carries]) if (order := _made(body, v)) is not None}


def _is_moved(order: Order) -> bool:
    return order != tuple(sorted(order))


def _made(body: Graph, v: str) -> Order | None:
    """The order in which a value is made, where it is transposed at the end; None where it is not."""
    return inverse(body[v].attrs["perm"]) if body[v].op == "transpose" else None


def _by_rows(body: Graph, name: str, scan: Node, order: Order) -> bool:
    """Whether an operand, whose first axis lies outermost, is read row by row, a row or some in a turn."""
    rows = [x for x in body if name in x.args]
    return order[0] == 0 and all(
        x.op == "slice" and x.shape[0] == 1 and mentions(x.attrs["starts"][0], scan.attrs["index"]) for x in rows
    )


def _given(body: Graph, orders: Mapping[str, Order]) -> Graph:
    """A body whose inputs lie in other orders; what read them reads them as they were."""
    b = Builder("body", OPS)
    b.guards = list(body.guards)
    new: dict[str, str] = {}
    for x in body:
        b.span = x.span
        if x.name in orders:
            order = orders[x.name]
            assert isinstance(x.type, TensorType)
            type_ = x.type.with_shape(tuple(x.shape[k] for k in order))
            lies = b.emit("input", name=x.attrs["name"], type=type_)
            new[x.name] = b.emit("transpose", lies, perm=inverse(order))
        else:
            new[x.name] = b.copy(x, tuple(new[a] for a in x.args))
    return b.finish(tuple((k, new[v]) for k, v in body.outputs))

"""A scan whose turns have nothing to do with one another, as operators on all turns at once.

In: the body of a scan that carries nothing. Out: what it collects, or None where an operator of the body has no form
with an axis for the turns in front. So what an optimiser does to each of many equal parameters is one kernel.
"""

from __future__ import annotations

from ...dsl.record import dataclass
from ..graph.nodes import Node, mentions
from ..graph.ops import OPS
from ..graph.ops.op import MAP, REDUCE
from ..types.sizes import Dim, symbol
from ..types.tensors import TensorType
from .context import Context
from .frames import Frame
from .shapes import broadcast_to
from .values import Tensor


def lifted(cx: Context, frame: Frame) -> dict[str, Tensor] | None:
    """What a body collects, by name, with the turns along the first axis; nodes are made around the scan."""
    wanted = {name: t.node for name, (t, _, _) in frame.collected.items()}
    if not all(_has_form(node, frame) for node in frame.builder.nodes.values()):
        return None
    around = {inner: Tensor(outer, cx.builder) for outer, inner in frame.captured.items()}
    lift = _Lift(cx, frame, {name: t for name, t in around.items() if name in frame.builder.nodes}, set())
    for node in frame.builder.nodes.values():
        if node.name not in lift.made:
            lift.made[node.name] = lift.node(node)
    return {name: lift.of_turns(node) for name, node in wanted.items()}


def _has_form(n: Node, frame: Frame) -> bool:
    kind = OPS[n.op].kind
    if n.op == "slice" and n.attrs["starts"][:1] == (symbol(frame.index),):
        return _is_row(n, frame)
    return not mentions(n.attrs, frame.index) and (
        n.op in ("input", "constant", "size", "broadcast", "reshape", "transpose")
        or kind == REDUCE
        or (kind == MAP and n.op not in ("iota", "random", "in_range"))
    )


def _is_row(n: Node, frame: Frame) -> bool:
    """Whether a slice is the element of this turn along the first axis of something from around the scan."""
    shape, k = frame.builder.shape(n.args[0]), symbol(frame.index)
    rest = (0,) * (len(shape) - 1)
    return (
        n.args[0] in frame.captured.values()
        and shape[0] == frame.count
        and n.attrs["starts"] == (k, *rest)
        and n.attrs["stops"] == (k + 1, *shape[1:])
        and set(n.attrs["steps"]) == {1}
    )


@dataclass(frozen=True, slots=True)
class _Lift:
    """Nodes of the body by name, as they are around the scan; those that vary from turn to turn have one axis more."""

    cx: Context
    frame: Frame
    made: dict[str, Tensor]
    varying: set[str]

    def node(self, n: Node) -> Tensor:
        args = [self.made[a] for a in n.args]
        assert isinstance(n.type, TensorType)
        shape: tuple[Dim, ...] = (self.frame.count, *n.type.shape)
        if n.op == "slice":
            self.varying.add(n.name)
            return self.cx.emit("reshape", *args, span=n.span, shape=shape)
        if self.varying.isdisjoint(n.args):
            return self.cx.emit(n.op, *args, span=n.span, **n.attrs)
        self.varying.add(n.name)
        match n.op:
            case "broadcast":
                axes = (0, *(k + 1 for k in n.attrs["axes"]))
                return self.cx.emit("broadcast", *args, span=n.span, shape=shape, axes=axes)
            case "reshape":
                return self.cx.emit("reshape", *args, span=n.span, shape=shape)
            case "transpose":
                perm = (0, *(k + 1 for k in n.attrs["perm"]))
                return self.cx.emit("transpose", *args, span=n.span, perm=perm)
        if OPS[n.op].kind == REDUCE:
            axes = tuple(k + 1 for k in n.attrs["axes"])
            return self.cx.emit(n.op, *args, span=n.span, axes=axes)
        return self.cx.emit(n.op, *map(self.of_turns, n.args), span=n.span, **n.attrs)

    def of_turns(self, name: str) -> Tensor:
        """A value of the body with an axis for the turns, also where it is the same in each."""
        value = self.made[name]
        if name in self.varying:
            return value
        shape = (self.frame.count, *value.shape)
        return broadcast_to(self.cx, value, shape, None, tuple(range(1, len(shape))))

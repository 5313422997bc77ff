"""A notation for gradient rules, so that the rule is the mathematics: `lambda dy, y, x: (dy * y,)` is that of exp.

`Value` is a node under construction with Python's operators; numbers next to it become constants of its type.
`rule` turns a function of `(dy, y, *operands)` into the `grad` cell of an operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Union

from ....dsl.record import dataclass
from ...types.sizes import Dim
from ...types.tensors import FLOATS, TensorType
from ..nodes import Builder, Node

Number = int | float | bool


class Nodes(Protocol):
    """A graph, also one that is being built."""

    def __getitem__(self, name: str, /) -> Node: ...


def constant(b: Builder, value: int | float | bool, type: TensorType) -> str:
    """A tensor of `type` that is `value` everywhere: a scalar constant, broadcast."""
    if type.dtype in FLOATS:
        value = float(value)  # 0 and 0.0 would be two constants
    c = b.emit("constant", values=(value,), type=TensorType(type.dtype))
    return b.emit("broadcast", c, shape=type.shape, axes=()) if type.shape else c


def number(g: Nodes, name: str) -> Number | None:
    """The number that a value is everywhere, if it is one: a scalar constant, or a broadcast of one."""
    n = g[name]
    while n.op == "broadcast":
        n = g[n.args[0]]
    return n.attrs["values"][0] if n.op == "constant" and not n.shape else None


@dataclass(frozen=True, slots=True)
class Value:
    b: Builder
    name: str

    @property
    def type(self) -> TensorType:
        return self.b.type(self.name)

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape

    @property
    def is_literal(self) -> bool:
        """Is it numbers that the program writes, repeated or not?"""
        node = self.b[self.name]
        while node.op == "broadcast":
            node = self.b[node.args[0]]
        return node.op == "constant"

    @property
    def number(self) -> float | None:
        """The number that this is everywhere, if it is one."""
        return number(self.b, self.name)

    @property
    def is_positive(self) -> bool:
        """Is it a number above 0, or a size?"""
        node = self.b[self.name]
        node = self.b[node.args[0]] if node.op == "broadcast" else node
        return (self.number or 0) > 0 or node.op == "size"

    @property
    def is_sum_of_squares(self) -> bool:
        """Is it made of squares by sums, views and positive numbers? Then it is 0 only where all of them are, and its
        slope is 0 there."""
        todo, seen = [self.name], set()
        while todo:
            n = self.b[todo.pop()]
            if n.name in seen:
                continue
            seen.add(n.name)
            operands = [Value(self.b, a) for a in n.args]
            match n.op:
                case "mul" | "contract" if n.args[:1] == n.args[1:] and len(set(n.attrs.get("maps", ()))) < 2:
                    pass
                case "pow" if (c := operands[1].number or 1) > 0 and c % 2 == 0:
                    pass
                case "add":
                    todo += n.args
                case "mul" | "div" if operands[1].is_positive:
                    todo.append(n.args[0])
                case "mul" if operands[0].is_positive:
                    todo.append(n.args[1])
                case "sub" if self._is_rounding(*n.args):
                    todo.append(n.args[0])
                case "reduce_sum" | "broadcast" | "reshape" | "transpose" | "slice":
                    todo.append(n.args[0])
                case _:
                    return False
        return True

    def _is_rounding(self, whole: str, part: str) -> bool:
        """Is the second the constant part of the first that a variance takes off, stop_grad(minimum(.., first))?"""
        stopped = self.b[part]
        least = self.b[stopped.args[0]] if stopped.op == "stop_grad" else stopped
        return stopped.op == "stop_grad" and least.op == "minimum" and least.args[1] == whole

    def constant(self, value: int | float | bool) -> Value:
        """`value` in the shape and dtype of this one."""
        return Value(self.b, constant(self.b, value, self.type))

    def apply(self, op: str, *others: Operand, **attrs: Any) -> Value:
        """`op` on this value and others; numbers take this value's type."""
        names = (o.name if isinstance(o, Value) else self.constant(o).name for o in others)
        return Value(self.b, self.b.emit(op, self.name, *names, **attrs))

    def __add__(self, other: Operand) -> Value:
        return self.apply("add", other)

    def __sub__(self, other: Operand) -> Value:
        return self.apply("sub", other)

    def __rsub__(self, other: float) -> Value:
        return self.constant(other).apply("sub", self)

    def __mul__(self, other: Operand) -> Value:
        return self.apply("mul", other)

    def __rmul__(self, other: float) -> Value:
        return self.constant(other).apply("mul", self)

    def __truediv__(self, other: Operand) -> Value:
        return self.apply("div", other)

    def __rtruediv__(self, other: float) -> Value:
        return self.constant(other).apply("div", self)

    def __neg__(self) -> Value:
        return self.apply("neg")

    def where(self, yes: Operand, no: Operand) -> Value:
        """This bool chooses; one of the two may be a number."""
        model = yes if isinstance(yes, Value) else no
        assert isinstance(model, Value)
        chosen = [o if isinstance(o, Value) else model.constant(o) for o in (yes, no)]
        return self.apply("where", *chosen)

    def spread(self, shape: tuple[Dim, ...], axes: tuple[int, ...]) -> Value:
        """Broadcast: axis k of this value becomes axis `axes[k]` of `shape`."""
        return self.apply("broadcast", shape=shape, axes=axes)


Operand = Union[Value, float, int]


def rule(f: Callable[..., tuple[Value | None, ...]]) -> Callable[[Builder, Node, str], tuple[str | None, ...]]:
    """`f(dy, y, *operands)` gives one adjoint per operand, None where no gradient flows."""

    def grad(b: Builder, node: Node, dy: str) -> tuple[str | None, ...]:
        operands = (Value(b, a) for a in node.args)
        return tuple(g.name if g is not None else None for g in f(Value(b, dy), Value(b, node.name), *operands))

    return grad


def rule_with_attrs(f: Callable[..., tuple[Value | None, ...]]) -> Callable[..., tuple[str | None, ...]]:
    """As `rule`, for rules that also read the attributes: `f(attrs, dy, y, *operands)`."""

    def grad(b: Builder, node: Node, dy: str) -> tuple[str | None, ...]:
        return rule(lambda d, y, *xs: f(node.attrs, d, y, *xs))(b, node, dy)

    return grad

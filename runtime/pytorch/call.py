"""One call of an operator of PyTorch, as what writes it sees it: arguments by name, and the text to write to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...compiler.types.sizes import Dim, Size
from ..call.column import Array
from ..onnx.importing.node import OPERATORS as ONNX
from ..onnx.importing.node import Node
from ..onnx.importing.refusals import Refused
from ..onnx.importing.values import Value, known, sizes

Results = Any  # a Value, or several, or what is no tensor
Writer = Callable[["Call"], Results]

OPERATORS: dict[str, Writer] = {}
_CALLED = {"scaled_dot_product_attention": "attention"}
OPSET = 21  # in which ONNX's operators are meant that a call is written as


def operator(*names: str) -> Callable[[Writer], Writer]:
    """Registers what makes text of calls of these names."""

    def register(f: Writer) -> Writer:
        OPERATORS.update(dict.fromkeys(names, f))
        return f

    return register


@dataclass(slots=True)
class Views:
    """What is only another view of a value: by name, the value and the order of its axes, or None for a new shape."""

    of: dict[str, tuple[Value, tuple[int, ...] | None]] = field(default_factory=dict)
    narrow: dict[str, Value] = field(default_factory=dict)  # the i32 that an i64 was made of
    stacked: dict[str, list[Value]] = field(default_factory=dict)  # what a value is stacked of, along axis 0


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`inputs` are the tensors among its arguments, `attributes` all of them by name. `path` is that of the module
    which calls, `dtype` that of the first result, `zeros` the names of values known to be 0."""

    path: str
    dtype: str
    views: Views
    zeros: set[str]

    def arg(self, name: str) -> Any:
        return self.attributes.get(name)

    def tensor(self, name: str) -> Value:
        value = self.attributes.get(name)
        if not isinstance(value, Value):
            raise Refused(f"`{name}` must be a tensor")
        return value

    def maybe(self, name: str) -> Value | None:
        value = self.attributes.get(name)
        return value if isinstance(value, Value) else None

    def whole(self, name: str) -> int:
        value = self.attributes.get(name)
        if not isinstance(value, int):
            raise Refused(f"`{name}` must be a number that is known, not {value}")
        return value

    def axes(self, name: str, rank: int) -> list[int]:
        """Axes from 0; all of them where none is given."""
        given = self.attributes.get(name)
        listed = [given] if isinstance(given, int) else list(given or range(rank))
        return [self.checked_axis(a, rank) for a in listed]

    def operand(self, name: str, dtype: str = "") -> Value:
        """An argument that is a tensor or a number, as one of the dtype of the result."""
        value = self.attributes.get(name)
        dtype = dtype or self.dtype
        if isinstance(value, Value):
            return self.cast(value, dtype)
        return known(sizes([value]).reshape(()) if isinstance(value, Size) else value, dtype)

    def as_onnx(self, op: str, *inputs: Value | None, results: int = 1, **attributes: Any) -> Any:
        """The same by an operator of ONNX, whose text is written already."""
        return ONNX[op](Onnx(op, self.name, OPSET, inputs, attributes, ("y",) * results, self.text, (), self.stem_))

    def layer(self, x: Value, call: str, arrays: Mapping[str, Value | None]) -> Value:
        """A layer of the library, called as the module is whose parameters it has."""
        origin = next(v.origin for v in arrays.values() if v is not None)
        head, _, last = origin.rpartition(".")
        label = head if last in ("weight", "bias") else self.path
        made = {n: v.known for n, v in arrays.items() if v is not None and v.known is not None}
        return self.text.layer(x, label or self.op, call, made)

    # --- views

    def cast(self, x: Value, dtype: str) -> Value:
        if dtype == "i32" and x.name in self.views.narrow:
            return self.views.narrow[x.name]
        y = Node.cast(self, x, dtype)
        if (x.dtype, y.dtype) == ("i32", "i64"):
            self.views.narrow[y.name] = x
        return y

    def reshaped(self, x: Value, shape: Sequence[Dim]) -> Value:
        source, order = self.views.of.get(x.name, (x, ()))
        source = source if x.name and order is None else x
        if tuple(shape) == source.shape:
            return source
        y = Node.reshaped(self, source, shape)
        self.views.of[y.name] = source, None
        return y

    def transposed(self, x: Value, order: Sequence[int]) -> Value:
        source, before = self.views.of.get(x.name, (x, None))
        if x.name and before is not None:
            order = [before[k] for k in order]
        else:
            source = x
        y = Node.transposed(self, source, order)
        if y is not source:
            self.views.of[y.name] = source, tuple(order)
        return y

    @property
    def stem_(self) -> str:
        """What its result may be called: the module that made it, or what was done."""
        return self.path or _CALLED.get(self.op, self.op)

    @property
    def stem(self) -> str:
        return self.stem_


@dataclass(frozen=True, slots=True)
class Onnx(Node):
    called: str

    @property
    def stem(self) -> str:
        return self.called


def is_learned(*values: Value | None) -> bool:
    """Whether a layer of the library can own these: parameters of f32 that only it reads. None is fine."""
    return all(
        v is None or (v.known is not None and bool(v.origin) and v.dtype == "f32" and not v.name) for v in values
    )


def array_of(tensor: Any) -> Array:
    """The numbers of a tensor, shared where they can be."""
    return np.asarray(tensor.detach().cpu().numpy())

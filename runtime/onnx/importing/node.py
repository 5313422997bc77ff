"""One node of an ONNX graph, as its operator sees it: inputs, attributes, and the text to write to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ....compiler.types.sizes import Dim, Size
from ....compiler.types.tensors import TensorType
from ...call.arrays import NUMPY
from ...call.column import Array
from .refusals import Refused
from .text import MADE_UP, Text
from .values import Value, known, number

T = TypeVar("T")
Results = Value | Sequence[Value]
Operator = Callable[["Node"], Results]

OPERATORS: dict[str, Operator] = {}  # by name; of other domains than ONNX's own `domain.name`


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Registers what makes text of nodes of these names."""

    def register(f: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, f))
        return f

    return register


@dataclass(frozen=True, slots=True)
class Node:
    """`version` is that of the operator, not of the model: the opset in which its meaning was said last."""

    op: str
    name: str
    version: int
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    outputs: tuple[str, ...]  # "" where nobody reads one
    text: Text
    once: tuple[bool, ...]  # of each input, whether nobody else reads it

    # --- what it has

    def has(self, k: int) -> bool:
        return k < len(self.inputs) and self.inputs[k] is not None

    def input(self, k: int) -> Value:
        value = self.inputs[k] if k < len(self.inputs) else None
        if value is None:
            raise Refused(f"its input {k} is missing")
        return value

    @property
    def x(self) -> Value:
        return self.input(0)

    def attribute(self, name: str, default: T) -> T:
        value: T = self.attributes.get(name, default)
        return value

    def needed(self, name: str) -> Any:
        if name not in self.attributes:
            raise Refused(f"its attribute `{name}` is missing")
        return self.attributes[name]

    def known(self, k: int, what: str) -> Array:
        """The numbers of an input that the text must know."""
        array = self.input(k).known
        if array is None:
            raise Refused(f"{what} must be known, not computed: give its value, or make it an initialiser")
        return array

    def given(self, name: str, k: int) -> list[Dim] | None:
        """A list of whole numbers that older versions have as an attribute and newer ones as an input; None without."""
        if name in self.attributes:
            listed: list[Dim] = list(self.attributes[name])
            return listed
        return self.numbers(k, f"`{name}`") if self.has(k) else None

    def numbers(self, k: int, what: str) -> list[Dim]:
        found = self.known(k, what).reshape(-1)
        if found.dtype.kind == "f" and (found != np.floor(found)).any():
            raise Refused(f"{what} must be whole numbers")
        return [n if isinstance(n, Size) else int(n) for n in found]

    def integers(self, k: int, what: str) -> list[int]:
        """As `numbers`, none of them symbolic."""
        found = self.numbers(k, what)
        if any(isinstance(n, Size) for n in found):
            raise Refused(f"{what} must be numbers, but depend on the size {next(n for n in found)}")
        return [n for n in found if isinstance(n, int)]

    def axis(self, name: str = "axis", default: int | None = None, extra: int = 0) -> int:
        """An axis of x counted from 0; `extra` where one past the last may be meant."""
        value = self.needed(name) if default is None else self.attribute(name, default)
        return self.checked_axis(value, self.x.rank + extra)

    def checked_axis(self, value: int, rank: int) -> int:
        if not -rank <= value < max(rank, 1):
            raise Refused(f"there is no axis {value}: its input has {rank} axes")
        return value % rank if rank else 0

    # --- what it writes

    @property
    def stem(self) -> str:
        """What its result may be called."""
        return self.op.lower()

    def label(self, learned: Value) -> str:
        """What a layer may be called that has learned this: as its module, or as the array, `fc.weight`, is called."""
        self.text.owners[learned.origin] += 1
        if self.text.module:
            return "_".join(self.text.module)
        head, _, last = learned.origin.rpartition(".")
        found = head if head and last in _LEARNED else learned.origin
        return found if not MADE_UP.match(found) else self.op.lower()

    def emit(self, template: str, *operands: Value) -> Value:
        return self.text.emit(template, *operands, stem=self.stem)

    def emit_whole(
        self, template: str, *operands: Value, names: int = 1, inner: Sequence[str] = ()
    ) -> tuple[Value, ...]:
        return self.text.emit_whole(template, *operands, stem=self.stem, names=names, inner=inner)

    def reshaped(self, x: Value, shape: Sequence[Dim]) -> Value:
        if tuple(shape) == x.shape:
            return x
        return self.emit(f"reshape({{0}}, {shown(shape)})", x)

    def cast(self, x: Value, dtype: str) -> Value:
        if x.dtype == dtype:
            return x
        if x.known is not None and not x.is_symbolic:
            return known(x.known.astype(NUMPY[dtype]), dtype)
        return self.emit(f"cast({{0}}, {dtype})", x)

    def transposed(self, x: Value, order: Sequence[int]) -> Value:
        x, order = self.text.untransposed(x, list(order))
        if order == list(range(x.rank)):
            return x
        y = self.emit("{0}.T" if order == [1, 0] else f"transpose({{0}}, {order})", x)
        self.text.transposed[y.name] = x, order
        return y

    def meet(self, *values: Value) -> list[Value]:
        """Operands of one elementwise expression as the language wants them: numbers as such, and equal ranks where an
        axis stretches; ONNX lets shapes meet from the last axis on, whatever their ranks."""
        rank = max(v.rank for v in values)
        if all(v.known is not None for v in values):  # one must be a tensor: `[1.0] + [2.0]` has two elements
            values = (*values[:-1], self.emit(f"cast({{0}}, {values[-1].dtype})", values[-1]))
        made: list[Value] = []
        for v in values:
            if v.is_single and not v.name and any(not w.is_single and w.rank == rank for w in values):
                assert v.known is not None
                made.append(Value(TensorType(v.dtype), number(v.known.reshape(-1)[0], v.dtype)))
            elif v.rank in (0, rank) or all(v.shape == w.shape[w.rank - v.rank :] for w in values if w.rank > v.rank):
                made.append(v if v.rank or rank == 0 or v.name else self.text.placed(v))
            else:
                made.append(self.widened(v, rank))
        return made

    def widened(self, v: Value, rank: int) -> Value:
        """With axes of size 1 in front."""
        shape = (*(1,) * (rank - v.rank), *v.shape)
        if v.known is not None and not v.name:
            return Value(TensorType(v.dtype, shape), "", v.known.reshape(shape), v.origin)
        return self.reshaped(v, shape)


_LEARNED = ("weight", "W", "w", "kernel", "bias", "b", "gamma", "beta", "scale")


def shown(shape: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, shape))}]"

"""What a value of an ONNX graph is to the text: a name in it, or numbers that are known.

Whole numbers may be sizes: an array of dtype object then holds ints and symbolic sizes, on which NumPy computes as on
any other numbers. So Shape, Gather, Concat, Reshape and what else stands between two sizes needs no word of text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ....compiler.types.sizes import Dim, Size
from ....compiler.types.tensors import FLOATS, TensorType
from ...call.arrays import NUMPY
from ...call.column import Array

MAX_LITERAL = 32  # numbers that are written out


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """`name` in the text is "" while no statement has made it; `known` are its numbers, where they are; `origin` is the
    initialiser that they are of, which may be trained. `fill` is the number that it is everywhere, where its shape is
    not known; `unsigned` words have the bits of i64."""

    type: TensorType
    name: str = ""
    known: Array | None = None
    origin: str = ""
    fill: float | None = None
    unsigned: bool = False

    @property
    def everywhere(self) -> float | None:
        """The one number that all its elements are, if they are."""
        if self.known is None or self.is_symbolic or not self.known.size:
            return self.fill
        first = self.known.flat[0]
        return float(first) if (self.known == first).all() else None

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape

    @property
    def rank(self) -> int:
        return self.type.rank

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def is_symbolic(self) -> bool:
        """Whether sizes are among its numbers that only run time knows."""
        return self.known is not None and self.known.dtype == object

    @property
    def is_learned(self) -> bool:
        """Whether it is an array that training may change: floats of an initialiser, of which one alone only counts
        where it is called as parameters are, `act.weight`, and a mask of infinities never."""
        if self.known is None or self.name or not self.origin or self.dtype not in FLOATS or self.is_symbolic:
            return False
        return (self.known.size > 1 or "." in self.origin) and bool(np.isfinite(self.known).all())

    @property
    def is_single(self) -> bool:
        """Whether it is one known number, of whatever rank, that stays what it is."""
        return self.known is not None and self.known.size == 1 and not self.is_learned

    def named(self, name: str) -> Value:
        return replace(self, name=name)


def known(array: Any, dtype: str, origin: str = "") -> Value:
    """Numbers; of sizes those that are symbolic stay so."""
    array = np.asarray(array)
    if array.dtype == object:
        if not any(isinstance(n, Size) for n in array.reshape(-1)):
            array = array.astype(NUMPY[dtype])
    else:
        array = array.astype(NUMPY[dtype], copy=False)
    return Value(TensorType(dtype, tuple(array.shape)), "", array, origin)


def sizes(values: Any) -> Array:
    """An array of sizes, of dtype object."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def number(value: Any, dtype: str) -> str:
    """One number as it is written; `value` may be a size."""
    if isinstance(value, Size):
        return f"({value})"
    if dtype == "bool":
        return "true" if value else "false"
    if dtype not in FLOATS:
        return str(int(value))
    v = float(value)
    if v != v:
        return "nan"
    if v in (float("inf"), -float("inf")):
        return "inf" if v > 0 else "-inf"
    text = repr(v)
    if dtype == "f32" and np.float32(float(short := str(np.float32(value)))) == np.float32(value):
        text = short
    return text if any(c in text for c in ".e") else text + ".0"


def factor(size: Dim) -> str:
    """A size as it stands in a product."""
    return str(size) if isinstance(size, int) else f"({size})"


def scalar(value: Any, dtype: str) -> str:
    """One number with its dtype: of f32 it is as it stands."""
    return number(value, dtype) if dtype == "f32" else f"cast({number(value, dtype)}, {dtype})"


def literal(value: Value) -> str:
    """Known numbers as a tensor of their dtype."""
    assert value.known is not None
    numbers = [number(n, value.dtype) for n in value.known.reshape(-1)]
    of_it = "{}" if value.dtype == "f32" else f"cast({{}}, {value.dtype})"
    if not value.shape:  # of `broadcast` it is a tensor, also where what reads it is all numbers
        return f"broadcast(cast({numbers[0]}, {value.dtype}), [])"
    if len(set(numbers)) <= 1 and (value.known.size > 4 or not numbers):
        first = f"cast({numbers[0] if numbers else 0}, {value.dtype})"
        return f"broadcast({first}, {list(value.known.shape)})"
    if value.is_symbolic:
        listed = f"stack([{', '.join(f'cast({n}, {value.dtype})' for n in numbers)}])"
        if evenly := _progression(value.known.reshape(-1)):
            listed = f"cast({evenly}, {value.dtype})"
        return listed if value.rank == 1 else f"reshape({listed}, {list(value.known.shape)})"
    return of_it.format(_nested(numbers, value.known.shape))


def _progression(numbers: Array) -> str | None:
    """Several sizes, each as much more than the one before it."""
    steps = {n - m for m, n in pairwise(numbers)} if len(numbers) > 2 else set()
    if len(steps) != 1 or not isinstance(step := steps.pop(), int | np.integer):
        return None
    places = f"iota({len(numbers)})"
    return f"{numbers[0]} + {places}" if step == 1 else f"{numbers[0]} + {step} * {places}"


def _nested(numbers: list[str], shape: tuple[int, ...]) -> str:
    if len(shape) > 1:
        step = len(numbers) // shape[0]
        numbers = [_nested(numbers[k * step : (k + 1) * step], shape[1:]) for k in range(shape[0])]
    return f"[{', '.join(numbers)}]"

"""Dtypes and the types of tensors: a dtype, and a size for each axis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

from ...dsl.record import dataclass
from .sizes import Dim, product

DTYPES = ("f32", "f64", "i32", "i64", "bool")  # those of the language
NARROW = ("i8", "i16")  # and those that are only stored, see `scalar.storage`
FORMATS = ("f32", "f16", "bf16", "i8")  # what parameters may be stored in
EVERY = DTYPES + NARROW
BYTES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "bool": 1, "i8": 1, "i16": 2}
FLOATS = ("f32", "f64")
INTS = ("i32", "i64")
MAX_RANK = 32  # axes of a tensor: what every NumPy takes


@dataclass(frozen=True, slots=True)
class TensorType:
    """`f32[B, 3]`; a scalar has the empty shape."""

    dtype: str
    shape: tuple[Dim, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Dim:
        return self.size * BYTES[self.dtype]

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: str) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return self.dtype + (f"[{', '.join(map(str, self.shape))}]" if self.shape else "")


@dataclass(frozen=True, slots=True)
class TupleType:
    """The type of an operator with several results; `item` takes one out."""

    items: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type = Union[TensorType, TupleType]

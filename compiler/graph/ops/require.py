"""What type rules ask of operands, each fact with the sentence that says it is not so.

All of these raise `ShapeError`: E0301 shapes disagree, E0302 dtypes disagree or the operator is not defined for
one, E0303 no such axis, E0306 sizes do not multiply to the same number, E0307 attributes do not fit the operand.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...scalar import FUNCTIONS
from ...scalar.function import BOOL, NUMBERS
from ...types.sizes import Dim
from ...types.tensors import DTYPES, FLOATS, INTS, TensorType, Type
from .op import ShapeError

_KINDS = {FLOATS: "floats", INTS: "whole numbers", NUMBERS: "numbers", BOOL: "bool", DTYPES: "any type"}


def spelled(op: str) -> str:
    """The operator as the user writes it."""
    return FUNCTIONS[op].spelled if op in FUNCTIONS else f"`{op}`"


def tensors(op: str, types: Sequence[Type], count: int | None) -> list[TensorType]:
    """`count` operands (any number when None), each a tensor."""
    if count is not None and len(types) != count:
        wanted = "1 operand" if count == 1 else f"{count} operands"
        raise ShapeError("E0307", f"{spelled(op)} takes {wanted}, but {len(types)} are given")
    for k, t in enumerate(types):
        if not isinstance(t, TensorType):
            raise ShapeError("E0307", f"operand {k + 1} of {spelled(op)} is a tuple {t}, not a tensor", (k,))
    return list(types)  # type: ignore[arg-type]


def accepted(op: str, types: Sequence[TensorType], dtypes: tuple[str, ...]) -> None:
    """Every operand has one of `dtypes`."""
    for k, t in enumerate(types):
        if t.dtype not in dtypes:
            raise ShapeError(
                "E0302", f"{spelled(op)} is defined for {_KINDS.get(dtypes, dtypes[0])}, but this is {t}", (k,)
            )


def same_dtype(op: str, types: Sequence[TensorType], first: int = 0) -> None:
    """All operands have the dtype of the first; `first` is its position, for the message."""
    for k, t in enumerate(types[1:], 1):
        if t.dtype != types[0].dtype:
            raise ShapeError(
                "E0302",
                f"operands of {spelled(op)} must have one dtype, but {types[0].dtype} is not {t.dtype}",
                (first, first + k),
                help="write the conversion: `cast(x, f32)`",
            )


def same_shape(op: str, types: Sequence[TensorType]) -> None:
    for k, t in enumerate(types[1:], 1):
        if t.shape != types[0].shape:
            message = f"operands of {spelled(op)} must have one shape, but {types[0]} is not {t}"
            raise ShapeError("E0301", message, (0, k))


def axis(op: str, t: TensorType, k: int) -> int:
    """`k`, if `t` has an axis `k`."""
    if not isinstance(k, int) or not 0 <= k < t.rank:
        has = "no axes" if t.rank == 0 else "axis 0 only" if t.rank == 1 else f"axes 0 to {t.rank - 1}"
        raise ShapeError("E0303", f"{spelled(op)} asks for axis {k}, but {t} has {has}", (0,))
    return k


def axes(op: str, t: TensorType, ks: Sequence[int]) -> tuple[int, ...]:
    """`ks`, if they are axes of `t`, sorted and distinct."""
    for k in ks:
        axis(op, t, k)
    if list(ks) != sorted(set(ks)):
        raise ShapeError("E0303", f"the axes of {spelled(op)} must be sorted and distinct, but are {list(ks)}", (0,))
    return tuple(ks)


def known(shape: Sequence[Dim]) -> tuple[int, ...]:
    """A shape whose sizes are numbers, as a reference gets it."""
    assert all(isinstance(n, int) for n in shape), shape
    return tuple(shape)  # type: ignore[arg-type]


def one_each(op: str, t: TensorType, what: str, values: Sequence[object]) -> None:
    """One value of an attribute per axis."""
    if len(values) != t.rank:
        raise ShapeError("E0307", f"{spelled(op)} has {len(values)} {what} for the {t.rank} axes of {t}", (0,))


def sizes(op: str, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """`shape`, if no size of it is negative."""
    for n in shape:
        if isinstance(n, int) and n < 0:
            raise ShapeError("E0307", f"{spelled(op)} would make an axis of size {n}")
    return tuple(shape)

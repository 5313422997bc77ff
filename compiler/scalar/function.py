"""What a scalar function is: one paragraph, of which every stage asks what it needs.

The loop IR applies it, `loops.meaning` computes it, `graph.ops.elementwise` makes an operator of it, `graph.cost`
weighs it, the language has it as a sign or a builtin, and `llvm` writes it. So a new function is a paragraph in the
file of its family.

Operands are of one dtype, except those of `select` (bool, T, T) and `cast`. Floats follow IEEE 754: NaN, infinities and
-0 are as NumPy has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...dsl.record import dataclass
from ..types.tensors import FLOATS, INTS

Number = Any  # int, float or bool
NUMBERS = FLOATS + INTS
BOOL = ("bool",)

# Of which operands it is known that none is negative or -0, when the result is neither: of none, the first, all.
ALWAYS, FIRST, EACH = slice(0), slice(1), slice(None)

FLAT = "the derivative of {} is zero or undefined everywhere"
LOGIC = "{} gives a bool, and a bool has no derivative"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """Required: name, operands, doc, weight and `llvm`; of an operator `numpy` and `grad`; `meaning` or `number`."""

    name: str
    operands: tuple[str, ...]  # their names in a call
    doc: str  # the formula, and what it is where that says nothing
    weight: int  # vector instructions per element, roughly, measured on our own code
    llvm: Callable[..., str]  # (code, *operands) -> result, as instructions; of `cast` also the dtype to go to

    # The operator of this name; there is none where `numpy` is None.
    numpy: Callable[..., Any] | None = None  # on arrays, in their own dtype, also in `longdouble`: the obvious truth
    # (dy, y, *operands) -> an adjoint for each operand, in `graph.ops.calculus.Value`s; or why there is none
    grad: Callable[..., tuple[Any, ...]] | str | None = None
    accepts: tuple[str, ...] = FLOATS
    result: str | None = None  # a dtype; None: that of the operands
    low: float = -2.0  # where samples are drawn from
    high: float = 2.0
    commutative: bool = False
    unsigned: slice | None = None  # the operands of which none may be negative, so that the result is not

    # In Python.
    number: Callable[..., Number] | None = None  # of compile-time numbers, where a builtin has this name
    meaning: Callable[..., Number] | None = None  # of run-time numbers; None: `number`, with NaN and inf for its errors
    typed: bool = False  # `meaning` is told the result's dtype first
    sign: str = ""  # what stands for it in the source, where that is not its name
    rounds: bool = False  # to whole numbers, which stay themselves
    identity: Callable[[str], Number] | None = None  # by dtype, for what folds: f(identity, x) is x

    # In LLVM.
    ulp: tuple[float, float] | None = None  # the largest error, in f32 and f64; None: it is exact, or none is promised
    shared: bool = False  # long: a function of the module, which kernels call

    @property
    def spelled(self) -> str:
        """The function as the user writes it."""
        return self.sign or f"`{self.name}`"

    def value(self, dtype: str, *operands: Number) -> Number:
        """The meaning, before it is rounded to the result's dtype."""
        meaning = self.meaning or self.number
        assert meaning is not None
        try:
            return meaning(dtype, *operands) if self.typed else meaning(*operands)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

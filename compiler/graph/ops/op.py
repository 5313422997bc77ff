"""What an operator is: one paragraph, asked by the builder, verifier, printer, autodiff, fusion, lowering and tests.

Conventions.
* `infer(types, attrs) -> Type` is used to build *and* to verify. It raises `ShapeError(message, ...)`, a plain
  exception without source; the builder (which knows the span) turns it into a diagnostic.
* Operands of elementwise operators have equal shapes: broadcasting is an explicit `broadcast` node, which is a view.
* `reference(args, attrs, type)` is NumPy and the obvious truth; it works in the dtype it is given. Every size in
  `attrs` and `type` has been made a Python int. Where an operator has a `body`, `attrs` has two more: `sizes`, the
  numbers behind symbols, and `run(body, inputs by name, sizes)`, which gives the results of a graph.
* `grad(b, node, dy) -> tuple[str | None, ...]`, one adjoint per operand (None: no gradient flows), written with
  operators through the Builder `b`; `node.name` is the result itself, `node.args` the operands. It may raise
  `NoGradient(why)`.
* `at(node, types, index, read) -> Expr` is the value at one point, for operators that have one: `types` are those of
the
  operands, `index` is a tuple of loop expressions, `read(k, index)` is operand k at a point. With it fusion needs no
  per-operator code. It is None for operators that are kernels (`contract`, `scatter_add`, `argmax` ...), for reductions
  (see `reduce`) and for leaves that are buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ....dsl.record import dataclass
from ...types.sizes import Dim
from ...types.tensors import Type

# how an operator becomes loops
LEAF = "leaf"  # input, param: a buffer that is there
MAP = "map"  # elementwise: a scalar function of operands at the same index
VIEW = "view"  # layout: the operand at another index (perhaps with a guard)
REDUCE = "reduce"  # folds axes of one operand with an associative function
CONTRACT = "sum of products"  # over an iteration domain
KERNEL = "kernel"  # statements of its own: scatter, sort
LOOP = "loop"  # a graph of its own, run many times
TUPLE = "tuple"  # item, fused: plumbing
ABSTRACT = "abstract"  # grad, checkpoint: gone before lowering


class ShapeError(Exception):
    """Operand types or attributes do not fit an operator. `operands` are the positions that disagree."""

    def __init__(self, code: str, message: str, operands: tuple[int, ...] = (), help: str | None = None):
        super().__init__(message)
        self.code, self.message, self.operands, self.help = code, message, operands, help


class NoGradient(Exception):
    """The operator has no derivative; the text says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How one axis of an operand is seen in the result: it is read at start + step * index[axis]. It is no axis of the
    result, and read at 0 or folded, where `axis` is None; stretched where `step` is 0. `part`: the result has other
    indices along it than the operand, fewer or more."""

    axis: int | None
    step: int = 1
    start: Dim = 0
    part: bool = False


# Attributes, the shapes of the first operand and of the result -> how each axis of the operand is seen; None where some
# are split or joined. What has such a cell goes axis by axis: its attribute `axes` names axes, `axis` one, and a tuple
# has one item for each. Elementwise operators need none.
Axes = Callable[[Mapping[str, Any], Sequence[Dim], Sequence[Dim]], "tuple[Seen, ...] | None"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One test of an operator: operand types (ints in shapes), attributes, and the range inputs are drawn from."""

    types: tuple[Type, ...]
    attrs: dict[str, Any]
    low: float = -2.0
    high: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    name: str
    kind: str
    doc: str  # formula and source
    infer: Callable[[Sequence[Type], Mapping[str, Any]], Type]
    reference: Callable[..., Any] | None  # (arrays, attrs, type) -> array or tuple of arrays; None for leaves
    grad: Callable[..., tuple[str | None, ...]] | str | None  # a str says why there is none; None for leaves
    at: Callable[..., Any] | None = None
    reduce: str | None = None  # for REDUCE: the loop IR's fold, "sum" "prod" "max" "min"
    flops: Callable[..., Dim] | None = None  # (types, attrs, type); None: one per result element
    samples: tuple[Sample, ...] = ()
    commutative: bool = False
    weight: int = 1  # for MAP: vector instructions per element, roughly
    unsigned: slice | None = None  # the operands of which none may be negative or -0, so that the result is neither
    # The operand whose elements, which data decide, are indices of an axis; (attrs, types) -> the size of that axis.
    rows: tuple[int, Callable[..., Dim]] | None = None
    sizes: Callable[..., Iterable[Dim]] | None = None  # (attrs, types) -> what else must not be negative
    implied: tuple[str, ...] = ()  # attributes that the text form does not write: `type`, or its `shape`, its `dtype`
    written: Callable[[Mapping[str, Any]], str] | None = None  # attributes as text, where they have their own notation
    read: Callable[[Any], dict[str, Any]] | None = None  # and back, from a reader of `graph.text`
    named: str | None = None  # for leaves: the attribute that is the node's name, where the text form does not write it
    axes: Axes | None = None

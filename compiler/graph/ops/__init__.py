"""The operators: `OPS` has every primitive by name, one paragraph each, by family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import (
    contraction,
    elementwise,
    indexing,
    layout,
    loop,
    ordering,
    panels,
    pieces,
    plumbing,
    random,
    reduction,
    windows,
    winograd,
)
from .op import Op

OPS: Mapping[str, Op] = MappingProxyType(
    {
        op.name: op
        for family in (
            plumbing,
            elementwise,
            reduction,
            layout,
            panels,
            windows,
            winograd,
            pieces,
            contraction,
            indexing,
            ordering,
            random,
            loop,
        )
        for op in family.ALL
    }
)

WIDENING = ("from_f16", "from_bf16", "from_i8")  # f32 of what parameters are stored in
PACKED = ("unpack", "unwind", *WIDENING)  # an operand as a kernel likes to read it, seen as what it is
STORED = (*PACKED, "wind", "filter_gradient")  # whose operands are read more than once, and so lie in memory

__all__ = ["OPS", "PACKED", "STORED", "WIDENING", "Op"]

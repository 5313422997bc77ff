"""The scalar functions: `FUNCTIONS` has each by name, one paragraph each, one file a family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import (
    arithmetic,
    conversion,
    error,
    exponential,
    gamma,
    hyperbolic,
    inverse,
    logic,
    power,
    random,
    remainder,
    rounding,
    storage,
    trigonometry,
)
from .function import Scalar

FAMILIES = (arithmetic, logic, rounding, remainder, exponential, power, trigonometry, inverse, hyperbolic, error, gamma,
            conversion, storage, random)  # fmt: skip
FUNCTIONS: Mapping[str, Scalar] = MappingProxyType({f.name: f for family in FAMILIES for f in family.ALL})

__all__ = ["FUNCTIONS", "Scalar"]

"""The scalar functions: `FUNCTIONS` has each by name, one paragraph each, one file a family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import arithmetic, conversion, error, exponential, inverse, logic, power, random, rounding, trigonometry
from .function import Scalar

FAMILIES = (arithmetic, logic, rounding, exponential, power, trigonometry, inverse, error, conversion, random)
FUNCTIONS: Mapping[str, Scalar] = MappingProxyType({f.name: f for family in FAMILIES for f in family.ALL})

__all__ = ["FUNCTIONS", "Scalar"]

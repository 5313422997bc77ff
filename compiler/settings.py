"""The settings of a compilation: one record from `nnc.compile` and the command line to elaboration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..dsl.record import dataclass, field
from ..dsl.source import Span
from .types.tensors import TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a program is compiled, as the caller says it. `model`: its name, where the file has several; `hyper`: values
    of its hypers; `sizes`: of sizes that parameters depend on; `dtype`: what `f32` is read as; `target_cpu`; `cache`:
    whether compiled code is kept on disk; `optimize`: whether the optimising passes run; `precise`: without what costs
    more than a few units in the last place, Winograd's algorithm; `weights_dtype`: the format in which predictions read
    parameters (see `passes.narrow`); `beside`: a text of further exports (see `elaborate.modules.Modules.beside`);
    `sources`: the names of the data sources there are, asked where a train block names one (None: any name is taken,
    and judged by who reads the data); `arrays`: the values in order of the array in a file that a constant names, given
    path, bytes, its name in an archive, that of the constant, and the type; `met`: is told what each name and call is
    worth, each time that it is met (an editor asks)."""

    model: str | None = None
    hyper: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    dtype: str = "f32"
    target_cpu: str = "native"
    cache: bool = True
    optimize: bool = True
    precise: bool = False
    weights_dtype: str = "f32"
    beside: str = ""
    sources: Callable[[], Sequence[str]] | None = None
    arrays: Callable[[str, bytes, str | None, str, TensorType], tuple[Any, ...]] | None = None
    met: Callable[[Span, Any], None] | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What compiled code depends on."""
        return (
            self.model,
            sorted(self.hyper.items()),
            sorted(self.sizes.items()),
            self.dtype,
            self.target_cpu,
            self.optimize,
            self.precise,
            self.weights_dtype,
            self.beside,
        )

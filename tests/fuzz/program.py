"""A random program: its text, the sizes it is called at, and arguments for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from nnc.compiler.graph.interpret import whole
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.types.tensors import TensorType

Sizes = Mapping[str, int]
WILD = (0.0, -0.0, np.inf, -np.inf, np.nan)


@dataclass(frozen=True)
class Program:
    """`text` defines `f`, or a model with a train block; it is called once at each of `sizes`. `values` says what float
    arguments are: "normal" ones; "whole" numbers, which tie and vanish; "wild": some are not finite, or -0."""

    text: str
    sizes: tuple[Sizes, ...] = ({},)
    values: str = "normal"
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.text}# sizes: {list(self.sizes)}, values: {self.values}, seed: {self.seed}\n"


def arguments(ports: Iterable[tuple[str, TensorType]], sizes: Sizes, program: Program) -> dict[str, np.ndarray]:
    """A value for each port, a function of its name and shape and of the seed alone."""
    return {name: _argument(name, type_, sizes, program) for name, type_ in ports}


def _argument(name: str, type_: TensorType, sizes: Sizes, program: Program) -> np.ndarray:
    shape = tuple(whole(n, sizes) for n in type_.shape)
    rng = np.random.default_rng([program.seed, crc32(name.encode())])
    match type_.dtype:
        case "bool":
            value = rng.random(shape) < 0.5
        case "i32" | "i64":
            value = rng.integers(-20, 21, shape)
        case _ if program.values == "whole":
            value = rng.integers(-2, 3, shape)
        case _:
            value = rng.normal(size=shape)
            if program.values == "wild":
                value = np.where(rng.random(shape) < 0.15, rng.choice(WILD, shape), value)
    return np.array(value, NUMPY[type_.dtype], order="C").reshape(shape)

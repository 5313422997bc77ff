"""Counter-based randomness: the number at a place is a function of key, call site and place, and of nothing else.

So the same seed gives the same numbers on any number of threads, in any order and on every machine, and a backward pass
that asks again gets the same mask. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011): Philox 2x32-10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ...loops.ir import Apply, Expr, add, i64, size_expr
from ...scalar import FUNCTIONS
from ...scalar.function import ALWAYS
from ...scalar.philox import philox_reference
from ...types.tensors import FLOATS, TensorType, Type
from . import require
from .elementwise import NUMPY
from .layout import linear
from .op import MAP, Op, Sample, ShapeError

SITE = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: odd, so that sites and keys seldom meet


def _signed(x: int) -> int:
    return (x + 2**63) % 2**64 - 2**63


def site_key(site: int) -> int:
    """What the site of a draw adds to its key."""
    return _signed(site * SITE)


def _infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (key,) = require.tensors("random", types, 1)
    if key != TensorType("i64"):
        raise ShapeError("E0302", f"the key of a random draw is an i64, but this is {key}", (0,))
    if attrs["dtype"] not in FLOATS:
        raise ShapeError("E0302", f"random draws are floats, but {attrs['dtype']} is asked for")
    return TensorType(attrs["dtype"], require.sizes("random", attrs["shape"]))


def _at(node: Any, types: Sequence[TensorType], index: tuple[Expr, ...], read: Callable[..., Expr]) -> Expr:
    key = Apply("add", (read(0, ()), i64(site_key(node.attrs["site"]))), "i64")  # wraps around
    counter = add(linear(index, node.shape), size_expr(node.attrs.get("first", 0)))
    return Apply("random", (key, counter), node.dtype)


def _reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    key = _signed(int(args[0]) + attrs["site"] * SITE)
    shape = require.known(type.shape)
    counters = np.arange(prod(shape), dtype=np.int64) + attrs.get("first", 0)
    return np.asarray(philox_reference(key, counters, type.dtype), NUMPY[type.dtype]).reshape(shape)


RANDOM = Op(
    name="random",
    kind=MAP,
    infer=_infer,
    at=_at,
    reference=_reference,
    grad=lambda b, node, dy: (None,),
    flops=lambda types, attrs, result: FUNCTIONS["random"].weight * result.size,
    weight=FUNCTIONS["random"].weight,
    unsigned=ALWAYS,
    implied=("shape", "dtype"),
    doc="Uniform in [0, 1): element i is Philox 2x32-10 at counter i under the key + `site` * SITE (see `philox`); of "
    "a part of what is drawn, at counter `first` + i",
    samples=(
        *(
            Sample((TensorType("i64"),), {"shape": s, "dtype": d, "site": k}, 0, 1000)
            for s, d, k in (((3, 4), "f32", 0), ((), "f64", 1), ((0, 2), "f32", 2), ((17,), "f64", 3))
        ),
        Sample((TensorType("i64"),), {"shape": (3, 4), "dtype": "f32", "site": 0, "first": 8}, 0, 1000),
    ),
)

ALL = (RANDOM,)

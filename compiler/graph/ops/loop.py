"""The loop at run time: `scan` runs a small graph for each value of an index.

The one idea: the index is a *size* inside the body. So a slice that begins at it is an ordinary slice, its value is an
ordinary `size`, and a kernel of the body takes it as one more size argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...types.sizes import symbols
from ...types.tensors import TensorType, TupleType, Type
from . import require
from .elementwise import NUMPY
from .op import LOOP, Op, ShapeError


def _infer(types: Sequence[Type], attrs: Any) -> TupleType:
    """Carried values first, as they are in the end; then what was collected, with the axis of the index in front."""
    body, carries, count = attrs["body"], attrs["carries"], attrs["count"]
    given = require.tensors("scan", types, None)
    inputs = [n.type for n in body if n.op == "input"]
    if inputs != given:
        wanted = ", ".join(map(str, inputs))
        raise ShapeError("E0307", f"the body of scan takes ({wanted}), but is given ({', '.join(map(str, given))})")
    require.sizes("scan", (count,))
    results = [body[v].type for _, v in body.outputs]
    if attrs["until"]:
        *results, stop = results
        if stop != TensorType("bool"):
            raise ShapeError("E0307", f"the condition that ends a scan must be a single bool, but is {stop}")
    if results[:carries] != given[:carries]:
        raise ShapeError(
            "E0307",
            f"the body of scan carries {_shown(given[:carries])} on as {_shown(results[:carries])}",
            tuple(range(carries)),
        )
    for v, t in zip(body.outputs, results, strict=False):
        if any(attrs["index"] in symbols(n) for n in t.shape):
            raise ShapeError("E0305", f"`{v[0]}`, a result of scan, is {t}, whose size depends on the turn")
    collected = tuple(t.with_shape((count, *t.shape)) for t in results[carries:])
    return TupleType((*results[:carries], *collected))


def _shown(types: Sequence[Type]) -> str:
    return f"({', '.join(map(str, types))})"


def _reference(args: Sequence[np.ndarray], attrs: Any, type: TupleType) -> tuple[np.ndarray, ...]:
    body, carries, count = attrs["body"], attrs["carries"], attrs["count"]
    inputs = [n.attrs["name"] for n in body if n.op == "input"]
    state = list(args[:carries])
    collected: list[np.ndarray] = [np.zeros(require.known(t.shape), NUMPY[t.dtype]) for t in type.items[carries:]]
    for turn in range(count):
        at = count - 1 - turn if attrs["reverse"] else turn
        given = dict(zip(inputs, [*state, *args[carries:]], strict=True))
        results = list(attrs["run"](body, given, {**attrs["sizes"], attrs["index"]: at}))
        state = results[:carries]
        for whole, part in zip(collected, results[carries:], strict=False):
            whole[at] = part
        if attrs["until"] and results[-1]:
            break
    return (*state, *collected)


SCAN = Op(
    name="scan",
    kind=LOOP,
    sizes=lambda attrs, types: (attrs["count"],),
    infer=_infer,
    reference=_reference,
    grad="a scan that stops early (`until`) runs as often as its values say",
    doc="`body` for each value of the size `index` below `count`, in falling order if `reverse`. The first `carries` "
    "operands are what the body's first inputs begin as; each turn the body's first outputs take their place. Its "
    "further inputs are the other operands, its further outputs are collected. With `until` the last output says "
    "whether to stop; what is not reached is 0",
)

ALL = (SCAN,)

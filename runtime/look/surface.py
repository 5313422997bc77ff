"""The loss around trained parameters, along two directions: how sharp the valley is in which training ended.

In: a model with a train block, examples. Out: the loss at each point of a square grid. A direction is drawn from the
normal distribution and then scaled filter by filter to the length of the filter it changes, so that networks of
different scale can be compared; biases and what normalisation learns stay as they are. Li, Xu, Taylor, Studer and
Goldstein, Visualizing the loss landscape of neural nets, NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import settings
from ..call.column import Array
from ..call.messages import argument_error
from ..model import Model


@dataclass(frozen=True, slots=True)
class Surface:
    """`loss[i, j]` is that of parameters + `at[i]` first direction + `at[j]` second direction."""

    at: Array
    loss: Array


def directions(net: Model, seed: int = 0) -> tuple[dict[str, Array], dict[str, Array]]:
    """Two directions, by the path of each weight that has filters along its first axis."""
    random = np.random.default_rng(settings.seed(seed))
    weights = {v.path: net.params[v.path] for v in net.manifest.variables if v.role == "weight" and len(v.shape) > 1}

    def one() -> dict[str, Array]:
        return {path: _as_long_as(np.asarray(random.standard_normal(w.shape)), w) for path, w in weights.items()}

    return one(), one()


def _as_long_as(d: Array, w: Array) -> Array:
    """Each filter of `d` as long as that of `w`."""
    axes = tuple(range(1, w.ndim))
    length = np.sqrt(np.sum(d**2, axes, keepdims=True))
    scaled: Array = d * (np.sqrt(np.sum(w.astype(float) ** 2, axes, keepdims=True)) / np.maximum(length, 1e-300))
    return scaled


def surface(
    net: Model,
    *args: Any,
    span: float = 1.0,
    points: int = 21,
    seed: int = 0,
    batch: int | None = None,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> Surface:
    """The loss in inference mode over `args` (without: what is held out of the train block's data), on a grid of
    `points` x `points` from -span to span. The model's parameters are afterwards as they were."""
    settings.real("span", span, above=0)
    at = np.linspace(-span, span, settings.integer("points", points, 1)) if points != 1 else np.zeros(1)
    first, second = directions(net, seed)
    before = {path: net.params[path] for path in first}
    loss = np.zeros((points, points))
    try:
        for k, (i, j) in enumerate(np.ndindex(points, points)):
            _move(net, before, {p: at[i] * first[p] + at[j] * second[p] for p in first})
            loss[i, j] = _loss(net, args, batch)
            progress(k + 1, loss.size)
    finally:
        for path, value in before.items():
            net.params[path] = value
    return Surface(at, loss)


def _move(net: Model, before: Mapping[str, Array], by: Mapping[str, Array]) -> None:
    for path, value in before.items():
        net.params[path] = (value + by[path]).astype(value.dtype)


def _loss(net: Model, args: tuple[Any, ...], batch: int | None) -> float:
    found = net.evaluate(*args, batch=batch)
    if "loss" not in found:
        raise argument_error("E0609", f"the train block of {net.name} has no `loss`")
    return float(found["loss"])

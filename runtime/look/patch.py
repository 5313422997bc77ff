"""One patch for every image: stuck anywhere on a picture, it makes a classifier blind, or see what is not there.

In: a model whose first result is a score for each class, images and labels to learn from. Out: a patch, which `stick`
puts on any images. It is learned over many images and random placements at once, so it deceives on images and in places
that it has not seen. Brown, Mané, Roy, Abadi and Gilmer, Adversarial patch, NIPS workshop 2017; over placements:
Athalye, Engstrom, Ilyas and Kwok, ICML 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import settings
from ..call.column import Array
from ..call.messages import argument_error
from ..model import Model
from .attacks import attacked, goal
from .inside import Subject, classifier, examples, probe

TURN, SIZE = 0.35, 1.1  # radians to either side, and how much larger or smaller


@dataclass(frozen=True, slots=True)
class Patch:
    """`pixels` `[C, side, side]`; `loss[k]` was that of the images of step k before it."""

    pixels: Array
    loss: Array


def patch(
    net: Model,
    x: Any,
    label: Any,
    *,
    target: int | None = None,
    side: int | None = None,
    steps: int = 200,
    rate: float = 0.05,
    batch: int = 64,
    low: float = 0.0,
    high: float = 1.0,
    seed: int = 0,
) -> Patch:
    """A patch whose images are read as `target`, or as anything but their label. In each step `batch` of the images get
    it, each turned, scaled and moved half-way to the edge by chance; then each of its elements moves along the sign of
    the gradient, by `rate` times `high` - `low`, less from step to step. side: in pixels (half of the image's)."""
    s, x, label = attacked(net, x, label, low, high)
    side = _side(s, side)
    settings.integer("steps", steps, 1)
    settings.real("rate", rate, above=0)
    batch = min(settings.integer("batch", batch, 1), len(x))
    label, sign = goal(s, label, target)
    channels, _, _ = s.image()
    type = f"{s.input.dtype}[{channels}, {side}, {side}]"
    twin = probe(
        s,
        f"""
    export look(x: {s.input.type}, label: i32[{s.input.shape[0]}], patch: {type}, rate: f32,
            low: f32, high: f32, key: i32) -> (next: {type}, loss: f32) {{
        loss = mean(cross_entropy(scores({_stuck(s, side)}), label))
        next = clip(patch + rate * sign(grad(loss, patch)), low, high)
    }}""",
    )
    random = np.random.default_rng(settings.seed(seed))
    pixels, losses = np.full((channels, side, side), (low + high) / 2, x.dtype), []
    for k in range(steps):
        rows = random.choice(len(x), batch, replace=False)
        by = sign * rate * (high - low) * (1 - k / steps)
        pixels, loss = twin.call("look", x[rows], label[rows], pixels, by, low, high, seed * steps + k)
        losses.append(float(loss))
    return Patch(np.asarray(pixels), np.array(losses))


def stick(net: Model, x: Any, pixels: Any, *, seed: int = 0) -> Array:
    """Images with a patch on each, in places that no step of `patch` has seen."""
    s = classifier(net)
    side = _side(s, np.shape(pixels)[-1])
    type = f"{s.input.dtype}[{s.image()[0]}, {side}, {side}]"
    twin = probe(s, f"export look(x: {s.input.type}, patch: {type}, key: i32) -> {s.input.type} = {_stuck(s, side)}")
    found: Array = twin.call("look", examples(s, x), pixels, -1 - settings.seed(seed))
    return found


def _side(s: Subject, side: int | None) -> int:
    _, height, width = s.image()
    if not isinstance(height, int) or not isinstance(width, int):
        raise argument_error("E0602", f"a patch needs images of known size, but `{s.input.name}` is {s.input.type}")
    most = min(height, width)
    return settings.integer("the side of a patch", max(1, most // 2) if side is None else side, 1, most)


def _stuck(s: Subject, side: int) -> str:
    """`x` with `patch` on each image, in `.nn`."""
    _, height, width = s.image()
    places = f"{TURN}, {SIZE}, {(height - side) / 4}, {(width - side) / 4}"
    return s.inputs(f"stick({s.images('x')}, patch, {places}, key)")

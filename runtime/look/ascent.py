"""Following a gradient with respect to the input: saliency, and activation maximisation (DeepDream).

In: a model, an input. Out: inputs of the same shape. Formulas and sources stand in `dsl/std/inputs.nn`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import settings
from ..call.column import Array
from ..call.messages import argument_error
from ..model import Model
from .inside import Subject, check_unit, classifier, examples, labelled, labels, layer, probe, subject


def saliency(net: Model, x: Any, label: Any) -> Array:
    """|d loss / d x| for each example, shaped like `x`; the loss is the cross-entropy of the model's scores."""
    s = classifier(net)
    x = examples(s, x)
    found: Array = labelled(s, "saliency(scores, x, label)").call("look", x, labels(s, x, label))
    return found


@dataclass(frozen=True, slots=True)
class Dream:
    """`x` is shaped like the model's input, `objective` has the value before each step and after the last."""

    x: Array
    objective: Array


def dream(
    net: Model,
    name: str | None = None,
    unit: int | None = None,
    *,
    x: Any = None,
    steps: int = 100,
    rate: float = 0.01,
    jitter: int = 0,
    smooth: float = 0.0,
    views: int = 1,
    low: float | None = None,
    high: float | None = None,
    seed: int = 0,
) -> Dream:
    """Change an input so that a unit answers more: gradient ascent, each step by `rate` for the average element.

    name: a layer or a labelled call; without one, the model's scores. The objective is the mean of a unit (along the
    second axis), or without `unit` the mean square of all (DeepDream). x: where to begin; without it noise around the
    middle of `low` and `high`, by `seed`. jitter: move the image by up to so many pixels, another way in each step, so
    that what appears does not depend on the grid. smooth: so many times as far as along the objective an image goes
    to where its neighbouring pixels differ less (total variation). views: the objective is that of so many copies, each
    turned, scaled and moved a little by chance, so that what appears is seen from everywhere. With either, steps become
    shorter to the end. low, high: keep every element between them.
    """
    s = subject(net)
    settings.integer("steps", steps, 0)
    settings.integer("jitter", jitter, 0)
    settings.integer("views", views, 1)
    settings.real("smooth", smooth, least=0)
    settings.real("rate", rate, above=0)
    if low is not None and high is not None:
        settings.ends(low, high)
    path, type = (s.scores, s.output.type) if name is None else layer(net, name)
    k = 0 if unit is None else check_unit(path, type, unit)
    seen = "x"
    if views > 1:
        seen = s.inputs(f"views({s.images('x')}, {views}, {s.motion()}, key)")
    step = f"ascend_smoothly(objective, x, total_variation({s.images('x')}), rate, smooth)" if smooth else ""
    twin = probe(
        s,
        f"""
    export look(x: {s.input.type}, unit: i32, rate: f32, smooth: f32, key: i32) ->
            (next: {s.input.type}, objective: f32) {{
        result = scores({seen})
        value = {"result" if name is None else path}
        objective = {"mean(value^2)" if unit is None else "mean(value[:, unit])"}
        next = {step or "ascend(objective, x, rate)"}
    }}""",
    )
    random = np.random.default_rng(settings.seed(seed))
    x = examples(s, _noise(s, random, low, high) if x is None else x)
    space = tuple(range(2, len(s.input.shape)))
    objective = []
    for key in range(steps):
        shorter = 1 - key / steps if smooth or views > 1 else 1.0
        moved = random.integers(-jitter, jitter + 1, len(space)) if jitter else np.zeros(len(space), int)
        x, value = twin.call("look", np.roll(x, moved, space), k, rate * shorter, smooth, key)
        x = np.roll(x, -moved, space)
        if low is not None or high is not None:
            x = np.clip(x, low, high)
        objective.append(float(value))
    objective.append(float(twin.call("look", x, k, rate, smooth, steps).objective))
    return Dream(np.asarray(x), np.array(objective))


def _noise(s: Subject, random: np.random.Generator, low: float | None, high: float | None) -> Array:
    free = [a for a in s.axes if not isinstance(a, int)]
    if free:
        raise argument_error("E0604", f"`{s.input.name}` is {s.input.type}: an image `x` to begin with says how large")
    middle, width = ((low + high) / 2, high - low) if low is not None and high is not None else (0.0, 1.0)
    return random.normal(middle, width / 10, (1, *s.axes)).astype(np.float32)

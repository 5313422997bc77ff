"""The images that `nnc look` looks at: examples of the train block's data, or a picture."""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..call.column import Array
    from ..model import Model

LEARNED = 2000  # images that a patch is learned from


def held_out(net: Model, count: int | None) -> list[Array]:
    """The first examples that the train block's data hold out, or of all."""
    return [c[:count] for c in net.load_dataset().for_evaluation(net.train_spec.inputs, net.entry("evaluate").wants)]


def learned(net: Model) -> tuple[Array, Array]:
    """Examples of the train block's data to learn from, evenly spaced, and their labels."""
    spec, call = net.train_spec, net.entry("train")
    columns = net.load_dataset().for_training(spec.inputs, call.wants)
    rows = slice(None, None, max(1, len(columns[0]) // LEARNED))
    return labelled(net, dict(zip(spec.inputs, (c[rows] for c in columns), strict=True)))


def labelled(net: Model, columns: dict[str, Array]) -> tuple[Array, Array]:
    """The images among columns, and their classes: those that are given, or what the model says."""
    from .. import look

    x = columns.pop(look.subject(net).input.name)
    found = [c for c in columns.values() if c.ndim == 1 and c.dtype.kind in "iu"]
    return x, found[0] if found else look.scores(net, x).argmax(-1)


def images(net: Model, examples: int, image: str | None, low: float, high: float) -> tuple[Array, Array]:
    """Images and their labels: some of the held-out examples, or a file and what the model says of it."""
    from .. import look

    if image is not None:
        x = picture_of(net, image, low, high)
        return x, look.scores(net, x).argmax(-1)
    return labelled(net, dict(zip(net.train_spec.inputs, held_out(net, examples), strict=True)))


def picture_of(net: Model, path: str, low: float, high: float) -> Array:
    """An image file as a batch of one, black `low` and white `high`."""
    from .. import look
    from ..data.pictures import picture

    axes = look.subject(net).axes
    space = axes[-2:] if len(axes) > 1 else [isqrt(axes[0])] * 2 if isinstance(axes[0], int) else []
    size = (space[0], space[1]) if len(space) == 2 and all(isinstance(n, int) for n in space) else None
    x = low + (high - low) * picture(Path(path), len(axes) != 3 or axes[0] == 1, size)
    return x.reshape(1, -1) if len(axes) == 1 else x[None] if len(axes) == 3 else x

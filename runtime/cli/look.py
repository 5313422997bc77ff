"""Commands that look into a trained network: `nnc look WHAT FILE -o picture.png`. FILE is a .nn file or a run's folder;
the pictures are drawn with matplotlib."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import wraps
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import Program
from .show import say
from .train import run_options, trained

if TYPE_CHECKING:
    from ..call.column import Array
    from ..model import Model


@click.group()
def look() -> None:
    """Look into a trained network.

    Its filters, what its layers see and want to see, what deceives it, how its loss lies: each as a picture.
    """


def _command(f: Any) -> Any:
    """A command that gets the trained model and where the picture goes."""

    @look.command(name=f.__name__)
    @run_options
    @click.option("-o", "--output", required=True, metavar="PNG", help="Where the picture goes.")
    @click.option("--threads", type=click.IntRange(1, 1024))
    @wraps(f)
    def command(program: Program, weights: str | None, output: str, threads: int | None, **rest: Any) -> None:
        from ..look import figure

        figure.new_figure(1, 1)  # says at once that matplotlib is not there
        f(trained(program, weights, threads, warn=f.__name__ != "rates"), Path(output), **rest)
        say(output)

    return command


def _seen(f: Any) -> Any:
    """Options that say which images are looked at."""
    f = click.option("--high", default=1.0, help="What white is (default: 1).")(f)
    f = click.option("--low", default=0.0, help="What black is (default: 0).")(f)
    f = click.option("--image", metavar="FILE", help="A picture instead of examples.")(f)
    return click.option(
        "--examples", default=8, type=click.IntRange(1, 256), help="How many of the held-out examples (default: 8)."
    )(f)


@look.command()
@run_options
def layers(program: Program, weights: str | None) -> None:
    """The inner values, which --layer can name."""
    from ..look import inner_types
    from .show import print_table

    net = trained(program, weights, None, warn=False)
    rows = [(path.removeprefix(f"{net.name}."), str(type)) for path, type in inner_types(net).items()]
    print_table(("layer", "value"), rows, left=2)


@_command
@click.option("--layer", required=True, metavar="NAME", help="A layer (`nnc look layers` lists them).")
def filters(net: Model, output: Path, layer: str) -> None:
    """The weights of a layer, filter by filter.

    Red is above zero, blue below; where the filters see three colours, they are shown as colours.
    """
    from .. import look
    from ..look import figure

    w = look.filters(net, layer)
    inputs = look.subject(net).axes
    if w.ndim == 2 and w.shape[1:] != tuple(inputs) and _size(inputs) == w.shape[1]:
        w = w.reshape(-1, *inputs)
    _draw(figure.pictures(w), output, signed=True)


def _size(axes: tuple[Any, ...]) -> int:
    from math import prod

    return prod(axes) if all(isinstance(a, int) for a in axes) else -1


@_command
@_seen
@click.option("--layer", required=True, metavar="NAME", help="A layer (`nnc look layers` lists them).")
def activations(net: Model, output: Path, layer: str, **seen: Any) -> None:
    """What a layer makes of images.

    Of each the image itself, then a picture for each channel.
    """
    import numpy as np

    from .. import look
    from ..look import figure

    x, _ = _images(net, **seen)
    found = look.activations(net, x, layer)
    rows = []
    for image, value in zip(figure.pictures(x), found, strict=True):
        rows += [image, *figure.pictures(value[None] if value.ndim != 3 else value[:, None])]
    each = len(rows) // len(x)
    _draw(rows, output, columns=each if each <= 33 else None)
    say(f"{layer}: {found.shape[1:]}, from {np.min(found):.3g} to {np.max(found):.3g}")


@_command
@_seen
def saliency(net: Model, output: Path, **seen: Any) -> None:
    """How much each pixel of an image matters.

    |d loss / d pixel|, the loss that of the label; the largest over channels.
    """
    import numpy as np

    from .. import look
    from ..look import figure

    x, label = _images(net, **seen)
    found = look.saliency(net, x, label)
    most = np.array([np.minimum(s, np.quantile(s, 0.995)) for s in (found.max(1) if found.ndim == 4 else found)])
    _draw([*figure.pictures(x), *figure.pictures(most)], output, columns=len(x), titles=[str(k) for k in label])


@_command
@click.option("--layer", metavar="NAME", help="A layer (default: the model's scores).")
@click.option(
    "--unit",
    "units",
    type=int,
    multiple=True,
    help="A unit or class; may be repeated (default: the classes, or of a layer everything at once).",
)
@click.option("--image", metavar="FILE", help="A picture to begin with (default: noise).")
@click.option("--steps", default=100, type=click.IntRange(min=0))
@click.option("--rate", default=0.01, help="How far the average pixel moves in a step (default: 0.01).")
@click.option("--jitter", default=0, type=click.IntRange(min=0), help="Pixels by which a step may move the image.")
@click.option("--low", default=0.0, help="The least value of a pixel (default: 0).")
@click.option("--high", default=1.0, help="The greatest (default: 1).")
@click.option("--seed", default=0)
def dream(
    net: Model,
    output: Path,
    layer: str | None,
    units: tuple[int, ...],
    image: str | None,
    low: float,
    high: float,
    **settings: Any,
) -> None:
    """What a unit, a class or a whole layer would like to see.

    Activation maximisation, and of a whole layer DeepDream.
    """
    import numpy as np

    from .. import look
    from ..look import figure

    x = None if image is None else _picture(net, image, low, high)
    classes = look.subject(net).output.shape[-1]
    chosen: list[int | None] = [*units] or (
        [None] if layer is not None or not isinstance(classes, int) else [*range(min(classes, 16))]
    )
    found = []
    for unit in chosen:
        d = look.dream(net, layer, unit, x=x, low=low, high=high, **settings)
        found.append(d.x)
        what = f"unit {unit}" if unit is not None else "all of it"
        still = "; nothing moves it here: try another --seed or --image" if np.ptp(d.objective) == 0 else ""
        say(f"{layer or 'scores'}, {what}: {d.objective[0]:.4g} -> {d.objective[-1]:.4g}{still}")
    _draw(
        figure.pictures(np.concatenate(found)),
        output,
        ends=(low, high),
        titles=[str(u) for u in chosen if u is not None],
    )


ATTACKS = ("fgsm", "pgd", "guided-pixel", "random-pixel", "searched-pixel")


@_command
@_seen
@click.option("--by", type=click.Choice(ATTACKS), default="fgsm", help="The method (default: fgsm).")
@click.option("--eps", default=0.1, help="How far fgsm and pgd move a pixel (default: 0.1).")
@click.option("--steps", default=10, type=click.IntRange(min=1), help="Of pgd.")
@click.option("--tries", default=10, type=click.IntRange(min=1), help="Pixels that guided and random try.")
@click.option("--seed", default=0)
def attack(
    net: Model,
    output: Path,
    by: str,
    eps: float,
    steps: int,
    tries: int,
    seed: int,
    low: float,
    high: float,
    **seen: Any,
) -> None:
    """Images changed so that they are read differently.

    Before and after, with what the model says of them.
    """
    import numpy as np

    from .. import look
    from ..look import figure

    x, label = _images(net, low=low, high=high, **seen)
    match by:
        case "fgsm":
            y = look.fgsm(net, x, label, eps, low=low, high=high)
        case "pgd":
            y = look.pgd(net, x, label, eps, steps=steps, low=low, high=high)
        case "guided-pixel":
            y = look.guided_pixel(net, x, label, tries=tries, low=low, high=high).x
        case "random-pixel":
            y = look.random_pixel(net, x, label, tries=tries, low=low, high=high, seed=seed).x
        case _:
            y = look.searched_pixel(net, x, label, low=low, high=high, seed=seed).x
    before, after = (look.scores(net, a).argmax(1) for a in (x, y))
    say(f"right before {np.mean(before == label):.1%}, after {np.mean(after == label):.1%} of {len(x)}")
    _draw(
        [*figure.pictures(x), *figure.pictures(y)],
        output,
        columns=len(x),
        titles=[str(k) for k in (*before, *after)],
        ends=(low, high),
    )


@_command
@click.option("--points", default=21, type=click.IntRange(min=1), help="Along each direction (default: 21).")
@click.option("--span", default=1.0, help="How far, in lengths of the filters (default: 1).")
@click.option("--examples", type=click.IntRange(min=1), help="How many of the held-out examples (default: all).")
@click.option("--batch", type=click.IntRange(min=1), help="Examples at a time.")
@click.option("--seed", default=0, help="Of the directions.")
def surface(net: Model, output: Path, examples: int | None, **settings: Any) -> None:
    """The loss around the parameters.

    Along two random directions that are scaled filter by filter (Li et al., 2018).
    """
    from .. import look
    from ..look import figure

    arrays = _held_out(net, examples)
    found = look.surface(net, *arrays, progress=_counted, **settings)
    figure.surface(found, output, net.name)
    say(f"loss {found.loss.min():.4g} to {found.loss.max():.4g} over {len(arrays[0])} examples")


def _counted(done: int, points: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {points} points", end="" if done < points else "\n", file=sys.stderr)


@_command
@click.option("--low", default=1e-6, help="The first rate (default: 1e-6).")
@click.option("--high", default=1.0, help="The last (default: 1).")
@click.option("--steps", default=100, type=click.IntRange(min=2), help="From one to the other (default: 100).")
@click.option("--batch", type=click.IntRange(min=1), help="Examples in a step (default: the train block's).")
def rates(net: Model, output: Path, **settings: Any) -> None:
    """The loss while the learning rate grows.

    The range test (Smith, 2017): where learning begins, and where it breaks.
    """
    from .. import look
    from ..look import figure

    found = look.range_test(net, **settings)
    figure.rates(found, output)
    best = found.loss.argmin()
    say(f"{len(found.rate)} steps, the least loss {found.loss[best]:.4g} at {found.rate[best]:.2g}")


def _draw(shown: Sequence[Array] | Array, output: Path, **options: Any) -> None:
    """`figure.tiles`, with a word where not all fit."""
    from ..look import figure

    figure.tiles(shown, output, **options)
    if len(shown) > figure.TILES:
        say(f"note: {len(shown)} pictures, of which the first {figure.TILES} are drawn", err=True)


# --- images -----------------------------------------------------------------------------------------------------------


def _held_out(net: Model, count: int | None) -> list[Array]:
    """The first examples that the train block's data hold out, or of all."""
    return [c[:count] for c in net.load_dataset().for_evaluation(net.train_spec.inputs, net.entry("evaluate").wants)]


def _images(net: Model, examples: int, image: str | None, low: float, high: float) -> tuple[Array, Array]:
    """Images and their labels: some of the held-out examples, or a file and what the model says of it."""
    from .. import look

    if image is not None:
        x = _picture(net, image, low, high)
        return x, look.scores(net, x).argmax(-1)
    columns = dict(zip(net.train_spec.inputs, _held_out(net, examples), strict=True))
    x = columns.pop(look.subject(net).input.name)
    found = [c for c in columns.values() if c.ndim == 1 and c.dtype.kind in "iu"]
    return x, found[0] if found else look.scores(net, x).argmax(-1)


def _picture(net: Model, path: str, low: float, high: float) -> Array:
    """An image file as a batch of one, black `low` and white `high`."""
    from .. import look
    from ..data.pictures import picture

    axes = look.subject(net).axes
    space = axes[-2:] if len(axes) > 1 else [isqrt(axes[0])] * 2 if isinstance(axes[0], int) else []
    size = (space[0], space[1]) if len(space) == 2 and all(isinstance(n, int) for n in space) else None
    x = low + (high - low) * picture(Path(path), len(axes) != 3 or axes[0] == 1, size)
    return x.reshape(1, -1) if len(axes) == 1 else x[None] if len(axes) == 3 else x

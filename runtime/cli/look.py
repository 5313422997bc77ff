"""Commands that look into a trained network: `nnc look WHAT FILE -o picture.png`. FILE is a .nn file or a run's folder;
the pictures are drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...dsl.errors import ArgumentError, error
from .options import Program
from .seen import held_out, images, learned, picture_of
from .show import print_table, say, show_result, working
from .trained import run_options, trained

if TYPE_CHECKING:
    from ..call.column import Array
    from ..model import Model


@click.group()
def look() -> None:
    """Draw what a trained network sees, and what deceives it.

    Its filters, what its layers see and want to see, what deceives it, how its loss lies: each as a picture.
    """


def _command(f: Any) -> Any:
    """A command that gets the trained model and where the picture goes, and returns what else it found."""

    @look.command(name=f.__name__)
    @run_options
    @click.option(
        "-o", "--output", metavar="PNG", help="Where the picture goes (default: NAME.png, in a run's folder)."
    )
    @click.option("--threads", type=click.IntRange(1, 1024))
    @wraps(f)
    def command(program: Program, weights: str | None, output: str | None, threads: int | None, **rest: Any) -> None:
        name = f.__name__
        with working(f"loading what draws {name}"):
            from ..look import figure

            figure.new_figure(1, 1)  # says at once that matplotlib is not there
        file = Path(program.file)
        path = Path(output or (file / f"{name}.png" if file.is_dir() else f"{file.stem}-{name}.png"))
        net = trained(program, weights, threads, warn=name != "rates")
        with working(f"drawing {name}"):
            facts = f(net, path, **rest)
        show_result({"picture": str(path), **(facts or {})}, lambda: say(str(path)))

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

    net = trained(program, weights, None, warn=False)
    found = {path.removeprefix(f"{net.name}."): str(type) for path, type in inner_types(net).items()}
    show_result(found, lambda: print_table(("layer", "value"), found.items(), left=2))


@_command
@click.option("--layer", metavar="NAME", help="A layer, of `nnc look layers` (default: the first that has filters).")
def filters(net: Model, output: Path, layer: str | None) -> dict[str, Any]:
    """The weights of a layer, filter by filter.

    Red is above zero, blue below; where the filters see three colours, they are shown as colours.
    """
    from .. import look
    from ..look import figure

    layer = look.first_with_filters(net) if layer is None else layer
    w = look.filters(net, layer)
    inputs = look.subject(net).axes
    if w.ndim == 2 and w.shape[1:] != tuple(inputs) and _size(inputs) == w.shape[1]:
        w = w.reshape(-1, *inputs)
    _draw(figure.pictures(w), output, signed=True)
    return {"layer": layer, "shape": w.shape}


def _size(axes: tuple[Any, ...]) -> int:
    from math import prod

    return prod(axes) if all(isinstance(a, int) for a in axes) else -1


@_command
@_seen
@click.option("--layer", required=True, metavar="NAME", help="A layer (`nnc look layers` lists them).")
def activations(net: Model, output: Path, layer: str, **seen: Any) -> dict[str, Any]:
    """What a layer makes of images.

    Of each the image itself, then a picture for each channel.
    """
    import numpy as np

    from .. import look
    from ..look import figure

    x, _ = images(net, **seen)
    found = look.activations(net, x, layer)
    rows = []
    for image, value in zip(figure.pictures(x), found, strict=True):
        rows += [image, *figure.pictures(value[None] if value.ndim != 3 else value[:, None])]
    each = len(rows) // len(x)
    _draw(rows, output, columns=each if each <= 33 else None)
    least, most = float(np.min(found)), float(np.max(found))
    say(f"{layer}: {found.shape[1:]}, from {least:.3g} to {most:.3g}")
    return {"layer": layer, "shape": found.shape[1:], "least": least, "most": most}


@_command
@_seen
def saliency(net: Model, output: Path, **seen: Any) -> None:
    """How much each pixel of an image matters.

    |d loss / d pixel|, the loss that of the label; the largest over channels.
    """
    import numpy as np

    from .. import look
    from ..look import figure

    x, label = images(net, **seen)
    found = look.saliency(net, x, label)
    most = np.array([np.minimum(s, np.quantile(s, 0.995)) for s in (found.max(1) if found.ndim == 4 else found)])
    _draw([*figure.pictures(x), *figure.pictures(most)], output, columns=len(x), titles=[str(k) for k in label])


@_command
@click.option(
    "--layer", "layers", metavar="NAME", multiple=True, help="A layer; may be repeated (default: the model's scores)."
)
@click.option(
    "--unit",
    "units",
    type=int,
    multiple=True,
    help="A unit or class; may be repeated (default: the classes, or of a layer everything at once).",
)
@click.option("--image", metavar="FILE", help="A picture to begin with (default: noise).")
@click.option("--steps", default=100, type=click.IntRange(min=0))
@click.option("--rate", type=float, help="How far the average pixel moves in a step (default: 0.03, of layers 0.01).")
@click.option("--jitter", default=0, type=click.IntRange(min=0), help="Pixels by which a step may move the image.")
@click.option(
    "--smooth",
    type=float,
    help="How much smooth images are preferred, beside 1 for the unit (default: 0.7; 0 for layers).",
)
@click.option(
    "--views",
    type=click.IntRange(min=1),
    help="Copies, turned and moved by chance, that count (default: 8; 1 for layers).",
)
@click.option("--low", default=0.0, help="The least value of a pixel (default: 0).")
@click.option("--high", default=1.0, help="The greatest (default: 1).")
@click.option("--seed", default=0)
def dream(
    net: Model,
    output: Path,
    layers: tuple[str, ...],
    units: tuple[int, ...],
    image: str | None,
    rate: float | None,
    smooth: float | None,
    views: int | None,
    low: float,
    high: float,
    **settings: Any,
) -> dict[str, Any]:
    """What a unit, a class or a whole layer would like to see.

    Activation maximisation, and of a whole layer DeepDream; a row for each layer. Among all images that a unit likes
    most are noisy: those of units and classes are made smooth, and such as are liked however they are held.
    """
    import numpy as np

    from .. import look
    from ..look import figure

    s = look.subject(net)
    x = None if image is None else picture_of(net, image, low, high)
    classes = s.output.shape[-1]
    every: list[int | None] = [*range(min(classes, 16))] if isinstance(classes, int) else [None]
    chosen: list[int | None] = [*units] or ([None] if layers else every)
    found, titles, facts = [], [], []
    for layer in layers or (None,):
        for unit in chosen:
            prior = unit is not None and s.is_image
            d = look.dream(
                net,
                layer,
                unit,
                x=x,
                low=low,
                high=high,
                rate=(0.03 if prior else 0.01) if rate is None else rate,
                smooth=_smoothness(s) * prior if smooth is None else smooth,
                views=(8 if prior else 1) if views is None else views,
                **settings,
            )
            found.append(d.x)
            what = f"unit {unit}" if unit is not None else "all of it"
            still = "; nothing moves it here: try another --seed or --image" if np.ptp(d.objective) == 0 else ""
            say(f"{layer or 'scores'}, {what}: {d.objective[0]:.4g} -> {d.objective[-1]:.4g}{still}")
            facts.append({"layer": layer, "unit": unit, "before": d.objective[0], "after": d.objective[-1]})
            titles.append(" ".join(str(t) for t in (layer, unit) if t is not None))
    columns = len(chosen) if len(layers) > 1 else None
    _draw(figure.pictures(np.concatenate(found)), output, ends=(low, high), titles=titles, columns=columns)
    return {"dreams": facts}


def _smoothness(s: Any) -> float:
    """Lines of a drawing are as wide as its pixels are many."""
    side = s.image()[1] if s.is_image else 0
    return 0.7 * min(1.0, side / 28) if isinstance(side, int) else 0.7


ATTACKS = ("fgsm", "pgd", "pgd-held", "patch", "guided-pixel", "random-pixel", "searched-pixel")
_MEASURED = 512  # images that a patch is tried on


@_command
@_seen
@click.option("--by", type=click.Choice(ATTACKS), default="fgsm", help="The method (default: fgsm).")
@click.option("--target", type=int, metavar="CLASS", help="What all are to be read as, by fgsm, pgd or a patch.")
@click.option("--eps", default=0.1, help="How far fgsm and pgd move a pixel (default: 0.1).")
@click.option("--steps", type=click.IntRange(min=1), help="Of pgd (default: 10) and of a patch (default: 200).")
@click.option("--side", type=click.IntRange(min=1), help="Of a patch, in pixels (default: half of the image's).")
@click.option("--tries", default=10, type=click.IntRange(min=1), help="Pixels that guided and random try.")
@click.option("--seed", default=0)
def attack(
    net: Model,
    output: Path,
    by: str,
    target: int | None,
    eps: float,
    steps: int | None,
    side: int | None,
    tries: int,
    seed: int,
    low: float,
    high: float,
    **seen: Any,
) -> dict[str, Any]:
    """Images changed so that they are read differently.

    Before and after, with what the model says of them. pgd-held deceives however an image is held; a patch is one for
    all images, stuck on each in a place of its own.
    """
    import numpy as np

    from .. import look
    from ..look import figure

    if target is not None and by.endswith("pixel"):
        raise error("E0603", f"--target goes with fgsm, pgd, pgd-held and patch, not {by}", kind=ArgumentError)
    count = seen["examples"]
    if by == "patch":
        seen["examples"] = max(count, _MEASURED)
    x, label = images(net, low=low, high=high, **seen)
    ends: dict[str, Any] = {"low": low, "high": high}
    shown: list[Array] = []
    match by:
        case "fgsm":
            y = look.fgsm(net, x, label, eps, target=target, **ends)
        case "pgd":
            y = look.pgd(net, x, label, eps, target=target, steps=steps or 10, **ends)
        case "pgd-held":
            y = look.pgd_held(net, x, label, eps, target=target, steps=steps or 10, seed=seed, **ends)
        case "patch":
            taught = (x, label) if seen["image"] is not None else learned(net)
            found = look.patch(net, *taught, target=target, side=side, steps=steps or 200, seed=seed, **ends)
            y = look.stick(net, x, found.pixels, seed=seed)
            shown = [*figure.pictures(found.pixels[None])[:1]]
        case "guided-pixel":
            y = look.guided_pixel(net, x, label, tries=tries, **ends).x
        case "random-pixel":
            y = look.random_pixel(net, x, label, tries=tries, seed=seed, **ends).x
        case _:
            y = look.searched_pixel(net, x, label, seed=seed, **ends).x
    before, after = (look.scores(net, a).argmax(1) for a in (x, y))
    facts = {
        "examples": len(x),
        "right": float(np.mean(before == label)),
        "right_after": float(np.mean(after == label)),
    }
    say(f"right before {facts['right']:.1%}, after {facts['right_after']:.1%} of {len(x)}")
    if target is not None and np.any(others := label != target):
        say(f"read as {target}: {np.mean(after[others] == target):.1%} of {others.sum()} that are something else")
    x, y, before, after = (a[:count] for a in (x, y, before, after))
    _draw(
        [*figure.pictures(x), *figure.pictures(y), *shown],
        output,
        columns=len(x),
        titles=[*map(str, before), *(f"→ {k}" for k in after), *["the patch"] * len(shown)],
        ends=(low, high),
    )
    return facts


@_command
@click.option("--points", default=21, type=click.IntRange(min=1), help="Along each direction (default: 21).")
@click.option("--span", default=1.0, help="How far, in lengths of the filters (default: 1).")
@click.option("--examples", type=click.IntRange(min=1), help="How many of the held-out examples (default: all).")
@click.option("--batch", type=click.IntRange(min=1), help="Examples at a time.")
@click.option("--seed", default=0, help="Of the directions.")
def surface(net: Model, output: Path, examples: int | None, **settings: Any) -> dict[str, Any]:
    """The loss around the parameters.

    Along two random directions that are scaled filter by filter (Li et al., 2018).
    """
    from .. import look
    from ..look import figure

    arrays = held_out(net, examples)
    found = look.surface(net, *arrays, **settings)
    figure.surface(found, output, net.name)
    least, most = float(found.loss.min()), float(found.loss.max())
    say(f"loss {least:.4g} to {most:.4g} over {len(arrays[0])} examples")
    return {"examples": len(arrays[0]), "least": least, "most": most}


@_command
@click.option("--low", default=1e-6, help="The first rate (default: 1e-6).")
@click.option("--high", default=1.0, help="The last (default: 1).")
@click.option("--steps", default=100, type=click.IntRange(min=2), help="From one to the other (default: 100).")
@click.option("--batch", type=click.IntRange(min=1), help="Examples in a step (default: the train block's).")
def rates(net: Model, output: Path, **settings: Any) -> dict[str, Any]:
    """The loss while the learning rate grows.

    The range test (Smith, 2017): where learning begins, and where it breaks.
    """
    from .. import look
    from ..look import figure

    found = look.range_test(net, **settings)
    figure.rates(found, output, net.name)
    best = found.loss.argmin()
    say(f"{len(found.rate)} steps, the least loss {found.loss[best]:.4g} at {found.rate[best]:.2g}")
    return {"steps": len(found.rate), "loss": float(found.loss[best]), "rate": float(found.rate[best])}


def _draw(shown: Sequence[Array] | Array, output: Path, **options: Any) -> None:
    """`figure.tiles`, with a word where not all fit."""
    from ..look import figure

    figure.tiles(shown, output, **options)
    if len(shown) > figure.TILES:
        say(f"note: {len(shown)} pictures, of which the first {figure.TILES} are drawn", err=True)

"""Small changes that deceive a classifier: along the sign of the gradient, and in one pixel.

In: a model whose first result is a score for each class, images `x`, their labels. Out: changed images. Each is as
large as `x` and stays from `low` to `high`. An attack succeeds where the model no longer answers the label, or, with a
`target`, where it answers that class.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .. import settings
from ..call.column import Array
from ..extras import optional
from ..model import Model
from .inside import Subject, check_unit, classifier, examples, labelled, labels, scores

POPULATION = 400  # candidates of a search, and
GENERATIONS = 100  # how often they are changed at most (Su, Vargas and Sakurai, 2019)


def fgsm(
    net: Model, x: Any, label: Any, eps: float, *, target: int | None = None, low: float = 0.0, high: float = 1.0
) -> Array:
    """Each element moved by `eps` in the direction that raises the loss of the label, or lowers that of the target
    (`fgsm` in dsl/std/inputs.nn)."""
    s, x, label = attacked(net, x, label, low, high, eps)
    label, sign = goal(s, label, target)
    twin = labelled(s, "fgsm(scores, x, label, eps, low, high)", "eps: f32, low: f32, high: f32")
    found: Array = twin.call("look", x, label, sign * eps, low, high)
    return found


def pgd(
    net: Model,
    x: Any,
    label: Any,
    eps: float,
    *,
    target: int | None = None,
    step: float | None = None,
    steps: int = 10,
    low: float = 0.0,
    high: float = 1.0,
) -> Array:
    """`steps` steps of `fgsm` by `step` (a quarter of `eps`), each projected to within `eps` of `x`."""
    s, x, label = attacked(net, x, label, low, high, eps)
    label, sign = goal(s, label, target)
    settings.integer("steps", steps, 1)
    step = eps / 4 if step is None else settings.real("step", step, least=0)
    twin = labelled(
        s, f"pgd(scores, x, label, eps, step, {steps}, low, high)", "eps: f32, step: f32, low: f32, high: f32"
    )
    found: Array = twin.call("look", x, label, eps, sign * step, low, high)
    return found


def pgd_held(
    net: Model,
    x: Any,
    label: Any,
    eps: float,
    *,
    target: int | None = None,
    step: float | None = None,
    steps: int = 10,
    views: int = 8,
    low: float = 0.0,
    high: float = 1.0,
    seed: int = 0,
) -> Array:
    """`pgd` on the loss expected over transformations: what deceives however the image is turned, scaled and moved."""
    s, x, label = attacked(net, x, label, low, high, eps)
    settings.integer("steps", steps, 1)
    settings.integer("views", views, 1)
    label, sign = goal(s, label, target)
    step = eps / 4 if step is None else settings.real("step", step, least=0)
    motion = f"{steps}, {views}, {s.motion()}, key, low, high"
    moved = s.inputs(f"pgd_held(scores, seen, {s.images('x')}, label, eps, step, {motion})")
    more = "eps: f32, step: f32, key: i32, low: f32, high: f32"
    twin = labelled(s, moved, more, f"fn seen(x) = {s.inputs('x')}")
    found: Array = twin.call("look", x, label, eps, sign * step, settings.seed(seed), low, high)
    return found


# --- one pixel --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pixels:
    """`x`: the images, one pixel of each changed. `flipped`: where the answer is no longer the label, bool `[B]`."""

    x: Array
    flipped: Array


def guided_pixel(net: Model, x: Any, label: Any, *, tries: int = 10, low: float = 0.0, high: float = 1.0) -> Pixels:
    """Of each image the `tries` pixels are tried whose change to `low` or `high`, by channel, raises the loss most to
    first order: sum over channels of g (v - x), with g the gradient of the loss and v the end that g points to."""
    s, x, label = attacked(net, x, label, low, high)
    g = labelled(s, "grad(sum(cross_entropy(scores(x), label)), x)").call("look", x, label)
    values = np.where(g > 0, high, low).astype(x.dtype)
    gain = _by_pixel(g * (values - x)).sum(1)
    best = np.argsort(-gain, axis=1, kind="stable")[:, : settings.integer("tries", tries, 1)]
    return _try_pixels(net, x, label, best, np.take_along_axis(_by_pixel(values), best[:, None], 2))


def random_pixel(
    net: Model, x: Any, label: Any, *, tries: int = 10, low: float = 0.0, high: float = 1.0, seed: int = 0
) -> Pixels:
    """What `guided_pixel` is to be compared with: as many pixels, and an end for each channel, by chance."""
    _, x, label = attacked(net, x, label, low, high)
    random = np.random.default_rng(settings.seed(seed))
    batch, channels, pixels = _by_pixel(x).shape
    tries = min(settings.integer("tries", tries, 1), pixels)
    places = np.argsort(random.random((batch, pixels)), axis=1)[:, :tries]
    values = random.choice(np.array([low, high], x.dtype), (batch, channels, tries))
    return _try_pixels(net, x, label, places, values)


def searched_pixel(
    net: Model,
    x: Any,
    label: Any,
    *,
    population: int = POPULATION,
    generations: int = GENERATIONS,
    low: float = 0.0,
    high: float = 1.0,
    seed: int = 0,
) -> Pixels:
    """Differential evolution over place and value of one pixel, image by image, with nothing but the model's answers:
    the probability of the label is made small. Su, Vargas and Sakurai, One pixel attack for fooling deep neural
    networks, IEEE TEVC 2019. SciPy searches (E0503 where it is not installed)."""
    _, x, label = attacked(net, x, label, low, high)
    people, rounds = settings.integer("population", population, 5), settings.integer("generations", generations, 1)
    changed, flipped = x.copy(), np.zeros(len(x), bool)
    for k in range(len(x)):
        random = np.random.default_rng([settings.seed(seed), k])
        changed[k], flipped[k] = _search(net, x[k : k + 1], int(label[k]), people, rounds, (low, high), random)
    return Pixels(changed, flipped)


def _search(
    net: Model, x: Array, label: int, people: int, rounds: int, ends: tuple[float, float], random: np.random.Generator
) -> tuple[Array, bool]:
    """One image; a candidate is its place along each axis of space, then a value for each channel."""
    optimize = optional("scipy.optimize", "search", "the search for a pixel is SciPy's")
    space = x.shape[2:] or x.shape[1:]
    bounds = [*((0, n) for n in space), *[ends] * _by_pixel(x).shape[1]]
    low, high = np.transpose(bounds)

    def candidates(genes: Array) -> Array:
        place = [np.minimum(g.astype(int), n - 1) for g, n in zip(genes, space, strict=False)]
        return _replaced(x, np.ravel_multi_index(place, space)[None], genes[len(space) :].astype(x.dtype)[None])

    def probability(genes: Array) -> Array:
        logits = scores(net, candidates(genes)).astype(float)
        e = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(e[:, label] / e.sum(1))

    def deceived(genes: Array, convergence: float = 0) -> bool:
        return bool(scores(net, candidates(genes[:, None])).argmax(1)[0] != label)

    found = optimize.differential_evolution(
        probability,
        bounds,
        strategy="rand1bin",
        mutation=0.5,
        recombination=1.0,
        maxiter=rounds,
        tol=0,
        polish=False,
        init=low + (high - low) * random.random((people, len(bounds))),
        rng=random,
        vectorized=True,
        updating="deferred",
        callback=deceived,
    )
    return candidates(found.x[:, None])[0], deceived(found.x)


def _by_pixel(x: Array) -> Array:
    """`[B, C, pixels]`; of a batch of vectors each element is a pixel."""
    channels = x.shape[1] if x.ndim > 2 else 1
    return x.reshape(len(x), channels, prod(x.shape[1:]) // max(channels, 1))


def _replaced(x: Array, places: Array, values: Array) -> Array:
    """Each image once for each of its `places` `[B, tries]`, that pixel set to `values` `[B, C, tries]`."""
    batch, tries = places.shape
    many = np.repeat(_by_pixel(x)[:, None], tries, 1)
    many[np.arange(batch)[:, None], np.arange(tries), :, places] = values.transpose(0, 2, 1)
    return many.reshape(batch * tries, *x.shape[1:])


def _try_pixels(net: Model, x: Array, label: Array, places: Array, values: Array) -> Pixels:
    """The first change of each image that deceives the model, and where none does, the first."""
    many = _replaced(x, places, values)
    wrong = (scores(net, many).argmax(1) != np.repeat(label, places.shape[1])).reshape(places.shape)
    chosen = wrong.argmax(1)
    return Pixels(many.reshape(*places.shape, *x.shape[1:])[np.arange(len(x)), chosen], wrong.any(1))


def attacked(net: Model, x: Any, label: Any, low: float, high: float, eps: float = 0.0) -> tuple[Subject, Array, Array]:
    """Images and labels, checked together with what is asked."""
    s = classifier(net)
    settings.real("eps", eps, least=0)
    settings.ends(low, high)
    x = examples(s, x)
    return s, x, labels(s, x, label)


def goal(s: Subject, label: Array, target: int | None) -> tuple[Array, float]:
    """The labels whose loss is to rise, 1, or to fall, -1."""
    if target is None:
        return label, 1.0
    return np.full_like(label, check_unit("scores", s.output.type, target)), -1.0

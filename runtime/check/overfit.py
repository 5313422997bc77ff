"""The first test of a training: can it fit a handful of examples?

In: a model with data, and how many examples. Out: the losses on the way, and what stands in the way where it cannot: a
network that does not fit eight examples has a fault that more data and time will not mend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..call.arrays import bind
from ..call.column import Array
from ..call.messages import argument_error, listed
from ..data.order import split
from ..data.sources import classes_of
from ..model import Model
from ..train.sweep import rows_per_example, take_rows

FITTED = 0.05  # of the first loss: a penalty on the weights keeps it from 0
STEPS = 1000
_EVERY = 5  # steps between two looks at the loss


@dataclass(frozen=True, slots=True)
class Fit:
    """`losses` by step, in inference mode (so without dropout), the first before any step."""

    losses: dict[int, float]
    examples: int
    reasons: tuple[str, ...] = ()  # why it did not fit, as far as can be seen

    @property
    def fitted(self) -> bool:
        first, *_, last = self.losses.values()
        return last <= FITTED * first


def overfit(model: Model, count: int, steps: int, told: Callable[[int, float], None]) -> Fit:
    """Train on `count` examples of the training set, of each class its share, all of them in each step, until the loss
    is a twentieth of what it was or `steps` are done; `told(step, loss)` now and then. The parameters are trained."""
    spec, call = model.train_spec, model.entry("train")
    if "loss" not in [m.name for m in spec.metrics]:
        raise argument_error("E0609", f"{model.name} has no `loss` to fit")
    dataset = model.load_dataset()
    bound, sizes = bind("fit", call.wants, dataset.for_training(spec.inputs, call.wants))
    n = sizes.get(spec.batch_size or "", 0)
    if n < 1:
        raise argument_error("E0613", "there are no examples to fit")
    model.fit_normalization(dict(zip(spec.inputs, bound, strict=True)), dataset.train_rows)
    cut = rows_per_example(call.signature.inputs, spec) if count < n else [0] * len(bound)
    labels = [a for a, k in zip(bound, cut, strict=True) if k == 1]
    chosen = np.arange(n) if count >= n else split(n, count / n, model.seed, classes_of(labels))[1]
    arrays = [take_rows(a, n, k, chosen)[:] if k else a for a, k in zip(bound, cut, strict=True)]
    model.set_training(steps=steps)
    losses = {0: model.evaluate(*arrays)["loss"]}
    told(0, losses[0])
    for step in range(1, steps + 1):
        model.train_step(*arrays)
        if step % _EVERY and step != steps:
            continue
        losses[step] = loss = model.evaluate(*arrays)["loss"]
        told(step, loss)
        if not np.isfinite(loss) or loss <= FITTED * losses[0]:
            break
    found = Fit(losses, len(chosen))
    return found if found.fitted else Fit(losses, len(chosen), _reasons(model, arrays, losses))


def _reasons(model: Model, arrays: Sequence[Array], losses: dict[int, float]) -> tuple[str, ...]:
    values = list(losses.values())
    reasons = []
    if not np.isfinite(values[-1]):
        return ("the loss is not finite: a smaller learning rate, or `clip`",)
    silent = [path for path, g in model.gradients(*arrays).items() if not np.any(g)]
    if silent:
        reasons.append(f"no gradient arrives at {listed(silent)}")
    if (pair := _contradiction(model, arrays)) is not None:
        reasons.append(f"two of the examples are equal but want different results: {pair}")
    middle = values[len(values) // 2]
    if 0 < (values[0] - middle) / 4 < middle - values[-1]:
        reasons.append("the loss was still falling: more --epochs, or a larger learning rate")
    elif max(values[len(values) // 2 :]) > 1.5 * min(values):
        reasons.append("the loss goes up and down: a smaller learning rate")
    return tuple(reasons)


def _contradiction(model: Model, arrays: Sequence[Array]) -> str | None:
    """Two rows whose inputs are equal and whose targets are not."""
    spec = model.train_spec
    inputs = {p.name for p in model.entry("predict").signature.inputs}
    x = [a for a, n in zip(arrays, spec.inputs, strict=True) if n in inputs]
    targets = {n: a for a, n in zip(arrays, spec.inputs, strict=True) if n not in inputs}
    seen: dict[bytes, int] = {}
    for k in range(min(len(a) for a in arrays)):
        first = seen.setdefault(b"".join(a[k].tobytes() for a in x), k)
        for name, t in targets.items():
            if t[first].tobytes() != t[k].tobytes():
                return f"`{name}` is {t[first].tolist()} and {t[k].tolist()}"
    return None

"""The learning-rate range test: train for a few steps while the rate grows from tiny to large, and look at the loss.

In: a model whose train block says `optimizer = Name(lr = ...)`. Out: rates and losses. The loss begins to fall where
the rate is large enough, and rises where it is too large; a good rate lies between, where it falls fastest. Smith,
Cyclical learning rates for training neural networks, WACV 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from ...compiler.session import Session
from ...dsl import ast
from ...dsl.parser import parse
from ..call.arrays import bind
from ..call.column import Array
from ..call.messages import argument_error
from ..check.twin import twin
from ..model import Model
from ..settings import integer, real, training
from ..train.sweep import Sweep

DIVERGED = 4.0  # the test ends where the loss is so many times the best


@dataclass(frozen=True, slots=True)
class Rates:
    """`rate[k]` was that of step k, `loss[k]` the loss of its batch before it (of its batches: their mean)."""

    rate: Array
    loss: Array


def range_test(
    net: Model, *args: Any, low: float = 1e-6, high: float = 1.0, steps: int = 100, batch: int | None = None
) -> Rates:
    """One step of training for each rate, from `low` to `high` by equal factors, beginning with the model's parameters;
    the model itself is not changed. args: arrays as for `fit`, or none for the train block's data. It ends early where
    the loss is not finite or more than four times the best."""
    spec = net.train_spec
    integer("steps", steps, 2)
    low, high = real("low", low, above=0), real("high", high)
    if not low < high:
        raise argument_error("E0603", f"the rates must grow, got {low} to {high}")
    other = twin(net, text=_with_rate(net, f"{low!r} * {high / low!r}^((t - 1) / {steps - 1})"))
    other.reset()  # what the optimiser remembers
    other.variables.write({path: net.variables[path] for path in (*net.params, *net.state)})
    other.set_training(steps=steps)
    call = other.entry("train")
    arrays = call.arguments(args, {}) if args else other.load_dataset().for_training(spec.inputs, call.wants)
    bound, sizes = bind("range_test", call.wants, arrays)
    other.fit_normalization(dict(zip(spec.inputs, bound, strict=True)))
    batch = training("batch", batch, spec.batch)
    sweep = Sweep(call, bound, sizes, spec, batch, spec.metrics)
    losses: list[float] = []
    for k in range(steps):
        loss = float(np.mean([_step(other, sweep, k * spec.accumulate + n) for n in range(spec.accumulate)]))
        losses.append(loss)
        if not isfinite(loss) or loss > DIVERGED * min(losses):
            break
    return Rates(low * (high / low) ** (np.arange(len(losses)) / (steps - 1)), np.array(losses))


def _step(net: Model, sweep: Sweep, k: int) -> float:
    """Train on batch k of the epochs; its loss."""
    epoch, position = divmod(k, sweep.steps)
    order = sweep.order(net.seed, epoch)
    loss: float = net.train_step(*sweep.rows(order, position * sweep.batch))
    return loss


def _with_rate(net: Model, schedule: str) -> str:
    """The text of the program, with this schedule as the learning rate of its optimiser."""
    assert isinstance(net.session, Session)
    source = net.session.source
    trains = [d for d in parse(source).definitions if isinstance(d, ast.Train) and d.model == net.manifest.model]
    for statement in trains[0].body if trains else ():
        match statement:
            case ast.Assign(targets=(ast.Target(name="optimizer"),), value=ast.Call(arguments=arguments)):
                for a in arguments:
                    if a.name in ("lr", None):  # the first argument of every optimiser
                        return source.text[: a.value.span.start] + schedule + source.text[a.value.span.end :]
    raise argument_error("E0609", f"the train block of {net.name} names no optimizer with a learning rate `lr`")

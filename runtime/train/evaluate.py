"""The metrics of a whole set, in inference mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from ...compiler.manifest import TrainSpec
from ..call.arrays import bind
from ..call.interrupt import Watch
from ..call.messages import argument_error
from ..network import Network
from ..settings import training
from .sweep import Sweep

_WHOLE_BYTES = 256 << 20  # that an evaluation may take as one batch


def evaluate(
    network: Network, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, batch: int | None
) -> dict[str, float | int]:
    """{metric: value} over the whole set, in inference mode. Without `batch` the set is one batch where memory allows,
    so that a metric that is no mean over examples, such as r2, is that of the set; otherwise it is the mean over
    batches, weighed by their examples."""
    spec = network.train_spec
    batch = training("batch", batch, None)
    if args or kwargs:
        call = network.entry("evaluate")
        arrays: Sequence[Any] = call.arguments(tuple(network.given(call, args)), kwargs)
    else:
        arrays = network.load_dataset().for_evaluation(spec.inputs, network.entry("evaluate").wants)
    return watched(network, partial(sweep_all, evaluation(network, arrays, batch)))


def watched(
    network: Network, evaluating: Callable[[Callable[[], None]], Mapping[str, float | int]]
) -> dict[str, float | int]:
    """What an evaluation gives, which a signal ends; it is told what to call between two of its steps."""
    with network.workspace.lock:
        pool = network.workspace.pool
    with Watch(pool) as watch:
        return shown(evaluating(watch.again), network.train_spec)


def evaluation(network: Network, arrays: Sequence[Any], batch: int | None) -> Sweep:
    """A pass of `evaluate`; without `batch` as one batch if that takes little memory, else by the train block's."""
    spec, call = network.train_spec, network.entry("evaluate")
    bound, sizes = bind("evaluate", call.wants, arrays)
    if batch is None and 2 * sum(a.nbytes for a in bound) + call.arena_bytes(sizes) > _WHOLE_BYTES:
        batch = spec.batch
    sweep = Sweep(call, bound, sizes, spec, batch, [m for m in spec.metrics if not m.hidden])
    if not sweep.examples:
        raise argument_error("E0613", "there are no examples to evaluate")
    return sweep


def sweep_all(sweep: Sweep, check: Callable[[], None]) -> dict[str, float | int]:
    """The metrics of the whole set; `check` is called between chunks and may raise."""
    sweep.totals[:] = 0
    position = 0
    while position < sweep.examples:  # a metric that is not finite ends the native loop, but evaluation goes on
        start = perf_counter()
        steps, _ = sweep.run(position, sweep.chunk_end(position), None)
        position = min(sweep.examples, position + steps * sweep.batch)
        sweep.adapt(steps, perf_counter() - start)
        check()
    return sweep.results()


def shown(metrics: Mapping[str, float | int], spec: TrainSpec) -> dict[str, float | int]:
    """Without those that only `stop when` asks for."""
    hidden = {m.name for m in spec.metrics if m.hidden}
    return {k: v for k, v in metrics.items() if k not in hidden}

"""Training: epochs over a data set, with validation, stopping, progress, and nothing lost when it goes wrong.

In: a network and arrays (or the data of the train block). Out: a `History`. Each epoch is one native loop that returns
here a few times a second. Where a fit stands is a `Progress`, updated only between native calls; together with the
variables it is all that is needed to go on bit for bit, so Ctrl-C, a checkpoint in the middle of an epoch and a resume
are the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ...compiler.manifest import TrainSpec
from ...dsl.errors import ArgumentTypeError, NncError
from ..call.arrays import bind
from ..call.calls import Call
from ..call.column import Array, Rows, on_disk
from ..call.foreign import is_frame
from ..call.interrupt import Interrupt
from ..call.messages import argument_error
from ..data.frame import for_inputs
from ..data.frame import read as read_frame
from ..data.order import split
from ..data.sources import classes_of
from ..network import Network
from ..progress import History, Pace, Progress, Report
from ..settings import training
from .agreement import facts
from .evaluate import evaluation, shown, sweep_all
from .rescue import Rescue, order_of
from .stop import reason
from .sweep import HalfDone, Origin, Sweep, rows_per_example, take_rows, usual_shards

if TYPE_CHECKING:
    from ..distributed.ranks import Ranks


def fit(
    network: Network,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    validation: Any,
    epochs: int | None,
    batch: int | None,
    shuffle: bool | None,
    callbacks: Sequence[Any],
    resume: bool,
    check_nan: bool,
    shards: int | None = None,
    ranks: Ranks | None = None,
    plain: bool = False,
    trace: Path | None = None,
) -> History:
    """Train for `epochs` epochs, or with `resume` finish the fit that was interrupted: `epochs` then counts from where
    that began. With `check_nan` each metric and each variable is looked at after each step, and what is not finite is
    traced to its expression however long that takes.

    A callback is an `Observer`, or is called as `callback(history, network)` after each epoch. One that returns True
    ends training after that epoch.
    With `shards` a batch is cut into so many, which `ranks` share; see `train.shards`, also for `plain`. The last steps
    are written to `trace`.
    `validation` is a tuple of arrays like the inputs, a mapping by name, a frame, a share of the examples, or None.

    Raises NonFiniteError (the network is then as it was before the bad step) and KeyboardInterrupt on Ctrl-C (then
    `fit(..., resume=True)` goes on).
    """
    spec = network.train_spec
    wanted = training("epochs", epochs, spec.epochs)
    batch = training("batch", batch, spec.batch)
    progress = network.progress if resume else None
    if progress is not None:
        batch, shards, plain = progress.batch, progress.shards, progress.plain
    elif shards is None:
        shards = spec.shards if ranks is None else spec.shards or usual_shards(ranks.size, plain)
    if trace is not None and shards is None:
        raise argument_error("E0604", "a trace shows the shards of a batch, but this fit has no `shards`")
    call, sweep_of = _steps(network, shards, ranks, plain)
    with on_disk() if ranks is not None else nullcontext():
        arrays, held_out, origin = _examples(network, call, args, kwargs, validation)
    bound, sizes = bind("fit", call.wants, arrays)
    if sizes.get(spec.batch_size or "") == 0:
        raise argument_error("E0613", "there are no examples to train on")
    sweep = sweep_of(bound, sizes, spec, batch, spec.metrics, origin)
    if progress is None:
        done = network.epochs_done
        shuffle = spec.shuffle if shuffle is None else bool(shuffle)
        progress = Progress(
            done,
            done + wanted,
            batch,
            shuffle,
            network.seed,
            examples=sweep.examples,
            totals=[0.0] * len(spec.metrics),
            shards=shards,
            plain=plain,
        )
        if ranks is None or ranks.rank == 0:
            network.fit_normalization(dict(zip(spec.inputs, bound, strict=True)), origin.rows)
        if ranks is not None:  # one of them reads all examples
            scaled = {p: network.variables[p] for p in network.variables if p.startswith("normalize/")}
            network.variables.write(ranks.first(scaled))
    elif progress.examples != sweep.examples:
        raise argument_error("E0613", f"the interrupted fit had {progress.examples} examples, got {sweep.examples}")
    elif epochs is not None:
        progress.set_epochs(wanted)
    validating = partial(sweep_all, evaluation(network, held_out, None)) if held_out is not None else None
    if ranks is not None:
        fitted = {"batch": batch, "shards": shards, "seed": progress.seed, "last epoch": progress.last}
        ranks.same(facts(network, bound, {**fitted, "order": progress.shuffle, "sums": progress.plain}))
    running = Fit(network, validating, progress, sweep.steps, callbacks, check_nan, ranks)
    running.over(sweep)
    history = running.run()
    if trace is not None:
        sweep.write_trace(trace)
    return history


def _steps(network: Network, shards: int | None, ranks: Ranks | None, plain: bool) -> tuple[Call, Callable[..., Sweep]]:
    """The entry that examples go to, and what makes the sweep over them."""
    if shards is None and ranks is None:
        call = network.entry("train")
        return call, partial(Sweep, call)
    from .shards import Shards, stages_of

    stages = stages_of(network, shards)
    assert shards is not None
    return stages[0], partial(Shards, stages, shards=shards, ranks=ranks, plain=plain)


@contextmanager
def unlearned(network: Network) -> Iterator[None]:
    """A fit that fails before its first step leaves the network without the schema of what it was given."""
    schema, before = network.schema, network.progress
    try:
        yield
    except NncError:
        progress = network.progress
        if progress is None or progress is before or not (progress.done or progress.position):
            network.schema = schema
        raise


Validating = Callable[[Callable[[], None]], Mapping[str, float | int]]


class Fit:
    """A training that is under way, and the only one that moves its `progress` forward (`Rescue` moves it back).
    `validating` gives the metrics of what is held out, and is told what to call now and then."""

    sweep: Sweep
    rescue: Rescue

    def __init__(
        self,
        network: Network,
        validating: Validating | None,
        progress: Progress,
        steps: int,
        callbacks: Sequence[Any],
        check_nan: bool,
        ranks: Ranks | None = None,
    ):
        self.ranks = ranks
        self.network, self.validating, self.check_nan = network, validating, check_nan
        self.progress, self.callbacks = progress, callbacks
        self.history = History(progress.history, progress.stopped)
        self.before = 0  # examples of the epoch in sweeps before this one
        self.pace = Pace(progress.epoch + progress.position / max(1, progress.examples))
        network.progress = progress
        network.set_training(steps=progress.last * steps)
        with network.workspace.lock:
            self.interrupted = Interrupt(network.workspace.pool, ranks.most if ranks is not None else None)

    def over(self, sweep: Sweep, steps: int = 0) -> None:
        """What comes next is a sweep, with so many steps of the epoch before it."""
        self.sweep = sweep
        self.rescue = Rescue(self.network, sweep, self.progress, self.interrupted.watch, steps, self.check_nan)

    def run(self) -> History:
        """Train until `progress.last` epochs are done, or the program or a callback ends it."""
        with self.interrupted:
            while self.progress.epoch < self.progress.last and not self.history.stopped:
                self.network.set_training(epoch=self.progress.epoch)
                self._end_epoch(self._epoch())
                self.interrupted.check()
            self._finish()
        return self.history

    def _finish(self) -> None:
        self.rescue.finish()

    def _epoch(self) -> dict[str, float | int]:
        """Run what is left of the current epoch; the metrics of all of it."""
        self._sweep(order_of(self.progress, self.sweep, self.progress.epoch))
        return self.sweep.results()

    def _sweep(self, order: Array | None) -> None:
        """Run what is left of the sweep."""
        progress, sweep = self.progress, self.sweep
        sweep.totals[:], sweep.epoch = progress.totals, progress.epoch
        while progress.position < sweep.examples:
            self.rescue.remember()
            self._chunk(order)
            self.interrupted.check()

    def _chunk(self, order: Array | None) -> None:
        """Some steps in native code."""
        progress, sweep = self.progress, self.sweep
        stop = sweep.chunk_end(progress.position, 1 if self.check_nan else None)
        start = perf_counter()
        try:
            steps, bad = sweep.run(progress.position, stop, order)
        except (NncError, HalfDone) as e:  # a check failed or a signal came, when half of that step may have been done
            self.rescue.undo(progress.position // sweep.batch + sweep.done)
            if isinstance(e, NncError):
                raise
            return
        seconds = perf_counter() - start
        if bad is not None and (self.check_nan or self.rescue.is_lost()):
            self.rescue.explain(progress.position // sweep.batch + bad)
        if self.check_nan:
            self.rescue.finish(progress.position // sweep.batch + steps)
        stop = min(progress.position + steps * sweep.batch, stop)
        rate = (stop - progress.position) / max(seconds, 1e-9)
        progress.position, progress.totals = stop, sweep.totals.tolist()
        progress.seconds += seconds
        sweep.adapt(steps, seconds)
        if any(hasattr(c, "on_progress") for c in self.callbacks):
            done, of = self.before + stop, self.before + sweep.examples
            metrics = shown(sweep.results(done), self.network.train_spec)
            left = self.pace.left(progress.epoch + done / of, progress.last)
            self._tell("on_progress", Report(progress.epoch + 1, progress.last, done, of, metrics, rate, left))

    def _end_epoch(self, metrics: Mapping[str, float | int]) -> None:
        """Validate, write the epoch into the history, and see whether it was the last."""
        network, progress, spec = self.network, self.progress, self.network.train_spec
        row = {"epoch": progress.epoch + 1, **shown(metrics, spec)}
        if self.validating is not None:
            check = self.interrupted.check if self.ranks is None else self.interrupted.watch.again
            found = shown(self.validating(check), spec)
            row |= {f"val_{name}": value for name, value in found.items()}
        row["seconds"] = round(progress.seconds, 6)
        progress.history.append(row)
        progress.epoch += 1
        progress.position, progress.seconds, progress.totals = 0, 0.0, [0.0] * len(spec.metrics)
        network.epochs_done = progress.epoch
        network.set_training(epoch=progress.epoch)
        self.history.append(row)
        self.history.stopped = progress.stopped = reason(spec, metrics, row, progress)
        enough = self._tell("on_epoch", self.history, network)
        if self.ranks is not None:
            enough = bool(self.ranks.most(enough))
        if enough and not self.history.stopped:
            self.history.stopped = "callback"

    def _tell(self, method: str, *args: Any) -> bool:
        """Tell the callbacks, a plain function of epochs only; whether one of them says that it is enough."""
        enough = False
        for callback in self.callbacks:
            told: Callable[..., Any] | None = getattr(callback, method, None)
            if told is None and method == "on_epoch" and callable(callback):
                told = callback
            if told is not None:
                enough |= self.interrupted.tell(told, *args) is True
        return enough


def _examples(
    network: Network, call: Call, args: tuple[Any, ...], kwargs: Mapping[str, Any], validation: Any
) -> tuple[Sequence[Any], Sequence[Any] | None, Origin]:
    """The arrays to train on and to validate with, each in the order of the train block's inputs; and where the
    training examples stood in what was passed."""
    spec = network.train_spec
    if args or kwargs:
        valid: Sequence[Any] | None = None
        if len(args) == 1 and not kwargs and is_frame(args[0]):
            dataset = read_frame(args[0], spec.inputs, network.schema)
            train: Sequence[Any] = for_inputs(dataset, spec.inputs, call.wants)
            network.schema = dataset.schema
            origin = Origin(None, dataset.schema.classes if dataset.schema is not None else None)
        else:
            train, origin = call.arguments(args, kwargs), Origin()
        if validation is None and spec.validation:
            validation = spec.validation
    else:
        dataset = network.load_dataset()
        network.schema = dataset.schema
        schema = dataset.schema
        origin = Origin(dataset.train_rows, None if schema is None else schema.classes or schema.characters)
        train = dataset.for_training(spec.inputs, call.wants)
        valid = dataset.for_validation(spec.inputs, call.wants)
        if validation is None:
            return train, valid, origin
    match validation:
        case None:
            return train, None, origin
        case float() | int() if not isinstance(validation, bool) and 0 < validation < 1:
            return _hold_out(call, train, spec, float(validation), network.seed, origin)
        case tuple() | list() if len(validation) == len(call.wants):
            return train, validation, origin
        case _ if is_frame(validation):
            return train, network.given(call, (validation,)), origin
        case Mapping():
            return train, call.arguments((), validation), origin
    names = ", ".join(p.name for p in call.signature.inputs)
    raise argument_error(
        "E0604",
        f"validation must be ({names}), a mapping by name, a frame, or a share between 0 and 1",
        kind=ArgumentTypeError,
    )


def _hold_out(
    call: Call, values: Sequence[Any], spec: TrainSpec, share: float, seed: int, origin: Origin
) -> tuple[list[Rows], list[Rows], Origin]:
    """A share of the examples for validation; inputs that are the same for all examples stay whole."""
    bound, sizes = bind("fit", call.wants, values)
    n = sizes.get(spec.batch_size or "", 0)
    if n < 2:
        raise argument_error("E0613", "a share for validation needs at least two examples")
    cut = rows_per_example(call.signature.inputs, spec)
    keep, hold = split(n, share, seed, classes_of([a for a, k in zip(bound, cut, strict=True) if k == 1]))

    def take(index: Array) -> list[Rows]:
        return [take_rows(a, n, k, index) if k else a for a, k in zip(bound, cut, strict=True)]

    return take(keep), take(hold), Origin(origin.indices(keep), origin.classes)

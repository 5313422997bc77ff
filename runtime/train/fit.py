"""Training: epochs over a data set, with validation, stopping, progress, and nothing lost when it goes wrong.

In: a model and arrays (or the data of the train block). Out: a `History`. Each epoch is one native loop that returns
here a few times a second. Where a fit stands is a `Progress`, updated only between native calls; together with the
variables it is all that is needed to go on bit for bit, so Ctrl-C, a checkpoint in the middle of an epoch and a resume
are the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ...compiler.manifest import TrainSpec
from ...dsl.errors import ArgumentTypeError, NncError
from ..call.arrays import Array, bind
from ..call.calls import Call
from ..call.column import Rows
from ..call.interrupt import Interrupt, Watch
from ..call.messages import argument_error
from ..data.order import permutation, split
from ..data.sources import classes_of
from ..settings import integer
from .rescue import Rescue
from .sweep import HalfDone, Origin, Sweep, rows_per_example, take_rows

if TYPE_CHECKING:
    from ..model import Model

_WHOLE_BYTES = 256 << 20  # that an evaluation may take as one batch
_FIRST_CHUNK = 1  # batch, before it is known how long one takes
_CHUNK_SECONDS = 0.15  # how long native code runs before Python is asked again


class History(list[dict[str, Any]]):
    """One row per epoch: `epoch` (from 1), metrics, `val_` metrics, `seconds`. `stopped` says why it ended early."""

    def __init__(self, rows: Sequence[Mapping[str, Any]] = (), stopped: str = ""):
        super().__init__(map(dict, rows))
        self.stopped = stopped

    def column(self, name: str) -> list[Any]:
        """One metric over the epochs."""
        return [row[name] for row in self]

    def table(self) -> str:
        """The rows as aligned text."""
        if not self:
            return ""
        names = list(self[0])
        cells = [names, *([_cell(row.get(n)) for n in names] for row in self)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(names))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)


@dataclass(slots=True)
class Progress:
    """Where a fit stands: enough, with the variables, to go on bit for bit."""

    epoch: int  # completed since the model was made
    last: int  # the epoch after which the fit ends
    batch: int | None
    shuffle: bool
    seed: int
    position: int = 0  # examples of the current epoch that are done
    examples: int = 0  # in an epoch
    totals: list[float] = field(default_factory=list)  # of the current epoch so far
    seconds: float = 0.0  # of the current epoch so far
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None  # of what patience watches
    stale: int = 0  # epochs since it was reached
    stopped: str = ""  # why the program ended training before `last`


@dataclass(frozen=True, slots=True)
class Report:
    """What a progress display is told a few times a second."""

    epoch: int  # from 1
    last: int
    position: int
    examples: int
    metrics: Mapping[str, float | int]  # of the current epoch so far
    rate: float  # examples per second


def fit(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, validation: Any, epochs: int | None,
        batch: int | None, shuffle: bool | None, callbacks: Sequence[Any], resume: bool) -> History:
    """Train for `epochs` more epochs, or with `resume` finish the fit that was interrupted.

    A callback is called as `callback(history, model)` after each epoch, or is an object with any of the methods
    `on_epoch(history, model)` and `on_progress(report)`. One that returns True ends training after that epoch.
    `validation` is a tuple of arrays like the inputs, a mapping by name, a share of the examples, or None.

    Raises NonFiniteError (the model is then as it was before the bad step) and KeyboardInterrupt on Ctrl-C (then
    `fit(..., resume=True)` goes on).
    """
    spec = model.train_spec
    call = model.entry("train")
    epochs = spec.epochs if epochs is None else integer("epochs", epochs, 0)
    batch = spec.batch if batch is None else integer("batch", batch, 1)
    arrays, valid_arrays, origin = _data(model, args, kwargs, validation)
    bound, sizes = bind("fit", call.wants, arrays)
    progress = model.progress
    if resume and progress is not None:
        batch = progress.batch
    if sizes.get(spec.batch_size or "") == 0:
        raise argument_error("E0613", "there are no examples to train on")
    sweep = Sweep(call, bound, sizes, spec.batch_size, batch, spec.metrics, origin)
    if not (resume and progress is not None):
        done = model.epochs_done
        progress = Progress(done, done + epochs, batch, spec.shuffle if shuffle is None else bool(shuffle), model.seed,
                            examples=sweep.examples, totals=[0.0] * len(spec.metrics))
        model.fit_normalization(dict(zip(spec.inputs, bound, strict=True)), origin.rows)
    elif progress.examples != sweep.examples:
        raise argument_error("E0613", f"the interrupted fit had {progress.examples} examples, got {sweep.examples}")
    valid = _evaluation_sweep(model, valid_arrays, None) if valid_arrays is not None else None
    history = History(progress.history, progress.stopped)
    model.progress = progress
    model.set_training(steps=progress.last * sweep.steps)
    with model.workspace.lock:
        interrupted = Interrupt(model.workspace.pool)
    rescue = Rescue(model, sweep, interrupted.watch)
    with interrupted:
        while progress.epoch < progress.last and not history.stopped:
            metrics = _epoch(model, sweep, progress, rescue, callbacks, interrupted)
            row = {"epoch": progress.epoch + 1, **_shown(metrics, spec)}
            if valid is not None:
                row |= {f"val_{k}": v for k, v in _shown(_sweep_all(valid, interrupted.check), spec).items()}
            row["seconds"] = round(progress.seconds, 6)
            _finish_epoch(progress, row, sweep)
            model.epochs_done = progress.epoch
            model.set_training(epoch=progress.epoch)
            history.append(row)
            history.stopped = progress.stopped = _reason(spec, metrics, row, progress)
            if any([_told(interrupted, c, "on_epoch", history, model) for c in callbacks]) and not history.stopped:
                history.stopped = "callback"
            interrupted.check()
        rescue.finish(progress)
    return history


def _epoch(model: Model, sweep: Sweep, progress: Progress, rescue: Rescue, callbacks: Sequence[Any],
           interrupted: Interrupt) -> dict[str, float | int]:
    """Run what is left of the current epoch; the metrics of all of it."""
    model.set_training(epoch=progress.epoch)
    order = permutation(sweep.examples, progress.seed, progress.epoch) if progress.shuffle and sweep.symbol else None
    sweep.totals[:] = progress.totals
    watched = any(hasattr(c, "on_progress") for c in callbacks)
    while progress.position < sweep.examples:
        rescue.remember(progress)
        stop = min(progress.position + _chunk(sweep), sweep.examples)
        start = perf_counter()
        try:
            steps, bad = sweep.run(progress.position, stop, order)
        except (NncError, HalfDone) as e:  # a check failed or a signal came, when half of that step may have been done
            rescue.undo(progress, progress.position // sweep.batch + sweep.done)
            if isinstance(e, NncError):
                raise
            interrupted.check()
            continue
        seconds = perf_counter() - start
        if bad is not None and rescue.is_lost(sweep):
            rescue.explain(progress, progress.position // sweep.batch + bad)
        stop = min(progress.position + steps * sweep.batch, stop)
        rate = (stop - progress.position) / max(seconds, 1e-9)
        progress.position, progress.totals = stop, sweep.totals.tolist()
        progress.seconds += seconds
        _adapt(sweep, steps, seconds)
        if watched:
            report = Report(progress.epoch + 1, progress.last, stop, sweep.examples,
                            _shown(sweep.results(progress.position), model.train_spec), rate)
            for c in callbacks:
                _told(interrupted, c, "on_progress", report)
        interrupted.check()
    return sweep.results()


def _finish_epoch(progress: Progress, row: dict[str, Any], sweep: Sweep) -> None:
    progress.history.append(row)
    progress.epoch += 1
    progress.position = 0
    progress.seconds = 0.0
    progress.totals = [0.0] * len(sweep.metrics)


def _told(interrupted: Interrupt, callback: Any, method: str, *args: Any) -> bool:
    """Tell a callback; a plain function hears of epochs only."""
    told: Callable[..., Any] | None = getattr(callback, method, None)
    if told is None and method == "on_epoch" and callable(callback):
        told = callback
    return interrupted.tell(told, *args) is True if told is not None else False


def _shown(metrics: Mapping[str, float | int], spec: TrainSpec) -> dict[str, float | int]:
    hidden = {m.name for m in spec.metrics if m.hidden}
    return {k: v for k, v in metrics.items() if k not in hidden}


def _reason(spec: TrainSpec, metrics: Mapping[str, float | int], row: Mapping[str, Any], progress: Progress) -> str:
    """Why training ends after this epoch, or nothing."""
    if spec.stop is not None and evaluate_condition(spec.stop, metrics, progress.epoch):
        return "stop when"
    watched = row.get("val_loss", row.get("loss"))
    if spec.patience is not None and watched is not None:
        if progress.best is None or watched < progress.best:
            progress.best, progress.stale = watched, 0
        else:
            progress.stale += 1
        if progress.stale >= spec.patience:
            return "patience"
    return ""


_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "and": lambda a, b: bool(a and b),
    "or": lambda a, b: bool(a or b), "not": lambda a: not a, "+": lambda a, b: a + b, "*": lambda a, b: a * b,
    "-": lambda a, b: a - b, "/": lambda a, b: a / b if b else nan, "neg": lambda a: -a,
}  # fmt: skip


def evaluate_condition(expression: Any, metrics: Mapping[str, float | int], epoch: int) -> Any:
    """The value of a `stop when` expression, `["<=", ["metric", "errors"], ["const", 0]]`, over an epoch's metrics;
    `epoch` epochs are done."""
    match expression:
        case ["epoch"] | ("epoch",):
            return epoch
        case ["metric", name] | ("metric", name):
            return metrics[name]
        case ["const", value] | ("const", value):
            return value
        case [operator, *operands] | (operator, *operands):
            return _OPERATORS[operator](*(evaluate_condition(o, metrics, epoch) for o in operands))
    raise AssertionError(f"not a condition: {expression!r}")


def evaluate(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, batch: int | None
             ) -> dict[str, float | int]:
    """{metric: value} over the whole set, in inference mode. Without `batch` the set is one batch where memory allows,
    so that a metric that is no mean over examples, such as r2, is that of the set; otherwise it is the mean over
    batches, weighed by their examples."""
    spec = model.train_spec
    if batch is not None:
        batch = integer("batch", batch, 1)
    if args or kwargs:
        arrays: Sequence[Any] = model.entry("evaluate").arguments(args, kwargs)
    else:
        arrays = model.load_dataset().for_evaluation(spec.inputs, model.entry("evaluate").wants)
    sweep = _evaluation_sweep(model, arrays, batch)
    with model.workspace.lock:
        pool = model.workspace.pool
    with Watch(pool) as watch:
        return _shown(_sweep_all(sweep, watch.again), spec)


def _evaluation_sweep(model: Model, arrays: Sequence[Any], batch: int | None) -> Sweep:
    """A pass of `evaluate`; without `batch` as one batch if that takes little memory, else by the train block's."""
    spec, call = model.train_spec, model.entry("evaluate")
    bound, sizes = bind("evaluate", call.wants, arrays)
    if batch is None and 2 * sum(a.nbytes for a in bound) + call.arena_bytes(sizes) > _WHOLE_BYTES:
        batch = spec.batch
    sweep = Sweep(call, bound, sizes, spec.batch_size, batch, [m for m in spec.metrics if not m.hidden])
    if not sweep.examples:
        raise argument_error("E0613", "there are no examples to evaluate")
    return sweep


def _sweep_all(sweep: Sweep, check: Callable[[], None]) -> dict[str, float | int]:
    """The metrics of the whole set; `check` is called between chunks and may raise."""
    sweep.totals[:] = 0
    position = 0
    while position < sweep.examples:  # a metric that is not finite ends the native loop, but evaluation goes on
        start = perf_counter()
        steps, _ = sweep.run(position, min(sweep.examples, position + _chunk(sweep)), None)
        position = min(sweep.examples, position + steps * sweep.batch)
        _adapt(sweep, steps, perf_counter() - start)
        check()
    return sweep.results()


def _chunk(sweep: Sweep) -> int:
    """How many examples to run before Python is asked again."""
    return sweep.chunk or sweep.batch * _FIRST_CHUNK


def _adapt(sweep: Sweep, steps: int, seconds: float) -> None:
    """Aim the next chunk at `_CHUNK_SECONDS`, growing fourfold at most."""
    wanted = steps * _CHUNK_SECONDS / max(seconds, 1e-9)
    sweep.chunk = sweep.batch * int(max(1, min(wanted, 4 * _chunk(sweep) / sweep.batch)))


def _data(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any], validation: Any
          ) -> tuple[Sequence[Any], Sequence[Any] | None, Origin]:
    """The arrays to train on and to validate with, each in the order of the train block's inputs; and where the
    training examples stood in what was passed."""
    spec, call = model.train_spec, model.entry("train")
    if args or kwargs:
        train: Sequence[Any] = call.arguments(args, kwargs)
        valid: Sequence[Any] | None = None
        origin = Origin()
        if validation is None and spec.validation:
            validation = spec.validation
    else:
        dataset = model.load_dataset()
        model.schema = dataset.schema
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
            return _hold_out(call, train, spec.batch_size, float(validation), model.seed, origin)
        case tuple() | list() if len(validation) == len(call.wants):
            return train, validation, origin
        case Mapping():
            return train, call.arguments((), validation), origin
    names = ", ".join(p.name for p in call.signature.inputs)
    raise argument_error("E0604", f"validation must be ({names}), a mapping by name, or a share between 0 and 1",
                         kind=ArgumentTypeError)


def _hold_out(call: Call, values: Sequence[Any], symbol: str | None, share: float, seed: int, origin: Origin
              ) -> tuple[list[Rows], list[Rows], Origin]:
    """A share of the examples for validation; inputs that are the same for all examples stay whole."""
    bound, sizes = bind("fit", call.wants, values)
    if symbol is None or sizes.get(symbol, 0) < 2:
        raise argument_error("E0613", "a share for validation needs at least two examples")
    n = sizes[symbol]
    cut = [rows_per_example(p, symbol) for p in call.signature.inputs]
    keep, hold = split(n, share, seed, classes_of([a for a, k in zip(bound, cut, strict=True) if k == 1]))

    def take(index: Array) -> list[Rows]:
        return [take_rows(a, n, k, index) if k else a for a, k in zip(bound, cut, strict=True)]

    return take(keep), take(hold), Origin(origin.indices(keep), origin.classes)

"""Training and evaluating on batches that come one after another: a loader of PyTorch, or any other iterable.

In: an iterable of batches, gone through anew in each epoch; a batch is a tuple or list in the order of the train
block's inputs, a mapping by their names, or the array of a single one. Out: what whole arrays in that order, in batches
of that size, give bit for bit. Batches are gathered for a moment, and the native loop runs over what has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from ...compiler.manifest import TrainSpec
from ...dsl.errors import ArgumentTypeError, NncError
from ..call.arrays import bind, is_stream
from ..call.calls import Call
from ..call.column import Array
from ..call.foreign import is_frame, type_name
from ..call.messages import argument_error
from ..network import Network
from ..progress import History, Progress
from ..settings import training
from .evaluate import evaluation, sweep_all
from .fit import Fit, Validating
from .sweep import Origin, Sweep, rows_per_example

_BYTES = 32 << 20  # of batches that are gathered
_SECONDS = 0.15  # that are waited for more
_END = object()


def fit(
    network: Network,
    loader: Iterable[Any],
    *,
    validation: Any,
    epochs: int | None,
    callbacks: Sequence[Any],
    check_nan: bool,
) -> History:
    """Train for `epochs` epochs, each one pass through the loader, in its order. `validation` are arrays, by position
    or by name, a frame, or another loader.

    Raises as `train.fit.fit` does; E0604 for what batches do not tell: a share to hold out, how many steps there will
    be where the loader has no length and a schedule asks, and the scaling of the inputs."""
    spec = network.train_spec
    wanted = training("epochs", epochs, spec.epochs)
    _check_again(loader, wanted, "fit")
    steps = _steps(network, loader)
    _check_scaled(network)
    progress = Progress(network.epochs_done, network.epochs_done + wanted, None, False, network.seed)
    progress.totals = [0.0] * len(spec.metrics)
    validating = _validating(network, validation, wanted)
    return _Fit(network, validating, progress, steps, callbacks, check_nan).through(loader)


def evaluate(network: Network, loader: Iterable[Any], check: Callable[[], None]) -> dict[str, float | int]:
    """The metrics of all batches, in inference mode; `check` is called between them and may raise."""
    spec, call = network.train_spec, network.entry("evaluate")
    metrics = [m for m in spec.metrics if not m.hidden]
    totals, examples, sweep = np.zeros(len(metrics)), 0, None
    for gathered in _gathered(loader, call, spec, next, check):
        sweep = gathered.sweep(call, spec, metrics, examples)
        sweep_all(sweep, check)
        totals += sweep.totals
        examples += sweep.examples
    if sweep is None:
        raise argument_error("E0613", "there are no examples to evaluate")
    sweep.totals[:] = totals
    return sweep.results(examples)


class _Fit(Fit):
    """A training whose epochs are several sweeps. It is not resumed: nobody knows what the loader gives next."""

    loader: Iterable[Any]

    def through(self, loader: Iterable[Any]) -> History:
        """Train; each epoch is a pass through the loader."""
        self.loader, self.network.progress = loader, None
        return self.run()

    def _epoch(self) -> dict[str, float | int]:
        network, progress = self.network, self.progress
        spec, call = network.train_spec, network.entry("train")
        self.before = steps = 0
        told = self.interrupted
        for gathered in _gathered(self.loader, call, spec, partial(told.tell, next), told.check):
            sweep = gathered.sweep(call, spec, spec.metrics, self.before)
            progress.position, progress.examples, progress.batch = 0, sweep.examples, sweep.batch
            self.over(sweep, steps)
            self._sweep(None)
            self.rescue.finish(sweep.steps)
            self.before += sweep.examples
            steps += sweep.steps
        if not steps:
            raise argument_error("E0613", f"the loader gave no batch in epoch {progress.epoch + 1}")
        return self.sweep.results(self.before)

    def _finish(self) -> None:
        """Each sweep was looked at."""


@dataclass(frozen=True, slots=True)
class _Batches:
    """Batches of one size, the last perhaps smaller, one behind the other."""

    arrays: Sequence[Array]
    sizes: Mapping[str, int]
    batch: int | None

    def sweep(self, call: Call, spec: TrainSpec, metrics: Sequence[Any], before: int) -> Sweep:
        """A pass over them, with so many examples before."""
        n = self.sizes.get(spec.batch_size or "", 0)
        return Sweep(call, self.arrays, self.sizes, spec, self.batch, metrics, Origin(np.arange(before, before + n)))


def _gathered(
    loader: Iterable[Any], call: Call, spec: TrainSpec, take: Callable[..., Any], check: Callable[[], None]
) -> Iterator[_Batches]:
    """The batches of an epoch, as many at a time as come in a moment and can be one sweep. `take(iterator, end)` asks
    for the next one; `check` is called between two and may raise."""
    symbol = spec.batch_size
    try:
        cut = rows_per_example(call.signature.inputs, spec) if symbol is not None else []
    except NncError:  # a batch is one example
        cut = []
    waiting: list[tuple[list[Array], dict[str, int]]] = []
    due, size = 0.0, 0

    def joined() -> _Batches:
        arrays, sizes = waiting[0]
        if len(waiting) > 1 and symbol is not None:
            parts = zip(*(a for a, _ in waiting), strict=True)
            arrays = [np.concatenate(p) if k else p[0] for p, k in zip(parts, cut, strict=True)]
            sizes = {**sizes, symbol: sum(s[symbol] for _, s in waiting)}
        found = _Batches(arrays, sizes, waiting[0][1].get(symbol or ""))
        waiting.clear()
        return found

    batches = iter(loader)
    while (given := take(batches, _END)) is not _END:
        check()
        arrays, sizes = bind("fit", call.wants, _values(given, call))
        if symbol is not None and not sizes.get(symbol, 1):
            continue
        if waiting and not (cut and symbol is not None and _follows(waiting, arrays, sizes, symbol, cut)):
            yield joined()
        if not waiting:
            due, size = perf_counter() + _SECONDS, 0
        waiting.append(([np.array(a) for a in arrays], sizes))  # the loader may write into its own again
        size += sum(a.nbytes for a in arrays)
        if size >= _BYTES or perf_counter() >= due:
            yield joined()
    if waiting:
        yield joined()


def _follows(
    waiting: Sequence[tuple[list[Array], dict[str, int]]],
    arrays: Sequence[Array],
    sizes: Mapping[str, int],
    symbol: str,
    cut: Sequence[int],
) -> bool:
    """Whether a batch can be in one sweep with those before it: they are as large as the first, and it no larger; all
    other sizes, and inputs that are the same for all examples, are the same."""
    first, known = waiting[0]
    if waiting[-1][1][symbol] != known[symbol] or sizes[symbol] > known[symbol]:
        return False
    if {**sizes, symbol: 0} != {**known, symbol: 0}:
        return False
    return all(k or np.array_equal(a, b, equal_nan=True) for a, b, k in zip(first, arrays, cut, strict=True))


def _values(batch: Any, call: Call) -> Sequence[Any]:
    """A batch in the order of the inputs (E0602, E0604)."""
    if isinstance(batch, Mapping):
        return call.arguments((), batch)
    if is_frame(batch) or isinstance(batch, str | bytes):
        inputs = ", ".join(p.name for p in call.signature.inputs)
        what = f"a batch must be ({inputs}), or a mapping by these names, got {type_name(batch)}"
        raise argument_error("E0602", what, kind=ArgumentTypeError)
    return call.arguments(tuple(batch) if isinstance(batch, tuple | list) else (batch,), {})


def _check_again(loader: Iterable[Any], times: int, what: str) -> None:
    """The batches come again for another epoch (E0604)."""
    if times > 1 and isinstance(loader, Iterator):
        raise argument_error(
            "E0604",
            f"{what} goes {times} times through its batches, but {type_name(loader)} gives them once",
            help="pass `epochs = 1`, or what gives them anew for each `for`: a list behind an object, a DataLoader",
            kind=ArgumentTypeError,
        )


def _steps(network: Network, loader: Any) -> int:
    """Steps of an epoch: the loader's length, where a schedule asks for it."""
    if "train/steps" not in network.entry("train").signature.variables:
        return 1
    try:
        return len(loader)
    except TypeError:
        raise argument_error(
            "E0604",
            f"the train block of {network.name} asks how many steps there are, and {type_name(loader)} has no `len`",
            help="give it a `__len__`, the batches of an epoch; or a learning rate that does not ask for `steps`",
            kind=ArgumentTypeError,
        ) from None


def _check_scaled(network: Network) -> None:
    """The scaling of the inputs, which is of all examples, is known (E0604)."""
    variables = network.variables
    fitted = any(np.any(a != int(p.endswith("/scale"))) for p, a in variables.items() if p.startswith("normalize/"))
    if network.train_spec.normalize is not None and not fitted:
        raise argument_error(
            "E0604",
            f"the train block of {network.name} says `normalize`, which batches do not tell",
            help="`fit(.., epochs = 0)` with whole arrays, as many as are at hand, fits the scaling first",
            kind=ArgumentTypeError,
        )


def _validating(network: Network, validation: Any, epochs: int) -> Validating | None:
    """The metrics of what is held out (E0604)."""
    call, share = network.entry("evaluate"), network.train_spec.validation
    if validation is None and not share:
        return None
    if is_stream(validation):
        _check_again(validation, epochs, "validation")
        return partial(evaluate, network, validation)
    if isinstance(validation, Mapping):
        arrays = call.arguments((), validation)
    elif is_frame(validation):
        arrays = network.given(call, (validation,))
    elif isinstance(validation, tuple | list):
        arrays = call.arguments(tuple(validation), {})
    else:
        raise argument_error(
            "E0604",
            "of batches that come one after another no share can be held out for validation",
            help="pass `validation` as arrays, a mapping by name, a frame, or another loader",
            kind=ArgumentTypeError,
        )
    return partial(sweep_all, evaluation(network, arrays, None))

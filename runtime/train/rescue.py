"""When training meets a NaN or an infinity: go back, find where it appeared first, and say so.

In: a fit that is under way. Steps are a function of the variables and the batch, so a copy of the variables from a
moment ago and a replay give the state before the bad step, bit for bit. There each tensor is looked at in the order of
the computation: inputs, taps, loss and metrics, gradients, updated variables. The model is left in that good state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ...dsl.errors import NncError, NonFiniteError, error
from ..call.arrays import BAD_DATA, Array, bind, check_bytes, not_finite
from ..call.interrupt import Watch
from ..data.order import permutation
from .sweep import Sweep, rows_per_example

if TYPE_CHECKING:
    from ..model import Model
    from .fit import Progress

_INTERVAL = 0.5  # seconds between copies, more where copying is slow: it may take a fiftieth of the time
_LOOK_BACK = 16  # steps between a variable going bad and a metric showing it


class Rescue:
    """Keeps a recent good copy of the variables during one fit."""

    def __init__(self, model: Model, sweep: Sweep, watch: Watch):
        self.model, self.sweep, self.watch = model, sweep, watch
        watched = [v for v in model.manifest.variables if v.dtype in ("f32", "f64")]
        self._watched = [v.path for v in watched if np.isfinite(model.variables[v.path]).all()]
        check_bytes(2 * sum(a.nbytes for a in model.variables.values()),
                    "the variables and the copy of them that training keeps")
        self._copy = {path: np.empty_like(a) for path, a in model.variables.items()}
        self._due = 0.0
        self._epoch, self._position = 0, 0
        self._totals: list[float] = []

    def remember(self, progress: Progress) -> None:
        """Take a copy if the last one is old; explain instead if a variable is not finite."""
        start = perf_counter()
        if start < self._due:
            return
        if self._due and self._bad_variable() is not None:
            self.explain(progress, progress.position // self.sweep.batch)
        for path, array in self.model.variables.items():
            np.copyto(self._copy[path], array)
        self._epoch, self._position, self._totals = progress.epoch, progress.position, list(progress.totals)
        now = perf_counter()
        self._due = now + max(_INTERVAL, 50 * (now - start))

    def is_lost(self, sweep: Sweep) -> bool:
        """Whether a step with a metric that is not finite is the end: if that is the loss, or a variable is bad too.
        Another metric may well be undefined for a batch, and then training goes on."""
        loss = sweep.output("loss")
        return self._bad_variable() is not None if loss is None else not np.isfinite(loss).all()

    def finish(self, progress: Progress) -> None:
        """Explain if training ended with a variable that is not finite."""
        if self._bad_variable() is not None:
            self.explain(progress, 0)

    def explain(self, progress: Progress, step: int) -> NoReturn:
        """Go back to the state before the first bad step and raise NonFiniteError; `step` of the current epoch is where
        it was seen."""
        steps = self.sweep.steps
        seen = progress.epoch * steps + step
        first = self._epoch * steps + self._position // self.sweep.batch
        at = seen
        for at in range(seen, max(first, seen - _LOOK_BACK) - 1, -1):
            self._replay(at)
            if self._bad_variable() is None:
                break
        else:
            at = first
            self._replay(at)
        self._stand(progress, at)
        step = at % steps
        order = self._order(progress, progress.epoch)
        found = self._first_bad(order, progress.position) or "a metric is not finite"
        remedy = BAD_DATA if found.startswith("input ") else \
            "a smaller learning rate, `clip` or other input scaling are the usual remedies"
        raise error("E0630", f"training met a value that is not finite in epoch {progress.epoch + 1}, step {step + 1}: "
                    f"{found}", help=f"the model is as it was before this step; {remedy}", kind=NonFiniteError)

    def undo(self, progress: Progress, step: int) -> None:
        """Go back to the state before a step of the current epoch that failed; or, where the data are no longer as they
        were so that steps before it fail too, to the state of the copy."""
        at = progress.epoch * self.sweep.steps + step
        try:
            self._replay(at)
        except NncError:
            at = self._epoch * self.sweep.steps + self._position // self.sweep.batch
            self._replay(at)
        self._stand(progress, at)

    def _stand(self, progress: Progress, at: int) -> None:
        """Progress is where the variables are: before global step `at`."""
        before = progress.epoch
        progress.epoch, step = divmod(at, self.sweep.steps)
        progress.position = step * self.sweep.batch
        progress.totals = self.sweep.totals.tolist() if step else [0.0] * len(self.sweep.totals)
        progress.history = progress.history[: len(progress.history) - max(0, before - progress.epoch)]
        self.model.epochs_done = progress.epoch

    def _replay(self, target: int) -> None:
        """The variables as they were before global step `target`."""
        sweep, model = self.sweep, self.model
        assert model.progress is not None
        self.watch.again(deaf=True)
        for path, array in self._copy.items():
            np.copyto(model.variables[path], array)
        sweep.totals[:] = self._totals
        epoch, position = self._epoch, self._position
        while epoch * sweep.steps + position // sweep.batch < target:
            if position == 0:
                sweep.totals[:] = 0
            last = min((target - epoch * sweep.steps) * sweep.batch, sweep.examples)
            model.set_training(epoch=epoch)
            sweep.run(position, last, self._order(model.progress, epoch))
            position = last
            if position >= sweep.examples:
                epoch, position = epoch + 1, 0
        model.set_training(epoch=epoch)

    def _order(self, progress: Progress, epoch: int) -> Array | None:
        if not (progress.shuffle and self.sweep.symbol):
            return None
        return permutation(self.sweep.examples, progress.seed, epoch)

    def _bad_variable(self) -> str | None:
        for path in self._watched:
            if not np.isfinite(self.model.variables[path]).all():
                return path
        return None

    def _first_bad(self, order: Array | None, position: int) -> str | None:
        """The first tensor of the step at `position` that is not finite, in words."""
        spec, variables = self.model.train_spec, self.model.variables
        rows = dict(zip(spec.inputs, self.sweep.rows(order, position), strict=True))
        index = self.sweep.index(order, position)
        origin = self.sweep.origin.indices(index)
        ports = {p.name: p for p in self.sweep.call.signature.inputs}
        for name, array in rows.items():
            by_example = rows_per_example(ports[name], self.sweep.symbol) > 0
            if found := not_finite(array, origin if by_example else None):
                return f"input `{name}` {found}"
        for entry, what in (("taps", "`{}`"), ("loss", "`{}`"), ("gradients", "the gradient of `{}`")):
            for name, array in self._values(entry, rows):
                if found := not_finite(array):
                    return f"{what.format(name)} {found}"
        before = {path: a.copy() for path, a in variables.items()}
        values = self._values("train", rows)
        found = next((f"`{name}` {found}" for name, array in values if (found := not_finite(array))), None)
        if found is None and (path := self._bad_variable()) is not None:
            found = f"`{path}` after the update {not_finite(variables[path])}"
        for path, array in before.items():
            np.copyto(variables[path], array)
        return found

    def _values(self, entry: str, rows: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
        """The outputs of an entry for these rows; nothing where there is no such entry or it fails."""
        if entry not in self.model.manifest.entries:
            return
        try:
            call = self.model.entry(entry)
            arrays, sizes = bind(entry, call.wants, [rows[p.name] for p in call.signature.inputs])
            outputs = call.run(arrays, sizes)
        except (NncError, KeyError):  # this is already the explanation of an error
            return
        yield from zip([p.name for p in call.signature.outputs], outputs, strict=True)

"""When training meets a NaN or an infinity: go back, find where it appeared first, and say so.

In: a fit that is under way. Steps are a function of the variables and the batch, so a copy of the variables from a
moment ago and a replay give the state before the bad step, bit for bit. There each tensor is looked at in the order of
the computation, inputs, losses, updated variables, metrics, and the expression that it came from is looked for by the
interpreter; where that finds none, taps and gradients are looked at. The model is left in that good state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ...compiler.types.sizes import symbols
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError, NonFiniteError, ResourceError
from ..call.arrays import BAD_DATA, aligned_arrays, bind, check_bytes, is_finite, not_finite
from ..call.column import Array
from ..call.interrupt import Watch
from ..network import Network
from ..progress import Progress
from .sweep import Sweep

if TYPE_CHECKING:
    from ...compiler.origin import Origin

_INTERVAL = 0.5  # seconds between copies, more where copying is slow: it may take a fiftieth of the time
_ELSEWHERE = "run operator by operator, as it is written, this step makes nothing that is not finite of what is"
_REMEDY = "a smaller learning rate, `clip` or other input scaling are the usual remedies"
_LARGE = 1 << 25  # bytes that the system gives anew each time
_LOOK_BACK = 16  # steps between a variable going bad and a metric showing it


def _like(variables: Mapping[str, Array]) -> dict[str, Array]:
    """Room for a copy: where the system gives it anew, in large pages, else whatever was there before."""
    if sum(a.nbytes for a in variables.values()) < _LARGE:
        return {path: np.empty_like(a) for path, a in variables.items()}
    shapes = ((a.shape, a.dtype) for a in variables.values())
    return dict(zip(variables, aligned_arrays(shapes, "the copy that training keeps"), strict=True))


def order_of(progress: Progress, sweep: Sweep, epoch: int) -> Array | None:
    """Who comes when in an epoch; None: as they stand."""
    return sweep.order(progress.seed, epoch) if progress.shuffle else None


class Rescue:
    """Keeps a recent good copy of the variables during one fit. Of an epoch that is several sweeps it is for one of
    them, with so many steps `before`. Who is `patient` waits for the expression to be found, however long it takes."""

    def __init__(
        self, network: Network, sweep: Sweep, progress: Progress, watch: Watch, before: int = 0, patient: bool = False
    ):
        self.patient = patient
        self.network, self.sweep, self.progress, self.watch, self.before = network, sweep, progress, watch, before
        floats = [v.path for v in network.manifest.variables if v.dtype in ("f32", "f64")]
        self._watched = [path for path in floats if is_finite(network.variables[path])]
        check_bytes(
            2 * sum(a.nbytes for a in network.variables.values()),
            "the variables and the copy of them that training keeps",
        )
        self._copy = _like(network.variables)
        self._begun = list(progress.totals) if before else [0.0] * len(sweep.totals)  # where the sweep begins
        self._due = 0.0
        self._epoch, self._position = 0, 0
        self._totals: list[float] = []

    def remember(self) -> None:
        """Take a copy if the last one is old; explain instead if a variable is not finite."""
        progress, start = self.progress, perf_counter()
        if not self.sweep.agreed(start >= self._due):
            return
        if self._due and self._bad_variable() is not None:
            self.explain(progress.position // self.sweep.batch)
        for path, array in self.network.variables.items():
            np.copyto(self._copy[path], array)
        self._epoch, self._position, self._totals = progress.epoch, progress.position, list(progress.totals)
        now = perf_counter()
        self._due = now + max(_INTERVAL, 50 * (now - start))

    def is_lost(self) -> bool:
        """Whether a step with a metric that is not finite is the end: if that is a loss, or a variable is bad too.
        Another metric may well be undefined for a batch, and then training goes on."""
        losses = [self.sweep.output(name) for name in self.network.train_spec.losses]
        return not np.isfinite(losses).all() if losses else self._bad_variable() is not None

    def finish(self, step: int = 0) -> None:
        """Explain if a variable is not finite where training stands, before this step of the current epoch."""
        if self._bad_variable() is not None:
            self.explain(step)

    def explain(self, step: int) -> NoReturn:
        """Go back to the state before the first bad step and raise NonFiniteError; `step` of the current epoch is where
        it was seen."""
        progress, steps = self.progress, self.sweep.steps
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
        self._stand(at)
        step, help = at % steps, [_REMEDY]
        order = self._order(progress.epoch)
        rows, where = self._rows(order, progress.position), self.sweep.where(progress.position, order)
        found = self._bad_input(rows, order, progress.position)
        origin: Origin | None = None
        if found is not None:
            help = [BAD_DATA]
        else:
            root, found = self._bad_result(rows)
            try:
                origin = self.network.session.origin("train", root, rows, self.network.variables, self.patient)
            except ResourceError:
                help.append("`--check-nan`, or `fit(check_nan=True)`, looks for the expression, which takes long here")
            except NncError:  # this is already the explanation of an error
                pass
            else:
                help += [_ELSEWHERE] if origin is None else []
            found = found if origin is not None else self._bad_on_the_way(rows) or found
        if origin is not None:
            found += f"; the first is {origin.title}"
        raise NonFiniteError(
            Diagnostic(
                "E0630",
                f"training met a value that is not finite in epoch {progress.epoch + 1}, "
                f"step {self.before + step + 1}{where}: {found}",
                origin.labels if origin is not None else (),
                ("the model is as it was before this step", *help),
            ),
            epoch=progress.epoch + 1,
            step=self.before + step + 1,
            operands={name: (x.low, x.high) for name, x in origin.operands.items()} if origin is not None else {},
        )

    def undo(self, step: int) -> None:
        """Go back to the state before a step of the current epoch that failed; or, where the data are no longer as they
        were so that steps before it fail too, to the state of the copy."""
        at = self.progress.epoch * self.sweep.steps + step
        try:
            self._replay(at)
        except NncError:
            at = self._epoch * self.sweep.steps + self._position // self.sweep.batch
            self._replay(at)
        self._stand(at)

    def _stand(self, at: int) -> None:
        """Progress is where the variables are: before global step `at`."""
        progress = self.progress
        before = progress.epoch
        progress.epoch, step = divmod(at, self.sweep.steps)
        progress.position = step * self.sweep.batch
        progress.totals = self.sweep.totals.tolist() if step else list(self._begun)
        progress.history = progress.history[: len(progress.history) - max(0, before - progress.epoch)]
        self.network.epochs_done = progress.epoch

    def _replay(self, target: int) -> None:
        """The variables as they were before global step `target`."""
        sweep, network = self.sweep, self.network
        self.watch.again(deaf=True)
        network.variables.write(self._copy)
        sweep.totals[:] = self._totals
        epoch, position = self._epoch, self._position
        while epoch * sweep.steps + position // sweep.batch < target:
            if position == 0:
                sweep.totals[:] = self._begun
            last = min((target - epoch * sweep.steps) * sweep.batch, sweep.examples)
            network.set_training(epoch=epoch)
            sweep.run(position, last, self._order(epoch))
            position = last
            if position >= sweep.examples:
                epoch, position = epoch + 1, 0
        network.set_training(epoch=epoch)

    def _order(self, epoch: int) -> Array | None:
        return order_of(self.progress, self.sweep, epoch)

    def _bad_variable(self) -> str | None:
        for path in self._watched:
            if not is_finite(self.network.variables[path]):
                return path
        return None

    def _rows(self, order: Array | None, position: int) -> dict[str, Array]:
        """The batch at `position`, by the names of the inputs."""
        return dict(zip(self.network.train_spec.inputs, self.sweep.rows(order, position), strict=True))

    def _bad_input(self, rows: Mapping[str, Array], order: Array | None, position: int) -> str | None:
        """The first input of a batch that is not finite, in words."""
        origin = self.sweep.origin.indices(self.sweep.index(order, position))
        ports = {p.name: p for p in self.sweep.call.signature.inputs}
        for name, array in rows.items():
            by_example = any(self.sweep.symbol in symbols(n) for n in ports[name].shape[:1])
            if found := not_finite(array, origin if by_example else None):
                return f"input `{name}` {found}"
        return None

    def _bad_result(self, rows: Mapping[str, Array]) -> tuple[str, str]:
        """The first result of the step over a batch that is not finite, and in words: a loss, a variable, or what else
        is measured."""
        variables, losses = self.network.variables, self.network.train_spec.losses
        before = {path: a.copy() for path, a in variables.items()}
        results = {name: bad for name, array in self._values("train", rows) if (bad := not_finite(array))}
        after = {path: bad for path in self._watched if (bad := not_finite(variables[path]))}
        variables.write(before)
        said = {name: f"`{name}` {results[name]}" for name in losses if name in results}
        said |= {path: f"`{path}` after the update {bad}" for path, bad in after.items()}
        said |= {name: f"`{name}` {bad}" for name, bad in results.items()}
        return next(iter(said.items()), ("", "a metric is not finite"))

    def _bad_on_the_way(self, rows: Mapping[str, Array]) -> str | None:
        """The first labelled value, loss or gradient that is not finite, in words."""
        for entry, what in (("taps", "`{}`"), ("loss", "`{}`"), ("gradients", "the gradient of `{}`")):
            for name, array in self._values(entry, rows):
                if found := not_finite(array):
                    return f"{what.format(name)} {found}"
        return None

    def _values(self, entry: str, rows: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
        """The outputs of an entry for these rows; nothing where there is no such entry or it fails."""
        if entry not in self.network.manifest.entries:
            return
        try:
            call = self.network.entry(entry)
            arrays, sizes = bind(entry, call.wants, [rows[p.name] for p in call.signature.inputs])
            outputs = call.run(arrays, call.sized(sizes))
        except (NncError, KeyError):  # this is already the explanation of an error
            return
        yield from call.named(outputs).items()

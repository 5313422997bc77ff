"""The command that searches hypers: tune."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from ..call.messages import unknown
from ..progress import Observer, Pace, Report
from ..store.files import write
from . import live
from .display import MARK, meter
from .options import Program, program_options
from .show import Rows, announce, is_on, note, number, print_table, say, say_next, show_result, stream

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..model import Model

_SHOWN = 10  # of the best trials


@click.command()
@program_options
@click.option("--trials", type=click.IntRange(min=1), default=20, help="How many this command runs (default: 20).")
@click.option("--epochs", type=click.IntRange(min=1), help="Of each trial (default: the train block's).")
@click.option("--metric", metavar="NAME", help="What a trial is judged by (default: val_loss, or loss).")
@click.option("--maximize/--minimize", default=None, help="Which way is better; needed where the metric is no loss.")
@click.option("--storage", metavar="URL", help="Keep the study, to go on or to share: sqlite:///tune.db.")
@click.option("--seed", type=int, help="Of the search and of each training (default: the train block's).")
@click.option("--threads", type=click.IntRange(1, 1024), help="At most so many (default: all processors).")
@click.option("-o", "--output", metavar="PATH", help="Where the best hypers go (default: NAME.best.json).")
def tune(
    program: Program,
    trials: int,
    epochs: int | None,
    metric: str | None,
    maximize: bool | None,
    storage: str | None,
    seed: int | None,
    threads: int | None,
    output: str | None,
) -> None:
    """Search the ranges of FILE's hypers for the best training.

    A hyper given with --set stays as it is. With --storage a search goes on where it stopped, and several may run at
    once, in processes or on machines that see the same storage. `nnc train FILE --set @PATH` trains with the hypers
    that were found.
    """
    from ..train import tune

    tune.load_optuna()  # says at once that it is not there
    announce(f"compiling {program.file}")
    source = program.read()
    net = program.open(seed, threads, ("train", "evaluate"), source)
    spec, fixed = net.train_spec, dict(program.hyper or {})
    hypers = tune.ranged(net.manifest.hypers, fixed)
    data = net.load_dataset()
    metric = _metric(net, metric, data.held_out is not None)
    if maximize is None and not metric.endswith("loss"):
        raise click.UsageError(f"say whether {metric} is better large or small: --maximize or --minimize")
    last = spec.epochs if epochs is None else epochs
    name = f"{Path(program.file).stem}: {metric}"
    found = tune.study(name, storage, bool(maximize), last, net.seed)
    if before := len(found.get_trials(deepcopy=False)):
        note(f"{before} trials are in {storage}")
    watched = Watched(found, hypers, metric, trials, last)

    def train(values: Mapping[str, Any], on_epoch: Any) -> None:
        with live.unwatched():
            made = _open(replace(program, hyper={**fixed, **values}), source, seed, threads, net, data)
        made.fit(epochs=epochs, callbacks=[on_epoch, watched], progress=False)

    try:
        with watched:
            tune.run(found, hypers, train, metric, trials, watched.on_trial)
    finally:
        _report(program, found, fixed, metric, output)


def _metric(net: Model, name: str | None, held_out: bool) -> str:
    shown = [m.name for m in net.train_spec.metrics if not m.hidden]
    known = [*(f"val_{m}" for m in shown if held_out), *shown]
    if name is None:
        return next((m for m in known if m.endswith("loss")), known[0])
    if name not in known:
        raise unknown("metric", name, known)
    return name


def _open(program: Program, source: Any, seed: int | None, threads: int | None, first: Model, data: Dataset) -> Model:
    """The model of a trial; it reads the data again only where its hypers change what is read."""
    made = program.open(seed, threads, ("train", "evaluate"), source)
    spec, before = made.session.manifest.train, first.train_spec
    if spec is not None and (spec.data, spec.validation, made.seed) == (before.data, before.validation, first.seed):
        made.dataset = data
    return made


def _setting(value: Any) -> str:
    """The value of a hyper: small rates have as many digits as large ones."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _outcome(trial: Any) -> str:
    """Why a trial has no value."""
    from ..train.tune import REASON

    if REASON in trial.user_attrs:
        return f"failed: {trial.user_attrs[REASON]}"
    steps = len(trial.intermediate_values)
    return f"pruned after {steps} epoch{'s' if steps != 1 else ''}" if trial.state.name == "PRUNED" else "failed"


def _complete(found: Any) -> list[Any]:
    """The trials that have a value, the best first."""
    complete = [t for t in found.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    return sorted(complete, key=lambda t: t.value, reverse=found.direction.name == "MAXIMIZE")


class Watched(Observer):
    """A search as one watches it: a table of the trials, and on a terminal a line of how far it is. A context."""

    def __init__(self, found: Any, hypers: Sequence[Any], metric: str, trials: int, epochs: int):
        self._study, self._trials, self._epochs = found, trials, max(1, epochs)
        self._widths, self._metric = {h.name: 9 if h.kind == "float" else 5 for h in hypers}, metric
        self._pace, self._done = Pace(0), 0
        self._table: Rows | None = None
        self._line = live.Line(stream()) if live.is_live(stream()) and not is_on("quiet") else None

    def __enter__(self) -> Watched:
        self._draw(0.0)
        return self

    def __exit__(self, *exc: object) -> None:
        live.clear()

    def on_progress(self, report: Report) -> None:
        if self._line is not None and self._line.is_due:
            self._draw(report.epochs / self._epochs)

    def on_trial(self, _: Any, trial: Any) -> None:
        self._done += 1
        if self._table is None:
            columns = ["trial", *self._widths, "epochs", self._metric]
            self._table = Rows(columns, ["epochs", *self._widths], {"trial": 5, "epochs": 6, **self._widths})
        row = {n: _setting(v) for n, v in trial.params.items()} | {"trial": str(trial.number + 1)}
        if trial.state.name == "COMPLETE":
            best = self._study.best_trial.number == trial.number
            row |= {"epochs": str(len(trial.intermediate_values)), self._metric: number(trial.value)}
            self._table.add(row, MARK if best else "")
        else:
            self._table.add(row, _outcome(trial))
        self._draw(0.0)

    def _draw(self, share: float) -> None:
        """The line, where this share of the current trial is done."""
        if self._line is None or self._done == self._trials:
            return
        done, complete = self._done + share, _complete(self._study)
        best = f"best {self._metric} {number(complete[0].value)}" if complete else ""
        left = self._pace.left(done, self._trials)
        self._line.draw(
            meter(f"trial {self._done + 1}/{self._trials}", done / self._trials, left, [best], self._line.width)
        )


def _report(program: Program, found: Any, fixed: Mapping[str, Any], metric: str, output: str | None) -> None:
    """The best trials, and the best one's hypers in a file."""
    complete = _complete(found)
    if not complete:
        return
    names = list(complete[0].params)
    path = Path(output or f"{Path(program.file).stem}.best.json")
    best = {**fixed, **complete[0].params}
    write(path, (json.dumps(best, indent=2) + "\n").encode())

    def draw() -> None:
        rows = [
            (
                str(t.number + 1),
                *(_setting(t.params[n]) for n in names),
                str(len(t.intermediate_values)),
                number(t.value),
            )
            for t in complete[:_SHOWN]
        ]
        print_table(("trial", *names, "epochs", metric), rows)
        say(f"the best of {len(complete)} is trial {complete[0].number + 1}: {path}")
        say_next(f"nnc train {quote(program.file)} --set @{quote(str(path))}")

    trials = [{"trial": t.number + 1, "hypers": t.params, metric: t.value} for t in complete]
    show_result({"metric": metric, "best": best, "written": str(path), "trials": trials}, draw)

"""The command that searches hypers: tune."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from ..call.messages import unknown
from ..store.files import write
from .options import Program, program_options
from .show import say

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
    """Search the ranges of FILE's hypers for the best training; a hyper given with --set stays as it is.

    With --storage a search goes on where it stopped, and several may run at once, in processes or on machines that see
    the same storage. `nnc train FILE --set @PATH` trains with the hypers that were found.
    """
    from ..train import tune

    optuna = tune.load_optuna()
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
        say(f"{before} trials are in {storage}")

    def train(values: Mapping[str, Any], on_epoch: Any) -> None:
        made = _open(replace(program, hyper={**fixed, **values}), source, seed, threads, net, data)
        made.fit(epochs=epochs, callbacks=[on_epoch], progress=False)

    def told(_: Any, trial: Any) -> None:
        say(f"trial {trial.number + 1}  {_settings(trial.params)}  {_outcome(trial, metric)}")

    try:
        tune.run(found, hypers, train, metric, trials, told)
    finally:
        _report(program, found, fixed, metric, output, optuna)


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


def _settings(values: Mapping[str, Any]) -> str:
    from .show import number

    return "  ".join(f"{k} {number(v)}" for k, v in values.items())


def _outcome(trial: Any, metric: str) -> str:
    from ..train.tune import REASON
    from .show import number

    if trial.value is not None and trial.state.name == "COMPLETE":
        return f"{metric} {number(trial.value)}"
    if REASON in trial.user_attrs:
        return f"failed: {trial.user_attrs[REASON]}"
    steps = len(trial.intermediate_values)
    return f"pruned after {steps} epoch{'s' if steps != 1 else ''}" if trial.state.name == "PRUNED" else "failed"


def _report(
    program: Program, found: Any, fixed: Mapping[str, Any], metric: str, output: str | None, optuna: Any
) -> None:
    """The best trials, and the best one's hypers in a file."""
    from .show import number, print_table

    complete = found.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        return
    ordered = sorted(complete, key=lambda t: t.value, reverse=found.direction.name == "MAXIMIZE")
    names = list(ordered[0].params)
    print_table(
        ("trial", *names, "epochs", metric),
        [
            (str(t.number + 1), *(number(t.params[n]) for n in names), str(len(t.intermediate_values)), number(t.value))
            for t in ordered[:_SHOWN]
        ],
    )
    path = Path(output or f"{Path(program.file).stem}.best.json")
    best = {**fixed, **ordered[0].params}
    write(path, (json.dumps(best, indent=2) + "\n").encode())
    say(f"train with the best of {len(complete)}: nnc train {quote(program.file)} --set @{quote(str(path))}")

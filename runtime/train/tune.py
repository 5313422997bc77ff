"""Searching the ranges of a program's hypers: `hyper lr: float = 1e-3 in log(1e-5, 1e-1)`. Optuna chooses.

In: a way to train a model for given hypers, and what a trial is judged by. Out: a study, whose trials are complete,
pruned (worse than the median of the others at the same epoch) or failed for a reason that is kept with them: training
that met a value that is not finite, a combination that the program refuses. A trial is worth the best epoch it had.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from time import sleep
from typing import TYPE_CHECKING, Any

from ...compiler.manifest import HyperSpec
from ...dsl.errors import ArgumentError, NncError, NonFiniteError, SourceError, error
from ..extras import optional
from ..progress import History

if TYPE_CHECKING:
    from optuna import Study, Trial


OnEpoch = Callable[[History, object], None]
Train = Callable[[Mapping[str, Any], OnEpoch], object]  # a model for given hypers, which tells of its epochs
REASON = "reason"  # the attribute of a trial that says why it was not completed
_WAITS = (0.1, 0.3, 0.6)  # seconds, where another process may just be making the same storage
_STARTUP = 5  # trials that are not pruned, as there is nothing to compare them with


def load_optuna() -> Any:
    """The module optuna (E0503 where it is not installed)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna = optional("optuna", "tune", "hypers are searched with Optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def ranged(hypers: Sequence[HyperSpec], fixed: Mapping[str, Any]) -> list[HyperSpec]:
    """The hypers to search: those with a range that are not given (E0629 where there is none)."""
    found = [h for h in hypers if h.choices is not None and h.name not in fixed]
    if not found:
        given = [h.name for h in hypers if h.choices is not None]
        what = "every hyper with a range is given" if given else "no hyper of the program has a range to search"
        raise error(
            "E0629",
            what,
            kind=ArgumentError,
            help="leave out one --set" if given else "for example `hyper lr: float = 1e-3 in log(1e-5, 1e-1)`",
        )
    return found


def suggest(trial: Trial, h: HyperSpec) -> Any:
    """A value of this hyper's range."""
    match h.choices:
        case ["in", values]:
            return trial.suggest_categorical(h.name, values)
        case [scale, low, high] if h.kind == "int":
            return trial.suggest_int(h.name, low, high, log=scale == "log")
        case [scale, low, high]:
            return trial.suggest_float(h.name, low, high, log=scale == "log")
    raise AssertionError(h)


def study(name: str, storage: str | None, maximize: bool, epochs: int, seed: int) -> Study:
    """A new study, or the one of that name in the storage. Searches that share a storage must not all draw the same
    numbers, so only a search of its own is repeatable."""
    optuna = load_optuna()
    sampler = optuna.samplers.TPESampler(seed=seed if storage is None else None)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=epochs // 5)
    direction = "maximize" if maximize else "minimize"
    for wait in (*_WAITS, None):
        try:
            found: Study = optuna.create_study(
                storage=storage,
                sampler=sampler,
                pruner=pruner,
                study_name=name,
                direction=direction,
                load_if_exists=True,
            )
            break
        except Exception as e:  # of SQLAlchemy, of the database's driver, or of Optuna
            if wait is not None:
                sleep(wait)
                continue
            raise error(
                "E0620",
                f"{storage}: {str(e).splitlines()[0].lower() if str(e) else type(e).__name__}",
                help="for example --storage sqlite:///tune.db",
                kind=ArgumentError,
            ) from e
    if found.direction.name.lower() != direction:
        raise error(
            "E0629", f"the study `{name}` in {storage} is to {found.direction.name.lower()}", kind=ArgumentError
        )
    return found


def run(
    found: Study,
    hypers: Sequence[HyperSpec],
    train: Train,
    metric: str,
    trials: int,
    told: Callable[[Study, Any], None],
) -> None:
    """Run so many trials; `told(study, trial)` after each. Raises what the program said where no trial of the study
    could be judged."""
    better = max if found.direction.name == "MAXIMIZE" else min
    refused: list[NncError] = []
    pruned = load_optuna().TrialPruned

    def objective(trial: Trial) -> float:
        try:
            values = {h.name: suggest(trial, h) for h in hypers}
        except ValueError as e:
            raise error(
                "E0629",
                f"the study `{found.study_name}` searched other ranges: {e}",
                kind=ArgumentError,
                help="choose another --storage",
            ) from e
        seen: list[float] = []

        def on_epoch(history: History, model: object) -> None:
            value = float(history[-1][metric])
            seen.append(value)
            trial.report(value, len(seen) - 1)
            if trial.should_prune():
                raise pruned

        try:
            train(values, on_epoch)
        except (NonFiniteError, SourceError) as e:
            refused.append(e)
            trial.set_user_attr(REASON, e.diagnostics[0].message)
            raise pruned() from e
        finite = [v for v in seen if v == v]
        if not finite:
            trial.set_user_attr(REASON, f"{metric} is not a number")
            raise pruned
        return better(finite)

    found.optimize(objective, n_trials=trials, callbacks=[told])
    if refused and not any(t.value is not None for t in found.get_trials(deepcopy=False)):
        raise refused[-1]

"""Whether training ends after an epoch: the program's `stop when`, and its `patience`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan
from typing import Any

from ...compiler.manifest import TrainSpec
from ..progress import Progress

_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "and": lambda a, b: bool(a and b),
    "or": lambda a, b: bool(a or b), "not": lambda a: not a, "+": lambda a, b: a + b, "*": lambda a, b: a * b,
    "-": lambda a, b: a - b, "/": lambda a, b: a / b if b else nan, "neg": lambda a: -a,
}  # fmt: skip


def reason(spec: TrainSpec, metrics: Mapping[str, float | int], row: Mapping[str, Any], progress: Progress) -> str:
    """Why training ends after this epoch, or nothing. `metrics` are all, `row` is what the history shows of them."""
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

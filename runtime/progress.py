"""Where a training stands, and what it tells: rows of a history, progress, reports.

Nothing here trains. What is between two native calls is a `Progress` and the variables, and nothing else. Who watches
a fit is an `Observer`, one of its `callbacks`: the display of a terminal, the recorder of a run, or what a user writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import inf
from time import perf_counter
from typing import Any

from . import curves


class History(list[dict[str, Any]]):
    """One row per epoch: `epoch` (from 1), metrics, `val_` metrics, `seconds`. `stopped` says why it ended early."""

    def __init__(self, rows: Sequence[Mapping[str, Any]] = (), stopped: str = ""):
        super().__init__(map(dict, rows))
        self.stopped = stopped

    def column(self, name: str) -> list[Any]:
        """One metric over the epochs."""
        return [row[name] for row in self]

    def columns(self) -> dict[str, list[float]]:
        """Each metric over the epochs."""
        names = [n for n in (self[0] if self else {}) if n not in ("epoch", "seconds")]
        return {n: [float(row[n]) for row in self] for n in names}

    def plot(self, axes: Any = None) -> Any:
        """The curves with matplotlib (the extra `plot`), one panel for each metric; the axes."""
        return curves.plot(self.column("epoch"), self.columns(), axes)

    def _repr_html_(self) -> str:
        if not self:
            return "<code>no epochs</code>"
        ended = f", ended by {escape(self.stopped)}" if self.stopped else ""
        last = "".join(f"; {escape(n)} {cell(v[-1])}" for n, v in self.columns().items())
        return f"<div>{curves.svg(self.columns())}</div><div><code>{len(self)} epochs{ended}{last}</code></div>"

    def table(self) -> str:
        """The rows as aligned text."""
        if not self:
            return ""
        names = list(self[0])
        return aligned([names, *([cell(row.get(n)) for n in names] for row in self)])


def aligned(cells: Sequence[Sequence[str]], left: int = 0) -> str:
    """Rows of texts below one another: the first `left` columns begin in line, the others end so."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def cell(value: Any) -> str:
    """A metric as text."""
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)


def score_of(row: Mapping[str, Any]) -> float | None:
    """By what the epoch of this row is the best: the smaller the better."""
    score: float | None = row.get("val_loss", row.get("loss"))
    return score


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
    shards: int | None = None  # of a batch; None: it is not cut
    plain: bool = False  # sums of ranks are added in any order

    @property
    def done(self) -> int:
        """Epochs of this fit."""
        return len(self.history)

    def set_epochs(self, epochs: int) -> None:
        """How many the fit has in all, those before an interruption among them."""
        self.last = self.epoch - self.done + max(epochs, self.done)
        if self.epoch < self.last:
            self.stopped = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a fit goes, all in all: with its validation, and with what observers do."""

    epochs: float  # done when it began
    began: float = field(default_factory=perf_counter)

    def left(self, epochs: float, last: int) -> float:
        """Seconds until `last` epochs are done, when so many are done now."""
        done = epochs - self.epochs
        return (perf_counter() - self.began) * (last - epochs) / done if done > 0 else inf


@dataclass(frozen=True, slots=True)
class Report:
    """What an observer is told a few times a second."""

    epoch: int  # from 1
    last: int
    position: int
    examples: int
    metrics: Mapping[str, float | int]  # of the current epoch so far
    rate: float  # examples per second
    left: float  # seconds until the fit ends, if it goes on as it did

    @property
    def epochs(self) -> float:
        """Epochs that are done, with the share of the current one."""
        return self.epoch - 1 + self.position / self.examples


class Observer:
    """Who is told how a fit goes: `net.fit(callbacks=[observer])`. Any object with one of these methods is one, and a
    function is called as `on_epoch` is."""

    def on_progress(self, report: Report) -> None:
        """A few times a second, between two native calls."""

    def on_epoch(self, history: History, model: Any) -> bool | None:
        """After each epoch: its row is the history's last, the `Model` may be read and saved. True ends the fit."""

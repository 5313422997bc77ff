"""Training as one watches it: a live bar on a terminal, plain lines anywhere else. A callback of `fit`."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from .show import console, metrics_text, number, say

if TYPE_CHECKING:
    from ..network import Network
    from ..progress import History, Report

_LINES = 50  # of a long training that are printed


class Display:
    """Use as a context: the terminal is put back however training ends."""

    def __init__(self, last: int, quiet: bool = False):
        self._last, self._quiet = max(1, last), quiet
        self._every = -(-self._last // _LINES)
        self._printed = monotonic()
        self._progress: Any = None
        self._task: Any = None
        self.live = not quiet and sys.stdout.isatty()

    def __enter__(self) -> Display:
        if self.live:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("epoch {task.fields[epoch]}/" + str(self._last)),
                BarColumn(bar_width=28),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[text]}", style="bold"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(compact=True),
                console=console(),
                transient=True,
                refresh_per_second=8,
            )
            self._task = self._progress.add_task("", total=self._last, epoch=1, text="", rate="")
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def on_progress(self, report: Report) -> None:
        done = report.epoch - 1 + report.position / report.examples
        if self._progress is not None:
            self._progress.update(
                self._task,
                completed=done,
                epoch=report.epoch,
                rate=f"{rate_text(report.rate)} ex/s",
                text=metrics_text(report.metrics),
            )
        elif not self._quiet and monotonic() - self._printed > 10:  # a slow epoch without a terminal
            share = 100 * report.position / report.examples
            self._say(
                f"epoch {report.epoch}/{self._last}  {share:.0f}%  {metrics_text(report.metrics)}  "
                f"{rate_text(report.rate)} ex/s"
            )

    def on_epoch(self, history: History, model: Network) -> None:
        row = history[-1]
        now = monotonic()
        wanted = row["epoch"] % self._every == 0 or row["epoch"] in (1, self._last) or now - self._printed > 2
        if self._quiet or not (wanted or history.stopped):
            return
        metrics = {k: v for k, v in row.items() if k not in ("epoch", "seconds")}
        self._say(f"epoch {row['epoch']}/{self._last}  {metrics_text(metrics)}  {number(row['seconds'])} s")

    def _say(self, text: str) -> None:
        self._printed = monotonic()
        if self._progress is not None:
            self._progress.console.print(text)
        else:
            say(text)


def rate_text(rate: float) -> str:
    """Examples per second: `950`, `12.3k`, `1.2M`."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if rate >= limit:
            return f"{rate / limit:.3g}{unit}"
    return f"{rate:.0f}"

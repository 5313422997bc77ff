"""Training as one watches it: a table of the epochs, and on a terminal a line of how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...dsl.render import cells
from ..progress import Observer, score_of
from . import live
from .show import Rows, duration, is_on, note, number, rate_text, stream

if TYPE_CHECKING:
    from ..network import Network
    from ..progress import History, Report

_LINES = 50  # of a long training that are printed
_SLOW = 10.0  # seconds without a word, where no terminal shows how far it is
_BAR = 28  # columns of a bar at most, and
_LEAST = 8  # at least
MARK = "*"  # of the best so far


def metrics_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("epoch", "seconds")}


class Display(Observer):
    """Use as a context: the line is off the screen however training ends."""

    def __init__(self, last: int):
        self._last = max(1, last)
        self._every = -(-self._last // _LINES)
        self._printed = monotonic()
        self._table: Rows | None = None
        self._line = live.Line(stream()) if live.is_live(stream()) and not is_on("quiet") else None
        self._best: float | None = None

    @property
    def hidden(self) -> Sequence[str]:
        """Metrics for which the terminal is too narrow."""
        return self._table.hidden if self._table is not None else ()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exc: object) -> None:
        live.clear()

    def on_progress(self, report: Report) -> None:
        if self._line is not None:
            if self._line.is_due:
                self._line.draw(progress_line(report, self._line.width))
        elif monotonic() - self._printed > _SLOW:
            self._printed = monotonic()
            note(progress_line(report, 200))

    def on_epoch(self, history: History, model: Network) -> None:
        row = history[-1]
        score = score_of(row)
        is_best = score is not None and (self._best is None or score < self._best)
        self._best = score if is_best else self._best
        wanted = row["epoch"] % self._every == 0 or row["epoch"] in (1, self._last)
        if wanted or history.stopped or monotonic() - self._printed > 2:
            self._printed = monotonic()
            self._add(row, is_best)

    def _add(self, row: Mapping[str, Any], is_best: bool) -> None:
        metrics = metrics_of(row)
        if self._table is None:
            held_out = [m for m in metrics if m.startswith("val_")]
            important = sorted(metrics, key=lambda m: (not m.endswith("loss"), m not in held_out))
            widths = {"epoch": len(str(self._last)), "time": len("12.3 ms")}
            self._table = Rows(["epoch", *metrics, "time"], [*important, "time"][1:], widths)
        ends = {"epoch": str(row["epoch"]), "time": duration(row["seconds"])}
        self._table.add(ends | {k: number(v) for k, v in metrics.items()}, MARK if is_best else "")


def progress_line(report: Report, width: int) -> str:
    """How far a fit is."""
    metrics = [f"{k} {number(v)}" for k, v in report.metrics.items()]
    rate = f"{rate_text(report.rate)} examples/s"
    what = f"epoch {report.epoch}/{report.last}"
    return meter(what, report.epochs / report.last, report.left, [*metrics[:1], rate, *metrics[1:]], width)


def meter(what: str, share: float, left: float, facts: Sequence[str], width: int) -> str:
    """A line of so many columns: what is done, how much of it, and how long the rest takes. The facts, what matters
    least last, stand between as far as there is room."""
    parts = [  # as they stand, each with how soon it goes
        (0, what),
        (5, empty := " " * _LEAST),
        (1, f"{share:4.0%}"),
        *((2 if k == 0 else 3 + k, text) for k, text in enumerate(facts)),
        (3, f"{clock(left)} left" if left < 1e6 else ""),
    ]
    kept = fitted([p for p in parts if p[1]], width)
    if empty in kept:
        free = width - cells("  ".join(kept))
        kept[kept.index(empty)] = bar(share, min(_LEAST + free, _BAR))
    return "  ".join(kept)


def fitted(parts: Iterable[tuple[int, str]], width: int, gap: int = 2) -> list[str]:
    """The texts that fit side by side: those with the largest numbers go first."""
    kept = list(parts)
    while len(kept) > 1 and sum(cells(text) + gap for _, text in kept) > width + gap:
        kept.remove(max(kept, key=lambda p: p[0]))
    return [text for _, text in kept]


def bar(share: float, width: int) -> str:
    """A bar that is full up to a share."""
    utf = (stream().encoding or "").lower().startswith("utf")
    full, empty = ("━", "─") if utf else ("#", "-")
    done = round(width * min(1.0, max(0.0, share)))
    return full * done + empty * (width - done)


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    whole = max(0, round(seconds))
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:0{2 if hours else 1}}:{whole % 60:02}"

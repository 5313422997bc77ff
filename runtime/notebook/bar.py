"""A bar of a notebook: HTML that is replaced as a fit goes on, without widgets. A callback of `fit`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from ..extras import optional
from ..progress import cell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..network import Network
    from ..progress import History, Report


class Bar:
    """Use as a context; what is shown in the end is the last epoch."""

    def __init__(self) -> None:
        self._shown = optional("IPython.display", "notebook", "a notebook is shown by IPython")
        self._handle: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        """What was shown last stays."""

    def on_progress(self, report: Report) -> None:
        """Show how far the fit is."""
        done = report.epoch - 1 + report.position / report.examples
        self._show(
            done / report.last, f"epoch {report.epoch}/{report.last}", report.metrics, f"{report.rate:,.0f} ex/s"
        )

    def on_epoch(self, history: History, model: Network) -> None:
        """Show what the epoch came to."""
        row, last = history[-1], model.progress.last if model.progress is not None else history[-1]["epoch"]
        metrics = {k: v for k, v in row.items() if k not in ("epoch", "seconds")}
        why = f"ended by {history.stopped}" if history.stopped else ""
        seconds = sum(r["seconds"] for r in history)
        self._show(row["epoch"] / last, f"epoch {row['epoch']}/{last}", metrics, f"{seconds:.1f} s", why)

    def _show(self, share: float, what: str, metrics: Mapping[str, Any], *more: str) -> None:
        texts = [what, *(f"{k} {cell(v)}" for k, v in metrics.items()), *filter(None, more)]
        drawn = self._shown.HTML(html(share, texts))
        if self._handle is None:  # a fit that fails at once shows no bar
            self._handle = self._shown.display(drawn, display_id=True)
        else:
            self._handle.update(drawn)


def html(share: float, texts: list[str]) -> str:
    """A bar that is full up to a share, and texts beside it."""
    said = " &nbsp; ".join(map(escape, texts))
    return f'<div><progress value="{share:.4f}" max="1"></progress> <code>{said}</code></div>'

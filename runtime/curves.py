"""Curves of a training: one panel for each metric, with that of what is held out beside it.

In: columns of numbers by name. Out: a picture in SVG that needs nothing else and is read on light and on dark ground,
or axes of matplotlib (the extra `plot`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any

from .extras import optional

_COLORS = ("#4c78a8", "#f58518")  # of what is trained on, of what is held out
_WIDTH, _HEIGHT, _EDGE = 260, 150, 30  # of a panel, and what is left around its curves

Columns = Mapping[str, Sequence[float]]


def panels(columns: Columns) -> dict[str, Columns]:
    """The curves that belong together, by metric: its own, and the one with `val_` before its name."""
    found: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in columns.items():
        found.setdefault(name.removeprefix("val_"), {})[name] = values
    return dict(found)


def svg(columns: Columns) -> str:
    """The panels side by side."""
    drawn = [_panel(title, curves, k * _WIDTH) for k, (title, curves) in enumerate(panels(columns).items())]
    width = _WIDTH * len(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" '
        f'style="max-width:100%" font-family="sans-serif" font-size="11" fill="currentColor">{"".join(drawn)}</svg>'
    )


def _panel(title: str, curves: Columns, left: float) -> str:
    known = [v for values in curves.values() for v in values if isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    span, bottom, right = (high - low) or 1.0, _HEIGHT - _EDGE, left + _WIDTH - _EDGE / 2
    parts = [
        f'<path d="M{left + _EDGE} {_EDGE}V{bottom}H{right:g}" fill="none" stroke="currentColor" opacity="0.4"/>',
        f'<text x="{left + _EDGE}" y="{_EDGE - 16}">{escape(title)}</text>',
        f'<text x="{left + _EDGE}" y="{_EDGE - 4}" opacity="0.7">{high:.4g}</text>',
        f'<text x="{left + _EDGE}" y="{bottom + 14}" opacity="0.7">{low:.4g}</text>',
        f'<text x="{right:g}" y="{bottom + 14}" text-anchor="end" opacity="0.7">epochs</text>',
    ]
    for (name, values), color in zip(curves.items(), _COLORS, strict=False):
        step = (right - left - _EDGE) / max(1, len(values) - 1)
        points = [
            f"{left + _EDGE + k * step:.1f},{bottom - (v - low) / span * (bottom - _EDGE):.1f}"
            for k, v in enumerate(values)
            if isfinite(v)
        ]
        line = f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="1.6"/>'
        parts.append(f"<g><title>{escape(name)}</title>{line}</g>")
        if len(curves) > 1:
            y = _EDGE - 4 - 12 * (name == title)
            parts.append(f'<text x="{right:g}" y="{y}" text-anchor="end" fill="{color}">{escape(name)}</text>')
    return "".join(parts)


def plot(epochs: Sequence[int], columns: Columns, axes: Any = None) -> Any:
    """The panels with matplotlib, in axes that are given, as many as metrics, or in new ones; the axes, a list (E0503
    without matplotlib)."""
    found = panels(columns)
    if axes is None:
        pyplot = optional("matplotlib.pyplot", "plot", "curves are drawn with matplotlib")
        _, axes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3), layout="compressed", squeeze=False)
    listed = list(axes.flat) if hasattr(axes, "flat") else list(axes) if isinstance(axes, Sequence) else [axes]
    for ax, (title, curves) in zip(listed, found.items(), strict=False):
        for (name, values), color in zip(curves.items(), _COLORS, strict=False):
            ax.plot(epochs, values, color=color, label=name)
        ax.set(title=title, xlabel="epoch")
        if len(curves) > 1:
            ax.legend()
    return listed

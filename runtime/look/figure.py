"""Pictures as PNG files, drawn with matplotlib (the extra `plot`): tiles, curves, surfaces.

In: arrays, and a path. Out: a file, whole or not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import ceil, isqrt, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from ..call.column import Array
from ..call.messages import argument_error
from ..extras import optional
from ..store.files import write as write_file
from .rates import Rates
from .surface import Surface

TILES = 256  # at most on one picture


def new_figure(width: float, height: float, layout: Any = "compressed") -> Any:
    """An empty figure in inches (E0503 without matplotlib)."""
    module = optional("matplotlib.figure", "plot", "pictures are drawn with matplotlib")
    return module.Figure(figsize=(width, height), layout=layout)


def write(figure: Any, path: Path) -> None:
    """The figure as a PNG file."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    write_file(path, drawn.getvalue())


def pictures(x: Array) -> Array:
    """A batch as pictures, `[N, H, W]` grey or `[N, H, W, 3]`: of `[N, 3, H, W]` the colours, of other channels each as
    a picture of its own, of vectors squares where their length is one, otherwise a row."""
    x = np.asarray(x)
    if x.ndim == 4 and x.shape[1] == 3:
        return x.transpose(0, 2, 3, 1)
    if x.ndim == 4:
        return x.reshape(-1, *x.shape[2:])
    if x.ndim == 3:
        return x
    if x.ndim == 2:
        side = isqrt(x.shape[1])
        return x.reshape(len(x), side, side) if side * side == x.shape[1] and side > 1 else x[:, None]
    raise argument_error("E0601", f"an array of {x.ndim} axes is no batch of pictures")


def tiles(
    shown: Sequence[Array] | Array,
    path: Path,
    *,
    titles: Sequence[str] = (),
    columns: int | None = None,
    signed: bool = False,
    ends: tuple[float, float] | None = None,
) -> None:
    """Pictures, `[H, W]` or `[H, W, 3]`, side by side, the first `TILES` of them. Black and white are the least and the
    greatest value of each, or `ends` of all; `signed`: a scale from blue to red with 0 in its middle."""
    shown = shown[:TILES]
    if not all(p.size for p in shown) or not len(shown):
        raise argument_error("E0601", "there is no picture to show: the array is empty")
    columns = columns or ceil(sqrt(len(shown)))
    rows = ceil(len(shown) / columns)
    inch, above = min(2.4, 14 / columns), 0.25 if titles else 0.0
    figure = new_figure(columns * inch, rows * (inch + above), layout=None)
    top = 1 - above / (rows * (inch + above))
    grid = {"left": 0, "right": 1, "bottom": 0, "top": top, "wspace": 0.04, "hspace": 0.04 + above / inch}
    for k, a in enumerate(figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid).flat):
        a.set_axis_off()
        if k < len(shown):
            low, high = ends or _ends(shown[k], signed)
            if shown[k].ndim == 3:
                a.imshow(np.clip((shown[k] - low) / (high - low), 0, 1))
            else:
                a.imshow(shown[k], cmap="coolwarm" if signed else "gray", vmin=low, vmax=high, interpolation="nearest")
        if k < len(titles):
            a.set_title(titles[k], fontsize=8)
    write(figure, path)


def _ends(x: Array, signed: bool) -> tuple[float, float]:
    finite = x[np.isfinite(x)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if signed:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    return low, high if high > low else low + 1


def rates(found: Rates, path: Path) -> None:
    """Loss against learning rate."""
    figure = new_figure(6, 4)
    a = figure.subplots()
    a.plot(found.rate, found.loss, color="0.8")
    a.plot(found.rate, _smooth(found.loss))
    a.set(xscale="log", xlabel="learning rate", ylabel="loss of the batch (blue: smoothed)")
    write(figure, path)


def _smooth(y: Array, keep: float = 0.8) -> Array:
    """An exponential mean, corrected for its beginning."""
    out, mean = [], 0.0
    for k, v in enumerate(y):
        mean = keep * mean + (1 - keep) * float(v)
        out.append(mean / (1 - keep ** (k + 1)))
    return np.array(out)


def surface(found: Surface, path: Path, title: str = "") -> None:
    """The surface in perspective, and as contours; a loss far above the others is cut off, on a logarithmic scale."""
    figure = new_figure(10, 4.5)
    level = np.log10(np.maximum(found.loss, 1e-12))
    level = np.where(np.isfinite(level), level, np.max(level, initial=0, where=np.isfinite(level)))
    left = figure.add_subplot(1, 2, 1, projection="3d")
    across, up = np.meshgrid(found.at, found.at)
    left.plot_surface(across, up, level, cmap="viridis", linewidth=0)
    left.set(xlabel="first direction", ylabel="second direction")
    left.tick_params(labelsize=7)
    left.locator_params(nbins=5)
    right = figure.add_subplot(1, 2, 2)
    if len(found.at) > 1:
        drawn = right.contourf(found.at, found.at, level, 24, cmap="viridis")
        figure.colorbar(drawn, ax=right, label="log10 loss")
    right.set(xlabel="second direction", ylabel="first direction", aspect="equal")
    figure.suptitle(title)
    write(figure, path)

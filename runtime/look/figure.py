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
_SLIDE, _DPI = (12.0, 6.75), 160  # inches, and dots of each: 1920 x 1080


def new_figure(width: float, height: float, layout: Any = "compressed") -> Any:
    """An empty figure in inches (E0503 without matplotlib)."""
    module = optional("matplotlib.figure", "plot", "pictures are drawn with matplotlib")
    return module.Figure(figsize=(width, height), layout=layout)


def write(figure: Any, path: Path, dpi: float = 100) -> None:
    """The figure as a PNG file."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
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
    columns = columns or ceil(sqrt(len(shown) * 16 / 9))
    rows = ceil(len(shown) / columns)
    inch, above = min(2.4, 14 / columns), 0.3 if titles else 0.0
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
            a.set_title(titles[k], fontsize=min(12, 60 * inch / max(len(titles[k]), 1)))
    write(figure, path)


def _ends(x: Array, signed: bool) -> tuple[float, float]:
    finite = x[np.isfinite(x)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if signed:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    return low, high if high > low else low + 1


def rates(found: Rates, path: Path, title: str = "") -> None:
    """Loss against learning rate, as large as a slide: each batch, and smoothed; where that falls fastest, and its
    least."""
    figure = new_figure(*_SLIDE)
    a = figure.subplots()
    smooth = _smooth(found.loss)
    a.plot(found.rate, found.loss, color="0.8", label="each batch")
    a.plot(found.rate, smooth, linewidth=2.5, label="smoothed")
    least = int(smooth.argmin())
    near = max(1, len(smooth) // 20)  # a slope over a tenth of the steps
    if least > 2 * near:
        fastest = near + int((smooth[2 * near : least + 1] - smooth[: least + 1 - 2 * near]).argmin())
        a.axvline(found.rate[fastest], color="C2", linestyle="--", label=f"falls fastest: {found.rate[fastest]:.2g}")
    a.plot(
        found.rate[least], smooth[least], "o", color="C3", label=f"least, {smooth[least]:.3g}: {found.rate[least]:.2g}"
    )
    a.set(xscale="log", xlabel="learning rate of the step (logarithmic)", ylabel="loss of the batch, mean per example")
    first = found.loss[0]
    if np.isfinite(first) and found.loss[np.isfinite(found.loss)].max() > 2 * first > 0:
        a.set_ylim(0, 2 * first)  # where it breaks is seen; how far it goes is not
    a.grid(alpha=0.3)
    a.legend()
    _caption(figure, a, title, f"range test: {len(found.rate)} steps, each with the next rate")
    write(figure, path, _DPI)


def _caption(figure: Any, a: Any, title: str, below: str) -> None:
    """The title in bold, and what is seen."""
    figure.suptitle(title, fontsize=20, fontweight="bold")
    a.set_title(below, fontsize=13, color="0.35")
    for text in (a.xaxis.label, a.yaxis.label):
        text.set_fontsize(14)
    a.tick_params(labelsize=12)


def _smooth(y: Array, keep: float = 0.8) -> Array:
    """An exponential mean, corrected for its beginning."""
    out, mean = [], 0.0
    for k, v in enumerate(y):
        mean = keep * mean + (1 - keep) * float(v)
        out.append(mean / (1 - keep ** (k + 1)))
    return np.array(out)


def surface(found: Surface, path: Path, title: str = "") -> None:
    """The surface in perspective, and as contours; a loss far above the others is cut off, on a logarithmic scale. A
    cross is where training ended."""
    figure = new_figure(*_SLIDE)
    level = np.log10(np.maximum(found.loss, 1e-12))
    level = np.where(np.isfinite(level), level, np.max(level, initial=0, where=np.isfinite(level)))
    left = figure.add_subplot(1, 2, 1, projection="3d")
    across, up = np.meshgrid(found.at, found.at)
    left.plot_surface(across, up, level, cmap="viridis", linewidth=0)
    left.set(xlabel="second direction", ylabel="first direction")
    left.set_title("log10 of the loss", fontsize=13, color="0.35")
    left.locator_params(nbins=5)
    right = figure.add_subplot(1, 2, 2)
    if len(found.at) > 1:
        drawn = right.contourf(found.at, found.at, level, 24, cmap="viridis")
        figure.colorbar(drawn, ax=right, label="log10 of the loss", shrink=0.75)
        lines = right.contour(found.at, found.at, level, 8, colors="white", linewidths=0.6)
        right.clabel(lines, fmt=lambda v: f"{10**v:.2g}", fontsize=10)
    right.plot(0, 0, "x", color="red", markersize=12, markeredgewidth=3)
    right.set(xlabel="second direction, in lengths of the filters", ylabel="first direction", aspect="equal")
    centre = found.loss[len(found.at) // 2, len(found.at) // 2]
    _caption(figure, right, title, f"the loss; x: where training ended, {centre:.3g}")
    write(figure, path, _DPI)

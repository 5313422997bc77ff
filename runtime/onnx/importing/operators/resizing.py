"""Larger and smaller tensors: axis by axis, by interpolation at places that the coordinate mode gives."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .....compiler.types.sizes import Dim
from .....compiler.types.tensors import FLOATS
from ..node import Node, operator, shown
from ..refusals import Refused
from ..values import Value, factor, number
from .normalisation import per_channel

_TIES = {"round_prefer_floor": "down", "round_prefer_ceil": "up", "floor": "floor", "ceil": "ceil"}
MAX_REACH = 32  # elements on each side of a place that a widened kernel reads


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of n elements that becomes one of m. `scale` is m / n before m was rounded; as ONNX Runtime does, places
    are computed in f32."""

    k: int
    n: Dim
    m: Dim
    scale: float | None  # None where m / n depends on sizes
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def factor(self) -> str:
        return f"({factor(self.m)} / {factor(self.n)})" if self.scale is None else number(self.scale, "f32")

    @property
    def length(self) -> float:
        """The size of the result before it was rounded."""
        if self.scale is None or not isinstance(self.n, int):
            raise Refused(f"this coordinate mode needs sizes that are known, not {self.n} and {self.m}")
        return round(self.scale * self.n, 6)


@operator("Resize", "Upsample")
def resize(n: Node) -> Value:
    mode = n.attribute("mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    if mode not in ("nearest", "linear", "cubic"):
        raise Refused(f"there is no way to resize called `{mode}`")
    if mode != "nearest" and n.x.dtype not in FLOATS:
        raise Refused(f"values of {n.x.dtype} are only resized by `nearest`")
    x = n.x
    axes = [a for a in _axes(n) if a.n != a.m or a.roi != (0, 1) or a.scale not in (1, None)]
    if _is_plain(n, mode, axes):
        by = "" if mode == "linear" else f', by = "{mode}"'
        return n.emit(f"{{0}} |> resize({shown([a.m for a in axes])}{by})", x)
    for axis in axes:
        places = _places(n, axis)
        if mode == "nearest":
            x = n.emit(f"nearest({{0}}, {places}, axis = {axis.k}{_ties(n, axis)})", x)
        else:
            x = n.emit(f"interpolate({{0}}, {places}, axis = {axis.k}{_kernel(n, mode, axis)})", x)
        if _mode(n) == "tf_crop_and_resize":
            x = _outside(n, axis, places, x)
    return x


def _is_plain(n: Node, mode: str, axes: list[Axis]) -> bool:
    """Whether it is `resize` of the library: of the last axes, by their sizes alone."""
    usual = {"cubic_coeff_a": -0.75, "antialias": 0, "exclude_outside": 0}
    return (
        _mode(n) == "half_pixel"
        and (mode != "nearest" or n.attribute("nearest_mode", "round_prefer_floor") == "round_prefer_ceil")
        and [a.k for a in axes] == list(range(n.x.rank - len(axes), n.x.rank))
        and all(a.scale is None or (isinstance(a.n, int) and a.scale * a.n == a.m) for a in axes)
        and all(n.attribute(name, value) == value for name, value in usual.items())
    )


def _mode(n: Node) -> str:
    old = n.op == "Upsample" or n.version < 11
    return "asymmetric" if old else n.attribute("coordinate_transformation_mode", "half_pixel")


# --- which axes, and how large they become


def _axes(n: Node) -> list[Axis]:
    rank = n.x.rank
    axes = [n.checked_axis(int(a), rank) for a in n.attribute("axes", range(rank))]
    sizes = n.numbers(3, "the sizes") if n.op == "Resize" and n.has(3) else None
    rois = _regions(n, axes)
    if sizes:
        return _to_sizes(n, axes, sizes, rois)
    if "scales" in n.attributes:
        scales = [float(s) for s in n.attributes["scales"]]
    else:
        at = 2 if n.op == "Resize" and n.version >= 11 else 1
        scales = [float(np.float32(s)) for s in n.known(at, "the scales").reshape(-1)]
    if len(scales) != len(axes):
        raise Refused(f"it has {len(scales)} scales for {len(axes)} axes")
    if any(not s > 0 for s in scales):
        raise Refused("a scale must be larger than 0")
    return [
        Axis(k, n.x.shape[k], _times(n.x.shape[k], s), s, roi) for k, s, roi in zip(axes, scales, rois, strict=True)
    ]


def _times(size: Dim, scale: float) -> Dim:
    """floor(size scale), computed in f32 as shapes are inferred; of a size that is not known by a small fraction."""
    if isinstance(size, int):
        return int(np.floor(np.float32(size) * np.float32(scale)))
    ratio = Fraction(scale).limit_denominator(64)
    if np.float32(float(ratio)) != np.float32(scale):
        raise Refused(f"how large {size} times {scale} is must be known")
    return size * ratio.numerator // ratio.denominator


def _to_sizes(n: Node, axes: list[int], sizes: list[Dim], rois: list[tuple[float, float]]) -> list[Axis]:
    if len(sizes) != len(axes):
        raise Refused(f"it has {len(sizes)} sizes for {len(axes)} axes")
    policy = n.attribute("keep_aspect_ratio_policy", "stretch")
    own = [n.x.shape[k] for k in axes]
    if policy == "stretch":
        scales = [
            s / d if isinstance(s, int) and isinstance(d, int) and d else None for s, d in zip(sizes, own, strict=True)
        ]
        return [Axis(*a) for a in zip(axes, own, sizes, scales, rois, strict=True)]
    if policy not in ("not_larger", "not_smaller"):
        raise Refused(f"there is no policy `{policy}`")
    known = [s / d for s, d in zip(sizes, own, strict=True) if isinstance(s, int) and isinstance(d, int) and d]
    if len(known) != len(axes):
        raise Refused(f"with the policy `{policy}` sizes must be known")
    scale = min(known) if policy == "not_larger" else max(known)
    made = [int(scale * int(str(d)) + 0.5) for d in own]
    return [Axis(k, d, m, scale, roi) for k, d, m, roi in zip(axes, own, made, rois, strict=True)]


def _regions(n: Node, axes: list[int]) -> list[tuple[float, float]]:
    """Of each axis what part is read, as shares of its length."""
    if _mode(n) != "tf_crop_and_resize":
        return [(0.0, 1.0) for _ in axes]
    roi = n.known(1, "the region").reshape(-1)
    if len(roi) != 2 * len(axes):
        raise Refused(f"its region has {len(roi)} numbers for {len(axes)} axes")
    return [(float(a), float(b)) for a, b in zip(roi[: len(axes)], roi[len(axes) :], strict=True)]


# --- where the elements of a result lie, and what stands there


def _places(n: Node, axis: Axis) -> str:
    """An expression for the places along an axis, f32[m]."""
    mode, m, size = _mode(n), axis.m, axis.n
    i = f"cast(iota({m}), f32)"
    if mode == "asymmetric":
        return f"{i} / {axis.factor}"
    if mode == "tf_half_pixel_for_nn":
        return f"({i} + 0.5) / {axis.factor}"
    centres = f"centres({m}, {axis.factor})"
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and axis.scale is not None and axis.scale >= 1):
        return centres
    if mode == "pytorch_half_pixel":  # the first element where a result has one
        return f"minimum({m} - 1, 1) * {centres}"
    if mode == "half_pixel_symmetric":
        if n.attribute("mode", "nearest") == "nearest":
            raise Refused(f"which element is nearest is a matter of rounding with `{mode}`")
        if axis.scale is not None and axis.scale == int(axis.scale):
            return centres
        if not isinstance(m, int) or not isinstance(size, int):
            raise Refused(f"this coordinate mode needs sizes that are known, not {size} and {m}")
        moved = size / 2 * (1 - m / axis.length)
        return centres + (f" + {number(moved, 'f32')}" if moved else "")
    if mode == "align_corners":
        if isinstance(size, int) and axis.scale is not None:
            return f"0 * {i}" if axis.length == 1 else f"{i} * {size - 1} / {number(axis.length - 1, 'f32')}"
        if axis.scale is None or axis.scale == int(axis.scale):
            return f"{i} * ({size} - 1) / maximum({m} - 1, 1)"
        raise Refused(f"the corners of {size} are aligned for scales that are whole")
    if mode == "tf_crop_and_resize":
        last, (start, end) = int(axis.length) and int(str(size)) - 1, axis.roi
        if axis.length == 1:
            return f"0 * {i} + {number(0.5 * (start + end) * last, 'f32')}"
        step = number((end - start) * last / (axis.length - 1), "f32")
        return f"{i} * {step} + {number(start * last, 'f32')}"
    raise Refused(f"there is no coordinate mode `{mode}`")


def _outside(n: Node, axis: Axis, places: str, x: Value) -> Value:
    """Beyond what is there stands one value."""
    beyond = n.emit(f"along({places}, {x.rank}, {axis.k})")
    value = number(n.attribute("extrapolation_value", 0.0), x.dtype)
    mask = n.emit(f"broadcast({{0}} < 0 or {{0}} > {axis.n} - 1, {list(x.shape)})", beyond)
    return n.emit(f"where({{0}}, {value}, {{1}})", mask, x)


def _ties(n: Node, axis: Axis) -> str:
    if n.op == "Upsample" or n.version < 11:
        if axis.scale is None or axis.scale < 1:
            raise Refused("before opset 11 it is not said which elements of a larger axis are taken")
        return ', ties = "floor"'
    rounding = n.attribute("nearest_mode", "round_prefer_floor")
    if rounding not in _TIES:
        raise Refused(f"there is no rounding `{rounding}`")
    return "" if _TIES[rounding] == "down" else f', ties = "{_TIES[rounding]}"'


def _kernel(n: Node, mode: str, axis: Axis) -> str:
    """The arguments of `interpolate` that say by which kernel."""
    a = n.attribute("cubic_coeff_a", -0.75)
    reach = 2 if mode == "cubic" else 1
    shrink = ""
    if n.attribute("antialias", 0) and (axis.scale is None or axis.scale < 1):
        if axis.scale is None:
            raise Refused("what is averaged before it is made smaller needs sizes that are known")
        reach = -int(np.floor(-reach / axis.scale))
        if reach > MAX_REACH:
            raise Refused(f"each element would be the mean of {2 * reach}; {2 * MAX_REACH} are supported")
        shrink = f", shrink = {number(axis.scale, 'f32')}"
    kernel = f", kernel = cubic(a = {number(a, 'f32')})" if a != -0.75 else ", kernel = cubic"
    more = (kernel if mode == "cubic" else "") + (f", reach = {reach}" if reach != 1 else "") + shrink
    return more + (", inside = true" if n.attribute("exclude_outside", 0) else "")


# --- at places that are data


@operator("GridSample")
def grid_sample(n: Node) -> Value:
    mode, outside = n.attribute("mode", "linear"), n.attribute("padding_mode", "zeros")
    by = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    if by == "cubic" and outside != "zeros":
        raise Refused(f"programs differ in what `cubic` is with the padding `{outside}`")
    corners = ", corners = true" if n.attribute("align_corners", 0) else ""
    return n.emit(f'grid_sample({{0}}, {{1}}, by = "{by}", outside = "{outside}"{corners})', n.x, n.input(1))


@operator("AffineGrid")
def affine_grid(n: Node) -> Value:
    space = n.numbers(1, "the size")[2:]
    corners = ", corners = true" if n.attribute("align_corners", 0) else ""
    return n.emit(f"affine_grid({{0}}, {shown(space)}{corners})", n.x)


@operator("RoiAlign")
def roi_align(n: Node) -> Value:
    if n.attribute("mode", "avg") != "avg":
        raise Refused("its mode must be `avg`")
    samples = n.attribute("sampling_ratio", 0)
    if samples < 1:
        raise Refused("how many samples it takes must be said: with `sampling_ratio` 0 that depends on the regions")
    aligned = n.version >= 16 and n.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    out = [n.attribute("output_height", 1), n.attribute("output_width", 1)]
    scale = number(n.attribute("spatial_scale", 1.0), "f32")
    image = n.cast(n.input(2), "i32")
    call = f"roi_align({{0}}, {{1}}, {{2}}, {out}, {samples}, {scale}, aligned = {str(aligned).lower()})"
    return n.emit(call, n.x, n.input(1), image)


@operator("DeformConv")
def deform_conv(n: Node) -> Value:
    if n.x.rank != 4:
        raise Refused("it convolves over 2 axes of space")
    pads = [int(p) for p in n.attribute("pads", [0] * 4)]
    more = f", before = {pads[:2]}, groups = {n.attribute('group', 1)}"
    for ours, name in (("stride", "strides"), ("dilation", "dilations")):
        more += f", {ours} = {[int(v) for v in n.attribute(name, [1, 1])]}"
    operands = [n.x, n.input(1), n.input(2)]
    if n.has(4):
        operands.append(n.input(4))
    gaps = ", ".join(f"{{{k}}}" for k in range(len(operands)))
    y = n.emit(f"deformed({gaps}{more})", *operands)
    return n.emit("{0} + {1}", y, per_channel(n, n.input(3))) if n.has(3) else y

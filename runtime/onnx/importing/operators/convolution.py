"""Convolutions and pooling: layers and functions of the library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .....compiler.types.sizes import Dim
from ....call.column import Array
from ..node import Node, operator
from ..refusals import Refused
from ..values import Value, factor, number
from .normalisation import per_channel
from .products import is_weight


def _short(values: list[int]) -> str:
    """One number for all axes of space where they agree."""
    return str(values[0]) if len(set(values)) == 1 else str(values)


def _per_axis(n: Node, name: str, spatial: int, default: int) -> list[int]:
    return _fit(n, name, spatial, n.attribute(name, [default] * spatial))


def _fit(n: Node, name: str, count: int, values: Any) -> list[int]:
    if len(values) != count:
        raise Refused(f"its attribute `{name}` has {len(values)} numbers instead of {count}")
    return [int(v) for v in values]


def _sides(n: Node, kernel: list[int], stride: list[int], dilation: list[int]) -> list[list[int]]:
    """[before, after] for each axis of space."""
    spatial = len(kernel)
    auto = n.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", "", "VALID"):
        pads = [0] * (2 * spatial) if auto == "VALID" else [int(p) for p in n.attribute("pads", [0] * (2 * spatial))]
        return [[pads[k], pads[k + spatial]] for k in range(spatial)]
    sides: list[list[int]] = []
    for k in range(spatial):
        window, size = (kernel[k] - 1) * dilation[k] + 1, n.x.shape[2 + k]
        if isinstance(size, int):
            total = max((-(-size // stride[k]) - 1) * stride[k] + window - size, 0)
        elif stride[k] == 1:
            total = window - 1
        else:
            raise Refused(f"`{auto}` with a stride needs sizes that are known, not {size}")
        half = total // 2
        sides.append([half, total - half] if auto == "SAME_UPPER" else [total - half, half])
    return sides


def _pad(sides: list[list[int]]) -> str:
    """`pad` as the library takes it; "" for none."""
    if all(a == b for a, b in sides):
        listed = [a for a, _ in sides]
        return "" if not any(listed) else _short(listed)
    return str(sides)


def _settings(**values: str) -> str:
    return "".join(f", {name} = {v}" for name, v in values.items() if v)


def _unless(default: int, values: list[int]) -> str:
    return "" if all(v == default for v in values) else _short(values)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a convolution and its adjoint have in common; `learned` are the arrays of a layer, where it is one."""

    w: Value
    bias: Value | None
    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    groups: int
    learned: dict[str, Array] | None

    @classmethod
    def of(cls, n: Node) -> Filters:
        w, bias, spatial = n.input(1), n.input(2) if n.has(2) else None, n.x.rank - 2
        if not 1 <= spatial <= 3:
            raise Refused(f"it convolves over {spatial} axes; 1, 2 or 3 are supported")
        kernel = [_fixed(d, "the kernel") for d in w.shape[2:]]
        stride, dilation = _per_axis(n, "strides", spatial, 1), _per_axis(n, "dilations", spatial, 1)
        arrays = {name: v.known for name, v in (("W", w), ("b", bias)) if v is not None and is_weight(v)}
        is_layer = len(arrays) == 1 + (bias is not None)
        learned = {name: a for name, a in arrays.items() if a is not None} if is_layer else None
        return cls(w, bias, kernel, stride, dilation, n.attribute("group", 1), learned)

    @property
    def of_groups(self) -> str:
        return f", groups = {self.groups}" if self.groups != 1 else ""

    @property
    def without(self) -> str:
        return "" if self.bias is not None else ", bias = false"

    def settings(self, pad: list[list[int]]) -> str:
        return _settings(stride=_unless(1, self.stride), pad=_pad(pad), dilation=_unless(1, self.dilation))

    def plus_bias(self, n: Node, y: Value) -> Value:
        return y if self.bias is None else n.emit("{0} + {1}", y, per_channel(n, self.bias))


@operator("Conv")
def conv(n: Node) -> Value:
    f = Filters.of(n)
    sides = _sides(n, f.kernel, f.stride, f.dilation)
    more, window = f.settings(sides), _short(f.kernel)
    if f.learned is not None:
        call = f"Conv({f.w.shape[0]}, {window}{more}{f.of_groups}{f.without})"
        if f.groups > 1 and f.groups == n.x.shape[1]:
            times = f", multiplier = {f.w.shape[0] // f.groups}" if f.w.shape[0] != f.groups else ""
            call = f"DepthwiseConv({window}{times}{more}{f.without})"
        return n.text.layer(n.x, n.label(f.w), call, f.learned)
    call = f"slide({{1}}, {_short(f.stride)}, {_pad(sides) or '0'}, {_short(f.dilation)}, {f.groups}, false)"
    return f.plus_bias(n, n.emit(f"{{0}} |> {call}", n.x, f.w))


def _fixed(d: Dim, what: str) -> int:
    if not isinstance(d, int):
        raise Refused(f"{what} must have a size that is known, not {d}")
    return d


@operator("ConvTranspose")
def conv_transpose(n: Node) -> Value:
    f = Filters.of(n)
    x, stride, spatial = n.x, f.stride, len(f.kernel)
    more = _per_axis(n, "output_padding", spatial, 0)
    window = [(k - 1) * d + 1 for k, d in zip(f.kernel, f.dilation, strict=True)]
    sides = [[0, 0] for _ in f.kernel]
    auto = n.attribute("auto_pad", "NOTSET")
    wanted = n.attributes.get("output_shape")
    if wanted is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
        for k in range(spatial):
            size = _fixed(x.shape[2 + k], "the input")
            out = int(wanted[len(wanted) - spatial + k]) if wanted is not None else size * stride[k]
            total = stride[k] * (size - 1) + more[k] + window[k] - out
            half = total // 2
            sides[k] = [half, total - half] if auto == "SAME_UPPER" else [total - half, half]
    elif auto != "VALID":
        pads = [int(p) for p in n.attribute("pads", [0] * (2 * spatial))]
        sides = [[pads[k], pads[k + spatial]] for k in range(spatial)]
    ends = [[a, b - m] for (a, b), m in zip(sides, more, strict=True)]  # what is added at the end is cut off less
    cut = [[max(a, 0), max(b, 0)] for a, b in ends]
    grown = [[max(-a, 0), max(-b, 0)] for a, b in ends]
    filters = _fixed(f.w.shape[1], "the filters") * f.groups
    if f.learned is not None and not any(map(any, grown)):
        call = f"ConvTranspose({filters}, {_short(f.kernel)}{f.settings(cut)}{f.of_groups}{f.without})"
        return n.text.layer(x, n.label(f.w), call, f.learned)
    whole = [(d - 1) * s + k for d, s, k in zip(x.shape[2:], stride, window, strict=True)]
    shape = f"[{x.shape[0]}, {filters}, {', '.join(map(str, whole))}]"
    zeros = n.text.emit(f"broadcast(cast(0, {x.dtype}), {shape})", stem="zeros")
    slid = f"correlate({{0}}, {{1}}, {_short(stride)}, {_short(f.dilation)}, {f.groups})"
    y = n.emit(f"grad(sum({slid} * {{2}}), {{0}})", zeros, f.w, x)
    if any(map(any, grown)):
        y = n.emit(f"{{0}} |> enclosed({grown})", y)
    if any(map(any, cut)):
        y = n.emit(f"{{0}} |> inner({cut})", y)
    return f.plus_bias(n, y)


@operator("MaxPool", "AveragePool", "LpPool")
def pool(n: Node) -> Value | list[Value]:
    spatial = n.x.rank - 2
    if not 1 <= spatial <= 3:
        raise Refused(f"it pools over {spatial} axes; 1, 2 or 3 are supported")
    kernel = _fit(n, "kernel_shape", spatial, n.needed("kernel_shape"))
    stride, dilation = _per_axis(n, "strides", spatial, 1), _per_axis(n, "dilations", spatial, 1)
    sides = _sides(n, kernel, stride, dilation)
    ceil = bool(n.attribute("ceil_mode", 0))
    common = {
        "stride": "" if stride == kernel else _short(stride),
        "pad": _pad(sides),
        "ceil": "true" if ceil and _sticks_out(n, kernel, stride, dilation, sides) else "",
    }
    if n.op == "MaxPool":
        call = f"({_short(kernel)}{_settings(**common, dilation=_unless(1, dilation))})"
        y = n.emit(f"{{0}} |> max_pool{call}", n.x)
        return [y, _places(n, call)] if len(n.outputs) > 1 and n.outputs[1] else y
    if n.op == "LpPool":
        p = n.attribute("p", 2)
        p_text = number(p, "f32")
        x = n.emit(f"abs({{0}})^{p_text}", n.x)
        total = _sums(n, x, kernel, stride, dilation, sides, ceil)
        return n.emit(f"{{0}}^(1 / {p_text})", total)
    counted = "true" if n.attribute("count_include_pad", 0) else ""
    if all(d == 1 for d in dilation):
        return n.emit(f"{{0}} |> avg_pool({_short(kernel)}{_settings(**common, count_pad=counted)})", n.x)
    total = _sums(n, n.x, kernel, stride, dilation, sides, ceil)
    if not common["ceil"] and (counted or not any(map(any, sides))):
        return n.emit(f"{{0}} / {int(np.prod(kernel))}", total)
    ones = n.emit(f"broadcast(cast(1, {n.x.dtype}), [1, 1, {', '.join(map(str, n.x.shape[2:]))}])")
    if counted:  # what pads counts, what a last window has beyond does not
        ones = n.emit(f"{{0}} |> enclosed({sides}, value = 1)", ones)
        sides = [[0, 0] for _ in sides]
    return n.emit("{0} / {1}", total, _sums(n, ones, kernel, stride, dilation, sides, ceil))


def _sticks_out(n: Node, kernel: list[int], stride: list[int], dilation: list[int], sides: list[list[int]]) -> bool:
    """Whether rounding up makes one more window than rounding down, along any axis."""
    for k, d in enumerate(n.x.shape[2:]):
        rest = (d + sum(sides[k]) - (kernel[k] - 1) * dilation[k] - 1) % stride[k]
        if rest != 0:
            return True
    return False


def _sums(
    n: Node, x: Value, kernel: list[int], stride: list[int], dilation: list[int], sides: list[list[int]], ceil: bool
) -> Value:
    """The sum of each window."""
    ends = [list(s) for s in sides]
    if ceil:
        for k, d in enumerate(x.shape[2:]):
            size = _fixed(d, "the input")
            rest = (size + sum(sides[k]) - (kernel[k] - 1) * dilation[k] - 1) % stride[k]
            if rest and size + sides[k][0] + (stride[k] - rest) > 0:
                ends[k][1] += stride[k] - rest
    if any(map(any, ends)):
        x = n.emit(f"{{0}} |> enclosed({ends})", x)
    places = ["i", "j", "l"][: len(kernel)]
    offsets = ["u", "v", "w"][: len(kernel)]
    bound = ", ".join(f"{o} in 0..{k}" for o, k in zip(offsets, kernel, strict=True))
    read = ", ".join(f"{p} * {s} + {o} * {d}" for p, s, o, d in zip(places, stride, offsets, dilation, strict=True))
    (y,) = n.emit_whole(f"{{r0}}[b, c, {', '.join(places)}] = sum[{bound}]({{0}}[b, c, {read}])", x)
    return y


def _places(n: Node, call: str) -> Value:
    """Positions in the whole tensor, by rows, or by columns with `storage_order` 1."""
    within = n.emit(f"cast(max_pool_places({{0}}, {call[1:-1]}), i64)", n.x)
    batch, channels, *space = n.x.shape
    volume: Dim = 1
    for d in space:
        volume = volume * d
    if n.attribute("storage_order", 0):
        if len(space) != 2:
            raise Refused("positions by columns are of two axes of space")
        within = n.emit(f"{{0}} % {factor(space[1])} * {factor(space[0])} + {{0}} // {factor(space[1])}", within)
    count = f"cast(iota({batch * channels}), i64) * {factor(volume)}"
    return n.emit(f"{{0}} + reshape({count}, [{batch}, {channels}{', 1' * len(space)}])", within)


@operator("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(n: Node) -> Value:
    axes = list(range(2, n.x.rank))
    if n.op == "GlobalLpPool":
        p = number(n.attribute("p", 2), "f32")
        return n.emit(f"sum(abs({{0}})^{p}, axis = {axes}, keep = true)^(1 / {p})", n.x)
    name = "mean" if n.op == "GlobalAveragePool" else "max"
    return n.emit(f"{name}({{0}}, axis = {axes}, keep = true)", n.x)


@operator("MaxUnpool")
def max_unpool(n: Node) -> Value:
    """Each value to the position that pooling found it at; the result may be larger than what was pooled."""
    x, index = n.x, n.input(1)
    kernel = [int(k) for k in n.needed("kernel_shape")]
    spatial = len(kernel)
    stride = _per_axis(n, "strides", spatial, 1)
    sides = _sides(n, kernel, stride, [1] * spatial)
    pooled = [(d - 1) * s + k - sum(p) for d, s, k, p in zip(x.shape[2:], stride, kernel, sides, strict=True)]
    whole: list[Any] = [*x.shape[:2], *pooled]
    out: list[Any] = list(n.numbers(2, "the shape")) if n.has(2) else whole
    count = int(np.prod(whole))
    flat = n.emit(f"scatter(reshape({{0}}, [-1]), reshape({{1}}, [-1]), {count})", x, index)
    if out == whole:
        return n.reshaped(flat, whole)
    grown = [[0, o - w] for o, w in zip(out, whole, strict=True)]
    return n.emit(f"pad({{0}}, {grown})", n.reshaped(flat, whole))

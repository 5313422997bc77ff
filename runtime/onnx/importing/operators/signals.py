"""Frequencies, windows of signals and images, and where new elements of a cache go."""

from __future__ import annotations

import numpy as np

from .....compiler.types.sizes import Dim
from ..node import Node, operator, shown
from ..refusals import Refused
from ..types import dtype_of
from ..values import Value, factor, known, number


@operator("DFT")
def dft(n: Node) -> Value:
    axis = n.integers(2, "the axis")[0] if n.has(2) else n.attribute("axis", 1) if n.version < 20 else -2
    axis = n.checked_axis(axis, n.x.rank)
    if axis == n.x.rank - 1:
        raise Refused("the last axis holds complex numbers")
    backwards, onesided = n.attribute("inverse", 0), n.attribute("onesided", 0)
    order = [*(k for k in range(n.x.rank - 1) if k != axis), axis, n.x.rank - 1]
    x = n.transposed(n.x, order)
    length = n.numbers(1, "the length")[0] if n.has(1) else x.shape[-2]
    if backwards and onesided:
        x = _whole_spectrum(n, x, length if n.has(1) else 2 * (length - 1))
        y = n.emit(f"dft({{0}}, backwards = true)[{', '.join([*[':'] * (x.rank - 1), '0:1'])}]", x)
        return n.transposed(y, [order.index(k) for k in range(n.x.rank)])
    x = _as_long(n, x, length)
    more = (f", {length // 2 + 1}" if onesided else "") + (", backwards = true" if backwards else "")
    return n.transposed(n.emit(f"dft({{0}}{more})", x), [order.index(k) for k in range(n.x.rank)])


def _as_long(n: Node, x: Value, length: Dim) -> Value:
    """x with an axis before the last that is cut off, or goes on with zeros."""
    own = x.shape[-2]
    if own == length:
        return x
    if not isinstance(own, int) or not isinstance(length, int):
        raise Refused(f"whether {own} elements are cut to {length} must be known")
    if length < own:
        return n.emit(f"{{0}}[{', '.join([*[':'] * (x.rank - 2), f':{length}'])}]", x)
    return n.emit(f"pad({{0}}, [{'[0, 0], ' * (x.rank - 2)}[0, {length - own}], [0, 0]])", x)


def _whole_spectrum(n: Node, x: Value, length: Dim) -> Value:
    """The frequencies of a real signal, of which the first half is there: the others are conjugates of these."""
    if not isinstance(length, int) or length < 1:
        raise Refused(f"how long the signal is must be known, not {length}")
    x = _as_long(n, x, length // 2 + 1)
    if length < 3:
        return x
    axes = ", ".join([":"] * (x.rank - 2))
    again = n.emit(f"flip({{0}}[{axes}, 1:{(length + 1) // 2}], {x.rank - 2})", x)
    sign = known(np.array([1, -1]), x.dtype)
    turned = n.emit(f"{{0}} * broadcast({{1}}, {shown(again.shape)})", again, sign)
    return n.emit(f"concat([{{0}}, {{1}}], axis = {x.rank - 2})", x, turned)


@operator("STFT")
def short_time(n: Node) -> Value:
    step = n.integers(1, "the step")[0]
    window = n.input(2) if n.has(2) else None
    length = n.integers(3, "the length")[0] if n.has(3) else window.shape[0] if window is not None else None
    if length is None or step < 1:
        raise Refused("it has neither a window nor a length, or no step")
    if window is not None and window.shape != (length,):
        raise Refused(f"its window has {shown(window.shape)} elements, its frames {length}")
    x = n.x if n.x.rank == 3 else n.emit("expand({0}, 2)", n.x)
    y = n.emit(f"frames({{0}}, {length}, {step})", x)
    if window is not None:
        y = n.emit("{0} * {1}", y, n.reshaped(window, [1, 1, length, 1]))
    return n.emit(f"dft({{0}}{f', {length // 2 + 1}' if n.attribute('onesided', 1) else ''})", y)


@operator("MelWeightMatrix")
def mel_weights(n: Node) -> Value:
    """Triangles between frequencies that are evenly apart in mel, by bins of a spectrum."""
    bands, length, rate = (n.integers(k, "a size of the matrix")[0] for k in range(3))
    low, high = (2595 * np.log10(1 + float(n.known(k, "a frequency").reshape(-1)[0]) / 700) for k in (3, 4))
    edges = np.arange(bands + 2) * ((high - low) / (bands + 2)) + low
    places = ((length + 1) * 700 * (10 ** (edges / 2595) - 1) // rate).astype(int)
    weights = np.zeros((length // 2 + 1, bands))
    for k, (left, middle, right) in enumerate(zip(places, places[1:], places[2:], strict=False)):
        if not 0 <= left <= right <= len(weights):
            raise Refused("a frequency lies outside of the spectrum")
        up, down = np.arange(left, middle + 1), np.arange(middle, right)
        weights[up, k] = (up - left) / (middle - left) if middle > left else 1
        if right > middle:
            weights[down, k] = (right - down) / (right - middle)
    return known(weights, dtype_of(n.attribute("output_datatype", 1)))


@operator("Det")
def determinant(n: Node) -> Value:
    return n.emit("determinant({0})", n.x)


@operator("Col2Im")
def from_windows(n: Node) -> Value:
    """The sum of windows of an image, each where it stood."""
    image, block = n.integers(1, "the image"), n.integers(2, "the window")
    ones = [1] * len(image)
    dilation, stride = n.attribute("dilations", ones), n.attribute("strides", ones)
    pads = n.attribute("pads", [0] * (2 * len(image)))
    grown = [d + pads[k] + pads[k + len(image)] for k, d in enumerate(image)]
    steps = [(g - (b - 1) * d - 1) // s + 1 for g, b, d, s in zip(grown, block, dilation, stride, strict=True)]
    places = np.zeros([*block, *steps], np.int64)
    for k, offset in enumerate(np.indices(places.shape)[: len(image)]):
        along = np.indices(places.shape)[len(image) + k]
        places = places * grown[k] + offset * dilation[k] + along * stride[k]
    batch, rows, columns = n.x.shape
    if columns != np.prod(steps) or not isinstance(rows, int) or rows % np.prod(block):
        raise Refused(f"{shown(n.x.shape)} are no windows {block} of {image}")
    channels = rows // int(np.prod(block))
    flat = n.reshaped(n.x, [batch, channels, places.size])
    turned = n.transposed(flat, [2, 0, 1])
    at = known(places.reshape(-1), "i32")
    summed = n.emit(f"scatter({{0}}, {{1}}, {int(np.prod(grown))})", turned, at)
    y = n.reshaped(n.transposed(summed, [1, 2, 0]), [batch, channels, *grown])
    if not any(pads):
        return y
    cut = ", ".join(f"{pads[k]}:{pads[k] + d}" for k, d in enumerate(image))
    return n.emit(f"{{0}}[:, :, {cut}]", y)


@operator("TensorScatter")
def into_cache(n: Node) -> Value:
    """Of a cache, [B, .., T, ..], the elements from an index of each example on are those of the update."""
    cache, update = n.x, n.input(1)
    axis = n.checked_axis(n.attribute("axis", -2), cache.rank)
    if axis == 0:
        raise Refused("the cache grows along the axis of the examples")
    size, new = cache.shape[axis], update.shape[axis]
    start = n.cast(n.input(2), "i32") if n.has(2) else known(np.zeros(1), "i32")
    behind = n.emit(f"expand(iota({size}), 0) - expand({{0}}, 1)", start)
    if n.attribute("mode", "linear") == "circular":
        behind = n.emit(f"{{0}} % {factor(size)}", behind)
    order = [0, axis, *(k for k in range(1, cache.rank) if k != axis)]
    turned = n.transposed(update, order)
    rows = n.reshaped(turned, [turned.shape[0] * new, *turned.shape[2:]])
    at = n.emit(f"expand(iota({cache.shape[0]}), 1) * {factor(new)} + clip({{0}}, 0, {new} - 1)", behind)
    fresh = n.transposed(n.emit("gather({0}, {1})", rows, at), [order.index(k) for k in range(cache.rank)])
    ones: list[Dim] = [1] * cache.rank
    ones[0], ones[axis] = behind.shape[0], size
    seen = n.reshaped(n.emit(f"{{0}} >= 0 and {{0}} < {new}", behind), ones)
    seen = n.emit(f"broadcast({{0}}, {shown(cache.shape)})", seen)
    return n.emit("where({0}, {1}, {2})", seen, fresh, cache)


@operator("ai.onnx.ml.Binarizer")
def binarizer(n: Node) -> Value:
    return n.emit(f"cast({{0}} > {number(n.attribute('threshold', 0.0), n.x.dtype)}, {n.x.dtype})", n.x)


@operator("ai.onnx.ml.ArrayFeatureExtractor")
def features(n: Node) -> Value:
    index = n.input(1)
    flat = n.reshaped(index, [-1]) if index.rank != 1 else index
    y = n.emit(f"gather({{0}}, {{1}}, axis = {n.x.rank - 1})", n.x, flat)
    return n.reshaped(y, [1, *y.shape]) if y.rank == 1 else y

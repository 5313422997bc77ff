"""Convolution and pooling: figures of the lecture, and a NumPy reference that looks at one window at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source
from nnc.runtime.check.testing import run_file

pytestmark = pytest.mark.filterwarnings("ignore:.*do not fit .* exactly")

Array = np.ndarray
NUMPY = {"f32": np.float32, "f64": np.float64}


def f32(x: Any) -> Array:
    return np.asarray(x, np.float32)


def margins(pad: Any, space: tuple[int, ...], window: list[int], stride: list[int]) -> list[tuple[int, int]]:
    if pad == "valid":
        pad = 0
    if pad == "same":
        lacking = [max((-(-n // s) - 1) * s + w - n, 0) for n, w, s in zip(space, window, stride, strict=True)]
        return [(m // 2, m - m // 2) for m in lacking]
    each = pad if isinstance(pad, list) else [pad] * len(space)
    return [(p[0], p[1]) if isinstance(p, list) else (p, p) for p in each]


def per_axis(v: Any, n: int) -> list[int]:
    return v if isinstance(v, list) else [v] * n


@dataclass(frozen=True)
class Conv:
    filters: int
    kernel: Any
    stride: Any = 1
    pad: Any = 0
    dilation: Any = 1
    groups: int = 1

    def __str__(self) -> str:
        pad = f'"{self.pad}"' if isinstance(self.pad, str) else self.pad
        return (
            f"Conv({self.filters}, kernel = {self.kernel}, stride = {self.stride}, pad = {pad}, "
            f"dilation = {self.dilation}, groups = {self.groups})"
        )

    def reference(self, x: Array, W: Array, b: Array) -> Array:
        n = x.ndim - 2
        kernel, stride, dilation = (per_axis(v, n) for v in (self.kernel, self.stride, self.dilation))
        window = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        x = np.pad(x, [(0, 0), (0, 0), *margins(self.pad, x.shape[2:], window, stride)])
        out = [(m - w) // s + 1 for m, w, s in zip(x.shape[2:], window, stride, strict=True)]
        y = np.zeros((len(x), self.filters, *out), x.dtype)
        c, k = x.shape[1] // self.groups, self.filters // self.groups
        for at in product(*map(range, out)):
            cut = tuple(slice(p * s, p * s + w, d) for p, s, w, d in zip(at, stride, window, dilation, strict=True))
            for g in range(self.groups):
                seen, mine = x[:, g * c : (g + 1) * c, *cut], slice(g * k, (g + 1) * k)
                y[:, mine, *at] = np.tensordot(seen, W[mine], (range(1, seen.ndim),) * 2) + b[mine]
        return y


SHAPES = {"a": (3, 11), "b": (4, 9, 8), "c": (2, 6, 5, 7)}
CONVOLUTIONS: list[tuple[str, Conv]] = [
    ("a", Conv(4, 3)), ("a", Conv(2, 4, 3, [[2, 1]])), ("a", Conv(3, 2, 2, "same", 3)), ("a", Conv(6, 5, 1, 2, 2, 3)),
    ("b", Conv(3, 1)), ("b", Conv(2, [3, 2], 1, "same")), ("b", Conv(4, 3, [2, 3], [1, 0], 1, 2)),
    ("b", Conv(8, [2, 3], 2, [[0, 2], [1, 0]], [3, 1], 4)), ("b", Conv(2, 3, 2, "same")),
    ("b", Conv(2, [9, 8], 1, "valid")),
    ("c", Conv(2, 2)), ("c", Conv(4, [3, 1, 2], [2, 1, 3], 1, 1, 2)), ("c", Conv(1, 3, 1, "same")),
]  # fmt: skip


def network(calls: list[tuple[str, str]]) -> str:
    """A model of the three inputs with one result for each call, trained towards a weighted sum of all of them."""
    results = ", ".join(f"y{k}: f32[*s{k}]" for k in range(len(calls)))
    inputs = ", ".join(f"{name}: f32[B, {', '.join(map(str, shape))}]" for name, shape in SHAPES.items())
    body = "\n".join(f"    y{k} = {name} |> call{k}: {call}" for k, (name, call) in enumerate(calls))
    loss = " + ".join(f"sum(sin(y{k}))" for k in range(len(calls)))
    return (
        f"model Net({inputs}) -> ({results}) {{\n{body}\n}}\n"
        f"train Net(a, b, c) {{\n    loss = {loss}\n    optimizer = SGD(0.1)\n}}\n"
    )


def examples(batch: int, dtype: str = "f32") -> list[Array]:
    r = np.random.default_rng(batch)
    return [r.standard_normal((batch, *s)).astype(NUMPY[dtype]) for s in SHAPES.values()]


def convolutions() -> str:
    return network([(name, str(conv)) for name, conv in CONVOLUTIONS])


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_conv_against_a_window_at_a_time(dtype: str) -> None:
    net = nnc.compile(convolutions(), dtype=dtype)
    for k, (_, conv) in enumerate(CONVOLUTIONS):
        net.params[f"Net.call{k}.b"] = np.arange(conv.filters, dtype=NUMPY[dtype])
    for batch in (2, 1, 0):
        inputs = dict(zip(SHAPES, examples(batch, dtype), strict=True))
        for k, ((name, conv), got) in enumerate(zip(CONVOLUTIONS, net.predict(**inputs), strict=True)):
            W, b = (net.params[f"Net.call{k}.{p}"] for p in "Wb")
            want = conv.reference(inputs[name], W, b)
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 if dtype == "f32" else 1e-13, err_msg=str(conv))
            assert W.shape == (conv.filters, SHAPES[name][0] // conv.groups, *per_axis(conv.kernel, got.ndim - 2))


def test_conv_gradients() -> None:
    nnc.grad_check(nnc.compile(convolutions()), *examples(2), samples=4)


def pooled(x: Array, fold: Any, kernel: Any, stride: Any, pad: Any = 0, ceil: bool = False) -> Array:
    """`fold` of what each window holds of the input; NaN stands for what is outside."""
    n = x.ndim - 2
    w, s = per_axis(kernel, n), per_axis(stride, n)
    sides = margins(pad, x.shape[2:], w, s)
    out = [(m + sum(p) - k) // t + 1 for m, p, k, t in zip(x.shape[2:], sides, w, s, strict=True)]
    if ceil:
        full = [-(-(m + sum(p) - k) // t) + 1 for m, p, k, t in zip(x.shape[2:], sides, w, s, strict=True)]
        begins = [(m - 1) * t < size + p[0] for m, t, size, p in zip(full, s, x.shape[2:], sides, strict=True)]
        out = [f if inside else o for f, o, inside in zip(full, out, begins, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *((a, b + t) for (a, b), t in zip(sides, s, strict=True))], constant_values=np.nan)
    y = np.empty((*x.shape[:2], *out), x.dtype)
    for at in product(*map(range, out)):
        cut = tuple(slice(p * t, p * t + k) for p, t, k in zip(at, s, w, strict=True))
        y[:, :, *at] = fold(x[:, :, *cut], axis=tuple(range(2, x.ndim)))
    return y


POOLS: list[tuple[str, Any, Any, Any, bool]] = [
    ("a", 2, 2, 0, False), ("a", 3, 1, 1, False), ("a", 3, 2, "same", False), ("a", 2, 4, 0, True),
    ("b", 2, 2, 0, False), ("b", 3, 2, 0, False), ("b", 3, 2, 1, True), ("b", [2, 3], [3, 2], [[1, 0], [0, 1]], True),
    ("c", 2, 2, 0, True), ("c", [3, 1, 2], 1, 0, False),
]  # fmt: skip


def pools() -> str:
    calls = []
    for name, kernel, stride, pad, ceil in POOLS:
        said = f"{kernel}, stride = {stride}, pad = {pad!r}, ceil = {str(ceil).lower()}".replace("'", '"')
        calls += [(name, f"max_pool({said})"), (name, f"avg_pool({said})")]
    return network(calls)


def test_pooling_against_a_window_at_a_time() -> None:
    net = nnc.compile(pools())
    for batch in (2, 1, 0):
        inputs = dict(zip(SHAPES, examples(batch), strict=True))
        got = net.predict(**inputs)
        for k, (name, *how) in enumerate(POOLS):
            np.testing.assert_array_equal(got[2 * k], pooled(inputs[name], np.nanmax, *how), err_msg=str(how))
            mean = pooled(inputs[name], np.nanmean, *how)
            np.testing.assert_allclose(got[2 * k + 1], mean, rtol=0, atol=1e-6, err_msg=str(how))


def test_pooling_gradients() -> None:
    nnc.grad_check(nnc.compile(pools()), *examples(2), samples=6)


def test_ties_send_the_gradient_to_the_first_maximum_also_where_windows_overlap() -> None:
    source = """
    model Pool(x: f32[B, 1, H, W]) -> (y: f32[B, 1, *s]) { y = max_pool(x, 2, stride = 1) }
    export back(x: f32[1, 1, 3, 3]) -> f32[1, 1, 3, 3] = grad(sum(Pool(x)), x)
    """
    net = nnc.compile(source)
    x = f32([[1, 1, 0], [1, 1, 2], [0, 2, 2]])[None, None]
    np.testing.assert_array_equal(net.back(x)[0, 0], [[1, 0, 0], [0, 0, 2], [0, 1, 0]])


# --- the adjoint -----------------------------------------------------------------------------------------------------

TRANSPOSED: list[tuple[str, Conv]] = [
    ("a", Conv(4, 3)), ("b", Conv(4, [2, 3], [2, 1], 1, [1, 2], 2)), ("b", Conv(2, 4, 2, [[1, 0], [0, 2]])),
    ("c", Conv(2, 2, 2)),
]  # fmt: skip


def test_conv_transpose_is_the_adjoint_of_conv() -> None:
    """<Conv(z), x> = <z, ConvTranspose(x)> for equal weights, and its own gradient is right."""
    net = nnc.compile(network([(name, str(conv).replace("Conv", "ConvTranspose")) for name, conv in TRANSPOSED]),
                      dtype="f64")  # fmt: skip
    r = np.random.default_rng(1)
    inputs = dict(zip(SHAPES, examples(2, "f64"), strict=True))
    for k, ((name, conv), y) in enumerate(zip(TRANSPOSED, net.predict(**inputs), strict=True)):
        x, z, W = inputs[name], r.standard_normal(y.shape), net.params[f"Net.call{k}.W"]
        back = Conv(x.shape[1], conv.kernel, conv.stride, conv.pad, conv.dilation, conv.groups)
        forward = back.reference(z, W, np.zeros(x.shape[1]))
        np.testing.assert_allclose(np.vdot(forward, x), np.vdot(z, y), rtol=1e-12)
    nnc.grad_check(net, *examples(2, "f64"), samples=4)


# --- figures ---------------------------------------------------------------------------------------------------------

FIGURES = """
model Once(x: f32[B, 3, 32, 32]) -> (y: f32[B, 6, 28, 28]) { y = x |> c: Conv(6, kernel = 5) }
model Thrice(x: f32[B, 3, 32, 32]) -> (y: f32[B, 6, 10, 10]) { y = x |> c: Conv(6, kernel = 5, stride = 3) }
model Kept(x: f32[B, 2, H, W]) -> (y: f32[B, 2, H, W]) { y = x |> c: Conv(2, kernel = 5, pad = (5 - 1) // 2) }
model Dense1(x: f32[B, 3, 32, 32]) -> (y: f32[B, 4704]) { y = x |> flatten |> d: Dense(6 * 28 * 28, bias = false) }
model Apart(x: f32[B, 4, 9]) -> (y: f32[B, 8, 7]) { y = x |> d: DepthwiseConv(3, multiplier = 2) }

test "sizes and counts" {
    expect count(Once.c.W) == 450
    expect count(Once.c.b) == 6
    expect count(params(Thrice)) == 456
    expect macs(Once) == 450 * 28 * 28
    expect count(Dense1.d.W) == 14450688
    expect count(Apart.d.W) == 8 * 3
    expect count(Apart.d.b) == 8
    expect shape(max_pool(broadcast(0.0, [1, 1, 5, 32]), 2)) == [1, 1, 2, 16]
}
test "true convolution flips" {
    expect convolve([1, 5, 1, 4, 2], [1, -1, 1]) == [-3, 8, -1]
    expect convolve([1, 5, 1, 4, 2], [1, -1, 1], pad = 1) == [4, -3, 8, -1, 2]
    expect convolve([1, 5, 1, 4, 2], [1, 2, 3]) == [14, 21, 13]
    expect correlate([[[1, 5, 1, 4, 2]]], [[[1, 2, 3]]]) == [[[14, 19, 15]]]
    expect convolve([[1, 2], [3, 4]], [[1, 10], [100, 1000]]) == [[1234]]
}
test "pooling" {
    expect max_pool([[[1, 3, 2, 4, 0]]], 3, stride = 1) == [[[3, 4, 4]]]
    expect max_pool([[[-1, -3, -2]]], 2, pad = 1) == [[[-1, -2]]]
    expect avg_pool([[[1, 3, 2]]], 2, pad = 1) == [[[1, 2.5]]]
    expect global_avg_pool([[[1, 3, 2], [4, 4, 1]]]) == [[2, 3]]
    expect local_response_norm([[[1], [2], [3]]], 2, 0.5, 1.0, 1.0) == [[[1 / 1.5], [2 / 3.5], [3 / 7.5]]] within 1e-6
}
test "what cannot be" {
    reject "the window is larger than its input" Once(broadcast(0.0, [1, 3, 4, 4]))
    reject "larger than its input" max_pool(broadcast(0.0, [1, 3, 4, 4]), 5)
    reject "stride must be 1" max_pool(broadcast(0.0, [1, 3, 4, 4]), 2, stride = 0)
    reject "stride must be 1" max_pool(broadcast(0.0, [1, 3, 4, 4]), 2, stride = 0, pad = "same")
    reject "smaller than the window" avg_pool(broadcast(0.0, [1, 3, 4, 4]), 2, pad = 2)
    reject "4 is more than 3 + 0 + 0" max_pool(broadcast(0.0, [1, 3, 4, 3]), [4, 4])
    reject "windows of 2 with a stride of 2 do not fit 5 + 0 + 0 exactly; left over: 1" max_pool(
        broadcast(0.0, [1, 1, 5]), 2, exact = true
    )
    expect max_pool([[[1, 3, 2, 4]]], 2, exact = true) == [[[3, 4]]]
    reject "one for each" avg_pool(broadcast(0.0, [1, 3, 4, 4]), [2, 2, 2])
    reject "as many axes" convolve([1, 2, 3], [[1, 2]])
}
"""


def test_figures() -> None:
    results = list(run_file(Source("figures.nn", FIGURES)))
    assert len(results) == 4 and [(r.name, r.failures) for r in results if r.failures] == []


@pytest.mark.parametrize(("call", "message"), [
    ("Conv(4, 3, groups = 2)", "the groups of a convolution must divide the channels"),
    ("Conv(4, 3, groups = 3)", "the groups of a convolution must divide its filters"),
    ("Conv(4, 3, groups = 0)", "there must be 1 group or more"),
    ("Conv(4, 3, stride = 0)", "the stride must be 1 or more"),
    ("Conv(4, 3, dilation = 0)", "the dilation must be 1 or more"),
    ("Conv(4, 0)", "the window must have 1 element or more"),
    ("Conv(4, [3, 3, 3])", "one number for all axes of space, or one for each"),
    ("Conv(4, 9, pad = 1)", "the window is larger than its input and the padding"),
    ("DepthwiseConv(3, stride = 0)", "the stride must be 1 or more"),
    ("ConvTranspose(4, 2, pad = 4)", "cuts everything off"),
])  # fmt: skip
def test_bad_convolutions_are_refused_at_the_call(call: str, message: str) -> None:
    source = f"model M(x: f32[B, 3, 6, 6]) -> (y: f32[B, 4, *s]) {{\n    y = x |> {call}\n}}"
    with pytest.raises(nnc.NncError, match=message) as e:
        nnc.compile(source)
    assert call.split("(")[0] in str(e.value)


def test_moving_the_image_moves_the_answer_and_any_size_will_do() -> None:
    net = nnc.compile(FIGURES, model="Kept")
    image = np.zeros((1, 2, 16, 12), np.float32)
    image[:, :, 4:8, 3:7] = np.random.default_rng(0).standard_normal((1, 2, 4, 4))
    moved = np.roll(image, (3, 2), (2, 3))
    np.testing.assert_array_equal(net.predict(moved), np.roll(net.predict(image), (3, 2), (2, 3)))
    assert net.predict(image[:, :, :7, :5]).shape == (1, 2, 7, 5)


FREE = """
model Net(x: f32[B, 1, H, W]) -> (y: f32[B, 2, *s], m: f32[B, 1, *t], a: f32[B, 1, *u]) {
    y = x |> Conv(2, [3, 4], stride = 2, pad = "same")
    m = max_pool(x, 3, stride = 2, pad = "same")
    a = avg_pool(x, 2, pad = "same")
}
train Net(x) {
    loss      = mean(y^2) + sum(m^2) + mean(a^3)
    optimizer = SGD(0.1)
}
"""


@pytest.mark.parametrize("size", [(5, 6), (6, 7), (1, 1), (8, 2)])
def test_same_padding_of_sizes_that_only_run_time_knows(size: tuple[int, int]) -> None:
    free, known = nnc.compile(FREE), nnc.compile(FREE.replace("H, W", f"{size[0]}, {size[1]}"))
    for path in free.params:
        known.params[path] = free.params[path]
    x = np.random.default_rng(0).standard_normal((2, 1, *size), np.float32)
    for got, want in zip(free.predict(x), known.predict(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
        assert got.shape[2:] == tuple(-(-n // 2) for n in size)
    mine, theirs = (net.gradients(x, wrt=["Net.conv_1.W", "x"]) for net in (free, known))
    for name, gradient in mine.items():
        np.testing.assert_allclose(gradient, theirs[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("call", "warning"), [
    ("max_pool(2)", "windows of 2 with a stride of 2 do not fit 7 exactly; left out at the end of axis 0 of space: 1"),
    ("Conv(1, 3, stride = 4)", "windows of 3 with a stride of 4 do not fit 9 exactly; left out .* axis 1 of space: 2"),
    ("max_pool(2, ceil = true)", None),  # the last window sticks out
    ("Conv(1, 3, stride = 2, pad = 1)", None),
    ("Conv(1, 2, stride = 2, pad = 1)", None),  # what is left is padding
    ("Conv(1, 1, stride = [3, 5])", None),  # no more than lies between two windows
    ("Conv(1, 3, stride = 2, pad = \"same\")", None),
])  # fmt: skip
def test_what_does_not_fit_exactly_is_a_warning(call: str, warning: str | None) -> None:
    source = f"model M(x: f32[B, 1, 7, 9]) -> (y: f32[B, 1, *s]) {{\n    y = x |> {call}\n}}"
    found = "\n".join(nnc.compile(source).manifest.warnings)
    assert found == "" if warning is None else re.search(f"<text>:2:.*: {warning}", found)


TOWER = """
hyper layers: int = 4 in 1..20
model Tower(x: f32[B, 3, 8, 8]) -> (y: f32[B, 8]) {
    h = x |> Conv(8, 3, pad = 1) |> BatchNorm |> relu
    repeat layers { h = h |> Conv(8, 3, pad = 1) |> BatchNorm |> relu }
    y = global_avg_pool(h)
}
train Tower(x) {
    loss      = mean(y^2)
    optimizer = Adam(lr = 0.1)
}
"""


def test_more_layers_are_no_more_kernels() -> None:
    """Identical blocks are compiled once: depth only adds calls."""
    shallow, deep = (
        Session(Source("tower.nn", TOWER), Settings(hyper={"layers": n}, cache=False)).stages("train").lowered.module
        for n in (4, 8)
    )
    assert len(deep.kernels) == len(shallow.kernels)
    assert len(deep.entries[0].calls) > 1.5 * len(shallow.entries[0].calls)


def test_exact_windows_of_a_free_size_are_checked_at_run_time() -> None:
    net = nnc.compile("model M(x: f32[B, 1, N]) -> (y: f32[B, 1, *s]) { y = avg_pool(x, 3, exact = true) }")
    assert net.predict(np.zeros((1, 1, 9), np.float32)).shape == (1, 1, 3)
    with pytest.raises(nnc.NncError, match="windows of 3 with a stride of 3 do not fit N"):
        net.predict(np.zeros((1, 1, 8), np.float32))


def test_window_larger_than_an_input_of_free_size_is_refused_at_run_time() -> None:
    net = nnc.compile("model M(x: f32[B, 1, N]) -> (y: f32[B, 1, *s]) { y = max_pool(x, 4) }")
    assert net.predict(np.zeros((1, 1, 9), np.float32)).shape == (1, 1, 2)
    with pytest.raises(nnc.NncError, match="the window is larger than its input"):
        net.predict(np.zeros((1, 1, 3), np.float32))

"""Running sums and products, sorting and quantiles against NumPy: as written, as machine code, and their gradients."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

import nnc
from nnc.compiler.autodiff.differentiate import differentiate
from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.op import ShapeError
from nnc.compiler.graph.ops.ordering import argsort, cumprod, cumsum, sort, top_k
from nnc.compiler.passes import REWRITE, run
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType
from nnc.dsl.errors import ArgumentError, SourceError

B = symbol("B")
DTYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64}


def built(f, *shape, dtype="f64"):
    """A graph of `f(b, x)`, and the builder's names of x and the results."""
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType(dtype, shape))
    results = f(b, x)
    results = results if isinstance(results, tuple) else (results,)
    return b, x, results


def value(f, x, *shape):
    b, _, results = built(f, *shape, dtype={"f": "f64", "i": "i64"}[x.dtype.kind])
    graph = run(REWRITE, b.finish(tuple((f"y{k}", r) for k, r in enumerate(results))))
    return list(evaluate(graph, {"x": x})[0].values())


DATA = [
    np.array([[3.0, 1.0, 2.0, 1.0], [0.0, -0.0, -5.0, np.inf]]),
    np.array([[np.nan, 1.0, np.nan, -np.inf]]),
    np.zeros((0, 3)),
    np.zeros((2, 1)),
    np.array([[5, -3, 5, 2**62]]),
]


@pytest.mark.parametrize("x", DATA, ids=str)
def test_sorting_is_numpys(x):
    for axis in (0, 1):
        got = value(lambda b, v, a=axis: (sort(b, v, a), argsort(b, v, a)), x, B, x.shape[1])
        np.testing.assert_array_equal(got[0], np.sort(x, axis=axis, kind="stable"))
        np.testing.assert_array_equal(got[1], np.argsort(x, axis=axis, kind="stable"))


@pytest.mark.parametrize("x", DATA, ids=str)
def test_running_sums_and_products_are_numpys(x):
    with np.errstate(all="ignore"):
        for axis in (0, 1):
            got = value(lambda b, v, a=axis: (cumsum(b, v, a), cumprod(b, v, a)), x, B, x.shape[1])
            for found, want in zip(got, (np.cumsum(x, axis=axis), np.cumprod(x, axis=axis)), strict=True):
                np.testing.assert_array_equal(found, want)
                np.testing.assert_array_equal(np.signbit(found), np.signbit(want))


def test_top_k_is_stable_and_counts_nan_as_largest():
    x = np.array([[1.0, 3.0, 3.0, 2.0], [np.nan, 0.0, np.inf, -1.0]])
    values, index = value(lambda b, v: top_k(b, v, 3), x, B, 4)
    np.testing.assert_array_equal(index, [[1, 2, 3], [0, 2, 1]])
    np.testing.assert_array_equal(values, [[3, 3, 2], [np.nan, np.inf, 0]])
    with pytest.raises(ShapeError, match="5 of 4"):
        value(lambda b, v: top_k(b, v, 5), x, B, 4)


# --- as machine code -------------------------------------------------------------------------------------------------


def ordered(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """The positions that sort, by Python's own sort, which is stable; NaN is above every number."""

    def positions(row: np.ndarray) -> list[int]:
        keys = [(v != v, 0 if v != v else v) for v in row.tolist()]
        if descending:  # large first, equals in their order
            keys = [(not nan, -v) for nan, v in keys]
        return sorted(range(len(row)), key=lambda k: keys[k])

    rows = np.moveaxis(x, axis, -1)
    flat = [positions(row) for row in rows.reshape(prod(rows.shape[:-1]), rows.shape[-1])]
    return np.moveaxis(np.array(flat, np.int32).reshape(rows.shape), -1, axis)


def drawn(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Few values, so that many are equal; of floats some are NaN, infinite, or a zero of either sign."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, shape).astype(DTYPES[dtype])
    if dtype in ("f32", "f64"):
        odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], DTYPES[dtype])
        x = np.where(rng.random(shape) < 0.3, odd[rng.integers(0, 5, shape)], x * DTYPES[dtype](0.5))
    return x


ENTRY = """
export order(x: {t}[{s}]) -> i32[{s}] = argsort(x, axis = {a})
export down(x: {t}[{s}]) -> i32[{s}] = argsort(x, axis = {a}, descending = true)
export sorted(x: {t}[{s}]) -> {t}[{s}] = sort(x, axis = {a})
export sorted_down(x: {t}[{s}]) -> {t}[{s}] = sort(x, axis = {a}, descending = true)
export sums(x: {t}[{s}]) -> {t}[{s}] = cumsum(x, axis = {a})
export products(x: {t}[{s}]) -> {t}[{s}] = cumprod(x, axis = {a})
"""
SIZES = ((0,), (1,), (2,), (3,), (64,), (65,), (1000,), (0, 3), (3, 0), (5, 1), (1, 5), (33, 40), (2, 9, 5), (3, 1, 7))


def judge(net: nnc.Model, x: np.ndarray, axis: int) -> None:
    up, down = ordered(x, axis, False), ordered(x, axis, True)
    np.testing.assert_array_equal(net.order(x), up)
    np.testing.assert_array_equal(net.down(x), down)
    np.testing.assert_array_equal(net.sorted(x), np.take_along_axis(x, up, axis))
    np.testing.assert_array_equal(net.sorted_down(x), np.take_along_axis(x, down, axis))
    wide = x.astype(np.float64) if x.dtype.kind == "f" else x
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(net.sums(x), np.cumsum(wide, axis, wide.dtype).astype(x.dtype))
        np.testing.assert_array_equal(net.products(x), np.cumprod(wide, axis, wide.dtype).astype(x.dtype))


@pytest.mark.parametrize(("rank", "dtype"), [*((1, d) for d in DTYPES), (2, "f32"), (2, "i64"), (3, "f32")])
def test_any_axis_of_any_size(rank, dtype):
    for axis in range(rank):
        net = nnc.compile(ENTRY.format(t=dtype, s=", ".join("NMK"[:rank]), a=axis))
        for k, shape in enumerate(s for s in SIZES if len(s) == rank):
            judge(net, drawn(shape, dtype, k), axis)


@pytest.mark.parametrize("shape", [(0, 3), (67, 3), (128,)], ids=str)
def test_sizes_that_are_known(shape):
    for axis in range(len(shape)):
        net = nnc.compile(ENTRY.format(t="f32", s=", ".join(map(str, shape)), a=axis))
        judge(net, drawn(shape, "f32", 1), axis)


@pytest.mark.parametrize("axis", (0, 1))
def test_the_same_bits_on_any_number_of_threads(axis):
    x = np.random.default_rng(0).standard_normal((301, 277)).astype(np.float32)
    text = ENTRY.format(t="f32", s="301, 277", a=axis)
    text += f"export slope(x: f32[301, 277]) -> f32[301, 277] = grad(sum(sort(x, axis = {axis}) * cumsum(x)), x)"
    one, two, three = (nnc.compile(text, threads=n) for n in (1, 2, 3))
    judge(one, x, axis)
    for name in ("order", "down", "sorted", "sums", "products", "slope"):
        want = getattr(one, name)(x)
        assert all(np.array_equal(getattr(net, name)(x), want) for net in (two, three)), name


def test_running_sums_of_many_small_numbers_are_exact_to_half_a_place():
    x = np.full(1_000_000, 0.1, np.float32)
    got = nnc.function("fn f(x: f32[N]) -> f32[N] = cumsum(x)")(x)
    np.testing.assert_array_equal(got, np.cumsum(x.astype(np.float64)).astype(np.float32))


def test_an_axis_of_a_million_takes_seconds_at_most():
    """What took n^2 steps would take hours."""
    x = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    text = "fn f(x: f32[N]) -> f32[N] = grad(sum(sort(cumsum(x)) * cumprod(x)) + sum(top_k(x, 9)[0]), x)"
    assert np.isfinite(nnc.function(text)(x)).all()


# --- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_go_back_to_where_elements_came_from():
    def f(b, x):
        weights = b.emit("constant", values=(1.0, 10.0, 100.0), type=TensorType("f64", (3,)))
        y = b.emit("mul", sort(b, x, 0), weights)
        z = b.emit("mul", cumsum(b, x, 0), weights)
        total = b.emit("reduce_sum", b.emit("add", y, z), axes=(0,))
        return b.emit("item", b.emit("grad", total, x), index=0)

    b, _, (d,) = built(f, 3)
    got = evaluate(differentiate(b.finish((("d", d),))), {"x": np.array([5.0, -1.0, 2.0])})[0]["d"]
    np.testing.assert_array_equal(got, [100 + 111, 1 + 110, 10 + 100])


@pytest.mark.parametrize("x", [[2.0, -3.0, 0.5, 4.0], [2.0, 0.0, 3.0, 4.0], [0.0, 2.0, 0.0, 5.0], [3.0]], ids=str)
def test_a_running_product_has_its_gradient_and_the_next_at_zeros(x):
    """sum_i w_i x_0 .. x_i: with respect to x_j without x_j, to x_j and x_k without both."""
    x, n = np.array(x), len(x)
    w, v = np.arange(1.0, n + 1), np.cos(np.arange(n))

    def without(i: int, *left: int) -> float:
        return 0.0 if max(left) > i else float(np.prod([x[m] for m in range(i + 1) if m not in left]))

    first = [sum(w[i] * without(i, j) for i in range(n)) for j in range(n)]
    second = [sum(v[j] * w[i] * without(i, j, k) for j in range(n) if j != k for i in range(n)) for k in range(n)]
    text = "fn f(x: f64[N], w: f64[N], v: f64[N]) -> (g: f64[N], h: f64[N]) {\n g = grad(sum(w * cumprod(x)), x)\n"
    g, h = nnc.function(f"{text} h = grad(sum(v * g), x)\n return (g, h)\n}}")(x, w, v)
    np.testing.assert_allclose(g, first, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(h, second, rtol=1e-13, atol=1e-13)


def test_the_largest_have_a_gradient_and_the_next():
    x = np.array([[1.0, 5.0, 3.0, 5.0], [2.0, -1.0, 0.0, 1.0]])
    text = "fn f(x: f64[B, 4]) -> (g: f64[B, 4], h: f64[B, 4]) {{\n g = grad(sum({y}^3), x)\n h = grad(sum(g), x)\n}}"
    g, h = nnc.function(text.format(y="top_k(x, 2)[0]"))(x)
    taken = np.array([[0, 1, 0, 1], [1, 0, 0, 1]])
    np.testing.assert_array_equal(g, taken * 3 * x**2)
    np.testing.assert_array_equal(h, taken * 6 * x)
    g, h = nnc.function(text.format(y="(sort(x, axis = 0, descending = true) * [1, 2, 3, 4])"))(x)
    np.testing.assert_array_equal(g, 3 * x**2 * np.array([1, 2, 3, 4]) ** 3)


def test_positions_have_no_gradient():
    with pytest.raises(SourceError, match="argsort"):
        nnc.function("fn f(x: f32[N]) -> f32[N] = grad(sum(cast(argsort(x), f32) * 2), x)")(np.ones(3))


def test_a_batch_is_not_cut_along_what_is_ordered():
    text = "model M(x: f32[B, 3]) -> (y: f32[B, 1]) {{\n y = {y} |> Dense(1)\n}}\ntrain M(x, t: f32[B, 1]) {{\n"
    text += " loss = mean((y - t)^2)\n optimizer = SGD(0.1)\n batch = 2\n epochs = 1\n}}"
    x, t = np.random.default_rng(0).standard_normal((4, 3)), np.ones((4, 1))
    for y, why in (("cumsum(x, axis = 0)", "running sum"), ("sort(x, axis = 0)", "sorted along B")):
        with pytest.raises((SourceError, ArgumentError, nnc.NncError), match=why):
            nnc.compile(text.format(y=y)).fit(x, t)
    nnc.compile(text.format(y="sort(cumsum(x))")).fit(x, t)


# --- quantiles -------------------------------------------------------------------------------------------------------


def test_quantiles_are_numpys():
    shares = (0, 0.25, 0.3, 0.5, 1)
    along = "".join(f"export q{k}(x: f64[B, N]) -> f64[B] = quantile(x, {q})\n" for k, q in enumerate(shares))
    across = "".join(
        f"export p{k}(x: f64[N, B]) -> f64[B] = quantile(x, {q}, axis = 0)\n" for k, q in enumerate(shares)
    )
    net, known = nnc.compile(along + across), nnc.compile(along.replace("N", "7"))
    for n in (1, 2, 7, 100):
        x = np.random.default_rng(n).standard_normal((3, n))
        for k, q in enumerate(shares):
            want = np.quantile(x, q, axis=1)
            found = [getattr(net, f"q{k}")(x), getattr(net, f"p{k}")(x.T)]
            found += [getattr(known, f"q{k}")(x)] if n == 7 else []
            for got in found:
                np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-15)


def test_a_median_and_its_gradient():
    median = nnc.function("fn f(x: f64[N]) -> (m: f64, g: f64[N]) {\n m = median(x)\n g = grad(m, x)\n}")
    for x, m, g in (
        ([5.0, 1.0, 3.0], 3.0, [0, 0, 1]),
        ([5.0, 1.0, 3.0, 2.0], 2.5, [0, 0, 0.5, 0.5]),
        ([np.inf, np.inf, 1.0], np.inf, [1, 0, 0]),
        ([-np.inf, 1.0, 2.0, np.inf, 0.5, 0.0], 0.75, [0, 0.5, 0, 0, 0.5, 0]),
        ([7.0], 7.0, [1]),
    ):
        got, slope = median(np.array(x))
        assert got == m
        np.testing.assert_array_equal(slope, g)
    assert np.isnan(median(np.array([1.0, np.nan, 2.0]))[0])
    with pytest.raises(ArgumentError, match="nothing has no quantile"):
        median(np.zeros(0))
    with pytest.raises(SourceError, match=r"a share between 0 and 1, not 1\.5"):
        nnc.function("fn f(x: f64[N]) -> f64 = quantile(x, 1.5)")(np.ones(3))
    with pytest.raises(SourceError, match="do not mix"):
        nnc.function("fn f(x: i32[N]) -> i32 = median(x)")(np.ones(3, np.int32))


def test_a_dtype_may_be_that_of_a_tensor():
    f = nnc.function("fn f(x: f64[N], k: i32[M]) -> (a: f64[M], b: i32[N]) {\n a = cast(k, x)\n b = cast(x, k)\n}")
    a, b = f(np.array([1.5, -2.7]), np.array([3], np.int32))
    assert (a.dtype, b.dtype) == (np.float64, np.int32) and list(a) == [3.0] and list(b) == [1, -2]

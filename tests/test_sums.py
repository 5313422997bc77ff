"""Long sums: within 4 units in the last place of the exact sum of positive terms, in any form; 20 along some axes."""

import math

import numpy as np
import pytest

import nnc

UNIT = 2.0**-24
N = 1 << 20
RNG = np.random.default_rng(0)
TERMS = {
    "random": RNG.random(N, dtype=np.float32),
    "equal": np.full(N, 0.1, np.float32),
    "thirds": np.full(N, 1 / 3, np.float32),
    "far apart": np.exp(4 * RNG.normal(size=N)).astype(np.float32),
    "falling": (1 / np.arange(1, N + 1)).astype(np.float32),
    "rising": np.arange(N, dtype=np.float32),
}


def off(got, want):
    """The largest relative error in units of 2^-24."""
    want = np.asarray(want, np.float64)
    return float(np.max(np.abs(np.asarray(got, np.float64) - want) / np.abs(want))) / UNIT


def compiled(body, *types):
    names = ", ".join(f"{x}: {t}" for x, t in zip("xyz", types, strict=False))
    return nnc.function(f"fn f({names}) = {body}")


@pytest.mark.parametrize("size", ["N", str(N)])
@pytest.mark.parametrize("op", ["sum", "mean", "norm", "variance"])
def test_all_of_a_million(op, size):
    f = compiled(f"{op}(x)", f"f32[{size}]")
    for name, x in TERMS.items():
        exact = math.fsum(x.tolist())
        wide = x.astype(np.longdouble)
        want = {"sum": exact, "mean": exact / N, "norm": np.sqrt((wide * wide).sum()),
                "variance": ((wide - wide.mean()) ** 2).mean()}[op]  # fmt: skip
        if want > 1e-12:  # equal terms have no variance
            assert off(f(x), want) <= 4, name
        else:
            assert 0 <= f(x) < 1e-12, name


def test_ten_million():
    x = RNG.random(10_000_000, dtype=np.float32)
    assert off(compiled("sum(x)", "f32[N]")(x), math.fsum(x.tolist())) <= 1
    assert (
        off(compiled("sum(x)", "f32[N]")(np.full(10_000_000, 0.1, np.float32)), 1e7 * np.float64(np.float32(0.1))) <= 4
    )


@pytest.mark.parametrize("types", ["f32[20000001, 1]", "f32[N, 1]", "f32[N, M]"])
def test_ones_are_counted(types):
    assert compiled("sum(x)", types)(np.ones((20_000_001, 1), np.float32)) == 20_000_000.0  # to even


def test_a_mean_of_more_than_f32_counts():
    n = (1 << 24) + 1
    assert compiled("mean(x)", "f32[N]")(np.ones(n, np.float32)) == 1
    assert compiled("mean(x)", f"f32[{n}]")(np.ones(n, np.float32)) == 1
    assert compiled("mean(x)", "bool[N]")(np.ones(n, bool)) == 1


@pytest.mark.parametrize("types", ["f32[A, B, C]", "f32[24, 9000, 5]", "f32[A, 9000, C]", "f32[24, B, 5]"])
@pytest.mark.parametrize("read", ["x", "x[:, :, 1:4]", "x[1:, ::2]", "transpose(x, [2, 0, 1])"])
def test_what_is_read_in_pieces(types, read):
    x, equal = RNG.random((24, 9000, 5), dtype=np.float32), np.full((24, 9000, 5), 0.1, np.float32)
    f, roots = compiled(f"sum({read})", types), compiled(f"sum(sqrt({read}))", types)
    for values in (x, equal):
        same = eval(read, {"x": values.astype(np.float64), "transpose": np.transpose})
        assert off(f(values), same.sum()) <= 4
        assert off(roots(values), np.sqrt(same).sum()) <= 4


@pytest.mark.parametrize("types", ["f32[A, B, C]", "f32[24, 9000, 5]", "f32[A, 9000, C]", "f32[24, B, 5]"])
@pytest.mark.parametrize("axes", [(0, 1), (1,), (1, 2)])
def test_some_axes(types, axes):
    x, equal = RNG.random((24, 9000, 5), dtype=np.float32), np.full((24, 9000, 5), 0.1, np.float32)
    f, roots = (compiled(f"sum({e}, axis = {list(axes)})", types) for e in ("x", "sqrt(x)"))
    assert off(f(x), x.sum(axes, dtype=np.float64)) <= 4
    assert off(roots(x), np.sqrt(x).sum(axes, dtype=np.float64)) <= 4
    assert off(f(equal), equal.sum(axes, dtype=np.float64)) <= 20


def test_doubles():
    x = RNG.random(N)
    for values in (x, np.full(N, 0.1)):
        exact = math.fsum(values.tolist())
        for size in ("N", str(N)):
            assert abs(compiled("sum(x)", f"f64[{size}]")(values) - exact) <= 4 * 2.0**-53 * exact


@pytest.mark.parametrize("n", [64, 1000, 100_000])
@pytest.mark.parametrize("symbolic", [False, True])
def test_variance_far_from_zero(n, symbolic):
    size = "N" if symbolic else str(n)
    f, slope = compiled("variance(x)", f"f32[{size}]"), compiled("grad(variance(x), x)", f"f32[{size}]")
    rows = compiled("variance(x, axis = 0)", f"f32[{size}, 3]")
    rng = np.random.default_rng(n)
    for x in (1e6 + rng.choice([-1, 1], n), 1e6 + rng.normal(size=n), 1e6 + 0.03 + rng.choice([-1, 1], n)):
        x = x.astype(np.float32)
        wide = x.astype(np.float64)
        np.testing.assert_allclose(f(x), wide.var(), rtol=1e-6)
        np.testing.assert_allclose(rows(np.stack([x] * 3, 1)), [wide.var()] * 3, rtol=1e-6)
        gradient = 2 * (wide - wide.mean()) / n
        np.testing.assert_allclose(slope(x), gradient, atol=1e-6 * np.abs(gradient).max())


def test_variance_is_never_negative():
    f, curve = compiled("sqrt(variance(x))", "f32[N]"), compiled("grad(sum(grad(variance(x), x)^2), x)", "f32[N]")
    for n in (3, 7, 1000, 100_000):
        assert 0 <= f(np.full(n, 0.1, np.float32)) < 1e-7
    assert np.all(np.isfinite(curve(np.array([1, 2, 4], np.float32)))) and curve(np.array([1, 2, 4], np.float32)).any()


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_what_is_not_finite_and_zeros(dtype):
    f = compiled("sum(x)", f"{dtype}[N]")
    numpy = {"f32": np.float32, "f64": np.float64}[dtype]
    for n in (0, 1, 4096, 4097, 20_000):
        for value in (np.inf, -np.inf, np.nan, -0.0, 0.0, 2.0):
            x = np.full(n, value, numpy)
            want = numpy(value * n if value == 2 and n else value if n else -0.0)
            got = f(x)
            assert np.array_equal(got, want, equal_nan=True)
            assert np.isnan(want) or np.signbit(got) == np.signbit(want)
    x = np.ones(20_000, numpy)
    x[[3, 15_000]] = np.inf, -np.inf
    assert np.isnan(f(x))


def test_a_block_ends_where_it_ends():
    """Sizes around a block, and around the longest sum that is one chain: no term is lost or counted twice."""
    f, columns = compiled("sum(x)", "f32[N]"), compiled("sum(x)", "f32[N, 2]")
    for n in (1, 7, 8, 15, 16, 17, 127, 128, 129, 4095, 4096, 4097, 4103, 4104, 4105, 4223, 4224, 4225, 8191, 8193):
        x = np.arange(1, n + 1, dtype=np.float32) % 7
        assert f(x) == x.sum(dtype=np.float64)
        assert columns(np.stack([x, 2 * x], 1)) == 3 * x.sum(dtype=np.float64)


def test_the_same_bits_on_any_vectors_and_threads():
    x = RNG.random((5000, 40), dtype=np.float32)
    source = """
export f(x: f32[N, 40]) -> (a: f32, b: f32[40], c: f32[40], d: f32[N]) {
    a = sum(x)
    b = mean(x, axis = 0)
    c = variance(x, axis = 0)
    d = sum(x, axis = 1)
}
"""
    runs = [
        nnc.compile(source, target_cpu=target, threads=threads).f(x)
        for target in ("x86-64-v2", "x86-64-v3")
        for threads in (1, 2)
    ]
    for r in runs[1:]:
        for got, want in zip(r, runs[0], strict=True):
            assert np.array_equal(got, want)


# --- all of a large tensor is reduced in shares, which threads take ---------------------------------------------------


@pytest.mark.parametrize("shape", [(1 << 16,), (1 << 20,), (1_000_003,), (7, 65_537), (40_000, 3), (2, 300, 511)])
def test_shares_give_the_same_bits_to_any_number_of_threads(shape):
    """Sums, extremes, counts and what is elementwise beside them, in one kernel."""
    dims = ", ".join(map(str, shape))
    source = f"""
    export all_of(x: f32[{dims}]) -> (s: f32, m: f32, n: i64, some: bool, y: f32[{dims}]) {{
        y    = tanh(x)
        s    = sum(y * y)
        m    = max(x)
        n    = sum(cast(x > 0, i64))
        some = any(x > 3)
    }}"""
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    results = [nnc.compile(source, threads=t).all_of(x) for t in (1, 2, 3)]
    wide = np.tanh(x.astype(np.float64))
    for got in results:
        assert off(got.s, (wide * wide).sum()) <= 4
        assert got.m == x.max() and got.n == (x > 0).sum() and got.some == (x > 3).any()
        np.testing.assert_allclose(got.y, wide, rtol=1e-6)
        assert got.s.tobytes() == results[0].s.tobytes() and got.y.tobytes() == results[0].y.tobytes()


def test_a_share_keeps_what_is_not_a_number_and_the_sign_of_zero():
    f = compiled("sum(x)", f"f32[{N}]")
    assert f(np.full(N, -0.0, np.float32)).tobytes() == np.float32(-0.0).tobytes()
    x = np.ones(N, np.float32)
    for value, want in ((np.nan, np.nan), (np.inf, np.inf), (-np.inf, -np.inf)):
        x[N // 3] = value
        np.testing.assert_equal(float(f(x)), want)


@pytest.mark.parametrize("size", [1, 2, 7, 10, 16])
@pytest.mark.parametrize("body", ["softmax(x)", "x - mean(x, axis = -1)", "x * max(x, axis = -1)"])
def test_a_row_has_the_same_bits_alone_and_among_others(body, size):
    """Rows shorter than a vector go through together, a row in each lane."""
    many = nnc.function(f"fn f(x: f32[B, {size}]) -> f32[B, {size}] = {body.replace('-1', '-1, keep = true')}")
    one = nnc.function(f"fn f(x: f32[{size}]) -> f32[{size}] = {body}")
    for rows in (1, 2, 16, 19, 50):
        x = RNG.normal(size=(rows, size)).astype(np.float32)
        x[rows // 2] = -0.0
        if rows == 19:
            x[-1, -1] = np.nan
        got = many(x)
        for k in range(rows):
            np.testing.assert_array_equal(got[k].view(np.int32), one(x[k]).view(np.int32))

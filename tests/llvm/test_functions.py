"""Scalar functions of the loop IR against NumPy, as lanes and as scalars, on the edges of each dtype."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from nnc.compiler.scalar.numbers import nearest

EDGES = {
    "f32": [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.7, 1e-40, -1e-40, 3e38, -3e38, 8388609.0, 2.0**31,
            -(2.0**31), 2.0**63, np.inf, -np.inf, np.nan],
    "f64": [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 3.7, 1e-310, 1e308, -1e308, 2.0**53 + 1, 2.0**63, -2.0**63,
            np.inf, -np.inf, np.nan],
    "i32": [0, 1, -1, 2, -2, 7, -7, 2**31 - 1, -(2**31)],
    "i64": [0, 1, -1, 2, -2, 7, -7, 2**63 - 1, -(2**63), 2**40],
    "bool": [False, True],
}  # fmt: skip
NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}


def edges(dtype, n=1):
    """Every combination of n edge values."""
    columns = zip(*itertools.product(EDGES[dtype], repeat=n), strict=True)
    return [np.array(c, NUMPY[dtype]) for c in columns]


def same(got, want):
    """Bit for bit, except that one NaN is as good as another."""
    assert got.dtype == want.dtype
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want)
        return
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    ok = ~np.isnan(want)
    np.testing.assert_array_equal(got[ok], want[ok])
    np.testing.assert_array_equal(np.signbit(got[ok]), np.signbit(want[ok]))


def sign(x):
    return np.where(np.isnan(x), x, np.sign(x) + np.zeros((), x.dtype)) if x.dtype.kind == "f" else np.sign(x)


def int_floordiv(a, b):
    safe = np.where(b == 0, 1, b)
    with np.errstate(all="ignore"):
        return np.where(b == 0, 0, np.where(b == -1, np.negative(a), a // np.where(b == -1, 1, safe))).astype(a.dtype)


def int_mod(a, b):
    return np.where((b == 0) | (b == -1), 0, a % np.where((b == 0) | (b == -1), 1, b)).astype(a.dtype)


def float_mod(a, b):
    return a - b * np.floor(a / b)


def whole_power(a, b):
    """Python's powers, wrapped; below 0 of 1 and -1 alone."""

    def one(x, y):
        return x**y if y >= 0 else (x if y % 2 else 1) if abs(x) == 1 else 0

    wrap = 2 ** (8 * a.dtype.itemsize)
    small = [one(int(x), int(y)) if y < 200 else pow(int(x), int(y), wrap) for x, y in zip(a, b, strict=True)]
    return np.array([v % wrap for v in small], f"u{a.dtype.itemsize}").view(a.dtype)


FLOAT = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs,
    "sign": sign, "floordiv": lambda a, b: np.floor(a / b), "mod": float_mod, "floor": np.floor, "ceil": np.ceil,
    "round": np.round, "remainder": np.remainder, "sqrt": np.sqrt, "rsqrt": lambda x: np.ones((), x.dtype) / np.sqrt(x),
}  # fmt: skip
INT = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative,
    "abs": lambda x: np.where(x < 0, np.negative(x), x), "sign": sign, "floordiv": int_floordiv, "mod": int_mod,
    "whole_pow": whole_power,
    "minimum": np.minimum, "maximum": np.maximum, "floor": lambda x: x, "ceil": lambda x: x, "round": lambda x: x,
}  # fmt: skip
COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
BOOL = {"and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "add": np.logical_or, "mul": np.logical_and,
        "maximum": np.logical_or, "minimum": np.logical_and}  # fmt: skip
UNARY = {"neg", "abs", "sign", "floor", "ceil", "round", "sqrt", "rsqrt", "not", "isfinite"}
LANES = pytest.mark.parametrize("lanes", [1, 8, 16])
CASES = [
    (fn, d, rule)
    for table, dtypes in ((FLOAT, ("f32", "f64")), (INT, ("i32", "i64")), (BOOL, ("bool",)))
    for fn, rule in table.items()
    for d in dtypes
]


@LANES
@pytest.mark.parametrize(("fn", "dtype", "rule"), CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_function(elementwise, fn, dtype, rule, lanes):
    args = edges(dtype, 1 if fn in UNARY else 2)
    with np.errstate(all="ignore"):
        want = rule(*args).astype(NUMPY[dtype])
    same(elementwise(fn, (dtype,) * len(args), lanes=lanes)(*args), want)


@LANES
@pytest.mark.parametrize("dtype", EDGES)
@pytest.mark.parametrize("fn", COMPARE)
def test_comparison(elementwise, fn, dtype, lanes):
    args = edges(dtype, 2)
    same(elementwise(fn, (dtype, dtype), "bool", lanes)(*args), COMPARE[fn](*args))


@LANES
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("fn", ["minimum", "maximum"])
def test_extremes_pass_nan_on(elementwise, fn, dtype, lanes):
    a, b = edges(dtype, 2)
    got = elementwise(fn, (dtype, dtype), lanes=lanes)(a, b)
    want = getattr(np, fn)(a, b)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got[~np.isnan(got)], want[~np.isnan(got)])
    zeros = (a == 0) & (b == 0)
    np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(a[zeros]))  # of equal values the first


@LANES
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_isfinite(elementwise, dtype, lanes):
    (x,) = edges(dtype)
    same(elementwise("isfinite", dtype, "bool", lanes)(x), np.isfinite(x))


def cast(x, dtype):
    to = NUMPY[dtype]
    if dtype == "bool":
        return x != 0
    if x.dtype.kind == "f" and dtype in ("i32", "i64"):
        info = np.iinfo(to)
        exact = [
            0 if np.isnan(v) else info.max if v >= info.max else info.min if v <= info.min else int(v)
            for v in x.tolist()
        ]
        return np.array(exact, to)
    with np.errstate(all="ignore"):
        return x.astype(to)


@LANES
@pytest.mark.parametrize("to", EDGES)
@pytest.mark.parametrize("dtype", EDGES)
def test_cast(elementwise, dtype, to, lanes):
    (x,) = edges(dtype)
    same(elementwise("cast", dtype, to, lanes)(x), cast(x, to))


def fused(a, b, c):
    """a b + c, rounded once: from exact fractions, but where a factor is 0 or something is not finite."""
    with np.errstate(all="ignore"):
        result = (a.astype(np.float64) * b + c).astype(a.dtype)
    result = np.where(np.isfinite(a) & np.isfinite(b) & ~np.isfinite(c), c, result)
    dtype = "f32" if a.dtype == np.float32 else "f64"
    for k, (x, y, z) in enumerate(zip(a.tolist(), b.tolist(), c.tolist(), strict=True)):
        if x and y and all(map(math.isfinite, (x, y, z))):
            exact = Fraction(x) * Fraction(y) + Fraction(z)
            result[k] = nearest(exact, dtype) if exact else 0.0
    return result


def hard(dtype, n=400):
    """Factors and summands that are halfway, cancel, under- and overflow, and those of all magnitudes."""
    rng = np.random.default_rng(0)
    digits, low = (24, 149) if dtype == "f32" else (53, 1074)
    kind = np.float32 if dtype == "f32" else np.float64
    short = [rng.integers(1, 1 << digits // 2, n).astype(kind) for _ in range(2)]
    wide = [np.ldexp(rng.uniform(1, 2, n), rng.integers(-low - 4, low - 60, n)).astype(kind) for _ in range(3)]
    span = -low // 2 - 4, low // 2 - 12
    half = [np.ldexp(rng.uniform(1, 2, n), rng.integers(*span, n)).astype(kind) for _ in range(2)]
    away = rng.integers(-digits - 4, digits + 5, n)
    with np.errstate(all="ignore"):  # what overflows is a case, too
        near = np.ldexp(half[0] * half[1], away).astype(kind)
        a = np.concatenate([short[0], half[0], half[0], wide[0], half[0]])
        b = np.concatenate([short[1], half[1], half[1], wide[1], half[1]])
        tie = np.ldexp(np.rint(np.ldexp(short[0] * short[1], 1)), digits - 1).astype(kind)
        zeros = np.where(np.arange(n) % 2, 0.0, -0.0).astype(kind)
        c = np.concatenate([tie, near, -(half[0] * half[1]), wide[2], zeros])
    edge = edges(dtype, 3)
    signs = rng.choice(np.array([-1, 1], kind), (3, a.size))
    return [np.concatenate([x * s, e]) for x, s, e in zip((a, b, c), signs, edge, strict=True)]


@LANES
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_remainders_of_all_magnitudes_end_and_are_exact(elementwise, dtype, lanes):
    """A dividend that became subnormal on the way was divided by too large a multiple, for ever."""
    rng = np.random.default_rng(1)
    span = (-149, 128) if dtype == "f32" else (-1074, 1024)
    x, y = (np.ldexp(rng.uniform(1, 2, 3000), rng.integers(*span, 3000)).astype(NUMPY[dtype]) for _ in range(2))
    x[0], y[0] = (8.7e-283, 4.9e-322) if dtype == "f64" else (1e-30, 1e-44)
    same(elementwise("remainder", (dtype,) * 2, lanes=lanes)(x, y), np.remainder(x, y))


@LANES
@pytest.mark.parametrize("fn", ["floor", "ceil", "round", "remainder", "sqrt"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_what_a_processor_lacks_is_written_out(elementwise, fn, dtype, lanes):
    rng = np.random.default_rng(0)
    span = (-149, 128) if dtype == "f32" else (-1074, 1024)
    some = [np.ldexp(rng.uniform(1, 2, 3000), rng.integers(*span, 3000)) for _ in range(2)]
    near = [rng.uniform(-20, 20, 3000), rng.integers(-40, 40, 3000) / 2]
    args = [np.concatenate(parts).astype(NUMPY[dtype]) for parts in zip(some, near, edges(dtype, 2), strict=True)]
    args = args[: 1 + (fn == "remainder")]
    has, lacks = (elementwise(fn, (dtype,) * len(args), lanes=lanes, target=t)(*args) for t in ("native", "lacking"))
    same(lacks, has)


@LANES
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "native", "lacking"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_fma_rounds_once(elementwise, dtype, lanes, target):
    """Also where the processor has no such instruction: an f32 in f64, an f64 as pairs, and what is extreme in
    integers."""
    a, b, c = hard(dtype)
    exact = fused(a, b, c)
    with np.errstate(all="ignore"):
        assert (exact != a * b + c).mean() > 0.05  # the unfused answer
    same(elementwise("fma", (dtype,) * 3, lanes=lanes, target=target)(a, b, c), exact)


@LANES
@pytest.mark.parametrize("dtype", EDGES)
def test_select(elementwise, dtype, lanes):
    a, b = edges(dtype, 2)
    c = np.arange(a.size) % 3 == 0
    same(elementwise("select", ("bool", dtype, dtype), dtype, lanes)(c, a, b), np.where(c, a, b))

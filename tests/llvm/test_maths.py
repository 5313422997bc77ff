"""Vector mathematics: the bounds that `scalar` states, the edges, and that lanes and scalars agree."""

import itertools

import numpy as np
import pytest

from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import OPS
from nnc.compiler.scalar import FUNCTIONS
from nnc.compiler.scalar.philox import philox_reference
from nnc.compiler.types.tensors import TensorType

NUMPY = {"f32": np.float32, "f64": np.float64}
WIDE = {"f32": np.float64, "f64": np.longdouble}  # in which the reference is computed
BOUNDED = [f.name for f in FUNCTIONS.values() if f.ulp]
OF_ONE = [name for name in BOUNDED if len(FUNCTIONS[name].operands) == 1]


def exact(fn, *args):
    """The operator's own reference, in the wider dtype."""
    with np.errstate(all="ignore"):
        return FUNCTIONS[fn].numpy(*(a.astype(WIDE["f32" if a.dtype == np.float32 else "f64"]) for a in args))


def bound(fn, dtype):
    """One ULP is allowed for references that are no better than f64."""
    return FUNCTIONS[fn].ulp[dtype == "f64"] + (fn in ("erf", "erfc", "erfinv", "lgamma") and dtype == "f64")


# near their zeros, which are no numbers, errors count as those of a result of 1
WITH_ZEROS = {"lgamma", "digamma", "tetragamma"}


def samples(dtype):
    """f32: every 997th bit pattern. f64: random bit patterns, and points around 0 and 1 at every magnitude."""
    edges = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, 2, 88.7, -87.4, 104, 709.7, -745.2, 1e5, 2.0**20])
    if dtype == "f32":
        return np.concatenate([np.arange(0, 2**32, 997, dtype=np.uint32).view(np.float32), edges.astype(np.float32)])
    rng = np.random.default_rng(1)
    n = 100_000
    return np.concatenate(
        [
            rng.uniform(-1, 1, n),
            rng.integers(0, 2**64, n, dtype=np.uint64).view(np.float64),
            rng.normal(size=n) * 10.0 ** rng.integers(-9, 4, n),
            rng.uniform(-750, 750, n),
            1 + rng.normal(size=n) * 10.0 ** rng.integers(-9, 0, n),
            edges,
        ]
    )


def ulps(got, exact, least=0.0):
    """Distances in units in the last place of `exact`, or of `least` where that is larger; infinite where NaN, infinity
    or the sign of 0 is not right."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        size = np.maximum(np.abs(exact), max(info.tiny, least))
        unit = np.ldexp(np.ones((), exact.dtype), np.frexp(size)[1] - 1 - info.nmant)
        distance = np.abs(got.astype(exact.dtype) - exact) / unit
    equal = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    distance[equal] = np.minimum(np.nan_to_num(distance[equal]), 0.5)
    distance[~equal & ~(np.isfinite(got) & np.isfinite(rounded))] = np.inf
    distance[(got == 0) & (rounded == 0) & (np.signbit(got) != np.signbit(rounded))] = np.inf
    return distance


def worst(got, exact, *args, least=0.0):
    d = ulps(got, exact, least)
    k = int(np.argmax(d))
    return d[k], f"{d[k]:.3f} ULP at {[a[k] for a in args]}: {got[k]!r}, not {exact[k]!r}"


@pytest.mark.parametrize("target", ["native", "x86-64-v2"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("fn", OF_ONE)
def test_accuracy(elementwise, fn, dtype, target):
    x = samples(dtype)[:: (1 if target == "native" else 11) * (1 if FUNCTIONS[fn].weight < 60 else 7)]
    if fn == "lgamma":
        x = x[~(x < -50)]  # left of 0 two large numbers cancel
    least = 1.0 if fn in WITH_ZEROS else 0.0
    got = elementwise(fn, dtype, lanes=16 if dtype == "f32" else 8, target=target)(x)
    error, where = worst(got, exact(fn, x), x, least=least)
    assert error <= bound(fn, dtype), where


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_accuracy_of_pow(elementwise, dtype):
    rng = np.random.default_rng(3)
    n, real = 200_000, NUMPY[dtype]
    x = np.exp(rng.normal(size=n) * rng.choice([0.001, 0.1, 1, 20], n)).astype(real)
    with np.errstate(all="ignore"):
        y = (rng.uniform(-1.2, 1.2, n) * (88 if dtype == "f32" else 709) / np.log(x.astype(float))).astype(real)
        y[::3] = rng.normal(size=y[::3].size) * 3
        y[::11] = np.round(y[::11])
        x[::11] *= -1
        edges = [0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e30]
        a, b = zip(*itertools.product(edges, repeat=2), strict=True)
        x, y = np.concatenate([x, np.array(a, real)]), np.concatenate([y, np.array(b, real)])
    error, where = worst(elementwise("pow", (dtype, dtype))(x, y), exact("pow", x, y), x, y)
    assert error <= bound("pow", dtype), where


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("fn", BOUNDED)
def test_lanes_and_scalars_have_the_same_bits(elementwise, fn, dtype):
    x = samples(dtype)[::1009]
    args = (x, x[::-1])[: len(FUNCTIONS[fn].operands)]
    bits = [
        elementwise(fn, (dtype,) * len(args), lanes=lanes, target=target)(*args)
        for lanes, target in ((1, "native"), (4, "native"), (16, "native"), (1, "x86-64-v3"), (16, "x86-64-v3"))
    ]
    for other in bits[1:]:
        np.testing.assert_array_equal(np.isnan(other), np.isnan(bits[0]))
        ok = ~np.isnan(other)
        np.testing.assert_array_equal(other[ok].view(np.uint8), bits[0][ok].view(np.uint8))


def test_large_angles_at_their_hardest(elementwise):
    """The double closest to a multiple of π/2 (Kahan), and its neighbours in difficulty."""
    x = np.array([6381956970095103 * 2.0**797, 5.319372648326541e255, 1e22, 2.0**1023, 1.7976931348623157e308])
    with np.errstate(all="ignore"):
        for fn in ("sin", "cos"):
            error, where = worst(elementwise(fn, "f64", lanes=8)(x), exact(fn, x), x)
            assert error <= bound(fn, "f64"), where


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "native"])
@pytest.mark.parametrize("lanes", [1, 8, 16])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_random_is_philox(elementwise, dtype, lanes, target):
    rng = np.random.default_rng(0)
    key, counter = rng.integers(-(2**63), 2**63 - 1, (2, 100))
    got = elementwise("random", ("i64", "i64"), dtype, lanes, target)(key, counter)
    np.testing.assert_array_equal(got, philox_reference(key, counter, dtype))


def test_philox_known_answers():
    """Of Random123's kat_vectors, philox2x32 10, past the mixing of the key."""
    from nnc.compiler.scalar import philox

    def rounds(c0, c1, key):
        for _ in range(philox.ROUNDS):
            p = philox.MULTIPLIER * c0
            c0, c1, key = (p >> 32) ^ key ^ c1, p & 0xFFFFFFFF, (key + philox.WEYL) & 0xFFFFFFFF
        return c0, c1

    assert rounds(0, 0, 0) == (0xFF1DAE59, 0x6CD10DF2)
    assert rounds(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF) == (0x2C3F628B, 0xAB4FD7AD)
    assert rounds(0x243F6A88, 0x85A308D3, 0x13198A2E) == (0xDD7CE038, 0xF62A4C12)
    for key, counter in ((0, 0), (7, 123456789), (-1, -5)):
        folded = int(philox.fold_key(key))
        c0, c1 = rounds(counter & 0xFFFFFFFF, counter >> 32 & 0xFFFFFFFF, folded)
        assert float(philox_reference(key, counter, "f32")) == (c0 >> 8) * 2.0**-24
        assert float(philox_reference(key, counter, "f64")) == ((c0 << 32 | c1) >> 11) * 2.0**-53


def test_random_is_uniform():
    u = philox_reference(42, np.arange(1_000_000), "f32")
    assert u.min() >= 0 and u.max() < 1
    counts = np.bincount((u * 100).astype(int), minlength=100)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 150  # chi-square with 99 degrees: beyond 150 once in 1,400
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.004
    assert abs(np.corrcoef(u, philox_reference(43, np.arange(1_000_000), "f32"))[0, 1]) < 0.004


@pytest.mark.parametrize("target", ["native", "x86-64-v2"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_accuracy_of_atan2(elementwise, dtype, target):
    """Random points of every size and slope, the octants' borders, and all pairs of edges with the signs of C99."""
    rng = np.random.default_rng(5)
    n, real = 200_000, NUMPY[dtype]
    most = 37 if dtype == "f32" else 306
    with np.errstate(all="ignore"):
        x = (rng.normal(size=n) * 10.0 ** rng.integers(-most, most, n)).astype(real)
        y = (x * np.tan(rng.uniform(-np.pi, np.pi, n))).astype(real)
        y[::5] = rng.normal(size=y[::5].size) * 10.0 ** rng.integers(-most, most, y[::5].size)
        for k, slope in enumerate((1, np.sqrt(2) - 1, np.sqrt(2) + 1)):
            y[k::50] = x[k::50] * slope * (1 + rng.normal(size=y[k::50].size) * np.finfo(real).eps * 4)
        tiny, large = np.finfo(real).smallest_subnormal, np.finfo(real).max
        edges = [0, 1, 0.5, 3, tiny, 7 * tiny, np.finfo(real).tiny, large, large / 3, np.inf, np.nan]
        a, b = zip(*itertools.product([*edges, *(-e for e in edges)], repeat=2), strict=True)
        y, x = np.concatenate([y, np.array(a, real)]), np.concatenate([x, np.array(b, real)])
    error, where = worst(elementwise("atan2", (dtype, dtype), target=target)(y, x), exact("atan2", y, x), y, x)
    assert error <= bound("atan2", dtype), where


@pytest.mark.parametrize("target", ["native", "x86-64-v2"])
@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_remainders_are_exact(elementwise, dtype, lanes, target):
    """Of any two numbers, however far apart; and the sign of 0 is the divisor's."""
    rng, real, n = np.random.default_rng(7), NUMPY[dtype], 60_000
    bits = rng.integers(0, 2 ** (32 if dtype == "f32" else 64), (2, n), dtype=np.uint64)
    x, y = (bits.astype(np.uint32) if dtype == "f32" else bits).view(real)
    x[::3], y[::3] = rng.normal(size=(2, x[::3].size)) * 10
    x[1::3] = y[1::3] * rng.integers(-1000, 1000, x[1::3].size)
    info = np.finfo(real)
    edges = [0, 1, 3, 0.1, info.tiny, info.smallest_subnormal, info.max, np.inf, np.nan]
    a, b = zip(*itertools.product([*edges, *(-e for e in edges)], repeat=2), strict=True)
    x, y = np.concatenate([x, np.array(a, real)]), np.concatenate([y, np.array(b, real)])
    with np.errstate(all="ignore"):
        got, want = elementwise("remainder", (dtype, dtype), lanes=lanes, target=target)(x, y), np.remainder(x, y)
    ok = ~np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), ~ok)
    np.testing.assert_array_equal(got[ok].view(np.uint8), want[ok].view(np.uint8))


@pytest.mark.parametrize("target", ["native", "x86-64-v2"])
def test_formats_of_storage(target, run_compiled):
    """All 65,536 bits of an f16 and of a bf16 as numbers, and back; f32 from all over the range, and halfway."""
    bits = np.arange(-(2**15), 2**15, dtype=np.int16)
    half = bits.view(np.float16).astype(np.float32)
    brain = (bits.astype(np.int32) << 16).view(np.float32)
    rng = np.random.default_rng(0)
    some = rng.integers(0, 2**32, 200_000, np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        next_, between = np.nextafter(half, np.inf), (half + np.roll(half, 1)) / 2
        halfway = (brain.view(np.uint32) + 0x8000).view(np.float32)
        x = np.concatenate([some, half, next_, between, brain, halfway, rng.uniform(-130, 130, 999)]).astype(np.float32)
    b = Builder("formats", OPS)
    b.emit("input", name="x", type=TensorType("f32", (len(x),)))
    b.emit("input", name="bits", type=TensorType("i16", (len(bits),)))
    b.emit("input", name="bytes", type=TensorType("i8", (256,)))
    wide = {"from_f16": "bits", "from_bf16": "bits", "from_i8": "bytes"}
    for f in ("to_f16", "to_bf16", "to_i8", *wide):
        b.emit(f, wide.get(f, "x"), name=f)
    graph = b.finish(tuple((f, f) for f in ("to_f16", "to_bf16", "to_i8", *wide)))
    small = np.arange(-128, 128).astype(np.int8)
    got = run_compiled(graph, {"x": x, "bits": bits, "bytes": small}, target)
    known = ~np.isnan(x)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got["to_f16"][known], x[known].astype(np.float16).view(np.int16))
        upper = x[known].view(np.uint32).astype(np.uint64)
        ties = (upper & 0xFFFF == 0x8000) & (upper >> 16 & 1 == 0)
        near = ((upper + 0x8000 >> 16) - ties).astype(np.uint16).view(np.int16)
        np.testing.assert_array_equal(got["to_bf16"][known], near)
        np.testing.assert_array_equal(got["to_i8"][known], np.clip(np.rint(x[known]), -127, 127).astype(np.int8))
    assert np.isnan(got["to_f16"][~known].view(np.float16)).all() and not got["to_i8"][~known].any()
    assert np.isnan((got["to_bf16"][~known].astype(np.int32) << 16).view(np.float32)).all()
    np.testing.assert_array_equal(got["from_f16"], half)
    np.testing.assert_array_equal(got["from_bf16"], brain)
    np.testing.assert_array_equal(got["from_i8"], np.arange(-128, 128))

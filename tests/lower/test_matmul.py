"""Contractions: every transposition and shape of a matrix product, epilogues on the register tile, convolutions with
their gradients, and the choice of the tile."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.contraction import affine, plain
from nnc.compiler.graph.product import product
from nnc.compiler.loops.ir import For, Prefetch, walk
from nnc.compiler.lowering.kernels import ahead, matmul, schedule
from nnc.compiler.lowering.kernels.tile import choose
from nnc.compiler.native.target import level
from nnc.compiler.passes.align import align
from nnc.compiler.passes.fuse import fuse
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType
from nnc.dsl.source import Source

from ..graphs import einsum

SPECS = ("ik,kj->ij", "ik,jk->ij", "ki,kj->ij", "ki,jk->ij", "ik,kj->ji", "ik,jk->ji", "ki,kj->ji", "ki,jk->ji")
SHAPES = ((1, 1, 1), (0, 3, 4), (3, 0, 4), (3, 4, 0), (5, 7, 10), (8, 16, 32), (17, 5, 49), (33, 64, 130), (1, 70, 40),
          (40, 70, 1))  # fmt: skip
B, T = symbol("B"), symbol("T")


def built(spec, sizes, dtype="f32", symbolic=""):
    b = Builder("g", OPS)
    inputs = spec.split("->")[0].split(",")
    shapes = [tuple(B if c == symbolic else sizes[c] for c in m) for m in inputs]
    args = [b.emit("input", name=n, type=TensorType(dtype, s)) for n, s in zip("xyz", shapes, strict=False)]
    return b, args, einsum(b, spec, *args)


def arrays(spec, sizes, dtype=np.float32):
    rng = np.random.default_rng(0)
    inputs = spec.split("->")[0].split(",")
    return {n: rng.standard_normal([sizes[c] for c in m]).astype(dtype) for n, m in zip("xyz", inputs, strict=False)}


@pytest.mark.parametrize("spec", SPECS)
def test_every_transposition_and_shape(spec, compiled):
    for dtype, wide in (("f32", np.float32), ("f64", np.float64)):
        for shape in SHAPES if dtype == "f32" else SHAPES[4:7]:
            sizes = dict(zip("ikj", shape, strict=True))
            b, _, y = built(spec, sizes, dtype)
            given = arrays(spec, sizes, wide)
            wanted = np.einsum(spec, *given.values())
            got, _ = compiled(b.finish((("y", y),)))(given)
            np.testing.assert_allclose(got["y"], wanted, rtol=2e-5 if dtype == "f32" else 1e-13, atol=1e-5)


@pytest.mark.parametrize("target", ["native", "x86-64-v3", "x86-64-v2"])
def test_sizes_known_at_run_time(target, compiled):
    for spec, symbolic in (("ik,jk->ij", "i"), ("ik,kj->ij", "j"), ("ki,kj->ij", "k"), ("ki,jk->ij", "j")):
        b, _, y = built(spec, {"i": 20, "k": 9, "j": 37}, symbolic=symbolic)
        run = compiled(b.finish((("y", y),)), target)
        for n in (0, 1, 3, 8, 15, 16, 17, 31, 50):
            given = arrays(spec, {"i": 20, "k": 9, "j": 37} | {symbolic: n})
            got, _ = run(given, None, {"B": n})
            np.testing.assert_allclose(got["y"], np.einsum(spec, *given.values()), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("spec", [
    "bik,bkj->bij", "bik,bjk->bij", "abik,abkj->abij", "bhik,bhjk->bhij", "btk,ok->bto", "btk,bto->ok",
    "bkhi,bkhj->hij", "i,i->", "i,j->ij", "ij,j->i", "ij,i->j", "ii,ij->j", "ij,ij->", "ijk,k->ij", "ij,jk,kl->il",
    "i,i->i", "bij,bij->b",
])  # fmt: skip
def test_einsum(spec, compiled):
    sizes = dict(a=2, b=3, h=2, i=5, j=18, k=7, l=4, o=6, t=4)
    sizes |= {"i": 5, "j": 5} if spec.startswith("ii") else {}
    b, _, y = built(spec, sizes)
    given = arrays(spec, sizes)
    got, _ = compiled(b.finish((("y", y),)))(given)
    np.testing.assert_allclose(got["y"], np.einsum(spec, *given.values()), rtol=2e-5, atol=1e-5)


def test_what_follows_runs_on_the_tile(compiled):
    """Bias, activation, its derivative and an in-place update are one kernel with the product."""
    for spec in ("ik,kj->ij", "ik,jk->ij", "ki,kj->ij"):
        sizes = {"i": 19, "k": 8, "j": 21}
        b, _, z = built(spec, sizes)
        bias = b.emit("input", name="bias", type=TensorType("f32", (21,)))
        w = b.emit("param", path="w", type=TensorType("f32", (19, 21)))
        h = b.emit("tanh", b.emit("add", z, b.emit("broadcast", bias, shape=(19, 21), axes=(1,))))
        graph = fuse(b.finish((("h", h),), (("w", b.emit("sub", w, b.emit("mul", h, h))),)))
        run = compiled(graph)
        assert len(run.lowered.entry.calls) == 1
        given = arrays(spec, sizes) | {"bias": np.linspace(-1, 1, 21, dtype=np.float32)}
        w0 = np.ones((19, 21), np.float32)
        got, variables = run(given, {"w": w0})
        wanted = np.tanh(np.einsum(spec, given["x"], given["y"]) + given["bias"])
        np.testing.assert_allclose(got["h"], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(variables["w"], w0 - wanted**2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("turns", [0, 1, 63, 64, 65, 300])
def test_long_sums_are_added_in_blocks(turns, compiled):
    """The gradient of a weight over sequences, with its update: over [t, b] in one order, and in two."""
    for spec in ("tbi,tbj->ij", "tbi,btj->ij"):
        b, sizes = Builder("g", OPS), {"t": T, "b": B, "i": 140, "j": 40}
        x, y = (b.emit("input", name=n, type=TensorType("f32", tuple(sizes[c] for c in k)))
                for n, k in zip("xy", spec.split("->")[0].split(","), strict=True))  # fmt: skip
        w = b.emit("param", path="w", type=TensorType("f32", (140, 40)))
        graph = b.finish((), (("w", b.emit("sub", w, einsum(b, spec, x, y))),))
        run = compiled(fuse(align(graph)))
        kernel = run.lowered.module.kernels[-1]
        assert any(buffer.name.startswith("sum") for buffer in kernel.buffers)
        assert any(isinstance(s, For) and s.parallel for s in kernel.body), "threads share it, few rows as there are"
        generator = np.random.default_rng(turns)
        given = {n: generator.normal(size=tuple({"t": turns, "b": 5, "i": 140, "j": 40}[c] for c in k)).astype("f")
                 for n, k in zip("xy", spec.split("->")[0].split(","), strict=True)}  # fmt: skip
        w0 = generator.normal(size=(140, 40)).astype("f")
        _, variables = run(given, {"w": w0}, {"T": turns, "B": 5})
        np.testing.assert_allclose(variables["w"], w0 - np.einsum(spec, *given.values()), rtol=1e-4, atol=1e-4)


def convolution(b, x, w, stride, pad, out):
    """One spatial axis: y[n, o, i] += x[n, c, stride*i + u - pad] w[o, c, u]."""
    (n, c, _), (o, _, u) = b.shape(x), b.shape(w)
    domain = (("n", n), ("o", o), ("i", out), ("c", c), ("u", u))
    window = affine(("i", stride), ("u", 1), constant=-pad)
    return b.emit("contract", x, w, domain=domain, out=plain("noi"), shape=(n, o, out),
                  maps=((*plain("nc"), window), plain("ocu")))  # fmt: skip


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)])
def test_convolutions_and_their_gradients(stride, pad, compiled):
    length, u = 20, 3
    out = (length + 2 * pad - u) // stride + 1
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (B, 3, length)))
    w = b.emit("input", name="w", type=TensorType("f32", (4, 3, u)))
    dy = b.emit("input", name="dy", type=TensorType("f32", (B, 4, out)))
    y = convolution(b, x, w, stride, pad, out)
    dx, dw = OPS["contract"].grad(b, b[y], dy)
    graph = b.finish((("y", y), ("dx", dx), ("dw", dw)))
    rng = np.random.default_rng(0)
    given = {k: rng.standard_normal(s).astype(np.float32)
             for k, s in (("x", (2, 3, length)), ("w", (4, 3, u)), ("dy", (2, 4, out)))}  # fmt: skip
    wanted, _ = evaluate(graph, given)
    for target in ("native", "x86-64-v3"):
        got, _ = compiled(graph, target)(given, None, {"B": 2})
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_which_contractions_are_matrix_products():
    def seen(spec, **sizes):
        b, _, y = built(spec, dict(a=2, b=3, h=4, i=5, j=6, k=7, o=8, t=9) | sizes)
        p = product(b[y], b)
        kinds = (p.batch, p.rows, p.columns, p.inner) if p else ()
        return p and (p.side, *("".join(i for w in walks for i in w.indices) for walks in kinds))

    assert seen("ik,kj->ij") == (0, "", "i", "j", "k")
    assert seen("ik,kj->ji") == (1, "", "j", "i", "k"), "lanes go along the last axis of the result"
    assert seen("bhik,bhjk->bhij") == (0, "bh", "i", "j", "k")
    assert seen("btk,ok->bto") == (0, "", "bt", "o", "k")
    assert seen("ij,j->i") == (1, "", "", "i", "j")
    assert seen("ik,kj->ij", k=1) is None, "nothing is summed"
    assert seen("i,i->i") is None and seen("ij,ij->") is None
    assert seen("ii,ij->j", j=5) == (0, "", "", "j", "i"), "a diagonal is read in longer steps"


def test_the_tile_divides_the_shape_and_fits_the_registers():
    for name, registers in (("x86-64-v4", 32), ("x86-64-v3", 16), ("x86-64-v2", 16)):
        target = level(name)
        for rows, columns in ((64, 256), (64, 128), (32, 32), (256, 784), (1024, 1024), (B, 512)):
            t = choose(rows, columns, False, "f32", target)
            assert t.rows * t.vectors + min(t.rows, t.vectors) < registers
            assert t.rows * t.vectors >= (8 if name == "x86-64-v4" else 12), "enough chains to hide the latency"
    assert 64 % choose(64, 256, False, "f32", level("x86-64-v4")).rows == 0
    t = choose(64, 10, False, "f32", level("x86-64-v4"))
    assert t.vectors == 1 and t.rows >= 8


@pytest.mark.parametrize("free", ["", "i", "j", "k"])
@pytest.mark.parametrize("spec", ["ik,kj->ij", "ik,jk->ij", "ki,kj->ij", "ik,kj->ji"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("chunks", ["none", "of few rows", "of many rows"])
def test_large_products_have_the_bits_of_small_ones(spec, free, after, chunks, compiled, monkeypatch):
    """Copies and blocks change no bit, whatever is left at the edges, and which size is known only at run time."""
    extents = {"i": 131, "k": 1027, "j": 275}
    sizes = {c: symbol("F") if c == free else n for c, n in extents.items()}
    (left, right), out = spec.split("->")[0].split(","), spec.split("->")[1]
    b = Builder("g", OPS)
    x, y = (b.emit("input", name=n, type=TensorType("f32", tuple(sizes[c] for c in k)))
            for n, k in (("x", left), ("y", right)))  # fmt: skip
    z = einsum(b, spec, x, y)
    if after:
        z = b.emit("add", b.emit("tanh", z), b.emit("input", name="z", type=TensorType("f32", b.shape(z))))
    graph = fuse(b.finish((("z", z),)))
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal([extents[c] for c in k]).astype("f")
             for n, k in (("x", left), ("y", right), *([("z", out)] if after else []))}  # fmt: skip
    for name in ("LARGE", "PAGE", "NEAR", "MANY"):
        monkeypatch.setattr(schedule, name, 1)
    monkeypatch.setattr(schedule, "SWAPPED", 1 << 20)
    if chunks == "none":
        monkeypatch.setattr(schedule, "MANY", 1 << 20)
    if chunks == "of many rows":
        monkeypatch.setattr(schedule, "SOME", 0)
    bound = {"F": extents[free]} if free else {}
    large = compiled(graph)
    stems = {buffer.name.rstrip("0123456789") for k in large.lowered.module.kernels for buffer in k.buffers}
    assert (
        {"panel"} <= stems and ("sum" in stems) == after and ("strip" in stems) == (spec in ("ki,kj->ij", "ik,kj->ji"))
    )
    got = large(given, None, bound)[0]["z"]
    monkeypatch.setattr(schedule, "LARGE", 1 << 60)
    small = compiled(graph)
    assert small.lowered.module != large.lowered.module
    np.testing.assert_array_equal(got, small(given, None, bound)[0]["z"])
    wanted = np.einsum(spec, given["x"].astype("d"), given["y"].astype("d"))
    np.testing.assert_allclose(got, np.tanh(wanted) + given["z"] if after else wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [2, 70])
@pytest.mark.parametrize("free", ["", "k"])
def test_strips_of_an_operand_that_is_read_across_its_rows_change_no_bit(steps, free, compiled, monkeypatch):
    """As the gradient of a weight, by few examples: for each tile's rows all columns, with rows and columns left."""
    extents = {"i": 131, "k": steps, "j": 275}
    sizes = {c: symbol("F") if c == free else n for c, n in extents.items()}
    b = Builder("g", OPS)
    x, y = (b.emit("input", name=n, type=TensorType("f32", tuple(sizes[c] for c in k)))
            for n, k in (("x", "ki"), ("y", "kj")))  # fmt: skip
    graph = fuse(b.finish((("z", b.emit("tanh", einsum(b, "ki,kj->ij", x, y))),)))
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal([extents[c] for c in k]).astype("f") for n, k in (("x", "ki"), ("y", "kj"))}
    bound = {"F": steps} if free else {}
    found = []
    for again in (4, 1 << 20):
        monkeypatch.setattr(schedule, "AGAIN", again)
        made = compiled(graph)
        stems = {buffer.name.rstrip("0123456789") for k in made.lowered.module.kernels for buffer in k.buffers}
        assert ("strip" in stems) == (again == 4)
        found.append(made(given, None, bound)[0]["z"])
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], np.tanh(given["x"].astype("d").T @ given["y"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [None, 1, 3, 16])
@pytest.mark.parametrize("free", ["", "j", "k"])
def test_few_rows_meet_a_large_matrix_as_it_lies(rows, free, compiled, monkeypatch):
    extents = {"i": rows, "k": 203, "j": 1100}
    sizes = {c: symbol("F") if c == free else n for c, n in extents.items()}
    spec = "k,kj->j" if rows is None else "ik,kj->ij"
    b = Builder("g", OPS)
    x, y = (b.emit("input", name=n, type=TensorType("f32", tuple(sizes[c] for c in k)))
            for n, k in zip("xy", spec.split("->")[0].split(","), strict=True))  # fmt: skip
    graph = fuse(b.finish((("z", b.emit("tanh", einsum(b, spec, x, y))),)))
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal([extents[c] for c in k]).astype("f")
             for n, k in zip("xy", spec.split("->")[0].split(","), strict=True)}  # fmt: skip
    bound = {"F": extents[free]} if free else {}
    monkeypatch.setattr(schedule, "LARGE", 1)
    monkeypatch.setattr(schedule, "WIDTH", 512)
    streamed = compiled(graph)
    got = streamed(given, None, bound)[0]["z"]
    monkeypatch.setattr(schedule, "LARGE", 1 << 60)
    plain = compiled(graph)
    assert plain.lowered.module != streamed.lowered.module
    np.testing.assert_array_equal(got, plain(given, None, bound)[0]["z"])
    np.testing.assert_allclose(got, np.tanh(np.einsum(spec, given["x"].astype("d"), given["y"])), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [520, 1100])
@pytest.mark.parametrize("columns", [256, 301])
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_swapped_operands_have_the_bits_of_those_that_are_not(steps, columns, target, compiled, monkeypatch):
    """A few rows by a large matrix that would have to be transposed: then they are, and the result."""
    b, _, y = built("ik,jk->ij", {"k": steps, "j": columns}, symbolic="i")
    p = product(b[y], b)
    assert schedule.is_better_swapped(p), "or nothing is tested"
    bias = b.emit(
        "broadcast", b.emit("input", name="bias", type=TensorType("f32", (columns,))), shape=b.shape(y), axes=(1,)
    )
    z = b.emit("add", y, bias)
    outputs = (("z", z), ("r", b.emit("maximum", z, b.emit("neg", z))))
    g = fuse(b.finish(outputs))
    sizes = {"i": 1, "k": steps, "j": columns}
    for n in (1, 16, 33, 100):
        given = arrays("ik,jk->ij", sizes | {"i": n}) | {"bias": np.arange(columns, dtype=np.float32)}
        got, _ = compiled(g, target)(given, None, {"B": n})
        with monkeypatch.context() as m:
            m.setattr(schedule, "SWAPPED", 1 << 20)
            wanted, _ = compiled(g, target)(given, None, {"B": n})
        for name in wanted:
            np.testing.assert_array_equal(got[name].view(np.int32), wanted[name].view(np.int32))


@pytest.mark.parametrize("turns", [1, 16, 65])
@pytest.mark.parametrize("short", [0, 1])
def test_a_long_sum_in_blocks_over_what_an_operand_lacks(turns, short, compiled):
    """Each block has its part of the sum, also where one operand ends before the other: beyond it reads 0."""
    b, sizes = Builder("g", OPS), {"t": T, "b": B, "i": 140, "j": 40}
    shapes = [[sizes[c] for c in "tbi"], [sizes[c] for c in "tbj"]]
    shapes[short][0] = T - 1
    x, y = (b.emit("input", name=n, type=TensorType("f32", tuple(s))) for n, s in zip("xy", shapes, strict=True))
    domain = (("t", T), ("b", B), ("i", 140), ("j", 40))
    w = b.emit("contract", x, y, domain=domain, maps=(plain("tbi"), plain("tbj")), out=plain("ij"), shape=(140, 40))
    run = compiled(b.finish((("w", w),)))
    assert schedule.schedule(product(b[w], b), level("x86-64-v4")).blocks
    rng = np.random.default_rng(turns)
    given = {n: rng.standard_normal((turns - (n == "xy"[short]), 16, k)).astype(np.float32)
             for n, k in (("x", 140), ("y", 40))}  # fmt: skip
    many = turns - 1
    wanted = np.einsum("tbi,tbj->ij", given["x"][:many], given["y"][:many])
    got, _ = run(given, None, {"T": turns, "B": 16})
    np.testing.assert_allclose(got["w"], wanted, rtol=1e-4, atol=1e-4)


def gradient_of_windows(images):
    """The gradient of 48 filters of 3 x 3 over 64 channels, of 3 images of which `images` are there."""
    n, h, c, k = 3, 56, 64, 48
    b, shapes = Builder("g", OPS), {"x": (images, h + 2, h + 2, c), "dy": (n, h, h, k)}
    x, dy = (b.emit("input", name=name, type=TensorType("f32", shape)) for name, shape in shapes.items())
    windows = (affine(("n", 1)), affine(("i", 1), ("u", 1)), affine(("j", 1), ("v", 1)), affine(("c", 1)))
    domain = (("c", c), ("u", 3), ("v", 3), ("k", k), ("n", n), ("i", h), ("j", h))
    w = b.emit("contract", x, dy, domain=domain, maps=(windows, plain("nijk")), out=plain("cuvk"), shape=(c, 3, 3, k))
    rng = np.random.default_rng(0)
    return b.finish((("w", w),)), {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def test_a_window_around_the_tiles_ends_where_an_operand_does(compiled):
    """The loop around the tiles is the one that is cut short."""
    graph, given = gradient_of_windows(images=2)
    np.testing.assert_allclose(compiled(graph)(given)[0]["w"], evaluate(graph, given)[0]["w"], rtol=1e-3, atol=1e-2)


def test_a_long_reduction_in_blocks_has_the_same_bits(compiled, monkeypatch):
    """The gradient of weights, where its operands do not stay in the cache: the chains are what they are without."""
    graph, given = gradient_of_windows(images=3)
    blocks = compiled(graph)
    got, _ = blocks(given)
    monkeypatch.setattr(matmul, "_far", lambda p: ())
    whole = compiled(graph)
    assert whole.lowered.module != blocks.lowered.module
    np.testing.assert_array_equal(got["w"], whole(given)[0]["w"])
    np.testing.assert_allclose(got["w"], evaluate(graph, given)[0]["w"], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("size", "channels", "filters", "around"), [(28, 64, 128, 2), (14, 128, 256, 1), (7, 64, 64, 0)]
)
def test_sums_are_stored_after_no_fewer_steps_than_pay(size, channels, filters, around):
    """The gradient of strided filters: after each line, after each image where lines are short, or never."""
    b, wide = Builder("g", OPS), 2 * size + 1
    x = b.emit("input", name="x", type=TensorType("f32", (8, wide, wide, channels)))
    dy = b.emit("input", name="dy", type=TensorType("f32", (8, size, size, filters)))
    windows = (affine(("n", 1)), affine(("i", 2), ("u", 1)), affine(("j", 2), ("v", 1)), affine(("c", 1)))
    domain = (("c", channels), ("u", 3), ("v", 3), ("k", filters), ("n", 8), ("i", size), ("j", size))
    w = b.emit("contract", x, dy, domain=domain, maps=(windows, plain("nijk")), out=plain("cuvk"),
               shape=(channels, 3, 3, filters))  # fmt: skip
    graph = b.finish((("w", w),))
    assert len(matmul._far(product(graph[w], graph))) == around


@pytest.mark.parametrize("images", [2, B])
@pytest.mark.parametrize("near", [1, 3000, 1 << 20])
def test_windows_over_large_weights_have_the_bits_of_small_ones(images, near, compiled, monkeypatch):
    """Weights are copied, and all pixels that are near are done for some filters before the next are."""
    h, c, k = 11, 20, 52
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (images, h + 2, h + 2, c)))
    w = b.emit("input", name="w", type=TensorType("f32", (3, 3, c, k)))
    windows = (affine(("n", 1)), affine(("i", 1), ("u", 1)), affine(("j", 1), ("v", 1)), affine(("c", 1)))
    domain = (("n", images), ("i", h), ("j", h), ("k", k), ("u", 3), ("v", 3), ("c", c))
    y = b.emit("contract", x, w, domain=domain, maps=(windows, plain("uvck")), out=plain("nijk"),
               shape=(images, h, h, k))  # fmt: skip
    graph = fuse(b.finish((("y", b.emit("tanh", y)),)))
    rng = np.random.default_rng(0)
    given = {
        "x": rng.standard_normal((2, h + 2, h + 2, c)).astype("f"),
        "w": rng.standard_normal((3, 3, c, k)).astype("f"),
    }
    bound = {"B": 2} if images is B else {}
    monkeypatch.setattr(schedule, "TIMES", 1 << 60)
    plainly = compiled(graph)
    wanted = plainly(given, None, bound)[0]["y"]
    monkeypatch.setattr(schedule, "TIMES", 1)
    monkeypatch.setattr(schedule, "LARGE", near)
    run = compiled(graph)
    assert run.lowered.module != plainly.lowered.module
    np.testing.assert_array_equal(run(given, None, bound)[0]["y"], wanted)
    np.testing.assert_allclose(wanted, evaluate(graph, {**given})[0]["y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("images", [2, B])
@pytest.mark.parametrize(("taps", "step"), [(4, 2), (3, 2), (3, -2), (5, 3)])
def test_windows_over_every_other_of_large_weights_have_the_bits_of_small_ones(
    images, taps, step, compiled, monkeypatch
):
    """The gradient by the image of a convolution of stride 2: four products, each by its own weights, of which the
    last are outside where there are three along an axis."""
    h, c, k = 7, 20, 52
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (images, h + 1, h + 1, c)))
    w = b.emit("input", name="w", type=TensorType("f32", (taps, taps, c, k)))
    windows = (affine(("n", 1)), affine(("i", 1), ("u", 1)), affine(("j", 1), ("v", 1)), affine(("c", 1)))
    first = 0 if step > 0 else -step
    u, v = (affine((tap, step), (phase, 1), constant=first) for tap, phase in ("ur", "vs"))
    filters = (u, v, affine(("c", 1)), affine(("k", 1)))
    domain = (("n", images), ("i", h), ("r", 2), ("j", h), ("s", 2), ("k", k), ("u", 2), ("v", 2), ("c", c))
    y = b.emit("contract", x, w, domain=domain, maps=(windows, filters), out=plain("nirjsk"),
               shape=(images, h, 2, h, 2, k))  # fmt: skip
    graph = fuse(b.finish((("y", b.emit("tanh", y)),)))
    rng = np.random.default_rng(0)
    shapes = {"x": (2, h + 1, h + 1, c), "w": (taps, taps, c, k)}
    given = {name: rng.standard_normal(shape).astype("f") for name, shape in shapes.items()}
    bound = {"B": 2} if images is B else {}
    plainly = compiled(graph)
    wanted = plainly(given, None, bound)[0]["y"]
    for name in ("TIMES", "LARGE"):
        monkeypatch.setattr(schedule, name, 1)
    assert schedule.schedule(product(b[y], b), level("x86-64-v4")).turned
    run = compiled(graph)
    assert run.lowered.module != plainly.lowered.module
    np.testing.assert_array_equal(run(given, None, bound)[0]["y"], wanted)
    np.testing.assert_allclose(wanted, evaluate(graph, {**given})[0]["y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "most"), [(symbol("B"), 4), (512, 8)])
def test_few_rows_are_not_left_over_where_only_run_time_knows_how_many(rows, most):
    """Of a tile of 8 rows a batch of 4 to 7 would be single rows, at twice the time."""
    b = Builder("g", OPS)
    x, w = (b.emit("input", name=n, type=TensorType("f32", s)) for n, s in (("x", (rows, 512)), ("w", (512, 256))))
    y = einsum(b, "bi,io->bo", x, w)
    single = replace(level("x86-64-v4"), units=1)  # for two units a tile of one vector is none anyway
    assert schedule.schedule(product(b[y], b), single).tile.rows == most


def test_a_tile_for_two_units_needs_fewer_loads_than_multiply_adds():
    """A row of one vector is one load for each: half of what two units can do."""
    for columns in (32, 48, 256, 1000):
        tile = choose(512, columns, False, "f32", level("x86-64-v4"), long=True)
        assert 4 * (tile.rows + tile.vectors) <= 3 * tile.rows * tile.vectors


def test_whole_tiles_leave_few_rows_of_each_block_over():
    """Of 28 rows tiles of 6 would be 30: a fourteenth of all multiply-adds for nothing."""
    two = level("x86-64-v4")
    for blocks, columns, most in (((28,), 512, 28), ((14, 14), 64, 28), ((49,), 256, 50), ((12, 4), 32, 18)):
        tile = choose(max(blocks), columns, True, "f32", two, blocks=blocks)
        assert sum(-(-n // tile.rows) * tile.rows for n in blocks) <= most
        one = replace(two, units=1)
        assert choose(28, columns, True, "f32", one, blocks=blocks) == choose(28, columns, True, "f32", one)


@pytest.mark.parametrize("lines", [512, 30, 3])
def test_lines_are_asked_for_from_several_pages_in_turn(lines):
    asked = [ahead.ordered(n, lines, ahead.RUNS) for n in range(-(-lines // ahead.RUNS) * ahead.RUNS)]
    assert {*range(lines)} <= {*asked} and len({*asked}) == len(asked)
    assert all(abs(a - b) >= lines // ahead.RUNS for a, b in pairwise(asked))
    assert [ahead.ordered(n, lines, 1) for n in range(lines)] == [*range(lines)]
    assert ahead.runs(level("x86-64-v4")) > ahead.runs(replace(level("x86-64-v4"), units=1)) == 1


@pytest.mark.parametrize(("units", "is_so"), [(256, False), (600, True)])
def test_one_row_asks_for_panels_that_are_far(units, is_so):
    text = f"model Net(x: f32[B, 512]) {{ return x |> Dense({units}) }}"
    settings = Settings(cache=False, target_cpu="x86-64-v3")
    module = Session(Source("a.nn", text), settings).stages("predict").lowered.module
    assert any(isinstance(s, Prefetch) for k in module.kernels for s in walk(k.body)) == is_so


@pytest.mark.parametrize("images", [2, B])
@pytest.mark.parametrize("part", [1 << 9, 1 << 11])
def test_windows_over_some_steps_of_far_weights_at_a_time_have_the_same_bits(images, part, compiled, monkeypatch):
    h, c, k = 9, 20, 52
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (images, 2 * h + 1, 2 * h + 1, c)))
    w = b.emit("input", name="w", type=TensorType("f32", (3, 3, c, k)))
    windows = (affine(("n", 1)), affine(("i", 2), ("u", 1)), affine(("j", 2), ("v", 1)), affine(("c", 1)))
    domain = (("n", images), ("i", h), ("j", h), ("k", k), ("u", 3), ("v", 3), ("c", c))
    y = b.emit("contract", x, w, domain=domain, maps=(windows, plain("uvck")), out=plain("nijk"),
               shape=(images, h, h, k))  # fmt: skip
    graph = b.finish((("y", y),))
    rng = np.random.default_rng(0)
    given = {
        "x": rng.standard_normal((2, 2 * h + 1, 2 * h + 1, c)).astype("f"),
        "w": rng.standard_normal((3, 3, c, k)).astype("f"),
    }
    bound = {"B": 2} if images is B else {}
    for name, value in (("TIMES", 1), ("LARGE", 1), ("LONG", 8)):
        monkeypatch.setattr(schedule, name, value)
    plainly = compiled(graph)
    wanted = plainly(given, None, bound)[0]["y"]
    monkeypatch.setattr(schedule, "FAR", 1 << 14)
    monkeypatch.setattr(schedule, "PART", part)
    run = compiled(graph)
    assert any(isinstance(s, Prefetch) for kernel in run.lowered.module.kernels for s in walk(kernel.body))
    np.testing.assert_array_equal(run(given, None, bound)[0]["y"], wanted)
    np.testing.assert_allclose(wanted, evaluate(graph, {**given})[0]["y"], rtol=1e-4, atol=1e-4)

"""Convolutions by Winograd's algorithm: forward and backward, at every edge, beside the direct ones."""

from __future__ import annotations

import numpy as np
import pytest

import nnc
from nnc.compiler.graph.ops.winograd import FLAT, LARGE, SMALL, WIDE
from nnc.compiler.loops import ir as L
from nnc.compiler.lowering import wind
from nnc.compiler.lowering.kernels import winograd
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source

ROOM = 3e-5  # of the standard deviation


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))


def net(shape: str, layers: str, **settings: object) -> nnc.Model:
    text = f"""
model Net(x: f32[{shape}]) {{ return x |> {layers} |> flatten |> Dense(3) }}
train Net(x, target: f32[B, 3]) {{
    loss = mean((Net(x) - target)^2)
    optimizer = SGD(lr = 0.1)
}}
"""
    return nnc.compile(text, **settings)


def positions(text: str, entry: str = "predict", op: str = "unwind") -> list[int]:
    """At how many: of convolutions by the transforms of their filters, or of gradients by filters."""
    fused = Session(Source("a.nn", text), Settings(cache=False)).stages(entry).fused
    graphs = [n.attrs["body"] for n in fused if n.op == "fused"] + [fused]
    found = [(g, n) for g in graphs for n in g if n.op == op]
    return [(n if op == "filter_gradient" else g[n.args[0]]).shape[0] for g, n in found]


def wound(text: str, entry: str = "predict", op: str = "unwind") -> int:
    return len(positions(text, entry, op))


@pytest.mark.parametrize(("shape", "layers"), [
    ("B, 32, 8, 8", "Conv(32, 3, pad = 1) |> relu"),
    ("B, 40, 9, 13", "Conv(33, 3, pad = 1) |> tanh |> Conv(32, 3)"),  # edges of one row, of one column
    ("B, 32, 6, 3", "Conv(48, 3, pad = 1) |> BatchNorm |> relu"),
    ("B, 17, 9, 10", "Conv(19, 3, pad = 1) |> relu |> Conv(16, 3)"),
    ("B, 32, 5, 7", "Conv(32, 3, pad = 2)"),
    ("2, 32, 10, 11", "Conv(32, 3) |> max_pool(2, stride = 1)"),
    ("B, 32, 30, 30", "Conv(32, 3, pad = 1) |> avg_pool(2)"),  # more than one block of an image
])  # fmt: skip
@pytest.mark.parametrize("tiles", [LARGE, SMALL, FLAT, WIDE], ids=["large", "small", "flat", "wide"])
def test_beside_the_direct_ones(shape, layers, tiles, monkeypatch, tmp_path):
    monkeypatch.setattr(wind, "TILES", (tiles,))
    layers = layers.replace(", 3, pad = 1", f", {tiles.taps}, pad = {tiles.taps // 2}").replace(
        ", 3", f", {tiles.taps}"
    )
    monkeypatch.setattr(wind, "READ", 0)
    monkeypatch.setenv("NNC_CACHE", str(tmp_path))
    ours, direct = net(shape, layers, threads=2), net(shape, layers, threads=2, precise=True)
    for batch in (2,) if shape[0] == "2" else (1, 2, 5):
        rng = np.random.default_rng(batch)
        x = rng.normal(size=(batch, *map(int, shape.split(",")[1:]))).astype(np.float32)
        target = rng.normal(size=(batch, 3)).astype(np.float32)
        got, want = ours.predict(x), direct.predict(x)
        assert 0 < np.abs(got - want).max() <= ROOM * max(1, want.std())
        names = [*ours.params, "x"]
        gradients, wanted = (n.gradients(x, target, wrt=names) for n in (ours, direct))
        for name in names:
            assert np.abs(gradients[name] - wanted[name]).max() <= ROOM * max(np.abs(wanted[name]).max(), 1e-2), name


def test_the_same_bits_on_any_number_of_threads_and_width():
    shape, layers = "B, 32, 14, 14", "Conv(64, 3, pad = 1) |> relu |> Conv(32, 3, pad = 1)"
    x = np.random.default_rng(0).normal(size=(7, 32, 14, 14)).astype(np.float32)
    target = np.zeros((7, 3), np.float32)
    found = []
    for settings in ({"threads": 1}, {"threads": 2}, {"threads": 1, "target_cpu": "x86-64-v3"}):
        model = net(shape, layers, **settings)
        first = model.predict(x).tobytes()
        model.train_step(x, target)
        found.append((first, *(a.tobytes() for a in model.params.values())))
    assert found[0] == found[1] == found[2]


CONV = "model Net(x: f32[B, {c}, {n}, {n}]) {{ return x |> Conv({k}, {taps}, pad = 1, stride = {stride}) }}"


@pytest.mark.parametrize(("c", "k", "n", "taps", "stride", "is_so"), [
    (32, 32, 8, 3, 1, True), (32, 32, 8, 5, 1, True), (32, 32, 8, 7, 1, False), (16, 32, 6, 4, 1, False),
    (32, 32, 9, 3, 2, False), (15, 64, 8, 3, 1, False),
    (64, 15, 8, 3, 1, False), (64, 16, 8, 3, 1, True), (512, 512, 7, 3, 1, True),
    (512, 512, 4, 3, 1, False), (512, 512, 14, 3, 1, True),
])  # fmt: skip
def test_where_it_pays(c, k, n, taps, stride, is_so):
    assert wound(CONV.format(c=c, k=k, n=n, taps=taps, stride=stride)) == is_so


@pytest.mark.parametrize("body", [
    "y[n, i, j in 0..8, k] = sum[u, v, c](x[n, i + u, i + v, c] * w[u, v, c, k])",
    "y[n, i, j, k] = sum[u, v, c](x[n, i + u, j + u, c] * w[u, v, c, k])",
    "y[n, i, j, k] = sum[u, v, c](x[n, i + u, j + v, c] * w[u, v, k, c])",
    "y[n, i, j, k] = sum[u, v, c](x[n, j + v, i + u, c] * w[v, u, c, k])",
])  # fmt: skip
def test_what_looks_like_a_convolution_and_what_is_one_in_another_order(body):
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(2, 10, 10, 32)).astype("f4"), rng.normal(size=(3, 3, 32, 32)).astype("f4")
    source = f"fn f(x: f32[B, 10, 10, 32], w: f32[3, 3, 32, 32]) -> f32[B, 8, 8, 32] {{ {body}\n return y }}"
    ours, direct = (nnc.function(source, precise=precise)(x, w) for precise in (False, True))
    assert np.abs(ours - direct).max() <= ROOM * direct.std()


@pytest.mark.parametrize(("c", "n", "one", "many"), [(512, 7, 12, 36), (256, 14, 16, 36), (256, 28, 36, 36)])
def test_few_examples_have_small_tiles_where_large_ones_are_few_and_their_transforms_far(c, n, one, many):
    text = CONV.format(c=c, k=c, n=n, taps=3, stride=1)
    settings = "loss = mean((Net(x) - t)^2)\n optimizer = SGD(lr = 0.1)\n batch = 32"
    train = f"\ntrain Net(x, t: f32[B, {c}, {n}, {n}]) {{ {settings} }}\n"
    assert positions(text) == [one] and {*positions(text + train, "train")} == {many}


@pytest.mark.parametrize("channels", [72, 75])
def test_sums_over_some_channels_at_a_time_have_the_same_bits(channels, monkeypatch):
    text = CONV.format(c=channels, k=48, n=13, taps=3, stride=1)
    x = np.random.default_rng(0).normal(size=(2, channels, 13, 13)).astype(np.float32)
    found = []
    for part in (winograd.PART, 1 << 12):  # all of them; 32 or 64, then what is left
        monkeypatch.setattr(winograd, "PART", part)
        found.append(nnc.compile(text, threads=1, cache=False).predict(x))
    assert np.array_equal(*found)


def test_each_pass_asks_for_a_part_of_the_next_panel():
    text = CONV.format(c=512, k=512, n=7, taps=3, stride=1)
    settings = Settings(cache=False, target_cpu="x86-64-v4")
    lowered = Session(Source("a.nn", text), settings).stages("predict").lowered
    kernels = [k for k in lowered.module.kernels if any(b.name.startswith("product") for b in k.buffers)]
    assert kernels and all(any(isinstance(s, L.Prefetch) and s.level == 2 for s in L.walk(k.body)) for k in kernels)


@pytest.mark.parametrize("layers", [
    "Conv(32, 3, pad = 1) |> relu |> Conv(32, 3, pad = 1)",  # a margin and tiles that are not whole
    "Conv(32, 3) |> relu |> Conv(32, 5, pad = 2) |> tanh |> pad([[0, 0], [0, 0], [1, 2], [1, 0]], 1.5) |> Conv(32, 3)",
    "Conv(32, 3, pad = 1) |> Twice",
])  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_stored_within_the_margin_that_their_reader_wants(layers, threads):
    text = f"""
layer Twice(x: f32[B, 32, H, W]) -> f32[B, 32, H, W] {{ return relu(x) + (relu(x) |> Conv(32, 3, pad = 1)) }}
model Net(x: f32[B, 32, 9, 11]) {{ return x |> {layers} }}"""
    fused = Session(Source("a.nn", text), Settings(cache=False)).stages("predict").fused
    bodies = [n.attrs["body"] for n in fused if n.op == "fused"]
    pads = [g for g in bodies if any(n.op == "unwind" for n in g) and any(n.op == "pad" for n in g)]
    assert pads and not any(n.op == "pad" and n.args[0] != "x" for n in fused)
    ours, direct = (nnc.compile(text, threads=threads, precise=precise) for precise in (False, True))
    for batch in (1, 3, 70):
        x = np.random.default_rng(batch).normal(size=(batch, 32, 9, 11)).astype(np.float32)
        got, want = ours.predict(x), direct.predict(x)
        assert 0 < np.abs(got - want).max() <= ROOM * max(1, want.std())


def test_shares_of_one_thread_have_one_place_for_tiles_and_products():
    lowered = (
        Session(Source("a.nn", CONV.format(c=32, k=32, n=64, taps=3, stride=1)), Settings(cache=False))
        .stages("predict")
        .lowered
    )
    (kernel,) = (k for k in lowered.module.kernels if any(b.name.startswith("product") for b in k.buffers))
    (shares,) = (s for s in kernel.body if isinstance(s, L.For))
    stores = [s for s in L.walk(kernel.body) if isinstance(s, L.Store) and s.buffer.startswith(("tile", "product"))]
    names = {v.name for s in stores for v in L.parts(s.index) if isinstance(v, L.Var)}
    assert shares.parallel and shares.first in names and shares.var not in names


GRADIENT = """export g(x: f32[{n}, {h} + 2, {w} + 2, {c}], d: f32[{n}, {h}, {w}, {k}]) -> f32[{c}, 3, 3, {k}] {{
    y[c in 0..{c}, u in 0..3, v in 0..3, k in 0..{k}] = sum[n, i, j](x[n, {at}, c] * d[n, i, j, k])
    return y
}}"""


@pytest.mark.parametrize(("n", "h", "w", "c", "k", "at"), [
    (5, 22, 21, 33, 40, "i + u, j + v"),
    (1, 24, 24, 32, 64, "i + u, j - v + 2"),
    (3, 36, 41, 36, 32, "i - u + 2, j + v"),  # more than one block
    (0, 24, 24, 32, 32, "i + u, j + v"),
])  # fmt: skip
def test_the_gradient_by_filters_beside_the_direct_one(n, h, w, c, k, at):
    text = GRADIENT.format(n="B", h=h, w=w, c=c, k=k, at=at)
    rng = np.random.default_rng(n)
    x, d = rng.normal(size=(n, h + 2, w + 2, c)).astype("f4"), rng.normal(size=(n, h, w, k)).astype("f4")
    assert wound(text, "g", "filter_gradient") == 1
    ours, direct = (nnc.compile(text, precise=precise, threads=2).g(x, d) for precise in (False, True))
    assert np.abs(ours - direct).max() <= ROOM * direct.std()


SMALL_SUMS = GRADIENT.format(n="B", h=24, w=24, c=16, k=16, at="i + u, j + v")


def test_threads_share_the_blocks_of_a_gradient_whose_sums_are_small():
    """Not the tiles of each block and then the positions, where each reads what the other wrote."""
    session = Session(Source("a.nn", SMALL_SUMS), Settings(cache=False))
    kernels = session.stages("g").lowered.module.kernels
    (kernel,) = [k for k in kernels if any(b.name == "slope0" for b in k.buffers)]
    first = next(s for s in kernel.body if isinstance(s, L.For))
    assert first.parallel and any(b.name == "sum0" for b in kernel.buffers)
    assert not any(s.parallel for s in L.walk(first.body) if isinstance(s, L.For))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 13])
def test_runs_of_blocks_are_added_in_order(n):
    rng = np.random.default_rng(n)
    x, d = rng.normal(size=(n, 26, 26, 16)).astype("f4"), rng.normal(size=(n, 24, 24, 16)).astype("f4")
    ways = ({"threads": 1}, {"threads": 2}, {"threads": 3}, {"threads": 1, "target_cpu": "x86-64-v3"})
    ours = [nnc.compile(SMALL_SUMS, **way).g(x, d) for way in ways]
    direct = nnc.compile(SMALL_SUMS, precise=True).g(x, d)
    assert len({a.tobytes() for a in ours}) == 1
    assert np.abs(ours[0] - direct).max() <= ROOM * direct.std()


@pytest.mark.parametrize(("n", "size", "c", "k", "at", "is_so"), [
    (8, 8, 32, 32, "i + u, j + v", True), (7, 8, 32, 32, "i + u, j + v", False), (8, 8, 15, 32, "i + u, j + v", False),
    (32, 8, 32, 15, "i + u, j + v", False), (8, 8, 16, 16, "i + u, j + v", True), (8, 8, 32, 32, "i + u, i + v", False),
])  # fmt: skip
def test_where_a_gradient_at_the_points_pays(n, size, c, k, at, is_so):
    text = GRADIENT.format(n=n, h=size, w=size, c=c, k=k, at=at)
    assert wound(text, "g", "filter_gradient") == is_so


def test_f64_and_precise_are_direct(monkeypatch):
    text = CONV.format(c=32, k=32, n=8, taps=3, stride=1)
    for settings in (Settings(cache=False, dtype="f64"), Settings(cache=False, precise=True)):
        assert "unwind" not in str(Session(Source("a.nn", text), settings).stages("predict").fused.nodes)
    assert wind.LEAST == 16


def test_a_value_that_is_not_finite_stays_where_a_tile_sees_it():
    model = net("B, 32, 16, 16", "Conv(32, 3, pad = 1)", threads=1)
    assert model.entry("predict").signature.prepared
    text = "model Net(x: f32[B, 32, 16, 16]) { return x |> Conv(32, 3, pad = 1) }"
    conv = nnc.compile(text, threads=1)
    x = np.ones((1, 32, 16, 16), np.float32)
    x[0, 3, 1, 1] = np.inf
    y = conv.predict(x)
    assert np.isfinite(y[:, :, 4:, 4:]).all() and not np.isfinite(y[:, :, :3, :3]).all()

"""Entries that are two, for few examples and for many: what a call gives does not depend on which of them ran."""

from __future__ import annotations

import numpy as np
import pytest

import nnc
from nnc.compiler.passes.layout import LANES
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.compiler.types.sizes import substitute
from nnc.dsl.source import Source

NET = """
model Net(x: f32[B, 1, 12, 8]) -> (y: f32[B, 4]) {
    y = x |> Conv(6, 5, pad = 2) |> tanh |> avg_pool(2) |> Conv(5, 3) |> BatchNorm |> relu |> max_pool(2) |> flatten
        |> Dense(40) |> Dense(4)
}

export maps(x: f32[B, 1, 12, 8], w: f32[3, 1, 3, 3]) -> f32[B, 3, 10, 6] {
    y[n, k, i, j] = sum[c, u, v](x[n, c, i + u, j + v] * w[k, c, u, v])
    return y
}

train Net(x, target: f32[B, 4]) {
    loss = mean((y - target)^2)
    metric off = mean(abs(y - target))
    optimizer = SGD(lr = 0.1)
}
"""
SIZES = (0, 1, LANES - 1, LANES, LANES + 1, 3 * LANES + 5)


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 1, 12, 8)).astype(np.float32)


def is_two(text: str, entry: str, **settings: object) -> bool:
    made = Session(Source("a.nn", text), Settings(cache=False, **settings)).stages(entry)
    return made.many is not None


def test_each_example_is_what_it_is_alone():
    assert is_two(NET, "predict") and is_two(NET, "maps")
    net = nnc.compile(NET, threads=2)
    w = np.random.default_rng(0).normal(size=(3, 1, 3, 3)).astype(np.float32)
    for count in SIZES:
        x = images(count)
        for got, one in ((net.predict(x), net.predict), (net.maps(x, w), lambda x: net.maps(x, w))):
            assert len(got) == count
            for k in range(count):
                np.testing.assert_allclose(got[k : k + 1], one(x[k : k + 1]), rtol=1e-5, atol=1e-6)


def test_what_both_prepare_is_made_anew_when_variables_change():
    net, other = nnc.compile(NET, threads=1), nnc.compile(NET, threads=1)
    x, target = images(2 * LANES), np.ones((2 * LANES, 4), np.float32)
    run = net.bind("predict", x)
    assert net.entry("predict").signature.prepared
    for _ in range(3):
        before = run().copy()
        net.train_step(x, target)
        other.train_step(x, target)
        after = run()
        assert not np.array_equal(before, after)
        np.testing.assert_array_equal(after, other.predict(x))
        np.testing.assert_allclose(after[:5], net.predict(x[:5]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(net.evaluate(x, target)["off"], np.abs(net.predict(x) - target).mean(), rtol=1e-5)


def test_the_same_bits_on_any_number_of_threads_and_width():
    found = []
    for settings in ({"threads": 1}, {"threads": 2}, {"threads": 2, "target_cpu": "x86-64-v3"}):
        net = nnc.compile(NET, **settings)
        found.append([net.predict(images(count)).tobytes() for count in SIZES])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("text", "settings"), [
    ("model Net(x: f32[B, 16, 8, 8]) { return x |> Conv(32, 3) }", {}),  # enough filters
    ("model Net(x: f32[64, 1, 8, 8]) { return x |> Conv(6, 3) }", {}),  # a size that is known
    ("model Net(x: f32[B, 40]) { return x |> Dense(6) }", {}),
    (NET, {"optimize": False}),
])  # fmt: skip
def test_where_one_is_enough(text, settings):
    assert not is_two(text, "predict", **settings)


def test_the_memory_is_enough_for_both():
    made = Session(Source("a.nn", NET), Settings(cache=False)).stages("predict")
    few, many = (e for e in made.lowered.module.entries if e.name in ("predict", "predict.many"))
    for count in SIZES:
        room = substitute(made.signature.arena, {"B": count})
        assert room >= max(substitute(e.arena, {"B": count}) for e in (few, many))

"""Batches that are run some examples at a time: what a call gives does not depend on how many, nor on the threads."""

from __future__ import annotations

import numpy as np
import pytest

import nnc
from nnc.compiler.lowering import microbatches
from nnc.dsl.errors import ArgumentError
from nnc.runtime.profile import profile

MACHINE = {"flops": 1e11, "bandwidth": {1 << 28: 1e10}}
CONVOLUTION = """
model Net(x: f32[B, 1, 12, 8]) -> (y: f32[B, 4]) {
    y = x |> Conv(6, 5, pad = 2) |> tanh |> avg_pool(2) |> Conv(5, 3) |> BatchNorm |> relu |> flatten |> Dense(4)
}
"""
MANY_FILTERS = """
model Net(x: f32[B, 16, 12, 8]) -> (y: f32[B, 4]) {
    y = x |> Conv(32, 3, pad = 1) |> relu |> Conv(32, 3, pad = 1) |> relu |> global_avg_pool |> Dense(4)
}
"""
RECURRENT = """
model Net(x: f32[B, T, 5]) -> (y: f32[B, T, 3], last: f32[B, 7]) {
    h = x |> Lstm(7)
    y = h |> Dense(3)
    last = h[:, T - 1]
}
"""
TOKENS = """
model Net(x: i32[B, 6]) -> (y: f32[B, 6, 9]) {
    y = x |> Embedding(9, 8) |> LayerNorm |> Attention(2) |> Dense(9) |> softmax
}
"""
SHAPES = {CONVOLUTION: (1, 12, 8), MANY_FILTERS: (16, 12, 8), RECURRENT: (4, 5), TOKENS: (6,)}


def batch(text: str, count: int) -> np.ndarray:
    rng, shape = np.random.default_rng(count), (count, *SHAPES[text])
    return rng.integers(0, 9, shape, np.int32) if text == TOKENS else rng.normal(size=shape).astype(np.float32)


@pytest.fixture
def few(monkeypatch):
    """As if the cache held next to nothing, and parameters cost nothing to read."""
    monkeypatch.setattr(microbatches, "NEAR", 1)
    monkeypatch.setattr(microbatches, "READ", 0)


def results(text: str, x: np.ndarray, threads: int) -> list[np.ndarray]:
    net = nnc.compile(text, threads=threads, cache=False)
    y = net.predict(x)
    return [np.asarray(a) for a in (y if isinstance(y, tuple) else (y,))]


@pytest.mark.parametrize("text", SHAPES, ids=["convolution", "many filters", "recurrent", "tokens"])
def test_each_example_is_what_it_is_in_any_batch(text, monkeypatch):
    x = batch(text, 45)
    whole = results(text, x, 1)
    monkeypatch.setattr(microbatches, "NEAR", 1)
    monkeypatch.setattr(microbatches, "READ", 0)
    net = nnc.compile(text, cache=False)
    size, length = net.entry("predict").signature.microbatch
    assert size == "B" and length < 45
    one = results(text, x, 1)
    for a, b in zip(whole, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for threads in (2, 3, 7):
        assert [a.tobytes() for a in results(text, x, threads)] == [a.tobytes() for a in one]
    for count in (0, 1, length, length + 1, 2 * length + 1):
        for a, b in zip(results(text, x[:count], 2), one, strict=True):
            np.testing.assert_allclose(a, b[:count], rtol=1e-5, atol=1e-6)


def test_memory_is_that_of_a_micro_batch_for_each_thread():
    net = nnc.compile(MANY_FILTERS, threads=2, cache=False)
    s = net.entry("predict").signature
    _, length = s.microbatch
    one, two, most = (net.entry("predict").sized({"B": n * length}).arena for n in (1, 2, 1000))
    assert one <= two == most == 2 * (-(-one // 64) * 64)


def test_what_is_wrong_with_one_example_is_said(few):
    net = nnc.compile(TOKENS, threads=2, cache=False)
    x = batch(TOKENS, 40)
    x[33, 2] = 9
    with pytest.raises(ArgumentError, match=r"9.*row 33|row 33.*9"):
        net.predict(x)


def test_a_bound_call_and_a_profile(few):
    net = nnc.compile(MANY_FILTERS, threads=2, cache=False)
    x = batch(MANY_FILTERS, 40)
    run = net.bind("predict", x)
    np.testing.assert_array_equal(run(), net.predict(x))
    kernels = {n: profile(net, "predict", [x[:n]], MACHINE).kernels for n in (1, 40)}
    for alone, all_ in zip(kernels[1], kernels[40], strict=True):
        assert all_.operations == 40 * alone.operations

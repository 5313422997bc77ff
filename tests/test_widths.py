"""Widths of floats: what the library makes of f64, in a program whose `f32` is f32.

The same text with every `f32` read as f64 (`dtype = "f64"`) is the reference: it has the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import SourceError

# the sizes of x behind B, and what stands between x and the result of a model
BODIES: dict[str, tuple[tuple[int, ...], str]] = {
    "dense": ((6,), "x |> Dense(5, init = mine) |> gelu |> dropout(p = 0.3) |> Dense(4, init = he_normal)"),
    "normed": ((6,), "x |> Dense(8) |> LayerNorm |> silu |> RmsNorm |> Dense(4, init = orthogonal)"),
    "images": (
        (2, 8, 8),
        'x |> Conv(4, 3, pad = 1) |> BatchNorm |> relu |> max_pool(2) |> DepthwiseConv(3, pad = "same")'
        " |> GroupNorm(2) |> ConvTranspose(4, 2, stride = 2) |> InstanceNorm |> avg_pool(2) |> local_response_norm"
        " |> adaptive_avg_pool(2) |> flatten |> Dense(4)",
    ),
    "augmented": ((1, 6, 6), "x |> random_flip |> random_crop(1) |> random_warp(angle = 0.1) |> flatten |> Dense(4)"),
    "rnn": ((5, 3), "(x |> Rnn(4))[:, -1]"),
    "lstm": ((5, 3), "(x |> Lstm(4))[:, -1]"),
    "gru": ((5, 3), "(x |> Gru(4))[:, -1]"),
    "attention": (
        (6, 8),
        'x |> Positions(6) |> TransformerBlock(2, causal = true, positions = "rotary") |> flatten |> Dense(4)',
    ),
}
SETTINGS = "optimizer = Adam(lr = cosine(1e-2, warmup = 2))"


def source(
    name: str, settings: str = SETTINGS, loss: str = "mean(cross_entropy(y, label)) + 1e-3 * l2(weights)"
) -> str:
    shape, body = BODIES[name]
    return (
        "fn mine(fan_in) = 0.1 * normal(0, 1 / fan_in)\n"
        f"model M(x: f32[B, {', '.join(map(str, shape))}]) -> (y: f32[B, 4]) {{ y = {body} }}\n"
        f"train M(x, label: i32[B]) {{\n loss = {loss}\n {settings}\n batch = 4\n}}\n"
    )


def trained(name: str, text: str, **more: Any) -> dict[str, Any]:
    """Parameters, losses and predictions of a short training."""
    net = nnc.compile(text, seed=3, **more)
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(8, *BODIES[name][0])), rng.integers(0, 4, 8).astype(np.int32)
    losses = [e["loss"] for e in net.fit(x, label, epochs=2)]
    return {**net.params, "loss": np.array(losses), "y": net.predict(x)}


def same_in_f64(name: str, text: str) -> None:
    got = trained(name, text.replace("f32", "f64"))
    want = trained(name, text, dtype="f64")
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert got[key].dtype == np.float64
        np.testing.assert_array_equal(got[key], value, err_msg=key)


@pytest.mark.parametrize("name", BODIES)
def test_layers_are_of_the_width_of_their_input(name: str) -> None:
    same_in_f64(name, source(name))


@pytest.mark.parametrize(
    "settings",
    [
        "optimizer = SGD(lr = step(0.1, 1))",
        "optimizer = Momentum(lr = exponential(0.1))",
        "optimizer = Velocity(lr = inverse(0.1), nesterov = true)\n normalize = standard",
        "optimizer = AdaGrad(lr = 0.1)\n accumulate = 2",
        "optimizer = RMSProp(lr = linear(0.1))\n clip = global_norm(0.1)",
        "optimizer = AdaDelta()\n average = ema(0.9)",
        "optimizer = AdamW(lr = one_cycle(0.1))\n clip = by_value(0.01)\n metric a = accuracy(y, label)",
        "optimizer = Lion(lr = 0.1)\n average = swa()\n metric p = perplexity(y, label)",
    ],
)
def test_training_is_of_the_width_of_the_parameters(settings: str) -> None:
    same_in_f64("dense", source("dense", settings))


LOSSES = (
    "mean_cross_entropy(y, label, ignore = 1)",
    "mean(squared_error(y, cast(one_hot(label, 4), y)))",
    "mean(huber(y, cast(one_hot(label, 4), y)))",
    "mean(binary_cross_entropy(y, cast(one_hot(label, 4), y)))",
    "mean(kl_divergence(softmax(y), softmax(0.1 * y)))",
    "mean(hinge(sum(y, axis = 1), 2 * cast(label > 1, y) - 1))",
)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_of_the_width_of_what_they_compare(loss: str) -> None:
    same_in_f64("dense", source("dense", loss=loss))


def test_a_model_of_two_widths_trains_both() -> None:
    text = (
        "model M(x: f32[B, 3]) -> (y: f64[B, 2]) {\n h = x |> Dense(4) |> tanh\n y = cast(h, f64) |> Dense(2)\n}\n"
        "train M(x, t: f64[B, 2]) {\n loss = mean((y - t)^2)\n optimizer = Adam(lr = cosine(0.1))\n}\n"
    )
    net = nnc.compile(text, seed=0)
    x, t = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), np.ones((8, 2))
    losses = [e["loss"] for e in net.fit(x, t, epochs=50)]
    assert losses[-1] < 0.1 * losses[0]
    assert [net.params[f"M.dense_{k}.W"].dtype for k in (1, 2)] == [np.float32, np.float64]


def test_in_a_file_f32_is_f32() -> None:
    """Also in an activation that the library calls with f64, and in a constant that is first read there."""
    net = nnc.compile(
        "const table: f32[2] = sqrt([2.0, 9.0])\n"
        "fn rounded(x) = cast(cast(x, f32) * sum(table), f64)\n"
        "model M(x: f64[B, 1, 1]) -> (y: f64[B, 1, 1]) { y = x |> Rnn(1, activation = rounded, init = ones) }\n"
    )
    x = np.array([0.1, 3.0]).reshape(2, 1, 1)
    want = x.astype(np.float32) * np.sqrt(np.float32([2, 9])).sum()
    np.testing.assert_array_equal(net.predict(x), want.astype(np.float64))


@pytest.mark.parametrize(
    "call",
    ["correlate(x, w)", "affine(x, m)", "squared_error(x, y)", "where(x > 0, x, y)", "huber(x, y)", "attend(q, k, k)"],
)
def test_widths_do_not_mix(call: str) -> None:
    with pytest.raises(SourceError, match="E0302"):
        nnc.function(
            "fn f(x: f64[B, C, H, W], y: f32[B, C, H, W], w: f32[K, C, 3, 3], m: f32[B, 2, 3], q: f64[B, 4, 2, 8], "
            f"k: f32[B, 4, 2, 8]) = {call}"
        )

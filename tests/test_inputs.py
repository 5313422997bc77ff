"""Gradients with respect to inputs, as library code: each against what its formula says, on a small model."""

from __future__ import annotations

import numpy as np
import pytest

import nnc

IMAGES = "x: f32[B, 1, 6, 6], label: i32[B]"
MOTIONS = "angle: f32[N], factor: f32[N], down: f32[N], right: f32[N]"
NET = f"""
model Net(x: f32[B, 1, 6, 6]) -> (logits: f32[B, 3]) {{
    logits = x |> c1: Conv(2, kernel = 3) |> tanh |> flatten |> Dense(3)
}}
train Net(x, label: i32[B]) {{
    loss      = sum(cross_entropy(logits, label))
    optimizer = SGD(lr = 0.1)
}}
export look({IMAGES}) -> f32[B, 1, 6, 6] = saliency(Net, x, label)
export step({IMAGES}, eps: f32) -> f32[B, 1, 6, 6] = fgsm(Net, x, label, eps)
export project({IMAGES}) -> f32[B, 1, 6, 6] = pgd(Net, x, label, 0.1, 0.07, 5, -1.0, 2.0)
export dream(x: f32[1, 1, 6, 6], unit: i32, rate: f32 = 0.1) -> f32[1, 1, 6, 6] {{
    scan step in 0..50 {{ x = x + rate * grad(Net(x)[0, unit], x) }}
    return x
}}
export score(x: f32[1, 1, 6, 6], unit: i32) -> f32[1, 1, 6, 6] = grad(Net(x)[0, unit], x)
export up(x: f32[B, 1, 6, 6], rate: f32) -> (y: f32[B, 1, 6, 6], objective: f32) {{
    logits = Net(x)
    objective = mean(Net.c1[:, 1])
    y = ascend(objective, x, rate)
}}
export held({IMAGES}, {MOTIONS}) -> (loss: f32, d_x: f32[B, 1, 6, 6]) {{
    loss = expected_loss(Net, x, label, angle, factor, down, right)
    d_x = grad(loss, x)
}}
export seen({IMAGES}, angle: f32, factor: f32, down: f32, right: f32) -> f32 =
    mean(cross_entropy(Net(warp(x, angle, factor, down, right)), label))
export rough(x: f32[B, C, H, W]) -> f32 = total_variation(x)
export smoother(x: f32[B, 1, 6, 6], rate: f32, smooth: f32) -> f32[B, 1, 6, 6] =
    ascend_smoothly(mean(Net(x)[:, 1]), x, total_variation(x), rate, smooth)
export again(x: f32[B, C, H, W], key: i32) -> f32[N, C, H, W] = views(x, 3, 0.4, 1.2, 1.0, 0.5, key)
export still(x: f32[B, C, H, W]) -> f32[N, C, H, W] = views(x, 2, 0, 1, 0, 0, 1)
export steady({IMAGES}) -> f32[B, 1, 6, 6] =
    pgd_held(Net, identity, x, label, 0.1, 0.07, 5, 2, 0, 1, 0, 0, 1, -1.0, 2.0)
"""
RNG = np.random.default_rng(0)
X, LABEL = RNG.random((4, 1, 6, 6)), np.array([0, 1, 2, 1], np.int32)


@pytest.fixture(scope="module")
def net() -> nnc.Model:
    return nnc.compile(NET, dtype="f64", seed=1)


def test_saliency_is_the_size_of_the_gradient(net: nnc.Model) -> None:
    np.testing.assert_allclose(net.look(X, LABEL), np.abs(net.gradients(X, LABEL, wrt="x")["x"]), atol=1e-12)


def test_fast_gradient_sign_takes_each_pixel_uphill_and_stays_in_range(net: nnc.Model) -> None:
    y = net.step(X, LABEL, 0.2)
    want = np.clip(X + 0.2 * np.sign(net.gradients(X, LABEL, wrt="x")["x"]), 0, 1)
    np.testing.assert_allclose(y, want, atol=1e-12)
    assert net.loss(y, LABEL) > net.loss(X, LABEL)
    np.testing.assert_array_equal(net.step(X, LABEL, 0.0), X)


def test_projected_gradient_descent_never_leaves_its_ball(net: nnc.Model) -> None:
    found, x = net.project(X, LABEL), X
    for _ in range(5):
        uphill = x + 0.07 * np.sign(net.gradients(x, LABEL, wrt="x")["x"])
        x = np.clip(np.clip(uphill, -1, 2), X - 0.1, X + 0.1)
    np.testing.assert_allclose(found, x, atol=1e-12)
    assert net.loss(found, LABEL) > net.loss(X, LABEL) and np.isclose(np.abs(found - X).max(), 0.1)


def test_fifty_steps_of_a_dream_in_one_call(net: nnc.Model) -> None:
    """Along the gradient of a score, as `score` has it for one step."""
    x = X[:1]
    for _ in range(50):
        x = x + 0.1 * net.score(x, 2)
    np.testing.assert_allclose(net.dream(X[:1], 2), x, atol=1e-12)
    assert net.predict(x)[0, 2] > net.predict(X[:1])[0, 2]


def test_an_ascent_moves_by_its_rate_and_raises_its_objective(net: nnc.Model) -> None:
    y, objective = net.up(X, 0.01)
    assert np.isclose(np.mean(np.abs(y - X)), 0.01) and net.up(y, 0.01).objective > objective


def test_the_gradient_of_an_expectation_is_the_mean_of_gradients(net: nnc.Model) -> None:
    motions = [RNG.uniform(-0.5, 0.5, 7), RNG.uniform(0.8, 1.2, 7), RNG.uniform(-1, 1, 7), RNG.uniform(-1, 1, 7)]
    whole = net.held(X, LABEL, *motions)
    parts = [net.held(X, LABEL, *(m[k : k + 1] for m in motions)) for k in range(7)]
    np.testing.assert_allclose(whole.d_x, np.mean([p.d_x for p in parts], axis=0), atol=1e-14)
    np.testing.assert_allclose(whole.loss, np.mean([p.loss for p in parts]), rtol=1e-12)
    for k, part in enumerate(parts):  # each of which is the loss of what its motion shows
        np.testing.assert_allclose(part.loss, net.seen(X, LABEL, *(m[k] for m in motions)), rtol=1e-12)


def test_total_variation_counts_what_neighbours_differ(net: nnc.Model) -> None:
    x = RNG.random((3, 2, 4, 5))
    want = (np.abs(np.diff(x, axis=2)).sum() + np.abs(np.diff(x, axis=3)).sum()) / 3
    np.testing.assert_allclose(net.rough(x), want, rtol=1e-12)
    assert net.rough(np.ones((2, 1, 1, 3))) == 0


def test_a_smooth_ascent_is_an_ascent_less_its_roughness(net: nnc.Model) -> None:
    up = net.smoother(X, 0.1, 0.0) - X
    rough = up - (net.smoother(X, 0.1, 0.5) - X)
    assert np.isclose(np.mean(np.abs(up)), 0.1) and np.isclose(np.mean(np.abs(rough)), 0.05)
    assert net.rough(X - 1e-3 * rough) < net.rough(X) < net.rough(X + 1e-3 * rough)


def test_views_are_of_every_image_and_another_for_each_key(net: nnc.Model) -> None:
    np.testing.assert_allclose(net.still(X), np.concatenate([X, X]), atol=1e-12)
    one, other = net.again(X, 1), net.again(X, 2)
    assert one.shape == (12, 1, 6, 6) and len({v.tobytes() for v in (*one, *other)}) == 24
    np.testing.assert_array_equal(net.again(X, 1), one)


def test_without_motion_the_expected_attack_is_the_plain_one(net: nnc.Model) -> None:
    np.testing.assert_allclose(net.steady(X, LABEL), net.project(X, LABEL), atol=1e-12)

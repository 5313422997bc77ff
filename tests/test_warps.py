"""Warps of images and augmentation: against one pixel at a time in NumPy, finite differences, and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnc

Array = np.ndarray
PARTS = ("angle", "factor", "down", "right")
NUMBERS = ", ".join(f"{p}: f32[B]" for p in PARTS)
RNG = np.random.default_rng(0)
X = RNG.random((2, 3, 5, 6))
STILL = {"angle": np.zeros(2), "factor": np.ones(2), "down": np.zeros(2), "right": np.zeros(2)}


@pytest.fixture(scope="module")
def warp() -> Any:
    return nnc.function(
        f"fn f(x: f32[B, C, H, W], {NUMBERS}) -> f32[B, C, H, W] = warp(x, angle, factor, down, right)", dtype="f64"
    )


def pixel(image: Array, u: float, v: float) -> Array:
    """The formula of the paper, over all pixels."""
    p, q = (np.arange(n) for n in image.shape[1:])
    return image @ np.maximum(0, 1 - np.abs(v - q)) @ np.maximum(0, 1 - np.abs(u - p))


def reference(x: Array, angle: Array, factor: Array, down: Array, right: Array) -> Array:
    y = np.zeros_like(x)
    middle = (np.array(x.shape[2:]) - 1) / 2
    for b in range(len(x)):
        turn = np.array([[np.cos(angle[b]), np.sin(angle[b])], [-np.sin(angle[b]), np.cos(angle[b])]])
        for i, j in np.ndindex(x.shape[2:]):
            u, v = turn @ (np.array([i, j]) - middle - [down[b], right[b]]) / factor[b] + middle
            y[b, :, i, j] = pixel(x[b], u, v)
    return y


MOTIONS: list[dict[str, list[float]]] = [
    {"down": [1, -2], "right": [0, 3]}, {"down": [0.25, -1.5], "right": [2.75, 0]}, {"angle": [0.3, -2]},
    {"factor": [2, 0.5]}, {"angle": [0.4, 3], "factor": [1.3, 0.7], "down": [0.6, 0.1], "right": [-0.2, 1.9]},
]  # fmt: skip


@pytest.mark.parametrize("motion", MOTIONS, ids=lambda m: "+".join(m))
def test_every_pixel_is_the_formula(warp: Any, motion: dict[str, list[float]]) -> None:
    moved = {**STILL, **{k: np.array(v, float) for k, v in motion.items()}}
    np.testing.assert_allclose(warp(X, **moved), reference(X, **moved), atol=1e-12)


def test_whole_pixels_and_quarter_turns_are_exact(warp: Any) -> None:
    np.testing.assert_array_equal(warp(X, **STILL), X)
    y = warp(X, **{**STILL, "down": np.array([1.0, 1]), "right": np.array([-2.0, -2])})
    np.testing.assert_array_equal(y[:, :, 1:, :-2], X[:, :, :-1, 2:])
    assert not y[:, :, 0].any() and not y[:, :, :, -2:].any()
    square = X[..., :5]
    np.testing.assert_allclose(
        warp(square, **{**STILL, "angle": np.full(2, np.pi / 2)}), np.rot90(square, axes=(2, 3)), atol=1e-12
    )


def test_the_parts_are_the_whole(warp: Any) -> None:
    for call, part in (
        ("shift(x, 1.5, -0.5)", {"down": [1.5, 1.5], "right": [-0.5, -0.5]}),
        ("rotate(x, 0.3)", {"angle": [0.3, 0.3]}),
        ("scale(x, 1.5)", {"factor": [1.5, 1.5]}),
    ):
        f = nnc.function(f"fn f(x: f32[B, C, H, W]) -> f32[B, C, H, W] = {call}", dtype="f64")
        np.testing.assert_allclose(f(X), warp(X, **{**STILL, **{k: np.array(v) for k, v in part.items()}}), atol=1e-12)


def test_nothing_one_pixel_and_what_is_not_a_number(warp: Any) -> None:
    none = {k: v[:0] for k, v in STILL.items()}
    assert warp(X[:0], **none).shape == (0, 3, 5, 6) and warp(X[:, :, :, :0], **STILL).shape == (2, 3, 5, 0)
    np.testing.assert_array_equal(warp(X[:, :, :1, :1], **STILL), X[:, :, :1, :1])
    assert np.isnan(warp(X, **{**STILL, "angle": np.array([np.nan, 0])})[0]).all()
    for far in (np.inf, -np.inf, 1e30):
        assert not warp(X, **{**STILL, "down": np.full(2, far)}).any()


def test_derivatives_are_those_of_finite_differences() -> None:
    outputs = ", ".join(f"d_{p}: f32[B]" for p in PARTS)
    lines = "\n".join(f"d_{p} = grad(y, {p})" for p in PARTS)
    net = nnc.compile(
        f"""export f(x: f32[B, C, H, W], {NUMBERS}, w: f32[B, C, H, W]) -> (
        y: f32, d_x: f32[B, C, H, W], {outputs}) {{
        y = sum(w * warp(x, angle, factor, down, right)^2)
        d_x = grad(y, x)
        {lines}
    }}""",
        dtype="f64",
    )
    moved = {
        "angle": np.array([0.4, 3]),
        "factor": np.array([1.3, 0.7]),
        "down": np.array([0.6, 0.1]),
        "right": np.array([-0.2, 1.9]),
    }
    arguments = {"x": X, **moved, "w": RNG.random(X.shape)}
    found = net.f(**arguments)
    for name in ("x", *PARTS):
        for k in range(0, arguments[name].size, 7 if name == "x" else 1):
            ends = []
            for step in (1e-6, -1e-6):
                a = {n: v.copy() for n, v in arguments.items()}
                a[name].reshape(-1)[k] += step
                ends.append(net.f(**a).y)
            numeric = (ends[0] - ends[1]) / 2e-6
            np.testing.assert_allclose(getattr(found, f"d_{name}").reshape(-1)[k], numeric, rtol=1e-6, atol=1e-7)


def test_a_spatial_transformer_of_torch_agrees() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    f = nnc.function("fn f(x: f32[B, C, H, W], m: f32[B, 2, 3]) -> f32[B, C, H, W] = affine(x, m)", dtype="f64")
    x, m = RNG.random((2, 3, 7, 7)), RNG.normal(size=(2, 2, 3)) + np.eye(2, 3)
    theta = m[:, ::-1, [1, 0, 2]] * [1, 1, 2 / 7]  # it counts x before y, and half an image is 1
    grid = torch.nn.functional.affine_grid(torch.tensor(theta.copy()), list(x.shape), align_corners=False)
    want = torch.nn.functional.grid_sample(torch.tensor(x), grid, align_corners=False)
    np.testing.assert_allclose(f(x, m), want.numpy(), atol=1e-12)


# --- augmentation -----------------------------------------------------------------------------------------------------


IMAGES = RNG.random((40, 2, 6, 7), dtype=np.float32)


def seen(change: str, seed: int = 0, threads: int = 1, steps: int = 0) -> Array:
    """What training sees of IMAGES after so many steps: the gradient of sum(w * y) with respect to w is y."""
    net = nnc.compile(
        f"""
    model Seen(x: f32[B, 2, 6, 7], w: f32[B, 2, 6, 7]) -> (y: f32) {{
        weight a: f32 = 1
        y = a * sum(w * (x |> {change}))
    }}
    train Seen(x, w) {{
        loss      = y
        optimizer = SGD(lr = 0.0)
    }}
    """,
        seed=seed,
        threads=threads,
    )
    np.testing.assert_allclose(net.predict(IMAGES, IMAGES), np.sum(IMAGES**2), rtol=1e-5)  # inference sees x itself
    for _ in range(steps):
        net.train_step(IMAGES, IMAGES)
    return net.gradients(IMAGES, np.zeros_like(IMAGES), wrt="w")["w"]


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    y = seen("random_flip")
    mirrored = np.array([np.array_equal(a, b[..., ::-1]) for a, b in zip(y, IMAGES, strict=True)])
    np.testing.assert_array_equal(y[~mirrored], IMAGES[~mirrored])
    assert 10 <= mirrored.sum() <= 30
    np.testing.assert_array_equal(seen("random_flip(p = 1.0)"), IMAGES[..., ::-1])


def test_a_crop_is_a_window_of_the_padded_image_and_every_window_occurs() -> None:
    padded = np.pad(IMAGES, [(0, 0), (0, 0), (1, 1), (1, 1)])
    found = []
    for image, around in zip(seen("random_crop(1)"), padded, strict=True):
        windows = [around[:, i : i + 6, j : j + 7] for i in range(3) for j in range(3)]
        (k,) = [k for k, w in enumerate(windows) if np.array_equal(image, w)]
        found.append(k)
    assert len(set(found)) == 9
    np.testing.assert_array_equal(seen("random_crop(0)"), IMAGES)


def test_a_random_warp_stays_within_what_was_asked() -> None:
    np.testing.assert_allclose(seen("random_warp"), IMAGES, atol=1e-6)
    y = seen("random_warp(pixels = 0.5)")
    assert np.all(np.abs(y - IMAGES).max((1, 2, 3)) > 0)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(IMAGES, [(0, 0), (0, 0), (1, 1), (1, 1)]), (3, 3), (2, 3))
    assert np.all(y >= around.min((4, 5)) - 1e-6) and np.all(y <= around.max((4, 5)) + 1e-6)


@pytest.mark.parametrize("change", ["random_flip", "random_crop(2)", "random_warp(0.3, 1.2, 1.0)"])
def test_draws_are_those_of_seed_and_step_alone(change: str) -> None:
    y = seen(change)
    np.testing.assert_array_equal(seen(change), y)
    np.testing.assert_array_equal(seen(change, threads=2), y)
    assert not np.array_equal(seen(change, seed=1), y) and not np.array_equal(seen(change, steps=1), y)

"""Interpolation along axes, regions of images, and what is refused of them."""

from __future__ import annotations

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import SourceError

X = np.random.default_rng(0).standard_normal((2, 3, 7, 6))


def run(signature: str, body: str, *arrays: np.ndarray) -> np.ndarray:
    return nnc.function(f"fn f({signature}) -> f32[*out] = {body}", dtype="f64")(*arrays)


def test_places_between_elements_and_beyond_them() -> None:
    y = run("x: f32[4]", "interpolate(x, [-1.0, 0.25, 2.5, 9.0])", np.array([1.0, 3.0, 2.0, 6.0]))
    np.testing.assert_allclose(y, [1, 1.5, 4, 6])


@pytest.mark.parametrize(
    ("ties", "taken"), [("down", [0, 1, 1]), ("up", [1, 2, 1]), ("floor", [0, 1, 1]), ("ceil", [1, 2, 2])]
)
def test_the_nearest_element(ties: str, taken: list[int]) -> None:
    y = run("x: f32[4]", f'nearest(x, [0.5, 1.5, 1.25], ties = "{ties}")', np.arange(4.0))
    np.testing.assert_array_equal(y, taken)


def test_a_widened_kernel_is_the_mean_of_what_is_left_out() -> None:
    y = run("x: f32[B, 8]", "interpolate(x, centres(2, 0.25), reach = 4, shrink = 0.25)", np.arange(16.0).reshape(2, 8))
    weights = np.maximum(1 - np.abs(np.arange(8) - np.array([[1.5], [5.5]])) / 4, 0)
    inside = weights / weights.sum(1, keepdims=True)
    beyond = run("x: f32[B, 8]", "interpolate(x, centres(2, 0.25), reach = 4, shrink = 0.25, inside = true)",
                 np.arange(16.0).reshape(2, 8))  # fmt: skip
    np.testing.assert_allclose(beyond, np.arange(16.0).reshape(2, 8) @ inside.T)
    assert y[0, 0] < beyond[0, 0]  # what the first element goes on with counts


def test_a_size_that_only_run_time_knows() -> None:
    y = run("x: f32[B, C, H, W]", "resize(x, [2 * H, W // 2])", X)
    fixed = run("x: f32[2, 3, 7, 6]", "resize(x, [14, 3])", X)
    np.testing.assert_array_equal(y, fixed)


@pytest.mark.parametrize("aligned", [True, False])
def test_regions_of_images(aligned: bool) -> None:
    regions = np.array([[1.0, 2.0, 9.0, 11.0], [-6.0, 0.5, 3.0, 3.0], [4.0, 4.0, 4.5, 4.5]])
    image = np.array([1, 0, 1], np.int32)
    y = run("x: f32[B, 3, 7, 6], r: f32[N, 4], i: i32[N]",
            f"roi_align(x, r, i, [2, 3], 2, 0.5, aligned = {str(aligned).lower()})", X, regions, image)  # fmt: skip
    for n, (left, top, right, bottom) in enumerate(regions * 0.5 - (0.5 if aligned else 0)):
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        rows = top + (np.arange(4) + 0.5) * height / 4
        columns = left + (np.arange(6) + 0.5) * width / 6
        read = np.array([[_pixel(X[image[n]], u, v) for v in columns] for u in rows])
        np.testing.assert_allclose(y[n], read.reshape(2, 2, 3, 2, 3).mean((1, 3)).transpose(2, 0, 1), atol=1e-12)


def _pixel(image: np.ndarray, u: float, v: float) -> np.ndarray:
    _, h, w = image.shape
    if not (-1 <= u <= h and -1 <= v <= w):
        return np.zeros(3)
    u, v = np.clip(u, 0, h - 1), np.clip(v, 0, w - 1)
    return image @ np.maximum(0, 1 - np.abs(v - np.arange(w))) @ np.maximum(0, 1 - np.abs(u - np.arange(h)))


@pytest.mark.parametrize(("body", "message"), [
    ('resize(x, [3, 3], by = "area")', "linear"),
    ("resize(x, [1, 2, 3, 4, 5])", "5 sizes for 4 axes"),
    ('nearest(x, [0.5], ties = "even")', "rounded by"),
    ('grid_sample(x, broadcast(0.0, [2, 1, 1, 3]))', "not of 3 numbers"),
    ('grid_sample(x, broadcast(0.0, [2, 1, 1, 2]), outside = "ones")', "border"),
    ("affine_grid(x[:, 0, 0:2, 0:2], [2, 2])", "a map of 2 axes is [2, 3]"),
])  # fmt: skip
def test_what_is_no_way_to_resize_is_refused(body: str, message: str) -> None:
    with pytest.raises(SourceError) as e:
        run("x: f32[2, 3, 7, 6]", body, X)
    assert message in str(e.value)

"""The published ResNet-20 for CIFAR-10 in our model: its logits and its accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.runtime.formats import cifar10

ROOT = Path(nnc.__file__).parent
DATA = ROOT.parent / "shared" / "data"
WEIGHTS = DATA / "resnet20_cifar10"
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}


def names() -> Iterator[tuple[str, str]]:
    """The name of each array in the published file, and of ours."""
    layers = [("", "", 1), *((f"layer{s + 1}.{k}.", f"block_{3 * s + k + 1}.", 2) for s in range(3) for k in range(3))]
    for theirs, ours, convolutions in layers:
        for n in range(1, convolutions + 1):
            yield f"{theirs}conv{n}.weight", f"ResNet20.{ours}conv_{n}.W"
            for a, b in NORM.items():
                yield f"{theirs}bn{n}.{a}", f"ResNet20.{ours}batchnorm_{n}.{b}"
    yield "linear.weight", "ResNet20.dense_1.W"
    yield "linear.bias", "ResNet20.dense_1.b"


needs_data = pytest.mark.skipif(
    not (WEIGHTS.is_dir() and (DATA / "cifar10").is_dir()),
    reason="the published weights or CIFAR-10 are not at ../shared/data/resnet20_cifar10 and ../shared/data/cifar10",
)
PARTS = 5  # the images are judged in parts, so that no test is long


@pytest.fixture(scope="module")
def net() -> nnc.Model:
    """Our model with the published weights, every one of them and nothing else."""
    net = nnc.compile(ROOT / "models" / "resnet20.nn")
    (weights,) = WEIGHTS.glob("*.npz")
    unused = {*net.params, *net.state}
    with np.load(weights) as published:
        assert {theirs for theirs, _ in names()} == set(published)
        for theirs, ours in names():
            unused.remove(ours)
            (net.params if ours in net.params else net.state)[ours] = published[theirs]
    assert not unused
    return net


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    return cifar10(DATA / "cifar10")[1]


def stored() -> np.ndarray:
    (path,) = WEIGHTS.glob("*logits*.npy")
    return np.load(path)


@needs_data
@pytest.mark.parametrize("part", range(PARTS))
def test_published_weights_give_the_published_logits(net: nnc.Model, images: dict[str, np.ndarray], part: int) -> None:
    x, want = np.split(images["x"], PARTS)[part], np.split(stored(), PARTS)[part]
    mean, deviation = (np.array(v, np.float32)[:, None, None] for v in (MEAN, DEVIATION))
    logits = net.predict((x - mean) / deviation)
    np.testing.assert_allclose(logits, want, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(logits.argmax(1), want.argmax(1))


@needs_data
def test_those_answers_are_right_for_915_of_1000_images(images: dict[str, np.ndarray]) -> None:
    """Ours are equal to the stored ones, as the other test holds."""
    assert np.sum(stored().argmax(1) == images["label"]) == 915 and len(images["label"]) == 1000

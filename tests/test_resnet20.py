"""The published ResNet-20 for CIFAR-10 in our model: its logits and its accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.parser import read_source
from nnc.runtime.data import cifar10

ROOT = Path(nnc.__file__).parent
DATA = ROOT.parent / "shared" / "data"
WEIGHTS = DATA / "resnet20_cifar10"
RULES = ROOT / "models" / "data" / "resnet20.rules"
needs_data = pytest.mark.skipif(
    not (WEIGHTS.is_dir() and (DATA / "cifar10").is_dir()),
    reason="the published weights or CIFAR-10 are not at ../shared/data/resnet20_cifar10 and ../shared/data/cifar10",
)
PARTS = 5  # the images are judged in parts, so that no test is long


@pytest.fixture(scope="module")
def net() -> nnc.Model:
    """Our model with the published weights."""
    net = nnc.compile(ROOT / "models" / "resnet20.nn")
    (weights,) = WEIGHTS.glob("*.npz")
    assert len(net.load_weights(weights, RULES).taken) == 97 + 2  # and how images are scaled
    return net


@needs_data
def test_by_position_the_same_arrays_go_to_the_same_places(net: nnc.Model) -> None:
    other = nnc.compile(ROOT / "models" / "resnet20.nn")
    (weights,) = WEIGHTS.glob("*.npz")
    other.load_weights(weights, by_position=True)
    for name, array in {**net.params, **net.state}.items():
        assert array.tobytes() == other.variables[name].tobytes(), name


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    return {n: c[:1000] for n, c in cifar10.read(DATA / "cifar10", None).held_out.items()}


def stored() -> np.ndarray:
    (path,) = WEIGHTS.glob("*logits*.npy")
    return np.load(path)


@needs_data
@pytest.mark.parametrize("part", range(PARTS))
def test_published_weights_give_the_published_logits(net: nnc.Model, images: dict[str, np.ndarray], part: int) -> None:
    x, want = np.split(images["x"], PARTS)[part], np.split(stored(), PARTS)[part]
    logits = net.predict(x)
    np.testing.assert_allclose(logits, want, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(logits.argmax(1), want.argmax(1))


def test_nine_blocks_a_stage_are_resnet_56() -> None:
    session = Session(read_source(ROOT / "models" / "resnet20.nn"), Settings(hyper={"blocks": 9}))
    outline = session.program.outline("ResNet20")
    assert outline[0].parameters == 853_018
    assert sum(row.kind == "Conv" for row in outline) == 55  # and a dense layer


@needs_data
def test_those_answers_are_right_for_915_of_1000_images(images: dict[str, np.ndarray]) -> None:
    """Ours are equal to the stored ones, as the other test holds."""
    assert np.sum(stored().argmax(1) == images["label"]) == 915 and len(images["label"]) == 1000

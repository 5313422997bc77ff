"""Looking into trained networks, on the digits that ship with nnc and on MNIST where it is at hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import NncError
from nnc.runtime import look
from nnc.runtime.look.surface import directions

ROOT = Path(nnc.__file__).parent
MNIST = ROOT.parent / "shared" / "data" / "mnist"
Array = np.ndarray

CONVOLUTIONAL = """
fn saliency(x) = x            # names of the library, taken by the user
fn cross_entropy(x) = x
model Net(x: f32[B, 1, 8, 8]) -> (logits: f32[B, 10], code: f32[B, 32]) {
    h = x |> c1: Conv(8, kernel = 3, pad = 1, init = he_normal) |> relu |> max_pool(2)
    code = h |> flatten |> Dense(32) |> relu
    logits = code |> Dense(10)
}
train Net(x, label: i32[B]) {
    loss      = mean(logsumexp(logits) - take(logits, label))
    metric accuracy = mean(argmax(logits) == label)
    optimizer = Adam(lr = 3e-3)
    data      = digits()
    normalize = standard_all
    batch     = 64
    epochs    = 4
}
"""


def held_out(net: nnc.Model) -> tuple[Array, Array]:
    x, label = net.load_dataset().for_evaluation(net.train_spec.inputs, net.entry("evaluate").wants)
    return x, label


@pytest.fixture(scope="module")
def digits() -> nnc.Model:
    net = nnc.compile(ROOT / "models" / "digits_mlp.nn")
    net.fit()
    return net


@pytest.fixture(scope="module")
def images() -> nnc.Model:
    net = nnc.compile(CONVOLUTIONAL)
    net.fit()
    assert net.evaluate()["accuracy"] > 0.9
    return net


def accuracy(net: nnc.Model, x: Array, label: Array) -> float:
    scores = net.predict(x)
    return float(np.mean((scores[0] if isinstance(scores, tuple) else scores).argmax(1) == label))


# --- inside -----------------------------------------------------------------------------------------------------------


def test_layers_have_names_types_filters_and_values(images: nnc.Model) -> None:
    assert {p: str(t) for p, t in look.inner_types(images).items()} == {
        "Net.c1": "f32[B, 8, 8, 8]",
        "Net.dense_1": "f32[B, 32]",
        "Net.dense_2": "f32[B, 10]",
    }
    np.testing.assert_array_equal(look.filters(images, "c1"), images.params["Net.c1.W"])
    x = held_out(images)[0][:3]
    np.testing.assert_allclose(look.activations(images, x, "c1"), images.taps(x)["Net.c1"], rtol=1e-6)
    np.testing.assert_allclose(look.activations(images, x, "Net.dense_2"), images.predict(x).logits, rtol=1e-6)


def test_saliency_is_the_gradient_of_cross_entropy_whatever_the_user_calls_things(images: nnc.Model) -> None:
    x, label = (a[:4] for a in held_out(images))
    np.testing.assert_allclose(
        look.saliency(images, x, label), 4 * np.abs(images.gradients(x, label, wrt="x")["x"]), rtol=1e-3, atol=1e-6
    )


def test_a_model_that_prepares_images_for_an_imported_one_shows_what_is_inside_that(tmp_path: Path) -> None:
    (tmp_path / "net.nn").write_text(
        "model Net(x: f32[B, 1, 8, 8]) -> (y: f32[B, 2]) {\n    y = x |> c1: Conv(2, 3) |> flatten |> Dense(2)\n}\n"
    )
    (tmp_path / "seen.nn").write_text(
        'import "net.nn"\nmodel Seen(picture: f32[B, 1, 8, 8]) -> (y: f32[B, 2]) {\n    y = Net(2 * picture - 1)\n}\n'
    )
    net = nnc.compile(tmp_path / "seen.nn", seed=3)
    plain = nnc.compile(tmp_path / "net.nn", seed=3)
    x = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    np.testing.assert_allclose(look.activations(net, x, "Net.c1"), plain.taps(2 * x - 1)["Net.c1"], atol=1e-5)
    found = look.dream(net, "Net.c1", 1, x=x[:1], steps=3)
    assert np.all(np.diff(found.objective) > 0)


# --- ascent -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layer", "unit"), [(None, 3), ("c1", 2), ("c1", None), ("dense_1", 5)])
def test_the_objective_rises_strictly_over_ten_steps(images: nnc.Model, layer: str | None, unit: int | None) -> None:
    begin = held_out(images)[0][:1]
    found = look.dream(images, layer, unit, x=begin, steps=10, rate=0.005)
    assert np.all(np.diff(found.objective) > 0) and len(found.objective) == 11
    assert found.x.shape == (1, 1, 8, 8)


def test_a_dream_of_a_digit_is_read_as_that_digit(digits: nnc.Model) -> None:
    for unit in (0, 3, 8):
        found = look.dream(digits, unit=unit, low=0.0, high=1.0, steps=40)
        assert digits.predict(found.x).argmax() == unit and found.x.min() >= 0 and found.x.max() <= 1
    again = look.dream(digits, unit=8, low=0.0, high=1.0, steps=40)
    np.testing.assert_array_equal(again.x, found.x)
    assert not np.array_equal(look.dream(digits, unit=8, low=0.0, high=1.0, steps=40, seed=1).x, found.x)


def test_a_jittered_dream_still_rises(images: nnc.Model) -> None:
    found = look.dream(images, "c1", 1, steps=20, jitter=1)
    assert found.objective[-1] > found.objective[0]


def test_a_prior_makes_dreams_smooth_and_they_are_still_read(images: nnc.Model) -> None:
    """Less total variation at the end, and the class is seen however the image is held."""
    variation = {}
    for smooth in (0.0, 0.5):
        found = look.dream(images, unit=3, low=0.0, high=1.0, steps=60, rate=0.03, smooth=smooth, views=4)
        assert images.predict(found.x).logits.argmax() == 3
        variation[smooth] = np.abs(np.diff(found.x, axis=2)).sum() + np.abs(np.diff(found.x, axis=3)).sum()
    assert variation[0.5] < 0.9 * variation[0.0]
    flat = look.dream(images, "c1", None, x=held_out(images)[0][:1], steps=40, rate=0.02, smooth=100.0)
    assert np.abs(np.diff(flat.x, axis=3)).sum() < 0.5 * np.abs(np.diff(held_out(images)[0][:1], axis=3)).sum()


def test_a_dream_of_vectors_is_one_of_square_images(digits: nnc.Model) -> None:
    found = look.dream(digits, unit=0, low=0.0, high=1.0, steps=40, rate=0.03, smooth=0.2, views=4)
    assert found.x.shape == (1, 64) and digits.predict(found.x).argmax() == 0
    oblong = nnc.compile("model O(x: f32[B, 6]) -> f32[B, 2] { return x |> Dense(2) }")
    with pytest.raises(NncError, match=r"images are needed, but `x` is f32\[B, 6\]"):
        look.dream(oblong, unit=0, smooth=0.5)


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_fast_gradient_sign_deceives_and_projected_descent_more(digits: nnc.Model) -> None:
    x, label = held_out(digits)
    assert accuracy(digits, x, label) > 0.97
    one = look.fgsm(digits, x, label, 0.15)
    many = look.pgd(digits, x, label, 0.15, steps=5)
    assert accuracy(digits, many, label) < accuracy(digits, one, label) < 0.5
    for y in (one, many):
        assert np.abs(y - x).max() <= 0.15 + 1e-6 and y.min() >= 0 and y.max() <= 1
    np.testing.assert_array_equal(look.fgsm(digits, x, label, 0.0), x)


def test_a_guided_pixel_deceives_more_often_than_random_ones(digits: nnc.Model) -> None:
    x, label = held_out(digits)
    x, label = (a[digits.predict(x).argmax(1) == label] for a in (x, label))
    guided, chance = (f(digits, x, label, tries=5) for f in (look.guided_pixel, look.random_pixel))
    assert guided.flipped.sum() > 2 * chance.flipped.sum() > 0
    for found in (guided, chance):
        np.testing.assert_array_equal(digits.predict(found.x).argmax(1) != label, found.flipped)
        assert np.all((found.x != x).sum(1) <= 1)


def test_a_pixel_of_an_image_is_all_its_channels() -> None:
    net = nnc.compile("model Net(x: f32[B, 3, 4, 5]) -> f32[B, 2] { return x |> flatten |> Dense(2) }", seed=1)
    x = np.random.default_rng(0).random((6, 3, 4, 5), dtype=np.float32)
    label = net.predict(x).argmax(1).astype(np.int32)
    w = net.params["Net.dense_1.W"]
    found = look.guided_pixel(net, x, label, tries=1)
    for k in range(6):  # the scores are linear, so the best pixel is the best one
        raises = (w[1 - label[k]] - w[label[k]]).reshape(3, 20)
        gain = np.maximum(raises * (1 - x[k].reshape(3, 20)), -raises * x[k].reshape(3, 20)).sum(0)
        (changed,) = np.flatnonzero(np.any(found.x[k] != x[k], axis=0))
        assert changed == gain.argmax()


def test_differential_evolution_finds_a_pixel_without_gradients(digits: nnc.Model) -> None:
    pytest.importorskip("scipy", reason="SciPy is not installed")
    x, label = held_out(digits)
    x, label = (a[digits.predict(x).argmax(1) == label] for a in (x, label))
    easy = np.flatnonzero(look.guided_pixel(digits, x, label, tries=64).flipped)[:2]
    found = look.searched_pixel(digits, x[easy], label[easy], population=60, generations=40)
    assert found.flipped.all()
    assert np.all((found.x != x[easy]).sum(1) == 1) and found.x.min() >= 0 and found.x.max() <= 1
    np.testing.assert_array_equal(digits.predict(found.x).argmax(1) != label[easy], True)


def test_an_input_may_have_any_name() -> None:
    for name in ("rate", "label", "unit", "scores", "eps"):
        net = nnc.compile(f"model N({name}: f32[B, 4]) -> f32[B, 2] {{ return {name} |> d: Dense(2) }}", seed=1)
        x, label = np.ones((2, 4), np.float32), np.zeros(2, np.int32)
        w = net.params["N.d.W"]
        np.testing.assert_allclose(look.fgsm(net, x, label, 0.5), np.clip(x + 0.5 * np.sign(w[1] - w[0]), 0, 1))
        assert look.dream(net, "d", 1, steps=1).objective[1] > look.dream(net, "d", 1, steps=0).objective[0]


# --- around the parameters, and the rate ------------------------------------------------------------------------------


def test_directions_are_as_long_as_the_filters(images: nnc.Model) -> None:
    first, second = directions(images, seed=3)
    assert set(first) == {"Net.c1.W", "Net.dense_1.W", "Net.dense_2.W"}
    for path in first:
        length = np.linalg.norm(images.params[path].reshape(len(first[path]), -1), axis=1)
        for d in (first[path], second[path]):
            np.testing.assert_allclose(np.linalg.norm(d.reshape(len(d), -1), axis=1), length, rtol=1e-6)
        assert not np.allclose(first[path], second[path])


def test_a_surface_has_the_trained_loss_in_its_middle_and_leaves_the_model_alone(digits: nnc.Model) -> None:
    before = {p: a for p, a in digits.params.items()}
    found = look.surface(digits, points=5, span=2.0, seed=1)
    np.testing.assert_allclose(found.at, [-2, -1, 0, 1, 2])
    np.testing.assert_allclose(found.loss[2, 2], digits.evaluate()["loss"], rtol=1e-6)
    assert found.loss[2, 2] == found.loss.min() and found.loss[[0, 0, 4, 4], [0, 4, 0, 4]].min() > 2 * found.loss[2, 2]
    for path, value in before.items():
        np.testing.assert_array_equal(digits.params[path], value)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_the_surface_of_a_residual_network_and_of_a_plain_one(shortcuts: bool) -> None:
    """ResNet-56, new: the same parameters, with shortcuts and without."""
    net = nnc.compile(ROOT / "models" / "resnet20.nn", hyper={"blocks": 9, "shortcuts": shortcuts})
    assert sum(p.size for p in net.params.values()) == 853_018
    random = np.random.default_rng(0)
    x, label = random.normal(size=(8, 3, 32, 32)).astype(np.float32), np.arange(8, dtype=np.int32)
    found = look.surface(net, x, label, points=3, span=0.5)
    np.testing.assert_allclose(found.loss[1, 1], net.evaluate(x, label)["loss"], rtol=1e-6)
    assert np.all(np.isfinite(found.loss)) and len(np.unique(found.loss)) == 9


def test_a_range_test_finds_where_learning_begins_and_where_it_ends() -> None:
    net = nnc.compile(CONVOLUTIONAL)
    before = dict(net.params)
    found = look.range_test(net, low=1e-7, high=10.0, steps=60)
    rate, loss = found.rate, found.loss
    np.testing.assert_allclose(rate[:2], [1e-7, 1e-7 * 1e8 ** (1 / 59)])
    start = loss[rate < 1e-6].mean()
    assert abs(loss[rate < 1e-5].mean() - start) < 0.2 * start  # too small to learn
    assert loss.min() < 0.5 * start and 1e-4 < rate[loss.argmin()] < 1
    assert loss[-1] > 2 * loss.min()  # too large
    for path, value in before.items():
        np.testing.assert_array_equal(net.params[path], value)


def test_a_rate_is_for_a_step_of_the_optimiser_however_many_batches_it_takes() -> None:
    """Plain descent on w^2 / 2 with two batches a step: w is multiplied by 1 - rate."""
    net = nnc.compile("""
    model Bowl(x: f32[B, 1]) -> (y: f32[B]) {
        weight w: f32 = 1.0
        y = sum(x, axis = 1) * 0 + w
    }
    train Bowl(x) {
        loss       = mean(y^2) / 2
        optimizer  = SGD(lr = 0.3)
        accumulate = 2
        batch      = 4
    }
    """)
    found = look.range_test(net, np.ones((16, 1), np.float32), low=0.01, high=0.64, steps=4)
    np.testing.assert_allclose(found.rate, [0.01, 0.04, 0.16, 0.64], rtol=1e-12)
    w = np.cumprod([1, 0.99, 0.96, 0.84])
    np.testing.assert_allclose(found.loss, w**2 / 2, rtol=1e-5)


def test_with_a_target_images_become_that_class(digits: nnc.Model) -> None:
    x, label = held_out(digits)
    x, label = x[label != 3][:100], label[label != 3][:100]
    for y in (look.pgd(digits, x, label, 0.3, target=3), look.pgd_held(digits, x, label, 0.3, target=3, steps=20)):
        assert np.mean(digits.predict(y).argmax(1) == 3) > 0.8
        assert np.abs(y - x).max() <= 0.3 + 1e-6 and y.min() >= 0 and y.max() <= 1
    once = look.fgsm(digits, x, label, 0.1, target=3)
    np.testing.assert_allclose(
        once, np.clip(2 * x - look.fgsm(digits, x, 0 * label + 3, 0.1, low=-9, high=9), 0, 1), atol=1e-6
    )


def test_what_is_found_over_motions_deceives_in_motion(images: nnc.Model) -> None:
    """More often than what was found for one pose, on views that neither has seen."""
    x, label = held_out(images)
    still, moving = (f(images, x, label, 0.15, steps=20) for f in (look.pgd, look.pgd_held))
    program = nnc.runtime.look.inside.probe(
        nnc.runtime.look.subject(images),
        "export turned(x: f32[B, 1, 8, 8], key: i32) -> f32[B, 1, 8, 8] = held(x, 0.2, 1.15, 0.6, 0.6, key)",
    )
    right = [np.mean([accuracy(images, program.turned(y, -k), label) for k in range(1, 6)]) for y in (x, still, moving)]
    assert right[0] > 0.7 and right[2] < right[1] < right[0]


def test_a_patch_deceives_on_images_and_in_places_it_has_not_seen(images: nnc.Model) -> None:
    data = images.load_dataset()
    x, label = data.for_training(images.train_spec.inputs, images.entry("train").wants)
    unseen, true = held_out(images)
    found = look.patch(images, x, label, target=3, side=5, steps=150)
    assert found.pixels.shape == (1, 5, 5) and found.pixels.min() >= 0 and found.pixels.max() <= 1
    assert found.loss[-20:].mean() < 0.5 * found.loss[0]
    chance = np.random.default_rng(0).random(found.pixels.shape, dtype=np.float32)
    share = {
        k: np.mean(images.predict(look.stick(images, unseen, p)).logits.argmax(1)[true != 3] == 3)
        for k, p in (("patch", found.pixels), ("chance", chance))
    }
    assert share["patch"] > 0.6 and share["patch"] > 3 * share["chance"]
    cloak = look.patch(images, x, label, side=4, steps=60)  # whatever it is read as, if only not as what it is
    plain = look.stick(images, unseen, chance[:, :4, :4])
    assert accuracy(images, look.stick(images, unseen, cloak.pixels), true) < accuracy(images, plain, true) - 0.1


def test_what_a_patch_covers_is_not_seen(images: nnc.Model) -> None:
    """Without motion it lies in the middle, as it is; around it nothing changes."""
    program = nnc.runtime.look.inside.probe(
        nnc.runtime.look.subject(images),
        "export on(x: f32[B, 2, 9, 8], patch: f32[2, 3, 4]) -> f32[B, 2, 9, 8] = stick(x, patch, 0, 1, 0, 0, 1)",
    )
    random = np.random.default_rng(0)
    x, patch = random.random((3, 2, 9, 8), dtype=np.float32), random.random((2, 3, 4), dtype=np.float32)
    want = x.copy()
    want[:, :, 3:6, 2:6] = patch
    np.testing.assert_allclose(program.on(x, patch), want, atol=1e-6)


# --- what is refused --------------------------------------------------------------------------------------------------

X, LABEL = np.zeros((2, 64), np.float32), np.zeros(2, np.int32)
WRONG: list[tuple[str, Any, str]] = [
    ("no layer is named `dens_1`", lambda n: look.activations(n, X, "dens_1"), "E0608"),
    ("the unit of Mlp.dense_1 must be between 0 and 255, got 256", lambda n: look.dream(n, "dense_1", 256), "E0603"),
    ("wants f32[B, 64]", lambda n: look.saliency(n, X[:, :63], LABEL), "E0601"),
    ("label must be one class for each of 2 examples", lambda n: look.fgsm(n, X, LABEL[:1], 0.1), "E0601"),
    ("label must be from 0 to 9, got 10 to 10", lambda n: look.pgd(n, X, LABEL + 10, 0.1), "E0603"),
    ("label must be whole numbers", lambda n: look.guided_pixel(n, X, X[:, 0]), "E0602"),
    ("eps must be at least 0, got -0.1", lambda n: look.fgsm(n, X, LABEL, -0.1), "E0603"),
    ("eps must be finite, got nan", lambda n: look.pgd(n, X, LABEL, np.nan), "E0603"),
    ("low must be less than high", lambda n: look.random_pixel(n, X, LABEL, low=1.0), "E0603"),
    ("tries must be at least 1", lambda n: look.random_pixel(n, X, LABEL, tries=0), "E0603"),
    ("rate must be above 0", lambda n: look.dream(n, rate=0.0), "E0603"),
    ("steps must be at least 0", lambda n: look.dream(n, steps=-1), "E0603"),
    ("span must be above 0", lambda n: look.surface(n, span=0.0), "E0603"),
    ("points must be at least 1", lambda n: look.surface(n, points=0), "E0603"),
    ("the unit of scores must be between 0 and 9, got 10", lambda n: look.fgsm(n, X, LABEL, 0.1, target=10), "E0603"),
    ("the side of a patch must be between 1 and 8, got 9", lambda n: look.patch(n, X, LABEL, side=9), "E0603"),
    ("steps must be at least 1, got 0", lambda n: look.patch(n, X, LABEL, steps=0), "E0603"),
    ("smooth must be at least 0, got -1", lambda n: look.dream(n, smooth=-1.0), "E0603"),
    ("views must be at least 1, got 0", lambda n: look.dream(n, views=0), "E0603"),
    ("rate must be finite, got inf", lambda n: look.dream(n, rate=np.inf), "E0603"),
    ("rate must be a number, got str", lambda n: look.dream(n, rate="fast"), "E0602"),
    ("the unit of Mlp.dense_1 must be an int, got float", lambda n: look.dream(n, "dense_1", 1.5), "E0602"),
    ("the rates must grow", lambda n: look.range_test(n, low=1.0, high=0.1), "E0603"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "call", "code"), WRONG, ids=[w[0] for w in WRONG])
def test_what_does_not_fit_is_named(digits: nnc.Model, message: str, call: Any, code: str) -> None:
    with pytest.raises(NncError) as e:
        call(digits)
    assert message in e.value.diagnostics[0].message and e.value.code == code


def test_a_layer_without_filters_a_model_of_two_inputs_and_no_model() -> None:
    pooled = nnc.compile("model P(x: f32[B, 1, 4, 4]) -> f32[B, 4] { return x |> p: max_pool(2) |> flatten }")
    with pytest.raises(NncError, match=r"P\.p has no filters"):
        look.filters(pooled, "p")
    with pytest.raises(NncError, match="a score for each class is needed"):
        look.saliency(nnc.compile("model S(x: f32[B, 4]) -> f32[B] { return sum(x, axis = 1) }"), X[:, :4], LABEL)
    two = nnc.compile("model T(x: f32[B, 2], y: f32[B, 2]) -> f32[B, 2] { return x + y }")
    with pytest.raises(NncError, match="only a model with one input"):
        look.saliency(two, X[:, :2], LABEL)
    words = nnc.compile("model W(x: i32[B, T]) -> f32[B, 3] { return mean(x |> Embedding(9, 3), axis = 1) }")
    index = np.array([[1, 8]], np.int32)
    table = look.filters(words, "embedding_1")
    np.testing.assert_array_equal(look.activations(words, index, "embedding_1")[0], table[[1, 8]])
    with pytest.raises(NncError, match="a batch of f32 or f64, can be looked into so; W takes"):
        look.dream(words)
    with pytest.raises(NncError, match="no model to look into"):
        look.inner_types(nnc.compile("export f(x: f32[B]) -> f32[B] = x"))
    free = nnc.compile("model F(x: f32[B, 1, H, W]) -> f32[B, 3] { return x |> c: Conv(3, 2) |> global_avg_pool }")
    with pytest.raises(NncError, match="an image `x` to begin with"):
        look.dream(free, "c", 1)
    assert look.dream(free, "c", 1, x=np.zeros((1, 1, 5, 6), np.float32), steps=2).x.shape == (1, 1, 5, 6)
    untrained = nnc.compile("model U(x: f32[B, 2]) -> f32[B, 2] { return x |> Dense(2) }")
    with pytest.raises(NncError, match="no train block"):
        look.range_test(untrained)


def test_a_missing_package_is_named_with_what_installs_it(digits: nnc.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnc.runtime.look import figure

    for module in ("scipy.optimize", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NncError, match=r"nnc\[search\]"):
        look.searched_pixel(digits, X, LABEL)
    with pytest.raises(NncError, match=r"nnc\[plot\]"):
        figure.tiles(X, Path("never.png"))


# --- MNIST ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not at ../shared/data/mnist")
def test_mnist_falls_from_98_to_below_20_percent() -> None:
    text = (ROOT / "models" / "mnist_mlp.nn").read_text().replace('idx("data/mnist")', f'idx("{MNIST.as_posix()}")')
    net = nnc.compile(text)
    net.fit(epochs=4)
    x, label = held_out(net)
    assert accuracy(net, x, label) > 0.98
    assert accuracy(net, look.fgsm(net, x, label, 0.3), label) < 0.2


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not at ../shared/data/mnist")
def test_a_patch_makes_lenet_read_most_digits_as_threes() -> None:
    """At least 60 % of what is something else, on images and in places that it has not seen."""
    net = nnc.compile(
        (ROOT / "models" / "lenet5.nn").read_text().replace('idx("data/mnist")', f'idx("{MNIST.as_posix()}")')
    )
    net.fit(epochs=1)
    data = net.load_dataset()
    x, label = (np.asarray(c[:2000]) for c in data.for_training(net.train_spec.inputs, net.entry("train").wants))
    found = look.patch(net, x, label, target=3, steps=150)
    unseen, true = (np.asarray(c[:500]) for c in held_out(net))
    assert accuracy(net, unseen, true) > 0.95
    read = net.predict(look.stick(net, unseen, found.pixels)).argmax(1)
    assert np.mean(read[true != 3] == 3) >= 0.6

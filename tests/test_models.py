"""The models that ship: each parses, passes its own tests, and learns what its comment promises."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.dsl.parser import read_source
from nnc.runtime.check.testing import run_file


def f32(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


def i32(x: Any) -> np.ndarray:
    return np.asarray(x, np.int32)


MODELS = Path(nnc.__file__).parent / "models"
MNIST = Path(nnc.__file__).parent.parent / "shared" / "data" / "mnist"
FASHION = MNIST.parent / "fashion-mnist"


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.nn")), ids=lambda p: p.stem)
def test_every_file_keeps_its_own_promises(path: Path) -> None:
    results = list(run_file(read_source(path)))
    assert results and [(r.name, r.failures) for r in results if r.failures] == []


def test_perceptron_learns_and_in_six_epochs() -> None:
    net = nnc.compile(MODELS / "perceptron.nn")
    history = net.fit()
    assert len(history) == 6 and history[-1]["errors"] == 0 and all(row["errors"] > 0 for row in history[:-1])
    np.testing.assert_array_equal(net.params["Perceptron.w"], [2, 1])
    assert net.params["Perceptron.b"] == -2


def test_perceptron_never_learns_exclusive_or() -> None:
    net = nnc.compile(MODELS / "perceptron.nn")
    x = f32([[0, 0], [0, 1], [1, 0], [1, 1]])
    history = net.fit(x, f32([0, 1, 1, 0]), epochs=60)
    assert len(history) == 60 and all(row["errors"] > 0 for row in history)
    assert not history.stopped


def test_adaline_delta_rule_and_gradient_descent_walk_the_same_path() -> None:
    delta, gradient = (nnc.compile(MODELS / "adaline.nn", model=m, dtype="f64") for m in ("Adaline", "Gradient"))
    r = np.random.default_rng(0)
    for _ in range(20):
        x, target = r.standard_normal((1, 2)), np.sign(r.standard_normal(1))
        delta.train_step(x, target)
        gradient.train_step(x, target)
        np.testing.assert_array_equal(delta.params["Adaline.w"], gradient.params["Gradient.w"])
        np.testing.assert_array_equal(delta.params["Adaline.b"], gradient.params["Gradient.b"])


def test_linear_regression_finds_the_least_squares_solution() -> None:
    net = nnc.compile(MODELS / "linear_regression.nn", dtype="f64")
    history = net.fit()
    assert len(history) < 1000  # it stopped because the gradient vanished
    table = np.genfromtxt(MODELS / "data" / "plane.csv", delimiter=",", skip_header=1)
    exact = np.linalg.lstsq(np.column_stack([table[:, :2], np.ones(64)]), table[:, 2], rcond=None)[0]
    np.testing.assert_allclose([*net.params["Line.w"], net.params["Line.b"]], exact, atol=1e-4)


def test_logistic_regression_tells_irises_apart() -> None:
    net = nnc.compile(MODELS / "logistic_regression.nn")
    history = net.fit()
    assert history[-1]["accuracy"] >= 0.97
    assert history[-1]["val_accuracy"] >= 0.9


def test_unet_trains_at_one_size_and_reads_another() -> None:
    net = nnc.compile(MODELS / "unet.nn")
    digits = np.loadtxt(MODELS / "data" / "digits.csv.gz", delimiter=",", max_rows=288)[:, :64].astype(np.float32) / 16

    def scenes(first: int, last: int, height: int, width: int) -> Any:
        return net.scene(digits[first:last], np.linspace(-0.5, 0.5, height * width).reshape(height, width))

    net.fit(*scenes(0, 256, 64, 64))
    x, mask = scenes(256, 288, 96, 80)
    assert net.predict(x).shape == (32, 1, 96, 80)
    levels = [(x > level) for level in np.linspace(-1, 2, 31)]
    assert max(np.sum(p * mask) / np.sum(np.maximum(p, mask)) for p in levels) < 0.2  # light and noise hide the ink
    assert net.score(x, mask) >= 0.6
    with pytest.raises(nnc.ArgumentError, match=r"E0606.*axis 2 of `x` of predict is 90, but must be 4\*H"):
        net.predict(x[:, :, :90])


def test_xor_is_learned() -> None:
    net = nnc.compile(MODELS / "xor.nn", model="Xor")
    net.fit()
    x = f32([[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(net.predict(x) > 0, [False, True, True, False])


def test_sine_is_approximated() -> None:
    net = nnc.compile(MODELS / "universal_approximation.nn")
    net.fit()
    x = np.linspace(-np.pi, np.pi, 1000, dtype=np.float32)
    assert np.mean((net.predict(x[:, None]) - np.sin(x)) ** 2) < 1e-4


def test_digits_are_read() -> None:
    net = nnc.compile(MODELS / "digits_mlp.nn")
    net.fit()
    assert net.evaluate()["accuracy"] >= 0.97


def test_autoencoder_keeps_most_of_the_picture_in_eight_numbers() -> None:
    net = nnc.compile(MODELS / "autoencoder.nn")
    history = net.fit(epochs=20)
    assert history[-1]["mse"] < 0.035 < 0.05 < history[0]["mse"]
    x = np.random.default_rng(0).random((3, 64), dtype=np.float32)
    assert net.taps(x)["Autoencoder.code"].shape == (3, 8)


def test_convolutions_keep_most_of_the_picture_in_eight_numbers() -> None:
    net = nnc.compile(MODELS / "convolutional_autoencoder.nn")
    history = net.fit()
    assert history[-1]["val_mse"] < 0.025 < 0.08 < history[0]["mse"]


def distance_to_digits(pictures: np.ndarray) -> tuple[float, set[int]]:
    """How far each picture is from the nearest digit in the data, on average, and which digits those are."""
    table = np.loadtxt(MODELS / "data" / "digits.csv.gz", delimiter=",")
    distance = np.sum((pictures[:, None] - table[None, :, :64] / 16) ** 2, axis=2)
    return float(np.sqrt(distance.min(1)).mean()), set(table[distance.argmin(1), 64].astype(int))


def independent_pixels(count: int) -> np.ndarray:
    """Pictures whose pixels are each from some digit: what knows the data, but not how pixels go together."""
    table = np.loadtxt(MODELS / "data" / "digits.csv.gz", delimiter=",")[:, :64] / 16
    return np.random.default_rng(2).permuted(table, axis=0)[:count]


def test_variational_autoencoder_draws_new_digits() -> None:
    net = nnc.compile(MODELS / "variational_autoencoder.nn")
    history = net.fit(epochs=60)
    assert history[-1]["val_loss"] < 0.6 * history[0]["val_loss"]
    drawn = net.draw(np.random.default_rng(0).standard_normal((200, 8), np.float32))
    distance, digits = distance_to_digits(drawn)
    assert distance < 0.65 * distance_to_digits(independent_pixels(200))[0] and len(digits) == 10


@pytest.fixture(scope="module")
def reader() -> nnc.Model:
    """A trained network that reads digits."""
    net = nnc.compile(MODELS / "digits_mlp.nn")
    net.fit(epochs=20)
    return net


def confidence(reader: nnc.Model, pictures: np.ndarray) -> tuple[float, np.ndarray]:
    """How sure the reader is of what it reads, on average; and how often it reads each digit."""
    z = reader.predict(pictures).astype(np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return float(p.max(1).mean()), np.bincount(p.argmax(1), minlength=10)


def test_a_generator_and_a_critic_teach_each_other_to_draw(reader: nnc.Model) -> None:
    net = nnc.compile(MODELS / "gan.nn")
    net.fit(epochs=150)
    drawn = net.draw(np.random.default_rng(0).standard_normal((200, 16), np.float32))
    sure, found = confidence(reader, drawn)
    assert sure > 0.8 and found.min() > 0
    assert distance_to_digits(drawn)[0] < 0.75 * distance_to_digits(independent_pixels(200))[0]


def test_diffusion_draws_digits_out_of_noise(reader: nnc.Model) -> None:
    net = nnc.compile(MODELS / "diffusion.nn")
    history = net.fit()
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    drawn = net.draw(np.random.default_rng(0).standard_normal((200, 64), np.float32))
    sure, found = confidence(reader, drawn)
    assert sure >= 0.8 and found.min() > 0
    assert distance_to_digits(drawn)[0] < 0.75 * distance_to_digits(independent_pixels(200))[0]


def test_a_student_learns_more_from_its_teacher_than_from_labels(reader: nnc.Model, tmp_path: Path) -> None:
    reader.save(tmp_path / "teacher.nnw")
    taught = nnc.compile(MODELS / "distillation.nn")
    report = taught.load_weights(tmp_path / "teacher.nnw", into="Mlp")
    assert len(report.taken) == 6 and not report.left and not report.refused
    before = {p: a.copy() for p, a in taught.params.items()}
    accuracy = taught.fit()[-1]["val_accuracy"]
    assert all((taught.params[p] == before[p]).all() == p.startswith("Mlp.") for p in before)
    assert accuracy > 0.93


def test_two_labels_and_the_friendships_divide_the_club() -> None:
    net = nnc.compile(MODELS / "graph_network.nn")
    history = net.fit()
    assert history[-1]["accuracy"] >= 0.95
    wrong = np.flatnonzero(net.predict(np.arange(34, dtype=np.int32)).argmax(1) != _factions())
    assert list(wrong) in ([8], [9], [2])


def _factions() -> np.ndarray:
    lines = (MODELS / "data" / "club.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["faction"] for line in lines])


def test_q_learning_finds_what_each_move_is_worth() -> None:
    net = nnc.compile(MODELS / "q_learning.nn")
    net.fit()
    moves = [json.loads(line) for line in (MODELS / "data" / "lake.jsonl").read_text().splitlines()]
    worth = np.zeros((16, 4))
    for _ in range(100):  # Bellman's equation (1957), to its fixed point
        for m in moves:
            ahead = 0.0 if m["ended"] else worth[m["next"]].max()
            worth[m["place"], m["move"]] = m["reward"] + 0.9 * ahead
    learned = net.predict(np.arange(16, dtype=np.int32))
    for m in moves:
        assert abs(learned[m["place"], m["move"]] - worth[m["place"], m["move"]]) < 0.01
    place, steps = 0, 0
    while place != 15 and steps < 20:
        move = int(net.best(np.array([place], np.int32))[0])
        place, steps = next(m["next"] for m in moves if (m["place"], m["move"]) == (place, move)), steps + 1
    assert steps == 6


def test_restricted_boltzmann_machine_learns_to_draw_again_and_dreams_of_digits() -> None:
    net = nnc.compile(MODELS / "restricted_boltzmann.nn")
    history = net.fit()
    assert history[-1]["mse"] < 0.6 * history[0]["mse"]
    dreamt = net.dream(np.random.default_rng(0).integers(0, 2, (200, 64)).astype(np.float32))
    distance, digits = distance_to_digits(dreamt)
    assert distance < 0.7 * distance_to_digits(independent_pixels(200))[0] and len(digits) == 10


def test_two_layer_input_gradient_is_there_when_asked_for() -> None:
    net = nnc.compile(MODELS / "two_layer.nn", dtype="f64")
    x, target = np.array([0.5, -1.0, 2.0]), np.array([1.0, -1.0])
    p = net.params
    h = np.tanh(p["TwoLayer.W1"] @ x + p["TwoLayer.b1"])
    dz1 = (p["TwoLayer.W2"].T @ (net.predict(x) - target)) * (1 - h**2)
    np.testing.assert_allclose(net.gradients(x, target, wrt=["x"])["x"], p["TwoLayer.W1"].T @ dz1, atol=1e-14)


# --- memories and dreams ----------------------------------------------------------------------------------------------


def hopfield(patterns: int) -> tuple[nnc.Model, np.ndarray]:
    """A network in which so many random patterns were stored."""
    net = nnc.compile(MODELS / "hopfield.nn")
    s = np.random.default_rng(0).choice(f32([-1, 1]), (patterns, 100))
    net.fit(s)
    return net, s


def test_hopfield_holds_five_patterns_but_not_thirty() -> None:
    net, five = hopfield(5)
    np.testing.assert_array_equal(net.predict(five).next, five)
    W = net.params["Hopfield.W"]
    np.testing.assert_allclose(W, five.T @ five * (1 - np.eye(100)) / 100, atol=1e-6)
    net, thirty = hopfield(30)
    assert np.any(net.predict(thirty).next != thirty)


def test_hopfield_energy_never_rises_and_memory_completes_itself() -> None:
    net, stored = hopfield(5)
    r = np.random.default_rng(1)
    s = np.where(r.random(stored.shape) < 0.15, -stored, stored)
    energy = net.predict(s).energy
    for unit in np.concatenate([r.permutation(100) for _ in range(3)]):
        s = net.settle(s, i32(unit))
        after = net.predict(s).energy
        assert np.all(after <= energy + 1e-4)
        energy = after
    np.testing.assert_array_equal(s, stored)


def test_neocognitron_finds_a_cell_for_each_digit_without_a_teacher_and_knows_it_elsewhere() -> None:
    net = nnc.compile(MODELS / "neocognitron.nn")
    images = f32(np.loadtxt(MODELS / "data" / "drawings.csv", delimiter=",", skiprows=1)[:, 1:])
    before = net.predict(images).answer
    net.fit()
    after = net.predict(images).answer
    cells = after.argmax(1)
    assert before.min() > 0.8 * before.max()  # every cell answers to everything
    assert np.all(after.max(1) > 0.95) and after.max() < 1.05 and np.median(after) < 0.7 and len(set(cells)) == 10
    for down, right in product((-2, -1, 0, 1), (-3, -1, 0, 2)):
        moved = np.roll(images.reshape(10, 16, 16), (down, right), (1, 2)).reshape(10, 256)
        np.testing.assert_array_equal(net.predict(moved).answer.argmax(1), cells)


def test_boltzmann_machine_samples_its_distribution() -> None:
    net = nnc.compile(MODELS / "boltzmann.nn")
    states = f32(list(product((0, 1), repeat=4)))
    weight = np.exp(-net.predict(states).astype(np.float64))
    exact = (weight / weight.sum()) @ states
    n = 20_000
    found = net.sample(np.zeros((n, 4), np.float32)).mean(0)
    assert np.all(np.abs(found - exact) < 3 * np.sqrt(exact * (1 - exact) / n))


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not (MNIST.is_dir() and MNIST.with_name("fashion-mnist").is_dir()),
    reason="MNIST and Fashion-MNIST are not in ../shared/data",
)
@pytest.mark.parametrize(("model", "data", "least"), [
    ("mnist_mlp", "mnist", 0.98), ("lenet5", "mnist", 0.989), ("lenet5", "fashion-mnist", 0.89),
])  # fmt: skip
def test_images_are_read(model: str, data: str, least: float) -> None:
    """Trained as the file says, on all 60,000 images: seconds. Bounds: three deviations below what seeds reach."""
    net = nnc.compile(MODELS / f"{model}.nn")
    net.data_path = str(MNIST.with_name(data))  # as `--data` does
    net.fit()
    assert net.evaluate()["accuracy"] >= least


@pytest.mark.skipif(not (MNIST.is_dir() and FASHION.is_dir()), reason="needs MNIST and Fashion-MNIST")
def test_lenet_goes_from_digits_to_clothes(tmp_path: Path) -> None:
    digits = nnc.compile(MODELS / "lenet5.nn")
    digits.data_path = str(MNIST)
    digits.fit(epochs=1)
    digits.save(tmp_path / "digits.nnw")
    clothes = nnc.compile(MODELS / "fine_tuning.nn")
    clothes.data_path = str(FASHION)
    clothes.load_weights(tmp_path / "digits.nnw", only=["LeNet5.c*", "LeNet5.f6"])
    assert np.array_equal(clothes.params["LeNet5.c1.W"], digits.params["LeNet5.c1.W"])
    assert not np.array_equal(clothes.params["LeNet5.output.W"], digits.params["LeNet5.output.W"])
    assert clothes.fit()[-1]["val_accuracy"] >= 0.88

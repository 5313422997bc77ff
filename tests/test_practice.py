"""Training practice: gradients that accumulate over batches, averages of weights, and what stops them being right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.elaborate import Program
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source

PROGRAM = """
model M(x: f32[B, 5]) -> (y: f32[B, 3]) {
    y = x |> Dense(8) |> tanh |> Dense(3)
}

train M(x, label: i32[B]) {
    loss = mean(cross_entropy(y, label)) + 1e-3 * l2(weights)
    optimizer = %s
    clip = global_norm(0.5)
    %s
    epochs = 3
    seed = 3
}
"""
RNG = np.random.default_rng(0)
X, LABEL = RNG.normal(size=(48, 5)), RNG.integers(0, 3, 48)
ADAM = "Adam(lr = cosine(0.01, warmup = 3))"


def compiled(settings: str, optimizer: str = ADAM, **options: object) -> nnc.Model:
    return nnc.compile(PROGRAM % (optimizer, settings), dtype="f64", **options)


def params(net: nnc.Model) -> np.ndarray:
    return np.concatenate([a.ravel() for a in net.params.values()])


# --- accumulation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "examples", "epochs"), [(ADAM, 48, 3), ("SGD(lr = 0.5)", 48, 2), (ADAM, 46, 1)])
def test_accumulated_batches_are_one_big_batch(optimizer: str, examples: int, epochs: int) -> None:
    """Also with a schedule and clipping, and where the last batch is smaller."""
    big, small = compiled("batch = 16", optimizer), compiled("batch = 4\n    accumulate = 4", optimizer)
    histories = [net.fit(X[:examples], LABEL[:examples], epochs=epochs) for net in (big, small)]
    np.testing.assert_allclose(params(small), params(big), rtol=0, atol=1e-14)
    np.testing.assert_allclose(histories[1][0]["loss"], histories[0][0]["loss"], rtol=0.05)
    assert not np.array_equal(params(big), params(compiled("batch = 16", optimizer)))


def test_nothing_moves_until_a_step_is_due_and_the_rest_is_kept_for_the_next_epoch() -> None:
    net = compiled("batch = 4\n    accumulate = 3", "SGD(lr = 0.5)")
    start, moved = params(net), []
    for k in range(7):
        net.train_step(X[4 * k : 4 * k + 4], LABEL[4 * k : 4 * k + 4])
        moved.append(not np.array_equal(params(net), start))
        start = params(net)
    assert moved == [False, False, True, False, False, True, False]
    carried = compiled("batch = 4\n    accumulate = 3", "SGD(lr = 0.5)")
    carried.fit(X[:16], LABEL[:16], epochs=3, shuffle=False)  # 3 x 4 batches are 4 steps
    by_hand = compiled("batch = 12", "SGD(lr = 0.5)")
    by_hand.fit(np.tile(X[:16], (3, 1)), np.tile(LABEL[:16], 3), epochs=1, shuffle=False)
    np.testing.assert_allclose(params(carried), params(by_hand), rtol=0, atol=1e-14)


def test_accumulation_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = "batch = 4\n    accumulate = 5\n    average = ema(0.9)"
    whole, first, second = (compiled(settings) for _ in range(3))
    whole.fit(X, LABEL, epochs=4)
    first.fit(X, LABEL, epochs=4, callbacks=[lambda history, model: len(history) == 2])  # of 24 batches
    first.progress.stopped = ""
    first.save(tmp_path / "a.nnw")
    second.load(tmp_path / "a.nnw")
    second.fit(X, LABEL, resume=True)
    for name, array in whole.variables.items():
        assert array.tobytes() == second.variables[name].tobytes(), name


# --- averages ---------------------------------------------------------------------------------------------------------


def averaged(settings: str, steps: int, rule) -> tuple[nnc.Model, nnc.Model]:
    """A trained model, and one whose parameters are what `rule(average, p, t)` makes of the path of its parameters."""
    net = compiled("batch = 16\n    " + settings)
    net.set_training(steps=steps)
    other = compiled("batch = 16")
    average = {n: np.array(a) for n, a in net.params.items()}
    for t in range(1, steps + 1):
        net.train_step(X[:16], LABEL[:16])
        average = {n: rule(average[n], p, t) for n, p in net.params.items()}
    for n, a in average.items():
        other.params[n] = a
    return net, other


def ema(average: np.ndarray, p: np.ndarray, t: int) -> np.ndarray:
    decay = min(0.9, t / (t + 9))
    return decay * average + (1 - decay) * p


def swa(average: np.ndarray, p: np.ndarray, t: int) -> np.ndarray:
    n = t - 10  # of 20 steps
    return p if n <= 1 else (average * (n - 1) + p) / n


@pytest.mark.parametrize(("setting", "rule"), [("average = ema(0.9)", ema), ("average = swa(start = 0.5)", swa)])
def test_inference_reads_the_average_and_training_does_not(setting: str, rule) -> None:
    net, other = averaged(setting, 20, rule)
    np.testing.assert_allclose(net.predict(X), other.predict(X), rtol=1e-12)
    assert net.evaluate(X, LABEL)["loss"] == pytest.approx(other.evaluate(X, LABEL)["loss"], rel=1e-12)
    plain = compiled("batch = 16")
    plain.set_training(steps=20)
    for _ in range(20):
        plain.train_step(X[:16], LABEL[:16])
    np.testing.assert_array_equal(params(net), params(plain))
    assert net.loss(X, LABEL) == plain.loss(X, LABEL) != other.loss(X, LABEL)


def test_an_average_begins_as_its_parameter_and_follows_what_is_assigned(tmp_path: Path) -> None:
    net, plain = compiled("average = ema()"), compiled("")
    np.testing.assert_array_equal(net.predict(X), plain.predict(X))
    net.params["M.dense_2.b"] = [1, 2, 3]
    np.testing.assert_allclose(net.predict(X), plain.predict(X) + np.array([1, 2, 3]), rtol=1e-12)
    net.fit(X, LABEL, batch=16)
    net.save(tmp_path / "a.nnw")
    begun = compiled("average = ema()", seed=9)
    begun.begin_with(tmp_path / "a.nnw")
    np.testing.assert_array_equal(begun.predict(X), net.predict(X))
    np.testing.assert_array_equal(begun.params["M.dense_1.W"], net.variables["average/M.dense_1.W"])
    assert begun.seed == 9 and begun.variables["train/t"] == 0 and not begun.slots["M.dense_1.W/m"].any()


def test_an_average_is_taken_once_a_step_where_gradients_accumulate() -> None:
    big, small = (
        compiled("batch = 16\n    average = ema(0.8)"),
        compiled("batch = 4\n    accumulate = 4\n    average = ema(0.8)"),
    )
    for net in (big, small):
        net.fit(X, LABEL)
    np.testing.assert_allclose(small.predict(X), big.predict(X), rtol=1e-11)


def test_an_average_of_ones_own() -> None:
    net = nnc.compile("fn latest(average, p) = 0 * average + p\n" + PROGRAM % (ADAM, "average = latest"), dtype="f64")
    net.fit(X, LABEL, batch=16)
    plain = compiled("batch = 16")
    plain.fit(X, LABEL)
    np.testing.assert_array_equal(net.predict(X), plain.predict(X))


def test_training_begins_with_a_checkpoint_of_another_optimiser(tmp_path: Path) -> None:
    """Also one that was averaged, for a model that is not; never one of another model."""
    net = compiled("average = ema(0.9)")
    net.fit(X, LABEL, batch=16)
    net.save(tmp_path / "a.nnw")
    for other in (compiled("", "SGD(lr = 0.1)"), compiled("average = swa()", "RMSProp(lr = 0.1)")):
        other.begin_with(tmp_path / "a.nnw")
        np.testing.assert_array_equal(other.predict(X), net.predict(X))
        np.testing.assert_array_equal(other.params["M.dense_1.W"], net.variables["average/M.dense_1.W"])
        assert other.epochs_done == 0 and other.variables["train/t"] == 0
    wider = nnc.compile((PROGRAM % (ADAM, "")).replace("Dense(8)", "Dense(9)"), dtype="f64")
    before = params(wider)
    with pytest.raises(nnc.NncError, match=r"E0624.*expected `average/M.dense_1.W` as f64\[9, 5\], found f64\[8, 5\]"):
        wider.begin_with(tmp_path / "a.nnw")
    shallow = nnc.compile((PROGRAM % (ADAM, "")).replace("Dense(8) |> tanh |> Dense(3)", "Dense(3)"), dtype="f64")
    with pytest.raises(nnc.NncError, match="E0624"):
        shallow.begin_with(tmp_path / "a.nnw")
    np.testing.assert_array_equal(params(wider), before)


def test_a_parameter_that_only_the_loss_calls_for_is_trained():
    net = nnc.compile(
        """
        model M(x: f32[B, 3], deep: bool = false) -> (y: f32[B, 1]) {
            h = x |> a: Dense(3)
            if deep { h = h |> b: Dense(3) }
            y = h |> c: Dense(1)
        }
        train M(x, t: f32[B, 1]) {
            loss = mean((M(x, deep = true) - t)^2)
            optimizer = Momentum(lr = 0.1)
            average = ema(0.9)
        }
        """,
        seed=1,
    )
    before = net.params["M.b.W"].copy()
    net.fit(x=np.ones((4, 3), "f4"), t=np.ones((4, 1), "f4"))
    assert (net.params["M.b.W"] != before).any()


def test_the_entries_that_declare_the_variables_are_grown_once():
    program = Program(
        Source(
            "p.nn",
            """
        model M(x: f32[B, 3]) -> f32[B, 1] { return x |> Dense(1) }
        train M(x, t: f32[B, 1]) {
            loss = mean((output - t)^2)
            optimizer = SGD(lr = 0.1)
            average = ema(0.9)
        }
        """,
        ),
        Settings(),
    )
    assert program.graph("train") is program.graph("train")
    assert {n.attrs["path"].split("/")[0] for n in program.graph("predict") if n.op == "param"} == {"average"}


RANGES = """model M(x: f32[B, 3]) -> (y: f32[B, 1]) {{
    y = x |> Dense(1)
}}
train M(x, t: f32[B, 1]) {{
    loss = mean(squared_error(y, t))
    optimizer = {0}
    {1}
}}
"""


@pytest.mark.parametrize(
    ("optimizer", "setting", "message"),
    [
        ("SGD(lr = -0.1)", "", "a learning rate must be 0 or more, not -0.1"),
        ("AdamW(lr = -1e-3)", "", "a learning rate must be 0 or more, not -0.001"),
        ("Adam(lr = step(0.1, every = 0))", "", "the rate must drop every 1 epoch or more, not every 0"),
        ("Adam(lr = cosine(0.1, warmup = -3))", "", "a warm-up takes 0 steps or more, not -3"),
        ("SGD(0.1)", "average = ema(1.5)", "the decay of an average must be from 0 to 1, not 1.5"),
        ("SGD(0.1)", "average = swa(start = 1.0)", "averaging must start at a share of the steps"),
        ("SGD(0.1)", "clip = global_norm(0.0)", "the limit of a norm must be above 0, not 0.0"),
        ("SGD(0.1)", "clip = by_value(-1.0)", "the limit of a component must be above 0, not -1.0"),
    ],
)
def test_what_is_out_of_range_is_refused(optimizer, setting, message):
    with pytest.raises(nnc.SourceError, match=f"E0203.*{message}"):
        nnc.compile(RANGES.format(optimizer, setting))

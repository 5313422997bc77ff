"""Published figures of the standard library: optimisers, schedules, activations, losses, regularisers, initialisers.

Each expected value stands in the lecture or the paper that the definition names, or is restated here in plain NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnc


def f32(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


def i32(x: Any) -> np.ndarray:
    return np.asarray(x, np.int32)


BOWL = """
model Bowl(x: f32[B]) -> (y: f32) {{
    weight w: f32 = 1
    y = 0.5 * w^2
}}
train Bowl(x) {{
    loss = y
    optimizer = {optimizer}
    epochs = {epochs}
}}
"""


def path_on_bowl(optimizer: str, steps: int = 3) -> list[float]:
    """w after each step on w^2 / 2 from w = 1, in f64."""
    net = nnc.compile(BOWL.format(optimizer=optimizer, epochs=steps), dtype="f64")
    seen: list[float] = []
    net.fit(np.zeros(1), callbacks=[lambda history, model: seen.append(float(model.params["Bowl.w"]))])
    return seen


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("SGD(0.1)", [0.9, 0.81, 0.729]),
        ("Momentum(0.1, gamma = 0.9)", [0.9, 0.72, 0.486]),
        ("Momentum(0.1 * 0.5^(t - 1))", [0.9, 0.765, 0.624375]),
        ("Velocity(0.1 * 0.5^(t - 1))", [0.9, 0.81, 0.74925]),
        ("AdaGrad(0.1)", [0.9000000005, 0.8331035275, 0.7804561821]),
        ("RMSProp(0.1, gamma = 0.9)", [0.6837722498, 0.4988706267, 0.3691805739]),
        ("Adam(0.1, eps_inside = true)", [0.9000000005, 0.8004122287, 0.7015862730]),
        ("Adam(0.1)", [0.9000000010, 0.8004122297, 0.7015862745]),
    ],
)
def test_optimizer_on_a_bowl(optimizer: str, expected: list[float]) -> None:
    np.testing.assert_allclose(path_on_bowl(optimizer), expected, rtol=0, atol=6e-11)


def nesterov(p: float, t: int, s: dict[str, float]) -> float:
    s["v"] = 0.9 * s["v"] + p
    return p - 0.1 * (p + 0.9 * s["v"])


def adamw(p: float, t: int, s: dict[str, float]) -> float:
    s["m"] = 0.9 * s["m"] + 0.1 * p
    s["v"] = 0.999 * s["v"] + 0.001 * p * p
    return p - 0.1 * (s["m"] / (1 - 0.9**t) / (math.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8) + 0.01 * p)


def adadelta(p: float, t: int, s: dict[str, float]) -> float:
    s["s"] = 0.95 * s["s"] + 0.05 * p * p
    d = math.sqrt(s["u"] + 1e-6) / math.sqrt(s["s"] + 1e-6) * p
    s["u"] = 0.95 * s["u"] + 0.05 * d * d
    return p - d


def lion(p: float, t: int, s: dict[str, float]) -> float:
    direction = np.sign(0.9 * s["m"] + 0.1 * p)
    s["m"] = 0.99 * s["m"] + 0.01 * p
    return float(p - 0.1 * direction)


@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [
        ("Velocity(0.1, nesterov = true)", nesterov),
        ("AdamW(0.1)", adamw),
        ("AdaDelta()", adadelta),
        ("Lion(0.1)", lion),
    ],
)
def test_optimizer_restated(optimizer: str, rule: Callable[[float, int, dict[str, float]], float]) -> None:
    state = {"m": 0.0, "v": 0.0, "s": 0.0, "u": 0.0}
    p, expected = 1.0, []
    for t in range(1, 7):
        p = rule(p, t, state)
        expected.append(p)
    np.testing.assert_allclose(path_on_bowl(optimizer, 6), expected, rtol=1e-13)


SLOPE = """
model Slope(x: f32[B]) -> (y: f32) {{
    weight w: f32 = 0
    y = w
}}
train Slope(x) {{
    loss = -y
    optimizer = SGD({schedule})
    epochs = {epochs}
}}
"""


def rates(schedule: str, steps: int) -> np.ndarray:
    """The learning rate of each step, one step per epoch: on the loss -w each step adds it to w."""
    net = nnc.compile(SLOPE.format(schedule=schedule, epochs=steps), dtype="f64")
    seen = [0.0]
    net.fit(np.zeros(1), callbacks=[lambda history, model: seen.append(float(model.params["Slope.w"]))])
    return np.diff(seen)


t = np.arange(1, 9)
cosine = 0.1 * (1 + np.cos(math.pi * (t - 1) / 8))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant(0.2)", np.full(8, 0.2)),
        ("step(0.2, every = 3, factor = 0.5)", 0.2 * 0.5 ** np.floor((t - 1) / 3)),
        ("exponential(0.2, factor = 0.9)", 0.2 * 0.9 ** (t - 1)),
        ("inverse(0.2)", 0.2 / t),
        ("inverse(0.2, k = 0.5)", 0.2 / (1 + 0.5 * (t - 1))),
        ("cosine(0.2)", cosine),
        ("cosine(0.2, warmup = 4)", [0.05, 0.1, 0.15, 0.2, 0.2, 0.17071067811865477, 0.1, 0.02928932188134524]),
        ("linear(0.2)", 0.2 * (1 - (t - 1) / 8)),
        ("linear(0.2, warmup = 2, final = 0.08)", [0.1, 0.2, 0.2, 0.18, 0.16, 0.14, 0.12, 0.1]),
        ("linear_warmup(0.2, 4)", 0.2 * np.minimum(t / 4, 1)),
    ],
)
def test_schedule(schedule: str, expected: np.ndarray) -> None:
    np.testing.assert_allclose(rates(schedule, 8), expected, rtol=0, atol=1e-14)


def test_one_cycle_rises_to_the_rate_and_falls() -> None:
    r = rates("one_cycle(0.1)", 20)
    assert np.argmax(r) == 6 and r[6] == pytest.approx(0.1)
    assert r[0] == pytest.approx(0.1 / 25) and r[-1] < 0.01
    assert np.all(np.diff(r[:7]) > 0) and np.all(np.diff(r[6:]) < 0)


# --- activations ------------------------------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2


ERF = np.vectorize(math.erf)
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity(x)": lambda x: x,
    "relu(x)": lambda x: np.maximum(x, 0),
    "leaky_relu(x, 0.1)": lambda x: np.where(x > 0, x, 0.1 * x),
    "elu(x)": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu(x)": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "gelu(x)": lambda x: x / 2 * (1 + ERF(x / math.sqrt(2))),
    "gelu_tanh(x)": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid(x)": sigmoid,
    "silu(x)": lambda x: x * sigmoid(x),
    "softplus(x)": lambda x: np.logaddexp(x, 0),
    "log_sigmoid(x)": lambda x: -np.logaddexp(-x, 0),
    "mish(x)": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "softsign(x)": lambda x: x / (1 + np.abs(x)),
    "tanh(x)": np.tanh,
    "hard_tanh(x)": lambda x: np.clip(x, -1, 1),
    "hard_sigmoid(x)": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "threshold(x)": lambda x: (x > 0).astype(float),
}  # fmt: skip


@pytest.mark.parametrize("call", ACTIVATIONS)
def test_activation(call: str) -> None:
    x = np.concatenate([np.linspace(-8, 8, 101), [0.0, -100, 100, -1e4, 1e4]])
    f = nnc.function(f"fn f(x: f32[N]) -> f32[N] = {call}")
    y = f(x.astype(np.float32))
    assert np.all(np.isfinite(y))
    np.testing.assert_allclose(y, ACTIVATIONS[call](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("call", [c for c in ACTIVATIONS if c != "threshold(x)"])
def test_derivative_of_activation(call: str) -> None:
    """Against central differences in f64, away from corners; and finite far out in f32."""
    x = np.linspace(-6, 6, 100)
    grad = nnc.function(f"fn f(x: f32[N]) -> f32[N] = grad(sum({call}), x)", dtype="f64")
    h = 1e-6
    expected = (ACTIVATIONS[call](x + h) - ACTIVATIONS[call](x - h)) / (2 * h)
    np.testing.assert_allclose(grad(x), expected, atol=1e-8)
    far = nnc.function(f"fn f(x: f32[N]) -> f32[N] = grad(sum({call}), x)")(f32([-1e4, -100, 100, 1e4]))
    assert np.all(np.isfinite(far))


@pytest.mark.parametrize(("call", "at_zero"), [
    ("relu(x)", 0), ("sigmoid(x)", 0.25), ("tanh(x)", 1), ("identity(x)", 1), ("softplus(x)", 0.5), ("elu(x)", 1),
    ("gelu(x)", 0.5), ("abs(x)", 0),
])  # fmt: skip
def test_derivative_at_zero(call: str, at_zero: float) -> None:
    grad = nnc.function(f"fn f(x: f32[N]) -> f32[N] = grad(sum({call}), x)")
    assert grad(np.zeros(1, np.float32))[0] == pytest.approx(at_zero)


def test_second_derivative_of_softplus_is_that_of_its_definition_also_at_zero() -> None:
    f = nnc.function("fn f(x: f32) -> f32 = grad(grad(softplus(x), x), x)", dtype="f64")
    for x in (-3.0, 0.0, 2.0):
        s = 1 / (1 + math.exp(-x))
        assert float(f(np.float64(x))) == pytest.approx(s * (1 - s), rel=1e-12)


def test_softmax_is_unchanged_by_adding_a_constant() -> None:
    f = nnc.function("fn f(x: f32[N]) -> f32[N] = softmax(x)")
    expected = [0.09003057, 0.24472847, 0.66524096]
    np.testing.assert_allclose(f(f32([1, 2, 3])), expected, atol=1e-7)
    np.testing.assert_allclose(f(f32([1001, 1002, 1003])), expected, atol=1e-7)


def test_logsumexp_of_nothing_possible_is_minus_infinity() -> None:
    f = nnc.function("fn f(x: f32[N]) -> f32 = logsumexp(x)")
    assert f(f32([-np.inf, -np.inf])) == -np.inf
    assert f(f32([1000, 1000])) == pytest.approx(1000 + math.log(2))


def test_sigmoid_is_tanh_moved_and_scaled() -> None:
    f = nnc.function("fn f(x: f32[N]) -> f32[N] = sigmoid(x) - (1 + tanh(x / 2)) / 2", dtype="f64")
    np.testing.assert_allclose(f(np.linspace(-40, 40, 201)), 0, atol=4e-16)


def test_gradient_of_a_residual_block() -> None:
    f = nnc.function("fn f(x: f32[N], w: f32[N]) -> f32[N] = grad(sum(w * (sin(x) + 0.5 * x)), x)", dtype="f64")
    x, w = np.array([0.3, -1.0, 2.0]), np.array([1.0, 2.0, -3.0])
    np.testing.assert_allclose(f(x, w), w * (np.cos(x) + 0.5), rtol=1e-14)


# --- reductions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "of"),
    [
        ("std(x)", lambda x: x.std()),
        ("std(x, axis = 1)", lambda x: x.std(1)),
        ("std(x, axis = [0, -1], keep = true)", lambda x: x.std((0, 2), keepdims=True)),
        ("p_norm(x, 1, axis = 0)", lambda x: np.abs(x).sum(0)),
        ("p_norm(x, 3)", lambda x: (np.abs(x) ** 3).sum() ** (1 / 3)),
        ("p_norm(x, 2.5, axis = 2, keep = true)", lambda x: (np.abs(x) ** 2.5).sum(2, keepdims=True) ** 0.4),
        ("p_norm(1e300 * x, 4, axis = [0, 1]) * 1e-300", lambda x: (np.abs(x) ** 4).sum((0, 1)) ** 0.25),
        ("p_norm(x, inf, axis = 1)", lambda x: np.abs(x).max(1)),
    ],
)
def test_reductions_along_axes(call: str, of: Callable[[np.ndarray], np.ndarray]) -> None:
    x = np.random.default_rng(6).normal(size=(3, 4, 5))
    value, want = nnc.function(f"fn f(x: f32[A, B, C]) -> f32[*s] = {call}", dtype="f64")(x), of(x)
    np.testing.assert_allclose(value, want, rtol=1e-13)
    slope = nnc.function(f"fn f(x: f32[A, B, C]) -> f32[A, B, C] = grad(sum({call}), x)", dtype="f64")(x)
    d = np.zeros_like(x)
    d[1, 2, 3] = 1e-6
    assert slope[1, 2, 3] == pytest.approx((of(x + d) - of(x - d)).sum() / 2e-6, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("call", ["std(x)", "p_norm(x, 3)", "p_norm(x, 1)", "p_norm(x, 1.5)", "p_norm(x, inf)"])
def test_spread_and_size_of_zeros_have_slope_0(call: str) -> None:
    f = nnc.function(f"fn f(x: f32[N]) -> f32[N] = grad({call}, x)")
    np.testing.assert_array_equal(f(np.zeros(3, np.float32)), 0)


def test_segments_and_masks() -> None:
    rng = np.random.default_rng(8)
    x, index = rng.normal(size=(7, 3)), i32([2, 0, 2, 0, 4, 4, 2])
    x[1, 1] = x[3, 1] = 9
    signature = "x: f32[E, D], index: i32[E]"

    def value(call: str, result: str = "f32[*s]") -> Any:
        return nnc.function(f"fn f({signature}) -> {result} = {call}", dtype="f64")(x, index)

    parts = [x[index == k] for k in range(5)]
    for by, fold, none in (("max", np.max, -np.inf), ("min", np.min, np.inf), ("mul", np.prod, 1)):
        want = [fold(p, axis=0, initial=none) for p in parts]
        np.testing.assert_array_equal(value(f'scatter(x, index, 5, by = "{by}")'), want)
        if by != "mul":
            np.testing.assert_array_equal(value(f"segment_{by}(x, index, 5)"), want)
    np.testing.assert_allclose(value("segment_mean(x, index, 5)"), [p.sum(0) / max(len(p), 1) for p in parts])
    np.testing.assert_array_equal(value("segment_count(index, 5)", "i32[5]"), [2, 0, 3, 0, 2])
    e = np.exp(x)
    share = [e[k] / e[index == i].sum(0) for k, i in enumerate(index)]
    np.testing.assert_allclose(value("segment_softmax(x, index, 5)"), share)
    slope = value("grad(sum(x[:, 1] * segment_max(x[:, 1], index, 5)[index]), x)")
    hits = np.array([x[k, 1] == parts[i][:, 1].max() for k, i in enumerate(index)])
    sums = np.array([parts[i][:, 1].sum() for i in index])
    first = hits & (np.arange(7) != 3)  # of the two 9 in segment 0 the first
    top = np.array([parts[i][:, 1].max() for i in index])
    np.testing.assert_allclose(slope[:, 1], top + first * sums)
    assert not slope[:, [0, 2]].any()
    x[0] = np.nan
    np.testing.assert_array_equal(value("segment_max(x, index, 5)")[2], np.nan)
    np.testing.assert_allclose(value("masked_mean(x, expand(index != 2, 1), axis = 0)"), x[index != 2].mean(0))
    assert value("masked_mean(x, x == x)", "f32") == pytest.approx(np.nanmean(x))
    assert value("masked_mean(x, x == inf)", "f32") == 0


def test_systems_of_equations_need_pivots_and_have_second_derivatives() -> None:
    a, b = np.array([[0.0, 2.0], [1.0, 3.0]]), np.array([2.0, 4.0])
    solve = nnc.function("fn f(a: f32[N, N], b: f32[N]) -> f32[N] = solve(a, b)", dtype="f64")
    np.testing.assert_allclose(solve(a, b), [1, 1])
    assert not np.isfinite(solve(a * [[1], [0]], b)).all()
    slope = nnc.function("fn f(a: f32[N, N], b: f32[N]) -> f32[N, N] = grad(sum(solve(a, b)^2), a)", dtype="f64")
    second = nnc.function(
        """fn f(a: f32[N, N], b: f32[N]) -> f32[N, N] {
        g = grad(sum(solve(a, b)^2), a)
        return grad(sum(g^2), a)
        }""",
        dtype="f64",
    )
    d = np.array([[0, 0], [1e-6, 0]])
    difference = ((slope(a + d, b) ** 2).sum() - (slope(a - d, b) ** 2).sum()) / 2e-6
    assert second(a, b)[1, 0] == pytest.approx(difference, rel=1e-7)
    with pytest.raises(nnc.NncError, match="must be square, not 2 by 3"):
        nnc.function("fn f(a: f32[2, 3]) -> f32[2, 3] = cholesky(a)")(np.ones((2, 3)))


@pytest.mark.parametrize("at", [(0, 2), (2, 1), (1, 1), (3, 3)])
def test_cholesky_reads_the_lower_half_and_what_is_no_number_goes_no_further_than_it_must(at) -> None:
    r = np.random.default_rng(0).normal(size=(4, 4))
    a = r @ r.T + np.eye(4)
    a[at] = np.nan
    factor = nnc.function("fn f(a: f32[N, N]) -> f32[N, N] = cholesky(a)", dtype="f64")
    np.testing.assert_allclose(factor(a), np.linalg.cholesky(a), atol=1e-12)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_cross_entropy_and_its_gradient() -> None:
    z, label = np.array([[1.0, 2.0, 3.0]]), i32([2])
    f = nnc.function("fn f(z: f32[B, C], label: i32[B]) -> f32[B] = cross_entropy(z, label)", dtype="f64")
    g = nnc.function(
        "fn g(z: f32[B, C], label: i32[B]) -> f32[B, C] = grad(sum(cross_entropy(z, label)), z)", dtype="f64"
    )
    np.testing.assert_allclose(f(z, label), [0.4076059645], atol=5e-11)
    np.testing.assert_allclose(g(z, label), [[0.09003057, 0.24472847, -0.33475904]], atol=5e-9)


def test_label_smoothing_is_cross_entropy_with_the_smoothed_target() -> None:
    f = nnc.function(
        "fn f(z: f32[B, C], label: i32[B]) -> f32[B] = cross_entropy(z, label, smoothing = 0.1)", dtype="f64"
    )
    rng = np.random.default_rng(3)
    z, label = rng.normal(0, 4, (5, 4)), np.array([0, 3, 1, 2, 2])
    log_p = z - z.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    target = 0.9 * np.eye(4)[label] + 0.1 / 4
    np.testing.assert_allclose(f(z, label), -(target * log_p).sum(1), rtol=1e-13)
    with pytest.raises(nnc.NncError, match="smoothing of labels is at least 0 and below 1"):
        nnc.function("fn f(z: f32[B, C], label: i32[B]) -> f32[B] = cross_entropy(z, label, smoothing = 1.5)")(z, label)


def test_class_weights_make_the_mean_that_of_the_weighted_examples() -> None:
    f = nnc.function(
        """fn f(z: f32[B, 3], label: i32[B]) -> f32 =
        weighted_mean(cross_entropy(z, label), gather([1.0, 2.5, 0.25], label))""",
        dtype="f64",
    )
    rng = np.random.default_rng(4)
    z, label = rng.normal(size=(6, 3)), np.array([0, 1, 2, 2, 1, 1])
    each = np.log(np.exp(z).sum(1)) - z[np.arange(6), label]
    w = np.array([1, 2.5, 0.25])[label]
    np.testing.assert_allclose(f(z, label), (w * each).sum() / w.sum(), rtol=1e-13)


def test_a_batch_of_ignored_labels_has_the_loss_0_and_no_gradient() -> None:
    f = nnc.function(
        """fn f(z: f32[B, C, H, W], label: i32[B, H, W]) -> (loss: f32, g: f32[B, C, H, W]) {
        loss = mean_cross_entropy(z, label, axis = 1, ignore = -1)
        return (loss, grad(loss, z))
        }"""
    )
    loss, g = f(np.ones((1, 3, 2, 2), np.float32), np.full((1, 2, 2), -1))
    assert loss == 0
    assert not g.any()


@pytest.mark.parametrize(
    ("signature", "call", "message"),
    [
        ("z: f32[B, C, H, W], l: i32[B, H, W]", "cross_entropy(z, l)",
         r"labels \[B, H, W\] fit logits \[B, C, H, W\] with the classes on axis 1"),
        ("z: f32[B, 5, 5, 5], l: i32[B, 5, 5]", "cross_entropy(z, l)", "write `axis = 1`, or `axis = -1`"),
        ("z: f32[B, 5, 5], l: i32[B, 5]", "accuracy(z, l)", "write `axis = 1`, or `axis = -1`"),
        ("z: f32[B, 5, 5], l: i32[B, 5]", "top_k_accuracy(z, l)", "write `axis = 1`, or `axis = -1`"),
        ("z: f32[B, 3, 4], l: i32[B, 4]", "nll(z, l, axis = 2)",
         r"with the classes on axis 2, logits \[B, 3, 4\] need labels \[B, 3\], not \[B, 4\]"),
        ("z: f32[B, 3], l: i32[B, 1]", "cross_entropy(z, l)", r"need labels \[B\], not \[B, 1\]"),
        ("z: f32[B, 3], l: i32[B]", "cross_entropy(z, l, axis = 2)", "axis 2 of the classes does not exist"),
        ("z: f32[B, 3], l: i32[B]", "cross_entropy(z, l, weights = [1.0, 2.0])",
         "a weight for each of 3 classes, not 2"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused_in_words(signature: str, call: str, message: str) -> None:
    arrays = [np.zeros([5 if n in "BCHW" else int(n) for n in part.split("]")[0].split(", ")], t)
              for part, t in zip(signature.split("[")[1:], ("f4", "i4"), strict=True)]  # fmt: skip
    with pytest.raises(nnc.NncError, match=message):
        nnc.function(f"fn f({signature}) -> f32 = sum({call})")(*arrays)


def test_a_sequence_of_free_length_has_its_classes_on_the_last_axis() -> None:
    """Also where there are by chance as many positions as classes: names decide, not sizes."""
    f = nnc.function("fn f(z: f32[B, T, C], l: i32[B, T]) -> f32[B, T] = cross_entropy(z, l)")
    rng = np.random.default_rng(5)
    z, label = f32(rng.normal(size=(2, 4, 4))), i32(rng.integers(0, 4, (2, 4)))
    want = np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, label[..., None], -1)[..., 0]
    np.testing.assert_allclose(f(z, label), want, rtol=1e-5, atol=1e-6)


def test_binary_cross_entropy_is_accurate_where_it_is_small() -> None:
    f = nnc.function("fn f(z: f32[B], y: f32[B]) -> f32[B] = binary_cross_entropy(z, y)")
    z = f32([20, -20, 50, 0, 1e4])
    y = f32([1, 0, 1, 1, 0])
    np.testing.assert_allclose(f(z, y), [2.0611536e-9, 2.0611536e-9, 1.9287498e-22, math.log(2), 1e4], rtol=1e-5)


def test_binary_cross_entropy_gradient_is_sigmoid_minus_target_also_at_zero() -> None:
    g = nnc.function("fn g(z: f32[B], y: f32[B]) -> f32[B] = grad(sum(binary_cross_entropy(z, y)), z)", dtype="f64")
    z, y = np.array([0.0, 0.0, 3.0, -3.0]), np.array([1.0, 0.0, 0.3, 1.0])
    np.testing.assert_allclose(g(z, y), sigmoid(z) - y, atol=1e-15)


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "squared_error(y, t)": lambda y, t: ((y - t) ** 2).sum(1) / 2,
    "absolute_error(y, t)": lambda y, t: np.abs(y - t).sum(1),
    "huber(y, t, 0.5)": lambda y, t: np.where(
        np.abs(y - t) <= 0.5, (y - t) ** 2 / 2, 0.5 * (np.abs(y - t) - 0.25)).sum(1),
    "hinge(y, sign(t))": lambda y, t: np.maximum(0, 1 - np.sign(t) * y).sum(1),
    "kl_divergence(softmax(y), softmax(t))": lambda y, t: (
        np.exp(y) / np.exp(y).sum(1, keepdims=True)
        * ((y - np.log(np.exp(y).sum(1, keepdims=True))) - (t - np.log(np.exp(t).sum(1, keepdims=True))))).sum(1),
}  # fmt: skip


@pytest.mark.parametrize("call", LOSSES)
def test_loss_per_example(call: str) -> None:
    r = np.random.default_rng(3)
    y, t = r.standard_normal((5, 4)), r.standard_normal((5, 4))
    f = nnc.function(f"fn f(y: f32[B, D], t: f32[B, D]) -> f32[B] = {call}", dtype="f64")
    np.testing.assert_allclose(f(y, t), LOSSES[call](y, t), rtol=1e-12, atol=1e-14)


def test_kl_divergence_takes_zero_log_zero_as_zero() -> None:
    f = nnc.function("fn f(p: f32[B, D], q: f32[B, D]) -> f32[B] = kl_divergence(p, q)", dtype="f64")
    np.testing.assert_allclose(f([[0.0, 1.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]), [math.log(2), 0], atol=1e-15)


# --- regularisers and dropout -----------------------------------------------------------------------------------------

DECAY = """
model Decay(x: f32[B]) -> (y: f32) {
    weight W: f32[2, 2] = [[1.0, -2.0], [0.0, 4.0]]
    bias b: f32[2] = [5.0, 6.0]
    y = 0 * sum(x)
}
train Decay(x) {
    loss = y + 0.5 * REGULARISER
    optimizer = SGD(0.1)
}
"""
W0 = np.array([[1.0, -2.0], [0.0, 4.0]])


@pytest.mark.parametrize(("regulariser", "gradient"), [
    ("l2(weights)", W0), ("l1(weights)", np.sign(W0)), ("elastic_net(weights, 0.25)", 0.25 * np.sign(W0) + 0.75 * W0),
    ("max_norm(weights, 3.0)", W0), ("max_norm(weights, 5.0)", 0 * W0),
])  # fmt: skip
def test_regulariser_pulls_weights_and_leaves_biases(regulariser: str, gradient: np.ndarray) -> None:
    net = nnc.compile(DECAY.replace("REGULARISER", regulariser), dtype="f64")
    g = net.gradients(np.zeros(1))
    np.testing.assert_allclose(g["Decay.W"], 0.5 * gradient, atol=1e-15)
    assert not np.any(g["Decay.b"])


def test_l2_under_plain_gradient_descent_shrinks_geometrically() -> None:
    net = nnc.compile(DECAY.replace("REGULARISER", "l2(weights)"), dtype="f64")
    for step in range(1, 6):
        net.train_step(np.zeros(1))
        np.testing.assert_allclose(net.params["Decay.W"], (1 - 0.1 * 0.5) ** step * W0, rtol=1e-13)


DROPOUT = """
model Drop(x: f32[B, D]) -> (y: f32[B, D]) {
    weight w: f32 = 1
    y = w * dropout(x, p = 0.3)
}
train Drop(x) {
    loss = sum(y)
    optimizer = SGD(0)
}
"""


def test_dropout_drops_with_p_scales_the_rest_and_is_absent_from_inference() -> None:
    net = nnc.compile(DROPOUT, sizes={"D": 100})
    x = np.ones((200, 100), np.float32)
    mask = net.gradients(x, wrt=["x"])["x"]
    np.testing.assert_array_equal(np.unique(mask), f32([0, 1 / 0.7]))
    assert np.mean(mask == 0) == pytest.approx(0.3, abs=0.015)  # 4.6 standard deviations of 20,000 draws
    np.testing.assert_array_equal(net.predict(x), x)


def test_dropout_uses_the_same_mask_forwards_and_backwards() -> None:
    net = nnc.compile(DROPOUT, sizes={"D": 10}, dtype="f64")
    x = np.random.default_rng(0).standard_normal((6, 10))
    mask = net.gradients(x, wrt=["x"])["x"]
    assert net.loss(x) == pytest.approx(np.sum(mask * x), rel=1e-12)
    net.train_step(x)
    assert np.any(net.gradients(x, wrt=["x"])["x"] != mask)  # the next step draws anew


def test_spatial_dropout_drops_whole_channels() -> None:
    net = nnc.compile(
        "model Drop(x: f32[B, C, N]) -> (y: f32[B, C, N]) {\n    y = spatial_dropout(x, p = 0.5)\n}\n"
        "train Drop(x) {\n    loss = sum(y)\n    optimizer = SGD(0)\n}",
        sizes={"C": 40},
    )
    mask = net.gradients(np.ones((30, 40, 5), np.float32), wrt=["x"])["x"]
    assert np.all(mask == mask[:, :, :1]) and set(np.unique(mask)) == {0, 2}


# --- initialisers -----------------------------------------------------------------------------------------------------


def drawn(init: str, out: int, d: int, dtype: str = "f32") -> np.ndarray:
    """The weights of `Dense(out, init = init)` on d inputs."""
    text = f"model M(x: f32[B, {d}]) -> f32[B, {out}] {{\n    return x |> Dense({out}, init = {init}, bias = false)\n}}"
    return np.asarray(nnc.compile(text, seed=1, dtype=dtype).params["M.dense_1.W"], np.float64)


@pytest.mark.parametrize(("d", "out", "t"), [(84, 10, 0.252646), (784, 128, 0.081111)])
def test_glorot_uniform_bound(d: int, out: int, t: float) -> None:
    W = drawn("glorot_uniform", out, d)
    assert np.abs(W).max() <= t + 5e-7
    assert np.abs(W).max() > 0.99 * t
    assert W.std() == pytest.approx(t / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(("init", "std"), [
    ("glorot_normal", math.sqrt(2 / 500)), ("he_uniform", math.sqrt(2 / 300)), ("he_normal", math.sqrt(2 / 300)),
    ("lecun_normal", math.sqrt(1 / 300)), ("normal(0, 0.05)", 0.05), ("normal(mean = 0, std = 0.05)", 0.05),
    ("uniform(-0.3, 0.3)", 0.3 / math.sqrt(3)), ("truncated_normal(std = 0.1)", 0.087962566), ("zeros", 0),
])  # fmt: skip
def test_initialiser_spread(init: str, std: float) -> None:
    W = drawn(init, 200, 300)
    assert W.mean() == pytest.approx(0, abs=5 * std / math.sqrt(W.size) + 1e-12)
    assert W.std() == pytest.approx(std, rel=0.02)


def test_truncated_normal_is_the_normal_cut_at_two_standard_deviations() -> None:
    W = np.sort(drawn("truncated_normal(1.0, 0.5)", 200, 300).ravel())
    assert W[0] >= 0 and W[-1] <= 2
    z = (W - 1) / 0.5
    phi = (1 + ERF(z / math.sqrt(2))) / 2
    uniform = (phi - phi_of(-2)) / (phi_of(2) - phi_of(-2))
    gap = np.abs(uniform - np.arange(W.size) / W.size).max()
    assert gap < 1.63 / math.sqrt(W.size)  # Kolmogorov and Smirnov, 1 %


def phi_of(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def test_a_small_positive_mean_for_rectifiers() -> None:
    W = drawn("normal(0.01, 0.05)", 200, 300)
    assert W.mean() == pytest.approx(0.01, abs=0.001) and W.std() == pytest.approx(0.05, rel=0.02)


def test_constant_and_ones() -> None:
    assert np.all(drawn("constant(0.25)", 3, 4) == 0.25)
    assert np.all(drawn("ones", 3, 4) == 1)


@pytest.mark.parametrize(("out", "d"), [(12, 20), (20, 12), (16, 16)])
def test_orthogonal_rows_or_columns(out: int, d: int) -> None:
    W = drawn("orthogonal", out, d, dtype="f64")
    gram = W @ W.T if out <= d else W.T @ W
    np.testing.assert_allclose(gram, np.eye(min(out, d)), atol=1e-9)


# --- layers -----------------------------------------------------------------------------------------------------------


def layer(call: str, shape: str) -> nnc.Model:
    text = f"""
model M(x: f32[{shape}]) -> (y: f32[{shape}]) {{
    y = x |> {call}
}}
train M(x) {{
    loss = sum(y^3)
    optimizer = SGD(0)
}}
"""
    return nnc.compile(text, dtype="f64")


def normalised(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5)


@pytest.mark.parametrize(("call", "axes"), [("LayerNorm()", (3,)), ("InstanceNorm()", (2, 3))])
def test_normalisation_of_one_example(call: str, axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 6)) * 3 + 1
    np.testing.assert_allclose(layer(call, "B, 4, 5, 6").predict(x), normalised(x, axes), atol=1e-12)


def test_group_norm() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    expected = normalised(x.reshape(3, 2, 2, 5), (2, 3)).reshape(x.shape)
    np.testing.assert_allclose(layer("GroupNorm(groups = 2)", "B, 4, 5").predict(x), expected, atol=1e-12)


def test_rms_norm() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    expected = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer("RmsNorm()", "B, 4").predict(x), expected, atol=1e-12)


def test_batch_norm_normalises_by_the_batch_and_remembers_the_unbiased_variance() -> None:
    net = layer("BatchNorm()", "B, 3, 5")
    x = np.random.default_rng(0).standard_normal((4, 3, 5)) * 2 + 1
    np.testing.assert_allclose(net.predict(x), x / math.sqrt(1 + 1e-5), atol=1e-12)  # nothing seen yet
    assert net.loss(x) == pytest.approx(np.sum(normalised(x, (0, 2)) ** 3))
    net.train_step(x)
    mean, var = x.mean((0, 2)), x.var((0, 2), ddof=1)
    np.testing.assert_allclose(net.state["M.batchnorm_1.running_mean"], 0.1 * mean, atol=1e-14)
    np.testing.assert_allclose(net.state["M.batchnorm_1.running_var"], 0.9 + 0.1 * var, atol=1e-14)


def test_embedding_looks_up_rows_and_its_gradient_adds_up() -> None:
    net = nnc.compile("""
model Words(i: i32[B]) -> (y: f32[B, 3]) {
    y = i |> Embedding(5, 3)
}
train Words(i) {
    loss = sum(y)
    optimizer = SGD(0)
}
""")
    W = net.params["Words.embedding_1.W"]
    i = i32([4, 0, 4, 2])
    np.testing.assert_array_equal(net.predict(i), W[i])
    np.testing.assert_array_equal(net.gradients(i)["Words.embedding_1.W"][:, 0], [1, 0, 1, 0, 2])


# --- clipping and metrics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip", "factor"), [("global_norm(1.0)", 0.2), ("global_norm(10.0)", 1.0)])
def test_global_norm_scales_all_gradients_together(clip: str, factor: float) -> None:
    net = nnc.compile(
        f"""
model M(x: f32[B]) -> (y: f32) {{
    weight a: f32 = 0
    weight b: f32 = 0
    y = 3 * a + 4 * b
}}
train M(x) {{
    loss = y
    optimizer = SGD(1)
    clip = {clip}
}}
""",
        dtype="f64",
    )
    net.train_step(np.zeros(1))
    found = [float(net.params["M.a"]), float(net.params["M.b"])]
    np.testing.assert_allclose(found, [-3 * factor, -4 * factor], rtol=1e-12)


def test_metrics() -> None:
    logits = f32([[1, 3, 2], [5, 1, 4], [0, 1, 2], [2, 1, 0]])
    label = i32([1, 2, 2, 1])
    two = "logits: f32[B, C], label: i32[B]"
    assert nnc.function(f"fn f({two}) -> f32 = accuracy(logits, label)")(logits, label) == pytest.approx(0.5)
    for k, share in ((1, 0.5), (2, 1.0)):
        top = nnc.function(f"fn f({two}) -> f32 = top_k_accuracy(logits, label, {k})")
        assert top(logits, label) == pytest.approx(share)
        assert top(0 * logits, label) == pytest.approx(np.mean(label < k))  # of equals the first
        assert top(np.nan * logits, label) == 0
    np.testing.assert_array_equal(
        nnc.function(f"fn f({two}) -> f32[C, C] = confusion(logits, label)")(logits, label),
        [[0, 0, 0], [1, 1, 0], [1, 0, 1]],
    )
    planes = "z: f32[B, C, H], l: i32[B, H]"
    z, labels = f32(np.eye(3)[[[0, 1, 2, 0]]].transpose(0, 2, 1)), i32([[0, 1, -1, 1]])
    hits = nnc.function(f"fn f({planes}) -> f32 = accuracy(z, l, axis = 1, ignore = -1)")
    assert hits(z, labels) == pytest.approx(2 / 3)
    assert hits(z, labels * 0 - 1) == 0
    y, t = f32([1, 2, 4]), f32([1, 3, 5])
    pair = "y: f32[B], t: f32[B]"
    assert nnc.function(f"fn f({pair}) -> f32 = mean_squared_error(y, t)")(y, t) == pytest.approx(2 / 3)
    assert nnc.function(f"fn f({pair}) -> f32 = r2(y, t)")(y, t) == pytest.approx(1 - 2 / 8)
    assert nnc.function(f"fn f({two}) -> f32 = perplexity(0 * logits, label)")(logits, label) == pytest.approx(3)

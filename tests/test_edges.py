"""Gradients at the edges: the branch that is not taken, corners, norms and powers at 0, rows that see nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest

import nnc
from nnc.compiler.autodiff.differentiate import differentiate
from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder, Graph
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.calculus import Value
from nnc.compiler.graph.ops.op import CONTRACT, KERNEL, MAP, REDUCE, VIEW, Op, Sample
from nnc.compiler.passes import ALWAYS, REWRITE, run
from nnc.compiler.types.tensors import FLOATS, TensorType

EDGES = [0.0, -0.0, 1.0, -1.0, -3.0, 2.5, 1e200, -1e200, np.inf, -np.inf, np.nan]
NO_SLOPE = ("stop_grad", "straight_through", "in_range")  # nothing flows, or not what differences say


def total(x: Value) -> Value:
    return x.apply("reduce_sum", axes=tuple(range(x.type.rank)))


def derivative(b: Builder, y: Value, x: Value) -> Value:
    return Value(b, b.emit("item", b.emit("grad", y.name, x.name), index=0))


def values(graph: Graph, inputs: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The results of the graph as it is written and as it is optimised."""
    return [at(inputs) for at in functions(graph)]


def functions(graph: Graph) -> list[Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]]:
    """The graph as it is written and as it is optimised."""

    def called(g: Graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            return evaluate(g, inputs)[0]

    return [partial(called, g) for g in (differentiate(graph), run(REWRITE, run(ALWAYS, graph)))]


# --- every operator, in both branches --------------------------------------------------------------------------------

SCALAR = [
    op for op in OPS.values() if op.kind == MAP and callable(op.grad) and op.name not in (*NO_SLOPE, "where", "cast")
]
SCALAR = [op for op in SCALAR if any(getattr(t, "dtype", "") == "f32" for s in op.samples for t in s.types)]


def slopes(op: Op, at: np.ndarray, k: int) -> tuple[float, float]:
    """The first and the second derivative of an operator with respect to operand k, by differences."""

    def f(h: float) -> float:
        moved = [np.asarray(x + h * (j == k), np.longdouble) for j, x in enumerate(at)]
        return np.asarray(op.reference(moved, {}, TensorType("f64")))[()]

    h = np.longdouble(1e-4)
    first = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
    second = (16 * (f(h) + f(-h)) - (f(2 * h) + f(-2 * h)) - 30 * f(0)) / (12 * h * h)
    return float(first), float(second)


@pytest.mark.parametrize("op", SCALAR, ids=lambda op: op.name)
def test_the_branch_that_is_not_taken_has_no_gradient(op: Op) -> None:
    """where(c, f(x), x^2 / 4) and where(not c, x^2 / 4, f(x)), once and twice differentiated, where f is taken at one
    point and not taken at all the edges."""
    count = len(op.samples[0].types)
    rng = np.random.default_rng(1)
    sample = op.samples[0]
    low, high = max(sample.low, -1.5), min(sample.high, 1.5)
    points = np.array([rng.uniform(low, high, count), *product(EDGES, repeat=count)]).T
    taken = np.arange(points.shape[1]) == 0
    for k, flipped in product(range(count), (False, True)):
        b = Builder("g", OPS)
        xs = [Value(b, b.emit("input", name=f"x{j}", type=TensorType("f64", taken.shape))) for j in range(count)]
        c = Value(b, b.emit("input", name="c", type=TensorType("bool", taken.shape)))
        f, other = xs[0].apply(op.name, *xs[1:]), xs[k] * xs[k] * 0.25
        y = c.apply("not").where(other, f) if flipped else c.where(f, other)
        first = derivative(b, total(y), xs[k])
        second = derivative(b, total(first), xs[k]) if op.name != "trigamma" else first  # no operator is its second
        graph = b.finish((("first", first.name), ("second", second.name)))
        d1, d2 = slopes(op, points[:, 0], k)
        d2, e2 = (d2, np.full(points.shape[1] - 1, 0.5)) if second is not first else (d1, points[k, 1:] / 2)
        for got in values(graph, {**{f"x{j}": p for j, p in enumerate(points)}, "c": taken}):
            np.testing.assert_allclose(got["first"][0], d1, rtol=1e-7, atol=1e-7)
            np.testing.assert_allclose(got["second"][0], d2, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(got["first"][1:], points[k, 1:] / 2)
            np.testing.assert_array_equal(got["second"][1:], e2)


MIXING = [
    (op, sample, k)
    for op in OPS.values() if callable(op.grad) and op.kind in (VIEW, REDUCE, KERNEL, CONTRACT)
    for sample in op.samples
    for k, t in enumerate(sample.types) if isinstance(t, TensorType) and t.dtype in FLOATS and t.size
]  # fmt: skip
BETWEEN = [(op, s, k) for op, s, k in MIXING if op.kind != CONTRACT and not (op.name == "recurrence" and k == 0)]


def drawn(op: Op, sample: Sample, b: Builder) -> tuple[list[Value], dict[str, np.ndarray]]:
    """The operands of a sample, floats as f64 and above 0, and arguments for them."""
    rng = np.random.default_rng(2)
    operands, given = [], {}
    for j, t in enumerate(sample.types):
        floats = t.dtype in FLOATS
        t = t.with_dtype("f64") if floats else t
        operands.append(Value(b, b.emit("input", name=f"x{j}", type=t)))
        low, high = (0.5, 2.0) if floats else (sample.low, sample.high)
        given[f"x{j}"] = rng.uniform(low, high, t.shape).astype("f8" if floats else "i8" if t.dtype == "i64" else "i4")
    return operands, given


@pytest.mark.parametrize(("op", "sample", "k"), MIXING, ids=[f"{o.name}{s.attrs}{k}" for o, s, k in MIXING])
def test_a_choice_behind_what_mixes_elements_keeps_the_slopes_of_the_others(op: Op, sample: Sample, k: int) -> None:
    """where(c, op(.., x, ..), 0) and its slope, twice, against differences along a direction."""
    rng, b = np.random.default_rng(3), Builder("g", OPS)
    operands, given = drawn(op, sample, b)
    y = Value(b, b.emit(op.name, *(o.name for o in operands), **sample.attrs))
    c = Value(b, b.emit("input", name="c", type=y.type.with_dtype("bool")))
    weight = Value(b, b.emit("input", name="w", type=y.type))
    value = total(c.where(y.apply("sin") * weight, 0))
    first = derivative(b, value, operands[k])
    second = derivative(b, total(first.apply("sin")), operands[k])
    names = {"y": y, "value": value, "slopes": total(first.apply("sin")), "first": first, "second": second}
    graph = b.finish(tuple((key, v.name) for key, v in names.items()))
    given |= {"c": rng.random(y.shape) < 0.5, "w": rng.normal(size=y.shape)}
    along = rng.normal(size=operands[k].shape)
    for at in functions(graph):
        given["c"] &= np.isfinite(at(given)["y"])  # the greatest of nothing
        here = at(given)
        ahead, behind = (at({**given, f"x{k}": given[f"x{k}"] + h * along}) for h in (1e-5, -1e-5))
        for of, slopes in (("value", "first"), ("slopes", "second")):
            by_differences = (ahead[of] - behind[of]) / 2e-5
            np.testing.assert_allclose(np.sum(here[slopes] * along), by_differences, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("op", "sample", "k"), BETWEEN, ids=[f"{o.name}{s.attrs}{k}" for o, s, k in BETWEEN])
def test_what_lies_between_choice_and_slope_does_not_matter(op: Op, sample: Sample, k: int) -> None:
    """where(c, op(.., log x, ..), 0) for x = 0 in some places and c where that is not seen: there the gradient is 0,
    and elsewhere it is the same as if there were another number."""
    rng, b = np.random.default_rng(4), Builder("g", OPS)
    operands, given = drawn(op, sample, b)
    x = operands[k]
    operands[k] = x.apply("log")
    y = Value(b, b.emit(op.name, *(o.name for o in operands), **sample.attrs))
    c = Value(b, b.emit("input", name="c", type=y.type.with_dtype("bool")))
    weight = Value(b, b.emit("input", name="w", type=y.type))
    first = derivative(b, total(c.where(y * weight, 0)), x)
    second = derivative(b, total(first * first), x)
    graph = b.finish((("y", y.name), ("first", first.name), ("second", second.name)))
    none = rng.random(x.shape) < 0.3
    none.reshape(-1)[0] = True
    edge = np.where(none, 0.0, given[f"x{k}"])
    with np.errstate(all="ignore"):
        seen = {
            **given,
            "w": rng.normal(size=y.shape),
            "c": np.ones(y.shape, bool),
            f"x{k}": np.where(none, np.nan, edge),
        }
        seen["c"] = np.isfinite(evaluate(differentiate(graph), seen)[0]["y"])
    for want, got in zip(values(graph, {**seen, **given}), values(graph, {**seen, f"x{k}": edge}), strict=True):
        for name in ("first", "second"):
            np.testing.assert_array_equal(got[name], np.where(none, 0, want[name]))


# --- as it is written ------------------------------------------------------------------------------------------------


def slope(text: str, x: object, order: int = 1) -> np.ndarray:
    """The gradient of the sum of an expression in x, a list of numbers or of rows, compiled."""
    x = np.asarray(x, np.float64)
    for _ in range(order):
        text = f"grad(sum({text}), x)"
    return nnc.function(f"fn f(x: f64[{'N' if x.ndim == 1 else 'N, M'}]) = {text}")(x)


@pytest.mark.parametrize(
    ("text", "x", "expected"),
    [
        ("where(x > 0, sqrt(x), x)", [-1, 0, 4], [1, 1, 0.25]),
        ("where(x <= 10, exp(x), 1.0)", [np.nan, 0, 1000], [0, 1, 0]),
        ("where(x > 2, log(x), 2 * x)", [0, -1, 4], [2, 2, 0.25]),
        ("where(x != 0, sin(x) / x, 1.0)", [0, np.pi], [0, -1 / np.pi]),
        ("where(x > 0, where(x > 1, sqrt(x - 1), log(x)), x)", [-1, 0, 0.5, 1, 2], [1, 1, 2, 1, 0.5]),
        ("where(x > 0, x * rsqrt(x), 0)", [0, 4], [0, 0.25]),
        ("maximum(log(x), -10)", [0, 4], [0, 0.25]),
        ("minimum(5, 1 / x)", [0, 1], [0, -1]),
        ("clip(log(x), -10, 1)", [0, 2, 100], [0, 0.5, 0]),
        ("where(log(x) > 0, log(x), 0)", [-1, 0, 0.5, 2], [0, 0, 0, 0.5]),  # relu, spelled out
        ("max(log(expand(x, 0)), axis = 1)", [0, 2], [0, 0.5]),
        ("sort(log(x))[1:2]", [0, 2], [0, 0.5]),
        ("log(x)[1:2]", [0, 2], [0, 0.5]),
        ("gather(log(x), 1 + iota(1) * 0)", [0, 2], [0, 0.5]),
        ("prod(where(x > 0, sqrt(x), 1))", [0, 4], [0, 0.25]),
        ("cumsum(where(x > 0, sqrt(x), 1), 0)", [0, 4], [0, 0.25]),
        ("checkpoint(where(x > 0, sqrt(x), x))", [-1, 4], [1, 0.25]),
        ("where(x > 0, checkpoint(sin(sqrt(x))), x)", [0, np.pi**2], [1, -0.5 / np.pi]),
        ("where(sum(x^2, axis = 1) > 0, sqrt(sum(x^2, axis = 1)), 0)", [[0, 0], [3, 4]], [[0, 0], [0.6, 0.8]]),
        ("where(sum(x, axis = 1) > 0, log(sum(x, axis = 1)), 0)", [[0, 0], [1, 3]], [[0, 0], [0.25, 0.25]]),
        ("where(sum(x, axis = 1, keep = true) > 0, log(sum(x, axis = 1, keep = true)) * x^0, 0)", [[0, 0], [1, 3]],
         [[0, 0], [0.5, 0.5]]),
        ("where(x > 0, x.T.T^0.5, flip(flip(x, 0), 0))", [[-1, 0], [4, 16]], [[1, 1], [0.25, 0.125]]),
    ],
)  # fmt: skip
def test_a_branch_not_taken_does_not_reach_the_gradient(text: str, x: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(slope(text, x), expected, rtol=1e-13)


def test_a_zero_that_is_a_value_is_no_choice() -> None:
    """The derivative of sqrt(x)^2 at 0 is 1, found as 0 times infinity: NaN, and not 0."""
    assert np.isnan(slope("where(x >= 0, sqrt(x)^2, 0)", [0])).all()
    assert np.isposinf(slope("where(x >= 0, sqrt(x), 0)", [0])).all()


SCANS = {
    "in a turn": "scan t in 0..3 {\n h = where(x[t] > 0, sqrt(x[t]), h)\n }\n y = h",
    "in a turn that is carried": "scan t in 0..3 {\n h = h + where(x[t] > 0, 2 * sqrt(x[t]), h^2)\n }\n y = h",
    "what is collected": "scan t in 0..3 {\n h = h + x[t]\n s[t] = sqrt(x[t])\n }\n y = sum(where(x > 0, s, x^2)) + h",
}  # fmt: skip


@pytest.mark.parametrize("how", SCANS)
def test_scans_choose_too(how: str) -> None:
    f = nnc.function(f"fn f(x: f64[3]) -> f64[3] {{\n h = 0.1 * sum(x * 0)\n {SCANS[how]}\n return grad(y, x)\n }}")
    h = nnc.function(f"fn f(x: f64[3]) -> f64 {{\n h = 0.1 * sum(x * 0)\n {SCANS[how]}\n return y\n }}")
    at = np.array([4.0, 0.0, 9.0])
    expected = [(h(at + d) - h(at - d)) / 2e-6 for d in 1e-6 * np.eye(3)]
    expected[1] = (h(at - [0, 1e-6, 0]) - h(at)) / -1e-6  # from the side where nothing else is taken
    np.testing.assert_allclose(f(at), expected, atol=1e-5)


# --- corners, norms, powers ------------------------------------------------------------------------------------------


def test_at_a_corner_the_slope_is_zero() -> None:
    for text in ("relu(x)", "maximum(x, 0)", "maximum(0, x)", "clip(x, 0, 1)", "clip(x, -1, 0)", "where(x > 0, x, 0)",
                 "abs(x)", "minimum(x, 0)", "-minimum(0, -x)", "sqrt(x^2)"):  # fmt: skip
        np.testing.assert_array_equal(slope(text, [0]), 0, err_msg=text)
    np.testing.assert_array_equal(slope("where(x >= 0, x, 0)", [0]), 1)  # the branch that is taken


@pytest.mark.parametrize(
    "text",
    ["norm(x)", "sqrt(sum(x^2))", "sum(x * x)^0.5", "sqrt(mean(x^2))", "sqrt(variance(x))", "sqrt(x @ x)",
     "sqrt(2 * (x[0]^2 + x[1]^2) / 3)", "sqrt(sum(x^4))"],
)  # fmt: skip
def test_the_norm_of_nothing_has_no_slope(text: str) -> None:
    """As |x| at 0, and so has its derivative; elsewhere it is what differences say."""
    for order in (1, 2):
        np.testing.assert_array_equal(slope(text, [0, 0, 0], order), 0)
    f = nnc.function(f"fn f(x: f64[N]) = {text}")
    at = np.array([0.3, -0.4, 0.0])
    np.testing.assert_allclose(slope(text, at), [(f(at + d) - f(at - d)) / 2e-6 for d in 1e-6 * np.eye(3)], atol=1e-9)


def test_roots_of_what_is_no_square_are_infinitely_steep() -> None:
    for text in ("sqrt(x)", "sqrt(sum(x * 1))", "x^0.5", "sqrt(4 * x)"):
        np.testing.assert_array_equal(slope(text, [0]), np.inf, err_msg=text)


def test_a_penalty_on_the_norm_of_biases_that_are_zero_can_be_trained() -> None:
    net = nnc.compile(
        """model M(x: f32[B, 2]) -> (y: f32[B, 1]) { return x |> Dense(1) }
        train M(x, t: f32[B, 1]) {
            loss = mean((y - t)^2) + 0.1 * norm(biases)
            optimizer = SGD(0.1)
        }"""
    )
    x = np.eye(2, dtype=np.float32)
    net.fit(x, x[:, :1] + 1, epochs=3)
    assert all(np.isfinite(p).all() and p.any() for p in net.params.values())


@pytest.mark.parametrize("how", ["x^{}", "x^(stop_grad(x * 0) + {})"])
@pytest.mark.parametrize("power", range(5))
def test_whole_powers_have_all_derivatives_at_zero(power: int, how: str) -> None:
    """d^n x^p = p (p - 1) .. (p - n + 1) x^(p - n)."""
    x = np.array([-2.0, 0.0, 3.0])
    text, factor = how.format(power), 1
    for order in range(4):
        expected = factor * x ** max(power - order, 0)
        np.testing.assert_allclose(slope(text, x, order) if order else expected, expected, err_msg=f"{order}")
        factor *= power - order


# --- attention and softmax -------------------------------------------------------------------------------------------


def test_a_row_of_nothing_is_chosen_by_nobody() -> None:
    """softmax is 0 there, its logarithm -inf, and the gradients are finite."""
    x = np.array([[-np.inf, -np.inf, -np.inf], [1, 2, -np.inf]])
    f = nnc.function("fn f(x: f64[N, M]) = [softmax(x), log_softmax(x)]")
    p, log_p = f(x)
    e = np.exp([1.0, 2.0])
    np.testing.assert_allclose(p, [[0, 0, 0], [*e / e.sum(), 0]], rtol=1e-14)
    np.testing.assert_allclose(log_p, [[-np.inf] * 3, [*np.log(e / e.sum()), -np.inf]], rtol=1e-14)
    for text in (
        "softmax(x)^2",
        "logsumexp(x)",
        "softmax(x, axis = 0)",
        "where(isfinite(log_softmax(x)), log_softmax(x), 0)",
    ):
        got = slope(text, x)
        assert np.isfinite(got).all() and not got[0].any(), text


@pytest.mark.parametrize("block", [0, 2])
def test_a_query_that_sees_no_key_gets_nothing(block: int) -> None:
    """As torch: its result is 0, and so is its gradient; others do not notice."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 4, 2, 3)).astype(np.float32) for _ in range(3))
    bias = np.where(rng.random((4, 4)) < 0.4, -np.inf, 0).astype(np.float32)
    bias[1], bias[2] = -np.inf, 0
    attend = "attend(q, k, v, bias)"
    if block:
        attend = "concat([attend(q[:, 0:2], k, v, bias[0:2]), attend(q[:, 2:4], k, v, bias[2:4])], axis = 1)"
    result = nnc.function(
        f"""fn f(q: f32[B, 4, H, D], k: f32[B, 4, H, D], v: f32[B, 4, H, D], bias: f32[4, 4]) {{
            y = {attend}
            (a, b, c) = grad(sum(y * y), [q, k, v])
            return [y, a, b, c]
        }}"""
    )
    y, dq, dk, dv = result(q, k, v, bias)
    seen = [0, 2, 3]
    kept = result(q, k, v, np.where(np.arange(4)[:, None] == 1, 0, bias).astype(np.float32))
    assert not y[:, 1].any() and not dq[:, 1].any() and all(np.isfinite(d).all() for d in (y, dq, dk, dv))
    np.testing.assert_allclose(y[:, seen], kept[0][:, seen], rtol=1e-6)
    np.testing.assert_allclose(dq[:, seen], kept[1][:, seen], rtol=1e-5, atol=1e-6)


def test_the_tail_of_gelu_tanh_does_not_cancel() -> None:
    x = np.linspace(-9, 0, 500, dtype=np.float32)
    wide = x.astype(np.float64)
    expected = wide / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    got = nnc.function("fn f(x: f32[N]) = gelu_tanh(x)")(x)
    np.testing.assert_allclose(got[x > -6], expected[x > -6], rtol=2e-5)
    np.testing.assert_allclose(got, expected, atol=4e-8)


def test_the_tail_of_gelu_does_not_cancel() -> None:
    x = np.linspace(-12, 0, 300, dtype=np.float32)
    expected = [t / 2 * math.erfc(-t / math.sqrt(2)) for t in x.astype(float)]
    np.testing.assert_allclose(nnc.function("fn f(x: f32[N]) = gelu(x)")(x), expected, rtol=2e-5)

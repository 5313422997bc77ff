"""A value that is not finite is traced to the expression that made it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler import origin
from nnc.compiler.graph.ops import contraction
from nnc.runtime.cli import main

X = np.random.default_rng(1).uniform(1, 2, (8, 3)).astype("f4")
X[3] = 0
HEAD = "model M(x: f32[B, 3]) -> (y: f32[B]) {\n    weight w: f32[3] ~ constant(0.1)\n    z = x @ w\n"
TRAIN = "train M(x, t: f32[B]) {\n    loss = mean((y - t)^2)\n    optimizer = SGD(lr = 0.1)\n}\n"


def caught(body: str, train: str = TRAIN, **settings: object) -> nnc.NonFiniteError:
    """The error of a training in whose model these lines begin in line 4; row 3 of `x` and of `z` is 0."""
    net = nnc.compile(f"{HEAD}    {body}\n}}\n{train}")
    with pytest.raises(nnc.NonFiniteError) as error:
        net.fit(X, X[:, 0] + 1, epochs=1, shuffle=False, **settings)
    return error.value


@pytest.mark.parametrize(
    ("body", "line", "text", "told"),
    [
        ("y = log(z) + relu(z)", 4, "log(z)", "-inf at [3], of `z` = 0 (in [0, "),
        ("y = 2 * (z / z)", 4, "(z / z)", "nan at [3], of `z` = 0 (in [0, "),
        ("y = 0 * log(z)", 4, "log(z)", "-inf at [3], of `z` = 0"),
        ("y = sqrt(z - 0.2)", 4, "sqrt(z - 0.2)", "nan at [3], of `z - 0.2` = -0.2 (in [-0.2, "),
        (
            "h = 9\n    e = exp(1000 * x + 0 * w)\n    y = e[:, 0] / sum(e, axis = 1)",
            5,
            "exp(1000 * x + 0 * w)",
            "inf at [0, 0], of `1000 * x + 0 * w` = ",
        ),
        ("y = exp(1000 * z)", 4, "exp(1000 * z)", "inf at [0], of `1000 * z` = "),
        ("y = sqrt(z)", 4, "sqrt(z)", "the derivative is inf at [3], of `y` = 0 (in [0, "),
        ("c = z\n    scan i in 0..4 {\n        c = log(c)\n    }\n    y = c", 6, "log(c)", "nan at [0], of `c` = -"),
        # an infinity that is written, as a mask is, is no origin; nor is what is left out
        ("m = where(z > 0, z, -inf)\n    y = where(m < 0, 0, m) / (z - z)", 5, None, "nan at [3], of"),
        ("m = where(x > 0, x + w, -inf)\n    y = max(m, axis = 1) - m[:, 0]", 5, None, "nan at [3], of"),
        ("a = where(z > 0, log(stop_grad(z)), 0)\n    y = a + sqrt(z - 1)", 5, "sqrt(z - 1)", "nan at [0], of"),
    ],
)
def test_what_is_planted_is_named(body: str, line: int, text: str | None, told: str) -> None:
    error = caught(body)
    assert error.code == "E0630" and (error.epoch, error.step) == (1, 1) and error.span is not None
    assert error.span.position[0] == line and text in (error.span.text, None)
    assert told in str(error) and error.diagnostics[0].labels[0].text in str(error)


def test_ranges_are_of_what_was_computed() -> None:
    error = caught("y = log(z - 0.2)")
    z = X @ np.full(3, 0.1, "f4") - np.float32(0.2)
    ((name, (low, high)),) = error.operands.items()
    assert name == "z - 0.2"
    np.testing.assert_allclose((low, high), (z.min(), z.max()), rtol=1e-5)


def test_operands_are_called_as_the_program_calls_them() -> None:
    """By the name of a value, of a parameter, or by what they are computed from; numbers are known."""
    far = "big = concat([x, 1e38 * x], axis = 1)\n    y = big @ concat([w, 1e38 * w]) + z"
    assert list(caught(far).operands) == ["big", "concat([w, 1e38 * w])"]
    assert list(caught("y = exp(z * 1e9) * w[0]").operands) == ["z * 1e9"]
    assert list(caught("y = (x * 1e38) @ (w * 1e38)").operands) == ["(x * 1e38)", "(w * 1e38)"]
    assert list(caught("y = x @ w / w[0] / (z - z)").operands) == ["x @ w / w[0]", "(z - z)"]


def test_where_an_infinity_becomes_a_nan_is_shown_too() -> None:
    said = str(caught("e = exp(1000 * x + 0 * w)\n    y = e[:, 0] / sum(e, axis = 1)"))
    assert "`loss` is nan; the first is `exp(1000 * x + 0 * w)` at <text>:4:9" in said
    assert "- then nan at [0], of `e` = inf" in said


def test_what_the_library_makes_is_shown_at_the_call_and_in_the_library() -> None:
    error = caught("y = z * weighted_mean(x[:, 0], 0 * z)")
    assert error.span is not None and error.span.text == "weighted_mean(x[:, 0], 0 * z)"
    assert error.operands == {"sum(weights * values)": (0, 0), "sum(weights)": (0, 0)}
    assert "--> std/losses.nn:" in str(error) and "by this line of the library" in str(error)


def test_an_optimiser_that_overflows_is_named_by_its_setting() -> None:
    error = caught("y = z", TRAIN.replace("SGD(lr = 0.1)", "Adam(lr = 1e38, beta1 = 0.999, eps = 0)"), check_nan=True)
    assert error.span is not None and error.span.text.startswith("optimizer = Adam")
    assert "`M.w` after the update" in str(error) and "--> std/optimizers.nn:" in str(error)


class Batches:
    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from ((X[k : k + 2], X[k : k + 2, 0]) for k in (0, 2, 4, 6))


BAD_METRIC = TRAIN.replace("optimizer", "metric odd = sum(1 / (t - t))\n    batch = 2\n    optimizer")


def test_a_metric_matters_only_where_each_step_is_checked() -> None:
    net = nnc.compile(f"{HEAD}    y = z\n}}\n{BAD_METRIC}")
    assert net.fit(X, X[:, 0], epochs=1)[0]["odd"] == np.inf
    error = caught("y = z", BAD_METRIC, check_nan=True)
    assert error.span is not None and error.span.text == "1 / (t - t)" and error.step == 1


def test_with_checks_the_step_that_breaks_a_variable_is_named() -> None:
    """The third step makes a weight infinite, which no loss shows before the fourth."""
    train = (
        TRAIN.replace("t:", "v:").replace("- t)", "- v)").replace("lr = 0.1", "lr = where(t == 3, 1e38, 0.01) * 1e3")
    )
    train = train.replace("    optimizer", "    batch = 2\n    optimizer")
    error = caught("y = z", train, check_nan=True)
    assert error.step == 3 and "`M.w` after the update" in str(error)
    with pytest.raises(nnc.NonFiniteError, match=r"epoch 1, step 3: `M\.w` after the update"):
        nnc.compile(f"{HEAD}    y = z\n}}\n{train}").fit(Batches(), epochs=1, check_nan=True)


def test_what_would_take_long_is_looked_for_where_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "_QUICK", 0)
    error = caught("y = log(z)")
    assert error.span is None and error.operands == {} and "fit(check_nan=True)" in str(error)
    error = caught("y = log(z)", check_nan=True)
    assert error.span is not None and error.span.text == "log(z)"


def test_a_large_product_of_what_is_not_finite_is_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is at once, bit for bit but for the order of its sums."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5, 3)), rng.normal(size=(3, 6, 5))
    a[2, 1, 0] = np.inf
    b[1, 4, 2] = np.nan
    operands = [a, b], [[0, 1, 2], [2, 3, 1]], [3, 0], [7, 5, 3, 6]
    whole = contraction._sum_of_products(*operands)
    monkeypatch.setattr(contraction, "_AT_ONCE", 20)
    np.testing.assert_allclose(contraction._sum_of_products(*operands), whole)
    assert np.isnan(whole[4]).all() and np.isinf(whole[:4, 2]).all() and np.isfinite(whole[0, :2]).all()


def test_the_command_shows_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "d.npz", x=X, t=X[:, 0])
    train = TRAIN.replace("    loss", '    data = npz("d.npz")\n    loss')
    file = tmp_path / "m.nn"
    file.write_text(f"{HEAD}    y = log(z)\n}}\n{train}")
    assert main(["train", str(file), "--out", str(tmp_path / "run"), "--check-nan", "--quiet"]) == 6
    said = capsys.readouterr().err
    assert f"--> {file}:4:9" in said and "^^^^^^ -inf at [" in said and "of `z` = 0" in said

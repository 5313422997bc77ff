"""Training: reproducible, resumable anywhere bit for bit, stoppable, and nothing lost when it goes wrong."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

from nnc.compiler.manifest import MetricSpec
from nnc.dsl.errors import ArgumentError, ArgumentTypeError, NonFiniteError
from nnc.runtime.data import normalize
from nnc.runtime.progress import History, Report
from nnc.runtime.train import sweep
from nnc.runtime.train.stop import evaluate_condition


def state(model) -> dict[str, bytes]:
    return {path: a.tobytes() for path, a in model.variables.items()}


def rows(history: History) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def test_fit_learns(net, examples):
    history = net.fit(*examples, epochs=20)
    assert [r["epoch"] for r in history] == list(range(1, 21))
    assert history[-1]["loss"] < 0.01 < history[0]["loss"] and "size" not in history[0]
    assert isinstance(history[0]["errors"], int) and history.column("loss")[0] == history[0]["loss"]
    assert net.variables["train/t"] == 20 * 6 and net.variables["train/epoch"] == 20
    assert net.variables["train/steps"] == 20 * 6


def test_one_epoch_is_what_steps_would_do(make, examples):
    x, t = examples
    a, b = make(shuffle=False), make()
    (row,) = a.fit(x, t, epochs=1)
    losses = [(b.train_step(x[k : k + 8], t[k : k + 8]), len(x[k : k + 8])) for k in range(0, 43, 8)]
    assert {k: v for k, v in state(a).items() if k != "train/epoch" and k != "train/steps"} == {
        k: v for k, v in state(b).items() if k != "train/epoch" and k != "train/steps"}  # fmt: skip
    assert row["loss"] == sum(loss * n for loss, n in losses) / 43
    assert losses[-1][1] == 3  # the last batch is ragged


def test_the_same_seed_gives_the_same_bits(make, examples):
    a, b, c = make(), make(), make(seed=8)
    runs = [rows(m.fit(*examples, epochs=4)) for m in (a, b, c)]
    assert runs[0] == runs[1] != runs[2] and state(a) == state(b) != state(c)


def test_settings_come_from_the_block_or_the_call(make, examples):
    assert len(make(epochs=2).fit(*examples)) == 2
    native = (net := make(batch=None)).session.natives["train"]
    net.fit(*examples, epochs=1)
    assert native.calls == [(43,)]
    native = (net := make()).session.natives["train"]
    net.fit(*examples, epochs=1, batch=20)
    assert native.calls == [(20,), (20,), (3,)]
    plain = make(shuffle=True)
    plain.fit(*examples, epochs=1, shuffle=False)
    assert state(plain)["Line.W"] == (lambda m: m.fit(*examples, epochs=1) and state(m))(make(shuffle=False))["Line.W"]


@pytest.mark.parametrize(("kwargs", "kind"), [
    ({"epochs": -1}, ArgumentError), ({"batch": 0}, ArgumentError), ({"epochs": 1.5}, ArgumentTypeError),
    ({"epochs": True}, ArgumentTypeError), ({"validation": 2}, ArgumentTypeError),
    ({"validation": (1,)}, ArgumentTypeError), ({"validation": "yes"}, ArgumentTypeError),
])  # fmt: skip
def test_wrong_settings(net, examples, kwargs, kind):
    with pytest.raises(kind):
        net.fit(*examples, **kwargs)


def test_wrong_data(net, examples):
    x, t = examples
    with pytest.raises(ArgumentError, match="B is 43 in `x`"):
        net.fit(x, t[:5])
    with pytest.raises(ArgumentError, match="E0613"):
        net.fit(x[:0], t[:0])
    with pytest.raises(ArgumentError, match=r"E0612.*names no data"):
        net.fit()


def test_validation_in_every_form(make, examples):
    x, t = examples
    expected = None
    for validation in ((x[:9], t[:9]), {"x": x[:9], "target": t[:9]}, [x[:9].tolist(), t[:9].tolist()]):
        history = make().fit(x, t, validation=validation, epochs=2)
        expected = expected or rows(history)
        assert rows(history) == expected and {"val_loss", "val_errors"} <= set(history[0])
    native = (net := make()).session.natives["train"]
    net.fit(x, t, validation=0.5, epochs=1)
    assert sum(c[0] for c in native.calls) == 21
    assert "val_loss" in make(validation=0.25).fit(x, t, epochs=1)[0]


def test_evaluate_weighs_by_examples(net, examples):
    x, t = examples
    found = net.evaluate(x, t)
    error = net.predict(x) - t
    assert found["loss"] == pytest.approx(np.mean(error**2), rel=1e-6)
    assert found["errors"] == int(np.sum(abs(error) > 0.5)) and list(found) == ["loss", "errors"]
    assert net.evaluate(x, t, batch=1)["errors"] == found["errors"]
    assert net.evaluate(x=x, target=t) == found


def test_evaluate_goes_on_after_a_value_that_is_not_finite(net, examples):
    x, t = examples
    t = t.copy()
    t[3] = np.inf
    found = net.evaluate(x, t, batch=5)
    assert found["loss"] == np.inf
    assert found["errors"] >= net.evaluate(x[5:], t[5:], batch=5)["errors"] > 0


def test_stop_when(make, examples):
    history = make(stop=["<", ["metric", "loss"], ["const", 1.0]]).fit(*examples, epochs=50)
    assert history.stopped == "stop when" and history[-1]["loss"] < 1.0 <= history[-2]["loss"]
    hidden = make(stop=[">", ["metric", "size"], ["const", 0]]).fit(*examples, epochs=50)
    assert len(hidden) == 1  # a hidden metric can be asked


def test_conditions():
    metrics = {"a": 3.0, "b": 4}
    for expression, value in [
        (["+", ["metric", "a"], ["*", ["const", 2], ["metric", "b"]]], 11), (["neg", ["metric", "a"]], -3),
        (["-", ["metric", "a"], ["const", 1]], 2), (["epoch"], 5),
        (["or", [">=", ["epoch"], ["const", 5]], ["<", ["metric", "a"], ["const", 0]]], True),
        (["/", ["metric", "a"], ["const", 2]], 1.5), (["not", ["==", ["metric", "b"], ["const", 4]]], False),
        (["and", [">=", ["metric", "b"], ["const", 4]], ["!=", ["metric", "a"], ["const", 3]]], False),
        (["or", ["<=", ["metric", "b"], ["const", 4]], ["const", False]], True),
        (["<", ["/", ["metric", "a"], ["const", 0]], ["const", 1]], False),
    ]:  # fmt: skip
        assert evaluate_condition(expression, metrics, 5) == value


def test_patience(make, examples):
    history = make(lr=0.0, patience=3).fit(*examples, epochs=50)
    assert history.stopped == "patience" and len(history) == 4


def test_callbacks(net, examples, monkeypatch):
    monkeypatch.setattr(sweep, "_FIRST_CHUNK", 16)
    seen: list[Any] = []

    class Watcher:
        def on_progress(self, report: Report) -> None:
            seen.append((report.epoch, report.position, report.examples))

        def on_epoch(self, history: History, model: Any) -> bool:
            seen.append(len(history))
            return len(history) == 2

    history = net.fit(*examples, epochs=5, callbacks=[Watcher(), lambda h, m: None])
    assert history.stopped == "callback" and len(history) == 2
    assert seen == [(1, 43, 43), 1, (2, 43, 43), 2]


def test_a_callback_that_fails_leaves_a_model_that_goes_on(make, examples):
    whole, broken = make(), make()
    expected = rows(whole.fit(*examples, epochs=4))

    def fail(history: History, model: Any) -> None:
        if len(history) == 2:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        broken.fit(*examples, epochs=4, callbacks=[fail])
    assert len(broken.fit(*examples, epochs=1, resume=True)) == 2  # of the fit, from where it began
    assert rows(broken.fit(*examples, epochs=4, resume=True)) == expected and state(broken) == state(whole)
    assert rows(broken.fit(*examples, epochs=6, resume=True)) == rows(make().fit(*examples, epochs=6))


# --- interruption and resuming ----------------------------------------------------------------------------------------


class After:
    """Raises Ctrl-C when training has come to an epoch and position."""

    def __init__(self, epoch: int, position: int):
        self.at = (epoch, position)

    def on_progress(self, report: Report) -> None:
        if (report.epoch, report.position) >= self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def small_chunks(monkeypatch):
    """Return to Python after every step."""
    monkeypatch.setattr(sweep, "_CHUNK_SECONDS", 0.0)


@pytest.mark.parametrize(("epoch", "position"), [(1, 0), (1, 16), (2, 40), (2, 43), (4, 24), (4, 43)])
def test_interrupt_save_load_resume_is_bit_for_bit(make, examples, tmp_path, monkeypatch, epoch, position):
    x, t = examples
    whole = make()
    expected = rows(whole.fit(x, t, epochs=4, validation=(x, t)))
    monkeypatch.setattr(sweep, "_CHUNK_SECONDS", 0.0)
    stopped = make()
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(x, t, epochs=4, validation=(x, t), callbacks=[After(epoch, position)])
    stopped.save(tmp_path / "half.nnw")
    other = make(seed=99)
    other.load(tmp_path / "half.nnw")
    assert other.progress is not None and other.progress.position <= 43
    for model in (other, stopped):
        assert rows(model.fit(x, t, validation=(x, t), resume=True)) == expected
        assert state(model) == state(whole)


def test_two_fits_are_one(make, examples):
    whole, parts = make(), make()
    whole.fit(*examples, epochs=4)
    parts.fit(*examples, epochs=1)
    parts.fit(*examples, epochs=3)
    assert state(parts) == state(whole)


def test_resuming_with_other_data_is_refused(net, examples):
    x, t = examples
    net.fit(x, t, epochs=1)
    with pytest.raises(ArgumentError, match="the interrupted fit had 43 examples, got 42"):
        net.fit(x[1:], t[1:], resume=True)


def test_ctrl_c_is_put_back(net, examples):
    before = signal.getsignal(signal.SIGINT)
    net.fit(*examples, epochs=1)
    assert signal.getsignal(signal.SIGINT) is before


def test_fit_in_another_thread(make, examples):
    expected, found = rows(make().fit(*examples)), []
    thread = threading.Thread(target=lambda: found.extend(rows(make().fit(*examples))))
    thread.start()
    thread.join()
    assert found == expected


# --- values that are not finite ---------------------------------------------------------------------------------------


def test_divergence_names_the_first_bad_tensor_and_loses_nothing(make, examples):
    net = make(lr=50.0)
    with pytest.raises(NonFiniteError) as caught:
        net.fit(*examples, epochs=50)
    assert caught.value.code == "E0630" and caught.value.exit_code == 6
    assert all(np.isfinite(a).all() for a in net.variables.values())
    assert ("epoch" in str(caught.value) and "is inf" in str(caught.value)) or "not finite" in str(caught.value)
    assert net.variables["train/t"] > 3


@pytest.mark.parametrize("row", [0, 20, 42])
def test_a_bad_input_is_found(make, examples, row):
    x, t = examples
    x = x.copy()
    x[row, 1] = np.nan
    net, good = make(shuffle=False), make(shuffle=False)
    with pytest.raises(
        NonFiniteError,
        match=rf"epoch 1, step {row // 8 + 1}: input `x` has a value that is not "
        rf"finite, first nan at \[{row}, 1\]",
    ):
        net.fit(x, t, epochs=3)
    start = row // 8 * 8
    if start:
        good.fit(x[:start], t[:start], epochs=1)
    assert net.params["Line.W"].tobytes() == good.params["Line.W"].tobytes()


def test_a_bad_update_is_found_and_training_can_go_on(make, examples):
    """A weight becomes infinite in one step; the loss shows it in the next."""
    net = make(shuffle=False)
    native = net.session.natives["train"]
    step = native.body

    def breaks(i: dict, v: dict, o: dict) -> None:
        broken = v["train/t"] == 9
        step(i, v, o)
        if broken:
            v["Line.b"][...] = np.inf

    native.body = breaks
    with pytest.raises(NonFiniteError, match=r"epoch 2, step 4: `Line\.b` after the update is inf"):
        net.fit(*examples, epochs=3)
    assert net.variables["train/t"] == 9 and net.progress.epoch == 1 and net.progress.position == 24
    native.body = step
    whole = make(shuffle=False)
    assert rows(net.fit(*examples, resume=True)) == rows(whole.fit(*examples, epochs=3))
    assert state(net) == state(whole)


def test_a_bad_last_update_is_found(make, examples):
    net = make(shuffle=False, epochs=1)
    native = net.session.natives["train"]
    step = native.body

    def breaks(i: dict, v: dict, o: dict) -> None:
        step(i, v, o)
        if v["train/t"] == 6:
            v["Line.W/m"][1] = np.nan

    native.body = breaks
    with pytest.raises(
        NonFiniteError,
        match=r"epoch 1, step 6: `Line.W/m` after the update has a value that is not "
        r"finite, first nan at \[1\]",
    ):
        net.fit(*examples)


def test_another_metric_may_be_undefined(make, examples):
    """Only a loss or a variable that is not finite ends training."""
    net, usual = make(), make()
    native = net.session.natives["train"]
    step = native.body

    def undefined(i: dict, v: dict, o: dict) -> None:
        step(i, v, o)
        if v["train/t"] % 4 == 1:
            o["size"][...] = np.nan

    native.body = undefined
    assert rows(net.fit(*examples, epochs=4)) == rows(usual.fit(*examples, epochs=4)) and state(net) == state(usual)


# --- normalisation ----------------------------------------------------------------------------------------------------


def test_normalisation_is_fitted_once_and_travels(make, examples, tmp_path):
    x, t = examples
    x = x * np.float32([1, 10, 0]) + np.float32([0, 5, 3])
    net = make(normalize="standard")
    net.fit(x, t, epochs=1)
    mean, scale = net.variables["normalize/x/mean"], net.variables["normalize/x/scale"]
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale, [x[:, 0].std(), x[:, 1].std(), 1], rtol=1e-5)
    before = scale.copy()
    net.fit(x * 2, t, epochs=1)
    assert np.array_equal(scale, before)
    net.save(tmp_path / "a")
    other = make(normalize="standard")
    other.load(tmp_path / "a")
    assert np.array_equal(other.predict(x), net.predict(x))


@pytest.mark.parametrize(("kind", "shape", "mean", "scale"), [
    ("standard", (2, 1, 1), [[[1]], [[5]]], [[[1]], [[1]]]), ("standard_all", (), 3.0, np.sqrt(5)),
    ("minmax", (2, 1, 1), [[[0]], [[4]]], [[[2]], [[2]]]), ("standard", (2, 1, 2), None, None),
])  # fmt: skip
def test_features_are_what_the_variables_have_axes_for(net, kind, shape, mean, scale):
    from dataclasses import replace

    column = np.float32([[[[0, 2]], [[4, 6]]], [[[2, 0]], [[6, 4]]]])  # [2, 2, 1, 2]
    spec = replace(net.manifest.train, normalize=kind)
    variables = {"normalize/x/mean": np.zeros(shape), "normalize/x/scale": np.ones(shape)}
    variables |= normalize.fit(replace(net.manifest, train=spec), variables, {"x": column})
    if mean is not None:
        np.testing.assert_allclose(variables["normalize/x/mean"], mean)
        np.testing.assert_allclose(variables["normalize/x/scale"], scale)
    else:
        assert variables["normalize/x/mean"].tolist() == [[[1, 1]], [[5, 5]]]


def test_a_block_without_batch(make):
    """One example is all there is: a step per epoch, on the arrays as they are."""
    net = make(lr=0.01, batch_size=None, batch=None)
    history = net.fit(np.float32([[1, 2, 3]]), np.float32([1]), epochs=5)
    assert len(net.session.natives["train"].calls) == 5 and history[-1]["loss"] < history[0]["loss"]


def test_history_as_a_table():
    history = History([{"epoch": 1, "loss": 0.123456789, "errors": 3}, {"epoch": 2, "loss": 1e-9, "errors": None}])
    assert history.table().splitlines() == [
        "epoch     loss  errors", "    1  0.12346       3", "    2    1e-09",
    ]  # fmt: skip
    assert History().table() == ""


def test_metrics_over_an_epoch(make, examples):
    net = make(
        metrics=(MetricSpec("loss", "sum", minimized=True), MetricSpec("errors", "mean"), MetricSpec("size", "mean"))
    )
    found = net.evaluate(*examples, batch=43)
    assert found["loss"] == pytest.approx(net.loss(*examples), rel=1e-6) and isinstance(found["errors"], float)


def test_a_bad_input_is_named_by_its_row_as_passed(make, examples):
    x, t = examples
    x = x.copy()
    x[31, 2] = np.nan
    for settings in ({}, {"validation": 0.2}, {"normalize": "standard"}):
        net = make(seed=3, **settings)
        net.fit(*examples, epochs=0)
        if settings.get("validation") and not any(np.isnan(x[k, 2]) for k in _kept(43, 0.2, 3)):
            continue
        with pytest.raises(NonFiniteError, match=r"nan at \[31, 2\](.|\n)*drop or fill such rows"):
            net.fit(x, t, epochs=1)


def _kept(n: int, share: float, seed: int) -> np.ndarray:
    from nnc.runtime.data.order import split

    return split(n, share, seed)[0]


def test_what_a_fit_is_told_is_checked(make, examples):
    epochs = []
    net = make()
    net.fit(*examples, epochs=2, callbacks=lambda history, model: epochs.append(len(history)))
    assert epochs == [1, 2]
    for value in (3, [3], [lambda h, m: None, "x"]):
        with pytest.raises(ArgumentTypeError, match="callback"):
            net.fit(*examples, callbacks=value)
    for seed, message in ((2**31, r"between 0 and 2\^31-1"), (-1, "between 0"), ("a", "seed must be an int, got str")):
        with pytest.raises(ArgumentError, match=message):
            make(seed=seed)


def test_a_second_fit_at_once_is_refused(make, examples):
    """In another thread, and from a callback; afterwards, also after a failure, the next one runs."""
    net = make()
    refused: list[Any] = []

    def again(history: History, model: Any) -> None:
        def attempt() -> None:
            with pytest.raises(ArgumentError, match="E0616") as caught:
                model.fit(*examples, epochs=1)
            refused.append(caught.value)

        attempt()
        other = threading.Thread(target=attempt)
        other.start()
        other.join()

    before = rows(make().fit(*examples, epochs=2))
    assert rows(net.fit(*examples, epochs=2, callbacks=[again])) == before and len(refused) == 4
    with pytest.raises(ZeroDivisionError):
        net.fit(*examples, epochs=1, callbacks=[lambda *_: 1 / 0])
    assert net.fit(*examples, epochs=1)[-1]["epoch"] == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_made_while_training_may_train(make, examples):
    net = make()
    codes: list[int] = []

    def fork(history: History, model: Any) -> None:
        if (child := os.fork()) == 0:
            try:
                model.fit(*examples, epochs=1)
                os._exit(0)
            finally:
                os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    net.fit(*examples, epochs=1, callbacks=[fork])
    assert codes == [0]


def test_more_epochs_than_can_be_counted(make, examples):
    """The end of a schedule is then the largest number there is; training begins all the same."""
    net = make()
    history = net.fit(*examples, epochs=2**70, callbacks=[lambda history, model: True])
    assert len(history) == 1 and net.variables["train/steps"] == np.iinfo(net.variables["train/steps"].dtype).max

"""A check that fails in the middle of training: where it stands is known, and what comes after is as if it had not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import ArgumentError, ResourceError
from nnc.runtime.call import arrays, column
from nnc.runtime.data.order import permutation
from nnc.runtime.train import sweep

NET = """
model Net(x: f32[B, 6]) -> (logits: f32[B, 3]) {
    logits = x |> Dense(5) |> BatchNorm |> tanh |> dropout(p = 0.2) |> Dense(3)
}

train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    metric right = sum(argmax(logits) == label)
    optimizer = Adam(lr = 0.01)
    batch = 4
    epochs = 3
    seed = 5
}
"""
RNG = np.random.default_rng(1)
X, LABEL = RNG.normal(size=(43, 6)).astype(np.float32), RNG.integers(0, 3, 43).astype(np.int32)


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("row", [0, 17, 42])
def test_after_a_bad_label_is_mended_training_goes_on_bit_for_bit(
    row: int, disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label is bad somewhere in a chunk of many steps."""
    monkeypatch.setattr(sweep, "_BLOCK_BYTES", 300)
    whole = nnc.compile(NET)
    history = whole.fit(X, LABEL)
    net, label = nnc.compile(NET), LABEL.copy()
    label[row] = 3
    x = column.mapped([X], (6,), X.dtype) if disk else X
    with pytest.raises(ArgumentError, match=f"`label` is 3 in row {row}, but must be from 0 to 2"):
        net.fit(x, label)
    order = permutation(43, 5, 0).tolist()
    assert (net.progress.epoch, net.progress.position) == (0, order.index(row) // 4 * 4)
    net.save(tmp_path / "a.nnw")
    again = nnc.compile(NET)
    again.load(tmp_path / "a.nnw")
    resumed = again.fit(x, LABEL, resume=True)
    for name, array in whole.variables.items():
        assert array.tobytes() == again.variables[name].tobytes(), name
    for mine, theirs in zip(resumed, history, strict=True):
        assert {k: v for k, v in mine.items() if k != "seconds"} == {k: v for k, v in theirs.items() if k != "seconds"}


def test_data_that_change_under_way_leave_the_state_of_a_moment_ago() -> None:
    """Steps that were fine cannot be done again, so training stands where the last copy was made."""
    net, label = nnc.compile(NET), LABEL.copy()

    def spoil(history: nnc.History, model: nnc.Model) -> None:
        label[permutation(43, 5, 0)[0]] = 3  # the very first example

    start = {n: a.tobytes() for n, a in net.variables.items() if n != "train/steps"}
    with pytest.raises(ArgumentError, match="`label` is 3"):
        net.fit(X, label, callbacks=[spoil])
    assert (net.progress.epoch, net.progress.position, net.progress.history, net.epochs_done) == (0, 0, [], 0)
    assert start == {n: a.tobytes() for n, a in net.variables.items() if n != "train/steps"}
    again = nnc.compile(NET)
    history = again.fit(X, LABEL)
    resumed = net.fit(X, LABEL, resume=True)
    assert [r["loss"] for r in resumed] == [r["loss"] for r in history]
    assert net.params["Net.dense_1.W"].tobytes() == again.params["Net.dense_1.W"].tobytes()


def test_variables_that_fit_once_but_not_twice_are_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nnc.compile(NET)
    size = sum(a.nbytes for a in net.variables.values())
    start = {n: a.tobytes() for n, a in net.variables.items() if n != "train/steps"}
    monkeypatch.setattr(arrays, "_SMALL", 0)
    monkeypatch.setattr(arrays, "memory_limit", lambda: 2 * size - 1)
    with pytest.raises(ResourceError, match=r"E0605.*the variables and the copy of them that training keeps needs"):
        net.fit(X[:4], LABEL[:4], batch=2)
    assert start == {n: a.tobytes() for n, a in net.variables.items() if n != "train/steps"}

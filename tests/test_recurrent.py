"""Recurrent layers against their formulas in NumPy and, where it is installed, against PyTorch; step by step against
all at once; and a model of characters on real text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnc

ROOT = Path(nnc.__file__).parent
SHAKESPEARE = ROOT.parent / "shared" / "data" / "tinyshakespeare" / "input.txt"
rng = np.random.default_rng(0)

MODEL = """
model M(x: f32[B, T, 5]) -> (lstm: f32[B, T, 4], rnn: f32[B, T, 6], gru: f32[B, T, 3]) {
    lstm = x |> Lstm(4)
    rnn  = x |> Rnn(6)
    gru  = x |> Gru(3)
}
train M(x, target: f32[B, T, 4]) {
    loss = mean((lstm - target)^2) + mean(rnn^2) + mean(gru^3)
    optimizer = SGD(lr = 0.1)
}
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> nnc.Model:
    path = tmp_path_factory.mktemp("recurrent") / "m.nn"
    path.write_text(MODEL)
    net = nnc.compile(path, dtype="f64", cache=False)
    assert {k: v.shape for k, v in net.params.items()} == {
        "M.lstm_1.W": (16, 5), "M.lstm_1.U": (16, 4), "M.lstm_1.b": (16,),
        "M.rnn_1.W": (6, 5), "M.rnn_1.U": (6, 6), "M.rnn_1.b": (6,),
        "M.gru_1.W": (9, 5), "M.gru_1.U": (9, 3), "M.gru_1.b": (9,), "M.gru_1.e": (3,),
    }  # fmt: skip
    assert (net.params["M.lstm_1.b"] == np.repeat([0, 1, 0, 0], 4)).all(), "the forget gate begins open"
    for name in net.params:
        net.params[name] = rng.normal(size=net.params[name].shape) * 0.5
    return net


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm(x, W, U, b):
    s = c = np.zeros((len(x), U.shape[1]))
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ W.T + s @ U.T + b, 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        s = sigmoid(o) * np.tanh(c)
        yield s


def rnn(x, W, U, b):
    s = np.zeros((len(x), U.shape[1]))
    for t in range(x.shape[1]):
        s = np.tanh(x[:, t] @ W.T + s @ U.T + b)
        yield s


def gru(x, W, U, b, e):
    s = np.zeros((len(x), U.shape[1]))
    for t in range(x.shape[1]):
        z, a = np.split(x[:, t] @ W.T + b, 3, 1), np.split(s @ U.T, 3, 1)
        r, u = sigmoid(z[0] + a[0]), sigmoid(z[1] + a[1])
        s = u * s + (1 - u) * np.tanh(z[2] + r * (a[2] + e))
        yield s


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_layers_are_their_formulas(net, steps):
    x = rng.normal(size=(3, steps, 5))
    cells = (lstm, "lstm", "WUb"), (rnn, "rnn", "WUb"), (gru, "gru", "WUbe")
    for got, (cell, name, own) in zip(net.predict(x), cells, strict=True):
        wanted = np.stack(list(cell(x, *(net.params[f"M.{name}_1.{k}"] for k in own))), 1)
        np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_a_sequence_without_steps(net):
    assert [y.shape for y in net.predict(np.zeros((2, 0, 5)))] == [(2, 0, 4), (2, 0, 6), (2, 0, 3)]


def test_layers_and_gradients_are_those_of_pytorch(net):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, target = rng.normal(size=(3, 7, 5)), rng.normal(size=(3, 7, 4))
    given = torch.tensor(x, requires_grad=True)
    ours = {k: torch.tensor(np.array(v), requires_grad=True) for k, v in net.params.items()}

    def run(kind, size, name):
        W, U, b = (ours[f"M.{name}_1.{k}"] for k in "WUb")
        second = torch.zeros_like(b)
        if name == "gru":
            second = torch.cat([second[: 2 * size], ours["M.gru_1.e"]])
        weights = {"weight_ih_l0": W, "weight_hh_l0": U, "bias_ih_l0": b, "bias_hh_l0": second}
        layer = kind(5, size, batch_first=True, dtype=torch.float64)
        return torch.func.functional_call(layer, weights, (given,))[0]

    theirs = run(torch.nn.LSTM, 4, "lstm"), run(torch.nn.RNN, 6, "rnn"), run(torch.nn.GRU, 3, "gru")
    for a, b in zip(net.predict(x), theirs, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-12)
    loss = ((theirs[0] - torch.tensor(target)) ** 2).mean() + (theirs[1] ** 2).mean() + (theirs[2] ** 3).mean()
    loss.backward()
    for name, g in net.gradients(x, target).items():
        np.testing.assert_allclose(g, ours[name].grad.numpy(), atol=1e-12, err_msg=name)
    np.testing.assert_allclose(net.gradients(x, target, wrt=["x"])["x"], given.grad.numpy(), atol=1e-12)


def test_a_layer_with_a_memory_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "m.nn"
    path.write_text("""
model M(x: f32[B, T, 3], step: bool = false) -> (y: f32[B, T, 9]) {
    a = x |> Lstm(4, memory = true, step = step)
    b = x |> Rnn(2, memory = true, step = step, activation = relu)
    c = x |> Gru(3, memory = true, step = step)
    y = concat([a, b, c], axis = 2)
}
export go_on(x: f32[1, T, 3]) -> f32[1, T, 9] = M(x, step = true)
""")
    net = nnc.compile(path, dtype="f64", cache=False)
    x = rng.normal(size=(1, 10, 3))
    pieces = [net.go_on(x[:, a:b]) for a, b in ((0, 1), (1, 4), (4, 4), (4, 10))]
    np.testing.assert_allclose(np.concatenate(pieces, 1), net.predict(x), atol=1e-12)
    for name in net.state:
        net.state[name] = 0 * net.state[name]
    np.testing.assert_allclose(net.go_on(x[:, :2]), net.predict(x[:, :2]), atol=1e-12)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="tinyshakespeare is not at ../shared/data/tinyshakespeare")
def test_a_model_of_characters_learns_to_write() -> None:
    """Half as wide as `models/char_lstm.nn` says, one epoch: below 2 nats per character on held-out text."""
    net = nnc.compile(ROOT / "models" / "char_lstm.nn", hyper={"width": 64})
    net.data_path = str(SHAKESPEARE)
    assert net.fit(epochs=1)[-1]["val_loss"] < 2.0
    known = net.vocabulary
    text = known.decode(net.write(known.encode("ROMEO:\n"), seed=1))
    assert (
        text
        == known.decode(net.write(known.encode("ROMEO:\n"), seed=1))
        != known.decode(net.write(known.encode("ROMEO:\n"), seed=2))
    )
    assert sum(c.isalpha() or c == " " for c in text) > 150 and text.count(" ") > 15
    c = known.encode("\n")
    for _ in range(50):
        c = net.next(c)
        assert c.shape == (1,)

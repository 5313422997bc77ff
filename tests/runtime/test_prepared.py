"""What an entry prepares of variables: prepared anew whenever one has been written, by whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler import pipeline
from nnc.dsl.errors import NonFiniteError
from nnc.runtime.call.state import State
from nnc.runtime.check.twin import twin

NET = """
model Net(x: f32[B, 3, 6, 6]) -> (y: f32[B, 4]) {
    y = x |> first: Conv(16, 3, pad = 1) |> norm: BatchNorm |> relu |> flatten |> last: Dense(4)
}

export counted(x: f32[B, 3, 6, 6]) -> f32[B, 4] = Net(x)

train Net(x, target: f32[B, 4]) {
    loss = mean((y - target)^2)
    optimizer = SGD(lr = 0.1)
    normalize = standard
    batch = 4
    epochs = 1
}
"""
rng = np.random.default_rng(3)
X = rng.normal(size=(8, 3, 6, 6)).astype(np.float32) + 1
Y = rng.normal(size=(8, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))


def _assign(net: nnc.Model, folder: Path) -> None:
    net.params["Net.first.W"] = net.params["Net.first.W"] * 2


def _assign_state(net: nnc.Model, folder: Path) -> None:
    net.state["Net.norm.running_var"] = net.state["Net.norm.running_var"] + 3


def _step(net: nnc.Model, folder: Path) -> None:
    net.train_step(X, Y)


def _fit(net: nnc.Model, folder: Path) -> None:
    net.fit(X, Y)


def _reset(net: nnc.Model, folder: Path) -> None:
    net.reset(seed=9)


def _load(net: nnc.Model, folder: Path) -> None:
    other = twin(net)
    other.reset(seed=11)
    other.save(folder / "other.nnw")
    net.load(folder / "other.nnw")


def _begin(net: nnc.Model, folder: Path) -> None:
    _load(net, folder)
    net.reset()
    net.predict(X)
    net.begin_with(folder / "other.nnw")


def _load_weights(net: nnc.Model, folder: Path) -> None:
    np.savez(folder / "w.npz", **{n: a + 1 for n, a in {**net.params, **net.state}.items()})
    net.load_weights(folder / "w.npz")


def _rescue(net: nnc.Model, folder: Path) -> None:
    net.params["Net.last.W"] = np.full_like(net.params["Net.last.W"], 1e30)
    net.predict(X)
    with pytest.raises(NonFiniteError):
        net.fit(X, Y)


WRITERS: tuple[Callable[[nnc.Model, Path], None], ...] = (
    _assign, _assign_state, _step, _fit, _reset, _load, _begin, _load_weights, _rescue,
)  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_prepared_anew_when_variables_were_written(write, tmp_path):
    net = nnc.compile(NET, threads=1)
    run = net.bind("predict", X)
    assert net.entry("predict").signature.prepared, "the filters lie as the kernel reads them"
    calls = (net.predict, net.counted, lambda x: run(), lambda x: net.evaluate(X, Y)["loss"])
    before = [np.array(call(X)) for call in calls]
    write(net, tmp_path)
    after = [np.array(call(X)) for call in calls]
    other = twin(net)
    wanted = (other.predict(X), other.counted(X), other.predict(X), other.evaluate(X, Y)["loss"])
    for old, new, want in zip(before, after, wanted, strict=True):
        assert new.tobytes() == np.array(want).tobytes()
        assert old.tobytes() != new.tobytes()


NETS = {  # by name: the input and layers
    "narrow": ("f32[B, 5]", "Dense(300) |> tanh |> Dense(1)"),
    "odd": ("f32[B, 37]", "Dense(50) |> relu |> Dense(101) |> relu |> Dense(7)"),
    "deep and large": ("f32[B, 900]", "Dense(450) |> relu |> Dense(333)"),
    "double": ("f32[B, 37]", "Dense(51) |> tanh |> Dense(20)"),
    "filters": ("f32[B, 3, 13, 13]", "Conv(20, 3, pad = 1) |> BatchNorm |> relu |> Conv(48, 3, stride = 2) |> flatten"),
    "large filters": ("f32[B, 64, 9, 9]", "Conv(130, 3, pad = 1) |> relu |> Conv(64, 1) |> global_avg_pool"),
    "depthwise": ("f32[B, 32, 8, 8]", "DepthwiseConv(3) |> ConvTranspose(16, 2, stride = 2) |> global_avg_pool"),
    "recurrent": ("f32[B, 9, 20]", "Lstm(40) |> Gru(24) |> flatten |> Dense(3)"),
    "attention": ("f32[B, 9, 32]", "TransformerBlock(4, causal = true) |> LayerNorm |> flatten |> Dense(10)"),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_are_those_of_a_call_that_prepares_nothing(name, threads, tmp_path, monkeypatch):
    given, layers = NETS[name]
    compiled = partial(
        nnc.compile,
        f"model Net(x: {given}) {{ return x |> {layers} }}",
        threads=threads,
        dtype="f64" if name == "double" else "f32",
    )
    net = compiled()
    assert net.entry("predict").signature.prepared
    monkeypatch.setenv("NNC_CACHE", str(tmp_path))
    monkeypatch.setattr(pipeline, "ONCE", (*pipeline.ONCE, "predict"))
    plain = compiled()
    assert not plain.entry("predict").signature.prepared
    for path in net.params:
        plain.params[path] = net.params[path] = net.params[path] + np.float32(0.01)
    port = net.entry("predict").signature.inputs[0]
    for batch in (0, 1, 2, 5, 16, 17, 70):
        shape = [batch, *port.shape[1:]]
        x = np.random.default_rng(batch).normal(size=shape).astype("f8" if port.dtype == "f64" else "f4")
        assert net.predict(x).tobytes() == plain.predict(x).tobytes(), batch


def test_an_entry_that_writes_what_it_reads_prepares_the_rest():
    net = nnc.compile(
        """
model Counter(x: f32[B, 40]) -> f32[B, 40] {
    weight table: f32[40, 40] = normal(0.0, 0.1)
    state seen: f32[40, 40] = 0
    seen := seen + 1
    return x @ exp(table) @ exp(seen)
}
""",
        threads=1,
    )
    s = net.entry("predict").signature
    assert s.updates == ("Counter.seen",) and len(s.prepared) == 1
    x, table = np.ones((2, 40)), np.exp(net.params["Counter.table"].astype(np.float64))
    for turn in (1, 2, 3):
        np.testing.assert_allclose(
            net.predict(x.astype(np.float32)),
            40 * np.exp(turn) * (x @ table).mean(1)[:, None] + np.zeros((2, 40)),
            rtol=1e-4,
        )


def test_what_is_read_of_variables_is_read_only():
    net = nnc.compile(NET, threads=1)
    with pytest.raises(ValueError, match="read-only"):
        net.variables["Net.first.W"][...] = 0
    with pytest.raises(TypeError):
        net.variables["Net.first.W"] = 0  # type: ignore[index]


def test_a_version_is_raised_for_what_is_prepared_only():
    state = State(nnc.compile(NET, threads=1).manifest.variables)
    state.prepares(["Net.first.W"])
    before = state.version
    state.written(["Net.last.W"])
    assert state.version == before
    state.written(["Net.last.W", "Net.first.W"])
    assert state.version == before + 1


def test_an_entry_that_writes_its_own_state_does_not_prepare_again_each_time():
    text = """
model Counter(x: f32[B, 40]) -> f32[B, 40] {
    weight table: f32[40, 40] = normal(0.0, 0.1)
    state seen: f32[40] = 0
    seen := seen + 1
    return x @ exp(table) + seen
}
"""
    net = nnc.compile(text, threads=1)
    net.predict(X[:2, 0, 0, :1] * np.ones((1, 40), np.float32))
    version = net.variables.version
    net.predict(np.ones((2, 40), np.float32))
    assert net.variables.version == version

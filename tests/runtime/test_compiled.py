"""The runtime over real machine code: the same bits whatever the threads and the target, and whatever is passed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import ArgumentError, ResourceError

DIGITS = Path(__file__).parents[2] / "models" / "digits_mlp.nn"
NET = """
model Net(x: f32[B, 5]) -> (y: f32[B]) {
    h = x |> Dense(70) |> tanh |> dropout(p = 0.2)
    y = squeeze(Dense(h, 1), 1)
}

train Net(x, target: f32[B]) {
    loss = mean(squared_error(y, target)) + 1e-3 * l2(weights)
    metric worst = max(abs(y - target))
    metric over = sum(y > target)
    optimizer = Adam(lr = cosine(0.01))
    normalize = standard
    batch = 16
    epochs = 3
    seed = 5
}
"""


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))


@pytest.fixture
def examples() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(101, 5)).astype(np.float32)
    return x, np.sin(x).sum(1).astype(np.float32)


def state(net: nnc.Model) -> dict[str, bytes]:
    return {path: a.tobytes() for path, a in net.variables.items()}


@pytest.mark.parametrize("options", [
    {"threads": 1}, {"threads": 2}, {"threads": 2, "target_cpu": "x86-64-v3"},
])  # fmt: skip
def test_the_same_seed_gives_the_same_bits(examples, options):
    reference, other = nnc.compile(NET, threads=1), nnc.compile(NET, **options)
    histories = [net.fit(*examples, validation=0.2) for net in (reference, other)]
    assert state(reference) == state(other)
    for a, b in zip(*histories, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


KERNELS = {  # what runs in its own kind of kernel, by name: the size of an input, and layers that end in 10 scores
    "few filters": (
        "B, 1, 28, 28",
        "Conv(6, 5, pad = 2) |> relu |> max_pool(2) |> Conv(16, 5) |> avg_pool(2) |> flatten",
    ),
    "many filters": (
        "B, 3, 16, 16",
        "Conv(32, 3, pad = 1) |> BatchNorm |> relu |> Conv(48, 3, stride = 2, pad = 1)"
        " |> DepthwiseConv(3) |> ConvTranspose(16, 2, stride = 2) |> global_avg_pool",
    ),
    "recurrent": ("B, 9, 20", "Lstm(40) |> Gru(24) |> flatten"),
    "attention": ("B, 9, 32", "TransformerBlock(4, causal = true) |> LayerNorm |> flatten"),
}


@pytest.mark.parametrize("options", [{"threads": 2}, {"threads": 2, "target_cpu": "x86-64-v3"}], ids=["native", "v3"])
@pytest.mark.parametrize("kind", KERNELS)
def test_every_kind_of_kernel_gives_the_same_bits(kind, options):
    shape, layers = KERNELS[kind]
    text = f"""
model Net(x: f32[{shape}]) -> (y: f32[B, 10]) {{
    y = x |> {layers} |> Dense(10)
}}

train Net(x, label: i32[B]) {{
    loss = mean(cross_entropy(y, label))
    optimizer = Adam(lr = 1e-3)
}}
"""
    r = np.random.default_rng(1)
    x = r.normal(size=(45, *(int(n) for n in shape.split(", ")[1:]))).astype(np.float32)
    label = r.integers(0, 10, 45).astype(np.int32)
    nets = [nnc.compile(text, threads=1), nnc.compile(text, **options)]
    for net in nets:
        net.fit(x, label, batch=32, epochs=2)
    assert state(nets[0]) == state(nets[1])
    np.testing.assert_array_equal(nets[0].predict(x), nets[1].predict(x))


def test_a_target_without_fma_gives_the_same_bits(examples):
    reference, other = nnc.compile(NET, threads=1), nnc.compile(NET, threads=2, target_cpu="x86-64-v2")
    for net in (reference, other):
        net.fit(*examples)
    assert state(reference) == state(other)


def test_resuming_in_the_middle_of_an_epoch(examples, tmp_path, monkeypatch):
    from nnc.runtime.progress import Report
    from nnc.runtime.train import sweep

    whole = nnc.compile(NET, threads=1)
    expected = whole.fit(*examples)
    monkeypatch.setattr(sweep, "_CHUNK_SECONDS", 0.0)

    class Stop:
        def on_progress(self, report: Report) -> None:
            if (report.epoch, report.position) >= (2, 48):
                os.kill(os.getpid(), signal.SIGINT)

    half = nnc.compile(NET, threads=1)
    with pytest.raises(KeyboardInterrupt):
        half.fit(*examples, callbacks=[Stop()])
    assert half.progress is not None and half.progress.position == 48
    half.save(tmp_path / "half.nnw")
    other = nnc.compile(NET, threads=2, seed=77)
    other.load(tmp_path / "half.nnw")
    history = other.fit(*examples, resume=True)
    assert [{**r, "seconds": 0} for r in history] == [{**r, "seconds": 0} for r in expected]
    assert state(other) == state(whole)


def test_one_compilation_serves_every_batch(examples):
    x, target = examples
    net = nnc.compile(NET, threads=1)
    net.fit(x, target, epochs=1, batch=37)  # 37 + 37 + 27
    whole = net.predict(x)
    for n in (1, 2, 3, 16, 17, 64, 101):
        np.testing.assert_allclose(np.concatenate([net.predict(x[k : k + n]) for k in range(0, 101, n)]), whole,
                                   rtol=1e-5, atol=1e-6)  # fmt: skip
    assert net.predict(x[:0]).shape == (0,)
    by_one, by_all = net.evaluate(x, target, batch=1), net.evaluate(x, target, batch=101)
    assert by_one["loss"] == pytest.approx(by_all["loss"], rel=1e-5) and by_one["over"] == by_all["over"]


def test_layouts_reach_machine_code_as_the_same_values(examples):
    x, target = examples
    net = nnc.compile(NET, threads=1)
    expected = net.predict(x), net.loss(x, target)
    raw = np.zeros(x.nbytes + 1, np.uint8)
    odd = raw[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    swapped, wide = x.astype(">f4"), x.astype(np.float64)
    for same in (np.asfortranarray(x), np.repeat(x, 2, 0)[::2], x[::-1][::-1], odd, swapped, wide):
        np.testing.assert_array_equal(net.predict(same), expected[0])
        assert net.loss(same, target) == expected[1]


def test_a_batch_too_large_for_this_machine(examples):
    net = nnc.compile(NET, threads=1)
    with pytest.raises(ResourceError, match="E0605"):
        net.predict(np.broadcast_to(np.float32(1), (10**12, 5)))


def test_a_child_may_compute(examples):
    x, _ = examples
    net = nnc.compile(NET, threads=2)
    expected = net.predict(x)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if np.array_equal(net.predict(x), expected) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(net.predict(x), expected)


def test_divergence_names_what_was_bad_first(examples):
    x, target = examples
    net = nnc.compile(NET.replace("Adam(lr = cosine(0.01))", "SGD(1e4)").replace(" |> tanh", ""), threads=1)
    with pytest.raises(nnc.NonFiniteError, match=r"not finite in epoch \d+, step \d+: .*(Net|loss)"):
        net.fit(x, target, epochs=50)
    assert all(np.isfinite(a).all() for a in net.variables.values())


def test_inputs_that_are_not_finite_are_named(examples):
    x, target = examples
    x = x.copy()
    x[60, 3] = np.inf
    with pytest.raises(nnc.NonFiniteError, match=r"input `x` has a value that is not finite, first inf at \[60, 3\]"):
        nnc.compile(NET, threads=1).fit(x, target)
    with pytest.raises(nnc.NonFiniteError, match=r"step \d: input `x` has a value that is not finite, first inf at"):
        nnc.compile(NET.replace("normalize = standard", ""), threads=1).fit(x, target)


def test_digits_are_learned_in_seconds(tmp_path):
    net = nnc.compile(DIGITS)
    history = net.fit()
    assert history[-1]["val_accuracy"] >= 0.97 and net.evaluate()["accuracy"] == history[-1]["val_accuracy"]
    net.save(tmp_path / "digits.nnw")
    again = nnc.compile(DIGITS, threads=1)
    again.load(tmp_path / "digits.nnw")
    x = net.load_dataset().held_out["x"].reshape(-1, 64)
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    with pytest.raises(ArgumentError, match=r"wants f32\[B, 64\]"):
        net.predict(x[:, :63])


@pytest.mark.parametrize(("options", "message"), [
    ({"dtype": "float32"}, 'dtype must be "f32" or "f64", got \'float32\''), ({"seed": "a"}, "seed must be an int"),
    ({"sizes": [3]}, "sizes must be a mapping"), ({"hyper": 3}, "hyper must be a mapping"),
    ({"threads": "x"}, "threads must be an int"), ({"sizes": {"D": 3}}, "no size is named `D`"),
    ({"sizes": {"B": -1}}, "at least 0"),
    ({"model": 3}, "model must be a text, got int"),
    ({"hyper": {"lr": [1]}}, "hyper `lr` must be"), ({"target_cpu": 3}, "target_cpu"), ({"seed": 2**40}, "2\\^31-1"),
])  # fmt: skip
def test_settings_are_checked(options, message):
    with pytest.raises(ArgumentError, match=message):
        nnc.compile(NET, **options)


def test_a_program_is_a_path_or_a_text():
    for program in (None, 3, b"model"):
        with pytest.raises(ArgumentError, match="the program must be a path or a text"):
            nnc.compile(program)


KINDS = """
model Net(x: f32[B, 2]) -> (y: f32[B, 3]) {
    y = x |> Dense(4) |> BatchNorm |> Dense(3)
}

train Net(x, kind: i32[B]) {
    loss = mean(cross_entropy(y, kind))
    optimizer = SGD(0.1)
    batch = 8
    epochs = 1
}
"""


def test_the_last_batch_may_be_too_small():
    net = nnc.compile(KINDS)
    x, kind = np.zeros((57, 2)), np.zeros(57, int)
    with pytest.raises(ArgumentError, match=r"in the last batch(.|\n)*1 of the 57 examples: choose another `batch`"):
        net.fit(x, kind)
    with pytest.raises(ArgumentError, match=r"E0613.*no examples to train on"):
        net.fit(x[:0], kind[:0])
    net.fit(x[:56], kind[:56])


def test_labels_that_are_no_class_are_named_by_row():
    net = nnc.compile(KINDS, seed=3)
    x, kind = np.zeros((64, 2)), np.zeros(64, int)
    kind[37] = 3
    message = r"`kind` is 3 in row 37, but must be from 0 to 2(.|\n)*count from 0"
    for call in (lambda: net.fit(x, kind), lambda: net.evaluate(x, kind), lambda: net.loss(x, kind)):
        with pytest.raises(ArgumentError, match=message):
            call()
    with pytest.raises(ArgumentError, match="is 3 in row 37"):  # not the row of what is left of the split
        net.fit(x, kind, validation=0.5)


def test_evaluate_is_over_the_whole_set(examples):
    x, t = examples
    net = nnc.compile(NET.replace("metric over", "metric fit = r2(y, target)\n    metric over"))
    net.fit(x, t, epochs=20)
    y = net.predict(x)
    assert net.evaluate(x, t)["fit"] == pytest.approx(1 - ((y - t) ** 2).sum() / ((t - t.mean()) ** 2).sum(), rel=1e-4)
    assert net.evaluate(x, t)["fit"] != pytest.approx(net.evaluate(x, t, batch=16)["fit"], rel=1e-4)

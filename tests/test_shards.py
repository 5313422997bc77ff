"""Training in shards, in one process: what a batch that is one gives, up to rounding; and the same bits on any number
of threads. `test_distributed` has several processes."""

from __future__ import annotations

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import NncError, NonFiniteError

X = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 50).astype(np.int32)

NET = """
model Net(x: f32[B, 6]) -> (y: f32[B, 3]) {{ {model} }}
train Net(x, label: i32[B]) {{
    loss = mean(cross_entropy(y, label)) + 1e-3 * l2(weights)
    metric accuracy = mean(argmax(y) == label)
    metric errors = sum(argmax(y) != label)
    batch = 20
    epochs = 3
    {train}
}}
"""
NETS = {
    "dense": ("y = x |> Dense(8) |> relu |> Dense(3)", "optimizer = Adam(lr = 0.01)"),
    "dropout": ("y = x |> Dense(8) |> dropout(p = 0.4) |> Dense(3)", "optimizer = SGD(lr = 0.1)"),
    "clip, accumulate, average": (
        "y = x |> Dense(8) |> tanh |> Dense(3)",
        "optimizer = Momentum(lr = 0.05)\n clip = global_norm(0.5)\n accumulate = 2\n average = ema(0.9)",
    ),
    "a schedule, a callback of metrics": (
        "y = x |> Dense(3)",
        "optimizer = SGD(lr = cosine(0.1, warmup = 2))\n stop when errors == 0 or loss < 0.01",
    ),
    "draws in a scan": (
        "h = x |> Dense(6)\n scan t in 0..4 { h = (h |> dropout(p = 0.3)) + 0.1 * x }\n y = h |> Dense(3)",
        "optimizer = SGD(lr = 0.1)",
    ),
    "equal turns": (
        "h = x |> Dense(8)\n repeat 20 { h = h + 0.1 * (h |> Dense(8) |> tanh) }\n y = h |> Dense(3)",
        "optimizer = SGD(lr = 0.05)",
    ),
    "a batch norm in step": (
        "y = x |> Dense(8) |> BatchNorm(sync = true) |> relu |> Dense(3)",
        "optimizer = SGD(lr = 0.1)",
    ),
    "normalised": ("y = x |> Dense(3)", "normalize = standard\n optimizer = SGD(lr = 0.1)"),
    "two losses": ("y = x |> a: Dense(8) |> relu |> b: Dense(3)", ""),
    "assignments": ("y = x |> Dense(3)", "optimizer = SGD(lr = 0.1)\n params(Net) := 0.99 * params(Net)"),
}


def trained(model: str, train: str, shards: int | None, threads: int = 1, **settings: object) -> nnc.Model:
    text = NET.format(model=model, train=train)
    if not train:
        text = text.replace("loss =", "l =").replace(
            "epochs", "minimize p = l over params(Net.a) with SGD(lr = 0.1)\n"
            "minimize q = 0.5 * l over params(Net.b) with Adam(lr = 0.01)\n epochs"
        )  # fmt: skip
    net = nnc.compile(text, threads=threads, seed=3, **settings)
    net.fit(X, Y, shards=shards)
    return net


def bits(net: nnc.Model) -> dict[str, bytes]:
    return {path: a.tobytes() for path, a in net.variables.items()}


@pytest.mark.parametrize("name", NETS)
def test_shards_come_to_what_a_batch_that_is_one_does(name: str) -> None:
    whole, parts = trained(*NETS[name], None), trained(*NETS[name], 4)
    for path, a in whole.variables.items():
        np.testing.assert_allclose(parts.variables[path], a, 2e-4, 2e-5, err_msg=path)
    for one, other in zip(whole.progress.history, parts.progress.history, strict=True):
        assert one.keys() == other.keys() and one["errors"] == other["errors"] and type(other["errors"]) is int
        for key in one.keys() - {"seconds"}:
            assert other[key] == pytest.approx(one[key], rel=1e-4), key


@pytest.mark.parametrize("shards", [1, 2, 16, 64])
def test_any_number_of_threads_has_the_same_bits(shards: int) -> None:
    """50 examples in batches of 20 are batches of 20, 20 and 10, which few shards share evenly."""
    one, two = (trained(*NETS["dropout"], shards, threads) for threads in (1, 2))
    assert bits(one) == bits(two)


def test_in_f64() -> None:
    whole, parts = (trained(*NETS["dense"], s, dtype="f64") for s in (None, 8))
    for path, a in whole.variables.items():
        np.testing.assert_allclose(parts.variables[path], a, 1e-11, 1e-12, err_msg=path)


def test_a_batch_norm_knows_its_shard_and_remembers_the_mean_of_all() -> None:
    net = nnc.compile(
        NET.format(model="y = x |> norm: BatchNorm |> Dense(3)", train="optimizer = SGD(lr = 0.1)\n shuffle = false")
    )
    net.fit(X[:20], Y[:20], shards=4, epochs=1)
    by_shard = X[:20].reshape(4, 5, 6)
    np.testing.assert_allclose(net.state["Net.norm.running_mean"], 0.1 * by_shard.mean((0, 1)), 1e-5, 1e-7)
    np.testing.assert_allclose(
        net.state["Net.norm.running_var"], 0.9 + 0.1 * by_shard.var(1, ddof=1).mean(0), 1e-5, 1e-7
    )


def test_the_train_block_says_how_many() -> None:
    said = trained(NETS["dense"][0], NETS["dense"][1] + "\n shards = 4", None)
    assert bits(said) == bits(trained(*NETS["dense"], 4)) != bits(trained(*NETS["dense"], None))
    assert said.progress.shards == 4


def test_a_fit_goes_on_in_its_shards(tmp_path) -> None:
    whole = trained(*NETS["dropout"], 4)
    net = nnc.compile(NET.format(model=NETS["dropout"][0], train=NETS["dropout"][1]), seed=3)

    class Stop(Exception):
        pass

    def stop(history, model):
        net.save(tmp_path / "half.nnw")
        raise Stop

    with pytest.raises(Stop):
        net.fit(X, Y, shards=4, callbacks=stop)
    again = nnc.compile(NET.format(model=NETS["dropout"][0], train=NETS["dropout"][1]))
    again.load(tmp_path / "half.nnw")
    again.fit(X, Y, resume=True)
    assert bits(again) == bits(whole)


def test_a_label_that_is_out_of_range_is_named_by_its_row() -> None:
    labels = Y.copy()
    labels[37] = 3
    net = nnc.compile(NET.format(model=NETS["dense"][0], train=NETS["dense"][1]))
    with pytest.raises(NncError, match="`label` is 3 in row 37") as e:
        net.fit(X, labels, shards=4)
    assert e.value.code == "E0607"


def test_what_is_not_finite_is_told_with_its_shard() -> None:
    bad = X.copy()
    bad[13] = np.inf
    net = nnc.compile(NET.format(model=NETS["dense"][0], train=NETS["dense"][1] + "\n shuffle = false"))
    with pytest.raises(NonFiniteError, match="epoch 1, step 1, shard 2: input `x` has 6 values"):
        net.fit(bad, Y, shards=4)


def test_a_batch_of_too_few_for_its_shards_is_refused() -> None:
    net = nnc.compile(NET.format(model="y = x |> BatchNorm |> Dense(3)", train="optimizer = SGD(lr = 0.1)"))
    with pytest.raises(NncError, match="BatchNorm needs two values") as e:
        net.fit(X, Y, shards=32)
    assert "choose another `batch` or fewer `shards`" in str(e.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shards": 6}, "a power of two, got 6"),
        ({"shards": 0}, "at least 1"),
        ({"shards": 4.0}, "must be an int"),
        ({"shards": 4, "comm": 3}, "a communicator of mpi4py"),
        ({"reduce": "sum"}, '"tree" or "fast"'),
    ],
)
def test_refused(settings: dict, message: str) -> None:
    net = nnc.compile(NET.format(model=NETS["dense"][0], train=NETS["dense"][1]))
    with pytest.raises(NncError, match=message):
        net.fit(X, Y, **settings)


def test_a_set_that_is_one_example_has_no_shards() -> None:
    net = nnc.compile(
        "model M(x: f32[4]) -> (y: f32[4]) { weight w: f32[4] = 1\n y = w * x }\n"
        "train M(x) { loss = mean(y^2)\n optimizer = SGD(lr = 0.1)\n }"
    )
    with pytest.raises(NncError, match="no size of the inputs counts examples"):
        net.fit(X[0, :4], shards=2)


def test_a_whole_set_is_cut_too() -> None:
    """Without `batch` it is one batch, which as one would stand as it is."""
    text = NET.format(model=NETS["dense"][0], train=NETS["dense"][1]).replace("batch = 20", "")
    one, parts = nnc.compile(text, seed=3), nnc.compile(text, seed=3)
    one.fit(X, Y)
    parts.fit(X, Y, shards=8)
    for path, a in one.variables.items():
        np.testing.assert_allclose(parts.variables[path], a, 2e-4, 2e-5, err_msg=path)

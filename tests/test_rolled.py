"""Equal turns of `repeat` that are compiled once: everything is what it is where they are written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.elaborate import rolled
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.compiler.types.stacks import members, numbers
from nnc.dsl.errors import SourceError
from nnc.dsl.source import Source
from nnc.runtime.check.testing import run_file

RNG = np.random.default_rng(1)
X = RNG.normal(size=(6, 8)).astype(np.float32)
Y = RNG.integers(0, 3, 6).astype(np.int32)
IMAGES = RNG.normal(size=(6, 2, 5, 5)).astype(np.float32)
WORDS = RNG.integers(0, 5, (3, 4)).astype(np.int32)


def net(turn: str, train: str = "optimizer = Adam(lr = 1e-3)", before: str = "", loss: str = "", first: int = 8) -> str:
    return f"""{before}
model Net(x: f32[B, {first}]) -> (logits: f32[B, 3]) {{
    repeat 5 {{ {turn} }}
    logits = x |> Dense(3)
}}
train Net(x, y: i32[B]) {{
    loss = mean(cross_entropy(logits, y)) {loss}
    {train}
}}"""


@contextmanager
def least(turns: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolled, "LEAST", turns)
        yield


ENTRIES = ("init", "predict", "train", "evaluate", "gradients")


def compiled(text: str, turns: int = 2, dtype: str = "f32", entries: Sequence[str] = ENTRIES) -> nnc.Model:
    """Turns are rolled where there are so many."""
    with least(turns):
        made = nnc.compile(text, cache=False, dtype=dtype)
        for entry in (*entries, *made.exports):
            made.entry(entry)
    return made


def both(text: str, dtype: str = "f32", entries: Sequence[str] = ENTRIES) -> tuple[nnc.Model, nnc.Model]:
    one, other = (compiled(text, turns, dtype, entries) for turns in (2, 10**9))
    assert one.manifest.stacks and not other.manifest.stacks
    assert set(one.variables) == set(other.variables)
    return one, other


def close(one: object, other: object, what: str, within: float = 1e-5) -> None:
    a, b = np.asarray(one), np.asarray(other)
    assert a.shape == b.shape and np.abs(a - b).max(initial=0) <= within * (np.abs(b).max(initial=0) + 1e-3), what


LARS = """optimizer Lars(lr = 0.1) {
    state m = 0
    s = where(norm(g) > 0, norm(p) / (norm(g) + 1e-6), 1.0) / size(p)
    m := 0.9 * m + s * g * max(abs(p))
    p := p - lr * m
}"""
EACH = "fn each(g) = clip(g, -0.003, 0.003) / (1 + norm(g))"
BLOCK = """layer Block(x: f32[B, D]) -> f32[B, D] {
    repeat 4 { x = x + (x |> Dense(D) |> tanh) }
    return x |> LayerNorm
}"""
CONVOLUTION = """model Net(x: f32[B, 2, 5, 5]) -> (logits: f32[B, 3]) {
    repeat 5 { x = x |> Conv(2, 3, pad = 1) |> BatchNorm |> relu |> dropout(p = 0.2) }
    logits = x |> flatten |> Dense(3)
}
train Net(x, y: i32[B]) {
    loss = mean(cross_entropy(logits, y))
    optimizer = SGD(lr = 1e-2)
}"""
TRANSFORMER = """model Net(x: i32[B, T]) -> (logits: f32[B, T, 5]) {
    h = x |> Embedding(5, 4)
    repeat 3 { h = h |> TransformerBlock(2, causal = true) }
    logits = h |> Dense(5)
}
train Net(x, y: i32[B, T]) {
    loss = mean(cross_entropy(logits, y))
    optimizer = SGD(lr = 1e-2)
}"""
CASES = {
    "two layers, first of other shape, l2, clip": (
        net(
            "x = x |> Dense(6) |> tanh |> Dense(8)",
            "optimizer = Adam(lr = 1e-3)\n    clip = global_norm(0.1)",
            loss="+ 1e-2 * l2(weights)",
            first=7,
        ),
        (X[:, :7].copy(), Y),
    ),
    "accumulate, average, momentum, dropout": (
        net(
            "x = x |> Dense(8) |> dropout(p = 0.3) |> tanh |> dropout(p = 0.1)",
            "optimizer = Momentum(lr = 0.01)\n    accumulate = 2\n    average = ema(0.9)",
        ),
        (X, Y),
    ),
    "by parameter": (
        net(
            "x = x |> Dense(8) |> tanh",
            "optimizer = Lars()\n    clip = each\n    metric most = max(weights)\n    params(Net) := params(Net) * 0.9",
            LARS + "\n" + EACH,
        ),
        (X, Y),
    ),
    "frozen, nested, shared": (
        net(
            "x = x |> Block |> e |> dropout(p = 0.2)",
            "optimizer = Adam(lr = 1e-3)\n    freeze = biases\n    normalize = standard",
            BLOCK,
        ).replace("    repeat 5", "    share e = Dense(8)\n    repeat 5"),
        (X, Y),
    ),
    "convolution": (CONVOLUTION, (IMAGES, Y)),
    "transformer": (TRANSFORMER, (WORDS, WORDS)),
}


@pytest.mark.parametrize("name", CASES)
def test_rolled_is_written_out(name: str) -> None:
    text, (x, y) = CASES[name]
    dtype = "f64" if x.dtype == np.float32 else "f32"
    x = x.astype(np.float64) if dtype == "f64" else x
    entries = ENTRIES if name != "transformer" else ENTRIES[:3]
    one, other = both(text, dtype, entries)
    for path, value in other.variables.items():
        np.testing.assert_array_equal(one.variables[path], value, err_msg=f"the first {path}")
    gradients = other.gradients(x, y) if "gradients" in entries else {}
    for path, value in (one.gradients(x, y) if gradients else {}).items():
        if not path.endswith(".b") or name != "convolution":  # before a batch norm those of biases are rounding alone
            close(value, gradients[path], f"the gradient of {path}")
    for _ in range(5):
        close(one.train_step(x, y), other.train_step(x, y), "loss")
    for path, value in other.variables.items():
        close(one.variables[path], value, path)
    close(one.predict(x), other.predict(x), "prediction")
    evaluated = other.evaluate(x, y) if "evaluate" in entries else {}
    for metric, value in evaluated.items():
        close(one.evaluate(x, y)[metric], value, metric)


def test_what_is_read_is_a_variable(tmp_path: Path) -> None:
    """Parameters, checkpoints, weights, what goes on: by the paths of variables, whichever way these are stored."""
    text = net("x = x |> Dense(8) |> tanh")
    one, other = both(text, entries=ENTRIES[:3])
    assert list(one.variables) == [v.path for v in other.manifest.variables]
    one.params["Net.dense_3.W"] = np.full((8, 8), 0.25)
    assert (one.params["Net.dense_3.W"] == 0.25).all() and (one.params["Net.dense_4.W"] != 0.25).any()
    other.params["Net.dense_3.W"] = np.full((8, 8), 0.25)
    close(one.predict(X), other.predict(X), "prediction")
    one.train_step(X, Y)
    for path, value in one.params.items():
        other.params[path] = value
    close(one.predict(X), other.predict(X), "what is prepared follows the step")
    one.save(tmp_path / "one.nnw")
    again = compiled(text, entries=("train",))
    again.load(tmp_path / "one.nnw")
    assert again.train_step(X, Y) == one.train_step(X, Y)
    for path, value in one.variables.items():
        np.testing.assert_array_equal(again.variables[path], value, err_msg=path)
    other.load(tmp_path / "one.nnw")
    other.save(tmp_path / "other.nnw")
    fresh = compiled(text, entries=())
    fresh.load_weights(tmp_path / "other.nnw")
    for path in other.params:
        np.testing.assert_array_equal(fresh.params[path], other.params[path], err_msg=path)


def test_turns_draw_numbers_of_their_own() -> None:
    """And those that they draw where they are written out."""
    text = """model Net(x: f32[B, 4]) -> (y: f32[B, 4]) {
    repeat 5 { x = x |> Scaled |> dropout(p = 0.5) }
    y = x
}
layer Scaled(x: f32[B, D]) -> f32[B, D] {
    weight w: f32[D] = 1
    return x * w
}
train Net(x) {
    loss = mean(y^2)
    optimizer = SGD(lr = 0.0)
}"""
    one, other = both(text, entries=("gradients",))
    x = np.ones((64, 4), np.float32)
    drawn = [made.gradients(x)["Net.scaled_1.w"] for made in (one, other)]
    np.testing.assert_array_equal(*drawn)
    assert (drawn[0] < 2**8).all(), "a share of 2^-5 is kept, the squares of 2^5; of one mask for all it were a half"


@pytest.mark.parametrize(
    ("turn", "more"),
    {
        "the index": ("x = x |> Dense(8) |> tanh\n x = x * i", {}),
        "a number that changes": ("x = x |> Dense(8)\n k = k + 1", {}),
        "a layer that grows": ("x = concat([x, x |> Dense(1)], axis = 1)", {}),
        "statistics of all": ("x = x |> Dense(8) |> e", {}),
        "one by its path": ("x = x |> Dense(8)", {"loss": "+ sum(Net.dense_3.W^2)"}),
        "some of them": ("x = x |> Dense(8)", {"train": "optimizer = SGD(lr = 0.1)\n freeze = params(Net.dense_2)"}),
        "an optimizer that draws": (
            "x = x |> Dense(8)",
            {
                "train": "optimizer = Noisy()",
                "before": "optimizer Noisy() { p := p - 0.1 * g + normal(shape = shape(p)) }",
            },
        ),
        "what is inside": ("x = x |> Dense(8)", {"loss": "+ mean(Net.dense_3^2)"}),
    }.values(),
)
def test_what_is_not_equal_is_written_out(turn: str, more: dict[str, str]) -> None:
    text = net(turn, **more).replace("    repeat 5", "    share e = BatchNorm\n    k = 1\n    repeat i in 0..5")
    with least(3):
        made = Session(Source("net.nn", text), Settings(cache=False))
        assert not made.manifest.stacks
        rolled_out = made.program.graph("train")
    with least(10**9):
        wanted = Session(Source("net.nn", text), Settings(cache=False)).program.graph("train")
    assert [(n.name, n.op) for n in rolled_out] == [(n.name, n.op) for n in wanted]


@pytest.mark.parametrize(
    "turn",
    ["x = x |> body: Dense(8)", "x = x |> Dense(8) |> Dense(7)", "x = (x |> Dense(8)) + unknown"],
)
def test_errors_are_told_of_turns_written_out(turn: str) -> None:
    said = []
    for turns in (3, 10**9):
        with least(turns), pytest.raises(SourceError) as e:
            Session(Source("net.nn", net(turn, loss="+ sum(Net.dense_99.W)")), Settings(cache=False))
        said.append(str(e.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("format", ["f32", "bf16", "i8"])
def test_weights_in_every_format(format: str) -> None:
    """What is stored, and what is prepared of it for predictions, is the same turn by turn."""
    text = """model Net(x: f32[B, 16, 8, 8]) -> (y: f32[B, 3]) {
        repeat 5 { x = x |> Conv(16, 3, pad = 1) |> BatchNorm |> relu }
        y = x |> flatten |> Dense(3)
    }"""
    images = RNG.normal(size=(17, 16, 8, 8)).astype(np.float32)
    nets = []
    for turns in (2, 10**9):
        with least(turns):
            made = nnc.compile(text, cache=False, weights_dtype=format)
            made.entry("predict")
        nets.append(made)
    assert nets[0].manifest.stacks and nets[0].entry("predict").signature.prepared
    for batch in (1, 17):
        np.testing.assert_array_equal(*(made.predict(images[:batch]) for made in nets))


def test_one_entry_is_written_out() -> None:
    """What only an export asks for has no effect on the others."""
    text = net("x = x |> Dense(8) |> tanh") + "\nexport third() -> f32[8, 8] = Net.dense_3.W"
    one, other = both(text, entries=("train",))
    assert one.entry("third").signature.variables == ("Net.dense_3.W",)
    np.testing.assert_array_equal(one.third(), other.params["Net.dense_3.W"])
    one.train_step(X, Y)
    np.testing.assert_array_equal(one.third(), one.params["Net.dense_3.W"])


def test_outlines_show_every_turn() -> None:
    text = net("x = x |> Dense(8) |> tanh")
    with least(3):
        rows = Session(Source("net.nn", text), Settings(cache=False)).program.outline("Net")
    with least(10**9):
        assert rows == Session(Source("net.nn", text), Settings(cache=False)).program.outline("Net")


def test_tests_of_the_file_run() -> None:
    text = (
        net("x = x |> Dense(8) |> tanh")
        + """
test "shapes" {
    expect shape(Net([[1.0, 2, 3, 4, 5, 6, 7, 8]]))[1] == 3
    expect shape(Net.dense_4.W)[0] == 8
    expect macs(Net) == 5 * 64 + 24
    reject "inner sizes" Net([[1.0, 2, 3, 4, 5, 6, 7, 8]]) @ [[1.0, 2, 3, 4]]
}
"""
    )
    source = Source("net.nn", text)
    with least(3):
        assert Session(source, Settings(cache=False)).program.stacks
        assert [str(r.failures) for r in run_file(source, Settings(cache=False))] == ["()"]


def test_onnx_has_every_turn(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    one = compiled(net("x = x |> Dense(8) |> tanh"), entries=("predict",))
    one.to_onnx(tmp_path / "net.onnx")
    (found,) = runtime.InferenceSession(str(tmp_path / "net.onnx")).run(None, {"x": X})
    close(found, one.predict(X), "prediction")


def test_stacks_have_the_paths_of_their_members() -> None:
    path = f"average/Net.block_{numbers(2, 3, 4)}.dense_1.W/m"
    assert members(path) == tuple(f"average/Net.block_{k}.dense_1.W/m" for k in (2, 6, 10))
    assert members("Net.dense_1.W") == ("Net.dense_1.W",)


def work(text: str) -> tuple[int, int]:
    """Nodes of the optimised training step, and bytes of its code."""
    made = Session(Source("net.nn", text), Settings(cache=False))
    return len(made.stages("train").optimized), made.entry("train").code_size


def test_many_turns_are_no_more_work_than_few() -> None:
    text = net("x = x |> Dense(8) |> BatchNorm |> relu")
    few, many = (work(text.replace("repeat 5", f"repeat {turns}")) for turns in (20, 2000))
    assert few[0] == many[0]
    assert abs(many[1] - few[1]) < 0.05 * few[1]

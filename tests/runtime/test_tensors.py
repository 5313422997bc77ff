"""What other libraries hold: tensors, columns and frames as inputs, tensors as results, batches of loaders."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest

import nnc
from nnc.runtime.call.foreign import view
from nnc.runtime.train import stream

SOURCE = """
model Net(x: f32[B, 3]) -> (y: f32[B, 2]) {
    y = x |> Dense(8) |> relu |> dropout(p = 0.3) |> out: Dense(2)
}
train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(y, label))
    metric accuracy = mean(argmax(y) == label)
    optimizer = Adam(lr = cosine(0.05, warmup = 3))
    batch = 7
    epochs = 3
}
export twice(z: f32[B, 3]) -> f32[B, 3] = 2 * z
"""
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
LABEL = (X[:, 0] > 0).astype(np.int32)
NAMES = np.array(["no", "yes"])[LABEL]


def network(source: str = SOURCE, **settings: object) -> nnc.Model:
    return nnc.compile(source, seed=1, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def net() -> nnc.Model:
    return network()


def refused(call, *args: object, **kwargs: object) -> str:
    with pytest.raises(nnc.NncError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def same(one: nnc.Model, other: nnc.Model) -> None:
    for path in one.params:
        np.testing.assert_array_equal(one.params[path], other.params[path], path)


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_tensors_of_torch(net):
    torch = pytest.importorskip("torch")
    wanted = net.predict(X)
    for x in (torch.tensor(X), torch.tensor(X, requires_grad=True), torch.tensor(X, dtype=torch.float64)):
        np.testing.assert_array_equal(net.predict(x), wanted)
    for dtype in (torch.bfloat16, torch.float16, torch.float8_e5m2):
        x = torch.tensor(X).to(dtype)
        np.testing.assert_array_equal(net.predict(x), net.predict(x.float().numpy()))
    assert net.loss(torch.tensor(X), torch.tensor(LABEL)) == net.loss(X, LABEL)
    np.testing.assert_array_equal(net.twice(torch.tensor(X).T.contiguous().T), 2 * X)
    assert "torch.Tensor on the device meta\n  = help: `.cpu()`" in refused(
        net.predict, torch.empty(4, 3, device="meta")
    )
    assert "Use Tensor.to_dense()" in refused(net.predict, torch.tensor(X).to_sparse())
    assert "got f32[40]" in refused(net.loss, X, torch.tensor(X[:, 0]))


def test_arrays_of_jax(tmp_path):
    """In a process of its own: JAX runs where garbage is collected, and has threads that a fork would miss."""
    if find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    program = tmp_path / "net.nn"
    program.write_text(SOURCE)
    out = subprocess.run([sys.executable, "-c", JAX, str(program)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr


JAX = """
import sys, jax, jax.numpy as jnp, numpy as np, nnc
net = nnc.compile(sys.argv[1])
x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
y = net.predict(x)
np.testing.assert_array_equal(net.predict(jnp.array(x)), y)
for name in ("bfloat16", "float16", "float8_e5m2"):
    narrow = jnp.array(x, name)
    np.testing.assert_array_equal(net.predict(narrow), net.predict(np.asarray(narrow).astype(np.float32)))
found = net.predict(x, like="jax")
assert isinstance(found, jax.Array)
np.testing.assert_array_equal(found, y)
try:
    nnc.compile(sys.argv[1], dtype="f64").predict(x, like="jax")
except nnc.ArgumentError as e:
    assert "JAX would round float64 to float32" in str(e)
else:
    raise AssertionError("f64 was rounded")
"""


class Exchanged:
    """Nothing but the protocol, with the device that it says."""

    def __init__(self, values: np.ndarray, device: int = 1):
        self.values, self.kind = values, device

    def __dlpack__(self, **_: object) -> object:
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 0)


def test_memory_is_shared_where_the_processor_can_read_it(net):
    x = X.copy()
    assert np.shares_memory(view(Exchanged(x)), x)
    np.testing.assert_array_equal(net.predict(Exchanged(x)), net.predict(X))
    np.testing.assert_array_equal(net.bind("predict", Exchanged(x))(), net.predict(X))
    said = refused(net.predict, Exchanged(x, device=2))
    assert "`x` of predict wants f32[B, 3], got a" in said and "on the device" in said and "copy it" in said


def test_results_like_those_of_another_library(net):
    assert "like must be" in refused(net.predict, X, like="tensorflow")
    torch = pytest.importorskip("torch")
    wanted = net.predict(X)
    found = net.predict(X, like="torch")
    assert isinstance(found, torch.Tensor) and found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), wanted)
    assert isinstance(net.twice(torch.tensor(X), like="torch"), torch.Tensor)
    assert all(isinstance(g, torch.Tensor) for g in net.gradients(X, LABEL, like="torch").values())
    assert isinstance(net.taps(X, like="torch")["Net.out"], torch.Tensor)
    np.testing.assert_array_equal(net.predict(X, like="numpy"), wanted)


def test_tensors_are_bound_as_they_lie(net):
    torch = pytest.importorskip("torch")
    x, out = torch.tensor(X), torch.empty(40, 2)
    run = net.bind("predict", x, out=out)
    x *= 2
    assert run() is out
    np.testing.assert_array_equal(out.numpy(), net.predict(2 * X))
    assert isinstance(net.bind("predict", x, like="torch")(), torch.Tensor)
    for moved in (x.bfloat16(), x.double(), x.T.contiguous().T, x.to_sparse(), torch.empty(40, 3, device="meta")):
        assert "E0602" in refused(net.bind, "predict", moved)
    for out in (torch.empty(40, 2, dtype=torch.float64), torch.empty(40, 2, device="meta")):
        assert "E0602" in refused(net.bind, "predict", x, out=out)


# --- columns and frames -----------------------------------------------------------------------------------------------


def frames(columns: dict[str, list]) -> Iterator[object]:
    """The same columns in each library that is there."""
    for library, make in (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")):
        try:
            yield getattr(__import__(library), make)(columns)
        except ImportError:
            continue


COLUMNS = {**dict(zip("abc", X.T.tolist(), strict=True)), "label": NAMES.tolist()}


def test_columns_of_frames(net):
    pandas = pytest.importorskip("pandas")
    wanted = net.predict(X)
    for frame in frames({n: COLUMNS[n] for n in "abc"}):
        np.testing.assert_array_equal(net.predict(frame), wanted)
        assert net.loss(frame, LABEL) == net.loss(X, LABEL)
    for label in (pandas.Series(LABEL), pandas.Series(LABEL, dtype="Int64"), pandas.Series(LABEL == 1)):
        assert net.loss(X, label) == net.loss(X, LABEL)
    gone = pandas.Series([None, *LABEL[1:]], dtype="Int64")
    assert "of which 1 value is missing\n  = help: fill or drop" in refused(net.loss, X, gone)
    assert "got texts" in refused(net.loss, X, pandas.Series(NAMES))
    assert "column `a` is text" in refused(net.twice, pandas.DataFrame({"a": ["p"], "b": [1.0], "c": [2.0]}))
    mixed = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": pandas.array([3, 4], dtype="Int8")})
    np.testing.assert_array_equal(net.twice(mixed), [[2, 1, 6], [4, 3, 8]])


def test_columns_of_polars(net):
    polars = pytest.importorskip("polars")
    assert net.loss(X, polars.Series(LABEL)) == net.loss(X, LABEL)
    assert "of which 2 values are missing" in refused(net.loss, X, polars.Series([None, None, *LABEL[2:].tolist()]))
    np.testing.assert_array_equal(net.twice(polars.Series(X.tolist())), 2 * X)
    assert "`.collect()`" in refused(net.predict, polars.DataFrame(X).lazy())


def test_columns_of_arrow(net):
    arrow = pytest.importorskip("pyarrow")
    for label in (arrow.array(LABEL), arrow.chunked_array([LABEL[:9], LABEL[9:]]), arrow.array(LABEL == 1)):
        assert net.loss(X, label) == net.loss(X, LABEL)
    assert "of which 1 value is missing" in refused(net.loss, X, arrow.array([None, *LABEL[1:].tolist()]))
    rows = arrow.FixedSizeListArray.from_arrays(arrow.array(X.ravel()), 3)
    for x in (rows, rows.slice(0), arrow.array(X.tolist()), arrow.chunked_array([rows]), arrow.Tensor.from_numpy(X)):
        np.testing.assert_array_equal(net.twice(x), 2 * X)
    np.testing.assert_array_equal(net.twice(rows.slice(5, 4)), 2 * X[5:9])


def test_a_frame_holds_its_target():
    pytest.importorskip("pandas")
    plain = network()
    plain.fit(X, LABEL)
    for frame in frames(COLUMNS):
        read = network()
        read.fit(frame)
        same(read, plain)
        assert read.schema is not None and read.schema.classes == ("no", "yes")
        assert read.evaluate(frame) == plain.evaluate(X, LABEL)
        np.testing.assert_array_equal(read.predict(frame), plain.predict(X))


def test_columns_are_found_by_name_once_they_are_known(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    net = network()
    net.fit(frame, validation=frame[:10])
    wanted = net.predict(X)
    np.testing.assert_array_equal(net.predict(frame[["c", "label", "a", "b"]]), wanted)
    net.save(tmp_path / "net.nnw")
    again = network()
    again.load(tmp_path / "net.nnw")
    np.testing.assert_array_equal(again.predict(frame[["b", "c", "a"]]), wanted)
    assert again.loss(frame) == net.loss(X, LABEL)
    assert again.loss(frame[frame.label == "yes"]) == net.loss(X[LABEL == 1], LABEL[LABEL == 1])
    assert "`a` is missing and `q` was not there" in refused(net.predict, frame.rename(columns={"a": "q"}))
    assert "the class 'maybe' in row 1 was not there" in refused(net.loss, frame.assign(label="maybe"))
    assert "expected texts as `label`, as in training, found numbers" in refused(net.fit, frame.assign(label=1))


def test_a_frame_that_does_not_fit_is_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    fit = network().fit
    said = refused(fit, frame.rename(columns={"label": "species"}))
    assert "wanted are `x`, `label`\n  = help: the column of the target is called as the input: `label`" in said
    assert "has 4 feature columns: `a`, `b`, `c`, `d`" in refused(fit, frame.assign(d=1.0))
    assert "`a` is names, and no input is called so" in refused(fit, frame.assign(a="p"))
    assert "`label` of pandas.DataFrame is a" in refused(fit, frame.assign(label=[None, *NAMES[1:]]))
    assert "with two columns `a`" in refused(fit, frame.rename(columns={"b": "a"}))
    assert "must be numbers or texts, got datetime64" in refused(fit, frame.assign(a=pandas.Timestamp(0)))


def test_what_failed_before_a_step_is_not_remembered():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    net, plain = network(), network()
    refused(net.fit, frame[:0])
    assert "from 0 to 1" in refused(net.fit, frame.assign(label=[*NAMES[:-2], "p", "q"]), shuffle=False, batch=40)
    assert net.schema is None
    net.fit(frame)
    plain.fit(X, LABEL)
    same(net, plain)


def test_a_feature_may_be_called_as_the_input():
    pandas = pytest.importorskip("pandas")
    net, plain = network(), network()
    frame = pandas.DataFrame({**dict(zip("xyz", X.T, strict=True)), "label": LABEL})
    net.fit(frame)
    plain.fit(X, LABEL)
    same(net, plain)
    np.testing.assert_array_equal(net.predict(frame[["z", "y", "x"]]), plain.predict(X))


def test_a_column_of_names_goes_to_its_input():
    pandas = pytest.importorskip("pandas")
    net = network("""
    model Net(x: f32[B, 2], city: i32[B]) -> (y: f32[B]) {
        y = squeeze(concat([x, city |> Embedding(3, 2)], axis = 1) |> Dense(1), 1)
    }
    train Net(x, city, price: f32[B]) {
        loss = mean((y - price)^2)
        optimizer = SGD(lr = 0.1)
        epochs = 2
    }
    """)
    frame = pandas.DataFrame({"a": [1.0, 2, 3], "city": ["Rome", "Oslo", "Bern"], "b": [0.0, 1, 0], "price": [1, 2, 3]})
    net.fit(frame)
    assert net.schema is not None and net.schema.categories == {"city": ("Bern", "Oslo", "Rome")}
    np.testing.assert_array_equal(net.predict(frame[1:]), net.predict(frame[["a", "b"]][1:].to_numpy(), [1, 0]))


# --- loaders ----------------------------------------------------------------------------------------------------------


class Loader:
    """Batches of arrays, anew for each `for`."""

    def __init__(self, size: int = 7, make=lambda x, label: (x, label)):
        self.size, self.make, self.epochs = size, make, 0

    def __len__(self) -> int:
        return -(-len(X) // self.size)

    def __iter__(self) -> Iterator[object]:
        self.epochs += 1
        for k in range(0, len(X), self.size):
            yield self.make(X[k : k + self.size], LABEL[k : k + self.size])


@pytest.fixture(scope="module")
def plain() -> nnc.Model:
    net = network()
    net.fit(X, LABEL, shuffle=False, validation=(X, LABEL))
    return net


@pytest.mark.parametrize("gathered", ["all", "each"])
@pytest.mark.parametrize(
    "make", [lambda x, y: (x, y), lambda x, y: [x.tolist(), y], lambda x, y: {"label": y, "x": x}], ids=range(3)
)
def test_batches_are_what_whole_arrays_are(plain, make, gathered, monkeypatch):
    """Bit for bit, however many are gathered at a time."""
    if gathered == "each":
        monkeypatch.setattr(stream, "_BYTES", 0)
    loader, net = Loader(make=make), network()
    history = net.fit(loader, epochs=3, validation=(X, LABEL))
    same(net, plain)
    again = network()
    rows = again.fit(X, LABEL, shuffle=False, validation=(X, LABEL))
    for name in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy"):
        assert history.column(name) == rows.column(name)
    assert loader.epochs == 3 and net.epochs_done == 3 and net.progress is None


def test_a_loader_of_torch(plain):
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    loader = data.DataLoader(data.TensorDataset(torch.tensor(X), torch.tensor(LABEL)), batch_size=7)
    net = network()
    net.fit(loader, validation=loader)
    same(net, plain)
    found, wanted = net.evaluate(loader), net.evaluate(X, LABEL, batch=7)
    assert found == wanted


def test_batches_of_any_size_are_steps():
    """As one call of `train_step` for each."""
    cuts = [0, 3, 12, 12, 13, 20, 27, 40]
    batches = [(X[a:b], LABEL[a:b]) for a, b in pairwise(cuts)]
    constant = SOURCE.replace("cosine(0.05, warmup = 3)", "0.05")
    net, steps = network(constant), network(constant)
    net.fit(iter(batches), epochs=1)
    for x, label in batches:
        if len(x):
            steps.train_step(x, label)
    same(net, steps)


def test_a_batch_may_be_one_array():
    source = """
    model Net(x: f32[B, 3]) -> (y: f32[B, 3]) { y = x |> Dense(2) |> Dense(3) }
    train Net(x) {
        loss = mean((y - x)^2)
        optimizer = SGD(lr = 0.1)
        batch = 7
        epochs = 2
    }
    """
    net, plain = network(source), network(source)
    net.fit(Loader(make=lambda x, _: x))
    plain.fit(X, shuffle=False)
    same(net, plain)


def test_a_batch_that_is_one_example_is_a_step():
    source = """
    model Net(x: f32[N, 3], edges: i32[E]) -> (y: f32[E]) { y = squeeze(gather(x, edges) |> Dense(1), 1) }
    train Net(x, edges, wanted: f32[E]) {
        loss = mean((y - wanted)^2)
        optimizer = SGD(lr = 0.1)
    }
    """
    graphs = [(X[:n], np.arange(n - 1), X[: n - 1, 0]) for n in (9, 9, 4)]
    net, steps = network(source), network(source)
    net.fit(iter(graphs), epochs=1)
    for graph in graphs:
        steps.train_step(*graph)
    same(net, steps)


def test_the_loader_may_write_into_its_arrays_again(plain):
    x, label = np.empty((7, 3), np.float32), np.empty(7, np.int32)

    def fill(part: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x[: len(part)], label[: len(of)] = part, of
        return x[: len(part)], label[: len(of)]

    net = network()
    net.fit(Loader(make=fill))
    same(net, plain)


def test_what_batches_do_not_tell_is_asked():
    net = network()
    batches = [(X[:7], LABEL[:7])]
    assert "goes 2 times through its batches, but list_iterator gives" in refused(net.fit, iter(batches), epochs=2)
    assert "asks how many steps" in refused(net.fit, iter(batches), epochs=1)
    assert "no share can be held out" in refused(net.fit, Loader(), validation=0.2)
    assert "takes no `batch`, got 7" in refused(net.fit, Loader(), batch=7)
    assert "takes no `resume`" in refused(net.fit, Loader(), resume=True)
    assert "validation goes 3 times" in refused(net.fit, Loader(), validation=iter(batches))
    assert "says `normalize`" in refused(network(SOURCE.replace("batch", "normalize = standard\n batch")).fit, Loader())
    assert "no batch in epoch 1" in refused(net.fit, type("Nothing", (Loader,), {"__iter__": lambda _: iter(())})())
    assert "no examples" in refused(net.evaluate, iter(()))


def test_a_batch_that_does_not_fit_is_refused():
    net = network()
    assert "`label` is missing" in refused(net.fit, Loader(make=lambda x, y: x))
    assert "no input of train is named `y`" in refused(net.fit, Loader(make=lambda x, y: {"x": x, "y": y}))
    assert "`x` of fit wants f32[B, 3], got f32[7, 2]" in refused(net.fit, Loader(make=lambda x, y: (x[:, 1:], y)))
    pandas = pytest.importorskip("pandas")
    said = refused(net.fit, Loader(make=lambda x, y: pandas.DataFrame(x)))
    assert "a batch must be (x, label), or a mapping by these names, got pandas" in said


@pytest.mark.parametrize("gathered", ["all", "each"])
def test_what_is_not_finite_is_found_among_batches(gathered, monkeypatch):
    if gathered == "each":
        monkeypatch.setattr(stream, "_BYTES", 0)
    net, steps = network(), network()
    bad = Loader(make=lambda part, y: (np.where(part == X[17], np.nan, part), y))
    with pytest.raises(nnc.NonFiniteError, match=r"epoch 1, step 3: input `x` .* first nan at \[17, 0\]"):
        net.fit(bad)
    steps.set_training(steps=18)
    for k in (0, 7):
        steps.train_step(X[k : k + 7], LABEL[k : k + 7])
    same(net, steps)
    wrong = Loader(make=lambda x, y: (x, y + 2 * (len(y) < 7)))
    assert "in row 35, but must be from 0 to 1" in refused(network().fit, wrong)


def test_ctrl_c_between_batches_loses_nothing():
    def interrupted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield X[:7], LABEL[:7]
        signal.raise_signal(signal.SIGINT)
        yield X[7:14], LABEL[7:14]

    net = network(SOURCE.replace("cosine(0.05, warmup = 3)", "0.05"))
    before = dict(net.params)
    with pytest.raises(KeyboardInterrupt):
        net.fit(interrupted(), epochs=1)
    assert all(np.isfinite(a).all() and a.shape == before[p].shape for p, a in net.params.items())
    net.fit(X, LABEL, epochs=1)


def test_callbacks_see_the_epoch():
    seen = []

    class Told:
        def on_progress(self, report):
            seen.append(report.position)

        def on_epoch(self, history, net):
            return len(history) == 2

    history = network().fit(Loader(), epochs=9, callbacks=Told())
    assert history.stopped == "callback" and len(history) == 2 and seen[-1] == 40

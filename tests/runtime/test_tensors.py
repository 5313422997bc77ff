"""What other libraries hold: tensors, columns and frames as inputs, tensors as results, batches of loaders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

import nnc
from nnc.runtime.call.foreign import view

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
        self.values, self.kind, self.dtype = values, device, values.dtype

    def __dlpack__(self, **_: object) -> object:
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 0)


def test_memory_is_shared_where_the_processor_can_read_it(net):
    x = X.copy()
    assert np.shares_memory(view(Exchanged(x)), x)
    np.testing.assert_array_equal(net.predict(Exchanged(x)), net.predict(X))
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
    for moved in (x.bfloat16(), x.double(), x.T.contiguous().T):
        assert "E0602" in refused(net.bind, "predict", moved)
    assert "E0602" in refused(net.bind, "predict", x, out=torch.empty(40, 2, dtype=torch.float64))


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

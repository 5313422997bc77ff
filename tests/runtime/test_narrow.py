"""Parameters stored in fewer bytes: predictions are those of rounded parameters, and training knows nothing of it."""

from __future__ import annotations

import numpy as np
import pytest

import nnc

NETS = {
    "dense": """
model Net(x: f32[B, 40]) -> (y: f32[B, 10]) {
    y = x |> Dense(100) |> tanh |> Dense(10)
}
""",
    "convolutions": """
model Net(x: f32[B, 3, 12, 12]) -> (y: f32[B, 20]) {
    y = x |> Conv(6, 3, pad = 1) |> relu |> Conv(32, 4, stride = 2) |> relu |> Conv(20, 5) |> flatten
}
""",
    "recurrent": """
model Net(x: f32[B, 9, 12]) -> (y: f32[B, 33]) {
    y = x |> Lstm(33) |> mean(axis = 1)
}
""",
    "lookup": """
model Net(x: i32[B, 7]) -> (y: f32[B, 50]) {
    e = x |> Embedding(50, 16)
    y = e |> mean(axis = 1) |> Dense(50)
}
""",
}
HALF = {
    "f16": lambda a: a.astype(np.float16).astype(np.float32),
    "bf16": lambda a: ((a.view(np.uint32) + 0x7FFF + (a.view(np.uint32) >> 16 & 1)) & 0xFFFF0000).view(np.float32),
}
rng = np.random.default_rng(5)


def inputs(name: str) -> np.ndarray:
    if name == "lookup":
        return rng.integers(0, 50, (21, 7)).astype(np.int32)
    shape = {"dense": (40,), "convolutions": (3, 12, 12), "recurrent": (9, 12)}[name]
    return rng.normal(size=(21, *shape)).astype(np.float32)


def twins(text: str, format: str, **more: object) -> tuple[nnc.Model, nnc.Model]:
    """The network as it is, and the same with parameters stored in a format."""
    plain = nnc.compile(text, precise=True, seed=3, **more)
    narrow = nnc.compile(text, weights_dtype=format, seed=3, **more)
    return plain, narrow


@pytest.mark.parametrize("format", HALF)
@pytest.mark.parametrize("name", NETS)
def test_predictions_are_those_of_rounded_parameters(name, format):
    """Bit for bit, for few examples and many: what is stored is rounded once, and sums are as they are."""
    plain, narrow = twins(NETS[name], format)
    for path, a in plain.params.items():
        if a.ndim > 1:
            plain.params[path] = HALF[format](a)
    x = inputs(name)
    np.testing.assert_array_equal(narrow.predict(x), plain.predict(x))
    np.testing.assert_array_equal(narrow.predict(x[:2]), plain.predict(x[:2]))
    stored = {p.name: p.dtype for p in narrow.entry("predict").signature.prepared}
    assert "i16" in stored.values()


@pytest.mark.parametrize("name", NETS)
def test_bytes_have_a_step_for_each_result(name):
    plain, narrow = twins(NETS[name], "i8")
    across = {"recurrent": 0, "convolutions": 0}.get(name, 0)
    for path, a in plain.params.items():
        if a.ndim > 1:
            reduced = tuple(k for k in range(a.ndim) if k != across)
            step = np.abs(a).max(axis=reduced, keepdims=True) / np.float32(127)
            plain.params[path] = np.rint(a / step).astype(np.float32) * step
    x = inputs(name)
    np.testing.assert_allclose(narrow.predict(x), plain.predict(x), rtol=2e-5, atol=2e-5)
    prepared = narrow.entry("predict").signature.prepared
    assert "i8" in {p.dtype for p in prepared}
    assert not [p for p in prepared if p.dtype == "f32" and len(p.shape) > 1], "nothing large is left as it was"


@pytest.mark.parametrize("format", [*HALF, "i8"])
def test_a_normalisation_that_is_folded_is_rounded_with_the_weights(format):
    text = """
model Net(x: f32[B, 3, 8, 8]) -> (y: f32[B, 8]) {
    y = x |> Conv(16, 3) |> norm: BatchNorm |> relu |> Conv(8, 6) |> flatten
}
"""
    plain, narrow = twins(text, format)
    for net in (plain, narrow):
        state = np.random.default_rng(0)
        for path, a in net.state.items():
            net.state[path] = state.uniform(0.5, 2, a.shape).astype(np.float32)
    x = rng.normal(size=(5, 3, 8, 8)).astype(np.float32)
    y = plain.predict(x)
    assert 0 < np.abs(narrow.predict(x) - y).max() < {"f16": 1e-3, "bf16": 1e-2, "i8": 3e-2}[format] * np.abs(y).max()
    dtypes = {p.dtype for p in narrow.entry("predict").signature.prepared if len(p.shape) > 1}
    assert dtypes == {"i8" if format == "i8" else "i16"}


def test_training_and_evaluation():
    """Steps have the bits that they have; an evaluation is of what is stored."""
    text = (
        NETS["dense"]
        + """
train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(y, label))
    optimizer = Adam(lr = 1e-2)
    batch = 16
    epochs = 2
}
"""
    )
    plain, narrow = twins(text, "i8")
    x, label = rng.normal(size=(64, 40)).astype(np.float32), rng.integers(0, 10, 64).astype(np.int32)
    for net in (plain, narrow):
        net.fit(x, label)
    for path, a in plain.params.items():
        np.testing.assert_array_equal(a, narrow.params[path])
    assert plain.evaluate(x, label)["loss"] == pytest.approx(narrow.evaluate(x, label)["loss"], rel=0.05)
    assert plain.evaluate(x, label)["loss"] != narrow.evaluate(x, label)["loss"]


def test_zeros_and_what_is_not_finite():
    """A column of zeros has a step of 0; one that is not finite makes its own result so, and no others."""
    _, narrow = twins(NETS["dense"], "i8")
    w = narrow.params["Net.dense_2.W"].copy()
    w[0], w[1, 3], w[2, 5] = 0, np.nan, np.inf
    narrow.params["Net.dense_2.W"] = w
    y = narrow.predict(inputs("dense"))
    assert np.isfinite(y[:, [0, *range(3, 10)]]).all() and not np.isfinite(y[:, 1:3]).any()


def test_exports_and_what_learns_while_it_predicts_read_parameters_as_they_are():
    """A library for C has no prepared parameters for those, and has the same bits."""
    text = (
        NETS["dense"]
        + """
export double(x: f32[B, 40]) -> f32[B, 10] = 2 * Net(x)
"""
    )
    plain, narrow = twins(text, "i8")
    x = inputs("dense")
    np.testing.assert_array_equal(narrow.double(x), plain.double(x))
    assert (narrow.predict(x) != plain.predict(x)).any()


def test_what_is_no_format_is_refused():
    with pytest.raises(nnc.ArgumentError, match='weights_dtype must be "f32" or "f16" or "bf16" or "i8", got \'int8\''):
        nnc.compile(NETS["dense"], weights_dtype="int8")

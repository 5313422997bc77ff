"""What one example is: a set that is one step stays as it stands, and what cannot be cut is not."""

from __future__ import annotations

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import ArgumentError

GRAPH = """
model Club(x: f32[N, 3], src: i32[E], dst: i32[E]) -> (logits: f32[N, 2]) {
    near   = scatter(gather(x, src, axis = 0), dst, size(x, 0))
    logits = (x + near) |> Dense(2)
}
train Club(x, src, dst, label: i32[N]) {
    loss      = mean(cross_entropy(logits, label))
    optimizer = SGD(lr = 0.1)
}
"""
FRIENDS = """
const src: i32[5] = [0, 1, 2, 3, 8]
const dst: i32[5] = [1, 2, 3, 8, 0]
model Club(x: f32[N, 3]) -> (logits: f32[N, 2]) {
    near   = scatter(gather(x, src, axis = 0), dst, size(x, 0))
    logits = (x + near) |> Dense(2)
}
train Club(x, label: i32[N]) {
    loss      = mean(cross_entropy(logits, label))
    optimizer = SGD(lr = 0.1)
}
"""
SERIES = """
model Follow(x: f32[T, 1]) -> (y: f32[T, 1]) {
    weight w: f32[] ~ constant(0.5)
    s = x[0, 0]
    scan t in 0..size(x, 0) {
        s = w * s + x[t, 0]
        ys[t] = s
    }
    y = expand(ys, 1)
}
train Follow(x, target: f32[T, 1]) {
    loss      = mean((y - target)^2)
    optimizer = SGD(lr = 0.01)
}
"""
ROWS = """
model Line(x: f32[B, 2]) -> (y: f32[B]) {
    y = (x |> Dense(1))[:, 0]
}
train Line(x, t: f32[B]) {
    loss      = mean((y - t)^2)
    optimizer = SGD(lr = 0.1)
}
"""
rng = np.random.default_rng(0)
CLUB = (
    rng.normal(size=(9, 3)).astype("f4"),
    rng.integers(0, 9, 20).astype("i4"),
    rng.integers(0, 9, 20).astype("i4"),
    rng.integers(0, 2, 9).astype("i4"),
)
LINE = rng.normal(size=(12, 1)).astype("f4"), rng.normal(size=(12, 1)).astype("f4")


@pytest.mark.parametrize(("source", "arrays"), [(GRAPH, CLUB), (SERIES, LINE)], ids=["graph", "series"])
def test_a_set_that_is_one_step_stays_as_it_stands(source, arrays):
    fitted, stepped = nnc.compile(source), nnc.compile(source)
    fitted.fit(*arrays, epochs=3)
    for _ in range(3):
        stepped.train_step(*arrays)
    for path, value in stepped.params.items():
        assert fitted.params[path].tobytes() == value.tobytes()


@pytest.mark.parametrize(
    ("source", "arrays", "why"),
    [
        (GRAPH, CLUB, r"`src` is i32\[E\], which N does not count"),
        (SERIES, LINE, r"a scan runs along T \(<text>:5:5\)"),
        (GRAPH.replace("E]", "20]"), CLUB, r"an index from the data picks along N \(<text>:3:22\)"),
        (FRIENDS, (CLUB[0], CLUB[3]), r"an index from the data picks along N \(<text>:5:22\)"),
    ],
    ids=["edges", "scan", "index", "edges in the program"],
)
def test_what_is_one_example_is_not_cut(source, arrays, why):
    net = nnc.compile(source)
    before = {path: value.copy() for path, value in net.params.items()}
    for how in ({"batch": 4}, {"validation": 0.25}):
        with pytest.raises(ArgumentError, match=rf"E0611.*the set is one example: {why}"):
            net.fit(*arrays, epochs=1, **how)
    with pytest.raises(ArgumentError, match="E0611"):
        net.evaluate(*arrays, batch=4)
    assert np.isfinite(net.evaluate(*arrays)["loss"])
    assert all((before[path] == value).all() for path, value in net.params.items())


def test_rows_are_shuffled_and_held_out():
    x = rng.normal(size=(32, 2)).astype("f4")
    net, again = nnc.compile(ROWS), nnc.compile(ROWS)
    assert "val_loss" in net.fit(x, x[:, 0], epochs=2, batch=8, validation=0.25)[0]
    again.fit(x, x[:, 0], epochs=2, batch=8, validation=0.25)
    assert net.params["Line.dense_1.W"].tobytes() == again.params["Line.dense_1.W"].tobytes()
    straight = nnc.compile(ROWS)
    straight.fit(x, x[:, 0], epochs=2, batch=8, validation=0.25, shuffle=False)
    assert net.params["Line.dense_1.W"].tobytes() != straight.params["Line.dense_1.W"].tobytes()

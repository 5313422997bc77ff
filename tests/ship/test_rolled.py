"""A network whose equal turns are compiled once: C has its bits, and its members by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import nnc

from .conftest import host, loaded, ship, variables

TEXT = """
model Net(x: f32[B, 5]) -> (y: f32[B, 3]) {
    repeat 18 { x = x |> Dense(5) |> dropout(p = 0.1) |> tanh }
    y = x |> Dense(3)
}
train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(y, label))
    optimizer = Adam(lr = 1e-2)
}
"""


def test_a_training_in_c_has_the_bits_of_python(tmp_path: Path) -> None:
    net = nnc.compile(TEXT, threads=1)
    assert net.manifest.stacks
    library = loaded(ship(net, host(), tmp_path), tmp_path)
    x = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)
    label = np.array([0, 1, 2, 0], np.int32)
    face = library.face
    state = np.zeros(face.state.nbytes, np.uint8)
    assert library.call("init", {"state": state}, {}, seed=0, steps=10)[0] == 0
    for _ in range(3):
        code, outputs = library.call("train", {"state": state}, {"B": 4}, x=x, label=label)
        assert code == 0 and outputs["metrics"][:4].view(np.float32) == net.entry("train")(x, label)[0]
    found = variables(net, face.state, state)
    assert "Net.dense_7.W" in found and "Net.dense_18.b/m" in found
    del found["train/steps"]  # how many there will be is the caller's to say
    for path, (theirs, ours) in found.items():
        assert theirs == ours, path
    weights = state[face.state.offset("weights") :][: face.weights.nbytes].copy()
    held = {"weights": weights}
    if face.prepared.fields:
        held["prepared"] = np.zeros(face.prepared.nbytes, np.uint8)
        assert library.call("prepare", held, {})[0] == 0
    code, outputs = library.call("predict", held, {"B": 4}, x=x)
    assert code == 0
    np.testing.assert_array_equal(outputs["y"], net.predict(x))

"""A folder for npm: a training in JavaScript has the bits of Python, by both modules."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.standalone import structs
from nnc.runtime.call.arrays import NUMPY
from nnc.runtime.check.gradcheck import sample_inputs
from nnc.runtime.cli import main
from nnc.runtime.ship.web import web

from .conftest import MODELS, variables
from .test_bits import EPOCHS, learned  # noqa: F401  (a fixture)

SCRIPT = Path(__file__).with_name("digits.mjs")
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.mark.parametrize("relaxed", [False, True])
def test_a_training_in_javascript_has_the_bits_of_python(relaxed: bool, learned, tmp_path: Path) -> None:  # noqa: F811
    net, images, labels, printed = learned
    files, _ = web(net, "net", ["init", "predict", "train", "evaluate"])
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    images.tofile(tmp_path / "images.bin")
    labels.tofile(tmp_path / "labels.bin")
    flags = ["--experimental-wasm-relaxed-simd"] if relaxed else []
    ran = subprocess.run(
        ["node", *flags, str(SCRIPT), str(tmp_path), str(EPOCHS)], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["relaxed"] == relaxed and said["scalar"] == int(net.variables["train/t"])
    assert [float(said[m]).hex() for m in ("loss", "accuracy")] == printed[2:4]
    assert "outside an axis of size 10" in said["wrong"][0]
    assert "train wants x of f32[B, 64]" in said["wrong"][1] and "wants label as Int32Array" in said["wrong"][2]
    state = np.fromfile(tmp_path / "state.bin", np.uint8)
    for path, (ours, theirs) in variables(
        net, structs.state(net.manifest, structs.weights(net.manifest)), state
    ).items():
        assert ours == theirs, path
    logits = np.fromfile(tmp_path / "logits.bin", np.float32).reshape(len(labels), 10)
    np.testing.assert_array_equal(logits.view(np.int32), net.predict(images).view(np.int32))


def test_trained_weights_are_in_the_module(tmp_path: Path, monkeypatch, capfd) -> None:
    """And exports, sizes that no array says, numbers."""
    monkeypatch.chdir(tmp_path)
    Path("net.nn").write_text("""
model Net(x: f32[B, 3]) -> f32[B, 2] { return x |> Dense(2) }
export spread(x: f32[N, M], by: f32) -> (rows: f32[N], whole: f32) {
    rows  = by * sum(x, axis = 1)
    whole = sum(x)
}
""")
    net = nnc.compile("net.nn", seed=5)
    net.save("net.nnw")
    arguments = ["build", "net.nn", "--as", "wasm", "--weights", "net.nnw", "--entry", "spread", "-o", "out"]
    assert main(arguments) == 0
    Path("main.mjs").write_text("""
import { load } from "./out/index.mjs";
const net = await load();
const { result } = net.predict(net.trained, { x: Float32Array.of(1, 2, 3, 4, 5, 6) });
const { rows, whole } = net.spread({ x: Float32Array.of(1, 2, 3, 4, 5, 6), by: 2 }, { M: 2 });
console.log(JSON.stringify([[...result], [...rows], [...whole]]));
""")
    said = json.loads(subprocess.run(["node", "main.mjs"], capture_output=True, text=True, check=True).stdout)
    assert said[0] == net.predict(np.arange(1, 7, dtype=np.float32).reshape(2, 3)).ravel().tolist()
    assert said[1:] == [[6.0, 14.0, 22.0], [21.0]]
    assert main([*arguments, "--target", "aarch64"]) == 2
    assert "takes no --target" in capfd.readouterr().err


def test_models_of_all_kinds_are_modules(tmp_path: Path) -> None:
    """The types are TypeScript as far as brackets say, and the modules compile."""
    for name in ("char_lstm", "boltzmann"):
        net = nnc.compile(MODELS / f"{name}.nn", threads=1)
        trains = net.manifest.train is not None
        names = ["init", "predict", "train", "evaluate"] if trains else ["predict"]
        files, _ = web(net, "net", [*names, *net.exports])
        assert files["index.d.ts"].count(b"{") == files["index.d.ts"].count(b"}")
        for file, data in files.items():
            (tmp_path / file).write_bytes(data)
        (tmp_path / "check.mjs").write_text("""
import { load } from "./index.mjs";
const net = await load();
console.log(typeof net.predict);
""")
        ran = subprocess.run(["node", tmp_path / "check.mjs"], capture_output=True, text=True)
        assert ran.stdout == "function\n", (name, ran.stderr)


TRAINED = (
    "adaline", "autoencoder", "char_lstm", "convolutional_autoencoder", "diffusion", "distillation", "gan", "hopfield",
    "logistic_regression", "q_learning", "restricted_boltzmann", "two_layer", "variational_autoencoder", "xor",
)  # fmt: skip


@pytest.mark.parametrize("name", TRAINED)
def test_steps_of_a_model_are_those_of_python(name: str, tmp_path: Path) -> None:
    """State, random draws, losses of all kinds: after three steps all variables have Python's bits."""
    net = nnc.compile(MODELS / f"{name}.nn", threads=1)
    files, made = web(net, "net", ["init", "predict", "train"])
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    net.reset(5)
    net.set_training(steps=9)
    ports = net.entry("train").signature.inputs
    sizes = dict.fromkeys(net.entry("train").signature.sizes, 3)
    calls = []
    for k in range(3):
        given = {}
        for p, value in zip(ports, sample_inputs(ports, 3, sizes=sizes, seed=k), strict=True):
            array = np.ascontiguousarray(value, NUMPY[p.dtype])
            (tmp_path / f"{k}.{p.name}").write_bytes(array.tobytes())
            given[p.name] = [p.dtype, f"{k}.{p.name}"] if p.shape else array.item()
        net.entry("train")(*sample_inputs(ports, 3, sizes=sizes, seed=k))
        calls.append({"inputs": given, "sizes": sizes})
    (tmp_path / "steps.json").write_text(json.dumps({"seed": 5, "steps": 9, "calls": calls}))
    script = str(SCRIPT.with_name("steps.mjs"))
    ran = subprocess.run(["node", script, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    state = np.fromfile(tmp_path / "state.bin", np.uint8)
    for path, (ours, theirs) in variables(net, made.interface.state, state).items():
        assert ours == theirs, path

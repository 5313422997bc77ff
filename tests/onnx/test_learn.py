"""Trainings by the programs that `nnc export --train --with` puts beside a step: their losses are those of nnc."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.runtime.cli import main

from ..browser import browsing

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
MODELS = Path(__file__).parents[2] / "models"
STEPS = 40
TEXT = "the cat sat on the mat and the dog lay in the sun while a bird sang in the old tree by the gate of the farm"
# Which third of the text a window is from. The rate falls by the epoch.
LSTM = """
model Reader(x: i32[B, T]) -> (logits: f32[B, 3]) {
    logits = (x |> Embedding(27, 8) |> Lstm(16))[:, T - 1] |> Dense(3)
}
train Reader(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    metric accuracy = mean(argmax(logits) == label)
    optimizer = Adam(lr = exponential(1e-2, factor = 0.9))
}
"""


@dataclass(frozen=True)
class Task:
    """A network, what it learns, and how: `epochs` times all rows is forty steps."""

    source: str
    examples: dict[str, np.ndarray]
    epochs: int
    batch: int

    def losses(self) -> list[float]:
        """Of nnc, step by step."""
        net = nnc.compile(self.source, threads=1)
        net.set_training(t=0, steps=STEPS)
        found = []
        for epoch in range(self.epochs):
            net.set_training(epoch=epoch)
            for at in range(0, STEPS // self.epochs * self.batch, self.batch):
                loss = net.train_step(**{name: rows[at : at + self.batch] for name, rows in self.examples.items()})
                found.append(float(loss))
        return found

    def write(self, folder: Path, form: str) -> None:
        """The step and its program, as a user has them, and net.npz or net.json."""
        (folder / "net.nn").write_text(self.source)
        arguments = ["export", str(folder / "net.nn"), "--onnx", str(folder / "net.onnx"), "--train", "--with", form]
        assert main(arguments) == 0
        if form == "python":
            np.savez(folder / "net.npz", **self.examples)
        else:
            (folder / "net.json").write_text(json.dumps({name: a.tolist() for name, a in self.examples.items()}))

    @property
    def often(self) -> list[str]:
        return ["--epochs", str(self.epochs), "--batch", str(self.batch)]


def digits() -> Task:
    source = (MODELS / "digits_mlp.nn").read_text("utf-8")
    net = nnc.compile(source)
    data = net.load_dataset().train
    x, label = np.asarray(data["x"][: 32 * STEPS], np.float32), np.asarray(data["label"][: 32 * STEPS], np.int32)
    return Task(source, {"x": x.reshape(-1, 64), "label": label}, 1, 32)


def lenet5() -> Task:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(8, 1, 28, 28)).astype(np.float32)
    return Task((MODELS / "lenet5.nn").read_text("utf-8"), {"x": x, "label": np.arange(8, dtype=np.int32)}, STEPS, 8)


def lstm() -> Task:
    """The last batch of an epoch is smaller than the others."""
    letters = np.array([" abcdefghijklmnopqrstuvwxyz".index(c) for c in TEXT], np.int32)
    x = np.lib.stride_tricks.sliding_window_view(letters, 12)[:78]
    return Task(LSTM, {"x": x, "label": (np.arange(78) // 26).astype(np.int32)}, 4, 8)


NETS = {"digits": digits, "lenet5": lenet5, "lstm": lstm}


@pytest.fixture(scope="module")
def web() -> Path:
    """The folder onnxruntime-web, as node finds it."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    asked = ["node", "-p", "require.resolve('onnxruntime-web')"]
    found = subprocess.run(asked, capture_output=True, text=True, cwd=Path(__file__).parent)
    if found.returncode:
        pytest.skip("node does not find onnxruntime-web: see the table in tests/README.md")
    return Path(found.stdout.strip()).parents[1]


def learned_by(command: list[str], folder: Path) -> list[float]:
    """The losses that a program prints."""
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stderr == "", ran.stderr
    return [float(v) for v in re.findall(r" loss (\S+)", ran.stdout)]


def judge(wanted: list[float], got: list[float]) -> None:
    assert len(got) == STEPS and got[-1] < got[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=0)


def in_node(task: Task, folder: Path, web: Path) -> list[float]:
    task.write(folder, "web")
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "onnxruntime-web").symlink_to(web)
    return learned_by(["node", "learn.mjs", "net", "net.json", *task.often], folder)


def in_python(task: Task, folder: Path) -> list[float]:
    task.write(folder, "python")
    return learned_by([sys.executable, "learn.py", "net", "net.npz", *task.often], folder)


def equal_weights(task: Task, file: Path, got: list[float]) -> None:
    """What was learned is what nnc reads: no parameter is left as it was, and the loss goes on where it stopped."""
    net = nnc.compile(task.source, threads=1)
    before = {v.path: net.variables[v.path].copy() for v in net.manifest.variables if v.role in ("weight", "bias")}
    net.load_weights(file)
    assert all(np.any(net.variables[path] != v) for path, v in before.items())
    assert net.evaluate(**task.examples)["loss"] < got[0]


@pytest.mark.parametrize("name", NETS)
def test_python_learns_as_nnc_does(name: str, tmp_path: Path) -> None:
    task = NETS[name]()
    judge(task.losses(), got := in_python(task, tmp_path))
    equal_weights(task, tmp_path / "learned.npz", got)


@pytest.mark.parametrize("name", NETS)
def test_node_learns_as_nnc_does(name: str, tmp_path: Path, web: Path) -> None:
    task = NETS[name]()
    judge(task.losses(), got := in_node(task, tmp_path, web))
    equal_weights(task, tmp_path / "learned.safetensors", got)


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_page_learns_as_nnc_does(tmp_path: Path, web: Path, served: str) -> None:
    task = lstm()
    task.write(tmp_path, "web")
    (tmp_path / "ort").symlink_to(web / "dist")
    with browsing(tmp_path / "profile") as browser:
        asked = f"ort=ort&epochs={task.epochs}&batch={task.batch}"
        browser.call("POST", "/url", {"url": f"{served}/learn.html?{asked}&go"})
        browser.wait("!document.getElementById('save').disabled")
        said = browser.text("now")
        assert browser.text("title") == "Training net in ONNX Runtime Web" and browser.text("fault") == ""
        assert said.startswith(f"epoch {task.epochs}, step {STEPS}: loss ")
        assert float(said.split()[5].strip(",")) == pytest.approx(task.losses()[-1], rel=1e-5)
        (tmp_path / "net.json").unlink()
        browser.call("POST", "/url", {"url": f"{served}/learn.html?ort=ort&go"})
        browser.wait("document.getElementById('fault').textContent.startsWith('choose examples')")


def test_examples_of_the_train_block_are_written_and_normalized(tmp_path: Path, capsys: Any) -> None:
    """The step that is written has the normalisation of the examples beside it."""
    rows = np.random.default_rng(0).normal([5, -3], [2, 9], (60, 2)).astype(np.float32)
    (tmp_path / "data.csv").write_text("a,b,y\n" + "".join(f"{a:.3f},{b:.3f},{int(a > b)}\n" for a, b in rows))
    source = """
model Net(x: f32[B, 2]) -> (logits: f32[B, 2]) { logits = x |> Dense(2) }
train Net(x, y: i32[B]) {
    loss      = mean(cross_entropy(logits, y))
    optimizer = SGD(lr = 0.1)
    data      = csv("data.csv", target = "y")
    normalize = standard
    batch     = 30
    epochs    = 3
}
"""
    (tmp_path / "net.nn").write_text(source)
    forms = [word for form in ("python", "web", "npz", "json") for word in ("--with", form)]
    arguments = ["export", str(tmp_path / "net.nn"), "--onnx", str(tmp_path / "net.onnx"), "--train", *forms, "--json"]
    assert main(arguments) == 0
    made = {Path(path).name for path in json.loads(capsys.readouterr().out)["beside"]}
    assert made == {"learn.py", "learn.mjs", "learn.html", "net.npz", "net.json"}
    held = np.load(tmp_path / "net.npz")
    listed = json.loads((tmp_path / "net.json").read_text())
    assert held["x"].shape == (len(listed["y"]), 2) and held["y"].tolist() == listed["y"]
    got = learned_by([sys.executable, "learn.py", "net", "net.npz"], tmp_path)
    net = nnc.compile(tmp_path / "net.nn")
    net.fit_normalization({"x": held["x"]})
    assert got == pytest.approx([net.evaluate(x=held["x"], y=held["y"])["loss"]], rel=1e-5)
    (normal,) = (v.path for v in net.manifest.variables if v.path.endswith("/mean"))
    mean = net.variables[normal].copy()
    net = nnc.compile(tmp_path / "net.nn")
    net.load_weights(tmp_path / "learned.npz")
    np.testing.assert_array_equal(net.variables[normal], mean)


def test_what_does_not_fit_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.nn").write_text(LSTM)
    arguments = ["export", str(tmp_path / "net.nn"), "--onnx", str(tmp_path / "net.onnx")]
    assert main([*arguments, "--with", "python"]) == 2
    assert "it goes with --train" in capsys.readouterr().err
    (tmp_path / "nan.csv").write_text("a,label\n1,0\nnan,1\n")
    (tmp_path / "nan.nn").write_text("""
model M(x: f32[B, 1]) -> (logits: f32[B, 2]) { logits = x |> Dense(2) }
train M(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    optimizer = SGD(lr = 0.1)
    data = csv("nan.csv", target = "label")
}
""")
    odd = ["export", str(tmp_path / "net.nn"), "--onnx", str(tmp_path / "net.bin"), "--train", "--with", "web"]
    assert main(odd) == 1 and "must end in .onnx" in capsys.readouterr().err and not (tmp_path / "net.bin").exists()
    nan = ["export", str(tmp_path / "nan.nn"), "--onnx", str(tmp_path / "nan.onnx"), "--train", "--with", "json"]
    assert main(nan) == 6
    assert "E0630" in capsys.readouterr().err and not list(tmp_path.glob("*.onnx"))
    assert main([*arguments, "--train", "--with", "npz"]) == 1
    assert "E0612" in capsys.readouterr().err and not list(tmp_path.glob("*.onnx"))
    assert main([*arguments, "--train", "--with", "python"]) == 0
    x, label = np.zeros((4, 3), np.int32), np.zeros(4, np.int32)
    wrong = {"x.npz": {"x": x}, "rows.npz": {"x": x, "label": label[:3]}, "none.npz": None}
    said = {"x.npz": "lacks label", "rows.npz": "rows: [3, 4]", "none.npz": "there is no file none.npz"}
    for file, arrays in wrong.items():
        if arrays is not None:
            np.savez(tmp_path / file, **arrays)
        command = [sys.executable, "learn.py", "net", file]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 2 and said[file] in ran.stderr and "Traceback" not in ran.stderr

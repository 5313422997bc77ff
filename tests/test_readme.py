"""What the READMEs show is what happens: programs compile, stages print as printed, commands name files that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.compiler.graph.text import print_graph
from nnc.compiler.loops.text import print_loops
from nnc.compiler.session import Session
from nnc.dsl.parser import parse
from nnc.dsl.source import Source
from nnc.runtime.cli import main

from .book.snippets import texts

ROOT = Path(nnc.__file__).parent
README = (ROOT / "README.md").read_text("utf-8")
REFERENCE = (ROOT / "dsl" / "README.md").read_text("utf-8")


def i32(x: Any) -> np.ndarray:
    return np.asarray(x, np.int32)


def test_the_example_trains() -> None:
    net = nnc.compile(texts(README)[0])
    first, *_, last = net.fit(epochs=5)
    assert last["loss"] < first["loss"]
    assert len(texts(README)[0].splitlines()) <= 16


def tour() -> Session:
    return Session(Source("pull.nn", next(b for b in texts(README) if b.startswith("export pull"))))


@pytest.mark.parametrize(("stage", "marker"), [("graph", "= grad "), ("optimized", "%d_z = sub")])
def test_a_stage_prints_as_the_readme_shows(stage: str, marker: str) -> None:
    shown = next(b for b in texts(README) if b.startswith("graph") and marker in b)
    assert print_graph(getattr(tour().stages("pull"), stage)).strip() == shown.strip()


def test_the_loops_print_as_the_readme_shows() -> None:
    shown = next(b for b in texts(README) if b.startswith("kernel"))
    assert shown.strip() in print_loops(tour().stages("pull").lowered.module)


def test_the_tour_ends_at_softmax_minus_one_hot() -> None:
    net = nnc.compile(tour().source.text)
    z, label = np.random.default_rng(0).standard_normal((4, 50), dtype=np.float32), i32([3, 0, 9, 3])
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(net.pull(z, label), p - np.eye(50)[label], atol=1e-6)


def block_with(text: str) -> str:
    """The one block of Python that has this text."""
    (found,) = [b for b in texts(README, "python") if text in b]
    return found


PASSED = block_with("net.fit(loader").splitlines()


@pytest.mark.parametrize("line", PASSED, ids=["frame", "loader", "tensor"])
def test_what_other_libraries_hold_is_passed(line: str) -> None:
    net = nnc.compile(texts(README)[0])
    data = net.load_dataset()
    x, label = (column[:] for column in data.for_training(net.train_spec.inputs, net.entry("train").wants))
    names: dict[str, Any] = {"net": net, "held_out": (x, label)}
    if "frame" in line:
        names["frame"] = pytest.importorskip("pandas").DataFrame(x).assign(label=np.array(list("abcdefghij"))[label])
    elif "tensor" in line:
        names["tensor"] = pytest.importorskip("torch").tensor(x)
        line += "\n" + line.split(": ")[-1]
    else:
        names["loader"] = type("Loader", (), {"__iter__": lambda _: iter([(x, label)]), "__len__": lambda _: 1})()
    exec(line, names)
    if "frame" in line:
        assert net.schema is not None and net.schema.classes == tuple("abcdefghij")
        assert net.evaluate(names["frame"])["accuracy"] > 0.5
    elif "tensor" in line:
        np.testing.assert_array_equal(names["y"].numpy(), net.predict(x))
    else:
        assert net.epochs_done == 3


def test_the_first_five_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command prints what stands below it, but for times and threads; `...` stands for some lines."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    (transcript,) = texts(README, "console")
    commands = re.findall(r"^\$ nnc (.*)\n((?:[^$].*\n)*)", transcript, re.MULTILINE)
    assert [c.split()[0] for c, _ in commands] == ["new", "check", "train", "eval", "look", "build"]
    for command, shown in commands:
        assert main(command.split()) == 0
        wanted = re.escape(_steady(shown)).replace(re.escape("...\n"), "(?:.*\n)*")
        out = _steady(capsys.readouterr().out)
        assert re.fullmatch(wanted, out), f"nnc {command} printed\n{out}"


def _steady(text: str) -> str:
    """Without what differs from machine to machine."""
    return re.sub(r" +[\d.]+ (ns|us|ms|s)\b|\d+ threads?", "", text)


def test_an_estimator_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, label = load_digits(return_X_y=True)
    monkeypatch.chdir(tmp_path)
    Path("net.nn").write_text(texts(README)[0].replace("[32, 64, 128, 256]", "8..64"))
    names = {"X": x, "names": np.array(list("abcdefghij"))[label], "GridSearchCV": GridSearchCV}
    names |= {"make_pipeline": make_pipeline, "StandardScaler": StandardScaler}
    exec(block_with("nnc.sklearn"), names)
    assert names["search"].best_score_ > 0.9
    assert names["search"].predict(x[:3]).tolist() == ["a", "b", "c"]


def test_commands_name_what_exists() -> None:
    shell = "\n".join(texts(README, "sh"))
    models = re.findall(r"nnc (?:train|build) (models/\S+)", shell)
    assert models and all((ROOT / model).is_file() for model in models)
    (test_command,) = re.findall(r"\.venv/bin/pip install .*pytest.*", shell)
    ci = ROOT / ".ci" / "run"
    if ci.is_file():  # not in a wheel
        assert test_command.split(" && ")[-1] in ci.read_text("utf-8")


def test_the_door_for_onnx_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    import nnc.onnx_backend

    monkeypatch.chdir(tmp_path)
    made = nnc.compile(texts(README)[0])
    made.to_onnx("net.onnx")
    x = np.random.default_rng(0).random((5, 64), dtype=np.float32)
    given: dict[str, Any] = {"nnc": nnc, "model": onnx.load("net.onnx"), "x": x}
    exec(block_with("from_onnx"), given)
    np.testing.assert_array_equal(given["net"].predict(x), made.predict(x))
    np.testing.assert_array_equal(given["outputs"][0], made.predict(x))
    np.testing.assert_array_equal(nnc.from_onnx("again.onnx").predict(x), made.predict(x))


def test_the_door_for_pytorch_opens() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)
    (door,) = (b for b in texts(README, "python") if "from_torch" in b)
    assert len(door.splitlines()) == 3
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    before = module[0].weight.detach().clone()
    block = """train Net(input, label: i32[B]) {
    loss = mean(cross_entropy(y, label))
    optimizer = Adam(lr = 0.01)
    epochs = 3
}"""
    images, label = np.ones((6, 4), np.float32), i32([0, 1, 2, 0, 1, 2])
    given: dict[str, Any] = {"nnc": nnc, "module": module, "x": torch.zeros(2, 4), "block": block}
    exec(door, given | {"images": images, "label": label})
    assert not torch.equal(module[0].weight, before)


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("*/README.md")]:
        for link in re.findall(r"\]\(([^)# ]+)\)", page.read_text("utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("block", texts(REFERENCE), ids=lambda b: b.split("\n", 1)[0][:40])
def test_samples_of_the_reference_parse(block: str) -> None:
    if re.match(r"\w+\[", block):  # statements without a definition around them
        block = f"fn sample(x) {{\n{block}}}\n"
    assert parse(Source("README.md", block)).definitions


def test_the_reference_lists_the_whole_standard_library() -> None:
    for path in sorted((ROOT / "dsl" / "std").glob("*.nn")):
        for name in re.findall(r"^(?:fn|layer|optimizer|const) (\w+)", path.read_text("utf-8"), re.MULTILINE):
            assert re.search(rf"\b{name}\b", REFERENCE), f"{name} of {path.name}"

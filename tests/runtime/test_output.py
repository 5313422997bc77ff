"""What every command prints: its result as JSON, alone on stdout; nothing that draws over lines, where nobody looks."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nnc.runtime.cli import cli, main

PROGRAM = """
hyper lr: float = 0.1 in log(1e-3, 1.0)

model Net(x: f32[B, 4]) -> (logits: f32[B, 3]) {
    logits = x |> Dense(3)
}

train Net(x, label: i32[B]) {
    loss       = mean(cross_entropy(logits, label))
    optimizer  = SGD(lr)
    data       = csv("data/iris.csv", target = "species")
    validation = 0.2
    epochs     = 3
    seed       = 1
}

test "parameters" { expect count(params(Net)) == 15 }
"""

COMMANDS = {  # a line of each command, and the library that it needs
    "new": ("new mlp mlp.nn", ""), "check": ("check net.nn", ""), "fmt": ("fmt --check net.nn", ""),
    "test": ("test net.nn", ""), "explain": ("explain E0301", ""), "doc": ("doc Dense", ""),
    "completion": ("completion bash", ""), "train": ("train net.nn --out other", ""), "eval": ("eval run", ""),
    "predict": ("predict run data/iris.csv", ""), "tune": ("tune net.nn --trials 2", "optuna"),
    "data": ("data mnist", ""), "import": ("import run/last.nnw --like net.nn -o taken.nnw", ""),
    "load-weights": ("load-weights net.nn theirs.npz --suggest rules", ""),
    "look": ("look filters run -o filters.png", "matplotlib"), "show": ("show net.nn -o net.svg", ""),
    "summary": ("summary net.nn", ""), "plan": ("plan net.nn", ""), "profile": ("profile net.nn", ""),
    "gradcheck": ("gradcheck net.nn", ""), "compile": ("compile net.nn", ""), "build": ("build run --name net", ""),
    "export": ("export run --onnx net.onnx", "onnx"), "reproduce": ("reproduce built/net.lock net.nn", ""),
    "state": ("state export run -o state.bin", ""), "runs": ("runs list .", ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program, its data, a run and a library."""
    made = tmp_path_factory.mktemp("output")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
        assert main(["new", "classifier", "iris.nn", "--quiet"]) == 0
        Path("net.nn").write_text(PROGRAM)
        assert main(["fmt", "net.nn"]) == 0
        np.savez("theirs.npz", weight=np.ones((3, 4), np.float32), bias=np.ones(3, np.float32))
        assert main(["train", "net.nn", "--out", "run", "--quiet"]) == 0
        assert main(["build", "net.nn", "--name", "net", "-o", "built", "--json"]) == 0
    return made


def test_there_is_a_line_of_every_command() -> None:
    assert {*COMMANDS, "lsp"} == set(cli.list_commands(None))  # type: ignore[arg-type]  # it speaks to an editor


@pytest.mark.parametrize("command", COMMANDS)
def test_the_result_of_every_command(command, folder, tmp_path_factory, monkeypatch, capfd) -> None:
    line, needed = COMMANDS[command]
    if needed and find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
    capfd.readouterr()
    assert main([*line.split(), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) and "\r" not in err and "\x1b" not in err
    if command in ("new", "train"):  # which write over nothing
        return
    assert main(line.split()) == 0
    shown, err = capfd.readouterr()
    assert shown.rstrip() != out.rstrip() and "\r" not in shown + err and "\x1b" not in shown + err


def test_notes_are_no_result(folder, tmp_path_factory, monkeypatch, capfd) -> None:
    """How far a command is goes to stderr beside JSON, and nowhere where only the result is wanted."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
    capfd.readouterr()
    assert main(["train", "net.nn", "--out", "a", "--json"]) == 0
    out, err = capfd.readouterr()
    facts = json.loads(out)
    assert facts["run"] == "a" and facts["epochs"] == 3 and facts["weights"] == ["best.nnw", "last.nnw"]
    assert facts["last"]["epoch"] == 3 and facts["best"]["val_loss"] <= facts["last"]["val_loss"]
    assert "compiling net.nn" in err and "val_loss" in err
    assert main(["train", "net.nn", "--out", "b", "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert err == "" and [line.split()[0] for line in out.splitlines()] == ["3", "best:", "weights"]
    assert main(["train", "net.nn", "--out", "b", "--quiet", "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["diagnostics"][0]["code"] == "E0626" and err == ""

"""`nnc tune`: the ranges of a program's hypers are searched, goes on where it stopped, and says what cannot be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nnc.runtime.cli import main

pytest.importorskip("optuna", reason="Optuna is not installed")

PROGRAM = """
hyper lr: float = 0.01 in log(1e-4, 1e8)
hyper width: int = 4 in 2..9
hyper kind: str = "a" in ["a", "b"]
hyper fixed: int = 1

model Net(x: f32[B, 64]) -> (logits: f32[B, 10]) {
    require(width != 5, "five is no width")
    logits = x |> Dense(width * fixed) |> Dense(10)
}

train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    metric accuracy = mean(argmax(logits) == label)
    optimizer = if kind == "a" then SGD(lr) else Adam(lr)
    data = digits()
    batch = 256
    epochs = 3
}
"""


@pytest.fixture
def nnc(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
    Path("net.nn").write_text(PROGRAM)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(list(arguments))
        return code, *capfd.readouterr()

    return run


def test_the_search_is_repeatable_and_its_result_trains(nnc) -> None:
    code, out, _ = nnc("tune", "net.nn", "--trials", "7", "--set", "fixed=2", "-o", "best.json")
    trials = out[: out.index(" ─")].splitlines()
    assert code == 0 and len([line for line in trials if re.match(r" +\d ", line)]) == 7
    best = json.loads(Path("best.json").read_text())
    assert best["fixed"] == 2 and 1e-4 <= best["lr"] <= 1e8 and 2 <= best["width"] <= 9 and best["width"] != 5
    assert "failed: training met a value that is not finite" in out and "nnc train net.nn --set @best.json" in out
    values = [float(m[1]) for line in trials if (m := re.search(r" 3 +(\S+)(?: \*)?$", line))]
    table = [line.split() for line in out.split("─")[-1].splitlines() if re.match(r" \d+ ", line)]
    assert min(values) == min(float(row[-1]) for row in table)
    again = nnc("tune", "net.nn", "--trials", "7", "--set", "fixed=2", "-o", "best.json")[1]
    assert again == out
    assert nnc("train", "net.nn", "--set", "@best.json", "--out", "run", "--quiet")[0] == 0
    assert json.loads(Path("run/hypers.json").read_text()) == best
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert min(r["val_loss"] for r in rows) == pytest.approx(min(values), rel=1e-4)


def test_a_storage_is_shared_and_goes_on(nnc) -> None:
    sound = PROGRAM.replace("1e8", "1.0").replace("2..9", "2..4")  # the searches are not repeatable
    Path("net.nn").write_text(sound)
    command = [
        sys.executable,
        "-c",
        "from nnc.runtime.cli import entry_point; entry_point()",
        "tune",
        "net.nn",
        "--trials",
        "1",
        "--storage",
        "sqlite:///tune.db",
        "--epochs",
        "1",
        "--metric",
        "val_accuracy",
        "--maximize",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        code, _, err = nnc(*command[3:])
        _, theirs = other.communicate(timeout=600)
    assert (other.returncode, theirs, code, err) == (0, "", 0, "")
    code, out, _ = nnc(*command[3:])
    assert code == 0 and "2 trials are in sqlite:///tune.db\n" in out
    assert re.search(r"^    3 ", out, re.M)
    code, _, err = nnc(*command[3:-1], "--minimize")
    assert code == 1 and "error[E0629]" in err and "is to maximize" in err
    Path("net.nn").write_text(sound.replace('["a", "b"]', '["a", "b", "c"]'))
    code, _, err = nnc(*command[3:])
    assert code == 1 and "searched other ranges" in err


def test_worse_trials_are_pruned(nnc) -> None:
    Path("net.nn").write_text(PROGRAM.replace("1e8", "1.0"))
    _, out, _ = nnc("tune", "net.nn", "--trials", "9", "--epochs", "6", "--set", "width=4", "--set", "kind=a")
    assert re.search(r"pruned after [2-5] epochs", out) and "failed" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "lr=1", "--set", "width=2", "--set", "kind=a"], 1, "every hyper with a range is given"),
        (["--metric", "acuracy"], 1, "no metric is named `acuracy`"),
        (["--metric", "val_accuracy"], 2, "--maximize or --minimize"),
        (["--storage", "nothing://here"], 1, "error[E0620]: nothing://here: "),
        (["--storage", "sqlite:///no/folder/a.db"], 1, "unable to open database file"),
        (["--set", "@nothing.json"], 2, "nothing.json: no such file"),
        (["--set", "width=5"], 1, "five is no width"),
        (["--trials", "0"], 2, "0 is not in the range"),
    ],
)
def test_what_cannot_be(nnc, arguments: list[str], code: int, message: str) -> None:
    found, _, err = nnc("tune", "net.nn", *arguments)
    assert (found, message in err, "Traceback" in err) == (code, True, False), err


def test_a_program_without_ranges(nnc) -> None:
    Path("net.nn").write_text(re.sub(r" in .*", "", PROGRAM))
    code, _, err = nnc("tune", "net.nn")
    assert code == 1 and "error[E0629]: no hyper of the program has a range to search" in err


def test_without_optuna_it_says_what_to_install(nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = nnc("tune", "net.nn")
    assert code == 1 and "pip install 'nnc[tune]'" in err


def test_where_every_trial_fails_the_reason_is_the_error(nnc) -> None:
    code, _, err = nnc("tune", "net.nn", "--set", "lr=1e8", "--set", "kind=a", "--trials", "2")
    assert code == 6 and "error[E0630]" in err

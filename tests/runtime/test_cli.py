"""The command line: what it prints, what it writes, and the exit code of everything that can go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from nnc.runtime.cli import main

PROGRAM = """
# A line through points.
hyper lr: float = 0.1 in log(1e-3, 10.0)

model Line(x: f32[B, 2]) -> (y: f32[B]) {
    weight w: f32[2] = 0
    bias b: f32 = 0
    y = x @ w + b
}

train Line(x, target: f32[B]) {
    loss = mean(squared_error(y, target))
    metric worst = max(abs(y - target))
    optimizer = SGD(lr)
    data = csv("points.csv", target = "t")
    validation = 0.25
    batch = 4
    epochs = 3
    seed = 1
}

export doubled(x: f32[B, 2]) -> f32[B] = 2 * Line(x)

test "starts at zero" {
    case Line([[1, 2]]) => [0]
    reject "3" Line([[1, 2, 3]])
}
"""

NNC = [sys.executable, "-c", "from nnc.runtime.cli import entry_point; entry_point()"]


@pytest.fixture
def folder(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))  # one for all tests of a session
    Path("line.nn").write_text(PROGRAM)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    lines = [f"{a},{b},{2 * a - b + 0.5}" for a, b in x]
    Path("points.csv").write_text("\n".join(["a,b,t", *lines]) + "\n")
    return tmp_path


@pytest.fixture
def nnc(folder, capfd):
    """`nnc("train", ...)` -> (exit code, stdout, stderr), in this process."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(list(arguments))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def process(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen([*NNC, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


# --- about text -------------------------------------------------------------------------------------------------------


def test_check(nnc):
    assert nnc("check", "line.nn") == (0, "line.nn: no errors\n", "")
    Path("bad.nn").write_text(PROGRAM.replace("x @ w + b", "x @ v + b"))
    code, out, err = nnc("check", "bad.nn")
    assert code == 1 and out == "" and "error[E0201]" in err and "bad.nn:8:" in err
    code, out, err = nnc("check", "bad.nn", "--json")
    (first,) = json.loads(out)["diagnostics"]
    assert code == 1 and first["code"] == "E0201" and first["labels"][0]["line"] == 8 and err == ""


def test_check_looks_at_every_model_entry_and_test(nnc):
    Path("two.nn").write_text(
        PROGRAM
        + """
model Other(x: f32[B, 2]) -> (y: f32[B]) {
    y = x @ [1.0, 2.0, 3.0]
}

export wrong(x: f32[B, 2]) -> f32[B] = Line(nothing)
"""
    )
    code, _, err = nnc("check", "two.nn")
    assert code == 1 and err.count("error[") == 2 and "nothing" in err


def test_fmt(nnc):
    ugly = PROGRAM.replace("    y = x @ w + b", "  y=x@w+b   # here")
    Path("ugly.nn").write_text(ugly)
    assert nnc("fmt", "--check", "ugly.nn")[0] == 1 and Path("ugly.nn").read_text() == ugly
    assert nnc("fmt", "ugly.nn") == (0, "ugly.nn formatted\n", "")
    assert "y = x @ w + b  # here" in Path("ugly.nn").read_text().replace("+ b # here", "+ b  # here")
    assert nnc("fmt", "ugly.nn") == (0, "", "") and nnc("fmt", "--check", "ugly.nn")[0] == 0
    Path("broken.nn").write_text("model {")
    assert nnc("fmt", "broken.nn")[0] == 1 and Path("broken.nn").read_text() == "model {"


def test_doc(nnc):
    code, out, _ = nnc("doc", "softmax")
    assert code == 0 and "fn softmax" in out and "# dsl/std/activations.nn" in out
    assert "losses: " in nnc("doc")[1]
    code, out, _ = nnc("doc", "sum")
    assert code == 0 and "built in" in out and "dsl/README.md" in out
    code, _, err = nnc("doc", "softmx")
    assert code == 1 and "did you mean `softmax`?" in err


def test_explain(nnc):
    pages = sorted((Path(__file__).parents[2] / "dsl" / "explain").glob("E*.md"))
    for page in pages[:3]:
        code, out, _ = nnc("explain", page.stem.lower())
        assert code == 0 and out == page.read_text()
    assert nnc("explain", "E9999")[0] == 1


def test_test(nnc):
    code, out, _ = nnc("test", "line.nn")
    assert code == 0 and "ok   line.nn: starts at zero" in out and "1 passed, 0 failed" in out
    Path("more").mkdir()
    Path("more/bad.nn").write_text(PROGRAM.replace("=> [0]", "=> [7]"))
    code, out, err = nnc("test", "line.nn", "more")
    assert code == 1 and "1 passed, 1 failed" in out and "FAIL" in out and "7" in err
    code, out, _ = nnc("test", "more", "--json")
    assert code == 1 and json.loads(out)["failed"] == 1
    assert nnc("test", "nowhere.nn")[0] == 4
    Path("empty").mkdir()
    assert nnc("test", "empty")[0] == 4
    code, out, err = nnc("test", "more", "-k", "nothing like it")
    assert code == 1 and "0 passed, 0 failed" in out and "no test has 'nothing like it' in its name" in err


# --- about what was built ---------------------------------------------------------------------------------------------


def test_counting_a_model_does_not_make_it(nnc):
    """400 GB of parameters, and a small model beside them."""
    Path("large.nn").write_text(
        "model Large(x: f32[B, 100000]) -> f32[B, 1000000] { return x |> Dense(1000000) }\n"
        "model Small(x: f32[B, 2]) -> (y: f32[B, 1]) { y = x |> Dense(1) }\n"
        "train Small(x, t: f32[B, 1]) {\n    loss = mean((y - t)^2)\n    optimizer = SGD(lr = 0.1)\n}\n"
        'test "counts" {\n    expect count(params(Large)) == 100001000000\n    expect macs(Large) == 100000000000\n'
        "    expect shape(Large(broadcast(0.0, [2, 100000]))) == [2, 1000000]\n"
        "    expect Small([[0.0, 0.0]]) == [[0.0]]\n    gradcheck Small\n}\n"
    )
    code, out, err = nnc("test", "large.nn")
    assert code == 0 and "1 passed, 0 failed" in out, err


def test_compile(nnc):
    code, out, _ = nnc("compile", "--all", "line.nn")
    assert code == 0 and "3 parameters" in out
    for entry in ("init", "predict", "train", "evaluate", "loss", "gradients", "doubled"):
        assert entry in out


def test_summary(nnc):
    code, out, _ = nnc("summary", "line.nn")
    assert code == 0 and "Line(x: f32[B, 2])" in out and "3 parameters, 2 multiply-accumulates, 4 B of act" in out


def test_summary_counts_what_is_inside(nnc):
    """A layer holds its inner layers; a shared one works twice and is stored once; free sizes stay, or are given."""
    Path("free.nn").write_text(
        "layer Two(x: f32[B, C, *s]) -> f32[B, C, *s] {\n    share c = Conv(3, 3, pad = 1)\n"
        "    return x |> c |> BatchNorm |> c\n}\n"
        "model Free(x: f32[B, 3, H, W]) -> (y: f32[B, 3, *s]) {\n    y = x |> two: Two |> half: max_pool(2)\n}\n"
    )
    code, out, _ = nnc("summary", "free.nn", "--json")
    assert code == 0
    rows = {r["path"]: r for r in json.loads(out)["layers"]}
    assert list(rows) == ["Free", "Free.two", "Free.two.c", "Free.two.batchnorm_1", "Free.half"]
    assert rows["Free.two.c"]["variables"] == {"W": "f32[3, 3, 3, 3]", "b": "f32[3]"}
    assert [rows[p]["parameters"] for p in rows] == [90, 90, 84, 6, 0]
    assert rows["Free"]["macs"] == rows["Free.two.c"]["macs"] == "162*H*W"
    _, out, _ = nnc("summary", "free.nn", "--json", "--size", "H=4", "--size", "W=6")
    rows = {r["path"]: r for r in json.loads(out)["layers"]}
    assert [rows[p]["macs"] for p in rows] == [3888, 3888, 3888, 0, 0]
    assert [rows[p]["activation_bytes"] for p in rows] == [936, 864, 576, 288, 72]
    assert rows["Free.half"]["layer"] == "max_pool" and rows["Free.half"]["results"] == ["f32[B, 3, 2, 3]"]
    code, out, _ = nnc("summary", "free.nn", "--depth", "1")
    assert "two: Two" in out and "c: Conv" not in out and "90 parameters, 162*H*W multiply-accumulates" in out


def test_summary_counts_every_turn_of_a_scan(nnc):
    Path("loop.nn").write_text(
        "model Loop(x: f32[B, L, 4]) -> (y: f32[B, 3]) {\n    share cell = Dense(8)\n"
        "    h = broadcast(0.0, [size(x, 0), 8])\n    scan t in 0..L { h = tanh(cell(x[:, t]) + h) }\n"
        "    y = h |> Dense(3)\n}\n"
    )
    _, out, _ = nnc("summary", "loop.nn", "--json")
    assert [(r["path"], r["macs"]) for r in json.loads(out)["layers"]] == [
        ("Loop", "32*L + 24"),
        ("Loop.cell", "32*L"),
        ("Loop.dense_1", 24),
    ]
    _, out, _ = nnc("summary", "loop.nn", "--json", "--size", "L=10")
    assert [(r["macs"], r["activation_bytes"]) for r in json.loads(out)["layers"]] == [(344, 332), (320, 320), (24, 12)]


def test_plan(nnc):
    code, out, _ = nnc("plan", "line.nn", "--batch", "100")
    assert code == 0 and "lower bound" in out and "at B = 100" in out
    code, out, err = nnc("plan", "line.nn", "--max-memory", "0")
    assert code == 5 and "lower bound" in out and "E0605" in err and "takes" in err
    assert nnc("plan", "line.nn", "--max-memory", "1G")[0] == 0
    assert nnc("plan", "line.nn", "--max-memory", "much")[0] == 2


def test_gradcheck(nnc):
    code, out, _ = nnc("gradcheck", "line.nn")
    assert code == 0 and "Line.w" in out and "agree" in out


# --- training ---------------------------------------------------------------------------------------------------------


def test_train_writes_a_run(nnc):
    code, out, err = nnc("train", "line.nn")
    assert code == 0 and err == "" and "val_loss" in out and "runs/line-1" in out
    assert re.search(r"^    3 +\d\.\d{4} ", out, re.M)
    run = Path("runs/line-1")
    assert sorted(p.name for p in run.iterdir()) == [
        "best.nnw", "hypers.json", "last.nnw", "metrics.jsonl", "run.json", "source.nn"]  # fmt: skip
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in rows] == [1, 2, 3] and rows[2]["val_loss"] < rows[0]["val_loss"]
    assert json.loads((run / "hypers.json").read_text()) == {"lr": 0.1}
    assert (run / "source.nn").read_text() == PROGRAM
    assert load_file(run / "best.nnw")["Line.w"].shape == (2,)
    assert "runs/line-2" in nnc("train", "line.nn", "--quiet")[1]


def test_train_options(nnc):
    code, out, _ = nnc("train", "line.nn", "--set", "lr=0.5", "--epochs", "2", "--seed", "3", "--threads", "1",
                       "--out", "here", "--batch", "7")  # fmt: skip
    assert code == 0 and "2 epochs in" in out and json.loads(Path("here/hypers.json").read_text()) == {"lr": 0.5}
    assert nnc("train", "line.nn", "--out", "here")[0] == 1  # does not write over a run
    assert "E0626" in nnc("train", "line.nn", "--out", "here")[2]
    Path("other.csv").write_text("a,b,t\n1,2,3\n4,5,6\n7,8,9\n10,11,12\n")
    assert nnc("train", "line.nn", "--data", "other.csv", "--epochs", "1", "--set", "lr=0.001")[0] == 0


def test_a_name_from_outside_has_no_place_in_the_file(nnc):
    for option in (("--set", "rl=1"), ("--model", "Lin")):
        code, _, err = nnc("train", "line.nn", *option)
        assert code == 1 and "E0201" in err and "-->" not in err


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["train", "line.nn", "--set", "lr=100"], 1, "lr"), (["train", "line.nn", "--set", "rl=1"], 1, "rl"),
    (["train", "line.nn", "--set", "lr"], 2, "NAME=VALUE"), (["train", "line.nn", "--epochs", "x"], 2, "epochs"),
    (["train", "line.nn", "--size", "D=x"], 2, "size"), (["train"], 2, "missing FILE"), (["tran"], 2, "tran"),
    (["train", "line.nn", "--bogus"], 2, "bogus"), (["train", "nope.nn"], 4, "nope.nn"),
    (["train", "line.nn", "--data", "nope.csv"], 4, "nope.csv"), (["train", "line.nn", "--model", "Lin"], 1, "Lin"),
    (["train", "line.nn", "--out", "points.csv"], 4, "points.csv"), (["train", "--resume", "nope"], 4, "nope"),
    (["train", "line.nn", "--out", "/proc/nope"], 4, "/proc/nope"), (["compile", "."], 4, "."),
    (["eval", "line.nn", "--weights", "no.nnw"], 4, "no.nnw"), (["predict", "line.nn", "nope.csv"], 4, "nope.csv"),
    (["eval", "line.nn", "--weights", "points.csv"], 4, "points.csv"),
    (["compile", "line.nn", "--target-cpu", "z80"], 1, "z80"),
    (["train", "--resume", "runs", "--seed", "1"], 2, "--seed"), (["compile", "line.nn", "--emit", "nope"], 2, "nope"),
    (["compile", "line.nn", "--emit", "graph", "--entry", "nope"], 1, "nope"),
    (["compile", "line.nn", "-o", "f.o"], 2, "--emit obj"), (["train", "line.nn", "--seed", "-1"], 1, "2^31-1"),
    (["train", "line.nn", "--seed", "99999999999"], 1, "2^31-1"), (["train", "line.nn", "--size", "D=3"], 1, "`D`"),
    ([], 2, "Usage"), (["--help"], 0, ""),
    (["--version"], 0, ""),
])  # fmt: skip
def test_exit_codes(nnc, arguments, code, text):
    found, out, err = nnc(*arguments)
    assert found == code and text in out + err


def test_a_run_that_is_interrupted_goes_on_bit_for_bit(nnc):
    text = PROGRAM.replace("epochs = 3", "epochs = 400000")
    Path("long.nn").write_text(text)
    p = process("train", "long.nn", "--out", "a")
    deadline = time.monotonic() + 600
    while not (Path("a/metrics.jsonl").exists() and Path("a/metrics.jsonl").stat().st_size > 2000):
        assert p.poll() is None and time.monotonic() < deadline, p.communicate()
        time.sleep(0.02)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=300)
    assert p.returncode == 130 and "interrupted" in err and "--resume a" in err and "Traceback" not in err
    assert sorted(f.name for f in Path("a").iterdir())[:1] == ["best.nnw"] and Path("a/last.nnw").exists()
    with safe_open("a/last.nnw", "np") as checkpoint:
        done = json.loads(checkpoint.metadata()["nnc"])["progress"]["epoch"]
    with open("a/metrics.jsonl", "a") as f:
        f.write('{"epoch": 123456789}\n')  # as a crash after the last checkpoint would leave it
    assert nnc("train", "--resume", "a", "--epochs", str(done + 5), "--quiet")[0] == 0
    assert nnc("train", "long.nn", "--out", "b", "--epochs", str(done + 5), "--quiet")[0] == 0
    a, b = (load_file(f"{r}/last.nnw") for r in "ab")
    assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}
    rows = [[{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in open(f"{r}/metrics.jsonl")]
            for r in "ab"]  # fmt: skip
    assert rows[0] == rows[1] and len(rows[0]) == done + 5
    assert "is complete" in nnc("train", "--resume", "a")[1]


def test_a_run_that_is_terminated_has_its_checkpoint(nnc):
    Path("long.nn").write_text(PROGRAM.replace("epochs = 3", "epochs = 4000000"))
    for ended in ((signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)):
        folder = f"a{len(ended)}"
        p = process("train", "long.nn", "--out", folder, "--quiet")
        deadline = time.monotonic() + 600
        while not Path(folder, "last.nnw").exists():  # written after the first epoch
            assert p.poll() is None and time.monotonic() < deadline, p.communicate()
            time.sleep(0.02)
        for s in ended:
            p.send_signal(s)
            time.sleep(0.003)
        _, err = p.communicate(timeout=300)
        assert p.returncode == 128 + ended[0] and "Traceback" not in err and f"--resume {folder}" in err
        assert nnc("eval", folder)[0] == 0 and not list(Path(folder).glob(".*"))


@pytest.mark.parametrize("megabytes", [220, 310, 345, 392, 480])
def test_little_memory_is_refused(nnc, tmp_path, megabytes):
    """It works, or says why not: what is too little depends on the machine."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, 2 * ({megabytes << 20},)); "
    out = subprocess.run(
        [NNC[0], "-c", limit + NNC[2], "train", "line.nn"],
        capture_output=True,
        text=True,
        env={**os.environ, "NNC_CACHE": str(tmp_path / "empty")},
    )
    assert (out.returncode, "E0605" in out.stderr) in ((0, False), (5, True)), out.stderr
    assert "Traceback" not in out.stderr


def test_what_ended_training_is_remembered(nnc):
    Path("stops.nn").write_text(PROGRAM.replace("seed = 1", "seed = 1\n    stop when loss < 1e9"))
    code, out, _ = nnc("train", "stops.nn", "--out", "a")
    assert code == 0 and "1 epochs" in out and "stop when" in out
    code, out, _ = nnc("train", "--resume", "a")
    assert code == 0 and "is complete: 1 epochs, ended by `stop when`" in out
    assert "2 epochs" in nnc("train", "--resume", "a", "--epochs", "5")[1]


def test_epochs_are_those_of_the_run(nnc):
    """Also where it goes on: fewer than are done are no reason to go on towards what was wanted before."""
    assert nnc("train", "line.nn", "--out", "a", "--epochs", "8", "--quiet")[0] == 0
    before = Path("a/last.nnw").read_bytes()
    for few in ("0", "1", "8"):
        code, out, _ = nnc("train", "--resume", "a", "--epochs", few)
        assert code == 0 and "a is complete: 8 epochs; a larger --epochs goes further" in out
        assert Path("a/last.nnw").read_bytes() == before
    assert "10 epochs" in nnc("train", "--resume", "a", "--epochs", "10")[1]


def test_training_that_diverges(nnc):
    code, _, err = nnc("train", "line.nn", "--set", "lr=10", "--epochs", "1000", "--out", "a")
    assert code == 6 and "E0630" in err and "a/last.nnw" in err
    assert all(np.isfinite(v).all() for v in load_file("a/last.nnw").values())
    assert load_file("a/best.nnw") and nnc("train", "--resume", "a")[0] == 6
    nnc("train", "--resume", "a", "--set", "lr=0.01")
    assert json.loads(Path("a/hypers.json").read_text()) == {"lr": 0.01}


def test_eval_and_predict(nnc):
    nnc("train", "line.nn", "--out", "a", "--epochs", "300")
    code, out, err = nnc("eval", "a")
    assert code == 0 and "loss" in out and err == ""
    code, out, _ = nnc("eval", "line.nn", "--weights", "a/last.nnw", "--json")
    assert code == 0 and json.loads(out)["loss"] < 1e-3
    assert "no --weights" in nnc("eval", "line.nn")[2]
    code, out, _ = nnc("predict", "a", "points.csv")
    table = np.loadtxt("points.csv", delimiter=",", skiprows=1)
    found = np.loadtxt(out.splitlines()[1:])
    assert out.startswith("y\n")
    np.testing.assert_allclose(found, table[:, 2], atol=0.1)
    np.savez("in.npz", x=table[:, :2])
    np.save("in.npy", table[:, :2])
    for source in ("in.npz", "in.npy"):
        for target in ("out.npz", "out.npy", "out.csv"):
            assert nnc("predict", "a", source, "-o", target, "--entry", "doubled")[0] == 0
    np.testing.assert_array_equal(np.load("out.npz")["result"], np.load("out.npy"))
    np.testing.assert_allclose(np.load("out.npy"), 2 * found, rtol=1e-5)
    assert nnc("predict", "a", "points.csv", "-o", "out.txt")[0] == 1
    assert nnc("predict", "a", "line.nn")[0] == 4
    assert nnc("predict", "a", "in.npz", "-o", "no/where.csv")[0] == 4


# --- the process ------------------------------------------------------------------------------------------------------


def test_a_reader_that_goes_away(folder):
    p = process("compile", "line.nn")
    assert p.stdout is not None and p.stderr is not None
    p.stdout.close()
    assert "Traceback" not in p.stderr.read() and p.wait() == 141
    p.stderr.close()


def test_a_full_disk(folder):
    with open("/dev/full", "w") as full:
        p = subprocess.run([*NNC, "doc"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert p.returncode == 4 and "no space left" in p.stderr and "Traceback" not in p.stderr


def test_an_internal_fault(nnc, monkeypatch):

    monkeypatch.setattr("nnc.dsl.standard.definitions", lambda: 1 / 0)
    code, _, err = nnc("doc")
    assert code == 70 and "internal error: ZeroDivisionError" in err and "--debug" in err
    with pytest.raises(ZeroDivisionError):
        main(["doc", "--debug"])


def test_a_cache_that_cannot_be_used_is_one_line(folder):
    Path("cache").write_text("not a folder")
    p = process("compile", "line.nn", env={**os.environ, "NNC_CACHE": "cache"})
    _, err = p.communicate()
    assert p.returncode == 0 and err.startswith("warning: the compilation cache: ") and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["new"]])
def test_help_is_quick(folder, arguments):
    heavy = ("numpy", "rich", "networkx", "lark", "llvmlite")
    code = (
        f"import sys; from nnc.runtime.cli import main; main({arguments})\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_a_run_keeps_working_from_another_folder(nnc, monkeypatch):
    nnc("train", "line.nn", "--out", "a", "--quiet")
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    assert nnc("eval", "../a")[0] == 0 and nnc("train", "--resume", "../a", "--epochs", "4", "--quiet")[0] == 0


@pytest.mark.parametrize("stage", ["ast", "graph", "backward", "optimized", "loops", "llvm", "asm", "dot"])
def test_every_stage_can_be_looked_at(nnc, stage):
    code, out, err = nnc("compile", "line.nn", "--emit", stage)
    assert code == 0 and err == "" and out.endswith("\n") and not out.endswith("\n\n")
    expected = {"ast": "Layer name='Line' top=True", "asm": "train", "llvm": "define", "dot": "digraph"}
    assert expected.get(stage, "train") in out
    assert nnc("compile", "line.nn", "--emit", stage, "-o", "stage.txt")[:2] == (0, "")
    assert Path("stage.txt").read_text() == out
    if stage != "ast":
        assert nnc("compile", "line.nn", "--emit", stage, "--entry", "predict")[1] != out


def test_an_object_file(nnc):
    assert nnc("compile", "line.nn", "--emit", "obj", "-o", "line.o")[0] == 0
    assert Path("line.o").read_bytes()[:4] == b"\x7fELF"


def test_print_after(nnc):
    code, out, _ = nnc("compile", "line.nn", "--print-after", "cse")
    assert code == 0 and "# after cse\ngraph @train" in out
    assert nnc("compile", "line.nn", "--print-after", "all")[1].count("# after ") > out.count("# after ")
    code, _, err = nnc("compile", "line.nn", "--print-after", "css")
    assert code == 1 and "did you mean `cse`?" in err


# --- a run and other data ---------------------------------------------------------------------------------------------

CLASSES = """
model Kind(x: f32[B, 2]) -> (y: f32[B, 3]) {
    y = Dense(x, 3)
}

train Kind(x, kind: i32[B]) {
    loss = mean(cross_entropy(y, kind))
    metric right = accuracy(y, kind)
    optimizer = SGD(0.5)
    data = csv("kinds.csv", target = "kind")
    validation = 0.25
    epochs = 200
    seed = 1
}

export scaled(x: f32[B, 2], k: f32 = 3.0) -> f32[B, 2] = k * x
"""


@pytest.fixture
def kinds(nnc):
    """A trained run `k` of rows whose class is a text."""
    Path("kinds.nn").write_text(CLASSES)
    places = {"pear": (4, 0), "fig": (0, 4), "apple": (-4, -4)}
    rng = np.random.default_rng(0)
    rows = [(a + dx, b + dy, kind) for kind, (a, b) in places.items() for dx, dy in rng.normal(size=(20, 2)) * 0.3]
    Path("kinds.csv").write_text("a,b,kind\n" + "".join(f"{a},{b},{kind}\n" for a, b, kind in rows))
    assert nnc("train", "kinds.nn", "--out", "k", "--quiet")[0] == 0
    return nnc


def test_a_run_remembers_columns_and_classes(kinds):
    Path("new.csv").write_text("kind,b,a\npear,0,4\npear,0.1,4.2\nfig,4,0\n")  # two classes, another order of columns
    code, out, err = kinds("eval", "k", "--data", "new.csv", "--json")
    assert code == 0 and json.loads(out)["right"] == 1.0 and err == ""
    Path("two.csv").write_text("a,b,kind\n4,0,pear\n0,4,pear\n")  # all of the file is scored, not a share of it
    assert json.loads(kinds("eval", "k", "--data", "two.csv", "--json")[1])["right"] == 0.5
    for text, message in (("a,b,kind\n1,2,kiwi\n", "the class 'kiwi' in row 1"), ("1,2\n3,4\n", "header = false"),
                          ("a,c,kind\n1,2,fig\n", "`b` is missing")):  # fmt: skip
        Path("bad.csv").write_text(text)
        code, _, err = kinds("eval", "k", "--data", "bad.csv")
        assert code == 4 and message in err
    code, out, _ = kinds("predict", "k", "kinds.csv")  # the target is skipped
    assert code == 0 and len(out.splitlines()) == 61
    forwards = kinds("predict", "k", "new.csv")[1]
    Path("new.csv").write_text("a,b\n4,0\n4.2,0.1\n0,4\n")
    assert kinds("predict", "k", "new.csv")[1] == forwards
    code, _, err = kinds("predict", "k", "two.csv", "--entry", "nope")
    assert code == 1


def test_scalar_inputs_of_an_export_have_defaults(kinds):
    Path("ab.csv").write_text("a,b\n1,2\n")
    assert kinds("predict", "k", "ab.csv", "--entry", "scaled")[1].splitlines()[1] == "3.0,6.0"
    assert kinds("predict", "k", "ab.csv", "--entry", "scaled", "--arg", "k=2")[1].splitlines()[1] == "2.0,4.0"
    code, _, err = kinds("predict", "k", "ab.csv", "--entry", "scaled", "--arg", "j=2")
    assert code == 1 and "`j`" in err


def test_no_rows_to_predict_from(nnc):
    nnc("train", "line.nn", "--out", "a", "--quiet")
    np.save("empty.npy", np.ones((0, 2)))
    assert nnc("predict", "a", "empty.npy") == (0, "y\n", "")
    Path("kinds.nn").write_text(CLASSES)
    code, out, _ = nnc("predict", "kinds.nn", "empty.npy")
    assert (code, out) == (0, "y_0,y_1,y_2\n")


def test_a_run_is_what_it_was_trained_with(nnc):
    Path("lib").mkdir()
    Path("lib/twice.nn").write_text("fn twice(x: f32[*S]) -> f32[*S] = 2 * x\n")
    text = 'from "lib/twice.nn" import twice\n' + PROGRAM.replace("x @ w + b", "twice(x @ w) + b")
    Path("two.nn").write_text(text)
    assert nnc("train", "two.nn", "--out", "a", "--quiet")[0] == 0
    before = nnc("predict", "a", "points.csv")
    assert before[0] == 0 and before[2] == ""
    Path("two.nn").write_text(text.replace("2 * Line", "3 * Line").replace("twice(x @ w)", "7 * (x @ w)"))
    _, out, err = nnc("predict", "a", "points.csv")
    assert out == before[1] and err.count("\n") == 1 and "two.nn is not as it was" in err
    Path("two.nn").write_text(text)
    Path("lib/twice.nn").unlink()
    _, out, err = nnc("predict", "a", "points.csv")
    assert out == before[1] and "twice.nn is not as it was" in err
    assert nnc("train", "--resume", "a", "--epochs", "4", "--quiet")[0] == 0
    assert nnc("eval", "a")[0] == 0
    for option in (("--set", "lr=1"), ("--size", "D=3")):
        assert nnc("eval", "a", *option)[0] == 2 and nnc("predict", "a", "points.csv", *option)[0] == 2


def test_training_that_cannot_begin_leaves_no_run(nnc):
    Path("points.csv").write_text("a,b,t\n1,2\n")
    assert nnc("train", "line.nn")[0] == 4 and not Path("runs").exists()
    Path("points.csv").write_text("a,b,c,t\n1,2,3,4\n5,6,7,8\n")
    assert nnc("train", "line.nn")[0] == 4 and not Path("runs").exists()
    Path("points.csv").write_text("a,b,t\n1,nan,4\n5,nan,7\n")
    assert nnc("train", "line.nn", "--out", "a")[0] == 6
    Path("points.csv").write_text("a,b,t\n1,2,4\n5,6,7\n")
    Path("a/.best.nnw.999999999.tmp").write_text("half")
    assert "not yet a run" in nnc("eval", "a")[2]
    assert nnc("train", "line.nn", "--out", "a", "--quiet")[0] == 0
    assert sorted(p.name for p in Path("a").iterdir())[0] == "best.nnw"


# --- overfit ----------------------------------------------------------------------------------------------------------


NET = """
model Net(x: f32[B, 64]) -> (logits: f32[B, 10]) {
    logits = x |> Dense(16) |> relu |> dropout(p = 0.2) |> Dense(10)
}

train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label)) + 1e-4 * l2(weights)
    optimizer = Adam(lr = 0.02)
    data = digits()
    normalize = standard_all
    batch = 4
    patience = 1
}
"""


def test_a_few_examples_are_fitted(nnc):
    Path("net.nn").write_text(NET)
    code, out, _ = nnc("train", "net.nn", "--overfit", "8")
    assert code == 0 and re.search(r"^8 examples are fitted: loss 2\.\d+, after \d+ steps 0\.\d+$", out, re.M)
    assert not Path("runs").exists()
    assert nnc("train", "net.nn", "--overfit", "8", "--quiet")[1].count("\n") == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("Dense(16) |> relu", "Dense(16) |> stop_grad |> relu"), "no gradient arrives at `Net.dense_1.b`"),
        (("lr = 0.02", "lr = 1e-5"), "the loss was still falling"),
        (
            ("mean(cross_entropy(logits, label))", "mean(cross_entropy(0 * logits + 1e38 * l2(params), label))"),
            "not finite",
        ),
    ],
)
def test_what_keeps_a_few_examples_from_being_fitted(nnc, change, reason):
    Path("net.nn").write_text(
        NET.replace(*change).replace(
            "Dense(10)", "Dense(10)" if "stop" not in change[1] else "Dense(10, init = normal(0, 1e-4), bias = false)"
        )
    )
    code, _, err = nnc("train", "net.nn", "--overfit", "8", "--epochs", "40")
    assert code == 1 and "error[E0631]: 8 examples are not fitted" in err and reason in err, err


def test_examples_that_contradict_each_other_are_named(nnc):
    Path("points.csv").write_text("a,b,t\n" + "1,2,3\n1,2,30\n" * 10)
    code, _, err = nnc("train", "line.nn", "--overfit", "6")
    assert (
        code == 1 and "two of the examples are equal but want different results: `target` is 3.0 and 30.0" in err
    ) or "`target` is 30.0 and 3.0" in err
    assert nnc("train", "line.nn", "--overfit", "6", "--out", "a")[0] == 2

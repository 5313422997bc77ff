"""What trainings leave: logs for other tools; runs listed, compared, removed and trained again."""

import csv
import io
import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import nnc
from nnc.runtime.cli import main

NET = """hyper width: int = 4 in 1..64
model Net(x: f32[B, 3]) -> (y: f32[B]) { y = x |> Dense(width) |> tanh |> dropout(p = 0.1) |> Dense(1) |> squeeze(1) }
train Net(x, t: f32[B]) {
    loss = mean((y - t)^2)
    optimizer = Adam(lr = cosine(0.01))
    data = npz("data.npz")
    batch = 8
    validation = 0.25
    epochs = 3
}
"""
X = np.random.default_rng(0).normal(size=(64, 3)).astype("f4")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program and its data, where commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.nn").write_text(NET)
    np.savez("data.npz", x=X, t=X[:, 0])
    return tmp_path


def trained(*options: str) -> None:
    assert main(["train", "net.nn", "--quiet", *options]) == 0


def rows(run: str = "runs/net-1") -> list[dict]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


# --- logs -------------------------------------------------------------------------------------------------------------


def test_csv_has_each_epoch_once_also_of_a_run_that_goes_on(place: Path) -> None:
    trained("--log", "csv")
    assert main(["train", "--resume", "runs/net-1", "--epochs", "5", "--quiet"]) == 0
    with open("runs/net-1/metrics.csv") as f:
        logged = list(csv.DictReader(f))
    assert [int(r["epoch"]) for r in logged] == [1, 2, 3, 4, 5]
    assert [{k: float(v) for k, v in r.items()} for r in logged] == rows()


def events(folder: Path) -> list[tuple[int, str, float]]:
    """Scalars of TensorBoard's records: a length and its check, a message and its check."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.*")):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack_from("<Q", data)
            event = Event.FromString(data[12 : 12 + size])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            data = data[16 + size :]
    return found


def test_tensorboard_finds_its_events_in_the_run(place: Path) -> None:
    pytest.importorskip("tensorboardX")
    trained("--log", "tensorboard")
    wanted = [(r["epoch"], k, v) for r in rows() for k, v in r.items() if k != "epoch"]
    assert events(Path("runs/net-1")) == [(e, k, pytest.approx(v, rel=1e-6)) for e, k, v in wanted]


def test_mlflow_has_the_run_with_its_hypers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{place}/mlruns")
    mlflow.set_tracking_uri(f"file:{place}/mlruns")
    trained("--log", "mlflow", "--set", "width=5")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.info.run_name == "net-1" and run.info.status == "FINISHED"
    assert run.data.params == {"width": "5", "seed": "0"}
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [r["loss"] for r in rows()]


class Wandb:
    """What the library is asked, as it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def init(self, **given: object) -> SimpleNamespace:
        self.asked.append(("init", given))
        return SimpleNamespace(
            log=lambda metrics, step: self.asked.append(("log", step, metrics)),
            finish=lambda: self.asked.append(("finish",)),
        )


def test_wandb_is_told_of_each_epoch(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", library)
    net = nnc.compile("net.nn")
    with nnc.log("wandb", "runs/a") as told:
        history = net.fit(callbacks=told)
    facts = {"project": "Net", "name": "a", "dir": "runs/a", "config": {"seed": 0, "width": 4}}
    epochs = [("log", r["epoch"], {k: v for k, v in r.items() if k != "epoch"}) for r in history]
    assert library.asked == [("init", facts), *epochs, ("finish",)]


def test_a_library_that_fails_leaves_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("no such server")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    assert main(["train", "net.nn", "--quiet", "--log", "wandb"]) == 4
    assert "the log `wandb` cannot be written: no such server" in capsys.readouterr().err
    assert Path("runs/net-1/last.nnw").exists()


def test_a_library_that_is_missing_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["train", "net.nn", "--quiet", "--log", "wandb"]) == 1
    assert "E0503" in capsys.readouterr().err and not Path("runs").exists()
    with pytest.raises(nnc.ArgumentError, match="E0608"):
        nnc.log("paper")


# --- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_and_compared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0 and "there are no runs in runs" in capsys.readouterr().out
    trained()
    trained("--set", "width=6", "--epochs", "2", "--seed", "7")
    Path("runs/empty").mkdir()
    capsys.readouterr()
    assert main(["runs"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "runs/" in line]
    assert [(w[0], w[1], w[4]) for w in lines] == [("runs/net-1", "net.nn", "3"), ("runs/net-2", "net.nn", "2")]
    assert main(["runs", "list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["hypers"] == {"width": 4} and second["settings"]["seed"] == 7 and second["epochs"] == 2
    scores = [r["val_loss"] for r in rows()]
    assert first["best"] == {"epoch": scores.index(min(scores)) + 1, "loss": min(scores)}
    assert first["metrics"] == {k: rows()[-1][k] for k in ("loss", "val_loss")}
    assert main(["runs", "compare", "runs/net-1", "runs/net-2"]) == 0
    table = {line[:14].strip(): line[14:].split() for line in capsys.readouterr().out.splitlines()}
    assert table["hyper width"] == ["4", "6"] and table["seed"] == ["0", "7"] and table["epochs done"] == ["3", "2"]
    assert "batch" not in table and "program" not in table
    assert main(["runs", "compare", "runs/net-1"]) == 2
    Path("net.nn").write_text(NET.replace("tanh", "relu"))
    trained()
    assert main(["runs", "compare", "runs/net-1", "runs/net-3", "runs/net-2"]) == 0
    (programs,) = (line.split() for line in capsys.readouterr().out.splitlines() if "program" in line)
    assert programs == ["program", "A", "B", "A"]


def test_a_run_is_removed_where_it_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained()
    trained()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["runs", "remove", "runs/net-1"]) == 0 and Path("runs/net-1").exists()
    assert main(["runs", "remove", "runs/net-1", "--yes"]) == 0 and not Path("runs/net-1").exists()
    Path("link").symlink_to("runs/net-2")
    for wrong in (".", "runs", "link", "runs/net-9"):
        assert main(["runs", "remove", wrong, "--yes"]) == 1
        assert "E0622" in capsys.readouterr().err
    assert Path("runs/net-2/last.nnw").exists() and Path("net.nn").exists()


def test_what_is_no_run_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    trained()
    Path("runs/net-1/metrics.jsonl").write_text('{"epoch": 1}\n[2]\n')
    capsys.readouterr()
    assert main(["runs", "compare", "runs/net-1", "runs/net-2"]) == 4
    assert "expected an object of JSON in line 2, found '[2]'" in capsys.readouterr().err
    assert main(["runs"]) == 0
    said = capsys.readouterr()
    assert "note: " in said.err and "runs/net-2" in said.out and "runs/net-1" not in said.out


# --- again ------------------------------------------------------------------------------------------------------------


def test_a_run_is_trained_again_to_the_same_bits(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained("--seed", "3", "--set", "width=6")
    assert main(["train", "net.nn", "--quiet", "--set", "width=6", "--weights", "runs/net-1", "--epochs", "2"]) == 0
    for run, epochs in (("runs/net-1", 3), ("runs/net-2", 2)):
        assert main(["reproduce", run]) == 0
        assert f"{run}: the same, bit for bit: {epochs} epochs" in capsys.readouterr().out
    assert main(["reproduce", "runs/net-1", "net.nn"]) == 2


def test_other_data_are_noticed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    other = X.copy()
    other[5] *= 2
    np.savez("data.npz", x=other, t=X[:, 0])
    assert main(["reproduce", "runs/net-1"]) == 4
    assert "expected the same bits, found others from epoch 1 on" in capsys.readouterr().err


def test_a_run_that_ends_in_an_epoch_is_not_trained_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained()

    class Stop:
        def on_progress(self, report: object) -> None:
            raise KeyboardInterrupt

    net = nnc.compile("net.nn")
    with pytest.raises(KeyboardInterrupt):
        net.fit(callbacks=Stop())
    net.save("runs/net-1/last.nnw")
    assert main(["reproduce", "runs/net-1"]) == 4
    assert "in the middle of an epoch" in capsys.readouterr().err


def test_a_run_that_was_stopped_between_epochs_is_trained_that_far(place: Path) -> None:
    trained()
    net = nnc.compile("net.nn")
    net.fit(callbacks=lambda history, _: len(history) == 2)
    net.save("runs/net-1/last.nnw")
    assert main(["reproduce", "runs/net-1"]) == 0

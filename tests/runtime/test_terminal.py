"""What a terminal shows, in a real pseudo-terminal of 60, 80, 100 and 200 columns.

`golden/terminal/NAME.screen` holds commands and the screens they leave; `pytest --update-golden` rewrites them. Times,
which differ from machine to machine, stand there as `TIME`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("pyte", reason="pyte, which draws terminals, is not installed")

from ..terminal import Capture, capture

GOLDEN = Path(__file__).parents[1] / "golden" / "terminal"
WIDTHS = (60, 80, 100)

PROGRAM = """
hyper width: int = 16 in 4..32
hyper rate: float = 1e-2 in log(1e-4, 1e-1)

model Net(x: f32[B, 64]) -> (logits: f32[B, 10]) {
    logits = x |> Dense(width) |> relu |> dropout(p = 0.2) |> Dense(10)
}

train Net(x, label: i32[B]) {
    loss      = mean(cross_entropy(logits, label))
    metric accuracy = mean(argmax(logits) == label)
    metric entropy = mean(sum(-softmax(logits) * log_softmax(logits), axis = 1))
    optimizer = Adam(rate)
    data      = digits()
    batch     = 64
    epochs    = 5
    seed      = 1
}

test "parameters" { expect count(params(Net)) == 65 * width + 10 * (width + 1) }

test "an untrained network is sure of nothing" { expect max(softmax(Net(broadcast(0.5, [1, 64])))) < 0.1 }
"""
WRONG = PROGRAM.replace("Dense(width) |> relu", "Dense(width, biass = false) |> relu").replace(
    "argmax(logits) == label", "argmax(logits) == labels"
)

COMMANDS = {
    "train": [["train", "net.nn", "--threads", "1", "--out", "runs/digits"]],
    "eval": [["train", "net.nn", "--out", "run", "--quiet", "--epochs", "2"], ["eval", "run"]],
    "tune": [["tune", "net.nn", "--trials", "4", "--epochs", "2", "--threads", "1"]],
    "test": [["test", "net.nn"]],
    "errors": [
        ["check", "wrong.nn"],
        ["train", "net.nn", "--set", "width=64"],
        ["train", "--resume", "runs/elsewhere"],
        ["trian", "net.nn"],
    ],
}


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
    (tmp_path / "net.nn").write_text(PROGRAM)
    (tmp_path / "wrong.nn").write_text(WRONG)
    return tmp_path


def without_times(screen: str) -> str:
    """The screen with `TIME` for each time: as wide as it was in a table, where it stands behind several spaces."""

    def named(m: re.Match[str]) -> str:
        return "TIME".rjust(len(m[0])) if m[1].startswith("  ") else f"{m[1]}TIME"

    return re.sub(r"( +)\d[\d.:]* (?:ns|us|ms|s|min|h)\b", named, screen)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_screen(name: str, folder: Path, request: pytest.FixtureRequest) -> None:
    if name == "tune":
        pytest.importorskip("optuna", reason="Optuna is not installed")
    parts = []
    for columns in WIDTHS:
        place = folder / str(columns)
        place.mkdir()
        for file in folder.glob("*.nn"):
            (place / file.name).write_text(file.read_text())
        parts.append(f"{'=' * columns}")
        for arguments in COMMANDS[name]:
            parts += [f"$ nnc {' '.join(arguments)}", without_times(capture(arguments, columns, place).screen)]
    text = "\n".join(parts) + "\n"
    path = GOLDEN / f"{name}.screen"
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def rows_of(found: Capture, text: str) -> list[list[str]]:
    """Of each screen the rows that have this text."""
    return [[row for row in frame.splitlines() if text in row] for frame in found.frames]


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_what_moves_is_one_line(columns: int, folder: Path) -> None:
    """The line never wraps, is gone in the end, and the table above it is aligned."""
    long = PROGRAM.replace("epochs    = 5", "epochs    = 600")
    (folder / "net.nn").write_text(long)
    found = capture(["train", "net.nn", "--out", "run"], columns, folder)
    assert found.code == 0
    assert found.frames[0].startswith("reading net.nn (0.0 s so far)")
    assert any(re.search(r"compiling .*train.* \(\d+\.\d s so far\)", f) for f in found.frames)
    moving = rows_of(found, "epoch ")
    live = [rows for rows in moving if any("%" in row for row in rows)]
    assert live and all(sum("/600" in row for row in rows) <= 1 for rows in live)
    assert all(len(row) < columns for rows in live for row in rows if "/600" in row)
    assert any(re.search(r"epoch \d+/600 .*\d+%  loss \d\.\d+.* \d+:\d\d left$", row) for rows in live for row in rows)
    table = [row for row in found.screen.splitlines() if re.match(r" *(epoch|\d+) ", row)]
    table = [row for row in table if "epochs" not in row]
    assert len(table) > 10 and {len(row.removesuffix(" *")) for row in table} == {len(table[0])}
    assert "so far" not in found.screen and " left" not in found.screen


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}])
def test_a_terminal_that_cannot_draw_over_a_line(env: dict[str, str], folder: Path) -> None:
    found = capture(["train", "net.nn", "--out", "run"], 80, folder, env)
    assert found.code == 0 and "so far" not in "".join(found.frames) and "compiling net.nn" in found.screen
    assert b"\x1b" not in found.raw and b"\r" not in found.raw.replace(b"\r\n", b"")


def test_colours_that_nobody_wants(folder: Path) -> None:
    wanted = capture(["check", "wrong.nn"], 80, folder)
    unwanted = capture(["check", "wrong.nn"], 80, folder, {"NO_COLOR": "1"})
    assert b"\x1b[1;31m" in wanted.raw and b"\x1b[1" not in unwanted.raw
    assert unwanted.screen == wanted.screen and wanted.code == unwanted.code == 1

"""Python and notebooks: what is shown of models, trainings and errors."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.runtime import curves
from nnc.runtime.cli import main
from nnc.runtime.magic import read_line

NET = """hyper width: int = 4 in 1..64
model Net(x: f32[B, 3]) -> (y: f32[B]) { y = x |> body: Dense(width) |> tanh |> Dense(1) |> squeeze(1) }
train Net(x, t: f32[B]) {
    loss = mean((y - t)^2)
    metric off = mean(abs(y - t))
    optimizer = SGD(lr = 0.1)
    batch = 8
    validation = 0.25
    epochs = 4
}
"""
X = np.random.default_rng(0).normal(size=(32, 3)).astype("f4")


@pytest.fixture(scope="module")
def net() -> nnc.Model:
    net = nnc.compile(NET, seed=1)
    net.fit(X, X[:, 0], progress=False)
    return net


# --- a notebook -------------------------------------------------------------------------------------------------------

CELLS = (
    "import numpy as np, nnc\nX = np.random.default_rng(0).normal(size=(32, 3)).astype('f4')",
    "%load_ext nnc",
    f"%%nn net width=5\n{NET}",
    "history = net.fit(X, X[:, 0])",
    "history",
    "net.show()",
    "print(net.summary(1))",
    "axes = history.plot()",
    "def build(text):\n    return nnc.compile(text)\n\nbuild('model M(x: f32[B, 3]) -> f32[B] { return z }')",
    "%%nn wrong\n# a comment\nmodel M(x: f32[B, 3]) -> f32[B] { return z }",
    "print(net.params['Net.body.W'].shape, 'wrong' in globals())",
    "net.fit(X)",
)


@pytest.fixture(scope="module")
def outputs() -> list[list[dict]]:
    """What the cells gave, as a kernel of its own ran them."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
    return [cell.outputs for cell in notebook.cells]


def html_of(outputs: list[dict]) -> str:
    return "".join(o["data"].get("text/html", "") for o in outputs if "data" in o)


def test_a_cell_of_the_language_is_a_model(outputs: list[list[dict]]) -> None:
    assert not outputs[0] and not outputs[1]
    shown = html_of(outputs[2])
    assert "&lt;Net(x: f32[B, 3])" in shown and "body: Dense" in shown and "<svg" in shown
    assert outputs[10][0]["text"] == "(5, 3) False\n"


def test_a_fit_is_one_bar_that_ends_full(outputs: list[list[dict]]) -> None:
    (bar,) = outputs[3]
    assert bar["output_type"] == "display_data"
    shown = html_of(outputs[3])
    assert '<progress value="1.0000" max="1">' in shown and "epoch 4/4" in shown and "val_loss" in shown


def test_histories_pictures_and_summaries_show_themselves(outputs: list[list[dict]]) -> None:
    assert html_of(outputs[4]).count("<polyline") == 4 and "4 epochs; loss" in html_of(outputs[4])
    assert outputs[5][0]["data"]["image/svg+xml"].startswith("<svg")
    text = outputs[6][0]["text"]
    assert text.splitlines()[0].split() == ["layer", "makes", "parameters", "MACs", "activations"]
    assert "26 parameters" in text
    assert "image/png" in outputs[7][0]["data"]


def test_an_error_is_one_frame_and_the_caret(outputs: list[list[dict]]) -> None:
    (error,) = outputs[8]
    assert error["ename"] == "SourceError" and "error[E0201]" in error["evalue"]
    first, line, *_, last = "\n".join(error["traceback"]).splitlines()
    assert first == "line 2:" and line == "    return nnc.compile(text)" and "^" in last
    assert "api.py" not in str(error["traceback"])
    (error,) = outputs[11]  # and no bar
    assert error["ename"] == "ArgumentTypeError" and error["traceback"][0] == "line 1:"


def test_an_error_of_a_cell_is_shown_by_its_line(outputs: list[list[dict]]) -> None:
    shown, error = outputs[9]
    assert "%%nn wrong:3:" in html_of([shown]) and "<pre" in html_of([shown]) and "^" in html_of([shown])
    assert error["output_type"] == "error" and error["traceback"] == []


@pytest.mark.parametrize("line", ["", "3net", "net width", "net a b=1"])
def test_a_line_that_says_no_name_is_refused(line: str) -> None:
    with pytest.raises(nnc.ArgumentError, match="E0604"):
        read_line(line)


def test_values_of_hypers_stand_behind_the_name() -> None:
    assert read_line("net width=64 lr=1e-3 kind=wide on=True") == (
        "net",
        {"width": 64, "lr": 1e-3, "kind": "wide", "on": True},
    )


# --- Python -----------------------------------------------------------------------------------------------------------


def script(tmp_path: Path, text: str, **environment: str) -> str:
    """What a script says on stderr."""
    file = tmp_path / "script.py"
    file.write_text(text)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment}
    return subprocess.run([sys.executable, file], capture_output=True, text=True, env=env, check=False).stderr


WRONG = "import nnc\n\ndef build():\n    nnc.compile('model M(x: f32[B, 3]) -> f32[B] { return z }')\n\n"


def test_a_traceback_has_the_lines_of_the_user_alone(tmp_path: Path) -> None:
    said = script(tmp_path, WRONG + "build()\n")
    assert said.count("  File ") == 2 and said.count("script.py") == 2 and "error[E0201]" in said
    whole = script(tmp_path, WRONG + "build()\n", NNC_DEBUG="1")
    assert whole.count("  File ") > 3 and "api.py" in whole


def test_a_hook_of_somebody_else_stays(tmp_path: Path) -> None:
    said = script(
        tmp_path, "import sys\nsys.excepthook = lambda *a: print('mine', file=sys.stderr)\n" + WRONG + "build()\n"
    )
    assert said == "mine\n"


def test_other_errors_are_shown_as_python_shows_them(tmp_path: Path) -> None:
    said = script(tmp_path, WRONG + "try:\n    build()\nexcept ValueError:\n    1 / 0\n")
    assert "ZeroDivisionError" in said and "error[E0201]" in said


def test_a_summary_has_the_cells_of_the_command(net: nnc.Model, tmp_path: Path, capsys) -> None:
    (tmp_path / "net.nn").write_text(NET)
    assert main(["summary", str(tmp_path / "net.nn")]) == 0
    command, text = capsys.readouterr().out.split(), str(net.summary())
    assert [w for w in command if set(w) != {"─"}] == text.split()
    assert "<table>" in net.summary()._repr_html_() and len(net.summary(0).cells(0)) == 1
    with pytest.raises(nnc.ArgumentError, match="no model"):
        nnc.compile("fn f(x: f32[B]) -> f32[B] = x").summary()


def test_a_picture_is_saved(net: nnc.Model, tmp_path: Path) -> None:
    net.show("train", across=True).save(tmp_path / "net.svg")
    assert ET.parse(tmp_path / "net.svg").getroot().tag.endswith("svg")
    with pytest.raises(nnc.ArgumentError, match="E0608"):
        net.show("dream")


def test_curves_have_a_panel_for_each_metric(net: nnc.Model) -> None:
    history = net.fit(X, X[:, 0], epochs=3, progress=False)
    assert list(history.columns()) == ["loss", "off", "val_loss", "val_off"]
    root = ET.fromstring(curves.svg(history.columns()))
    titles = [g.findtext("{*}title") for g in root.iter("{http://www.w3.org/2000/svg}g")]
    assert titles == ["loss", "val_loss", "off", "val_off"]
    pytest.importorskip("matplotlib")
    import matplotlib

    matplotlib.use("agg")
    loss, off = history.plot()
    assert [line.get_label() for line in loss.lines] == ["loss", "val_loss"] and off.get_title() == "off"
    assert loss.lines[0].get_ydata().tolist() == history.column("loss")


def test_what_is_not_finite_leaves_a_gap() -> None:
    root = ET.fromstring(curves.svg({"loss": [float("nan"), 1.0, float("inf"), 2.0], "none": [float("nan")]}))
    first, second = (p.get("points").split() for p in root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(first) == 2 and second == []


def test_a_fit_is_shown_where_it_is_asked(net: nnc.Model, capsys) -> None:
    net.fit(X, X[:, 0], epochs=2)
    assert capsys.readouterr().out == ""
    net.fit(X, X[:, 0], epochs=2, progress=True)
    said = capsys.readouterr().out
    assert "loss" in said and "val_loss" in said


def test_an_error_as_html_is_escaped() -> None:
    with pytest.raises(nnc.SourceError) as caught:
        nnc.compile("model M(x: f32[B, 3]) -> f32[B] { return x <z> 2 }")
    shown = caught.value._repr_html_()
    assert "&lt;" in shown and "<z>" not in shown and "color:#d1453b" in shown and "\x1b" not in shown

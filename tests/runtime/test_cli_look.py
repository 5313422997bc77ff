"""`nnc look`: a picture for each method, and what each refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnc.runtime.cli import main

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

PROGRAM = """
model Net(x: f32[B, 1, 8, 8]) -> (logits: f32[B, 10]) {
    h = x |> c1: Conv(4, kernel = 3, pad = 1) |> relu |> max_pool(2) |> flatten
    logits = h |> Dense(10)
}
train Net(x, label: i32[B]) {
    loss      = mean(cross_entropy(logits, label))
    optimizer = Adam(lr = 0.01)
    data      = digits()
    batch     = 64
    epochs    = 2
}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training."""
    folder = tmp_path_factory.mktemp("look")
    (folder / "net.nn").write_text(PROGRAM)
    assert main(["train", str(folder / "net.nn"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def look(run: Path, capfd: Any, *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main(["look", arguments[0], str(run), *arguments[1:]])
    out, err = capfd.readouterr()
    return code, out, err


PICTURES = [
    ("filters --layer c1", ""),
    ("filters --layer dense_1", ""),
    ("activations --layer c1 --examples 2", "c1: (4, 8, 8)"),
    ("activations --layer dense_1 --examples 2", "dense_1: (10,)"),
    ("saliency --examples 3", ""),
    ("dream --steps 5", "scores, unit 9: "),
    ("dream --unit 3 --steps 5 --jitter 1", "scores, unit 3: "),
    ("dream --layer c1 --steps 5", "c1, all of it"),
    ("attack --eps 0.3 --examples 5", "right before "),
    ("attack --by pgd --steps 2 --examples 3", "right before "),
    ("attack --by guided-pixel --tries 2 --examples 3", "right before "),
    ("attack --by random-pixel --examples 3", "right before "),
    ("dream --layer c1 --layer dense_1 --unit 1 --unit 2 --steps 3", "dense_1, unit 2: "),
    ("attack --by pgd-held --target 3 --steps 2 --examples 3", "read as 3: "),
    ("attack --by patch --target 3 --steps 5 --side 4", "right before "),
    ("surface --points 3 --examples 50", "over 50 examples"),
    ("rates --steps 20 --high 10", "the least loss "),
]


@pytest.mark.parametrize(("arguments", "said"), PICTURES, ids=[p[0] for p in PICTURES])
def test_each_method_draws_a_picture(run: Path, tmp_path: Path, capfd: Any, arguments: str, said: str) -> None:
    picture = tmp_path / "picture.png"
    code, out, err = look(run, capfd, *arguments.split(), "-o", str(picture))
    assert code == 0 and said in out and out.endswith(f"{picture}\n") and not err
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert image.format == "PNG" and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5  # something is on it


def test_the_rates_of_a_file_are_those_of_its_untrained_model(run: Path, tmp_path: Path, capfd: Any) -> None:
    code, out, err = look(run.parent / "net.nn", capfd, "rates", "--steps", "8", "-o", str(tmp_path / "r.png"))
    assert code == 0 and "8 steps" in out and not err


def test_what_does_not_fit_on_a_picture_is_said(run: Path, tmp_path: Path, capfd: Any) -> None:
    code, _, err = look(run, capfd, "activations", "--layer", "c1", "--examples", "60", "-o", str(tmp_path / "a.png"))
    assert code == 0 and err == "note: 300 pictures, of which the first 256 are drawn\n"


def test_layers_are_listed(run: Path, capfd: Any) -> None:
    code, out, _ = look(run, capfd, "layers")
    assert code == 0 and "c1" in out and "f32[B, 4, 8, 8]" in out and "dense_1" in out


def test_a_picture_can_be_looked_at(run: Path, tmp_path: Path, capfd: Any) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)
    Image.fromarray(grey).save(tmp_path / "in.png")
    for what in ("saliency", "dream --layer c1 --unit 1 --steps 3", "activations --layer c1"):
        code, _, _ = look(run, capfd, *what.split(), "--image", str(tmp_path / "in.png"), "-o", str(tmp_path / "o.png"))
        assert code == 0


WRONG = [
    ("filters --layer c2", 1, "no layer is named `c2`", "there is `c1`, `dense_1`"),
    ("dream --layer c1 --unit 4", 1, "the unit of Net.c1 must be between 0 and 3, got 4", ""),
    ("attack --eps -1", 1, "eps must be at least 0, got -1.0", ""),
    ("dream --low 1 --high 0", 1, "low must be less than high", ""),
    ("dream --rate nan", 1, "rate must be finite, got nan", ""),
    ("attack --by guided-pixel --target 3", 1, "--target goes with fgsm, pgd, pgd-held and patch", ""),
    ("attack --target 10", 1, "the unit of scores must be between 0 and 9, got 10", ""),
    ("saliency --image large.png", 4, "large.png: expected 8 x 8 pixels, found 9 x 8", ""),
    ("saliency --image none.png", 4, "none.png: no such file", ""),
    ("rates --low 0", 1, "low must be above 0, got 0.0", ""),
    ("surface --span 0", 1, "span must be above 0", ""),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "said", "help"), WRONG, ids=[w[0] for w in WRONG])
def test_what_does_not_fit_is_said(
    run: Path,
    tmp_path: Path,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    said: str,
    help: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((9, 8), np.uint8)).save("large.png")
    got, _, err = look(run, capfd, *arguments.split(), "-o", "picture.png")
    assert got == code and said in err and help in err and "Traceback" not in err
    assert not Path("picture.png").exists()


def test_without_matplotlib_it_says_what_to_install(run: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = look(run, capfd, "filters", "--layer", "c1", "-o", "never.png")
    assert code == 1 and "E0503" in err and "pip install 'nnc[plot]'" in err


def test_a_picture_that_cannot_be_written_is_an_error(run: Path, tmp_path: Path, capfd: Any) -> None:
    code, _, err = look(run, capfd, "filters", "--layer", "c1", "-o", str(tmp_path / "none" / "picture.png"))
    assert code == 4 and "E0625" in err

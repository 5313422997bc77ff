"""A folder of images: what is read, and for everything that cannot be, which file it was and why."""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import DataError, UnsupportedError
from nnc.runtime.call import column
from nnc.runtime.call.column import Column
from nnc.runtime.cli import main
from nnc.runtime.data.pictures import images

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

NET = """
model Net(x: f32[B, 3, 6, 4]) -> (logits: f32[B, 2]) {
    logits = x |> flatten |> Dense(2)
}

train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    optimizer = Adam(lr = 0.05)
    data = images("pets")
    validation = 0.25
    batch = 8
    epochs = 40
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of twelve pictures of 4 x 6 pixels: the second has more red."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for n in range(12):
            pixels = rng.integers(0, 120, (6, 4, 3), np.uint8)
            pixels[..., 0] += np.uint8(100 * k)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{n:02}.png")
    (tmp_path / "net.nn").write_text(NET)
    return tmp_path / "pets"


def test_pixels_and_labels(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("not a picture")
    (folder / ".cache").mkdir()
    train, test, classes = images(folder, False)
    assert (
        test is None
        and classes == ("cat", "dog")
        and train["x"].shape == (24, 3, 6, 4)
        and train["x"].dtype == np.float32
    )
    assert train["label"].tolist() == [0] * 12 + [1] * 12
    first = np.asarray(Image.open(folder / "cat" / "00.png"), np.float32) / 255
    np.testing.assert_array_equal(train["x"][0], first.transpose(2, 0, 1))
    grey, _, _ = images(folder, True)
    second = np.asarray(Image.open(folder / "dog" / "01.png").convert("L"))
    np.testing.assert_array_equal(grey["x"][13, 0], second.astype(np.float32) / 255)


def test_it_trains_and_images_on_disk_give_the_same_bits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nnc.compile("net.nn")
    net.fit()
    assert net.evaluate()["loss"] < 0.3
    monkeypatch.setattr(column, "SHARE", 0.0)
    disk = nnc.compile("net.nn")
    disk.fit()
    assert isinstance(disk.dataset.train["x"], Column)
    assert disk.params["Net.dense_1.W"].tobytes() == net.params["Net.dense_1.W"].tobytes()


def test_train_and_test_folders(folder: Path) -> None:
    (folder / "a").mkdir()
    for part in ("train", "test"):
        (folder / "a" / part).mkdir()
        for name in ("cat", "dog"):
            (folder / name).is_dir() and part == "test" and (folder / name).rename(folder / "a" / part / name)
            (folder / "a" / part / name).mkdir(exist_ok=True)
            Image.new("RGB", (4, 6), (9, 9, 9)).save(folder / "a" / part / name / "z.jpg")
    train, test, _ = images(folder / "a", False)
    assert train["label"].tolist() == [0, 1] and test["label"].tolist() == [0] * 13 + [1] * 13
    (folder / "a" / "test" / "emu").mkdir()
    with pytest.raises(DataError, match=r"test: expected the classes `cat`, `dog`, found `emu` as well"):
        images(folder / "a", False)


def test_train_and_val_folders(folder: Path) -> None:
    """What is chosen by is `val`; what is left for the end is `test`."""
    for part in ("train", "val", "test"):
        shutil.copytree(folder / "cat", folder / "b" / part / "cat")
        shutil.copytree(folder / "dog", folder / "b" / part / "dog")
    (folder / "b" / "val" / "dog" / "00.png").unlink()
    train, held_out, _ = images(folder / "b", False)
    assert len(train["x"]) == 24 and len(held_out["x"]) == 23


def test_what_is_no_class_does_not_move_the_others(folder: Path) -> None:
    (folder / "dog" / "._00.png").write_bytes(b"of a Macintosh")
    assert images(folder, False)[0]["label"].tolist() == [0] * 12 + [1] * 12
    for name in ("__MACOSX", "bird"):
        (folder / name).mkdir()
        with pytest.raises(DataError, match=rf"{name}: expected images .*, found none"):
            images(folder, False)
        (folder / name / "._x.png").write_bytes(b"of a Macintosh")
        with pytest.raises(DataError, match=rf"{name}: expected images .*, found none"):
            images(folder, False)
        shutil.rmtree(folder / name)


def test_another_folder_has_the_classes_of_the_first(folder: Path) -> None:
    """One in which a class is missing, or one more is."""
    net = nnc.compile("net.nn")
    net.fit()
    net.save("net.nnw")
    shutil.copytree(folder / "dog", folder.parent / "dogs" / "dog")
    again = nnc.compile("net.nn")
    again.load("net.nnw")
    again.data_path = folder.parent / "dogs"
    assert again.load_dataset().train["label"].tolist() + again.load_dataset().held_out["label"].tolist() == [1] * 12
    shutil.copytree(folder / "dog", folder.parent / "dogs" / "emu")
    again.dataset = None
    with pytest.raises(DataError, match=r"expected the classes `cat`, `dog`, found `emu` as well"):
        again.load_dataset()


def test_a_picture_stands_upright(folder: Path) -> None:
    """As its EXIF orientation says, whichever of the eight ways it lies."""
    rng = np.random.default_rng(1)
    wanted = Image.fromarray(np.repeat(np.repeat(rng.integers(0, 255, (6, 4, 3), np.uint8), 8, 0), 8, 1))
    ways = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270")
    back = dict(enumerate(ways, 2))
    (folder / "up" / "a").mkdir(parents=True)
    for orientation in range(1, 9):
        lying = wanted.transpose(Image.Transpose[back[orientation]]) if orientation > 1 else wanted
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying.save(folder / "up" / "a" / f"{orientation}.jpg", quality=100, subsampling=0, exif=exif)
    x = images(folder / "up", False)[0]["x"]
    assert x.shape == (8, 3, 48, 32)
    assert np.abs(x - np.asarray(wanted, np.float32).transpose(2, 0, 1) / 255).mean() < 0.02


def test_pictures_are_predicted_from(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One, or a folder of them; what comes out has the names of the classes."""
    assert main(["train", "net.nn", "--out", "run", "--quiet"]) == 0
    capfd.readouterr()
    for path, rows in ((folder / "cat" / "00.png", 1), (folder / "dog", 12)):
        assert main(["predict", "run", str(path)]) == 0
        header, *lines = capfd.readouterr().out.splitlines()
        assert header == "logits_cat,logits_dog,class" and len(lines) == rows
        assert sum(line.endswith(path.relative_to(folder).parts[0]) for line in lines) >= 0.9 * rows
    assert main(["predict", "run", str(folder)]) == 4
    assert "expected images" in capfd.readouterr().err
    Image.new("RGB", (6, 4)).save("wide.png")
    assert main(["predict", "run", "wide.png"]) == 1
    assert "`x` of predict wants f32[B, 3, 6, 4], got f32[1, 3, 4, 6]" in capfd.readouterr().err


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"nothing: no such folder"):
        images(folder / "nothing", False)
    (folder / "none").mkdir()
    with pytest.raises(DataError, match=r"none: expected a subfolder of images for each class, found no subfolder"):
        images(folder / "none", False)
    (folder / "none" / "empty").mkdir()
    with pytest.raises(DataError, match=r"none/empty: expected images \(.png .*\), found none"):
        images(folder / "none", False)
    shutil.rmtree(folder / "none")
    bad = folder / "dog" / "bad.png"
    good = (folder / "dog" / "00.png").read_bytes()
    Image.new("RGB", (6, 4)).save(bad)
    with pytest.raises(DataError, match=r"dog/bad.png: expected 6 x 4 pixels as in .*cat/00.png, found 4 x 6"):
        images(folder, False)
    Image.new("I;16", (4, 6)).save(bad)
    with pytest.raises(DataError, match=r"bad.png: expected an image with 8 bits a channel, found the mode I;16"):
        images(folder, False)
    for damage in (b"", b"hello", good[:20], good[: len(good) // 2], b"\x89PNG\r\n\x1a\n" + b"\0" * 40):
        bad.write_bytes(damage)
        with pytest.raises(DataError, match=r"bad.png: expected a complete image, found "):
            images(folder, False)
    bad.write_bytes(good[:16] + b"\x00\x01\x00\x00\x00\x01\x00\x00" + good[24:])  # claims 65536 x 65536
    with pytest.raises(DataError, match=r"bad.png: expected a complete image, found "):
        images(folder, False)


def test_only_the_formats_that_are_meant_are_tried(folder: Path) -> None:
    """Whatever a file is called: EPS would be given to Ghostscript."""
    bad = folder / "dog" / "bad.png"
    eps = BytesIO()
    Image.new("RGB", (4, 6)).save(eps, "EPS")
    bad.write_bytes(eps.getvalue())
    with pytest.raises(DataError, match=r"bad.png: expected a complete image, found nothing that is read as PNG"):
        images(folder, False)


def test_every_flipped_byte_gives_an_image_or_a_clear_error(folder: Path) -> None:
    for suffix in ("png", "jpg", "gif", "bmp"):
        bad = folder / "dog" / f"bad.{suffix}"
        Image.open(folder / "dog" / "00.png").convert("RGB").save(bad)
        good = bad.read_bytes()
        for k in range(0, len(good), 3):
            bad.write_bytes(good[:k] + bytes([good[k] ^ 0x55]) + good[k + 1 :])
            try:
                images(folder, False)
            except DataError as e:
                assert "bad." in str(e)
        bad.unlink()


def test_without_pillow_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(UnsupportedError, match=r"E0503.*Pillow.*\n.*pip install 'nnc\[images\]'"):
        images(folder, False)


def test_check_refuses_arguments_that_training_would_refuse(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "net.nn"]) == 0
    Path("net.nn").write_text(NET.replace('images("pets")', 'images("pets", gray = true)'))
    for command in (["check", "net.nn"], ["train", "net.nn"]):
        capfd.readouterr()
        assert main(command) == 1
        assert "wrong arguments for the data source `images`" in capfd.readouterr().err

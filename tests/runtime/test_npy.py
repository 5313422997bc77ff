"""An array in a file of its own, and its targets in another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.compiler.manifest import DataSpec
from nnc.dsl.errors import DataError
from nnc.runtime.call import column
from nnc.runtime.call.column import Column
from nnc.runtime.data.dataset import Dataset
from nnc.runtime.data.sources import load

X, Y = np.arange(24, dtype=np.float32).reshape(6, 2, 2), np.array([0, 1, 0, 1, 0, 1], np.int32)
NET = """
model Net(x: f32[B, 4]) -> (logits: f32[B, 2]) {
    logits = x |> Dense(2)
}

train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    optimizer = SGD(0.001)
    data = npy("x.npy", target = "y.npy")
    batch = 4
    epochs = 2
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    (tmp_path / "net.nn").write_text(NET)
    return tmp_path


def read(folder: Path, *args: Any, override: str | None = None, **options: Any) -> Dataset:
    return load(DataSpec("npy", args, options), folder, validation=None, seed=0, override=override)


def test_one_array_or_two(folder: Path) -> None:
    alone, both = read(folder, "x.npy"), read(folder, "x.npy", target="y.npy")
    assert list(alone.train) == ["x"] and both.by_position == ("x", "y") and both.held_out is None
    np.testing.assert_array_equal(both.train["x"], X)
    np.testing.assert_array_equal(both.train["y"], Y)
    assert read(folder, "x.npy", "y.npy").train["y"].dtype == np.int32


def test_another_file_takes_the_place_of_the_path(folder: Path) -> None:
    np.save(folder / "z.npy", 2 * X)
    data = read(folder, "x.npy", target="y.npy", override=str(folder / "z.npy"))
    np.testing.assert_array_equal(data.train["x"], 2 * X)
    np.testing.assert_array_equal(data.train["y"], Y)


def test_what_is_large_stays_on_disk_with_the_same_bits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nnc.compile(folder / "net.nn")
    history = first.fit()
    monkeypatch.setattr(column, "SHARE", 0.0)
    assert isinstance(read(folder, "x.npy").train["x"], Column)
    second = nnc.compile(folder / "net.nn")
    assert [r["loss"] for r in second.fit()] == [r["loss"] for r in history]
    for path, array in first.params.items():
        np.testing.assert_array_equal(second.params[path], array)


def test_shapes_that_do_not_fit(folder: Path) -> None:
    np.save(folder / "one.npy", np.float32(1))
    with pytest.raises(DataError, match=r"E0621.*one.npy: expected an array whose first axis counts examples"):
        read(folder, "one.npy")
    np.save(folder / "short.npy", Y[:5])
    with pytest.raises(DataError, match=r"E0621.*as many rows in each column, found x: 6, y: 5"):
        read(folder, "x.npy", target="short.npy")
    (folder / "net.nn").write_text(NET.replace("f32[B, 4]", "f32[B, 5]"))
    with pytest.raises(nnc.ArgumentError, match=r"E0601.*`x` of fit wants f32\[B, 5\], got f32\[6, 4\]"):
        nnc.compile(folder / "net.nn").fit()


def test_files_that_are_not_what_they_should_be(folder: Path) -> None:
    whole = (folder / "x.npy").read_bytes()
    for name, content, message in (
        ("cut.npy", whole[:-3], "expected 96 B of data for the shape [6, 2, 2], found 93 B"),
        ("head.npy", whole[:40], "expected an npy header"),
        ("empty.npy", b"", "expected an npy header"),
        ("more.npy", whole + b"x", "expected 96 B of data for the shape [6, 2, 2], found more"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            read(folder, name)
        assert caught.value.code == "E0621" and message in str(caught.value)
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="expected an array of numbers, found pickled objects, which are not read"):
        read(folder, "objects.npy")
    os.mkfifo(folder / "pipe.npy")
    (folder / "folder.npy").mkdir()
    for name in ("pipe.npy", "folder.npy", "none.npy"):
        with pytest.raises(DataError, match=rf"E0620.*{name}"):
            read(folder, name)
        with pytest.raises(DataError, match=rf"E0620.*{name}"):
            read(folder, "x.npy", target=name)

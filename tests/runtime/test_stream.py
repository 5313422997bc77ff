"""Data sets that stay on disk: the same bits as from memory, every example once, and memory for one block."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnc
from nnc.dsl.errors import ArgumentError, DataError
from nnc.runtime.call import column
from nnc.runtime.call.column import Column
from nnc.runtime.data.idx import read_idx
from nnc.runtime.data.npy import read_array
from nnc.runtime.data.text import windows
from nnc.runtime.train import sweep

NET = """
model Net(x: f32[B, %s]) -> (logits: f32[B, 3]) { logits = x |> flatten |> Dense(3) }
train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    optimizer = Adam(lr = 0.01)
    data = %s
    normalize = standard
    validation = 0.25
    batch = 8
    epochs = 3
}
"""


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "SHARE", 0.0)
    monkeypatch.setattr(sweep, "_BLOCK_BYTES", 4096)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def idx_folder(folder: Path, rng: np.random.Generator) -> str:
    for part, n in (("train", 77), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (n, 5, 4), np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte", rng.integers(0, 3, n).astype(np.uint8))
    return 'idx("data")'


def cifar_folder(folder: Path, rng: np.random.Generator) -> str:
    for name, n in (("data_batch_1.bin", 31), ("data_batch_2.bin", 20), ("test_batch.bin", 10)):
        rows = rng.integers(0, 256, (n, 3073), np.uint8)
        rows[:, 0] %= 3
        (folder / name).write_bytes(rows.tobytes())
    return 'cifar10("data")'


def npz_file(folder: Path, rng: np.random.Generator) -> str:
    np.savez(folder / "set.npz", x=np.asfortranarray(rng.normal(size=(61, 6))), label=rng.integers(0, 3, 61))
    return 'npz("data/set.npz")'


def npy_folder(folder: Path, rng: np.random.Generator) -> str:
    np.save(folder / "x.npy", rng.normal(size=(61, 6)).astype(">f4"))
    np.save(folder / "label.npy", rng.integers(0, 3, 61))
    return 'npz("data", x = "x", label = "label")'


SOURCES = {"5, 4": idx_folder, "3, 32, 32": cifar_folder, "6": npz_file, "6 ": npy_folder}


@pytest.mark.parametrize("shape", SOURCES)
def test_training_from_disk_gives_the_bits_of_training_from_memory(shape: str, tmp_path: Path, request) -> None:
    (tmp_path / "data").mkdir()
    source = SOURCES[shape](tmp_path / "data", np.random.default_rng(0))
    (tmp_path / "net.nn").write_text(NET % (shape.strip(), source))

    def trained() -> nnc.Model:
        net = nnc.compile(tmp_path / "net.nn")
        net.fit()
        return net

    memory = trained()
    request.getfixturevalue("on_disk")
    disk = trained()
    assert isinstance(disk.dataset.train["x"], Column) and not isinstance(memory.dataset.train["x"], Column)
    for path, array in memory.variables.items():
        assert array.tobytes() == disk.variables[path].tobytes(), path
    assert disk.evaluate(batch=7) == memory.evaluate(batch=7)


def test_text_from_disk_has_the_same_windows(tmp_path: Path, request) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(range(127, 0, -1)))
    memory, known = windows(path, 7)
    request.getfixturevalue("on_disk")
    disk, again = windows(path, 7)
    assert known == again and len(known.characters) == 127 and memory["x"][0, 0] == 126
    for name in "xy":
        assert isinstance(disk[name], Column)
        np.testing.assert_array_equal(disk[name][:], memory[name])


SEEN = """
model Seen(id: i32[B, 1]) -> (count: f32[64]) {
    weight seen: f32[64] = 0
    count = seen
}
train Seen(id) {
    update { seen := seen + sum(cast(one_hot(squeeze(id, 1), 64), f32), axis = 0) }
    metric examples = sum(id >= 0)
}
"""


@pytest.fixture(scope="module")
def seen() -> nnc.Model:
    return nnc.compile(SEEN)


@settings(max_examples=60)
@given(
    n=st.integers(1, 64),
    batch=st.integers(1, 70),
    block=st.integers(1, 300),
    seed=st.integers(0, 2**31 - 1),
    epochs=st.integers(1, 3),
    disk=st.booleans(),
)
def test_every_epoch_sees_every_example_once(seen, n, batch, block, seed, epochs, disk) -> None:
    """Whatever the batch, the block that is read at a time and the seed of the shuffle."""
    ids = np.arange(n, dtype=np.int32)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_BLOCK_BYTES", block)
        seen.reset(seed)
        rows = column.mapped([ids[: n // 2], ids[n // 2 :]], (1,), ids.dtype) if disk else ids
        history = seen.fit(rows, epochs=epochs, batch=batch, shuffle=True)
    assert seen.params["Seen.seen"].tolist() == [float(epochs)] * n + [0.0] * (64 - n)
    assert history.column("examples") == [n] * epochs


def test_memory_holds_blocks_not_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of 205 MB as f32, of which nothing but blocks of 1 MB is ever in memory."""
    monkeypatch.setattr(column, "SHARE", 0.0)
    monkeypatch.setattr(sweep, "_BLOCK_BYTES", 1 << 20)
    (tmp_path / "data").mkdir()
    n = 50_000
    for part in ("train", "t10k"):
        with open(tmp_path / "data" / f"{part}-images-idx3-ubyte", "wb") as f:  # a sparse file
            f.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", n, 32, 32))
            f.truncate(16 + n * 1024)
        write_idx(tmp_path / "data" / f"{part}-labels-idx1-ubyte", np.zeros(n, np.uint8))
    (tmp_path / "net.nn").write_text(NET % ("32, 32", 'idx("data")'))
    net = nnc.compile(tmp_path / "net.nn")
    for entry in ("train", "evaluate"):
        net.entry(entry)
    tracemalloc.start()
    try:
        net.fit(epochs=1, batch=250)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20  # copies of a block, normalisation's in f64, and some words an example for the order


def test_a_bad_label_on_disk_is_named_by_its_row(on_disk: None, tmp_path: Path) -> None:
    label = np.zeros((40, 1), np.int32)
    label[33] = 5
    np.savez(tmp_path / "set.npz", x=np.zeros((40, 2), np.float32), label=label)
    (tmp_path / "net.nn").write_text("""
model Net(x: f32[B, 2]) -> (logits: f32[B, 3]) { logits = x |> Dense(3) }
train Net(x, label: i32[B, 1]) {
    loss = mean(cross_entropy(logits, squeeze(label, 1)))
    optimizer = SGD(lr = 0.01)
    data = npz("set.npz")
    batch = 4
}
""")
    with pytest.raises(ArgumentError, match="`label` is 5 in row 33, but must be from 0 to 2"):
        nnc.compile(tmp_path / "net.nn").fit()


@pytest.mark.parametrize("extra", [-1, 1])
def test_files_that_are_mapped_must_be_as_long_as_they_say(on_disk: None, tmp_path: Path, extra: int) -> None:
    image = tmp_path / "train-images-idx3-ubyte"
    write_idx(image, np.zeros((4, 3, 3), np.uint8))
    data = image.read_bytes()
    image.write_bytes(data[:extra] if extra < 0 else data + b"x")
    with pytest.raises(DataError, match=r"expected 5?[0-9]* bytes"):
        read_idx(image, 3, in_part=True)
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:extra] if extra < 0 else data + b"x")
    with pytest.raises(DataError, match=r"expected 96 B of data for the shape \[4, 3\], found (more|95 B|223 B)"):
        read_array(tmp_path / "x.npy", in_part=True)

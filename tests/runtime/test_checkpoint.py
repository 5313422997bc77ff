"""Checkpoints: complete, readable by others, and either whole or refused, whatever happens to the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import nnc
from nnc.dsl.errors import DataError
from nnc.runtime.store import checkpoint

X, T = np.float32([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), np.float32([1, 2])


@pytest.fixture
def saved(net, tmp_path) -> Path:
    for _ in range(3):
        net.train_step(X, T)
    net.save(tmp_path / "a.nnw")
    return tmp_path / "a.nnw"


def state(model) -> dict[str, bytes]:
    return {path: a.tobytes() for path, a in model.variables.items()}


def test_everything_comes_back(net, make, saved):
    other = make(seed=99)
    assert state(other) != state(net)
    other.load(saved)
    assert state(other) == state(net) and other.seed == net.seed
    assert other.train_step(X, T) == net.train_step(X, T)


def test_the_safetensors_library_reads_it(net, saved):
    tensors = load_file(saved)
    assert set(tensors) == set(net.variables)
    for path, array in tensors.items():
        np.testing.assert_array_equal(array, net.variables[path])


def test_it_says_what_it_is(saved):
    with safe_open(saved, "np") as f:
        facts = json.loads(f.metadata()["nnc"])
    assert facts["model"] == "Line" and facts["seed"] == 7 and facts["progress"] is None


def test_every_flipped_bit_is_noticed(net, make, saved):
    """One flip in each byte of the file; the bit goes round so that every kind of damage occurs."""
    good = saved.read_bytes()
    other = make(seed=99)
    before = state(other)
    for k in range(len(good)):
        bad = bytearray(good)
        bad[k] ^= 1 << (k % 8)
        saved.write_bytes(bad)
        with pytest.raises(DataError) as caught:
            other.load(saved)
        assert caught.value.code in ("E0623", "E0624") and str(saved) in str(caught.value)
    assert state(other) == before


def test_every_truncation_is_noticed(make, saved):
    good = saved.read_bytes()
    other = make(seed=99)
    before = state(other)
    for k in [*range(0, len(good), 7), len(good) - 1]:
        saved.write_bytes(good[:k])
        with pytest.raises(DataError):
            other.load(saved)
    saved.write_bytes(good + b"\0")
    with pytest.raises(DataError, match="bytes of tensors"):
        other.load(saved)
    assert state(other) == before


def forged(header: object, tensors: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


@pytest.mark.parametrize("data", [
    b"", b"\0" * 8, (1 << 60).to_bytes(8, "little") + b"{}", forged(b"[]"), forged(b"{"), forged(b"1"), forged({}),
    forged({"__metadata__": []}), forged({"__metadata__": {"nnc": 1, "sha256": 2}}), forged(b"[" * 100_000),
    forged({"__metadata__": {"nnc": "{}", "sha256": checkpoint._digest("{}", {})}}),
    forged(b'{"a": 1, "a": 2}'), forged({"__metadata__": {"nnc": "\ud800", "sha256": ""}}),
    forged({"__metadata__": {"nnc": "[]", "sha256": checkpoint._digest("[]", {})}}),
])  # fmt: skip
def test_forged_headers(net, tmp_path, data):
    path = tmp_path / "bad.nnw"
    path.write_bytes(data)
    with pytest.raises(DataError, match="E0623"):
        net.load(path)


@pytest.mark.parametrize("entry", [
    {}, [], 1, {"dtype": "F32", "shape": [3], "data_offsets": [0, 11]},
    {"dtype": "F32", "shape": [-3], "data_offsets": [0, -12]}, {"dtype": "F99", "shape": [3], "data_offsets": [0, 12]},
    {"dtype": "F32", "shape": [10**30], "data_offsets": [0, 4 * 10**30]},
    {"dtype": "F32", "shape": "abc", "data_offsets": [0, 12]}, {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]},
    {"dtype": "F32", "shape": [3], "data_offsets": [0, 12, 3]}, {"dtype": "F32", "shape": [3], "data_offsets": None},
])  # fmt: skip
def test_forged_tables_with_right_digests(net, tmp_path, entry):
    facts = json.dumps({"version": 1})
    table = {"Line.W": entry}
    metadata = {"nnc": facts, "sha256": checkpoint._digest(facts, table)}
    path = tmp_path / "bad.nnw"
    path.write_bytes(forged({"__metadata__": metadata, **table}, b"\0" * 12))
    with pytest.raises(DataError, match="E0623"):
        net.load(path)


@pytest.mark.parametrize(("change", "message"), [
    (lambda v: replace(v, shape=(4,)) if v.path == "Line.W" else v, r"expected `Line.W` as f32\[4\], found f32\[3\]"),
    (lambda v: replace(v, dtype="f64") if v.path == "Line.b" else v, r"expected `Line.b` as f64\[\], found f32\[\]"),
    (lambda v: replace(v, path="Line.V") if v.path == "Line.W" else v, "expected the variable `Line.V`, found none"),
    (lambda v: None if v.path == "Line.mean" else v, "expected only the variables of the model, found `Line.mean`"),
])  # fmt: skip
def test_a_checkpoint_of_another_program(net, saved, change, message):
    changed = tuple(v for v in map(change, net.manifest.variables) if v is not None)
    net.manifest = replace(net.manifest, variables=changed)
    before = state(net)
    with pytest.raises(DataError, match=message) as caught:
        net.load(saved)
    assert caught.value.code == "E0624" and state(net) == before


def test_missing_and_unwritable(net, tmp_path):
    with pytest.raises(DataError, match=r"E0622.*no such file"):
        net.load(tmp_path / "nope.nnw")
    with pytest.raises(DataError, match="E0622"):
        net.load(tmp_path)
    with pytest.raises(DataError, match=r"E0625.*cannot be written: no such file or directory"):
        net.save(tmp_path / "no" / "folder" / "a.nnw")
    with pytest.raises(DataError, match=r"E0625.*not a directory"):
        (tmp_path / "file").touch()
        net.save(tmp_path / "file" / "a.nnw")


def test_a_full_disk_leaves_the_old_file_and_no_trace(net, saved, monkeypatch):
    good = saved.read_bytes()
    net.train_step(X, T)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"E0625.*no space left on device"):
        net.save(saved)
    assert saved.read_bytes() == good and os.listdir(saved.parent) == [saved.name]


def test_a_link_stays_a_link(net, saved):
    link = saved.with_name("link.nnw")
    link.symlink_to(saved.name)
    net.train_step(X, T)
    net.save(link)
    assert link.is_symlink()
    net.load(saved)


SAVER = """
import sys, time
sys.path.insert(0, {folder!r})
from conftest import make_session
from nnc.runtime.model import Model
net = Model(make_session(), threads=1)
print("ready", flush=True)
while True:
    net.params["Line.W"] = net.params["Line.W"] + 1
    net.save({path!r})
"""


def test_kill_in_the_middle_of_saving_loses_nothing(net, saved, make):
    script = SAVER.format(folder=str(Path(__file__).parent), path=str(saved))
    for k in range(6):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.02 + 0.007 * k)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        make().load(saved)  # whole, whether old or new


def test_a_run_folder_is_its_best_checkpoint(make, tmp_path):
    net, other = make(seed=1), make(seed=2)
    with pytest.raises(DataError, match="no checkpoint in this run"):
        other.load(tmp_path)
    net.save(tmp_path / "last.nnw")
    other.load(tmp_path)
    assert (other.params["Line.W"] == net.params["Line.W"]).all()
    make(seed=3).save(tmp_path / "best.nnw")
    other.load(tmp_path)
    assert other.seed == 3


MODEL = """
model Line(x: f32[B, 3]) -> (y: f32[B]) {
    weight W: f32[3] = normal(1.0)
    y = x @ W
}
"""
TRAIN = """
train Line(x, t: f32[B]) {
    loss = mean((y - t)^2)
    optimizer = Adam(lr = 0.1)
    average = ema(0.5)
}
"""


def trained(text: str, path: Path) -> nnc.Model:
    net = nnc.compile(text, seed=3, threads=1)
    for _ in range(3):
        net.train_step(X, T)
    net.save(path)
    return net


def test_a_model_without_a_train_block_takes_what_was_learned(tmp_path):
    net = trained(MODEL + TRAIN, tmp_path / "a.nnw")
    bare = nnc.compile(MODEL, threads=1)
    bare.load(tmp_path / "a.nnw")
    np.testing.assert_array_equal(bare.predict(X), net.predict(X))  # which reads the averages
    assert bare.seed == net.seed
    bare.save(tmp_path / "b.nnw")
    other = nnc.compile(MODEL, threads=1)
    other.load(tmp_path / "b.nnw")
    np.testing.assert_array_equal(other.predict(X), net.predict(X))


def test_but_not_where_inputs_were_normalised(tmp_path):
    """Its predictions would be those for other inputs."""
    trained(MODEL + TRAIN.replace("loss =", "normalize = standard\n    loss ="), tmp_path / "a.nnw")
    for read in ("load", "begin_with"):
        with pytest.raises(DataError, match=r"only the variables of the model, found `normalize/x/mean` as well"):
            getattr(nnc.compile(MODEL, threads=1), read)(tmp_path / "a.nnw")

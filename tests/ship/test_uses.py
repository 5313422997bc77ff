"""What networks leave for: learned on a desk and read on a small processor; learned there; learned by many."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.standalone.build import entries
from nnc.runtime.ship.build import build

from .conftest import MODELS, host, loaded, ship
from .test_targets import BARE, CORTEX, needs, printed

M4 = ["arm-none-eabi-gcc", "-std=gnu99", "-mthumb", *CORTEX["cortex-m4"][0], "-mfloat-abi=hard", "-DFPU", "-nostdlib"]


def text_bytes(data: bytes) -> int:
    """Of the section of code of an ELF object of 32 bits."""
    (table,) = struct.unpack_from("<I", data, 32)
    count, names = struct.unpack_from("<HH", data, 48)
    rows = [struct.unpack_from("<IIIIII", data, table + 40 * k) for k in range(count)]
    start = rows[names][4]
    named = {data[start + r[0] : data.index(b"\0", start + r[0])]: r[5] for r in rows}
    return named[b".text"]


@pytest.mark.parametrize(("dtype", "flash"), [("f32", 270), ("f16", 140), ("i8", 80)])
def test_lenet5_predicts_on_a_cortex_m4(dtype: str, flash: int, tmp_path: Path, monkeypatch) -> None:
    """In 10 KB of code (some more where weights are widened) and 34 KB of memory, with Python's bits."""
    monkeypatch.chdir(tmp_path)
    net = nnc.compile(MODELS / "lenet5.nn", threads=1, seed=11, weights_dtype=dtype)
    net.save("w.nnw")
    made = build(net, "cortex-m4", "net", entries(net.manifest, False), "w.nnw")
    assert text_bytes(made.files["net.o"]) <= {"f32": 10, "f16": 11, "i8": 11}[dtype] << 10
    assert made.facts["scratch"]["predict"] <= 34 << 10 and made.facts["flash"] <= flash << 10
    for name, data in made.files.items():
        (tmp_path / name).write_bytes(data)
    r, drawn = 1, []
    for _ in range(3 * 784):
        r = (r * 1664525 + 1013904223) & 0xFFFFFFFF
        drawn.append(r >> 8)
    images = np.array(drawn, np.float32).reshape(3, 1, 28, 28) * np.float32(2.0**-24)
    found = 2166136261
    for byte in b"".join(net.predict(image[None]).tobytes() for image in images):
        found = ((found ^ byte) * 16777619) & 0xFFFFFFFF
    needs("arm-none-eabi-gcc", "qemu-system-arm")
    where = ["-Wl,--defsym=CODE=0", "-Wl,--defsym=MEMORY=0x20000000", "-Wl,--defsym=SIZE=0x10000"]  # 64 KB of memory
    subprocess.run(
        [*M4, f"-I{tmp_path}", "-DINNER=[1][28][28]", BARE / "predict.c", BARE / "cortex_m.c", "libnet.a", "-lgcc",
         "-T", BARE / "cortex_m.ld", *where, "-o", "predict"], check=True, capture_output=True,
    )  # fmt: skip
    quiet = ["-nographic", "-semihosting-config", "enable=on,target=native", "-kernel", "predict"]
    assert printed(["qemu-system-arm", *CORTEX["cortex-m4"][1], *quiet]) == f"{found:08x}"


def test_the_last_layer_is_trained_on_the_device_on_a_frozen_body(tmp_path: Path) -> None:
    """The body is what was learned elsewhere; only the head has slots and moves."""
    source = """
model Net(x: f32[B, 8]) -> (logits: f32[B, 3]) {
    h = x |> Dense(16) |> tanh |> Dense(16) |> tanh |> stop_grad
    logits = h |> Dense(3)
}
train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    optimizer = SGD(lr = 0.5)
    batch = 16
}
"""
    net = nnc.compile(source, threads=1)
    library = loaded(ship(net, host(), tmp_path), tmp_path)
    state = np.zeros(library.face.state.nbytes, np.uint8)
    assert library.call("init", {"state": state}, {}, seed=2, steps=50)[0] == 0
    net.reset(2)
    net.set_training(steps=50)
    rng = np.random.default_rng(0)
    x, label = rng.standard_normal((16, 8)).astype(np.float32), rng.integers(0, 3, 16).astype(np.int32)
    before, losses = state.copy(), []
    for _ in range(50):
        code, outputs = library.call("train", {"state": state}, {"B": 16}, x=x, label=label)
        losses.append(float(outputs["metrics"][:4].view(np.float32)[0]))
        assert code == 0 and losses[-1] == net.train_step(x, label)
    assert losses[-1] < 0.7 * losses[0]
    for path, at, f in library.face.state.places():
        moved = not np.array_equal(state[at : at + f.nbytes], before[at : at + f.nbytes])
        if "dense" in path:
            assert moved == ("dense_3" in path), path


def test_devices_learn_together_by_exchanging_states(tmp_path: Path) -> None:
    """Federated averaging (McMahan et al. 2017): rounds of steps on data of their own, then the mean of the weights."""
    source = """
model Net(x: f32[B, 4]) -> (y: f32[B]) { y = x |> Dense(1) |> squeeze(1) }
train Net(x, target: f32[B]) {
    loss = mean((y - target)^2)
    optimizer = SGD(lr = 0.1)
    batch = 32
}
"""
    net = nnc.compile(source, threads=1)
    library = loaded(ship(net, host(), tmp_path), tmp_path)
    weights = next(f for f in library.face.state.fields if f.name == "weights")
    where = slice(weights.offset, weights.offset + weights.nbytes)
    rng = np.random.default_rng(3)
    truth = rng.standard_normal(4).astype(np.float32)
    data = [rng.standard_normal((32, 4)).astype(np.float32) + np.float32(k / 4) for k in range(3)]
    states = [np.zeros(library.face.state.nbytes, np.uint8) for _ in data]
    for state in states:
        assert library.call("init", {"state": state}, {}, seed=0, steps=100)[0] == 0
    for _ in range(80):
        for state, x in zip(states, data, strict=True):
            for _ in range(3):
                assert library.call("train", {"state": state}, {"B": 32}, x=x, target=x @ truth)[0] == 0
        mean = np.mean([s[where].view(np.float32) for s in states], axis=0, dtype=np.float64).astype(np.float32)
        for state in states:
            state[where] = mean.view(np.uint8)
    at = {path: at for path, at, _ in library.face.state.places()}["Net.dense_1.W"]
    np.testing.assert_allclose(states[0][at : at + 16].view(np.float32), truth, atol=0.02)

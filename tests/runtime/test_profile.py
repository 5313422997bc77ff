"""`nnc profile`: an entry taken apart does what the entry does, and what is told of each kernel is so."""

from __future__ import annotations

import json
from ctypes import addressof

import numpy as np
import pytest

import nnc
from nnc.compiler.apart import apart
from nnc.runtime.call.arrays import address_of, bind
from nnc.runtime.cli import main
from nnc.runtime.profile import profile

MACHINE = {"flops": 1e11, "bandwidth": {1 << 28: 1e10}}
NET = """
model Net(x: f32[B, T, 5]) -> (y: f32[B, 4]) {
    y = (x |> Lstm(12))[:, 0] |> Dense(20) |> relu |> Dense(4)
}

train Net(x, target: f32[B, 4]) {
    loss = mean((y - target)^2)
    optimizer = Adam(lr = 0.01)
    batch = 3
}
"""


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))


FEW = "model Net(x: f32[B, 1, 6, 6]) { return x |> Conv(5, 3) |> relu |> flatten |> Dense(4) }"  # filters


@pytest.mark.parametrize(("text", "entry", "shape"), [
    (NET, "train", (3, 6, 5)), (NET, "predict", (3, 6, 5)), (FEW, "predict", (3, 1, 6, 6)),
    (FEW, "predict", (20, 1, 6, 6)),
])  # fmt: skip
def test_the_steps_one_after_the_other_are_the_entry(text, entry, shape):
    whole, parted = nnc.compile(text, threads=2), nnc.compile(text, threads=2)
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=shape).astype("f4"), rng.normal(size=(3, 4)).astype("f4")
    given = [x, target] if entry == "train" else [x]
    wanted = whole.entry(entry)(*given)
    call = parted.entry(entry)
    arrays, sizes = bind(entry, call.wants, given)
    sized, slots = call.sized(sizes), call.slots_copy()
    call.refresh()
    outputs = [np.empty(shape, dtype) for _, shape, dtype in sized.outputs]
    for k, array in [*enumerate(arrays), *((k, a) for (k, _, _), a in zip(sized.outputs, outputs, strict=True))]:
        slots[k] = address_of(array)
    arena, pool = parted.workspace.arena(sized.arena), parted.workspace.pool
    for step in apart(parted.session, entry, sizes):
        assert step.run(sized.address, addressof(slots), arena, pool) == 0
    assert [a.tobytes() for a in outputs] == [a.tobytes() for a in wanted]
    for path, array in whole.variables.items():
        assert array.tobytes() == parted.variables[path].tobytes(), path


def test_what_is_told_of_a_product():
    net = nnc.compile("model Net(x: f32[B, 30]) -> f32[B, 50] { return relu(x |> Dense(50)) }", threads=1)
    found = profile(net, "predict", [np.ones((7, 30), np.float32)], MACHINE)
    (kernel,) = found.kernels
    assert found.sizes == {"B": 7} and found.threads == 1 and found.seconds > 0 and kernel.seconds > 0
    assert kernel.name.startswith("contract") and kernel.text == "relu(x |> Dense(50))" and not kernel.parallel
    assert kernel.operations == 2 * 7 * 30 * 50 + 2 * 7 * 50, "the product, and to add and to compare"
    columns = net.entry("predict").signature.prepared[0].shape
    assert kernel.nbytes == 4 * (7 * 30 + 50 + 7 * 50 + np.prod(columns)), "panels have a margin"
    assert kernel.bound == pytest.approx(max(kernel.operations / 1e11, kernel.nbytes / 1e10))


def test_the_command(tmp_path, capfd):
    file, trace = tmp_path / "net.nn", tmp_path / "trace.json"
    file.write_text(NET, "utf-8")
    assert main(["profile", str(file), "--at", "T=6", "--trace", str(trace), "--threads", "1"]) == 0
    shown = capfd.readouterr().out
    assert "scan of" in shown and "net.nn:" in shown and "B = 3, T = 6" in shown
    events = json.loads(trace.read_text("utf-8"))["traceEvents"]
    assert all(e["ph"] == "X" and e["dur"] > 0 for e in events)
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
    assert main(["profile", str(file), "--entry", "predict", "--json", "--batch", "2"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["entry"] == "predict" and found["sizes"] == {"B": 2, "T": 2}
    assert sum(k["operations"] for k in found["kernels"]) > 2 * 2 * 2 * 48 * (5 + 12)


@pytest.mark.parametrize(("arguments", "told"), [(["--entry", "trian"], "`train`"), (["--at", "U=3"], "`U`")])
def test_what_there_is_not(tmp_path, capfd, arguments, told):
    (tmp_path / "net.nn").write_text(NET, "utf-8")
    assert main(["profile", str(tmp_path / "net.nn"), *arguments]) == 1
    assert told in capfd.readouterr().err

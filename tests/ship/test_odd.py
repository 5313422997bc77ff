"""Programs that a review found built to something else than they say, or not at all; each by its own fault."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.native.target import LEVELS
from nnc.compiler.standalone.build import entries
from nnc.runtime.cli import main
from nnc.runtime.ship.wheel import wheel

from .conftest import MODELS, STRICT, host, loaded, ship
from .test_wheel import installed, run

X = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def built(source: str, folder: Path, **more):
    net = nnc.compile(source, threads=1)
    return net, loaded(ship(net, host(), folder, net.manifest.train is not None, **more), folder)


def weights_of(net: nnc.Model, library) -> np.ndarray:
    found = np.zeros(library.face.weights.nbytes, np.uint8)
    for path, at, f in library.face.weights.places():
        found[at : at + f.nbytes] = net.variables[path].reshape(-1).view(np.uint8)
    return found


def test_predictions_that_write_state_prepare_nothing(tmp_path: Path) -> None:
    net, library = built("""
model Net(x: f32[B, 3]) -> (y: f32[B, 3]) {
    state n: f32 = 0.0
    h = x |> Dense(64) |> relu |> Dense(3)
    n := n + 1.0
    y = h + n
}
""", tmp_path)  # fmt: skip
    held = {"weights": weights_of(net, library)}
    for _ in range(2):
        code, outputs = library.call("predict", held, {"B": 4}, x=X)
        assert code == 0
        np.testing.assert_array_equal(outputs["y"], net.predict(X))


def test_a_metric_may_be_a_word_of_c(tmp_path: Path) -> None:
    net, library = built("""
model Net(x: f32[B, 3]) -> (y: f32[B]) { y = x |> Dense(1) |> squeeze(1) }
train Net(x, target: f32[B]) {
    loss = mean((y - target)^2)
    metric double = mean(abs(y - target))
    optimizer = SGD(lr = 0.1)
    batch = 4
}
""", tmp_path)  # fmt: skip
    state = np.zeros(library.face.state.nbytes, np.uint8)
    assert library.call("init", {"state": state}, {}, seed=0, steps=1)[0] == 0
    wanted = net.entry("train")(X, X[:, 0])
    code, outputs = library.call("train", {"state": state}, {"B": 4}, x=X, target=X[:, 0])
    assert code == 0 and outputs["metrics"][:8].view(np.float32).tolist() == [float(w) for w in wanted]
    assert [f.name for f in library.face.metrics.fields] == ["loss", "double_"]


def test_constants_of_zero_and_of_minus_zero_are_two(tmp_path: Path) -> None:
    net, library = built("""
export plus(x: f32[2]) -> f32[2] = x * [0.0, 1.0]
export minus(x: f32[2]) -> f32[2] = x * [-0.0, 1.0]
export zero(x: f32[N]) -> f32[N] = where(x > 2.0, x, 0.0)
export less(x: f32[N]) -> f32[N] = where(x > 2.0, x, -0.0)
""", tmp_path, exports=("plus", "minus", "zero", "less"))  # fmt: skip
    x = np.array([1, 3], np.float32)
    for name in ("plus", "minus", "zero", "less"):
        _, outputs = library.call(name, {}, {"N": 2} if name in ("zero", "less") else {}, x=x)
        assert outputs["result"].tobytes() == net.call(name, x).tobytes(), name


def test_one_of_a_guard_s_relations_is_enough(tmp_path: Path) -> None:
    _, library = built("""
export f(x: f32[N], y: f32[M]) -> f32 {
    require(N == 2 * M or N == 3 * M, "x is two or three times y")
    return sum(x) + sum(y)
}
""", tmp_path, exports=("f",))  # fmt: skip
    for n, wanted in ((4, 0), (6, 0), (5, -1)):
        code, _ = library.call("f", {}, {"N": n, "M": 2}, x=np.ones(n), y=np.ones(2))
        assert code == wanted, n


def test_sizes_may_differ_and_are_too_large_together(tmp_path: Path) -> None:
    _, library = built("export f(x: f32[A, K, H, W]) -> f32[A] = sum(x, axis = [1, 2, 3])\n", tmp_path, exports=("f",))
    x = np.ones((40000, 1, 1, 1), np.float32)
    code, outputs = library.call("f", {}, {"A": 40000, "K": 1, "H": 1, "W": 1}, x=x)
    assert code == 0 and outputs["result"].sum() == 40000
    sizes = [ctypes.c_size_t(1 << 20)] * 4
    assert library.loaded.net_f(*sizes, None, None, None, ctypes.c_size_t(0)) == -1


def test_variables_of_no_elements(tmp_path: Path) -> None:
    source = """
hyper k: int = 0
model Net(x: f32[B, 3]) -> (y: f32[B, 3]) {
    weight V: f32[k, 3] = zeros
    y = (x |> Dense(3)) + sum(V)
}
"""
    net, library = built(source, tmp_path)
    held = {"weights": weights_of(net, library), "prepared": np.zeros(library.face.prepared.nbytes, np.uint8)}
    assert library.call("prepare", held, {})[0] == 0
    _, outputs = library.call("predict", held, {"B": 4}, x=X)
    np.testing.assert_array_equal(outputs["y"], net.predict(X))


NAMES = """
model Net(x: f32[B, 3], size_t: f32[B, 3]) -> (int: f32[B, 10]) { int = (x + size_t) |> Dense(10) }
train Net(x, size_t, size: i32[B], Label: i32[B], label: i32[B]) {
    loss = mean(cross_entropy(int, size)) + mean(cross_entropy(int, Label)) + mean(cross_entropy(int, label))
    optimizer = SGD(lr = 0.1)
    batch = 4
}
export order(w: f32[N], b: f32) -> f32[N] = b * w
export check(s: f32[S], p: f32[P]) -> f32 = sum(s) + sum(p)
export metrics(out: f32[N], scratch: f32[N]) -> (bytes: f32[N], seed: f32) {
    bytes = out + scratch
    seed = sum(out)
}
export g(x: f32[N]) -> f32[N] = x
export G(x: f32[2 * N]) -> f32[N] = x[:N]
export hold(x: f32[N]) -> f32[N] = x
"""


@pytest.mark.parametrize(
    "compiler", [["cc", *STRICT], ["c++", "-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Werror"]]
)
def test_names_that_are_taken(compiler: list[str], tmp_path: Path) -> None:
    """By C, by the interface, by parameters, by each other but for capitals."""
    net = nnc.compile(NAMES, threads=1)
    made = ship(net, host(), tmp_path, exports=net.exports)
    source = tmp_path / ("main.c" if compiler[0] == "cc" else "main.cpp")
    source.write_text('#include "net.h"\nint main(void) { return net_check(NET_HEADER); }\n')
    program = tmp_path / "main"
    subprocess.run([*compiler, f"-I{tmp_path}", source, tmp_path / "libnet.a", "-o", program], check=True)
    assert subprocess.run([program]).returncode == 0
    if compiler[0] == "cc":
        subprocess.run(
            [*compiler, f"-I{tmp_path}", tmp_path / "example.c", tmp_path / "libnet.a", "-o", program], check=True
        )
        names = [c.name for c in made.interface.calls]
        assert {"order_", "check_", "metrics_", "g", "G_", "hold"} <= set(names)


def test_integers_are_divided_on_armv7(tmp_path: Path) -> None:
    source = "export d(x: i32[N], y: i32[N]) -> (q: i32[N], r: i32[N]) { q = x // y\n r = x % y }\n"
    made = ship(nnc.compile(source), "armv7-a", tmp_path, False, exports=("d",))
    assert "__aeabi_idivmod" in made.facts["undefined"]


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "cortex-m7", "armv7-a", "riscv32imafc"])
def test_products_of_f64_on_processors_of_32_bits(target: str, tmp_path: Path) -> None:
    net = nnc.compile(MODELS / "digits_mlp.nn", hyper={"width": 32}, dtype="f64")
    assert ship(net, target, tmp_path).facts["flash"] < 200 << 10


def test_loops_of_an_entry_ask_nobody_on_a_small_processor(tmp_path: Path) -> None:
    """A Cortex-M0+ has no atomic loads, and there is nobody who would interrupt."""
    source = """
export f(x: f32[T, 4]) -> f32[4] {
    h = broadcast(0.0, [4])
    scan t in 0..T { h = tanh(h + x[t]) }
    return h
}
"""
    made = ship(nnc.compile(source), "cortex-m0plus", tmp_path, False, exports=("f",))
    assert not any("atomic" in name for name in made.facts["undefined"])


def test_an_imported_state_says_how_many_epochs_were_done(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODELS / "data", "data")
    Path("net.nn").write_text((MODELS / "xor.nn").read_text())
    whole, first, second = (nnc.compile("net.nn", threads=1) for _ in range(3))
    whole.fit(epochs=5)
    first.fit(epochs=3)
    first.save("first.nnw")
    assert main(["state", "export", "net.nn", "--weights", "first.nnw", "-o", "state.bin"]) == 0
    assert main(["state", "import", "net.nn", "state.bin", "-o", "second.nnw"]) == 0
    second.load("second.nnw")
    assert second.epochs_done == first.epochs_done == 3


# --- the wheel --------------------------------------------------------------------------------------------------------

LEVEL = """
import pathlib
facts = pathlib.Path("net/facts.py")
facts.write_text(facts.read_text() + "LIBRARIES = {'{level}.so': LIBRARIES['{level}.so']}\\n")
import json, numpy as np, net
x = np.load("x.npy")
one = net.Network()
history = one.fit(x, np.load("y.npy"), epochs=1)
print(json.dumps([net._name, one.predict(x).tobytes().hex()]))
"""


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_of_a_wheel_has_its_own_memory(level: str, tmp_path: Path) -> None:
    """What is prepared, and scratch memory, differ by level."""
    try:
        nnc.compile("export f(x: f32[N]) -> f32[N] = x", target_cpu=level)
    except nnc.UnsupportedError as e:
        pytest.skip(str(e))
    net = nnc.compile(MODELS / "digits_mlp.nn", threads=1)
    installed(wheel(net, "net", entries(net.manifest, True))[1], tmp_path)
    rng = np.random.default_rng(0)
    x, y = rng.random((71, 64), np.float32), rng.integers(0, 10, 71).astype(np.int32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    import json

    name, logits = json.loads(run(LEVEL.replace("{level}", level), tmp_path))
    net.fit(x, y, epochs=1)
    assert name == f"{level}.so" and logits == net.predict(x).tobytes().hex()


WHOLE = """
model Net(x: f32[B, 3]) -> (y: f32[B, 2]) { y = (x |> Dense(2)) + 0.1 * normal(shape = [B, 2]) }
train Net(x, target: i32[B]) {
    loss = mean(cross_entropy(y, target))
    optimizer = Adam(lr = 0.05)
    epochs = 2
    seed = 9
    shuffle = false
}
export mask(x: f32[N], z: i64[N], on: bool[N]) -> (odd: bool[N], n: i64[N]) {
    odd = (z % 2 == 1) and on
    n = z
}
export halves(x: f32[2 * N], z: f32[3 * N]) -> f32[N] = x[:N] + z[:N]
"""

USE = """
import json, threading
import numpy as np
import net
x, y = np.load("x.npy"), np.load("y.npy")
one = net.Network()
history = one.fit(x, y, epochs=2)
state = {path: one._state[path].tobytes().hex() for path in one.params}
odd, n = one.call("mask", x[:, 0], np.arange(len(x)), np.ones(len(x), bool))
wrong = []
for call in (lambda: one.call("mask", x[:, 0], np.full(len(x), 2.5), odd), lambda: one.predict(x, xx=3),
             lambda: one.train_step(x, np.full(len(x), 2**33)), lambda: one.predict(np.full((1, 3), 1e300)),
             lambda: one.call("mask", x[:, 0], n, np.full(len(x), 255, np.uint8)), lambda: one.fit(x, y[:-1])):
    try:
        wrong.append(repr(call()))
    except (TypeError, ValueError) as e:
        wrong.append(f"refused: {e}")
said = [history[-1]["loss"], one.predict(x).tobytes().hex(), odd.dtype.name, odd.tolist(), one.evaluate(x, y)["loss"],
        one.call("halves", np.arange(4.0), np.arange(6.0)).tolist()]
fresh = net.Network(3)
wanted = None
results = []
def often():
    for _ in range(50):
        results.append(fresh.predict(x).tobytes())
threads = [threading.Thread(target=often) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps([said, state, wrong, len(set(results))]))
"""


def test_a_wheel_s_fit_is_that_of_the_train_block(tmp_path: Path) -> None:
    """Whole batches, no shuffling, a seed of its own, draws in predictions; values that a dtype does not have."""
    import json

    net = nnc.compile(WHOLE, threads=1)
    installed(wheel(net, "net", [*entries(net.manifest, True), *net.exports])[1], tmp_path)
    x = np.arange(300, dtype=np.float32).reshape(100, 3) / 100
    y = (np.arange(100) % 2).astype(np.int32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    said, state, wrong, different = json.loads(run(USE, tmp_path))
    history = net.fit(x, y)
    assert said[0] == history[-1]["loss"] and state == {p: net.variables[p].tobytes().hex() for p in state}
    assert (
        said[1] == net.predict(x).tobytes().hex()
        and said[2] == "bool"
        and said[3] == (np.arange(100) % 2 == 1).tolist()
    )
    assert said[4] == net.evaluate(x, y)["loss"] and said[5] == [0.0, 2.0]
    assert all(w.startswith("refused") for w in wrong), wrong
    assert different == 1


def test_built_in_weights_are_those_of_a_network_without_a_seed(tmp_path: Path, monkeypatch) -> None:
    import json

    monkeypatch.chdir(tmp_path)
    net = nnc.compile(MODELS / "xor.nn", seed=77)
    net.save("w.nnw")
    script = """
import json, numpy as np, net
x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
print(json.dumps([net.predict(x).tolist(), net.Network().predict(x).tolist()]))
"""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    for trains in (False, True):
        folder = tmp_path / str(trains)
        folder.mkdir()
        installed(wheel(net, "net", entries(net.manifest, trains), "w.nnw")[1], folder)
        assert json.loads(run(script, folder)) == [net.predict(x).tolist()] * 2

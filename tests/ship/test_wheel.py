"""A wheel: NumPy and a library of ours, linked here; the bits of Python's training, the errors of a good module."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.native import objects as native
from nnc.compiler.native import shared
from nnc.dsl.errors import InternalError
from nnc.runtime.cli import main
from nnc.runtime.ship.wheel import wheel

from .conftest import MODELS, compile_c, ship
from .test_bits import EPOCHS, learned  # noqa: F401  (a fixture)

TRAIN = """
import json, sys
import numpy as np
import net

assert not any(m.startswith(("llvmlite", "nnc")) for m in sys.modules)
images, labels = np.load("images.npy"), np.load("labels.npy")
one = net.Network(seed=42)
history = one.fit(images, labels, epochs=60, batch=64, callback=lambda row: row["epoch"] == {epochs})
one.save("state.bin")
other = net.Network(seed=1)
other.load("state.bin")
np.save("logits.npy", other.predict(images))
said = [history[-1]["loss"], history[-1]["accuracy"]]
wrong = []
for call in (lambda: one.predict(images[:, 1:]), lambda: one.predict(), lambda: one.train_step(images, labels + 11),
             lambda: one.train_step(images, labels[1:]), lambda: one.predict(images.astype(complex)),
             lambda: one.load(__file__), lambda: net.predict(images)):
    try:
        call()
    except (TypeError, ValueError) as e:
        wrong.append(str(e))
before = one.predict(images[:2])
one.params["Mlp.dense_1.b"] += 1
one.prepare()
assert not np.array_equal(before, one.predict(images[:2]))
print(json.dumps([said, one.evaluate(images, labels)["loss"] != 0, wrong]))
"""


def installed(data: bytes, folder: Path) -> None:
    """As pip would: unpacked."""
    (folder / "net.whl").write_bytes(data)
    zipfile.ZipFile(folder / "net.whl").extractall(folder)


def run(script: str, folder: Path) -> str:
    (folder / "main.py").write_text(script)
    ran = subprocess.run([sys.executable, "main.py"], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_training_by_the_wheel_has_the_bits_of_python(learned, tmp_path: Path) -> None:  # noqa: F811
    net, images, labels, printed = learned
    name, data, _ = wheel(net, "net", ["init", "predict", "train", "evaluate"])
    assert name == "net-1.0-py3-none-manylinux2014_x86_64.whl" and len(data) < 200_000
    assert data == wheel(net, "net", ["init", "predict", "train", "evaluate"])[1]
    installed(data, tmp_path)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    said, _, wrong = json.loads(run(TRAIN.replace("{epochs}", str(EPOCHS)), tmp_path))
    assert [np.float32(v).item().hex() for v in said] == printed[:2]
    assert [any(part in w for part in ("axis 1 of x is 63", "predict wants x", "outside an axis of size 10",
            "axis 0 of label", "x is complex128", "is no state of this network", "built without weights"))
            for w in wrong] == [True] * 7, wrong  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), net.predict(images))


def test_weights_exports_and_sizes(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.nn").write_text("""
model Net(x: f32[B, 3]) -> (y: f32[B, 2], most: i32[B]) {
    y = x |> Dense(2)
    most = argmax(y)
}
export spread(x: f32[N, M], by: f32, twice: f32[2 * N]) -> f32[N, 2 * M] = concat([by * x, x * sum(twice)], axis = 1)
""")
    net = nnc.compile("net.nn", seed=5)
    net.save("net.nnw")
    assert main(["build", "net.nn", "--as", "python", "--weights", "net.nnw", "--entry", "spread", "-o", "out"]) == 0
    (file,) = Path("out").iterdir()
    assert "pip install" in capfd.readouterr().out
    installed(file.read_bytes(), tmp_path)
    script = """
import json
import numpy as np
import net
x = np.arange(6, dtype=np.float32).reshape(2, 3)
y, most = net.predict(x)
spread = net.Network().call("spread", x, by=0.5, twice=np.ones(4))
try:
    net.Network().call("spread", x, by=0.5, twice=np.ones(5))
except ValueError as e:
    wrong = str(e)
print(json.dumps([y.tolist(), most.tolist(), spread.tolist(), wrong]))
"""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    y, most, spread, wrong = json.loads(run(script, tmp_path))
    assert y == net.predict(x).y.tolist() and most == net.predict(x).most.tolist()
    assert spread == net.spread(x, np.float32(0.5), np.ones(4, np.float32)).tolist()
    assert wrong == "spread: axis 0 of twice is 5, wanted 4"


def test_a_library_is_what_the_tools_of_the_system_read(tmp_path: Path) -> None:
    net = nnc.compile(MODELS / "xor.nn", threads=1)
    data = ship(net, "x86-64-v2", tmp_path).files["net.o"]
    path = tmp_path / "libnet.so"
    path.write_bytes(shared.link(data, "libnet.so"))
    symbols, loaded = (
        subprocess.run(["readelf", "-W", *how, path], capture_output=True, text=True, check=True)
        for how in (("-s", "-D"), ("-l", "-d"))
    )
    assert "net_train" in symbols.stdout and "libnet.so" in loaded.stdout and not loaded.stderr
    assert "RWE" not in loaded.stdout  # nothing is both written and run
    main_c = tmp_path / "main.c"
    main_c.write_text('#include "net.h"\nint main(void) { return net_check(NET_HEADER); }\n')
    program = tmp_path / "main"
    command = ["cc", f"-I{tmp_path}", main_c, path, f"-Wl,-rpath,{tmp_path}", "-o", program]
    subprocess.run(command, check=True)
    assert subprocess.run([program]).returncode == 0


def test_what_cannot_be_linked_is_refused() -> None:
    with pytest.raises(InternalError, match="not for x86-64 or aarch64"):
        shared.link(b"\x7fELF" + bytes(100), "lib.so")
    text = 'target triple = "x86_64-unknown-none-elf"\n@x = external global i32\ndefine i32 @f() {\n' \
           "  %v = load i32, ptr @x\n  ret i32 %v\n}\n"  # fmt: skip
    from dataclasses import replace

    target = replace(native.target_alone("x86-64-v2"), calls=frozenset({"x"}))
    with pytest.raises(InternalError, match="cannot be linked"):
        shared.link(native.compile_object(text, target), "lib.so")


DLOPEN = """
#include "net.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
static net_state state;
static net_prepared prepared;
static net_metrics metrics;
static unsigned char scratch[1 << 22];
static float x[20]INNER, logits[20][10];
static int32_t label[20];
static int code;
#define FIND(name) __typeof__(&name) p_##name; *(void **)&p_##name = dlsym(library, #name); if (!p_##name) return 2
int main(void) {
    void *library = dlopen("./libnet.so", RTLD_NOW);
    if (!library) return puts(dlerror()), 1;
    FIND(net_check); FIND(net_init); FIND(net_train); FIND(net_prepare); FIND(net_predict);
    uint32_t r = 1;
    for (float *to = (float *)x; to < (float *)x + sizeof x / 4; to++, r = r * 1664525u + 1013904223u)
        *to = (float)(r >> 8) / 16777216.0f;
    for (int k = 0; k < 20; k++) label[k] = k % 10;
    code |= p_net_check(NET_HEADER) | p_net_init(&state, 7, 100, scratch, sizeof scratch);
    for (int k = 0; k < 3; k++) code |= p_net_train(&state, 20, (void *)x, label, &metrics, scratch, sizeof scratch);
    code |= p_net_prepare(&state.weights, &prepared, scratch, sizeof scratch);
    code |= p_net_predict(&prepared, 20, (void *)x, logits, scratch, sizeof scratch);
    for (int k = 0; k < 200; k++) printf("%a\\n", (double)logits[k / 10][k % 10]);
    return code;
}
"""


@pytest.mark.parametrize("name", ["digits_mlp", "lenet5"])
def test_a_library_for_aarch64_is_linked_here(name: str, tmp_path: Path) -> None:
    """And loaded there: steps and predictions of Python. A wheel holds the same library."""
    net = nnc.compile(MODELS / f"{name}.nn", threads=1, seed=7)
    made = ship(net, "aarch64", tmp_path)
    (tmp_path / "libnet.so").write_bytes(made.shared()["libnet.so"])
    (tmp_path / "main.c").write_text(DLOPEN)
    shape = {"digits_mlp": (64,), "lenet5": (1, 28, 28)}[name]
    inner = "".join(f"[{n}]" for n in shape)
    command = compile_c("aarch64", tmp_path / "main.c", tmp_path, tmp_path / "main", "-std=gnu99", f"-DINNER={inner}")
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out
    r, drawn = 1, []
    for _ in range(20 * int(np.prod(shape))):
        drawn.append(r >> 8)
        r = (r * 1664525 + 1013904223) & 0xFFFFFFFF
    x = (np.array(drawn, np.float32) / np.float32(2**24)).reshape(20, *shape)
    net.set_training(steps=100)
    for _ in range(3):
        net.train_step(x, np.arange(20, dtype=np.int32) % 10)
    assert [float.fromhex(v) for v in out.stdout.split()] == net.predict(x).ravel().tolist()


def test_a_wheel_for_aarch64(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["build", str(MODELS / "xor.nn"), "--as", "python", "--target", "aarch64", "--name", "net"]) == 0
    (path,) = tmp_path.glob("*.whl")
    assert path.name == "net-1.0-py3-none-manylinux2014_aarch64.whl"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert "net/aarch64.so" in names and not [n for n in names if "x86" in n]
        assert archive.read("net/aarch64.so")[18] == 183
        assert b"Tag: py3-none-manylinux2014_aarch64" in archive.read("net-1.0.dist-info/WHEEL")
    assert main(["build", str(MODELS / "xor.nn"), "--as", "python", "--target", "riscv64"]) == 2
    assert "but --target aarch64" in capfd.readouterr().err

"""Weights in fewer bytes leave, too: every target predicts what Python does with them, and is told what they cost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.runtime.cli import main
from nnc.runtime.ship.web import web

from .conftest import MODELS, STRICT, compile_c, loaded, ship

DIGITS = MODELS / "digits_mlp.nn"
FORMATS = ("f16", "bf16", "i8")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A training of the digits."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    assert main(["train", str(DIGITS), "--set", "width=32", "--epochs", "15", "--out", str(folder), "--quiet"]) == 0
    return folder


def of(run: Path, dtype: str) -> nnc.Model:
    net = nnc.compile(DIGITS, hyper={"width": 32}, threads=1, weights_dtype=dtype)
    net.load(run)
    return net


def held_out(net: nnc.Model) -> tuple[np.ndarray, np.ndarray]:
    data = net.load_dataset().for_evaluation(net.train_spec.inputs, net.entry("evaluate").wants)
    return np.asarray(data[0]), np.asarray(data[1])


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_library_prepares_and_predicts_what_python_does(dtype: str, run: Path, tmp_path: Path) -> None:
    """Also on a processor without the instructions, and what it prepares is the constant of a build with weights."""
    net = of(run, dtype)
    x, _ = held_out(net)
    made = ship(net, "x86-64-v2", tmp_path, trains=False)
    library = loaded(made, tmp_path)
    weights = np.zeros(made.interface.weights.nbytes, np.uint8)
    ready = np.zeros(made.interface.prepared.nbytes, np.uint8)
    for path, at, f in made.interface.weights.places():
        weights[at : at + f.nbytes] = net.variables[path].reshape(-1).view(np.uint8)
    assert library.call("prepare", {"weights": weights, "prepared": ready}, {})[0] == 0
    code, found = library.call("predict", {"prepared": ready}, {"B": len(x)}, x=x)
    assert code == 0
    np.testing.assert_array_equal(found["logits"].view(np.int32), net.predict(x).view(np.int32))
    assert ready.tobytes() in ship(net, "x86-64-v2", tmp_path / "constant", False, trained=str(run)).files["net.o"]


PROGRAM = """
#include "net.h"
#include <stdio.h>
static unsigned char scratch[1 + NET_PREDICT_SCRATCH(8)];
int main(void) {
    static float x[8][64], logits[8][10];
    uint32_t r = 1;
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < 64; i++, r = r * 1664525u + 1013904223u) x[k][i] = (float)(r >> 8) / 16777216.0f;
    if (net_check(NET_HEADER)) return 1;
    if (net_predict(&net_trained, 8, (const float (*)[64])x, logits, scratch, sizeof scratch)) return 1;
    for (int k = 0; k < 80; k++) printf("%a\\n", (double)logits[k / 10][k % 10]);
    return 0;
}
"""


def drawn() -> np.ndarray:
    r, found = 1, []
    for _ in range(512):
        found.append(r >> 8)
        r = (r * 1664525 + 1013904223) & 0xFFFFFFFF
    return (np.array(found, np.float32) / np.float32(2**24)).reshape(8, 64)


@pytest.mark.parametrize("target", ["x86-64-v3", "aarch64", "riscv64"])
def test_other_processors_read_the_same_weights(target: str, run: Path, tmp_path: Path) -> None:
    Path("main.c").write_text(PROGRAM)
    for dtype in FORMATS:
        net, folder = of(run, dtype), tmp_path / dtype
        ship(net, target, folder, False, trained=str(run))
        command = compile_c(target, Path("main.c"), folder, folder / "main")
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert [float.fromhex(v) for v in out] == net.predict(drawn()).ravel().tolist(), dtype


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("dtype", FORMATS)
def test_webassembly_reads_the_same_weights(dtype: str, run: Path, tmp_path: Path) -> None:
    net = of(run, dtype)
    files, _ = web(net, "net", ["predict"], str(run))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    drawn().tofile("x.bin")
    Path("main.mjs").write_text(
        """
import { readFileSync, writeFileSync } from "node:fs";
import { load } from "./index.mjs";
const net = await load();
const { buffer, byteOffset, length } = readFileSync("x.bin");
const { logits } = net.predict(net.trained, { x: new Float32Array(buffer.slice(byteOffset, byteOffset + length)) });
writeFileSync("logits.bin", logits);
const stored = net.trained.fields.map((path) => net.trained.get(path).constructor.name);
console.log(stored.includes("INTS"));
""".replace("INTS", "Int8Array" if dtype == "i8" else "Int16Array")
    )
    for flags in ([], ["--experimental-wasm-relaxed-simd"]):
        said = subprocess.run(["node", *flags, "main.mjs"], capture_output=True, text=True)
        assert said.stdout == "true\n", said.stderr
        np.testing.assert_array_equal(np.fromfile("logits.bin", np.float32), net.predict(drawn()).ravel())


def test_what_the_weights_cost_is_said(run: Path, tmp_path: Path, capfd) -> None:
    """It is what the library itself gets right of what was held out."""
    assert main(["build", str(run), "--weights-dtype", "i8", "--name", "net", "-o", "o", "--json"]) == 0
    (facts,) = json.loads(capfd.readouterr().out)
    assert facts["held_out"].keys() == {"f32", "i8"}
    net = of(run, "i8")
    x, label = held_out(net)
    right = np.mean(net.predict(x).argmax(axis=1) == label)
    assert facts["held_out"]["i8"]["accuracy"] == pytest.approx(right) and right > 0.9
    assert facts["held_out"]["i8"]["loss"] != facts["held_out"]["f32"]["loss"]
    assert main(["build", str(run), "--weights-dtype", "i8", "--name", "net", "-o", "o"]) == 0
    assert re.search(r"with weights in f32: loss .*\n.*with weights in i8: loss", capfd.readouterr().out)
    assert main(["build", str(DIGITS), "--weights-dtype", "i8", "--name", "net", "-o", "o"]) == 0
    assert "held out" not in capfd.readouterr().out, "nothing was learned"


def test_a_header_of_other_weights_does_not_fit(run: Path, tmp_path: Path) -> None:
    """A state is the same, but what predictions read is not; nor is it on a processor with wider vectors."""
    made = [
        ship(of(run, d), t, tmp_path / f"{d}{t}")
        for d, t in (("f32", "x86-64-v2"), ("i8", "x86-64-v2"), ("f32", "x86-64-v3"))
    ]
    assert len({m.interface.layout for m in made}) == 1 and len({m.interface.header for m in made}) == 3
    Path("main.c").write_text('#include "net.h"\nint main(void) { return net_check(NET_HEADER) != NET_E_LAYOUT; }\n')
    subprocess.run(["cc", *STRICT, "-If32x86-64-v2", "main.c", "i8x86-64-v2/libnet.a", "-o", "main"], check=True)
    assert subprocess.run(["./main"]).returncode == 0


@pytest.mark.parametrize("dtype", ["f32", "i8"])
def test_weights_as_text(dtype: str, run: Path, tmp_path: Path, capfd) -> None:
    """The same bytes as in the object, compiled by C; as C++, too; the lock makes them again."""
    arguments = ["build", str(run), "--weights-dtype", dtype, "--name", "net"]
    assert main([*arguments, "-o", "o"]) == 0 and main([*arguments, "-o", "text", "--weights-as", "c"]) == 0
    assert "text/net_weights.c" in capfd.readouterr().out
    Path("main.c").write_text(PROGRAM)
    said = []
    for sources in (["-Io", "main.c", "o/libnet.a"], ["-Itext", "main.c", "text/net_weights.c", "text/libnet.a"]):
        subprocess.run(["cc", *STRICT, *sources, "-o", "main"], check=True)
        said.append(subprocess.run(["./main"], capture_output=True, check=True).stdout)
    assert said[0] == said[1]
    subprocess.run(["cc", *STRICT, "-c", "text/net_weights.c", "-o", "weights.o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", "--only-section=.rodata", "weights.o", "weights.bin"], check=True)
    assert Path("weights.bin").read_bytes() in Path("o/net.o").read_bytes()
    assert len(Path("text/net.o").read_bytes()) < len(Path("o/net.o").read_bytes()) - 2000
    if shutil.which("g++"):
        flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["g++", *flags, "-x", "c++", "-c", "text/net_weights.c", "-o", "weights.o"], check=True)
    assert main(["reproduce", "text/net.lock", str(DIGITS), "--weights", str(run)]) == 0
    assert "byte for byte" in capfd.readouterr().out
    for more in (["--as", "python"], ["--as", "wasm"]):
        assert main([*arguments, "--weights-as", "c", *more, "-o", "no"]) == 2
    assert main(["build", str(DIGITS), "--weights-as", "c", "-o", "no"]) == 2 and not Path("no").exists()


def test_numbers_of_all_kinds_as_text(tmp_path: Path) -> None:
    """Not finite, subnormal, zeros of both signs, the ends of the integers."""
    from nnc.compiler.standalone.structs import Struct
    from nnc.runtime.ship.weights import weights

    struct, values = Struct("prepared"), {
        "f32": [0.0, -0.0, 1e-45, -3.4028235e38, np.inf, -np.inf, np.nan, 0.1], "f64": [5e-324, -0.1, np.inf],
        "i8": [-128, 127], "i16": [-(2**15), 5], "i32": [-(2**31), 7], "i64": [-(2**63), 2**63 - 1], "bool": [1, 0],
    }  # fmt: skip
    for dtype, some in values.items():
        struct.add(f"x{dtype}", dtype, (len(some),), dtype)
    from nnc.runtime.call.arrays import NUMPY

    data = bytearray(struct.nbytes)
    for path, at, f in struct.places():
        data[at : at + f.nbytes] = np.array(values[path], NUMPY[f.dtype]).tobytes()
    members = "".join(f"{t} x{d}[{len(values[d])}];" for d, t in (
        ("f32", "float"), ("f64", "double"), ("i8", "int8_t"), ("i16", "int16_t"), ("i32", "int32_t"),
        ("i64", "int64_t"), ("bool", "uint8_t")))  # fmt: skip
    Path("net.h").write_text(f"#include <stdint.h>\ntypedef struct {{ {members} }} net_prepared;\n"
                             "extern const net_prepared net_trained;\n")  # fmt: skip
    Path("net.c").write_text(weights(struct, "net", bytes(data)))
    subprocess.run(["cc", *STRICT, "-I.", "-c", "net.c", "-o", "net.o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", "--only-section=.rodata", "net.o", "net.bin"], check=True)
    assert Path("net.bin").read_bytes()[: len(data)] == bytes(data)

"""`nnc build` and `nnc state`: the files, and what is refused."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.runtime.cli import main

from .conftest import MODELS, STRICT, loaded, ship

XOR = str(MODELS / "xor.nn")
README = (MODELS.parent / "README.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_two_builds_are_the_same_bytes(capfd) -> None:
    for folder in ("a", "b"):
        assert main(["build", XOR, "--train", "-o", folder]) == 0
    names = sorted(p.name for p in Path("a").iterdir())
    assert names == ["example.c", "libxor.a", "xor-config.cmake", "xor.h", "xor.lock", "xor.o", "xor.pc"]
    for name in names:
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes(), name
    lock = json.loads(Path("a", "xor.lock").read_text())
    assert lock["target"] == "x86-64-v3" and set(lock["sources"]) == {"xor.nn"}
    assert str(MODELS) not in Path("a", "xor.lock").read_text() and str(MODELS) not in Path("a", "xor.h").read_text()
    assert "nothing" in capfd.readouterr().out


def test_a_lock_makes_the_same_bytes_again_or_says_what_differs(capfd) -> None:
    Path("net.nn").write_text(Path(XOR).read_text())
    nnc.compile("net.nn", seed=4).save("w.nnw")
    nnc.compile("net.nn", seed=5).save("other.nnw")
    assert main(["build", "net.nn", "--weights", "w.nnw", "--target", "aarch64", "-o", "o"]) == 0
    assert main(["reproduce", "o/net.lock"]) == 0
    assert "byte for byte" in capfd.readouterr().out
    Path("elsewhere.nn").write_text(Path("net.nn").read_text())
    assert main(["reproduce", "o/net.lock", "elsewhere.nn"]) == 0
    assert main(["reproduce", "o/net.lock", "net.nn", "--weights", "other.nnw"]) == 4
    err = capfd.readouterr().err
    assert "w.nnw" in err and "net.o" in err and "net.h" not in err
    Path("net.nn").write_text(Path(XOR).read_text() + "# more\n")
    assert main(["reproduce", "o/net.lock"]) == 4
    Path("net.nn").unlink()
    assert main(["reproduce", "o/net.lock"]) == 4
    assert "found none" in capfd.readouterr().err
    Path("bad.lock").write_text("[1]")
    assert main(["reproduce", "bad.lock"]) == 4 and main(["reproduce", "nowhere.lock"]) == 4


def test_targets_are_listed(capfd) -> None:
    assert main(["build", "--targets"]) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in ("x86-64-v2", "aarch64", "riscv64"))


def test_native_is_the_best_that_this_machine_has(capfd) -> None:
    assert main(["build", XOR, "--target", "native", "-o", "o", "--json"]) == 0
    (facts,) = json.loads(capfd.readouterr().out)
    compiled = subprocess.run(["cc", "-Io", "o/example.c", "o/libxor.a", "-o", "example"])
    assert compiled.returncode == 0 and subprocess.run(["./example"]).returncode == 0
    assert facts["target"] in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64")


def test_several_targets_have_folders_of_their_own(capfd) -> None:
    assert main(["build", XOR, "--target", "aarch64", "--target", "riscv64", "-o", "o", "--name", "net", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert [f["target"] for f in facts] == ["aarch64", "riscv64"]
    assert all(f["undefined"] == [] and f["flash"] > 1000 and f["scratch"]["train"] is None for f in facts)
    assert Path("o/aarch64/net.h").exists() and Path("o/riscv64/libnet.a").exists()


def test_a_shared_object_is_what_dlopen_takes(capfd) -> None:
    """As from any language: addresses and numbers."""
    assert main(["build", XOR, "--train", "--shared", "--target", "x86-64-v2", "-o", "o", "--name", "net"]) == 0
    library = ctypes.CDLL("./o/libnet.so")
    library.net_message.restype = ctypes.c_char_p
    header = Path("o/net.h").read_text()
    fits = int(header.partition("NET_HEADER UINT64_C(")[2].partition(")")[0], 16)
    assert library.net_check(ctypes.c_uint64(fits)) == 0 and library.net_message(0) == b"no error"
    nbytes = int(header.partition("sizeof(net_state) == ")[2].partition(" ")[0])
    state = (ctypes.c_uint8 * nbytes)()
    assert library.net_init(state, ctypes.c_int64(3), ctypes.c_int64(10), None, ctypes.c_size_t(0)) == 0
    net = nnc.compile(XOR, seed=3)
    assert net.params["Xor.dense_1.W"].tobytes() in bytes(state)
    assert main(["build", XOR, "--shared", "--target", "riscv64", "-o", "no"]) == 1
    assert "whole-archive" in capfd.readouterr().err and not Path("no").exists()


def test_trained_weights_are_a_constant(capfd) -> None:
    """Of a run: the program links, and predicts what Python does; nothing is to be prepared."""
    assert main(["train", XOR, "--out", "run", "--epochs", "30"]) == 0
    assert main(["build", "run", "--name", "net", "-o", "o"]) == 0
    Path("main.c").write_text("""
#include "net.h"
#include <stdio.h>
static unsigned char scratch[1 + NET_PREDICT_SCRATCH(4)];
int main(void) {
    static const float x[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
    static float logit[4];
    if (net_check(NET_HEADER) || net_predict(&net_trained, 4, x, logit, scratch, sizeof scratch)) return 1;
    for (int k = 0; k < 4; k++) printf("%a\\n", (double)logit[k]);
    return 0;
}
""")
    subprocess.run(["cc", *STRICT, "-Io", "main.c", "o/libnet.a", "-o", "main"], check=True)
    out = subprocess.run(["./main"], capture_output=True, text=True, check=True).stdout.split()
    net = nnc.compile(XOR)
    net.load("run")
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    assert [float.fromhex(v) for v in out] == net.predict(x).ravel().tolist()


def test_a_large_network_s_weights_are_prepared_by_the_target_s_own_code(tmp_path: Path) -> None:
    """LeNet-5: panels of dense weights, and what the constant has is what `prepare` makes."""
    net = nnc.compile(MODELS / "lenet5.nn", threads=1, seed=3)
    net.save("w.nnw")
    made = ship(net, "x86-64-v2", tmp_path / "plain")
    library = loaded(made, tmp_path / "plain")
    weights, ready = (
        np.zeros(made.interface.weights.nbytes, np.uint8),
        np.zeros(made.interface.prepared.nbytes, np.uint8),
    )
    for path, at, f in made.interface.weights.places():
        weights[at : at + f.nbytes] = net.variables[path].reshape(-1).view(np.uint8)
    assert library.call("prepare", {"weights": weights, "prepared": ready}, {})[0] == 0
    constant = ship(net, "x86-64-v2", tmp_path / "constant", trains=False, trained="w.nnw").files["net.o"]
    assert ready.tobytes() in constant


def test_a_state_goes_to_c_and_back(tmp_path: Path, capfd) -> None:
    """Python trains, C goes on, Python goes on: as Python alone."""
    source = "".join(
        line if "data" not in line and "stop" not in line else "" for line in Path(XOR).read_text().splitlines(True)
    )
    Path("net.nn").write_text(source)
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    y = np.array([0, 1, 1, 0], np.float32)
    alone, net = (nnc.compile("net.nn", threads=1) for _ in range(2))
    given = dict(zip([p.name for p in net.entry("train").signature.inputs], (x, y), strict=True))
    for k in range(9):
        alone.train_step(*given.values())
        if k < 3:
            net.train_step(*given.values())
    net.save("net.nnw")
    assert main(["state", "export", "net.nn", "--weights", "net.nnw", "-o", "state.bin"]) == 0
    made = ship(net, "x86-64-v2", tmp_path / "o")
    library = loaded(made, tmp_path / "o")
    state = np.fromfile("state.bin", np.uint8).copy()
    for _ in range(3):
        assert library.call("train", {"state": state}, {"B": 4}, **given)[0] == 0
    state.tofile("state.bin")
    assert main(["state", "import", "net.nn", "state.bin", "-o", "back.nnw"]) == 0
    net.load("back.nnw")
    for _ in range(3):
        net.train_step(*given.values())
    for path, array in alone.variables.items():
        np.testing.assert_array_equal(net.variables[path], array, err_msg=path)
    Path("short.bin").write_bytes(state.tobytes()[:-1])
    assert main(["state", "import", "net.nn", "short.bin", "-o", "no.nnw"]) == 4
    state[3] ^= 1
    state.tofile("state.bin")
    assert main(["state", "import", "net.nn", "state.bin", "-o", "no.nnw"]) == 4
    assert (
        "expected the" in (err := capfd.readouterr().err) and "another network" in err and not Path("no.nnw").exists()
    )


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["--target", "z80"], 1, "is not a target that nnc builds for"),
        (["--entry", "nothing"], 1, "nothing"),
        (["--name", "Big Name"], 2, "lower case"),
        (["--weights", "nowhere.nnw"], 4, "nowhere.nnw"),
    ],
)
def test_what_is_refused(arguments: list[str], code: int, said: str, capfd) -> None:
    assert main(["build", XOR, "-o", "o", *arguments]) == code
    assert said in capfd.readouterr().err and not Path("o").exists()


def test_a_program_without_a_model_leaves_by_its_exports(capfd) -> None:
    Path("f.nn").write_text("export twice(x: f32[N]) -> f32[N] = 2 * x\n")
    assert main(["build", "f.nn"]) == 1
    assert "twice" in capfd.readouterr().err
    assert main(["build", "f.nn", "--train"]) == 1
    assert main(["build", "f.nn", "--entry", "twice"]) == 0
    assert "int32_t f_twice(size_t n, const float x[], float result[]," in Path("f/f.h").read_text()
    subprocess.run(["cc", *STRICT, "-If", "f/example.c", "f/libf.a", "-o", "example"], check=True)
    assert subprocess.run(["./example"]).returncode == 0


def test_the_readme_s_five_commands_end_in_programs_that_run() -> None:
    """From nothing to predictions and to a training in C."""
    block = next(b for b in re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE) if "nnc build runs" in b)
    commands = block.strip().splitlines()
    assert len(commands) == 5
    Path("models").symlink_to(MODELS)
    out = [
        subprocess.run(
            c.replace("nnc ", f"{sys.executable} -m nnc ", 1) if c.startswith("nnc ") else c,
            shell=True, capture_output=True, text=True, check=True,
        ).stdout
        for c in commands
    ]  # fmt: skip
    assert out[2].startswith("logits ") and out[4].count("loss ") == 10


ARDUINO = """
#include <stdint.h>
#include <stddef.h>
struct Port { void begin(long); void println(const char *); void println(double); void println(long); };
extern Port Serial;
void delay(int);
"""


@pytest.mark.parametrize("flags", [["--train"], ["--weights", "net.nnw"]])
def test_a_library_for_arduino(flags: list[str], tmp_path: Path, capfd) -> None:
    """Of the shape that its specification asks; the sketch is C++ that the compiler for the board takes."""
    nnc.compile(MODELS / "lenet5.nn").save("net.nnw")
    assert main(["build", str(MODELS / "lenet5.nn"), "--as", "arduino", "--name", "lenet", "-o", "lenet", *flags]) == 0
    assert "open the example lenet" in capfd.readouterr().out
    files = {str(p.relative_to("lenet")) for p in Path("lenet").rglob("*") if p.is_file()}
    assert {"library.properties", "src/lenet.h", "examples/lenet/lenet.ino", "src/cortex-m0plus/liblenet.a"} <= files
    properties = dict(line.split("=", 1) for line in Path("lenet/library.properties").read_text().splitlines())
    assert properties["precompiled"] == "full" and properties["ldflags"] == "-llenet"
    if shutil.which("arm-none-eabi-g++") is None:
        pytest.skip("arm-none-eabi-g++ is not installed")
    Path("sketch.cpp").write_text(ARDUINO + Path("lenet/examples/lenet/lenet.ino").read_text())
    cpu = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]
    strict = ["-std=gnu++17", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-c"]
    subprocess.run(["arm-none-eabi-g++", *cpu, *strict, "-Ilenet/src", "sketch.cpp", "-o", "sketch.o"], check=True)
    library = "lenet/src/cortex-m4/fpv4-sp-d16-hard/liblenet.a"
    linked = ["arm-none-eabi-g++", *cpu, "-nostdlib", "-r", "sketch.o", library, "-o", "all.o"]
    subprocess.run(linked, check=True)
    undefined = subprocess.run(["arm-none-eabi-nm", "-u", "all.o"], capture_output=True, text=True, check=True).stdout
    assert "lenet_" not in undefined

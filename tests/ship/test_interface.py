"""What a caller may do wrong, and what they may rely on."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.native import elf
from nnc.compiler.standalone.archive import archive
from nnc.compiler.standalone.structs import Struct, free

from .conftest import STRICT, Library, host, loaded, ship

SOURCE = """
model Net(x: f32[B, 6]) -> (logits: f32[B, 3]) {
    logits = x |> Dense(8) |> relu |> dropout(p = 0.25) |> Dense(3)
}

train Net(x, label: i32[B]) {
    loss      = mean(cross_entropy(logits, label))
    metric right = sum(argmax(logits) == label)
    optimizer = Adam(lr = 1e-2)
    batch     = 8
}

export halves(x: f32[2 * N]) -> f32[N] = x[:N] + x[N:]
export scaled(x: f32[N, M], by: f32, up: bool[]) -> f32[N, M] = where(up, by * x, x / by)
"""
RNG = np.random.default_rng(0)
X, LABEL = RNG.standard_normal((8, 6)).astype(np.float32), RNG.integers(0, 3, 8).astype(np.int32)


@pytest.fixture(scope="module")
def net() -> nnc.Model:
    return nnc.compile(SOURCE, threads=1)


@pytest.fixture(scope="module")
def library(net, tmp_path_factory) -> Library:
    folder = tmp_path_factory.mktemp("net")
    return loaded(ship(net, host(), folder, exports=("halves", "scaled")), folder)


def begun(library: Library) -> dict[str, np.ndarray]:
    face = library.face
    state = np.full(face.state.nbytes, 0xA5, np.uint8)
    held = {"state": state, "prepared": np.zeros(face.prepared.nbytes, np.uint8)}
    assert library.call("init", held, {}, seed=1, steps=5)[0] == 0
    held["weights"] = state[face.state.offset("weights") :]
    return held


def message(library: Library, code: int) -> str:
    say = library.loaded.net_message
    say.restype = ctypes.c_char_p
    return say(code).decode()


def test_a_label_outside_is_an_error_and_changes_nothing(library: Library) -> None:
    held = begun(library)
    before = held["state"].copy()
    code, _ = library.call("train", held, {"B": 8}, x=X, label=LABEL + 1)
    assert library.face.checks[code - 1][0] == "LABEL"
    assert "`label` is outside an axis of size 3" in message(library, code)
    np.testing.assert_array_equal(held["state"], before)
    assert library.call("train", held, {"B": 8}, x=X, label=LABEL)[0] == 0
    assert not np.array_equal(held["state"], before)


def test_a_state_of_another_network_is_refused(library: Library) -> None:
    held = begun(library)
    held["state"][:8] ^= 1
    assert library.call("train", held, {"B": 8}, x=X, label=LABEL)[0] == -3
    assert library.loaded.net_check(ctypes.c_uint64(library.face.header ^ 1)) == -3
    assert library.loaded.net_check(ctypes.c_uint64(library.face.header)) == 0
    assert "of another network" in message(library, -3) and message(library, 99) == "an unknown code"


def test_too_little_scratch_and_too_large_sizes_are_refused(library: Library) -> None:
    held = begun(library)
    before = held["state"].copy()
    run, s = library.loaded.net_train, ctypes.c_void_p(held["state"].ctypes.data)
    x, label, out = (ctypes.c_void_p(a.ctypes.data) for a in (X, LABEL, np.zeros(64, np.uint8)))
    scratch = np.zeros(1 << 20, np.uint8)
    where = ctypes.c_void_p(scratch.ctypes.data)
    assert run(s, ctypes.c_size_t(8), x, label, out, where, ctypes.c_size_t(8)) == -2
    assert run(s, ctypes.c_size_t(8), x, label, out, None, ctypes.c_size_t(0)) == -2
    for n in (1 << 31, 1 << 40, (1 << 64) - 1):
        assert run(s, ctypes.c_size_t(n), x, label, out, where, ctypes.c_size_t(scratch.size)) == -1
    np.testing.assert_array_equal(held["state"], before)
    assert run(s, ctypes.c_size_t(8), x, label, out, where, ctypes.c_size_t(scratch.size)) == 0


def test_exports_take_sizes_and_numbers(net, library: Library) -> None:
    x = RNG.standard_normal((4, 5)).astype(np.float32)
    for by, up in ((3.0, False), (0.5, True)):
        code, outputs = library.call("scaled", {}, {"N": 4, "M": 5}, x=x, by=by, up=up)
        assert code == 0
        np.testing.assert_array_equal(outputs["result"], net.scaled(x, np.float32(by), np.bool_(up)))
    code, outputs = library.call("halves", {}, {"N": 10}, x=x)
    np.testing.assert_array_equal(outputs["result"], net.halves(x.ravel()))


def test_no_examples_are_no_work(library: Library) -> None:
    held = begun(library)
    assert library.call("prepare", held, {})[0] == 0
    code, outputs = library.call("predict", held, {"B": 0}, x=X[:0])
    assert code == 0 and outputs["logits"].shape == (0, 3)


def test_callers_may_share_what_is_prepared(library: Library) -> None:
    held = begun(library)
    assert library.call("prepare", held, {})[0] == 0
    wanted = library.call("predict", held, {"B": 8}, x=X)[1]["logits"]
    wrong: list[int] = []

    def often() -> None:
        for _ in range(300):
            code, outputs = library.call("predict", held, {"B": 8}, x=X)
            if code or not np.array_equal(outputs["logits"], wanted):
                wrong.append(code)

    threads = [threading.Thread(target=often) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_the_floating_point_environment_is_ours_inside_and_the_callers_outside(net, tmp_path: Path) -> None:
    """Flushing, and rounding up, set by the program: the same state, and both as they were afterwards."""
    ship(net, host(), tmp_path)
    (tmp_path / "main.c").write_text("""
#include "net.h"
#include <stdio.h>
#include <string.h>
#include <xmmintrin.h>
static net_state states[2];
static unsigned char scratch[NET_TRAIN_SCRATCH(8)];
int main(void) {
    static float x[8][6];
    static int32_t label[8];
    net_metrics m;
    for (int k = 0; k < 48; k++) x[k / 6][k % 6] = 1e-39f * (float)(k + 1);
    for (int k = 0; k < 2; k++) {
        if (k) _mm_setcsr(0x1F80u | 0x8040u | 0x4000u);
        unsigned before = _mm_getcsr();
        if (net_init(&states[k], 1, 5, scratch, sizeof scratch)) return 1;
        for (int i = 0; i < 5; i++)
            if (net_train(&states[k], 8, (const float (*)[6])x, label, &m, scratch, sizeof scratch)) return 2;
        if ((before ^ _mm_getcsr()) & 0xFFC0u) return 3;
    }
    return memcmp(&states[0], &states[1], sizeof states[0]) ? 4 : 0;
}
""")
    program = tmp_path / "main"
    subprocess.run(
        ["cc", "-O1", f"-I{tmp_path}", tmp_path / "main.c", tmp_path / "libnet.a", "-o", program], check=True
    )
    assert subprocess.run([program]).returncode == 0


def test_two_networks_in_one_program(net, tmp_path: Path) -> None:
    from nnc.runtime.ship.build import build

    other = nnc.compile("model Other(x: f32[B, 4]) -> f32[B, 2] { return x |> Dense(2) }", threads=1)
    for model, name, entries in ((net, "one", ["init", "predict", "train"]), (other, "two", ["predict"])):
        for file, data in build(model, host(), name, entries).files.items():
            (tmp_path / f"{name}_{file}" if file == "example.c" else tmp_path / file).write_bytes(data)
    (tmp_path / "main.c").write_text("""
#include "one.h"
#include "two.h"
static one_state s;
static two_weights w;
static two_prepared p;
int main(void) { return one_init(&s, 1, 2, 0, 0) || two_prepare(&w, &p, 0, 0) || !one_message(0) || !two_message(1); }
""")
    libraries = [str(tmp_path / f"lib{n}.a") for n in ("one", "two")]
    program = tmp_path / "main"
    subprocess.run(["cc", *STRICT, f"-I{tmp_path}", tmp_path / "main.c", *libraries, "-o", program], check=True)
    assert subprocess.run([program]).returncode == 0


def test_there_are_no_globals_that_are_written(net) -> None:
    from nnc.runtime.ship.build import build

    made = build(net, "aarch64", "net", ["init", "predict", "train", "evaluate"])
    data = made.files["net.o"]
    assert elf.writable(data) == 0 and elf.symbols(data)[1] == ()
    assert all(name.startswith("net_") for name in elf.symbols(data)[0])


def test_an_archive_is_what_ar_reads(tmp_path: Path) -> None:
    path = tmp_path / "lib.a"
    path.write_bytes(archive({"a.o": (b"odd", ("f", "g")), "b.o": (b"even", ("h",))}))
    listed = subprocess.run(["ar", "t", path], capture_output=True, text=True, check=True).stdout.split()
    assert listed == ["a.o", "b.o"]
    assert subprocess.run(["ar", "p", path, "a.o"], capture_output=True, check=True).stdout == b"odd"
    index = subprocess.run(["nm", "--print-armap", path], capture_output=True, text=True).stdout
    assert "f in a.o" in index and "h in b.o" in index


def test_structs_are_laid_out_as_c_does() -> None:
    s = Struct("s")
    s.add("flag", "bool")
    s.add("x", "f64", (2,))
    s.add("none", "f32", (0,))
    s.add("y", "f32")
    s.add("y", "i32")
    inner = Struct("")
    inner.add("n", "i64")
    s.nest("inner", inner)
    assert [(f.name, f.offset) for f in s.fields] == [("flag", 0), ("x", 8), ("y", 24), ("y_2", 28), ("inner", 32)]
    assert s.nbytes == 40


@pytest.mark.parametrize("name, wanted", [("a.b/c", "a_b_c"), ("int", "int_"), ("3x", "_3x"), ("größe", "gr__e")])
def test_names_are_names_in_c(name: str, wanted: str) -> None:
    assert free(name, ()) == wanted and free(name, {wanted}) == f"{wanted}_2"

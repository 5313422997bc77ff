"""Objects that run without LLVM, and what code is made for as the cache remembers it."""

import os
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nnc.compiler.llvm import emit, support
from nnc.compiler.loops.ir import Buffer, For, Kernel, Load, Store, Var, i64
from nnc.compiler.native import host as module
from nnc.compiler.native import loading, objects, shared
from nnc.compiler.native.cache import Cache
from nnc.compiler.native.host import host
from nnc.compiler.native.mapped import Mapped, Unmapped
from nnc.compiler.native.target import THREADS

COPY = Kernel("copy", ("n",), (Buffer("x", "f32"), Buffer("y", "f32", True)), (
    For("i", i64(0), Var("n"), (Store("y", Var("i"), Load("x", Var("i"), "f32")),)),
))  # fmt: skip
SCRIPT = """
import sys
import numpy as np
import nnc
text = '''model M(x: f32[B, 3]) -> (y: f32[B, 2]) { y = x |> Dense(2) }
train M(x, t: f32[B, 2]) { loss = mean((y - t)^2)
    optimizer = SGD(lr = 0.1)
    epochs = 2 }'''
net = nnc.compile(text, seed=1, threads=2)
net.fit(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))
print(net.predict(np.ones((1, 3), np.float32)).tobytes().hex(), "llvmlite.binding" in sys.modules)
"""


def test_who_finds_all_in_the_cache_loads_no_llvm(tmp_path):
    ran = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "NNC_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert [loaded for _, loaded in ran] == ["True", "False"]
    assert ran[0][0] == ran[1][0]


@pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux's")
def test_an_object_is_mapped(module_of, targets):
    data = objects.compile_object(emit(module_of(COPY), targets["native"]), targets["native"])
    assert Mapped(data, THREADS).address("main") > 0
    assert Mapped(objects.compile_object(support(targets["native"]), targets["native"]), THREADS).address("nnc_epoch")


def test_where_no_file_in_memory_runs_llvm_loads(compiled, monkeypatch):
    def refused(*_):
        raise PermissionError("not here")

    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    copy, x, y = compiled(COPY), np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    assert copy({"n": 5}, [x, y]) == 0
    np.testing.assert_array_equal(x, y)


def test_what_is_not_known_is_left_to_llvm(module_of, targets):
    data = bytearray(objects.compile_object(support(targets["native"]), targets["native"]))
    with pytest.raises(Unmapped):
        Mapped(bytes(data), ("pthread_create",))  # it calls others too
    data[18:20] = (243).to_bytes(2, "little")  # another processor
    with pytest.raises(Unmapped):
        Mapped(bytes(data), THREADS)


@pytest.mark.parametrize("name", ["x86-64-v3", "aarch64"])
def test_calls_that_lead_outside_go_through_a_jump(name):
    target = replace(objects.target_alone(name), calls=THREADS)
    data = objects.compile_object(
        "declare i32 @pthread_join(i64, ptr)\n"
        "define i32 @f() {\n  %x = call i32 @pthread_join(i64 0, ptr null)\n  ret i32 %x\n}",
        target,
    )
    image, places = shared.laid(data, {"pthread_join": 0x1122334455667788, "syscall": 1})
    at = image.index((0x1122334455667788).to_bytes(8, "little")) - 8
    assert at % 16 == 0
    if name == "aarch64":
        words = struct.unpack_from(f"<{len(image) // 4}I", image)
        call = next(k for k in range(places["f"] // 4, len(words)) if words[k] >> 26 == 0b100101)
        assert call * 4 + 4 * (words[call] & 0x3FFFFFF) == at
        assert image[at : at + 8] == bytes.fromhex("5000005800021fd6")  # ldr x16, [pc + 8]; br x16
    else:
        call = image.index(b"\xe8", places["f"])
        assert call + 5 + int.from_bytes(image[call + 1 : call + 5], "little", signed=True) == at
        assert image[at : at + 6] == bytes.fromhex("ff2502000000")  # jmp *[rip + 2]


def test_the_target_is_remembered_for_this_processor_and_this_start(tmp_path, monkeypatch):
    asked = []
    target = objects.target

    def counted(name):
        asked.append(name)
        return target(name)

    def key(*parts):
        return repr(parts)

    monkeypatch.setattr(objects, "target", counted)
    boot, processors = tmp_path / "boot", tmp_path / "processors"
    boot.write_text("a")
    processors.write_text("processor\t: 0\nmodel\t: 1\nflags\t: avx2\n\nprocessor\t: 1\nmodel\t: 2\n")
    monkeypatch.setattr(module, "_BOOT", boot)
    monkeypatch.setattr(module, "_PROCESSORS", processors)
    store = Cache(tmp_path / "cache")
    first = host("native", store, key)
    assert host("native", store, key) == first and first.target == target("native")
    assert first.version == objects.version() and asked == ["native"]
    processors.write_text("processor\t: 3\nmodel\t: 1\nflags\t: avx2\n\n")  # another of the same kind
    assert host("native", store, key) == first and len(asked) == 1
    processors.write_text("processor\t: 0\nmodel\t: 1\nflags\t: avx512f\n\n")
    assert host("native", store, key) == first and len(asked) == 2
    boot.write_text("b")
    assert host("native", store, key) == first and len(asked) == 3
    monkeypatch.setattr(module, "_shown", lambda: ["SSE"])  # under an emulator
    assert host("native", store, key) == first and len(asked) == 4
    boot.unlink()
    assert host("native", store, key) == host("native", store, key) and len(asked) == 6
    assert host("native", None, key) == first and len(asked) == 7


def test_a_function_outlives_its_library(module_of, targets):
    data = objects.compile_object(emit(module_of(COPY), targets["native"]), targets["native"])
    run = loading.Library(data).function("main")
    assert callable(run) and run.loaded.address("main")

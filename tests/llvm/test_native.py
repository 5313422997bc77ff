"""Targets, objects, symbols: what is checked before LLVM or the process could crash."""

import struct
import subprocess
import sys

import numpy as np
import pytest

import nnc
from nnc.compiler.llvm import emit, support
from nnc.compiler.loops.ir import Buffer, For, Kernel, Load, Store, Var, i64
from nnc.compiler.native import elf, loading
from nnc.compiler.native import objects as native
from nnc.compiler.native.target import THREADS, level
from nnc.dsl.errors import InternalError, UnsupportedError

COPY = Kernel("copy", ("n",), (Buffer("x", "f32"), Buffer("y", "f32", True)), (
    For("i", i64(0), Var("n"), (Store("y", Var("i"), Load("x", Var("i"), "f32")),)),
))  # fmt: skip


@pytest.mark.parametrize("name", native.TARGETS)
def test_targets(name):
    try:
        t = native.target(name)
    except UnsupportedError as e:
        pytest.skip(str(e))
    assert t.name == name
    assert t.vector_bytes in (16, 32, 64) and t.registers in (16, 32)
    assert not t.lacks or name in ("x86-64-v2", "native")
    assert t == native.target(name) and t.key == native.target(name).key


def test_targets_have_keys_of_their_own():
    keys = [native.target().key, *(level(name).key for name in native.LEVELS)]
    assert len(set(keys)) == len(keys)


def test_a_level_this_machine_lacks_is_refused(monkeypatch):
    """An illegal instruction would end the process."""
    have = native.llvm.get_host_cpu_features()
    have["avx512vl"] = have["fma"] = False
    monkeypatch.setattr(native.llvm, "get_host_cpu_features", lambda: have)
    for name in ("x86-64-v3", "x86-64-v4"):
        with pytest.raises(UnsupportedError, match="lacks fma"):
            native.target(name)
    native.target("x86-64-v2")
    assert native.target().vector_bytes < 64


def test_unknown_target():
    with pytest.raises(UnsupportedError, match="E0504"):
        native.target("z80")


def test_an_object_needs_only_the_thread_calls(module_of, targets):
    """Everything the back end can write in one module: vector mathematics, loops that look like memcpy and memset."""
    assert elf.symbols(native.compile_object(emit(module_of(COPY), targets["native"]), targets["native"])) == (
        ("main",),
        (),
    )
    exported, needed = elf.symbols(native.compile_object(support(targets["native"]), targets["native"]))
    assert exported == ("nnc_epoch", "nnc_pool_create", "nnc_pool_destroy", "nnc_pool_forget", "nnc_pool_words")
    assert set(needed) <= THREADS


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_objects_are_the_same_every_time(module_of, target):
    t = level(target)
    ir = emit(module_of(COPY), t)
    assert native.compile_object(ir, t) == native.compile_object(ir, t)


@pytest.mark.parametrize("call", [
    "declare double @exp(double)\n"
    "define double @f(double %x) {\n  %y = call double @exp(double %x)\n  ret double %y\n}",
    "declare ptr @malloc(i64)\ndefine ptr @f() {\n  %p = call ptr @malloc(i64 8)\n  ret ptr %p\n}",
    "define double @f(double %x, double %y) {\n  %z = frem double %x, %y\n  ret double %z\n}",
    "define void @f(ptr %x, ptr %y, i64 %n) {\n  call void @llvm.memcpy.p0.p0.i64(ptr %x, ptr %y, i64 %n, i1 false)\n"
    "  ret void\n}\ndeclare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
])  # fmt: skip
def test_a_symbol_from_outside_is_refused_by_name(targets, call):
    with pytest.raises(InternalError, match="E0901") as e:
        native.compile_object(call, targets["native"])
    assert any(f"'{name}'" in str(e.value) for name in ("exp", "malloc", "fmod", "memcpy"))


@pytest.mark.parametrize("ir", [
    "define", "define i32 @f() { ret i64 0 }", "define i32 @f() { %x = add i32 %y, 1 ret i32 %x }",
])  # fmt: skip
def test_wrong_ir_is_our_own_fault(targets, ir):
    with pytest.raises(InternalError, match="E0901"):
        native.compile_object(ir, targets["native"])


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", b"MZ" + bytes(100), lambda d: d[:100], lambda d: d[: len(d) // 2]])
def test_damaged_objects_are_refused(module_of, targets, damage):
    data = native.compile_object(emit(module_of(COPY), targets["native"]), targets["native"])
    with pytest.raises(InternalError, match="E0901"):
        loading.Library(damage if isinstance(damage, bytes) else damage(data))


def test_an_object_that_needs_more_is_not_loaded(module_of, targets):
    data = native.compile_object(support(targets["native"]), targets["native"])
    at = data.index(b"\0pthread_join\0") + 1
    renamed = data[:at] + b"pthread_exit" + data[at + 12 :]
    with pytest.raises(InternalError, match="'pthread_exit'"):
        loading.Library(renamed)


def test_libraries_are_independent(compiled):
    first = compiled(COPY)
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    for _ in range(20):
        compiled(COPY)  # loaded and dropped
    assert first({"n": 5}, [x, y]) == 0
    np.testing.assert_array_equal(x, y)
    with pytest.raises(KeyError):
        first.loaded.address("copy")


def test_assembly_and_optimised_ir(module_of, targets):
    ir = emit(module_of(COPY), targets["x86-64-v3"])
    assert "main:" in native.assembly(ir, targets["x86-64-v3"])
    assert "define" in native.optimized(ir, targets["x86-64-v3"])


def test_importing_the_emitter_does_not_load_llvm():
    script = "import sys, nnc.compiler.llvm; print([m for m in sys.modules if 'llvmlite' in m])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_header_that_lies_is_refused():
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 40, 2**40)
    struct.pack_into("<HH", header, 58, 64, 3)
    with pytest.raises(InternalError):
        elf.symbols(bytes(header))


def test_what_runs_once_is_made_quickly_with_the_same_bits(monkeypatch):
    made, asked = native.compile_object, []

    def slowly(ir, target, quick=False):
        asked.append(quick)
        return made(ir, target)

    text = "model M(x: f32[B, 300]) -> (y: f32[B, 7]) { y = x |> Dense(50, init = he_normal) |> Dense(7) }"
    quick = nnc.compile(text, cache=False, seed=3).params
    monkeypatch.setattr(native, "compile_object", slowly)
    slow = nnc.compile(text, cache=False, seed=3).params
    assert True in asked and quick.keys() == slow.keys()
    for name in quick:
        np.testing.assert_array_equal(quick[name].view(np.int32), slow[name].view(np.int32))

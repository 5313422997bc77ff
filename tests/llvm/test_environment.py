"""The floating-point environment of the process: no bit depends on it, and it is left as it was."""

import ctypes
import platform

import numpy as np
import pytest

import nnc
from nnc.compiler.native import loading
from nnc.compiler.native import objects as native
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sets MXCSR")

STUB = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define i32 @exchange(i32 %new) {
  %old.at = alloca i32, align 4
  %new.at = alloca i32, align 4
  store i32 %new, ptr %new.at, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %old.at)
  call void @llvm.x86.sse.ldmxcsr(ptr %new.at)
  %old = load i32, ptr %old.at, align 4
  ret i32 %old
}
"""
DEFAULT, FLUSH, DOWN, UP, ZERO = 0x1F80, 0x8040, 0x2000, 0x4000, 0x6000
OTHERS = [DEFAULT | FLUSH, DEFAULT | DOWN, DEFAULT | UP, DEFAULT | ZERO | FLUSH, DEFAULT | UP | FLUSH]
CONTROL = 0xFFC0  # the rest are flags of what has happened

NET = """
model Net(x: f32[B, 8]) -> (y: f32[B, 300]) { y = x |> Dense(300) |> tanh }
train Net(x, target: f32[B, 300]) {
    loss = mean((y - target)^2)
    optimizer = Adam(lr = 1e-3)
    batch = 64
    epochs = 2
    seed = 3
}
export shrunk(x: f32[B, 8]) -> f32[B, 8] = x * 1e-38 + exp(-90.0 - x)
"""


@pytest.fixture(scope="module")
def exchange():
    """Sets MXCSR; what it was before."""
    library = loading.Library(native.compile_object(STUB, native.target()))
    return ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)(library.address("exchange")), library


@pytest.fixture(scope="module")
def bits(exchange):
    """The bits of a call and of some training on so many threads, all of it in an environment."""
    function, _ = exchange
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(640, 8)).astype(np.float32), rng.normal(size=(640, 300)).astype(np.float32)

    def made(environment, threads):
        net = nnc.compile(NET, threads=threads)
        net.entry("shrunk")
        net.entry("train")
        before = function(environment)
        shrunk = net.shrunk(x * np.float32(4))
        net.fit(x, target)
        after = function(before)
        assert after & CONTROL == environment & CONTROL
        return [a.tobytes() for a in (shrunk, *net.params.values(), *net.slots.values())], shrunk

    return made


@pytest.mark.parametrize("threads", [1, 2])
def test_no_bit_depends_on_the_environment(bits, threads):
    expected, shrunk = bits(DEFAULT, 1)
    assert ((shrunk != 0) & (abs(shrunk) < np.finfo(np.float32).tiny)).any()
    for environment in OTHERS:
        assert bits(environment, threads)[0] == expected


def test_a_failed_check_leaves_the_environment_too(exchange):
    function, _ = exchange
    pick = nnc.function("fn pick(x: f32[4], i: i32[1]) -> f32[1] = x[i]")
    arguments = np.zeros(4, np.float32), np.array([7], np.int32)
    with pytest.raises(ValueError, match="outside"):
        pick(*arguments)
    before = function(DEFAULT | FLUSH)
    try:
        with pytest.raises(ValueError, match="outside"):
            pick(*arguments)
    finally:
        assert function(before) & CONTROL == DEFAULT | FLUSH


def test_what_is_compiled_does_not_depend_on_the_environment(exchange):
    function, _ = exchange
    text = "fn f(x: f32[N]) -> f32[N] = x * (0.1 + 1e-39 / 3.0) + sum(exp(cast(iota(5), f32) * 1.7)) / 7.3"
    found = []
    for environment in (DEFAULT, *OTHERS):
        before = function(environment)
        try:
            session = Session(Source("f.nn", text), Settings(cache=False))
            found.append(session.llvm(session.stages("f")))
        finally:
            assert function(before) & CONTROL == environment & CONTROL
    assert len(set(found)) == 1

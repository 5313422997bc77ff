"""Entries of many steps: written as several functions, they do what one would."""

import ctypes

import numpy as np
import pytest

from nnc.compiler.llvm import emit
from nnc.compiler.loops.alone import alone
from nnc.compiler.loops.ir import (
    Apply,
    Buffer,
    Call,
    Check,
    Const,
    Entry,
    For,
    Kernel,
    Load,
    Loop,
    Many,
    Microbatches,
    Module,
    Place,
    Share,
    Slot,
    Store,
    Var,
    i64,
)
from nnc.compiler.loops.meaning import run as meaning
from nnc.compiler.native import loading
from nnc.compiler.native import objects as native
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType

STEPS = 5000
X = Load("x", i64(0), "f32")
LESS = Check(Apply("lt", (X, Const(1000.0, "f32")), "bool"), 7)  # x below 1000, or the step fails with this code
PLUS = Kernel(
    "plus", (), (Buffer("x", "f32", True),), (Store("x", i64(0), Apply("add", (X, Const(1.0, "f32")), "f32")),)
)
CHECKED = Kernel("checked", (), PLUS.buffers, (LESS, *PLUS.body))
SLOTS = (Slot("x", TensorType("f32", (symbol("n"),)), "param"), Slot("y", TensorType("f32", (3,)), "output"))


def run(steps, x, y):
    target = native.target()
    made = emit(Module((PLUS, CHECKED), (Entry("main", ("n",), SLOTS, 0, tuple(steps)),)), target)
    library = loading.Library(native.compile_object(made, target))
    sizes = (ctypes.c_int64 * 1)(len(x))
    slots = (ctypes.c_void_p * 2)(x.ctypes.data, y.ctypes.data)
    return library.function("main")(ctypes.addressof(sizes), ctypes.addressof(slots), None, None), made


def call(name, offset, kernel="plus"):
    return Call(kernel, (), (Place("slot", name, offset),))


def test_every_step_runs_once():
    """Where a place depends on a size, too."""
    x, y = np.zeros(4, np.float32), np.zeros(3, np.float32)
    at = [4 * (k % 3) for k in range(STEPS)]
    steps = [call("x", symbol("n") * 4 - 4 - a) if k % 2 else call("y", a) for k, a in enumerate(at)]
    code, made = run(steps, x, y)
    assert code == 0
    assert made.count("@nnc.part.") > STEPS // 100
    np.testing.assert_array_equal(y, np.bincount(np.array(at[::2]) // 4, minlength=3))
    np.testing.assert_array_equal(x[::-1], np.bincount(np.array(at[1::2]) // 4, minlength=4))


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_loop_of_many_steps(turns):
    """Its parts know the turn, and that of the loop around."""
    x, y = np.zeros(4, np.float32), np.zeros(3, np.float32)
    inner = Loop("j", symbol("n"), (*(call("x", symbol("j") * 4),) * STEPS, call("y", symbol("i") * 4)))
    code, _ = run([Loop("i", turns, (inner,))], x, y)
    assert code == 0
    np.testing.assert_array_equal(x, [turns * STEPS] * 4)
    np.testing.assert_array_equal(y, [4] * turns + [0] * (3 - turns))


def test_from_some_size_on_another_entry_runs():
    target = native.target()
    few = Entry("main", ("n",), SLOTS, 0, (call("x", 0),), Many("main.many", "n", 3))
    many = Entry("main.many", ("n",), SLOTS, 0, (call("y", 4),))
    module = Module((PLUS,), (few, many))
    library = loading.Library(native.compile_object(emit(module, target), target))
    for n in (1, 2, 3, 10):
        x, y = np.zeros(n, np.float32), np.zeros(3, np.float32)
        slots = (ctypes.c_void_p * 2)(x.ctypes.data, y.ctypes.data)
        sizes = (ctypes.c_int64 * 1)(n)
        assert library.function("main")(ctypes.addressof(sizes), ctypes.addressof(slots), None, None) == 0
        assert (x[0], y[1]) == ((1, 0) if n < 3 else (0, 1))
        memory = {"x": bytearray(4 * n), "y": bytearray(12)}
        assert meaning(module, few, {"n": n}, memory) == 0
        assert memory == {"x": bytearray(x.tobytes()), "y": bytearray(y.tobytes())}


EACH = Kernel(  # y[b] = x[b] + 1 by way of an arena; the second buffer counts calls
    "each",
    ("n",),
    (Buffer("x", "f32"), Buffer("calls", "f32", True), Buffer("a", "f32", True), Buffer("y", "f32", True)),
    (
        Store("calls", i64(0), Apply("add", (Load("calls", i64(0), "f32"), Const(1.0, "f32")), "f32")),
        For("k", i64(0), Var("n"), (
            Store("a", Var("k"), Load("x", Var("k"), "f32")),
            Check(Apply("lt", (Load("a", Var("k"), "f32"), Const(1000.0, "f32")), "bool"), 7),
        )),
        For("k", i64(0), Var("n"), (
            Store("y", Var("k"), Apply("add", (Load("a", Var("k"), "f32"), Const(1.0, "f32")), "f32")),
        )),
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("count", "calls"), [(0, 1), (1, 1), (4, 1), (8, 1), (9, 2), (10, 2), (11, 1), (17, 3), (40, 4)]
)
@pytest.mark.parametrize("threads", [0, 3])
def test_micro_batches(services, count, calls, threads):
    """12 at a time, and what is left in fours where at most two are beyond. Threads have arenas of their own."""
    n, f = symbol("n"), TensorType("f32", (symbol("n"),))
    slots = (
        Slot("x", f, "input"),
        Slot("calls", TensorType("f32", (1,)), "param"),
        Slot("y", TensorType("f32", (n, 1)), "output"),
    )
    step = Call("each", (n,), (Place("slot", "x"), Place("slot", "calls"), Place("arena"), Place("slot", "y")))
    entry = Entry("main", ("n",), slots, n * 4, (step,), microbatches=Microbatches("n", 12, 4))
    module = Module((EACH,), (entry,))
    library = loading.Library(native.compile_object(emit(module, native.target()), native.target()))
    pool = services.pool(threads) if threads else None
    x = np.arange(count, dtype=np.float32)
    for wrong in (False, True):
        x[-1:] = 2000 if wrong and count > 1 else x[-1:]
        made, y, arena = np.zeros(1, np.float32), np.zeros(max(1, count), np.float32), np.zeros(64 * 4, np.float32)
        slots_ = (ctypes.c_void_p * 3)(*(a.ctypes.data for a in (x, made, y)))
        sizes = (ctypes.c_int64 * 1)(count)
        status = library.function("main")(ctypes.addressof(sizes), ctypes.addressof(slots_), arena.ctypes.data, pool)
        memory = {"x": bytearray(x.tobytes()), "calls": bytearray(4), "y": bytearray(max(4, 4 * count))}
        assert status == meaning(module, entry, {"n": count}, memory)
        assert memory["y"] == bytearray(y.tobytes())
        assert np.frombuffer(memory["calls"], np.float32) == calls
        assert threads or made == calls
        assert wrong or np.array_equal(y[:count], x + 1)


HALF = Kernel(  # x[b] = x[b] / 2 + t
    "half",
    ("n", "t"),
    (Buffer("x", "f32", True),),
    (
        For("k", i64(0), Var("n"), (
            Check(Apply("lt", (Load("x", Var("k"), "f32"), Const(1000.0, "f32")), "bool"), 7),
            Store("x", Var("k"), Apply("add", (
                Apply("mul", (Load("x", Var("k"), "f32"), Const(0.5, "f32")), "f32"),
                Apply("cast", (Var("t"),), "f32"),
            ), "f32")),
        )),
    ),
)  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
@pytest.mark.parametrize("threads", [0, 2, 3, None])
@pytest.mark.parametrize("steps", [1, 100])
def test_all_turns_for_a_share(services, count, threads, steps):
    """On one thread, some, or a module without any; of many steps, too, which are functions of their own."""
    slots = (Slot("x", TensorType("f32", (symbol("n"),)), "output"),)
    step = Call("half", (symbol("c"), symbol("t")), (Place("slot", "x", symbol("b") * 4),))
    share = Share("b", "c", symbol("n"), 8)
    loop = Loop("t", 5, (step,) * steps, reverse=True, parallel=True, share=share)
    after = Call("half", (symbol("n"), 3), (Place("slot", "x"),))
    entry = Entry("main", ("n",), slots, 0, (loop, after))
    module = Module((HALF,), (entry,))
    module = alone([module]) if threads is None else module
    library = loading.Library(native.compile_object(emit(module, native.target()), native.target()))
    pool = services.pool(threads) if threads else None
    for wrong in (False, True):
        x = np.arange(max(1, count), dtype=np.float32)
        x[-1:] = 2000 if wrong else x[-1:]
        memory = {"x": bytearray(x.tobytes())}
        sizes, slots_ = (ctypes.c_int64 * 1)(count), (ctypes.c_void_p * 1)(x.ctypes.data)
        status = library.function("main")(ctypes.addressof(sizes), ctypes.addressof(slots_), None, pool)
        assert status == meaning(module, module.entries[0], {"n": count}, memory) == (7 if wrong and count else 0)
        assert status or memory["x"] == bytearray(x.tobytes())


def test_a_check_ends_all_of_it():
    x, y = np.zeros(4, np.float32), np.zeros(3, np.float32)
    code, _ = run([call("x", 0, "checked")] * STEPS + [call("y", 0)], x, y)
    assert code == 7
    assert x[0] == 1000 and y[0] == 0

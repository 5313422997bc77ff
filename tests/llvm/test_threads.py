"""The thread pool: fork and join, many times, from several callers, across fork and at exit."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from nnc.compiler.loops.ir import Apply, Buffer, For, Kernel, Load, Reduce, Var, i64
from nnc.compiler.native import loading

COUNT = Kernel("count", ("n",), (Buffer("x", "i32"), Buffer("y", "i32", True)), (
    For("i", i64(0), Var("n"), (
        Reduce("y", Var("i"), "sum", Apply("add", (Load("x", Var("i"), "i32"), Load("y", Var("i"), "i32")), "i32")),
    ), parallel=True),
))  # fmt: skip


@pytest.fixture(scope="module")
def count(compiled):
    return compiled(COUNT)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_turn_is_run_once(count, services, threads):
    pool = services.pool(threads)
    for n in [*range(20), 100, 1000]:
        x, y = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
        assert count({"n": n}, [x, y], pool) == 0
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("threads", [2, 5])
def test_parts_that_nobody_begins_are_the_callers(count, services, threads):
    """More threads than processors, and processors that are busy: each turn of each fork is run once all the same."""
    pool, forks, n = services.pool(threads), 20_000, 7
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        x, y = np.arange(1, n + 1, dtype=np.int32), np.zeros(n, np.int32)
        for _ in range(forks):
            y[:] = 0
            assert count({"n": n}, [x, y], pool) == 0 and y.tobytes() == x.tobytes()
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize("threads", [1, 2])
def test_turns_are_not_begun_when_the_caller_is_to_stop(count, services, threads):
    pool = services.pool(threads)
    x, y = np.ones(100, np.int32), np.zeros(100, np.int32)
    pool.interrupt(soft=True, hard=True)
    assert count({"n": 100}, [x, y], pool) == loading.INTERRUPTED and not y.any()
    pool.interrupt(soft=True)  # that is for the training loop
    assert count({"n": 100}, [x, y], pool) == 0 and y.all()
    pool.interrupt()
    assert count({"n": 100}, [x, y], pool) == 0
    pool.interrupt(hard=True)
    assert count({"n": 100}, [x, y]) == 0  # without a pool nothing stops it


def nested(trips):
    """y[0] counts n * trips."""
    inner = For("j", i64(0), trips, (Reduce("y", i64(0), "sum", i64(1)),))
    return Kernel("nested", ("n",), (Buffer("y", "i64", True),), (For("i", i64(0), Var("n"), (inner,)),))


@pytest.mark.parametrize(("trips", "stops"), [(Var("n"), True), (i64(1 << 20), True), (i64(4), False)])
def test_only_loops_that_may_take_long_look_whether_to_stop(compiled, services, trips, stops):
    pool, y = services.pool(1), np.zeros(1, np.int64)
    pool.interrupt(hard=True)
    assert compiled(nested(trips))({"n": 8}, [y], pool) == (loading.INTERRUPTED if stops else 0)
    assert y[0] == (0 if stops else 32)


def test_thousands_of_forks(count, services):
    pool = services.pool(2)
    x, y = np.zeros(64, np.int32), np.ones(64, np.int32)
    for k in range(3000):
        if k % 500 == 0:
            time.sleep(0.01)  # lets the threads fall asleep
        y[:] = k
        assert count({"n": 64}, [x, y], pool) == 0
        assert (y == 2 * k).all()


def allowed(task):
    """The processors that a thread of this process may run on."""
    return os.sched_getaffinity(int(task))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no sched_setaffinity")
def test_threads_that_were_woken_may_run_where_they_might_before(count, services):
    """While they are woken they are kept off the caller's processor, if there is another."""
    mine, tasks = allowed(0), set(os.listdir("/proc/self/task"))
    pool, x, y = services.pool(3), np.ones(64, np.int32), np.zeros(64, np.int32)
    first, *others = sorted(set(os.listdir("/proc/self/task")) - tasks)
    count({"n": 64}, [x, y], pool)
    for processors in ({min(mine)}, {max(mine)}, mine):
        os.sched_setaffinity(int(first), processors)
        for _ in range(20):
            time.sleep(0.005)  # lets the threads fall asleep
            y[:] = 0
            assert count({"n": 64}, [x, y], pool) == 0 and y.all()
        assert allowed(first) == processors and all(allowed(t) == mine for t in others) and allowed(0) == mine


def test_pools_come_and_go(count, services):
    x, y = np.ones(10, np.int32), np.zeros(10, np.int32)
    before = threading.active_count()
    for _ in range(200):
        pool = services.pool(3)
        count({"n": 10}, [x, y], pool)
        pool.close()
        assert not pool
        count({"n": 10}, [x, y], pool)  # a closed pool is none
    assert threading.active_count() == before
    assert len(os.listdir("/proc/self/task")) < 50


def test_two_callers_share_a_pool(count, services):
    pool = services.pool(2)
    failures = []

    def caller():
        x, y = np.ones(500, np.int32), np.zeros(500, np.int32)
        for _ in range(300):
            y[:] = 0
            count({"n": 500}, [x, y], pool)
            if (y != 1).any():
                failures.append(y.copy())

    callers = [threading.Thread(target=caller) for _ in range(3)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert not failures


SCRIPT = """
import os, sys
import numpy as np
from nnc.compiler.native import loading
from nnc.compiler.native import objects as native
from nnc.compiler.llvm import emit, support
from nnc.compiler.loops.ir import *
from nnc.compiler.types.tensors import TensorType
import ctypes

target = native.target()
services = loading.Support(native.compile_object(support(target), target))
i = Var("i")
loop = For("i", i64(0), Var("n"), (Store("y", i, i),), parallel=True)
kernel = Kernel("k", ("n",), (Buffer("y", "i64", True),), (loop,))
slots = (Slot("y", TensorType("i64"), "output"),)
module = Module((kernel,), (Entry("main", (), slots, 0, (Call("k", (100,), (Place("slot", "y"),)),)),))
library = loading.Library(native.compile_object(emit(module, target), target))
run = library.function("main")

def works(pool):
    y = np.zeros(100, np.int64)
    slots = (ctypes.c_void_p * 1)(y.ctypes.data)
    run(None, ctypes.addressof(slots), None, pool)
    return (y == np.arange(100)).all()

pool = services.pool(4)
assert works(pool)
"""


def script(rest):
    command = [sys.executable, "-c", SCRIPT + rest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_after_fork_makes_its_own_pool():
    assert (
        script("""
child = os.fork()
if child == 0:
    pool.close()            # only forgets: there are no threads to join
    mine = services.pool(2)
    ok = works(mine)
    mine.close()
    os._exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
assert works(pool)
print("fine")
""")
        == "fine\n"
    )


def test_exit_with_threads_asleep():
    assert script("print('bye')\n") == "bye\n"


def test_exit_with_threads_at_work():
    assert (
        script("""
import threading
def forever():
    while True:
        works(pool)
threading.Thread(target=forever, daemon=True).start()
import time
time.sleep(0.2)
print("bye", flush=True)
os._exit(0)
""")
        == "bye\n"
    )

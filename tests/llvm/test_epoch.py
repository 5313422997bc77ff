"""The native training loop against the same loop in Python."""

import ctypes

import numpy as np
import pytest

from nnc.compiler.llvm import emit
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
    Module,
    Place,
    Reduce,
    Slot,
    Store,
    Var,
    add,
    i64,
    mul,
)
from nnc.compiler.native import loading
from nnc.compiler.native import objects as native
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType

B = symbol("B")
CODES = {"f32": 0, "f64": 1, "i32": 2, "i64": 3, "bool": 4}
NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}


def step(width):
    """A step that reads x[B, width] and t[B], and gives the mean of x, the sum of t, their count, and whether all of t
    are positive; code 5 where some t is negative. It adds its calls up in `calls`."""
    b, j = Var("b"), Var("j")
    x, t = Load("x", add(mul(b, i64(width)), j), "f32"), Load("t", b, "i32")
    mean = Apply("div", (x, Apply("cast", (mul(Var("n"), i64(width)),), "f32")), "f32")
    body = (
        Store("mean", i64(0), Const(0.0, "f32")), Store("total", i64(0), Const(0, "i32")),
        Store("count", i64(0), Var("n")), Store("all", i64(0), Const(True, "bool")),
        Store("wide", i64(0), Apply("cast", (Var("n"),), "f64")),
        For("b", i64(0), Var("n"), (
            Check(Apply("ge", (t, Const(0, "i32")), "bool"), 5),
            Reduce("total", i64(0), "sum", t),
            Reduce("all", i64(0), "prod", Apply("gt", (t, Const(0, "i32")), "bool")),
            For("j", i64(0), i64(width), (Reduce("mean", i64(0), "sum", mean),)))),
        Reduce("calls", i64(0), "sum", i64(1)),
    )  # fmt: skip
    outputs = (("mean", "f32"), ("total", "i32"), ("count", "i64"), ("all", "bool"), ("wide", "f64"), ("calls", "i64"))
    buffers = (Buffer("x", "f32"), Buffer("t", "i32"), *(Buffer(n, d, True) for n, d in outputs))
    slots = (
        Slot("x", TensorType("f32", (B, width)), "input"),
        Slot("t", TensorType("i32", (B,)), "input"),
        *(Slot(n, TensorType(d), "output") for n, d in outputs),
    )
    places = tuple(Place("slot", s.name) for s in slots)
    kernel = Kernel("step", ("n",), buffers, body)
    return Module((kernel,), (Entry("train", ("B",), slots, 0, (Call("step", (B,), places),)),)), outputs


class Run:
    """A job over x and t with an order, and what came of it."""

    def __init__(self, services, targets, x, t, batch, order=None):
        module, outputs = step(x.shape[1])
        target = targets["native"]
        self.services, self.loaded = services, loading.Library(native.compile_object(emit(module, target), target))
        self.x, self.t, self.order = x, t, order
        self.values = {name: np.zeros(1, NUMPY[d]) for name, d in outputs}
        self.buffers = [np.empty((batch, x.shape[1]), np.float32), np.empty(batch, np.int32)]
        self.sizes = (ctypes.c_int64 * 1)(batch)
        self.slots = (ctypes.c_void_p * 8)(0, 0, *(v.ctypes.data for v in self.values.values()))
        inputs = [
            (x.ctypes.data, x.strides[0], 0, self.buffers[0].ctypes.data),
            (t.ctypes.data, 4, 1, self.buffers[1].ctypes.data),
        ]
        sums = [(k + 2, CODES[d], k % 2) for k, (_, d) in enumerate(outputs[:5])]
        self.totals = (ctypes.c_double * 5)()
        self.job = loading.EpochJob()
        self.job.sizes, self.job.batch_index, self.job.slots = self.sizes, 0, self.slots
        self.job.examples, self.job.batch = len(x), batch
        self.job.order = order.ctypes.data if order is not None else None
        self.job.ninputs, self.job.inputs = 2, (loading.EpochInput * 2)(*inputs)
        self.job.nsums, self.job.sums = 5, (loading.EpochSum * 5)(*sums)
        self.job.totals = self.totals

    def __call__(self, start, stop):
        self.job.position, self.job.stop = start, stop
        return self.services.epoch(self.loaded.address("train"), self.job)


def expected(x, t, batch, start, stop, order):
    """The totals of the same loop in NumPy."""
    totals, steps = np.zeros(5), 0
    order = np.arange(len(x)) if order is None else order
    while start < stop:
        rows = order[start : start + batch]
        n = len(rows)
        mean = np.float32(0)
        for v in x[rows].ravel():
            mean += v / np.float32(n * x.shape[1])
        totals += [float(mean) * n, t[rows].sum(), n * n, (t[rows] > 0).all(), n * n]
        start, steps = start + n, steps + 1
    return totals, steps, start


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("examples", "batch", "width"), [(10, 4, 1), (12, 4, 3), (7, 16, 17), (100, 7, 30), (65, 8, 100)]
)
def test_epoch(services, targets, examples, batch, width, shuffle):
    rng = np.random.default_rng(examples)
    x = rng.normal(size=(examples, width)).astype(np.float32)
    t = rng.integers(0, 9, examples).astype(np.int32)
    order = rng.permutation(examples) if shuffle else None
    run = Run(services, targets, x, t, batch, order)
    middle = batch * (examples // batch // 2)
    total_steps = 0
    for start, stop in ((0, middle), (middle, examples)):  # it resumes where it stopped
        assert run(start, stop) == 0
        assert run.job.nonfinite == -1
        total_steps += run.job.steps
    totals, steps, position = expected(x, t, batch, 0, examples, order)
    assert run.job.position == position == examples
    assert total_steps == steps == run.values["calls"][0]
    np.testing.assert_allclose(list(run.totals), totals, rtol=1e-12)


def test_a_loop_that_is_to_stop_begins_no_step(services, targets):
    run = Run(services, targets, np.ones((10, 3), np.float32), np.ones(10, np.int32), 4, None)
    pool = services.pool(1)
    run.job.pool = pool
    pool.interrupt(soft=True)
    assert run(0, 10) == loading.INTERRUPTED and run.job.steps == run.job.position == 0
    pool.interrupt()
    assert run(0, 10) == 0 and run.job.steps == 3


@pytest.mark.parametrize("nbytes", [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 60, 63, 64, 65, 100, 127, 128, 129, 3136])
def test_rows_of_any_size_are_gathered(services, targets, nbytes):
    rng = np.random.default_rng(nbytes)
    x, t = np.zeros((9, 1), np.float32), np.zeros(9, np.int32)
    order = rng.permutation(9)
    run = Run(services, targets, x, t, 4, order)
    rows = rng.integers(0, 256, (9, nbytes), dtype=np.uint8)
    gathered = np.full((5, nbytes), 99, np.uint8)
    slots = (ctypes.c_void_p * 9)(*run.slots, 0)  # the last is read by nobody
    more = loading.EpochInput(rows.ctypes.data, nbytes, 8, gathered.ctypes.data)
    inputs = (loading.EpochInput * 3)(run.job.inputs[0], run.job.inputs[1], more)
    run.job.ninputs, run.job.inputs, run.job.slots = 3, inputs, slots
    assert run(0, 4) == 0
    np.testing.assert_array_equal(gathered[:4], rows[order[:4]])
    assert (gathered[4] == 99).all()
    assert slots[8] == gathered.ctypes.data


def test_without_an_order_nothing_is_copied(services, targets):
    x, t = np.ones((6, 2), np.float32), np.ones(6, np.int32)
    run = Run(services, targets, x, t, 4)
    run.buffers[0][:] = -7
    assert run(0, 6) == 0
    assert run.slots[0] == x.ctypes.data + 4 * 8
    assert (run.buffers[0] == -7).all()


def test_it_stops_after_the_step_that_is_not_finite(services, targets):
    x, t = np.ones((20, 2), np.float32), np.ones(20, np.int32)
    x[9, 1] = np.nan
    run = Run(services, targets, x, t, 4)
    assert run(0, 20) == 0
    assert (run.job.nonfinite, run.job.steps, run.job.position) == (2, 3, 12)
    x[9, 1] = np.inf
    assert run(0, 20) == 0
    assert run.job.nonfinite == 2
    assert run(12, 20) == 0
    assert (run.job.nonfinite, run.job.steps) == (-1, 2)


def test_a_check_that_fails_ends_it_before_the_step_counts(services, targets):
    x, t = np.ones((20, 2), np.float32), np.ones(20, np.int32)
    t[6] = -1
    run = Run(services, targets, x, t, 4)
    assert run(0, 20) == 5
    assert (run.job.steps, run.job.position) == (1, 4)


def test_one_example_and_none(services, targets):
    run = Run(services, targets, np.ones((1, 1), np.float32), np.ones(1, np.int32), 1)
    assert run(0, 0) == 0 and run.job.steps == 0
    assert run(0, 1) == 0 and run.job.steps == 1


def test_the_layout_is_the_one_the_code_reads():
    from nnc.compiler.llvm import epoch

    for structure, fields in (
        (loading.EpochJob, epoch.FIELDS),
        (loading.EpochInput, epoch.INPUT_FIELDS),
        (loading.EpochSum, epoch.SUM_FIELDS),
    ):
        assert tuple(name for name, _ in structure._fields_) == fields
        assert all(getattr(structure, name).offset == 8 * k for k, name in enumerate(fields))

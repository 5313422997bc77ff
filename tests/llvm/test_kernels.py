"""Kernels written by hand: masked tails, alignment, threads, register tiles, scatter, checks, and what is refused."""

import re
from dataclasses import replace

import numpy as np
import pytest

from nnc.compiler.llvm import emit
from nnc.compiler.loops.ir import (
    Apply,
    Buffer,
    Check,
    Const,
    For,
    Kernel,
    Let,
    Load,
    Module,
    Reduce,
    Register,
    Store,
    Var,
    add,
    i64,
    mul,
)
from nnc.compiler.loops.meaning import evaluate, shares
from nnc.compiler.loops.parse import parse_loops
from nnc.compiler.loops.text import print_loops
from nnc.compiler.native import objects as native
from nnc.compiler.native.target import level
from nnc.dsl.errors import InternalError

NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}


def same(got, want):
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_array_equal(g.view(np.uint8), w.view(np.uint8))


def expected(kernel, sizes, arrays):
    """The code and the arrays, from the evaluator."""
    lists = {b.name: a.tolist() for b, a in zip(kernel.buffers, arrays, strict=True)}
    return evaluate(kernel, sizes, lists), [np.array(lists[b.name], NUMPY[b.dtype]) for b in kernel.buffers]


VI, VJ, VK, VN, VM = map(Var, "ijknm")


def f32(fn, *args):
    return Apply(fn, args, "f32")


def row_sums(lanes, unroll=1, parallel=False):
    """y = 2 x, and r[i] the sum of row i of y."""
    at = add(mul(VI, VM), VJ)
    body = (
        Store("y", at, f32("mul", Load("x", at, "f32"), Const(2.0, "f32"))),
        Reduce("r", VI, "sum", Load("y", at, "f32")),
    )
    inner = For("j", i64(0), VM, body, lanes=lanes, unroll=unroll)
    rows = For("i", i64(0), VN, (Store("r", VI, Const(0.0, "f32")), inner), parallel=parallel)
    buffers = (Buffer("x", "f32"), Buffer("y", "f32", True), Buffer("r", "f32", True))
    return Kernel("row_sums", ("n", "m"), buffers, (rows,))


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "native"])
@pytest.mark.parametrize("unroll", [1, 3])
def test_tails_write_nothing_outside(compiled, target, unroll):
    kernel = row_sums(16, unroll)
    run = compiled(kernel, target)
    for m in range(41):
        rng = np.random.default_rng(m)
        n = 3
        x, y, r = (np.full(size, 7, np.float32) for size in (n * m + 16, n * m + 16, n + 16))
        x[: n * m] = rng.normal(size=n * m)
        arrays = [x, y, r]
        _, want = expected(kernel, {"n": n, "m": m}, arrays) if m else (0, None)
        assert run({"n": n, "m": m}, arrays) == 0
        if want:
            same(arrays, want)
        assert (y[n * m :] == 7).all() and (r[n:] == 7).all()


@pytest.mark.parametrize("offset", [1, 3])
def test_user_arrays_need_only_element_alignment(compiled, offset):
    kernel = row_sums(16)
    raw = [np.empty(4 * 200 + 64, np.uint8) for _ in range(3)]
    arrays = [(b[-b.ctypes.data % 64 + 4 * offset :][: 4 * 120]).view(np.float32) for b in raw]
    for k, a in enumerate(arrays):
        assert a.ctypes.data % 64 == 4 * offset
        a[:] = np.arange(120) * (k + 1)
    _, want = expected(kernel, {"n": 3, "m": 37}, arrays)
    assert compiled(kernel)({"n": 3, "m": 37}, arrays) == 0
    same(arrays, want)


def test_the_same_bits_on_every_width_and_number_of_threads(compiled, services):
    rng = np.random.default_rng(0)
    n, m = 37, 1003
    x = rng.normal(size=n * m).astype(np.float32)
    results = []
    for target in ("x86-64-v3", "native"):
        for parallel, threads in ((False, 1), (True, 1), (True, 2), (True, 5)):
            y, r = np.zeros_like(x), np.zeros(n, np.float32)
            pool = services.pool(threads)
            assert compiled(row_sums(16, parallel=parallel), target)({"n": n, "m": m}, [x, y, r], pool) == 0
            if pool:
                pool.close()
            results.append((y, r))
    for y, r in results[1:]:
        same([y, r], results[0])


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_threads_share_the_outer_loop_or_the_inner(compiled, services, n):
    """Rows where they are more than three, else the columns of each, where they are more than 40."""
    at = add(mul(VI, VM), VJ)
    many, wide = (Apply("gt", pair, "bool") for pair in ((VN, i64(3)), (VM, i64(40))))
    few = Apply("and", (Apply("not", (many,), "bool"), wide), "bool")
    store = Store("y", at, f32("mul", Load("x", at, "f32"), Const(2.0, "f32")))
    columns = For("j", i64(0), VM, (store,), lanes=4, parallel=True, when=few)
    rows = For("i", i64(0), VN, (columns,), parallel=True, when=many)
    kernel = Kernel("either", ("n", "m"), (Buffer("x", "f32"), Buffer("y", "f32", True)), (rows,))
    module = Module((kernel,), ())
    assert parse_loops(print_loops(module)) == module
    assert [shares(kernel, {"n": n, "m": m}) for m in (37, 203)] == [n > 3, True]
    run = compiled(kernel)
    for m in (1, 37, 203):
        x = np.random.default_rng(m).normal(size=n * m).astype(np.float32)
        for threads in (1, 2, 5):
            y, pool = np.zeros_like(x), services.pool(threads)
            assert run({"n": n, "m": m}, [x, y], pool) == 0
            if pool:
                pool.close()
            same([y], [2 * x])


@pytest.mark.parametrize("parallel", [True, False])
def test_what_a_thread_has_for_all_its_turns(compiled, services, parallel):
    """Row by row y = 2 x by way of a line of its own for each thread."""
    first = Var("r")
    line, at = add(mul(first, VM), VJ), add(mul(VI, VM), VJ)
    twice = Store("z", line, f32("mul", Load("x", at, "f32"), Const(2.0, "f32")))
    steps = (For("j", i64(0), VM, (twice,), lanes=4), For("j", i64(0), VM, (Store("y", at, Load("z", line, "f32")),)))
    buffers = (Buffer("x", "f32"), Buffer("y", "f32", True), Buffer("z", "f32", True))
    kernel = Kernel("line", ("n", "m"), buffers, (For("i", i64(0), VN, steps, parallel=parallel, first="r"),))
    module = Module((kernel,), ())
    assert parse_loops(print_loops(module)) == module
    run, n, m = compiled(kernel), 7, 37
    x = np.random.default_rng(0).normal(size=n * m).astype(np.float32)
    for threads in (1, 2, 5):
        y, z, pool = np.zeros_like(x), np.zeros_like(x), services.pool(threads)
        assert run({"n": n, "m": m}, [x, y, z], pool) == 0
        if pool:
            pool.close()
        same([y], [2 * x])
        if threads == 1 or not parallel:
            same([y, z], expected(kernel, {"n": n, "m": m}, [x, np.zeros_like(x), np.zeros_like(x)])[1][1:])


def test_threads_share_a_loop_in_each_turn_of_another(compiled, services):
    """Row by row y = 2 y + x, whose columns are shared."""
    value = f32("fma", Load("y", VJ, "f32"), Const(2.0, "f32"), Load("x", add(mul(VI, VM), VJ), "f32"))
    columns = For("j", i64(0), VM, (Store("y", VJ, value),), lanes=16, parallel=True)
    buffers = (Buffer("x", "f32"), Buffer("y", "f32", True))
    kernel = Kernel("row_by_row", ("n", "m"), buffers, (For("i", i64(0), VN, (columns,)),))
    n, m = 11, 203
    x = np.random.default_rng(0).normal(size=n * m).astype(np.float32)
    code, want = expected(kernel, {"n": n, "m": m}, [x, np.zeros(m, np.float32)])
    assert code == 0
    for threads in (1, 2, 5):
        y, pool = np.zeros(m, np.float32), services.pool(threads)
        assert compiled(kernel)({"n": n, "m": m}, [x, y], pool) == 0
        same([x, y], want)
        if pool:
            pool.close()


def test_equal_parallel_loops_are_one_function(targets):
    """Whatever their names are and their bounds; not where a number, the sign of a zero or a dtype differs."""

    def kernel(name, i, x, y, factor=2.0, stop=VN, dtype="f32"):
        value = Apply("mul", (Load(x, Var(i), dtype), Const(factor, dtype)), dtype)
        loop = For(i, i64(0), stop, (Let("v", value), Store(y, Var(i), Var("v", dtype))), lanes=8, parallel=True)
        return Kernel(name, ("n",), (Buffer(x, dtype), Buffer(y, dtype, True)), (loop,))

    def count(*kernels):
        text = emit(Module(kernels, ()), targets["native"])
        assert text.count("define internal i32 @nnc.given.") == 1, "contexts of one form are unpacked by one function"
        return len(re.findall(r"^define internal i32 @\w\.\w\(", text, re.MULTILINE))

    first = kernel("a", "i", "x", "y")
    assert count(first, kernel("b", "j", "s", "t"), kernel("c", "i", "y", "x", stop=add(VN, i64(-3)))) == 1
    zeros = kernel("b", "i", "x", "y", 0.0), kernel("c", "i", "x", "y", -0.0)
    assert count(first, *zeros, kernel("d", "i", "x", "y", dtype="f64")) == 4


def tile(rows, vectors, lanes, unroll, dtype="f32"):
    """c = a @ b by register tiles, the shape of a contraction kernel."""
    wide = vectors * lanes
    acc = add(mul(VI, i64(wide)), VJ)

    def each(body):
        return For("i", i64(0), i64(rows), (For("j", i64(0), i64(wide), (body,), lanes=lanes, unroll=0),), unroll=0)

    row = add(Var("i0"), VI)
    a, b = Load("a", add(mul(row, Var("k_")), VK), dtype), Load("b", add(add(mul(VK, VN), Var("j0")), VJ), dtype)
    step = each(Store("acc", acc, Apply("fma", (a, b, Load("acc", acc, dtype)), dtype)))
    body = (
        Register("acc", dtype, rows * wide),
        each(Store("acc", acc, Const(0.0, dtype))),
        For("k", i64(0), Var("k_"), (step,), unroll=unroll),
        each(Store("c", add(add(mul(row, VN), Var("j0")), VJ), Load("acc", acc, dtype))),
    )
    loop = For("j0", i64(0), VN, (For("i0", i64(0), VM, body, step=rows),), step=wide)
    return Kernel("tile", ("m", "n", "k_"), (Buffer("a", dtype), Buffer("b", dtype), Buffer("c", dtype, True)), (loop,))


@pytest.mark.parametrize(("rows", "vectors", "lanes", "dtype", "target"), [
    (8, 3, 16, "f32", "native"), (6, 2, 8, "f32", "x86-64-v3"), (4, 1, 16, "f32", "x86-64-v3"),
    (4, 3, 8, "f64", "native"), (2, 1, 4, "f32", "x86-64-v2"),
])  # fmt: skip
def test_register_tiles(compiled, rows, vectors, lanes, dtype, target):
    m, n, k = 2 * rows, 2 * vectors * lanes, 13
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(m, k)).astype(NUMPY[dtype]), rng.normal(size=(k, n)).astype(NUMPY[dtype])
    c = np.zeros((m, n), NUMPY[dtype])
    run = compiled(tile(rows, vectors, lanes, 4, dtype), target)
    assert run({"m": m, "n": n, "k_": k}, [a, b, c]) == 0
    np.testing.assert_allclose(c, a.astype(float) @ b, rtol=1e-5 if dtype == "f32" else 1e-12, atol=1e-5)


@pytest.mark.parametrize(("rows", "vectors", "lanes", "target"), [(8, 3, 16, "x86-64-v4"), (6, 2, 8, "x86-64-v3")])
def test_register_tiles_do_not_touch_the_stack(module_of, rows, vectors, lanes, target):
    chosen = level(target)
    ir = emit(module_of(tile(rows, vectors, lanes, 4)), chosen)
    kernel = next(f for f in native.optimized(ir, chosen).split("\n}") if "void @tile(" in f or "i32 @tile(" in f)
    assert "<" in kernel and "alloca" not in kernel
    loop = [line for line in native.assembly(ir, chosen).splitlines() if "(%rsp)" in line and "mm" in line]
    assert not loop


def test_loops_with_few_pointers_count_unseen(module_of):
    """Strength reduction finds nothing in them; in a tile of eight strided rows it makes registers free."""
    chosen = level("x86-64-v4")
    few, many = (emit(module_of(tile(rows, 1, 16, 1)), chosen) for rows in (2, 8))
    assert few.count("call i64 @llvm.expect.i64(") == few.count(" = phi i64 ") == 3
    assert "@llvm.expect.i64" not in many
    assert "@llvm.expect.i64" not in emit(module_of(tile(2, 1, 16, 1)), replace(chosen, triple="aarch64-linux-gnu"))


def packed(dtype, lanes, rows, bound, to_step, named):
    """to[k, j] = from[j, k]: the transpose of `rows` rows, in groups of lanes, of which those before `bound` count.
    What is read has a name or not."""
    source, to = Load("x", add(mul(VJ, i64(64)), VK), dtype), add(mul(VK, i64(to_step)), VJ)
    body = (Let("v", source), Store("y", to, Var("v", dtype))) if named else (Store("y", to, source),)
    inner = For("j", i64(0), i64(rows), body, lanes=lanes, bound=bound, unroll=0)
    return Kernel("pack", ("n",), (Buffer("x", dtype), Buffer("y", dtype, True)), (For("k", i64(0), VN, (inner,)),))


@pytest.mark.parametrize("target", ["native", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(
    ("dtype", "lanes"), [("f32", 16), ("f32", 8), ("f32", 4), ("f64", 8), ("f64", 4), ("i32", 16), ("i64", 8)]
)
@pytest.mark.parametrize("named", [False, True])
def test_copies_that_transpose(compiled, dtype, lanes, target, named):
    x = np.arange(40 * 64).astype(NUMPY[dtype])
    for rows, bound in ((lanes, None), (2 * lanes, None), (lanes + 3, None), (lanes, i64(lanes - 1)), (lanes, i64(1))):
        kernel = packed(dtype, lanes, rows, bound, 40, named)
        run = compiled(kernel, target)
        assert ("shufflevector" in run.ir) and "square" in run.ir
        for n in (0, 1, lanes - 1, lanes, lanes + 1, 3 * lanes + 2):
            y = np.full(64 * 40, 7).astype(NUMPY[dtype])
            want = y.reshape(64, 40).copy()
            count = rows if bound is None else min(rows, bound.value)
            want[:n, :count] = x.reshape(40, 64)[:count, :n].T
            assert run({"n": n}, [x, y]) == 0
            np.testing.assert_array_equal(y.reshape(64, 40), want)


@pytest.mark.parametrize("target", ["native", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(("turns", "is_so"), [(3, False), (4, True), (9, True), (25, True)])
def test_what_is_left_over_of_a_transposing_copy(compiled, turns, is_so, target):
    """Enough turns are a square that is not whole, which reads nothing beyond them."""
    source, to = add(mul(VJ, i64(turns)), VK), add(mul(VK, i64(16)), VJ)
    inner = For("j", i64(0), i64(16), (Store("y", to, Load("x", source, "f32")),), lanes=16, unroll=0)
    kernel = wrong((For("k", i64(0), i64(turns), (inner,)),))
    arrays = [np.arange(16 * turns, dtype=np.float32), np.zeros(16 * turns, np.float32)]
    run = compiled(kernel, target)
    assert ("square" in run.ir) == (is_so and (turns > 16 or target != "x86-64-v2"))
    assert run({"n": 0}, arrays) == 0
    np.testing.assert_array_equal(arrays[1].reshape(turns, 16), arrays[0].reshape(16, turns).T)


def test_copies_that_only_look_like_it(compiled):
    """One place is read and written, the source does not run along k, or an index is not affine: the loop as it is."""
    affine = add(mul(VJ, i64(64)), VK)
    cases = [
        (mul(VK, i64(2)), add(mul(VK, i64(16)), VJ)),
        (add(VJ, VK), add(mul(VK, i64(16)), VJ)),
        (add(mul(VJ, i64(64)), Apply("floordiv", (VK, i64(2)), "i64")), add(mul(VK, i64(16)), VJ)),
        (affine, add(mul(VK, i64(16)), mul(VJ, i64(2)))),
        (add(mul(VJ, i64(64)), mul(VK, VK)), add(mul(VK, i64(16)), VJ)),
    ]
    for source, to in cases:
        inner = For("j", i64(0), i64(16), (Store("y", to, Load("x", source, "f32")),), lanes=16, unroll=0)
        kernel = wrong((For("k", i64(0), VN, (inner,)),))
        arrays = [np.arange(2048, dtype=np.float32), np.zeros(1024, np.float32)]
        _, want = expected(kernel, {"n": 18}, arrays)
        run = compiled(kernel)
        assert "square" not in run.ir
        assert run({"n": 18}, arrays) == 0
        same(arrays, want)


@pytest.mark.parametrize("target", ["native", "x86-64-v2", "serial"])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 16, 31, 48, 70000, -3])
def test_whole_quotients_by_known_numbers(compiled, target, n):
    """Of what is read, of indices that grow from lane to lane, and of what is the same in all lanes."""
    values = (
        add(VK, add(i64(-90), mul(VJ, i64(3)))),
        add(VK, add(VJ, i64(-4))),
        Load("x", VJ, "i64"),
        Load("x", VK, "i64"),
    )
    parts = [Apply(fn, (v, i64(n)), "i64") for v in values for fn in ("floordiv", "mod")]
    stores = [Store("y", add(mul(VK, i64(40)), add(VJ, i64(400 * at))), part) for at, part in enumerate(parts)]
    body = (For("k", i64(0), i64(10), (For("j", i64(0), i64(37), tuple(stores), lanes=8),)),)
    kernel = Kernel("quotients", (), (Buffer("x", "i64"), Buffer("y", "i64", True)), body)
    x = np.array([0, 1, -1, 2, -2, 2**63 - 1, -(2**63), 2**40, 69999, 70000, -70000, *range(-13, 13)], np.int64)
    arrays = [x, np.zeros(3200, np.int64)]
    _, want = expected(kernel, {}, arrays)
    assert compiled(kernel, target)({}, arrays) == 0
    same(arrays, want)


def test_scatter_adds_lane_after_lane(compiled):
    body = (Reduce("y", Load("at", VJ, "i64"), "sum", Load("x", VJ, "f32")),)
    loop = For("j", i64(0), VN, body, lanes=8)
    kernel = Kernel("scatter", ("n",), (Buffer("at", "i64"), Buffer("x", "f32"), Buffer("y", "f32", True)), (loop,))
    at, x, y = np.array([3, 3, 0, 3, 1, 1, 3, 2, 0, 0, 0]), np.arange(11, dtype=np.float32) + 1, np.zeros(4, np.float32)
    assert compiled(kernel)({"n": 11}, [at, x, y]) == 0
    want = np.zeros(4, np.float32)
    np.add.at(want, at, x)
    same([y], [want])


def test_code_of_the_first_check_that_fails_is_the_same_on_any_number_of_threads(compiled, services):
    check = (
        Check(Apply("lt", (Load("x", VI, "i32"), Const(5, "i32")), "bool"), 3),
        Check(Apply("ge", (Load("x", VI, "i32"), Const(0, "i32")), "bool"), 4),
    )
    loop = For("i", i64(0), VN, (*check, Store("y", VI, Load("x", VI, "i32"))), parallel=True)
    run = compiled(Kernel("checked", ("n",), (Buffer("x", "i32"), Buffer("y", "i32", True)), (loop,)))
    x, y = np.zeros(100, np.int32), np.zeros(100, np.int32)
    x[60], x[90] = -1, 9
    for threads in (1, 2, 4):
        assert run({"n": 100}, [x, y], services.pool(threads)) == 4
        assert run({"n": 60}, [x, y], services.pool(threads)) == 0


def wrong(body, sizes=("n",)):
    return Kernel("wrong", sizes, (Buffer("x", "f32"), Buffer("y", "f32", True)), body)


@pytest.mark.parametrize(("body", "message"), [
    ((Store("y", i64(0), Var("v", "f32")),), "'v' is not bound"),
    ((Store("q", i64(0), Const(0.0, "f32")),), "no buffer 'q'"),
    ((For("j", i64(0), VN, (), unroll=0),), "trip count is not constant"),
    ((For("j", i64(0), i64(1000), (), unroll=0),), "unrolled 1000 times"),
    ((For("j", i64(0), VN, (), lanes=3),), "3 lanes"),
    ((For("j", i64(0), VN, (For("k", i64(0), VJ, ()),), lanes=4),), "differ between lanes"),
    ((For("j", i64(0), VN, (For("k", i64(0), VN, (), lanes=4),), lanes=4),), "inside another"),
    ((For("j", i64(0), VN, (Store("y", i64(0), Load("x", VJ, "f32")),), lanes=4),), "differs between lanes"),
    ((For("i", i64(0), VN, (For("j", i64(0), VN, (), parallel=True),), lanes=4),), "in lanes"),
    ((Register("r", "f32", 4), For("i", i64(0), VN, (Store("r", VI, Const(0.0, "f32")),))), "not constant"),
    ((Register("r", "f32", 100_000_000),), "the most is"),
    ((Store("y", i64(0), Apply("frobnicate", (Const(0.0, "f32"),), "f32")),), "no function 'frobnicate'"),
])  # fmt: skip
def test_wrong_loops_are_our_own_fault(compiled, body, message):
    with pytest.raises(InternalError, match="E0901") as e:
        compiled(wrong(body))
    assert message in str(e.value)


def test_code_does_not_grow_without_bound(compiled):
    body = (Store("y", VI, Load("x", VJ, "f32")),)
    for var in "jikhg":
        body = (For(var, i64(0), i64(64), body, unroll=0),)
    with pytest.raises(InternalError, match="unrolls to more than"):
        compiled(wrong(body))


def test_deep_expressions(compiled):
    deep = Load("x", i64(0), "f32")
    for _ in range(20_000):
        deep = f32("neg", deep)
    x, y = np.array([3], np.float32), np.zeros(1, np.float32)
    assert compiled(wrong((Store("y", i64(0), deep),)))({"n": 1}, [x, y]) == 0
    assert y[0] == 3


def test_names_of_any_kind(compiled):
    body = (Let('h"\\ é\n', Load("x[0]/β", i64(0), "f32")), Store("y", i64(0), Var('h"\\ é\n', "f32")))
    kernel = Kernel("what is this?", ("n",), (Buffer("x[0]/β", "f32"), Buffer("y", "f32", True)), body)
    x, y = np.array([3], np.float32), np.zeros(1, np.float32)
    assert compiled(kernel)({"n": 1}, [x, y]) == 0
    assert y[0] == 3
    assert parse_loops(print_loops(Module((kernel,), ()))) == Module((kernel,), ())


def test_text_is_the_same_every_time(module_of, targets):
    module = module_of(tile(8, 3, 16, 4))
    assert emit(module, targets["x86-64-v3"]) == emit(module, targets["x86-64-v3"])


@pytest.mark.parametrize("text", [
    "", "kernel k()() {", "kernel k(n)(x: f32) { x[0] = q }", "kernel k()(x: f16) { }", 
    "kernel k(n)() { for i in 0..n { ]",
    "kernel k()(y: f32) { y[0] = cast(1.0:f32) }", "entry e(", "kernel k()() { let x = (1, 2) }", "$",
])  # fmt: skip
def test_text_that_is_not_loops(text):
    if not text:
        assert parse_loops(text) == Module((), ())
        return
    with pytest.raises(ValueError, match="line 1"):
        parse_loops(text)


def test_text_of_deep_expressions():
    deep = Var("n")
    for k in range(3000):
        deep = Apply("add", (i64(k), deep), "i64")
    module = Module((Kernel("k", ("n",), (), (Let("d", deep),)),), ())
    parsed = parse_loops(print_loops(module)).kernels[0].body[0].value
    for k in reversed(range(3000)):
        assert parsed.fn == "add" and parsed.args[0] == i64(k)
        parsed = parsed.args[1]
    assert parsed == Var("n")

"""Which loops threads share, as far as sizes decide it when a kernel runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import nnc
from nnc.compiler.loops import ir as L
from nnc.compiler.loops.meaning import shares
from nnc.compiler.loops.text import print_kernel
from nnc.compiler.lowering.kernels.sharing import ALWAYS, FEW, FORK, NEVER, all_of, more, negated, pays, sharing
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.compiler.types.sizes import substitute, symbol
from nnc.dsl.source import Source

B, T = symbol("B"), symbol("T")
NET = """
model Net(x: f32[B, 3, 56, 56]) -> (y: f32[B, 12]) {
    h = x |> Conv(64, 5, stride = 2, pad = 2) |> relu |> Conv(128, 3, pad = 1) |> max_pool(2) |> Conv(64, 1)
    y = h |> flatten |> Dense(400) |> softmax |> Dense(12)
}
"""


def value(condition: L.Expr, sizes: dict[str, int]) -> bool:
    loop = L.For("i", L.i64(0), L.i64(2), (), parallel=True, when=condition)
    return shares(L.Kernel("k", (), (), (loop,)), sizes)


@pytest.mark.parametrize("x", [3 * B - 20, 20 - 3 * B, B * T - 9, 9 - B * T, B - T + 2, 2 * T - B, 4 - B, B - 1])
def test_conditions_say_what_they_mean(x):
    conditions = [more(x, 0), negated(more(x, 0)), all_of([more(x, 0), more(B, 3), negated(more(B, 7))])]
    for b in range(1, 12):
        for t in range(1, 12):
            sizes = {"B": b, "T": t}
            holds = substitute(x, sizes) > 0
            assert [value(c, sizes) for c in conditions] == [holds, not holds, holds and 3 < b <= 7], (b, t)


def test_what_is_known_is_decided():
    assert more(3, 2) == ALWAYS and more(2, 2) == NEVER
    assert all_of([more(B, 4), negated(more(B, 4))]) == NEVER
    assert all_of([]) == ALWAYS == negated(NEVER)
    assert more(3 * B, 20) == L.Apply("gt", (L.Var("B"), L.i64(6)), "bool")
    assert pays(FORK + 1, 1) == ALWAYS and pays(FORK, 1) == NEVER
    assert pays((B + T) // (B - 1) * FORK, 1) != NEVER, "whatever it is where B is 1"
    assert pays(B * (FORK // 1_000_000), 1) == NEVER, "too little at any size that may well be"


def test_an_inner_loop_is_shared_where_the_outer_has_few_turns():
    rows = sharing(B * 10 * FORK, 1, (), B, 1)
    assert rows is not None
    columns = sharing(B * 10 * FORK, 1, (rows,), 640, 16)
    assert columns is not None
    rows.inner.append(columns.condition)
    for b in range(1, 20):
        outer, inner = (value(s.condition, {"B": b}) for s in (rows, columns))
        assert (outer, inner) == (b > FEW, b <= FEW)
    assert sharing(B * 10 * FORK, 1, (rows, columns), 100, 1) is None
    assert sharing(B * FORK // 2, 1, (rows,), 640, 16) is None, "too little for each row"
    steps = sharing(B * T * FORK, 1, (rows,), T, 1)
    assert steps is not None
    assert [value(steps.condition, {"B": 2, "T": t}) for t in (1, 2, 9)] == [False, True, True]
    known = sharing(100 * FORK, 1, (), 100, 1)
    assert sharing(100 * FORK, 1, (known,), 640, 16) is None, "100 turns are enough"
    assert sharing(100 * FORK, 99, (), 640, 16) is not None
    assert sharing(100 * FORK, 100, (), 640, 16) is None, "a hundred times a hundredth of the work"


def nested(stmts: tuple[L.Stmt, ...], around: tuple[L.For, ...] = ()) -> Iterator[tuple[L.For, ...]]:
    """Parallel loops with those around them."""
    for s in stmts:
        if isinstance(s, L.For):
            here = (*around, s) if s.parallel else around
            if s.parallel:
                yield here
            yield from nested(s.body, here)
        elif isinstance(s, L.If):
            yield from nested(s.body, around)


def test_of_two_loops_at_most_one_is_shared():
    session = Session(Source("a.nn", NET), Settings(cache=False))
    found = [loops for k in session.stages("predict").lowered.module.kernels for loops in nested(k.body)]
    pairs = [loops for loops in found if len(loops) == 2]
    assert len(pairs) >= 3 and max(map(len, found)) == 2
    for outer, inner in pairs:
        conditions = [all_of([ALWAYS if s.when is None else s.when for s in loops]) for loops in ((outer,), (inner,))]
        for b in range(1, 50):
            sizes = {"B": b, **dict.fromkeys(("v0", "v1"), (b + 1) // 2)}
            assert sum(value(c, sizes) for c in conditions) <= 1, (b, conditions)


def test_one_example_has_the_bits_it_has_among_many_on_any_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path))
    x = np.random.default_rng(0).normal(size=(9, 3, 56, 56)).astype(np.float32)
    alone, *others = (nnc.compile(NET, threads=threads, seed=3) for threads in (1, 2, 3))
    for batch in (1, 2, 3, 4, 9):
        want = alone.predict(x[:batch])
        for other in others:
            np.testing.assert_array_equal(other.predict(x[:batch]).view(np.int32), want.view(np.int32))


def test_a_size_that_divides_by_another_may_be_none_at_all():
    f = nnc.function("""fn f(x: f32[B], y: f32[N]) {
    z[i in 0..(N // (B - 1)), j in 0..B] = tanh(x[j] * y[0])
    return sum(z, axis = 1)
}""")
    np.testing.assert_allclose(f(np.ones(3, np.float32), np.ones(7, np.float32)), [3 * np.tanh(1)] * 3, rtol=1e-6)
    with pytest.raises(nnc.ArgumentError, match="E0606"):
        f(np.ones(1, np.float32), np.ones(7, np.float32))


def test_rows_are_shared_where_columns_are_fewer_than_a_tile():
    session = Session(Source("a.nn", "export f(w: f32[400, 400], x: f32[400, N]) = w @ x"), Settings(cache=False))
    (kernel,) = session.stages("f").lowered.module.kernels
    assert all(shares(kernel, {"N": n}) for n in (31, 32, 63, 640))


def test_what_a_turn_of_a_scan_does_is_the_work_of_a_turn():
    text = """model Net(x: f32[B, T, 64], w: f32[64, 64]) -> f32[B, 64] {
    h[b in 0..B, k in 0..64] = 0.0
    scan t in 0..T { h = tanh(h @ w + x[:, t]) }
    return h
}"""
    session = Session(Source("a.nn", text), Settings(cache=False))
    kernels = session.stages("predict").lowered.module.kernels
    assert not any(shares(k, dict.fromkeys(k.sizes, 0) | {"B": 4, "T": 100_000}) for k in kernels)


def test_integers_that_shares_leave_lie_where_integers_may():
    text = """export f(x: f32[B, 32], w: f32[32]) {
    y = tanh(x @ w)
    return (y / sum(exp(y)), cast(sum(cast(x > 0, i64)), f32))
}"""
    lowered = Session(Source("a.nn", text), Settings(cache=False)).stages("f").lowered
    kernels = {k.name: k for k in lowered.module.kernels}
    found = 0
    for call in lowered.entry.calls:
        for place, buffer in zip(call.places, kernels[call.kernel].buffers, strict=True):
            if place.base == "arena" and buffer.dtype in ("i64", "f64"):
                found += 1
                assert all(substitute(place.offset, {"B": b}) % 8 == 0 for b in range(1, 40)), place.offset
    assert found


@pytest.mark.parametrize(
    "right", ["f32[2048, 4096]) -> f32[1, 4096] = x @ w", "f32[4096, 2048]) -> f32[1, 4096] = x @ w.T"]
)
def test_a_vector_times_a_matrix_is_shared_with_all_of_its_work(right):
    """Not what is left of a sum in blocks: threads share columns around all of its turns."""
    session = Session(Source("a.nn", f"export f(x: f32[1, 2048], w: {right}"), Settings(cache=False))
    (kernel,) = session.stages("f").lowered.module.kernels
    (loop,) = (s for s in kernel.body if isinstance(s, L.For))
    assert loop.parallel and loop.when is None
    assert all(len(loops) == 1 for loops in nested(kernel.body))


NORMED = """export f(x: f32[N, 40]) {
    centred = x - mean(x, axis = 0)
    return (centred / sqrt(mean(centred * centred, axis = 0) + 1e-5), max(x, axis = 0))
}"""


def test_rows_are_shared_where_columns_are_few():
    """A batch is normalised: each of three passes over it is in shares, whose sums are put together."""
    session = Session(Source("a.nn", NORMED), Settings(cache=False))
    (kernel,) = session.stages("f").lowered.module.kernels
    assert len([*nested(kernel.body)]) == 3
    assert shares(kernel, {"N": 20_000}) and not shares(kernel, {"N": 200})


@pytest.mark.parametrize("rows", [1, 63, 768, 769, 4096, 4097, 20_000])
def test_shares_of_rows_give_the_same_bits_to_any_number_of_threads(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path))
    x = np.random.default_rng(rows).normal(size=(rows, 40)).astype(np.float32) + 3
    ways = ({"threads": 1}, {"threads": 2}, {"threads": 3}, {"threads": 2, "target_cpu": "x86-64-v3"})
    want, *others = ([a.view(np.int32) for a in nnc.compile(NORMED, **way).f(x)] for way in ways)
    for other in others:
        for a, b in zip(other, want, strict=True):
            np.testing.assert_array_equal(a, b)
    exact = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    exact /= np.sqrt((exact * exact).mean(axis=0) + 1e-5)
    np.testing.assert_allclose(want[0].view(np.float32), exact, atol=1e-5)
    np.testing.assert_array_equal(want[1].view(np.float32), x.max(axis=0))


WINDOWS = """export g(x: f32[B, 26, 18, 5], d: f32[B, 24, 16, 24], w: f32[5, 3, 3, 24]) -> f32[5, 3, 3, 24] {
    y[c in 0..5, u in 0..3, v in 0..3, k in 0..24] = sum[n, i, j](x[n, i + u, j + v, c] * d[n, i, j, k])
    return w - 0.5 * y
}"""


def test_examples_are_shared_where_a_sum_over_them_has_few_results():
    session = Session(Source("a.nn", WINDOWS), Settings(cache=False))
    kernels = session.stages("g").lowered.module.kernels
    (kernel,) = [k for k in kernels if any(b.name == "sum0" for b in k.buffers)]
    first = next(s for s in kernel.body if isinstance(s, L.For))
    assert first.parallel and shares(kernel, {"B": 16})


@pytest.mark.parametrize("examples", [0, 1, 2, 5, 16])
def test_runs_of_examples_give_the_same_bits_to_any_number_of_threads(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path))
    rng = np.random.default_rng(examples)
    shapes = (examples, 26, 18, 5), (examples, 24, 16, 24), (5, 3, 3, 24)
    x, d, w = (rng.normal(size=s).astype(np.float32) for s in shapes)
    ways = ({"threads": 1}, {"threads": 2}, {"threads": 5}, {"threads": 2, "target_cpu": "x86-64-v3"})
    found = [nnc.compile(WINDOWS, **way).g(x, d, w) for way in ways]
    assert len({a.tobytes() for a in found}) == 1
    parts = [np.einsum("nijc,nijk->ck", x[:, u : u + 24, v : v + 16], d) for u in range(3) for v in range(3)]
    wanted = w - 0.5 * np.stack(parts, axis=1).reshape(5, 3, 3, 24)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-3)


OWN = """
export panels(x: f32[B, 256], w: f32[128, 256]) -> f32[B, 128] = relu(x @ w.T)
export bands(x: f32[B, 16, 96], w: f32[96, 160]) -> f32[B, 16, 160] = relu(x @ w)
export gradient(x: f32[B, 224], d: f32[B, 120], m: f32[120, 224]) -> f32[120, 224] = 0.9 * m + d.T @ x
export filters(x: f32[20, 20, B], d: f32[6, 16, 16, B]) -> f32[6, 5, 5] {
    y[k, u in 0..5, v in 0..5] = sum[i, j, n](x[i + u, j + v, n] * d[k, i, j, n])
    return y
}
"""
OWN_SHAPES = {
    "panels": ("B 256", "128 256"),
    "bands": ("B 16 96", "96 160"),
    "gradient": ("B 224", "B 120", "120 224"),
    "filters": ("20 20 B", "6 16 16 B"),
}


@pytest.mark.parametrize(
    ("entry", "first"),
    [
        ("panels", "for i0 in 0..128 step 32 parallel"),
        ("bands", "for i0 in 0..B * 16 step "),
        ("gradient", "for i0 in 0..120 step "),
        ("filters", "for i0 in 0..10 parallel"),
    ],
)
def test_threads_have_rows_and_columns_of_their_own(entry, first):
    """Columns of which they copied the panels, an even number; rows where these are many, or a gradient's; filters."""
    lowered = Session(Source("a.nn", OWN), Settings(cache=False, target_cpu="x86-64-v4")).stages(entry).lowered
    *_, kernel = (k for k in lowered.module.kernels if any(isinstance(s, L.For) and s.parallel for s in k.body))
    shared = [line for line in print_kernel(kernel).split("\n") if "parallel" in line]
    assert shared[0].strip().startswith(first)


@pytest.mark.parametrize("entry", OWN_SHAPES)
def test_own_rows_and_columns_give_the_same_bits_to_any_number_of_threads(entry, tmp_path, monkeypatch):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path))
    nets = [nnc.compile(OWN, threads=k) for k in (1, 2, 3, 8)]
    for examples in (0, 1, 7, 64, 100, 301):
        rng = np.random.default_rng(examples)
        shapes = [[examples if n == "B" else int(n) for n in s.split()] for s in OWN_SHAPES[entry]]
        given = [rng.standard_normal(s, dtype=np.float32) for s in shapes]
        found = [getattr(net, entry)(*given) for net in nets]
        assert len({a.tobytes() for a in found}) == 1
        x, w, *rest = (a.astype(np.float64) for a in given)
        if entry == "filters":
            windows = np.lib.stride_tricks.sliding_window_view(x, (16, 16), axis=(0, 1))
            wanted = np.einsum("uvnij,kijn->kuv", windows, w)
        else:
            wanted = 0.9 * rest[0] + w.T @ x if rest else np.maximum(x @ (w.T if entry == "panels" else w), 0)
        np.testing.assert_allclose(found[0], wanted, rtol=1e-3, atol=1e-3)

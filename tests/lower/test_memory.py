"""The memory plan: what lives at the same time lies apart, for every batch size; updates happen in place, in an order
that lets everybody read what they need; and the arena is close to its lower bound."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import OPS
from nnc.compiler.lowering.memory import plan
from nnc.compiler.passes.dce import dce
from nnc.compiler.passes.fuse import fuse
from nnc.compiler.types.sizes import substitute, symbol
from nnc.compiler.types.tensors import TensorType

from ..graphs import einsum

B, T = symbol("B"), symbol("T")


def check(planned, sizes):
    """No two buffers that live at one time overlap, and all are inside the arena."""
    arena = substitute(planned.arena, sizes)
    spans = [(substitute(b.offset, sizes), substitute(b.offset + b.size, sizes), b) for b in planned.lines]
    for k, (start, stop, b) in enumerate(spans):
        assert 0 <= start and stop <= arena
        for other, end, c in spans[:k]:
            if b.born <= c.dies and c.born <= b.dies:
                assert stop <= other or end <= start, (b, c)
    assert planned.lower_bound(sizes)[0] <= arena


@settings(max_examples=150, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(rng=st.randoms(use_true_random=False), fused=st.booleans())
def test_nothing_overlaps(rng, fused, random_graph):
    graph = dce(random_graph(rng, "f32"))
    planned = plan(fuse(graph) if fused else graph)
    for size in (0, 1, 3, 100):
        check(planned, {"B": size})


def chain(length, *shape):
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", shape))
    for _ in range(length):
        x = b.emit("tanh", x)
    return b, x


def test_a_chain_works_in_place():
    b, y = chain(50, B, 16)
    planned = plan(b.finish((("y", y),)))
    assert planned.arena == 64 * B and len(planned.lines) == 1, "one buffer of 4 * 16 bytes per example"


def test_the_arena_is_a_polynomial_in_the_sizes():
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (B, T, 16)))
    y = b.emit("transpose", b.emit("tanh", x), perm=(1, 0, 2))
    z = b.emit("exp", b.emit("reduce_sum", y, axes=(0,)))
    w = b.emit("reduce_max", z, axes=(0, 1))
    planned = plan(b.finish((("y", b.emit("neg", y)), ("w", b.emit("neg", w)))))
    assert str(planned.arena) == "128*B*T + 64*B + 64"
    for sizes in ({"B": 1, "T": 1}, {"B": 7, "T": 3}, {"B": 0, "T": 5}):
        check(planned, sizes)


def test_the_plan_of_a_deep_network_is_near_its_lower_bound():
    b = Builder("g", OPS)
    h = b.emit("input", name="x", type=TensorType("f32", (B, 64)))
    kept = []
    for k, width in enumerate((96, 32, 128, 64, 16, 80, 48)):
        w = b.emit("param", path=f"w{k}", type=TensorType("f32", (b.shape(h)[1], width)))
        h = b.emit("tanh", einsum(b, "bi,io->bo", h, w))
        kept.append((h, w))
    d = h
    outputs = []
    for k, (h, w) in reversed(list(enumerate(kept))):
        outputs.append((f"g{k}", b.emit("reduce_sum", b.emit("mul", d, h), axes=(0,))))
        d = einsum(b, "bo,io->bi", b.emit("mul", d, h), w)
    planned = plan(fuse(b.finish(tuple(outputs))))
    for size in (1, 32, 1000):
        bound, _ = planned.lower_bound({"B": size})
        check(planned, {"B": size})
        assert substitute(planned.arena, {"B": size}) <= 1.25 * bound + 512


def test_what_a_kernel_may_need_lies_behind_what_it_needs():
    b, y = chain(1, 16)
    planned = plan(b.finish((("y", y),)), {y: (64, 640, 6400)})
    assert {line.values[0][1]: line.offset for line in planned.lines} == {-1: 0, -2: 64, -3: 64 + 640}


def test_what_is_made_of_variables_waits_for_its_reader():
    """Eight transforms of weights, written before all that reads them: two of them lie in the arena at a time."""
    b = Builder("g", OPS)
    weights = [b.emit("param", path=f"w{k}", type=TensorType("f32", (100, 100))) for k in range(8)]
    transforms = [b.emit("tanh", b.emit("tanh", w)) for w in weights]
    h = b.emit("input", name="x", type=TensorType("f32", (1, 100)))
    for t in transforms:
        h = einsum(b, "bi,io->bo", h, t)
    planned = plan(b.finish((("y", h),)))
    check(planned, {})
    assert planned.arena <= 2 * 40_000 + 2 * 448


@pytest.mark.parametrize("case", ["swap", "rotate", "sum", "momentum", "copy", "same value twice", "output too"])
def test_updates_commit_together(case, compiled):
    """Whatever the order and wherever the new values are made, everybody who reads a variable reads the old value."""
    b = Builder("g", OPS)
    p, q, r = (b.emit("param", path=n, type=TensorType("f32", (8,))) for n in "pqr")
    outputs = ()
    match case:
        case "swap":
            updates = (("p", q), ("q", p))
        case "rotate":
            updates = (("p", b.emit("neg", q)), ("q", b.emit("neg", r)), ("r", b.emit("neg", p)))
        case "sum":
            total = b.emit("add", p, q)
            updates = (("p", total), ("q", b.emit("mul", total, p)), ("r", b.emit("flip", r, axes=(0,))))
        case "momentum":
            m = b.emit("add", b.emit("mul", p, p), q)
            updates = (("p", m), ("q", b.emit("sub", q, m)))
            outputs = (("old", b.emit("reduce_sum", q, axes=(0,))),)
        case "copy":
            updates = (("p", q), ("r", q))
            outputs = (("p was", p), ("q is", q))
        case "same value twice":
            m = b.emit("mul", p, q)
            updates = (("p", m), ("q", m))
            outputs = (("m", m), ("again", m))
        case "output too":
            m = b.emit("sub", b.emit("reshape", p, shape=(2, 4)), b.emit("reshape", q, shape=(2, 4)))
            m = b.emit("reshape", m, shape=(8,))
            updates = (("p", m),)
            outputs = (("m", b.emit("reshape", m, shape=(4, 2))), ("p", p))
    graph = b.finish(outputs, updates)
    rng = np.random.default_rng(0)
    params = {n: rng.standard_normal(8).astype(np.float32) for n in "pqr"}
    wanted, new = evaluate(graph, {}, params)
    for g in (graph, fuse(graph)):
        got, variables = compiled(g)({}, params)
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-6, err_msg=name)
        for name, value in (params | new).items():
            np.testing.assert_allclose(variables[name], value, rtol=1e-6, err_msg=name)


def test_an_optimiser_needs_no_arena():
    b = Builder("g", OPS)
    t = TensorType("f32", (1000,))
    p, m, v = (b.emit("param", path=n, type=t) for n in "pmv")
    g = b.emit("input", name="g", type=t)
    m = b.emit("add", m, g)
    v = b.emit("add", v, b.emit("mul", g, g))
    p = b.emit("sub", p, b.emit("div", m, b.emit("sqrt", v)))
    planned = plan(fuse(b.finish((), (("p", p), ("m", m), ("v", v)))))
    assert planned.arena == 0 and len(planned.order) == 1 and not planned.copies


@pytest.mark.parametrize("axis", [0, 1])
def test_a_softmax_overwrites_its_operand(axis, compiled):
    b = Builder("g", OPS)
    x = b.emit("tanh", b.emit("input", name="x", type=TensorType("f32", (B, 9))))
    x = einsum(b, "bi,io->bo", x, b.emit("input", name="w", type=TensorType("f32", (9, 9))))
    kept = (1 - axis,)
    top = b.emit("broadcast", b.emit("reduce_max", x, axes=(axis,)), shape=(B, 9), axes=kept)
    e = b.emit("exp", b.emit("sub", x, top))
    p = b.emit("div", e, b.emit("broadcast", b.emit("reduce_sum", e, axes=(axis,)), shape=(B, 9), axes=kept))
    graph = b.finish((("y", b.emit("flip", p, axes=(axis,))),))
    run = compiled(fuse(graph))
    (line,) = (line for line in run.lowered.plan.lines if len(line.values) == 2)
    assert line.size == 36 * B
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((5, 9), np.float32), "w": rng.standard_normal((9, 9), np.float32)}
    np.testing.assert_allclose(run(given, None, {"B": 5})[0]["y"], evaluate(graph, given)[0]["y"], rtol=1e-5, atol=1e-7)


def test_a_later_stage_reads_what_an_earlier_result_must_not_overwrite(compiled):
    """a is stored in the first stage of the fold, but the second still reads x: a cannot lie where x lies."""
    b = Builder("g", OPS)
    x = b.emit("param", path="p", type=TensorType("f32", (6, 40)))
    a = b.emit("neg", x)
    total = b.emit("broadcast", b.emit("reduce_sum", a, axes=(1,)), shape=(6, 40), axes=(0,))
    c = b.emit("mul", x, total)
    d = b.emit("exp", total)
    graph = b.finish((("c", c), ("d", d)), (("p", a),))
    given = {"p": np.random.default_rng(0).standard_normal((6, 40), np.float32) / 9}
    wanted, new = evaluate(graph, {}, given)
    for g in (graph, fuse(graph)):
        got, variables = compiled(g)({}, given)
        np.testing.assert_allclose(got["c"], wanted["c"], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(variables["p"], new["p"])

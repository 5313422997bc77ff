"""Lowered, compiled and run, a graph computes what the reference interpreter says: each operator in f32 and f64, random
graphs fused and not, for any batch size and every instruction set."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.graph.ops.op import ABSTRACT
from nnc.compiler.graph.verify import verify
from nnc.compiler.loops.ir import For, Let, Load, walk
from nnc.compiler.loops.text import print_loops
from nnc.compiler.passes.dce import dce
from nnc.compiler.passes.fuse import fuse
from nnc.compiler.passes.guard import check
from nnc.compiler.scalar import storage
from nnc.compiler.session import Session
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType, TupleType
from nnc.dsl.source import Source

from ..graphs import einsum

STORAGE = tuple(f.name for f in storage.ALL)  # of f32 alone
COMPUTED = [op for op in OPS.values() if op.kind != ABSTRACT and op.reference and op.samples and op.name != "item"]
TARGETS = ("native", "x86-64-v3", "x86-64-v2", "serial")
B = symbol("B")


def draw(rng, t, low, high):
    if t.dtype == "bool":
        return rng.random(t.shape) < 0.5
    if t.dtype in ("i32", "i64"):
        return rng.integers(int(low), max(int(high), int(low) + 1), t.shape).astype(NUMPY[t.dtype])
    return (rng.random(t.shape) * (high - low) + low).astype(NUMPY[t.dtype])


def wide(x):
    """f64 for f32, in a type or in attributes."""
    match x:
        case TensorType("f32", shape):
            return TensorType("f64", shape)
        case TupleType(items):
            return TupleType(tuple(map(wide, items)))
        case "f32":
            return "f64"
    return x


@pytest.mark.parametrize("target", ["native", "serial"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("op", COMPUTED, ids=lambda op: op.name)
def test_every_operator(op, dtype, target, compiled):
    b, rng, inputs = Builder("g", OPS), np.random.default_rng(0), {}
    outputs = []
    for k, sample in enumerate(op.samples):
        types = [wide(t) if dtype == "f64" and op.name not in STORAGE else t for t in sample.types]
        attrs = {n: wide(v) if dtype == "f64" else v for n, v in sample.attrs.items()}
        args = tuple(b.emit("input", name=f"x{k}_{i}", type=t) for i, t in enumerate(types))
        inputs |= {a: draw(rng, t, sample.low, sample.high) for a, t in zip(args, types, strict=True)}
        outputs.append((f"y{k}", b.add(op.name, args, attrs)))
    graph = b.finish(tuple(outputs))
    wanted, _ = evaluate(graph, inputs)
    for g in (graph, fuse(graph)):
        got, _ = compiled(g, target)(inputs)
        for name in wanted:
            tolerance = 2e-6 if wanted[name].dtype == np.float32 else 1e-12
            if op.name == "filter_gradient":  # differences of sums
                tolerance *= np.abs(wanted[name]).max()
            np.testing.assert_allclose(got[name], wanted[name], rtol=tolerance, atol=tolerance, err_msg=name)


@settings(max_examples=60, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(rng=st.randoms(use_true_random=False), dtype=st.sampled_from(["f32", "f64"]),
       size=st.sampled_from([1, 2, 7, 16, 33]), target=st.sampled_from(TARGETS))  # fmt: skip
def test_random_graphs(rng, dtype, size, target, compiled, random_graph, random_arrays):
    graph = dce(random_graph(rng, dtype))
    inputs, params = random_arrays(graph, {"B": size})
    outputs, updates = evaluate(graph, inputs, params, {"B": size})
    fused = verify(fuse(graph), "fuse")
    again, _ = evaluate(fused, inputs, params, {"B": size})
    tolerance = {"rtol": 2e-4, "atol": 2e-4} if dtype == "f32" else {"rtol": 1e-9, "atol": 1e-9}
    for name, value in outputs.items():
        np.testing.assert_allclose(again[name], value, **tolerance, err_msg=f"{name}, fused, interpreted")
    for g in (graph, fused):
        got, variables = compiled(g, target)(inputs, params, {"B": size})
        for name, value in outputs.items():
            np.testing.assert_allclose(got[name], value, **tolerance, err_msg=name)
        for path, value in updates.items():
            np.testing.assert_allclose(variables[path], value, **tolerance, err_msg=path)


def test_one_entry_serves_every_batch(compiled):
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (B, 6)))
    w = b.emit("input", name="w", type=TensorType("f32", (6, 11)))
    h = b.emit("contract", x, w, domain=(("b", B), ("i", 6), ("o", 11)), shape=(B, 11),
               maps=(((0, (("b", 1),)), (0, (("i", 1),))), ((0, (("i", 1),)), (0, (("o", 1),)))),
               out=((0, (("b", 1),)), (0, (("o", 1),))))  # fmt: skip
    y = b.emit("tanh", h)
    total, sums = b.emit("reduce_sum", y, axes=(0, 1)), b.emit("reduce_sum", y, axes=(0,))
    graph = b.finish((("y", y), ("total", total), ("sums", sums)))
    run, rng = compiled(fuse(graph)), np.random.default_rng(1)
    w = rng.standard_normal((6, 11), np.float32)
    for n in (0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 64, 65):
        inputs = {"x": rng.standard_normal((n, 6), np.float32), "w": w}
        wanted, _ = evaluate(graph, inputs)
        got, _ = run(inputs, None, {"B": n})
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-5)


def test_the_bits_are_the_same_on_every_target(compiled):
    """Lanes are logical and multiply-adds explicit, and one that a target lacks is written out."""
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (B, 37)))
    w = b.emit("input", name="w", type=TensorType("f32", (50, 37)))
    h = b.emit("contract", x, w, domain=(("b", B), ("o", 50), ("i", 37)), shape=(B, 50),
               maps=(((0, (("b", 1),)), (0, (("i", 1),))), ((0, (("o", 1),)), (0, (("i", 1),)))),
               out=((0, (("b", 1),)), (0, (("o", 1),))))  # fmt: skip
    y = b.emit("exp", b.emit("tanh", h))
    sums = tuple((f"sum{axes}", b.emit("reduce_sum", y, axes=axes)) for axes in ((0,), (1,), (0, 1)))
    graph = fuse(b.finish((("h", h), *sums)))
    rng = np.random.default_rng(2)
    inputs = {"x": rng.standard_normal((29, 37), np.float32), "w": rng.standard_normal((50, 37), np.float32)}
    first, *others = (compiled(graph, t)(inputs, None, {"B": 29})[0] for t in TARGETS)
    for name in first:
        for other in others:
            np.testing.assert_array_equal(first[name].view(np.int32), other[name].view(np.int32), err_msg=name)


@pytest.mark.parametrize("op", ["gather", "take_along", "scatter_add"])
def test_an_index_outside_is_an_error_and_changes_nothing(op, compiled):
    b = Builder("g", OPS)
    table = b.emit("param", path="p", type=TensorType("f32", (4, 3)))
    index = b.emit("input", name="i", type=TensorType("i32", (4,)))
    args = (index, table) if op == "scatter_add" else (table, index)
    y = b.emit(op, *args, **({"size": 3} if op == "scatter_add" else {}))
    new = b.emit("neg", table)
    run = compiled(fuse(check(b.finish((("y", y),), (("p", new),)))))
    p = np.arange(12, dtype=np.float32).reshape(4, 3)
    for bad in (-1, 3 if op != "gather" else 4, 1000):
        with pytest.raises(IndexError, match=f"an index of {op} by `i` is outside an axis of size"):
            run({"i": [0, 1, bad, 2]}, {"p": p})
        np.testing.assert_array_equal(run.arrays["p"], p)
    _, variables = run({"i": [0, 1, 2, 2]}, {"p": p})
    np.testing.assert_array_equal(variables["p"], -p)


def test_equal_kernels_are_one(compiled):
    b = Builder("g", OPS)
    names = [b.emit("input", name=f"x{k}", type=TensorType("f32", (8, 16))) for k in range(5)]
    graph = b.finish(tuple((f"y{k}", b.emit("tanh", x)) for k, x in enumerate(names)))
    module = compiled(graph).lowered.module
    assert len(module.entries[0].calls) == 5 and len(module.kernels) == 1


def test_a_chain_over_contiguous_arrays_is_one_flat_loop(compiled):
    """Whatever its rank, and with reshapes in it: no division is left, and no second loop."""
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (B, 4, 6)))
    y = b.emit("reshape", b.emit("exp", x), shape=(B, 24))
    z = b.emit("reshape", b.emit("add", y, b.emit("reshape", x, shape=(B, 24))), shape=(2 * B, 12))
    text = print_loops(compiled(fuse(b.finish((("z", b.emit("neg", z)),)))).lowered.module)
    kernels = text.split("entry")[0]
    assert kernels.count("kernel ") == kernels.count("for ") == 1 and "//" not in kernels and "mod" not in kernels


def test_the_bits_are_the_same_for_any_number_of_threads(compiled, pool):
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (B, 300)))
    w = b.emit("input", name="w", type=TensorType("f32", (1300, 300)))
    h = b.emit("tanh", einsum(b, "bi,oi->bo", x, w))
    small = einsum(b, "bo,bi->oi", h, x)
    top = b.emit("broadcast", b.emit("reduce_max", h, axes=(1,)), shape=(B, 1300), axes=(0,))
    e = b.emit("exp", b.emit("sub", h, top))
    p = b.emit("div", e, b.emit("broadcast", b.emit("reduce_sum", e, axes=(1,)), shape=(B, 1300), axes=(0,)))
    columns, total = b.emit("reduce_sum", p, axes=(0,)), b.emit("reduce_sum", b.emit("mul", x, x), axes=(0, 1))
    taken = b.emit("exp", b.emit("gather", x, b.emit("input", name="i", type=TensorType("i32", (B,))), axis=0))
    outputs = {"h": h, "small": small, "p": p, "columns": columns, "total": total, "taken": taken}
    run = compiled(fuse(check(b.finish(tuple(outputs.items())))))
    assert sum(s.parallel for k in run.lowered.module.kernels for s in k.body if isinstance(s, For)) >= 3
    rng = np.random.default_rng(3)
    for n in (1, 37, 200):
        inputs = {"x": rng.standard_normal((n, 300), np.float32), "w": rng.standard_normal((1300, 300), np.float32)}
        inputs["i"] = rng.integers(0, n, n)
        alone, _ = run(inputs, None, {"B": n})
        for threads in (2, 3):
            together, _ = run(inputs, None, {"B": n}, pool(threads))
            for name in alone:
                np.testing.assert_array_equal(alone[name].view(np.int32), together[name].view(np.int32), err_msg=name)
    inputs["i"][5] = n
    with pytest.raises(IndexError, match="gather"):
        run(inputs, None, {"B": n}, pool(2))


def test_the_two_zeros_are_two_values(compiled):
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (4,)))
    outputs = []
    for k, value in enumerate((0.0, -0.0)):
        c = b.emit("constant", values=(value,), type=TensorType("f32"))
        outputs.append((f"div{k}", b.emit("div", x, b.emit("broadcast", c, shape=(4,), axes=()))))
        outputs.append((f"pad{k}", b.emit("pad", x, low=(1,), high=(0,), value=value)))
    graph = b.finish(tuple(outputs))
    inputs = {"x": np.array([1, -2, 3, -4], np.float32)}
    wanted, _ = evaluate(graph, inputs)
    for g in (graph, fuse(graph)):
        got, _ = compiled(g)(inputs)
        for name in wanted:
            np.testing.assert_array_equal(got[name].view(np.int32), wanted[name].view(np.int32), err_msg=name)


def test_sizes_may_be_called_like_the_names_of_a_kernel(compiled):
    b = Builder("g", OPS)
    shape = tuple(symbol(s) for s in ("i0", "v0", "x0"))
    x = b.emit("input", name="x", type=TensorType("f32", shape))
    y = b.emit("transpose", b.emit("tanh", x), perm=(2, 0, 1))
    graph = b.finish((("y", y), ("s", b.emit("reduce_sum", y, axes=(1,)))))
    inputs = {"x": np.random.default_rng(0).standard_normal((3, 4, 5), np.float32)}
    wanted, _ = evaluate(graph, inputs)
    for g in (graph, fuse(graph)):
        got, _ = compiled(g)(inputs, None, {"i0": 3, "v0": 4, "x0": 5})
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5)


def test_pieces_side_by_side_may_be_read_elsewhere(compiled):
    """A loop for each piece of a concat or pad along the last axis; where a piece is read at another index, too, the
    value there is that of the whole."""
    b = Builder("g", OPS)
    x, y = (b.emit("input", name=n, type=TensorType("f32", (3, k))) for n, k in (("x", 5), ("y", 18)))
    c = b.emit("concat", x, y, axis=1)
    p = b.emit("pad", c, low=(0, 1), high=(0, 2), value=-1.0)
    z = b.emit("add", b.emit("exp", c), b.emit("flip", c, axes=(1,)))
    q = b.emit("mul", p, b.emit("flip", p, axes=(1,)))
    graph = fuse(b.finish((("z", z), ("q", q))))
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((3, 5)).astype(np.float32), "y": rng.standard_normal((3, 18)).astype(np.float32)}
    got, _ = compiled(graph)(given)
    wanted, _ = evaluate(graph, given)
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-6, err_msg=name)


def test_statements_know_the_node_that_they_are_for():
    """Of a fused kernel: each statement that computes a node's value says which, loops that serve all say none."""
    session = Session(Source("<text>", "fn f(x: f32[N, 8]) -> f32[N] = sum(exp(x) * 3.0, axis = 1)"))
    made = session.stages("f")
    (call,) = made.lowered.entry.calls
    (kernel,) = made.lowered.module.kernels
    body = list(made.fused[call.node].attrs["body"])
    found = {
        body[k].op: s for s, k in zip(walk(kernel.body), call.origin, strict=True) if k >= 0 and isinstance(s, Let)
    }
    assert found["exp"].value.fn == "exp" and found["mul"].value.fn == "mul"
    assert isinstance(found["input"].value, Load)

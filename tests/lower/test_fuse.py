"""Fusion: what is one kernel and what is not, what is computed again and what is stored."""

import numpy as np
import pytest

from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.text import parse_graph, print_graph
from nnc.compiler.graph.verify import verify
from nnc.compiler.passes.fuse import LARGE, fuse
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType

from ..graphs import einsum

B = symbol("B")


def kernels(graph):
    """The operators of each kernel, in order."""
    out = []
    for n in graph:
        if n.op == "fused":
            out.append([m.op for m in n.attrs["body"] if m.op != "input"])
        elif n.op not in ("input", "param", "item", "constant", "reshape"):
            out.append([n.op])
    return out


def grown(*shapes):
    b = Builder("g", OPS)
    return b, *(b.emit("input", name=f"x{k}", type=TensorType("f32", s)) for k, s in enumerate(shapes))


def softmax(b, x, axis):
    s = b.shape(x)
    kept = tuple(k for k in range(len(s)) if k != axis)
    top = b.emit("broadcast", b.emit("reduce_max", x, axes=(axis,)), shape=s, axes=kept)
    e = b.emit("exp", b.emit("sub", x, top))
    return b.emit("div", e, b.emit("broadcast", b.emit("reduce_sum", e, axes=(axis,)), shape=s, axes=kept))


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_is_one_kernel(axis):
    b, x = grown((B, 10))
    graph = fuse(b.finish((("y", softmax(b, x, axis)),)))
    assert len(kernels(graph)) == 1


def test_a_normalisation_is_one_kernel(compiled):
    b, x, gain = grown((B, 3, 20), (20,))
    s = b.shape(x)

    def mean(v):
        n = b.emit("constant", values=(20.0,), type=TensorType("f32"))
        m = b.emit("div", b.emit("reduce_sum", v, axes=(2,)), b.emit("broadcast", n, shape=s[:2], axes=()))
        return b.emit("broadcast", m, shape=s, axes=(0, 1))

    centred = b.emit("sub", x, mean(x))
    y = b.emit("mul", centred, b.emit("rsqrt", mean(b.emit("mul", centred, centred))))
    graph = b.finish((("y", b.emit("mul", y, b.emit("broadcast", gain, shape=s, axes=(2,)))),))
    fused = fuse(graph)
    assert len(kernels(fused)) == 1
    rng = np.random.default_rng(0)
    given = {"x0": rng.standard_normal((5, 3, 20), np.float32), "x1": rng.standard_normal(20, np.float32)}
    got, _ = compiled(fused)(given, None, {"B": 5})
    np.testing.assert_allclose(got["y"], evaluate(graph, given)[0]["y"], rtol=1e-5, atol=1e-6)


def test_a_dear_value_is_computed_once_and_a_cheap_one_again():
    b, x, w = grown((B, 8), (8, 4))
    dear = b.emit("tanh", x)
    outputs = (("a", einsum(b, "bi,io->bo", dear, w)), ("c", b.emit("reduce_sum", b.emit("neg", dear), axes=(0,))))
    (first, *rest) = kernels(fuse(b.finish(outputs)))
    assert first.count("tanh") == 1 and not any("tanh" in k for k in rest)
    b, x = grown((B, 8))
    cheap = b.emit("neg", x)
    outputs = (("a", b.emit("reduce_sum", cheap, axes=(0,))), ("b", b.emit("reduce_sum", cheap, axes=(1,))))
    assert kernels(fuse(b.finish(outputs))) == [["neg", "reduce_sum"]] * 2


def test_a_dear_value_is_not_computed_for_each_of_its_copies():
    b, scale, x = grown((8,), (B, 8))
    y = b.emit("mul", x, b.emit("broadcast", b.emit("exp", scale), shape=(B, 8), axes=(1,)))
    assert kernels(fuse(b.finish((("y", y),)))) == [["exp"], ["broadcast", "mul"]]


def test_a_merge_never_closes_a_cycle(compiled):
    """d needs c by way of a product: c and d walk over one box, but cannot be one kernel."""
    b, x, w = grown((B, 8), (8, 4))
    c = b.emit("exp", x)
    total = b.emit("reduce_sum", einsum(b, "bi,io->bo", c, w), axes=(0, 1))
    d = b.emit("mul", c, b.emit("broadcast", total, shape=(B, 8), axes=()))
    graph = b.finish((("d", d), ("c", c)))
    fused = verify(fuse(graph), "fuse")
    assert [k[-1] for k in kernels(fused)] == ["exp", "contract", "reduce_sum", "mul"]
    rng = np.random.default_rng(0)
    given = {"x0": rng.standard_normal((3, 8), np.float32) / 9, "x1": rng.standard_normal((8, 4), np.float32)}
    got, _ = compiled(fused)(given, None, {"B": 3})
    np.testing.assert_allclose(got["d"], evaluate(graph, given)[0]["d"], rtol=1e-5)


def test_a_value_read_elsewhere_stays_apart():
    """A shift of a reduction's companion is not at the point of the loop."""
    b, x = grown((B, 8))
    p = softmax(b, x, 1)
    shifted = b.emit("flip", p, axes=(1,))
    graph = fuse(b.finish((("y", b.emit("add", p, shifted)),)))
    assert len(kernels(graph)) == 2


def test_what_is_made_of_one_variable_for_several_readers_stays_apart():
    """Each can then wait for its reader."""
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType("f32", (B, 5)))
    w = b.emit("param", path="w", type=TensorType("f32", (5, 5)))
    for way in ("tanh", "exp"):
        x = einsum(b, "bi,io->bo", x, b.emit(way, w))
    assert kernels(fuse(b.finish((("y", x),)))) == [["tanh"], ["contract"], ["exp"], ["contract"]]


def test_regions_stay_small_and_chains_long():
    b, x = grown((B, 8))
    for _ in range(2000):
        x = b.emit("tanh", b.emit("add", x, x))
    graph = verify(fuse(b.finish((("y", x),))), "fuse")
    sizes = [len(k) for k in kernels(graph)]
    assert sum(sizes) == 4000 and max(sizes) <= LARGE


def test_the_text_reads_back():
    b, x = grown((B, 10))
    y = softmax(b, x, 1)
    graph = fuse(b.finish((("y", y), ("m", b.emit("reduce_max", y, axes=(1,))))))
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text


def test_fusing_twice_changes_nothing():
    b, x = grown((B, 10))
    graph = fuse(b.finish((("y", softmax(b, x, 1)),)))
    assert fuse(graph) is graph


def test_dead_ends_and_repeated_outputs(compiled):
    b, x = grown((4, 6))
    b.emit("exp", b.emit("reduce_sum", x, axes=(0,)))
    y = b.emit("tanh", x)
    graph = fuse(b.finish((("a", y), ("b", y), ("x", x), ("r", b.emit("reshape", y, shape=(24,))))))
    given = {"x0": np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)}
    got, _ = compiled(graph)(given)
    for name in "abr":
        np.testing.assert_allclose(got[name].reshape(4, 6), np.tanh(given["x0"]), rtol=1e-6)
    np.testing.assert_array_equal(got["x"], given["x0"])


def test_a_merge_far_apart_never_closes_a_cycle():
    """Siblings that were merged carry a dependence backwards in the order of the graph: v34 beside v17 needs v27."""
    text = """graph @g {
      %x = input : f32[B, 5]
      %p = param {path = "p"} : f32[5, 4]
      %q = param {path = "q"} : f32[20]
      %a = mul %p, %p : f32[5, 4]
      %b = contract %x, %a {[i, k] += [i, j] * [j, k] for i < B, j < 5, k < 4} : f32[B, 4]
      %c = reduce_sum %b {axes = [0, 1]} : f32
      %d = reduce_sum %q {axes = [0]} : f32
      %e = broadcast %d {axes = []} : f32[5, 4]
      %f = sub %p, %e : f32[5, 4]
      %g = broadcast %c {axes = []} : f32[20]
      %h = mul %q, %g : f32[20]
      %i = reduce_sum %h {axes = [0]} : f32
      output f = %f
      output i = %i
    }"""
    assert len(kernels(verify(fuse(parse_graph(text)), "fuse"))) <= 5

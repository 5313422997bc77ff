"""Facts about derivatives: the lecture's figures, values at corners, and paths that have none."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

import nnc
from nnc.compiler.autodiff.differentiate import differentiate
from nnc.compiler.graph.interpret import bind_sizes, evaluate
from nnc.compiler.graph.nodes import Builder, Graph, Node
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.calculus import Value
from nnc.compiler.graph.text import parse_graph, print_graph
from nnc.compiler.graph.verify import verify
from nnc.compiler.passes import ALWAYS, REWRITE, run
from nnc.compiler.types.facts import Relation
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType
from nnc.dsl.errors import ArgumentError, InternalError, SourceError

from .graphs import einsum

B = symbol("B")


class Sketch:
    """A graph being written by hand."""

    def __init__(self) -> None:
        self.b = Builder("g", OPS)

    def input(self, name: str, *shape: object, dtype: str = "f64") -> Value:
        return Value(self.b, self.b.emit("input", name=name, type=TensorType(dtype, shape)))

    def param(self, name: str, *shape: int) -> Value:
        return Value(self.b, self.b.emit("param", name=name, path=name, type=TensorType("f64", shape)))

    def grad(self, y: Value, *xs: Value) -> list[Value]:
        g = self.b.emit("grad", y.name, *(x.name for x in xs))
        return [Value(self.b, self.b.emit("item", g, index=k)) for k in range(len(xs))]

    def finish(self, **outputs: Value) -> Graph:
        return self.b.finish(tuple((k, v.name) for k, v in outputs.items()))


def total(x: Value) -> Value:
    return x.apply("reduce_sum", axes=tuple(range(x.type.rank)))


def mm(x: Value, y: Value) -> Value:
    return Value(x.b, einsum(x.b, "ij,jk->ik", x.name, y.name))


def optimized(graph: Graph) -> Graph:
    return run(REWRITE, run(ALWAYS, graph))


def kinds(graph: Graph, *but: str) -> list[str]:
    return [n.op for n in graph if n.op not in ("input", "param", "constant", "broadcast", *but)]


# --- figures ---------------------------------------------------------------------------------------------------------


def polynomial(graph: Graph, output: str) -> dict[int, float]:
    """An output as a polynomial of the one input: exact, by arithmetic on coefficients."""
    values: dict[str, dict[int, float]] = {}
    for n in graph:
        args = [values[a] for a in n.args]
        match n.op:
            case "input":
                p = {1: 1.0}
            case "constant":
                p = {0: n.attrs["values"][0]}
            case "add" | "sub":
                p = dict(args[0])
                for k, c in args[1].items():
                    p[k] = p.get(k, 0) + (c if n.op == "add" else -c)
            case "mul":
                p = {}
                for i, c in args[0].items():
                    for j, d in args[1].items():
                        p[i + j] = p.get(i + j, 0) + c * d
            case _:
                raise AssertionError(f"{n.op} is no polynomial")
        values[n.name] = {k: c for k, c in p.items() if c}
    return values[dict(graph.outputs)[output]]


def test_the_derivative_of_the_lecture_is_found_symbolically() -> None:
    """u = t^2, v = 3t + 1, r = uv: dr/dt = 9t^2 + 2t."""
    s = Sketch()
    t = s.input("t")
    u, v = t.apply("pow", 2), 3 * t + 1
    (d,) = s.grad(u * v, t)
    graph = optimized(s.finish(d=d))
    assert polynomial(graph, "d") == {2: 9, 1: 2}
    assert evaluate(graph, {"t": 2.0})[0]["d"] == 40


def two_layers(s: Sketch) -> tuple[Value, list[Value]]:
    x, t = s.input("x", B, 4), s.input("t", B, 2)
    ps = [s.param("W1", 8, 4), s.param("b1", 8), s.param("W2", 2, 8), s.param("b2", 2)]
    h = mm(x, ps[0].apply("transpose", perm=(1, 0)))
    h = (h + ps[1].spread(h.shape, (1,))).apply("tanh")
    z = mm(h, ps[2].apply("transpose", perm=(1, 0)))
    e = z + ps[3].spread(z.shape, (1,)) - t
    return total(e.apply("pow", 2)) * 0.5, ps


def test_the_backward_graph_of_two_layers_is_the_textbooks() -> None:
    """grad h = W^T grad z, grad z = grad h * g'(z), grad W = grad z h^T, grad b = grad z summed over the batch; g' = 1
    - h^2. Nothing else, and no gradient with respect to the network's input."""
    s = Sketch()
    loss, ps = two_layers(s)
    dW1, db1, dW2, db2 = s.grad(loss, *ps)
    graph = optimized(s.finish(dW1=dW1, db1=db1, dW2=dW2, db2=db2))
    forward = ["contract", "add", "tanh", "contract", "add", "sub"]
    assert kinds(graph)[: len(forward)] == forward
    assert sorted(kinds(graph)[len(forward) :]) == sorted(
        [
            "reduce_sum",
            "contract",  # grad b2, grad W2
            "contract",
            "mul",
            "sub",
            "mul",  # grad h, 1 - h^2, grad z
            "reduce_sum",
            "contract",  # grad b1, grad W1
        ]
    )
    of = {k: graph[v] for k, v in graph.outputs}
    assert of["db2"].args == of["dW2"].args[1:], "grad z2 is z + b - t itself"


def cross_entropy(z: Value, label: Value, how: str) -> Value:
    """log sum exp(z) - z[label], in the forms people write it."""
    rows = tuple(range(z.type.rank - 1))
    last = (z.type.rank - 1,)
    if how != "plain":
        m = z.apply("reduce_max", axes=last).apply("stop_grad")
        shifted = z - m.spread(z.shape, rows)
        lse = shifted.apply("exp").apply("reduce_sum", axes=last).apply("log")
        if how == "shifted":
            return lse - shifted.apply("take_along", label)
        return (lse + m) - z.apply("take_along", label)
    return z.apply("exp").apply("reduce_sum", axes=last).apply("log") - z.apply("take_along", label)


@pytest.mark.parametrize("how", ["plain", "shifted", "stable"])
def test_the_gradient_of_cross_entropy_is_p_minus_onehot(how: str) -> None:
    s = Sketch()
    z, label = s.input("z", B, 3), s.input("label", B, dtype="i32")
    (d,) = s.grad(total(cross_entropy(z, label, how)), z)
    graph = optimized(s.finish(d=d))
    top = graph[dict(graph.outputs)["d"]]
    p, onehot = (graph[a] for a in top.args)
    assert (top.op, p.op, onehot.op) == ("sub", "div", "where")
    left = sorted(kinds(graph, "reduce_max", "sub"))
    assert left == ["div", "eq", "exp", "in_range", "iota", "reduce_sum", "where"], "no Jacobian and no leftovers"
    assert graph[p.args[0]].op == "exp", "exp(z) / sum"
    got = evaluate(graph, {"z": [[1.0, 2.0, 3.0]], "label": [2]})[0]["d"]
    np.testing.assert_allclose(got, [[0.09003057, 0.24472847, -0.33475904]], atol=1e-8)


def test_the_gradient_of_the_mean_cross_entropy_scales_rows_and_labels() -> None:
    """(p - onehot) / B, where the division is done once a row and once."""
    s = Sketch()
    z, label = s.input("z", B, 3), s.input("label", B, dtype="i32")
    size = Value(s.b, s.b.emit("size", size=B, dtype="f64"))
    (d,) = s.grad(total(cross_entropy(z, label, "shifted")) / size, z)
    graph = optimized(s.finish(d=d))
    wide = [n.op for n in graph if n.shape == (B, 3) and n.op not in ("input", "broadcast")]
    assert sorted(wide) == sorted(["sub", "exp", "mul", "iota", "eq", "where", "sub"])


def test_a_residual_block_adds_the_skip() -> None:
    """H = F(x) + c x: dL/dx = dL/dH (dF/dx + c)."""
    s = Sketch()
    x, w = s.input("x", 3), s.input("w", 3)
    (d,) = s.grad(total((x.apply("tanh") + x * 0.5) * w), x)
    inputs = {"x": np.array([0.1, -2.0, 1.0]), "w": np.array([1.0, 2.0, -3.0])}
    expected = inputs["w"] * (1 - np.tanh(inputs["x"]) ** 2 + 0.5)
    np.testing.assert_allclose(evaluate(optimized(s.finish(d=d)), inputs)[0]["d"], expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("f", "derivative"),
    [
        (lambda x: x.apply("maximum", 0), [0, 0, 1]),
        (lambda x: x.apply("abs"), [-1, 0, 1]),
        (lambda x: x.apply("pow", 2), [-4, 0, 4]),
        (lambda x: x.apply("pow", 0), [0, 0, 0]),
        (lambda x: x.apply("gt", 0).where(x * 3, x), [1, 1, 3]),
    ],
)
def test_derivatives_at_corners(f: Callable[[Value], Value], derivative: list[float]) -> None:
    s = Sketch()
    x = s.input("x", 3)
    (d,) = s.grad(total(f(x)), x)
    for graph in (differentiate(s.finish(d=d)), optimized(s.finish(d=d))):
        np.testing.assert_array_equal(evaluate(graph, {"x": [-2.0, 0.0, 2.0]})[0]["d"], derivative)


def test_a_maximum_sends_its_gradient_to_the_first_of_equals() -> None:
    s = Sketch()
    x = s.input("x", 2, 3)
    (all_axes,) = s.grad(x.apply("reduce_max", axes=(0, 1)), x)
    (rows,) = s.grad(total(x.apply("reduce_max", axes=(1,))), x)
    got = evaluate(optimized(s.finish(a=all_axes, r=rows)), {"x": [[1.0, 5.0, 5.0], [5.0, 2.0, 5.0]]})[0]
    np.testing.assert_array_equal(got["a"], [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(got["r"], [[0, 1, 0], [1, 0, 0]])


def test_a_product_has_a_gradient_at_zero() -> None:
    s = Sketch()
    x = s.input("x", 3, 3)
    (d,) = s.grad(total(x.apply("reduce_prod", axes=(1,))), x)
    got = evaluate(differentiate(s.finish(d=d)), {"x": [[2.0, 3.0, 4.0], [2.0, 0.0, 4.0], [0.0, 0.0, 4.0]]})[0]["d"]
    np.testing.assert_array_equal(got, [[12, 8, 6], [0, 8, 0], [0, 0, 0]])


def test_products_differentiate_twice_at_zero() -> None:
    """grad of sum_i w_i dy/dx_i is sum_i w_i d2y/dx_i dx_j, the products of the factors without i and j."""
    rows = np.array([[2.0, 3.0, 4.0], [2.0, 0.0, 4.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    w = np.array([1.0, 10.0, 100.0])
    want = [[sum(w[i] * row[3 - i - j] for i in range(3) if i != j) for j in range(3)] for row in rows]
    for product in (
        "prod(x, axis = 1)",
        'scatter(reshape(x, [12]), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 5, by = "mul")',
    ):
        f = nnc.function(f"fn f(x: f32[4, 3], w: f32[3]) -> f32[4, 3] = grad(sum(grad(sum({product}), x) @ w), x)")
        np.testing.assert_array_equal(f(rows.astype(np.float32), w.astype(np.float32)), want)


# --- paths -----------------------------------------------------------------------------------------------------------


def test_derivatives_nest() -> None:
    """The third derivative of x^4 is 24 x; the gradient of a gradient's norm is a Hessian-vector product."""
    s = Sketch()
    x = s.input("x")
    d = x * x * x * x
    for _ in range(3):
        (d,) = s.grad(d, x)
    assert evaluate(optimized(s.finish(d=d)), {"x": 1.5})[0]["d"] == 36


def test_what_is_elementwise_of_one_value_has_one_factor() -> None:
    """However many paths lead to it: (x e^x sin x)' = e^x (sin x + x sin x + x cos x), the second derivative too. What
    another value reads as well is not skipped, and an adjoint that is asked for on the way is given."""
    s = Sketch()
    x, dy = s.input("x", 3), s.input("dy", 3)
    e = x.apply("exp")
    y = x * e * x.apply("sin")
    (d,) = s.grad(total(y * dy), x)
    (again,) = s.grad(total(d), x)
    (both,) = s.grad(total(y * dy + e), x)
    (on_the_way,) = s.grad(total(y * dy), e)
    graph = optimized(s.finish(d=d, again=again, both=both, on_the_way=on_the_way))
    v, w = np.array([-0.5, 0.25, 2.0]), np.array([1.0, -3.0, 0.5])
    sin, cos, exp = np.sin(v), np.cos(v), np.exp(v)
    slope = exp * (sin + v * sin + v * cos)
    found = evaluate(graph, {"x": v, "dy": w})[0]
    np.testing.assert_allclose(found["d"], w * slope, rtol=1e-12)
    np.testing.assert_allclose(found["again"], w * (slope + exp * (sin + 2 * cos + v * cos - v * sin)), rtol=1e-12)
    np.testing.assert_allclose(found["both"], w * slope + exp, rtol=1e-12)
    np.testing.assert_allclose(found["on_the_way"], w * v * sin, rtol=1e-12)
    (d,) = [n for n in optimized(s.finish(d=d)) if n.name == graph.outputs[0][1]]
    assert d.op == "mul" and "dy" in d.args


def test_a_factor_that_is_not_taken_is_not_multiplied_with() -> None:
    """x log x where x > 0, else 0: at 0 the slope of the branch that is not taken is infinite."""
    f = nnc.function("fn f(x: f32[3]) -> f32[3] = grad(sum(where(x > 0, x * log(x), 0)), x)")
    np.testing.assert_allclose(f(np.array([0, 1, 2], np.float32)), [0, 1, 1 + np.log(2)], rtol=1e-6)


def test_a_checkpoint_is_all_that_the_backward_pass_keeps() -> None:
    """x -> h1 -> h2 -> [k1] -> h3 -> h4 -> [k2] -> y: nothing forward but x, w, k1 and k2 is read after y is known."""

    def net(mark: bool) -> Graph:
        s = Sketch()
        k, w = s.input("x", B, 4), s.param("w", 4, 4)
        x = k
        for _ in range(2):
            k = mm(mm(k, w).apply("tanh"), w).apply("sin")
            k = k.apply("checkpoint") if mark else k
        dx, dw = s.grad(total(k * k), x, w)
        return s.finish(dx=dx, dw=dw)

    plain, marked = optimized(net(False)), optimized(net(True))
    again = [n for n in marked if n.attrs.get("again")]
    assert {marked[n.args[0]].op for n in again} == {"input", "param", "sin"}, "the boundaries: x, w and k1"
    count = [sum(n.op == "contract" for n in g) for g in (plain, marked)]
    assert count[1] == count[0] + 4, "each product of the forward pass is computed a second time"
    order = [n.name for n in marked]
    known = max(order.index(n.name) for n in marked if n.op == "sin" and not _behind(marked, n.name))
    kept = {a for n in marked if order.index(n.name) > known for a in n.args if order.index(a) <= known}
    assert {marked[a].op for a in kept} <= {"input", "param", "sin", "constant", "broadcast"}
    rng = np.random.default_rng(0)
    x, w = {"x": rng.normal(size=(3, 4))}, {"w": rng.normal(size=(4, 4))}
    expected, got = evaluate(plain, x, w)[0], evaluate(marked, x, w)[0]
    np.testing.assert_array_equal(got["dx"], expected["dx"])
    np.testing.assert_array_equal(got["dw"], expected["dw"])


def test_a_checkpoint_that_is_given_itself_is_kept() -> None:
    """The derivative of exp is its value, which is there: only what it is computed from is computed again."""
    s = Sketch()
    x = s.input("x", B, 4)
    e = x.apply("sin").apply("exp")
    (dx,) = s.grad(total(e.apply("checkpoint", e).apply("tanh")), x)
    g = optimized(s.finish(dx=dx))
    assert sum(n.op == "exp" for n in g) == 1
    xs = np.random.default_rng(0).normal(size=(3, 4))
    value = np.exp(np.sin(xs))
    expected = (1 - np.tanh(value) ** 2) * value * np.cos(xs)
    np.testing.assert_allclose(evaluate(g, {"x": xs})[0]["dx"], expected, rtol=1e-6)


def test_a_checkpoint_is_computed_again_from_what_is_given() -> None:
    """x -> h -> sin -> exp -> [k from h] -> y: h is kept, only what follows it is computed a second time."""
    s = Sketch()
    x, w = s.input("x", B, 4), s.param("w", 4, 4)
    h = mm(x, w).apply("tanh")
    k = h.apply("sin").apply("exp").apply("checkpoint", h)
    (dx,) = s.grad(total(mm(k, w)), x)
    g = optimized(s.finish(dx=dx))
    (again,) = [n for n in g if n.attrs.get("again")]
    assert g[again.args[0]].op == "tanh" and sum(n.op == "tanh" for n in g) == 1
    assert all(_behind(g, n.name) for n in g if n.op in ("exp", "cos")), "the forward values are not even computed"
    xs, ws = np.random.default_rng(0).normal(size=(3, 4)), np.random.default_rng(1).normal(size=(4, 4))
    t = np.tanh(xs @ ws)
    expected = (ws.sum(1) * np.exp(np.sin(t)) * np.cos(t) * (1 - t**2)) @ ws.T
    np.testing.assert_allclose(evaluate(g, {"x": xs}, {"w": ws})[0]["dx"], expected, rtol=1e-6)


def _behind(graph: Graph, name: str) -> bool:
    """Is the value computed from something marked `again`?"""
    return any(graph[a].attrs.get("again") for a in nx.ancestors(graph.dag, name))


def test_without_a_path_the_derivative_is_zero() -> None:
    s = Sketch()
    x, y = s.input("x", B, 2), s.input("y")
    dx, dy = s.grad(y * y, x, y)
    got = evaluate(optimized(s.finish(dx=dx, dy=dy)), {"x": np.ones((3, 2)), "y": 2.0})[0]
    np.testing.assert_array_equal(got["dx"], np.zeros((3, 2)))
    assert got["dy"] == 4


def test_a_value_is_a_variable_of_its_own() -> None:
    """y = h + x with h = 1 * x: dy/dh is 1, though h equals x. Neither folding nor sharing may change that."""
    s = Sketch()
    x = s.input("x")
    h, h2 = x * 1.0, x * 1.0
    negative = -h
    (d,) = s.grad(h + h2 + x - negative, h)
    g = s.finish(d=d)
    assert evaluate(differentiate(g), {"x": 5.0})[0]["d"] == 2
    assert evaluate(run(REWRITE, differentiate(run(REWRITE, g))), {"x": 5.0})[0]["d"] == 2


def test_where_gradients_stop_and_pass() -> None:
    s = Sketch()
    x = s.input("x")
    hard = x.apply("sign")
    st = Value(s.b, s.b.emit("straight_through", hard.name, x.name))
    (a,), (b,), (c,) = s.grad(x.apply("stop_grad") * x, x), s.grad(st * 3.0, x), s.grad(x.apply("checkpoint") * x, x)
    got = evaluate(optimized(s.finish(a=a, b=b, c=c, st=st)), {"x": 7.0})[0]
    assert (got["a"], got["b"], got["c"], got["st"]) == (7, 3, 14, 1)


PATHS = """graph @g {{
  %x = input : f32[B, 3]
  %label = input : i32[B]
{body}
  %y = reduce_sum %f {{axes = [0]}} : f32
  %g = grad %y, %x : (f32[B, 3])
  %d = item %g {{index = 0}} : f32[B, 3]
  output d = %d
}}"""


@pytest.mark.parametrize(
    ("culprit", "body"),
    [
        ("argmax", "%a = argmax %x {axis = 1} : i32[B]\n%e = eq %a, %label : bool[B]\n%f = cast %e : f32[B]"),
        ("sign", "%a = sign %x : f32[B, 3]\n%f = reduce_sum %a {axes = [1]} : f32[B]"),
        ("floor", "%a = reduce_sum %x {axes = [1]} : f32[B]\n%f = floor %a : f32[B]"),
        (
            ">",
            "%a = reduce_sum %x {axes = [1]} : f32[B]\n%z = reduce_max %x {axes = [1]} : f32[B]\n"
            "%c = gt %a, %z : bool[B]\n%f = cast %c : f32[B]",
        ),
        ("cast", "%a = reduce_sum %x {axes = [1]} : f32[B]\n%c = cast %a : i32[B]\n%f = cast %c : f32[B]"),
    ],
)
def test_what_has_no_derivative_says_so_at_its_line(culprit: str, body: str) -> None:
    text = PATHS.format(body=body)
    with pytest.raises(SourceError) as e:
        differentiate(parse_graph(text))
    (d,) = e.value.diagnostics
    assert d.code == "E0401" and culprit in d.message and "stop_grad" in d.help[0]
    assert len(d.labels) == 2 and " grad " in d.labels[1].span.text


def test_conditions_and_indices_carry_no_gradient() -> None:
    """Choosing and indexing by what depends on x is no error: only the values chosen count."""
    body = (
        "%a = argmax %x {axis = 1} : i32[B]\n%t = take_along %x, %a : f32[B]\n%c = eq %a, %label : bool[B]\n"
        "%m = neg %t : f32[B]\n%f = where %c, %t, %m : f32[B]"
    )
    graph = differentiate(parse_graph(PATHS.format(body=body)))
    got = evaluate(graph, {"x": [[1.0, 2.0, 0.0], [3.0, 1.0, 1.0]], "label": [1, 1]})[0]["d"]
    np.testing.assert_array_equal(got, [[0, 1, 0], [-1, 0, 0]])


def test_derived_nodes_keep_the_place_of_their_forward_node() -> None:
    body = "%h = tanh %x : f32[B, 3]\n%f = reduce_sum %h {axes = [1]} : f32[B]"
    graph = differentiate(parse_graph(PATHS.format(body=body)))
    assert all(n.span is not None for n in graph)
    assert any(n.op == "mul" and n.span.text.startswith("%h = tanh") for n in graph)
    assert "d_h" in graph.dag and "d_x" in graph.dag, "derivatives are called after what they are with respect to"


def test_a_chain_of_thousands_is_no_problem() -> None:
    """No recursion, and time that grows with the graph."""
    s = Sketch()
    x = y = s.input("x")
    for _ in range(4000):
        y = y.apply("sin")
    (d,) = s.grad(y, x)
    start = time.process_time()
    graph = optimized(s.finish(d=d))
    assert time.process_time() - start < 20
    assert 0 < evaluate(graph, {"x": 0.01})[0]["d"] <= 1


# --- verifier and sizes ----------------------------------------------------------------------------------------------


def test_the_verifier_names_the_pass_and_the_node() -> None:
    s = Sketch()
    x = s.input("x", 3)
    graph = s.finish(y=x.apply("exp"))
    assert verify(graph, "nothing") is graph
    leaf, node = graph.nodes.values()

    def wrong(outputs: tuple[tuple[str, str], ...] = graph.outputs, **nodes: Node) -> Graph:
        return replace(graph, nodes=nodes, outputs=outputs)

    broken = [
        ("node v0 has the type f64[4]", wrong(x=leaf, v0=replace(node, type=TensorType("f64", (4,))))),
        ("node v0 has an operator that does not exist: no", wrong(x=leaf, v0=replace(node, op="no"))),
        ("node v0 is ill-typed", wrong(x=leaf, v0=replace(node, args=("x", "x")))),
        ("node v0 reads x, which does not come before it", wrong(v0=node, x=leaf)),
        ("node v1 is not stored under its name", wrong(x=leaf, v1=node)),
        ("node nowhere does not exist, but is the output y", wrong((("y", "nowhere"),), x=leaf)),
    ]
    for message, bad in broken:
        for before in (None, graph):  # what was verified does not hide it
            with pytest.raises(InternalError, match=re.escape(f"after broken_pass: {message}")):
                verify(bad, "broken_pass", before)


def test_the_verifier_asks_again_where_an_operand_has_another_type() -> None:
    s = Sketch()
    graph = s.finish(y=s.input("x", 3).apply("exp"))
    leaf, node = graph.nodes.values()
    wide = TensorType("f64", (4,))
    other = replace(leaf, attrs={**leaf.attrs, "type": wide}, type=wide)
    with pytest.raises(InternalError, match=r"node v0 has the type f64\[3\], but its operator says f64\[4\]"):
        verify(replace(graph, nodes={"x": other, "v0": node}), "x", verify(graph, "nothing"))


@pytest.mark.parametrize("shape, asked", [((3,), {"z"}), ((4,), {"z", "v0"})])
def test_the_verifier_asks_of_other_operands_where_their_type_is_another(
    shape: tuple[int, ...], asked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s, met = Sketch(), set()
    graph = s.finish(y=s.input("x", 3).apply("exp"))
    leaf, node = graph.nodes.values()
    kind = TensorType("f64", shape)
    other = replace(leaf, name="z", attrs={**leaf.attrs, "type": kind}, type=kind)
    monkeypatch.setattr("nnc.compiler.graph.verify._typed", lambda n, operands, after: met.add(n.name))
    verify(replace(graph, nodes={"z": other, "v0": replace(node, args=("z",))}), "x", graph)
    assert met == asked


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "graph",
        "graph @g {",
        "graph @g { %x = input : (((((f32",
        "graph @g { output y = %x }",
        "graph @g { ? }",
        "graph @g { %x = input {a = " + "[" * 2000,
        "graph @g { %x = input : f32[" + "(" * 5000,
        "graph @g { %x = input : f32[B // 0] }",
        "graph @g { %x = input : f32[" + "9" * 9999,
        "graph @g { %x = constant : f32 }",
        "graph @g { %x = input : f32 } tail",
        'graph @g { %x = input {name = "\\q"} : f32 }',
        "graph @g { guard B ~ C }",
        "graph @g { %x = input : f32 %x = input : f32 }",
        "graph @g { %x = iota {axis = none} : f32[3] }",
    ],
)
def test_what_is_no_graph_is_an_error_with_a_place(bad: str) -> None:
    with pytest.raises(SourceError) as e:
        parse_graph(bad)
    assert e.value.code in ("E0120", "E0303") and e.value.span is not None


def test_sizes_are_bound_from_shapes() -> None:
    H = symbol("H")
    ports = [("y", TensorType("f32", (2 * H + 1, B)), (7, 4)), ("x", TensorType("f32", (B,)), (4,))]
    assert bind_sizes(ports, {}) == {"B": 4, "H": 3}
    for name, shape in (("x", (5,)), ("x", (4, 1))):
        with pytest.raises(ArgumentError, match=name):
            bind_sizes([ports[0], (name, ports[1][1], shape)], {})
    with pytest.raises(ArgumentError, match=r"2\*H \+ 1"):
        bind_sizes([("y", ports[0][1], (8, 4))], {})


def test_guards_are_checked() -> None:
    s = Sketch()
    x, y = s.input("x", B), s.input("y", symbol("C"))
    s.b.guard((Relation(B, "==", symbol("C")),), "both sides of + have one size")
    graph = s.finish(z=x + y.apply("assume", shape=(B,)))
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
    np.testing.assert_array_equal(evaluate(graph, {"x": [1.0], "y": [2.0]})[0]["z"], [3])
    with pytest.raises(ArgumentError, match=r"both sides of \+ have one size, but B is 1 and C is 2"):
        evaluate(graph, {"x": [1.0], "y": [2.0, 3.0]})


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", ["elu", "selu"])
def test_the_slope_of_an_exponential_unit_is_an_exponential(name, dtype):
    """Also far left, where expm1(x) + 1 has no digit left of it."""
    x = np.array([-40.0, -20.0, -15.0, -3.0, -1e-3], {"f32": np.float32, "f64": np.float64}[dtype])
    slope = nnc.function(f"fn f(x: {dtype}[N]) = grad(sum({name}(x)), x)", cache=False, dtype=dtype)(x)
    scale = 1.0507009873554805 * 1.6732632423543772 if name == "selu" else 1.0
    np.testing.assert_allclose(slope, scale * np.exp(x.astype(np.float64)), rtol=1e-6 if dtype == "f32" else 1e-14)


@pytest.mark.parametrize(
    "formula",
    ["maximum(z, 0)", "maximum(0, z)", "-minimum(0, -z)", "-minimum(-z, 0)", "relu(z)", "maximum([0.0, 0.0], z)"],
)
def test_a_ramp_is_flat_at_its_corner_however_it_is_written(formula):
    slope = nnc.function(f"fn f(z: f32[2]) = grad(sum({formula}), z)", cache=False)(np.array([0.0, 1.0], np.float32))
    assert slope.tolist() == [0, 1]


def test_ties_send_the_gradient_where_the_reference_says():
    def slope(formula: str, x: list[float]) -> list[float]:
        return nnc.function(f"fn f(x: f32[{len(x)}]) = grad({formula}, x)", cache=False)(np.array(x, "f4")).tolist()

    assert slope("sum(abs(x))", [0, -2]) == [0, -1]
    assert slope("sum(clip(x, -1, 1))", [-1, 0, 1, 2]) == [0, 1, 0, 0]
    assert slope("maximum(x[0], x[1])", [3, 3]) == [0, 1] == slope("minimum(x[0], x[1])", [3, 3])
    assert slope("max(x)", [3, 1, 3]) == [1, 0, 0] == slope("sort(x)[2]", [3, 1, 3])[::-1]

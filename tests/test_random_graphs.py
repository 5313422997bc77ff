"""Optimised, compiled and interpreted graphs compute the same: random ones, and those of the golden cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc.compiler.autodiff.differentiate import differentiate
from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder, Graph
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.calculus import Value
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.graph.text import parse_graph, print_graph
from nnc.compiler.passes import ALWAYS, OPTIMIZE, REWRITE, run
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import FLOATS, TensorType
from nnc.dsl.errors import SourceError

from .graphs import einsum

B = symbol("B")
GOLDEN = sorted((Path(__file__).parent / "golden" / "passes").glob("*.case"))


def optimized(graph: Graph) -> Graph:
    return run(REWRITE, run(ALWAYS, graph))


def total(x: Value) -> Value:
    return x.apply("reduce_sum", axes=tuple(range(x.type.rank)))


UNARY = ("neg", "abs", "exp", "tanh", "logistic", "sin", "sign", "sqrt", "stop_grad", "log", "round")
BINARY = ("add", "sub", "mul", "div", "minimum", "maximum")
POWERS = (0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -0.5)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -3.0)


KINDS = ("unary", "binary", "number", "broadcast", "reduce", "layout", "where", "matmul", "pow", "cast")


@st.composite
def programs(
    draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, divide: bool = True
) -> tuple[Graph, dict[str, np.ndarray]]:
    """A random graph over small tensors, some of its sizes 1 or symbolic, and inputs with zeros, infinities and NaN.
    Only division tells 0 from -0, and which of the two is the larger is not defined."""
    binary = [op for op in BINARY if divide or op != "div"]
    powers = [p for p in POWERS if divide or p >= 0]
    sizes = {"M": draw(st.integers(1, 3)), "N": draw(st.sampled_from([1, 2, 4])), "B": draw(st.integers(1, 3))}
    builder = Builder("g", OPS)
    pool: list[Value] = []
    inputs: dict[str, np.ndarray] = {}
    finite = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -1.5, 3.25])
    number = draw(st.sampled_from([finite, st.one_of(finite, st.sampled_from([np.inf, -np.inf, np.nan]))]))
    for k, shape in enumerate([(sizes["M"], sizes["N"]), (B, sizes["N"]), (sizes["N"],), ()]):
        pool.append(Value(builder, builder.emit("input", name=f"x{k}", type=TensorType("f64", shape))))
        actual = tuple(sizes["B"] if n == B else n for n in shape)
        values = draw(st.lists(number, min_size=int(np.prod(actual)), max_size=int(np.prod(actual))))
        inputs[f"x{k}"] = np.array(values, np.float64).reshape(actual)
    for _ in range(draw(st.integers(1, 14))):
        x = draw(st.sampled_from(pool if draw(st.booleans()) else pool[-2:]))
        axes = tuple(k for k in range(x.type.rank) if draw(st.booleans()))
        kind = draw(st.sampled_from(kinds))
        like = [y for y in pool if y.type == x.type]
        match kind:
            case "unary":
                y = x.apply(draw(st.sampled_from(UNARY)))
            case "binary":
                y = x.apply(draw(st.sampled_from(binary)), draw(st.sampled_from(like)))
            case "number":
                sides = x, x.constant(draw(st.sampled_from(NUMBERS)))
                a, b = sides if draw(st.booleans()) else sides[::-1]
                y = a.apply(draw(st.sampled_from(binary)), b)
            case "pow":
                y = x.apply("pow", draw(st.sampled_from(powers)))
            case "broadcast" if x.type.rank < 3:
                at = draw(st.integers(0, x.type.rank))
                shape = (*x.shape[:at], draw(st.sampled_from((1, 2, B))), *x.shape[at:])
                y = x.spread(shape, tuple(k if k < at else k + 1 for k in range(x.type.rank)))
            case "reduce":
                y = x.apply(draw(st.sampled_from(("reduce_sum", "reduce_max", "reduce_min"))), axes=axes)
            case "layout" if x.type.rank:
                match draw(st.sampled_from(("transpose", "flip", "squeeze", "expand", "slice", "pad", "concat"))):
                    case "transpose":
                        y = x.apply("transpose", perm=tuple(draw(st.permutations(range(x.type.rank)))))
                    case "flip":
                        y = x.apply("flip", axes=axes)
                    case "squeeze":
                        y = x.apply("reshape", shape=tuple(n for n in x.shape if n != 1))
                    case "expand":
                        y = x.apply("reshape", shape=(1, *x.shape)) if x.type.rank < 4 else x
                    case "slice":
                        stops = tuple(n - 1 if isinstance(n, int) and n > 1 else n for n in x.shape)
                        y = x.apply("slice", starts=(0,) * x.type.rank, stops=stops, steps=(1,) * x.type.rank)
                    case "pad":
                        fill = draw(st.sampled_from((0.0, 2.0)))
                        y = x.apply("pad", low=(1,) * x.type.rank, high=(0,) * x.type.rank, value=fill)
                    case _:
                        y = x.apply("concat", draw(st.sampled_from(like)), axis=0)
            case "where":
                c, a, b = (draw(st.sampled_from(like)) for _ in range(3))
                y = x.apply("gt", c).where(a, b)
            case "cast":
                y = x.apply("gt", draw(st.sampled_from(like))).apply("not").apply("cast", dtype="f64")
            case "matmul" if x.type.rank:
                fit = [z for z in pool if z.type.rank in (1, 2) and z.shape[-2:][0] == x.shape[-1]]
                z = draw(st.sampled_from(fit)) if fit else None
                rows, columns = "abc"[: x.type.rank - 1], "n" * (z is not None and z.type.rank == 2)
                spec = f"{rows}k,k{columns}->{rows}{columns}"
                y = Value(builder, einsum(builder, spec, x.name, z.name)) if z is not None else -x
            case _:
                y = -x
        if y.type.rank <= 4:
            pool.append(y)
    return builder.finish(tuple((f"y{k}", y.name) for k, y in enumerate(pool[4:]))), inputs


def close(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to rounding, NaN and infinities at the same places."""
    scale = np.max(np.abs(expected[np.isfinite(expected)]), initial=1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * scale)


@settings(max_examples=300, derandomize=True)
@given(programs())
def test_optimised_graphs_compute_the_same(program: tuple[Graph, dict[str, np.ndarray]]) -> None:
    graph, inputs = program
    better = optimized(graph)
    assert print_graph(parse_graph(print_graph(better))) == print_graph(better)
    expected, got = evaluate(graph, inputs)[0], evaluate(better, inputs)[0]
    for k in expected:
        close(got[k], expected[k])
    assert [n.op for n in run(REWRITE, better)] == [n.op for n in better], "the passes reach their fixed point"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden_passes_compute_the_same(path: Path) -> None:
    """What stands above and below `## expect` are two ways to compute one thing."""
    _, _, body = path.read_text(encoding="utf-8").partition("\n")
    before, _, after = body.partition("## expect\n")
    graphs = [differentiate(parse_graph(text)) for text in (before, after)]
    rng = np.random.default_rng(0)
    leaves: dict[str, dict[str, np.ndarray]] = {"input": {}, "param": {}}
    for n in graphs[0]:
        if n.op in leaves:
            shape = tuple(5 if n == B else n for n in n.shape)
            value = rng.normal(size=shape) if n.dtype in FLOATS else rng.integers(0, 2, shape)
            leaves[n.op][n.attrs["name" if n.op == "input" else "path"]] = np.asarray(value, NUMPY[n.dtype])
    results = [evaluate(g, leaves["input"], leaves["param"], {"B": 5}) for g in graphs]
    for expected, got in zip(*results, strict=True):
        assert expected.keys() == got.keys()
        for k, e in expected.items():
            np.testing.assert_allclose(got[k], e, rtol=1e-5, atol=1e-6)


@settings(max_examples=200, derandomize=True)
@given(programs(("unary", "binary", "number", "broadcast", "where", "cast")))
def test_zeros_keep_their_sign(program: tuple[Graph, dict[str, np.ndarray]]) -> None:
    graph, inputs = program
    expected, got = evaluate(graph, inputs)[0], evaluate(optimized(graph), inputs)[0]
    for k, e in expected.items():
        np.testing.assert_array_equal(np.signbit(got[k][e == 0]), np.signbit(e[e == 0]))


@settings(max_examples=60, derandomize=True)
@given(program=programs(divide=False))
def test_machine_code_computes_the_same(program: tuple[Graph, dict[str, np.ndarray]], run_compiled) -> None:
    """Unoptimised, optimised, and fused into few kernels."""
    graph, inputs = program
    expected = evaluate(graph, inputs)[0]
    for passes in ((), (*ALWAYS, *OPTIMIZE)):
        got = run_compiled(run(passes, graph), inputs)
        for k in expected:
            close(got[k], expected[k])


@settings(max_examples=150, derandomize=True)
@given(programs())
def test_optimised_gradients_are_the_same(program: tuple[Graph, dict[str, np.ndarray]]) -> None:
    """Also where they are optimised before they are differentiated. Gradients that are not finite are not compared."""
    graph, inputs = program
    inputs = {k: np.where(np.isfinite(v), v, 0.75) for k, v in inputs.items()}
    b = Builder("g", OPS)
    for n in graph:
        b.copy(n, n.args)
    parts = [Value(b, v) for _, v in graph.outputs]
    xs = [Value(b, f"x{k}") for k in range(4)]
    s = parts[0].apply("tanh")
    y = total(s)
    for p in parts[1:]:
        y = y + total(p.apply("tanh"))
    first = b.emit("grad", y.name, *(x.name for x in xs))
    outputs = tuple((f"d{k}", b.emit("item", first, index=k)) for k in range(4))
    g = b.finish(outputs)
    try:
        plain = differentiate(g)
    except SourceError:
        return  # through sign or round
    expected = evaluate(plain, inputs)[0]
    got, again = evaluate(optimized(g), inputs)[0], evaluate(optimized(run(REWRITE, g)), inputs)[0]
    for k, e in expected.items():
        if np.isfinite(e).all():
            close(got[k], e)
            close(again[k], e)

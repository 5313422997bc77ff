"""Every operator as machine code against its reference: each sample of the table, alone and fused, in f32 and f64."""

from __future__ import annotations

import numpy as np
import pytest

import nnc
from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder, Graph
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.graph.ops.op import Op, Sample
from nnc.compiler.passes import ALWAYS, OPTIMIZE, REWRITE, run
from nnc.compiler.scalar import storage
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import DTYPES, FLOATS, TensorType

OPERATORS = [op for op in OPS.values() if op.samples and op.name != "item"]
ULPS = {"f32": 6, "f64": 12}  # functions, sums of a few elements; see `scalar` for each function


def accepts(op: Op, dtype: str) -> bool:
    """Whether it is for such floats: what parameters are stored in is of f32."""
    return dtype == "f32" or op.name not in [f.name for f in storage.ALL]


def in_dtype(sample: Sample, dtype: str) -> Sample:
    """The sample with every f32 a `dtype`."""

    def of(x: object) -> object:
        match x:
            case "f32":
                return dtype
            case TensorType("f32", shape):
                return TensorType(dtype, shape)
        return x

    return Sample(tuple(map(of, sample.types)), {k: of(v) for k, v in sample.attrs.items()}, sample.low, sample.high)


def values(t: TensorType, sample: Sample, rng: np.random.Generator) -> np.ndarray:
    if t.dtype == "bool":
        return np.asarray(rng.random(t.shape) < 0.5)
    if t.dtype in FLOATS:
        return np.asarray(rng.uniform(sample.low, sample.high, t.shape), NUMPY[t.dtype])
    low = int(sample.low)
    return np.asarray(rng.integers(low, max(int(sample.high), low + 1), t.shape), NUMPY[t.dtype])


def all_samples(op: Op, dtype: str) -> tuple[Graph, dict[str, np.ndarray]]:
    """One graph with every sample of an operator."""
    b, rng = Builder("samples", OPS), np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {}
    outputs = []
    for k, sample in enumerate(in_dtype(s, dtype) if accepts(op, dtype) else s for s in op.samples):
        args = []
        for j, t in enumerate(sample.types):
            name = f"x{k}_{j}"
            args.append(b.emit("input", name=name, type=t))
            inputs[name] = values(t, sample, rng)
        outputs.append((f"y{k}", b.add(op.name, tuple(args), sample.attrs)))
    return b.finish(tuple(outputs)), inputs


def agree(got: np.ndarray, expected: np.ndarray, dtype: str, scale: float) -> None:
    """Within a few units of the last place of `scale`, or of the value where that is larger."""
    if expected.dtype.kind == "f":
        room = ULPS[dtype] * np.finfo(NUMPY[dtype]).eps
        np.testing.assert_allclose(got, expected, rtol=room, atol=room * scale)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_machine_code_is_the_reference(op: Op, dtype: str, run_compiled) -> None:
    graph, inputs = all_samples(op, dtype)
    expected = evaluate(graph, inputs)[0]
    for passes in ((), OPTIMIZE):
        got = run_compiled(run(passes, graph), inputs)
        for k, e in expected.items():
            scale = np.abs(e).max() if op.name == "filter_gradient" else 1.0  # it takes differences of large sums
            agree(got[k], e, dtype, scale)


def test_every_operator_is_there() -> None:
    assert set(OPS) - {op.name for op in OPERATORS} == {"input", "param", "item", "fused", "grad", "across", "scan"}


SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-30, 3e38, -2.5, 0.5, 1e9)


INEXACT = ("sin", "cos", "lgamma", "digamma", "trigamma", "tetragamma")  # at 3e38, left of 0: see tests/llvm/test_maths


@pytest.mark.parametrize("dtype", FLOATS)
def test_specials_pass_through_every_scalar_function(dtype: str, run_compiled) -> None:
    """NaN, infinities, zeros of both signs, huge and tiny: all pairs, in every elementwise operator of floats."""
    b = Builder("specials", OPS)
    x, y = (b.emit("input", name=n, type=TensorType(dtype, (symbol("N"),))) for n in "xy")
    grid = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1).astype(NUMPY[dtype])
    outputs = []
    for op in OPS.values():
        if op.kind == "map" and op.samples and op.samples[0].types and op.name not in ("random", "where", "cast"):
            args = (x, y)[: len(op.samples[0].types)]
            if op.samples[0].types[0].dtype in FLOATS and accepts(op, dtype):
                outputs.append((op.name, b.add(op.name, args, {})))
    outputs += [(f"cast {d}", b.emit("cast", x, dtype=d)) for d in DTYPES]
    graph, inputs = b.finish(tuple(outputs)), {"x": grid[0], "y": grid[1]}
    expected, got = evaluate(graph, inputs)[0], run_compiled(graph, inputs)
    for k, e in expected.items():
        if e.dtype.kind == "f" and k not in INEXACT:
            if k not in ("minimum", "maximum"):  # of 0 and -0: NumPy takes either
                np.testing.assert_array_equal(np.signbit(got[k][e == 0]), np.signbit(e[e == 0]), err_msg=k)
            np.testing.assert_allclose(got[k], e, rtol=ULPS[dtype] * np.finfo(e.dtype).eps, err_msg=k)
        elif e.dtype.kind != "f":
            np.testing.assert_array_equal(got[k], e, err_msg=k)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            "k",
            "`k` is 5 in row 2, but must be from 0 to 2 here: an index of gather by `k` is outside an axis of size N, ",
        ),
        ("expand(k, 0)[0]", "`k` is 5 in row 2, but must be from 0 to 2 here"),
        (
            "k - 4",
            "E0607.: an index of gather is outside an axis of size N, which is 3, in f",
        ),  # no index, so not named
    ],
)
def test_an_index_outside_an_axis_of_free_size_names_argument_and_row(index: str, message: str) -> None:
    f = nnc.function(f"fn f(x: f32[N, 2], k: i32[M]) -> f32[M, 2] = gather(x, {index})")
    with pytest.raises(nnc.NncError, match=message):
        f(np.zeros((3, 2)), [0, 1, 5])
    g = nnc.function("fn g(x: f32[N, 2], k: i32[M]) -> f32[M, 2] = concat([x, x])[k]")
    with pytest.raises(nnc.NncError, match=r"`k` is -1 in row 1, but must be from 0 to 5 here"):
        g(np.zeros((3, 2)), [0, -1])


def test_an_index_outside_its_axis_is_reported(run_compiled) -> None:
    for name, shape in (("gather", (2,)), ("take_along", (2, 3)), ("scatter_add", None)):
        b = Builder("g", OPS)
        index = b.emit("input", name="i", type=TensorType("i32", (2,)))
        x = b.emit("input", name="x", type=TensorType("f32", shape or (2,)))
        y = b.emit(name, index, x, size=3) if shape is None else b.emit(name, x, index)
        for passes in (ALWAYS, (*ALWAYS, *REWRITE), (*ALWAYS, *OPTIMIZE)):
            graph = run(passes, b.finish((("y", y),)))
            with pytest.raises(IndexError):
                run_compiled(graph, {"i": np.array([0, 3]), "x": np.ones(shape or (2,))})
            with pytest.raises(IndexError):
                run_compiled(graph, {"i": np.array([-1, 0]), "x": np.ones(shape or (2,))})

"""Facts about every operator, driven from the table: type rule against reference, value at a point against reference,
derivatives against finite differences in float64, text and back."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from nnc.compiler import scalar
from nnc.compiler.autodiff.differentiate import differentiate
from nnc.compiler.elaborate.builtins import BUILTINS
from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder, Graph, Node
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.calculus import Value
from nnc.compiler.graph.ops.elementwise import NUMPY, convert
from nnc.compiler.graph.ops.op import ABSTRACT, LEAF, MAP, REDUCE, VIEW, Op, Sample, ShapeError
from nnc.compiler.graph.text import parse_graph, print_graph
from nnc.compiler.loops import ir as loops
from nnc.compiler.scalar import FUNCTIONS, Scalar, storage
from nnc.compiler.scalar.numbers import rounded
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import FLOATS, TensorType, TupleType

BUILT_IN = (Path(__file__).parents[1] / "dsl/README.md").read_text("utf-8").split("## Built in")[1].split("## ")[0]
CASES = [pytest.param(op, s, id=f"{op.name}-{k}") for op in OPS.values() for k, s in enumerate(op.samples)]


def draw(sample: Sample, seed: int = 0) -> list[np.ndarray]:
    """Operands for a sample: reals, whole numbers below `high`, coin flips."""
    rng = np.random.default_rng(seed)

    def one(t: TensorType) -> np.ndarray:
        if t.dtype == "bool":
            return np.asarray(rng.random(t.shape) < 0.5)
        if t.dtype in FLOATS:
            return np.asarray(rng.uniform(sample.low, sample.high, t.shape), NUMPY[t.dtype])
        low = int(sample.low)
        return np.asarray(rng.integers(low, max(int(sample.high), low + 1), t.shape), NUMPY[t.dtype])

    return [tuple(map(one, t.items)) if isinstance(t, TupleType) else one(t) for t in sample.types]


def graph_of(op: Op, sample: Sample) -> Graph:
    b = Builder("g", OPS)
    args = [b.emit("input", name=f"x{k}", type=t) for k, t in enumerate(sample.types)]
    return b.finish((("y", b.add(op.name, tuple(args), sample.attrs)),))


# --- the table itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_every_cell_is_there(op: Op) -> None:
    assert OPS[op.name] is op and callable(op.infer)
    assert op.doc, "what it is"
    assert (op.at is not None) == (op.kind in (MAP, VIEW) or op.name == "constant"), "the value at a point"
    assert (op.reduce is not None) == (op.kind == REDUCE), "the fold"
    by_axes = op.kind in (VIEW, REDUCE) and op.name not in ("gather", "take_along")
    assert (op.axes is not None) == by_axes, "how axes of the result come from those of operands"
    assert (op.reference is None) == (op.kind == ABSTRACT or op.name in ("input", "param")), "the meaning in NumPy"
    assert op.kind == LEAF or op.kind == ABSTRACT or op.grad or op.name in ("size", "iota"), "the gradient"
    assert len(op.samples) > 1 or op.name in ("input", "param", "grad", "across", "fused", "item", "scan"), "samples"
    assert (op.written is None) == (op.read is None), "a notation that is written is read"


STORAGE = tuple(f.name for f in storage.ALL)  # only what the compiler itself makes calls them
CALLED_OTHERWISE = ("and", "or", "not", "isfinite", "trigamma", "tetragamma", *STORAGE)  # by words, or by derivatives
NO_OPERATOR = {"fma", "select", "cast", "random"}  # of a name and meaning of their own: `where`, `cast`, `random`


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=lambda f: f.name)
def test_every_cell_of_a_scalar_function_is_there(f: Scalar) -> None:
    assert f.doc and f.operands and callable(f.llvm), "what it is, and how it is written"
    assert f.meaning or f.number, "the meaning in plain Python"
    assert (f.numpy is None) == (f.name in NO_OPERATOR), "the operator's reference"
    assert (f.grad is None) == (f.numpy is None), "the derivative, or why there is none"
    assert f.ulp is not None or not f.shared or f.name in ("random", "whole_pow"), "the bound of what is approximated"
    assert f.weight > 1 or not (f.ulp or f.shared), "what an approximation costs"
    assert f.number or f.sign or f.name in (*NO_OPERATOR, *CALLED_OTHERWISE), "how it is called"
    assert (f.identity is not None) == (f.name in loops.FOLDS.values()), "what a fold begins with"
    assert bool(f.number) <= bool(re.search(rf"\b{f.name}\b", BUILT_IN)), "its name in the reference, dsl/README.md"
    if f.name in OPS and f.numpy:
        assert f.doc == OPS[f.name].doc and f.weight == OPS[f.name].weight


def test_every_family_of_scalar_functions_is_listed() -> None:
    files = Path(scalar.__file__).parent.glob("*.py")
    families = {p.stem for p in files if re.search(r"^ALL = ", p.read_text("utf-8"), re.MULTILINE)}
    assert families == {family.__name__.rpartition(".")[2] for family in scalar.FAMILIES}


@pytest.mark.parametrize("f", [f for f in FUNCTIONS.values() if f.numpy], ids=lambda f: f.name)
def test_the_meaning_in_python_is_that_in_numpy(f: Scalar) -> None:
    """At edges and between them; to the last places, where the C library and NumPy may differ."""
    dtype = "f64" if "f64" in f.accepts else f.accepts[0]
    points = {
        "f64": [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -2.5, 1e-300, 800.0, -800.0, np.inf, -np.inf, np.nan],
        "i32": [0, 1, -1, 7, -7, 3, -(2**31), 2**31 - 1],
        "bool": [False, True],
        "f32": [
            0.0,
            -0.0,
            0.5,
            1.0,
            -1.5,
            2.5,
            100.25,
            126.5,
            1e9,
            -1e9,
            65519.0,
            65520.0,
            6e-8,
            2.9e-8,
            np.inf,
            -np.inf,
        ],
        "i8": [0, 1, -1, 127, -127, -128],
        "i16": [0, 1, -1, 1024, -1024, 0x3C00, 0x7BFF, 0x7C00, -0x400, 2**15 - 1, -(2**15)],
    }[dtype]
    for operands in product(points, repeat=len(f.operands)):
        with np.errstate(all="ignore"):
            want = f.numpy(*(np.asarray([x], NUMPY[dtype]) for x in operands))[0]
        got = rounded(f.value(dtype, *operands), f.result or dtype)
        np.testing.assert_allclose(got, want, rtol=1e-14, err_msg=f"{f.name}{operands}")
        either = f.name in ("minimum", "maximum") and got == 0  # of equal zeros ours is the first
        assert f.result or dtype != "f64" or np.isnan(got) or either or np.signbit(got) == np.signbit(want), operands


def test_an_operator_of_each_scalar_function_stands_among_the_builtins() -> None:
    assert {f.name for f in FUNCTIONS.values() if f.number} <= set(BUILTINS)


# --- reference -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_the_reference_has_the_inferred_type(op: Op, sample: Sample) -> None:
    inferred = op.infer(sample.types, sample.attrs)
    with np.errstate(all="ignore"):
        result = np.asarray(op.reference(draw(sample), sample.attrs, inferred))
    assert result.shape == inferred.shape and result.dtype == NUMPY[inferred.dtype]


def value(e: loops.Expr, buffers: list[np.ndarray]) -> np.generic:
    """An expression of the loop IR, by the operators' references; a read outside its buffer is an IndexError."""
    match e:
        case loops.Const(v, dtype):
            return NUMPY[dtype](v)
        case loops.Load(buffer, index, _):
            at = int(value(index, buffers))
            if not 0 <= at < buffers[int(buffer)].size:
                raise IndexError(f"operand {buffer} at {at}")
            return buffers[int(buffer)].reshape(-1)[at]
        case loops.Apply("cast", (x,), dtype):
            return convert(np.asarray(value(x, buffers)), dtype)[()]
        case loops.Apply("random", (key, counter), dtype):
            from nnc.compiler.scalar.philox import philox_reference

            counters = np.array([value(counter, buffers)], np.int64)
            return philox_reference(int(value(key, buffers)), counters, dtype)[0]
        case loops.Apply(fn, args, dtype):
            op = OPS["where" if fn == "select" else fn]
            operands = [np.asarray(value(a, buffers)) for a in args]
            return np.asarray(op.reference(operands, {}, TensorType(dtype)), NUMPY[dtype])[()]
    raise AssertionError(e)


@pytest.mark.parametrize(("op", "sample"), [c for c in CASES if c.values[0].at and c.values[0].name != "constant"])
def test_the_value_at_a_point_is_the_reference_there(op: Op, sample: Sample) -> None:
    """And no read, chosen or not, is outside its operand."""
    operands = draw(sample)
    inferred = op.infer(sample.types, sample.attrs)
    node = Node("y", op.name, tuple(f"x{k}" for k in range(len(operands))), sample.attrs, inferred)

    def read(k: int, index: tuple[loops.Expr, ...]) -> loops.Expr:
        position: loops.Expr = loops.i64(0)
        shape = operands[k].shape
        assert len(index) == len(shape)
        for i, n in zip(index, shape, strict=True):
            position = loops.add(loops.mul(position, loops.i64(n)), i)
        return loops.Load(str(k), position, sample.types[k].dtype)

    room = 1e-5 if op.name == "unwind" else 0  # which adds up what it reads
    with np.errstate(all="ignore"):
        expected = np.asarray(op.reference(operands, sample.attrs, inferred))
        for index in product(*map(range, inferred.shape)):
            e = op.at(node, sample.types, tuple(map(loops.i64, index)), read)
            assert e.dtype == inferred.dtype
            np.testing.assert_allclose(value(e, operands), expected[index], rtol=room, atol=room)


@pytest.mark.parametrize(("op", "sample"), [c for c in CASES if c.values[0].axes and c.values[0].kind == VIEW])
def test_axes_are_seen_where_the_reference_has_them(op: Op, sample: Sample) -> None:
    """The operand at start + step * index of the result, wherever that is inside; and every axis is one of the result,
    but for those of size 1."""
    x, *_ = operands = draw(sample)
    inferred = op.infer(sample.types, sample.attrs)
    seen = op.axes(sample.attrs, x.shape, inferred.shape)
    if seen is None:
        assert op.name in ("reshape", "unpack", "unwind", "windows")
        return
    result = op.reference(operands, sample.attrs, inferred)
    assert len(seen) == x.ndim and all(s.axis is not None or n == 1 for s, n in zip(seen, x.shape, strict=True))
    for index in product(*map(range, inferred.shape)):
        at = tuple(0 if s.axis is None else s.start + s.step * index[s.axis] for s in seen)
        inside = all(0 <= i < n for i, n in zip(at, x.shape, strict=True))
        assert result[index] == x[at] if inside else any(s.part for s in seen)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_text_and_back(op: Op, sample: Sample) -> None:
    if any(isinstance(t, TupleType) for t in sample.types):
        pytest.skip("no input is a tuple")
    text = print_graph(graph_of(op, sample))
    again = parse_graph(text)
    assert print_graph(again) == text
    node, back = (g[g.outputs[0][1]] for g in (graph_of(op, sample), again))
    assert back.type == node.type and back.op == node.op
    assert sorted(map(repr, back.attrs.items())) == sorted(map(repr, node.attrs.items()))


# --- derivatives -----------------------------------------------------------------------------------------------------


def doubled(sample: Sample) -> Sample:
    """The sample with every f32 an f64."""
    attrs = {k: "f64" if v == "f32" else v for k, v in sample.attrs.items()}
    types = tuple(t.with_dtype("f64") if t.dtype == "f32" else t for t in sample.types)
    return Sample(types, attrs, sample.low, sample.high)


def differentiable(op: Op, sample: Sample) -> bool:
    if not callable(op.grad) or op.name in ("stop_grad", "straight_through", "random", "trigamma"):
        return False
    result = op.infer(sample.types, sample.attrs)
    return result.dtype in FLOATS and any(t.dtype in FLOATS for t in sample.types)


def weighted_sum(b: Builder, y: str, name: str) -> str:
    """sum(w * y) with an input w, so that no direction is special."""
    w = b.emit("input", name=name, type=b.type(y))
    return b.emit("reduce_sum", b.emit("mul", y, w), axes=tuple(range(b.type(y).rank)))


def derivatives(op: Op, sample: Sample) -> tuple[Graph, list[str]]:
    """s = sum(w op(x)); its gradients g; t = sum_k sum(v_k g_k); its gradients h."""
    b = Builder("g", OPS)
    xs = [b.emit("input", name=f"x{k}", type=t) for k, t in enumerate(sample.types)]
    smooth = [x for x in xs if b.type(x).dtype in FLOATS]
    y = b.add(op.name, tuple(xs), sample.attrs)
    if op.name in ("scatter_max", "scatter_min"):  # infinite where nothing comes
        y = Value(b, y).apply("maximum", -1e3).apply("minimum", 1e3).name
    s = weighted_sum(b, y, "w")
    first = b.emit("grad", s, *smooth)
    g = [b.emit("item", first, index=k) for k in range(len(smooth))]
    t = weighted_sum(b, g[0], "v0")
    for k in range(1, len(g)):
        t = b.emit("add", t, weighted_sum(b, g[k], f"v{k}"))
    second = b.emit("grad", t, *smooth)
    h = [b.emit("item", second, index=k) for k in range(len(smooth))]
    outputs = [
        ("s", s),
        ("t", t),
        *((f"g {x}", v) for x, v in zip(smooth, g, strict=True)),
        *((f"h {x}", v) for x, v in zip(smooth, h, strict=True)),
    ]
    return differentiate(b.finish(tuple(outputs))), smooth


def slopes(graph: Graph, inputs: dict[str, np.ndarray], x: str, of: str) -> np.ndarray:
    """Central differences of output `of` with respect to input x."""
    step = 1e-5
    result = np.zeros(inputs[x].size)
    for k in range(inputs[x].size):
        ends = []
        for sign in (1, -1):
            moved = inputs[x].copy()
            moved.reshape(-1)[k] += sign * step
            ends.append(evaluate(graph, {**inputs, x: moved})[0][of])
        result[k] = (ends[0] - ends[1]) / (2 * step)
    return result.reshape(inputs[x].shape)


@pytest.mark.parametrize(
    ("op", "sample"),
    [pytest.param(c.values[0], doubled(c.values[1]), id=c.id) for c in CASES if differentiable(*c.values)],
)
def test_first_and_second_derivatives_are_finite_differences(op: Op, sample: Sample) -> None:
    graph, smooth = derivatives(op, sample)
    rng = np.random.default_rng(1)
    inputs = {f"x{k}": v for k, v in enumerate(draw(sample, seed=3))}
    weights = [n for n in graph if n.op == "input" and n.attrs["name"][0] in "wv"]
    inputs |= {n.attrs["name"]: rng.uniform(0.5, 1.5, n.shape) for n in weights}
    results = evaluate(graph, inputs)[0]
    for x in smooth:
        np.testing.assert_allclose(results[f"g {x}"], slopes(graph, inputs, x, "s"), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(results[f"h {x}"], slopes(graph, inputs, x, "t"), rtol=1e-5, atol=1e-7)


def gradient(name: str, *at: float) -> list[float]:
    """The derivatives of a scalar function at a point, in f64."""
    b = Builder("g", OPS)
    xs = [b.emit("input", name=f"x{k}", type=TensorType("f64")) for k in range(len(at))]
    g = b.emit("grad", b.emit(name, *xs), *xs)
    outputs = tuple((f"g{k}", b.emit("item", g, index=k)) for k in range(len(at)))
    with np.errstate(all="ignore"):
        results = evaluate(differentiate(b.finish(outputs)), {f"x{k}": np.float64(v) for k, v in enumerate(at)})[0]
    return [float(v) for v in results.values()]


def test_derivatives_of_angles_at_their_edges() -> None:
    assert gradient("asin", 1.0) == gradient("asin", -1.0) == [np.inf]
    assert gradient("acos", 1.0) == gradient("acos", -1.0) == [-np.inf]
    assert np.isnan(gradient("asin", 1.5)[0])
    assert gradient("asin", 1 - 2.0**-53)[0] == pytest.approx(2.0**26, rel=1e-15), "no cancellation"
    assert gradient("atan", np.inf) == [0] and gradient("atan", -0.0) == [1]
    assert gradient("log2", 0.0) == [np.inf]
    assert np.isnan(gradient("atan2", 0.0, 0.0)).all(), "a point without a derivative"
    assert gradient("atan2", 0.0, -2.0) == [-0.5, 0] and gradient("atan2", 3.0, 0.0) == pytest.approx([0, -1 / 3])
    np.testing.assert_allclose(gradient("atan2", 3e200, 4e200), [4e-200 / 25, -3e-200 / 25], rtol=1e-14)
    np.testing.assert_allclose(gradient("atan2", 3e-200, 4e-200), [4e200 / 25, -3e200 / 25], rtol=1e-14)


def test_derivatives_of_hyperbolic_functions_and_remainders_at_their_edges() -> None:
    assert gradient("atanh", 1.0) == [np.inf] and gradient("acosh", 1.0) == [np.inf]
    assert np.isnan(gradient("acosh", 0.5)[0])
    assert gradient("asinh", -0.0) == [1] and gradient("asinh", np.inf) == [0]
    assert gradient("asinh", -1e300) == pytest.approx([1e-300], rel=1e-14), "no square overflows"
    assert gradient("acosh", 1e300) == pytest.approx([1e-300], rel=1e-14)
    assert gradient("erfinv", 1.0) == [np.inf] and gradient("lgamma", 1.0) == pytest.approx([-0.5772156649015329])
    assert gradient("digamma", -0.5) == pytest.approx([8.934802200544679], rel=1e-14)
    assert gradient("trigamma", 1.0) == pytest.approx([-2.404113806319188], rel=1e-14)
    assert gradient("erfc", 30.0) == [0] and gradient("tan", 0.0) == [1]
    assert gradient("remainder", -7.5, 2.0) == [1, 4] and gradient("remainder", 7.5, 2.0) == [1, -3]


# --- what the references must agree on with IEEE 754 and the documentation -------------------------------------------


def run(name: str, *args: np.ndarray, **attrs: object) -> np.ndarray:
    back = {np.dtype(v): k for k, v in NUMPY.items()}
    types = [TensorType(back[np.asarray(a).dtype], np.asarray(a).shape) for a in args]
    with np.errstate(all="ignore"):
        return OPS[name].reference([np.asarray(a) for a in args], attrs, OPS[name].infer(types, attrs))


def test_conversions_saturate() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, -1.9, 1e300], np.float64)
    top, bottom = np.iinfo(np.int32).max, np.iinfo(np.int32).min
    np.testing.assert_array_equal(run("cast", x, dtype="i32"), [0, top, bottom, top, bottom, -1, top])
    assert run("cast", x, dtype="i64")[-1] == np.iinfo(np.int64).max
    np.testing.assert_array_equal(run("cast", np.array([0.0, np.nan, 0.5]), dtype="bool"), [False, True, True])


def test_whole_numbers_divide_by_zero_to_zero() -> None:
    x = np.array([7, -7, 0, np.iinfo(np.int32).min], np.int32)
    np.testing.assert_array_equal(run("floordiv", x, np.zeros(4, np.int32)), 0)
    np.testing.assert_array_equal(run("mod", x, np.zeros(4, np.int32)), 0)
    np.testing.assert_array_equal(run("floordiv", x, np.array([2, 2, 2, -1], np.int32)), [3, -4, 0, x[3]])


def test_a_power_is_no_root() -> None:
    x, half = np.array([-np.inf, -0.0, 4.0]), np.broadcast_to(0.5, (3,))
    np.testing.assert_array_equal(run("pow", x, half), [np.inf, 0, 2])
    assert not np.signbit(run("pow", x, half)[1]) and run("pow", np.array(-np.inf), np.array(0.5)) == np.inf


def test_argmax_is_the_first_of_equals_and_the_first_nan() -> None:
    assert run("argmax", np.array([1.0, 3.0, 3.0]), axis=0) == 1
    assert run("argmax", np.array([1.0, np.nan, 3.0]), axis=0) == 1


def test_folds_over_nothing_are_the_identity() -> None:
    none = np.zeros((0,), np.float32)
    assert run("reduce_sum", none, axes=(0,)) == 0 and run("reduce_prod", none, axes=(0,)) == 1
    assert run("reduce_max", none, axes=(0,)) == -np.inf and run("reduce_min", none, axes=(0,)) == np.inf
    assert run("reduce_max", np.zeros(0, np.int32), axes=(0,)) == np.iinfo(np.int32).min
    assert not run("reduce_max", np.zeros(0, bool), axes=(0,)) and run("reduce_min", np.zeros(0, bool), axes=(0,))


def test_an_index_outside_its_axis_is_an_error() -> None:
    for name, args in (("gather", (np.zeros(3), np.array([3]))), ("take_along", (np.zeros((1, 3)), np.array([-1])))):
        with pytest.raises(IndexError, match="outside an axis of size 3"):
            run(name, *args)


def test_a_random_number_is_a_function_of_key_site_and_place() -> None:
    draw = lambda key, site, n=4: run("random", np.int64(key), shape=(n,), dtype="f64", site=site)  # noqa: E731
    np.testing.assert_array_equal(draw(1, 2), draw(1, 2))
    np.testing.assert_array_equal(draw(1, 2, 9)[:4], draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3)) and not np.array_equal(draw(1, 2), draw(2, 2))
    many = draw(5, 0, 20_000)
    assert many.min() >= 0 and many.max() < 1 and abs(many.mean() - 0.5) < 0.01 and abs(many.var() - 1 / 12) < 0.003


def test_every_convolution_is_a_contraction() -> None:
    """A strided, padded two-dimensional cross-correlation against the loops it stands for."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 7, 6)), rng.normal(size=(4, 3, 3, 2))
    at = lambda i, u: (-1, ((i, 2), (u, 1)))  # noqa: E731
    one = lambda i: (0, ((i, 1),))  # noqa: E731
    y = run(
        "contract",
        x,
        w,
        domain=(("b", 2), ("k", 4), ("i", 4), ("j", 3), ("c", 3), ("u", 3), ("v", 2)),
        maps=((one("b"), one("c"), at("i", "u"), at("j", "v")), tuple(map(one, "kcuv"))),
        out=tuple(map(one, "bkij")),
        shape=(2, 4, 4, 3),
    )
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for i, j in product(range(4), range(3)):
        window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2]
        np.testing.assert_allclose(y[:, :, i, j], np.einsum("bcuv,kcuv->bk", window, w), rtol=1e-12)


# --- type rules ------------------------------------------------------------------------------------------------------

F3, F4, I3 = TensorType("f32", (3,)), TensorType("f32", (4,)), TensorType("i32", (3,))
B = symbol("B")


@pytest.mark.parametrize(
    ("op", "types", "attrs", "code", "message"),
    [
        ("add", (F3, F4), {}, "E0301", r"operands of \+ must have one shape, but f32\[3\] is not f32\[4\]"),
        ("mul", (F3, I3), {}, "E0302", "must have one dtype, but f32 is not i32"),
        ("div", (I3, I3), {}, "E0302", r"/ is defined for floats, but this is i32\[3\]"),
        ("floordiv", (F3, F3), {}, "E0302", "defined for whole numbers"),
        ("and", (F3, F3), {}, "E0302", "defined for bool"),
        ("where", (F3, F3, F3), {}, "E0302", "defined for bool"),
        ("exp", (F3, F3), {}, "E0307", "takes 1 operand, but 2 are given"),
        ("reduce_sum", (F3,), {"axes": (1,)}, "E0303", r"axis 1, but f32\[3\] has axis 0 only"),
        ("reduce_sum", (TensorType("f32"),), {"axes": (0,)}, "E0303", "has no axes"),
        ("argmax", (TensorType("f32", (2, 0)),), {"axis": 1}, "E0307", "nothing to choose from"),
        ("broadcast", (F3,), {"shape": (2, 4), "axes": (1,)}, "E0301", "3 is not 4"),
        ("broadcast", (F3,), {"shape": (3, B), "axes": (1,)}, "E0301", "3 is not B"),
        ("reshape", (TensorType("f32", (B, 3)),), {"shape": (B, 4)}, "E0306", r"f32\[B, 3\] has 3\*B"),
        ("reshape", (F3,), {"shape": (-3,)}, "E0307", "size -3"),
        ("transpose", (F3,), {"perm": (1,)}, "E0303", "each axis"),
        ("slice", (F3,), {"starts": (1,), "stops": (4,), "steps": (1,)}, "E0307", "1:4 is not within axis 0"),
        ("slice", (F3,), {"starts": (0,), "stops": (3,), "steps": (0,)}, "E0307", "at least 1"),
        ("pad", (F3,), {"low": (-1,), "high": (0,), "value": 0.0}, "E0307", "negative"),
        ("concat", (TensorType("f32", (2, 3)), TensorType("f32", (2, 4))), {"axis": 0}, "E0301", "all axes but 0"),
        ("gather", (F3, F3), {"axis": 0}, "E0302", "whole numbers"),
        ("take_along", (TensorType("f32", (2, 3)), I3), {}, "E0301", "indices for each last axis"),
        ("add_along", (I3, TensorType("f32", (2,))), {"lead": 0, "size": 3}, "E0301", "an update for each index"),
        ("recurrence", (F3, TensorType("f32", (2,))), {"axis": 0, "reverse": False}, "E0301", "one shape"),
        ("argsort", (TensorType("f32"),), {"descending": False}, "E0303", "needs an axis"),
        ("grad", (F3, F3), {}, "E0402", r"only a scalar float can be differentiated, but this is f32\[3\]"),
        ("grad", (TensorType("f32"), I3), {}, "E0401", "floats"),
        ("constant", (), {"values": (1.0,), "type": F3}, "E0307", "has 3 elements, but 1 are given"),
        ("random", (TensorType("i32"),), {"shape": (), "dtype": "f32", "site": 0}, "E0302", "key"),
    ],
)
def test_what_does_not_fit_is_said(op: str, types: tuple, attrs: dict, code: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message) as e:
        OPS[op].infer(types, attrs)
    assert e.value.code == code


def test_reshape_reads_without_division_where_axes_only_split_in_two() -> None:
    """[6, B] -> [2, 3, B]: the last axis is read as it is; only the split one needs arithmetic."""
    node = Node("y", "reshape", ("x",), {"shape": (2, 3, B)}, TensorType("f32", (2, 3, B)))
    i, j, k = (loops.Var(name) for name in "ijk")
    seen = []
    read = lambda n, index: seen.append(index) or loops.i64(0)  # noqa: E731
    OPS["reshape"].at(node, (TensorType("f32", (6, B)),), (i, j, k), read)
    assert seen == [(loops.add(loops.mul(i, loops.i64(3)), j), k)]


def test_a_contraction_keeps_what_is_not_finite_where_it_belongs() -> None:
    x, w = np.array([[np.nan, 1.0], [2.0, 3.0]]), np.array([[1.0, 2.0, 0.0], [3.0, 4.0, np.inf]])
    with np.errstate(all="ignore"):
        expected = (x[:, :, None] * w[None]).sum(axis=1)
    one = lambda i: (0, ((i, 1),))  # noqa: E731
    got = run(
        "contract",
        x,
        w,
        domain=(("i", 2), ("j", 3), ("k", 2)),
        shape=(3, 2),
        out=(one("j"), one("i")),
        maps=((one("i"), one("k")), (one("k"), one("j"))),
    )
    np.testing.assert_array_equal(got, expected.T)
    inf, zero = np.array(np.inf), np.array([0.0, 1.0])
    total = run("contract", inf, zero, domain=(("k", 2),), shape=(), out=(), maps=((), (one("k"),)))
    assert np.isnan(total), "inf * 0 + inf * 1, not inf * (0 + 1)"

"""Random graphs of ONNX: nodes over values that are computed as the graph grows, so that each node is a valid one.

Free sizes have names, one for each number, and operands broadcast as ONNX lets them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OPSET = 20
Array = np.ndarray
MAX_ELEMENTS = 4000
UNARY = (
    "Abs Ceil Cos Elu Erf Floor HardSigmoid HardSwish LeakyRelu Mish Neg Relu Round Selu Sigmoid Sign Sin Softplus "
    "Softsign Tanh Gelu Identity"
).split()
BINARY = "Add Sub Mul Max Min PRelu Sum Mean".split()
COMPARED = "Equal Less Greater LessOrEqual GreaterOrEqual".split()
REDUCED = (
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp".split()
)


class Unfit(Exception):
    """No value at hand suits this operator."""


@dataclass
class Graph:
    """A graph as it grows: `arrays` are the values of its names for one input."""

    rng: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    initial: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, Array] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)

    # --- choices

    def below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def one_of(self, *options: Any) -> Any:
        return options[self.below(len(options))]

    def value(self, kinds: str = "f", rank: int | None = None, least: int = 0) -> str:
        """The name of a value with one of these kinds of dtype, of that rank, or of at least so many axes."""
        fit = [
            n for n, a in self.arrays.items()
            if a.dtype.kind in kinds and (a.ndim == rank if rank is not None else a.ndim >= least) and a.size
            and a.dtype != np.float64
        ]  # fmt: skip
        if not fit:
            raise Unfit
        return fit[self.below(len(fit))]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def fresh(self, shape: tuple[int, ...], dtype: Any = np.float32) -> str:
        """A new value of that shape: an input, or a weight."""
        if np.dtype(dtype).kind == "f":
            array = self.rng.standard_normal(shape).astype(dtype)
        else:
            array = self.rng.integers(-4, 5, shape).astype(dtype)
        return self.given(array, constant=bool(self.below(2)) or len(self.inputs) > 2)

    def given(self, array: Array, constant: bool = True) -> str:
        name = f"{'w' if constant else 'x'}{len(self.arrays)}"
        (self.initial if constant else self.inputs)[name] = array
        self.arrays[name] = array
        return name

    def numbers(self, *values: int) -> str:
        return self.given(np.array(values, np.int64))

    def meets(self, shape: tuple[int, ...]) -> str:
        """A value that broadcasts with a shape, often of less axes or with axes of 1."""
        cut = self.below(len(shape) + 1) if self.below(2) else 0
        return self.fresh(tuple(1 if self.below(3) == 0 else d for d in shape[cut:]))

    # --- nodes

    def node(self, op: str, *names: str, outputs: int = 1, **attributes: Any) -> None:
        """One more node, unless its results are too large or no numbers."""
        made = [f"v{len(self.arrays)}_{k}" for k in range(outputs)]
        node = helper.make_node(op, names, made, **attributes)
        known = {n: self.arrays[n] for n in names if n}
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in known.items()
        ]
        results = [helper.make_empty_tensor_value_info(n) for n in made]
        graph = helper.make_graph([node], "one", inputs, results)
        with np.errstate(all="ignore"):
            single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
            try:
                arrays = [np.asarray(a) for a in ReferenceEvaluator(single).run(None, known)]
            except (ValueError, IndexError) as e:  # of the reference, which lacks some broadcasts
                raise Unfit from e
        if any(a.size > MAX_ELEMENTS or a.ndim > 5 for a in arrays):
            raise Unfit
        if any(a.dtype.kind == "f" and not (np.abs(a) < 1e3).all() for a in arrays):
            raise Unfit
        self.nodes.append(node)
        self.arrays |= dict(zip(made, arrays, strict=True))


def unary(g: Graph) -> None:
    g.node(g.one_of(*UNARY), g.value())


def binary(g: Graph) -> None:
    a = g.value()
    op = g.one_of(*BINARY)
    b = g.fresh(g.shape(a)[g.below(g.arrays[a].ndim + 1) :]) if op == "PRelu" else g.meets(g.shape(a))
    g.node(op, *((b, a) if g.below(2) and op != "PRelu" else (a, b)))


def choice(g: Graph) -> None:
    a = g.value()
    b = g.meets(g.shape(a))
    g.node(g.one_of(*COMPARED), a, b)
    g.node("Where", list(g.arrays)[-1], b, a)


def whole(g: Graph) -> None:
    a = g.fresh(g.shape(g.value()), np.int64)
    b = g.given(g.rng.integers(1, 5, g.shape(a)[g.below(g.arrays[a].ndim + 1) :]).astype(np.int64))
    g.node(g.one_of("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Equal", "Less"), a, b)


def logic(g: Graph) -> None:
    a = g.value("b")
    g.node("Not", a)
    g.node(g.one_of("And", "Or", "Xor"), a, list(g.arrays)[-1])


def cast(g: Graph) -> None:
    g.node("Cast", g.value("fib"), to=g.one_of(1, 6, 7, 11))
    name = list(g.arrays)[-1]
    if g.arrays[name].dtype != np.float32:
        g.node("Cast", name, to=1)


def reduction(g: Graph) -> None:
    x = g.value(least=1)
    axes = g.rng.permutation(g.arrays[x].ndim)[: 1 + g.below(2)]
    op = g.one_of(*REDUCED)
    g.node(op, x, g.numbers(*(a - g.arrays[x].ndim * g.below(2) for a in axes)), keepdims=g.below(2))


def positions(g: Graph) -> None:
    x = g.value(least=1)
    g.node(g.one_of("ArgMax", "ArgMin"), x, axis=g.below(g.arrays[x].ndim), keepdims=g.below(2))


def running(g: Graph) -> None:
    x = g.value(least=1)
    axis = g.given(np.array(g.below(g.arrays[x].ndim), np.int64))
    g.node("CumSum", x, axis, reverse=g.below(2), exclusive=g.below(2))


def sorted_part(g: Graph) -> None:
    x = g.value(least=1)
    axis = g.below(g.arrays[x].ndim)
    k = 1 + g.below(g.shape(x)[axis])
    g.node("TopK", x, g.numbers(k), outputs=2, axis=axis, largest=g.below(2))


def softmax(g: Graph) -> None:
    x = g.value(least=1)
    g.node(g.one_of("Softmax", "LogSoftmax", "Hardmax"), x, axis=g.below(g.arrays[x].ndim) - g.arrays[x].ndim)


def product(g: Graph) -> None:
    x = g.value(least=1)
    shape = g.shape(x)
    if len(shape) == 2 and g.below(2):
        n = 1 + g.below(5)
        turned = g.below(2)
        g.node("Gemm", x, g.fresh((n, shape[1]) if turned else (shape[1], n)), g.fresh((n,)), transB=turned,
               alpha=g.one_of(1.0, 0.5), beta=g.one_of(1.0, 2.0))  # fmt: skip
        return
    lead = tuple(1 if g.below(3) == 0 else d for d in shape[:-2])[g.below(max(len(shape) - 1, 1)) :]
    g.node("MatMul", x, g.fresh((*lead, shape[-1], 1 + g.below(5)) if g.below(4) else (shape[-1],)))


def einsum(g: Graph) -> None:
    x = g.value(rank=3)
    a, b, c = g.shape(x)
    equation, shape = g.one_of(
        ("bij,bjk->bik", (a, c, 3)), ("ijk,lk->lij", (2, c)), ("ijk,ijk->", (a, b, c)), ("ijk,k->ji", (c,))
    )
    g.node("Einsum", x, g.fresh(shape), equation=equation)


def moved(g: Graph) -> None:
    x = g.value("fib", least=1)
    g.node("Transpose", x, perm=[int(k) for k in g.rng.permutation(g.arrays[x].ndim)])


def reshaped(g: Graph) -> None:
    x = g.value("fib", least=1)
    shape = list(g.shape(x))
    kind = g.below(4)
    if kind == 0:
        g.node("Flatten", x, axis=g.below(len(shape) + 1))
    elif kind == 1:
        axis = g.below(len(shape) + 1)
        g.node("Unsqueeze", x, g.numbers(axis - (len(shape) + 1) * g.below(2)))
    elif kind == 2 and len(shape) > 1:
        k = g.below(len(shape) - 1)
        g.node("Reshape", x, g.numbers(*[0] * k, -1, *shape[k + 2 :]))
    else:
        g.node("Reshape", x, g.numbers(-1, *(d for d in shape[1:][::-1])))


def squeezed(g: Graph) -> None:
    x = g.value("fib", least=1)
    ones = [k for k, d in enumerate(g.shape(x)) if d == 1]
    if not ones:
        raise Unfit
    g.node("Squeeze", x, g.numbers(*ones[: 1 + g.below(2)]))


def joined(g: Graph) -> None:
    x = g.value(least=1)
    axis = g.below(g.arrays[x].ndim)
    others = []
    for _ in range(1 + g.below(2)):
        shape = list(g.shape(x))
        shape[axis] = 1 + g.below(3)
        others.append(g.fresh(tuple(shape)))
    g.node("Concat", x, *others, axis=axis - g.arrays[x].ndim * g.below(2))


def parted(g: Graph) -> None:
    x = g.value("fi", least=1)
    axis = g.below(g.arrays[x].ndim)
    size = g.shape(x)[axis]
    if size < 2:
        raise Unfit
    first = 1 + g.below(size - 1)
    g.node("Split", x, g.numbers(first, size - first), outputs=2, axis=axis)


def sliced(g: Graph) -> None:
    x = g.value("fib", least=1)
    rank = g.arrays[x].ndim
    axes = [int(a) for a in g.rng.permutation(rank)[: 1 + g.below(rank)]]
    steps = [g.one_of(1, 1, 2, -1, -2) for _ in axes]
    bounds = [(g.below(3), g.one_of(1000, -1, 4)) if s > 0 else (g.one_of(-1, 1000), g.one_of(-1000, 0)) for s in steps]
    g.node("Slice", x, *(g.numbers(*v) for v in ([b[0] for b in bounds], [b[1] for b in bounds], axes, steps)))


def margins(g: Graph) -> None:
    x = g.value(least=1)
    mode = g.one_of("constant", "edge", "reflect", "wrap")
    most = [min(d - 1, 2) if mode == "reflect" else min(d, 2) for d in g.shape(x)]
    g.node("Pad", x, g.numbers(*(g.below(m + 1) for m in [*most, *most])), mode=mode)


def picked(g: Graph) -> None:
    x = g.value("fi", least=1)
    axis = g.below(g.arrays[x].ndim)
    size = g.shape(x)[axis]
    if g.below(2):
        index = g.rng.integers(-size, size, g.one_of((), (3,), (2, 2)))
        g.node("Gather", x, g.given(index.astype(np.int64)), axis=axis)
    else:
        shape = list(g.shape(x))
        shape[axis] = 1 + g.below(4)
        g.node("GatherElements", x, g.given(g.rng.integers(-size, size, shape).astype(np.int64)), axis=axis)


def picked_places(g: Graph) -> None:
    x = g.value(least=2)
    depth = 1 + g.below(g.arrays[x].ndim)
    places = np.stack([g.rng.integers(-d, d, (2, 3)) for d in g.shape(x)[:depth]], -1)
    g.node("GatherND", x, g.given(places.astype(np.int64)))


def put(g: Graph) -> None:
    x = g.value(least=1)
    axis = g.below(g.arrays[x].ndim)
    shape = list(g.shape(x))
    size = shape[axis]
    shape[axis] = 1 + g.below(size)
    index = np.argsort(g.rng.random(g.shape(x)), axis)
    index = np.take(index, range(shape[axis]), axis) - size * g.below(2)
    how = g.one_of("none", "add", "max", "min")
    g.node("ScatterElements", x, g.given(index.astype(np.int64)), g.fresh(tuple(shape)), axis=axis, reduction=how)


def put_places(g: Graph) -> None:
    x = g.value(least=2)
    rows = g.rng.permutation(g.shape(x)[0])[:2].reshape(-1, 1)
    g.node("ScatterND", x, g.given(rows.astype(np.int64)), g.fresh((len(rows), *g.shape(x)[1:])),
           reduction=g.one_of("none", "add"))  # fmt: skip


def repeated(g: Graph) -> None:
    x = g.value("fi", least=1)
    shape = g.shape(x)
    if g.below(2):
        g.node("Tile", x, g.numbers(*(1 + g.below(2) for _ in shape)))
    else:
        g.node("Expand", x, g.numbers(2, *(3 if d == 1 else d for d in shape)))


def hot(g: Graph) -> None:
    index = g.given(g.rng.integers(-4, 4, (2, 3)).astype(np.int64), constant=False)
    g.node(
        "OneHot", index, g.given(np.array(5, np.int64)), g.given(np.array([-1, 2], np.float32)), axis=g.one_of(0, 1, -1)
    )


def triangle(g: Graph) -> None:
    g.node("Trilu", g.value("fi", least=2), g.given(np.array(g.below(5) - 2, np.int64)), upper=g.below(2))


def of_shapes(g: Graph) -> None:
    """A computation on the sizes of a value, which another is reshaped by."""
    x = g.value(least=2)
    g.node("Shape", x)
    g.node("Gather", list(g.arrays)[-1], g.given(np.array(0, np.int64)))
    g.node("Unsqueeze", list(g.arrays)[-1], g.numbers(0))
    g.node("Concat", list(g.arrays)[-1], g.numbers(-1), axis=0)
    g.node("Reshape", x, list(g.arrays)[-1])


def normalised(g: Graph) -> None:
    x = g.value(least=2)
    shape = g.shape(x)
    kind = g.below(3)
    if kind == 0:
        axis = g.below(len(shape))
        g.node("LayerNormalization", x, g.fresh(shape[axis:]), g.fresh(shape[axis:]), axis=axis)
    elif kind == 1:
        positive = g.given(g.rng.random(shape[1]).astype(np.float32) + np.float32(0.5))
        g.node("BatchNormalization", x, *(g.fresh((shape[1],)) for _ in range(3)), positive)
    elif len(shape) > 2:
        g.node("InstanceNormalization", x, g.fresh((shape[1],)), g.fresh((shape[1],)), epsilon=0.1)


def convolved(g: Graph) -> None:
    x = g.value(least=3)
    _, channels, *space = g.shape(x)
    if len(space) > 3:
        raise Unfit
    kernel = [1 + g.below(min(d, 3)) for d in space]
    groups = g.one_of(1, channels)
    each = [1 + g.below(2) for _ in space]
    pads = [g.below(k) for k in [*kernel, *kernel]]
    if g.below(3):
        w = g.fresh((groups * (1 + g.below(2)), channels // groups, *kernel))
        g.node(
            "Conv", x, w, *([g.fresh((g.shape(w)[0],))] if g.below(2) else []), group=groups, strides=each, pads=pads
        )
    else:
        g.node("ConvTranspose", x, g.fresh((channels, 2, *kernel)), strides=each, group=groups, kernel_shape=kernel)


def pooled(g: Graph) -> None:
    x = g.value(least=3)
    space = g.shape(x)[2:]
    if len(space) > 3:
        raise Unfit
    kernel = [1 + g.below(min(d, 3)) for d in space]
    each = [1 + g.below(2) for _ in space]
    pads = [g.below(k) // 2 if k > 2 else 0 for k in kernel]
    op = g.one_of("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
    more = {} if op.startswith("Global") else {"kernel_shape": kernel, "strides": each, "pads": pads + pads}
    if op == "AveragePool":
        more["count_include_pad"] = g.below(2)
    g.node(op, x, **more)


def resized(g: Graph) -> None:
    x = g.value(rank=4)
    scales = g.given(np.array([1, 1, *(g.one_of(0.5, 1.5, 2.0, 3.0) for _ in range(2))], np.float32))
    mode = g.one_of("nearest", "linear", "cubic")
    how = g.one_of("half_pixel", "asymmetric", "pytorch_half_pixel")
    g.node("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=how, nearest_mode="floor")


MAKERS: tuple[Callable[[Graph], None], ...] = (
    unary, binary, binary, choice, whole, logic, cast, reduction, positions, running, sorted_part, softmax, product,
    product, einsum, moved, reshaped, squeezed, joined, parted, sliced, margins, picked, picked_places, put, put_places,
    repeated, hot, triangle, of_shapes, normalised, convolved, pooled, resized,
)  # fmt: skip


def random_model(seed: int, length: int = 8) -> tuple[Any, dict[str, Array]]:
    """A ModelProto and its inputs; in every other one sizes have names."""
    g = Graph(np.random.default_rng(seed))
    shape = tuple(1 + g.below(5) for _ in range(1 + g.below(4)))
    g.given(g.rng.standard_normal(shape).astype(np.float32), constant=False)
    while len(g.nodes) < length:
        try:
            MAKERS[g.below(len(MAKERS))](g)
        except Unfit:
            continue
    read = {n for node in g.nodes for n in node.input}
    ends = [n for node in g.nodes for n in node.output if n not in read]
    named = bool(seed % 2)

    def sizes(a: Array) -> list[int | str]:
        return [f"s{d}" if named and d > 1 else d for d in a.shape]

    def info(name: str, axes: Any) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(g.arrays[name].dtype), axes)

    used = {n: a for n, a in g.inputs.items() if n in read}
    graph = helper.make_graph(
        g.nodes, "random", [info(n, sizes(a)) for n, a in used.items()],
        [info(n, [f"{n}_{k}" for k in range(g.arrays[n].ndim)]) for n in ends],
        [numpy_helper.from_array(a, n) for n, a in g.initial.items() if n in read],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9), used

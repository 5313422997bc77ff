"""Running sums and sorting against NumPy, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest

from nnc.compiler.autodiff.differentiate import differentiate
from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.op import ShapeError
from nnc.compiler.graph.ops.ordering import cumsum, sort, top_k
from nnc.compiler.passes import REWRITE, run
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType

B = symbol("B")


def built(f, *shape, dtype="f64"):
    """A graph of `f(b, x)`, and the builder's names of x and the results."""
    b = Builder("g", OPS)
    x = b.emit("input", name="x", type=TensorType(dtype, shape))
    results = f(b, x)
    results = results if isinstance(results, tuple) else (results,)
    return b, x, results


def value(f, x, *shape):
    b, _, results = built(f, *shape, dtype={"f": "f64", "i": "i64"}[x.dtype.kind])
    graph = run(REWRITE, b.finish(tuple((f"y{k}", r) for k, r in enumerate(results))))
    return list(evaluate(graph, {"x": x})[0].values())


DATA = [
    np.array([[3.0, 1.0, 2.0, 1.0], [0.0, -0.0, -5.0, np.inf]]),
    np.array([[np.nan, 1.0, np.nan, -np.inf]]),
    np.zeros((0, 3)),
    np.zeros((2, 1)),
    np.array([[5, -3, 5, 2**62]]),
]


@pytest.mark.parametrize("x", DATA, ids=str)
def test_sorting_is_numpys(x):
    np.testing.assert_array_equal(value(lambda b, v: sort(b, v, 1), x, B, x.shape[1])[0], np.sort(x, axis=1))
    np.testing.assert_array_equal(value(lambda b, v: sort(b, v, 0), x, B, x.shape[1])[0], np.sort(x, axis=0))


@pytest.mark.parametrize("x", DATA, ids=str)
def test_running_sums_are_numpys(x):
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            got = value(lambda b, v, a=axis: cumsum(b, v, a), x, B, x.shape[1])[0]
            np.testing.assert_array_equal(got, np.cumsum(x, axis=axis))


def test_top_k_is_stable_and_counts_nan_as_largest():
    x = np.array([[1.0, 3.0, 3.0, 2.0], [np.nan, 0.0, np.inf, -1.0]])
    values, index = value(lambda b, v: top_k(b, v, 3), x, B, 4)
    np.testing.assert_array_equal(index, [[1, 2, 3], [0, 2, 1]])
    np.testing.assert_array_equal(values, [[3, 3, 2], [np.nan, np.inf, 0]])
    with pytest.raises(ShapeError, match="5 of 4"):
        value(lambda b, v: top_k(b, v, 5), x, B, 4)


def test_gradients_go_back_to_where_elements_came_from():
    def f(b, x):
        weights = b.emit("constant", values=(1.0, 10.0, 100.0), type=TensorType("f64", (3,)))
        y = b.emit("mul", sort(b, x, 0), weights)
        z = b.emit("mul", cumsum(b, x, 0), weights)
        total = b.emit("reduce_sum", b.emit("add", y, z), axes=(0,))
        return b.emit("item", b.emit("grad", total, x), index=0)

    b, _, (d,) = built(f, 3)
    got = evaluate(differentiate(b.finish((("d", d),))), {"x": np.array([5.0, -1.0, 2.0])})[0]["d"]
    np.testing.assert_array_equal(got, [100 + 111, 1 + 110, 10 + 100])

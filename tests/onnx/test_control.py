"""Graphs in graphs, many operands, tables of bools, and sizes that have names in products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import helper, numpy_helper

import nnc.onnx_backend
from nnc.runtime.onnx.importing import RefusedImport

node = helper.make_node
X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def info(name: str, shape: Sequence[Any], dtype: int = 1) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def prepared(nodes: Sequence[Any], inputs: Sequence[Any], rank: int = 2, **initial: Any) -> Any:
    """A model from its inputs to y."""
    arrays = [numpy_helper.from_array(np.asarray(a), n) for n, a in initial.items()]
    graph = helper.make_graph(nodes, "graph", inputs, [info("y", [f"d{k}" for k in range(rank)])], arrays)
    return nnc.onnx_backend.prepare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


def branch(op: str, of: str = "x") -> Any:
    return helper.make_graph([node(op, [of], [f"{op}_y"])], op, [], [info(f"{op}_y", [3, 4])])


CHOICE = node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg"))


@pytest.mark.parametrize("condition", [True, False])
def test_a_choice_that_is_known_is_made(condition: bool) -> None:
    (y,) = prepared([CHOICE], [info("x", [3, 4])], c=condition).run([X])
    np.testing.assert_array_equal(y, np.maximum(X, 0) if condition else -X)


@pytest.mark.parametrize("condition", [True, False])
def test_a_choice_by_data(condition: bool) -> None:
    net = prepared([CHOICE], [info("x", [3, 4]), info("c", [], 9)])
    (y,) = net.run([X, np.array(condition)])
    np.testing.assert_array_equal(y, np.maximum(X, 0) if condition else -X)


def test_a_choice_by_data_between_other_shapes_is_refused() -> None:
    other = helper.make_graph([node("Transpose", ["x"], ["t"])], "other", [], [info("t", [4, 3])])
    choice = node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=other)
    with pytest.raises(RefusedImport, match="other types"):
        prepared([choice], [info("x", [3, 4]), info("c", [], 9)])


def loop_body() -> Any:
    """a becomes 2 a + x; each a is collected."""
    nodes = [
        node("Add", ["a", "a"], ["b"]), node("Add", ["b", "x"], ["c"]), node("Identity", ["go"], ["on"]),
        node("Identity", ["c"], ["seen"]),
    ]  # fmt: skip
    inputs = [info("i", [], 7), info("go", [], 9), info("a", [3, 4])]
    return helper.make_graph(nodes, "body", inputs, [info("on", [], 9), info("c", [3, 4]), info("seen", [3, 4])])


def test_a_loop_of_known_turns() -> None:
    (y,) = prepared([node("Loop", ["n", "", "x"], ["last", "y"], body=loop_body())], [info("x", [3, 4])], 3, n=3).run(
        [X]
    )
    np.testing.assert_array_equal(y, np.stack([3 * X, 7 * X, 15 * X]))


def test_a_loop_of_many_turns_is_a_scan() -> None:
    loop = node("Loop", ["n", "", "x"], ["last", "y"], body=loop_body())
    (y,) = prepared([loop], [info("x", [3, 4])], 3, n=40).run([X])
    np.testing.assert_allclose(y, np.stack([(2.0 ** (k + 2) - 1) * X for k in range(40)]), rtol=1e-5)


def test_a_loop_of_as_many_turns_as_a_size_says() -> None:
    """Each turn reads a row, by its number; it carries two values, which change places."""
    nodes = [
        node("Gather", ["x", "i"], ["row"]), node("Add", ["a", "row"], ["sum"]), node("Identity", ["go"], ["on"]),
        node("Identity", ["b"], ["c"]), node("Mul", ["sum", "b"], ["seen"]),
    ]  # fmt: skip
    given = [info("i", [], 7), info("go", [], 9), info("a", [4]), info("b", [4])]
    made = [info("on", [], 9), info("c", [4]), info("sum", [4]), info("seen", [4])]
    body = helper.make_graph(nodes, "body", given, made)
    loop = node("Loop", ["n", "", "zero", "zero"], ["last", "other", "y"], body=body)
    counted = [node("Shape", ["x"], ["s"], start=0, end=1), node("Squeeze", ["s"], ["n"])]
    net = prepared([*counted, loop], [info("x", ["rows", 4])], zero=np.zeros(4, np.float32))
    for rows in (1, 5, 9):
        x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
        a, b, want = np.zeros(4), np.zeros(4), []
        for row in x:
            a, b = b, a + row
            want.append(b * a)
        np.testing.assert_allclose(net.run([x])[0], want, rtol=1e-5, atol=1e-6)


def test_a_loop_that_may_end_early_and_turns_too_often_is_refused() -> None:
    body = loop_body()
    body.node[2].CopyFrom(node("Less", ["i", "many"], ["on"]))
    with pytest.raises(RefusedImport, match="more than 256"):
        loop = node("Loop", ["n", "", "x"], ["last", "y"], body=body)
        prepared([loop], [info("x", [3, 4])], 3, n=1000, many=5000)


def test_a_scan_from_the_end() -> None:
    nodes = [node("Add", ["s", "e"], ["t"]), node("Mul", ["t", "e"], ["p"])]
    body = helper.make_graph(nodes, "body", [info("s", [3]), info("e", [3])], [info("t", [3]), info("p", [3])])
    scan = node("Scan", ["zero", "x"], ["last", "y"], body=body, num_scan_inputs=1, scan_input_axes=[1],
                scan_input_directions=[1], scan_output_axes=[1])  # fmt: skip
    (y,) = prepared([scan], [info("x", [3, 4])], zero=np.zeros(3, np.float32)).run([X])
    turned = X[:, ::-1]
    np.testing.assert_array_equal(y, np.cumsum(turned, 1) * turned)


def test_more_operands_than_digits() -> None:
    (y,) = prepared([node("Concat", ["x"] * 12, ["y"], axis=1)], [info("x", [3, 4])]).run([X])
    np.testing.assert_array_equal(y, np.concatenate([X] * 12, 1))


def test_a_table_of_bools() -> None:
    mask = np.arange(60).reshape(15, 4) % 3 == 0
    nodes = [node("Tile", ["x", "often"], ["wide"]), node("Where", ["mask", "wide", "zero"], ["y"])]
    (y,) = prepared(nodes, [info("x", [3, 4])], mask=mask, often=[5, 1], zero=np.float32(0)).run([X])
    np.testing.assert_array_equal(y, np.where(mask, np.tile(X, (5, 1)), 0))


def test_positions_in_axes_whose_sizes_are_sums() -> None:
    nodes = [node("Concat", ["x", "x", "w"], ["wide"], axis=1), node("GatherElements", ["wide", "at"], ["y"], axis=0)]
    at = np.array([[0, -1, 2], [1, 1, -3]])
    (y,) = prepared(nodes, [info("x", [3, "n"])], w=np.ones((3, 1), np.float32), at=at).run([X])
    wide = np.concatenate([X, X, np.ones((3, 1), np.float32)], 1)
    np.testing.assert_array_equal(y, np.take_along_axis(wide[:, :3], at % 3, 0))


def test_known_vectors_are_added_not_joined() -> None:
    nodes = [node("Sum", ["a", "b", "a"], ["c"]), node("Add", ["x", "c"], ["y"])]
    (y,) = prepared(nodes, [info("x", [3, 4])], a=np.float32([2.0]), b=np.float32([0.5])).run([X])
    np.testing.assert_array_equal(y, X + 4.5)

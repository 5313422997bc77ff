"""Graphs that are none: each is refused in words. And names that mean something in the language, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

import nnc
import nnc.onnx_backend
from nnc.runtime.onnx.importing import RefusedImport, import_graph

node = helper.make_node


def f(name: str, shape: Any = (2, 3)) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def whole(name: str, *values: int) -> Any:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def model(
    nodes: Sequence[Any], inputs: Any = None, outputs: Any = None, init: Sequence[Any] = (), opset: int = 20
) -> Any:
    graph = helper.make_graph(
        nodes, "graph", [f("x")] if inputs is None else inputs, [f("y")] if outputs is None else outputs, init
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


IMAGE = [f("x", (1, 2, 4, 4))]
KERNEL = [helper.make_tensor("w", 1, [1, 2, 1, 1], [1, 2])]
MALFORMED = {
    "no graph": ModelProto(),
    "no outputs": model([node("Relu", ["x"], ["y"])], outputs=[]),
    "nothing makes the output": model([node("Relu", ["x"], ["z"])]),
    "nothing makes an input": model([node("Add", ["x", "nothing"], ["y"])]),
    "no inputs": model([node("Add", [], ["y"])]),
    "a circle": model([node("Add", ["x", "b"], ["a"]), node("Add", ["a", "x"], ["b"]), node("Relu", ["b"], ["y"])]),
    "one name for two results": model([node("Relu", ["x"], ["y"]), node("Sigmoid", ["x"], ["y"])]),
    "one name for two inputs": model([node("Relu", ["x"], ["y"])], [f("x"), f("x")]),
    "an opset to come": model([node("Relu", ["x"], ["y"])], opset=999),
    "opset 0": model([node("Relu", ["x"], ["y"])], opset=0),
    "another domain": model([node("Foo", ["x"], ["y"], domain="com.example")]),
    "no such operator": model([node("Foo", ["x"], ["y"])]),
    "no type": model([node("Relu", ["x"], ["y"])], [ValueInfoProto(name="x")]),
    "text": model([node("Identity", ["x"], ["y"])], [helper.make_tensor_value_info("x", TensorProto.STRING, [2])]),
    "a sequence": model([node("SequenceLength", ["x"], ["y"])], [helper.make_tensor_sequence_value_info("x", 1, [2])]),
    "no shape": model([node("Relu", ["x"], ["y"])], [f("x", None)]),
    "a negative size": model([node("Relu", ["x"], ["y"])], [f("x", (-1, 3))]),
    "broken numbers": model([node("Add", ["x", "w"], ["y"])],
                            init=[TensorProto(name="w", data_type=1, dims=[2, 3], raw_data=b"abc")]),
    "two dtypes": model([node("Add", ["x", "i"], ["y"])], [f("x"), helper.make_tensor_value_info("i", 7, [2, 3])]),
    "an attribute that is text": model([node("LeakyRelu", ["x"], ["y"], alpha="a")]),
    "an axis that is text": model([node("Softmax", ["x"], ["y"], axis="one")]),
    "an order of one axis": model([node("Transpose", ["x"], ["y"], perm=[0])]),
    "an order that is a number": model([node("Transpose", ["x"], ["y"], perm=1)]),
    "no axis": model([node("Concat", ["x", "x"], ["y"])]),
    "an axis too far": model([node("Concat", ["x", "x"], ["y"], axis=5)]),
    "an axis too far in a list": model([node("ReduceSum", ["x", "s"], ["y"])], init=[whole("s", 7)]),
    "half an axis": model([node("ReduceSum", ["x", "s"], ["y"])], init=[helper.make_tensor("s", 1, [1], [0.5])]),
    "no weight": model([node("Conv", ["x"], ["y"])], IMAGE),
    "too few axes": model([node("Conv", ["x", "x"], ["y"])]),
    "too few strides": model([node("Conv", ["x", "w"], ["y"], strides=[1])], IMAGE, init=KERNEL),
    "no groups": model([node("Conv", ["x", "w"], ["y"], group=0)], IMAGE, init=KERNEL),
    "no kernel": model([node("MaxPool", ["x"], ["y"])], IMAGE),
    "half a kernel": model([node("MaxPool", ["x"], ["y"], kernel_shape=[2])], IMAGE),
    "half of the margins": model([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1])], IMAGE),
    "blocks of nothing": model([node("DepthToSpace", ["x"], ["y"], blocksize=0)], [f("x", (1, 4, 3, 4))]),
    "sizes that do not meet": model([node("MatMul", ["x", "x"], ["y"])]),
    "another count": model([node("Reshape", ["x", "s"], ["y"])], init=[whole("s", 4, 4)]),
    "two sizes to be found": model([node("Reshape", ["x", "s"], ["y"])], init=[whole("s", -1, -1)]),
    "a size of no axis": model([node("Reshape", ["x", "s"], ["y"])], init=[whole("s", 1, 2, 3, 0)]),
    "an axis twice": model([node("Unsqueeze", ["x", "s"], ["y"])], init=[whole("s", 0, 0)]),
    "not 1": model([node("Squeeze", ["x", "s"], ["y"])], init=[whole("s", 0)]),
    "a position outside": model([node("Gather", ["x", "s"], ["y"])], init=[whole("s", 9)]),
    "starts without ends": model([node("Slice", ["x", "a", "b"], ["y"])], init=[whole("a", 0), whole("b", 1, 1)]),
    "no step": model([node("Slice", ["x", "a", "a", "a", "a"], ["y"])], init=[whole("a", 0)]),
    "no step of numbers": model([node("Slice", ["a", "a", "a", "a", "a"], ["t"]), node("Reshape", ["x", "t"], ["y"])],
                                init=[whole("a", 0)]),
    "parts of more": model([node("Split", ["x", "s"], ["y", "z"], axis=1)], init=[whole("s", 5, 5)]),
    "fewer parts": model([node("Split", ["x", "s"], ["y", "z"], axis=1)], init=[whole("s", 3)]),
    "as often as -1": model([node("Tile", ["x", "s"], ["y"])], init=[whole("s", -1, 1)]),
    "margins of one axis": model([node("Pad", ["x", "s"], ["y"])], init=[whole("s", 1, 1)]),
    "more than there are": model([node("TopK", ["x", "s"], ["y", "i"])], init=[whole("s", 30)]),
    "steps of 0": model([node("Range", ["a", "b", "a"], ["y"])], init=[whole("a", 0), whole("b", 10)]),
    "a negative count": model([node("ConstantOfShape", ["s"], ["y"])], init=[whole("s", -3)]),
    "letters for other axes": model([node("Einsum", ["x"], ["y"], equation="ijk->i")]),
    "no letters": model([node("Einsum", ["x"], ["y"], equation="a1->?")]),
    "no such dtype": model([node("Cast", ["x"], ["y"], to=77)]),
    "no branches": model([node("If", ["x"], ["y"])]),
    "no body": model([node("Loop", ["", ""], ["y"])]),
    "no way to sample": model([node("GridSample", ["x", "g"], ["y"], mode="foo")], [*IMAGE, f("g", (1, 3, 3, 2))]),
    "no scales": model([node("Resize", ["x"], ["y"])]),
    "a scale for two axes": model([node("Resize", ["x", "", "s"], ["y"])], init=[helper.make_tensor("s", 1, [1], [2])]),
    "windows of nothing": model([node("Col2Im", ["x", "s", "s"], ["y"])], init=[whole("s", 3)]),
    "a vector as a matrix": model([node("Trilu", ["x"], ["y"])], [f("x", (3,))]),
}  # fmt: skip
NAMES = [
    "scan", "weight", "loss", "x y", "ünïcödé", "模型", "model", "if", "1", "_", "a.b.c", "/layer/w:0", "*", '"', "\n",
    "return", "x" * 300, "true", "sum", "relu", "Net", "grad", "t", "epoch", "f32", "pi", "{0}", "{x}", "B",
]  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_is_refused(what: str) -> None:
    with pytest.raises(RefusedImport) as e:
        import_graph(MALFORMED[what], "model.onnx")
    assert all(r.reason for r in e.value.refusals)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_will_do(name: str) -> None:
    added = node("Add", [name, f"{name}w"], [f"{name}h"], name=name)
    weight = helper.make_tensor(f"{name}w", 1, [3], [1.0, 2.0, 3.0])
    graph = helper.make_graph(
        [added, node("Relu", [f"{name}h"], [f"{name}o"], name=name)],
        name,
        [f(name, (name, 3))],
        [f(f"{name}o")],
        [weight],
    )
    net = nnc.onnx_backend.prepare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    x = np.array([[-2, -3, -2], [1, 0, 1]], np.float32)
    np.testing.assert_array_equal(net.run([x])[0], np.maximum(x + np.arange(1, 4), 0))

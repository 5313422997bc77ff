"""ONNX's own backend suite, in parts that processes share; and networks of its zoo with weights by chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

import onnx
from onnx import numpy_helper

import nnc.onnx_backend
from nnc.dsl.errors import ArgumentError

from . import suite

PARTS = 24
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.filterwarnings("ignore")
def test_the_suite(part: int, request: pytest.FixtureRequest) -> None:
    outcomes = {case.name: suite.outcome(case) for case in suite.cases()[part::PARTS]}
    if request.config.getoption("--update-golden"):
        suite.update(outcomes)
    known = suite.refused()
    now, before = {n for n, r in outcomes.items() if r}, {n for n in outcomes if n in known}
    assert {n: outcomes[n] for n in now - before} == {}, "these passed"
    assert before - now == set(), "these pass now: --update-golden"


def test_the_table_follows_from_the_list() -> None:
    assert suite.TABLE.read_text("utf-8") == suite.table(suite.refused())


@pytest.mark.parametrize("name", ["inception_v1", "shufflenet", "squeezenet", "zfnet512"])
@pytest.mark.filterwarnings("ignore:.*do not fit .* exactly")
def test_a_network_of_the_zoo(name: str) -> None:
    ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    rng = np.random.default_rng(0)
    model = with_weights(onnx.load(LIGHT / f"light_{name}.onnx"), rng)
    initial = {t.name for t in model.graph.initializer}
    inputs = {
        i.name: rng.standard_normal([d.dim_value for d in i.type.tensor_type.shape.dim], dtype=np.float32)
        for i in model.graph.input
        if i.name not in initial
    }
    options = ort.SessionOptions()
    options.log_severity_level = 3
    (want,) = ort.InferenceSession(model.SerializeToString(), options).run(None, inputs)
    (got,) = nnc.onnx_backend.prepare(model).run(list(inputs.values()))
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_as_many_inputs_as_the_model_has() -> None:
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    with pytest.raises(ArgumentError, match="E0604"):
        nnc.onnx_backend.prepare(onnx.helper.make_model(graph)).run([])


def with_weights(model: Any, rng: np.random.Generator) -> Any:
    """A model whose weights, which are written as constants of a shape, are drawn so that values keep their size."""
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = [int(d) for d in shapes[node.input[0]]]
        if len(shape) > 1:
            drawn = rng.standard_normal(shape, dtype=np.float32) * np.float32((1 / np.prod(shape[1:])) ** 0.5)
        else:
            drawn = rng.random(shape, dtype=np.float32) + np.float32(0.5)
        model.graph.initializer.append(numpy_helper.from_array(drawn, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = 8
    return model

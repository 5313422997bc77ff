"""Random graphs beside ONNX Runtime: equal values, or a refusal in words; with sizes that are known, and named ones."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

import onnxruntime as ort

import nnc.onnx_backend
from nnc.dsl.errors import ArgumentError
from nnc.runtime.onnx.importing import RefusedImport

from .random_models import random_model

SEEDS = range(20, 44)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.filterwarnings("ignore")
def test_a_random_graph(seed: int) -> None:
    model, inputs = random_model(seed)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    wanted = ort.InferenceSession(model.SerializeToString(), options).run(None, inputs)
    try:
        results = nnc.onnx_backend.prepare(model).run(list(inputs.values()))
    except RefusedImport as e:
        assert all(r.reason for r in e.refusals)
        return
    except ArgumentError as e:  # a slice that would leave an axis whose size has a name
        assert "E0606" in str(e)
        return
    for got, want, output in zip(results, wanted, model.graph.output, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), output.name
        largest = max(1.0, float(np.abs(want).max(initial=0))) if want.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * largest, err_msg=output.name)

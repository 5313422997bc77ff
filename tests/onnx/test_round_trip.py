"""Our models as ONNX and back as text: they compute the same, draws by chance included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.types.sizes import substitute

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from nnc.runtime.onnx.importing import RefusedImport  # noqa: E402

MODELS = Path(nnc.__file__).parent / "models"
LARGE = ("alexnet", "vgg", "resnet", "googlenet")  # half a minute, and nothing that the others have not
SIZES = {"B": 3, "T": 5, "N": 34, "H": 4, "W": 6}


@pytest.mark.parametrize("name", sorted(p.stem for p in MODELS.glob("*.nn") if p.stem not in LARGE))
def test_a_model_comes_back(name: str, tmp_path: Path) -> None:
    net = nnc.compile(MODELS / f"{name}.nn", seed=1)
    net.to_onnx(tmp_path / "net.onnx")
    back = nnc.from_onnx(tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    values = []
    for want in net.entry("predict").wants:
        shape = [int(str(substitute(n, SIZES))) for n in want.type.shape]
        whole = want.dtype.kind in "ib"
        values.append((rng.integers(0, 2, shape) if whole else rng.normal(size=shape)).astype(want.dtype))
    first, again = net.predict(*values), back.predict(*values)
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (first, again)), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-6 * max(1, np.abs(a).max()))


def words(nodes: list[object], kind: int = TensorProto.INT64) -> object:
    given, made = (helper.make_tensor_value_info(n, k, [4]) for n, k in (("x", TensorProto.INT64), ("y", kind)))
    by = numpy_helper.from_array(np.array(7, np.uint64))
    cast = helper.make_node("Cast", ["x"], ["u"], to=TensorProto.UINT64)
    constant = helper.make_node("Constant", [], ["n"], value=by)
    graph = helper.make_graph([cast, constant, *nodes], "words", [given], [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_words_without_a_sign_are_shifted_as_such() -> None:
    shift = helper.make_node("BitShift", ["u", "n"], ["v"], direction="RIGHT")
    back = helper.make_node("Cast", ["v"], ["y"], to=TensorProto.INT64)
    x = np.array([-1, -(2**63), 2**62, 200])
    got = nnc.from_onnx(words([shift, back])).predict(x)
    np.testing.assert_array_equal(got, (x.astype(np.uint64) >> np.uint64(7)).astype(np.int64))


@pytest.mark.parametrize("op", ["Add", "Max", "Less", "Div"])
def test_other_arithmetic_of_words_without_a_sign_is_refused(op: str) -> None:
    node = helper.make_node(op, ["u", "n"], ["v"])
    with pytest.raises(RefusedImport, match="without a sign"):
        nnc.from_onnx(words([node, helper.make_node("Cast", ["v"], ["y"], to=TensorProto.INT64)]))
    with pytest.raises(RefusedImport, match="without a sign"):
        nnc.from_onnx(words([helper.make_node("Identity", ["u"], ["y"])], TensorProto.UINT64))

"""Graphs of ONNX as text: what it says, that it computes the same, what is refused, and files that lie."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import ArgumentError, DataError

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from nnc.runtime.onnx.importing import RefusedImport, import_graph  # noqa: E402
from nnc.runtime.onnx.load import opened, read  # noqa: E402

RNG = np.random.default_rng(0)


def value(name: str, *shape: Any, dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def array(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(RNG.normal(0, 0.3, shape).astype(np.float32), name)


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], arrays: list[Any] = (), opset: int = 17) -> Any:
    made = helper.make_graph(nodes, "g", inputs, outputs, list(arrays))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, inputs: str, output: str, name: str = "", **attributes: Any) -> Any:
    read_ = [i if i != "_" else "" for i in inputs.split()]
    return helper.make_node(op, read_, output.split(), name=name, **attributes)


def body(text: str) -> str:
    """The text without the comment in front."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip() + "\n"


def same(model: Any, *inputs: np.ndarray, tolerance: float = 1e-5, **options: Any) -> str:
    """The text, which computes what ONNX's reference does."""
    made = import_graph(model, "model.onnx", **options)
    results = opened(made).predict(*inputs)
    wanted = ReferenceEvaluator(model).run(None, dict(zip(made.inputs.values(), inputs, strict=True)))
    for got, want in zip(results if isinstance(results, tuple) else (results,), wanted, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return body(made.text)


def lenet() -> Any:
    return graph(
        [
            node("Conv", "x c1.weight c1.bias", "a", "/c1/Conv", kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
            node("Relu", "a", "b"),
            node("MaxPool", "b", "c", kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", "c", "d"),
            node("Gemm", "d fc.weight fc.bias", "logits", "/fc/Gemm", transB=1),
        ],
        [value("x", "batch", 1, 8, 8)],
        [value("logits", "batch", 10)],
        [array("c1.weight", 6, 1, 5, 5), array("c1.bias", 6), array("fc.weight", 10, 96), array("fc.bias", 10)],
    )


def test_a_network_is_a_text_that_one_can_read() -> None:
    text = same(lenet(), RNG.normal(size=(3, 1, 8, 8)).astype(np.float32))
    assert text == (
        "model Net(x: f32[B, 1, 8, 8]) -> (logits: f32[B, 10]) {\n"
        "    logits = x |> c1: Conv(6, 5, pad = 2) |> relu |> max_pool(2) |> flatten |> fc: Dense(10)\n}\n"
    )


def test_sizes_keep_their_names_and_need_no_words() -> None:
    """What lies between Shape and Reshape is computed on sizes."""
    model = graph(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "b"), node("Gather", "s one", "t"),
            node("Unsqueeze", "b axes", "b1"), node("Unsqueeze", "t axes", "t1"),
            node("Concat", "b1 t1 heads", "shape", axis=0),
            node("Reshape", "x shape", "apart"),
            node("Transpose", "apart", "z", perm=[0, 2, 1, 3]), node("Transpose", "z", "y", perm=[0, 2, 1, 3]),
        ],
        [value("x", "batch", "time", 8)],
        [value("y", "batch", "time", 2, 4)],
        [
            *(numpy_helper.from_array(np.array(v), n) for n, v in (("zero", 0), ("one", 1))),
            *(numpy_helper.from_array(np.array(v), n) for n, v in (("axes", [0]), ("heads", [2, 4]))),
        ],
    )  # fmt: skip
    text = same(model, RNG.normal(size=(2, 5, 8)).astype(np.float32))
    assert "y = reshape(x, [B, time, 2, 4])\n" in text  # and what is turned and turned back is not turned


def mixed(width: int, *blocks: tuple[int, int], names: str = "blocks.{}") -> Any:
    """x + W2 relu(W1 x), for each block, by products and sums."""
    nodes: list[Any] = []
    arrays: list[Any] = []
    last = "x"
    for k, (_, hidden) in enumerate(blocks):
        at = names.format(k)
        path = "/" + at.replace(".", "/" + at.split(".")[0] + ".")
        nodes += [
            node("MatMul", f"{last} {at}.up.weight", f"a{k}", f"{path}/up/MatMul"),
            node("Add", f"{at}.up.bias a{k}", f"b{k}", f"{path}/up/Add"),
            node("Relu", f"b{k}", f"c{k}", f"{path}/Relu"),
            node("MatMul", f"c{k} {at}.down.weight", f"d{k}", f"{path}/down/MatMul"),
            node("Add", f"{last} d{k}", f"e{k}", f"{path}/Add"),
        ]
        arrays += [
            array(f"{at}.up.weight", width, hidden), array(f"{at}.up.bias", hidden),
            array(f"{at}.down.weight", hidden, width),
        ]  # fmt: skip
        last = f"e{k}"
    nodes.append(node("Softmax", last, "y", axis=-1))
    return graph(nodes, [value("x", "n", width)], [value("y", "n", width)], arrays)


def test_a_repeat_gives_no_turn_the_name_of_another_block() -> None:
    model = mixed(4, (4, 8), (4, 8), (4, 16), (4, 16), (4, 16), names="block.{}")
    text = same(model, RNG.normal(size=(3, 4)).astype(np.float32))
    assert "block_1: Block(8)" in text and "block_2: Block(16)" in text and "repeat" not in text


def test_blocks_that_are_repeated_are_a_layer_and_calls_in_a_row_a_repeat() -> None:
    text = same(mixed(4, *[(4, 16)] * 4), RNG.normal(size=(3, 4)).astype(np.float32))
    assert text == (
        "layer Block(x) {\n"
        "    down = x |> up: Dense(16) |> relu |> down: Dense(4, bias = false)\n"
        "    y = x + down\n"
        "    return y\n}\n\n"
        "model Net(x: f32[N, 4]) -> (y: f32[N, 4]) {\n"
        "    add_4 = x\n"
        "    repeat 4 { add_4 = add_4 |> Block }\n"
        "    y = add_4 |> softmax\n}\n"
    )


def test_numbers_that_differ_between_blocks_are_parameters() -> None:
    text = same(mixed(4, (4, 16), (4, 32)), RNG.normal(size=(3, 4)).astype(np.float32))
    assert "(x, out: int) {\n    down = x |> up: Dense(out) |> relu |> down: Dense(4, bias = false)\n" in text
    assert "(16) |> blocks_1: " in text and "(32)" in text


@pytest.mark.parametrize("numbers", [[2**31, 1, -5], [-(2**63), 0, 1], [2**40] * 3, [2**31 - 1, -(2**31), 0]])
def test_whole_numbers_beyond_i32(numbers: list[int]) -> None:
    c = np.array(numbers)
    kind = TensorProto.INT64
    model = graph(
        [node("Max", "x c", "y")], [value("x", 3, dtype=kind)], [value("y", 3, dtype=kind)],
        [numpy_helper.from_array(c, "c")],
    )  # fmt: skip
    x = np.array([7, -(2**62), 2**41])
    np.testing.assert_array_equal(nnc.from_onnx(model).predict(x), np.maximum(x, c))


def test_an_array_of_several_layers_is_told() -> None:
    model = graph(
        [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("MatMul", "b w", "c"), node("Add", "c k", "d"),
         node("Mul", "d k", "y")],
        [value("x", "n", 4)], [value("y", "n", 4)], [array("w", 4, 4), array("k", 4)],
    )  # fmt: skip
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    made = import_graph(model, "m")
    assert "# `w` was one array for 2 layers" in made.text
    assert made.text.count("bias k") == 1 or ": Dense(4) * k" in made.text
    np.testing.assert_allclose(opened(made).predict(x), ReferenceEvaluator(model).run(None, {"x": x})[0], rtol=1e-5)


def test_what_cannot_be_opened_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="E0620"):
        nnc.from_onnx(tmp_path / "none.onnx")
    with pytest.raises(nnc.ArgumentError, match="E0602"):
        nnc.from_onnx(b"bytes")
    for name in ("a b", "", "9x", "Dense"):
        with pytest.raises(nnc.ArgumentError, match="E0603"):
            nnc.from_onnx(lenet(), name=name)
    unsorted = lenet()
    unsorted.graph.node.append(unsorted.graph.node.pop(0))
    with pytest.raises(RefusedImport, match="which no node before it makes"):
        nnc.from_onnx(unsorted)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("LSTM", 4), ("GRU", 3)])
def test_recurrent_networks_are_the_librarys_layers(op: str, gates: int, direction: str) -> None:
    n = 2 if direction == "bidirectional" else 1
    more = {"linear_before_reset": 1} if op == "GRU" else {}
    model = graph(
        [node(op, "x w r b", "y last", hidden_size=5, direction=direction, **more)],
        [value("x", "time", "batch", 3)],
        [value("y", "time", n, "batch", 5), value("last", n, "batch", 5)],
        [array("w", n, gates * 5, 3), array("r", n, gates * 5, 5), array("b", n, 2 * gates * 5)],
    )
    x = RNG.normal(size=(6, 2, 3)).astype(np.float32)
    made = import_graph(model, "m")
    y, last = opened(made).predict(x)
    assert made.text.count(f": {op.capitalize()}(5)") == n and "scan" not in made.text
    steps = [[x], [x[::-1]], [x, x[::-1]]][["forward", "reverse", "bidirectional"].index(direction)]
    for k, sequence in enumerate(steps):
        want = _recurrent(op, sequence, *(numpy_helper.to_array(t)[k] for t in model.graph.initializer))
        backwards = direction == "reverse" or k == 1
        np.testing.assert_allclose(y[:, k], want[::-1] if backwards else want, atol=1e-6)
        np.testing.assert_allclose(last[k], want[-1], atol=1e-6)


def _recurrent(op: str, x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ONNX's equations in f64."""
    x, w, r, b = (v.astype(np.float64) for v in (x, w, r, b))
    h = r.shape[1]
    wb, rb = np.split(b, 2)
    s, c, out = np.zeros((x.shape[1], h)), np.zeros((x.shape[1], h)), []

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    for t in range(len(x)):
        z, u = x[t] @ w.T + wb, s @ r.T + rb
        if op == "RNN":
            s = np.tanh(z + u)
        elif op == "LSTM":
            i, o, f, g = np.split(z + u, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            s = sigmoid(o) * np.tanh(c)
        else:
            (zz, zr, zh), (uz, ur, uh) = np.split(z, 3, axis=1), np.split(u, 3, axis=1)
            n = np.tanh(zh + sigmoid(zr + ur) * uh)
            s = (1 - sigmoid(zz + uz)) * n + sigmoid(zz + uz) * s
        out.append(s)
    return np.array(out)


def test_all_that_cannot_be_imported_is_said_at_once() -> None:
    model = graph(
        [
            node("NonZero", "x", "i", "where"), node("Abs", "i", "j", "reads_it"),
            node("Frobnicate", "x", "k", "what"), node("Relu", "x", "y", "fine"),
        ],
        [value("x", 4)],
        [value("y", 4), value("j", 1, "n", dtype=TensorProto.INT64)],
    )  # fmt: skip
    with pytest.raises(RefusedImport, match="E0634") as e:
        import_graph(model, "m.onnx")
    assert [(r.node, r.operator) for r in e.value.refusals] == [("where", "NonZero"), ("what", "Frobnicate")]
    assert "2 nodes cannot be imported" in str(e.value)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1), (1, 1), (4, 4)])
def test_what_gemm_adds_may_stand_for_rows(shape: tuple[int, ...]) -> None:
    arrays = [array("w", 4, 4), array("c", *shape)]
    model = graph([node("Gemm", "x w c", "y", alpha=0.5, beta=2.0)], [value("x", 4, 4)], [value("y", 4, 4)], arrays)
    assert ("Dense(4)" in same(model, RNG.normal(size=(4, 4)).astype(np.float32))) == (shape in [(4,), (1, 4)])


def test_what_an_input_decides_can_be_given() -> None:
    model = graph(
        [node("Reshape", "x shape", "y")],
        [value("x", 2, 6), value("shape", 2, dtype=TensorProto.INT64)],
        [value("y", "a", "b")],
    )
    with pytest.raises(RefusedImport, match="must be known"):
        import_graph(model, "m")
    made = import_graph(model, "m", fixed={"shape": [3, 4]})
    x = RNG.normal(size=(2, 6)).astype(np.float32)
    np.testing.assert_array_equal(opened(made).predict(x), x.reshape(3, 4))


@pytest.mark.parametrize(
    ("fixed", "code"),
    [({"shap": [3, 4]}, "E0608"), ({"shape": 12}, "E0601"), ({"shape": [12]}, "E0601"), ({"shape": [2.5, 4]}, "E0602")],
)
def test_a_value_that_an_input_could_not_have_is_refused(fixed: dict[str, Any], code: str) -> None:
    model = graph(
        [node("Reshape", "x shape", "y")],
        [value("x", 2, 6), value("shape", 2, dtype=TensorProto.INT64)],
        [value("y", "a", "b")],
    )
    with pytest.raises(ArgumentError, match=code):
        import_graph(model, "m", fixed=fixed)


@pytest.mark.parametrize(
    ("last", "shape", "loss"),
    [
        ("Identity", ("n", 4), "mean(cross_entropy(y, label))"),
        ("Softmax", ("n", 4), "mean(cross_entropy(log(y), label))"),
        ("LogSoftmax", ("n", 4), "mean(nll(y, label))"),
        ("Identity", ("n", 1), "mean(squared_error(y, target))"),
        ("Sigmoid", ("n", 4), "-mean(target * log(y + 1e-7) + (1 - target) * log(1 - y + 1e-7))"),
    ],
)
def test_a_train_block_fits_the_output_and_trains(last: str, shape: tuple[Any, ...], loss: str, tmp_path: Path) -> None:
    model = graph(
        [node("MatMul", "x w", "a"), node("Add", "a b", "z"), node(last, "z", "y")],
        [value("x", "n", 3)],
        [value("y", *shape)],
        [array("w", 3, shape[1]), array("b", shape[1])],
    )
    onnx.save(model, tmp_path / "m.onnx")
    made = read(tmp_path / "m.onnx", train=True)
    assert f" = {loss}\n" in made.text
    net = opened(made)
    x = RNG.normal(size=(16, 3)).astype(np.float32)
    target = RNG.random((16, shape[1])).astype(np.float32) if "target" in loss else RNG.integers(0, 4, 16)
    losses = [e["loss"] for e in net.fit(x, target, epochs=5)]
    assert losses[-1] < losses[0]


def run(*words: str, code: int = 0) -> str:
    out = subprocess.run([sys.executable, "-m", "nnc", *words], capture_output=True, text=True)
    assert out.returncode == code, out.stdout + out.stderr
    return out.stdout + out.stderr


def test_the_command_writes_a_text_and_what_was_learned(tmp_path: Path) -> None:
    onnx.save(lenet(), tmp_path / "lenet.onnx")
    text = tmp_path / "lenet.nn"
    said = run("import", str(tmp_path / "lenet.onnx"), "-o", str(text), "--name", "LeNet", "--train")
    assert "5 nodes are" in said and "1,126 numbers that were learned" in said
    assert run("check", str(text)).endswith("no errors\n")
    run("fmt", "--check", str(text))
    net = nnc.compile(text)
    net.load_weights(tmp_path / "lenet.safetensors")
    x = RNG.normal(size=(2, 1, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(net.predict(x), nnc.from_onnx(tmp_path / "lenet.onnx").predict(x))
    tensors = pytest.importorskip("safetensors.numpy").load_file(tmp_path / "lenet.safetensors")
    assert tensors["LeNet.c1.W"].shape == (6, 1, 5, 5)


def test_nothing_is_written_where_something_is_refused(tmp_path: Path) -> None:
    model = graph([node("Unique", "x", "y", "u")], [value("x", 4)], [value("y", "n")])
    onnx.save(model, tmp_path / "m.onnx")
    said = run("import", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "m.nn"), code=1)
    assert "Unique `u`" in said and sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]


def outside(tmp_path: Path, location: str, **facts: str) -> Path:
    """A model whose array is in another file."""
    model = lenet()
    t = model.graph.initializer[0]
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **facts}.items():
        t.external_data.add(key=key, value=text)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_arrays_in_other_files_are_read_where_that_is_asked(tmp_path: Path) -> None:
    data = RNG.normal(size=(6, 1, 5, 5)).astype(np.float32)
    (tmp_path / "m.data").write_bytes(bytes(16) + data.tobytes())
    path = outside(tmp_path, "m.data", offset="16", length=str(data.nbytes))
    with pytest.raises(DataError, match="--external"):
        read(path)
    np.testing.assert_array_equal(read(path, external=True).arrays["Net.c1.W"], data)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", "", "sub/../../secret", "none"])
def test_no_file_outside_of_the_folder_is_read(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(600))
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises((DataError, OSError)):
        read(outside(folder, location), external=True)


@pytest.mark.parametrize(
    "facts", [{"offset": "-4"}, {"offset": "999"}, {"length": "9999"}, {"offset": "x"}, {"length": "-9"}]
)
def test_what_is_said_of_another_file_must_fit_it(tmp_path: Path, facts: dict[str, str]) -> None:
    (tmp_path / "m.data").write_bytes(bytes(600))
    with pytest.raises(DataError, match="E0635"):
        read(outside(tmp_path, "m.data", **facts), external=True)


@pytest.mark.parametrize(
    "nodes",
    [
        [
            node("Concat", "c c", "c1", axis=0),
            *(node("Concat", f"c{k} c{k}", f"c{k + 1}", axis=0) for k in range(1, 40)),
        ],
        [node("Add", "c d", "c1"), *(node("Tile", f"c{k} r", f"c{k + 1}") for k in range(1, 40))],
    ],
    ids=["concat", "tile"],
)
def test_a_few_nodes_do_not_make_any_number_of_numbers(nodes: list[Any]) -> None:
    model = graph(
        [*nodes, node("ReduceSum", "c40", "s", keepdims=0), node("Add", "x s", "y")],
        [value("x", 1)],
        [value("y", 1)],
        [array("c", 1000), array("d", 1000), numpy_helper.from_array(np.array([4]), "r")],
    )
    with pytest.raises(RefusedImport):
        import_graph(model, "m")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x08\x08", bytes(1000), b"\xff" * 100])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(DataError, match="E0635"):
        read(tmp_path / "m.onnx")


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path: Path) -> None:
    model = lenet()
    model.graph.initializer[0].dims[0] = 2**40
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match="E0635"):
        read(tmp_path / "m.onnx")
    model.graph.initializer[0].dims[0] = 7
    with pytest.raises(RefusedImport, match="initialiser"):
        import_graph(model, "m")

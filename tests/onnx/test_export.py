"""Networks as ONNX files: what ONNX Runtime makes of them is what nnc makes of them."""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.compiler.elaborate import Program
from nnc.compiler.graph.interpret import evaluate, whole
from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import OPS
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.graph.ops.op import ABSTRACT, LEAF, MAP, TUPLE, Sample
from nnc.compiler.passes import ALWAYS, run
from nnc.compiler.settings import Settings
from nnc.compiler.types.tensors import TensorType
from nnc.dsl.errors import ArgumentError, ResourceError, UnsupportedError
from nnc.dsl.parser import read_source
from nnc.dsl.source import Source
from nnc.runtime.cli import main
from nnc.runtime.onnx.export.export import OLDEST, build
from nnc.runtime.onnx.export.model import RULES, Export

onnx = pytest.importorskip("onnx")
inliner = pytest.importorskip("onnx.inliner")
ort = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]
MODELS = sorted(p.stem for p in (ROOT / "models").glob("*.nn"))
NEWEST_RUN = 22  # the newest opset that every ONNX Runtime we ask for runs
HUGE = ("alexnet", "vgg")  # hundreds of megabytes, made of nothing that the others are not
LARGE = {  # and what they are made of
    "googlenet": {"Conv": 57, "LRN": 2, "MaxPool": 13, "Concat": 9, "Gemm": 1},
    "resnet": {"Conv": 53, "BatchNormalization": 53, "MaxPool": 1, "Gemm": 1},
    "squeezenet": {"Conv": 26, "MaxPool": 3, "Concat": 8},
}
SIZES: Mapping[str, tuple[dict[str, int], ...]] = {  # of free sizes, where any two numbers would not do
    "graph_network": ({"N": 34},),
    "unet": ({"B": 1, "H": 32, "W": 36},),
    "gpt": ({"B": 2, "T": 5}, {"B": 1, "T": 64}),
}


def session(model: Any) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def flat(model: Any) -> Counter[str]:
    """How many nodes of each operator there are once functions are written out."""
    return Counter(n.op_type for n in inliner.inline_local_functions(model).graph.node)


def learned(net: Any, rng: np.random.Generator) -> None:
    """Parameters that begin as 0, state and normalisation are numbers of some kind."""
    for v in net.manifest.variables:
        if v.dtype != "f32" or v.role in ("slot", "train"):
            continue
        if v.role in ("state", "normalize"):
            net.variables.write({v.path: rng.uniform(0.5, 1.5, v.shape).astype(np.float32)})
        elif not np.any(net.variables[v.path]):
            net.variables.write({v.path: rng.normal(0, 0.3, v.shape).astype(np.float32)})


def arguments(graph: Any, sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    given = {}
    for n in graph:
        if n.op == "input":
            shape = [whole(k, sizes) for k in n.shape]
            numbers = rng.normal(size=shape) if n.dtype == "f32" else rng.integers(0, 2, shape)
            given[n.attrs["name"]] = np.asarray(numbers, NUMPY[n.dtype])
    return given


def close(name: str, wanted: Any, got: np.ndarray) -> None:
    """Equal to 1e-5 of the largest, whole numbers exactly."""
    wanted = np.asarray(wanted)
    assert wanted.shape == got.shape and wanted.dtype == got.dtype, name
    if wanted.dtype.kind == "f" and wanted.size:
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-30)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * scale, err_msg=name)
    else:
        np.testing.assert_array_equal(got, wanted, err_msg=name)


def compare(net: Any, entry: str, model: Any, sizes: Mapping[str, int], rng: np.random.Generator) -> None:
    """ONNX Runtime against the reference interpreter, so that nothing needs to be compiled."""
    graph = run(ALWAYS, net.session.program.graph(entry))
    given = arguments(graph, sizes, rng)
    outputs, updates = evaluate(graph, given, net.variables, sizes)
    wanted = [*outputs.values(), *updates.values()]
    names = [o.name for o in model.graph.output]
    for name, want, got in zip(names, wanted, session(model).run(None, given), strict=True):
        close(name, want, got)


@pytest.mark.parametrize("name", [m for m in MODELS if m not in (*LARGE, *HUGE)])
def test_every_model_says_the_same(name: str) -> None:
    rng = np.random.default_rng(7)
    net = nnc.compile(ROOT / "models" / f"{name}.nn")
    if name != "neocognitron":  # whose cells divide what is almost equal, unless they are as they begin
        learned(net, rng)
    usual = {s: 2 + k for k, s in enumerate("BTN")}, {s: 4 - k for k, s in enumerate("BTN")}
    for entry in ("predict", *net.exports):
        model = build(net, entry)
        for sizes in SIZES.get(name, usual):
            compare(net, entry, model, {**dict.fromkeys("BTNHW", 3), **sizes}, rng)


@pytest.mark.parametrize("name, made", LARGE.items())
def test_large_models_have_their_layers(name: str, made: dict[str, int]) -> None:
    """Their weights are as good as any others, so they are 0 and not drawn."""
    program = Program(read_source(str(ROOT / "models" / f"{name}.nn")), Settings())
    cx = program.context("predict")
    graph = program.graph("predict", cx)
    zeros = {p: np.zeros([whole(n, {}) for n in d.type.shape], np.float32) for p, d in program.variables.items()}
    model = Export(name, graph, zeros, 20, cx, functions=False).model()
    onnx.checker.check_model(model, full_check=True)
    counted = Counter(n.op_type for n in model.graph.node)
    assert {op: counted[op] for op in made} == made


@pytest.mark.parametrize("functions", [True, False])
def test_resnet_has_its_convolutions_and_nothing_more(functions: bool) -> None:
    net = nnc.compile(ROOT / "models" / "resnet20.nn")
    made = flat(build(net, functions=functions))
    assert made["Conv"] == made["BatchNormalization"] == 19
    assert made["Gemm"] == 1 and made["Relu"] == 19 and made["ReduceMean"] == 1
    assert not made.keys() & {"Reshape", "Transpose", "Expand", "Mul", "Einsum", "Gather"}


def test_layers_of_the_file_are_functions_that_instances_share() -> None:
    model = build(nnc.compile(ROOT / "models" / "resnet20.nn"))
    calls = [n for n in model.graph.node if n.domain == "nnc"]
    assert [n.op_type for n in calls].count("Block") == 7 and len(calls) == 9
    assert {f.name for f in model.functions} == {"Block", "Block_2", "Block_3"}
    block = next(f for f in model.functions if f.name == "Block")
    assert "conv_1.W" in block.input and "batchnorm_2.running_var" in block.input
    assert "ResNet20.block_1.conv_1.W" in {i.name for i in model.graph.initializer}


LAYERS = {
    "a size from outside": """
layer Wide(x: f32[B, 3], n) -> f32[B, m] { weight w: f32[3] = 1
  y = x @ w
  return broadcast(expand(y, 1), [B, n]) }
model M(x: f32[B, 3], z: f32[N]) -> (y: f32[B, N], s: f32[N]) {
  y = x |> Wide(size(z, 0))
  s = z * 2 }
""",
    "values from inside": """
layer Two(x: f32[B, 3]) -> f32[B, 3] { 
  h = x |> hidden: Dense(3) |> relu
  return h |> Dense(3) }
layer Outer(x: f32[B, 3]) -> f32[B, 3] { return x |> Two |> Two }
model M(x: f32[B, 3]) -> (y: f32[B, 3]) { y = x |> Outer |> Two }
export both(x: f32[B, 3]) -> (y: f32[B, 3], h: f32[B, 3], g: f32[B, 3]) {
  y = M(x)
  h = M.outer_1.two_1.hidden
  g = grad(sum(y^2), x) }
""",
    "the same twice": """
layer Two(x: f32[B, 3]) -> f32[B, 3] { return x |> Dense(3) |> tanh }
model M(x: f32[B, 3]) -> (y: f32[B, 3]) { 
  share t = Two()
  y = t(t(x)) + t(x) }
""",
    "two results": """
layer Pair(x: f32[B, 3]) -> (a: f32[B, 3], b: f32[3]) { 
  a = x |> Dense(3)
  b = sum(a, axis = 0) }
model M(x: f32[B, 3]) -> (y: f32[B, 3], b: f32[3]) { 
  (a, b) = x |> Pair
  y = a + b }
""",
    "nothing inside": """
layer Same(x: f32[B, 3]) -> f32[B, 3] { return x }
layer Const(x: f32[B, 3]) -> f32[3] { weight w: f32[3] = 2
 return w }
model M(x: f32[B, 3]) -> (y: f32[B, 3], x2: f32[B, 3], w: f32[3]) { 
  y = x |> Same
  x2 = y
  w = x |> Const }
""",
    "draws of its own": """
layer Noise(x: f32[B, 3]) -> f32[B, 3] { return x + uniform(shape = shape(x)) }
model M(x: f32[B, 3]) -> (y: f32[B, 3]) { y = x |> Noise |> Noise }
""",
    "in a loop": """
layer Cell(x: f32[B, 3]) -> f32[B, 3] { return x |> Dense(3) |> LayerNorm |> gelu }
model M(x: f32[B, T, 3]) -> (y: f32[B, T, 3], s: f32[B, 3]) { 
  s = broadcast(0.0, [B, 3])
  scan t in 0..T { 
    s = s + x[:, t] |> Cell 
    ys[b, t, k] = s[b, k] }
  y = ys }
""",
}


@pytest.mark.parametrize("name", LAYERS)
def test_functions_do_what_layers_do(name: str) -> None:
    rng = np.random.default_rng(4)
    net = nnc.compile(LAYERS[name])
    for entry in ("predict", *net.exports):
        model = build(net, entry)
        for b in (2, 3):
            compare(net, entry, model, {"B": b, "N": 5, "T": 4}, rng)
    shared = {"the same twice": ["Two"], "a size from outside": ["Wide"], "nothing inside": [], "in a loop": []}
    assert [f.name for f in model.functions] == shared.get(name, [f.name for f in model.functions])
    if name == "in a loop":
        (loop,) = (n for n in model.graph.node if n.op_type == "Loop")
        inside = Counter(n.op_type for n in loop.attribute[0].g.node)
        assert inside["LayerNormalization"] == inside["Gelu"] == 1


@pytest.mark.parametrize("functions", [True, False])
def test_what_is_done_grows_with_the_layers(functions: bool) -> None:
    """Calls of Python functions: four times the layers take at most five times the calls."""
    layer = "layer R(x: f32[B, 4]) -> f32[B, 4] { return x + (x |> Dense(4) |> relu |> LayerNorm) }"
    calls = []
    for n in (20, 20, 80):  # once more, for what is remembered
        source = f"{layer}\nmodel M(x: f32[B, 4]) -> (y: f32[B, 4]) {{ y = x\n repeat {n} {{ y = y |> R }} }}"
        program = Program(Source("<text>", source), Settings()).unrolled
        cx = program.context("predict")
        graph = program.graph("predict", cx)
        zeros = {p: np.zeros([whole(k, {}) for k in d.type.shape], np.float32) for p, d in program.variables.items()}
        profile = cProfile.Profile()
        profile.runcall(Export("M", graph, zeros, 20, cx, functions).model)
        calls.append(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]
    assert calls[2] < 5 * calls[1]


# --- operators -------------------------------------------------------------------------------------------------------

REFUSED = {"erfinv", "lgamma", "digamma", "trigamma", "tetragamma", "atan2"}
OURS = {n for n, o in OPS.items() if o.kind in (LEAF, TUPLE, ABSTRACT) or o.reference is None}
LATE = OURS | {"random"} | {n for n in OPS if n not in RULES and n not in REFUSED}  # made by passes that come after


def of_sample(op: str, sample: Sample) -> Any:
    b = Builder("sample", OPS)
    args = [b.emit("input", name=f"x{k}", type=t) for k, t in enumerate(sample.types)]
    return b.finish([("y", b.emit(op, *args, **sample.attrs))])


@pytest.mark.parametrize("op", sorted(OPS.keys() - LATE - REFUSED))
@pytest.mark.parametrize("opset", [18, NEWEST_RUN])
def test_every_operator(op: str, opset: int) -> None:
    rng = np.random.default_rng(3)
    for sample in OPS[op].samples:
        if any("f64" == t.dtype for t in sample.types) or 0 in np.concatenate([[1], *(t.shape for t in sample.types)]):
            continue  # ONNX Runtime has few operators of doubles, and its reductions of nothing are errors
        arrays = []
        for t in sample.types:
            if t.dtype in ("i32", "i64"):
                low, high = int(np.ceil(sample.low)), int(np.ceil(sample.high))
                arrays.append(rng.integers(low, max(high, low + 1), t.shape).astype(t.dtype.replace("i", "int")))
            elif t.dtype == "bool":
                arrays.append(rng.random(t.shape) < 0.5)
            else:
                arrays.append(rng.uniform(sample.low, sample.high, t.shape).astype(np.float32))
        graph = of_sample(op, sample)
        try:
            model = Export("", graph, {}, opset).model()
        except UnsupportedError:
            assert op == "whole_pow"  # of a power that may be negative
            continue
        onnx.checker.check_model(model, full_check=True)
        wanted = OPS[op].reference(arrays, sample.attrs, graph["v0"].type)  # type: ignore[misc]
        (got,) = session(model).run(None, {f"x{k}": np.asarray(a) for k, a in enumerate(arrays)})
        close(f"{op} {sample}", wanted, got)


EDGES = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.5, -2.5, 3e38, 1e-40], np.float32)
FLOAT_MAPS = [
    op for op in sorted(OPS.keys() - LATE - REFUSED)
    if OPS[op].kind == MAP and {t.dtype for t in OPS[op].samples[0].types} == {"f32"}
]  # fmt: skip


@pytest.mark.parametrize("op", FLOAT_MAPS)
def test_operators_at_the_edges(op: str) -> None:
    """Every combination of what is not a number, infinite, 0, large and small."""
    sample = OPS[op].samples[0]
    arrays = [np.ravel(a) for a in np.meshgrid(*[EDGES] * len(sample.types))]
    types = tuple(TensorType("f32", a.shape) for a in arrays)
    graph = of_sample(op, Sample(types, sample.attrs))
    with np.errstate(all="ignore"):
        wanted = OPS[op].reference(arrays, sample.attrs, graph["v0"].type)  # type: ignore[misc]
    (got,) = session(Export("", graph, {}, 20).model()).run(None, {f"x{k}": a for k, a in enumerate(arrays)})
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


# --- what is refused, and what a file says ---------------------------------------------------------------------------


def test_all_that_has_no_counterpart_is_named_at_once() -> None:
    net = nnc.compile("""
model M(x: f32[B, 3]) -> (y: f32[B, 3]) {
    a = lgamma(x)
    y = a + erfinv(x)
}
""")
    with pytest.raises(UnsupportedError) as e:
        build(net)
    assert [d.code for d in e.value.diagnostics] == ["E0632", "E0632"]
    assert [d.labels[0].span.position[0] for d in e.value.diagnostics] == [3, 4]
    assert "`lgamma`" in e.value.diagnostics[0].message and "`erfinv`" in e.value.diagnostics[1].message


def test_an_opset_that_is_not_written_is_refused() -> None:
    net = nnc.compile(ROOT / "models" / "xor.nn")
    for opset in (OLDEST - 1, onnx.defs.onnx_opset_version() + 1, "20"):
        with pytest.raises(ArgumentError, match="opset"):
            build(net, opset=opset)
    with pytest.raises(ArgumentError, match="entry"):
        build(net, "taps")


def test_what_is_too_large_or_lacks_the_library_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = nnc.compile(ROOT / "models" / "xor.nn")
    with monkeypatch.context() as m:
        m.setattr("nnc.runtime.onnx.export.export.MOST", 1000)
        with pytest.raises(ResourceError, match="E0605"):
            net.to_onnx(tmp_path / "xor.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnsupportedError, match=r"nnc\[onnx\]"):
        net.to_onnx(tmp_path / "xor.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opset", range(OLDEST, onnx.defs.onnx_opset_version() + 1))
def test_every_opset(opset: int) -> None:
    rng = np.random.default_rng(1)
    net = nnc.compile(MIXED)
    learned(net, rng)
    model = build(net, opset=opset)
    assert model.opset_import[0].version == opset
    assert flat(model)["Gelu"] == (opset >= 20)
    assert (
        flat(model)["Softmax"] == flat(model)["LayerNormalization"] == flat(model)["LRN"] == flat(model)["MaxPool"] == 1
    )
    if opset <= NEWEST_RUN:
        compare(net, "predict", model, {"B": 3}, rng)


MIXED = """
model M(x: f32[B, 2, 6, 6]) -> (p: f32[B, 5], top: f32[B]) {
    h = x |> Conv(4, 3, stride = 2, pad = 1) |> local_response_norm(3) |> max_pool(2, stride = 1)
    h = h |> avg_pool(2, pad = 1, stride = 1) |> gelu
    h = h + mean(h, axis = [2, 3], keep = true)
    h = reshape(h, [B, 36]) |> LayerNorm |> Dense(5)
    p = softmax(h)
    top = max(h, axis = 1)
}
"""


def test_a_softmax_of_nothing_is_nothing() -> None:
    for scores, no in (("where(x > 0, x, -inf)", -1), ("x", -np.inf)):  # a mask that is made, and one that is given
        net = nnc.compile(f"model M(x: f32[B, 3]) -> (p: f32[B, 3]) {{ p = softmax({scores}) }}")
        model = build(net)
        (got,) = session(model).run(None, {"x": np.array([[no, no, no], [1, no, 1]], np.float32)})
        np.testing.assert_array_equal(got, [[0, 0, 0], [0.5, 0, 0.5]])
        assert flat(model)["Softmax"] == 1
    model = build(nnc.compile("model M(x: f32[B, 3]) -> (p: f32[B, 3]) { p = softmax(x |> Dense(3)) }"))
    assert Counter(n.op_type for n in model.graph.node if n.op_type != "Constant") == {"Gemm": 1, "Softmax": 1}


def test_zeros_that_the_user_puts_around_count() -> None:
    net = nnc.compile("""
model M(x: f32[B, 1, 4]) -> (a: f32[B, 1, 3], b: f32[B, 1, 3]) {
    z = pad(x, [[0, 0], [0, 0], [1, 1]])
    a = avg_pool(z, 2, stride = 2)
    b = avg_pool(x, 2, stride = 2, pad = 1)
}
""")
    model = build(net)
    assert flat(model)["AveragePool"] == 2
    compare(net, "predict", model, {"B": 2}, np.random.default_rng(0))


def test_the_command_writes_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows = "".join(f"{a:.3f},{b:.3f},{'yes' if a > b else 'no'}\n" for a, b in rng.normal(5, 2, (60, 2)))
    (tmp_path / "data.csv").write_text("a,b,answer\n" + rows)
    (tmp_path / "net.nn").write_text(RUN)
    folder, path = str(tmp_path / "run"), str(tmp_path / "net.onnx")
    assert main(["train", str(tmp_path / "net.nn"), "--out", folder, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["export", folder, "--onnx", path, "--license", "MIT", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["inputs"] == ["x"] and told["outputs"] == ["logits"]
    model = onnx.load(path)
    facts = {p.key: p.value for p in model.metadata_props}
    assert json.loads(facts["classes"]) == ["no", "yes"] and facts["license"] == "MIT"
    assert facts["nnc.source"] == RUN and len(facts["nnc.source_sha256"]) == 64
    assert [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim] == ["B", ""]
    assert {i.name for i in model.graph.initializer} >= {"normalize/x/mean", "Net.dense_1.W"}
    net = nnc.compile(tmp_path / "net.nn")
    net.load(folder)
    x = rng.normal(5, 2, (4, 2)).astype(np.float32)
    close("logits", net.predict(x), session(model).run(None, {"x": x})[0])


RUN = """
model Net(x: f32[B, 2]) -> (logits: f32[B, 2]) { logits = x |> Dense(2) }
train Net(x, answer: i32[B]) {
    loss      = mean(cross_entropy(logits, answer))
    optimizer = Adam(lr = 0.1)
    data      = csv("data.csv", target = "answer")
    normalize = standard
    epochs    = 3
}
"""


# --- windows: each call is one node, wherever its windows stand ------------------------------------------------------

WINDOWS = {
    "Conv": (
        "Conv(3, 3, stride = 2, pad = 1)",
        "Conv(4, [2, 3], stride = [3, 1], pad = [[1, 0], [0, 2]], dilation = [2, 1], groups = 2)",
        'Conv(2, 3, pad = "same", bias = false)',
        "DepthwiseConv(3, multiplier = 2, stride = 2, pad = 1)",
        "Conv(2, 1, stride = 3)",
    ),
    "ConvTranspose": (
        "ConvTranspose(3, 3, stride = 2, pad = 1)",
        "ConvTranspose(4, [2, 3], stride = [1, 3], dilation = [2, 1], groups = 2, bias = false)",
    ),
    "MaxPool": (
        "max_pool(2)",
        "max_pool(3, stride = 2, pad = 1)",
        "max_pool([2, 3], stride = [3, 2], ceil = true)",
        "max_pool(2, stride = 1, dilation = 2)",
    ),
    "AveragePool": (
        "avg_pool(2)",
        "avg_pool(3, stride = 2, pad = 1)",
        "avg_pool(3, stride = 2, pad = 1, count_pad = true)",
        "avg_pool(3, stride = 2, ceil = true)",
    ),
}


@pytest.mark.parametrize("op, call", [(op, call) for op, calls in WINDOWS.items() for call in calls])
def test_a_call_is_one_node(op: str, call: str) -> None:
    rng = np.random.default_rng(5)
    for sizes in ("8, 9", "H, W"):
        source = f"model M(x: f32[B, 2, {sizes}]) -> (y: f32[B, *rest]) {{ y = x |> {call} }}"
        program = Program(Source("<text>", source), Settings()).unrolled
        cx = program.context("predict")
        graph = program.graph("predict", cx)
        drawn = {
            p: rng.normal(size=[whole(n, {}) for n in d.type.shape]).astype(np.float32)
            for p, d in program.variables.items()
        }
        model = Export("M", graph, drawn, 20, cx).model()
        assert flat(model)[op] == 1
        for known in ({"B": 2, "H": 8, "W": 9}, {"B": 1, "H": 7, "W": 12})[: 1 if sizes == "8, 9" else 2]:
            given = arguments(graph, known, rng)
            (wanted,) = evaluate(run(ALWAYS, graph), given, drawn, known)[0].values()
            close(call, wanted, session(model).run(None, given)[0])


def test_windows_that_are_written_by_hand() -> None:
    """Index notation is known by its maps, not by who wrote it: a filter from behind, a window of channels."""
    net = nnc.compile("""
model M(x: f32[B, 6, N]) -> (y: f32[B, 6, *n], z: f32[*s]) {
    weight w: f32[3] ~ normal(0, 1)
    y[b, c, i] = sum[u](x[b, c, i - u + 2] * w[u])
    z[n, b, c] = max[u in 0..2, k in 0..2](x[b, 2 * c + u, n + k])
}
""")
    model = build(net)
    assert flat(model)["Conv"] == flat(model)["MaxPool"] == 1
    for n in (5, 8):
        compare(net, "predict", model, {"B": 2, "N": n}, np.random.default_rng(0))


# --- the training step -----------------------------------------------------------------------------------------------


class Trained:
    """A training that ONNX Runtime runs: variables go from `next/PATH` back to `PATH`."""

    def __init__(self, net: Any):
        model = build(net, "train")
        self.session = session(model)
        self.outputs = [o.name for o in model.graph.output]
        self.state = {i.name: net.variables[i.name].copy() for i in model.graph.input if i.name in net.variables}

    def step(self, **batch: np.ndarray) -> dict[str, Any]:
        out = dict(zip(self.outputs, self.session.run(None, {**batch, **self.state}), strict=True))
        self.state = {path: out.get(f"next/{path}", v) for path, v in self.state.items()}
        return {name: v for name, v in out.items() if not name.startswith("next/")}


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_digits_are_learned_in_onnx_runtime(drop: float) -> None:
    source = (ROOT / "models" / "digits_mlp.nn").read_text("utf-8")
    assert "dropout(p = 0.3)" in source
    net = nnc.compile(source.replace("dropout(p = 0.3)", f"dropout(p = {drop})"), seed=5)
    net.set_training(t=0, epoch=0, steps=40)
    theirs = Trained(net)
    data = net.load_dataset().train
    first = last = 0.0
    for k in range(40):
        rows = slice(32 * k, 32 * k + 32)
        batch = {"x": np.asarray(data["x"][rows], np.float32).reshape(32, 64), "label": data["label"][rows]}
        batch["label"] = np.asarray(batch["label"], np.int32)
        ours, last = net.train_step(**batch), float(theirs.step(**batch)["loss"])
        first = first or last
        assert last == pytest.approx(ours, abs=1e-5)
    assert last < first / 2
    for path, v in theirs.state.items():
        np.testing.assert_allclose(v, net.variables[path], rtol=1e-3, atol=1e-5, err_msg=path)


STEPS = {
    "convolutions with state": """
model M(x: f32[B, 1, 6, 6]) -> (y: f32[B, 3]) {
    y = x |> Conv(4, 3, pad = 1, bias = false) |> BatchNorm |> gelu |> max_pool(2)
        |> Conv(4, 2, stride = 2) |> avg_pool(1) |> flatten |> dropout(0.3) |> Dense(3)
}
train M(x, t: i32[B]) {
    loss = mean(cross_entropy(y, t))
    optimizer = Velocity(lr = 0.05)
    clip = global_norm(1.0)
    average = ema(0.9)
}
""",
    "a loop": """
model M(x: f32[B, T, 2]) -> (y: f32[B]) { y = squeeze((x |> Lstm(3))[:, T - 1] |> Dense(1), 1) }
train M(x, t: f32[B]) {
    loss = mean((y - t)^2)
    optimizer = Velocity(lr = 0.05)
}
""",
    "rows of a table": """
model M(x: i32[B, T]) -> (y: f32[B, 4]) {
    y = mean(x |> Embedding(4, 6) |> Attention(2, causal = true), axis = 1) |> Dense(4)
}
train M(x, t: i32[B]) {
    loss = mean(cross_entropy(y, t))
    optimizer = Velocity(lr = 0.05)
    accumulate = 2
}
""",
    "an update of one's own": """
model M(x: f32[B, 3]) -> (y: f32[B]) {
    weight w: f32[3] = 0
    y = sign(x @ w)
}
train M(x, t: f32[B]) {
    update { w := w + (t - y) @ x }
    metric wrong = sum(y != t)
}
""",
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_those_of_nnc(name: str) -> None:
    rng = np.random.default_rng(2)
    net = nnc.compile(STEPS[name], seed=1)
    theirs = Trained(net)
    graph, ours = run(ALWAYS, net.session.program.graph("train")), dict(net.variables)
    for _ in range(3):
        batch = arguments(graph, {"B": 4, "T": 5}, rng)
        ours |= evaluate(graph, batch, ours)[1]
        theirs.step(**batch)
    for path, v in theirs.state.items():
        np.testing.assert_allclose(v, ours[path], rtol=1e-3, atol=2e-5, err_msg=path)

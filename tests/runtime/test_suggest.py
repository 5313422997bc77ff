"""Which arrays of another program are which parameters: what is certain, what is a guess, and what `nnc import` does.

State dicts have the names and shapes of PyTorch's, Keras' and Flax' own; values tell each element from all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import nnc
from nnc.dsl.errors import DataError
from nnc.runtime.cli import main
from nnc.runtime.store.suggest import Draft, load_certain, suggest

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, n: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (n,) for leaf in leaves}, f"{name}.num_batches_tracked": ()}


def block(name: str, c: int, out: int) -> Shapes:
    """BasicBlock of torchvision."""
    shapes = {f"{name}.conv1.weight": (out, c, 3, 3), **norm(f"{name}.bn1", out)}
    shapes |= {f"{name}.conv2.weight": (out, out, 3, 3), **norm(f"{name}.bn2", out)}
    if c != out:
        shapes |= {f"{name}.downsample.0.weight": (out, c, 1, 1), **norm(f"{name}.downsample.1", out)}
    return shapes


def rnn(name: str, d: int, h: int, gates: int) -> Shapes:
    sizes = {"weight_ih": (gates * h, d), "weight_hh": (gates * h, h), "bias_ih": (gates * h,), "bias_hh": (gates * h,)}
    return {f"{name.rpartition('.')[0]}.{n}_{name.rpartition('.')[2]}": s for n, s in sizes.items()}


def attention(name: str, d: int) -> Shapes:
    return {
        f"{name}.in_proj_weight": (3 * d, d),
        f"{name}.in_proj_bias": (3 * d,),
        f"{name}.out_proj.weight": (d, d),
        f"{name}.out_proj.bias": (d,),
    }


def both(names: Iterable[str], *weight: int) -> Shapes:
    """Weight and bias of layers."""
    return {f"{n}.{leaf}": s for n in names for leaf, s in (("weight", weight), ("bias", weight[:1]))}


def arrays(shapes: Shapes) -> dict[str, np.ndarray]:
    found, start = {}, 0
    for name, shape in shapes.items():
        n = int(np.prod(shape))
        whole = name.endswith("tracked")
        found[name] = np.arange(start, start + n).reshape(shape).astype(np.int64 if whole else np.float32)
        start += n
    return found


def drafted(tmp_path: Path, text: str, given: dict[str, np.ndarray]) -> tuple[nnc.Model, Draft]:
    """The draft for a file, whose order safetensors sort; the model has what the file has where that is certain."""
    net = nnc.compile(text)
    save_file(given, tmp_path / "theirs.safetensors")
    return net, load_certain(net, tmp_path / "theirs.safetensors")


RESNET = """
layer Block(x: f32[B, C, H, W], out: int) {
    h = x |> Conv(out, 3, pad = 1, bias = false) |> BatchNorm |> relu
    h = h |> Conv(out, 3, pad = 1, bias = false) |> BatchNorm
    if out != C { x = x |> Conv(out, 1, bias = false) |> BatchNorm }
    return relu(h + x)
}
model Res(x: f32[B, 3, 8, 8]) -> (y: f32[B, 5]) {
    h = x |> Conv(4, 3, pad = 1, bias = false) |> BatchNorm |> relu
    repeat 2 { h = h |> Block(4) }
    h = h |> Block(6)
    repeat 10 { h = h |> Block(6) }
    y = h |> global_avg_pool |> Dense(5)
}
"""


def test_a_resnet_of_torch_is_certain(tmp_path: Path) -> None:
    shapes = {"conv1.weight": (4, 3, 3, 3), **norm("bn1", 4), **block("layer1.0", 4, 4), **block("layer1.1", 4, 4)}
    shapes |= block("layer2.0", 4, 6)
    for k in range(1, 11):
        shapes |= block(f"layer2.{k}", 6, 6)
    given = arrays({**shapes, "fc.weight": (5, 6), "fc.bias": (5,)})
    net, draft = drafted(tmp_path, RESNET, given)
    assert draft.is_certain, draft.text("")
    got = {**net.params, **net.state}
    for ours, theirs in {
        "conv_1.W": "conv1.weight",
        "batchnorm_1.beta": "bn1.bias",
        "block_2.conv_2.W": "layer1.1.conv2.weight",
        "block_3.batchnorm_2.gamma": "layer2.0.bn2.weight",
        "block_3.conv_3.W": "layer2.0.downsample.0.weight",
        "block_3.batchnorm_3.running_var": "layer2.0.downsample.1.running_var",
        "block_5.batchnorm_1.running_mean": "layer2.2.bn1.running_mean",
        "block_13.conv_1.W": "layer2.10.conv1.weight",
        "dense_1.W": "fc.weight",
    }.items():
        np.testing.assert_array_equal(got[f"Res.{ours}"], given[theirs], err_msg=ours)
    text = draft.text("theirs.safetensors")
    assert "Res.dense_1.W = fc.weight  # f32[5, 6]: the only one of these shapes" in text
    assert "Res.block_3.batchnorm_3.beta = layer2.0.downsample.1.bias  # f32[6]: behind layer2.0.downsample.0" in text
    assert "ignore bn1.num_batches_tracked  # i64: a counter of batches, which is not needed" in text


def test_recurrent_layers_of_torch(tmp_path: Path) -> None:
    text = "model M(x: f32[B, T, 4]) -> (y: f32[B, T, 3]) { y = x |> Lstm(5) |> Lstm(5) |> Gru(2) |> Rnn(3) }"
    shapes = {**rnn("rnn.lstm.l0", 4, 5, 4), **rnn("rnn.lstm.l1", 5, 5, 4), **rnn("gru.l0", 5, 2, 3)}
    given = arrays({**shapes, **rnn("out.l0", 2, 3, 1)})
    net, draft = drafted(tmp_path, text, given)
    assert draft.is_certain, draft.text("")
    p = net.params
    np.testing.assert_array_equal(p["M.lstm_2.U"], given["rnn.lstm.weight_hh_l1"])
    np.testing.assert_array_equal(p["M.lstm_1.b"], given["rnn.lstm.bias_ih_l0"] + given["rnn.lstm.bias_hh_l0"])
    ih, hh = given["gru.bias_ih_l0"], given["gru.bias_hh_l0"]
    np.testing.assert_array_equal(p["M.gru_1.b"], [*(ih + hh)[:4], *ih[4:]])
    np.testing.assert_array_equal(p["M.gru_1.e"], hh[4:])
    np.testing.assert_array_equal(p["M.rnn_1.W"], given["out.weight_ih_l0"])


def test_attention_in_one_array_and_in_four(tmp_path: Path) -> None:
    text = "model M(x: f32[B, T, 4]) -> (y: f32[B, T, 4]) { y = x |> Attention(2) |> Attention(2) }"
    given = arrays({**attention("enc.0", 4), **attention("enc.1", 4)})
    net, draft = drafted(tmp_path, text, given)
    assert draft.is_certain, draft.text("")
    np.testing.assert_array_equal(net.params["M.attention_2.key.W"], given["enc.1.in_proj_weight"][4:8])
    assert not drafted(tmp_path, text, arrays({**attention("a", 4), **attention("b", 4)}))[1].is_certain
    parts = ("q_proj", "k_proj", "v_proj", "o_proj")
    given = arrays(both([f"h.{k}.{part}" for k in range(2) for part in parts], 4, 4))
    net, draft = drafted(tmp_path, text, given)
    assert draft.is_certain, draft.text("")
    np.testing.assert_array_equal(net.params["M.attention_2.key.W"], given["h.1.k_proj.weight"])
    np.testing.assert_array_equal(net.params["M.attention_1.result.b"], given["h.0.o_proj.bias"])


def test_a_transformer_of_torch(tmp_path: Path) -> None:
    blocks = "x |> TransformerBlock(2) |> TransformerBlock(2) |> LayerNorm"
    text = f"model M(x: f32[B, T, 4]) -> (y: f32[B, T, 4]) {{ y = {blocks} }}"
    shapes = both(["ln"], 4)
    for name in ("layers.0", "layers.1"):
        shapes |= {**attention(f"{name}.self_attn", 4), **both([f"{name}.norm1", f"{name}.norm2"], 4)}
        shapes |= {**both([f"{name}.linear1"], 16, 4), **both([f"{name}.linear2"], 4, 16)}
    given = arrays(shapes)
    net, draft = drafted(tmp_path, text, given)
    assert draft.is_certain, draft.text("")
    p = net.params
    rows = given["layers.1.self_attn.in_proj_weight"]
    for k, part in enumerate(("query", "key", "value")):
        np.testing.assert_array_equal(p[f"M.transformerblock_2.attention_1.{part}.W"], rows[4 * k : 4 * k + 4])
    np.testing.assert_array_equal(p["M.transformerblock_1.layernorm_2.beta"], given["layers.0.norm2.bias"])
    np.testing.assert_array_equal(p["M.layernorm_1.gamma"], given["ln.weight"])


IMAGES = """
model M(x: f32[B, 3, 4, 4]) -> (y: f32[B, 5]) {{ y = x |> Conv(6, 3, pad = 1) |> BatchNorm |> relu |> {} |> Dense(5) }}
"""
KERAS: Shapes = {
    "conv2d/kernel:0": (3, 3, 3, 6), "conv2d/bias:0": (6,), "bn/gamma:0": (6,), "bn/beta:0": (6,),
    "bn/moving_mean:0": (6,), "bn/moving_variance:0": (6,), "dense/bias:0": (5,),
}  # fmt: skip
FLAX: Shapes = {
    "params.Conv_0.kernel": (3, 3, 3, 6), "params.Conv_0.bias": (6,), "params.BatchNorm_0.scale": (6,),
    "params.BatchNorm_0.bias": (6,), "batch_stats.BatchNorm_0.mean": (6,), "batch_stats.BatchNorm_0.var": (6,),
    "params.Dense_0.bias": (5,),
}  # fmt: skip


@pytest.mark.parametrize(
    ("shapes", "conv", "dense", "mean"),
    [
        (KERAS, "conv2d/kernel:0", "dense/kernel:0", "bn/moving_mean:0"),
        (FLAX, "params.Conv_0.kernel", "params.Dense_0.kernel", "batch_stats.BatchNorm_0.mean"),
    ],
)
def test_channels_that_stand_last(tmp_path: Path, shapes: Shapes, conv: str, dense: str, mean: str) -> None:
    given = arrays({**shapes, dense: (6, 5)})
    net, draft = drafted(tmp_path, IMAGES.format("global_avg_pool"), given)
    assert draft.is_certain, draft.text("")
    np.testing.assert_array_equal(net.params["M.conv_1.W"], given[conv].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(net.params["M.dense_1.W"], given[dense].T)
    np.testing.assert_array_equal(net.state["M.batchnorm_1.running_mean"], given[mean])
    assert ("eps = 0.001" in draft.text("")) == (shapes is KERAS)
    _, draft = drafted(tmp_path, IMAGES.format("flatten"), arrays({**shapes, dense: (96, 5)}))
    assert not draft.is_certain
    assert f"M.dense_1.W = {dense}.T  # f32[96, 5]: a guess, its rows may be images made flat" in draft.text("")


def test_square_kernels_are_transposed_and_square_weights_are_not(tmp_path: Path) -> None:
    text = "model M(x: f32[B, 4]) -> (y: f32[B, 4]) { y = x |> Dense(4) }"
    for leaf, turned in (("kernel", True), ("weight", False)):
        given = arrays({f"d.{leaf}": (4, 4), "d.bias": (4,)})
        net, draft = drafted(tmp_path, text, given)
        want = given[f"d.{leaf}"]
        assert draft.is_certain
        np.testing.assert_array_equal(net.params["M.dense_1.W"], want.T if turned else want)


UNCERTAIN: dict[str, tuple[str, Shapes]] = {
    "two that could change places": ("x |> Dense(4) |> Dense(4)", both("ab", 4, 4)),
    "one more than is needed": ("x |> Dense(4)", both(["l.0", "l.1"], 4, 4)),
    "an array that nothing needs": ("x |> Dense(4)", {**both("l", 4, 4), "extra": (2,)}),
    "a parameter without an array": ("x |> Dense(4) |> LayerNorm", both("l", 4, 4)),
    "only transposed": (
        "x |> Dense(3) |> Dense(4)",
        {"a.weight": (4, 3), "a.bias": (3,), "b.weight": (3, 4), "b.bias": (4,)},
    ),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_what_is_not_certain_is_not_taken(tmp_path: Path, case: str) -> None:
    body, shapes = UNCERTAIN[case]
    text = f"model M(x: f32[B, 4]) -> (y: f32[B, 4]) {{ y = {body} }}"
    before = nnc.compile(text).params
    net, draft = drafted(tmp_path, text, arrays(shapes))
    assert not draft.is_certain
    for name, value in before.items():
        np.testing.assert_array_equal(net.params[name], value)


def test_the_gates_of_keras_gru_are_not_ours(tmp_path: Path) -> None:
    """There z stands before r. Its arrays fit by shape, and are not even guessed."""
    shapes: Shapes = {"gru/kernel": (4, 6), "gru/recurrent_kernel": (2, 6), "gru/bias": (6,)}
    _, draft = drafted(tmp_path, "model M(x: f32[B, T, 4]) -> (y: f32[B, T, 2]) { y = x |> Gru(2) }", arrays(shapes))
    assert not draft.pairs and "# M.gru_1.W f32[6, 4]: nothing fits" in draft.text("")


NET = "model Net(x: f32[B, 3]) -> (y: f32[B, 2]) {\n    y = x |> Dense(4) |> relu |> Dense(2)\n}\n"


def test_import_writes_what_is_certain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.nn").write_text(NET)
    given = arrays({**both("0", 4, 3), **both("2", 2, 4)})
    np.savez("theirs.npz", **given)
    assert main(["import", "theirs.npz", "--like", "net.nn", "-o", "run.nnw"]) == 0
    assert "4 parameters and states of Net from theirs.npz are in run.nnw" in capfd.readouterr().out
    net = nnc.compile("net.nn")
    net.load("run.nnw")
    np.testing.assert_array_equal(net.params["Net.dense_2.W"], given["2.weight"])


def test_import_takes_a_checkpoint_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """It has more than parameters, which no rule is about; and a program is not written over by weights."""
    monkeypatch.chdir(tmp_path)
    text = "model M(x: f32[B, 2]) -> (y: f32[B, 3]) { y = x |> Dense(3) }\ntrain M(x, t: f32[B, 3]) {\n"
    Path("m.nn").write_text(text + "    loss = mean((y - t)^2)\n    optimizer = Adam(lr = 0.1)\n}\n")
    net = nnc.compile("m.nn", seed=4)
    net.fit(np.ones((4, 2)), np.ones((4, 3)), epochs=1)
    net.save("m.safetensors")
    assert main(["import", "m.safetensors", "--like", "m.nn", "-o", "again.nnw"]) == 0, capfd.readouterr()
    again = nnc.compile("m.nn")
    again.load_weights("again.nnw")
    np.testing.assert_array_equal(again.params["M.dense_1.W"], net.params["M.dense_1.W"])
    assert main(["import", "m.safetensors", "--like", "m.nn", "-o", "m.nn"]) == 2
    assert Path("m.nn").read_text().startswith("model M")


def test_import_shows_rules_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.nn").write_text(NET)
    Path("model").mkdir()
    shapes: Shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (4, 2), "2.bias": (2,)}
    save_file(arrays(shapes), "model/model.safetensors")
    assert main(["import", "model", "--like", "net.nn", "-o", "run.nnw"]) == 4
    said = capfd.readouterr()
    assert "Net.dense_2.W = 2.weight.T  # f32[4, 2]: a guess, transposed it fits" in said.out
    assert "error[E0627]: model does not say for certain" in said.err and "--map RULES" in said.err
    assert not Path("run.nnw").exists()
    Path("rules").write_text(said.out)
    assert main(["load-weights", "net.nn", "model", "--map", "rules", "-o", "run.nnw"]) == 0
    assert main(["import", "model", "-o", "run.nnw"]) == 2
    Path("w.pt").write_bytes(b"PK")
    assert main(["import", "w.pt", "--like", "net.nn", "-o", "run.nnw"]) == 4
    assert "torch.load" in capfd.readouterr().err


def test_names_that_mean_something_in_a_rule_are_left_out(tmp_path: Path) -> None:
    text = "model M(x: f32[B, 4]) -> (y: f32[B, 4]) { y = x |> Dense(4, bias = false) }"
    np.savez(tmp_path / "w.npz", **{"a = b.weight": np.ones((4, 4), np.float32)})
    draft = suggest(nnc.compile(text), tmp_path / "w.npz")
    assert not draft.pairs and "# 'a = b.weight': no rule can have this name" in draft.text("")


def test_modules_of_torch_compute_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 16, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    body = nn.ModuleDict(
        {"rnn": nn.LSTM(3, 4, batch_first=True), "gru": nn.GRU(4, 4, batch_first=True), "layer": layer}
    )
    save_file({n: a.numpy() for n, a in body.state_dict().items()}, tmp_path / "w.safetensors")
    net = nnc.compile(
        "model M(x: f32[B, T, 3]) -> (y: f32[B, T, 4]) { y = x |> Lstm(4) |> Gru(4) |> TransformerBlock(2) }"
    )
    assert load_certain(net, tmp_path / "w.safetensors").is_certain
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    with torch.no_grad():
        want = body["layer"](body["gru"](body["rnn"](torch.tensor(x))[0])[0]).numpy()
    np.testing.assert_allclose(net.predict(x), want, rtol=1e-4, atol=1e-5)


def test_an_array_that_is_no_number_of_ours_is_told(tmp_path: Path) -> None:
    text = "model M(x: f32[B, 4]) -> (y: f32[B, 4]) { y = x |> Dense(4, bias = false) }"
    save_file({"d.weight": np.ones((4, 4), np.int32)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"E0627.*is i32\[4, 4\], but `M.dense_1.W` f32\[4, 4\]"):
        load_certain(nnc.compile(text), tmp_path / "w.safetensors")

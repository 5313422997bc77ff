"""Weights from elsewhere: what goes where, and every mismatch at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import nnc
from nnc.dsl.errors import DataError
from nnc.runtime.cli import main

NET = """
model Net(x: f32[B, 4]) -> (y: f32[B, 2]) {
    repeat 2 { x = x |> Dense(4) |> tanh }
    h = x |> Dense(3)
    y = h |> BatchNorm |> head: Dense(2)
}

train Net(x, t: f32[B, 2]) {
    loss = mean(squared_error(y, t))
    optimizer = Adam(lr = 0.01)
    epochs = 1
}
"""
RULES = """
# A model of PyTorch.
ignore *.counter
Net.dense_{k+1}.W = layers.{k}.weight
Net.dense_{k+1}.b = layers.{k}.bias
Net.dense_3.W = last.kernel.T   # [in, out] there
Net.dense_3.* = last.*
Net.batchnorm_1.gamma = norm.weight
Net.batchnorm_1.beta = norm.bias
Net.batchnorm_1.* = norm.*
keep Net.head.*
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nnc.Model:
    monkeypatch.chdir(tmp_path)
    Path("net.nn").write_text(NET)
    Path("rules").write_text(RULES)
    return nnc.compile("net.nn")


def theirs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "layers.0.weight": (4, 4),
        "layers.0.bias": (4,),
        "layers.1.weight": (4, 4),
        "layers.1.bias": (4,),
        "last.kernel": (4, 3),
        "last.b": (3,),
        "norm.weight": (3,),
        "norm.bias": (3,),
        "norm.running_mean": (3,),
        "norm.running_var": (3,),
    }
    return {n: rng.uniform(0.5, 1, s).astype(np.float32) for n, s in shapes.items()}


def variables(net: nnc.Model) -> dict[str, bytes]:
    return {n: a.tobytes() for n, a in net.variables.items()}


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_rules_say_what_goes_where(net: nnc.Model, kind: str) -> None:
    arrays = {**theirs(), "norm.counter": np.array([3], np.int64)}
    np.savez("w.npz", **arrays) if kind == "npz" else save_file(arrays, "w.safetensors")
    head = net.params["Net.head.W"]
    assert len(net.load_weights(f"w.{kind}", "rules").taken) == 10
    np.testing.assert_array_equal(net.params["Net.dense_2.W"], arrays["layers.1.weight"])
    np.testing.assert_array_equal(net.params["Net.dense_3.W"], arrays["last.kernel"].T)
    np.testing.assert_array_equal(net.params["Net.dense_3.b"], arrays["last.b"])
    np.testing.assert_array_equal(net.params["Net.batchnorm_1.gamma"], arrays["norm.weight"])
    np.testing.assert_array_equal(net.state["Net.batchnorm_1.running_var"], arrays["norm.running_var"])
    np.testing.assert_array_equal(net.params["Net.head.W"], head)


def test_equal_names_need_no_rules(net: nnc.Model) -> None:
    other = nnc.compile("net.nn", seed=5)
    np.savez("w.npz", **{**other.params, **other.state})
    net.load_weights("w.npz")
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(net.predict(x), other.predict(x))


def test_by_position_in_the_order_of_the_layers(net: nnc.Model) -> None:
    arrays = {n: a for n, a in theirs().items() if n != "last.kernel"}
    order = [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "layers.1.bias",
        "k",
        "last.b",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "head",
        "head.b",
    ]
    arrays |= {"k": np.ones((3, 4), np.float32), "head": np.ones((2, 3)), "head.b": np.zeros(2)}
    np.savez("w.npz", **{n: arrays[n] for n in order})
    assert len(net.load_weights("w.npz", by_position=True).taken) == 12
    np.testing.assert_array_equal(net.state["Net.batchnorm_1.running_mean"], arrays["norm.running_mean"])
    np.testing.assert_array_equal(net.params["Net.dense_2.b"], arrays["layers.1.bias"])
    np.savez("w.npz", **{n: arrays[n] for n in order[:-1]})
    with pytest.raises(DataError, match="the file has 11 arrays, the model 12 parameters and states"):
        net.load_weights("w.npz", by_position=True)


def test_a_format_without_order_has_no_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """Layer 10 stands before layer 2 in the file; a draft of rules puts them right."""
    monkeypatch.chdir(tmp_path)
    Path("deep.nn").write_text(
        "model Deep(x: f32[B, 4]) -> (y: f32[B, 4]) {\n    repeat 12 { x = x |> Dense(4, bias = false) |> tanh }\n"
        "    y = x |> Dense(3) |> Dense(4)\n}\n"
    )
    rng = np.random.default_rng(0)
    arrays = {f"net.{k}.weight": rng.normal(size=(4, 4)).astype("f4") for k in range(12)}
    arrays |= {"net.12.bias": rng.normal(size=3).astype("f4"), "net.12.weight": rng.normal(size=(3, 4)).astype("f4")}
    arrays |= {"net.13.bias": rng.normal(size=4).astype("f4"), "net.13.weight": rng.normal(size=(3, 4)).astype("f4")}
    save_file({**arrays, "net.steps": np.array([7])}, "w.safetensors")
    net = nnc.compile("deep.nn")
    with pytest.raises(DataError, match=r"E0627.*keeps the order of its arrays.*\n.*--suggest"):
        net.load_weights("w.safetensors", by_position=True)
    assert main(["load-weights", "deep.nn", "w.safetensors", "--suggest", "rules"]) == 0
    assert "16 of 16 parameters and states have a rule in rules, 2 of them a guess: read it" in capfd.readouterr().out
    assert "ignore net.steps" in Path("rules").read_text()
    assert len(net.load_weights("w.safetensors", "rules").taken) == 16
    for k in range(12):
        np.testing.assert_array_equal(net.params[f"Deep.dense_{k + 1}.W"], arrays[f"net.{k}.weight"])
    np.testing.assert_array_equal(net.params["Deep.dense_13.b"], arrays["net.12.bias"])
    np.testing.assert_array_equal(net.params["Deep.dense_14.W"], arrays["net.13.weight"].T)
    assert main(["load-weights", "deep.nn", "w.safetensors"]) == 2
    assert main(["load-weights", "deep.nn", "w.safetensors", "--suggest", "r", "-o", "a.nnw"]) == 2


def test_transposition_only_when_asked_and_where_shapes_say_so(net: nnc.Model) -> None:
    arrays = {n: a.T if n.endswith("W") else a for n, a in {**net.params, **net.state}.items()}
    np.savez("w.npz", **arrays)
    with pytest.raises(DataError, match=r"`Net.dense_3.W` is f32\[4, 3\], but .*\(transposed it would fit"):
        net.load_weights("w.npz")
    with pytest.raises(DataError, match=r"`Net.dense_1.W` for `Net.dense_1.W` is square") as e:
        net.load_weights("w.npz", transpose=True)
    assert len(e.value.diagnostics) == 2  # dense_2 as well, and nothing else
    Path("square").write_text("Net.dense_{k}.W = Net.dense_{k}.W.T\nNet.head.W = Net.head.W\n")
    before = variables(net)
    net.load_weights("w.npz", "square", transpose=True)
    assert variables(net) == before


def test_every_mismatch_is_reported_and_nothing_changes(net: nnc.Model) -> None:
    arrays = theirs()
    arrays["layers.0.bias"] = arrays["layers.0.bias"][:3]
    arrays["layers.1.bias"] = arrays["layers.1.bias"].astype(np.int64)
    arrays["last.b"] = np.array([1, 2, 1e300])
    arrays["layers.7.bias"] = arrays["surplus"] = np.zeros(2, np.float32)
    del arrays["norm.weight"]
    np.savez("w.npz", **arrays)
    before = variables(net)
    with pytest.raises(DataError) as e:
        net.load_weights("w.npz", "rules")
    assert variables(net) == before
    assert {d.code for d in e.value.diagnostics} == {"E0627"}
    assert sorted(d.message.removeprefix("w.npz: ") for d in e.value.diagnostics) == [
        "`last.b`: `Net.dense_3.b` of the model wants f32[3], got f64[3] with the value 1e+300, which f32 cannot hold",
        "`layers.0.bias` is f32[3], but `Net.dense_1.b` f32[4]",
        "`layers.1.bias` is i64[4], but `Net.dense_2.b` f32[4]",
        "`layers.7.bias` should go to `Net.dense_8.b`, which the model does not have",
        "nothing is there for `Net.batchnorm_1.gamma` f32[3]",
        "the model has no place for `surplus` f32[2]",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Net.dense_1.W", "`Net.dense_1.W` is no rule"),
        ("= a", "`= a` is no rule"),
        ("drop a", "`drop a` is no rule"),
        ("a.{k} = b", "`{k}` stands for nothing in `b`"),
        ("a.* = b", "have not as many `*`"),
        ("a = b.{k+1}", "`{k+1}` cannot stand here"),
        ("a = [1, 2", "`a = [1, 2` is no rule"),
    ],
)
def test_a_line_that_is_no_rule(net: nnc.Model, line: str, message: str) -> None:
    np.savez("w.npz", a=np.zeros(1))
    Path("rules").write_text("# rules\n" + line)
    with pytest.raises(DataError) as e:
        net.load_weights("w.npz", "rules")
    assert e.value.code == "E0628" and message in str(e.value) and "rules:2" in str(e.value)


def test_half_floats_are_widened(net: nnc.Model) -> None:
    ours = {**net.params, **net.state}
    table, data = {}, b""
    for n, a in ours.items():
        raw = (a.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        table[n] = {"dtype": "BF16", "shape": list(a.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header = json.dumps(table).encode()
    Path("w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    net.load_weights("w.safetensors")
    for n, a in ours.items():
        np.testing.assert_allclose({**net.params, **net.state}[n], a, rtol=2**-7)


def test_f16_is_widened(net: nnc.Model) -> None:
    halves = {n: a.astype(np.float16) for n, a in {**net.params, **net.state}.items()}
    np.savez("w.npz", **halves)
    save_file(halves, "w.safetensors")
    for file in ("w.npz", "w.safetensors"):
        other = nnc.compile("net.nn", seed=9)
        other.load_weights(file)
        np.testing.assert_array_equal(other.params["Net.dense_1.W"], halves["Net.dense_1.W"].astype(np.float32))


def test_files_that_are_none(net: nnc.Model) -> None:
    good = {**net.params, **net.state}
    save_file(good, "w.safetensors")
    data = Path("w.safetensors").read_bytes()
    for bad in (b"", data[:5], data[:100], data[:-1], data + b"x", b"\xff" * 64, data[:8] + b"[" + data[9:]):
        Path("w.safetensors").write_bytes(bad)
        with pytest.raises(DataError, match=r"w.safetensors: expected "):
            net.load_weights("w.safetensors")
    with pytest.raises(DataError, match=r"no such file"):
        net.load_weights("nowhere.pt")
    Path("w.pt").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"w.pt: expected a .npz or .safetensors file, found .pt"):
        net.load_weights("w.pt")


def test_the_command_line(net: nnc.Model, capfd: pytest.CaptureFixture[str]) -> None:
    np.savez("w.npz", **theirs())
    assert main(["load-weights", "net.nn", "w.npz", "--map", "rules", "-o", "start.nnw"]) == 0
    assert "10 arrays of w.npz are Net's parameters and states in start.nnw" in capfd.readouterr().out
    np.savez("data.npz", x=np.ones((8, 4)), t=np.ones((8, 2)))
    Path("net.nn").write_text(NET.replace("epochs = 1", 'epochs = 1\n    data = npz("data.npz")'))
    assert main(["eval", "net.nn", "--weights", "start.nnw"]) == 0
    assert main(["train", "net.nn", "--weights", "start.nnw", "--out", "run", "--quiet", "--epochs", "0"]) == 0
    begun, started = nnc.compile("net.nn"), nnc.compile("net.nn")
    begun.load("run"), started.load("start.nnw")
    begun.set_training(steps=1)
    assert variables(begun) == variables(started)
    assert main(["load-weights", "net.nn", "w.npz", "-o", "other.nnw"]) == 4
    err = capfd.readouterr().err
    assert "error[E0627]: w.npz does not fit Net: 22 mismatches" in err and err.count("\nnothing is there") == 12
    assert not Path("other.nnw").exists()
    assert main(["load-weights", "net.nn", "w.npz", "--map", "rules", "--by-position", "-o", "other.nnw"]) == 2


def test_numbers_in_a_rule(net: nnc.Model) -> None:
    Path("net.nn").write_text(NET.replace("epochs = 1", "epochs = 1\n    normalize = standard"))
    scaled = nnc.compile("net.nn")
    np.savez("w.npz", **theirs())
    Path("plain").write_text(RULES)
    Path("rules").write_text(RULES + "normalize/x/mean = [1, -2.5, 1e1, 0]\nnormalize/x/scale = [2]\n")
    net.load_weights("w.npz", "plain")
    scaled.load_weights("w.npz", "rules")
    for name in ("W", "b"):
        scaled.params[f"Net.head.{name}"] = net.params[f"Net.head.{name}"]
    x = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(scaled.predict(2 * x + [1, -2.5, 10, 0]), net.predict(x), rtol=1e-5, atol=1e-6)
    Path("rules").write_text(RULES + "normalize/x/mean = [1, 2]\n")
    with pytest.raises(DataError, match=r"the rule for `normalize/x/mean` has 2 numbers, but it is f32\[4\]"):
        scaled.load_weights("w.npz", "rules")


PARTS = """
Net.dense_{k}.W = a.{k}.query[0:4]
Net.dense_3.W = a.1.query[4:7]
Net.dense_{k}.b = a.{k}.ih + a.{k}.hh
Net.dense_3.b = c[0:1] + c[2:3], d
Net.batchnorm_1.* = norm.*
Net.head.W = kernel.permute(1, 0)
Net.head.b = e, c[1:2]
"""


def in_parts() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {"a.1.query": (7, 4), "a.2.query": (4, 4), "c": (3,), "d": (2,), "e": (1,), "kernel": (3, 2)}
    shapes |= {f"a.{k}.{n}": (4,) for k in (1, 2) for n in ("ih", "hh")}
    shapes |= {f"norm.{n}": (3,) for n in ("gamma", "beta", "running_mean", "running_var")}
    return {n: rng.uniform(0.5, 1, s).astype(np.float32) for n, s in shapes.items()}


def test_rows_sums_and_orders_of_axes(net: nnc.Model) -> None:
    arrays = in_parts()
    np.savez("w.npz", **arrays)
    Path("rules").write_text(PARTS)
    report = net.load_weights("w.npz", "rules")
    assert report.taken["Net.dense_3.b"] == "c[0:1] + c[2:3], d" and not report.unused
    p, c = net.params, arrays["c"]
    np.testing.assert_array_equal(p["Net.dense_1.W"], arrays["a.1.query"][:4])
    np.testing.assert_array_equal(p["Net.dense_2.W"], arrays["a.2.query"])
    np.testing.assert_array_equal(p["Net.dense_3.W"], arrays["a.1.query"][4:])
    np.testing.assert_array_equal(p["Net.dense_2.b"], arrays["a.2.ih"] + arrays["a.2.hh"])
    np.testing.assert_array_equal(p["Net.dense_3.b"], [c[0] + c[2], *arrays["d"]])
    np.testing.assert_array_equal(p["Net.head.W"], arrays["kernel"].T)
    np.testing.assert_array_equal(p["Net.head.b"], [*arrays["e"], c[1]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a.1.query[4:7]", "a.1.query[3:6]", r"rows 3 to 4 of `a.1.query` f32\[7, 4\] are taken twice"),
        ("Net.dense_3.W = a.1.query[4:7]", "keep Net.dense_3.W", r"rows 4 to 7 of `a.1.query` f32\[7, 4\] go nowhere"),
        ("a.1.query[4:7]", "a.1.query[4:8]", r"`a.1.query` f32\[7, 4\] has no rows 4 to 8"),
        ("a.{k}.hh", "a.{k}.gone", r"`a.1.ih \+ a.1.gone` for `Net.dense_1.b`: there is no `a.1.gone`"),
        ("a.{k}.hh", "d", r"f32\[4\] and f32\[2\] cannot be added"),
        ("e, c[1:2]", "e, c[1:2], kernel", r"the rows of .* cannot stand behind each other"),
        ("permute(1, 0)", "permute(1, 0, 2)", r"`kernel` f32\[3, 2\] has 2 axes, which `.permute\(1, 0, 2\)` does not"),
        ("Net.head.b = e, c[1:2]", "ignore e", r"rows 1 to 2 of `c` f32\[3\] go nowhere"),
    ],
)
def test_parts_that_do_not_fit(net: nnc.Model, old: str, new: str, message: str) -> None:
    np.savez("w.npz", **in_parts())
    Path("rules").write_text(PARTS.replace(old, new))
    before = variables(net)
    with pytest.raises(DataError, match="E0627") as caught:
        net.load_weights("w.npz", "rules")
    assert any(re.search(message, d.message) for d in caught.value.diagnostics), str(caught.value)
    assert variables(net) == before

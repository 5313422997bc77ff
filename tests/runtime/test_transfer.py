"""Some weights of another run: by relative path below a part, reported, and nothing half loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import nnc
from nnc.dsl.errors import ArgumentError, ArgumentTypeError, DataError
from nnc.runtime.call.messages import UnknownNameError
from nnc.runtime.cli import main
from nnc.runtime.progress import Report
from nnc.runtime.train import sweep

BODY = """
layer Body(x: f32[B, 4]) -> f32[B, 3] {
    h = x |> Dense(5) |> tanh
    return h |> BatchNorm |> last: Dense(3)
}
"""
OLD = (
    BODY
    + """
model Old(x: f32[B, 4]) -> (y: f32[B, 2]) {
    y = x |> body: Body |> head: Dense(2)
}

train Old(x, t: f32[B, 2]) {
    loss = mean(squared_error(y, t))
    optimizer = Adam(lr = 0.01)
    metric error = mean(abs(y - t))
    data = npz("old.npz")
    batch = 4
    epochs = 2
    normalize = standard
%s}
"""
)
NEW = (
    BODY
    + """
model Net(x: f32[B, 4]) -> (y: f32[B, 6]) {
    h = x |> body: Body
    extra = h |> Dense(3)
    y = h + extra |> head: Dense(6)
}

train Net(x, t: f32[B, 6]) {
    loss = mean(squared_error(y, t))
    optimizer = SGD(lr = 0.01)
    data = npz("new.npz")
    epochs = 1
    normalize = standard
}
"""
)
IN_BODY = ["dense_1.W", "dense_1.b", "last.W", "last.b", "batchnorm_1.gamma", "batchnorm_1.beta"]
IN_BODY += ["batchnorm_1.running_mean", "batchnorm_1.running_var"]


def variables(net: nnc.Model) -> dict[str, bytes]:
    return {n: a.tobytes() for n, a in net.variables.items()}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nnc.Model:
    """A model that was trained, as the run `run` and as files of other formats."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (16, 4)).astype(np.float32)
    np.savez("old.npz", x=x, t=rng.normal(size=(16, 2)))
    np.savez("new.npz", x=x - 7, t=rng.normal(size=(16, 6)))
    Path("old.nn").write_text(OLD % "")
    Path("new.nn").write_text(NEW)
    assert main(["train", "old.nn", "--out", "run", "--quiet"]) == 0
    net = nnc.compile("old.nn")
    net.load("run")
    learned = {n: a for n, a in net.variables.items() if "/" not in n}
    np.savez("old_weights.npz", **learned)
    save_file(learned, "old.safetensors")
    return net


@pytest.mark.parametrize("file", ["run", "run/last.nnw", "run/best.nnw", "old_weights.npz", "old.safetensors"])
def test_a_part_by_relative_path(old: nnc.Model, file: str) -> None:
    other = nnc.compile("old.nn")
    other.load_weights(file) if file.startswith("run") else None
    source = other if file.startswith("run") else old
    net = nnc.compile("new.nn", seed=5)
    before = variables(net)
    from_ = None if file.startswith("run") else "Old.body"
    report = net.load_weights(file, into="Net.body", from_=from_)
    assert report.taken == {f"Net.body.{n}": f"Old.body.{n}" for n in report_order(net)}
    assert not report.left and not report.refused
    assert {n for n in report.unused if "/" not in n} == {"Old.head.W", "Old.head.b"}
    for n in IN_BODY:
        np.testing.assert_array_equal(net.variables[f"Net.body.{n}"], source.variables[f"Old.body.{n}"])
    for n, value in variables(net).items():
        assert value == before[n] or n.startswith("Net.body.")
    assert net.schema is None and not net.variables["normalize/x/mean"].any()


def report_order(net: nnc.Model) -> list[str]:
    return [v.path.removeprefix("Net.body.") for v in net.manifest.variables if v.path.startswith("Net.body.")][:8]


def test_the_whole_model_as_far_as_it_fits(old: nnc.Model) -> None:
    """The heads differ, and one layer is new; the first is refused, the other left."""
    net = nnc.compile("new.nn")
    report = net.load_weights("run", into="Net")
    assert set(report.taken) == {f"Net.body.{n}" for n in IN_BODY}
    assert set(report.left) == {"Net.dense_1.W", "Net.dense_1.b"}
    assert report.refused == {
        "Net.head.W": "expected f32[6, 3], found f32[2, 3], as `Old.head.W`",
        "Net.head.b": "expected f32[6], found f32[2], as `Old.head.b`",
    }
    assert set(report.unused) == {"normalize/x/mean", "normalize/x/scale"}
    assert "refused `Net.head.W`: expected f32[6, 3], found f32[2, 3]" in str(report)


def test_only_what_is_named_and_all_of_it(old: nnc.Model) -> None:
    net = nnc.compile("new.nn")
    before = variables(net)
    report = net.load_weights("run", only=["Net.body.dense_*", "Net.body.last.b"])
    assert set(report.taken) == {"Net.body.dense_1.W", "Net.body.dense_1.b", "Net.body.last.b"}
    assert {n for n, a in variables(net).items() if a != before[n]} <= set(report.taken)
    for only in (["Net.head"], "Net.*"):
        before = variables(net)
        with pytest.raises(DataError) as e:
            net.load_weights("run", only=only)
        assert e.value.code == "E0624" and variables(net) == before
        assert "`Net.head.W`: expected f32[6, 3], found f32[2, 3], as `Old.head.W`" in str(e.value)
    with pytest.raises(DataError, match=r"`Net.dense_1.W`: expected f32\[3, 3\], found none of that path"):
        net.load_weights("run", only="Net.dense_1.W")


def test_a_part_of_another_name_or_a_model_as_a_part(old: nnc.Model) -> None:
    whole = nnc.compile(BODY.replace("layer", "model"))
    whole.save("body.nnw")
    net = nnc.compile("new.nn")
    report = net.load_weights("body.nnw", into="Net.body")
    assert report.taken["Net.body.last.W"] == "Body.last.W" and not report.left
    report = net.load_weights("run", into="Net.dense_1", from_="Old.body.last")
    assert report.refused == {"Net.dense_1.W": "expected f32[3, 3], found f32[3, 5], as `Old.body.last.W`"}
    assert report.taken == {"Net.dense_1.b": "Old.body.last.b"}
    assert net.load_weights("run", into="Net.dense_1.b", from_="Old.body.last.b").taken == report.taken


def test_averages_are_the_parameters(old: nnc.Model) -> None:
    Path("averaged.nn").write_text(OLD % "    average = ema(0.5)\n")
    kept = nnc.compile("averaged.nn")
    kept.fit()
    kept.save("averaged.nnw")
    net = nnc.compile("new.nn")
    net.load_weights("averaged.nnw", into="Net.body")
    mean, last = kept.variables["average/Old.body.last.W"], kept.variables["Old.body.last.W"]
    np.testing.assert_array_equal(net.params["Net.body.last.W"], mean)
    assert (mean != last).any()


def test_nothing_is_half_loaded(old: nnc.Model) -> None:
    net = nnc.compile("new.nn")
    before = variables(net)
    for wrong, error, message in [
        ({"into": "Net.bodi"}, UnknownNameError, "E0608.*no part of the model is named `Net.bodi`.*\n.*`Net.body`"),
        ({"into": "Net", "only": "Net.bady"}, UnknownNameError, "E0608.*`Net.bady`"),
        ({"into": "Net.body", "only": "Net.head"}, UnknownNameError, "E0608.*`Net.body` is named `Net.head`"),
        ({"into": "Net.body", "from_": "Old.bdy"}, DataError, "E0624.*there is no `Old.bdy` in it"),
        ({"into": "Net.head"}, DataError, r"E0624.*`Net.head.W`: expected f32\[6, 3\], found f32\[2, 3\]"),
        ({"into": "Net.dense_1"}, DataError, "E0624"),
        ({"into": 3}, ArgumentTypeError, "E0602.*into must be a text"),
        ({"only": [3]}, ArgumentTypeError, "E0602.*only must be a name or several"),
        ({"into": "Net", "transpose": True}, ArgumentError, "E0604.*without rules"),
    ]:
        with pytest.raises(error, match=f"(?s){message}"):
            net.load_weights("run", **wrong)
        assert variables(net) == before
    data = bytearray(Path("run/best.nnw").read_bytes())
    data[8 + int.from_bytes(data[:8], "little")] ^= 1  # of the first tensor, a parameter
    Path("bad.nnw").write_bytes(data)
    with pytest.raises(DataError, match="E0623"):
        net.load_weights("bad.nnw", into="Net.body")
    with pytest.raises(DataError, match=r"E0624.*the variable `Net.body.dense_1.W`, found none"):
        net.load_weights("run")  # all or nothing
    np.savez("huge.npz", **{"Old.body.last.b": np.array([1, 2, 1e300])})
    with pytest.raises(DataError, match=r"E0624.*`Net.body.last.b`.*1e\+300, which f32 cannot hold"):
        net.load_weights("huge.npz", only="Net.body.last.b", from_="Old", into="Net")
    assert variables(net) == before


def test_our_own_files_whole(old: nnc.Model) -> None:
    """As `begin_with`, and under any name."""
    one, other = nnc.compile("old.nn", seed=8), nnc.compile("old.nn", seed=8)
    one.begin_with("run")
    old.save("copy.safetensors")
    for file in ("run", "copy.safetensors"):
        report = other.load_weights(file)
        assert report.taken["Old.head.W"] == "Old.head.W" and variables(other) == variables(one)
    assert one.variables["normalize/x/mean"].any()  # of all, the scaling is taken as well
    Path("rules").write_text(
        "Net.body.* = Old.body.*\nNet.body.*.* = Old.body.*.*\nkeep Net.*\nkeep Net.*.*\nignore Old.head.*\n"
    )
    net = nnc.compile("new.nn")
    assert net.load_weights("run", "rules").taken["Net.body.last.W"] == "Old.body.last.W"


def test_a_checkpoint_in_the_middle_of_an_epoch_of_another_program(old: nnc.Model, monkeypatch) -> None:
    """What training had summed up there is nothing to a program that begins with the weights."""

    class Stops:
        def on_progress(self, report: Report) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "_CHUNK_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        old.fit(callbacks=[Stops()])
    assert old.progress is not None and 0 < old.progress.position < 16
    old.save("middle.nnw")
    Path("bare.nn").write_text((OLD % "").replace("    metric error = mean(abs(y - t))\n", ""))
    bare = nnc.compile("bare.nn")
    with pytest.raises(DataError, match=r"E0623.*progress.totals"):
        bare.load("middle.nnw")
    bare.begin_with("middle.nnw")
    np.testing.assert_array_equal(bare.params["Old.head.W"], old.params["Old.head.W"])


def test_the_command_line(old: nnc.Model, capfd: pytest.CaptureFixture[str]) -> None:
    begin = ["train", "new.nn", "--weights", "run", "--epochs", "0"]
    assert main([*begin, "--into", "Net.body", "--out", "a"]) == 0
    out = capfd.readouterr().out
    assert "weights of run\n8 taken: `Net.body.dense_1.W`" in out
    assert "4 of the file not used: `Old.head.W`, `Old.head.b`, `normalize/x/mean`, `normalize/x/scale`" in out
    begun = nnc.compile("new.nn")
    begun.load("a/last.nnw")
    np.testing.assert_array_equal(begun.params["Net.body.last.W"], old.params["Old.body.last.W"])
    assert main([*begin, "--out", "b"]) == 4 and not Path("b").exists()
    assert "E0624" in capfd.readouterr().err
    assert main([*begin, "--only", "Net.body", "--only", "Net.head", "--out", "b"]) == 4 and not Path("b").exists()
    assert "`Net.head.W`: expected f32[6, 3], found f32[2, 3]" in capfd.readouterr().err
    for resumed in (False, True):
        if resumed:
            assert main(["train", "--resume", "a", "--epochs", "1", "--quiet"]) == 0
        said = json.loads(Path("a/run.json").read_text())
        assert (said["weights"], said["into"], said["only"]) == (str(Path("run").absolute()), "Net.body", [])
    assert main(["train", "new.nn", "--into", "Net.body"]) == 2
    assert main(["train", "--resume", "a", "--into", "Net.body"]) == 2
    weights = ["--weights", "old_weights.npz", "--from", "Old.body", "--into", "Net.body"]
    assert main(["train", "new.nn", *weights, "--epochs", "0", "--out", "c", "--quiet"]) == 0
    np.savez("whole.npz", **{n: a for n, a in begun.variables.items() if "/" not in n})
    assert main(["train", "new.nn", "--weights", "whole.npz", "--epochs", "0", "--out", "d", "--quiet"]) == 0
    whole = nnc.compile("new.nn")
    whole.load("d")
    assert variables(whole) == variables(begun)

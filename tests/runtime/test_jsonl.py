"""JSON lines: what a column is, what is refused and in which words, and that training and predicting read them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.compiler.manifest import DataSpec
from nnc.dsl.errors import ArgumentError, DataError
from nnc.runtime.cli import main
from nnc.runtime.data import jsonl
from nnc.runtime.data.dataset import Dataset
from nnc.runtime.data.sources import load
from nnc.runtime.data.table import Schema


def read(folder: Path, text: str | bytes, *args: Any, schema: Schema | None = None, **options: Any) -> Dataset:
    (folder / "a.jsonl").write_bytes(text.encode() if isinstance(text, str) else text)
    spec = DataSpec("jsonl", ("a.jsonl", *args), options)
    return load(spec, folder, validation=None, seed=0, schema=schema)


def test_columns_by_key(tmp_path: Path) -> None:
    data = read(
        tmp_path,
        '\ufeff{"a": 1, "b": 0.5, "c": true, "kind": "pear"}\r\n\n{"kind": "apple", "c": false, "b": 2, "a": -3}',
        target="kind",
    )
    assert {n: (c.dtype, c[:].tolist()) for n, c in data.train.items()} == {
        "a": (np.int64, [1, -3]),
        "b": (np.float64, [0.5, 2]),
        "c": (np.bool_, [True, False]),
        "kind": (np.int32, [1, 0]),
    }
    assert data.schema == Schema(("a", "b", "c"), "kind", ("apple", "pear")) and data.by_position == ("", "kind")


def test_texts_are_classes_whatever_they_look_like(tmp_path: Path) -> None:
    data = read(tmp_path, '{"x": 1, "y": "9"}\n{"x": 2, "y": "5"}\n', "y")
    assert data.train["y"][:].tolist() == [1, 0] and data.schema and data.schema.classes == ("5", "9")


def test_lists_are_tensors(tmp_path: Path) -> None:
    data = read(tmp_path, '{"image": [[1, 2], [3, 4.5]], "y": 1}\n{"image": [[0, 0], [0, 0]], "y": 0}', target="y")
    assert data.by_position == ("image", "y") and data.train["image"].shape == (2, 2, 2)
    assert data.train["image"][:].tolist() == [[[1, 2], [3, 4.5]], [[0, 0], [0, 0]]]
    assert read(tmp_path, '{"x": []}\n{"x": []}').train["x"].shape == (2, 0)


def test_whole_numbers_stay_whole_where_they_can(tmp_path: Path) -> None:
    assert read(tmp_path, f'{{"x": {2**53 - 1}}}').train["x"][:].tolist() == [2**53 - 1]
    assert read(tmp_path, f'{{"x": {2**60}}}').train["x"].dtype == np.float64
    assert read(tmp_path, '{"x": 1}\n{"x": true}').train["x"].dtype == np.int64


def test_a_packed_file(tmp_path: Path) -> None:
    assert read(tmp_path, gzip.compress(b'{"x": 1}\n' * 3)).train["x"][:].tolist() == [1, 1, 1]
    with pytest.raises(DataError, match=r"a.jsonl: expected a complete gzip stream"):
        read(tmp_path, gzip.compress(b'{"x": 1}\n' * 3000)[:-12])


@pytest.mark.parametrize(("text", "message"), [
    ("", "expected a JSON object in each line, found an empty file"),
    ("\n\n", "expected a JSON object in each line, found an empty file"),
    ("{}", "expected an object with keys, found {}"),
    ('{"a": 1}\n{"a": 1', "expected a JSON object in line 2, found expecting ',' delimiter"),
    ('{"a": 1}\n\n[1]', "expected a JSON object in line 3, found [1]"),
    ('{"a": 1} {"a": 2}', "expected a JSON object in line 1, found extra data"),
    ('{"a": NaN}', "expected a JSON object in line 1, found NaN, which is no JSON"),
    ('{"a": 1, "a": 2}', "expected a JSON object in line 1, found the key `a` twice"),
    ('{"a": 1}\n{"b": 1}', "expected the keys `a` in line 2, found `b`"),
    ('{"a": 1}\n{}', "expected the keys `a` in line 2, found none"),
    ('{"a": 1}\n{"a": null}', "expected a number for `a` in line 2, found null"),
    ('{"a": 1}\n{"a": "red"}', 'expected a number for `a` in line 2, found "red"'),
    ('{"a": {"b": 1}}', 'expected a number for `a` in line 1, found {"b": 1}'),
    ('{"a": [1, 2]}\n{"a": [1]}', "expected a list of the shape [2] for `a` in line 2, found one of [1]"),
    ('{"a": [1, 2]}\n{"a": 1}', "expected a list of the shape [2] for `a` in line 2, found 1"),
    ('{"a": 1}\n{"a": [1]}', "expected a number for `a` in line 2, found one of [1]"),
    ('{"a": [[1], [1, 2]]}', "expected lists of one length for `a` in line 1, found [[1], [1, 2]]"),
    ('{"a": [1, [1]]}', "expected lists of one length for `a` in line 1, found [1, [1]]"),
    ('{"a": ' + "[" * 80 + "]" * 80 + "}", "expected lists of one length for `a` in line 1"),
    ('{"a": ' + "[" * 10**5, "expected a JSON object in line 1"),
    ('{"a": ' + "9" * 400 + "}", "expected numbers that f64 can hold for `a` in line 1, found a larger one"),
    ('{"a": ' + "9" * 5000 + "}", "expected a JSON object in line 1"),
    (b'{"a": "\xff"}', "expected UTF-8 text, found byte 0xff"),
])  # fmt: skip
def test_what_is_malformed_is_named_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert caught.value.code == "E0621" and f"a.jsonl: {message}" in str(caught.value)


def test_a_target_is_text_or_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a text for `y` in line 2, found 1"):
        read(tmp_path, '{"x": 1, "y": "a"}\n{"x": 1, "y": 1}', "y")
    with pytest.raises(DataError, match=r'expected a number for `y` in line 2, found "a"'):
        read(tmp_path, '{"x": 1, "y": 1}\n{"x": 1, "y": "a"}', "y")
    with pytest.raises(DataError, match=r"expected a key `z`, found `x`, `y`"):
        read(tmp_path, '{"x": 1, "y": 1}', "z")
    with pytest.raises(ArgumentError, match=r"E0612.*`target` must be str \| None, not 1"):
        read(tmp_path, "", 1)


def test_another_file_is_read_as_the_first(tmp_path: Path) -> None:
    schema = Schema(("a", "b"), "kind", ("apple", "fig"))
    again = read(tmp_path, '{"kind": "fig", "b": 2, "a": 1}', schema=schema)
    assert [list(again.train), again.train["kind"][:].tolist()] == [["a", "b", "kind"], [1]]
    for text, message in (
        ('{"a": 1, "b": 1, "kind": "kiwi"}', "the class 'kiwi' in row 1"),
        ('{"a": 1, "kind": "fig"}', "`b` is missing"),
        ('{"a": 1, "b": 1, "kind": 3}', "expected classes as `kind`, as in training, found numbers"),
    ):
        with pytest.raises(DataError) as caught:
            read(tmp_path, text, schema=schema)
        assert message in str(caught.value)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("pipe.jsonl", "folder.jsonl", "none.jsonl"):
        with pytest.raises(DataError, match=rf"E0620.*{name}"):
            jsonl.read_table(tmp_path / name)


def test_a_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_MAX_VALUES", 10)
    assert read(tmp_path, '{"a": [1, 2, 3]}').train["a"].shape == (1, 3)
    with pytest.raises(DataError, match="expected at most 10 values in line 2, found more"):
        read(tmp_path, '{"a": 1}\n{"a": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}')


NET = """
model Net(x: f32[B, D]) -> (logits: f32[B, 2]) {
    logits = x |> Dense(2)
}

train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    optimizer = SGD(0.5)
    data = jsonl("a.jsonl", target = "kind")
    epochs = 40
}
"""


def test_training_and_predicting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"a": a, "kind": "up" if a > 0 else "down", "b": 1} for a in (-2, -1.5, -1, 1, 1.5, 2)]
    Path("a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    Path("net.nn").write_text(NET)
    net = nnc.compile("net.nn")
    assert net.fit()[-1]["loss"] < 0.3 and net.schema == Schema(("a", "b"), "kind", ("down", "up"))
    net.save("net.nnw")
    Path("new.jsonl").write_text('{"b": 1, "a": 5}\n{"b": 1, "a": -5}\n')
    assert main(["predict", "net.nn", "new.jsonl", "--weights", "net.nnw", "-o", "out.npy"]) == 0
    assert np.load("out.npy").argmax(1).tolist() == [1, 0]
    assert main(["predict", "net.nn", "a.jsonl", "--weights", "net.nnw", "-o", "out.npy"]) == 0
    assert np.load("out.npy").argmax(1).tolist() == [0, 0, 0, 1, 1, 1]
    assert main(["eval", "net.nn", "--weights", "net.nnw", "--data", "a.jsonl"]) == 0
    Path("in.txt").write_text("")
    capfd.readouterr()
    assert main(["predict", "net.nn", "in.txt", "--weights", "net.nnw"]) == 4
    assert "expected a .csv, .jsonl, .ndjson, .npz, .npy, .png or .jpg file, found .txt" in capfd.readouterr().err

"""Files of other programs: one, or a folder of them with an index; what is a pickle is not read."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import nnc
from nnc.dsl.errors import DataError
from nnc.runtime.store.foreign import INDEX, PICKLES, WHOLE, read

NET = "model N(x: f32[B, 3]) -> (y: f32[B, 2]) { y = x |> Dense(2) }\n"
W, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, 8], np.float16)


def shards(folder: Path, **changed: Any) -> None:
    """A folder as Hugging Face has it."""
    folder.mkdir(exist_ok=True)
    save_file({"N.dense_1.W": W}, folder / "model-00001-of-00002.safetensors")
    save_file({"N.dense_1.b": B}, folder / "model-00002-of-00002.safetensors")
    places = {
        "N.dense_1.b": "model-00002-of-00002.safetensors",
        "N.dense_1.W": "model-00001-of-00002.safetensors",
    } | changed
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 28}, "weight_map": places}))


@pytest.mark.parametrize("name", ["", INDEX])
def test_an_index_says_where_tensors_are(tmp_path: Path, name: str) -> None:
    shards(tmp_path / "m")
    net = nnc.compile(NET)
    assert len(net.load_weights(tmp_path / "m" / name).taken) == 2
    np.testing.assert_array_equal(net.params["N.dense_1.W"], W)
    np.testing.assert_array_equal(net.params["N.dense_1.b"], B.astype(np.float32))


def test_a_folder_with_one_file(tmp_path: Path) -> None:
    save_file({"N.dense_1.W": W, "N.dense_1.b": B}, tmp_path / WHOLE)
    assert len(nnc.compile(NET).load_weights(tmp_path).taken) == 2
    with pytest.raises(DataError, match=r"E0621.*expected a folder with model\.safetensors or model"):
        read(tmp_path.parent)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("../model.safetensors", "a .safetensors file of its folder as the place of `x`"),
        ("/etc/model.safetensors", "a .safetensors file of its folder as the place of `x`"),
        ("model.bin", "a .safetensors file of its folder as the place of `x`"),
        (3, "a .safetensors file of its folder as the place of `x`, found 3"),
        ("model-00001-of-00002.safetensors", "the tensor `x`, as the index says, found none of this name"),
        ("gone.safetensors", "no such file"),
        ("link.safetensors", "expected a file in this folder, found a link to"),
    ],
)
def test_an_index_leads_nowhere_else(tmp_path: Path, place: Any, message: str) -> None:
    shards(tmp_path / "m", x=place)
    os.symlink(tmp_path / "m" / "model-00001-of-00002.safetensors", tmp_path / "m" / "link.safetensors")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "m")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', "[" * 10_000, '{"weight_map": {"x": null}}'])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(DataError, match="E0623"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", PICKLES)
def test_pickles_are_refused_with_what_converts_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(pickle.dumps({"N.dense_1.W": 1}))
    with pytest.raises(DataError, match=r"E0621(.|\n)*this line of Python(.|\n)*weights_only=True") as caught:
        nnc.compile(NET).load_weights(path)
    line = caught.value.diagnostics[0].help[0].partition("of it: ")[2]
    compile(line, "help", "exec")


def test_the_line_that_converts_does_so(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    torch.save({"N.dense_1.W": layer.weight, "N.dense_1.b": layer.bias, "tied": layer.weight}, tmp_path / "w.pt")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "w.pt")
    exec(caught.value.diagnostics[0].help[0].partition("of it: ")[2], {})
    np.testing.assert_array_equal(read(tmp_path / "w.safetensors")["N.dense_1.W"], layer.weight.detach().numpy())

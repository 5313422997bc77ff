"""What trains with a step in ONNX Runtime, beside its file: programs, and the examples of the train block.

In: a network, what its file is called, which forms. Out: files by name, for the folder of that file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ....dsl.errors import NonFiniteError, error
from ...call.arrays import BAD_DATA, not_finite
from ...call.column import Array
from ...network import Network


def beside(network: Network, name: str, forms: Collection[str]) -> dict[str, bytes]:
    """`python`: learn.py. `web`: learn.mjs and learn.html. `npz`, `json`: the training examples of the train block, to
    which the normalisation is fitted, so this comes before the step is written (E0612 where none are named, E0630 where
    JSON has no word for a number)."""
    files: dict[str, bytes] = {}
    if "npz" in forms or "json" in forms:
        columns = examples(network)
        if "npz" in forms:
            with io.BytesIO() as f:
                np.savez(f, **columns)  # type: ignore[arg-type]
                files[f"{name}.npz"] = f.getvalue()
        if "json" in forms:
            files[f"{name}.json"] = _json(columns)
    if "python" in forms:
        files["learn.py"] = _text("learn.py").encode()
    if "web" in forms:
        files["learn.mjs"] = _text("learn.mjs").encode()
        files["learn.html"] = _page(network, name).encode()
    return files


def examples(network: Network) -> Mapping[str, Array]:
    """The training examples by the inputs of the train block, as these want them; the normalisation is fitted."""
    names, data = network.train_spec.inputs, network.load_dataset()
    found = data.for_training(names, network.entry("train").wants)
    columns = {name: np.ascontiguousarray(rows) for name, rows in zip(names, found, strict=True)}
    network.fit_normalization(columns, data.train_rows)
    return columns


def _json(columns: Mapping[str, Array]) -> bytes:
    for name, array in columns.items():
        if (bad := not_finite(array)) is not None:
            raise error("E0630", f"input `{name}` {bad}; JSON has finite numbers", help=BAD_DATA, kind=NonFiniteError)
    return json.dumps({name: array.tolist() for name, array in columns.items()}).encode()


def _page(network: Network, name: str) -> str:
    """It asks for the epochs and the batch of the train block, unless one says otherwise."""
    spec = network.train_spec
    said = {'"/*NAME*/"': json.dumps(name), "/*EPOCHS*/": str(spec.epochs), "/*BATCH*/": str(spec.batch or "")}
    text = _text("learn.html")
    for mark, content in said.items():
        text = text.replace(mark, content)
    return text


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")

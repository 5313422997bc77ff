"""One file that trains a classifier of pictures in a browser, with its data: a curve, a confusion, a pad to draw on.

In: a network with a train block, and its data. Out: HTML that needs no network. It ends in the weights that `nnc train`
ends in, and shows the hash of both.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.manifest import Variable
from ...compiler.standalone import structs
from ...dsl.errors import NncError, UnsupportedError, error
from ..call.column import Array
from ..model import Model
from .learned import read
from .web import web

MOST_TILES = 60
_SCALES = (1, 16, 255)  # of pictures that are bytes


def page(model: Model, prefix: str) -> bytes:
    """Trains here first, as `nnc train` does, to know the hash. Raises `UnsupportedError` (E0632) for what is no
    classifier of square pictures."""
    spec, call = model.train_spec, model.entry("train")
    inputs, outputs = call.signature.inputs, model.entry("predict").signature.outputs
    shape = _picture(inputs[0].shape[1:])
    if len(inputs) != 2 or inputs[1].dtype != "i32" or len(inputs[1].shape) != 1 or len(outputs) != 1 or shape is None:
        raise _refused(model, "it does not take a square picture and a label")
    if "loss" not in {m.name for m in spec.metrics} or len(outputs[0].shape) != 2:
        raise _refused(model, "it has no loss, or does not give a score for each class")
    if any(v.role == "normalize" for v in model.manifest.variables):
        raise _refused(model, "it normalizes its inputs by what it was trained on")
    classes = outputs[0].shape[1]
    data = model.load_dataset()
    learn, held = data.for_training(spec.inputs, call.wants), data.for_evaluation(spec.inputs, call.wants)
    model.fit(progress=False)
    weights = structs.weights(model.manifest)
    batch, counts = spec.batch or len(learn[1]), [len(np.asarray(c[1])) for c in (learn, held)]
    parameters = sum(prod(v.shape) for v in model.manifest.variables if v.role in ("weight", "bias"))
    facts = {
        "height": shape[0],
        "width": shape[1],
        "classes": int(str(classes)),
        "batch": batch,
        "epochs": spec.epochs,
        "seed": model.seed,
        "inputs": [p.name for p in inputs],
        "output": outputs[0].name,
        # of pictures as small as scikit-learn's digits strokes fill all; MNIST's have a margin, and finer strokes
        "margin": 0 if shape[0] < 16 else shape[0] // 7,
        "pen": 46 if shape[0] < 16 else 34,
        "most": float(np.max(np.asarray(learn[0]))),
        "hash": sha256(read(model, weights)).hexdigest(),
        "tiles": _tiles(model, shape),
        "source": next(iter(model.manifest.sources.values())),
        "about": f"{parameters:,} parameters, {counts[0]:,} examples to learn from, {counts[1]:,} held out.",
        "train": _columns(learn),
        "held": _columns(held),
    }
    files, _ = web(model, prefix, ["init", "predict", "train"])
    text = Path(__file__).with_name("page.html").read_text("utf-8")
    found = {
        "/*TITLE*/": escape(f"{model.name}: training in this page"),
        "/*INDEX*/": files["index.mjs"].decode(),
        "/*PAGE*/ {}": json.dumps(facts).replace("</", "<\\/"),
        "/*RELAXED*/": b64encode(files[f"{prefix}-relaxed.wasm"]).decode(),
        "/*EXACT*/": b64encode(files[f"{prefix}.wasm"]).decode(),
    }
    for mark, content in found.items():
        text = text.replace(mark, content)
    return text.encode()


def _refused(model: Model, why: str) -> NncError:
    what = f"a page is for classifiers of square pictures with a train block; {model.name} is none: {why}"
    return error("E0632", what, kind=UnsupportedError)


def _picture(shape: tuple[Any, ...]) -> tuple[int, int] | None:
    """Height and width of what an example is; a flat one is square."""
    if not all(isinstance(n, int) for n in shape):
        return None
    match [n for n in shape if n != 1]:
        case [h, w] if h == w:
            return h, w
        case [n] if isqrt(n) ** 2 == n:
            return isqrt(n), isqrt(n)
    return None


def _columns(columns: Any) -> dict[str, Any]:
    x, label = (np.ascontiguousarray(c) for c in columns)
    return {"x": _pictures(x.astype(np.float32)), "label": b64encode(label.astype(np.int32).tobytes()).decode()}


def _pictures(x: Array) -> dict[str, Any]:
    """Bytes and what they are divided by, where that gives the same floats; else the floats."""
    for scale in _SCALES:
        whole = np.rint(x * np.float32(scale))
        if (
            whole.min() >= 0
            and whole.max() <= 255
            and np.array_equal((whole / np.float32(scale)).astype(np.float32), x)
        ):
            return {"scale": scale, "data": b64encode(whole.astype(np.uint8).tobytes()).decode()}
    return {"scale": 0, "data": b64encode(x.tobytes()).decode()}


def _tiles(model: Model, shape: tuple[int, int]) -> dict[str, Any]:
    """The first weights that are pictures: rows of a matrix as large as the input, or filters."""

    def tile(v: Variable) -> tuple[int, int, int] | None:
        if len(v.shape) == 2 and v.shape[1] == prod(shape):
            return v.shape[0], *shape
        return (v.shape[0] * v.shape[1], v.shape[2], v.shape[3]) if len(v.shape) == 4 else None

    for v in model.manifest.variables:
        if v.role == "weight" and (found := tile(v)) is not None:
            count, rows, columns = found
            return {"path": v.path, "count": min(count, MOST_TILES), "all": count, "rows": rows, "columns": columns}
    first = next(v for v in model.manifest.variables if v.role == "weight")
    return {"path": first.path, "count": 1, "all": 1, "rows": 1, "columns": prod(first.shape)}

"""ONNX files as networks: compiled at once, or as a text and what it learned beside it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ..api import compile
from ..model import Model
from ..store.files import write
from .importing import Imported, import_graph
from .importing.files import read_model
from .importing.training import with_training


def read(
    path: str | PathLike[str],
    *,
    name: str = "Net",
    external: bool = False,
    values: Mapping[str, Any] | None = None,
    train: bool = False,
) -> Imported:
    """The `.nn` text of an ONNX file and its arrays.

    name: of the model. external: numbers may stand in files beside it. values: of inputs that are then constants, as of
    one that gives a shape. train: with a train block, whose loss fits the output.

    Raises DataError (E0635) for what is no ONNX file, RefusedImport (E0634) with all nodes that cannot be imported.
    """
    model = read_model(Path(path), external)
    made = import_graph(model, fspath(path), name=name, fixed=values)
    return with_training(made) if train else made


def from_onnx(path: str | PathLike[str], **options: Any) -> Model:
    """A network from an ONNX file, with what it learned. The options and errors are those of `read`."""
    return opened(read(path, **options))


def opened(made: Imported) -> Model:
    """The network of an imported text, with its arrays."""
    net = compile(made.text)
    net.assign(made.arrays)
    return net


def save(made: Imported, path: Path) -> Path:
    """Write the text, and beside it what it learned, as a checkpoint that the safetensors library can read. The path of
    that. Raises DataError (E0625)."""
    weights = path.with_suffix(".safetensors")
    opened(made).save(weights)
    write(path, made.text.encode())
    return weights

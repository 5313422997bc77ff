"""ONNX files as networks: compiled at once, or as a text and what it learned beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ...compiler.elaborate.draft import Draft
from ...dsl.errors import ArgumentTypeError, DataError, error
from ..api import compile, tells_the_source
from ..call.messages import argument_error
from ..model import Model
from ..store.files import write
from .importing import Imported, import_graph
from .importing.files import read_model
from .importing.training import with_training


def read(
    path: Any,
    *,
    name: str = "Net",
    external: bool = False,
    values: Mapping[str, Any] | None = None,
    train: bool = False,
) -> Imported:
    """The `.nn` text of an ONNX file, or of a ModelProto, and its arrays.

    name: of the model. external: numbers may stand in files beside it. values: of inputs that are then constants, as of
    one that gives a shape. train: with a train block, whose loss fits the output.

    Raises DataError (E0620, E0635) for what is no ONNX file, RefusedImport (E0634) with all nodes that cannot be
    imported, ArgumentError (E0603) for a name that no model can have.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or Draft(name).is_taken(name):
        raise argument_error("E0603", f"a model cannot be called {name!r}: it is no name, or means something already")
    if isinstance(path, str | PathLike):
        model, source = read_model(Path(path), external), fspath(path)
    elif hasattr(path, "graph") and hasattr(path, "opset_import"):
        model, source = path, "the model"
    else:
        kind = type(path).__name__
        raise argument_error("E0602", f"a path or a ModelProto is wanted, got {kind}", kind=ArgumentTypeError)
    made = import_graph(model, source, name=name, fixed=values)
    return with_training(made) if train else made


@tells_the_source
def from_onnx(path: Any, **options: Any) -> Model:
    """A network from an ONNX file or a ModelProto, with what it learned. The options and errors are those of `read`."""
    return opened(read(path, **options))


def opened(made: Imported, **options: Any) -> Model:
    """The network of an imported text, with its arrays; the options are those of `compile`."""
    net = compile(made.text, **options)
    net.assign(made.arrays)
    return net


def save(made: Imported, path: Path) -> Path:
    """Write the text, and beside it what it learned, as a checkpoint that the safetensors library can read. The path of
    that. Raises DataError (E0625)."""
    weights = path.with_suffix(".safetensors")
    net = opened(made)
    if path.is_dir():
        raise error("E0625", f"cannot write {path}: it is a folder", kind=DataError)
    net.save(weights)
    write(path, made.text.encode())
    return weights

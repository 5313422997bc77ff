"""Who takes part: one module per library, loaded only in the process that runs it.

Each gives a function `contender(row, arrays, weights, threads, folder)` whose result has `result(k)`, what is compared
(of a training step its loss on batch k, else the outputs), and `run()`, which is timed: an epoch, or a call.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..rows import Row

MODULES = {  # name: its module, and what must be installed
    "nnc": ("ours", ("nnc",)),
    "torch": ("pytorch", ("torch",)),
    "torch-channels-last": ("pytorch", ("torch",)),
    "torch-compile": ("pytorch", ("torch",)),
    "jax": ("xla", ("jax",)),
    "onnxruntime": ("onnx_runtime", ("onnxruntime", "torch", "onnx")),
    "openvino": ("openvino_cpu", ("openvino", "torch", "onnx")),
    "numpy": ("openblas", ("numpy",)),
}
READ_ONNX = ("onnxruntime", "openvino")
SLOW = ("torch-compile",)  # to compile: only where asked for


class Contender(Protocol):
    def result(self, k: int) -> list[Any]: ...

    def run(self) -> object: ...


def missing(name: str) -> list[str]:
    """What a contender needs that is not installed."""
    return [package for package in MODULES[name][1] if find_spec(package) is None]


def takes_part(row: Row, name: str) -> bool:
    """Whether there is something for it to do that the others do not do already."""
    if name == "nnc" or row.peers:
        return name == "nnc" or name in row.peers
    if name == "torch-channels-last":
        return row.convolves
    return name != "numpy" and (name not in READ_ONNX or row.kind != "training")


def model_file(row: Row) -> str:
    """The name of the ONNX model that PyTorch writes and the others read."""
    return "".join(c if c.isalnum() else "_" for c in row.name) + ".onnx"

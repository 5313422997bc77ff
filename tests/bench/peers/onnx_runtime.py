"""ONNX Runtime, from the model that PyTorch wrote."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from ..rows import Array, Row
from . import model_file


class Session:
    def __init__(self, path: Path, arrays: list[Array], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: a for i, a in zip(self.session.get_inputs(), arrays, strict=True)}

    def run(self) -> list[Array]:
        return list(self.session.run(None, self.inputs))

    def result(self, k: int) -> list[Array]:
        return self.run()


def contender(
    who: str, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int, folder: Path
) -> Session:
    return Session(folder / model_file(row), arrays, threads)

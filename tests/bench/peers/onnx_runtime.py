"""ONNX Runtime, from the model that PyTorch wrote, with arrays that are bound once."""

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
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        made = self.session.run(None, {i.name: a for i, a in zip(inputs, arrays, strict=True)})
        self.results = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in made]
        self.binding = self.session.io_binding()
        for i, array in zip(inputs, arrays, strict=True):
            self.binding.bind_ortvalue_input(i.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for o, value in zip(outputs, self.results, strict=True):
            self.binding.bind_ortvalue_output(o.name, value)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def result(self, k: int) -> list[Array]:
        self.run()
        return [value.numpy().copy() for value in self.results]


def contender(
    who: str, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int, folder: Path
) -> Session:
    return Session(folder / model_file(row), arrays, threads)

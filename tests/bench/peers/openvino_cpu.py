"""OpenVINO on the processor, from the model that PyTorch wrote, with arrays that are bound once; in f32 also where it
would choose bfloat16."""

from __future__ import annotations

from pathlib import Path

import openvino

from ..rows import Array, Row
from . import model_file


class Request:
    def __init__(self, path: Path, arrays: list[Array], threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self.request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
        for k, array in enumerate(arrays):
            self.request.set_input_tensor(k, openvino.Tensor(array, shared_memory=True))

    def run(self) -> object:
        return self.request.infer(share_outputs=True)

    def result(self, k: int) -> list[Array]:
        self.run()
        return [self.request.get_output_tensor(0).data.copy()]


def contender(
    who: str, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int, folder: Path
) -> Request:
    return Request(folder / model_file(row), arrays, threads)

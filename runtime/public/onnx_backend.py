"""The standard interface of ONNX: `nnc.onnx_backend.prepare(model).run(inputs)`."""

from nnc.runtime.onnx.backend import Backend, Prepared, prepare, run_model, run_node, supports_device

__all__ = ["Backend", "Prepared", "prepare", "run_model", "run_node", "supports_device"]

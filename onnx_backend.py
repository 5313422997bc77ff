"""The standard interface of ONNX backends: `nnc.onnx_backend.prepare(model).run(inputs)`."""

from .runtime.onnx.backend import Backend, prepare, run_model, run_node, supports_device

__all__ = ["Backend", "prepare", "run_model", "run_node", "supports_device"]

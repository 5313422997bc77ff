"""A graph of ours as an ONNX model."""

"""ONNX: networks from elsewhere as text, and ours as graphs that others run."""

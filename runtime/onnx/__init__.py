"""ONNX: networks from elsewhere as text, and ours as graphs that others run."""
"""ONNX: networks that leave as a graph which other programs run."""

"""An ONNX graph as a `.nn` text and its arrays."""

from .graph import import_graph
from .refusals import Refused, RefusedImport
from .result import Imported

__all__ = ["Imported", "Refused", "RefusedImport", "import_graph"]

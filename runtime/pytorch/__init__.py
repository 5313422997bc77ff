"""A module of PyTorch as a `.nn` text and a model that trains and goes back."""

from .capture import capture
from .graph import import_module
from .model import TorchModel, from_torch

__all__ = ["TorchModel", "capture", "from_torch", "import_module"]

"""The operators, a family a file; each registers itself."""

from . import attention, elementwise, layers, movement, recurrent, reductions

__all__ = ["attention", "elementwise", "layers", "movement", "recurrent", "reductions"]

"""The operators, a family a file: each is a function of a node that writes what it means and gives its results."""

from . import (
    convolution,
    elementwise,
    indexing,
    movement,
    normalisation,
    products,
    recurrent,
    reductions,
    resizing,
    signals,
    training,
)

FAMILIES = (
    convolution, elementwise, indexing, movement, normalisation, products, recurrent, reductions, resizing, signals,
    training,
)  # fmt: skip

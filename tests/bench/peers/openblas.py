"""NumPy, whose matrix products are those of OpenBLAS: only for what is one product."""

from __future__ import annotations

from pathlib import Path

from ..rows import Array, Row


class Products:
    def __init__(self, row: Row, arrays: list[Array], weights: dict[str, Array]) -> None:
        self.network, self.arrays, self.weights = row.network, arrays, weights

    def dense(self, x: Array, path: str, units: int) -> Array:
        return x @ self.weights[f"{path}.W"].T + self.weights[f"{path}.b"]

    def run(self) -> Array:
        y: Array = self.network(self, *self.arrays)
        return y

    def result(self, k: int) -> list[Array]:
        return [self.run()]


def contender(
    who: str, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int, folder: Path
) -> Products:
    return Products(row, arrays, weights)

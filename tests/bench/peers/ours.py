"""nnc: `fit` for an epoch, `predict` or an export for a call."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import nnc

from ..rows import Array, Row


class Ours:
    def __init__(self, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int) -> None:
        self.row, self.arrays = row, arrays
        model = row.entry if "model " in row.text else None
        self.net = nnc.compile(row.source, model=model, threads=threads)
        self.entry = "predict" if model else row.entry
        for path in list(weights):
            kept = self.net.state if ".running_" in path else self.net.params
            kept[f"{row.entry}.{path}"] = weights.pop(path)

    def result(self, k: int) -> list[Array]:
        if not self.row.trains:
            found = self.net.call(self.entry, *self.arrays)
            return list(found) if isinstance(found, tuple) else [found]
        size = len(self.arrays[0]) // self.row.steps
        return [np.array(self._fit(*(a[k * size : (k + 1) * size] for a in self.arrays)))]

    def _fit(self, *arrays: Array) -> float:
        return float(self.net.fit(*arrays, epochs=1, shuffle=False)[-1]["loss"])

    def run(self) -> object:
        return self._fit(*self.arrays) if self.row.trains else self.net.call(self.entry, *self.arrays)


def contender(who: str, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int, folder: Path) -> Ours:
    return Ours(row, arrays, weights, threads)

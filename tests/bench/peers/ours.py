"""nnc: `fit` for an epoch, `predict` or an export of arrays that are bound once for a call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nnc

from ..rows import Array, Row


class Ours:
    def __init__(self, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int) -> None:
        self.row, self.arrays = row, arrays
        model = row.entry if "model " in row.text else None
        self.net = nnc.compile(row.source, model=model, threads=threads)
        entry = "predict" if model else row.entry
        for path in list(weights):
            kept = self.net.state if ".running_" in path else self.net.params
            kept[f"{row.entry}.{path}"] = weights.pop(path)
        self.run: Callable[[], object] = self._train if row.trains else self.net.bind(entry, *arrays)

    def result(self, k: int) -> list[Array]:
        if not self.row.trains:
            found: Any = self.run()
            return [a.copy() for a in (found if isinstance(found, tuple) else (found,))]
        size = len(self.arrays[0]) // self.row.steps
        return [np.array(self._fit(*(a[k * size : (k + 1) * size] for a in self.arrays)))]

    def _fit(self, *arrays: Array) -> float:
        return float(self.net.fit(*arrays, epochs=1, shuffle=False)[-1]["loss"])

    def _train(self) -> float:
        return self._fit(*self.arrays)


def contender(who: str, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int, folder: Path) -> Ours:
    return Ours(row, arrays, weights, threads)

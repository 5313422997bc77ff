"""Training in ONNX Runtime by what `nnc export --train --with python` wrote: `python learn.py net net.npz`.

In: net.start.onnx, the variables as they begin, and net.onnx, a step; arrays by the names of its inputs, a row for each
example, as they are learned. Out: losses and metrics, a line for each step; `learned.npz`, the variables by path,
without what the optimiser keeps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# of ONNX, of NumPy
KINDS = {"float": "float32", "double": "float64", "int32": "int32", "int64": "int64", "bool": "bool"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train in ONNX Runtime.")
    parser.add_argument("name", help="of NAME.onnx and NAME.start.onnx")
    parser.add_argument("data", help="an .npz with an array for each input, a row for each example")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, help="rows of a step (default: all)")
    parser.add_argument("-o", "--output", default="learned.npz")
    asked = parser.parse_args()
    files = [f"{asked.name}.start.onnx", f"{asked.name}.onnx", asked.data]
    if missing := [file for file in files if not Path(file).is_file()]:
        parser.error(f"there is no file {missing[0]}")
    start, step = (onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in files[:2])
    state = dict(zip([o.name for o in start.get_outputs()], start.run(None, {}), strict=True))
    outputs = [o.name for o in step.get_outputs()]
    inputs = {i.name: KINDS[i.type[7:-1]] for i in step.get_inputs()}  # of tensor(float)
    with np.load(asked.data) as data:
        if lacking := [name for name in inputs if name not in state and name not in data]:
            parser.error(f"{asked.data} lacks {', '.join(lacking)}")
        examples = {name: data[name].astype(kind) for name, kind in inputs.items() if name not in state}
    counts = sorted({len(rows) for rows in examples.values()} or {0})
    size = counts[-1] if asked.batch is None else asked.batch
    if len(counts) != 1 or min(asked.epochs, size, *counts) < 1:
        parser.error(f"as many rows in each array, epochs and batch are from 1 on; rows: {counts}")
    starts = range(0, counts[0], size)
    for epoch in range(asked.epochs):
        whole = {"train/epoch": epoch, "train/steps": asked.epochs * len(starts)}
        state |= {name: np.array(n, np.int64) for name, n in whole.items() if name in state}
        for at in starts:
            batch = {name: rows[at : at + size] for name, rows in examples.items()}
            given = batch | {name: v for name, v in state.items() if name in inputs}
            out = dict(zip(outputs, step.run(None, given), strict=True))
            state |= {name.removeprefix("next/"): v for name, v in out.items() if name.startswith("next/")}
            told = {name: v for name, v in out.items() if not name.startswith("next/") and not v.shape}
            print(f"epoch {epoch + 1}", *(f"{name} {v:.9g}" for name, v in told.items()))
    learned: dict[str, Any] = {p: v for p, v in state.items() if "/" not in p or p.startswith("normalize/")}
    np.savez(asked.output, **learned)


if __name__ == "__main__":
    main()

"""The backend suite of ONNX: its cases on numbers that we have, their outcomes, and the table of operators.

A case that is refused stands in `refused.txt`, with the operator and the reason. What passed may not be refused any
more, nothing may be wrong, and what passes now leaves the list, by --update-golden.
"""

from __future__ import annotations

import fcntl
import functools
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import nnc.onnx_backend
from nnc.runtime.onnx.importing import RefusedImport

REFUSED = Path(__file__).parent / "refused.txt"
TABLE = Path(__file__).parent / "operators.md"
NUMBERS = {1, 6, 7, 9, 11}  # float, int32, int64, bool, double of TensorProto.DataType
MADE = ("simple", "pytorch-converted", "pytorch-operator")  # cases that are files
TABLE_HEAD = """# What is imported of ONNX

By the cases of ONNX's own backend suite whose inputs and results are float, double, int32, int64 or bool: {passed} of
{all} pass, the others are refused, each with its reason. Made by `pytest tests/onnx/test_backend.py --update-golden`.
An operator has passed in each case with a node of it.

| operator | passed | refused | because |
| --- | --- | --- | --- |
"""


@functools.cache
def cases() -> list[Any]:
    """The cases on numbers that we have, in the order of their names."""
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [*collect_testcases(None), *(c for kind in MADE for c in load_model_tests(kind=kind))]
    return sorted((c for c in found if _types(model(c)) <= NUMBERS), key=lambda c: str(c.name))


def model(case: Any) -> Any:
    return case.model if case.model is not None else onnx.load(Path(case.model_dir) / "model.onnx")


def _types(m: Any) -> set[int]:
    values = [v.type for v in (*m.graph.input, *m.graph.output)]
    return {t.tensor_type.elem_type if t.WhichOneof("value") == "tensor_type" else -1 for t in values}


def _sets(case: Any) -> Iterator[tuple[list[Any], list[Any]]]:
    """The inputs and results of a case, as often as it has some."""
    if case.data_sets is not None:
        for inputs, outputs in case.data_sets:
            yield _arrays(inputs), _arrays(outputs)
        return
    for folder in sorted(Path(case.model_dir).glob("test_data_set_*")):
        yield _read(folder, "input"), _read(folder, "output")


def _read(folder: Path, kind: str) -> list[Any]:
    paths = sorted(folder.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
    return _arrays(onnx.load_tensor(p) for p in paths)


def _arrays(values: Any) -> list[Any]:
    return [numpy_helper.to_array(v) if hasattr(v, "data_type") else np.asarray(v) for v in values]


def outcome(case: Any) -> str:
    """Nothing where a case passes, else the operator and the reason of its refusal. Raises AssertionError where it is
    wrong.

    The tolerances are those of the case, and 4e-7 of the largest number: the suite's own zeros are noise.
    """
    try:
        prepared = nnc.onnx_backend.prepare(model(case))
        for inputs, outputs in _sets(case):
            results = prepared.run(inputs)
            assert len(results) == len(outputs)
            for got, want in zip(results, outputs, strict=True):
                assert (got.dtype, got.shape) == (want.dtype, want.shape), case.name
                largest = float(np.abs(want[np.isfinite(want)]).max(initial=0)) if want.dtype.kind == "f" else 0.0
                np.testing.assert_allclose(
                    got, want, rtol=case.rtol, atol=max(case.atol, 4e-7 * largest), err_msg=case.name
                )
    except RefusedImport as e:
        first = e.refusals[0]
        return f"{first.operator}: {first.reason}"
    return ""


def refused() -> dict[str, str]:
    """The reasons of the cases that are refused."""
    lines = REFUSED.read_text("utf-8").splitlines() if REFUSED.exists() else []
    return dict(line.split(" | ", 1) for line in lines)


def update(outcomes: dict[str, str]) -> None:
    """These outcomes in the list, and the table that follows from it; other processes may do the same."""
    with (REFUSED.parent / "README.md").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = {n: r for n, r in refused().items() if n not in outcomes} | {n: r for n, r in outcomes.items() if r}
        REFUSED.write_text("".join(f"{n} | {' '.join(r.split())}\n" for n, r in sorted(kept.items())), "utf-8")
        TABLE.write_text(table(kept), "utf-8")


def table(reasons: dict[str, str]) -> str:
    """The table of operators, by the names of the cases that are refused."""
    passed: Counter[str] = Counter()
    lacking: dict[str, list[str]] = defaultdict(list)
    for case in cases():
        if case.name in reasons:
            operator, _, reason = reasons[case.name].partition(": ")
            lacking[operator].append(reason)
        else:
            passed.update(dict.fromkeys(_operators(model(case).graph.node), 1))
    rows = [
        f"| {op} | {passed[op] or ''} | {len(lacking[op]) or ''} | {_reasons(lacking[op])} |"
        for op in sorted({*passed, *lacking}, key=lambda o: (o.count("."), o))
    ]
    count = len(cases())
    return TABLE_HEAD.format(passed=count - len(reasons), all=count) + "\n".join(rows) + "\n"


def _operators(nodes: Sequence[Any]) -> set[str]:
    return {f"{n.domain}.{n.op_type}" if n.domain not in ("", "ai.onnx") else str(n.op_type) for n in nodes}


def _reasons(listed: list[str]) -> str:
    return "; ".join(dict.fromkeys(r.replace("|", "\\|") for r in listed))

"""The benchmark runs, says what it measured, and counts the work as nnc does."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nnc

from .bench.race import Failed, compare, difference, once
from .bench.report import against
from .bench.rows import ROWS

ROOT = Path(__file__).parents[1]


def bench(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_row_is_measured_and_compared_with_an_earlier_run(tmp_path: Path) -> None:
    name, peers = "train tiny MLP b32", ["torch"] if find_spec("torch") else []
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    slow = {who: {"seconds": 1.0} for who in ("nnc", *peers)}
    old.write_text(json.dumps({"rows": [{"row": name, "threads": 1, "contenders": slow}]}))
    out = bench("--only", name, "--rounds", 1, "--json", new, "--against", old, "--peers", *peers)
    assert out.returncode == 0, out.stderr
    assert "new / old" in out.stdout and name in out.stdout.partition("new / old")[2]
    found = json.loads(new.read_text())
    (row,) = found["rows"]
    assert {"nnc", *peers} == set(row["contenders"]) and row["out"] == {}
    ours = row["contenders"]["nnc"]
    assert 0 < ours["seconds"] <= ours["median"] and ours["cold"] > 0 and ours["memory"]["peak"] > 0
    assert found["machine"]["1"]["flops"] > 1e9


def test_a_row_that_is_not_there_is_said() -> None:
    out = bench("--only", "nothing of this name")
    assert out.returncode == 2 and "--list" in out.stderr


def test_another_state_of_the_machine_shows_in_the_peers() -> None:
    def run(ours: float, **peers: float) -> list[dict[str, Any]]:
        contenders = {who: {"seconds": s} for who, s in {"nnc": ours, **peers}.items()}
        return [{"row": "r", "threads": 1, "contenders": contenders}]

    assert against(run(4.0, torch=8.0, jax=2.0), run(2.0, torch=4.0, numpy=1.0)) == [("r", 1, 2.0, 1.0)]
    assert against(run(1.0), run(2.0, torch=1.0)) == [("r", 1, 0.5, None)]


def test_results_are_compared_relative_to_the_largest() -> None:
    a = np.array([1.0, 100.0])
    assert difference([a], [a + 0.001]) == pytest.approx(1e-5)
    assert difference([a], [a[:1]]) == difference([a], [a * np.nan]) == float("inf")


def test_who_computes_something_else_is_not_timed(tmp_path: Path) -> None:
    def left(**values: float) -> tuple[set[str], dict[str, str]]:
        for who, value in values.items():
            np.savez(tmp_path / f"{who}.npz", np.float32(value))
        children: dict[str, Any] = {who: SimpleNamespace(end=lambda: None) for who in values}
        record: dict[str, Any] = {"contenders": dict.fromkeys(values), "out": {}}
        compare(tmp_path, children, record)
        assert set(children) == set(record["contenders"])
        return set(children), record["out"]

    assert left(nnc=1.0, torch=1.00001, jax=1.01) == ({"nnc", "torch"}, {"jax": "differs by 1.0e-02"})
    assert left(nnc=1.0, jax=2.0) == (set(), {"jax": "differs by 1.0e+00", "nnc": "differs from all others"})
    assert left(nnc=1.0) == ({"nnc"}, {})


def test_what_a_contender_cannot_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"^KeyError: 'no row'$"):
        once("nnc", "no row", 1, tmp_path)


@pytest.mark.parametrize("name", [r.name for r in ROWS.values() if r.kind == "inference"])
def test_peers_have_the_parameters_of_the_model_and_do_its_work(name: str) -> None:
    row = ROWS[name]
    net = nnc.compile(row.source, model=row.entry)
    variables = {**dict(net.params.items()), **dict(net.state.items())}
    assert {k.partition(".")[2]: v.shape for k, v in variables.items()} == row.shapes.parameters
    batch = next(iter(row.inputs.values())).shape[0]
    assert row.shapes.macs == batch * net.session.program.macs(row.entry)

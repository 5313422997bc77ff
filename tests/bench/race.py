"""A row of the benchmark: its contenders in processes of their own, compared first, and then timed in turns.

A machine that is noisy is noisy for all of them, because in each round each measures one sample. While one does, the
others wait for a line of their standard input.
"""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .peers import READ_ONNX, takes_part
from .rows import Row

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4  # relative to the largest element
PATIENCE = 900.0  # seconds for an answer
SETTLE = 0.05  # seconds in which the threads of who was timed before fall asleep: some look for work that long


class Failed(Exception):
    """A contender that cannot, with the line that says why."""


class Child:
    """A process of `contender`, and its answers."""

    def __init__(self, who: str, row: str, threads: int, folder: Path) -> None:
        self.log = folder / f"{who}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.contender", who, row, str(threads), str(folder)],
                cwd=ROOT,
                env={**os.environ, **_environment(threads, folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent, which ends them
            )

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise Failed(f"no answer in {PATIENCE:.0f} seconds")
        line = self.process.stdout.readline()
        if not line:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise Failed(f"ended with code {self.process.wait()}{': ' + said[-1] if said else ''}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": what}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self.answer()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def _environment(threads: int, folder: Path) -> dict[str, str]:
    """What libraries read when they are loaded."""
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    alone = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {
        **dict.fromkeys(variables, str(threads)),
        "XLA_FLAGS": alone if threads == 1 else "",
        "JAX_PLATFORMS": "cpu",
        "NNC_CACHE": str(folder / "cache"),
    }


def once(who: str, row: str, threads: int, folder: Path) -> dict[str, Any]:
    """The one answer of a process that is not timed. Raises `Failed`."""
    child = Child(who, row, threads, folder)
    try:
        return child.answer()
    finally:
        child.end()


def difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest difference of two lists of arrays, each relative to the largest element of ours."""
    if [a.shape for a in ours] != [a.shape for a in theirs]:
        return float("inf")
    found = [float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in zip(ours, theirs, strict=True)]
    return max(found) if np.isfinite(found).all() else float("inf")


def race(row: Row, threads: int, names: Sequence[str], rounds: int, folder: Path) -> dict[str, Any]:
    """The record of a row: {"contenders": {who: figures}, "out": {who: why it is not timed}}, nnc among them."""
    record: dict[str, Any] = {
        "row": row.name, "kind": row.kind, "threads": threads, "flops": row.flops, "bytes": row.bytes,
        "contenders": {}, "out": {},
    }  # fmt: skip
    taking_part = [n for n in names if takes_part(row, n)]
    children: dict[str, Child] = {}
    try:
        cold = _start(row, threads, taking_part, folder, children, record)
        compare(folder, children, record)
        if "nnc" in children:
            _time(children, rounds, record)
            if "nnc" in record["contenders"]:
                record["contenders"]["nnc"]["cold"] = cold
    finally:
        for child in children.values():
            child.end()
    return record


def _start(
    row: Row, threads: int, names: Sequence[str], folder: Path, children: dict[str, Child], record: dict[str, Any]
) -> float | None:
    """Make all, one after the other; how long nnc took with an empty cache, which it leaves filled."""
    cold = None
    exported = ""
    if any(n in READ_ONNX for n in names):
        try:
            once("export", row.name, threads, folder)
        except Failed as e:
            exported = f"no model to read: {e}"
    for name in names:
        try:
            if name in READ_ONNX and exported:
                raise Failed(exported)
            if name == "nnc":
                cold = once(name, row.name, threads, folder)["ready"]
            children[name] = Child(name, row.name, threads, folder)
            record["contenders"][name] = {"ready": children[name].answer()["ready"]}
        except Failed as e:
            _leave_out(name, str(e), children, record)
    return cold


def _leave_out(name: str, why: str, children: dict[str, Child], record: dict[str, Any]) -> None:
    record["out"][name] = why
    record["contenders"].pop(name, None)
    if name in children:
        children.pop(name).end()


def compare(folder: Path, children: dict[str, Child], record: dict[str, Any]) -> None:
    """Whoever does not compute what nnc does is not timed; where that is everybody, nor is nnc."""
    results = {}
    for name in children:
        with np.load(folder / f"{name}.npz") as f:
            results[name] = [f[k] for k in f.files]
    for name in [n for n in results if n != "nnc" and "nnc" in results]:
        if (apart := difference(results["nnc"], results[name])) > TOLERANCE:
            _leave_out(name, f"differs by {apart:.1e}", children, record)
    if len(children) == 1 and len(results) > 1 and "nnc" in children:
        _leave_out("nnc", "differs from all others", children, record)


def _time(children: dict[str, Child], rounds: int, record: dict[str, Any]) -> None:
    samples: dict[str, list[float]] = {name: [] for name in children}
    for _ in range(rounds):
        for name, child in [*children.items()]:
            time.sleep(SETTLE)
            try:
                samples[name].append(child.ask("run")["seconds"])
            except Failed as e:
                _leave_out(name, str(e), children, record)
    for name, child in children.items():
        of_row = samples[name]
        record["contenders"][name] |= {"seconds": min(of_row), "median": statistics.median(of_row), "samples": of_row}
        record["contenders"][name]["memory"] = child.ask("memory")

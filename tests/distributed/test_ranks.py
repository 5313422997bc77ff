"""Sums over ranks have the bits of one process; what ranks agree on, how they come to be; nothing without MPI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnc.dsl.errors import ArgumentError, ArgumentTypeError, UnsupportedError
from nnc.runtime.distributed.launch import Launch, launched
from nnc.runtime.distributed.ranks import Ranks as Here
from nnc.runtime.distributed.sums import PlainSum, TreeSum
from nnc.runtime.distributed.tree import Node, cut, owned, roots, sums

from . import worker
from .launcher import Ranks


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_ranks_have_the_bits_of_the_tree(count: int) -> None:
    ranks = Ranks(count, "sums")
    assert ranks.end() == 0, ranks.text
    assert ranks.text == "all right\n"


def test_ranks_may_be_a_part_of_a_larger_program() -> None:
    ranks = Ranks(4, "part")
    assert ranks.end() == 0, ranks.text
    assert ranks.text == "all right\n"


def test_one_process_has_the_bits_of_the_tree() -> None:
    worker.check_sums(None)


@pytest.mark.parametrize("shards", [1, 2, 4, 8, 16, 32])
def test_any_number_of_ranks_sums_in_the_same_order(shards: int) -> None:
    for size in range(1, shards + 1):
        parts = [owned(rank, size, shards) for rank in range(size)]
        assert [s for part in parts for s in part] == list(range(shards))
        nodes = [node for part in parts for node in roots(part)]
        texts = [_written(*node) for node in nodes]
        for left, right in sums(nodes):
            texts[left] = f"({texts[left]}+{texts[right]})"
        assert texts[0] == _written(0, shards)


def _written(first: int, width: int) -> str:
    half = width // 2
    return f"({_written(first, half)}+{_written(first + half, half)})" if half else str(first)


def test_roots_are_the_largest_aligned_ranges() -> None:
    assert roots(range(3, 14)) == [Node(3, 1), Node(4, 4), Node(8, 4), Node(12, 2)]
    assert [(s.start, s.stop) for s in cut(100, 3, 16)] == [(0, 32), (32, 64), (64, 100)]


@pytest.mark.parametrize(
    ("size", "shards", "said"), [(2, 12, "power of two"), (1, 0, "power of two"), (5, 4, "5 ranks")]
)
def test_shards_that_cannot_be_owned_are_refused(size: int, shards: int, said: str) -> None:
    with pytest.raises(ArgumentError, match=rf"E0603\]: .*{said}"):
        owned(0, size, shards)


@pytest.mark.parametrize("kind", [TreeSum, PlainSum])
def test_what_is_added_is_what_was_announced(kind: type[TreeSum | PlainSum]) -> None:
    total = kind(None, 2, 3, "f4")
    with pytest.raises(ArgumentError, match=r"E0601\]: .*\(1,\): wanted \(3,\)"):
        total.add(0, np.ones(1, "f4"))
    with pytest.raises(ArgumentTypeError, match=r"E0602\]: .*float64: wanted float32"):
        total.add(0, np.ones(3))
    with pytest.raises(ArgumentError, match=r"E0603\]: shard 1 is not the next"):
        total.add(1, np.ones(3, "f4"))
    total.add(0, np.ones(3, "f4"))
    with pytest.raises(ArgumentError, match=r"E0603\]: 1 of 2 shards"):
        total.begin(np.empty(3, "f4"))
    total.add(1, np.ones(3, "f4"))
    with pytest.raises(ArgumentError, match=r"E0601\]: .*strides of 8 bytes"):
        total.begin(np.empty(6, "f4")[::2])
    total.begin(out := np.empty(3, "f4"))
    with pytest.raises(ArgumentError, match=r"E0603\]: the sum before has not ended"):
        total.add(0, np.ones(3, "f4"))
    total.end()
    assert out.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, Launch(2, 4)),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, Launch(0, 1)),
        ({"PMI_RANK": "x", "PMI_SIZE": "4"}, None),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1"}, Launch(1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}, Launch(3, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),  # a batch script
    ],
)
def test_launchers_are_known_by_their_environment(environment: dict[str, str], wanted: Launch | None) -> None:
    assert launched(environment) == wanted


def test_without_mpi4py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert Here.here() is None
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(UnsupportedError, match=r"nnc\[mpi\]"):
        Here.here(watched=True)


def test_without_a_library_of_mpi_that_is_said(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py", minversion="4.1")  # which looks for the library when it is imported
    environment = {**os.environ, "PMI_RANK": "0", "PMI_SIZE": "2", "MPI4PY_LIBMPI": str(tmp_path / "libmpi.so")}
    code = "from nnc.runtime.distributed.ranks import Ranks; Ranks.here()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "E0503]: mpi4py finds no MPI: cannot load" in ran.stderr


def test_a_launcher_that_mpi_does_not_know_is_refused() -> None:
    pytest.importorskip("mpi4py")
    code = """
import os
os.environ.update(SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="4")
from nnc.runtime.distributed.ranks import Ranks
Ranks.here()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "E0617]: the launcher started 4 processes, but for MPI there is 1" in ran.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_a_limit_is_a_number_of_seconds(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mpi4py")
    from mpi4py import MPI

    monkeypatch.setenv("NNC_RANKS_LIMIT", seconds)
    with pytest.raises(ArgumentError, match=rf"E0603\]: NNC_RANKS_LIMIT = {seconds}"):
        Here(MPI.COMM_SELF)


def test_mpi_is_loaded_by_nobody_who_is_alone() -> None:
    code = """
import sys, nnc
from nnc.runtime.distributed.ranks import Ranks
from nnc.runtime.distributed.sums import TreeSum
assert Ranks.here(watched=True) is None
TreeSum(None, 4, 10, "f4")
nnc.compile("model M(x: f32[B, 2]) -> (y: f32[B, 2]) { y = 2 * x }")
assert "mpi4py" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)

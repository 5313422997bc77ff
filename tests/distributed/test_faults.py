"""A rank that dies, hangs or fails ends all, and is named, once; signals reach those that work."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from .launcher import MPIEXEC, WORKER, Ranks, is_open_mpi

SAID = {
    "kill": r"error\[E0618\]: rank 1 on \S+ was killed by signal 9 \(SIGKILL\) at step 20\n",
    "parent": r"error\[E0618\]: rank 1 on \S+ was killed at step 20: the process is gone that the launcher started\n",
    "crash": r"error\[E0618\]: rank 1 on \S+ was killed by signal 11 \(SIGSEGV\) at step 20\n",
    "stop": r"error\[E0618\]: rank 1 on \S+ has not come to step 20 for \d+ s\n",
    "busy": r"error\[E0618\]: rank 1 on \S+ has not come to step 20 for \d+ s\n",
    "exit": r"error\[E0618\]: rank 1 on \S+ ended with exit code 3 at step 20\n",
    "raise": r"rank 1 on \S+:\nTraceback (.|\n)*IndexError: list index out of range\n",
    "error": r"rank 1 on \S+:\nerror\[E0612\]: no such file\n",
    "everywhere": r"rank 0 on \S+:\nerror\[E0612\]: no such file\n",
}


@pytest.mark.parametrize("how", SAID)
def test_a_rank_that_fails_ends_all_and_is_named(how: str) -> None:
    ranks = Ranks(3, "fault", how, limit=1.5)
    assert ranks.end() != 0
    assert re.search(SAID[how], ranks.text), ranks.text
    assert len(re.findall(r"^rank \d|error\[E0618\]", ranks.text, re.MULTILINE)) == 1, ranks.text
    assert_gone("fault", how)


def test_without_a_watcher_who_hangs_is_named() -> None:
    ranks = Ranks(3, "fault", "stop", "alone", limit=1.5)
    assert ranks.end() != 0
    assert len(re.findall(SAID["stop"], ranks.text)) == 1, ranks.text


def test_a_rank_that_ends_before_mpi_begins_ends_all() -> None:
    ranks = Ranks(2, "late")
    assert ranks.end() != 0
    if is_open_mpi():
        return  # it ends all by itself, and names the process
    assert re.search(r"error\[E0618\]: rank 0 on \S+ has waited for 2 s for all processes to begin", ranks.text)


@pytest.mark.parametrize("whom", ["launcher", "child", "parent"])
def test_a_signal_reaches_who_works_once(whom: str) -> None:
    """Launchers signal groups; a signal to one process is passed on by the parent."""
    if whom == "launcher" and MPIEXEC and is_open_mpi():
        pytest.skip("mpirun of Open MPI kills a moment after Ctrl-C")
    ranks = Ranks(2, "interrupted")
    child, parent = ranks.until(r"rank 1: (\d+) (\d+)\n").groups()
    os.kill({"launcher": ranks.process.pid, "child": int(child), "parent": int(parent)}[whom], signal.SIGINT)
    assert ranks.end() == 130
    assert f"interrupted: {[1, 1] if whom == 'launcher' else [0, 1]}\n" in ranks.text
    assert "E0618" not in ranks.text


def assert_gone(*words: str) -> None:
    """Nothing of a run is left, a moment after its launcher has ended."""
    for _ in range(100):
        left = [
            p for p in Path("/proc").glob("[0-9]*/cmdline") if _words(p)[-len(words) - 1 :] == [str(WORKER), *words]
        ]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(left)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().rstrip("\0").split("\0")
    except OSError:  # it has just ended
        return []

"""Running a script, or a module, as so many ranks, perhaps more than processors; without mpi4py or mpiexec tests are
skipped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("worker.py")
FOLDER = Path(sys.executable).parent
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(FOLDER), os.environ.get("PATH", "")]))
OPEN_MPI = {  # as root, and more ranks than processors
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def is_open_mpi() -> bool:
    return "Open MPI" in subprocess.run([str(MPIEXEC), "--version"], capture_output=True, text=True).stdout


class Ranks:
    """Ranks that run; `text` is what they have said so far."""

    def __init__(
        self,
        count: int,
        *arguments: str,
        limit: float = 30.0,
        script: Sequence[str | Path] = (WORKER,),
        cwd: Path | None = None,
    ):
        pytest.importorskip("mpi4py")
        if MPIEXEC is None:
            pytest.skip("no mpiexec")
        command = [MPIEXEC, "-n", str(count), sys.executable, "-u", *map(str, script), *arguments]
        env = {**os.environ, **OPEN_MPI, "NNC_RANKS_LIMIT": str(limit)}
        pipe, out = subprocess.PIPE, subprocess.STDOUT
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=out,
            env=env,
            text=True,
            start_new_session=True,
            cwd=cwd,
        )
        self.text = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read until they have said it."""
        assert self.process.stdout is not None
        while not (found := re.search(pattern, self.text)):
            line = self.process.stdout.readline()
            assert line, f"not said: {pattern}\n{self.text}"
            self.text += line
        return found

    def end(self, seconds: float = 300) -> int:
        """Wait until all have ended; the exit code."""
        try:
            self.text += self.process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return self.process.returncode

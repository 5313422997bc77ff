"""Whether an MPI launcher started this process, told by what launchers leave in the environment: nothing of MPI is
loaded.

| launcher | rank | size |
| --- | --- | --- |
| mpirun of MPICH, Intel MPI, MVAPICH, `srun --mpi=pmi2`, Flux | `PMI_RANK` | `PMI_SIZE` |
| mpirun of Open MPI | `OMPI_COMM_WORLD_RANK` | `OMPI_COMM_WORLD_SIZE` |
| srun, with any `--mpi` | `SLURM_PROCID` | `SLURM_STEP_NUM_TASKS` |

A batch script of Slurm is no step of srun: it has a `SLURM_PROCID`, but no `SLURM_STEP_NUM_TASKS`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this is, as the launcher said."""

    rank: int
    size: int


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """What a launcher said of this process; None where none did."""
    for names in _LAUNCHERS:
        rank, size = (environment.get(name, "") for name in names)
        if rank.isdecimal() and size.isdecimal() and int(rank) < int(size):
            return Launch(int(rank), int(size))
    return None

"""Processes that train together: the bits of one process, whatever happens to them on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.runtime.cli import main

from . import nets
from .launcher import MPIEXEC, Ranks, is_open_mpi

NNC = ("-m", "nnc")
DIGITS = """
model Net(x: f32[B, 64]) -> (y: f32[B, 10]) {{ y = x |> Dense(24) |> relu |> dropout(p = 0.2) |> Dense(10) }}
train Net(x, label: i32[B]) {{
    loss = mean(cross_entropy(y, label)){more}
    metric accuracy = mean(argmax(y) == label)
    optimizer = Adam(lr = 3e-3)
    data = {data}
    batch = 64
    epochs = {epochs}
}}
"""


def digest_of(folder: Path) -> str:
    net = nnc.compile((folder / "source.nn").read_text("utf-8"))
    net.load(folder / "last.nnw")
    return nets.digest(net)


def write(folder: Path, epochs: int = 3, data: str = "digits()", more: str = "") -> None:
    (folder / "net.nn").write_text(DIGITS.format(epochs=epochs, data=data, more=more), "utf-8")


def alone(folder: Path, *arguments: str) -> str:
    """The weights that one process learns."""
    assert main(["train", str(folder / "net.nn"), "--shards", "16", "--out", str(folder / "one"), *arguments]) == 0
    return digest_of(folder / "one")


@pytest.fixture(scope="module")
def hashes() -> dict[str, str]:
    return {name: nets.digest(nets.trained(name, threads=1)) for name in nets.NETS}


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_have_the_bits_of_one_process(count: int, hashes: dict[str, str]) -> None:
    ranks = Ranks(count, "1", script=(nets.__file__,))
    assert ranks.end() == 0, ranks.text
    assert dict(line.split(": ") for line in ranks.text.splitlines()) == hashes


def test_one_process_has_the_same_bits_on_two_threads(hashes: dict[str, str]) -> None:
    assert {name: nets.digest(nets.trained(name, threads=2)) for name in nets.NETS} == hashes


def test_the_command_prints_once_and_trains_to_the_bits_of_one(tmp_path: Path) -> None:
    write(tmp_path)
    ranks = Ranks(2, "train", "net.nn", "--out", "two", "--trace", "trace.json", script=NNC, cwd=tmp_path)
    assert ranks.end() == 0, ranks.text
    assert (
        ranks.text.count("2 processes with 1 thread\n") == ranks.text.count("weights in two: best.nnw, last.nnw") == 1
    )
    assert digest_of(tmp_path / "two") == alone(tmp_path)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["shards"] == 16
    trace = json.loads((tmp_path / "trace.json").read_text())
    found = {(e["pid"], e["name"].split()[0]) for e in trace["traceEvents"] if e["ph"] == "X"}
    assert found == {(rank, what) for rank in (0, 1) for what in ("shard", "exchange", "update")}
    assert trace["otherData"]["processes"] == 2


def test_one_process_of_a_launcher_has_shards_too(tmp_path: Path) -> None:
    write(tmp_path)
    ranks = Ranks(1, "train", "net.nn", "--out", "mpi", script=NNC, cwd=tmp_path)
    assert ranks.end() == 0, ranks.text
    assert digest_of(tmp_path / "mpi") == alone(tmp_path)


def until_saved(ranks: Ranks, run: Path) -> None:
    begin = time.monotonic()
    while not (run / "last.nnw").exists():
        assert ranks.process.poll() is None and time.monotonic() < begin + 60, ranks.text
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_what_was_stopped_goes_on_with_another_number_of_ranks(how: str, tmp_path: Path) -> None:
    if how == "interrupted" and MPIEXEC and is_open_mpi():
        pytest.skip("mpirun of Open MPI kills a moment after Ctrl-C")
    write(tmp_path, epochs=60)
    ranks = Ranks(4, "train", "net.nn", "--out", "run", "--quiet", script=NNC, cwd=tmp_path)
    until_saved(ranks, tmp_path / "run")
    if how == "killed":
        os.kill(worker_of(tmp_path, rank=2), signal.SIGKILL)
        assert ranks.end(60) != 0
        assert re.search(r"rank 2 on \S+ was killed by signal 9 \(SIGKILL\) at epoch \d+, step \d+\n", ranks.text)
    else:
        os.kill(ranks.process.pid, signal.SIGINT)
        assert ranks.end(60) == 130, ranks.text
        assert len(re.findall("interrupted in epoch", ranks.text)) == 1
    again = Ranks(2, "train", "--resume", "run", "--quiet", script=NNC, cwd=tmp_path)
    assert again.end() == 0, again.text
    assert digest_of(tmp_path / "run") == alone(tmp_path, "--quiet")


def test_the_first_rank_that_hangs_is_named_by_those_that_do_not_print(tmp_path: Path) -> None:
    write(tmp_path, epochs=400)
    ranks = Ranks(2, "train", "net.nn", "--out", "run", "--quiet", script=NNC, cwd=tmp_path, limit=1.5)
    until_saved(ranks, tmp_path / "run")
    os.kill(worker_of(tmp_path, rank=0), signal.SIGSTOP)
    assert ranks.end(60) != 0
    assert re.search(r"rank 0 on \S+ has not come to epoch \d+, step \d+ for \d+ s\n", ranks.text), ranks.text


def worker_of(cwd: Path, rank: int) -> int:
    """The process that computes for a rank: the child of the one that the launcher started."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == cwd:
                environment = dict(v.partition("=")[::2] for v in (entry / "environ").read_text().split("\0"))
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                said = environment.get("PMI_RANK") or environment.get("OMPI_COMM_WORLD_RANK")
                if said == str(rank):
                    found[int(entry.name)] = parent
        except OSError:
            continue
    return next(pid for pid, parent in found.items() if parent in found)


def table(folder: Path, change: tuple[int, int, float] | None = None) -> None:
    """Digits as a table, perhaps with another value at a row and column."""
    data = nnc.compile(nets.MODELS / "digits_mlp.nn").load_dataset()
    rows = np.column_stack([data.train["x"].reshape(-1, 64)[:400], data.train["label"][:400]])
    if change is not None:
        rows[change[:2]] = change[2]
    head = ",".join([*(f"p{k}" for k in range(64)), "label"])
    np.savetxt(folder / "d.csv", rows, "%.9g", ",", header=head, comments="")


def test_what_is_not_finite_is_told_once_with_its_rank(tmp_path: Path) -> None:
    """The logarithm of a label is infinite in one row."""
    write(tmp_path, data='csv("d.csv", target = "label")', more=" + 0 * mean(log(x[:, 0] + 0.5))")
    table(tmp_path, (123, 0, -0.5))
    ranks = Ranks(2, "train", "net.nn", "--out", "run", "--quiet", script=NNC, cwd=tmp_path)
    assert ranks.end(60) != 0
    assert re.search(r"error\[E0630\]: training met .* epoch 1, step \d, shard \d+ of rank [01]: ", ranks.text), (
        ranks.text
    )
    assert ranks.text.count("E0630") == 1


def test_an_example_that_is_wrong_ends_all_with_its_row(tmp_path: Path) -> None:
    write(tmp_path, data='csv("d.csv", target = "label")')
    table(tmp_path, (123, 64, 17))
    ranks = Ranks(2, "train", "net.nn", "--out", "run", "--quiet", script=NNC, cwd=tmp_path)
    assert ranks.end(60) != 0
    assert ranks.text.count("error[E") == 1, ranks.text


def test_other_data_are_refused_at_the_start(tmp_path: Path) -> None:
    write(tmp_path, data='csv("d.csv", target = "label")')
    table(tmp_path)
    code = "import sys, os; r = os.environ.get('PMI_RANK') or os.environ['OMPI_COMM_WORLD_RANK']\n"
    code += (
        "from nnc.runtime.cli import main; sys.exit(main(['train', 'net.nn', '--out', 'run', '--data', f'd{r}.csv']))"
    )
    text = (tmp_path / "d.csv").read_text("utf-8")
    (tmp_path / "d0.csv").write_text(text, "utf-8")
    (tmp_path / "d1.csv").write_text(text.replace("\n0,", "\n1,"), "utf-8")
    ranks = Ranks(2, script=("-c", code), cwd=tmp_path)
    assert ranks.end(60) != 0
    assert re.search(r"error\[E0617\]: rank 1 on \S+ has another data than rank 0", ranks.text), ranks.text


def test_sums_of_mpi_need_no_more_shards_than_processes(tmp_path: Path) -> None:
    write(tmp_path)
    ranks = Ranks(3, "train", "net.nn", "--out", "run", "--reduce", "fast", "--quiet", script=NNC, cwd=tmp_path)
    assert ranks.end(60) == 0, ranks.text
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["shards"] == 4
    one = nnc.compile((tmp_path / "net.nn").read_text("utf-8")).fit()
    assert [r["loss"] for r in rows] == pytest.approx([r["loss"] for r in one], rel=1e-4)


def test_wrong_usage_is_said_once(tmp_path: Path) -> None:
    write(tmp_path)
    ranks = Ranks(2, "train", "net.nn", "--resume", "run", "--shards", "4", script=NNC, cwd=tmp_path)
    assert ranks.end(60) == 2
    assert ranks.text.count("--resume goes on as the run began") == 1, ranks.text


def test_more_ranks_than_shards_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    ranks = Ranks(2, "train", "net.nn", "--shards", "1", script=NNC, cwd=tmp_path)
    assert ranks.end(60) != 0
    assert ranks.text.count("2 ranks for 1 shards: each rank computes one at least") == 1, ranks.text


READING = """
import nnc, nnc.distributed
from dataclasses import replace
from nnc.runtime.call import column
from nnc.runtime.data import npy
from nnc.runtime.train import agreement
ranks, read, made = nnc.distributed.init(), [], npy.mapped
def mapped(*args, **kwargs):
    found = made(*args, **kwargs)
    return replace(found, read=lambda index: (read.extend(index.tolist()), found.read(index))[1])
npy.mapped, agreement._LOOKED_AT = mapped, 0  # by a sample of the data it is seen that all have the same
nnc.compile("net.nn").fit(comm=ranks)
every = ranks.gather(sorted(read))
if ranks.rank == 0:
    print(every)
"""


def test_each_rank_reads_its_own_rows(tmp_path: Path) -> None:
    """Of batches that stand in order: the first of two ranks has the first half of each."""
    np.save(tmp_path / "x.npy", np.ones((64, 6), np.float32))
    (tmp_path / "net.nn").write_text(
        "model Net(x: f32[B, 6]) -> (y: f32[B, 6]) { y = x |> Dense(6) }\n"
        'train Net(x) { loss = mean((y - x)^2)\n optimizer = SGD(lr = 0.1)\n data = npy("x.npy")\n '
        "batch = 16\n shuffle = false\n epochs = 1 }\n",
        "utf-8",
    )
    ranks = Ranks(2, script=("-c", READING), cwd=tmp_path)
    assert ranks.end(60) == 0, ranks.text
    assert json.loads(ranks.text) == [[k for k in range(64) if k % 16 // 8 == half] for half in (0, 1)]

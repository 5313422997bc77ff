"""What ranks run in the tests: `worker.py TASK ARGUMENTS..` under mpiexec. Not a test itself."""

from __future__ import annotations

import os
import signal
import sys
from threading import Thread
from time import sleep
from typing import Any

import numpy as np

from nnc.dsl.errors import DataError, RankError, error
from nnc.runtime.distributed import watch
from nnc.runtime.distributed.ranks import Ranks
from nnc.runtime.distributed.sums import PlainSum, Sum, TreeSum

SHARDS = 16


def tree(vectors: list[Any]) -> Any:
    """The sum over shards as it is defined."""
    while len(vectors) > 1:
        vectors = [a + b for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


def vectors(length: int, dtype: str, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(length) * 1000).astype(dtype) for _ in range(SHARDS)]


def begin(total: Sum, values: list[Any], out: Any) -> None:
    work = np.empty_like(out)
    for shard in total.shards:
        work[:] = values[shard]
        total.add(shard, work)
        work[:] = 0  # the caller uses it for something else
    total.begin(out)


def check_forgetting(ranks: Ranks | None) -> None:
    """A step that was not finished leaves nothing behind."""
    values, out = vectors(10, "f4", 1), np.empty(10, "f4")
    for total in (TreeSum(ranks, SHARDS, 10, "f4"), PlainSum(ranks, SHARDS, 10, "f4")):
        total.add(total.shards[0], np.full(10, 1e6, "f4"))
        total.forget()
        begin(total, values, out)
        total.end()
        np.testing.assert_allclose(out, tree(values), rtol=1e-3, atol=0.01)


def check_sums(ranks: Ranks | None) -> None:
    for dtype in ("f4", "f8", "i8"):
        for length in (0, 1, 7, 100_003):
            totals = [TreeSum(ranks, SHARDS, length, dtype) for _ in range(3)]
            outs = [np.empty(length, dtype) for _ in totals]
            for step in range(2):
                given = [vectors(length, dtype, 10 * step + k) for k in range(3)]
                for total, values, out in zip(totals, given, outs, strict=True):
                    begin(total, values, out)
                for k in (2, 0, 1):
                    totals[k].end()
                    assert outs[k].tobytes() == tree(given[k]).tobytes(), (dtype, length, step, k)
            plain = PlainSum(ranks, SHARDS, length, dtype)
            begin(plain, given[0], outs[0])
            plain.end()
            np.testing.assert_allclose(outs[0], tree(given[0]), rtol=1e-3, atol=0.01)


def check_thread(ranks: Ranks) -> None:
    """A thread waits for sums while this one agrees on numbers."""
    total, out, values = TreeSum(ranks, SHARDS, 50_000, "f4"), np.empty(50_000, "f4"), vectors(50_000, "f4", 1)
    same = []

    def exchange() -> None:
        for _ in range(20):
            begin(total, values, out)
            total.end()
            same.append(out.tobytes() == tree(values).tobytes())

    thread = Thread(target=exchange)
    thread.start()
    assert [ranks.most(k + ranks.rank) for k in range(50)] == [k + ranks.size - 1 for k in range(50)]
    thread.join()
    assert same == [True] * 20


def check_values(ranks: Ranks) -> None:
    assert ranks.gather({"rank": ranks.rank}) == [{"rank": k} for k in range(ranks.size)]
    assert ranks.first("yes" if ranks.rank == 0 else "no") == "yes"
    assert ranks.most(-ranks.rank) == 0
    assert len(ranks.hosts) == ranks.size and ranks.host == ranks.hosts[ranks.rank]
    ranks.same({"program": "a1", "nnc": "1.0"})
    odd = min(2, ranks.size - 1)
    try:
        ranks.same({"program": "a1" if ranks.rank != odd else "b2", "nnc": "1.0"})
    except RankError as e:
        assert e.code == "E0617"
        said = str(e)
        host, first = ranks.hosts[odd], ranks.hosts[0]
        assert f"rank {odd} on {host} has another program than rank 0 on {first}: b2 instead of a1" in said, said
        assert "nnc" not in said
    else:
        raise AssertionError("ranks that differ were not refused")


def sums() -> None:
    """All that is right, in a word of rank 0."""
    ranks = Ranks.here()
    check_sums(ranks)
    check_forgetting(ranks)
    if ranks is not None:
        check_values(ranks)
        check_thread(ranks)
    if ranks is None or ranks.rank == 0:
        print("all right")


def part() -> None:
    """Ranks of a larger program: each half has a communicator, on which there is more under way."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    half = world.Split(world.rank % 2, world.rank)
    far = np.full(1, half.rank)
    sent = half.Isend(far, (half.rank + 1) % half.size, tag=1)
    ranks = Ranks(half)
    assert ranks.size == world.size // 2
    check_sums(ranks)
    half.Recv(far, (half.rank - 1) % half.size, tag=1)
    sent.Wait()
    assert far[0] == (half.rank - 1) % half.size
    if world.rank == 0:
        print("all right")


def fault(how: str, watched: str = "watched") -> None:
    """Steps without end; in step 20 rank 1 meets its fate."""
    ranks = Ranks.here(watched=watched == "watched")
    assert ranks is not None
    with ranks.together():
        total, out, values = TreeSum(ranks, SHARDS, 1000, "f4"), np.empty(1000, "f4"), vectors(1000, "f4", 1)
        for step in range(10**9):
            ranks.at(f"step {step}")
            if step == 20 and (ranks.rank == 1 or how == "everywhere"):
                FATES[how]()
            begin(total, values, out)
            total.end()


def fail() -> None:
    raise error("E0612", "no such file", kind=DataError)


FATES = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "parent": lambda: (os.kill(os.getppid(), signal.SIGKILL), sleep(60)),
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "busy": lambda: sleep(1000),
    "exit": lambda: os._exit(3),
    "raise": lambda: [][0],
    "error": fail,
    "everywhere": fail,
}


def interrupted() -> None:
    """Steps until any rank was interrupted; each says which signals came to it."""
    ranks, got = Ranks.here(watched=True), []
    assert ranks is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: got.append(number))
    sys.stdout.write(
        "".join(f"rank {k}: {a} {b}\n" for k, (a, b) in enumerate(ranks.gather((os.getpid(), os.getppid()))))
    )
    sys.stdout.flush()
    with ranks.together():
        while not ranks.most(len(got)):
            sleep(0.01)
        sleep(0.5)
        counts = ranks.gather(len(got))
    if ranks.rank == 0:
        print(f"interrupted: {counts}")
    sys.exit(130)


def late() -> None:
    """Rank 1 ends before it comes to MPI."""
    watch._START = 2.0
    if os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")) == "1":
        sys.exit(3)
    Ranks.here(watched=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

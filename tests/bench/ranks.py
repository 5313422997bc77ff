"""Steps of several processes here, with links as slow as one likes, beside what `distributed/cost` computes for them.

    mpiexec -n 4 python -m tests.bench.ranks lenet5 gpt digits --link 1Gb,50us

Each process has one thread, all share the processors there are, and each has a link of its own. As many as there are
processors measure the parts of a step, then all take steps together, in turns. What is printed: milliseconds of a step
as computed, as measured, their quotient, and the parts of what is computed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any

import numpy as np

import nnc
from nnc.runtime.call.arrays import bind
from nnc.runtime.cli.cluster import Network
from nnc.runtime.distributed.cost import Cluster, cost
from nnc.runtime.distributed.ranks import Ranks
from nnc.runtime.distributed.sums import TreeSum
from nnc.runtime.train import meeting, timed
from nnc.runtime.train.shards import Shards, stages_of
from nnc.runtime.train.sweep import Origin

MODELS = Path(nnc.__file__).parent / "models"
SHARDS = 16
rng = np.random.default_rng(0)


def text() -> tuple[Any, ...]:
    rows = rng.integers(0, 65, (64, 65)).astype(np.int32)
    return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


def images(count: int, *shape: int) -> tuple[Any, ...]:
    return rng.random((count, *shape), np.float32), rng.integers(0, 10, count).astype(np.int32)


ROWS = {  # examples, and how many in a batch
    "lenet5": ("lenet5.nn", lambda: images(2048, 1, 28, 28), 256),
    "gpt": ("gpt.nn", text, 16),
    "digits": ("digits_mlp.nn", lambda: images(1438, 64), 64),
}


class Throttled(TreeSum):
    """Sums whose messages arrive `latency` seconds after all before them on the rank's link, of `bandwidth` bytes a
    second each way, and they themselves have passed it; they really travel meanwhile."""

    bandwidth, latency = 1e9, 0.0
    free = 0.0  # when the link is, of this process

    def _exchange(self, ranks: Ranks, received: Any, sent: Any, tag: int) -> list[Any]:  # type: ignore[override]
        nbytes = max(sum(view.nbytes for view, _ in way) for way in (received, sent))
        Throttled.free = max(Throttled.free, monotonic()) + nbytes / self.bandwidth
        self._due = Throttled.free + self.latency
        requests = TreeSum._exchange(ranks, received, sent, tag)
        with ranks.calls:
            self._held = ranks.calls.mpi.Grequest.Start()
        return [*requests, self._held]

    def advance(self) -> bool:
        if self.out is not None and self._held is not None and monotonic() >= self._due:
            with self.ranks.calls:
                self._held.Complete()
            self._held = None
        return super().advance()

    _held: Any = None


def measured(sweep: Shards, ranks: Ranks | None, seconds: float) -> float:
    """Seconds of a step, the mean over an epoch of the medians of whole batches and of the last one."""
    order = np.random.default_rng(0).permutation(sweep.examples)
    times: dict[int, list[float]] = {}
    begun, over = perf_counter(), 0
    while not over:
        for position in range(0, sweep.examples, sweep.batch):
            stop = min(position + sweep.batch, sweep.examples)
            begin = perf_counter()
            sweep.run(position, stop, order)
            times.setdefault(stop - position, []).append(perf_counter() - begin)
        over = int(perf_counter() - begun > seconds)
        over = ranks.most(over) if ranks is not None else over
    full, *ragged = (median(t) for t in times.values())
    return (full * (sweep.steps - len(ragged)) + sum(ragged)) / sweep.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", choices=list(ROWS))
    parser.add_argument("--link", type=lambda text: Network().convert(text, None, None))
    parser.add_argument("--seconds", type=float, default=0.5, help="of steps, in each turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    timed.SECONDS = options.seconds
    ranks = Ranks.here()
    cores, n = len(os.sched_getaffinity(0)), ranks.size if ranks is not None else 1
    if options.link is not None:
        Throttled.bandwidth, Throttled.latency = options.link
        meeting.TreeSum = Throttled
        cluster = Cluster(n, *options.link, cores, per_host=n, per_link=1)
    else:
        cluster = Cluster(n, 1e12, 0.0, cores, per_host=n)
    for name in options.rows:
        file, make, batch = ROWS[name]
        net = nnc.compile(str(MODELS / file), seed=1, threads=1)
        arrays = make()
        stages, spec = stages_of(net, SHARDS), net.train_spec
        net.set_training(steps=10**6)
        bound, sizes = bind("fit", stages[0].wants, list(arrays))
        sweep = Shards(
            stages, bound, sizes, spec, batch, spec.metrics, Origin(), shards=SHARDS, ranks=ranks, plain=False
        )
        predicted, real = [], []
        for _ in range(options.turns):
            mine = None
            if ranks is None or ranks.rank < cores:  # all processors are busy, as they are when all take steps
                mine = cost(timed.timed(net, arrays, batch, SHARDS), cluster)
            if ranks is not None:
                over = ranks.comm.Ibarrier()
                while not over.Test():
                    sleep(0.02)  # and leave the processors alone
                mine = max(ranks.gather(mine)[:cores], key=lambda c: c.seconds)
            predicted.append(mine)
            real.append(measured(sweep, ranks, options.seconds))
        if ranks is None or ranks.rank == 0:
            found = sorted(predicted, key=lambda c: c.seconds)[len(predicted) // 2]
            parts = "  ".join(f"{part} {getattr(found, part) * 1e3:.2f}" for part in found.__slots__[1:])
            took = median(real)
            print(f"{name:7} {n} {found.seconds * 1e3:8.2f} {took * 1e3:8.2f} ms {found.seconds / took:6.2f}  {parts}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""What the parts of a step in shards take here, on one rank: what `distributed/cost` computes larger clusters from.

In: a network and arrays of whole batches. Out: `Step`. Real steps are taken, so the network is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from threading import Event
from time import perf_counter, sleep
from typing import Any

import numpy as np

from ...compiler.native.loading import INTERRUPTED
from ..call.arrays import bind
from ..call.column import Array
from ..distributed.cost import Stage, Step, Vector
from ..network import Network
from .meeting import WORTH
from .shards import Shards, stages_of
from .sweep import Origin

SECONDS = 1.0  # of steps of a length
ROUNDS = (5, 200)  # steps, at least and at most
_WARM = 2  # steps before
_WATCHED = 9  # times that what is short is done
_LARGE = 64 << 20  # bytes that no cache holds
_LOOK = 2e-5  # seconds between two looks at the mark


def timed(network: Network, arrays: Sequence[Any], batch: int | None, shards: int) -> Step:
    """Of steps over `arrays`, those of the train block in order; an epoch has as many examples as they. Raises
    `ArgumentError` and its kinds as `fit` would."""
    stages = stages_of(network, shards)
    bound, sizes = bind("plan", stages[0].wants, list(arrays))
    spec = network.train_spec
    network.set_training(steps=ROUNDS[1])
    return _Timed(
        stages, bound, sizes, spec, batch, spec.metrics, Origin(), shards=shards, ranks=None, plain=False
    ).found()


class _Timed(Shards):
    """Shards that look at the clock."""

    def found(self) -> Step:
        full, ragged = divmod(self.examples, self.batch)
        batches = {n: times for n, times in ((self.batch, full), (ragged, 1)) if n}
        self._order = np.random.default_rng(0).permutation(self.examples)
        self._each: dict[tuple[int, int], list[float]] = defaultdict(list)  # a shard, by stage and examples
        self._adding: dict[int, list[float]] = defaultdict(list)  # a shard to its sums, by stage
        self._update: list[float] = []
        self._rest: list[float] = []
        for whole in batches:
            self._warm = False
            self._steps(whole)
        vectors = [stage.meeting.vectors for stage in self._stages[:-1]]
        copy, add = _memory()
        stages = []
        for k in range(len(vectors)):
            each = {n: median(seconds) for (of, n), seconds in self._each.items() if of == k}
            ready = self._ready(k) if max(each.values()) >= WORTH else {}
            found = tuple(Vector(nbytes, ready.get(mark, 1.0)) for mark, nbytes in vectors[k])
            stages.append(Stage(each, median(self._adding[k]), found))
        update, rest = median(self._update), median(self._rest)
        return Step(batches, self.shards, self.length, tuple(stages), update, rest, add, copy)

    def _steps(self, whole: int) -> None:
        """Steps over batches of so many examples."""
        end = perf_counter() + SECONDS
        for done in range(-_WARM, ROUNDS[1]):
            if done >= ROUNDS[0] and perf_counter() > end:
                break
            self._warm, self._known = done >= 0, 0.0
            begin = perf_counter()
            first = self.examples - whole if whole < self.batch else max(0, done) % (self.examples // whole) * whole
            if self._step(first, whole, self._order) == INTERRUPTED:
                raise KeyboardInterrupt
            self._add(whole)
            if self._warm:
                self._rest.append(perf_counter() - begin - self._known)

    def _shards(self, stage: Any, position: int, whole: int, order: Array | None) -> int:
        begin, known = perf_counter(), self._known
        status = super()._shards(stage, position, whole, order)
        adding = perf_counter() - begin - (self._known - known)
        self._known += adding
        if self._warm:
            self._adding[self._stages.index(stage)].append(adding / self.shards)
        return status

    def _shard(self, stage: Any, shard: int, rows: range, position: int, whole: int, order: Array | None) -> int:
        begin = perf_counter()
        status = super()._shard(stage, shard, rows, position, whole, order)
        self._note(self._each[self._stages.index(stage), len(rows)], begin)
        return status

    def _call(self, stage: Any, examples: int, first: int, whole: int) -> int:
        begin = perf_counter()
        status = super()._call(stage, examples, first, whole)
        if stage is self._stages[-1]:
            self._note(self._update, begin)
        return status

    def _note(self, spent: list[float], begin: float) -> None:
        seconds = perf_counter() - begin
        self._known += seconds
        if self._warm:
            spent.append(seconds)

    def _ready(self, k: int) -> dict[int, float]:
        """Which share of a shard is over at each mark of a stage, seen from a thread beside it."""
        stage, rows = self._stages[k], self._rows_of(0, self.batch)
        seen: dict[int, list[float]] = defaultdict(list)
        with ThreadPoolExecutor(1) as beside:
            for _ in range(_WATCHED):
                stage.call.mark[0], over = 0, Event()
                marks = beside.submit(_watch, stage.call.mark, over)
                begin = perf_counter()
                try:
                    self._shard(stage, 0, rows, 0, self.batch, self._order)
                finally:
                    over.set()
                took = perf_counter() - begin
                for mark, at in marks.result().items():
                    seen[mark].append(min(1.0, (at - begin) / took))
        return {mark: median(shares) for mark, shares in seen.items()}


def _watch(mark: Array, over: Event) -> dict[int, float]:
    """When each mark was reached, until it is over."""
    found: dict[int, float] = {}
    last = False
    while not last:
        last = over.is_set()
        for k in range(len(found) + 1, int(mark[0]) + 1):
            found[k] = perf_counter()
        sleep(_LOOK)
    return found


def _memory() -> tuple[float, float]:
    """Seconds that a byte takes to be copied, and to be added, where no cache has it."""
    a, b = (np.ones(_LARGE // 4, np.float32) for _ in range(2))
    return _usual(lambda: np.copyto(a, b)) / _LARGE, _usual(lambda: np.add(a, b, out=a)) / _LARGE


def _usual(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(_WATCHED):
        begin = perf_counter()
        work()
        times.append(perf_counter() - begin)
    return median(times)

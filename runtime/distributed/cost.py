"""What a step of training costs on many machines, computed from what its parts cost on one.

In: `Step`, seconds measured of a step in shards (`train/timed`), and a `Cluster`. Out: `Cost`, seconds of a step by
where they go, the mean over an epoch with its last batch. Nothing is run, and MPI is not used. The model follows
`train/shards` and `sums.TreeSum`:

    step     = shards + exchange + update + rest
    shards   = when the last rank has computed and added its own
    exchange = what is left of it then: latency + bytes / bandwidth of the busiest link, messages, sums of pieces
    update   = the last stage, which every rank computes
    rest     = the Python of a step

Where ranks of a host are more than its processors, each stays with one, as a rank that waits asks for it all the time
and the system sees nothing to move; and those that wait take time from those that compute. The network is one switch
that is never the narrow place. Ranks are alike, and nothing else holds them up: of many some always are, so that a real
step is slower. Loading data is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from .rollcall import pause
from .sums import LINE, is_direct
from .tree import cut, owned, roots

MESSAGE = 6e-6  # seconds of a processor to send or to receive a message, with the Python around it (MPICH 5)
VAIN = 150e-6  # seconds of a processor to look in vain for each round of messages, where ranks share it
EAGER = 16 << 10  # bytes from which on sender and receiver come to an agreement first: that is twice as much to do
PAYS = 1.3  # a doubling of the ranks pays where a step is quicker by that


@dataclass(frozen=True, slots=True)
class Vector:
    """Sums that are exchanged at once, and which share of a rank's last shard is over when they are complete."""

    nbytes: int
    ready: float = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What is done for each shard: `seconds` that one takes by how many examples it has, and to add it to the sums."""

    seconds: Mapping[int, float]
    adding: float
    vectors: tuple[Vector, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """The parts of a step, measured on one rank. `batches` is how many of an epoch have so many examples; a shard of
    each has `length`, the last ones fewer. `copy` and `add` are seconds a byte takes, in memory."""

    batches: Mapping[int, int]
    shards: int
    length: int
    stages: tuple[Stage, ...]
    update: float
    rest: float
    add: float
    copy: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Hosts of `cores` processors with `per_host` ranks of `threads` each. Neighbours, `per_link` of them, by default
    those of a host, share a link to all others, of `bandwidth` bytes a second each way; among themselves they have
    memory. `latency` is that of a message, in seconds."""

    ranks: int
    bandwidth: float
    latency: float
    cores: int
    per_host: int = 1
    per_link: int | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a step of so many ranks."""

    ranks: int
    shards: float
    exchange: float
    update: float
    rest: float

    @property
    def seconds(self) -> float:
        return self.shards + self.exchange + self.update + self.rest


def costs(step: Step, cluster: Cluster) -> list[Cost]:
    """For the powers of two below `cluster.ranks`, and that. Raises ArgumentError (E0603) where there are more ranks
    than shards."""
    powers = [1 << k for k in range(cluster.ranks.bit_length()) if 1 << k < cluster.ranks]
    return [cost(step, replace(cluster, ranks=n)) for n in (*powers, cluster.ranks)]


def cost(step: Step, cluster: Cluster) -> Cost:
    """The mean over the batches of an epoch."""
    n = cluster.ranks
    own = [owned(rank, n, step.shards) for rank in range(n)]
    number = sum(step.batches.values())
    shards = exchange = 0.0
    for whole, times in step.batches.items():
        for stage in step.stages:
            each = [stage.seconds.get(examples, 0.0) for examples in _lengths(step, whole)]
            busy = [sum(each[s] for s in mine) + len(mine) * stage.adding for mine in own]
            over = _over(cluster, busy)
            shards += times / number * over
            if n > 1:
                waited = over - min(busy)
                last = max(each[mine[-1]] for mine in own)
                exchange += times / number * _exchange(step, cluster, own, stage.vectors, last, waited)
    return Cost(n, shards, exchange, _over(cluster, [step.update] * n), _over(cluster, [step.rest] * n))


def pays_until(found: Sequence[Cost]) -> int | None:
    """The number of ranks from which on a doubling no longer pays; None where all that are known do."""
    times = {c.ranks: c.seconds for c in found}
    return next((n for n in sorted(times) if 2 * n in times and times[n] < PAYS * times[2 * n]), None)


def _lengths(step: Step, whole: int) -> list[int]:
    """How many examples each shard of a batch has."""
    return [max(0, min(step.length, whole - s * step.length)) for s in range(step.shards)]


def _over(cluster: Cluster, busy: Sequence[float]) -> float:
    """When the last rank is done that is busy for so many seconds with all of its threads."""
    slower = max(1.0, cluster.threads / cluster.cores)
    longest = 0.0
    for host in _groups(busy, cluster.per_host):
        free = [0.0] * max(1, cluster.cores // cluster.threads)  # when the processors for a rank are
        for seconds in host:
            free[free.index(min(free))] += seconds
        longest = max(longest, *free)
    return slower * longest


def _groups(values: Sequence[float], size: int) -> Iterable[Sequence[float]]:
    return (values[k : k + size] for k in range(0, len(values), size))


def _exchange(
    step: Step, cluster: Cluster, own: Sequence[range], vectors: Sequence[Vector], last: float, waited: float
) -> float:
    """Seconds from the end of the shards until all sums are known. The vectors travel one after another, each as soon
    as it is complete and the one before has come; `last` is what the last shard took, and who was done first has
    `waited`."""
    come, phases = -inf, 1  # when the last one has come, counted from the end of the shards
    for vector in vectors:
        direct = is_direct(vector.nbytes, cluster.ranks)
        phases = max(phases, 1 if direct else 2)
        come = max(come, (vector.ready - 1) * last) + _travel(step, cluster, own, vector.nbytes, direct)
    seconds = max(0.0, come) + phases * cluster.latency
    return seconds + phases * pause(waited + seconds) * (cluster.ranks - 1) / cluster.ranks


def _travel(step: Step, cluster: Cluster, own: Sequence[range], nbytes: int, direct: bool) -> float:
    """Seconds that the links and the processors are busy with one vector, all messages begun at once."""
    n, width = len(own), cluster.per_link or cluster.per_host
    kept = [len(roots(mine)) for mine in own]  # vectors that a rank has for the others
    pieces = [nbytes] * n if direct else [p.stop - p.start for p in cut(nbytes, n, LINE)]
    all, back = sum(kept), 0 if direct else 1  # whether the sums of pieces are sent back
    link, busy = 0.0, []
    crowded = min(n, cluster.per_host) * cluster.threads > cluster.cores
    for first in range(0, n, width):
        group = range(first, min(first + width, n))
        far, mine = n - len(group), sum(kept[r] for r in group)
        piece = sum(pieces[r] for r in group)
        sent = mine * (far * nbytes if direct else nbytes - piece), back * piece * far
        received = (all - mine) * piece, back * len(group) * (nbytes - piece)
        link = max(link, sum(map(max, sent, received)) / cluster.bandwidth)
        for r in group:
            messages = kept[r] * (n - 1) + all - kept[r] + back * 2 * (n - 1)
            near = (mine - kept[r]) * pieces[r] + back * (piece - pieces[r])
            busy.append(
                messages * MESSAGE * (2 if pieces[r] > EAGER else 1)
                + 2 * near * step.copy  # into memory that both see, and out of it
                + (all - 1) * pieces[r] * step.add
            )
    looking = _over(cluster, [VAIN * (1 + back)] * n) if crowded else 0.0
    return max(link, looking) + _over(cluster, busy)

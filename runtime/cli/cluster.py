"""What a step of training would cost on several machines: `nnc plan FILE --ranks 64 --network 100Gb`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ...compiler.manifest import FIRST, WHOLE
from ...dsl.errors import DataError
from ..call.messages import argument_error, human, unknown
from .options import Program
from .show import duration, note, print_table, say, show_result, working

if TYPE_CHECKING:
    from ..call.calls import Call
    from ..distributed.cost import Cluster, Step
    from ..model import Model

_BANDWIDTH = re.compile(r"([\d.]+) ?([kMGT]?)(b(?:it)?|B)(?:ps|/s)?")
_LATENCY = re.compile(r"([\d.]+) ?(ns|us|µs|ms|s)")
_SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_MADE_UP = 64  # examples of a batch where nothing says how many
LATENCY = 1e-5  # seconds, where none is given: InfiniBand has 2e-6, Ethernet with TCP 3e-5


class Network(click.ParamType[tuple[float, float]]):
    """`100Gb` or `100Gb,2us`: bytes a second, and seconds."""

    name = "BANDWIDTH[,LATENCY]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        bandwidth, comma, latency = (part.strip() for part in str(value).partition(","))
        bytes_a_second = _parsed(_BANDWIDTH, bandwidth, _SCALE)
        if bytes_a_second is None:
            self.fail(f"{bandwidth!r} is no bandwidth such as 100Gb (bits a second) or 12.5GB (bytes)", param, ctx)
        if bandwidth.partition("b")[1]:
            bytes_a_second /= 8
        seconds = _parsed(_LATENCY, latency, _SECONDS) if comma else LATENCY
        if seconds is None:
            self.fail(f"{latency!r} is no latency such as 2us or 0.1ms", param, ctx)
        return bytes_a_second, seconds


def _parsed(form: re.Pattern[str], text: str, units: dict[str, float]) -> float | None:
    """A positive number with its unit."""
    found = form.fullmatch(text)
    if found is None:
        return None
    try:
        value = float(found[1]) * units[found[2]]
    except ValueError:
        return None
    return value if 0 < value < 1e30 else None


def plan_cluster(
    program: Program,
    ranks: int,
    network: tuple[float, float],
    batch: int | None,
    shards: int | None,
    threads: int | None,
    cores: int | None,
    per_host: int,
    at: Mapping[str, int],
) -> None:
    """Measure the parts of a step here, and show what it would take on so many ranks, and on fewer. Raises
    ArgumentError (E0603) where this machine has too few processors to measure, or a batch too few shards."""
    here = len(os.sched_getaffinity(0))
    cores = cores or here
    if threads is not None and threads > here:
        what = f"--threads {threads}: parts of a step are measured here, where there are {here} processors"
        raise argument_error("E0603", what)
    threads = threads or max(1, min(here, cores // per_host))
    net = program.open(None, threads, ("train",), shards=shards or _shards(ranks))
    from ..distributed.cost import Cluster
    from ..distributed.tree import owned
    from ..train.shards import stages_of
    from ..train.timed import timed

    spec = net.train_spec
    shards = shards or spec.shards or _shards(ranks)
    owned(0, ranks, shards)
    first, *_ = stages_of(net, shards)
    arrays, are_real = _examples(net, first, batch or spec.batch, program, at)
    with working("measuring"):
        step = timed(net, arrays, batch or spec.batch, shards)
    cluster = Cluster(ranks, *network, cores, per_host, threads=threads)
    facts = predicted(step, cluster, are_real)
    show_result(facts, lambda: draw(net.name, facts))


def _shards(ranks: int) -> int:
    """Of a batch, where nobody says how many: as in training, or one for each rank."""
    from ..train.sweep import usual_shards

    return max(usual_shards(ranks, plain=False), usual_shards(ranks, plain=True))


def _examples(
    net: Model, call: Call, batch: int | None, program: Program, at: Mapping[str, int]
) -> tuple[Sequence[Any], bool]:
    """The data of the file, or a batch of made-up ones; and whether they are real."""
    from ..check.gradcheck import sample_inputs

    spec, signature = net.train_spec, call.signature
    given = spec.data is not None or program.data is not None
    if given and not at:
        try:
            with working("reading data"):
                return net.load_dataset().for_training(spec.inputs, call.wants), True
        except DataError as e:
            if program.data is not None:
                raise
            note(f"made-up examples, as {e.diagnostics[0].message}")
    free = [size for size in signature.sizes if size not in (spec.batch_size, FIRST, WHOLE)]
    for size in at:
        if size not in free:
            raise unknown("size of the examples", size, free)
    for size in free:
        if size not in at:
            what = f"without data the size {size} of the examples is not known: say --at {size}=64, for example"
            raise argument_error("E0604", what)
    return sample_inputs(signature.inputs, batch or _MADE_UP, sizes=at), False


def predicted(step: Step, cluster: Cluster, are_real: bool) -> dict[str, Any]:
    """The result of the command. `are_real`: an epoch is as long as measured."""
    from ..distributed.cost import costs, pays_until

    found = costs(step, cluster)
    alone = found[0].seconds
    rows = [
        {
            **asdict(c),
            "seconds": c.seconds,
            "speed_up": alone / c.seconds,
            "efficiency": alone / c.seconds / c.ranks,
            "epoch": c.seconds * sum(step.batches.values()) if are_real else None,
        }
        for c in found
    ]
    return {
        "batch": max(step.batches),
        "shards": step.shards,
        "sums_bytes": sum(v.nbytes for stage in step.stages for v in stage.vectors),
        **{name: value for name, value in asdict(cluster).items() if name not in ("ranks", "per_link")},
        "rows": rows,
        "pays_until": pays_until(found),
    }


def draw(name: str, facts: Mapping[str, Any]) -> None:
    from ..distributed.cost import PAYS

    rows = facts["rows"]
    parts = ("shards", "exchange", "update", "rest")
    epochs = rows[0]["epoch"] is not None
    print_table(
        ("ranks", "step", *(("epoch",) if epochs else ()), "speed-up", "efficiency", *parts),
        [
            (
                str(r["ranks"]),
                duration(r["seconds"]),
                *((duration(r["epoch"]),) if epochs else ()),
                f"{r['speed_up']:.2f}",
                f"{r['efficiency']:.0%}",
                *(duration(r[part]) if r[part] else "" for part in parts),
            )
            for r in rows
        ],
        left=0,
    )
    ranks = f"{facts['per_host']} rank{'s' if facts['per_host'] > 1 else ''}"
    threads = f"{facts['threads']} thread{'s' if facts['threads'] > 1 else ''}"
    say(f"{name}: batches of {facts['batch']} in {facts['shards']} shards, {human(facts['sums_bytes'])} of sums")
    say(
        f"hosts like this one, with {facts['cores']} processors for {ranks} of {threads}; "
        f"links of {facts['bandwidth'] * 8 / 1e9:g} Gb/s and {duration(facts['latency'])}"
    )
    until = facts["pays_until"]
    if until is None:
        say(f"each doubling makes a step at least {PAYS} times as quick, up to {rows[-1]['ranks']} ranks")
    else:
        say(f"stops paying at {until}: twice the ranks make a step less than {PAYS} times as quick")

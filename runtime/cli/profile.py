"""The command that says where the time of an entry goes: profile."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..call.messages import human, unknown
from ..store.files import write
from .options import Program, Setting, program_options
from .show import duration, print_table, say, show_result, working
from .trained import trained

if TYPE_CHECKING:
    from ..network import Network
    from ..profile import Profile

_TEXT = 30  # characters of source shown


@click.command()
@program_options
@click.option("--entry", metavar="NAME", help="The entry point; `train` where there is one.")
@click.option("--weights", metavar="PATH", help="A checkpoint to take the parameters from.")
@click.option("--batch", type=click.IntRange(min=1), help="Examples in a call (default: the train block's, or 1).")
@click.option("--at", type=Setting(integer=True), multiple=True, help="Another size of an input: --at T=128.")
@click.option("--rows", default=20, type=click.IntRange(min=1), help="Kernels to show, those that take longest first.")
@click.option("--threads", type=click.IntRange(1, 1024))
@click.option("--trace", metavar="PATH", help="Write one run as a trace that Perfetto and Chrome show.")
def profile(
    program: Program,
    entry: str | None,
    weights: str | None,
    batch: int | None,
    at: tuple[tuple[str, int], ...],
    rows: int,
    threads: int | None,
    trace: str | None,
) -> None:
    """Time each kernel of an entry, beside the best there could be.

    FILE is a .nn file or a run's folder; the best is what this machine could do. With --json all kernels are listed in
    the order of the run."""
    from ..check.gradcheck import sample_inputs
    from ..profile import profile as timed

    net = trained(program, weights, threads, warn=False)
    name = entry or next((e for e in ("train", "predict") if e in net.manifest.entries), net.manifest.entries[0])
    if name not in net.manifest.entries:
        raise unknown("entry point", name, list(net.manifest.entries))
    signature = net.entry(name).signature
    given = dict(at)
    for size in given:
        if size not in signature.sizes:
            raise unknown(f"size of {name}", size, list(signature.sizes))
    spec = net.manifest.train
    batch = batch or (spec.batch if spec and spec.batch else 1)
    if name == "train":
        net.set_training(steps=1)
    with working("measuring"):
        found = timed(net, name, sample_inputs(signature.inputs, batch, sizes=given))
    if trace is not None:
        write(Path(trace), json.dumps(_events(found)).encode())
    show_result(asdict(found), lambda: _show(net, found, rows))
    if trace is not None:
        say(f"a run in {trace}, for ui.perfetto.dev or chrome://tracing")


def _show(net: Network, found: Profile, rows: int) -> None:
    total = sum(k.seconds for k in found.kernels)
    slowest = sorted(found.kernels, key=lambda k: -k.seconds)[:rows]
    print_table(
        ("kernel", "from", "source", "time", "share", "GFLOP/s", "bytes", "of the best", "threads"),
        [
            (
                k.name,
                k.place,
                k.text if len(k.text) <= _TEXT else f"{k.text[: _TEXT - 2]}..",
                duration(k.seconds),
                f"{k.seconds / total:.0%}" if total else "",
                f"{k.operations / k.seconds / 1e9:.1f}" if k.operations else "",
                human(k.nbytes),
                f"{min(1.0, k.bound / k.seconds):.0%}",
                str(found.threads if k.parallel else 1),
            )
            for k in slowest
        ],
        left=3,
    )
    if len(slowest) < len(found.kernels):
        rest = total - sum(k.seconds for k in slowest)
        say(f"{len(found.kernels) - len(slowest)} more kernels: {duration(rest)} ({rest / total:.0%})")
    at = "".join(f", {k} = {v}" for k, v in found.sizes.items())
    bound = sum(k.bound for k in found.kernels)
    say(
        f"{found.entry} of {net.name}{at}: {duration(found.seconds)} a call, {len(found.kernels)} kernels of "
        f"{duration(total)} one by one; at best {duration(bound)} at {found.machine['flops'] / 1e9:.0f} GFLOP/s, "
        f"{found.threads} thread{'s' if found.threads != 1 else ''}"
    )


def _events(found: Profile) -> dict[str, Any]:
    """Trace events: one kernel after the other, with their medians. See "Trace Event Format" (Chromium, 2016)."""
    events, at = [], 0.0
    for k in found.kernels:
        facts = {"from": k.place, "source": k.text, "operations": k.operations, "bytes": k.nbytes}
        when = {"ph": "X", "ts": at * 1e6, "dur": k.seconds * 1e6, "pid": 1, "tid": 1}
        events.append({"name": k.name, **when, "args": facts})
        at += k.seconds
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"entry": found.entry}}

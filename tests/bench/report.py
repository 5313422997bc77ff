"""What was measured, as tables: each kind of row, and this run against an earlier one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from nnc.compiler.native.machine import roofline

Record = Mapping[str, Any]
TITLES = {
    "training": "Training, a step",
    "inference": "Inference, a call",
    "sweep": "Products and convolutions, a call",
}


def time_text(seconds: float) -> str:
    for scale, unit in ((1, "s"), (1e3, "ms")):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def line(record: Record) -> str:
    """All contenders of a row in one line, and below it who is left out, and why."""
    figures = record["contenders"]
    timed = ", ".join(f"{who} {time_text(f['seconds'])}" for who, f in figures.items() if "seconds" in f)
    head = f"{record['row']}, {threads_text(record['threads'])}: {timed or 'not timed'}"
    return "\n".join([head, *(f"    {who}: {why}" for who, why in record["out"].items())])


def threads_text(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def machine_text(threads: int, machine: Record) -> str:
    bandwidth = {int(size): rate for size, rate in machine["bandwidth"].items()}
    nearest, farthest = bandwidth[min(bandwidth)], bandwidth[max(bandwidth)]
    return (
        f"{threads_text(threads)}: {machine['flops'] / 1e9:.0f} GFLOP/s of multiply-adds; "
        f"reads {nearest / 1e9:.0f} GB/s from the nearest cache, {farthest / 1e9:.1f} GB/s from memory"
    )


def best_peer(record: Record) -> tuple[str, float] | None:
    timed = [(f["seconds"], who) for who, f in record["contenders"].items() if who != "nnc" and "seconds" in f]
    return (min(timed)[1], min(timed)[0]) if timed else None


def _cells(record: Record, machines: Mapping[str, Record]) -> Iterator[str]:
    yield record["row"]
    yield str(record["threads"])
    ours, peer = record["contenders"].get("nnc", {}), best_peer(record)
    if "seconds" not in ours:
        yield from (record["out"].get("nnc", "not timed"), "", "", "", "", "", "", "")
        return
    yield time_text(ours["seconds"])
    yield time_text(peer[1]) if peer else ""
    yield peer[0] if peer else ""
    yield f"{peer[1] / ours['seconds']:.2f}" if peer else ""
    least = roofline(record["flops"], record["bytes"], machines[str(record["threads"])])
    yield f"{100 * least / ours['seconds']:.0f} %"
    torch = record["contenders"].get("torch", {}).get("memory")
    yield f"{ours['memory']['peak'] / torch['peak']:.2f}" if torch else ""
    yield time_text(ours["cold"])
    yield time_text(ours["ready"])


def show(records: Sequence[Record], machines: Mapping[str, Record], console: Console) -> None:
    """A table for each kind of row."""
    for kind, title in TITLES.items():
        rows = [r for r in records if r["kind"] == kind]
        if not rows:
            continue
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1))
        headers = ("row", "threads", "nnc", "best peer", "which", "peer / nnc", "roofline", "memory / torch", "cold")
        for k, header in enumerate((*headers, "cached")):
            table.add_column(header, justify="left" if k in (0, 4) else "right", no_wrap=k in (0, 4))
        for record in rows:
            table.add_row(*_cells(record, machines))
        console.print(table)


def against(new: Sequence[Record], old: Sequence[Record]) -> list[tuple[str, int, float, float | None]]:
    """(row, threads, our time by what it was, the same by that of the peers measured both times), for each row that
    both runs have."""
    before = {(r["row"], r["threads"]): r["contenders"] for r in old}
    found = []
    for record in new:
        now, then = record["contenders"], before.get((record["row"], record["threads"]), {})
        both = [who for who in now if "seconds" in now[who] and "seconds" in then.get(who, {})]
        if "nnc" not in both:
            continue
        ratio = {who: now[who]["seconds"] / then[who]["seconds"] for who in both}
        ours = ratio.pop("nnc")
        machine = math.exp(sum(map(math.log, ratio.values())) / len(ratio)) if ratio else None
        found.append((record["row"], record["threads"], ours, ours / machine if machine else None))
    return found


def show_against(new: Sequence[Record], old: Sequence[Record], console: Console) -> None:
    table = Table(title="nnc, new / old", box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1))
    for header in ("row", "threads", "time", "by the peers' time"):
        table.add_column(header, justify="left" if header == "row" else "right")
    for row, threads, ours, normalised in against(new, old):
        table.add_row(row, str(threads), f"{ours:.2f}", "" if normalised is None else f"{normalised:.2f}")
    console.print(table)

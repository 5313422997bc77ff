"""The command that says what lies where in memory: plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...dsl.errors import ResourceError, error
from ..call.messages import human
from .cluster import Network, plan_cluster
from .compile import entry_of, most_at_once, size_json
from .options import Program, Setting, program_options
from .show import is_on, print_table, say, show_result

if TYPE_CHECKING:
    from ...compiler.lowering.memory import Plan
    from ...compiler.pipeline import Stages
    from ...compiler.types.sizes import Dim


class ByteSize(click.ParamType[int]):
    """`64K`, `1.5M`, `2G` or a number of bytes."""

    name = "BYTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().upper().removesuffix("B").removesuffix("I")
        scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1:], 1)
        try:
            size = float(text.rstrip("KMGT")) * scale
            if size >= 0 and size < 1e30:
                return int(size)
        except ValueError:
            pass
        return self.fail(f"{value!r} is not a number of bytes such as 64K or 1.5M", param, ctx)


@click.command()
@program_options
@click.option("--entry", metavar="NAME", help="The entry point; `train` where there is one.")
@click.option("--batch", type=click.IntRange(min=1), help="The batch to count with (default: the train block's, or 1).")
@click.option("--max-memory", type=ByteSize(), help="Fail if the arena is larger: 64K, 1.5M.")
@click.option("--ranks", type=click.IntRange(1, 1 << 16), help="Instead, what a step would take on so many processes.")
@click.option("--network", type=Network(), help="Their links: 100Gb (bits) or 12.5GB (bytes), or 100Gb,2us.")
@click.option("--shards", type=click.IntRange(min=1), help="With --ranks: parts of a batch (default: 16, or --ranks).")
@click.option("--threads", type=click.IntRange(1, 1024), help="With --ranks: of each (default: its share of a host's).")
@click.option(
    "--cores", type=click.IntRange(min=1), help="With --ranks: processors of a host (default: as many as here)."
)
@click.option("--per-host", type=click.IntRange(min=1), help="With --ranks: how many of them on a host (default: 1).")
@click.option("--at", type=Setting(integer=True), multiple=True, help="With --ranks, without data: a size: --at T=64.")
def plan(
    program: Program,
    entry: str | None,
    batch: int | None,
    max_memory: int | None,
    ranks: int | None,
    network: tuple[float, float] | None,
    shards: int | None,
    threads: int | None,
    cores: int | None,
    per_host: int | None,
    at: tuple[tuple[str, int], ...],
) -> None:
    """Show the memory plan of an entry, or what a cluster takes.

    What lies where in the arena, and how long. With --ranks and --network what a step of training would take on so many
    machines like this one, computed from what its parts take here, and from how many on more of them stop paying."""
    if ranks is not None:
        if network is None or entry is not None or max_memory is not None:
            raise click.UsageError(
                "--ranks is about a step of training: with --network, without --entry and --max-memory"
            )
        plan_cluster(program, ranks, network, batch, shards, threads, cores, per_host or 1, dict(at))
        return
    if any(v is not None for v in (network, shards, threads, cores, per_host, at or None)):
        raise click.UsageError("--network, --shards, --threads, --cores, --per-host and --at are for --ranks")
    session, _ = program.session()
    name = entry_of(session, entry)
    made = session.stages(name)
    spec = session.manifest.train
    batch = batch or (spec.batch if spec and spec.batch else 1)
    sizes = made.signature.at_once(dict.fromkeys(made.signature.sizes, batch))
    planned = made.lowered.plan
    needed = _number(planned.arena, sizes)
    fits = max_memory is None or needed <= max_memory
    if fits or not is_on("json"):  # or the error is the result
        show_result(
            _plan_json(name, made, planned, sizes, needed), lambda: _show_plan(name, made, planned, sizes, needed)
        )
    if max_memory is not None and not fits:
        bound, _ = planned.lower_bound(sizes)
        line = max(planned.lines, key=lambda b: (_number(b.size, sizes), -b.born))  # an arena has a buffer
        help = None if bound <= max_memory else f"no plan needs less than {human(bound)}: a smaller --batch would"
        raise error(
            "E0605",
            f"the arena of {name} needs {human(needed)} {_at(sizes)}, but {human(max_memory)} are "
            f"allowed; {_values(made, line)} takes {human(_number(line.size, sizes))} of it",
            made.fused[line.values[0][0]].span,
            help=help,
            kind=ResourceError,
        )


def _plan_json(name: str, made: Stages, planned: Plan, sizes: dict[str, int], needed: int) -> dict[str, Any]:
    bound, _ = planned.lower_bound(sizes)
    lines = [
        {
            "values": [v for v, _ in line.values],
            "offset": size_json(line.offset),
            "bytes": _number(line.size, sizes),
            "born": line.born,
            "dies": line.dies,
        }
        for line in planned.lines
    ]
    return {"entry": name, "sizes": sizes, "arena_bytes": needed, "lower_bound_bytes": bound, "lines": lines}


def _number(size: Dim, sizes: dict[str, int]) -> int:
    from ...compiler.types.sizes import substitute

    value = substitute(size, sizes)
    assert isinstance(value, int)
    return value


def _at(sizes: dict[str, int]) -> str:
    return "at " + ", ".join(f"{k} = {v}" for k, v in sizes.items()) if sizes else ""


def _show_plan(name: str, made: Stages, planned: Plan, sizes: dict[str, int], needed: int) -> None:
    rows = []
    for line in planned.lines:
        span = made.fused[line.values[0][0]].span
        at = f"{span.source.name}:{span.position[0]}" if span else ""
        rows.append(
            (
                _values(made, line),
                at,
                str(line.offset),
                str(line.size),
                f"{_number(line.size, sizes):,}",
                f"{line.born}-{line.dies}",
            )
        )
    print_table(("value", "from", "offset", "bytes", _at(sizes) or "bytes", "kernels"), rows, left=2)
    bound, kernel = planned.lower_bound(sizes)
    say(f"{name}: {len(planned.order)} kernels, arena {planned.arena} bytes, {needed:,} {_at(sizes)}".rstrip())
    for size, most in most_at_once(made.signature):
        say(f"where {size} is larger than {most}, so many examples at a time, in an arena for each thread")
    where = f" (while {planned.order[kernel]} runs)" if planned.order else ""
    say(f"lower bound {bound:,} bytes{where}")
    variables = sum(_number(s.type.nbytes, sizes) for s in made.lowered.entry.slots if s.role == "param")
    if variables:
        say(f"variables {variables:,} bytes, outside the arena")


def _values(made: Stages, line: Any) -> str:
    """The values that share a buffer, by name and type."""
    names = [v for v, _ in line.values]
    if line.values[0][1] < 0:
        return f"{names[0]}, for itself"
    first = made.fused[names[0]]
    return f"{names[0]}: {first.type}" + (f", then {', '.join(names[1:])}" if len(names) > 1 else "")

"""Commands about what the compiler makes of a file: compile, summary, plan, gradcheck."""

from __future__ import annotations

import sys
from functools import partial
from math import prod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ...dsl.errors import ArgumentError, ResourceError, SourceError, error
from ..call.messages import human, unknown
from ..store.files import write
from ..summary import COLUMNS, Summary, with_units
from .options import Program, program_options
from .show import duration, is_on, print_table, say, show_result, working

if TYPE_CHECKING:
    from ...compiler.elaborate.outline import Row
    from ...compiler.graph.nodes import Graph
    from ...compiler.lowering.memory import Plan
    from ...compiler.manifest import Signature, Variable
    from ...compiler.pipeline import Stages
    from ...compiler.session import Native, Session
    from ...compiler.types.sizes import Dim

INSIDE = ("loss", "gradients", "taps")  # compiled when Python first asks for them
STAGES = ("ast", "graph", "backward", "optimized", "fused", "loops", "llvm", "asm", "obj", "dot")


@click.command(name="compile")
@program_options
@click.option("--emit", type=click.Choice(STAGES), help="Print a stage instead of compiling.")
@click.option("--entry", metavar="NAME", help="The entry point to emit; `train` where there is one.")
@click.option("-o", "--output", metavar="PATH", help="Write the stage to a file.")
@click.option("--print-after", metavar="PASS", help="Print the graph after each run of a pass (`all` for every one).")
@click.option("--no-optimize", is_flag=True, help="Without the optimising passes.")
@click.option("--all", "everything", is_flag=True, help="Also the entries for looking inside: loss, gradients, taps.")
def compile(
    program: Program,
    emit: str | None,
    entry: str | None,
    output: str | None,
    print_after: str | None,
    no_optimize: bool,
    everything: bool,
) -> None:
    """Compile FILE and say what was built, or print a stage."""
    from dataclasses import replace

    if output is not None and emit is None and print_after is None:
        raise click.UsageError(f"-o writes a stage: say which, --emit {'obj' if output.endswith('.o') else 'STAGE'}")
    if no_optimize:
        program = replace(program, optimize=False)
    if emit == "ast":
        _write(_syntax_tree(program), output, emit)
        return
    start = perf_counter()
    session, _ = program.session()
    if emit is None and print_after is None:
        _show_built(session, program, start, everything)
        return
    name = entry_of(session, entry)
    _write(_emit(session, name, emit, print_after), output, emit or print_after or "")


def _syntax_tree(program: Program) -> str:
    from ...dsl.parser import parse
    from .tree import print_tree

    return print_tree(parse(program.read()))


def entry_of(session: Session, name: str | None) -> str:
    """The entry that is named, or `train`, `predict`, or the first there is. Raises `ArgumentError`."""
    known = session.manifest.entries
    if name is None:
        preferred = [e for e in known if e == "train"] or [e for e in known if e == "predict"] or [*known]
        if not preferred:
            raise error("E0608", "the file has nothing to compile: no model, export or fn", kind=ArgumentError)
        return preferred[0]
    if name not in known:
        raise unknown("entry point", name, list(known))
    return name


def _emit(session: Session, name: str, stage: str | None, print_after: str | None) -> str | bytes:
    from ...compiler.session import emit

    seen: set[str] = set()
    printed: list[str] = []

    def observe(step: str, graph: Graph) -> None:
        from ...compiler.graph.text import print_graph

        seen.add(step)
        if print_after in (step, "all"):
            printed.append(f"# after {step}\n{print_graph(graph)}\n")

    if print_after is None:
        assert stage is not None
        return emit(session, stage, name)
    session.stages(name, observe)
    if not printed:
        raise unknown("pass", print_after, sorted(seen))
    tail = emit(session, stage, name) if stage is not None else ""
    return "\n".join(printed) + tail if isinstance(tail, str) else tail


def _write(what: str | bytes, output: str | None, stage: str) -> None:
    """To a file, whole or not at all, or to stdout."""
    data = what if isinstance(what, bytes) else (what.rstrip("\n") + "\n").encode()
    if output is not None and output != "-":
        write(Path(output), data)
        show_result({"stage": stage, "written": output}, lambda: None)
        return
    if isinstance(what, bytes) and (sys.stdout.isatty() or is_on("json")):
        raise click.UsageError("an object file belongs neither on a terminal nor in JSON: give -o PATH")
    show_result({"stage": stage, "text": what}, partial(_put, data))


def _put(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _show_built(session: Session, program: Program, start: float, everything: bool) -> None:
    from .. import settings

    m = session.manifest
    names = [e for e in m.entries if everything or e not in INSIDE]
    with working(f"compiling {Path(program.file).name}"):
        session.prepare(names, settings.threads(None))
    made = {name: session.entry(name) for name in names}
    parameters = sum(prod(v.shape) for v in m.variables if v.role in ("weight", "bias"))
    seconds = perf_counter() - start

    def draw() -> None:
        rows = [
            (name, _ports(n.signature.inputs), _ports(n.signature.outputs), _arena(n.signature), human(n.code_size))
            for name, n in made.items()
        ]
        print_table(("entry", "inputs", "outputs", "arena", "code"), rows, left=3)
        total = human(sum(n.code_size for n in made.values()))
        say(
            f"{m.model or program.file}: {parameters:,} parameters, {len(names)} entry points, {total} of code for "
            f"{session.target.name} ({session.target.cpu}), {m.dtype}, {duration(seconds)}"
        )

    facts: dict[str, Any] = {
        "model": m.model,
        "parameters": parameters,
        "target": session.target.name,
        "cpu": session.target.cpu,
    }
    facts |= {"dtype": m.dtype, "seconds": seconds, "entries": [_entry_json(name, n) for name, n in made.items()]}
    show_result(facts, draw)


def _entry_json(name: str, native: Native) -> dict[str, Any]:
    s = native.signature
    ports = {
        what: {p.name: str(p.type) for p in found} for what, found in (("inputs", s.inputs), ("outputs", s.outputs))
    }
    return {"entry": name, **ports, "arena_bytes": _json(s.arena), "code_bytes": native.code_size}


def _json(n: Dim) -> int | str:
    """A number, or what it depends on."""
    return n if isinstance(n, int) else str(n)


def _ports(ports: Any) -> str:
    shown = [f"{p.name}: {p.type}" for p in ports]
    return ", ".join(shown) if len(shown) <= 3 else f"{', '.join(shown[:2])}, ... ({len(shown)})"


def _arena(signature: Signature) -> str:
    """`a + b*B` bytes, and the most that B is at a time."""
    return " ".join([with_units(signature.arena), *(f"({size} <= {most})" for size, most in _most(signature))])


def _most(signature: Signature) -> list[tuple[str, int]]:
    """The examples of a micro-batch, where an entry runs those."""
    return [signature.microbatch] if signature.microbatch is not None else []


# --- summary ----------------------------------------------------------------------------------------------------------


@click.command()
@program_options
@click.option("--depth", type=click.IntRange(min=0), help="Show no more levels than these; a layer counts all inside.")
def summary(program: Program, depth: int | None) -> None:
    """List the layers of a model: parameters, work, memory.

    Work is multiply-accumulates, memory that of the results, for one example. Nothing is compiled, and no parameters
    are made. A size that the model leaves free is given by --size. With --json there are also the shapes of all
    variables."""
    session, _ = program.session()
    m = session.manifest
    if m.model is None:
        raise error("E0203", f"{program.file} has no model", kind=SourceError)
    found = Summary.of(session.program, m)

    def draw() -> None:
        print_table(COLUMNS, found.cells(depth), left=2)
        say(f"{found.signature}\n{found.totals}")

    layers = [_row_json(r, m.variables) for r in found.rows]
    show_result({"model": m.model, "optimizer_state": found.slots, "layers": layers}, draw)


def _row_json(r: Row, variables: tuple[Variable, ...]) -> dict[str, Any]:
    own = {
        v.path.rpartition(".")[2]: f"{v.dtype}[{', '.join(map(str, v.shape))}]"
        for v in variables
        if v.path.rpartition(".")[0] == r.path and v.role in ("weight", "bias", "state")
    }
    return {
        "path": r.path,
        "layer": r.kind,
        "depth": r.depth,
        "results": [str(t) for t in r.results],
        "variables": own,
        "parameters": r.parameters,
        "state": r.state,
        "macs": _json(r.macs),
        "activation_bytes": _json(r.activations),
    }


# --- plan -------------------------------------------------------------------------------------------------------------


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
def plan(program: Program, entry: str | None, batch: int | None, max_memory: int | None) -> None:
    """Show the memory plan of an entry point.

    What lies where in the arena, and how long."""
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
            "offset": _json(line.offset),
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
    for size, most in _most(made.signature):
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


# --- gradcheck --------------------------------------------------------------------------------------------------------


@click.command()
@program_options
@click.option("--samples", default=12, type=click.IntRange(min=1), help="Elements tried in each tensor.")
@click.option("--seed", type=int, help="Of the parameters.")
def gradcheck(program: Program, samples: int, seed: int | None) -> None:
    """Compare gradients with finite differences, in float64."""
    net = program.open(seed, 1, ("gradients",))
    from ..check.gradcheck import TOLERANCE, grad_check, sample_inputs

    inputs = sample_inputs(net.entry("gradients").signature.inputs)
    with working("comparing gradients with finite differences"):
        errors = grad_check(net, *inputs, samples=samples)

    def draw() -> None:
        print_table(("gradient", "largest error"), [(k, f"{v:.2g}") for k, v in errors.items()])
        say(f"{net.name}: {len(errors)} gradients agree with finite differences within {TOLERANCE:g}")

    show_result({"tolerance": TOLERANCE, "errors": errors}, draw)

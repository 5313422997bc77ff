"""Commands about what the compiler makes of a file: compile, summary, gradcheck."""

from __future__ import annotations

import sys
from functools import partial
from math import prod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ...dsl.errors import ArgumentError, SourceError, error
from ..call.messages import human, unknown
from ..store.files import write
from ..summary import COLUMNS, Summary, with_units
from .options import Program, program_options
from .show import duration, is_on, print_table, say, show_result, working

if TYPE_CHECKING:
    from ...compiler.elaborate.outline import Row
    from ...compiler.graph.nodes import Graph
    from ...compiler.manifest import Signature, Variable
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
    return {"entry": name, **ports, "arena_bytes": size_json(s.arena), "code_bytes": native.code_size}


def size_json(n: Dim) -> int | str:
    """A number, or what it depends on."""
    return n if isinstance(n, int) else str(n)


def _ports(ports: Any) -> str:
    shown = [f"{p.name}: {p.type}" for p in ports]
    return ", ".join(shown) if len(shown) <= 3 else f"{', '.join(shown[:2])}, ... ({len(shown)})"


def _arena(signature: Signature) -> str:
    """`a + b*B` bytes, and the most that B is at a time."""
    return " ".join([with_units(signature.arena), *(f"({size} <= {most})" for size, most in most_at_once(signature))])


def most_at_once(signature: Signature) -> list[tuple[str, int]]:
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
        "macs": size_json(r.macs),
        "activation_bytes": size_json(r.activations),
    }


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

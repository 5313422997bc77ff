"""Commands about text: check, fmt, explain, doc."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import ArgumentError, NncError, error
from ..call.messages import unknown
from ..store.files import write
from .options import Program, program_options
from .show import say

if TYPE_CHECKING:
    from ...compiler.session import Session
    from ...dsl import ast
    from ...dsl.source import Source

DSL = Path(__file__).parents[2] / "dsl"


@click.command()
@program_options
@click.option("--json", "as_json", is_flag=True, help="Diagnostics as JSON on stdout.")
def check(program: Program, as_json: bool) -> int:
    """Say what is wrong with FILE, without compiling or running it."""
    from ...dsl.render import to_json
    from .show import print_json, show_diagnostics

    diagnostics, code = _problems(program)
    if as_json:
        print_json({"diagnostics": [to_json(d) for d in diagnostics]})
    elif diagnostics:
        show_diagnostics(diagnostics)
    if not code and not as_json:
        say(f"{program.file}: no errors")
    return code


def _problems(program: Program) -> tuple[list[Diagnostic], int]:
    """Everything wrong with a file: each entry of each model is built and differentiated, each test planned."""
    from ..data.sources import check as check_data

    found: dict[tuple[Any, ...], Diagnostic] = {}
    code = 0

    def attempt(step: Callable[[], Any]) -> Any:
        nonlocal code
        try:
            return step()
        except NncError as e:
            for d in e.diagnostics:
                at = (d.span.source.name, d.span.start, d.span.end) if d.span else ()
                found.setdefault((d.code, d.message, at), d)
            code = max(code, e.exit_code)
            return None

    program = replace(program, cache=False)
    source = attempt(program.read)
    first = attempt(partial(_session, program, source)) if source is not None else None
    if first is not None:
        others = [m for m in first.program.models if m != first.manifest.model] if program.model is None else []
        more = [attempt(partial(_session, replace(program, model=other), source)) for other in others]
        for session in [first, *filter(None, more)]:
            for name in session.program.entries:
                attempt(partial(_differentiate, session, name))
                if any(d.code == "E0502" for d in found.values()):  # other entries would take as long to find as much
                    return list(found.values()), code
            if session.manifest.train is not None and session.manifest.train.data is not None:
                attempt(partial(check_data, session.manifest.train.data))
        attempt(first.plan_tests)
    return list(found.values()), code


def _session(program: Program, source: Source) -> Session:
    return program.session(source)[0]


def _differentiate(session: Session, entry: str) -> None:
    from ...compiler.autodiff.differentiate import differentiate

    differentiate(session.program.graph(entry))


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit code 1 if a file would change.")
def fmt(files: tuple[str, ...], only_check: bool) -> int:
    """Bring FILES into their one canonical form. `-` formats stdin to stdout."""
    from ...dsl.format import format
    from ...dsl.parser import MAX_BYTES, decode, parse, read_source

    changed = 0
    for name in files:
        if name == "-":
            source = decode("<stdin>", sys.stdin.buffer.read(MAX_BYTES + 1))
            click.echo(format(parse(source), source), nl=False)
            continue
        source = read_source(name)
        text = format(parse(source), source)
        if text == source.text and text.encode() == Path(name).read_bytes():
            continue
        changed += 1
        if only_check:
            say(f"{name} is not in canonical form")
            continue
        write(Path(name), text.encode())
        say(f"{name} formatted")
    return 1 if only_check and changed else 0


@click.command()
@program_options
@click.option("-o", "--output", metavar="PATH", help="Of FILE: the page to write, .html.")
@click.option("--entry", metavar="NAME", help="Of FILE: the entry point; `train` where there is one.")
@click.option("--batch", type=click.IntRange(min=1), help="Of FILE: the examples that memory is counted for.")
@click.option("--profile", metavar="PATH", help="Of FILE: what `nnc profile --json` wrote, to show times.")
def explain(program: Program, output: str | None, entry: str | None, batch: int | None, profile: str | None) -> None:
    """What an error code such as E0301 means, with an example; or what a data source such as csv reads, and how.

    Or a page that explains a FILE: from each line to operators, derivatives, passes, kernels, code and memory."""
    if program.file.endswith(".nn") or output is not None:
        if output is None:
            raise click.UsageError("-o PATH says where the page goes")
        _explain(program, output, entry, batch, profile)
    else:
        _explain_code(program.file)


def _explain(program: Program, output: str, entry: str | None, batch: int | None, profile: str | None) -> None:
    from ..explain import document, page
    from ..explain.profiled import read_profile
    from .compile import entry_of

    if not output.endswith(".html"):
        raise error("E0603", f"{output}: the page is an .html file", kind=ArgumentError)
    timed = read_profile(Path(profile)) if profile is not None else None
    session, _ = program.session()
    name = entry_of(session, entry or (timed.entry if timed is not None else None))
    spec = session.manifest.train
    made = document(session, name, batch or (spec.batch if spec and spec.batch else 1), timed)
    write(Path(output), page(made).encode())
    say(f"{name} of {session.manifest.model or program.file} in {output}")


def _explain_code(code: str) -> None:
    from ...dsl.codes import explain, known
    from ..data.formats import formats

    text = formats()[code].page() if code in formats() else explain(code)
    if text is None:
        raise unknown("error code", code.upper(), known())
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        from .show import console

        console().print(Markdown(text))
    else:
        click.echo(text, nl=False)


@click.command()
@click.argument("name", required=False)
@click.option("--compiler", is_flag=True, help="Instead the map of nnc's own rooms and files.")
def doc(name: str | None, compiler: bool) -> None:
    """The documentation of NAME in the standard library; without a name, what there is."""
    if compiler:
        from .house import plan

        click.echo("\n".join(plan()))
        return
    found = _standard()
    if name is None:
        for family in sorted({f for f, _ in found.values()}):
            click.echo(f"{family}: {' '.join(n for n, (f, _) in found.items() if f == family)}")
        return
    if name not in found:
        from ...compiler.elaborate.builtins import BUILTINS

        if name in BUILTINS:
            click.echo(f"{name} is built in: dsl/README.md is its reference ({DSL / 'README.md'})")
            return
        raise unknown("definition of the standard library", name, [*found, *BUILTINS])
    family, definition = found[name]
    click.echo(f"# dsl/std/{family}.nn")
    if definition.doc:
        click.echo("\n".join(f"# {line}".rstrip() for line in definition.doc.splitlines()))
    click.echo(definition.span.text)


def _standard() -> dict[str, tuple[str, ast.Function | ast.Layer | ast.Optimizer]]:
    """Every definition of the standard library by name, with its family."""
    from ...dsl import ast
    from ...dsl.parser import parse
    from ...dsl.source import Source

    found: dict[str, tuple[str, ast.Function | ast.Layer | ast.Optimizer]] = {}
    for path in sorted((DSL / "std").glob("*.nn")):
        module = parse(Source(f"std/{path.name}", path.read_text("utf-8")))
        for d in module.definitions:
            if isinstance(d, ast.Function | ast.Layer | ast.Optimizer):
                found[d.name] = (path.stem, d)
    return found

"""Commands about text: check, fmt, explain, doc."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from ...dsl.errors import ArgumentError, error
from ..call.messages import unknown
from ..store.files import write
from .options import Program, program_options
from .show import console, say, show_diagnostics, show_result, warn, working
from .watch import again, beside, watching

DSL = Path(__file__).parents[2] / "dsl"


@click.command()
@program_options
@watching
def check(program: Program, watch: bool) -> int:
    """Say all that is wrong with FILE, without running it."""
    if watch:
        again(lambda: beside([Path(program.file)]), partial(_check, program))
    return _check(program)


def _check(program: Program) -> int:
    from ...dsl.render import to_json
    from ...dsl.tables import begin_tables

    begin_tables()
    from ..check.diagnose import diagnose

    with working(f"checking {Path(program.file).name}"):
        found = diagnose(program.read().text, Path(program.file), program, program.data)
    warn(found.warnings)

    def draw() -> None:
        if found.errors:
            show_diagnostics(found.diagnostics)
            say(f"{len(found.errors)} error{'' if len(found.errors) == 1 else 's'}", err=True)
        else:
            say(f"{program.file}: no errors")

    show_result({"diagnostics": [to_json(d) for d in found.diagnostics]}, draw)
    return max((e.exit_code for e in found.errors), default=0)


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit code 1 if a file would change.")
def fmt(files: tuple[str, ...], only_check: bool) -> int:
    """Bring FILES into their one canonical form. `-` formats stdin to stdout."""
    from ...dsl.format import format
    from ...dsl.parser import MAX_BYTES, decode, parse, read_source

    changed: list[str] = []
    for name in files:
        if name == "-":
            source = decode("<stdin>", sys.stdin.buffer.read(MAX_BYTES + 1))
            text = format(parse(source), source)
            show_result({"text": text}, partial(click.echo, text, nl=False))
            return 0
        source = read_source(name)
        text = format(parse(source), source)
        if text == source.text and text.encode() == Path(name).read_bytes():
            continue
        changed.append(name)
        if not only_check:
            write(Path(name), text.encode())
    what = "is not in canonical form" if only_check else "formatted"
    text = "\n".join(f"{name} {what}" for name in changed)
    show_result({"changed": changed}, lambda: say(text) if text else None)
    return 1 if only_check and changed else 0


@click.command()
@program_options
@click.option("-o", "--output", metavar="PATH", help="Of FILE: the page to write, .html.")
@click.option("--entry", metavar="NAME", help="Of FILE: the entry point; `train` where there is one.")
@click.option("--batch", type=click.IntRange(min=1), help="Of FILE: the examples that memory is counted for.")
@click.option("--profile", metavar="PATH", help="Of FILE: what `nnc profile --json` wrote, to show times.")
def explain(program: Program, output: str | None, entry: str | None, batch: int | None, profile: str | None) -> None:
    """Explain an error code, a data source or a FILE.

    Of a code such as E0301 what it means; of a source such as csv what it reads, and how; of a FILE a page from each
    line to operators, derivatives, passes, kernels, code and memory."""
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
    text = f"{name} of {session.manifest.model or program.file} in {output}"
    show_result({"entry": name, "written": output}, lambda: say(text))


def _explain_code(code: str) -> None:
    from ...dsl.codes import explain, known
    from ..data.formats import formats

    text = formats()[code].page() if code in formats() else explain(code)
    if text is None:
        raise unknown("error code", code.upper(), known())
    show_result({"name": code, "text": text}, partial(_page, text))


def _page(text: str) -> None:
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        console().print(Markdown(text))
    else:
        click.echo(text, nl=False)


@click.command()
@click.argument("name", required=False)
@click.option("--compiler", is_flag=True, help="Instead the map of nnc's own rooms and files.")
def doc(name: str | None, compiler: bool) -> None:
    """Show what the standard library has.

    Of NAME its formula and source; without NAME, which there are."""
    if compiler:
        from .house import plan

        rooms = list(plan())
        show_result({"rooms": rooms}, partial(click.echo, "\n".join(rooms)))
        return
    from ...dsl.standard import definitions

    found = definitions()
    if name is None:
        families = {family: [n for n, (f, _) in found.items() if f == family] for family, _ in found.values()}
        text = "\n".join(f"{f}: {' '.join(names)}" for f, names in sorted(families.items()))
        show_result(families, partial(click.echo, text))
        return
    if name not in found:
        from ...compiler.elaborate.builtins import BUILTINS

        if name in BUILTINS:
            where = f"{name} is built in: dsl/README.md is its reference ({DSL / 'README.md'})"
            show_result({"name": name, "text": where}, partial(click.echo, where))
            return
        raise unknown("definition of the standard library", name, [*found, *BUILTINS])
    family, definition = found[name]
    lines = [f"# {line}".rstrip() for line in (f"dsl/std/{family}.nn", *(definition.doc or "").splitlines())]
    text = "\n".join((*lines, definition.span.text))
    show_result({"name": name, "family": family, "text": text}, partial(click.echo, text))

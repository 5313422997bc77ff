"""The command that draws a program: show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...dsl.errors import ArgumentError, error
from ..call.messages import unknown
from ..store.files import write
from .options import Program, program_options
from .show import say, show_result

if TYPE_CHECKING:
    from ...compiler.session import Session


@click.command()
@program_options
@click.option("-o", "--output", metavar="PATH", required=True, help="The .svg picture.")
@click.option("--across", is_flag=True, help="From left to right, in rows that fill a slide of 16:9.")
@click.option("--train", is_flag=True, help="A step of training: the way back beside the way there, and the optimiser.")
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    help="How far layers are opened (default: until the model has 8 to 40 boxes).",
)
@click.option("--entry", metavar="NAME", help="The entry point (default: predict).")
def show(program: Program, output: str, across: bool, train: bool, depth: int | None, entry: str | None) -> None:
    """Draw FILE's network by layers.

    `nnc explain FILE -o PATH` makes a page of it that opens to operators and code."""
    from ..picture import picture

    kind = output.rpartition(".")[2]
    if kind != "svg":
        help = f"`nnc explain {program.file} -o {output}` makes a page" if kind == "html" else None
        raise error("E0612", f"{output}: expected a .svg file, found .{kind}", help=help, kind=ArgumentError)
    if train and entry not in (None, "train"):
        raise error("E0603", "--train draws the entry point train; --entry names another", kind=ArgumentError)
    session, _ = program.session()
    name = _entry(session, "train" if train else entry)
    text = picture(session.program, name, depth, across)
    write(Path(output), text.encode())
    text_of = f"{name} of {session.manifest.model or program.file} in {output}"
    show_result({"entry": name, "written": output}, lambda: say(text_of))


def _entry(session: Session, name: str | None) -> str:
    known = session.manifest.entries
    if name is not None and name not in known:
        raise unknown("entry point", name, list(known))
    if name is None:
        name = next((e for e in ("predict", *known) if e in known), None)
    if name is None:
        raise error("E0608", "the file has nothing to draw: no model, export or fn", kind=ArgumentError)
    return name

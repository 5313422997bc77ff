"""The command that draws a program: show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...dsl.errors import ArgumentError, error
from ..call.messages import unknown
from ..store.files import write
from .options import Program, program_options
from .show import say

if TYPE_CHECKING:
    from ...compiler.session import Session

_KINDS = ("svg", "html")


@click.command()
@program_options
@click.option("-o", "--output", metavar="PATH", required=True, help="A .svg picture or an .html page.")
@click.option("--across", is_flag=True, help="From left to right, in rows that fill a slide of 16:9.")
@click.option("--train", is_flag=True, help="A step of training: the way back beside the way there, and the optimiser.")
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    help="How far layers are opened (default: until the model has 8 to 40 boxes).",
)
@click.option("--entry", metavar="NAME", help="The entry point (default: predict; on a page train).")
def show(program: Program, output: str, across: bool, train: bool, depth: int | None, entry: str | None) -> None:
    """Draw FILE's network by layers. On a page each opens to its operators, forward and backward."""
    from ..picture import picture

    kind = output.rpartition(".")[2]
    if kind not in _KINDS:
        raise error("E0612", f"{output}: expected a .svg or .html file, found .{kind}", kind=ArgumentError)
    if train and entry not in (None, "train"):
        raise error("E0603", "--train draws the entry point train; --entry names another", kind=ArgumentError)
    session, _ = program.session()
    name = _entry(session, "train" if train else entry, kind)
    text = picture(session.program, name, depth, kind == "html", across)
    write(Path(output), text.encode())
    say(f"{name} of {session.manifest.model or program.file} in {output}")


def _entry(session: Session, name: str | None, kind: str) -> str:
    known = session.manifest.entries
    if name is not None and name not in known:
        raise unknown("entry point", name, list(known))
    if name is None:
        preferred = ("train", "predict") if kind == "html" else ("predict",)
        name = next((e for e in (*preferred, *known) if e in known), None)
    if name is None:
        raise error("E0608", "the file has nothing to draw: no model, export or fn", kind=ArgumentError)
    return name

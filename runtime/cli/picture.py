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
@click.option("--depth", type=click.IntRange(min=1), default=1, help="How far layers are opened in the picture.")
@click.option("--entry", metavar="NAME", help="The entry point (default: predict; on a page train).")
def show(program: Program, output: str, depth: int, entry: str | None) -> None:
    """Draw FILE's network by layers. On a page each opens to its operators, forward and backward."""
    from ..picture import picture

    kind = output.rpartition(".")[2]
    if kind not in _KINDS:
        raise error("E0612", f"{output}: expected a .svg or .html file, found .{kind}", kind=ArgumentError)
    session, _ = program.session()
    name = _entry(session, entry, kind)
    text = picture(session.program, name, depth, kind == "html")
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

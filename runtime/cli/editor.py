"""The command that editors run: lsp."""

from __future__ import annotations

import os
import sys

import click

from ..extras import optional


@click.command()
@click.option("--stdio", is_flag=True, help="Over stdin and stdout, as it is anyway: some editors say so.")
def lsp(stdio: bool) -> None:
    """Speak to an editor, as its language server.

    The editor starts it, and talks to it over stdin and stdout."""
    optional("pygls", "lsp", "the language server is made with pygls")
    from ..editor.server import make_server

    make_server().start_io(stdout=os.fdopen(os.dup(sys.stdout.fileno()), "wb"))  # it closes what it is given

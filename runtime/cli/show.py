"""How the command line looks: one console, diagnostics, tables, numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError
from ...dsl.render import printable, render, to_json

if TYPE_CHECKING:
    from rich.console import Console


_WIDTH = 140  # of tables where no terminal says how wide it is
_FOLDED = 12  # how narrow a column of text may become


def show_error(e: NncError, as_json: bool = False) -> None:
    """All diagnostics of an error: as text to stderr, or as JSON to stdout."""
    if as_json:
        print_json({"diagnostics": [to_json(d) for d in e.diagnostics]})
    else:
        show_diagnostics(e.diagnostics)


def show_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    color = sys.stderr.isatty()
    print("\n\n".join(render(d, color) for d in diagnostics), file=sys.stderr)


def warn(warnings: Sequence[str]) -> None:
    """Warnings of a program, one a line, to stderr."""
    for text in warnings:
        say(f"warning: {text}", err=True)


def say(text: str, err: bool = False) -> None:
    """Lines for people, on stdout or stderr: names of files and what stands in them cannot drive the terminal."""
    click.echo(printable(text, "\n\t"), err=err)


def print_json(value: Any) -> None:
    text = json.dumps(strict(value), indent=2, ensure_ascii=False)
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def strict(value: Any) -> Any:
    """The same data with null for numbers that JSON does not have."""
    match value:
        case float() if not isfinite(value):
            return None
        case dict():
            return {k: strict(v) for k, v in value.items()}
        case list():
            return [strict(v) for v in value]
    return value


def console() -> Console:
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """Rich would leave with exit code 1; here it is `main` that knows what to do."""
            raise BrokenPipeError

    return Quiet(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, left: int = 1) -> None:
    """A table whose first `left` columns are text and whose others are numbers. Text folds where the terminal is
    narrow; names and numbers are never cut: then the table is wider than the terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    cells = [tuple(map(printable, row)) for row in (columns, *rows)]
    least = 0
    for k, column in enumerate(zip(*cells, strict=True)):
        whole = k == 0 or k >= left
        width = max(map(len, column))
        table.add_column(column[0], justify="left" if k < left else "right", no_wrap=whole, overflow="fold")
        least += (width if whole else min(width, _FOLDED)) + 3
    for row in cells[1:]:
        table.add_row(*map(escape, row))
    screen = console()
    screen.width = max(screen.width, least)
    screen.print(table)


def number(value: Any) -> str:
    """A metric: five digits where it is a float."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def metrics_text(metrics: Any) -> str:
    return "  ".join(f"{k} {number(v)}" for k, v in metrics.items())

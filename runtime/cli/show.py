"""How the command line looks: what goes where, diagnostics, tables, numbers.

A command prints its result with `show_result`, and beside it notes of how far it is. With `--json` the result is JSON,
alone on stdout, and notes go to stderr; with `--quiet` there are no notes. Both are options of every command.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import isfinite
from textwrap import fill
from typing import TYPE_CHECKING, Any, TextIO

import click

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError
from ...dsl.render import cells, printable, render, to_json
from . import live

if TYPE_CHECKING:
    from rich.console import Console


_WIDTH = 140  # of tables where no terminal says how wide it is
_BELOW = " " * 7  # where what has no room in a row stands below it
_FOLDED = 12  # how narrow a column of text may become


# --- what goes where --------------------------------------------------------------------------------------------------


def _switch(name: str, help: str) -> click.Option:
    def keep(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.meta[f"nnc.{name}"] = value

    return click.Option([f"--{name}"], is_flag=True, expose_value=False, is_eager=True, callback=keep, help=help)


SWITCHES = (_switch("json", "The result as JSON on stdout."), _switch("quiet", "No progress, only the result."))


def with_switches(command: click.Command) -> click.Command:
    """The command, and those below it, with the options that every command has."""
    for c in command.commands.values() if isinstance(command, click.Group) else (command,):
        c.params += [switch for switch in SWITCHES if switch not in c.params]
    return command


def is_on(name: str) -> bool:
    """Whether the command was given `--json`, or `--quiet`."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(f"nnc.{name}"))


def stream() -> TextIO:
    """Where people read."""
    return sys.stderr if is_on("json") else sys.stdout


def show_result(value: Any, draw: Callable[[], None]) -> None:
    """What a command found: as JSON where that was asked for, else as `draw` prints it."""
    if is_on("json"):
        print_json(value)
    else:
        draw()


def say(text: str, err: bool = False, **style: Any) -> None:
    """Lines for people: names of files and what stands in them cannot drive the terminal. `style` is click's."""
    to = sys.stderr if err else stream()
    text = printable(text, "\n\t")
    with live.printing():
        click.echo(click.style(text, **style) if style and has_colors(to) else text, file=to)


def note(text: str, **style: Any) -> None:
    """Lines about how far a command is."""
    if not is_on("quiet"):
        say(text, **style)


def announce(text: str) -> None:
    """The first word of a command that takes long, where no terminal shows what it is at."""
    if not live.is_live(sys.stderr):
        note(text)


def width() -> int:
    """How long a line for people may be."""
    return live.columns(stream()) if stream().isatty() else _WIDTH


def say_next(*commands: str) -> None:
    """What may come next, in a line, or a line each: a path is never broken."""
    line = f"try: {' · '.join(commands)}"
    note(line if cells(line) <= width() else "try: " + "\n     ".join(commands), dim=True)


def working(what: str) -> AbstractContextManager[None]:
    """While it lasts, a terminal shows what takes long, and for how long so far."""
    return nullcontext() if is_on("quiet") else live.working(what, sys.stderr)


def has_colors(to: TextIO) -> bool:
    """Whether colours are wanted there (no-color.org), and understood."""
    return live.is_live(to) and not os.environ.get("NO_COLOR")


# --- errors -----------------------------------------------------------------------------------------------------------


def show_error(e: NncError, as_json: bool = False) -> None:
    """All diagnostics of an error: as text to stderr, or as JSON to stdout."""
    if as_json:
        print_json({"diagnostics": [to_json(d) for d in e.diagnostics]})
    else:
        show_diagnostics(e.diagnostics)


def show_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    with live.printing():
        columns = live.columns(sys.stderr) if sys.stderr.isatty() else None
        print("\n\n".join(render(d, has_colors(sys.stderr), columns) for d in diagnostics), file=sys.stderr)


def warn(warnings: Sequence[str]) -> None:
    """Warnings of a program, one a line, to stderr."""
    for text in warnings:
        say(f"warning: {text}", err=True)


# --- JSON -------------------------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    text = json.dumps(strict(value), indent=2, ensure_ascii=False)
    with live.printing():
        print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def strict(value: Any) -> Any:
    """The same data with null for numbers that JSON does not have."""
    match value:
        case float() if not isfinite(value):
            return None
        case dict():
            return {k: strict(v) for k, v in value.items()}
        case list() | tuple():
            return [strict(v) for v in value]
    return value


# --- tables -----------------------------------------------------------------------------------------------------------


def console() -> Console:
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """Rich would leave with exit code 1; here it is `main` that knows what to do."""
            raise BrokenPipeError

    return Quiet(file=stream(), highlight=False, width=width())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, left: int = 1) -> None:
    """A table whose first `left` columns are text and whose others are numbers. Text folds where the terminal is
    narrow; names and numbers are never cut: then the table is wider than the terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    texts = [tuple(map(printable, row)) for row in (columns, *rows)]
    least = 0
    for k, column in enumerate(zip(*texts, strict=True)):
        whole = k == 0 or k >= left
        width = max(map(len, column))
        table.add_column(column[0], justify="left" if k < left else "right", no_wrap=whole, overflow="fold")
        least += (width if whole else min(width, _FOLDED)) + 3
    for row in texts[1:]:
        table.add_row(*map(escape, row))
    screen = console()
    screen.width = max(screen.width, least)
    with live.printing():
        screen.print(table)


class Rows:
    """A table that is printed row by row: its columns are as wide as numbers get, whatever comes later. Where the
    terminal is too narrow, the columns that are named last in `important` are left out (`hidden`)."""

    _NUMBER = 8  # columns of the screen that a number may take

    def __init__(self, columns: Sequence[str], important: Sequence[str], widths: Mapping[str, int] | None = None):
        self._widths = {c: max(cells(c), (widths or {}).get(c, self._NUMBER)) for c in columns}
        self.hidden: list[str] = []
        for column in reversed(important):
            if sum(w + 2 for w in self._widths.values()) <= width():
                break
            del self._widths[column]
            self.hidden.append(column)
        self._print({c: c for c in columns}, bold=True)

    def add(self, row: Mapping[str, str], mark: str = "") -> None:
        """A row, and what is to be said of it: one with all its cells and a mark stands out."""
        self._print(row, mark, **({"fg": "green"} if mark and len(row) >= len(self._widths) else {}))

    def _print(self, row: Mapping[str, str], mark: str = "", **style: Any) -> None:
        line = "  ".join(row.get(c, "").rjust(w) for c, w in self._widths.items()).rstrip()
        if not stream().isatty() or cells(f"{line} {mark}") <= width():
            note(f"{line} {mark}".rstrip(), **style)
        else:
            note(line, **style)
            note(fill(mark, width(), initial_indent=_BELOW, subsequent_indent=_BELOW), **style)


# --- numbers ----------------------------------------------------------------------------------------------------------


def number(value: Any) -> str:
    """A metric: five digits where it is a float, and not one that says nothing: `0.9312`, `12.345`, `1.23e-05`."""
    if not isinstance(value, float) or not isfinite(value):
        return str(value)
    size = abs(value)
    if value and not 1e-3 <= size < 99999.5:
        return f"{value:.2e}"
    return f"{value:.{4 - min(4, max(0, len(str(int(size))) - 1))}f}"


def duration(seconds: float) -> str:
    """Time with its unit: `85 ns`, `9.2 ms`, `12.3 s`, `2:05 min`, `1:02:05 h`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02} h"
    if whole >= 60:
        return f"{whole // 60}:{whole % 60:02} min"
    unit, size = next((u for u in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)) if seconds >= u[1]), ("ns", 1e-9))
    value = seconds / size
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def rate_text(rate: float) -> str:
    """Examples per second: `950`, `12.3k`, `1.2M`."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if rate >= limit:
            return f"{rate / limit:.3g}{unit}"
    return f"{rate:.0f}"


def metrics_text(metrics: Any) -> str:
    return "  ".join(f"{k} {number(v)}" for k, v in metrics.items())

"""The command line: `nnc COMMAND ...`.

In: arguments. Out: an exit code: 0, 1 a diagnosed error in what the user wrote or passed, 2 wrong usage, 4 a file, 5 a
limit, 6 training met a value that is not finite, 70 our own fault, 130 interrupted, 143 terminated. Each family of
commands is a module here, imported when one of them is asked for, as is what it uses of the compiler when it runs: that
is most of the time that a short command takes.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from io import StringIO
from typing import Any

import click

from ...compiler.native.room import is_refused
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError, ResourceError
from .completion import COMPLETE, answer
from .show import say, show_error, with_switches
from .version import shown

_GROUPS = {  # the commands as `--help` lists them, and the module of each
    "Write": {
        "new": "new", "check": "source", "fmt": "source", "test": "tests", "explain": "source", "doc": "source",
        "completion": "completion", "lsp": "editor",
    },
    "Train": {
        "train": "train", "eval": "trained", "predict": "trained", "tune": "tune", "data": "data",
        "import": "importing", "load-weights": "weights", "runs": "runs",
    },
    "Look": {
        "look": "look", "show": "picture", "summary": "compile", "plan": "plan", "profile": "profile",
        "gradcheck": "compile", "compile": "compile",
    },
    "Ship": {"build": "ship", "export": "export", "reproduce": "ship", "state": "ship"},
}  # fmt: skip
_HOME = {name: module for group in _GROUPS.values() for name, module in group.items()}


_SPENT = {
    errno.EMFILE: "this process can open no more files: `ulimit -n` says how many",
    errno.ENFILE: "the machine can open no more files",
    errno.ENOMEM: "there is not enough memory",
}  # fmt: skip
_LEAST_BYTES, _LEFT_BYTES = 192 << 20, 16 << 20  # of addresses, to load what nnc is made of; after that


class Commands(click.Group):
    """Commands whose modules are imported when they are asked for, in groups."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_HOME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _HOME:
            return None
        module = import_module(f".{_HOME[cmd_name]}", __name__)
        found = next(c for c in vars(module).values() if isinstance(c, click.Command) and c.name == cmd_name)
        return with_switches(found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _HOME and not args[0].startswith("-"):
            close = get_close_matches(args[0], _HOME, n=1)
            known = f"Did you mean `nnc {close[0]}`?" if close else "`nnc --help` lists the commands."
            ctx.fail(f"No such command '{args[0]}'. {known}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        wide = max(map(len, _HOME))
        for title, names in _GROUPS.items():
            with formatter.section(title):
                found = [(name.ljust(wide), self.get_command(ctx, name)) for name in names]
                formatter.write_dl([(name, summary(c)) for name, c in found if c is not None])


def summary(command: click.Command) -> str:
    """The first sentence of what a command says of itself."""
    return (command.help or "").partition("\n\n")[0].partition(". ")[0].replace("\n", " ").removesuffix(".")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, expose_value=False, callback=shown, help="Show the version and exit.")
@click.option("--verbose", is_flag=True, is_eager=True, help="With --version: all that a report of a fault needs.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (anywhere on the line).")
def cli(debug: bool, verbose: bool) -> None:
    """A neural-network compiler: a readable .nn file in, native training and inference code out."""
    if verbose:
        raise click.UsageError("--verbose goes with --version")


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; the exit code. No error is shown as a traceback unless `--debug` is among the arguments."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    with _interruptible():
        try:
            return _guarded(arguments, debug)
        except BrokenPipeError:
            _silence()
            return 141  # what a shell sees of a program that SIGPIPE ended
        except OSError as e:  # of saying what is wrong
            if debug:
                raise
            _say(f"error: output: {(e.strerror or str(e)).lower()}")
            _silence()
            return 4


def _guarded(arguments: list[str], debug: bool) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            return _run(arguments)
    except (KeyboardInterrupt, click.exceptions.Abort) as e:
        _say("interrupted")
        return 128 + int(e.args[0] if e.args else signal.SIGINT)
    except click.ClickException as e:
        said = StringIO()
        e.show(said)
        _say(said.getvalue().rstrip("\n"))
        return e.exit_code
    except BrokenPipeError:
        raise
    except Exception as e:
        if debug:
            raise
        return _report(e, "--json" in arguments)


@contextmanager
def _interruptible() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM is a KeyboardInterrupt with its number; the second ends the process where it is."""
    got: list[int] = []

    def raised(number: int, frame: Any) -> None:
        got.append(number)
        if len(got) > 1:
            os._exit(128 + got[0])
        raise KeyboardInterrupt(number)

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {n: h for n in numbers if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, raised)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(arguments: list[str]) -> int:
    try:
        with cli.make_context("nnc", arguments) as context:  # `cli.main` would turn a broken pipe into exit code 1
            result = cli.invoke(context)
    except click.exceptions.Exit as e:
        result = e.exit_code
    sys.stdout.flush()  # a broken pipe or a full disk shows here at the latest
    return result if isinstance(result, int) else 0


def _report(e: Exception, json: bool) -> int:
    """Show an error the way it was asked for; its exit code."""
    if not isinstance(e, NncError) and (isinstance(e, MemoryError) or _is_short_of_memory()):
        e = ResourceError(Diagnostic("E0605", "there is not enough memory"))
    if isinstance(e, OSError) and not isinstance(e, NncError) and e.errno in _SPENT:
        e = ResourceError(Diagnostic("E0605", _SPENT[e.errno]))
    if isinstance(e, NncError):
        show_error(e, json)
        return e.exit_code
    if isinstance(e, OSError):
        _say(f"error: {e.filename or 'output'}: {(e.strerror or str(e)).lower()}")
        return 4
    kind = type(e).__name__
    _say(f"internal error: {kind}: {str(e)[:400]}")
    _say("this is a fault of nnc, not of your program; the same command with --debug shows where")
    return 70


def _is_short_of_memory() -> bool:
    """Whether memory is what is behind an error that speaks of something else: of a library that cannot be loaded, of a
    thread or a process that cannot be started."""
    return is_refused(_LEFT_BYTES if "llvmlite.binding" in sys.modules else _LEAST_BYTES)


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    """A warning of the cache or of NumPy: what it says, not where in nnc it was said."""
    _say(f"warning: {message}")


def _say(text: str) -> None:
    try:
        say(text, err=True)
    except OSError:
        _silence()


def _silence() -> None:
    """Nobody listens any more: what is still in the buffers goes nowhere, quietly."""
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(sink, stream.fileno())
    os.close(sink)


def _open_streams() -> None:
    """A standard stream that was closed leads nowhere; else the next file that is opened would have its number. What
    the encoding of stdout does not have is escaped."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def entry_point() -> None:
    """What the installed `nnc` runs."""
    _open_streams()
    if asked := os.environ.get(COMPLETE):  # by the script of `nnc completion`, as often as a key is pressed
        click.echo(answer(cli, asked))
        return
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):  # it is over: a late Ctrl-C has nothing to say
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)

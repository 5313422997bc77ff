"""Errors as data, and the exceptions that carry them.

The place that knows a fact states it; the place that knows the source makes the `Diagnostic`. Messages are lower-case
sentences without advice; facts stand in labels; advice stands only in `help`.

Codes: E01 syntax, E02 names, E03 types and sizes, E04 gradients, E05 code generation, E06 data and run time,
E09 our own fault. Exit codes of the command line: see `exit_code` on each exception class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .source import Span


@dataclass(frozen=True, slots=True)
class Label:
    """A fact about a place; the diagnostic's first label is the place itself and may have no text."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    code: str
    message: str
    labels: tuple[Label, ...] = ()
    help: tuple[str, ...] = ()
    severity: str = "error"

    @property
    def span(self) -> Span | None:
        return self.labels[0].span if self.labels else None


class NncError(Exception):
    """The base of every error nnc raises; `diagnostics` is never empty, `code` and `span` are the first one's."""

    exit_code = 1

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]):
        if isinstance(diagnostics, Diagnostic):
            diagnostics = (diagnostics,)
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__(self.diagnostics)

    @property
    def code(self) -> str:
        return self.diagnostics[0].code

    @property
    def span(self) -> Span | None:
        return self.diagnostics[0].span

    def __str__(self) -> str:
        from .render import render  # the renderer is only needed when something went wrong

        return "\n\n".join(render(d) for d in self.diagnostics)


class SourceError(NncError, ValueError):
    """A `.nn` program is wrong (E01 to E05)."""


class UnsupportedError(SourceError, NotImplementedError):
    """A `.nn` program asks for something that this version does not do yet (E05)."""


class ArgumentError(NncError, ValueError):
    """A value passed from Python is wrong: says argument, got and wanted (E06)."""


class ArgumentTypeError(ArgumentError, TypeError):
    """A value passed from Python has the wrong type or dtype (E06)."""


class DataError(NncError, OSError):
    """A file is missing, unreadable, malformed or corrupt: says path, expected and found (E06)."""

    exit_code = 4


class ResourceError(NncError, MemoryError):
    """A limit would be exceeded: memory, size, depth (E06)."""

    exit_code = 5


class NonFiniteError(NncError, ArithmeticError):
    """Training met a NaN or an infinity: names the first bad tensor (E06)."""

    exit_code = 6


class InternalError(NncError, AssertionError):
    """Our own fault (E09)."""

    exit_code = 70


def error(code: str, message: str, span: Span | None = None, label: str = "", *more: Label, help: str | None = None,
          kind: type[NncError] = SourceError) -> NncError:
    """The exception for one diagnostic, ready to raise."""
    labels = ((Label(span, label),) if span is not None else ()) + more
    return kind(Diagnostic(code, message, labels, (help,) if help else ()))

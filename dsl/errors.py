"""The exceptions that carry diagnostics, by who can help: the author, the caller, the machine, or we.

Exit codes of the command line: see `exit_code` on each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .diagnostics import Diagnostic, Fix, Label
from .html import html
from .render import render
from .source import Span
from .tracebacks import of_notebook


class NncError(Exception):
    """The base of every error nnc raises; `diagnostics` is never empty, `code` and `span` are the first one's."""

    exit_code = 1
    was_shown = False  # in a notebook, before it ends the cell

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
        return "\n\n".join(render(d) for d in self.diagnostics)

    def _repr_html_(self) -> str:
        return html(self.diagnostics)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of an error that was not caught."""
        return [] if self.was_shown else of_notebook(self, self.diagnostics)


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
    """Training met a NaN or an infinity: names the first bad tensor (E06), and in which `epoch` and `step`, from 1.
    Where it is known `span` is the expression that made it, and `operands` the ranges of what that was made of."""

    exit_code = 6

    def __init__(
        self,
        diagnostics: Diagnostic | Iterable[Diagnostic],
        epoch: int | None = None,
        step: int | None = None,
        operands: Mapping[str, tuple[float, float]] | None = None,
    ):
        super().__init__(diagnostics)
        self.epoch, self.step, self.operands = epoch, step, dict(operands or {})


class RankError(NncError, RuntimeError):
    """Processes that train together do not fit together, or one of them is missing (E06)."""


class InternalError(NncError, AssertionError):
    """Our own fault (E09)."""

    exit_code = 70


def error(
    code: str,
    message: str,
    span: Span | None = None,
    label: str = "",
    *more: Label,
    help: str | None = None,
    fix: str | Fix | tuple[Fix, ...] | None = None,
    kind: type[NncError] = SourceError,
) -> NncError:
    """The exception for one diagnostic, ready to raise; a `fix` that is a text takes the place of what is at `span`."""
    labels = ((Label(span, label),) if span is not None else ()) + more
    if isinstance(fix, str):
        fix = Fix(span, fix) if span is not None else None
    fixes = fix if isinstance(fix, tuple) else (fix,) if fix is not None else ()
    return kind(Diagnostic(code, message, labels, (help,) if help else (), fixes=fixes))

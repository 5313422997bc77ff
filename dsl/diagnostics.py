"""Errors as data: a `Diagnostic` is a code, a message, facts about places, and advice.

The place that knows a fact states it; the place that knows the source makes the `Diagnostic`. Messages are lower-case
sentences without advice; facts stand in labels; advice stands only in `help`.

Codes: E01 syntax, E02 names, E03 types and sizes, E04 gradients, E05 code generation, E06 data and run time,
E09 our own fault.
"""

from __future__ import annotations

from .record import dataclass, field
from .source import Span


@dataclass(frozen=True, slots=True)
class Label:
    """A fact about a place; the diagnostic's first label is the place itself and may have no text."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fix:
    """What `help` says, as an edit: the text of `span` becomes `text`."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    code: str
    message: str
    labels: tuple[Label, ...] = ()
    help: tuple[str, ...] = ()
    severity: str = "error"
    fixes: tuple[Fix, ...] = field(default=(), compare=False)  # of which each alone would do

    @property
    def span(self) -> Span | None:
        return self.labels[0].span if self.labels else None

"""What is wrong with a program: every error that stands on its own, each once, in the order of their places.

In: a text, and the settings to read it under. Out: a `Diagnosis`, also of what is right in a wrong text. Nothing is
compiled or run, and no data are read but where a size of parameters is taken from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...compiler.autodiff.differentiate import differentiate
from ...compiler.elaborate import Program
from ...compiler.session import Session
from ...compiler.settings import Settings
from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError, SourceError
from ...dsl.parser import parse
from ...dsl.source import Source
from ..api import open_program
from ..data.sources import check as check_data


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`errors` have one diagnostic each; `tree` is what could be parsed, `program` what could be elaborated, None where
    nothing could."""

    errors: tuple[NncError, ...]
    warnings: tuple[str, ...]
    tree: ast.Module | None
    program: Program | None

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(d for e in self.errors for d in e.diagnostics)


def diagnose(
    text: str, path: Path | None = None, settings: Settings | None = None, override: str | None = None
) -> Diagnosis:
    """Each entry of each model is built and differentiated, each test planned. `path` is the file that the text is, or
    is to be, of: what it imports and the data it names are looked for beside it, and places are told in it. `override`
    takes the place of the path of the data."""
    source = Source("<text>" if path is None else str(path), text)
    settings = replace(settings or Settings(), cache=False)
    found: dict[tuple[Any, ...], NncError] = {}

    def attempt(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except NncError as e:
            _add(found, e)
            return None

    tree = attempt(partial(parse, source))
    first = attempt(partial(_session, source, settings, override)) if tree is not None else None
    if first is None:
        return Diagnosis(tuple(found.values()), (), tree, None)
    others = [m for m in first.program.models if m != first.manifest.model] if settings.model is None else []
    more = [attempt(partial(_session, source, replace(settings, model=other), override)) for other in others]
    sessions = [first, *filter(None, more)]
    for session in sessions:
        for name in session.program.entries:
            attempt(partial(_differentiate, session, name))
            if any(e.code == "E0502" for e in found.values()):  # other entries would take as long to find as much
                return Diagnosis(tuple(found.values()), _warnings(sessions), tree, first.program)
        if session.manifest.train is not None and session.manifest.train.data is not None:
            attempt(partial(check_data, session.manifest.train.data))
    for plan in attempt(first.plan_tests) or ():
        for d in (d for c in plan.checks for d in c.diagnostics):
            _add(found, SourceError(d))
    return Diagnosis(tuple(found.values()), _warnings(sessions), tree, first.program)


def _add(found: dict[tuple[Any, ...], NncError], e: NncError) -> None:
    """Keep what an error says, each fault once."""
    for d in e.diagnostics:
        at = (d.span.source.name, d.span.start, d.span.end) if d.span else ()
        found.setdefault((d.code, d.message, at), type(e)(d))


def _warnings(sessions: list[Session]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for session in sessions for text in session.manifest.warnings))


def _session(source: Source, settings: Settings, override: str | None) -> Session:
    return open_program(source, settings, override=override)[0]


def _differentiate(session: Session, entry: str) -> None:
    differentiate(session.program.graph(entry))

"""What is wrong with a program: every error that stands on its own, each once, in the order of their places.

In: a text, and the settings to read it under. Out: a `Diagnosis`, also of what is right in a wrong text. Nothing is
compiled or run, and no data are read but where a size of parameters is taken from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...compiler.elaborate import Program
from ...compiler.elaborate.faults import Faults
from ...compiler.native.objects import target
from ...compiler.settings import Settings
from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError
from ...dsl.recovery import recover
from ...dsl.source import Source
from .. import settings
from ..api import checked, data_sizes
from ..data.sources import check as check_data
from ..model import Model


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`errors` have one diagnostic each; `tree` is what could be parsed, with an `ast.Unread` in the place of what
    could not; `program` what could be elaborated of the model that the file is about, None where that is too large."""

    errors: tuple[NncError, ...]
    warnings: tuple[str, ...]
    tree: ast.Module
    program: Program | None

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(d for e in self.errors for d in e.diagnostics)


def diagnose(
    text: str, path: Path | None = None, options: Settings | None = None, override: str | None = None
) -> Diagnosis:
    """Each entry of each model is built and differentiated, each test planned. `path` is the file that the text is, or
    is to be, of: what it imports and the data it names are looked for beside it, and places are told in it. `override`
    takes the place of the path of the data. Raises ArgumentError where the options are wrong."""
    source = Source("<text>" if path is None else str(path), text)
    options = checked(options or Settings())
    target(options.target_cpu)
    folder = path.parent if path is not None else Path()
    faults = Faults()
    warnings: dict[str, None] = {}

    def elaborated(options: Settings) -> Program | None:
        program = None
        with _telling(faults):
            program = Program(source, options, data_sizes(folder, override, []), faults)
            program.check()
        if program is not None:
            warnings.update(program.warnings)
            settings.sizes(options.sizes, program.modules.sources)
            _look_outside(program, faults)
        return program

    program = elaborated(options)
    if program is not None and options.model is None and not faults.too_large:
        for other in program.models:
            if other != getattr(program.model, "name", None):
                elaborated(replace(options, model=other))
    return Diagnosis(tuple(sorted(faults.errors, key=_place)), tuple(warnings), recover(source)[0], program)


def _look_outside(program: Program, faults: Faults) -> None:
    """What the runtime asks of a program: the names of methods, and arguments of the source of the data."""
    for fault in Model.faulty_exports(program):
        faults.tell(fault)
    if program.spec is not None and program.spec.data is not None:
        with _telling(faults):
            check_data(program.spec.data)


@contextmanager
def _telling(faults: Faults) -> Iterator[None]:
    try:
        yield
    except NncError as e:
        faults.tell(e)


def _place(e: NncError) -> tuple[str, int]:
    """Where an error is; what has no place comes last."""
    return (e.span.source.name, e.span.start) if e.span is not None else ("\U0010ffff", 0)

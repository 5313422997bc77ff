"""One open file: its text, and what is known of it, brought up to date when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ...compiler.elaborate.modules import NAMED
from ...compiler.settings import Settings
from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.source import Source, Span
from ..api import checked
from ..check.diagnose import Diagnosis, diagnose
from .calls import path_before
from .reading import Reading, Shift, read
from .symbols import Symbol, Words
from .worth import Run, Stopped, Worth, look

MOST_RUNS = 4  # whose values are kept


class Document:
    """`diagnostics` are those of the last look or check. A look is at one entry, and soon over; a check is of all."""

    def __init__(self, path: Path, text: str, texts: Mapping[Path, str] | None = None):
        self.path = path
        self.texts = texts or {}  # of all open files
        self.text = text
        self.version = 0  # as the editor counts
        self.diagnostics: tuple[Diagnostic, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self._now: Reading | None = None
        self._whole: Reading | None = None
        self._runs: list[tuple[Run, Shift]] = []  # the newest first
        self._edited: int | None = None  # where the last edit was
        self._checking: Run | None = None

    def edit(self, text: str) -> None:
        """Another text takes the place of this one."""
        shift = Shift.of(self.text, text)
        self._edited = shift.same
        if self._checking is not None:
            self._checking.stopped = True
        self.text, self._now = text, None
        self._runs = [(run, Shift.of(run.text, text)) for run, _ in self._runs]

    def forget(self) -> None:
        """A file that is imported has changed."""
        self._now = None

    def imports(self, path: Path) -> bool:
        return any(Path(name).resolve() == path for name in self.reading.modules.files if name != str(self.path))

    def place(self, d: Diagnostic) -> tuple[int, int] | None:
        """Where a diagnostic is about, in the text as it is."""
        if d.span is None or d.span.source.name != str(self.path):
            return None
        return Shift.of(d.span.source.text, self.text).new(d.span.start, d.span.end)

    # --- what was read

    @property
    def reading(self) -> Reading:
        """The text as it is."""
        if self._now is None:
            self._now = read(self.path, self.text, self.texts)
            if self._now.whole:
                self._whole = self._now
        return self._now

    @property
    def readings(self) -> Iterator[tuple[Reading, Shift]]:
        """The text as it is; where that is not whole, then the last that was."""
        now = self.reading
        yield now, Shift.of(self.text, self.text)
        if not now.whole and self._whole is not None:
            yield self._whole, Shift.of(self._whole.source.text, self.text)

    @property
    def words(self) -> Words:
        """The tokens of the text as it is."""
        return self.reading.words

    def symbol(self, offset: int) -> tuple[Reading, Shift, Span, Symbol] | None:
        """The name at an offset."""
        for reading, shift in self.readings:
            there = shift.old(offset)
            found = reading.names.find(there) if there is not None else None
            if found is not None:
                return reading, shift, *found
        return None

    def now(self, span: Span) -> Span | None:
        """Where a place of this file is in the text as it is."""
        shifts = (s for r, s in self.readings if span.source is r.source)
        at = next(shifts, Shift.of(span.source.text, self.text)).new(span.start, span.end)
        return Span(self.words.source, *at) if at is not None else None

    def definition_of(self, offset: int) -> Span | None:
        """Where what is named at an offset got its value: in this file, in another, or in the library."""
        found = self.symbol(offset)
        if found is None:
            return self._numbered(offset)
        reading, shift, _, symbol = found
        place = symbol.place
        if place is not None and place.source is reading.source:
            return self.now(symbol.before(shift.old(offset) or 0) or place)
        return place

    def _numbered(self, offset: int) -> Span | None:
        """Of `Net.dense_1` the call that made it, if it was made."""
        at = self.words.last(offset + 1)
        path = path_before(self.words, at + 1) if at >= 0 else ()
        return self.call_at(".".join(t.text for t in path)) if len(path) > 1 else None

    def definitions(self) -> Iterator[tuple[Symbol, tuple[int, int], tuple[int, int]]]:
        """What the file defines: each with where it stands, and its name."""
        seen: set[str] = set()
        for reading, shift in self.readings:
            for d in reading.module.definitions:
                if not isinstance(d, NAMED) or d.name in seen:
                    continue
                symbol = reading.resolver.defined(d)
                start, end = shift.new(d.span.start, d.span.start), shift.new(d.span.end, d.span.end)
                at = shift.new(symbol.places[0].start, symbol.places[0].end)
                if start is not None and end is not None and at is not None:
                    seen.add(d.name)
                    yield symbol, (start[0], end[0]), at

    def lookup(self, name: str, offset: int) -> Symbol | None:
        """What a name would mean at an offset."""
        for reading, shift in self.readings:
            for symbol in reading.names.visible(shift.nearest(offset)):
                if symbol.name == name:
                    return symbol
        found = (r.resolver.symbol(r.modules.scope.lookup(name), name) for r, _ in self.readings)
        return next(filter(None, found), None)

    def locals(self, offset: int) -> list[Symbol]:
        """What has a name in the body at an offset: the innermost first."""
        for reading, shift in self.readings:
            if found := list(reading.names.visible(shift.nearest(offset))):
                return found
        return []

    def definition(self, offset: int) -> ast.Definition | None:
        """The definition that an offset is in, of the text as it is."""
        return next((d for d in self.reading.module.definitions if d.span.start <= offset <= d.span.end), None)

    # --- what was elaborated

    def look(self) -> None:
        """Elaborate what the last edit touched: the step of training where it is in a train block, or predictions."""
        touched = self.definition(self._edited) if self._edited is not None else None
        run, self.diagnostics = look(self.reading.source, self._settings(), isinstance(touched, ast.Train))
        self._keep(run)

    def check(self) -> tuple[Run, Diagnosis] | None:
        """Everything that is wrong with the text: for a thread of its own. `checked` takes what it gives; None where
        the text was changed meanwhile."""
        run = self._checking = Run(self.text, str(self.path))
        try:
            return run, diagnose(run.text, self.path, Settings(met=run.met))
        except Stopped:
            return None

    def checked(self, run: Run, found: Diagnosis) -> bool:
        """Keep what a check found, unless the text has changed since."""
        if run.text != self.text:
            return False
        self.diagnostics, self.warnings = found.diagnostics, found.warnings
        if found.program is not None:  # what earlier texts were worth is known anew; of layers only looks know
            self._runs = [(r, s) for r, s in self._runs if r.text == self.text]
            run.sizes = dict(found.program.sizes)
        self._keep(run)
        return True

    def _keep(self, run: Run) -> None:
        self._runs = [(run, Shift.of(run.text, self.text)), *self._runs[: MOST_RUNS - 1]]

    def _settings(self) -> Settings:
        sizes = next((run.sizes for run, _ in self._runs if run.sizes), {})
        return checked(Settings(sizes=sizes, cache=False))

    def called(self, start: int) -> Span | None:
        """The call of the function that is named at an offset."""
        for run, shift in self._runs:
            there = shift.old(start)
            ends = sorted(end for at, end in run.values if at == there)
            if len(ends) > 0 and (found := shift.new(there or 0, ends[-1])):
                return Span(self.reading.source, *found)
        return None

    def worth(self, span: Span) -> list[Worth]:
        """What a place of the text as it is was worth when it was last elaborated; of several calls all."""
        for run, shift in self._runs:
            start, end = shift.old(span.start), shift.old(span.end)
            if start is not None and end is not None and (found := run.values.get((start, end))):
                return list(found)
        return []

    def parameters(self, span: Span) -> dict[str, int]:
        """Of the layers that a call at this place made: the paths, and how many parameters each has."""
        for run, shift in self._runs:
            start, end = shift.old(span.start), shift.old(span.end)
            parts = run.parts.get((start, end)) if start is not None and end is not None else None
            if parts:
                return {p: sum(n for v, n in run.variables.items() if v.startswith(f"{p}.")) for p in parts}
        return {}

    def parts_below(self, prefix: str) -> list[str]:
        """The names of the parts and parameters of a model or a part of one, whose path with a dot comes in."""
        found: dict[str, None] = {}
        for run, _ in self._runs:
            paths = [*run.variables, *(p for parts in run.parts.values() for p in parts)]
            found |= {p.removeprefix(prefix).split(".")[0]: None for p in paths if p.startswith(prefix)}
        return list(found)

    def call_at(self, path: str) -> Span | None:
        """Where the part of a model stands that has this path."""
        for run, shift in self._runs:
            for (start, end), parts in run.parts.items():
                if path in parts and (at := shift.new(start, end)):
                    return Span(Source(str(self.path), self.text), *at)
        return None

"""A text as it was read: its tokens, the tree of what is sound in it, and what its names mean.

A definition that does not parse is blanked, so that all others stand where they stood. What is asked about it is
answered from the last text that was whole: a `Shift` finds a place of one text in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...compiler.elaborate.modules import Modules
from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError, SourceError
from ...dsl.parser import parse, read_source
from ...dsl.source import Source, Span
from .names import Resolver, words_of
from .symbols import Names, Words


@dataclass(frozen=True, eq=False)
class Reading:
    """`errors` are what keeps the text from being whole."""

    source: Source
    errors: tuple[Diagnostic, ...]
    module: ast.Module
    modules: Modules

    @property
    def whole(self) -> bool:
        return not self.errors

    @property
    def words(self) -> Words:
        return words_of(self.source)

    @cached_property
    def resolver(self) -> Resolver:
        return Resolver(self.modules)

    @cached_property
    def names(self) -> Names:
        """What the names of the sound definitions mean."""
        return self.resolver.file(self.module, self.modules.scope)


def read(path: Path, text: str, texts: Mapping[Path, str] | None = None) -> Reading:
    """Read the text of a file, which may be wrong anywhere; `texts` are of files that are not, or not yet, as they are
    on disk."""
    source = Source(str(path), text)

    def imported(name: str, is_import: bool) -> Source:
        open_text = (texts or {}).get(Path(name).resolve())
        return _sound(Source(name, open_text) if open_text is not None else read_source(name, is_import))[0]

    sound, errors = _sound(source)
    while True:
        try:
            modules = Modules(sound, imported)
            return Reading(source, tuple(errors), modules.module, modules)
        except NncError as e:  # of what is defined twice, or imported
            errors += [d for d in e.diagnostics if d not in errors]
            sound = _without(sound, e.diagnostics)


def _sound(source: Source) -> tuple[Source, list[Diagnostic]]:
    """A source with blanks for the definitions that do not parse, and what is wrong with these."""
    try:
        parse(source)
    except SourceError as e:
        parsed = [s for s in words_of(source).sound if _parses(s)]
        return _blanked(source, parsed), list(e.diagnostics)
    return source, []


def _parses(span: Span) -> bool:
    try:
        parse(Source(span.source.name, span.text))
    except SourceError:
        return False
    return True


def _without(source: Source, told: Sequence[Diagnostic]) -> Source:
    """A source with blanks for the definitions that something is told of; for all imports, where it is told of others'
    text."""
    definitions = parse(source).definitions
    places = [d.span.start for d in told if d.span is not None and d.span.source is source]
    wrong = [d for d in definitions if any(d.span.start <= at < d.span.end for at in places)]
    wrong = wrong or [d for d in definitions if isinstance(d, ast.Import)] or list(definitions)
    return _blanked(source, [d.span for d in definitions if d not in wrong])


def _blanked(source: Source, kept: Sequence[Span]) -> Source:
    """A source of nothing but some stretches and comments."""
    text = list(source.text)
    for t in words_of(source).tokens:
        if not any(s.start <= t.span.start < s.end for s in kept):
            for k in range(t.span.start, t.span.end):
                text[k] = text[k] if text[k] == "\n" else " "
    return Source(source.name, "".join(text))


@dataclass(frozen=True, slots=True)
class Shift:
    """Places of an old text in a new one: what stands before and behind all that differs."""

    same: int  # characters at the start
    old_end: int  # where the common end begins
    new_end: int

    @staticmethod
    def of(old: str, new: str) -> Shift:
        if old == new:
            return Shift(len(old), len(old), len(new))
        most = min(len(old), len(new))
        same = next((k for k in range(most) if old[k] != new[k]), most)
        last = next((k for k in range(most - same) if old[-1 - k] != new[-1 - k]), most - same)
        return Shift(same, len(old) - last, len(new) - last)

    def old(self, offset: int) -> int | None:
        """Where an offset of the new text was; None where it was not."""
        if offset <= self.same:
            return offset
        return offset - self.new_end + self.old_end if offset >= self.new_end else None

    def nearest(self, offset: int) -> int:
        """Where it was, or where it begins to be new."""
        there = self.old(offset)
        return self.same if there is None else there

    def new(self, start: int, end: int) -> tuple[int, int] | None:
        """Where a stretch of the old text is; None where it was changed."""
        if end <= self.same:
            return start, end
        if start >= self.old_end:
            return start - self.old_end + self.new_end, end - self.old_end + self.new_end
        return None

"""A text as it was read: its tokens, the tree of what parses of it, and what its names mean.

Of what does not parse something may be known from the last text that was whole: a `Shift` finds a place of one text in
another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...compiler.elaborate.faults import Faults
from ...compiler.elaborate.modules import Modules
from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import SourceError
from ...dsl.parser import parse, read_source
from ...dsl.source import Source, Span
from .names import Resolver, words_of
from .symbols import Names, Words


@dataclass(frozen=True, eq=False)
class Reading:
    """`errors` are what keeps the text from being whole: what does not parse, what is defined twice, what cannot be
    imported."""

    source: Source
    errors: tuple[Diagnostic, ...]
    modules: Modules

    @property
    def whole(self) -> bool:
        return not self.errors

    @property
    def module(self) -> ast.Module:
        return self.modules.module

    @property
    def words(self) -> Words:
        return words_of(self.source)

    @cached_property
    def resolver(self) -> Resolver:
        return Resolver(self.modules)

    @cached_property
    def names(self) -> Names:
        """What the names of the file mean."""
        return self.resolver.file(self.module, self.modules.scope)

    @cached_property
    def sound(self) -> list[ast.Definition]:
        """The definitions that parse by themselves."""
        return [d for d in self.module.definitions if self.whole or _parses(d.span)]


def read(path: Path, text: str, texts: Mapping[Path, str] | None = None) -> Reading:
    """Read the text of a file, which may be wrong anywhere; `texts` are of files that are not, or not yet, as they are
    on disk."""
    source, faults = Source(str(path), text), Faults()

    def imported(name: str, is_import: bool) -> Source:
        open_text = (texts or {}).get(Path(name).resolve())
        return Source(name, open_text) if open_text is not None else read_source(name, is_import)

    modules = Modules(source, faults, imported)
    return Reading(source, tuple(d for e in faults.errors for d in e.diagnostics), modules)


def _parses(span: Span) -> bool:
    try:
        parse(Source(span.source.name, span.text))
    except SourceError:
        return False
    return True


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

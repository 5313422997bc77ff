"""What is wrong with a program, collected while elaboration goes on.

A statement that fails is told of and left; what it would have named is `POISON`, and so is whatever is made of it, in
silence: a fault has one message. Where no faults are collected, as in a compilation, the first is raised.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError


class Poisoned(Exception):
    """A value is needed that nobody knows, for a fault that was told of."""


class Faults:
    """Each fault once: one for a place, and one for a name that is unknown, however often it stands in a file.

    `unknown` are paths of layers and models of which not all is known that they contain. `sizes` says what happens
    where a size is not known when the model is made: that is "told"; or "raised", for the data may say the size; or
    "silent", for they could not be read."""

    def __init__(self) -> None:
        self._told: dict[tuple[Any, ...], NncError] = {}
        self.unknown: set[str] = set()
        self.sizes = "told"
        self._places: set[tuple[Any, ...]] = set()
        self._sizes: set[str] = set()

    @property
    def errors(self) -> list[NncError]:
        return list(self._told.values())

    @property
    def too_large(self) -> bool:
        """Whether something was found that nothing can go on behind."""
        return any(e.code == "E0502" for e in self.errors)

    def tell(self, e: NncError) -> None:
        for d in e.diagnostics:
            if not (d.code == "E0305" and self.sizes == "silent"):
                self._tell(d, type(e))

    def add(self, diagnostics: Iterable[Diagnostic], kind: type[NncError]) -> None:
        for d in diagnostics:
            self.tell(kind(d))

    def _tell(self, d: Diagnostic, kind: type[NncError]) -> None:
        key: tuple[Any, ...] = (d.code, d.message)
        if d.span is not None:
            file = d.span.source.name
            place = file, d.span.start, d.span.end
            if place in self._places:
                return
            self._places.add(place)
            key = (file, d.message.split("`")[-2]) if d.code == "E0201" else place
        before = self._told.get(key)
        if before is None or (d.span is not None and before.span is not None and d.span.start < before.span.start):
            self._told[key] = kind(d)

    def is_new_size(self, name: str) -> bool:
        """Whether nothing was told yet of a size that is not known when the model is made, however many need it."""
        new = name not in self._sizes
        if self.sizes != "raised":
            self._sizes.add(name)
        return new

    def ends(self, e: Exception) -> bool:
        """Whether nothing can go on behind a fault: what is too large would be so again; a size may come from the
        data, and then all begins anew."""
        code = getattr(e, "code", None)
        return code == "E0502" or (code == "E0305" and self.sizes == "raised")

    def inside(self, path: str) -> bool:
        """Whether something at a path, or around or below it, is not known."""
        return any(f"{path}.".startswith(f"{p}.") or f"{p}.".startswith(f"{path}.") for p in self.unknown)

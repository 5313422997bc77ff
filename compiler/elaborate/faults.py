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
        self.errors: list[NncError] = []
        self.unknown: set[str] = set()
        self.sizes = "told"
        self._keys: set[Any] = set()

    @property
    def too_large(self) -> bool:
        """Whether something was found that nothing can go on behind."""
        return any(e.code == "E0502" for e in self.errors)

    def tell(self, e: NncError) -> None:
        for d in e.diagnostics:
            if not (d.code == "E0305" and self.sizes == "silent") and self._is_new(d):
                self.errors.append(type(e)(d))

    def add(self, diagnostics: Iterable[Diagnostic], kind: type[NncError]) -> None:
        for d in diagnostics:
            self.tell(kind(d))

    def _is_new(self, d: Diagnostic) -> bool:
        keys: set[Any] = {(d.span.source.name, d.span.start, d.span.end) if d.span is not None else (d.code, d.message)}
        if d.code == "E0201" and d.span is not None:
            keys.add((d.message.split("`")[-2], d.span.source.name))
        new = not keys & self._keys
        self._keys |= keys
        return new

    def ends(self, e: Exception) -> bool:
        """Whether nothing can go on behind a fault: what is too large would be so again; a size may come from the
        data, and then all begins anew."""
        code = getattr(e, "code", None)
        return code == "E0502" or (code == "E0305" and self.sizes == "raised")

    def inside(self, path: str) -> bool:
        """Whether something at a path, or around or below it, is not known."""
        return any(f"{path}.".startswith(f"{p}.") or f"{p}.".startswith(f"{path}.") for p in self.unknown)

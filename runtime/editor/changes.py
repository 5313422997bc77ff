"""What an editor may change: names, what `help` advises, the layout; and what it may have done to the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import SourceError
from ...dsl.format import format
from ...dsl.parser import parse, read_source
from ...dsl.source import Source, Span
from .document import Document
from .reading import Reading, Shift, read
from .symbols import Symbol, is_word

MOST_FILES = 2000  # looked at for what imports a file


@dataclass(frozen=True, slots=True)
class Edit:
    """The text from `start` to `end` becomes `text`."""

    start: int
    end: int
    text: str


class Refused(Exception):
    """Why a name cannot be changed."""


# --- quick fixes


def fixes(document: Document, start: int, end: int) -> Iterator[tuple[Diagnostic, Edit]]:
    """What is advised for the errors between two offsets."""
    for d in document.diagnostics:
        for fix in d.fixes:
            shift = Shift.of(fix.span.source.text, document.text)
            at = shift.new(fix.span.start, fix.span.end) if fix.span.source.name == str(document.path) else None
            told = document.place(d)
            if at is not None and ((at[0] <= end and start <= at[1]) or (told and told[0] <= end and start <= told[1])):
                yield d, Edit(*at, fix.text)


# --- the layout


def formatted(document: Document) -> list[Edit]:
    """What makes the text canonical; where it does not parse, of what stands between the broken definitions."""
    reading = document.reading
    broken = _broken_lines(reading)
    edits = []
    for start, end in _stretches(reading.source, broken):
        piece = Source(reading.source.name, document.text[start:end])
        try:
            new = format(parse(piece), piece)
        except SourceError:
            continue
        if broken:  # the empty lines around it stay
            body = piece.text.strip("\n")
            lead = len(piece.text) - len(piece.text.lstrip("\n"))
            new = piece.text[:lead] + new.rstrip("\n") + piece.text[lead + len(body) :] if body else piece.text
        edits += _least(piece.text, new, start)
    return edits


def _broken_lines(reading: Reading) -> set[int]:
    """The lines of the tokens that are in no sound definition."""
    sound = [d.span for d in reading.sound]
    outside = (t.span for t in reading.words.tokens if not any(s.start <= t.span.start < s.end for s in sound))
    return {s.position[0] for s in outside if s.text.strip()}


def _stretches(source: Source, broken: set[int]) -> Iterator[tuple[int, int]]:
    start = at = 0
    for number, line in enumerate(source.text.splitlines(keepends=True), 1):
        if number in broken:
            if start < at:
                yield start, at
            start = at + len(line)
        at += len(line)
    if start < at:
        yield start, at


def _least(old: str, new: str, start: int) -> list[Edit]:
    """The one edit from a text to another, without what they have in common at both ends."""
    shift = Shift.of(old, new)
    if old == new:
        return []
    return [Edit(start + shift.same, start + shift.old_end, new[shift.same : shift.new_end])]


# --- names


def references(document: Document, symbol: Symbol, folders: Iterable[Path]) -> dict[Path, list[Span]]:
    """All places where something is named, by file: in this one, in what it imports, in what imports it."""
    found: dict[Path, dict[int, Span]] = {}

    def add(symbol: Symbol) -> None:
        for span in (*symbol.places, *symbol.uses):
            found.setdefault(Path(span.source.name).resolve(), {})[span.start] = span

    add(symbol)
    key = _key(symbol)
    if key is not None and symbol.kind not in ("value", "size", "index"):
        for path in _importing(key[0], folders):
            for same in _same(read(path, text_of(document, path), document.texts), key):
                add(same)
    return {path: [spans[k] for k in sorted(spans)] for path, spans in found.items()}


def _key(symbol: Symbol) -> tuple[Path, int] | None:
    """The same for a symbol that is met from two files; None for what only the compiler and the library know."""
    if symbol.place is None or symbol.place.source.name.startswith("std/"):
        return None
    return Path(symbol.place.source.name).resolve(), symbol.place.start


def _same(reading: Reading, key: tuple[Path, int]) -> list[Symbol]:
    """What a file knows under the key of a symbol."""
    return list({id(s): s for _, s in reading.names.at.values() if _key(s) == key}.values())


def text_of(document: Document, path: Path) -> str:
    if path == document.path:
        return document.text
    return document.texts[path] if path in document.texts else read_source(path).text


def _importing(path: Path, folders: Iterable[Path]) -> Iterator[Path]:
    """The files below some folders that import a file, directly or not."""
    wanted, left = {path.name}, []
    for other in islice((p for folder in folders for p in sorted(folder.rglob("*.nn"))), MOST_FILES):
        left.append((other.resolve(), other.read_text("utf-8", errors="replace")))
    while found := [x for x in left if any(f'"{w}"' in x[1] or f'/{w}"' in x[1] for w in wanted)]:
        for item in found:
            left.remove(item)
            wanted.add(item[0].name)
            if item[0] != path:
                yield item[0]


def rename(document: Document, symbol: Symbol, new: str, folders: Iterable[Path]) -> dict[Path, list[Edit]]:
    """The edits that give something another name, by file. Raises Refused where it cannot be told that all then means
    what it meant."""
    if not is_word(new):
        raise Refused(f"`{new}` is no name")
    if not symbol.places or symbol.kind == "file":
        raise Refused(f"`{symbol.name}` is the language's own")
    if symbol.places[0].source.name.startswith("std/"):
        raise Refused(f"`{symbol.name}` is of the standard library")
    where = references(document, symbol, folders)
    readings = {path: read(path, text_of(document, path), document.texts) for path in where}
    for path, reading in readings.items():
        if not reading.whole:
            raise Refused(f"{path.name} does not parse: {reading.errors[0].message}")
        unclear = next((o for o in reading.names.open if o.name == symbol.name), None)
        if unclear is not None:
            raise Refused(f"`{symbol.name}` at {unclear.span} may be the same name: only a run could tell")
    edits = {path: [Edit(s.start, s.end, new) for s in spans] for path, spans in where.items()}
    texts = {**document.texts, **{path: applied(readings[path].source.text, e) for path, e in edits.items()}}
    for path, reading in readings.items():
        after = read(path, texts[path], texts)
        if not after.whole:
            raise Refused(f"{path.name} would be wrong: {after.errors[0].message}")
        if _meanings(reading, edits[path]) != _meanings(after, []):
            raise Refused(f"`{new}` means something else in {path.name} already")
    return edits


def applied(text: str, edits: list[Edit]) -> str:
    for e in sorted(edits, key=lambda e: -e.start):
        text = text[: e.start] + e.text + text[e.end :]
    return text


def _meanings(reading: Reading, edits: list[Edit]) -> set[frozenset[int]]:
    """Which names of a file mean the same thing, by where they stand after some edits."""
    groups: dict[int, set[int]] = {}
    for start, (_, symbol) in reading.names.at.items():
        grown = sum(len(e.text) - (e.end - e.start) for e in edits if e.start < start)
        groups.setdefault(id(symbol), set()).add(start + grown)
    return {frozenset(g) for g in groups.values()}


# --- what can be done with the file


def lenses(document: Document) -> Iterator[tuple[int, str, str]]:
    """Above what, what it says, and the command of `nnc` that does it."""
    commands = {"train": ("▶ train", "train"), "test": ("▶ test", "test"), "model": ("show", "show")}
    for reading, shift in document.readings:
        for d in reading.module.definitions:
            kind = "train" if isinstance(d, ast.Train) else "test" if isinstance(d, ast.Test) else ""
            kind = kind or ("model" if isinstance(d, ast.Layer) and d.top else "")
            at = shift.new(d.span.start, d.span.start)
            if kind and at is not None:
                yield at[0], *commands[kind]

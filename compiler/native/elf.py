"""Object files as they come from LLVM: which symbols they have, and how large they are. ELF, little-endian, of 32 or 64
bits ("Tool Interface Standard: Executable and Linking Format", 1.2, 1995)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError
from ...dsl.record import dataclass

_SYMTAB = 2  # the type of a section
_ALLOC, _WRITE = 2, 1  # flags of sections


@dataclass(frozen=True, slots=True)
class Section:
    type: int
    flags: int
    offset: int
    size: int
    link: int


def symbols(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(defined, undefined) global symbols, each sorted. Raises `InternalError` (E0901) for what is no such object."""
    defined: set[str] = set()
    undefined: set[str] = set()
    try:
        sections, wide = _sections(data)
        for name_at, info, section in _entries(data, sections, wide):
            if info >> 4:  # not local
                name = data[name_at : data.index(b"\0", name_at)].decode()
                (defined if section else undefined).add(name)
    except (struct.error, IndexError, ValueError) as e:
        raise _bad() from e
    return tuple(sorted(defined)), tuple(sorted(undefined - {"_GLOBAL_OFFSET_TABLE_"}))


def flash(data: bytes) -> int:
    """Bytes of code and constants, which are only read while a program runs."""
    sections, _ = _sections(data)
    return sum(s.size for s in sections if s.flags & _ALLOC and not s.flags & _WRITE)


def writable(data: bytes) -> int:
    """Bytes of globals that are written: of ours there are none."""
    sections, _ = _sections(data)
    return sum(s.size for s in sections if s.flags & _ALLOC and s.flags & _WRITE)


def _bad() -> InternalError:
    return InternalError(Diagnostic("E0901", "the object is not a little-endian ELF file"))


def _sections(data: bytes) -> tuple[list[Section], bool]:
    """All sections, and whether addresses have 64 bits."""
    if len(data) < 52 or data[:4] != b"\x7fELF" or data[4] not in (1, 2) or data[5] != 1:
        raise _bad()
    wide = data[4] == 2
    (table,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
    size, count = struct.unpack_from("<HH", data, 58 if wide else 46)
    form = "<IIQQQQI" if wide else "<IIIIIII"
    rows = [struct.unpack_from(form, data, table + k * size) for k in range(count)]
    return [Section(type_, flags, offset, n, link) for _, type_, flags, _, offset, n, link in rows], wide


def _entries(data: bytes, sections: list[Section], wide: bool) -> Iterator[tuple[int, int, int]]:
    """Of each symbol where its name stands, its kind, its section (0 for none)."""
    for s in (s for s in sections if s.type == _SYMTAB):
        names, step = sections[s.link].offset, 24 if wide else 16
        for at in range(s.offset + step, s.offset + s.size, step):
            if wide:
                name, info, _, section = struct.unpack_from("<IBBH", data, at)
            else:
                name, _, _, info, _, section = struct.unpack_from("<IIIBBH", data, at)
            yield names + name, info, section

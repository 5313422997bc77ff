"""A shared object from the one object that LLVM makes of a network: what a linker would do, without one.

In: an ELF object for x86-64 or aarch64, position independent, in which nothing is undefined. Out: a library that
`dlopen` takes: its sections in three pages' worth of segments, read, run and dynamic, and a table of its symbols.
Every reference is to a place in it, so nothing is left for the loader to do. Or, for this process, only what runs, in
which calls of some functions may lead outside.

"System V Application Binary Interface, AMD64 Architecture Processor Supplement"; "ELF for the Arm 64-bit Architecture";
"Tool Interface Standard: Executable and Linking Format" (1.2, 1995).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError
from ...dsl.record import dataclass

_X86_64, _AARCH64 = 62, 183
_PAGES = {_X86_64: 1 << 12, _AARCH64: 1 << 16}  # bytes of the largest
_HEADER = "<IIQQQQIIQQ"  # of a section
_ALLOC, _EXECUTED = 2, 4  # flags of sections
_NOBITS, _SYMTAB, _RELA = 8, 2, 4  # types of sections
_READ, _RUN = 4, 5  # flags of segments


@dataclass(slots=True)
class _Section:
    index: int
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    address: int = 0


def link(data: bytes, name: str) -> bytes:
    """The library, which calls itself `name`."""
    sections = list(_sections(data))
    machine = int.from_bytes(data[18:20], "little")
    page = _PAGES[machine]
    kept = _kept(data, sections)
    exported = sorted((n, s, at) for n, s, at, binding in _symbols(data, sections) if binding == 1 and s)
    names = b"\0" + b"".join(n.encode() + b"\0" for n, _, _ in exported) + name.encode() + b"\0"
    table_bytes = 24 * (1 + len(exported))
    hashed = _hash([n for n, _, _ in exported])
    head = 64 + 56 * 5
    at_hash = _up(head, 8)
    at_symbols = _up(at_hash + len(hashed), 8)
    at_names = at_symbols + table_bytes
    end = _place([s for s in kept if not s.flags & _EXECUTED], at_names + len(names))
    text = _up(end, page)
    text_end = _place([s for s in kept if s.flags & _EXECUTED], text)
    dynamic = _up(text_end, page)
    placed = {s.index: s for s in kept}
    image = _image(dynamic + 16 * 7, data, sections, kept)
    image[at_hash : at_hash + len(hashed)] = hashed
    image[at_names : at_names + len(names)] = names
    where = 1
    for k, (n, section, value) in enumerate(exported, 1):
        # global, a function or an object, in the section of code or of constants (see `_headers`)
        kind, place = (0x12, 5) if placed[section].flags & _EXECUTED else (0x11, 4)
        entry = struct.pack("<IBBHQQ", where, kind, 0, place, placed[section].address + value, 0)
        image[at_symbols + 24 * k : at_symbols + 24 * (k + 1)] = entry
        where += len(n.encode()) + 1
    tags = ((14, where), (4, at_hash), (5, at_names), (6, at_symbols), (10, len(names)), (11, 24), (0, 0))
    image[dynamic:] = b"".join(struct.pack("<QQ", *t) for t in tags)
    segments = (
        (1, _READ, 0, end, page),
        (1, _RUN, text, text_end - text, page),
        (1, 6, dynamic, len(image) - dynamic, page),
        (2, 6, dynamic, len(image) - dynamic, 8),
        (0x6474E551, 6, 0, 0, 16),  # the stack is not run
    )
    parts = (
        (".hash", 5, 2, at_hash, len(hashed), 2, 0, 8, 4),
        (".dynsym", 11, 2, at_symbols, table_bytes, 3, 1, 8, 24),
        (".dynstr", 3, 2, at_names, len(names), 0, 0, 1, 0),
        (".rodata", 1, 2, at_names + len(names), end - at_names - len(names), 0, 0, 1, 0),
        (".text", 1, 6, text, text_end - text, 0, 0, 16, 0),
        (".dynamic", 6, 3, dynamic, len(image) - dynamic, 3, 0, 8, 16),
    )
    headers, at_headers, count = _headers(parts, _up(len(image), 8))
    image += b"\0" * (_up(len(image), 8) - len(image)) + headers
    how = (3, machine, 1, 0, 64, at_headers, 0, 64, 56, 5, 64, count, count - 1)
    image[:64] = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", *how)
    image[64:head] = b"".join(struct.pack("<IIQQQQQQ", t, f, at, at, at, n, n, a) for t, f, at, n, a in segments)
    return bytes(image)


def laid(data: bytes, outside: Mapping[str, int]) -> tuple[bytes, dict[str, int]]:
    """A block that runs wherever pages of memory hold it, and where in it the global symbols are. It calls functions
    that are `outside`, at these addresses."""
    sections = list(_sections(data))
    kept = _kept(data, sections)
    at = _up(_place(kept, 0), 16)
    stubs = {name: at + _STUB_BYTES * k for k, name in enumerate(outside)}
    image = _image(at + _STUB_BYTES * len(stubs), data, sections, kept, stubs)
    jump = _JUMPS[int.from_bytes(data[18:20], "little")]
    for name, stub in stubs.items():
        image[stub : stub + 16] = jump + outside[name].to_bytes(8, "little")
    places = {s.index: s.address for s in kept}
    symbols = _symbols(data, sections)
    return bytes(image), {n: places[s] + value for n, s, value, binding in symbols if binding == 1 and s in places}


def _kept(data: bytes, sections: list[_Section]) -> list[_Section]:
    """What is there while it runs; of data that are written there are none."""
    return [
        s for s in sections if s.flags & _ALLOC and s.type != _NOBITS and s.size and not _unwinds(data, s, sections)
    ]


def _image(
    nbytes: int, data: bytes, sections: list[_Section], kept: list[_Section], stubs: Mapping[str, int] | None = None
) -> bytearray:
    """The sections where they are placed, their references resolved."""
    image = bytearray(nbytes)
    for s in kept:
        image[s.address : s.address + s.size] = data[s.offset : s.offset + s.size]
    machine = int.from_bytes(data[18:20], "little")
    _relocate(image, data, sections, {s.index: s for s in kept}, machine, stubs or {})
    return image


def _headers(parts: Sequence[tuple[str, int, int, int, int, int, int, int, int]], at: int) -> tuple[bytes, int, int]:
    """The table of sections, which linkers read and loaders do not, with its names before it: bytes, where the table
    begins, how many there are. A part is (name, type, flags, address, bytes, link, info, alignment, bytes of an entry).
    """
    names = b"\0" + b"".join(p[0].encode() + b"\0" for p in parts) + b".shstrtab\0"
    rows, where = [bytes(64)], 1
    for name, type_, flags, address, nbytes, linked, info, alignment, each in parts:
        place = (address, address, nbytes, linked, info, alignment, each)
        rows.append(struct.pack("<IIQQQQIIQQ", where, type_, flags, *place))
        where += len(name) + 1
    rows.append(struct.pack("<IIQQQQIIQQ", where, 3, 0, 0, at, len(names), 0, 0, 1, 0))
    begin = _up(at + len(names), 8)
    return names + bytes(begin - at - len(names)) + b"".join(rows), begin, len(rows)


def _bad(what: str) -> InternalError:
    return InternalError(Diagnostic("E0901", f"the object cannot be linked: {what}"))


def _sections(data: bytes) -> Iterator[_Section]:
    if data[:6] != b"\x7fELF\2\1" or int.from_bytes(data[18:20], "little") not in _PAGES:
        raise _bad("it is not for x86-64 or aarch64")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    for k in range(count):
        _, type_, flags, _, offset, n, link_, info, alignment, _ = struct.unpack_from(
            "<IIQQQQIIQQ", data, table + k * size
        )
        yield _Section(k, type_, flags, offset, n, link_, info, alignment)


def _unwinds(data: bytes, s: _Section, sections: list[_Section]) -> bool:
    """Whether a section is for exceptions and debuggers: nothing here throws."""
    (names,) = struct.unpack_from("<H", data, 62)
    (table,) = struct.unpack_from("<Q", data, 40)
    (name,) = struct.unpack_from("<I", data, table + s.index * 64)
    at = sections[names].offset + name
    return data[at : data.index(b"\0", at)] == b".eh_frame"


def _symbols(data: bytes, sections: list[_Section]) -> Iterator[tuple[str, int, int, int]]:
    """The name of each symbol, its section (0: none), its value and how it is bound."""
    for s in (s for s in sections if s.type == _SYMTAB):
        names = sections[s.link].offset
        for at in range(s.offset, s.offset + s.size, 24):
            name, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            start = names + name
            yield data[start : data.index(b"\0", start)].decode(), section, value, info >> 4


def _place(sections: list[_Section], at: int) -> int:
    for s in sections:
        s.address = _up(at, max(1, s.alignment))
        at = s.address + s.size
    return at


def _relocate(
    image: bytearray,
    data: bytes,
    sections: list[_Section],
    placed: Mapping[int, _Section],
    machine: int,
    stubs: Mapping[str, int],
) -> None:
    symbols = list(_symbols(data, sections))
    for r in (s for s in sections if s.type == _RELA and s.info in placed):
        for at in range(r.offset, r.offset + r.size, 24):
            offset, info, addend = struct.unpack_from("<QQq", data, at)
            name, section, value, _ = symbols[info >> 32]
            written = _WRITERS.get((machine, info & 0xFFFFFFFF))
            called = stubs.get(name) if not section and info & 0xFFFFFFFF in _CALLS[machine] else None
            if written is None or (section not in placed and called is None):
                raise _bad(f"a relocation of kind {info & 0xFFFFFFFF} to '{name}'")
            to = placed[section].address + value if called is None else called
            place = placed[r.info].address + offset
            (word,) = struct.unpack_from("<I", image, place)
            word = written(word, to + addend, place)
            struct.pack_into("<I", image, place, word & 0xFFFFFFFF)


def _from_here(word: int, to: int, place: int) -> int:
    """How far away, in all 32 bits."""
    return to - place


def _page_of(word: int, to: int, place: int) -> int:
    """`adrp`: how many pages of 4 KB away, in 21 bits."""
    n = (to >> 12) - (place >> 12)
    return word | (n & 3) << 29 | (n >> 2 & 0x7FFFF) << 5


def _in_page(shift: int) -> Callable[[int, int, int], int]:
    """Where in such a page, in elements that an instruction loads or adds."""
    return lambda word, to, place: word | (to & 0xFFF) >> shift << 10


def _branch(word: int, to: int, place: int) -> int:
    """`b`, `bl`: how many instructions away, in 26 bits."""
    return word | (to - place) >> 2 & 0x3FFFFFF


# what stands in 32 bits that refer to an address: (machine, kind of relocation) -> (the bits, address, place) -> bits
_WRITERS: Mapping[tuple[int, int], Callable[[int, int, int], int]] = {
    (_X86_64, 2): _from_here,  # PC32
    (_X86_64, 4): _from_here,  # PLT32
    (_AARCH64, 261): _from_here,  # PREL32
    (_AARCH64, 275): _page_of,  # ADR_PREL_PG_HI21
    (_AARCH64, 277): _in_page(0),  # ADD_ABS_LO12_NC
    (_AARCH64, 278): _in_page(0),  # LDST8_ABS_LO12_NC, and of 16, 32, 64 and 128 bits
    (_AARCH64, 284): _in_page(1),
    (_AARCH64, 285): _in_page(2),
    (_AARCH64, 286): _in_page(3),
    (_AARCH64, 299): _in_page(4),
    (_AARCH64, 282): _branch,  # JUMP26
    (_AARCH64, 283): _branch,  # CALL26
}
_CALLS = {_X86_64: (4,), _AARCH64: (282, 283)}
# `jmp *[rip + 2]`; `ldr x16, [pc + 8]`, `br x16`: to the address after these 8 bytes
_JUMPS = {_X86_64: bytes.fromhex("ff25020000009090"), _AARCH64: bytes.fromhex("5000005800021fd6")}
_STUB_BYTES = 16


def _hash(names: list[str]) -> bytes:
    """The table by which a loader finds a symbol: chains of those whose names have one hash, modulo the buckets."""
    buckets = [0] * max(1, len(names))
    chains = [0] * (1 + len(names))
    for k, name in enumerate(names, 1):
        h = 0
        for byte in name.encode():
            h = (h << 4) + byte
            high = h & 0xF0000000
            h = (h ^ high >> 24) & ~high
        b = h % len(buckets)
        chains[k], buckets[b] = buckets[b], k
    return struct.pack(f"<II{len(buckets)}I{len(chains)}I", len(buckets), len(chains), *buckets, *chains)


def _up(n: int, to: int) -> int:
    return -(-n // to) * to

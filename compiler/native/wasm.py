"""A WebAssembly module from the one object that LLVM makes of a network: what a linker would do, without one.

In: an object (WebAssembly tool conventions, "Linking", version 2). Out: a module that imports nothing and exports its
functions, its memory, and as numbers the addresses of its constants and of the first byte that is free (`heap`). There
is one object and nothing is undefined in it, so no index of a function or type changes: data get addresses, functions
whose address is taken places in the table, and what waited for these is patched.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError
from ...dsl.record import dataclass, field

STACK = 1 << 16  # bytes, below all data: what overflows it is outside of the memory, and traps
PAGE = 1 << 16
_HEAD = b"\0asm\1\0\0\0"
_TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _ELEMENT, _CODE, _DATA = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)
_SEGMENTS, _SYMBOLS = 5, 8  # subsections of "linking"
_LOCAL, _UNDEFINED, _NAMED = 2, 16, 64  # flags of symbols
_OF_FUNCTION, _OF_DATA, _OF_SECTION = 0, 1, 3  # kinds of symbols
_INDEX_LEB, _TABLE_SLEB, _TABLE_I32, _ADDRESS_LEB, _ADDRESS_SLEB, _ADDRESS_I32 = range(6)  # relocations
_KEPT = (6, 7, 20)  # of types, globals and tables: their indices stay
_ADDEND = (_ADDRESS_LEB, _ADDRESS_SLEB, _ADDRESS_I32)


class _Reader:
    """Bytes from a place on."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None):
        self.data, self.at, self.end = data, at, len(data) if end is None else end

    def unsigned(self) -> int:
        return self._leb()[0]

    def signed(self) -> int:
        value, bits = self._leb()
        return value - (1 << bits) if value >> (bits - 1) & 1 else value

    def _leb(self) -> tuple[int, int]:
        value = bits = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << bits
            bits += 7
            if byte < 128:
                return value, bits

    def take(self, n: int) -> bytes:
        self.at += n
        return self.data[self.at - n : self.at]

    def name(self) -> str:
        return self.take(self.unsigned()).decode()


@dataclass(slots=True)
class _Symbol:
    kind: int
    flags: int
    name: str = ""
    index: int = 0  # of the function, or of the segment
    offset: int = 0


@dataclass(slots=True)
class _Object:
    sections: dict[int, bytes] = field(default_factory=dict)
    symbols: list[_Symbol] = field(default_factory=list)
    alignments: list[int] = field(default_factory=list)  # of the segments
    relocations: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=dict)  # (type, at, index, addend)


def symbols(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(defined, undefined) functions and data that are not local, each sorted."""
    made = _read(data)
    found = [s for s in made.symbols if s.kind in (_OF_FUNCTION, _OF_DATA) and not s.flags & _LOCAL]
    defined = sorted(s.name for s in found if not s.flags & _UNDEFINED)
    return tuple(defined), tuple(sorted(_imports(made)))


def size(data: bytes) -> int:
    """Bytes of code and data of an object."""
    made = _read(data)
    return sum(len(made.sections.get(k, b"")) for k in (_CODE, _DATA))


def link(data: bytes, hidden: str = "") -> bytes:
    """The module. `hidden` is a function that is not exported."""
    made = _read(data)
    if needed := _imports(made):
        raise _bad(f"it needs {needed[0]}")
    contents, starts = _placed(made)
    table: dict[int, int] = {}  # function -> place
    code = _patched(made, _CODE, bytearray(made.sections.get(_CODE, b"\0")), starts, table)
    segment = _patched(made, _DATA, contents, starts, table, {k: at - STACK for k, at in enumerate(starts)})
    functions = [s for s in made.symbols if s.kind == _OF_FUNCTION and not s.flags & (_LOCAL | _UNDEFINED)]
    exports = [_text("memory") + b"\2\0"]
    exports += [_text(s.name) + b"\0" + _leb(s.index) for s in functions if s.name != hidden]
    pages = -(-(STACK + len(segment)) // PAGE)
    constants = [s for s in made.symbols if s.kind == _OF_DATA and not s.flags & (_LOCAL | _UNDEFINED)]
    addresses = {"heap": _aligned(STACK + len(segment), 16), **{s.name: starts[s.index] + s.offset for s in constants}}
    exports += [_text(name) + b"\3" + _leb(k) for k, name in enumerate(addresses, 1)]
    numbers = [b"\x7f\0\x41" + _sleb(at) + b"\x0b" for at in addresses.values()]
    parts = {
        _TYPE: made.sections[_TYPE],
        _FUNCTION: made.sections[_FUNCTION],
        _TABLE: _many([b"\x70\0" + _leb(1 + len(table))]),
        _MEMORY: _many([b"\0" + _leb(pages)]),
        _GLOBAL: _many([b"\x7f\1\x41" + _sleb(STACK) + b"\x0b", *numbers]),
        _EXPORT: _many(exports),
        _ELEMENT: _many([b"\0\x41\1\x0b" + _many([_leb(f) for f in table])] if table else []),
        _CODE: bytes(code),
        _DATA: _many([b"\0\x41" + _sleb(STACK) + b"\x0b" + _leb(len(segment)) + bytes(segment)]),
    }
    return _HEAD + b"".join(bytes([k]) + _leb(len(body)) + body for k, body in parts.items())


def _read(data: bytes) -> _Object:
    try:
        return _parsed(data)
    except (IndexError, UnicodeDecodeError, KeyError) as e:
        raise _bad("it ends too early") from e


def _bad(what: str) -> InternalError:
    return InternalError(Diagnostic("E0901", f"the object is no WebAssembly that can be linked: {what}"))


def _parsed(data: bytes) -> _Object:
    if data[:8] != _HEAD:
        raise _bad("another format")
    made, r = _Object(), _Reader(data, 8)
    order: list[int] = []  # the kinds of sections, by their index
    while r.at < r.end:
        kind = r.take(1)[0]
        body = r.take(r.unsigned())
        order.append(kind)
        if kind:
            made.sections[kind] = body
            continue
        inside = _Reader(body)
        name = inside.name()
        if name == "linking":
            _linking(made, inside)
        elif name.startswith("reloc."):
            of = order[inside.unsigned()]
            if of in (_CODE, _DATA):
                made.relocations[of] = list(_relocations(inside))
    return made


def _imports(made: _Object) -> list[str]:
    """The functions that are imported; the memory, the pointer of the stack and the table the module will have."""
    r, functions = _Reader(made.sections.get(_IMPORT, b"\0")), []
    for _ in range(r.unsigned()):
        r.name()
        name, kind = r.name(), r.take(1)[0]
        if kind == 0:
            functions.append(name)
            r.unsigned()
        elif kind in (1, 2):
            r.take(kind == 1)
            limits = r.unsigned()
            r.unsigned()
            if limits & 1:
                r.unsigned()
        else:
            r.take(2)
    return functions


def _linking(made: _Object, r: _Reader) -> None:
    r.unsigned()  # the version
    while r.at < r.end:
        kind = r.take(1)[0]
        part = _Reader(r.take(r.unsigned()))
        if kind == _SEGMENTS:
            for _ in range(part.unsigned()):
                part.name()
                made.alignments.append(1 << part.unsigned())
                part.unsigned()
        elif kind == _SYMBOLS:
            made.symbols = [_symbol(part) for _ in range(part.unsigned())]


def _symbol(r: _Reader) -> _Symbol:
    s = _Symbol(r.take(1)[0], r.unsigned())
    if s.kind == _OF_DATA:
        s.name = r.name()
        if not s.flags & _UNDEFINED:
            s.index, s.offset = r.unsigned(), r.unsigned()
            r.unsigned()
        return s
    s.index = r.unsigned()
    if s.kind != _OF_SECTION and (not s.flags & _UNDEFINED or s.flags & _NAMED):
        s.name = r.name()
    return s


def _relocations(r: _Reader) -> Iterator[tuple[int, int, int, int]]:
    for _ in range(r.unsigned()):
        kind, at, index = r.take(1)[0], r.unsigned(), r.unsigned()
        yield kind, at, index, r.signed() if kind in _ADDEND else 0


def _placed(made: _Object) -> tuple[bytearray, list[int]]:
    """All segments one behind the other, as they want to be aligned, and the address of each."""
    r, contents, starts = _Reader(made.sections.get(_DATA, b"\0")), bytearray(), []
    for k in range(r.unsigned()):
        r.unsigned(), r.take(1), r.signed(), r.take(1)  # in memory 0, at a constant, which says nothing yet
        body = r.take(r.unsigned())
        contents += b"\0" * (_aligned(len(contents), made.alignments[k]) - len(contents))
        starts.append(STACK + len(contents))
        contents += body
    return contents, starts


def _patched(
    made: _Object,
    section: int,
    body: bytearray,
    starts: list[int],
    table: dict[int, int],
    moved: dict[int, int] | None = None,
) -> bytearray:
    """With all that waited for addresses and places in the table. `moved` says where segments went in the body."""
    where = _segments(made) if moved is not None else []
    for kind, at, index, addend in made.relocations.get(section, []):
        if kind in _KEPT:
            continue
        s = made.symbols[index]
        if kind in (_TABLE_SLEB, _TABLE_I32):
            value = table.setdefault(s.index, 1 + len(table))
        elif kind == _INDEX_LEB:
            continue
        elif kind in _ADDEND:
            value = starts[s.index] + s.offset + addend
        else:
            raise _bad(f"a relocation of kind {kind}")
        if moved is not None:
            k = max(k for k, start in enumerate(where) if start <= at)
            at = moved[k] + at - where[k]
        if kind in (_TABLE_I32, _ADDRESS_I32):
            body[at : at + 4] = value.to_bytes(4, "little")
        else:
            padded = [value >> 7 * k & 127 | 128 for k in range(4)] + [value >> 28 & 127]
            body[at : at + 5] = bytes(padded)
    return body


def _segments(made: _Object) -> list[int]:
    """Where in the section of data the bytes of each segment begin."""
    r, found = _Reader(made.sections.get(_DATA, b"\0")), []
    for _ in range(r.unsigned()):
        r.unsigned(), r.take(1), r.signed(), r.take(1)
        n = r.unsigned()
        found.append(r.at)
        r.take(n)
    return found


def _aligned(n: int, to: int) -> int:
    return -(-n // to) * to


def _leb(n: int) -> bytes:
    out = bytearray()
    while True:
        n, low = n >> 7, n & 127
        out.append(low | 128 if n else low)
        if not n:
            return bytes(out)


def _sleb(n: int) -> bytes:
    out = bytearray()
    while True:
        low, n = n & 127, n >> 7
        last = (n == 0 and not low & 64) or (n == -1 and low & 64)
        out.append(low if last else low | 128)
        if last:
            return bytes(out)


def _text(name: str) -> bytes:
    return _leb(len(name.encode())) + name.encode()


def _many(items: list[bytes]) -> bytes:
    return _leb(len(items)) + b"".join(items)

"""A static library: objects in the common archive format, with the table of symbols that linkers ask (System V)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_MAGIC = b"!<arch>\n"


def archive(members: Mapping[str, tuple[bytes, Sequence[str]]]) -> bytes:
    """Of objects by name (of at most 15 characters), each with the symbols that it defines. No time, owner or other
    circumstance is in it, so equal objects give equal bytes."""
    symbols = [(name, member) for member, (_, defined) in members.items() for name in defined]
    names = b"".join(name.encode() + b"\0" for name, _ in symbols)
    table_bytes = 4 + 4 * len(symbols) + len(names)
    at, offset = {}, len(_MAGIC) + 60 + table_bytes + table_bytes % 2
    for member, (data, _) in members.items():
        at[member] = offset
        offset += 60 + len(data) + len(data) % 2
    table = struct.pack(f">I{len(symbols)}I", len(symbols), *(at[member] for _, member in symbols)) + names
    parts = [_MAGIC, *_member("/", table)]
    for member, (data, _) in members.items():
        parts += _member(f"{member}/", data)
    return b"".join(parts)


def _member(name: str, data: bytes) -> list[bytes]:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(data):<10}`\n".encode()
    return [head, data, b"\n" * (len(data) % 2)]

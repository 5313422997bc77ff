"""The parser's tables: `grammar.lark` -> a Lark parser, from a private cache where there is one.

Making the tables takes 0.2 s, reading them 10 ms. The file's name holds a hash of everything the tables depend on, and
a hash of its own content, so that a damaged one is not used; nothing that happens to the cache is ever an error. One
process makes them at a time: whoever comes meanwhile waits and finds them made.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import lark
from lark.lexer import Lexer

from . import actions
from .home import default_directory, make_private

GRAMMAR = Path(__file__).with_name("grammar.lark")


class Fed(Lexer):
    """Stands where Lark wants a lexer: tokens are fed one at a time, there is no text to lex."""

    def __init__(self, lexer_conf: object) -> None: ...

    def lex(self, lexer_state: object, parser_state: object) -> Iterator[lark.Token]:
        raise NotImplementedError


@cache
def load_tables() -> lark.Lark:
    """The parser for one definition, its actions bound."""
    directory = cache_directory()
    if directory is None:
        return _bind(_saved(build_tables()))
    try:
        data = _stored(directory)
        if data is None:
            with _alone(directory):
                data = _stored(directory) or _store(directory, _saved(build_tables()))
        return _bind(data)
    except OSError:  # full, read-only, gone: the cache is a convenience
        return _bind(_saved(build_tables()))


def begin_tables() -> None:
    """Where the tables are not in the cache, have a process of its own make them, while this one imports NumPy,
    networkx and LLVM, which takes as long. It forks: for a process that has no threads yet."""
    directory = cache_directory()
    if directory is None or not hasattr(os, "fork") or any(directory.glob(f"{_stem()}-*.tables")):
        return
    with suppress(OSError):
        if os.fork() == 0:
            try:
                load_tables()
            finally:
                os._exit(0)


def _stem() -> str:
    depends = (GRAMMAR.read_text(encoding="utf-8"), lark.__version__, sys.version)
    return f"grammar-{hashlib.sha256(chr(0).join(depends).encode()).hexdigest()[:16]}"


def _stored(directory: Path) -> bytes | None:
    for path in sorted(directory.glob(f"{_stem()}-*.tables")):
        data = path.read_bytes()
        if path.stem.endswith(_digest(data)):
            return data
    return None


def _store(directory: Path, data: bytes) -> bytes:
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        made = Path(folder) / "tables"
        made.write_bytes(data)
        os.replace(made, directory / f"{_stem()}-{_digest(data)}.tables")
    return data


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """While no other process is in here, where the system has such locks; the lock ends with its process."""
    try:
        from fcntl import LOCK_EX, flock
    except ImportError:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        flock(descriptor, LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def build_tables() -> lark.Lark:
    """Lark's LALR(1) tables over our own tokens, without actions. Strict: a conflict in the grammar is an error."""
    grammar = GRAMMAR.read_text(encoding="utf-8")
    return lark.Lark(grammar, start="definition", parser="lalr", lexer=Fed, keep_all_tokens=True, strict=True)


def _saved(tables: lark.Lark) -> bytes:
    file = io.BytesIO()
    tables.save(file)
    return file.getvalue()


def _bind(data: bytes) -> lark.Lark:
    # `Lark.load` takes no transformer; parsers that Lark generates to stand alone call `_load` in this way.
    return lark.Lark.__new__(lark.Lark)._load(io.BytesIO(data), transformer=actions)


def cache_directory() -> Path | None:
    """The part of nnc's cache that holds tables, or None: what Lark keeps there is a pickle, so it must be ours."""
    try:
        home = default_directory()
        return None if home is None else make_private(make_private(home) / "grammar")
    except OSError:
        return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

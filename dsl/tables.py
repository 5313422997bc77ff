"""The parser's tables: `grammar.lark` -> a Lark parser, from a private cache where there is one.

Making the tables takes 0.1 s, reading them 5 ms. The file's name holds a hash of everything the tables depend on, and a hash of
its own content, so that a damaged one is not used; nothing that happens to the cache is ever an error.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

import lark
from lark.lexer import Lexer

from . import actions

GRAMMAR = Path(__file__).with_name("grammar.lark")


class Fed(Lexer):
    """Stands where Lark wants a lexer: tokens are fed one at a time, there is no text to lex."""

    def __init__(self, lexer_conf: object) -> None: ...

    def lex(self, lexer_state: object, parser_state: object = None) -> object:
        raise NotImplementedError


@cache
def load_tables() -> lark.Lark:
    """The parser for one definition, its actions bound."""
    directory = cache_directory()
    if directory is None:
        return build_tables()
    key = hashlib.sha256(f"{lark.__version__}\0{GRAMMAR.read_text(encoding='utf-8')}".encode()).hexdigest()[:16]
    try:
        for path in sorted(directory.glob(f"grammar-{key}-*.tables")):
            if path.stem.endswith(_digest(path)):
                return build_tables(cache=path)
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            made = Path(folder) / "tables"
            tables = build_tables(cache=made)
            os.replace(made, directory / f"grammar-{key}-{_digest(made)}.tables")
            return tables
    except OSError:  # full, read-only, gone: the cache is a convenience
        return build_tables()


def build_tables(cache: Path | None = None, strict: bool = False) -> lark.Lark:
    """Lark's LALR(1) parser over our own tokens; `cache` is read if it exists, and written otherwise."""
    return lark.Lark(
        GRAMMAR.read_text(encoding="utf-8"), start="definition", parser="lalr", lexer=Fed, transformer=actions,
        keep_all_tokens=True, strict=strict, cache=str(cache) if cache else False,
    )  # fmt: skip


def cache_directory() -> Path | None:
    """A directory that only this user can write, or None: what Lark keeps there is a pickle, so it must be ours."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(base) / "nnc"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return None
    return directory


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

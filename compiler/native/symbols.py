"""What an object defines and what it needs: nothing but what is allowed is loaded or left to a linker."""

from __future__ import annotations

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError
from . import elf, wasm
from .target import THREADS


def symbols(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(defined, undefined) global symbols of an object, each sorted."""
    return wasm.symbols(data) if data[:4] == b"\0asm" else elf.symbols(data)


def check_symbols(data: bytes, allowed: frozenset[str] = THREADS) -> tuple[str, ...]:
    """The defined symbols; an undefined one that is not allowed is our fault, and would crash when called."""
    defined, undefined = symbols(data)
    for name in undefined:
        if name not in allowed:
            raise InternalError(Diagnostic("E0901", f"generated code needs '{name}', which it may not call"))
    return defined

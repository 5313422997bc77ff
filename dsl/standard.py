"""The definitions of the standard library with their documentation: for `nnc doc` and the reference."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from . import ast
from .parser import parse
from .source import Source

STD = Path(__file__).with_name("std")
Definition = ast.Function | ast.Layer | ast.Optimizer


@cache
def definitions() -> dict[str, tuple[str, Definition]]:
    """Every definition by name, with its family: the name of its file without the suffix."""
    found: dict[str, tuple[str, Definition]] = {}
    for path in sorted(STD.glob("*.nn")):
        module = parse(Source(f"std/{path.name}", path.read_text("utf-8")))
        for d in module.definitions:
            if isinstance(d, Definition):
                found[d.name] = (path.stem, d)
    return found

"""The map of the house: its rooms from the ground up, and each file with its own first sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = (  # a file imports from its own room and from those above it here, never from those below
    "dsl", "compiler/types", "compiler/loops", "compiler/graph", "compiler/autodiff", "compiler/elaborate",
    "compiler/passes", "compiler/native", "compiler/lowering", "compiler/llvm", "compiler",
    "runtime/call", "runtime/data", "runtime/store", "runtime/train", "runtime/check", "runtime", "runtime/look",
    "runtime/picture", "runtime/cli",
)  # fmt: skip


def room_of(path: Path) -> str:
    """The room of a file: the nearest folder around it that is one."""
    return next(f for f in (p.as_posix() for p in path.relative_to(ROOT).parents) if f in ROOMS)


def plan() -> Iterator[str]:
    """The lines of the map."""
    files: dict[str, list[Path]] = {room: [] for room in ROOMS}
    for top in ("dsl", "compiler", "runtime"):
        for path in sorted((ROOT / top).rglob("*.py")):
            files[room_of(path)].append(path)
    for room in ROOMS:
        yield f"{room}/"
        for path in files[room]:
            name = path.relative_to(ROOT / room).with_suffix("").as_posix().removesuffix("__init__")
            if says := first_sentence(path):
                yield f"    {name or '.':24} {says}"


def first_sentence(path: Path) -> str:
    """The first sentence of a module's documentation, empty where it has none."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.split(r"(?<=\.) ", " ".join(text.split("\n\n", 1)[0].split()), maxsplit=1)[0]

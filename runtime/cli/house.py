"""The map of the house: its rooms from the ground up, and each file with its own first sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = (  # folders and loose files: a file imports from its own room and from those above it here, never from below
    "dsl",
    "compiler/types", "compiler/scalar", "compiler/loops", "compiler/graph", "compiler/autodiff", "compiler/manifest",
    "compiler/settings", "compiler/elaborate", "compiler/passes", "compiler/native", "compiler/lowering",
    "compiler/llvm", "compiler/origin", "compiler/pipeline", "compiler/session", "compiler/apart",
    "compiler/standalone", "compiler",
    "runtime/extras", "runtime/call", "runtime/distributed", "runtime/settings", "runtime/curves", "runtime/progress",
    "runtime/data", "runtime/network", "runtime/store", "runtime/onnx/export", "runtime/train", "runtime/logs",
    "runtime/cli/live", "runtime/cli/show", "runtime/cli/display", "runtime/picture", "runtime/summary",
    "runtime/notebook", "runtime/model", "runtime/api", "runtime/magic", "runtime/sklearn", "runtime/onnx",
    "runtime/check", "runtime/look", "runtime/profile", "runtime/explain", "runtime/ship", "runtime/editor",
    "runtime/cli", "runtime",
)  # fmt: skip


def room_of(path: Path) -> str:
    """The room of a file."""
    inside = path.relative_to(ROOT).with_suffix("")
    return next(name for name in (p.as_posix() for p in (inside, *inside.parents)) if name in ROOMS)


def plan() -> Iterator[str]:
    """The lines of the map."""
    files: dict[str, list[Path]] = {room: [] for room in ROOMS}
    for top in ("dsl", "compiler", "runtime"):
        for path in sorted((ROOT / top).rglob("*.py")):
            files[room_of(path)].append(path)
    for room in ROOMS:
        yield room
        for path in files[room]:
            name = path.with_suffix("").relative_to(ROOT / room).as_posix().removesuffix("__init__")
            if says := first_sentence(path):
                yield f"    {name.strip('/') or '.':24} {says}"


def first_sentence(path: Path) -> str:
    """The first sentence of a module's documentation, empty where it has none."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.split(r"(?<=\.) ", " ".join(text.split("\n\n", 1)[0].split()), maxsplit=1)[0]

"""A first draft of rules: which arrays of a file might be which variables of a model.

In: a network and the arrays of a file. Out: the text of rules, to be read before it is used. Their arrays are grouped
by what stands before the last dot, groups in natural order (2 before 10), ours by layer in the order of the model;
within a pair of groups shape decides, then whether both are biases, then how much the names have in common.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path

from ...compiler.manifest import Variable
from ..call.arrays import describe
from ..call.column import Array
from ..network import Network
from .foreign import read
from .weights import loadable, type_text


def suggest(network: Network, path: Path) -> tuple[str, int, int]:
    """The rules, how many of the model's variables they are about, and how many there are."""
    arrays = read(path)
    ours = {v.path: v for v in loadable(network) if v.role != "normalize"}
    theirs = _groups(sorted(arrays, key=_natural))
    lines: list[str] = []
    used: set[str] = set()
    for layer in _groups(ours).values():
        group = next((g for g in theirs.values() if used.isdisjoint(g) and _fits(layer, g, ours, arrays)), [])
        for name in layer:
            found = _best(ours[name], [n for n in group if n not in used], arrays)
            if found is None:
                lines.append(f"# {name} {type_text(ours[name])}: nothing fits")
                continue
            used.add(found)
            turned = ".T" if arrays[found].shape != ours[name].shape else ""
            lines.append(f"{name} = {found}{turned}  # {describe(arrays[found])}")
    lines += [f"ignore {name}  # {describe(arrays[name])}" for name in arrays if name not in used]
    head = f"# Suggested from the names and shapes in {path.name}: read before you use it."
    return "\n".join([head, *lines]) + "\n", len(used), len(ours)


def _groups(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return groups


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _fits(layer: list[str], group: list[str], ours: Mapping[str, Variable], arrays: Mapping[str, Array]) -> bool:
    """Is there something in a group for the largest variable of a layer?"""
    largest = max(layer, key=lambda name: len(ours[name].shape))
    return _best(ours[largest], group, arrays) is not None


def _best(v: Variable, names: list[str], arrays: Mapping[str, Array]) -> str | None:
    """The array that might be a variable."""
    own = v.path.rpartition(".")[2]

    def distance(name: str) -> tuple[bool, bool, float]:
        last = name.rpartition(".")[2]
        biases = ("bias" in last or last in ("b", "beta")) != (v.role == "bias")
        return arrays[name].shape != v.shape, biases, -SequenceMatcher(None, own, last).ratio()

    turned = v.shape[::-1] if len(v.shape) == 2 else v.shape
    fit = [name for name in names if arrays[name].shape in (v.shape, turned)]
    return min(fit, key=distance, default=None)

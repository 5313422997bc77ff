"""What `nnc profile --json` said, beside the kernels that it timed.

In: an entry on its way to code, and a file. Out: a row for each of its steps. Refused is what is not of this entry:
other kernels would be told the times of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...compiler.apart import named
from ...compiler.graph.nodes import Graph
from ...compiler.loops import ir as L
from ...compiler.lowering.memory import Plan
from ...compiler.pipeline import Stages
from ...dsl.errors import ArgumentError, DataError, NncError, error
from ..profile import Profile
from ..store.facts import load, read

_HELP = "`nnc profile FILE --json > PATH` writes one, of the same file and settings"


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises `DataError` (E0620) where it has none."""
    try:
        return read(Profile, load(path), least=0)
    except (OSError, ValueError) as e:
        raise error("E0620", f"{path} is no profile: {e}", help=_HELP, kind=DataError) from None


def running(made: Stages, sizes: Mapping[str, int]) -> tuple[L.Entry, Graph, Plan]:
    """What runs at some sizes: an entry or that for many examples, its graph and its plan."""
    entry, many = made.lowered.entry, made.lowered.entry.many
    if many is None or made.many is None or made.signature.at_once(sizes)[many.size] < many.least:
        return entry, made.fused, made.lowered.plan
    assert made.lowered.plan_of_many is not None
    entry = next(e for e in made.lowered.module.entries if e.name == many.entry)
    return entry, made.many.graph, made.lowered.plan_of_many


def profiled(made: Stages, profile: Profile) -> dict[str, Any]:
    """The rows of the entry that ran at those sizes, and which one that is. Raises `ArgumentError` (E0603)."""
    if profile.entry != made.lowered.entry.name:
        raise _other(f"the profile is of the entry `{profile.entry}`, the page of `{made.lowered.entry.name}`")
    if profile.sizes.keys() != set(made.signature.sizes):
        raise _other(f"the profile has the sizes {[*profile.sizes]}, the entry {[*made.signature.sizes]}")
    entry, graph, _ = running(made, profile.sizes)
    names, told = [_name(graph, step) for step in entry.steps], [k.name for k in profile.kernels]
    if len(names) != len(told):
        raise _other(f"the profile has {len(told)} kernels, the entry {len(names)}")
    for k, (name, found) in enumerate(zip(names, told, strict=True)):
        if name != found:
            raise _other(f"kernel {k + 1} of the profile is `{found}`, of the entry `{name}`")
    facts = asdict(profile)
    return {"entry": entry.name, "rows": facts["kernels"], **{k: facts[k] for k in ("sizes", "threads", "seconds")}}


def _name(graph: Graph, step: L.Step) -> str:
    return named(graph[step.node]) if step.node else "copy"


def _other(what: str) -> NncError:
    return error("E0603", what, help=_HELP, kind=ArgumentError)

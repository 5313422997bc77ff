"""Marks: an entry says on its way which of its results are complete, so that another thread can take them up.

In: an entry as steps, and the results that somebody waits for. Out: the same with a slot for the mark, and the results
in groups in the order in which they are complete. Gradients come one after the other, the last layer's first; a group
is large enough that it is worth to be handed on by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..graph.cost import number
from ..graph.nodes import Graph
from ..loops.ir import Entry, Slot, places
from ..manifest import ACROSS
from ..types.tensors import TensorType
from .lower import Lowered
from .memory import output_slot

MARK = Slot("mark", TensorType("i64"), "mark")
GROUPS = 8  # at most
LEAST = 64 << 10  # bytes of a group, but for the last


def marked(lowered: Lowered, graph: Graph) -> Lowered:
    """The entry of a graph, and the one for many examples, with marks for the sums over shards that it makes."""
    names = [name for name, _ in graph.outputs if name.startswith(ACROSS)]
    if not names:
        return lowered
    entries = list(lowered.module.entries)
    twins = [k for k, e in enumerate(entries) if k == 0 or ((many := entries[0].many) and e.name == many.entry)]
    groups = tuple(_groups(entries[0], names))
    for k in twins:
        done = _complete(entries[k], names)
        latest = 0
        marks = tuple(latest := max(latest, *(done[name] for name in group)) for group in groups)
        entries[k] = replace(entries[k], slots=(*entries[k].slots, MARK), marks=marks)
    return replace(lowered, module=replace(lowered.module, entries=tuple(entries)), marks=groups)


def _complete(entry: Entry, names: Sequence[str]) -> dict[str, int]:
    """After how many steps each result is there: those that write it are the last that know its place."""
    slots = {output_slot(name): name for name in names}
    done = dict.fromkeys(names, 0)
    for k, step in enumerate(entry.steps, 1):
        for p in places((step,)):
            if p.base == "slot" and p.name in slots:
                done[slots[p.name]] = k
    return done


def _groups(entry: Entry, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    done = _complete(entry, names)
    size = {name: number(s.type.nbytes, {}) for s in entry.slots for name in names if s.name == output_slot(name)}
    least = max(LEAST, sum(size.values()) // GROUPS)
    group: list[str] = []
    for name in sorted(names, key=lambda name: done[name]):
        group.append(name)
        if sum(size[n] for n in group) >= least:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)

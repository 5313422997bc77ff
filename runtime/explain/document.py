"""All that the page shows, as one JSON document: tables whose rows point at each other by number.

In: a session, an entry, the examples in a batch, what was profiled. Out: a dict of plain values. Everything that is of
some part of the program names its `places`, and a place knows its lines; so what belongs together is found by places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...compiler.apart import named
from ...compiler.graph.nodes import Graph, Node, descendants
from ...compiler.graph.text import print_node
from ...compiler.loops import ir as L
from ...compiler.native.lock import compiling
from ...compiler.pipeline import Stages
from ...compiler.session import Session
from ...compiler.types.sizes import Dim, substitute
from ...dsl.lexer import highlighted
from ...dsl.source import Span
from ..profile import Profile
from .changes import Changes, about
from .code import Code, Text, codes
from .network import network
from .places import Place, placed
from .profiled import profiled, running

Json = dict[str, Any]


def document(session: Session, entry: str, batch: int = 1, profile: Profile | None = None) -> Json:
    """The document of an entry; memory is counted at `batch` examples, or at the sizes of the profile. Raises
    `ArgumentError` where that is of another program."""
    with compiling():
        cx = session.program.context(entry)
        grown = session.program.graph(entry, cx)
        graph = placed(grown, session.program, cx)
        changes = Changes(graph)
        made = session.stages(entry, changes, graph)
        written = codes(made.lowered.module, session.target)
    table = _Places(session, changes.stands_for)
    sizes = dict.fromkeys(made.signature.sizes, batch) if profile is None else profile.sizes
    now = running(made, sizes)[0]
    return {
        "title": session.manifest.model or Path(session.source.name).stem,
        "entry": entry,
        "target": f"{session.target.name} ({session.target.cpu})",
        "sources": [{"name": name, "lines": highlighted(text)} for name, text in session.manifest.sources.items()],
        "operators": table.rows(made.graph),
        "derivatives": table.rows(n for n in made.backward if n.name in changes.derived),
        "about": about(),
        "passes": [
            {"name": c.step, "before": table.rows(c.before), "after": table.rows(c.after)} for c in changes.found
        ],
        "entries": sorted(_entries(made, table), key=lambda e: e["name"] != now.name),  # first the one that runs
        "kernels": [_kernel(code) for code in written],
        "memory": _memory(made, table, sizes),
        "network": network(session.program, cx, grown, graph, table.of),
        "profile": profiled(made, profile) if profile is not None else None,
        "places": table.json(),  # last: all have been asked for
    }


class _Places:
    """The places of nodes by number, as they are first asked for."""

    def __init__(self, session: Session, stands_for: Mapping[str, set[Span]]):
        self._first: dict[str, int] = {}  # of each file the number of its first line
        count = 0
        for name, text in session.manifest.sources.items():
            self._first[name] = count
            count += len(text.splitlines())
        self._stands_for = stands_for
        self._number: dict[tuple[Any, ...], int] = {}
        self._places: list[Place] = []

    def of(self, node: Node, replaced: bool = False) -> list[int]:
        """The place of a node; also those of what it `replaced`."""
        spans = [node.span, *(self._stands_for.get(node.name, ()) if replaced else ())]
        return sorted({self._one(s) for s in spans if isinstance(s, Place)})

    def inside(self, body: Graph) -> list[int]:
        """The places of all that a kernel computes; what is made of constants alone counts where there is no more."""
        leaves = [n.name for n in body if n.op == "input"]
        made = descendants(body.nodes, leaves)
        nodes = [n for n in body if n.name not in leaves]
        return sorted({k for n in [n for n in nodes if n.name in made] or nodes for k in self.of(n, replaced=True)})

    def rows(self, nodes: Iterable[Node]) -> list[list[Any]]:
        """Nodes as text behind their place, without leaves."""
        return [[*(self.of(n) or [-1]), print_node(n)] for n in nodes if n.op not in ("input", "param")]

    def _one(self, p: Place) -> int:
        key = (p.written, p.path)
        if key not in self._number:
            self._number[key] = len(self._places)
            self._places.append(p)
        return self._number[key]

    def json(self) -> list[Json]:
        return [{"path": p.path, "text": " ".join(p.text.split()), "at": [*self._at(p)]} for p in self._places]

    def _at(self, place: Place) -> Iterator[list[int]]:
        """Of each text its first line and column, its last line and the column behind, all from 0."""
        for s in place.written:
            if s.source.name in self._first:
                first, (a, b), (c, d) = self._first[s.source.name], s.position, s.source.position(s.end)
                yield [first + a - 1, b - 1, first + c - 1, d - 1]


# --- kernels ----------------------------------------------------------------------------------------------------------


def _entries(made: Stages, table: _Places) -> Iterator[Json]:
    """The entries of a module with the graphs they compute: the entry itself, for many examples, what is prepared."""
    few, many = made.lowered.entry, made.lowered.entry.many
    before = [g for g in (made.prepare, made.many.before if made.many is not None else None) if g is not None]
    for e in made.lowered.module.entries:
        if e is few:
            graphs, note = [made.fused], ""
        elif many is not None and made.many is not None and e.name == many.entry:
            graphs, note = [made.many.graph], f"where {many.size} is {many.least} or more"
        else:
            graphs, note = before, "when variables change"
        yield {"name": e.name, "note": note, "steps": [*_steps(e.steps, graphs, table)]}


def _steps(
    steps: Iterable[L.Step], graphs: list[Graph], table: _Places, around: str = "", scan: str = ""
) -> Iterator[Json]:
    """The steps in order: calls of kernels and loops, each with the nodes of its body and their places; behind a loop
    what is in it. `row` numbers those that are in no loop, as a profile does; `node` is of the plan of memory."""
    for k, step in enumerate(steps):
        graph = next((g for g in graphs if step.node in g.nodes), None)
        node = graph[step.node] if graph is not None else None
        body = node.attrs.get("body") if node is not None else None
        nodes = list(body) if body is not None else [node] if node is not None else []
        found: Json = {"kernel": "", "title": "copy", "around": around, "row": None if scan else k, "origin": []}
        found["node"] = scan or step.node
        found["body"] = [[*(table.of(n)[:1] or [-1]), print_node(n)] for n in nodes]
        found["places"] = table.inside(body) if body is not None else [p for n in nodes for p in table.of(n, True)]
        if isinstance(step, L.Loop):
            loop = f"{step.index} in 0..{step.count}" + " reversed" * step.reverse
            yield {**found, "title": f"scan {loop}"}
            yield from _steps(step.steps, [body] if body is not None else [], table, f"{around}{loop}; ", found["node"])
            continue
        if node is not None and node.op != "scan":
            found["title"] = named(node)
        origin = step.origin if node is not None and node.op == "fused" else [min(n, 0) for n in step.origin]
        yield {**found, "kernel": step.kernel, "origin": origin}


def _kernel(code: Code) -> Json:
    return {
        "name": code.name,
        "loops": code.loops,
        "statements": code.statements,
        "llvm": _text(code.llvm),
        "asm": _text(code.assembly),
    }


def _text(text: Text) -> Json:
    return {"text": "\n".join(text.lines), "at": text.at}


# --- memory -----------------------------------------------------------------------------------------------------------


def _memory(made: Stages, table: _Places, sizes: Mapping[str, int]) -> Json:
    """The buffers of the arena of what runs at some sizes, in bytes, and from when to when they are needed."""
    entry, graph, plan = running(made, sizes)
    sizes = made.signature.at_once(sizes)
    bound, at = plan.lower_bound(sizes)
    rows = []
    for line in plan.lines:
        names = [v for v, _ in line.values]
        nodes = [graph[v] for v in names]
        what = (
            f"{names[0]}, for itself" if line.values[0][1] < 0 else ", then ".join(f"{n.name}: {n.type}" for n in nodes)
        )
        rows.append(
            {
                "text": what,
                "places": sorted({k for n in nodes for k in table.of(n, replaced=True)}),
                "offset": _number(line.offset, sizes),
                "size": _number(line.size, sizes),
                "born": line.born,
                "dies": line.dies,
            }
        )
    return {
        "entry": entry.name,
        "sizes": dict(sizes),
        "arena": _number(plan.arena, sizes),
        "bound": bound,
        "at": at,
        "order": plan.order,
        "rows": rows,
    }


def _number(size: Dim, sizes: Mapping[str, int]) -> int:
    value = substitute(size, sizes)
    assert isinstance(value, int)
    return value

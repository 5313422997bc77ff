"""What a model is made of: its instances as a tree, and what each takes for one example.

In: the graph of a model's inference, grown by a `Context` that noted each layer and each labelled call (`Part`). Out: a
`Row` per instance, parents before what is inside them. A row counts all that is inside it, so the first is the total.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import prod

from ...dsl.record import dataclass
from ..graph.nodes import Node
from ..graph.ops import OPS, op
from ..types.sizes import Dim, Size, product, substitute, symbols, total_of
from ..types.tensors import TensorType
from .context import Context
from .home import Declared
from .noted import Part

ONE_EXAMPLE = ("B", "N", "T")  # free sizes that count examples or steps


@dataclass(frozen=True, slots=True)
class Row:
    """One instance. `macs` are the multiplications that are added up, the points of every contraction's domain;
    `activations` the bytes of the different results of the instance and of all inside it."""

    path: str
    kind: str  # the name of the layer or function
    depth: int
    results: tuple[TensorType, ...]
    parameters: int
    state: int
    macs: Dim
    activations: Dim


def outline(cx: Context, model: str, variables: Mapping[str, Declared]) -> tuple[Row, ...]:
    """The rows of a model that was called in `cx`, for one example: free sizes named B, N and T are 1."""
    before: dict[int, list[Dim]] = {}  # by graph, the work of the first k nodes
    instances = [part for part in cx.parts if part.path]
    for b in {id(part.builder): part.builder for part in instances}.values():
        before[id(b)] = [0, *accumulate(map(_macs, b.nodes.values()))]
    parts: dict[str, list[int]] = {}
    inside: dict[str | None, list[str]] = {}
    for k, part in enumerate(instances):
        if part.path not in parts:
            inside.setdefault(part.parent, []).append(part.path)
        parts.setdefault(part.path, []).append(k)
    own: dict[str, list[Declared]] = {}
    for path, d in variables.items():
        own.setdefault(path.rpartition(".")[0], []).append(d)
    rows: list[Row] = []

    def add(path: str, depth: int) -> tuple[int, int, dict[tuple[int, str], Dim]]:
        """The rows of an instance and of what is inside; its parameters, state, and the bytes of its results."""
        at = len(rows)
        calls = [instances[k] for k in parts[path]]
        parameters = _count(d for d in own.get(path, ()) if d.role in ("weight", "bias"))
        state = _count(d for d in own.get(path, ()) if d.role == "state")
        results = {(id(part.builder), name): _bytes(part, name) for part in calls for name in part.results}
        rows.append(Row(path, "", 0, (), 0, 0, 0, 0))  # its place
        for child in inside.get(path, ()):
            p, s, r = add(child, depth + 1)
            parameters, state, results = parameters + p, state + s, results | r
        rows[at] = Row(
            path,
            calls[0].kind,
            depth,
            tuple(calls[0].builder.type(name) for name in calls[0].results),
            parameters,
            state,
            sum((_of_one(part.turns) * _work(before[id(part.builder)], part) for part in calls), start=0),
            sum(results.values(), start=0),
        )
        return parameters, state, results

    add(model, 0)
    return tuple(rows)


def _work(before: Sequence[Dim], part: Part) -> Dim:
    return before[part.last] - before[part.first]


def _macs(n: Node) -> Dim:
    match OPS[n.op].kind:
        case op.CONTRACT if len(n.args) > 1:
            return _of_one(product(size for _, size in n.attrs["domain"]))
        case op.LOOP:
            return _of_one(total_of(sum(map(_macs, n.attrs["body"]), start=0), n.attrs["index"], n.attrs["count"]))
    return 0


def _bytes(part: Part, name: str) -> Dim:
    leaf = part.builder[name].op in ("input", "param", "constant")
    return 0 if leaf else _of_one(part.turns * part.builder.type(name).nbytes)


def _count(declared: Iterable[Declared]) -> int:
    return sum(prod(n for n in d.type.shape if isinstance(n, int)) for d in declared)


def _of_one(n: Dim) -> Dim:
    return substitute(n, dict.fromkeys(symbols(n) & set(ONE_EXAMPLE), 1)) if isinstance(n, Size) else n

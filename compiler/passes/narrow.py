"""Narrow storage: parameters that a product or a lookup reads lie in memory as f16, bf16 or bytes; sums stay in f32.

In: a graph whose values lie as kernels read them, and those that are `fixed`. Out: the same, up to the rounding of what
is stored, in which kernels read numbers of fewer bytes. What is narrowed is what they read, whatever it was made of:
with a normalisation folded into the weights of a convolution those are rounded once. To narrow is made of operators, so
it is prepared like all else that is fixed.

A byte is a whole number of steps, and each result of a product has a step of its own, that of the parameters it is
made of, by which the sum is multiplied at its end:

    y[b, o] = s[o] * sum_k x[b, k] * q[k, o]      s[o] = max_k |w[k, o]| / 127      q[k, o] = round(w[k, o] / s[o])

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference" (2018),
with a step for each result, as in Krishnamoorthi, "Quantizing deep convolutional networks" (2018); only storage is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import prod

from ..graph.cost import number
from ..graph.nodes import Builder, Graph, Node
from ..graph.ops import OPS
from ..graph.ops.contraction import index_of, is_gathered
from ..graph.ops.op import CONTRACT, LOOP
from ..types.sizes import Dim
from ..types.tensors import TensorType
from .scans import of_turns

LEAST = 64  # elements that are worth it
EACH = 4  # elements of a step, at least
_STEPS = 127.0


def narrow(graph: Graph, fixed: Collection[str], format: str) -> Graph:
    """The graph with fixed operands of products and lookups stored in a format, also in the bodies of scans; itself
    where there are none, and for f32."""
    if format == "f32":
        return graph
    b = Builder(graph.name, OPS)
    b.guards = list(graph.guards)
    new: dict[str, str] = {}
    large = _large(graph, fixed)
    changed = False
    for n in graph:
        b.span = n.span
        if OPS[n.op].kind == LOOP:
            body = narrow(n.attrs["body"], of_turns(n, fixed), format)
            if body is not n.attrs["body"]:
                n, changed = replace(n, attrs={**n.attrs, "body": body}), True
        args = [new[a] for a in n.args]
        kept = {k: axes for k, axes in _kept(n, graph).items() if n.args[k] in large} if n.name not in fixed else {}
        if format == "i8":
            kept = {k: axes for k, axes in kept.items() if _spans(graph[n.args[k]].shape, axes) >= EACH}
        changed = changed or bool(kept)
        if kept and n.op == "gather":
            new[n.name] = _looked_up(b, args, format)
        else:
            new[n.name] = _product(b, n, args, kept, format)
    outputs, updates = (tuple((k, new[v]) for k, v in names) for names in (graph.outputs, graph.updates))
    return b.finish(outputs, updates) if changed else graph


def _large(graph: Graph, fixed: Collection[str]) -> set[str]:
    """The fixed values of f32 that have enough elements, and are not made of nothing."""
    found: set[str] = set()
    lies: set[str] = set()
    for n in graph:
        if n.op in ("param", "input") or (n.op == "constant" and n.shape) or any(a in lies for a in n.args):
            lies.add(n.name)
            if n.name in fixed and isinstance(n.type, TensorType) and n.dtype == "f32":
                if all(isinstance(size, int) for size in n.shape) and number(n.type.size) >= LEAST:
                    found.add(n.name)
    return found


def _kept(n: Node, graph: Graph) -> dict[int, tuple[int, ...]]:
    """The operands that may be narrow, and which of their axes are axes of the result, from end to end."""
    if n.op == "gather":
        return {0: (0,)} if n.attrs.get("axis", 0) == 0 else {}
    if OPS[n.op].kind != CONTRACT or not is_gathered(n):
        return {}
    letters, extent = _letters(n), dict(n.attrs["domain"])
    kept: dict[int, tuple[int, ...]] = {}
    for k, (x, m) in enumerate(zip(n.args, n.attrs["maps"], strict=True)):
        seen, shape = [index_of(e) for e in m], graph[x].shape
        whole = (a for a, i in enumerate(seen) if i in letters and seen.count(i) == 1 and extent[i] == shape[a])
        kept[k] = tuple(whole)
    return kept


def _letters(n: Node) -> list[str]:
    """The index of each axis of a product's result."""
    return [i for e in n.attrs["out"] for i, _ in e[1]]


def _spans(shape: Sequence[Dim], axes: Collection[int]) -> int:
    """How many elements there are at each point of some axes."""
    return number(prod(n for k, n in enumerate(shape) if k not in axes))


def _product(b: Builder, n: Node, args: list[str], kept: Mapping[int, tuple[int, ...]], format: str) -> str:
    """The node of those operands, some of them narrow."""
    steps: list[tuple[str, tuple[int, ...]]] = []
    for k, axes in kept.items():
        args[k], step = _narrowed(b, args[k], axes, format)
        if step is not None:
            seen = [index_of(n.attrs["maps"][k][a]) for a in axes]
            steps.append((step, tuple(_letters(n).index(str(i)) for i in seen)))
    y = b.copy(n, tuple(args))
    for step, axes in steps:
        y = b.emit("mul", y, _spread(b, step, axes, y))
    return y


def _looked_up(b: Builder, args: Sequence[str], format: str) -> str:
    """Rows of a table that is narrow; of bytes with the step of each."""
    table, index = args
    wide, step = _narrowed(b, table, (0,), format)
    found = b.emit(b[wide].op, b.emit("gather", b[wide].args[0], index, axis=0))
    if step is None:
        return found
    return b.emit("mul", found, _spread(b, b.emit("gather", step, index, axis=0), range(b.type(index).rank), found))


def _narrowed(b: Builder, w: str, axes: tuple[int, ...], format: str) -> tuple[str, str | None]:
    """Parameters as a kernel reads them, and of bytes the steps, one for each point of `axes`."""
    if format != "i8":
        return b.emit(f"from_{format}", b.emit(f"to_{format}", w)), None
    largest = b.emit("reduce_max", b.emit("abs", w), axes=tuple(k for k in range(b.type(w).rank) if k not in axes))
    most = b.emit("constant", values=(_STEPS,), type=TensorType("f32"))
    step = b.emit("div", largest, _spread(b, most, (), largest))
    return b.emit("from_i8", b.emit("to_i8", b.emit("div", w, _spread(b, step, axes, w)))), step


def _spread(b: Builder, x: str, axes: Sequence[int], of: str) -> str:
    """x, whose axis k is axis `axes[k]` of a value, repeated along the others of that."""
    perm = tuple(sorted(range(len(axes)), key=lambda k: axes[k]))
    if perm != tuple(range(len(axes))):
        x = b.emit("transpose", x, perm=perm)
    return b.emit("broadcast", x, shape=b.shape(of), axes=tuple(sorted(axes)))

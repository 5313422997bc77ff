"""An entry taken apart: each of its steps compiled as an entry of its own, so that each can be timed.

In: a session and the name of an entry. Out: its steps in order. Run one after the other, on the slots and the arena of
the entry, they do what the entry does, of a micro-batch where it runs those. A step is a kernel, a loop over kernels (a
scan), or a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..dsl.record import dataclass, replace
from ..dsl.source import Span
from .graph.cost import number, operations
from .graph.nodes import Graph, Node
from .graph.ops import OPS
from .graph.ops.op import CONTRACT, KERNEL, LEAF, LOOP, MAP, REDUCE, VIEW
from .llvm import emit
from .loops import ir as L
from .loops.meaning import shares
from .native import objects
from .native.loading import Library
from .native.lock import compiling
from .session import Session
from .types.tensors import TensorType

SHOWN = 3  # operators of a kernel that its name tells


@dataclass(frozen=True, slots=True)
class Step:
    """`run(sizes, slots, arena, pool)` runs it. `span` is where it is from; `parallel` whether threads share it, at the
    sizes at hand."""

    name: str
    span: Span | None
    parallel: bool
    run: Callable[..., int]
    _node: Node | None
    _graph: Graph

    def operations(self, sizes: Mapping[str, int]) -> int:
        """Floating-point and integer operations, a multiply-add counted as two."""
        if self._node is None:
            return 0
        return operations(self._node, [self._graph[a].type for a in self._node.args], sizes)

    def nbytes(self, sizes: Mapping[str, int]) -> int:
        """Bytes of what it reads and writes, each value once (in a scan: in all turns together)."""
        if self._node is None:
            return 0
        types = [self._graph[a].type for a in dict.fromkeys(self._node.args)]
        results = self._node.type if isinstance(self._node.type, TensorType) else self._node.type.items
        given = [*types, *(results if isinstance(results, tuple) else (results,))]
        return sum(number(t.nbytes, sizes) for t in given if isinstance(t, TensorType))


def apart(session: Session, name: str, sizes: Mapping[str, int]) -> list[Step]:
    """The steps of an entry at some sizes. Raises `KeyError` where there is none of that name."""
    with compiling():
        made = session.stages(name)
        module, entry, fused = made.lowered.module, made.lowered.entry, made.fused
        if made.many is not None and entry.many is not None and sizes[entry.many.size] >= entry.many.least:
            entry = next(e for e in module.entries if e.name == entry.many.entry)
            fused = made.many.graph
        whole = replace(entry, many=None, microbatches=None)
        entries = tuple(replace(whole, name=f"{name}.{k}", steps=(s,)) for k, s in enumerate(entry.steps))
        code = emit(replace(module, entries=entries), session.target)
        library = Library(objects.compile_object(code, session.target))
    kernels = {k.name: k for k in module.kernels}
    steps = []
    for one, step in zip(entries, entry.steps, strict=True):
        shared = any(_is_shared(kernels[c.kernel], c, sizes) for c in L.calls((step,)))
        of = fused[step.node] if step.node else None
        title = named(of) if of is not None else "copy"
        span = of.span if of is not None else None
        steps.append(Step(title, span, shared, library.function(one.name), of, fused))
    return steps


def _is_shared(kernel: L.Kernel, call: L.Call, sizes: Mapping[str, int]) -> bool:
    """Whether threads share a kernel that is called in an entry of these sizes."""
    return shares(kernel, {name: number(n, sizes) for name, n in zip(kernel.sizes, call.sizes, strict=True)})


def named(node: Node) -> str:
    """What a kernel does, by its operators: those that cost something, the largest kinds first."""
    if OPS[node.op].kind == LOOP:
        return f"scan of {len(node.attrs['body'])} operators"
    body = list(node.attrs["body"]) if node.op == "fused" else [node]
    kinds = (CONTRACT, KERNEL, REDUCE, MAP, VIEW)
    worth = [n for n in body if OPS[n.op].kind != LEAF and n.op != "constant"]
    first = dict.fromkeys(n.op for kind in kinds for n in worth if OPS[n.op].kind == kind)
    heavy = [op for op in first if OPS[op].kind != VIEW] or list(first)
    return ", ".join(heavy[:SHOWN]) + (", .." if len(heavy) > SHOWN else "")

"""Which loops threads share: how long a kernel takes, roughly, and how many turns its loops have.

What depends on sizes that are known only when it runs is decided then: a loop of few turns, or of little work, runs on
one thread, and where an outer loop has few turns, one inside of it is shared instead. The bits are the same either way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from math import prod

from ....dsl.record import dataclass, field
from ...graph.cost import TYPICAL, own_weight, value_of
from ...graph.nodes import Graph, Node
from ...graph.ops import OPS
from ...graph.ops.op import CONTRACT, KERNEL, MAP, REDUCE
from ...loops import ir as L
from ...loops.index import quotient, to_expr
from ...types.sizes import Dim, Monomial, Symbol, collect, symbols, terms
from ...types.tensors import BYTES, TensorType

FORK = 12_000_000  # picoseconds of work below which threads are not worth their waiting for each other
ENOUGH = 8  # turns of a loop, to be shared by threads
FEW = 3  # turns of a loop of which threads share an inner one instead
MANY = 65536  # what a size that is not known at compile time may well be
FLOP, ELEMENT, INSTRUCTION, BYTE, STEP = 12, 50, 15, 15, 1500  # picoseconds on one thread
WOUND = 3  # times as fast is Winograd's algorithm
LONG = 1 << 39  # no more than half a second for each unit of a size, that sizes times it are numbers
ALWAYS, NEVER = L.Const(True, "bool"), L.Const(False, "bool")


def work(graph: Graph) -> Dim:
    """Picoseconds of a kernel on one thread: arithmetic at 16 lanes, memory at the speed of the second-level cache."""
    total: dict[Monomial, int] = defaultdict(int)
    for node in graph:
        kind = OPS[node.op].kind
        flops = OPS[node.op].flops
        operands = [t for t in (graph[a].type for a in node.args) if isinstance(t, TensorType)]
        result = node.type if isinstance(node.type, TensorType) else TensorType("f32")
        size: Dim = 0
        each = 0
        if (kind == CONTRACT or node.op == "filter_gradient") and flops is not None:
            wound = any(graph[a].op == "unwind" for a in node.args)
            size, each = flops(operands, dict(node.attrs), result), FLOP // WOUND if wound else FLOP
        elif node.op == "argsort" and flops is not None:
            size, each = flops(operands, dict(node.attrs), result), STEP
        elif kind in (REDUCE, KERNEL):
            size, each = operands[0].size if operands else 0, ELEMENT
        elif kind == MAP:
            size, each = result.size, own_weight(node) * INSTRUCTION
        elif node.op == "input":
            size, each = _read(graph, node), BYTES[result.dtype] * BYTE
        for m, c in terms(size):
            total[m] += c * each
    scale = 1 + max(map(abs, total.values()), default=0) // LONG
    return collect((m, c // scale) for m, c in total.items())


def _read(graph: Graph, node: Node) -> Dim:
    """How many elements of an operand a kernel looks at."""
    users = graph.users(node.name)
    if users and all(u.op == "slice" for u in users):
        return sum(prod(u.shape) for u in users)
    return prod(node.shape)


def is_shared(graph: Graph) -> bool:
    """Whether there is work for more than one thread."""
    return pays(work(graph), 1) != NEVER


def pays(work: Dim, parts: Dim) -> L.Expr:
    """Where threads are worth while for each of so many parts of the work."""
    left = work - parts * FORK
    values = (value_of(left, dict.fromkeys(symbols(left), n)) for n in (1, TYPICAL, MANY))
    may_be = any(v is not None and v > 0 for v in values)
    return more(work, parts * FORK) if may_be else NEVER


@dataclass(slots=True)
class Sharing:
    """Of a loop over `extent` by steps of `stride`, alone or in another that threads share elsewhere. Where the extent
    is known only in a loop it is None, and taken for long."""

    extent: Dim | None
    stride: int
    paying: L.Expr
    outer: Sharing | None
    inner: list[L.Expr] = field(default_factory=list)  # where loops in it are shared instead

    @property
    def turns(self) -> Dim:
        return MANY if self.extent is None else quotient(self.extent + (self.stride - 1), self.stride, {})

    @property
    def possible(self) -> L.Expr:
        """Where it pays, and the loop around has few turns, and no more than this one; where neither is known, this
        one has several."""
        if self.outer is None:
            return self.paying
        around, own = self.outer.turns, self.turns
        known = isinstance(own, int) or isinstance(around, int)
        enough = negated(more(around, own)) if known else more(own, 1)
        return all_of([self.paying, negated(more(around, FEW)), enough])

    @property
    def condition(self) -> L.Expr:
        """Where threads share the loop."""
        return all_of([self.possible, *map(negated, self.inner)])


def sharing(work: Dim, times: Dim, around: Sequence[Sharing | None], extent: Dim | None, stride: int) -> Sharing | None:
    """How threads share a loop of a kernel, in loops that open it so many times, and in others of which they share one
    at most; None: they do not."""
    if len(around) > 1 or None in around:
        return None
    outer = around[0] if around else None
    shares = Sharing(extent, stride, pays(work, times * (outer.turns if outer else 1)), outer)
    return None if shares.possible == NEVER else shares


# --- conditions: comparisons of sizes with numbers, and what is made of them ------------------------------------------


def more(x: Dim, than: Dim) -> L.Expr:
    """x > than, said of a single size by itself where there is one: 3 B > 20 is B > 6."""
    left = x - than
    if isinstance(left, int):
        return ALWAYS if left > 0 else NEVER
    rest = dict(left.terms).get((), 0)
    match [(m, c) for m, c in left.terms if m]:
        case [((Symbol(name),), c)]:
            number = -rest // c if c > 0 else (rest - 1) // -c
            if number <= 0:  # a size is more, or there is no work
                return ALWAYS if c > 0 else NEVER
            return _compared("gt" if c > 0 else "le", L.Var(name), number)
    turned = left.terms[0][1] < 0
    return _compared("le", to_expr(rest - left), rest - 1) if turned else _compared("gt", to_expr(left - rest), -rest)


def _compared(which: str, x: L.Expr, number: int) -> L.Expr:
    return L.Apply(which, (x, L.i64(number)), "bool")


_OPPOSITES = {"gt": "le", "le": "gt", "and": "or", "or": "and"}


def negated(e: L.Expr) -> L.Expr:
    match e:
        case L.Apply("and" | "or" as fn, args):
            return L.Apply(_OPPOSITES[fn], tuple(map(negated, args)), "bool")
        case L.Apply(fn, args):
            return L.Apply(_OPPOSITES[fn], args, "bool")
    return NEVER if e == ALWAYS else ALWAYS


def all_of(conditions: Sequence[L.Expr]) -> L.Expr:
    """All conditions at once; of comparisons of the same number the narrowest."""
    limits: dict[tuple[str, L.Expr], int] = {}
    others: list[L.Expr] = []
    left = list(reversed(conditions))
    while left:
        match left.pop():
            case L.Apply("and", args):
                left += reversed(args)
            case L.Apply("gt" | "le" as fn, (x, L.Const(number))):
                known = limits.get((fn, x), int(number))
                limits[fn, x] = (max if fn == "gt" else min)(known, int(number))
            case other:
                others.append(other)
    empty = any(limits.get(("le", x), n + 1) <= n for (fn, x), n in limits.items() if fn == "gt")
    if empty or NEVER in others:
        return NEVER
    kept = [_compared(fn, x, n) for (fn, x), n in limits.items()]
    kept += [e for e in dict.fromkeys(others) if e != ALWAYS]
    return reduce(lambda a, b: L.Apply("and", (a, b), "bool"), kept) if kept else ALWAYS

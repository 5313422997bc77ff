"""The body of a kernel under construction: open loops, bound values, and the value of any node at any point.

In: a small graph (the nodes one kernel computes) and where its leaves can be loaded. Out: statements of the loop IR.
The one idea: a value is *pulled* — `value(name, index)` asks the operator's `at`, which asks for its operands — and is
bound by `let` in the outermost open loop that its variables allow, once per index. So views cost nothing, common values
are computed once, and what does not change in a loop is not in the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import copysign, prod
from operator import is_
from typing import Any

from ....dsl.errors import InternalError, error
from ....dsl.record import dataclass, field
from ...graph.boxes import flat, is_framed, side_by_side
from ...graph.nodes import Graph, Node
from ...graph.ops import WIDENING
from ...graph.ops.op import MAP, REDUCE, VIEW
from ...loops import ir as L
from ...loops.index import from_expr, quotient, to_expr
from ...types.sizes import Dim, Size, symbol, symbols
from ...types.tensors import BYTES, FLOATS, TensorType, TupleType
from .sharing import ALWAYS, NEVER, Sharing, sharing, work

Index = tuple[Dim, ...]
Source = Callable[[Index], L.Expr]
Results = Mapping[str, "str | None"]  # what a kernel computes, and the buffer it is stored in


@dataclass(slots=True)
class _Scope:
    statements: list[L.Stmt] = field(default_factory=list)
    known: dict[Any, L.Expr] = field(default_factory=dict)  # (node, index) or an expression's number -> its bound name
    conditional: bool = False
    around: bool = False  # parallel loops
    turns: Dim = 1  # of a loop that is
    sharing: Sharing | None = None


def tensor(node: Node) -> TensorType:
    """The type of a node that has one result."""
    assert isinstance(node.type, TensorType)
    return node.type


def results(graph: Graph) -> list[str]:
    """What a kernel computes, each once: the results of its graph, and what is there for its effect."""
    return list(dict.fromkeys(graph.roots))


class Body:
    """Grows one kernel. `sources` tells where a node's value lies; every other node is computed from its operands."""

    def __init__(self, graph: Graph, ops: Mapping[str, Any], checks: Checks, leading: str = ""):
        self.graph, self.ops, self.checks = graph, ops, checks
        self.leading = leading  # the node that the loops are for, where they are for one
        self._pulled = leading  # the node whose value is being computed
        self._origin: dict[int, tuple[L.Stmt, str]] = {}  # by its id a statement, and the node that it is of
        self.sources: dict[str, Source] = {}
        self.asked: dict[str, set[Index]] = {}  # where the value of each node was asked for
        self.buffers: list[L.Buffer] = []
        self.constant: set[str] = set()  # buffers that this kernel only reads
        self.held: dict[str, str] = {}  # node -> the buffer it lies in
        self.widening: dict[str, tuple[str, str]] = {}  # buffer -> what makes floats of it, and what it stores
        self.ranges: dict[str, Dim | None] = {}
        self.firsts: dict[str, str] = {}  # of loop variables: what the first turn of a thread's range is called
        self.depth: dict[str, int] = {}  # of loop variables and bound names; sizes are at 0
        self.scopes = [_Scope(around=True)]
        self._count: dict[str, int] = {}
        self._numbers: dict[L.Expr, int] = {}  # of the expressions that were bound
        self._cost: Dim | None = None  # picoseconds of the kernel
        self._taken = {s for n in graph for x in (n.type, *n.attrs.values()) for s in _symbols(x)}  # names of sizes

    def fresh(self, stem: str) -> str:
        n = self._count.get(stem, 0)
        while f"{stem}{n}" in self._taken:
            n += 1
        self._count[stem] = n + 1
        return f"{stem}{n}"

    # --- buffers

    def operand(self, node: str) -> None:
        """Declare a buffer that holds `node`, contiguous and row-major."""
        type_ = tensor(self.graph[node])
        name = self.fresh("x")
        self.buffers.append(L.Buffer(name, type_.dtype))
        self.constant.add(name)
        self.held[node] = name
        self.lies_in(node, name)

    def lies_in(self, node: str, buffer: str) -> None:
        """The value of `node` is read from a buffer, contiguous and row-major."""
        type_ = tensor(self.graph[node])
        self.sources[node] = lambda index: self.load(buffer, flat(index, type_.shape), type_.dtype)

    def lies(self, node: str) -> str:
        """The buffer that a value is read from; what is stored in fewer bytes is widened as it is loaded."""
        if (n := self.graph[node]).op not in WIDENING:
            return self.held[node]
        buffer = self.held[n.args[0]]
        self.widening[buffer] = n.op, self.graph[n.args[0]].dtype
        return buffer

    def result(self, dtype: str, stem: str = "y") -> str:
        name = self.fresh(stem)
        self.buffers.append(L.Buffer(name, dtype, True))
        return name

    def register(self, dtype: str, length: int) -> str:
        name = self.fresh("r")
        self.emit(L.Register(name, dtype, length))
        return name

    def is_now(self, node: str, at: Index, value: L.Expr) -> None:
        """From now on the value of `node` at the point `at` is `value`. At any other point it is computed again; what
        cannot be, a sum, must not be asked for there."""

        def source(index: Index) -> L.Expr:
            if index == at:
                return value
            if self.ops[self.graph[node].op].kind not in (MAP, VIEW):
                what = f"a kernel has {node} at {list(map(str, at))} and is asked for it at {list(map(str, index))}"
                raise error("E0901", what, kind=InternalError)
            return self.computed(node, index)

        self.sources[node] = source

    def in_register(self, node: str, at: Index, register: str, position: Dim) -> None:
        """`is_now` of what is in a register."""
        self.is_now(node, at, self.load(register, position, self.graph[node].dtype))

    def load(self, buffer: str, at: Dim, dtype: str) -> L.Expr:
        """An element of a buffer as a `dtype`."""
        if dtype in FLOATS and buffer in self.widening:
            fn, stored = self.widening[buffer]
            return L.Apply(fn, (L.Load(buffer, to_expr(at), stored),), dtype)
        return L.Load(buffer, to_expr(at), dtype)

    def _outside(self, size: Dim) -> Dim | None:
        """A size that is known outside of all loops."""
        return size if all(self.depth.get(s, 0) == 0 for s in symbols(size)) else None

    def _work(self) -> Dim:
        if self._cost is None:
            self._cost = work(self.graph)
        return self._cost

    # --- statements

    def emit(self, statement: L.Stmt, depth: int | None = None, of: str = "") -> None:
        self.scopes[-1 if depth is None else depth].statements.append(statement)
        self._origin[id(statement)] = statement, of or self._pulled

    @contextmanager
    def loop(
        self,
        stop: Dim,
        *,
        start: Dim = 0,
        step: int = 1,
        lanes: int = 1,
        bound: Dim | None = None,
        unroll: int = 1,
        parallel: bool = False,
        around: bool = False,
        stem: str = "i",
    ) -> Iterator[Dim]:
        """Open a loop and give its variable. A loop of one iteration is no loop. A loop is parallel where that pays,
        if it is outermost, in loops that are opened to be `around` such, or in parallel ones that may have few turns.
        """
        once = isinstance(start, int) and isinstance(stop, int) and start < stop <= start + step
        if once and bound is None:
            yield start
            return
        outer = [scope.sharing for scope in self.scopes if not scope.around]
        times = prod(scope.turns for scope in self.scopes)
        extent = self._outside(stop - start)
        shares = sharing(self._work(), times, outer, extent, step * lanes) if parallel else None
        var = self.fresh(stem)
        turns = quotient(extent + (step - 1), step, {}) if around and extent is not None else 1
        self.scopes.append(_Scope(around=around, turns=turns, sharing=shares))
        self.depth[var] = len(self.scopes) - 1
        self.ranges[var] = stop
        yield symbol(var)
        scope = self.scopes.pop()
        condition = shares.condition if shares else NEVER
        if condition != NEVER:
            for s in filter(None, outer):
                s.inner.append(condition)
        self.emit(
            L.For(
                var,
                to_expr(start),
                to_expr(stop),
                tuple(scope.statements),
                step,
                lanes,
                None if bound is None else to_expr(bound),
                unroll,
                condition != NEVER,
                None if condition in (NEVER, ALWAYS) else condition,
                self.firsts.get(var, ""),
            )
        )

    def first(self, turn: Dim) -> Dim:
        """The first of the turns that a thread does in order, of which the innermost loop's is one. What they compute
        in the same place is of one turn at a time."""
        if isinstance(turn, int):
            return turn  # of a loop that is none
        (var,) = symbols(turn)
        name = self.firsts[var] = self.firsts.get(var) or self.fresh("f")
        self.depth[name] = self.depth[var]
        return symbol(name)

    @contextmanager
    def portion(self, parts: Dim) -> Iterator[None]:
        """What is computed here is one of so many equal parts of the work of the loops around it."""
        scope = self.scopes[-1]
        turns = scope.turns
        scope.turns = turns * parts
        yield
        scope.turns = turns

    @contextmanager
    def when(self, condition: L.Expr) -> Iterator[None]:
        self.scopes.append(_Scope(conditional=True))
        yield
        scope = self.scopes.pop()
        self.emit(L.If(condition, tuple(scope.statements)))

    def store(self, buffer: str, at: Dim, value: L.Expr) -> None:
        self.emit(L.Store(buffer, to_expr(at), value))

    def results(self) -> Results:
        """Declare a buffer for each result of the graph, in order; one for a value that is a result twice, and none for
        a check, which is computed for its effect."""
        return {
            v: self.result(self.graph[v].dtype) if v in dict(self.graph.outputs).values() else None
            for v in results(self.graph)
        }

    def store_all(self, outputs: Results, results: Sequence[tuple[str, Index]]) -> None:
        """Store nodes at points. A result may lie where an operand lies, so all are computed before any is stored."""
        values = [(v, at, self.value(part, index)) for v, index in results for part, at in self.stored(v, index)]
        for v, at, value in values:
            if (buffer := outputs[v]) is not None:
                self.emit(L.Store(buffer, to_expr(at), value), of=v)

    def stored(self, name: str, index: Index) -> list[tuple[str, Dim]]:
        """What is stored of a result at a point, and where: the result, the parts that stand side by side in it, or
        what is inside of its margin."""
        node = self.graph[name]
        if self.leading and is_framed(self.graph, node, self.graph[self.leading].shape):
            inside = tuple(i + low for i, low in zip(index, node.attrs["low"], strict=True))
            return [(node.args[0], flat(inside, node.shape))]
        if not side_by_side(self.graph, node):
            return [(name, flat(index, node.shape))]
        axis, width = node.attrs["axis"], self.graph[node.args[0]].shape[node.attrs["axis"]]
        return [
            (part, flat((*index[:axis], index[axis] + k * width, *index[axis + 1 :]), node.shape))
            for k, part in enumerate(node.args)
        ]

    def fold(self, buffer: str, at: Dim, how: str, value: L.Expr, into: int = 1) -> None:
        self.emit(L.Reduce(buffer, to_expr(at), how, value, into))

    def check(self, condition: L.Expr, message: str) -> None:
        if not any(("check", condition) in scope.known for scope in self.scopes):
            depth = self._depth_of(condition)
            self.scopes[depth].known["check", condition] = condition
            self.emit(L.Check(condition, self.checks.code(message)), depth)

    def bind(self, value: L.Expr) -> L.Expr:
        """The value by name, computed as far out as it may be."""
        value = _without_negative_zero(value)
        if isinstance(value, L.Const | L.Var):
            return value
        number = self._numbers.setdefault(value, len(self._numbers))  # its hash is that of all its parts
        for scope in reversed(self.scopes):
            if number in scope.known:
                return scope.known[number]
        depth = self._depth_of(value)
        var = L.Var(self.fresh("v"), value.dtype)
        self.depth[var.name] = depth
        if var.dtype == "i64":
            self.ranges[var.name] = None
        self.scopes[depth].known[number] = var
        self.emit(L.Let(var.name, value), depth)
        return var

    def now(self, value: L.Expr) -> L.Var:
        """The value by name, as it is here and now: registers that it reads may change."""
        var = L.Var(self.fresh("v"), value.dtype)
        self.depth[var.name] = len(self.scopes) - 1
        self.emit(L.Let(var.name, value))
        return var

    def _depth_of(self, value: L.Expr) -> int:
        """The outermost scope in which a value can be computed."""
        depth, protected = 0, value.dtype == "bool"
        for e in L.parts(value):
            if type(e) is L.Var:
                depth = max(depth, self.depth.get(e.name, 0))
            elif type(e) is L.Load:
                protected = True
                if e.buffer not in self.constant:
                    depth = len(self.scopes) - 1  # it is being written: its value is that of here and now
        if protected:  # not out of an `if` that may be there to protect it
            depth = max([depth, *(k for k, s in enumerate(self.scopes) if s.conditional)])
        return depth

    # --- values

    def value(self, name: str, index: Index) -> L.Expr:
        """Node `name` at a point."""
        key = (name, index)
        for scope in reversed(self.scopes):
            if key in scope.known:
                return scope.known[key]
        self.asked.setdefault(name, set()).add(index)
        outer, self._pulled = self._pulled, name
        out = self.bind(self.sources[name](index) if name in self.sources else self.computed(name, index))
        self._pulled = outer
        self.scopes[-1].known[key] = out
        return out

    def computed(self, name: str, index: Index) -> L.Expr:
        """Node `name` at a point, from its operands."""
        return self.computed_as(self.graph[name], index)

    def computed_as(self, node: Node, index: Index) -> L.Expr:
        """A node at a point, from its operands, which are nodes of the graph."""
        given = tuple(map(to_expr, index))

        def read(k: int, at: Sequence[L.Expr]) -> L.Expr:
            at = tuple(at)
            point = index if at == given else tuple(from_expr(e, self.ranges, self.bound_var) for e in at)
            value = self.value(node.args[k], point)
            if node.op == "in_range":
                self._in_range(value, node)
            return value

        if self.ops[node.op].kind == REDUCE and not node.attrs["axes"]:
            return read(0, given)  # over no axes
        at = self.ops[node.op].at
        assert at is not None, f"{node.op} has no value at a point"
        value: L.Expr = at(node, [self.graph[a].type for a in node.args], given, read)
        return value

    def row(self, name: str, index: str, at: Index, size: Dim) -> L.Var:
        """The row an element of `index` names, as an i64 that is within the axis."""
        value = self.value(index, at)
        wide = value if value.dtype == "i64" else L.Apply("cast", (value,), "i64")
        last = L.sub(to_expr(size), L.i64(1))
        return self.bound_var(L.Apply("maximum", (L.Apply("minimum", (wide, last), "i64"), L.i64(0)), "i64"))

    def _in_range(self, index: L.Expr, node: Node) -> None:
        """One check of both ends, in the index's own dtype where that holds the size."""
        n = node.attrs["size"]
        limit: L.Expr = L.Const(n, "i32") if index.dtype == "i32" and isinstance(n, int) and n < 2**31 else to_expr(n)
        value = index if index.dtype == limit.dtype else L.Apply("cast", (index,), "i64")
        ends = (L.Apply("ge", (value, L.Const(0, limit.dtype)), "bool"), L.Apply("lt", (value, limit), "bool"))
        message = f"an index of {node.attrs['of']} is outside an axis of size {n}"
        self.check(L.Apply("and", ends, "bool"), message)

    def bound_var(self, e: L.Expr) -> L.Var:
        bound = self.bind(e)
        assert isinstance(bound, L.Var)
        return bound

    def kernel(self, name: str, note: str) -> L.Kernel:
        assert len(self.scopes) == 1
        body = tuple(self.scopes[0].statements)
        position = {n.name: k for k, n in enumerate(self.graph)}
        nodes = (self._origin.get(id(s), (s, self.leading))[1] for s in L.walk(body))
        origin = tuple(position.get(name, -1) for name in nodes)
        return L.Kernel(name, tuple(sorted(_sizes(body))), tuple(self.buffers), body, note, origin=origin)


@dataclass(slots=True)
class Checks:
    """Messages of the run-time checks; the code of message k is k + 1."""

    messages: list[str] = field(default_factory=list)

    def code(self, message: str) -> int:
        if message not in self.messages:
            self.messages.append(message)
        return self.messages.index(message) + 1


def _without_negative_zero(e: L.Expr) -> L.Expr:
    """-0.0 as the negative of 0.0: the two are equal to Python, and equal expressions are one value."""
    if type(e) is L.Const and e.value == 0 and isinstance(e.value, float) and copysign(1, e.value) < 0:
        return L.Apply("neg", (L.Const(0.0, e.dtype),), e.dtype)
    if type(e) is L.Apply:
        new = tuple([a if type(a) is L.Var else _without_negative_zero(a) for a in e.args])
        return e if all(map(is_, e.args, new)) else L.Apply(e.fn, new, e.dtype)
    return e


def _sizes(body: tuple[L.Stmt, ...]) -> set[str]:
    """Free names of a body: the size symbols it needs."""
    bound: set[str] = set()
    used: set[str] = set()
    for s in L.walk(body):
        if isinstance(s, L.For):
            bound |= {s.var, s.first}
        elif isinstance(s, L.Let):
            bound.add(s.name)
        for e in L.expressions(s):
            used.update([v.name for v in L.parts(e) if type(v) is L.Var])
    return used - bound


def _symbols(x: Any) -> Iterator[str]:
    """The size symbols in a type or an attribute."""
    match x:
        case Size():
            yield from symbols(x)
        case TensorType(_, shape):
            yield from _symbols(shape)
        case TupleType(items) | tuple(items):
            for item in items:
                yield from _symbols(item)


def lanes(graph: Graph) -> int:
    """Logical vector width of a kernel: 16 when every value is at most 4 bytes, else 8; the same on every target."""
    types = [t for n in graph for t in (n.type.items if isinstance(n.type, TupleType) else (n.type,))]
    wide = any(BYTES[t.dtype] > 4 for t in types)
    return 8 if wide else 16

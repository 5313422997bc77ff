"""Along one axis: recurrences, and the order that sorts.

A recurrence is one chain for each element of the other axes, in the order of its axis. Chains are independent, so some
run side by side: in lanes where they lie beside each other, else a few rows at a time.

Sorting is a merge sort from the bottom up, which is stable: runs of one element become runs of two, four, ... Two runs
are merged from both ends at once: as many elements as the shorter run has come from either end before one of the two
can be empty, so neither end asks. Keys and their positions go back and forth between the halves of buffers of the
kernel's own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from math import prod

from ...graph.boxes import flat
from ...graph.nodes import Graph, Node
from ...loops import ir as L
from ...loops.index import to_expr
from ...types.sizes import Dim, Size, symbol
from ...types.tensors import BYTES, FLOATS
from .body import Body, Index, lanes
from .nest import Axes, Part, across, over, parts, place

ROWS = 4  # chains at a time, where each is a row
LANES = 8  # of a vector of chains; what is added up is of 64 bits
VECTORS = 4  # and such vectors at a time
SHARES = 32  # parts of the rows to be sorted, each with buffers of its own, that threads share
POSITIONS = 31  # doublings of a run after which it is longer than any axis that is counted

# --- recurrences -----------------------------------------------------------------------------------------------------


def recurrence(make: Callable[[], Body], name: str, parallel: bool = False) -> Body:
    """The kernel of one recurrence node."""
    body = make()
    node = body.graph[name]
    y, axis, shape = body.result(node.dtype), node.attrs["axis"], node.shape
    before, behind = (Axes(tuple(ks), tuple(shape[k] for k in ks)) for ks in (range(axis), range(axis + 1, len(shape))))
    rows = behind.size == 1
    chains, width, tile = (before, 1, ROWS) if rows else (behind, LANES, LANES * VECTORS)
    around = [] if rows or before.size == 1 else [before]
    with over(body, around, len(shape), parallel=parallel) as outer:
        for t in parts(chains.size, tile, width):
            with body.loop(t.stop, start=t.start, step=t.step, parallel=parallel) as first:
                _side_by_side(body, node, y, chains, outer, t, first, width)
    return body


def _side_by_side(body: Body, node: Node, y: str, chains: Axes, outer: Index, t: Part, first: Dim, width: int) -> None:
    """Some chains from `first` on, each from its beginning to its end."""
    (a, b), axis, back = node.args, node.attrs["axis"], int(node.attrs["reverse"])
    n = node.shape[axis]
    wide = "f64" if node.dtype in FLOATS else node.dtype
    total = body.register(wide, t.padded(width))

    def turn(k: Dim) -> None:
        i = n - 1 - k if back else k
        with across(body, t, first, chains.size, width) as lane:
            point = list(outer)
            place(first + lane, chains, point, body)
            here, link = (tuple((*point[:axis], j, *point[axis + 1 :])) for j in (i, i + back))
            value = _cast(body.value(b, here), wide)
            if k != 0:
                before = L.Apply("mul", (_cast(body.value(a, link), wide), body.load(total, lane, wide)), wide)
                value = L.Apply("add", (before, value), wide)
            body.store(total, lane, value)
            body.store(y, flat(here, node.shape), _cast(body.load(total, lane, wide), node.dtype))

    with body.when(L.Apply("gt", (to_expr(n), L.i64(0)), "bool")) if isinstance(n, Size) else nullcontext():
        if n != 0:
            turn(0)
        if n not in (0, 1):
            with body.loop(n, start=1) as k:
                turn(k)


def _cast(x: L.Expr, dtype: str) -> L.Expr:
    return x if x.dtype == dtype else L.Apply("cast", (x,), dtype)


# --- sorting ---------------------------------------------------------------------------------------------------------


def scratch(graph: Graph, node: Node, parallel: bool) -> tuple[Dim, ...]:
    """Bytes for keys and their positions: twice a row, and one that is read beyond its end but never taken."""
    length = _shares(node, parallel) * (2 * node.shape[-1] + 1)
    return length * BYTES[graph[node.args[0]].dtype], length * BYTES["i32"]


def _shares(node: Node, parallel: bool) -> int:
    rows = prod(node.shape[:-1])
    return 1 if not parallel else max(1, min(rows, SHARES)) if isinstance(rows, int) else SHARES


def argsort(make: Callable[[], Body], name: str, parallel: bool = False) -> Body:
    """The kernel of one argsort node; two more buffers come last."""
    body = make()
    node, shares = body.graph[name], _shares(body.graph[name], parallel)
    y = body.result("i32")
    keys, order = body.result(body.graph[node.args[0]].dtype, "k"), body.result("i32", "o")
    rows = Axes(tuple(range(len(node.shape) - 1)), node.shape[:-1])
    with body.loop(shares, parallel=parallel) as share, body.loop(rows.size, start=share, step=shares) as row:
        index: list[Dim] = [0] * len(node.shape)
        place(row, rows, index, body)
        _Row(body, node, y, keys, order, index, share * (2 * node.shape[-1] + 1)).sort()
    return body


class _Row:
    """One row being sorted. State: how long runs are, and in which half of the buffers they lie."""

    def __init__(self, body: Body, node: Node, y: str, keys: str, order: str, index: list[Dim], base: Dim):
        self.body, self.node, self.y, self.keys, self.order = body, node, y, keys, order
        self.index, self.base, self.n = index, to_expr(base), node.shape[-1]
        self.length = to_expr(self.n)
        self.dtype = body.graph[node.args[0]].dtype
        self.state = body.register("i64", 4)  # length of a run, where they lie, where the two ends are in the left run

    def sort(self) -> None:
        body, width = self.body, lanes(self.body.graph)
        x = self.node.args[0]
        with body.loop(self.n, lanes=width) as k:
            value = body.value(x, (*self.index[:-1], k))
            at = L.add(self.base, to_expr(k))
            body.emit(L.Store(self.keys, at, value))
            body.emit(L.Store(self.order, at, L.Apply("cast", (to_expr(k),), "i32")))
        body.store(self.state, 0, L.i64(1))
        body.store(self.state, 1, L.i64(0))
        passes = max(0, self.n - 1).bit_length() if isinstance(self.n, int) else POSITIONS
        if passes:
            with body.loop(passes):
                if isinstance(self.n, int):
                    self.double()
                else:
                    with body.when(L.Apply("lt", (self.now(0), self.length), "bool")):
                        self.double()
        where = L.add(self.base, self.now(1))
        with body.loop(self.n, lanes=width) as k:
            value = L.Load(self.order, L.add(where, to_expr(k)), "i32")
            body.store(self.y, flat((*self.index[:-1], k), self.node.shape), value)

    def now(self, k: int) -> L.Var:
        """A number of the state as it is here."""
        return self.let(self.body.load(self.state, k, "i64"))

    def let(self, value: L.Expr) -> L.Var:
        """`value`, computed here and now."""
        name = self.body.fresh("v")
        self.body.depth[name] = len(self.body.scopes) - 1
        self.body.ranges[name] = None
        self.body.emit(L.Let(name, value))
        return L.Var(name, value.dtype)

    def double(self) -> None:
        """Merge runs by two, from one half of the buffers into the other."""
        body, n = self.body, self.length
        run, source = self.now(0), self.now(1)
        two = L.mul(run, L.i64(2))
        pairs = self.let(L.floordiv(L.add(n, L.sub(two, L.i64(1))), two))
        source_at = self.let(L.add(self.base, source))
        target_at = self.let(L.add(self.base, L.sub(n, source)))
        with body.loop(symbol(pairs.name)) as pair:
            low = self.let(L.mul(to_expr(pair), two))
            middle = self.let(_least(L.add(low, run), n))
            high = self.let(_least(L.add(middle, run), n))
            self.merge(low, middle, high, source_at, target_at)
        body.store(self.state, 0, two)
        body.store(self.state, 1, L.sub(n, source))

    def merge(self, low: L.Var, middle: L.Var, high: L.Var, source: L.Var, target: L.Var) -> None:
        """The runs low..middle and middle..high as one. The state has the first and the last of the left run that are
        not yet taken; those of the right run follow, for as many are taken from both as there are in the target."""
        body, one = self.body, L.i64(1)
        short = self.let(L.sub(high, middle))
        last = self.let(L.sub(L.add(middle, high), L.i64(2)))
        body.store(self.state, 2, low)
        body.store(self.state, 3, L.sub(middle, one))
        with body.loop(symbol(short.name)) as step:
            k = to_expr(step)
            i = self.now(2)
            j = self.let(L.sub(L.add(middle, L.add(low, k)), i))
            right = self.let(self.before(self.key(source, j), self.key(source, i)))
            self.move(source, _either(right, j, i), target, L.add(low, k))
            body.store(self.state, 2, L.add(i, _either(right, L.i64(0), one)))
            p = self.now(3)
            q = self.let(L.sub(L.sub(last, k), p))
            left = self.let(self.before(self.key(source, q), self.key(source, p)))
            self.move(source, _either(left, p, q), target, L.sub(L.sub(high, one), k))
            body.store(self.state, 3, L.sub(p, _either(left, one, L.i64(0))))
        i, p = self.now(2), self.now(3)
        start = self.let(L.add(low, short))
        stop = self.let(L.sub(high, short))
        q = self.let(L.sub(L.sub(last, short), p))
        self.rest(start, stop, p, q, middle, source, target)

    def rest(self, start: L.Var, stop: L.Var, p: L.Var, q: L.Var, middle: L.Var, source: L.Var, target: L.Var) -> None:
        """What is between: here either run may end first."""
        body = self.body
        with body.loop(symbol(stop.name), start=symbol(start.name)) as step:
            k = to_expr(step)
            i = self.now(2)
            j = self.let(L.sub(L.add(middle, k), i))
            before = self.before(self.key(source, j), self.key(source, i))
            none = L.Apply("gt", (i, p), "bool")
            some = L.Apply("le", (j, q), "bool")
            right = self.let(L.Apply("and", (some, L.Apply("or", (none, before), "bool")), "bool"))
            self.move(source, _either(right, j, i), target, k)
            body.store(self.state, 2, L.add(i, _either(right, L.i64(0), L.i64(1))))

    def key(self, at: L.Expr, k: L.Expr) -> L.Var:
        return self.let(L.Load(self.keys, L.add(at, k), self.dtype))

    def move(self, source: L.Expr, k: L.Expr, target: L.Expr, to: L.Expr) -> None:
        k = self.let(k)
        for buffer, dtype in ((self.keys, self.dtype), (self.order, "i32")):
            self.body.emit(L.Store(buffer, L.add(target, to), L.Load(buffer, L.add(source, k), dtype)))

    def before(self, right: L.Expr, left: L.Expr) -> L.Expr:
        """Whether what stands on the right comes first: equals keep their order, NaN is above every number."""
        descending = self.node.attrs["descending"]
        if self.dtype not in FLOATS:
            return L.Apply("gt" if descending else "lt", (right, left), "bool")
        stays = L.Apply("ge" if descending else "le", (left, right), "bool")
        small = left if descending else right  # of the two: if that is NaN, it is not to move
        number = L.Apply("eq", (small, small), "bool")
        return L.Apply("and", (L.Apply("not", (stays,), "bool"), number), "bool")


def _least(a: L.Expr, b: L.Expr) -> L.Expr:
    return L.Apply("minimum", (a, b), "i64")


def _either(c: L.Expr, a: L.Expr, b: L.Expr) -> L.Expr:
    if isinstance(a, L.Const):
        return L.Apply("select", (c, a, b), "i64")
    return L.add(b, L.mul(L.Apply("cast", (c,), "i64"), L.sub(a, b)))

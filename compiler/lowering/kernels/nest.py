"""Loop nests over a box of axes: which axes become one loop, and how the loops are opened.

In: the extents of the axes and the indices that a trial lowering produced. Out: groups of adjacent axes, one loop each.
The one idea: two adjacent axes are one loop exactly when every index that mentions them moves by `extent` inner steps
for one outer step, so it is enough to look at the coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod

from ....dsl.record import dataclass
from ...loops import ir as L
from ...loops.index import from_expr, quotient, remainder, term, to_expr, total
from ...types.sizes import Dim, Quotient, Size, Symbol, symbol, symbols, terms
from .body import Body, Index
from .sharing import ENOUGH

ABREAST = 4  # vectors that go through long functions side by side, where these wait for one another
_ARITHMETIC = frozenset({"add", "sub", "mul", "floordiv", "mod", "neg"})


@dataclass(frozen=True, slots=True)
class Axes:
    """Adjacent axes of a box that are one loop."""

    axes: tuple[int, ...]
    extents: tuple[Dim, ...]

    @property
    def size(self) -> Dim:
        return prod(self.extents)


def walk(body: Body, names: Sequence[str], shape: Sequence[Dim]) -> Index:
    """Ask a body for `names` at each point of a box, one loop an axis, and give that point."""
    with ExitStack() as stack:
        index = tuple(stack.enter_context(body.loop(n)) for n in shape)
        for name in names:
            for part, at in body.stored(name, index):
                body.store("", at if part != name else 0, body.value(part, index))
    return index


def collapse(body: Body, index: Index, shape: Sequence[Dim], kinds: Sequence[object]) -> list[Axes]:
    """The axes of a box in groups, given the body of a `walk` and its point. Only axes of one kind join."""
    variables = [str(point) if isinstance(point, Size) else None for point in index]
    used = [x for x in dict.fromkeys(indices(tuple(body.scopes[0].statements))) if isinstance(x, Size)]
    groups: list[list[int]] = []
    for k, n in enumerate(shape):
        if groups and kinds[k] == kinds[k - 1] and _one_loop(variables, groups[-1], k, n, used):
            groups[-1].append(k)
        else:
            groups.append([k])
    return [Axes(tuple(g), tuple(shape[k] for k in g)) for g in groups]


def _one_loop(variables: Sequence[str | None], group: list[int], k: int, extent: Dim, used: list[Size]) -> bool:
    inner = variables[k]
    outer = next((variables[g] for g in reversed(group) if variables[g] is not None), None)
    if inner is None or outer is None:
        return True
    for x in used:
        a, b = _coefficient(x, outer), _coefficient(x, inner)
        if a is None or b is None or a != b * extent:
            return False
    return True


def _coefficient(x: Dim, var: str) -> Dim | None:
    """The factor of a variable in a polynomial that is linear in it, else None."""
    parts: list[Dim] = []
    for m, c in terms(x):
        if any(isinstance(atom, Quotient) and var in symbols(atom.top) | symbols(atom.bottom) for atom in m):
            return None
        count = m.count(Symbol(var))
        if count > 1:
            return None
        if count:
            left = list(m)
            left.remove(Symbol(var))
            parts.append(term(tuple(left), c))
    return total(parts)


def indices(body: tuple[L.Stmt, ...]) -> Iterator[Dim]:
    """Every index in a body: of loads, and where an index is used as a value."""
    for s in L.walk(body):
        stack = list(L.expressions(s)) if not isinstance(s, L.For) else []
        while stack:
            match stack.pop():
                case L.Apply(fn, _, "i64") as e if fn in _ARITHMETIC:
                    opaque: list[L.Expr] = []
                    yield from_expr(e, {}, _aside(opaque))
                    for part in opaque:  # all of it, where it is a quotient of data, which may be by 0 or less
                        stack += part.args if part is e else (part,)
                case L.Var(name, "i64"):
                    yield symbol(name)
                case L.Apply(_, args):
                    stack += args
                case L.Load(_, index):
                    stack.append(index)


def _aside(opaque: list[L.Expr]) -> Callable[[L.Expr], L.Var]:
    """Puts what is not index arithmetic into `opaque`."""

    def put(part: L.Expr) -> L.Var:
        opaque.append(part)
        return L.Var("")

    return put


@contextmanager
def over(
    body: Body, groups: Sequence[Axes], rank: int, *, lanes: int = 1, unroll: int = 1, parallel: bool = False
) -> Iterator[Index]:
    """Open one loop per group, the last a vector loop, and give the index of every axis, 0 for axes of no group."""
    index: list[Dim] = [0] * rank
    with ExitStack() as stack:
        for n, g in enumerate(groups):
            width = lanes if n == len(groups) - 1 else 1
            shared = parallel and (n == 0 or width == 1)
            point = stack.enter_context(
                body.loop(g.size, lanes=width, unroll=unroll if width > 1 else 1, parallel=shared)
            )
            place(point, g, index, body)
        yield tuple(index)


@contextmanager
def outer(body: Body, extents: Sequence[Dim], parallel: bool) -> Iterator[list[Dim]]:
    """Open one loop per extent and give its variables. Where threads are to share one, but it has few turns, it is one
    loop with those behind it."""
    with ExitStack() as stack:
        points: list[Dim] = []
        while len(points) < len(extents):
            joined = _joined(extents[len(points) :]) if parallel else 1
            group = extents[len(points) : len(points) + joined]
            at = stack.enter_context(body.loop(prod(group), parallel=parallel))
            behind: list[Dim] = []
            for n in reversed(group[1:]):
                behind.append(_named(body, remainder(at, n, body.ranges), n))
                at = quotient(at, n, body.ranges)
            points += [_named(body, at, group[0]) if behind else at, *reversed(behind)]
        yield points


def _joined(extents: Sequence[Dim]) -> int:
    """How many of them it takes for enough turns, as far as they are known."""
    turns = 1
    for count, n in enumerate(extents):
        if turns >= ENOUGH or not isinstance(n, int):
            return max(1, count)
        turns *= n
    return len(extents)


def _named(body: Body, x: Dim, extent: Dim) -> Dim:
    """A name for an index that takes a division to compute."""
    if isinstance(x, int):
        return x
    var = body.bound_var(to_expr(x))
    body.ranges[var.name] = extent
    return symbol(var.name)


def extreme(body: Body, which: str, a: Dim, b: Dim) -> Dim:
    """The `minimum` or `maximum` of two sizes, by name."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b) if which == "minimum" else max(a, b)
    return symbol(body.bound_var(L.Apply(which, (to_expr(a), to_expr(b)), "i64")).name)


def place(point: Dim, group: Axes, index: list[Dim], body: Body) -> None:
    """Write the row-major coordinates of a point of a group into `index`."""
    inner: Dim = 1
    many = [(k, n) for k, n in zip(group.axes, group.extents, strict=True) if n != 1]
    for count, (k, n) in enumerate(reversed(many), 1):
        q = quotient(point, inner, body.ranges)
        index[k] = q if count == len(many) else remainder(q, n, body.ranges)
        inner = inner * n


@dataclass(frozen=True, slots=True)
class Part:
    """A loop from `start` to `stop` over tiles of `width` elements."""

    start: Dim
    stop: Dim
    step: int
    width: int
    bounded: bool = False  # at the end a tile has fewer, how many is known only at run time

    def padded(self, lanes: int) -> int:
        """The width in whole vectors."""
        return -(-self.width // lanes) * lanes


def parts(extent: Dim, width: int, single: int = 1) -> list[Part]:
    """Whole tiles, then one of what is left. Where that is known only at run time: tiles of `single` elements."""
    if not isinstance(extent, int):
        whole = quotient(extent, width, {}) * width
        return [Part(0, whole, width, width), Part(whole, extent, single, single, single > 1)]
    whole = extent // width * width
    left = extent - whole
    out = [Part(0, whole, width, width)] if whole else []
    return out + ([Part(whole, extent, left, left)] if left else [])


def portion(part: Part, extent: Dim) -> float:
    """How much of an extent a part is, at most."""
    size = part.stop - part.start
    return size / max(1, extent) if isinstance(size, int) and isinstance(extent, int) else 1


@contextmanager
def across(body: Body, part: Part, first: Dim, extent: Dim, lanes: int) -> Iterator[Dim]:
    """Vector by vector over one tile, from `first` on; gives the place in the tile."""
    bound = extent - first if part.bounded else None
    with body.loop(part.width, lanes=lanes, unroll=0, bound=bound, stem="j") as j:
        yield j

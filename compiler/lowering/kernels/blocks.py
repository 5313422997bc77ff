"""Long sums: in blocks of a few terms, whose sums are added without loss.

A chain of additions loses up to a third of a unit for each of its terms where they are alike, and in f32 it stands
still at 2^24. So a sum of more than LONG terms is cut into blocks, and the sums of blocks are added in f64; those of
f64 with what rounding takes from each: Knuth, The Art of Computer Programming 2, 4.2.2; Ogita, Rump and Oishi, Accurate
sum and dot product, 2005. Where only run time knows how many terms there are it decides: LONG of them or fewer are one
block, with the bits of one chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from math import prod

from ....dsl.record import dataclass
from ...loops import ir as L
from ...loops.index import to_expr
from ...types.sizes import Dim, Size, symbol
from .body import Body, Index
from .nest import Axes, over, place

LONG = 4096  # terms that are one chain
TURNS = 8  # of the innermost loop in a block: what equal terms lose stays below 2.5 units in the last place ...
MANY = 64  # ... and below 20, where there are several sums: with each of them blocks have to end


Each = Callable[[], AbstractContextManager[Dim]]  # opens a loop over the positions of sums


@dataclass(frozen=True, slots=True)
class Cut:
    """Which of nested loops is cut into blocks, of `length` turns. `long` is whether the sum is long, where only run
    time knows: else it is."""

    loop: int
    length: int
    long: L.Var | None


def cut(body: Body, sizes: Sequence[Dim], width: int, most: int) -> Cut | None:
    """How a sum over nested loops, the last with so many lanes, is cut into blocks of about `most` turns of the last;
    None where it is short."""
    total = prod(sizes)
    if isinstance(total, int) and total <= LONG:
        return None
    k, length = len(sizes) - 1, most * width
    turns = 1  # of the last loop in one of loop k
    while k and isinstance(n := sizes[k], int) and n <= length:
        turns *= n if k < len(sizes) - 1 else -(-n // width)
        k, length = k - 1, most // turns
    length = _evenly(sizes[k], length)
    if isinstance(total, int):
        return Cut(k, length, None)
    return Cut(k, length, body.bound_var(L.Apply("gt", (to_expr(total), L.i64(LONG)), "bool")))


def _evenly(size: Dim, length: int) -> int:
    """A length that a known size is a multiple of, where one is near: no block is cut off, and no lanes are masked."""
    unit = 16 if length % 16 == 0 else 1
    if isinstance(size, int):
        return next((n for n in range(length, length // 2, -unit) if size % n == 0), length)
    return length


@dataclass(frozen=True, slots=True)
class Share:
    """Of nested loops those of one thread: `size` turns of the outermost, from `start` on; all where `size` is None."""

    start: Dim = 0
    size: Dim | None = None

    def sizes(self, groups: Sequence[Axes]) -> list[Dim]:
        return [g.size if k or self.size is None else self.size for k, g in enumerate(groups)]


WHOLE = Share()


class Total:
    """A long sum at each of some positions: `now` has the block that is being added, and at the end all of it."""

    def __init__(self, body: Body, at: Cut, start: L.Const, length: int, each: Each):
        self.body, self.cut, self.start, self._each = body, at, start, each
        self.now = body.register(start.dtype, length)
        self.sums = body.register("f64", length)
        self.lost = body.register("f64", length) if start.dtype == "f64" else None
        with self.if_long(), each() as k:
            for buffer in filter(None, (self.sums, self.lost)):
                body.store(buffer, k, L.Const(L.identity("sum", "f64"), "f64"))
        with each() as k:
            body.store(self.now, k, start)

    def if_long(self) -> AbstractContextManager[None]:
        """What is done only where there are several blocks."""
        return nullcontext() if self.cut.long is None else self.body.when(self.cut.long)

    def end(self) -> None:
        """Of a block. By TwoSum the new sum and what is lost are exactly the old sum and the block."""
        body = self.body
        with self.if_long(), self._each() as k:
            sums, block = body.load(self.sums, k, "f64"), cast(body.load(self.now, k, self.start.dtype), "f64")
            if self.lost is None:
                body.store(self.sums, k, _apply("add", sums, block))
            else:
                old, more = body.now(sums), body.now(block)
                new = body.now(_apply("add", old, more))
                came = body.now(_apply("sub", new, old))
                lost = _apply("add", _apply("sub", old, _apply("sub", new, came)), _apply("sub", more, came))
                body.store(self.sums, k, new)
                body.store(self.lost, k, _apply("add", body.load(self.lost, k, "f64"), lost))
            body.store(self.now, k, self.start)

    def finish(self) -> None:
        """The sum of all blocks, at each position."""
        with self.if_long(), self._each() as k:
            self.body.store(self.now, k, cast(self._all(k), self.start.dtype))

    def together(self, into: str) -> None:
        """The sum of all blocks and positions, which are the lanes of a vector."""
        body, dtype = self.body, self.start.dtype
        body.store(into, 0, self.start)
        if self.cut.long is not None:
            with self._each() as k:
                body.fold(into, 0, "sum", body.load(self.now, k, dtype))
        with self.if_long():
            every = body.register("f64", 1)
            body.store(every, 0, L.Const(L.identity("sum", "f64"), "f64"))
            with self._each() as k:
                body.fold(every, 0, "sum", self._all(k))
            body.store(into, 0, cast(body.load(every, 0, "f64"), dtype))

    def _all(self, k: Dim) -> L.Expr:
        """What is lost is not a number where the sum is not finite, and nothing where it is a zero of either sign."""
        sums = self.body.now(self.body.load(self.sums, k, "f64"))
        if self.lost is None:
            return sums
        lost = self.body.now(self.body.load(self.lost, k, "f64"))
        some = L.Apply("gt", (L.Apply("abs", (lost,), "f64"), L.Const(0.0, "f64")), "bool")
        return L.Apply("select", (some, _apply("add", sums, lost), sums), "f64")


def cast(e: L.Expr, dtype: str) -> L.Expr:
    return e if e.dtype == dtype else L.Apply("cast", (e,), dtype)


def _apply(fn: str, a: L.Expr, b: L.Expr) -> L.Expr:
    return L.Apply(fn, (a, b), "f64")


@contextmanager
def over_blocks(
    body: Body, groups: Sequence[Axes], rank: int, totals: Sequence[Total], *, lanes: int = 1, unroll: int = 1,
    share: Share = WHOLE,
) -> Iterator[Index]:  # fmt: skip
    """The loops of `nest.over`, one of them in blocks where there are long sums; of the outermost only a share."""
    if not totals and share is WHOLE:
        with over(body, groups, rank, lanes=lanes, unroll=unroll) as point:
            yield point
        return
    cut_loop = totals[0].cut.loop if totals else -1
    index: list[Dim] = [0] * rank
    with ExitStack() as stack:
        for k, (g, size) in enumerate(zip(groups, share.sizes(groups), strict=True)):
            first, last = stack.enter_context(_blocks(body, size, totals)) if k == cut_loop else (0, size)
            width = lanes if k == len(groups) - 1 else 1
            i = stack.enter_context(body.loop(last, start=first, lanes=width, unroll=unroll if width > 1 else 1))
            if isinstance(i, Size):
                body.ranges[str(i)] = size
            place(i if k else share.start + i, g, index, body)
        yield tuple(index)


@contextmanager
def _blocks(body: Body, size: Dim, totals: Sequence[Total]) -> Iterator[tuple[Dim, Dim]]:
    """A loop over the blocks of a loop of `size` turns: where each begins and ends."""
    at, length = totals[0].cut, totals[0].cut.length
    if at.long is None or isinstance(size, int):
        with body.loop(size, step=length, stem="b") as start:
            whole = isinstance(size, int) and size % length == 0
            yield start, start + length if whole else least(body, start + length, size)
            _end(totals)
        return
    many = L.floordiv(to_expr(size + (length - 1)), L.i64(length))
    count = symbol(body.bound_var(L.Apply("select", (at.long, many, L.i64(1)), "i64")).name)
    turns = symbol(body.bound_var(L.Apply("select", (at.long, L.i64(length), to_expr(size)), "i64")).name)
    with body.loop(count, stem="b") as b:
        start = symbol(body.bound_var(to_expr(b * turns)).name)
        yield start, least(body, start + turns, size)
        _end(totals)


def _end(totals: Sequence[Total]) -> None:
    for total in totals:
        total.end()


def least(body: Body, a: Dim, b: Dim) -> Dim:
    return symbol(body.bound_var(L.Apply("minimum", (to_expr(a), to_expr(b)), "i64")).name)

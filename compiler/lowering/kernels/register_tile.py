"""One tile of a product's results in registers: some rows by some vectors.

In: where it begins, and the buffers that it reads. Out: statements that sum it, and what is elementwise in its results
before they are stored. For each step of the sum the vectors of the right operand and one broadcast element of the left
one per row feed it by fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from ....dsl.record import dataclass
from ...graph.boxes import flat
from ...graph.product import Product, Walk
from ...loops import ir as L
from ...loops.index import to_expr, total
from ...types.sizes import Dim
from ...types.tensors import BYTES
from .ahead import LINE, ordered
from .body import Body, Results
from .nest import Axes, Part, across, parts, place
from .packing import clipped, panel, strip
from .schedule import FAR, UNROLL, sheet_bytes

STREAM = 3 << 10  # bytes ahead that the sums of one row ask for of each panel, where panels are far
SELDOM = 1 / 16  # of all results: copies of a sum's body save a twentieth of the time and are not worth the code

Steps = Sequence[tuple[Walk, Dim, Dim]]  # of a sum: its loops, with where they begin and end


@dataclass(frozen=True, slots=True)
class Operands:
    """The buffers that a tile reads: the operands, or copies of them."""

    left: str
    right: str
    panels: str = ""
    width: int = 0  # columns of a panel
    strips: str = ""
    block: Dim = 0  # of strips, the first row, and the number of rows
    height: int = 0
    part: tuple[Dim, Dim] | None = None  # of the sum, in panels


@dataclass(frozen=True, slots=True)
class Ahead:
    """Of `lines` from a place on, in an order of so many `runs`, those that come from the `first` one on, one in each
    step of a sum."""

    place: Dim
    first: Dim  # in the step 0
    lines: int
    runs: int

    def at(self, step: Dim, line: int) -> Dim:
        return self.place + ordered(self.first + step, self.lines, self.runs) * line


@dataclass(slots=True)
class RegisterTile:
    """One tile of results in registers: at rows i0.. and columns j0.., in the outer loops' point `at`."""

    body: Body
    p: Product
    lanes: int
    read: Operands
    at: Mapping[Walk, Dim]
    i0: Dim
    j0: Dim
    rows: int
    columns: Part
    next: Ahead | None = None  # of panels, what the steps of the last index ask for
    base: Dim = 0  # where sums begin
    share: float = 1  # of all results those in tiles of its height and width

    def write(self, outputs: Results, steps: Steps, sums: str = "", before: Dim = 1) -> None:
        """The tile, from 0 or what is in `sums`, where something was summed `before`, to what is elementwise in it."""
        body = self.body
        acc, pitch = self.begun(sums, before)
        self.ask_ahead(outputs)
        self.add(acc, steps)
        for i, j in self.each_result():
            index = self.result_index(i, j)
            body.in_register(self.p.node.name, index, acc, i * pitch + j)
            body.store_all(outputs, [(v, index) for v in outputs])

    def clear(self, sums: str) -> None:
        """Nothing is summed yet."""
        body, node = self.body, self.p.node
        for i, j in self.each_result():
            body.store(sums, self.sum_at(i, j), L.Const(0.0, node.dtype))

    def add_to(self, sums: str, steps: Steps, before: Dim = 1) -> None:
        """Some steps of the sum: the tile is read from `sums`, where something was summed `before`, and goes there."""
        body, node = self.body, self.p.node
        acc, pitch = self.begun(sums if before != 0 else "", before)
        self.add(acc, steps)
        for i, j in self.each_result():
            body.store(sums, self.sum_at(i, j), body.load(acc, i * pitch + j, node.dtype))

    def begun(self, sums: str, before: Dim = 1) -> tuple[str, int]:
        """Registers for the tile, with 0 or with what is in `sums`, and how far its rows are apart in them."""
        body, node = self.body, self.p.node
        acc, pitch = self.register()
        if not sums or before != 1:
            for i, j in self.each_result():
                body.store(acc, i * pitch + j, L.Const(0.0, node.dtype))
        if sums:
            with body.loop(before):
                for i, j in self.each_result():
                    body.store(acc, i * pitch + j, body.load(sums, self.sum_at(i, j), node.dtype))
        return acc, pitch

    def register(self) -> tuple[str, int]:
        """Registers for the tile, and how far its rows are apart in them."""
        pitch = self.columns.padded(self.lanes)
        return self.body.register(self.p.node.dtype, self.rows * pitch), pitch

    def add(self, acc: str, steps: Steps) -> None:
        """The products for each point of `steps`."""
        body, at = self.body, dict(self.at)
        with ExitStack() as stack:
            for w, start, stop in steps:
                first, last = clipped(body, self.p, self.at, w, start, stop)
                whole = (first, last) == (start, stop)
                # single rows, left over when the number of rows is known at run time, are not worth the code
                often = self.share >= SELDOM and (self.rows > 1 or not self.p.rows)
                unroll = UNROLL if whole and w is steps[-1][0] and often else 1
                at[w] = stack.enter_context(body.loop(last, start=first, unroll=unroll, stem="k"))
            self.multiply(acc, at)

    def multiply(self, acc: str, at: Mapping[Walk, Dim]) -> None:
        """The products at one point of the sum. Of vectors and rows the fewer wait in registers for the others."""
        body, dtype, pitch = self.body, self.p.node.dtype, self.columns.padded(self.lanes)
        left, right = self.read.strips or self.read.left, self.read.panels or self.read.right

        def add(i: Dim, j: Dim, vector: L.Expr) -> None:
            terms = (body.load(left, self.left_at(at, i), dtype), vector, body.load(acc, i * pitch + j, dtype))
            body.store(acc, i * pitch + j, L.Apply("fma", terms, dtype))

        if pitch // self.lanes > self.rows:
            for j, source in self.each_column(at):
                if self.rows == 1 and self.read.panels and sheet_bytes(self.p) > FAR:
                    body.emit(L.Prefetch(right, to_expr(source + STREAM // BYTES[dtype])))
                vector = body.bind(body.load(right, source, dtype))
                with body.loop(self.rows, unroll=0) as i:
                    add(i, j, vector)
            return
        if self.next is not None:
            body.emit(L.Prefetch(right, to_expr(self.next.at(at[self.p.inner[-1]], LINE // BYTES[dtype])), 2))
        near = body.register(dtype, pitch)
        for j, source in self.each_column(at):
            body.store(near, j, body.load(right, source, dtype))
        with body.loop(self.rows, unroll=0) as i:
            for j, _ in self.each_column():
                add(i, j, body.load(near, j, dtype))

    def ask_ahead(self, outputs: Results) -> None:
        """What lies beside the tile, and is read when its sums are known, comes from far away in the meantime; so does
        what is written, where several results do not take the places of operands: more lines than stores wait for.
        Measured: a seventh of the time of a product with two such operands of 2 MB, a fifth of one with two such
        results; of one result, nothing."""
        body, shape = self.body, self.p.node.shape
        others = [v for v in body.held if v not in self.p.node.args]
        beside = [body.held[v] for v in others if body.graph[v].shape == shape]
        written = [y for v, y in outputs.items() if y is not None and body.graph[v].shape == shape]
        beside += written[len(beside) :] if len(written) > 1 else []
        if not beside:
            return
        for i, j in self.each_result():
            index = self.result_index(i, j)
            for buffer in beside:
                body.emit(L.Prefetch(buffer, to_expr(flat(index, shape))))

    def each_result(self) -> Iterator[tuple[Dim, Dim]]:
        """The row and the column in the tile, vector by vector and for each all rows."""
        for j, _ in self.each_column():
            with self.body.loop(self.rows, unroll=0) as i:
                yield i, j

    def each_column(self, at: Mapping[Walk, Dim] | None = None) -> Iterator[tuple[Dim, Dim]]:
        """Vector by vector: a column of the tile, and where `right` has it at a point of the sum."""
        body, width = self.body, self.read.width if self.read.panels else self.columns.width
        if self.columns.width <= width:
            with across(body, self.columns, self.j0, self.p.columns[-1].size, self.lanes) as j:
                yield j, 0 if at is None else self.right_at(at, self.j0, self.columns) + j
            return
        for part in parts(self.columns.width, width):
            with body.loop(part.stop, start=part.start, step=width, unroll=0, stem="t") as t:
                with body.loop(part.width, lanes=self.lanes, unroll=0, stem="j") as j:
                    yield t + j, 0 if at is None else self.right_at(at, self.j0 + t, part) + j

    def left_at(self, at: Mapping[Walk, Dim], i: Dim) -> Dim:
        if self.read.strips:
            return strip(self.p, at, self.read.block, self.read.height) + self.i0 + i - self.read.block
        row = (self.i0 + i) * self.p.rows[-1].left if self.p.rows else 0
        return self.p.left + total(x * w.left for w, x in at.items()) + row

    def right_at(self, at: Mapping[Walk, Dim], j0: Dim, columns: Part) -> Dim:
        if self.read.panels:
            return panel(self.p, self.lanes, at, j0, columns, self.read.part)
        return self.p.right + total(x * w.right for w, x in at.items()) + j0

    def result_index(self, i: Dim, j: Dim) -> tuple[Dim, ...]:
        """The index in the result of row i and column j of the tile."""
        points = {**self.at, self.p.columns[-1]: self.j0 + j}
        if self.p.rows:
            points[self.p.rows[-1]] = self.i0 + i
        return point_in_result(self.body, self.p, points)

    def sum_at(self, i: Dim, j: Dim) -> Dim:
        """Where sums have it: where the result has, or rows by columns where that is transposed."""
        if self.p.swapped:
            return (self.i0 + i) * self.p.columns[-1].size + self.j0 + j
        return self.base + flat(self.result_index(i, j), self.p.node.shape)


def point_in_result(body: Body, p: Product, points: Mapping[Walk, Dim]) -> tuple[Dim, ...]:
    """The index in the result of a point of the loops."""
    letters = [e[1][0][0] for e in p.node.attrs["out"]]
    index: list[Dim] = [0] * len(letters)
    for w, x in points.items():
        if w not in p.inner:
            place(x, Axes(tuple(letters.index(v) for v in w.indices), w.extents), index, body)
    return tuple(index)

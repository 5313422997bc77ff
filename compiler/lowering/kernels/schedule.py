"""How a matrix product is computed: its register tile, what is copied first, and whether it is summed in blocks.

In: a product and a target. Out: a `Schedule`. The one idea: multiply-add units wait for memory, not for each other. So
what a tile would read line by line of ever other pages is copied to where it lies side by side, once for all tiles, or
some of it at a time for all rows:

    panels   of the right operand   for each tile of columns all k, for each k the tile's columns
    strips   of the left operand    for each block of rows, or each tile's, all k, for each k the block's rows

And a long sum is taken a few steps at a time, for all tiles of a block of rows, as long as both are near. The more rows
there are, the more steps: sums are loaded and stored less often (2048 x 2048 x 2048 with panels of half a megabyte for
1,024 steps, not all at once: 0.84 of the time).

Goto, van de Geijn, "Anatomy of high-performance matrix multiplication" (2008).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ....dsl.record import dataclass, replace
from ...graph.cost import number
from ...graph.product import Product
from ...loops.index import quotient
from ...types.sizes import Dim
from ...types.tensors import BYTES
from .ahead import runs
from .sharing import ENOUGH
from .tile import LONG, Tile, choose, is_far

if TYPE_CHECKING:
    from ...native.target import Target

UNROLL = 4  # copies of a sum's body: with 16 the scheduler spills
CHUNK = 384  # steps of a long sum at a time
DEPTH = 1024  # and where rows lie side by side and so do panels: fewer sums to load and store, fewer panels begun
BLOCK = 256  # rows at a time, at most
SHARES = 4  # blocks of rows that threads share, at least
CHUNKS = 8  # of columns, where panels are there
FEW = 16  # rows up to which the right operand is read as it lies, for all columns at a time; more are worth a copy
STREAMS = 16  # rows of the right operand at a time, then
WIDTH, NARROW = 2048, 512  # and columns of them, at most and at least
LARGE = 1 << 18  # bytes of it that do not stay in the second-level cache beside the rest
NEAR = 1 << 17  # that do
HALF = 1 << 19  # that do beside as many of the other operand and nothing else
FAR = 1 << 20  # that come from beyond it
SWAPPED = 512  # steps of a sum for which it does not matter that the result is transposed
MANY = 2  # chunks of columns, which threads share
SOME = 1 << 9  # rows up to which a part of a panel is used so seldom that it shows where the copy came from
PAGE = 1 << 12
APART = 1 << 9  # bytes between steps of a sum whose lines displace one another in the first-level cache
AGAIN = 8  # tiles of columns that are worth a strip there
PART = 1 << 15  # bytes of a panel that stay in the first-level cache while tiles pass over them
DEEPEST = 1 << 13  # steps of a window's sum that stay near with a tile of columns; longer ones go around the tiles
TIMES = 256  # uses of a window's weights that are worth a copy
RUNS = 4  # of the examples that a sum goes over, or of blocks of their tiles
MANY_ROWS = 4  # for each column
BAND = 4  # tiles of rows, at least ...
NEAREST = 1 << 15  # ... or as many as stay in the first-level cache
SMALL = 300_000  # bytes of results, which each run has


@dataclass(frozen=True, slots=True)
class Schedule:
    """Of one product. The kernel needs `scratch` bytes for each of what it copies and sums."""

    tile: Tile
    panels: bool
    strips: bool = False
    blocks: bool = False
    height: int = 0  # rows of a block; 0: it has all of them
    width: int = 0  # its columns
    deep: int = 0  # steps at a time of the first index of the sum
    last: Dim = 0  # and the one from which on the sum is taken to its end
    turned: bool = False  # for a tile of columns after the other all rows, but for those of the first `outside` loops
    outside: int = 0
    steps: int = 0  # of the last index of the sum for all those rows, then; 0: all of it for one tile after the other
    asked: int = 1  # runs in which lines of what comes next are asked for, then
    single: int = 0  # columns of a tile of one row, where one by one those are taken that are left over
    chunk: bool = False  # panels of a block's columns are copied for some steps of the sum at a time, not all before
    runs: bool = False  # of examples, each with sums of its own, which are added in order
    band: int = 0  # rows at a time, of many, for all columns: what a thread reads of them it wrote; 0: all
    by_rows: bool = False  # for a tile of rows after the other all columns: a thread has the same rows as elsewhere

    def part(self, p: Product, start: Dim) -> tuple[Dim, Dim] | None:
        """Of the sum what panels hold at a time, where they do not hold all: from `start`, so many steps."""
        return (start, self.deep * prod(w.size for w in p.inner[1:])) if self.chunk else None

    def scratch(self, p: Product, alone: bool) -> tuple[Dim, ...]:
        """Bytes of the panels, the strips and the sums; the result holds the sums where it is `alone` in a kernel."""
        rows, columns, size = p.rows[-1].size if p.rows else 1, p.columns[-1].size, BYTES[p.node.dtype]
        if self.runs:
            return (RUNS * prod(p.node.shape) * size,)
        out: list[Dim] = []
        if self.panels and self.chunk:
            across = quotient(columns + self.width - 1, self.width, {}) * self.width
            out.append(self.deep * prod(w.size for w in p.inner[1:]) * across * size)
        elif self.panels:
            out.append(p.panels(self.tile.lanes) * size)
        if self.strips:
            blocks = quotient(rows + self.height - 1, self.height, {})
            out.append(blocks * self.height * prod(w.size for w in p.inner) * size)
        if p.swapped:
            out += [
                rows * columns * size,
                quotient(rows + self.height - 1, self.height, {}) * self.height * columns * size,
            ]
        elif self.blocks and self.last != 0 and not alone:
            out.append(rows * columns * size)
        return tuple(out)


def is_better_swapped(p: Product) -> bool:
    """Whether to copy the left operand takes less than the right one, which is large and would have to be transposed:
    its rows are read as they lie then, and the result is transposed. Measured: 0.7 to 0.9 of the time."""
    if not p.packed or p.batch or p.clips or not len(p.rows) == len(p.columns) == len(p.inner) == 1:
        return False
    ((rows,), (columns,), (inner,)) = p.rows, p.columns, p.inner
    long = isinstance(columns.size, int) and isinstance(inner.size, int) and inner.size >= SWAPPED
    return long and inner.right == 1 and is_large(p) and number(columns.size) >= 2 * number(rows.size)


def schedule(p: Product, target: Target) -> Schedule:
    """For the sizes at hand."""
    if not p.batch and len(p.columns) == 1 and len(p.rows) <= 1:
        return _of_matrices(p, target)
    if _is_in_runs(p):
        return Schedule(_tile(p, _deep(p, target), False, target), False, runs=True)
    if not p.batch and len(p.rows) > 1 and (len(p.columns) == 1 or is_large(p)) and p.clipped_in_sheets:
        if number(prod(w.size for w in p.inner)) <= DEEPEST:
            return _of_windows(p, target)
    return Schedule(_tile(p, _deep(p, target), p.packed, target), p.packed)


def _tile(
    p: Product, depth: Dim, panels: bool, target: Target, height: Dim | None = None, shared: bool = False
) -> Tile:
    rows, columns = height or (p.rows[-1].size if p.rows else 1), p.columns[-1].size
    far = is_far(columns, depth, panels or p.width > 0, p.node.dtype, target)
    long = len(p.inner) == 1 and number(depth) >= LONG and isinstance(rows, int)  # of few rows most would be left over
    return choose(rows, columns, far, p.node.dtype, target, p.width, long, _again(p), shared=shared)


def _again(p: Product) -> int:
    """After how many steps of its sum a row's element of the left operand is that of the row before; 0 where it is not
    while copies of the sum's body keep it in a register."""
    row, step = number(p.rows[-1].left) if p.rows else 0, number(p.inner[-1].left)
    return row // step if step and row % step == 0 and row < UNROLL * step else 0


def _deep(p: Product, target: Target) -> Dim:
    """Steps of a sum for which a tile of columns should stay near: all, but one unit waits less for what does not."""
    return prod(w.size for w in p.inner) if target.units > 1 else p.inner[-1].size


def is_large(p: Product) -> bool:
    """Whether a sheet of the right operand does not stay in the second-level cache beside the rest."""
    return sheet_bytes(p) >= LARGE


def sheet_bytes(p: Product) -> int:
    """Of one matrix of the right operand."""
    return number(prod(w.size for w in p.inner) * p.columns[-1].size) * BYTES[p.node.dtype]


def _is_in_runs(p: Product) -> bool:
    """Whether threads share a sum over examples, as that of a gradient by the weights of a window: there are few
    results, and by rows of them each thread would read all examples."""
    results, examples = prod(p.node.shape), p.inner[0]
    if p.batch or p.packed or p.width or p.swapped or not p.rows or len(p.columns) > 1 or len(p.inner) < 2:
        return False
    if (
        isinstance(examples.size, int)
        or not isinstance(results, int)
        or any(c.index in examples.indices for c in p.clips)
    ):
        return False
    return results * BYTES[p.node.dtype] <= SMALL


def _of_windows(p: Product, target: Target) -> Schedule:
    """Weights that are large are read for many pixels at a time: all that stay near."""
    size, rows = BYTES[p.node.dtype], number(prod(w.size for w in p.rows))
    turned, panels = is_large(p), p.packed or (rows >= TIMES and not p.width)
    tile = _tile(p, _deep(p, target), panels, target)
    steps = _near(p, tile) if sheet_bytes(p) > FAR and (panels or p.width) and not p.clips else 0
    span = FAR if steps else LARGE
    outside = next((k for k in range(len(p.rows)) if _span(p, k) * size <= span), len(p.rows) - 1)
    return Schedule(tile, panels, turned=turned, outside=outside, steps=steps, asked=runs(target))


def _near(p: Product, tile: Tile) -> int:
    """Steps of the last index of a sum whose part of a panel stays in the first-level cache; 0 where all of it does, or
    that index is short."""
    last, most = p.inner[-1].size, max(LONG, PART // (tile.vectors * tile.lanes * BYTES[p.node.dtype]))
    if not isinstance(last, int) or last < LONG or number(prod(w.size for w in p.inner)) <= most:
        return 0
    turns = -(-last // most)
    return -(-last // (turns * UNROLL)) * UNROLL


def _of_matrices(p: Product, target: Target) -> Schedule:
    """Each operand is one matrix."""
    rows, columns, size = p.rows[-1].size if p.rows else 1, p.columns[-1].size, BYTES[p.node.dtype]
    depth = prod(w.size for w in p.inner)
    large = is_large(p)
    copied = large and not p.clips and number(rows) > FEW
    few = large and not p.packed and not p.width and isinstance(rows, int) and rows <= FEW
    across = bool(p.rows) and p.rows[0].left == 1  # read across its rows, as for the gradient of a weight
    blocks = copied or few or p.swapped or (across and not p.packed and not p.width and number(depth) > 2 * CHUNK)
    many = copied and number(rows) > SOME
    deep, last = _steps(p, STREAMS if few else DEPTH if many else CHUNK)
    line = max(1, number(deep * prod(w.size for w in p.inner[1:]) * size))  # bytes of a column, or a row, for so many
    near = (HALF if many else NEAR) // line
    chunk = copied and not p.width and isinstance(columns, int) and columns >= MANY * near
    if p.swapped or (copied and not (chunk or across)):
        deep, last = _steps(p, DEPTH)
    panels = p.packed or (copied and not p.width)
    height = min(BLOCK, -(-rows // SHARES)) if isinstance(rows, int) else BLOCK
    height = min(height, max(1, HALF // line)) if chunk and many else height
    one = isinstance(rows, int) and blocks and not few  # block is what tiles are to divide
    own = panels and not blocks and isinstance(columns, int) and not isinstance(rows, int)
    tile = _tile(p, deep if blocks else p.inner[-1].size, panels, target, height if one else rows, own)
    height = tile.rows * _turns(p, rows, tile.rows, max(1, height // tile.rows))
    step = number(p.inner[-1].left) * size if across else 0
    strips = copied and step >= PAGE
    if step >= APART and isinstance(rows, int) and not (blocks or panels or p.width):
        if number(columns) >= AGAIN * tile.vectors * tile.lanes:
            return Schedule(tile, False, strips=True, height=tile.rows, by_rows=True)
    single = tile.single if isinstance(columns, int) and not isinstance(rows, int) else 0
    grain = single or tile.vectors * tile.lanes
    if few:
        width = max(NARROW, min(WIDTH, _share(columns, 2, grain)))
    elif chunk or p.width:  # so many chunks are whole; of a rest that is none threads share the rows
        width = grain * max(1, number(columns) // (grain * CHUNKS))
        width = min(width, _share(columns, number(columns) // max(grain, near), grain)) if chunk else width
    else:
        width = 0
    by_rows = across and not (blocks or panels or single) and isinstance(rows, int) and rows >= ENOUGH * tile.rows
    above = bool(single) and not blocks and number(rows) >= MANY_ROWS * number(columns)
    band = max(BAND, NEAREST // max(1, number(depth) * size * tile.rows)) * tile.rows if above else 0
    how = Schedule(tile, panels, strips, blocks, 0 if few else height, width, deep, last, single=single, chunk=chunk)
    return replace(how, by_rows=by_rows, band=band)


def _turns(p: Product, rows: Dim, each: int, most: int) -> int:
    """How many tiles of so many rows are a block: at most so many. Of a swapped product a block is much code: no tile
    is to be left over, and blocks are to be shared evenly."""
    if not p.swapped or not isinstance(rows, int):
        return most
    blocks = {n: divmod(rows, n * each) for n in range(most, most // 2, -1)}
    return next((n for n, (count, left) in blocks.items() if left < each and count % 2 == 0), most)


def _steps(p: Product, most: int) -> tuple[int, Dim]:
    """How many steps at a time of the first index of a sum, for at most so many of the sum, and the step from which on
    it is taken to its end."""
    first, rest = p.inner[0].size, max(1, number(prod(w.size for w in p.inner[1:])))
    deep = max(1, most // rest)
    if not isinstance(first, int):
        return deep, quotient(first, deep, {}) * deep
    turns = max(1, -(-first // deep))
    deep = min(deep, -(-first // (UNROLL * turns)) * UNROLL) or 1
    return deep, (first - 1) // deep * deep if first else 0


def _share(columns: Dim, chunks: int, grain: int) -> int:
    """Columns of each of so many chunks, in whole grains."""
    return grain * -(-number(columns) // (grain * chunks))


def _span(p: Product, first: int) -> int:
    """How many elements of the left operand lie between those that are read, but for the first loops over rows."""
    return 1 + sum((number(w.size) - 1) * abs(number(w.left)) for w in (*p.rows[first:], *p.inner))

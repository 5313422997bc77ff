"""Copies that transpose: packing a matrix by columns into panels.

    for k in ... { for j in ... vector L unroll 0 { to[... + j] = from[c * j + k + ...] } }

reads L places that are far apart for every vector it writes, whether what is read has a name or not. L turns of it
together read L rows and write their transpose, which is a network of shuffles: 16 by 16 in 64 instructions instead of
16 gathers (six times as fast on Zen 4, where a gather of 16 takes some 50 cycles).
"""

from __future__ import annotations

from ...dsl.record import dataclass
from ..loops.ir import Apply, Const, Expr, For, Let, Load, Stmt, Store, Var
from .memory import ALIGNMENT
from .text import Function, type_text, vector_literal

PART = 4  # of a square: with more turns left over, one that is not whole is worth while
LANE = 16  # bytes: x86 shuffles within these, then moves them whole


@dataclass(frozen=True, slots=True)
class Copy:
    """The loop in lanes inside, its store and its load."""

    inner: For
    store: Store
    load: Load


def copy_in(loop: For) -> Copy | None:
    """The copy that is all of a loop's body, when its indices are affine in both variables."""
    match loop.body:
        case (For(lanes=(4 | 8 | 16), unroll=0, body=body) as inner,):
            store, load = _copied(body)
            if store is not None and load is not None and store.buffer != load.buffer and load.dtype != "bool":
                variables = (loop.var, inner.var)
                if all(_affine(e, v) for e in (store.index, load.index) for v in variables):
                    return Copy(inner, store, load)
    return None


def _copied(body: tuple[Stmt, ...]) -> tuple[Store | None, Load | None]:
    """What is stored and what is loaded for it, where that is all, whether it has a name or not."""
    match body:
        case (Store(value=Load() as load) as store,):
            return store, load
        case (Let(value=Load() as load) as let, Store(value=Var(name)) as store) if name == let.name:
            return store, load
    return None, None


def _affine(e: Expr, var: str, depth: int = 0) -> bool:
    """Whether an index is a multiple of a variable plus what does not depend on it."""
    match e:
        case Const() | Var():
            return True
        case Apply("add" | "sub", (a, b)) if depth < 50:
            return _affine(a, var, depth + 1) and _affine(b, var, depth + 1)
        case Apply("mul", (a, Const() | Var() as b)) | Apply("mul", (Const() | Var() as b, a)) if depth < 50:
            return _affine(a, var, depth + 1) and b != Var(var)
    return False


def transpose(fn: Function, dtype: str, rows: list[str]) -> list[str]:
    """The columns of a square of rows; its side is a power of two. First within pieces of 16 bytes, by interleaving
    ever longer runs of elements; then the pieces, by picking the even and the odd ones of two vectors."""
    n = len(rows)
    piece = min(n, LANE // ALIGNMENT[dtype])
    run = 1
    while run < piece:
        rows = _stage(fn, dtype, rows, run, _interleave(n, piece, run))
        run *= 2
    while run < n:
        rows = _stage(fn, dtype, rows, run, _alternate(n, piece))
        run *= 2
    return _ordered(rows, piece)


def _stage(fn: Function, dtype: str, rows: list[str], distance: int, picks: tuple[list[int], list[int]]) -> list[str]:
    """Every pair of rows at a distance, shuffled into two new ones."""
    type_, n = type_text(dtype, len(rows)), len(rows)
    done = list(rows)
    for k in range(n):
        if not k & distance:
            a, b = rows[k], rows[k + distance]
            for at, pick in ((k, picks[0]), (k + distance, picks[1])):
                mask = f"<{n} x i32> {vector_literal(list(pick), 'i32')}"
                done[at] = fn.value(f"shufflevector {type_} {a}, {type_} {b}, {mask}", "square")
    return done


def _interleave(n: int, piece: int, run: int) -> tuple[list[int], list[int]]:
    """Within each piece, runs of a and b in turn: first those of the lower half of the piece, then of the upper."""
    picks: tuple[list[int], list[int]] = ([], [])
    for first in range(0, n, piece):
        for half, pick in enumerate(picks):
            for at in range(first + half * piece // 2, first + (half + 1) * piece // 2, run):
                pick.extend(range(at, at + run))
                pick.extend(range(n + at, n + at + run))
    return picks


def _alternate(n: int, piece: int) -> tuple[list[int], list[int]]:
    """The even pieces of a and b, and the odd ones."""
    picks: tuple[list[int], list[int]] = ([], [])
    for which, pick in enumerate(picks):
        for first in range(which * piece, 2 * n, 2 * piece):
            pick.extend(range(first, first + piece))
    return picks


def _ordered(rows: list[str], piece: int) -> list[str]:
    """Each stage puts the next bit of the column into the bit of its distance, within pieces from the top down, among
    pieces from the bottom up: so within a piece the bits of the column stand reversed."""
    bits, n = piece.bit_length() - 1, len(rows)
    columns = list(rows)
    for k in range(n):
        low = int(format(k % piece, f"0{bits}b")[::-1], 2) if bits else 0
        columns[k - k % piece + low] = rows[k]
    return columns

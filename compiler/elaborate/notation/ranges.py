"""First walk: the indices of an expression, the axes that each `*s` stands for, and how far each index runs.

An index runs as far as its range says, or as the axes on which it stands alone; of `i*stride + u`, once all but one are
known, the last is as far as stays inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....dsl import ast
from ....dsl.diagnostics import Label
from ....dsl.errors import error
from ....dsl.record import dataclass
from ....dsl.source import Span
from ...types.sizes import Dim, divide
from ..context import Context
from ..scope import Scope
from ..shapes import at_least, same_size
from ..values import Axis, Tensor
from .labels import Indices, comprehensions, is_plain, positions_of, references
from .quotients import bounds, without_quotients


@dataclass(frozen=True, slots=True)
class _Read:
    """One axis of a reference: what it is read at."""

    base: Tensor
    axis: int
    at: Axis
    span: Span

    @property
    def size(self) -> Dim:
        return self.base.shape[self.axis]


def find_ranges(cx: Context, e: ast.Expr, ix: Indices, scope: Scope) -> None:
    """Fill in what `ix` says about the indices of an expression."""
    for c in comprehensions(e):
        for b in c.binders:
            if b.rest:
                ix.rests.setdefault(b.name, None)
                continue
            if [x.name for x in c.binders].count(b.name) > 1:
                raise error("E0309", f"the index `{b.name}` is bound twice", b.span)
            ix.names.add(b.name)
            ranged(cx, b, ix, scope)
    found = list(references(cx, e, ix, scope))
    for base, items, _ in found:
        _count_rest(base, items, ix)
    waiting: list[_Read] = []
    for base, items, span in found:
        positions = positions_of(cx, base, items, ix, scope, span)
        view, axes = without_quotients(cx, base, positions, None, span)
        for axis, at in enumerate(axes):
            if at is None:
                continue
            read = _Read(view, axis, at, span)
            if is_plain(at) and at[1][0][0] not in ix.ranged:
                _spans_axis(cx, read, ix)
            else:
                waiting.append(read)
    _solve(cx, waiting, e, ix)


def ranged(cx: Context, b: ast.Binder, ix: Indices, scope: Scope) -> None:
    """Note the range that is written with an index, if there is one."""
    if b.range is not None:
        ix.extent[b.name] = _stop(cx, b, b.range, scope)
        ix.ranged.add(b.name)


def _stop(cx: Context, b: ast.Binder, r: ast.Range, scope: Scope) -> Dim:
    """How far a given range goes."""
    start = cx.integer(r.start, scope, "a range")
    stop = cx.integer(r.stop, scope, "a range")
    if start != 0:
        raise error("E0309", f"the range of `{b.name}` must begin at 0", r.span, help=f"shift it: `{b.name} + {start}`")
    if isinstance(stop, int) and stop < 0:
        raise error("E0309", f"the range of `{b.name}` is empty", r.span)
    return stop


def _count_rest(base: Tensor, items: Sequence[Any], ix: Indices) -> None:
    """How many axes the `*s` of a reference stands for."""
    for r in [i for i in items if isinstance(i, ast.Rest)][:1]:
        count = base.rank - (len(items) - 1)
        known = ix.rests.get(r.name)
        if count < 0 or (known is not None and known != count):
            raise error("E0309", f"`*{r.name}` stands for {known} axes elsewhere, but here for {max(count, 0)}", r.span)
        ix.rests[r.name] = count


def _spans_axis(cx: Context, read: _Read, ix: Indices) -> None:
    """An index that stands alone runs over the whole axis, and everywhere equally far."""
    name, size = read.at[1][0][0], read.size
    if name in ix.extent:
        known = ix.extent[name]
        agreed = same_size(cx, known, size, f"how far the index `{name}` runs", read.span)
        if agreed is None:
            raise error(
                "E0301",
                f"the index `{name}` runs to {known} in one place and to {size} in another",
                read.span,
                f"axis {read.axis} of {read.base.type}",
                *([Label(ix.told[name], f"{name} runs to {known} here")] if name in ix.told else []),
            )
        size = agreed
    ix.extent[name] = size
    ix.told.setdefault(name, read.span)


def _solve(cx: Context, waiting: list[_Read], e: ast.Expr, ix: Indices) -> None:
    """The ranges that follow from sums of indices, each as soon as one index in it is not known."""
    progress = True
    while waiting and progress:
        progress = False
        for read in list(waiting):
            unknown = [(name, k) for name, k in read.at[1] if name not in ix.extent]
            if len(unknown) > 1:
                continue
            waiting.remove(read)
            progress = True
            if unknown:
                ix.extent[unknown[0][0]] = _room(cx, read, *unknown[0], ix)
            else:
                _check_inside(cx, read, ix)
    if waiting:
        name = next(n for n, _ in waiting[0].at[1] if n not in ix.extent)
        bound = {b.name for c in comprehensions(e) for b in c.binders}
        advice = f"give its range: `{name} in 0..3`" if name in bound else "let it stand alone on some axis"
        raise error("E0309", f"nothing says how far `{name}` runs", waiting[0].span, help=advice)


def _room(cx: Context, read: _Read, name: str, coefficient: int, ix: Indices) -> Dim:
    """As far as an index may run while the others do as they do: the largest that stays inside the axis, and one."""
    constant, terms = read.at
    low, high = bounds(cx, (constant, tuple(t for t in terms if t[0] != name)), ix.extent, read.span)
    room, other = (read.size - 1 - high, low) if coefficient > 0 else (low, read.size - 1 - high)
    message = f"the index `{name}` has no value that stays inside an axis of {read.size}"
    if (isinstance(room, int) and room < 0) or not at_least(cx, other, 0, message, read.span):
        raise error("E0309", message, read.span)
    return divide(room, abs(coefficient))[0] + 1


def _check_inside(cx: Context, read: _Read, ix: Indices) -> None:
    """An index expression whose indices have their ranges from elsewhere must not leave its axis."""
    (low, high), n = bounds(cx, read.at, ix.extent, read.span), read.size
    where = f"the index of axis {read.axis}"
    message = f"{where} of {read.base.type} runs from {low} to {high}, which must be within 0 to {n - 1}"
    if not (at_least(cx, low, 0, message, read.span) and at_least(cx, n - 1, high, message, read.span)):
        raise error(
            "E0309",
            f"{where} runs from {low} to {high}, outside {read.base.type}",
            read.span,
            help="an index that stands alone elsewhere spans that whole axis: slice that operand, or `pad` this one",
        )

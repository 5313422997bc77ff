"""Quotients and remainders of indices, `x[i // 2, j % 3]`: a view in which the index stands without them.

    x[i // 2]    is r[i],    r = x with each element twice:     x0 x0 x1 x1 x2 x2
    x[i % 3]     is t[i],    t = x[:3] as often as i asks:      x0 x1 x2 x0 x1 x2 x0

What stands around is a slice or part of the index: x[2*(i // 2) + 1] is x[1::2] at i // 2, and i // 2 + 1 is
(i + 2) // 2.
"""

from __future__ import annotations

from ....dsl.errors import error
from ....dsl.record import dataclass
from ....dsl.source import Span
from ...types.sizes import Dim
from ..context import Context
from ..shapes import at_least, divided
from ..values import Axis, Tensor


@dataclass(frozen=True, slots=True)
class Quotient:
    """`inner // by` or `inner % by`."""

    op: str
    inner: Position
    by: Dim


Position = tuple[Dim, tuple[tuple["str | Quotient", int], ...]]  # constant + sum of index or quotient * coefficient


def without_quotients(
    cx: Context, x: Tensor, positions: list[Position], extent: dict[str, Dim] | None, span: Span
) -> tuple[Tensor, list[Axis | None]]:
    """A view of `x` that is read at sums of indices. While it is not known how far indices run (`extent` is None), None
    stands for an axis with a remainder, which says nothing of it."""
    axes: list[Axis | None] = []
    for axis, at in enumerate(positions):
        place: Position | None = at
        while place is not None and any(isinstance(term, Quotient) for term, _ in place[1]):
            x, place = _undone(cx, x, axis, place, extent, span)
        axes.append(place)  # type: ignore[arg-type]
    return x, axes


def _undone(
    cx: Context, x: Tensor, axis: int, at: Position, extent: dict[str, Dim] | None, span: Span
) -> tuple[Tensor, Position | None]:
    """The view in which one quotient less stands on the axis."""
    constant, terms = at
    if len(terms) > 1:
        raise error(
            "E0309",
            "a quotient or a remainder of indices must be all that moves along its axis",
            span,
            help="name what is read first: `z[q, j] = x[q + j]`, then `z[i // 2, j]`",
        )
    ((quotient, step),) = terms
    assert isinstance(quotient, Quotient)
    by, (first, inner) = quotient.by, quotient.inner
    if step < 0:
        x = cx.emit("flip", x, span=span, axes=(axis,))
        constant, step = x.shape[axis] - 1 - constant, -step
    if quotient.op == "//" and step == 1:
        return _repeated(cx, x, axis, by, span), (first + constant * by, inner)
    if (constant, step) != (0, 1):
        _needs(cx, constant, 0, f"the index of axis {axis} runs from {constant}, which must be 0 at least", span)
        x = _cut(cx, x, axis, constant, x.shape[axis], step, span)
    if quotient.op == "//":
        return _repeated(cx, x, axis, by, span), quotient.inner
    n = x.shape[axis]
    _needs(cx, n, by, f"the index of axis {axis} runs to {by - 1}, which must be within 0 to {n - 1}", span)
    if extent is None:
        return x, None
    return _tiled(cx, _cut(cx, x, axis, 0, by, 1, span), axis, quotient.inner, extent, span), quotient.inner


def _repeated(cx: Context, x: Tensor, axis: int, times: Dim, span: Span) -> Tensor:
    """Each element of an axis so many times, one behind the other."""
    return _spread(cx, x, axis, (x.shape[axis], times), axis, span)


def _tiled(cx: Context, x: Tensor, axis: int, at: Position, extent: dict[str, Dim], span: Span) -> Tensor:
    """An axis, as often as the index `at` asks for."""
    low, high = bounds(cx, at, extent, span)
    _needs(cx, low, 0, f"the index of axis {axis} runs from {low}, which must be 0 at least", span)
    copies = divided(cx, high, x.shape[axis], span)[0] + 1
    return _spread(cx, x, axis, (copies, x.shape[axis]), axis + 1, span)


def bounds(cx: Context, at: Position, extent: dict[str, Dim], span: Span) -> tuple[Dim, Dim]:
    """The least and the greatest value of an index expression, where no index of it has an empty range."""
    low = high = at[0]
    for term, k in at[1]:
        first: Dim = 0
        if isinstance(term, str):
            last = extent[term] - 1
        elif term.op == "%":
            last = term.by - 1
        else:
            first, last = (divided(cx, n, term.by, span)[0] for n in bounds(cx, term.inner, extent, span))
        low, high = (low + k * first, high + k * last) if k > 0 else (low + k * last, high + k * first)
    return low, high


def _spread(cx: Context, x: Tensor, axis: int, sizes: tuple[Dim, Dim], own: int, span: Span) -> Tensor:
    """An axis as two of `sizes`, of which `own` is itself and the other repeats it, and both as one."""
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    axes = tuple(own if k == axis else k + (k > axis) for k in range(x.rank))
    wide = cx.emit("broadcast", x, span=span, shape=(*before, *sizes, *after), axes=axes)
    return cx.emit("reshape", wide, span=span, shape=(*before, sizes[0] * sizes[1], *after))


def _cut(cx: Context, x: Tensor, axis: int, start: Dim, stop: Dim, step: int, span: Span) -> Tensor:
    only = [k == axis for k in range(x.rank)]
    return cx.emit(
        "slice",
        x,
        span=span,
        starts=tuple(start if k else 0 for k in only),
        stops=tuple(stop if k else n for k, n in zip(only, x.shape, strict=True)),
        steps=tuple(step if k else 1 for k in only),
    )


def _needs(cx: Context, a: Dim, b: Dim, message: str, span: Span) -> None:
    if not at_least(cx, a, b, message, span):
        raise error("E0309", message, span)

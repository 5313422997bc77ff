"""Shapes, slices, joins, and looking things up by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....dsl.errors import error
from ....dsl.source import Span
from ...types.facts import equal, lowest
from ...types.sizes import Dim, Size, divide, product, substitute
from ...types.tensors import INTS
from ..context import Context
from ..shapes import (
    MASKED,
    broadcast_to,
    check_index,
    divided,
    gather_axis,
    joined,
    refine,
    reshape,
    same_size,
    sizes,
    tensor,
)
from ..values import Arguments, Results, Tensor, Value, is_size, kind
from .elementwise import plain
from .reductions import axes_of, axis_number


def call_reshape(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    wanted = sizes(a.shape, a.at("shape"))
    what = f"reshape of {x.type} to {_shape(wanted)}"
    total: Dim = x.type.size
    if -1 in wanted:
        if wanted.count(-1) > 1:
            raise error("E0203", "one size of a shape can be -1", a.at("shape"))
        missing = _missing(cx, x, product(s for s in wanted if s != -1), what, a)
        wanted = tuple(missing if s == -1 else s for s in wanted)
    elif same_size(cx, total, count := product(wanted), what, a.span) is None:
        raise error("E0301", f"{x.type} has {total} elements, but {_shape(wanted)} has {count}", a.at("shape"))
    return _regroup(cx, x, wanted, a.span)


def _missing(cx: Context, x: Tensor, others: Dim, what: str, a: Arguments) -> Dim:
    """The size that -1 stands for."""
    if others == 0:
        return 0
    top, bottom = lowest(x.type.size, others)
    missing, remainder = divided(cx, top, bottom, a.span)
    if remainder == 0:
        return missing
    told, rest = divide(substitute(top, cx.facts), substitute(bottom, cx.facts))
    if rest == 0:
        return told
    if isinstance(remainder, int):
        raise error("E0306", f"{x.type.size} elements do not divide by {others}", a.at("shape"), str(x.type))
    cx.guard(remainder, 0, f"{what}: {bottom} must divide {top}", a.span)
    return missing


def _regroup(cx: Context, x: Tensor, shape: tuple[Dim, ...], span: Span) -> Tensor:
    """A reshape whose numbers of elements are equal, if only because a guard says so."""
    if product(shape) == x.type.size:
        return reshape(cx, x, shape, span)
    old, new = ([substitute(n, cx.facts) for n in s] for s in (x.shape, shape))
    if product(old) == product(new):
        return refine(cx, reshape(cx, refine(cx, x, old, span), new, span), shape, span)
    flat = refine(cx, reshape(cx, x, (x.type.size,), span), (product(shape),), span)
    return reshape(cx, flat, shape, span)


def _shape(shape: Any) -> str:
    return f"[{', '.join(map(str, shape))}]"


def call_flatten(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    if x.rank == 0:
        raise error("E0303", "`flatten` needs a first axis, but this is a scalar", a.at("x"))
    return reshape(cx, x, (x.shape[0], product(x.shape[1:])), a.span)


def call_transpose(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    if a.order is None:
        order = tuple(reversed(range(x.rank)))
    else:
        order = tuple(
            axis_number(v, x.rank, a.at("order")) for v in (a.order if isinstance(a.order, tuple) else (a.order,))
        )
    if sorted(order) != list(range(x.rank)):
        raise error("E0303", f"the order {_shape(order)} does not name each of {x.rank} axes once", a.at("order"))
    return cx.emit("transpose", x, span=a.span, perm=order)


def _sequence(cx: Context, value: Value, span: Span) -> list[Tensor]:
    items = value if isinstance(value, tuple) else value.items if isinstance(value, Results) else None
    if not items:
        raise error("E0307", f"a list of tensors is needed, not {kind(value)}", span)
    dtype = next((v.dtype for v in items if isinstance(v, Tensor)), cx.real)
    return [tensor(cx, v, span, None if isinstance(v, Tensor) else dtype) for v in items]


def call_concat(cx: Context, a: Arguments) -> Tensor:
    parts = _sequence(cx, a.parts, a.at("parts"))
    if parts[0].rank == 0:
        raise error("E0303", "`concat` needs an axis, but these are scalars", a.at("parts"), help="`stack` makes one")
    return joined(cx, parts, axis_number(a.axis, parts[0].rank, a.at("axis")), a.span, (a.at("parts"),) * len(parts))


def call_stack(cx: Context, a: Arguments) -> Tensor:
    parts = _sequence(cx, a.parts, a.at("parts"))
    axis = axis_number(a.axis, parts[0].rank, a.at("axis"), extra=1)
    raised = [reshape(cx, t, (*t.shape[:axis], 1, *t.shape[axis:]), a.span) for t in parts]
    return joined(cx, raised, axis, a.span, (a.at("parts"),) * len(parts))


def call_split(cx: Context, a: Arguments) -> Results:
    x = tensor(cx, plain(a.x), a.at("x"))
    axis = axis_number(a.axis, x.rank, a.at("axis"))
    n = x.shape[axis]
    if isinstance(a.parts, tuple):
        parts = sizes(a.parts, a.at("parts"))
    else:
        if isinstance(a.parts, bool) or not isinstance(a.parts, int) or a.parts < 1:
            raise error("E0307", f"`split` takes a number of parts or their sizes, not {kind(a.parts)}", a.at("parts"))
        each, remainder = divide(n, a.parts)
        if isinstance(remainder, Size):
            if not equal(remainder, 0, cx.facts):
                cx.guard(remainder, 0, f"{n} must divide into {a.parts} equal parts", a.span)
            x = refine(cx, x, (*x.shape[:axis], each * a.parts, *x.shape[axis + 1 :]), a.span)
            n = each * a.parts
        elif remainder != 0:
            raise error(
                "E0306",
                f"{n} does not divide into {a.parts} equal parts",
                a.at("parts"),
                "",
                help="a list gives the sizes one by one: `split(x, [3, 4])`",
            )
        parts = (each,) * a.parts
    total: Dim = sum(parts)
    if same_size(cx, n, total, "the axis and the parts of `split`", a.span) is None:
        raise error("E0301", f"the parts add up to {total}, but the axis has {n}", a.at("parts"))
    x = refine(cx, x, (*x.shape[:axis], total, *x.shape[axis + 1 :]), a.span)
    out: list[Tensor] = []
    start: Dim = 0
    for size in parts:
        starts = tuple(start if k == axis else 0 for k in range(x.rank))
        stops = tuple(start + size if k == axis else s for k, s in enumerate(x.shape))
        out.append(cx.emit("slice", x, span=a.span, starts=starts, stops=stops, steps=(1,) * x.rank))
        start = start + size
    return Results(None, tuple(out))


def call_expand(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    axis = axis_number(a.axis, x.rank, a.at("axis"), extra=1)
    return reshape(cx, x, (*x.shape[:axis], 1, *x.shape[axis:]), a.span)


def call_squeeze(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    axes = (
        axes_of(a.axis, x.rank, a.at("axis"))
        if a.axis is not None
        else tuple(k for k, s in enumerate(x.shape) if s == 1)
    )
    for k in axes:
        if same_size(cx, x.shape[k], 1, f"`squeeze` of axis {k} of {x.type}", a.span) is None:
            raise error(
                "E0301", f"only an axis of size 1 can be squeezed, but axis {k} of {x.type} is {x.shape[k]}", a.span
            )
    x = refine(cx, x, [1 if k in axes else s for k, s in enumerate(x.shape)], a.span)
    return reshape(cx, x, [s for k, s in enumerate(x.shape) if k not in axes], a.span)


def call_broadcast(cx: Context, a: Arguments) -> Tensor:
    x, shape = tensor(cx, plain(a.x), a.at("x")), sizes(a.shape, a.at("shape"))
    own, trailing = list(x.shape), shape[max(len(shape) - x.rank, 0) :]
    for k, (s, n) in enumerate(zip(own, trailing, strict=False)):
        if s != 1 and same_size(cx, s, n, f"broadcast of {x.type} to {_shape(shape)}", a.span) is not None:
            own[k] = n
    return broadcast_to(cx, refine(cx, x, own, a.span), shape, a.span)


def call_pad(cx: Context, a: Arguments) -> Tensor:
    """Margins along each axis. Those whose size only run time knows are joined on."""
    x = tensor(cx, plain(a.x), a.at("x"))
    widths = a.widths
    if not (
        isinstance(widths, tuple)
        and len(widths) == x.rank
        and all(isinstance(w, tuple) and len(w) == 2 and all(_is_width(v) for v in w) for w in widths)
    ):
        raise error("E0203", f"`pad` takes [before, after] for each of the {x.rank} axes", a.at("widths"))
    if isinstance(a.value, bool) or not isinstance(a.value, int | float):
        raise error("E0307", f"the padding value is a compile-time number, not {kind(a.value)}", a.at("value"))
    known = [w if all(isinstance(v, int) for v in w) else (0, 0) for w in widths]
    y = cx.emit(
        "pad", x, span=a.span, low=tuple(w[0] for w in known), high=tuple(w[1] for w in known), value=float(a.value)
    )
    for axis, w in enumerate(widths):
        if w != known[axis]:
            y = joined(cx, _margins(cx, a, y, axis, w), axis, a.span)
    return y


def _is_width(v: Any) -> bool:
    return isinstance(v, Size) or (isinstance(v, int) and not isinstance(v, bool) and v >= 0)


def _margins(cx: Context, a: Arguments, x: Tensor, axis: int, widths: tuple[Dim, Dim]) -> list[Tensor]:
    """`x` between what is joined on to it along an axis."""
    sides = []
    for n in widths:
        cx.guard(n, 0, f"the padding of axis {axis}, {n}, must not be negative", a.span, ">=")
        shape = (*x.shape[:axis], n, *x.shape[axis + 1 :])
        sides.append(broadcast_to(cx, tensor(cx, a.value, a.at("value"), x.dtype), shape, a.span, ()))
    return [sides[0], x, sides[1]]


def call_flip(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    return cx.emit("flip", x, span=a.span, axes=axes_of(a.axis, x.rank, a.at("axis")))


def _integers(cx: Context, value: Value, span: Span) -> Tensor:
    t = tensor(cx, plain(value), span, None if isinstance(value, Tensor) else "i32")
    if t.dtype not in INTS:
        advice = MASKED if t.dtype == "bool" else "write `cast(x, i32)`"
        raise error("E0302", f"positions must be i32 or i64, not {t.type}", span, help=advice)
    return t


def call_gather(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    if x.rank == 0:
        raise error("E0303", "`gather` needs an axis, but this is a scalar", a.at("x"))
    return gather_axis(cx, x, _integers(cx, a.index, a.at("index")), axis_number(a.axis, x.rank, a.at("axis")), a.span)


SCATTER_BY = {"sum": "scatter_add", "mul": "scatter_mul", "max": "scatter_max", "min": "scatter_min"}


def call_scatter(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, plain(a.x), a.at("x"))
    index = _integers(cx, a.index, a.at("index"))
    rows = _size_argument(a, "n")
    if a.by not in SCATTER_BY:
        raise error(
            "E0307", f"a scatter goes by {', '.join(f'`{b}`' for b in SCATTER_BY)}, not {kind(a.by)}", a.at("by")
        )
    if (shape := _led(cx, "scatter", x, x.shape, index, a.span)) is not None:
        x = refine(cx, x, (*shape, *x.shape[len(shape) :]), a.span)
        index = refine(cx, index, shape, a.span)
    return cx.emit(SCATTER_BY[a.by], index, x, span=a.span, operands=(a.at("index"), a.at("x")), size=rows)


def call_take(cx: Context, a: Arguments) -> Tensor:
    """One element along the axis for each index, whose axes are the others of x."""
    x, i = tensor(cx, plain(a.x), a.at("x")), _integers(cx, a.index, a.at("index"))
    axis = axis_number(a.axis, x.rank, a.at("axis")) if x.rank else 0
    others = (*x.shape[:axis], *x.shape[axis + 1 :])
    if x.rank == 0 or len(others) != i.rank:
        raise error(
            "E0303",
            f"`take` picks one element along axis {axis}, so {x.type} needs an index of {len(others)} axes, "
            f"not {i.type}",
            a.at("index"),
        )
    shape = _led(cx, f"take along axis {axis}", x, others, i, a.span)
    if shape is None:
        raise error(
            "E0301",
            f"`take` along axis {axis} of {x.type} needs an index shaped {_shape(others)}, not {_shape(i.shape)}",
            a.at("index"),
        )
    if axis != x.rank - 1:
        x = cx.emit("transpose", x, span=a.span, perm=(*range(axis), *range(axis + 1, x.rank), axis))
    return cx.emit(
        "take_along", refine(cx, x, (*shape, x.shape[-1]), a.span), refine(cx, i, shape, a.span), span=a.span
    )


def _led(cx: Context, what: str, x: Tensor, own: Sequence[Dim], index: Tensor, span: Span) -> list[Dim] | None:
    """The sizes of an index that are also the first of `own`, which are sizes of `x`; None where they cannot be."""
    if len(own) < index.rank:
        return None
    agreed = [
        same_size(cx, s, n, f"{what} of {x.type} with {index.type}", span)
        for s, n in zip(own, index.shape, strict=False)
    ]
    known = [n for n in agreed if n is not None]
    return known if len(known) == len(agreed) else None


def call_one_hot(cx: Context, a: Arguments) -> Tensor:
    label = _integers(cx, a.label, a.at("label"))
    n = a.classes
    if not is_size(n):
        raise error(
            "E0307", f"the number of classes must be a compile-time whole number, not {kind(n)}", a.at("classes")
        )
    check_index(cx, n, a.span, label.dtype)
    shape = (*label.shape, n)
    grid = cx.emit("iota", span=a.span, shape=shape, axis=label.rank, dtype=label.dtype)
    same = cx.emit("eq", broadcast_to(cx, label, shape, a.span, range(label.rank)), grid, span=a.span)
    return cx.emit("cast", same, span=a.span, dtype=cx.real)


def call_iota(cx: Context, a: Arguments) -> Tensor:
    n = _size_argument(a, "n")
    check_index(cx, n, a.span)
    return cx.emit("iota", span=a.span, shape=(n,), axis=0, dtype="i32")


def _size_argument(a: Arguments, name: str) -> Dim:
    n = a.values[name]
    if not is_size(n) or (isinstance(n, int) and n < 0):
        raise error("E0307", f"`{name}` must be a size, not {kind(n)}", a.at(name))
    return n


def call_eye(cx: Context, a: Arguments) -> Tensor:
    n = _size_argument(a, "n")
    check_index(cx, n, a.span)
    rows, columns = (cx.emit("iota", span=a.span, shape=(n, n), axis=k, dtype="i32") for k in (0, 1))
    return cx.emit("cast", cx.emit("eq", rows, columns, span=a.span), span=a.span, dtype=cx.real)

"""The names the compiler knows: primitives, and short compositions of them. Everything else is `.nn` source in
`dsl/std`. Each builtin is a function of (context, arguments); compile-time numbers stay compile-time numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce as fold
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import UnsupportedError, error
from ...dsl.source import Span
from ..types import DTYPES, FLOATS, INTS, Dim, Size, divide
from .calls import Arguments
from .context import Context
from .expressions import gather_axis
from .operations import binary, broadcast, broadcast_to, elementwise, fractional, operands, refine, reshape, same_size, tensor
from .values import REQUIRED, Builtin, Defined, Group, Results, SizeCondition, Tensor, is_static, kind

MATHS: dict[str, Callable[[float], float]] = {
    "exp": math.exp, "log": math.log, "log1p": math.log1p, "expm1": math.expm1, "sqrt": math.sqrt, "sin": math.sin,
    "cos": math.cos, "tanh": math.tanh, "erf": math.erf, "floor": math.floor, "ceil": math.ceil, "round": round,
    "rsqrt": lambda x: 1 / math.sqrt(x), "logistic": lambda x: 1 / (1 + math.exp(-x)), "abs": abs,
    "sign": lambda x: (x > 0) - (x < 0),
}  # fmt: skip
KEEP_INT = ("abs", "sign", "floor", "ceil", "round")


def _mapped(cx: Context, value: Any, f: Callable[[Any], Any]) -> Any:
    return Group({p: f(t) for p, t in value.members.items()}) if isinstance(value, Group) else f(value)


def _plain(value: Any) -> Any:
    return value.items[0] if isinstance(value, Results) and len(value.items) == 1 else value


def _unary(name: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Any:
        def one(x: Any) -> Any:
            if isinstance(x, int | float) and not isinstance(x, bool):
                try:
                    y = MATHS[name](x)
                    return y if name in KEEP_INT else float(y)
                except (ValueError, ZeroDivisionError):
                    raise error("E0307", f"{name}({x}) is not a number", a.span) from None
                except OverflowError:
                    return math.inf if name != "logistic" else 0.0
            t = tensor(cx, x, a.at("x"), None if isinstance(x, Tensor) else cx.float)
            if t.dtype in INTS and name in ("floor", "ceil", "round"):
                return t
            if t.dtype not in FLOATS and name not in KEEP_INT:
                raise error("E0302", f"`{name}` needs a float tensor, not {t.type}", a.at("x"),
                            help=f"write `{name}(cast(x, {cx.float}))`")
            if t.dtype == "bool":
                raise error("E0302", f"`{name}` does not apply to bool", a.at("x"))
            return cx.emit(name, t, span=a.span, operands=(a.at("x"),))

        return _mapped(cx, _plain(a.x), one)

    return Builtin(name, (("x", REQUIRED),), call)




def _isfinite(cx: Context, a: Arguments) -> Any:
    return _mapped(cx, a.x, lambda x: cx.emit("isfinite", tensor(cx, x, a.at("x"), cx.float), span=a.span))


def _pairwise(name: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Any:
        x, y = _plain(a.x), _plain(a.y)
        if isinstance(x, int | float) and isinstance(y, int | float):
            return min(x, y) if name == "minimum" else max(x, y)
        if isinstance(x, Group) or isinstance(y, Group):
            return _map2(x, y, lambda p, q: elementwise(cx, name, p, q, a.span, (a.at("x"), a.at("y"))))
        return elementwise(cx, name, x, y, a.span, (a.at("x"), a.at("y")))

    return Builtin(name, (("x", REQUIRED), ("y", REQUIRED)), call)


def _map2(x: Any, y: Any, f: Callable[[Any, Any], Any]) -> Group:
    keys = (x if isinstance(x, Group) else y).members
    return Group({
        p: f(x.members[p] if isinstance(x, Group) else x, y.members[p] if isinstance(y, Group) else y) for p in keys
    })


def _clip(cx: Context, a: Arguments) -> Any:
    def one(x: Any) -> Any:
        low = elementwise(cx, "maximum", x, a.low, a.span, (a.at("x"), a.at("low")))
        return elementwise(cx, "minimum", low, a.high, a.span, (a.at("x"), a.at("high")))

    return _mapped(cx, a.x, one)


def _where(cx: Context, a: Arguments) -> Any:
    if isinstance(a.c, bool):
        raise error("E0307", "the condition of `where` is known at compile time", a.at("c"), help="write `if c then a else b`")
    c = tensor(cx, a.c, a.at("c"))
    if c.dtype != "bool":
        raise error("E0302", f"the condition of `where` must be bool, not {c.type}", a.at("c"), help="compare: `x != 0`")
    if not isinstance(a.a, Tensor) and not isinstance(a.b, Tensor) and is_static(a.a) and is_static(a.b):
        dtype = cx.float if fractional(a.a) or fractional(a.b) else None
        x, y = (tensor(cx, v, a.span, dtype) for v in (a.a, a.b))
        x, y = broadcast(cx, x, y, a.span, (a.at("a"), a.at("b")))
    else:
        x, y = operands(cx, _plain(a.a), _plain(a.b), a.span, (a.at("a"), a.at("b")))
    c, x = broadcast(cx, c, x, a.span, (a.at("c"), a.at("a")))
    c, y = broadcast(cx, c, y, a.span, (a.at("c"), a.at("b")))
    x, y = broadcast(cx, x, y, a.span, (a.at("a"), a.at("b")))
    return cx.emit("where", c, x, y, span=a.span)


def _cast(cx: Context, a: Arguments) -> Any:
    if a.dtype not in DTYPES:
        raise error("E0307", f"`cast` takes a dtype, not {kind(a.dtype)}", a.at("dtype"), help=f"one of {', '.join(DTYPES)}")
    dtype = cx.program.dtype_name(a.dtype)
    if isinstance(a.x, Size):
        return cx.emit("size", span=a.span, size=a.x, dtype=dtype)
    x = tensor(cx, a.x, a.at("x"))
    return x if x.dtype == dtype else cx.emit("cast", x, span=a.span, dtype=dtype)


# --- reductions ------------------------------------------------------------------------------------------------------


def axis_number(value: Any, rank: int, span: Span, extra: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise error("E0307", f"an axis must be a compile-time whole number, not {kind(value)}", span)
    n = rank + extra
    if not -n <= value < n:
        raise error("E0303", f"axis {value} does not exist: there are {rank} axes", span)
    return value % n


def _axes(value: Any, rank: int, span: Span) -> tuple[int, ...]:
    if value is None:
        return tuple(range(rank))
    listed = value if isinstance(value, tuple) else (value,)
    axes = sorted(axis_number(v, rank, span) for v in listed)
    if len(set(axes)) != len(axes):
        raise error("E0203", "an axis is named twice", span)
    return tuple(axes)


def _kept(cx: Context, y: Tensor, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    return reshape(cx, y, [1 if k in axes else s for k, s in enumerate(x.shape)], span) if keep else y


def reduce(cx: Context, op: str, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    if not axes:
        return x
    return _kept(cx, cx.emit(op, x, span=span, axes=axes), x, axes, keep, span)


def _reduction(name: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Any:
        value = _plain(a.x)
        if isinstance(value, Group):
            if a.axis is not None:
                raise error("E0203", f"`{name}` of a group has no axis", a.at("axis"))
            return _over_group(cx, name, value, a.span)
        x = tensor(cx, value, a.at("x"), cx.float if name in ("mean", "variance", "norm") and not isinstance(value, Tensor) else None)
        if not isinstance(a.keep, bool):
            raise error("E0307", f"`keep` is a compile-time bool, not {kind(a.keep)}", a.at("keep"))
        return REDUCE[name](cx, x, _axes(a.axis, x.rank, a.at("axis")), a.keep, a.span)

    return Builtin(name, (("x", REQUIRED), ("axis", None), ("keep", False)), call)


def _sum(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    if x.dtype == "bool":
        x = cx.emit("cast", x, span=span, dtype="i32")
    return reduce(cx, "reduce_sum", x, axes, keep, span)


def _mean(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    if x.dtype not in FLOATS:
        x = cx.emit("cast", x, span=span, dtype=cx.float)
    count: Dim = fold(lambda p, q: p * q, (x.shape[k] for k in axes), 1)
    return binary(cx, "/", _sum(cx, x, axes, keep, span), _count(cx, count, x.dtype, span), span, (span, span))


def _count(cx: Context, n: Dim, dtype: str, span: Span) -> Any:
    return cx.emit("size", span=span, size=n, dtype=dtype) if isinstance(n, Size) else float(n) if n else math.nan


def _variance(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    mean = _mean(cx, x, axes, True, span)
    x = x if x.dtype in FLOATS else cx.emit("cast", x, span=span, dtype=cx.float)
    d = binary(cx, "-", x, mean, span, (span, span))
    return _mean(cx, binary(cx, "*", d, d, span, (span, span)), axes, keep, span)


def _norm(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
    squares = binary(cx, "*", x, x, span, (span, span))
    return cx.emit("sqrt", _sum(cx, squares, axes, keep, span), span=span)


def _typed(name: str, op: str, wants_bool: bool) -> Callable[..., Tensor]:
    def call(cx: Context, x: Tensor, axes: tuple[int, ...], keep: bool, span: Span) -> Tensor:
        if wants_bool and x.dtype != "bool":
            raise error("E0302", f"`{name}` needs a bool tensor, not {x.type}", span, help="compare: `x != 0`")
        return reduce(cx, op, x, axes, keep, span)

    return call


REDUCE: dict[str, Callable[..., Tensor]] = {
    "sum": _sum, "mean": _mean, "variance": _variance, "norm": _norm,
    "prod": _typed("prod", "reduce_prod", False), "max": _typed("max", "reduce_max", False),
    "min": _typed("min", "reduce_min", False), "any": _typed("any", "reduce_max", True),
    "all": _typed("all", "reduce_min", True),
}  # fmt: skip


def _over_group(cx: Context, name: str, g: Group, span: Span) -> Any:
    """A reduction over every element of every member."""
    if not g.members:
        if name in ("sum", "norm"):
            return 0.0
        raise error("E0307", f"`{name}` of a group without members", span)
    ts = list(g.members.values())
    spans = (span, span)
    if name in ("sum", "norm", "mean"):
        parts = [binary(cx, "*", t, t, span, spans) if name == "norm" else t for t in ts]
        total = fold(lambda p, q: binary(cx, "+", p, q, span, spans), (_sum(cx, t, tuple(range(t.rank)), False, span) for t in parts))
        if name == "norm":
            return cx.emit("sqrt", total, span=span)
        if name == "mean":
            return binary(cx, "/", total, float(sum(int(t.type.size) for t in ts)), span, spans)
        return total
    if name in ("max", "min", "any", "all"):
        op = "maximum" if name == "max" else "minimum" if name == "min" else "or" if name == "any" else "and"
        parts = [REDUCE[name](cx, t, tuple(range(t.rank)), False, span) for t in ts]
        return fold(lambda p, q: cx.emit(op, p, q, span=span), parts)
    raise error("E0307", f"`{name}` does not apply to a group", span)


def _arg(op: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Tensor:
        x = tensor(cx, _plain(a.x), a.at("x"))
        if x.rank == 0:
            raise error("E0303", f"`{op}` needs an axis, but this is a scalar", a.at("x"))
        return cx.emit(op, x, span=a.span, axis=axis_number(a.axis, x.rank, a.at("axis")))

    return Builtin(op, (("x", REQUIRED), ("axis", -1)), call)


# --- layout ----------------------------------------------------------------------------------------------------------


def _reshape(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"))
    wanted = a.shape if isinstance(a.shape, tuple) else (a.shape,)
    for s in wanted:
        if isinstance(s, bool) or not isinstance(s, int | Size):
            raise error("E0307", f"a shape is a list of sizes, but this has {kind(s)} in it", a.at("shape"))
    total: Dim = x.type.size
    if -1 in wanted:
        if wanted.count(-1) > 1:
            raise error("E0203", "one size of a shape can be -1", a.at("shape"))
        rest: Dim = fold(lambda p, q: p * q, (s for s in wanted if s != -1), 1)
        missing, remainder = divide(total, rest) if rest != 0 else (0, 0)
        if remainder != 0:
            if isinstance(remainder, int) or len({c > 0 for _, c in remainder.terms}) == 1:
                raise error("E0306", f"{total} elements do not divide by {rest}", a.at("shape"), str(x.type))
            cx.builder.guard(remainder, 0, f"{total} elements must divide by {rest}", a.span)
            return _regroup(cx, x, tuple(missing if s == -1 else s for s in wanted), a.span)
        wanted = tuple(missing if s == -1 else s for s in wanted)
    count: Dim = fold(lambda p, q: p * q, wanted, 1)
    if count != total:
        if same_size(cx, total, count, f"reshape of {x.type} to {_shape(wanted)}: {total} must equal {count}", a.span) is None:
            raise error("E0301", f"{x.type} has {total} elements, but {_shape(wanted)} has {count}", a.at("shape"))
        return _regroup(cx, x, wanted, a.span)
    return reshape(cx, x, wanted, a.span)


def _regroup(cx: Context, x: Tensor, shape: tuple[Dim, ...], span: Span) -> Tensor:
    """A reshape whose sizes agree because a guard says so."""
    count: Dim = fold(lambda p, q: p * q, shape, 1)
    return reshape(cx, refine(cx, reshape(cx, x, (x.type.size,), span), (count,), span), shape, span)


def _shape(shape: Any) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _flatten(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"))
    if x.rank == 0:
        raise error("E0303", "`flatten` needs a first axis, but this is a scalar", a.at("x"))
    return reshape(cx, x, (x.shape[0], fold(lambda p, q: p * q, x.shape[1:], 1)), a.span)


def _transpose(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"))
    if a.order is None:
        order = tuple(reversed(range(x.rank)))
    else:
        order = tuple(axis_number(v, x.rank, a.at("order")) for v in (a.order if isinstance(a.order, tuple) else (a.order,)))
    if sorted(order) != list(range(x.rank)):
        raise error("E0303", f"the order {_shape(order)} does not name each of {x.rank} axes once", a.at("order"))
    return cx.emit("transpose", x, span=a.span, perm=order)


def _sequence(cx: Context, value: Any, span: Span) -> list[Tensor]:
    items = value if isinstance(value, tuple) else value.items if isinstance(value, Results) else None
    if not items:
        raise error("E0307", f"a list of tensors is needed, not {kind(value)}", span)
    dtype = next((v.dtype for v in items if isinstance(v, Tensor)), cx.float)
    return [tensor(cx, v, span, None if isinstance(v, Tensor) else dtype) for v in items]


def _concat(cx: Context, a: Arguments) -> Tensor:
    parts = _sequence(cx, a.parts, a.at("parts"))
    if parts[0].rank == 0:
        raise error("E0303", "`concat` needs an axis, but these are scalars", a.at("parts"), help="`stack` makes one")
    return cx.emit("concat", *parts, span=a.span, operands=(a.at("parts"),) * len(parts),
                   axis=axis_number(a.axis, parts[0].rank, a.at("axis")))


def _stack(cx: Context, a: Arguments) -> Tensor:
    parts = _sequence(cx, a.parts, a.at("parts"))
    axis = axis_number(a.axis, parts[0].rank, a.at("axis"), extra=1)
    raised = [reshape(cx, t, (*t.shape[:axis], 1, *t.shape[axis:]), a.span) for t in parts]
    return cx.emit("concat", *raised, span=a.span, operands=(a.at("parts"),) * len(parts), axis=axis)


def _split(cx: Context, a: Arguments) -> Results:
    x = tensor(cx, _plain(a.x), a.at("x"))
    axis = axis_number(a.axis, x.rank, a.at("axis"))
    n = x.shape[axis]
    if isinstance(a.parts, tuple):
        sizes = list(a.parts)
    else:
        each, remainder = divide(n, a.parts)
        if remainder != 0:
            raise error("E0306", f"{n} does not divide into {a.parts} equal parts", a.at("parts"), "",
                        help="a list gives the sizes one by one: `split(x, [3, 4])`")
        sizes = [each] * a.parts
    total: Dim = fold(lambda p, q: p + q, sizes, 0)
    if total != n:
        raise error("E0301", f"the parts add up to {total}, but the axis has {n}", a.at("parts"))
    out, start = [], 0
    for size in sizes:
        starts = tuple(start if k == axis else 0 for k in range(x.rank))
        stops = tuple(start + size if k == axis else s for k, s in enumerate(x.shape))
        out.append(cx.emit("slice", x, span=a.span, starts=starts, stops=stops, steps=(1,) * x.rank))
        start = start + size
    return Results(None, tuple(out))


def _expand(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"))
    axis = axis_number(a.axis, x.rank, a.at("axis"), extra=1)
    return reshape(cx, x, (*x.shape[:axis], 1, *x.shape[axis:]), a.span)


def _squeeze(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"))
    axes = _axes(a.axis, x.rank, a.at("axis")) if a.axis is not None else tuple(k for k, s in enumerate(x.shape) if s == 1)
    for k in axes:
        if x.shape[k] != 1:
            raise error("E0301", f"only an axis of size 1 can be squeezed, but axis {k} of {x.type} is {x.shape[k]}", a.span)
    return reshape(cx, x, [s for k, s in enumerate(x.shape) if k not in axes], a.span)


def _broadcast(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"), None if isinstance(a.x, Tensor) else cx.float)
    shape = a.shape if isinstance(a.shape, tuple) else (a.shape,)
    return broadcast_to(cx, x, shape, a.span)


def _pad(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"))
    widths = a.widths
    if not (isinstance(widths, tuple) and len(widths) == x.rank and all(
        isinstance(w, tuple) and len(w) == 2 and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in w)
        for w in widths
    )):
        raise error("E0203", f"`pad` takes [before, after] for each of the {x.rank} axes", a.at("widths"))
    if isinstance(a.value, bool) or not isinstance(a.value, int | float):
        raise error("E0307", f"the padding value is a compile-time number, not {kind(a.value)}", a.at("value"))
    return cx.emit("pad", x, span=a.span, low=tuple(w[0] for w in widths), high=tuple(w[1] for w in widths), value=float(a.value))


def _flip(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"))
    return cx.emit("flip", x, span=a.span, axes=_axes(a.axis, x.rank, a.at("axis")))


def _integers(cx: Context, value: Any, span: Span) -> Tensor:
    t = tensor(cx, _plain(value), span, None if isinstance(value, Tensor) else "i32")
    if t.dtype not in INTS:
        raise error("E0302", f"positions must be i32 or i64, not {t.type}", span, help="write `cast(x, i32)`")
    return t


def _gather(cx: Context, a: Arguments) -> Tensor:
    x = tensor(cx, _plain(a.x), a.at("x"))
    if x.rank == 0:
        raise error("E0303", "`gather` needs an axis, but this is a scalar", a.at("x"))
    return gather_axis(cx, x, _integers(cx, a.index, a.at("index")), axis_number(a.axis, x.rank, a.at("axis")), a.span)


def _take(cx: Context, a: Arguments) -> Tensor:
    x, i = tensor(cx, _plain(a.x), a.at("x")), _integers(cx, a.index, a.at("index"))
    if x.rank == 0 or x.rank - 1 != i.rank:
        raise error("E0303", f"`take` picks one element of the last axis, so {x.type} needs an index of {max(x.rank - 1, 0)} "
                    f"axes, not {i.type}", a.at("index"))
    shape = []
    for s, t in zip(x.shape, i.shape, strict=False):
        size = same_size(cx, s, t, f"take from {x.type} with {i.type}: {s} must equal {t}", a.span)
        if size is None:
            raise error("E0301", f"`take` from {x.type} needs an index shaped {_shape(x.shape[:-1])}, not {_shape(i.shape)}", a.at("index"))
        shape.append(size)
    return cx.emit("take_along", refine(cx, x, (*shape, x.shape[-1]), a.span), refine(cx, i, shape, a.span), span=a.span)


def _one_hot(cx: Context, a: Arguments) -> Tensor:
    label = _integers(cx, a.label, a.at("label"))
    n = a.classes
    if isinstance(n, bool) or not isinstance(n, int | Size):
        raise error("E0307", f"the number of classes must be a compile-time whole number, not {kind(n)}", a.at("classes"))
    shape = (*label.shape, n)
    grid = cx.emit("iota", span=a.span, shape=shape, axis=label.rank, dtype=label.dtype)
    same = cx.emit("eq", broadcast_to(cx, label, shape, a.span, range(label.rank)), grid, span=a.span)
    return cx.emit("cast", same, span=a.span, dtype=cx.float)


def _iota(cx: Context, a: Arguments) -> Tensor:
    return cx.emit("iota", span=a.span, shape=(_size_argument(a, "n"),), axis=0, dtype="i32")


def _size_argument(a: Arguments, name: str) -> Dim:
    n = a.values[name]
    if isinstance(n, bool) or not isinstance(n, int | Size) or (isinstance(n, int) and n < 0):
        raise error("E0307", f"`{name}` must be a size, not {kind(n)}", a.at(name))
    return n


def _eye(cx: Context, a: Arguments) -> Tensor:
    n = _size_argument(a, "n")
    rows, columns = (cx.emit("iota", span=a.span, shape=(n, n), axis=k, dtype="i32") for k in (0, 1))
    return cx.emit("cast", cx.emit("eq", rows, columns, span=a.span), span=a.span, dtype=cx.float)


def _kernel(name: str, attribute: str) -> Builtin:
    """An operator with one axis attribute."""

    def call(cx: Context, a: Arguments) -> Tensor:
        x = tensor(cx, _plain(a.x), a.at("x"))
        if name not in cx.builder.ops:
            raise error("E0501", f"`{name}` is not supported by this version of the compiler", a.span, kind=UnsupportedError)
        return cx.emit(name, x, span=a.span, **{attribute: axis_number(a.axis, x.rank, a.at("axis"))})

    return Builtin(name, (("x", REQUIRED), ("axis", -1)), call)


def _top_k(cx: Context, a: Arguments) -> Any:
    raise error("E0501", "`top_k` is not supported by this version of the compiler", a.span, kind=UnsupportedError)


def _require(cx: Context, a: Arguments) -> Any:
    """A condition on sizes: an error where it is known to be false, a guard where only run time can say."""
    match a.condition:
        case bool():
            if not a.condition:
                raise error("E0301", str(a.message), a.span)
        case SizeCondition(op=op, left=left, right=right) if isinstance(left, int | Size) and isinstance(right, int | Size):
            cx.builder.guard(left, right, str(a.message), a.span, op)
        case _:
            raise error("E0307", f"`require` takes a condition on sizes, not {kind(a.condition)}", a.at("condition"))
    return a.condition


# --- facts about values ----------------------------------------------------------------------------------------------


def _size(cx: Context, a: Arguments) -> Dim:
    x = tensor(cx, _plain(a.x), a.at("x"))
    return x.type.size if a.axis is None else x.shape[axis_number(a.axis, x.rank, a.at("axis"))]


def _count_of(cx: Context, a: Arguments) -> Dim:
    if isinstance(a.x, Group):
        return fold(lambda p, q: p + q, (t.type.size for t in a.x.members.values()), 0)
    if isinstance(a.x, tuple):
        return len(a.x)
    return tensor(cx, _plain(a.x), a.at("x")).type.size


def _group(name: str, roles: tuple[str, ...]) -> Builtin:
    def call(cx: Context, a: Arguments) -> Group:
        if not (isinstance(a.model, Defined) and isinstance(a.model.definition, ast.Layer) and a.model.definition.top):
            raise error("E0307", f"`{name}` takes a model, not {kind(a.model)}", a.at("model"))
        return cx.program.group(cx, a.model.definition.name, roles)

    return Builtin(name, (("model", REQUIRED),), call)


def _macs(cx: Context, a: Arguments) -> int:
    if not (isinstance(a.model, Defined) and isinstance(a.model.definition, ast.Layer) and a.model.definition.top):
        raise error("E0307", f"`macs` takes a model, not {kind(a.model)}", a.at("model"))
    return cx.program.macs(a.model.definition.name)


# --- gradients and randomness ----------------------------------------------------------------------------------------


def _grad(cx: Context, a: Arguments) -> Any:
    y = tensor(cx, _plain(a.y), a.at("y"), cx.float)
    if y.rank != 0:
        raise error("E0402", f"`grad` needs a scalar, but this is {y.type}", a.at("y"),
                    help="reduce it first, for example with `sum` or `mean`")
    if y.dtype not in FLOATS:
        raise error("E0402", f"`grad` needs a float, but this is {y.type}", a.at("y"))
    x = _plain(a.x)
    xs = list(x.members.values()) if isinstance(x, Group) else list(x) if isinstance(x, tuple) else [x]
    for t in xs:
        if not isinstance(t, Tensor) or t.dtype not in FLOATS:
            raise error("E0401", f"`grad` is with respect to float tensors, not {kind(t)}", a.at("x"))
    if not xs:
        return x
    g = cx.builder.emit("grad", y.node, *(t.node for t in xs), span=a.span)
    parts = [Tensor(cx.builder.emit("item", g, index=k, span=a.span), cx.builder) for k in range(len(xs))]
    if isinstance(x, Group):
        return Group(dict(zip(x.members, parts, strict=True)))
    return tuple(parts) if isinstance(x, tuple) else parts[0]


def _wrap(name: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Any:
        return _mapped(cx, _plain(a.x), lambda x: cx.emit(name, tensor(cx, x, a.at("x"), cx.float), span=a.span))

    return Builtin(name, (("x", REQUIRED),), call)


def _straight_through(cx: Context, a: Arguments) -> Tensor:
    hard, soft = operands(cx, a.hard, a.soft, a.span, (a.at("hard"), a.at("soft")))
    return cx.emit("straight_through", hard, soft, span=a.span)


def _draw(cx: Context, a: Arguments) -> Tensor:
    """Uniform numbers in [0, 1) of the wanted shape."""
    shape = a.shape if a.shape is not None else cx.shape
    if shape is None:
        raise error("E0203", "a random draw needs a shape here", a.span, help="write `shape = shape(x)`")
    shape = shape if isinstance(shape, tuple) else (shape,)
    for s in shape:
        if isinstance(s, bool) or not isinstance(s, int | Size):
            raise error("E0307", f"a shape is a list of sizes, but this has {kind(s)} in it", a.at("shape"))
    key = cx.program.key(cx)
    return cx.emit("random", key, span=a.span, shape=tuple(shape), dtype=cx.float, site=cx.draw_site())


def _uniform(cx: Context, a: Arguments) -> Any:
    u = _draw(cx, a)
    s = (a.span, a.span)
    if is_static(a.lo) and a.lo == 0 and is_static(a.hi) and a.hi == 1:
        return u
    width = binary(cx, "-", a.hi, a.lo, a.span, s)
    return binary(cx, "+", binary(cx, "*", u, width, a.span, s), a.lo, a.span, s)


def _normal(cx: Context, a: Arguments) -> Any:
    """Box and Muller 1958: sqrt(-2 ln u1) cos(2 pi u2); 1 - u keeps the logarithm finite."""
    u1, u2 = _draw(cx, a), _draw(cx, a)
    s = (a.span, a.span)

    def op(o: str, x: Any, y: Any) -> Any:
        return binary(cx, o, x, y, a.span, s)

    radius = cx.emit("sqrt", op("*", cx.emit("log", op("-", 1, u1), span=a.span), -2.0), span=a.span)
    z = op("*", radius, cx.emit("cos", op("*", u2, 2 * math.pi), span=a.span))
    return op("+", op("*", z, a.std), a.mean)


def _bernoulli(cx: Context, a: Arguments) -> Tensor:
    if a.shape is None and isinstance(a.p, Tensor) and a.p.rank:
        a.values["shape"] = a.p.shape
    return elementwise(cx, "<", _draw(cx, a), a.p, a.span, (a.span, a.at("p")))


def _builtin(name: str, call: Callable[..., Any], *parameters: Any) -> Builtin:
    return Builtin(name, tuple(p if isinstance(p, tuple) else (p, REQUIRED) for p in parameters), call)


def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = {d: d for d in DTYPES}
    entries = [
        *(_unary(n) for n in MATHS),
        *(_pairwise(n) for n in ("minimum", "maximum")),
        *(_reduction(n) for n in REDUCE),
        *(_arg(n) for n in ("argmax", "argmin")),
        *(_kernel(n, "axis") for n in ("cumsum", "sort")),
        *(_wrap(n) for n in ("stop_grad", "checkpoint")),
        _group("params", ("weight", "bias")), _group("weights", ("weight",)), _group("biases", ("bias",)),
        _builtin("isfinite", _isfinite, "x"),
        _builtin("clip", _clip, "x", "low", "high"),
        _builtin("where", _where, "c", "a", "b"),
        _builtin("cast", _cast, "x", "dtype"),
        _builtin("reshape", _reshape, "x", "shape"),
        _builtin("flatten", _flatten, "x"),
        _builtin("transpose", _transpose, "x", ("order", None)),
        _builtin("concat", _concat, "parts", ("axis", 0)),
        _builtin("stack", _stack, "parts", ("axis", 0)),
        _builtin("split", _split, "x", "parts", ("axis", -1)),
        _builtin("expand", _expand, "x", "axis"),
        _builtin("squeeze", _squeeze, "x", ("axis", None)),
        _builtin("broadcast", _broadcast, "x", "shape"),
        _builtin("pad", _pad, "x", "widths", ("value", 0)),
        _builtin("flip", _flip, "x", ("axis", None)),
        _builtin("gather", _gather, "x", "index", ("axis", 0)),
        _builtin("take", _take, "x", "index"),
        _builtin("one_hot", _one_hot, "label", "classes"),
        _builtin("iota", _iota, "n"),
        _builtin("eye", _eye, "n"),
        _builtin("size", _size, "x", ("axis", None)),
        _builtin("shape", lambda cx, a: tensor(cx, _plain(a.x), a.at("x")).shape, "x"),
        _builtin("rank", lambda cx, a: tensor(cx, _plain(a.x), a.at("x")).rank, "x"),
        _builtin("count", _count_of, "x"),
        _builtin("top_k", _top_k, "x", "k"),
        _builtin("require", _require, "condition", "message"),
        _builtin("macs", _macs, "model"),
        _builtin("grad", _grad, "y", "x"),
        _builtin("straight_through", _straight_through, "hard", "soft"),
        _builtin("uniform", _uniform, ("lo", 0), ("hi", 1), ("shape", None)),
        _builtin("normal", _normal, ("mean", 0), ("std", 1), ("shape", None)),
        _builtin("bernoulli", _bernoulli, ("p", 0.5), ("shape", None)),
    ]
    table |= {b.name: b for b in entries}
    return table


BUILTINS: Mapping[str, Any] = _table()

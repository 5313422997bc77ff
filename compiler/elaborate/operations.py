"""Arithmetic on values: compile-time numbers stay numbers, sizes stay sizes, and everything else becomes operators,
with the broadcasting rule of the language (equal ranks stretch size 1; a lower rank must match the trailing axes)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from ...dsl.diagnostics import Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..types.sizes import Dim, Size, bounded, divide, product, symbols
from ..types.tensors import FLOATS, INTS, TensorType
from .context import Context, check_fits
from .values import Group, Results, SizeCondition, Tensor, is_size, is_static, kind

OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "^": "pow",
    "==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "and": "and", "or": "or",
}  # fmt: skip
MAX_BITS = 4096  # of a compile-time whole number
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
STATIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "%": operator.mod,
    "//": operator.floordiv, "^": operator.pow, "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge, "and": lambda a, b: a and b, "or": lambda a, b: a or b,
}  # fmt: skip


# --- from compile time to run time -----------------------------------------------------------------------------------


def tensor(cx: Context, value: Any, span: Span | None, dtype: str | None = None) -> Tensor:
    """A value as a tensor. Literals take `dtype`; without one, numbers with a point are the program's float, others
    i32; lists become constants or stacks."""
    match value:
        case Tensor():
            return cx.here(value, span)
        case bool():
            if dtype not in (None, "bool"):
                raise error(
                    "E0302", f"a bool cannot stand where {dtype} is expected", span, help=f"write `cast(x, {dtype})`"
                )
            return cx.constant(value, "bool", span)
        case int() | float():
            if dtype is None:
                dtype = cx.real if isinstance(value, float) else "i32"
            if dtype in INTS and isinstance(value, float):
                raise error(
                    "E0302",
                    f"the number {value!r} is not a whole number, but {dtype} is expected",
                    span,
                    help="`cast(x, f32)` makes a tensor of integers real",
                )
            if dtype == "bool":
                raise error("E0302", f"the number {value!r} cannot stand where bool is expected", span)
            return cx.constant(value, dtype, span)
        case Size():
            counts = any(f.index in symbols(value) for f in cx.frames)  # the index of a scan is a whole number
            dtype = dtype or ("i32" if counts else cx.real)
            if dtype == "i32" and not (at_least(cx, 2**31 - 1, value, f"{value} must fit i32", span)
                                       and at_least(cx, value, -(2**31), f"{value} must fit i32", span)):
                raise error("E0302", f"{value} does not fit i32", span)
            return cx.emit("size", span=span, size=value, dtype=dtype)
        case tuple():
            return _from_list(cx, value, span, dtype)
        case Results(items=(single,)):
            return tensor(cx, single, span, dtype)
        case SizeCondition(op=op, left=a, right=b):
            x, y = (tensor(cx, v, span, cx.real) for v in (a, b))
            return cx.emit(OPERATORS[op], x, y, span=span)
    raise error("E0307", f"{kind(value)} cannot be used as a tensor", span)


def _from_list(cx: Context, value: tuple[Any, ...], span: Span | None, dtype: str | None) -> Tensor:
    flat: list[Any] = []
    shape = _literal_shape(value, flat, span)
    if all(isinstance(v, bool) for v in flat) and flat:
        return cx.emit("constant", span=span, values=tuple(flat), type=TensorType("bool", shape))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in flat):
        if dtype is None:
            dtype = cx.real if any(isinstance(v, float) for v in flat) or not flat else "i32"
        if dtype in INTS and any(isinstance(v, float) for v in flat):
            raise error("E0302", f"a list with a fraction in it cannot be {dtype}", span)
        if dtype == "bool":
            raise error("E0302", "a list of numbers cannot stand where bool is expected", span)
        convert = float if dtype in FLOATS else int
        for v in flat:
            check_fits(v, dtype, span)
        return cx.emit("constant", span=span, values=tuple(map(convert, flat)), type=TensorType(dtype, shape))
    tensors = [v for v in flat if isinstance(v, Tensor)]
    dtype = dtype or (tensors[0].dtype if tensors else None)
    parts = [expand_axis(cx, tensor(cx, v, span, dtype), 0, span) for v in flat]
    if len(shape) == 1 and parts:
        return cx.emit("concat", *parts, span=span, axis=0)
    stacked = cx.emit("concat", *parts, span=span, axis=0)
    return reshape(cx, stacked, (*shape, *stacked.shape[1:]), span)


def fractional(value: Any) -> bool:
    """Whether a compile-time value is or holds a number that is not whole."""
    return any(map(fractional, value)) if isinstance(value, tuple) else isinstance(value, float)


def _literal_shape(value: Any, flat: list[Any], span: Span | None) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        flat.append(value)
        return ()
    shapes = [_literal_shape(v, flat, span) for v in value]
    if any(s != shapes[0] for s in shapes):
        raise error(
            "E0303",
            "the rows of a list must have equal lengths, but "
            f"one is {_rows(shapes[0])} and another {_rows(next(s for s in shapes if s != shapes[0]))}",
            span,
        )
    return (len(value), *(shapes[0] if shapes else ()))


def _rows(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} long" if shape else "a single number"


# --- shapes ----------------------------------------------------------------------------------------------------------


def same_size(cx: Context, a: Dim, b: Dim, message: str, span: Span | None) -> Dim | None:
    """The common size of two that must be equal, or None when they cannot be. What only run time can decide becomes
    a guard."""
    if a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        return None
    difference = a - b
    if isinstance(difference, int) or len({c > 0 for _, c in difference.terms}) == 1:
        return None  # a constant apart, or equal only where sizes are 0
    cx.guard(a, b, message, span)
    return a if isinstance(a, int) else b if isinstance(b, int) else a


def at_least(cx: Context, a: Dim, b: Dim, message: str, span: Span | None) -> bool:
    """Whether a >= b. What only run time can decide becomes a guard, and counts as true."""
    if len(pairs := cx.turns(a, b, ">=", span)) != 1 or pairs[0] != (a, b):
        return all([at_least(cx, x, y, message, span) for x, y in pairs])
    difference = a - b
    if isinstance(difference, int):
        return difference >= 0
    constant = next((c for m, c in difference.terms if m == ()), 0)
    signs = {c > 0 for m, c in difference.terms if m != ()}
    if signs == {True} and constant >= 0:
        return True
    if signs == {False} and constant < 0:
        return False
    cx.guard(a, b, message, span, ">=")
    return True


def divided(cx: Context, a: Dim, b: Dim, span: Span | None) -> tuple[Dim, Dim]:
    """`a // b` and `a % b`. What only run time divides by is asked to be 1 or more. Raises `ZeroDivisionError`."""
    quotient, remainder = divide(a, b)
    if isinstance(b, Size) and remainder != 0 and not at_least(cx, b, 1, f"{a} is divided by {b}", span):
        raise error("E0307", f"a size can be divided by 1 or more, but not by {b}", span)
    return quotient, remainder


def check_index(cx: Context, n: Dim, span: Span | None, dtype: str = "i32") -> None:
    """Positions along an axis of `n` must fit the whole numbers that they are made of."""
    if dtype == "i32" and not at_least(cx, 2**31 - 1, n, f"the positions along an axis of {n} must fit i32", span):
        raise error("E0302", f"the positions along an axis of {n} do not fit i32", span)


def check_filled(cx: Context, what: str, x: Tensor, axes: Sequence[int], span: Span | None) -> None:
    """What is chosen from elements needs one of them."""
    for k in axes:
        if not at_least(cx, x.shape[k], 1, f"`{what}` has nothing to choose from where axis {k} of {x.type} is empty",
                        span):
            raise error("E0301", f"`{what}` has nothing to choose from: axis {k} of {x.type} is empty", span)


def sizes(value: Any, span: Span) -> tuple[Dim, ...]:
    """A list of sizes, or one: what is known when the model is made, or told by the shapes of inputs."""
    listed = value if isinstance(value, tuple) else (value,)
    for s in listed:
        if not is_size(s):
            raise error("E0307", f"a shape is a list of sizes, but this has {kind(s)} in it", span)
    return listed


def reshape(cx: Context, x: Tensor, shape: Sequence[Dim], span: Span | None) -> Tensor:
    return x if tuple(shape) == x.shape else cx.emit("reshape", x, span=span, shape=tuple(shape))


def refine(cx: Context, x: Tensor, shape: Sequence[Dim], span: Span | None) -> Tensor:
    """The same tensor under sizes that a guard has made equal."""
    return x if tuple(shape) == x.shape else cx.emit("assume", x, span=span, shape=tuple(shape))


def expand_axis(cx: Context, x: Tensor, axis: int, span: Span | None) -> Tensor:
    return reshape(cx, x, (*x.shape[:axis], 1, *x.shape[axis:]), span)


def broadcast_to(
    cx: Context, x: Tensor, shape: Sequence[Dim], span: Span | None, axes: Sequence[int] | None = None
) -> Tensor:
    """`x` stretched to `shape`; `axes` says which result axis each axis of `x` is (default: the trailing ones)."""
    if x.shape == tuple(shape):
        return x
    if axes is None:
        axes = range(len(shape) - x.rank, len(shape))
    return cx.emit("broadcast", x, span=span, shape=tuple(shape), axes=tuple(axes))


def broadcast(
    cx: Context, a: Tensor, b: Tensor, span: Span | None, spans: tuple[Span | None, Span | None]
) -> tuple[Tensor, Tensor]:
    """Both operands with one shape, by the rule of the language."""
    if a.shape == b.shape:
        return a, b
    if a.rank == 0:
        return broadcast_to(cx, a, b.shape, span, ()), b
    if b.rank == 0:
        return a, broadcast_to(cx, b, a.shape, span, ())
    if a.rank != b.rank:
        small, large = (a, b) if a.rank < b.rank else (b, a)
        tail = large.shape[large.rank - small.rank :]
        if small.shape != tail:  # exactly: what only run time could decide is more likely the trap than meant
            raise _trap(cx, small, large, a, b, span, spans)
        small = broadcast_to(cx, small, large.shape, span)
        return (small, large) if a.rank < b.rank else (large, small)
    out: list[Dim] = []
    for axis, (s, t) in enumerate(zip(a.shape, b.shape, strict=True)):
        size = t if s == 1 else s if t == 1 else _unify(cx, s, t, span, spans, a, b)
        if size is None:
            raise error(
                "E0301", f"sizes must agree, but {s} is not {t} (axis {axis})", span, "", *_labels(cx, a, b, spans)
            )
        out.append(size)

    def fit(x: Tensor) -> Tensor:
        kept = [1 if n == 1 else o for n, o in zip(x.shape, out, strict=True)]
        return broadcast_to(cx, refine(cx, x, kept, span), out, span)

    return fit(a), fit(b)


def _unify(cx: Context, s: Dim, t: Dim, span: Span | None, spans: Any, a: Tensor, b: Tensor) -> Dim | None:
    return same_size(cx, s, t, f"{a.type} meets {b.type}: {s} must equal {t}", span)


def _labels(cx: Context, a: Tensor, b: Tensor, spans: tuple[Span | None, Span | None]) -> list[Label]:
    return [Label(s, f"{t.type}{cx.origin(t)}") for t, s in ((a, spans[0]), (b, spans[1])) if s is not None]


def _trap(cx: Context, small: Tensor, large: Tensor, a: Tensor, b: Tensor, span: Span | None, spans: Any) -> Exception:
    tail = large.shape[large.rank - small.rank :]
    advice = None
    if small.rank == 1 and large.rank == 2 and large.shape[1] == 1:
        advice = "write `squeeze(x, 1)` for the operand with the size-1 axis, or `expand(x, 1)` for the other"
    elif small.shape == large.shape[: small.rank]:
        advice = f"write `expand(x, {small.rank})` to line up the leading axes"
    return error(
        "E0304",
        f"an operand of lower rank must match the other's trailing axes, but {_show(small.shape)} is not {_show(tail)}",
        span,
        "",
        *_labels(cx, a, b, spans),
        help=advice,
    )


def _show(shape: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def gather_axis(cx: Context, x: Tensor, positions: Tensor, axis: int, span: Span | None) -> Tensor:
    """`x` at integer `positions` along one axis, which the axes of `positions` replace."""
    if axis:
        order = (axis, *(k for k in range(x.rank) if k != axis))
        x = cx.emit("transpose", x, span=span, perm=order)
    y = cx.emit("gather", x, positions, span=span)
    if axis:
        r = positions.rank
        order = (*range(r, r + axis), *range(r), *range(r + axis, y.rank))
        y = cx.emit("transpose", y, span=span, perm=order)
    return y


# --- arithmetic ------------------------------------------------------------------------------------------------------


def binary(cx: Context, op: str, a: Any, b: Any, span: Span, spans: tuple[Span, Span]) -> Any:
    """`a op b` for any two values; `span` is the operator, `spans` the operands."""
    match a, b:
        case Results(items=(x,)), _:
            return binary(cx, op, x, b, span, spans)
        case _, Results(items=(y,)):
            return binary(cx, op, a, y, span, spans)
        case Group(), Group():
            if a.members.keys() != b.members.keys():
                raise error("E0307", "the two groups have different members", span)
            return Group({p: binary(cx, op, t, b.members[p], span, spans) for p, t in a.members.items()})
        case Group(), _:
            return Group({p: binary(cx, op, t, b, span, spans) for p, t in a.members.items()})
        case _, Group():
            return Group({p: binary(cx, op, a, t, span, spans) for p, t in b.members.items()})
    if op == "@":
        return matmul(cx, a, b, span, spans)
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        value = _static(cx, op, a, b, span, spans)
        if value is not NotImplemented:
            return value
    return elementwise(cx, op, a, b, span, spans)


def _static(cx: Context, op: str, a: Any, b: Any, span: Span, spans: tuple[Span, Span]) -> Any:
    """Compile-time arithmetic; NotImplemented where the result is no compile-time value."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        if op in ("==", "!=") and is_static(a) and is_static(b):
            return STATIC[op](a, b)
        if op == "+" and isinstance(a, tuple) and isinstance(b, tuple):
            return cx.listed(a + b, span)
        return NotImplemented
    for value, at in ((a, spans[0]), (b, spans[1])):
        if not isinstance(value, bool | int | float | Size | str):
            raise error("E0307", f"`{op}` does not apply to {kind(value)}", span, "", Label(at, kind(value)))
    if op in ("and", "or"):
        for value, at in ((a, spans[0]), (b, spans[1])):
            if not isinstance(value, bool):
                raise error("E0307", f"`{op}` needs a bool, not {kind(value)}", at)
        return STATIC[op](a, b)
    if isinstance(a, str) or isinstance(b, str):
        if isinstance(a, str) and isinstance(b, str) and op in ("==", "!=", "+"):
            cx.spend(len(a) + len(b), span)
            return STATIC[op](a, b)
        raise error("E0307", f"`{op}` does not apply to {kind(a)} and {kind(b)}", span)
    symbolic = isinstance(a, Size) or isinstance(b, Size)
    if symbolic:
        if op in COMPARISONS:
            if op in ("==", "!=") and isinstance(a - b, int):
                return (a == b) == (op == "==")
            return SizeCondition(op, a, b)
        if op == "^" and isinstance(b, int) and 0 <= b <= 8:
            return product([a] * b)
        if op in ("/", "^") or isinstance(a, float) or isinstance(b, float):
            return NotImplemented
    try:
        if op == "^" and isinstance(a, int) and isinstance(b, int) and (b < 0 or abs(b) * a.bit_length() > MAX_BITS):
            return float(a) ** b
        if op in ("//", "%") and (isinstance(a, float) or isinstance(b, float)):
            raise error("E0302", f"`{op}` is for whole numbers", span)
        if symbolic and op in ("//", "%"):
            quotient, remainder = divided(cx, a, b, span)
            return bounded(quotient if op == "//" else remainder)
        value = STATIC[op](a, b)
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise OverflowError
        if isinstance(value, Size):
            bounded(value)
        if isinstance(value, complex):
            raise error("E0307", f"{a} ^ {b} is not a real number", span)
        return value
    except ZeroDivisionError:
        raise error("E0307", "division by zero", span, "", Label(spans[1], "this is 0")) from None
    except OverflowError:
        raise error("E0307", "this number is too large", span) from None


def elementwise(cx: Context, op: str, a: Any, b: Any, span: Span, spans: tuple[Span, Span]) -> Tensor:
    """One of the two-operand elementwise operators on tensors and literals."""
    x, y = operands(cx, a, b, span, spans)
    name = OPERATORS.get(op, op)
    if name in ("add", "sub", "mul", "pow", "div", "floordiv", "mod", "lt", "le", "gt", "ge") and x.dtype == "bool":
        raise error(
            "E0302",
            f"`{op}` does not apply to bool",
            span,
            "",
            Label(spans[0], str(x.type)),
            help="`cast(x, f32)` makes 0 and 1 of it",
        )
    if name in ("and", "or") and x.dtype != "bool":
        raise error(
            "E0302",
            f"`{op}` needs bools, not {x.type}",
            span,
            "",
            Label(spans[0], str(x.type)),
            help="compare: `x != 0`",
        )
    if name == "div" and x.dtype in INTS:
        x, y = (cx.emit("cast", v, span=span, dtype=cx.real) for v in (x, y))
    return cx.emit(name, x, y, span=span, operands=spans)


def operands(cx: Context, a: Any, b: Any, span: Span, spans: tuple[Span, Span]) -> tuple[Tensor, Tensor]:
    """Both as tensors of one dtype and shape; literals take the other operand's dtype."""
    if isinstance(a, Tensor):
        x = a
        y = tensor(cx, b, spans[1], _literal_dtype(a, b))
    elif isinstance(b, Tensor):
        y = b
        x = tensor(cx, a, spans[0], _literal_dtype(b, a))
    else:
        dtype = cx.real if isinstance(a, Size | float) or isinstance(b, Size | float) else None
        x = tensor(cx, a, spans[0], dtype)
        y = tensor(cx, b, spans[1], dtype or x.dtype)
    if x.dtype != y.dtype:
        raise error(
            "E0302",
            f"{x.dtype} and {y.dtype} do not mix",
            span,
            "",
            *_labels(cx, x, y, spans),
            help=f"write `cast(x, {x.dtype if x.dtype in FLOATS else y.dtype})` where it is meant",
        )
    return broadcast(cx, x, y, span, spans)


def _literal_dtype(other: Tensor, value: Any) -> str | None:
    """The dtype a literal takes beside `other`: none when that would lose something, so that the mix is refused."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, float) and other.dtype in INTS:
        return None
    return other.dtype if not isinstance(value, bool) else "bool"


def matmul(cx: Context, a: Any, b: Any, span: Span, spans: tuple[Span, Span]) -> Tensor:
    """`a @ b` over the last two axes, NumPy's rules for vectors, leading axes broadcast."""
    x = tensor(cx, a, spans[0], b.dtype if isinstance(b, Tensor) else cx.real)
    y = tensor(cx, b, spans[1], x.dtype)
    labels = _labels(cx, x, y, spans)
    if x.dtype != y.dtype:
        raise error("E0302", f"{x.dtype} and {y.dtype} do not mix", span, "", *labels)
    if x.dtype == "bool":
        raise error("E0302", "`@` does not apply to bool", span, "", *labels)
    if x.rank == 0 or y.rank == 0:
        raise error(
            "E0303",
            "`@` needs at least one axis on each side",
            span,
            "",
            *labels,
            help="write `*` to multiply by a number",
        )
    inner_x, inner_y = x.shape[-1], y.shape[-2] if y.rank > 1 else y.shape[0]
    inner = same_size(cx, inner_x, inner_y, f"{x.type} @ {y.type}: {inner_x} must equal {inner_y}", span)
    if inner is None:
        advice = None
        if y.rank == 2 and y.shape[1] == inner_x:
            advice = "the other axis would fit: write `.T`"
        raise error(
            "E0301", f"inner sizes of @ must agree, but {inner_x} is not {inner_y}", span, "", *labels, help=advice
        )
    x = refine(cx, x, (*x.shape[:-1], inner), span)
    y = refine(cx, y, (*y.shape[:-2], inner, y.shape[-1]) if y.rank > 1 else (inner,), span)
    lead_x, lead_y = x.shape[:-2], y.shape[:-2]
    rank = max(len(lead_x), len(lead_y))
    domain: list[tuple[str, Dim]] = []
    map_x: list[Any] = [None] * len(lead_x)
    map_y: list[Any] = [None] * len(lead_y)
    for k in range(rank):
        ax, ay = k - (rank - len(lead_x)), k - (rank - len(lead_y))
        sx, sy = lead_x[ax] if ax >= 0 else 1, lead_y[ay] if ay >= 0 else 1
        size = (
            sy
            if sx == 1
            else sx
            if sy == 1
            else same_size(cx, sx, sy, f"{x.type} @ {y.type}: {sx} must equal {sy}", span)
        )
        if size is None:
            raise error("E0301", f"leading sizes of @ must agree, but {sx} is not {sy}", span, "", *labels)
        domain.append((f"b{k}", size))
        if ax >= 0:
            map_x[ax] = _index(f"b{k}") if sx != 1 or size == 1 else (0, ())
        if ay >= 0:
            map_y[ay] = _index(f"b{k}") if sy != 1 or size == 1 else (0, ())
    out = [_index(name) for name, _ in domain]
    if x.rank > 1:
        domain.append(("m", x.shape[-2]))
        map_x.append(_index("m"))
        out.append(_index("m"))
    if y.rank > 1:
        domain.append(("n", y.shape[-1]))
        out.append(_index("n"))
    domain.append(("k", inner))
    map_x.append(_index("k"))
    map_y += [_index("k"), _index("n")] if y.rank > 1 else [_index("k")]
    extent = dict(domain)
    return contract(cx, (x, y), domain, (map_x, map_y), out, [extent[i[1][0][0]] for i in out], span)


def _index(name: str) -> tuple[int, tuple[tuple[str, int], ...]]:
    return (0, ((name, 1),))


def contract(
    cx: Context,
    args: Sequence[Tensor],
    domain: Sequence[tuple[str, Dim]],
    maps: Sequence[Sequence[Any]],
    out: Sequence[Any],
    shape: Sequence[Dim],
    span: Span | None,
) -> Tensor:
    return cx.emit(
        "contract",
        *args,
        span=span,
        domain=tuple(domain),
        maps=tuple(tuple(m) for m in maps),
        out=tuple(out),
        shape=tuple(shape),
    )


def unary(cx: Context, op: str, x: Any, span: Span) -> Any:
    """`-x` and `not x`."""
    match x:
        case Results(items=(single,)):
            return unary(cx, op, single, span)
        case Group():
            return Group({p: unary(cx, op, t, span) for p, t in x.members.items()})
        case bool() if op == "not":
            return not x
        case bool():
            raise error("E0302", "`-` does not apply to bool", span)
        case int() | float() | Size() if op == "-":
            return -x
    t = tensor(cx, x, span)
    if op == "not" and t.dtype != "bool":
        raise error("E0302", f"`not` needs a bool, not {t.type}", span)
    if op == "-" and t.dtype == "bool":
        raise error("E0302", "`-` does not apply to bool", span)
    return cx.emit("neg" if op == "-" else "not", t, span=span)

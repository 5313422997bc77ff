"""Operators on values: at compile time where both are known then, of sizes, of groups, and of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...dsl.diagnostics import Fix, Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..types.sizes import Dim, Size
from ..types.tensors import FLOATS, INTS
from .context import Context
from .groups import matched
from .shapes import broadcast, label_operands, refine, same_size, tensor
from .stacked import each
from .static import opposite, static
from .values import OPERATORS, POISON, Axis, Group, Poison, Results, SizeCondition, Tensor, Value

# signs that stand for another function of some dtypes
OF_DTYPE = {**{("mod", d): "remainder" for d in FLOATS}, **{("pow", d): "whole_pow" for d in INTS}}


def binary(cx: Context, op: str, a: Value, b: Value, span: Span, spans: tuple[Span, Span]) -> Value:
    """`a op b` for any two values; `span` is the operator, `spans` the operands."""
    if a is POISON or b is POISON:
        return POISON
    match a, b:
        case Results(items=(x,)), _:
            return binary(cx, op, x, b, span, spans)
        case _, Results(items=(y,)):
            return binary(cx, op, a, y, span, spans)
        case Group(), Group():
            pairs = matched((a, b), span).items()
            return a.of(
                {p: each(cx, p, span, lambda x, y: _tensors(cx, op, x, y, span, spans), *tu) for p, tu in pairs}
            )
        case Group(), _:
            return _mapped(cx, a, span, lambda x: _tensors(cx, op, x, b, span, spans))
        case _, Group():
            return _mapped(cx, b, span, lambda y: _tensors(cx, op, a, y, span, spans))
    if op != "@" and not isinstance(a, Tensor) and not isinstance(b, Tensor):
        value = static(cx, op, a, b, span, spans)
        if value is not None:
            return value
    return _tensors(cx, op, a, b, span, spans)


def _mapped(cx: Context, group: Group, span: Span, work: Callable[[Tensor], Tensor]) -> Group:
    return group.of({path: each(cx, path, span, work, t) for path, t in group.members.items()})


def _tensors(cx: Context, op: str, a: Value, b: Value, span: Span, spans: tuple[Span, Span]) -> Tensor:
    return matmul(cx, a, b, span, spans) if op == "@" else elementwise(cx, op, a, b, span, spans)


def elementwise(cx: Context, op: str, a: Value, b: Value, span: Span, spans: tuple[Span, Span]) -> Tensor:
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
    name = OF_DTYPE.get((name, x.dtype), name)
    if name == "div" and x.dtype in INTS:
        x, y = (cx.emit("cast", v, span=span, dtype=cx.real) for v in (x, y))
    return cx.emit(name, x, y, span=span, operands=spans)


def operands(cx: Context, a: Value, b: Value, span: Span, spans: tuple[Span, Span]) -> tuple[Tensor, Tensor]:
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
        dtype, other = (x.dtype, spans[1]) if x.dtype in FLOATS else (y.dtype, spans[0])
        raise error(
            "E0302",
            f"{x.dtype} and {y.dtype} do not mix",
            span,
            "",
            *label_operands(cx, x, y, spans),
            help=f"write `cast(x, {dtype})` where it is meant",
            fix=Fix(other, f"cast({other.text}, {dtype})") if other is not None else None,
        )
    return broadcast(cx, x, y, span, spans)


def _literal_dtype(other: Tensor, value: Value) -> str | None:
    """The dtype a literal takes beside `other`: none when that would lose something, so that the mix is refused."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, float) and other.dtype in INTS:
        return None
    return other.dtype if not isinstance(value, bool) else "bool"


def matmul(cx: Context, a: Value, b: Value, span: Span, spans: tuple[Span, Span]) -> Tensor:
    """`a @ b` over the last two axes, NumPy's rules for vectors, leading axes broadcast."""
    x = tensor(cx, a, spans[0], b.dtype if isinstance(b, Tensor) else cx.real)
    y = tensor(cx, b, spans[1], x.dtype)
    labels = label_operands(cx, x, y, spans)
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
    x, y = _inner_agreed(cx, x, y, span, labels)
    domain, map_x, map_y = _leading(cx, x, y, span, labels)
    out = [_index(name) for name in domain]
    if x.rank > 1:
        domain["m"] = x.shape[-2]
        map_x.append(_index("m"))
        out.append(_index("m"))
    if y.rank > 1:
        domain["n"] = y.shape[-1]
        out.append(_index("n"))
    domain["k"] = x.shape[-1]
    map_x.append(_index("k"))
    map_y += [_index("k"), _index("n")] if y.rank > 1 else [_index("k")]
    shape = [n for name, n in domain.items() if name != "k"]
    return contract(cx, (x, y), list(domain.items()), (map_x, map_y), out, shape, span)


def _inner_agreed(cx: Context, x: Tensor, y: Tensor, span: Span, labels: Sequence[Label]) -> tuple[Tensor, Tensor]:
    """Both operands with one size for the axis that is summed over."""
    inner_x, inner_y = x.shape[-1], y.shape[-2] if y.rank > 1 else y.shape[0]
    inner = same_size(cx, inner_x, inner_y, f"{x.type} @ {y.type}", span)
    if inner is None:
        advice = None
        if y.rank == 2 and y.shape[1] == inner_x:
            advice = "the other axis would fit: write `.T`"
        raise error(
            "E0301", f"inner sizes of @ must agree, but {inner_x} is not {inner_y}", span, "", *labels, help=advice
        )
    return (
        refine(cx, x, (*x.shape[:-1], inner), span),
        refine(cx, y, (*y.shape[:-2], inner, y.shape[-1]) if y.rank > 1 else (inner,), span),
    )


def _leading(
    cx: Context, x: Tensor, y: Tensor, span: Span, labels: Sequence[Label]
) -> tuple[dict[str, Dim], list[Axis], list[Axis]]:
    """The sizes of the leading axes `b0`, `b1`, ... of a product, and how each operand is read along its own: an axis
    of size 1 at 0."""
    lead_x, lead_y = x.shape[:-2], y.shape[:-2]
    rank = max(len(lead_x), len(lead_y))
    domain: dict[str, Dim] = {}
    map_x: list[Axis] = []
    map_y: list[Axis] = []
    for k in range(rank):
        own_x, own_y = k >= rank - len(lead_x), k >= rank - len(lead_y)
        n_x = lead_x[k - (rank - len(lead_x))] if own_x else 1
        n_y = lead_y[k - (rank - len(lead_y))] if own_y else 1
        size = n_y if n_x == 1 else n_x if n_y == 1 else same_size(cx, n_x, n_y, f"{x.type} @ {y.type}", span)
        if size is None:
            raise error("E0301", f"leading sizes of @ must agree, but {n_x} is not {n_y}", span, "", *labels)
        domain[f"b{k}"] = size
        for own, n, axes in ((own_x, n_x, map_x), (own_y, n_y, map_y)):
            if own:
                axes.append(_index(f"b{k}") if n != 1 or size == 1 else (0, ()))
    return domain, map_x, map_y


def _index(name: str) -> Axis:
    return 0, ((name, 1),)


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


def unary(cx: Context, op: str, x: Value, span: Span) -> Value:
    """`-x` and `not x`."""
    match x:
        case Poison():
            return POISON
        case Results(items=(single,)):
            return unary(cx, op, single, span)
        case Group():
            return _mapped(cx, x, span, lambda t: negate(cx, op, t, span))
        case bool() | SizeCondition() if op == "not":
            return opposite(x, span)
        case bool():
            raise error("E0302", "`-` does not apply to bool", span)
        case int() | float() | Size() if op == "-":
            return -x
    return negate(cx, op, tensor(cx, x, span), span)


def negate(cx: Context, op: str, t: Tensor, span: Span) -> Tensor:
    """`-t` or `not t`, element by element."""
    if op == "not" and t.dtype != "bool":
        raise error("E0302", f"`not` needs a bool, not {t.type}", span)
    if op == "-" and t.dtype == "bool":
        raise error("E0302", "`-` does not apply to bool", span)
    return cx.emit("neg" if op == "-" else "not", t, span=span)

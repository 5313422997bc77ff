"""Functions of each element: compile-time numbers stay compile-time numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....dsl.errors import error
from ....dsl.source import Span
from ...scalar import Scalar
from ...types.sizes import Size
from ...types.tensors import DTYPES, FLOATS, INTS
from ..context import Context
from ..operations import elementwise, operands
from ..shapes import broadcast, tensor
from ..static import fractional
from ..values import REQUIRED, Arguments, Builtin, Results, Tensor, is_static, kind


def plain(value: Any) -> Any:
    return value.items[0] if isinstance(value, Results) and len(value.items) == 1 else value


def make_function(f: Scalar) -> Builtin:
    """The builtin of a scalar function that has a compile-time value."""
    parameters = tuple((name, REQUIRED) for name in f.operands)
    return Builtin(f.name, parameters, _unary(f) if len(f.operands) == 1 else _pairwise(f))


def _computed(f: Scalar, span: Span, *values: Any) -> Any:
    """The function of compile-time numbers."""
    call = f"{f.name}({', '.join(map(str, values))})"
    assert f.number is not None
    try:
        return f.number(*values)
    except (ValueError, ZeroDivisionError):
        raise error("E0307", f"{call} is not a number", span) from None
    except OverflowError:
        raise error("E0307", f"{call} is too large for a number", span) from None


def _unary(f: Scalar) -> Callable[[Context, Arguments], Any]:
    name = f.name
    whole = f.rounds or "i32" in f.accepts

    def call(cx: Context, a: Arguments) -> Any:
        def one(x: Any) -> Any:
            if isinstance(x, int | float) and not isinstance(x, bool):
                return _computed(f, a.span, x)
            t = tensor(cx, x, a.at("x"), None if isinstance(x, Tensor) else cx.real)
            if t.dtype in INTS and f.rounds:
                return t
            if t.dtype not in FLOATS and not whole:
                raise error(
                    "E0302",
                    f"`{name}` needs a float tensor, not {t.type}",
                    a.at("x"),
                    help=f"write `{name}(cast(x, {cx.real}))`",
                    fix=f"cast({a.at('x').text}, {cx.real})",
                )
            if t.dtype == "bool":
                raise error("E0302", f"`{name}` does not apply to bool", a.at("x"))
            return cx.emit(name, t, span=a.span, operands=(a.at("x"),))

        return one(plain(a.x))

    return call


def call_isfinite(cx: Context, a: Arguments) -> Any:
    return cx.emit("isfinite", tensor(cx, plain(a.x), a.at("x"), cx.real), span=a.span)


def _pairwise(f: Scalar) -> Callable[[Context, Arguments], Any]:
    def call(cx: Context, a: Arguments) -> Any:
        first, second = f.operands
        x, y = plain(getattr(a, first)), plain(getattr(a, second))
        if isinstance(x, int | float) and isinstance(y, int | float):
            return _computed(f, a.span, x, y)
        return elementwise(cx, f.name, x, y, a.span, (a.at(first), a.at(second)))

    return call


def call_clip(cx: Context, a: Arguments) -> Any:
    def one(x: Any) -> Any:
        low = elementwise(cx, "maximum", x, a.low, a.span, (a.at("x"), a.at("low")))
        return elementwise(cx, "minimum", low, a.high, a.span, (a.at("x"), a.at("high")))

    return one(plain(a.x))


def call_where(cx: Context, a: Arguments) -> Any:
    if isinstance(a.c, bool):
        raise error(
            "E0307", "the condition of `where` is known at compile time", a.at("c"), help="write `if c then a else b`"
        )
    c = tensor(cx, a.c, a.at("c"))
    if c.dtype != "bool":
        raise error(
            "E0302", f"the condition of `where` must be bool, not {c.type}", a.at("c"), help="compare: `x != 0`"
        )
    if not isinstance(a.a, Tensor) and not isinstance(a.b, Tensor) and is_static(a.a) and is_static(a.b):
        dtype = cx.real if fractional(a.a) or fractional(a.b) else None
        x, y = (tensor(cx, v, a.span, dtype) for v in (a.a, a.b))
        x, y = broadcast(cx, x, y, a.span, (a.at("a"), a.at("b")))
    else:
        x, y = operands(cx, plain(a.a), plain(a.b), a.span, (a.at("a"), a.at("b")))
    c, x = broadcast(cx, c, x, a.span, (a.at("c"), a.at("a")))
    c, y = broadcast(cx, c, y, a.span, (a.at("c"), a.at("b")))
    x, y = broadcast(cx, x, y, a.span, (a.at("a"), a.at("b")))
    return cx.emit("where", c, x, y, span=a.span)


def call_cast(cx: Context, a: Arguments) -> Any:
    if isinstance(a.dtype, Tensor):
        dtype = a.dtype.dtype
    elif a.dtype in DTYPES:
        dtype = cx.read_dtype(a.dtype, a.at("dtype"))
    else:
        names = f"one of {', '.join(DTYPES)}, or a tensor that has one"
        raise error("E0307", f"`cast` takes a dtype, not {kind(a.dtype)}", a.at("dtype"), help=names)
    if isinstance(a.x, Size):
        return cx.emit("size", span=a.span, size=a.x, dtype=dtype)
    x = tensor(cx, a.x, a.at("x"))
    return x if x.dtype == dtype else cx.emit("cast", x, span=a.span, dtype=dtype)

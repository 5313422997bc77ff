"""Functions of each element: compile-time numbers stay compile-time numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ....dsl.errors import error
from ...types.sizes import Size
from ...types.tensors import DTYPES, FLOATS, INTS
from ..context import Context
from ..operations import (
    broadcast,
    elementwise,
    fractional,
    operands,
    tensor,
)
from ..values import REQUIRED, Arguments, Builtin, Results, Tensor, is_static, kind

MATHS: dict[str, Callable[[float], float]] = {
    "exp": math.exp, "log": math.log, "log1p": math.log1p, "expm1": math.expm1, "sqrt": math.sqrt, "sin": math.sin,
    "cos": math.cos, "tanh": math.tanh, "erf": math.erf, "floor": math.floor, "ceil": math.ceil, "round": round,
    "rsqrt": lambda x: 1 / math.sqrt(x), "logistic": lambda x: 1 / (1 + math.exp(-x)), "abs": abs,
    "sign": lambda x: (x > 0) - (x < 0),
}  # fmt: skip
KEEP_INT = ("abs", "sign", "floor", "ceil", "round")


def plain(value: Any) -> Any:
    return value.items[0] if isinstance(value, Results) and len(value.items) == 1 else value


def make_unary(name: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Any:
        def one(x: Any) -> Any:
            if isinstance(x, int | float) and not isinstance(x, bool):
                try:
                    y = MATHS[name](x)
                    return y if name in KEEP_INT else float(y)
                except (ValueError, ZeroDivisionError):
                    raise error("E0307", f"{name}({x}) is not a number", a.span) from None
                except OverflowError:
                    if name == "logistic":
                        return 0.0
                    raise error("E0307", f"{name}({x}) is too large for a number", a.span) from None
            t = tensor(cx, x, a.at("x"), None if isinstance(x, Tensor) else cx.real)
            if t.dtype in INTS and name in ("floor", "ceil", "round"):
                return t
            if t.dtype not in FLOATS and name not in KEEP_INT:
                raise error(
                    "E0302",
                    f"`{name}` needs a float tensor, not {t.type}",
                    a.at("x"),
                    help=f"write `{name}(cast(x, {cx.real}))`",
                )
            if t.dtype == "bool":
                raise error("E0302", f"`{name}` does not apply to bool", a.at("x"))
            return cx.emit(name, t, span=a.span, operands=(a.at("x"),))

        return one(plain(a.x))

    return Builtin(name, (("x", REQUIRED),), call)


def call_isfinite(cx: Context, a: Arguments) -> Any:
    return cx.emit("isfinite", tensor(cx, plain(a.x), a.at("x"), cx.real), span=a.span)


def make_pairwise(name: str) -> Builtin:
    def call(cx: Context, a: Arguments) -> Any:
        x, y = plain(a.x), plain(a.y)
        if isinstance(x, int | float) and isinstance(y, int | float):
            return min(x, y) if name == "minimum" else max(x, y)
        return elementwise(cx, name, x, y, a.span, (a.at("x"), a.at("y")))

    return Builtin(name, (("x", REQUIRED), ("y", REQUIRED)), call)


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
    if a.dtype not in DTYPES:
        raise error(
            "E0307", f"`cast` takes a dtype, not {kind(a.dtype)}", a.at("dtype"), help=f"one of {', '.join(DTYPES)}"
        )
    dtype = cx.read_dtype(a.dtype)
    if isinstance(a.x, Size):
        return cx.emit("size", span=a.span, size=a.x, dtype=dtype)
    x = tensor(cx, a.x, a.at("x"))
    return x if x.dtype == dtype else cx.emit("cast", x, span=a.span, dtype=dtype)

"""Operators of elements: most have one counterpart in ONNX, some are composed.

Compositions that lose no digits: log1p and expm1 by W. Kahan (see Higham, Accuracy and stability of numerical
algorithms, 2002, section 1.14.1). erfc is 1 - erf, which is off by 6e-8 where it is small.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log

from ....compiler.graph.facts import unsigned
from ....compiler.graph.nodes import Node
from ....compiler.types.sizes import Dim
from ....compiler.types.tensors import FLOATS
from .values import Refused, Scope, Value
from .walk import Rule, Walk

SAME: Mapping[str, str] = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg", "abs": "Abs", "sign": "Sign",
    "minimum": "Min", "maximum": "Max", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "pow": "Pow", "tanh": "Tanh",
    "logistic": "Sigmoid", "erf": "Erf", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos",
    "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh",
    "floor": "Floor", "ceil": "Ceil", "round": "Round", "eq": "Equal", "lt": "Less", "le": "LessOrEqual",
    "gt": "Greater", "ge": "GreaterOrEqual", "and": "And", "or": "Or", "not": "Not", "where": "Where",
}  # fmt: skip
INTS = {"i32": (-(2**31), 2**31 - 1), "i64": (-(2**63), 2**63 - 1)}


def together(*vs: Value) -> tuple[Dim, ...]:
    """The shape of an elementwise result."""
    rank = max(v.rank for v in vs)
    shape: list[Dim] = [1] * rank
    for v in vs:
        for k, n in enumerate(v.shape, rank - v.rank):
            shape[k] = n if n != 1 else shape[k]
    return tuple(shape)


def apply(s: Scope, op: str, *args: Value, dtype: str | None = None) -> Value:
    """An elementwise operator of ONNX; the dtype of the result is that of the last operand."""
    return s.emit(op, *args, type=(dtype or args[-1].dtype, together(*args)))


def like(s: Scope, v: Value, number: float) -> Value:
    return s.constant(number, v.dtype)


def _same(w: Walk, n: Node) -> Value:
    return apply(w.scope, SAME[n.op], *map(w.thin, n.args), dtype=n.dtype)


def _maximum(w: Walk, n: Node) -> Value:
    """`relu` where one of the two is the number 0."""
    for zero, x in (n.args, n.args[::-1]):
        if w.number(zero) == 0 and n.dtype in FLOATS:
            return apply(w.scope, "Relu", w.thin(x))
    return _same(w, n)


_BIASED = {"Gemm": "Gemm", "MatMul": "Gemm", "Conv": "Conv", "ConvTranspose": "ConvTranspose"}


def _add(w: Walk, n: Node) -> Value:
    """What is added to each column of a product of matrices, or channel of a convolution, is its third operand."""
    for product, row in (n.args, n.args[::-1]):
        x, c = w.thin(product), w.thin(row)
        made = w.scope.maker(x)
        if made is None or made.op not in _BIASED or len(made.args) != 2 or n.dtype not in FLOATS:
            continue
        matrices = all(a.rank == 2 for a in made.args)
        if x.rank < 2 or x.shape != n.shape:
            continue
        along = x.shape[1:] if matrices else (x.shape[1], *[1] * (x.rank - 2))
        if c.shape in (along, (1, *along)) and (matrices or made.op not in ("Gemm", "MatMul")):
            c = w.scope.reshape(c, along[:1])
            return w.scope.emit(_BIASED[made.op], *made.args, c, type=(n.dtype, n.shape), **made.attrs)
    return _same(w, n)


def _div(w: Walk, n: Node) -> Value:
    """A sum that is divided by how many it is of is a mean, whose axes are an operand from opset 18 on."""
    x, count = w.thin(n.args[0]), w.number(n.args[1])
    made = w.scope.maker(x)
    if made is not None and made.op == "ReduceSum" and made.attrs["count"] == count and w.scope.opset >= 18:
        return w.scope.emit("ReduceMean", *made.args, type=(x.dtype, x.shape), **made.attrs)
    return _same(w, n)


def _mul(w: Walk, n: Node) -> Value:
    """1 times a value is the value."""
    for one, x in (n.args, n.args[::-1]):
        if w.number(one) == 1:
            return w.thin(x)
    return _same(w, n)


def _where(w: Walk, n: Node) -> Value:
    """Bools are chosen by logic: ONNX Runtime has no `Where` of them."""
    if n.dtype != "bool":
        return _same(w, n)
    c, x, y = map(w.thin, n.args)
    other = apply(w.scope, "And", apply(w.scope, "Not", c), y)
    return apply(w.scope, "Or", apply(w.scope, "And", c, x), other)


def _ne(w: Walk, n: Node) -> Value:
    return apply(w.scope, "Not", apply(w.scope, "Equal", *map(w.thin, n.args), dtype="bool"))


def _rsqrt(w: Walk, n: Node) -> Value:
    return apply(w.scope, "Reciprocal", apply(w.scope, "Sqrt", w.thin(n.args[0])))


def _log2(w: Walk, n: Node) -> Value:
    y = apply(w.scope, "Log", w.thin(n.args[0]))
    return apply(w.scope, "Mul", y, like(w.scope, y, 1 / log(2)))


def _log1p(w: Walk, n: Node) -> Value:
    """log(u) x / (u - 1) with u = 1 + x as it is rounded; x where u is 1 or infinite."""
    s, x = w.scope, w.thin(n.args[0])
    one = like(s, x, 1)
    u = apply(s, "Add", x, one)
    slope = apply(s, "Div", x, apply(s, "Sub", u, one))
    plain = apply(s, "Or", apply(s, "Equal", u, one, dtype="bool"), apply(s, "Equal", x, like(s, x, inf), dtype="bool"))
    return apply(s, "Where", plain, x, apply(s, "Mul", apply(s, "Log", u), slope))


def _expm1(w: Walk, n: Node) -> Value:
    """(u - 1) x / log(u) with u = exp(x) as it is rounded; x where u is 1, u - 1 where that is -1 or infinite."""
    s, x = w.scope, w.thin(n.args[0])
    u = apply(s, "Exp", x)
    less = apply(s, "Sub", u, like(s, x, 1))
    y = apply(s, "Mul", less, apply(s, "Div", x, apply(s, "Log", u)))
    ends = [apply(s, "Equal", less, like(s, x, end), dtype="bool") for end in (-1, inf)]
    y = apply(s, "Where", apply(s, "Or", *ends), less, y)
    return apply(s, "Where", apply(s, "Equal", less, like(s, x, 0), dtype="bool"), x, y)


def _erfc(w: Walk, n: Node) -> Value:
    y = apply(w.scope, "Erf", w.thin(n.args[0]))
    return apply(w.scope, "Sub", like(w.scope, y, 1), y)


def _isfinite(w: Walk, n: Node) -> Value:
    x = w.thin(n.args[0])
    parts = [apply(w.scope, op, x, dtype="bool") for op in ("IsInf", "IsNaN")]
    return apply(w.scope, "Not", apply(w.scope, "Or", *parts))


def _quotient(w: Walk, n: Node) -> Value:
    """`//` and `%` of whole numbers, towards minus infinity; by 0 they are 0."""
    s = w.scope
    x, y = map(w.thin, n.args)
    known = w.number(n.args[1])
    none = None
    if not known:
        none = apply(s, "Equal", y, like(s, y, 0), dtype="bool")
        y = apply(s, "Where", none, like(s, y, 1), y)
    z = apply(s, "Mod", x, y)
    if n.op == "floordiv":
        z = apply(s, "Div", apply(s, "Sub", x, z), y)
    return z if none is None else apply(s, "Where", none, like(s, y, 0), z)


def _remainder(w: Walk, n: Node) -> Value:
    """C's remainder, and y more where its sign is not that of y."""
    s = w.scope
    x, y = map(w.thin, n.args)
    r = s.emit("Mod", x, y, type=(n.dtype, together(x, y)), fmod=1)
    zero = like(s, y, 0)
    other = apply(s, "Less", apply(s, "Mul", apply(s, "Sign", r), apply(s, "Sign", y)), zero, dtype="bool")
    return apply(s, "Where", other, apply(s, "Add", r, y), r)


def _whole_pow(w: Walk, n: Node) -> Value:
    power = w.number(n.args[1])
    if not (power >= 0 if power is not None else unsigned(w.graph, n.args[1])):
        raise Refused("raises whole numbers to a power that may be below 0")
    s = w.scope
    return s.cast(apply(s, "Pow", *(s.cast(w.thin(a), "i64") for a in n.args)), n.dtype)


def _cast(w: Walk, n: Node) -> Value:
    """Floats to whole numbers: what is too large is the largest, NaN is 0. (ONNX leaves both open.)"""
    s, x = w.scope, w.thin(n.args[0])
    if x.dtype not in FLOATS or n.dtype not in INTS:
        return s.cast(x, n.dtype)
    low, high = INTS[n.dtype]
    above = apply(s, "GreaterOrEqual", x, like(s, x, float(high)), dtype="bool")
    below = apply(s, "Less", x, like(s, x, float(low)), dtype="bool")
    odd = apply(s, "Or", apply(s, "Or", above, below), apply(s, "IsNaN", x, dtype="bool"))
    y = s.cast(apply(s, "Where", odd, like(s, x, 0), x), n.dtype)
    y = apply(s, "Where", above, like(s, y, high), y)
    return apply(s, "Where", below, like(s, y, low), y)


def first(w: Walk, n: Node) -> Value:
    """What is its operand: gradients and checks have no counterpart."""
    return w.thin(n.args[0])


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(SAME, _same),
    "maximum": _maximum, "add": _add, "mul": _mul, "div": _div, "where": _where, "ne": _ne, "rsqrt": _rsqrt,
    "log2": _log2, "log1p": _log1p, "expm1": _expm1, "erfc": _erfc, "isfinite": _isfinite, "floordiv": _quotient,
    "mod": _quotient, "remainder": _remainder, "whole_pow": _whole_pow, "cast": _cast,
    **dict.fromkeys(("stop_grad", "straight_through", "checkpoint", "in_range"), first),
}  # fmt: skip

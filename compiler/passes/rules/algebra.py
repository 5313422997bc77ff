"""Rewrite rules for elementwise operators. Above each rule stands the mathematics it uses.

An equation over the reals is not enough: a rule must hold for NaN, infinities and -0 as well, so x - x is not 0, x * 0
is not 0, 0 - x is not -x and x + 0 is x only where x cannot be -0. Three liberties are taken and no others: results may
differ by rounding (x^3 is x*x*x), the sign of a contraction that is zero is not defined, and where a factor of a window
or of its adjoint is not finite, elements near it may be NaN or not: a term that is not there, beyond the margin, is 0
times it, or nothing. Two rules turn an infinity that only an intermediate result was into the right value; they say so.
"""

from __future__ import annotations

from math import copysign, frexp, isfinite

from ...graph.facts import unsigned
from ...graph.nodes import Node
from ...graph.ops import elementwise
from ...graph.ops.calculus import Number, number
from ...types.tensors import FLOATS, TensorType
from ..rewrite import Rule, Sweep, Table

ELEMENTWISE = tuple(op.name for op in elementwise.ALL)


def fill(s: Sweep, value: Number, type: TensorType) -> str:
    """A value that is `value` everywhere."""
    value = float(value) if type.dtype in FLOATS else value
    c = s.emit("constant", values=(value,), type=TensorType(type.dtype))
    return s.emit("broadcast", c, shape=type.shape, axes=()) if type.shape else c


def is_number(x: Number | None, value: float) -> bool:
    """x is `value`, and a zero has the same sign."""
    return x is not None and x == value and copysign(1, x) == copysign(1, value)


def power_of_two(x: Number) -> bool:
    """x is plus or minus a power of two, and so is its reciprocal, also in f32."""
    mantissa, exponent = frexp(x)
    return abs(mantissa) == 0.5 and -120 < exponent < 120


def negated(s: Sweep, name: str, zeros: bool = False, depth: int = 4) -> str | None:
    """-v, if v is written with a minus that comes off: -x, a negative number, a scalar product or quotient with one, or
    one of these repeated or chosen. With `zeros` a 0 in a choice may stay 0: right where it is added to what is not
    -0."""
    n = s[name]
    if n.op == "neg":
        return n.args[0]
    if n.op == "constant" and not n.shape and n.dtype in FLOATS and copysign(1, n.attrs["values"][0]) < 0:
        return s.emit("constant", values=(-n.attrs["values"][0],), type=n.type)
    if depth and n.op == "broadcast":
        inner = negated(s, n.args[0], False, depth - 1)
        return s.emit("broadcast", inner, **n.attrs) if inner is not None else None
    if depth and n.op in ("mul", "div") and not n.shape:
        for k, a in enumerate(n.args):
            if (inner := negated(s, a, False, depth - 1)) is not None:
                return s.emit(n.op, *n.args[:k], inner, *n.args[k + 1 :])
    if depth and n.op == "where" and zeros:
        c, x, y = n.args
        if is_number(number(s, y), 0.0) and (inner := negated(s, x, True, depth - 1)) is not None:
            return s.emit("where", c, inner, y)
        if is_number(number(s, x), 0.0) and (inner := negated(s, y, True, depth - 1)) is not None:
            return s.emit("where", c, x, inner)
    return None


def _whole(n: Node) -> bool:
    return n.dtype not in FLOATS


# x + (-0) = x; x + 0 = x unless x is -0
def add_zero(s: Sweep, n: Node) -> str | None:
    for x, zero in (n.args, n.args[::-1]):
        c = number(s, zero)
        if is_number(c, -0.0) or (c == 0 and (_whole(n) or unsigned(s, x))):
            return x
    return None


# x + (-y) = x - y, also where y is hidden in a broadcast or a choice
def add_negated(s: Sweep, n: Node) -> str | None:
    for x, y in (n.args, n.args[::-1]):
        if number(s, y) is None and (positive := negated(s, y, unsigned(s, x))) is not None:
            return s.emit("sub", x, positive)
    return None


# x * c + x * c = x * 2c, exactly
def add_doubled(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if n.args[0] != n.args[1] or m.op != "mul" or _whole(n):
        return None
    for x, y in (m.args, m.args[::-1]):
        c = number(s, y)
        if c is not None and abs(c) < 2.0**100:
            return s.emit("mul", x, fill(s, 2 * c, s.type(y)))
    return None


# x - 0 = x; x - (-0) = x unless x is -0
def sub_zero(s: Sweep, n: Node) -> str | None:
    x, zero = n.args
    c = number(s, zero)
    return x if is_number(c, 0) or (c == 0 and (_whole(n) or unsigned(s, x))) else None


# x - (-y) = x + y
def sub_negated(s: Sweep, n: Node) -> str | None:
    x, y = n.args
    if number(s, y) is None and (positive := negated(s, y, unsigned(s, x))) is not None:
        return s.emit("add", x, positive)
    return None


# (-0) - x = -x
def sub_from_zero(s: Sweep, n: Node) -> str | None:
    c = number(s, n.args[0])
    return s.emit("neg", n.args[1]) if is_number(c, -0.0) or (c == 0 and _whole(n)) else None


# whole numbers: x - x = 0
def sub_self(s: Sweep, n: Node) -> str | None:
    return fill(s, 0, s.type(n.args[0])) if _whole(n) and n.args[0] == n.args[1] else None


# x * 1 = x; x * (-1) = -x; whole numbers: x * 0 = 0
def mul_unit(s: Sweep, n: Node) -> str | None:
    for x, unit in (n.args, n.args[::-1]):
        c = number(s, unit)
        if c == 1:
            return x
        if c == -1:
            return s.emit("neg", x)
        if c == 0 and _whole(n):
            return unit
    return None


# c * (d * x) = (c d) * x, where c or d is a power of two: exact, unless d * x overflowed on its way to a finite number
def mul_numbers(s: Sweep, n: Node) -> str | None:
    for x, y in (n.args, n.args[::-1]):
        c, m = number(s, y), s[x]
        if c is None or m.op != "mul" or _whole(n):
            continue
        for inner, z in (m.args, m.args[::-1]):
            d = number(s, z)
            if d is not None and (power_of_two(c) or power_of_two(d)) and 2.0**-100 < abs(c * d) < 2.0**100:
                return s.emit("mul", inner, fill(s, c * d, s.type(y)))
    return None


# (-x) * y = -(x * y), and for a number y: x * (-y)
def mul_negated(s: Sweep, n: Node) -> str | None:
    for x, y in (n.args, n.args[::-1]):
        if s[x].op == "neg":
            inner = s[x].args[0]
            c = number(s, y)
            if c is not None:
                return s.emit("mul", inner, fill(s, -c, s.type(y)))
            return s.emit("neg", s.emit("mul", inner, y))
    return None


# x * (1 / y) = x / y. Where 1 / y overflows (y subnormal) the quotient is the right value and the product was not.
def mul_reciprocal(s: Sweep, n: Node) -> str | None:
    for x, r in (n.args, n.args[::-1]):
        around = s[r] if s[r].op == "broadcast" else None
        q = s[around.args[0]] if around else s[r]
        if q.op == "div" and number(s, q.args[0]) == 1 and number(s, x) is None:
            y = s.emit("broadcast", q.args[1], **around.attrs) if around else q.args[1]
            return s.emit("div", x, y)
    return None


# x / 1 = x; x / (-1) = -x; x / 2^k = x * 2^-k, exactly
def div_number(s: Sweep, n: Node) -> str | None:
    x, y = n.args
    c = number(s, y)
    if c is None or c == 0 or not isfinite(c):
        return None
    if abs(c) == 1:
        return x if c == 1 else s.emit("neg", x)
    return s.emit("mul", x, fill(s, 1 / c, s.type(x))) if power_of_two(c) else None


# (-x) / y = -(x / y) = x / (-y)
def div_negated(s: Sweep, n: Node) -> str | None:
    x, y = n.args
    if s[x].op == "neg":
        return s.emit("neg", s.emit("div", s[x].args[0], y))
    if s[y].op == "neg":
        return s.emit("neg", s.emit("div", x, s[y].args[0]))
    return None


# -(-x) = x; -(x * c) = x * (-c); -(c / x) = (-c) / x
def neg_absorbed(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    match m.op:
        case "neg":
            return m.args[0]
        case "mul" | "div":
            for k, a in enumerate(m.args):
                c = number(s, a)
                if c is not None and m.dtype in FLOATS:
                    return s.emit(m.op, *m.args[:k], fill(s, -c, s.type(a)), *m.args[k + 1 :])
    return None


# |(-x)| = |x|; |(|x|)| = |x|
def abs_absorbed(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    return s.emit("abs", m.args[0]) if m.op == "neg" else n.args[0] if m.op == "abs" else None


# x^0 = 1 (of NaN too); x^1 = x; x^2, x^3, x^4 are products; of floats x^-1 = 1 / x; for x not below 0: x^(1/2) and
# x^(-1/2) are roots
def pow_number(s: Sweep, n: Node) -> str | None:
    x, y = n.args
    c = number(s, y)
    if c in (0, 1):
        return x if c == 1 else fill(s, 1, s.type(x))
    if c in (2, 3, 4):
        square = s.emit("mul", x, x)
        return square if c == 2 else s.emit("mul", square, x if c == 3 else square)
    if c == -1 and n.op == "pow":
        return s.emit("div", fill(s, 1.0, s.type(x)), x)
    if c in (0.5, -0.5) and unsigned(s, x):
        return s.emit("sqrt" if c == 0.5 else "rsqrt", x)
    return None


# min(x, x) = max(x, x) = x and x = x or x = x
def same_twice(s: Sweep, n: Node) -> str | None:
    return n.args[0] if n.args[0] == n.args[1] else None


# x and true = x, x and false = false; x or false = x, x or true = true
def logic_number(s: Sweep, n: Node) -> str | None:
    for x, y in (n.args, n.args[::-1]):
        c = number(s, y)
        if c is not None:
            return x if bool(c) == (n.op == "and") else y
    return None


# not not x = x; not (x == y) is x != y, and the other way round
def not_absorbed(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op == "not":
        return m.args[0]
    return s.emit({"eq": "ne", "ne": "eq"}[m.op], *m.args) if m.op in ("eq", "ne") else None


# where(true, x, y) = x; where(false, x, y) = y; where(c, x, x) = x
def where_decided(s: Sweep, n: Node) -> str | None:
    c, x, y = n.args
    if x == y:
        return x
    chosen = number(s, c)
    return None if chosen is None else x if chosen else y


# where(not c, x, y) = where(c, y, x); where(c, where(c, x, _), y) = where(c, x, y), and so in the other branch
def where_absorbed(s: Sweep, n: Node) -> str | None:
    c, x, y = n.args
    if s[c].op == "not":
        return s.emit("where", s[c].args[0], y, x)
    if s[x].op == "where" and s[x].args[0] == c:
        return s.emit("where", c, s[x].args[1], y)
    if s[y].op == "where" and s[y].args[0] == c:
        return s.emit("where", c, x, s[y].args[2])
    return None


_EXACT = {("f32", "f64"), ("i32", "i64"), ("i32", "f64"), *(("bool", d) for d in ("f32", "f64", "i32", "i64"))}


# a conversion to the same type is none; one that loses nothing and back is none
def cast_absorbed(s: Sweep, n: Node) -> str | None:
    x = n.args[0]
    m = s[x]
    if s.type(x).dtype == n.dtype:
        return x
    if m.op == "cast" and s.type(m.args[0]).dtype == n.dtype and (n.dtype, m.dtype) in _EXACT:
        return m.args[0]
    return None


# f(broadcast x, broadcast y) = broadcast f(x, y): computed once, then repeated. Numbers adapt to the others' shape.
def before_broadcast(s: Sweep, n: Node) -> str | None:
    operands = [s[a] for a in n.args]
    if any(x.op != "broadcast" for x in operands):
        return None
    wide = next((x for x in operands if x.attrs["axes"]), operands[0])
    small = s.type(wide.args[0])
    args: list[str] = []
    for x in operands:
        inner = s.type(x.args[0])
        if x.attrs["axes"] == wide.attrs["axes"] and inner.shape == small.shape:
            args.append(x.args[0])
        elif not inner.shape:
            args.append(s.emit("broadcast", x.args[0], shape=small.shape, axes=()))
        else:
            return None
    return s.emit("broadcast", s.emit(n.op, *args, **n.attrs), **wide.attrs)


# operators that only speak to differentiation, once it is done
def identity(s: Sweep, n: Node) -> str | None:
    return None if s.differentiated else n.args[0]


_OWN: dict[str, tuple[Rule, ...]] = {
    "add": (add_zero, add_negated, add_doubled),
    "sub": (sub_zero, sub_from_zero, sub_negated, sub_self),
    "mul": (mul_unit, mul_numbers, mul_negated, mul_reciprocal),
    "div": (div_number, div_negated),
    "neg": (neg_absorbed,),
    "abs": (abs_absorbed,),
    "pow": (pow_number,),
    "whole_pow": (pow_number,),
    "minimum": (same_twice,),
    "maximum": (same_twice,),
    "and": (same_twice, logic_number),
    "or": (same_twice, logic_number),
    "not": (not_absorbed,),
    "where": (where_decided, where_absorbed),
    "cast": (cast_absorbed,),
}

RULES: Table = {
    **{op: (*_OWN.get(op, ()), before_broadcast) for op in ELEMENTWISE},
    "stop_grad": (identity,),
    "straight_through": (identity,),
    "checkpoint": (identity,),
}

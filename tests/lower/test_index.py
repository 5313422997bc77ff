"""Index arithmetic: what is simplified has the same value, and lies within the bounds that are claimed for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnc.compiler.loops import ir as L
from nnc.compiler.loops.index import bounds, from_expr, quotient, remainder, split, to_expr, total
from nnc.compiler.types.sizes import symbol


def value(e, env):
    match e:
        case L.Const(v):
            return v
        case L.Var(n):
            return env[n]
        case L.Apply(fn, (a, b)):
            x, y = value(a, env), value(b, env)
            return {"add": x + y, "sub": x - y, "mul": x * y, "floordiv": x // (y or 1), "mod": x % (y or 1)}[fn]


@given(st.data())
def test_simplified_is_equal(data):
    extents = {v: data.draw(st.integers(1, 6)) for v in "xyz"}
    env = {v: data.draw(st.integers(0, n - 1)) for v, n in extents.items()}

    def grow(depth):
        if depth == 0:
            v = data.draw(st.sampled_from(["x", "y", "z", 0, 3]))
            return (v, v) if isinstance(v, int) else (symbol(v), env[v])
        (a, va), n = grow(depth - 1), data.draw(st.integers(1, 12))
        match data.draw(st.sampled_from(["+", "-", "*", "//", "%"])):
            case "+":
                b, vb = grow(depth - 1)
                return a + b, va + vb
            case "-":
                b, vb = grow(depth - 1)
                return a - b, va - vb
            case "*":
                return a * n, va * n
            case "//":
                return quotient(a, n, extents), va // n
            case _:
                return remainder(a, n, extents), va % n

    x, wanted = grow(data.draw(st.integers(0, 4)))
    assert value(to_expr(x), env) == wanted
    again = from_expr(to_expr(x), extents, lambda e: pytest.fail("all of it is arithmetic"))
    assert value(to_expr(again), env) == wanted
    low, high = bounds(x, extents)
    assert (low is None or low <= wanted) and (high is None or wanted <= high)


def test_a_reshape_and_back_is_nothing():
    b, t, j = map(symbol, ("b", "t", "j"))
    size, length = symbol("B"), symbol("T")
    flat, ranges = b * 20 + j, {"b": size, "j": 20}
    parts = (quotient(flat, 20, ranges), remainder(quotient(flat, 5, ranges), 4, ranges), remainder(flat, 5, ranges))
    assert parts[0] == b and total((parts[0] * 20, parts[1] * 5, parts[2])) == flat
    ranges = {"b": size, "t": length}
    assert quotient(b * length + t, length, ranges) == b and remainder(b * length + t, length, ranges) == t
    i = symbol("i")
    assert quotient(i, length, {"i": size * length}) * length + remainder(i, length, {"i": size * length}) == i


def test_remainders_are_found_again():
    i = symbol("i")
    rest, found = split(3 * remainder(i, 7, {"i": 100}) + 5)
    assert rest == 5 and found == [(3, i, 7)]
    assert bounds(remainder(i, 7, {"i": 100}), {"i": 100}) == (0, 6)

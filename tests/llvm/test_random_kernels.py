"""Kernels of the loop IR: machine code against the evaluator, bit for bit, and the text against the data."""

import math

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nnc.compiler.loops.ir import (
    Apply,
    Buffer,
    Check,
    Const,
    Constant,
    For,
    If,
    Kernel,
    Let,
    Load,
    Module,
    Reduce,
    Store,
    Var,
    add,
    i64,
    mul,
)
from nnc.compiler.loops.meaning import evaluate
from nnc.compiler.loops.parse import parse_loops
from nnc.compiler.loops.text import print_loops

LENGTH = 256
NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}
BUFFERS = (
    Buffer("x", "f32"),
    Buffer("k", "i32"),
    Buffer("at", "i64"),
    Buffer("on", "bool"),
    Buffer("d", "f64"),
    Buffer("y", "f32", True),
    Buffer("z", "i32", True),
    Buffer("w", "f64", True),
    Buffer("b", "bool", True),
)
DTYPE = {b.name: b.dtype for b in BUFFERS}
ANY_FNS = {"add": 2, "sub": 2, "mul": 2, "neg": 1, "abs": 1, "sign": 1, "minimum": 2, "maximum": 2}
FLOAT_FNS = {**ANY_FNS, "div": 2, "fma": 3, "floor": 1, "round": 1, "sqrt": 1}
INT_FNS = {**ANY_FNS, "floordiv": 2, "mod": 2}
BOOL_FNS = {"and": 2, "or": 2, "not": 1}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


class Exact(list):
    """A list that knows no negative index."""

    def __getitem__(self, i):
        if not 0 <= i < len(self):
            raise IndexError(i)
        return super().__getitem__(i)

    def __setitem__(self, i, v):
        if not 0 <= i < len(self):
            raise IndexError(i)
        super().__setitem__(i, v)


@st.composite
def indices(draw, scope):
    """An i64 that is affine in the loop variables, or one read from `at`, wrapped into the buffer."""
    total = i64(draw(st.integers(0, 6)))
    for name in scope["loops"]:
        total = add(total, mul(Var(name), i64(draw(st.sampled_from([0, 1, 1, 1, 2, 16])))))
    if draw(st.integers(0, 5)) == 0:
        return Apply("mod", (Load("at", total, "i64"), i64(LENGTH)), "i64")
    return total


@st.composite
def expressions(draw, dtype, scope, depth):
    """An expression of a dtype over what is in scope."""
    known = [n for n, d in scope["lets"].items() if d == dtype]
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        choice = draw(st.integers(0, 2))
        if choice == 0 and known:
            return Var(draw(st.sampled_from(known)), dtype)
        if choice == 1 or dtype == "i64":
            if dtype == "i64":
                return draw(indices(scope))
            value = {
                "f32": st.sampled_from([0.0, -0.0, 1.5, -2.25, 1e30]),
                "f64": st.sampled_from([0.0, 0.1, -3.0]),
                "i32": st.integers(-5, 5),
                "bool": st.booleans(),
            }[dtype]
            return Const(draw(value), dtype)
        buffer = draw(st.sampled_from([b for b, d in DTYPE.items() if d == dtype]))
        return Load(buffer, draw(indices(scope)), dtype)

    def sub(d):
        return draw(expressions(d, scope, depth - 1))

    if dtype == "bool":
        kind = draw(st.integers(0, 2))
        if kind == 0:
            fn = draw(st.sampled_from(list(BOOL_FNS)))
            return Apply(fn, tuple(sub("bool") for _ in range(BOOL_FNS[fn])), "bool")
        of = draw(st.sampled_from(["f32", "i32", "i64"]))
        if kind == 1 and of == "f32":
            return Apply("isfinite", (sub("f32"),), "bool")
        return Apply(draw(st.sampled_from(COMPARISONS)), (sub(of), sub(of)), "bool")
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return Apply("select", (sub("bool"), sub(dtype), sub(dtype)), dtype)
    if kind == 1:
        return Apply("cast", (sub(draw(st.sampled_from([d for d in NUMPY if d != dtype]))),), dtype)
    table = FLOAT_FNS if dtype in ("f32", "f64") else INT_FNS
    fn = draw(st.sampled_from(list(table)))
    return Apply(fn, tuple(sub(dtype) for _ in range(table[fn])), dtype)


@st.composite
def bodies(draw, scope, depth):
    """A few statements. `scope`: loops (variables), lets, lanes (the vector loop's variable), outer (those around)."""
    scope = {**scope, "lets": dict(scope["lets"])}
    stmts = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 7))
        if kind == 0:
            name = f"t{draw(st.integers(0, 2))}"
            dtype = draw(st.sampled_from(["f32", "i32", "bool", "f64"]))
            stmts.append(Let(name, draw(expressions(dtype, scope, 2))))
            scope["lets"][name] = dtype
        elif kind in (1, 2) and depth:
            stmts.append(draw(loops(scope, depth - 1)))
        elif kind == 3 and not scope["lanes"] and depth:
            condition = draw(expressions("bool", scope, 1))
            stmts.append(If(condition, draw(bodies(scope, depth - 1))))
        elif kind == 4:
            stmts.append(draw(reductions(scope)))
        elif kind == 5 and draw(st.integers(0, 3)) == 0:
            stmts.append(Check(draw(expressions("bool", scope, 1)), draw(st.integers(1, 9))))
        else:
            stmts.append(draw(stores(scope)))
    return tuple(stmts)


@st.composite
def stores(draw, scope):
    buffer = draw(st.sampled_from("yzwb"))
    index = draw(indices(scope))
    if scope["lanes"]:
        index = add(index, Var(scope["lanes"]))
    return Store(buffer, index, draw(expressions(DTYPE[buffer], scope, 3)))


@st.composite
def reductions(draw, scope):
    buffer = draw(st.sampled_from("yzw"))
    if scope["lanes"] and draw(st.booleans()):  # the same place in all lanes
        place = {"loops": scope["outer"], "lets": {}, "lanes": None, "outer": ()}
        index = i64(draw(st.integers(0, 6)))
        for name in place["loops"]:
            index = add(index, mul(Var(name), i64(draw(st.integers(0, 2)))))
    else:
        index = draw(indices(scope))
        if scope["lanes"]:
            index = add(index, Var(scope["lanes"]))
    return Reduce(
        buffer, index, draw(st.sampled_from(["sum", "max", "min", "prod"])), draw(expressions(DTYPE[buffer], scope, 2))
    )


@st.composite
def loops(draw, scope, depth):
    var = f"i{len(scope['loops'])}"
    vector = not scope["lanes"] and draw(st.booleans())
    lanes = draw(st.sampled_from([2, 4, 16])) if vector else 1
    step = draw(st.sampled_from([1, 1, 2]))
    start = i64(draw(st.integers(0, 3)))
    unroll = draw(st.sampled_from([0, 1, 1, 2, 3]))
    constant = unroll == 0 or draw(st.booleans())
    stop = add(start, i64(draw(st.integers(0, 40 if vector else 5)))) if constant else Var(draw(st.sampled_from("nm")))
    bound = draw(st.sampled_from([None, i64(17), Var("n"), Var("m")])) if vector else None
    inner = {
        "loops": (*scope["loops"], var),
        "lets": dict(scope["lets"]),
        "lanes": var if vector else scope["lanes"],
        "outer": scope["loops"] if vector else scope["outer"],
    }
    return For(var, start, stop, draw(bodies(inner, depth)), step, lanes, bound, unroll)


@st.composite
def kernels(draw):
    scope = {"loops": (), "lets": {}, "lanes": None, "outer": ()}
    body = draw(st.lists(loops(scope, 2), min_size=1, max_size=2))
    return Kernel("k", ("n", "m"), BUFFERS, tuple(body))


def memory(seed):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=LENGTH).astype(np.float32)
    f[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, 1.0]
    rng.shuffle(f)
    return [
        f,
        rng.integers(-9, 9, LENGTH).astype(np.int32),
        rng.integers(-400, 400, LENGTH),
        rng.random(LENGTH) < 0.5,
        rng.normal(size=LENGTH),
        rng.normal(size=LENGTH).astype(np.float32),
        rng.integers(-99, 99, LENGTH).astype(np.int32),
        rng.normal(size=LENGTH),
        rng.random(LENGTH) < 0.5,
    ]


def same(got, want):
    for g, w in zip(got, want, strict=True):
        if g.dtype.kind == "f":
            np.testing.assert_array_equal(np.isnan(g), np.isnan(w))
            g, w = np.where(np.isnan(w), 0, g), np.where(np.isnan(w), 0, w)
            g, w = g.view(f"i{g.itemsize}"), w.view(f"i{w.itemsize}")
        np.testing.assert_array_equal(g, w)


def expected(kernel, sizes, arrays):
    lists = {b.name: Exact(a.tolist()) for b, a in zip(kernel.buffers, arrays, strict=True)}
    with np.errstate(all="ignore"):
        code = evaluate(kernel, sizes, lists)
    return code, [np.array(lists[b.name], NUMPY[b.dtype]) for b in kernel.buffers]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(kernels(), st.integers(0, 20), st.integers(0, 40), st.sampled_from(["native", "x86-64-v3", "serial"]))
def test_random_kernels(compiled, kernel, n, m, target):
    arrays, sizes = memory(n + m), {"n": n, "m": m}
    try:
        code, want = expected(kernel, sizes, arrays)
    except IndexError:
        assume(False)
    assert compiled(kernel, target)(sizes, arrays) == code
    if code == 0:
        same(arrays, want)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(kernels())
def test_text_round_trip(kernel):
    module = Module((kernel,), (), (Constant("c", "f32", (1.0, -0.5, math.inf)),))
    assert parse_loops(print_loops(module)) == module

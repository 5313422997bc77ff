"""The table of productions: each takes values from the pool and adds a statement that is right by construction.

What has no gradient (`floor`, `argmax`, ...) stands in `stop_grad`, so that every float value can be differentiated.
What may overflow is squashed first.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from .generator import Dim, Generator, Shape, Value, computed, text_of

SMOOTH = ("tanh", "sin", "cos", "sigmoid", "silu", "gelu", "softplus", "erf", "logistic", "mish", "softsign",
          "atan", "asinh", "erfc")  # fmt: skip
BROKEN = ("relu", "leaky_relu", "elu", "selu", "hard_tanh", "hard_sigmoid", "abs")
STEPS = ("floor", "ceil", "round", "sign")
CAREFUL = ("exp(minimum({}, 2))", "exp(-abs({}))", "log(abs({}) + 0.1)", "sqrt({}^2 + 0.1)", "rsqrt({}^2 + 1)",
           "1 / ({}^2 + 0.5)", "log1p({}^2)", "expm1(clip({}, -2, 1))", "({})^3", "({})^2", "clip({}, -0.5, 0.8)",
           "lgamma({}^2 + 0.5)", "digamma({}^2 + 0.5)", "erfinv(tanh({}) * 0.9)", "sinh(clip({}, -2, 2))",
           "cosh(clip({}, -2, 2))", "acosh({}^2 + 1.1)", "atanh(tanh({}) * 0.9)", "tan(clip({}, -1.2, 1.2))",
           "asin(clip({}, -0.9, 0.9))", "acos(tanh({}) * 0.9)", "log2({}^2 + 0.1)", "maximum({}, 0.1)",
           "minimum(0.2, {})", "(-{})", "gelu_tanh({})", "{} / 3", "log_sigmoid({})")  # fmt: skip
CHAINS = (  # what is shared doubles where it is walked as if it were a tree
    "{y} = where({y} > 0.5, {y} * 0.5, {y} + 0.3)", "{y} = leaky_relu({y} - 0.1)", "{y} = elu({y} - 0.2)",
    "{y} = tanh({y} * {y} + {y} - 0.5)", "{y} = silu({y}) + 0.1", "{y} = maximum({y} * 0.9, {y} - 0.2)",
    "{y} = 0.5 * {y} + 0.4 * sin({y})", "{y} = where({y} > {x}, {y} - 0.1 * {x}, {y} * 0.9 + {x} * 0.1)",
)  # fmt: skip
UNTAKEN = (  # what is not taken has no value, or no slope
    "where({x} > 0.2, log({x}), {y})", "where({x} < 0.2, {y}, sqrt({x} - 0.1))",
    "where(abs({x}) > 0.3, {y} / {x}, {y})",
    "where({x} > 0.3, {y} * rsqrt({x}), 0)", "where({x} > 0.2, where({x} > 0.7, sqrt({x} - 0.6), {x}^0.7), {y})",
    "where({x} > 0, maximum(log({x}), -1), {y})", "where(abs({x}) < 0.8, asin({x}), {x})",
    "where({x} != 0, sin({x}) / {x}, 1)", "where(isfinite(log({x} - 0.1)), log({x} + 0.1), {y})",
)  # fmt: skip


def axis_of(g: Generator, v: Value) -> int:
    return g.rng.randrange(v.rank)


def without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def with_axis(shape: Shape, axis: int, n: Dim) -> Shape:
    return (*shape[:axis], n, *shape[axis:])


def replaced(shape: Shape, axis: int, n: Dim) -> Shape:
    return (*shape[:axis], n, *shape[axis + 1 :])


def known(v: Value, least: int = 0) -> bool:
    """Whether the sizes are numbers, from `least`."""
    return all(isinstance(n, int) and n >= least for n in v.shape)


def dim_text(n: Dim) -> str:
    return str(n)


# --- element by element ----------------------------------------------------------------------------------------------


def smooth(g: Generator) -> None:
    x = g.pick()
    g.let(f"{g.one_of(*SMOOTH)}({x.name})", x.shape, [x])


def broken(g: Generator) -> None:
    x = g.pick()
    g.let(f"{g.one_of(*BROKEN)}({x.name} - 0.1)", x.shape, [x])


def careful(g: Generator) -> None:
    x = g.pick()
    g.let(g.one_of(*CAREFUL).format(x.name), x.shape, [x])


def steps(g: Generator) -> None:
    x = g.pick()
    if g.chance(0.3):
        g.let(f"{x.name} % {g.one_of('1', '0.7', '-2', '1e3')}", x.shape, [x])  # its slope is 1
        return
    g.let(f"stop_grad({g.one_of(*STEPS)}({x.name} * 2.3)) + {x.name}", x.shape, [x])


def binary(g: Generator) -> None:
    x = g.pick()
    y = g.like(x.shape)
    g.let(f"{x.name} {g.one_of('+', '-', '*', '+', '*')} {y.name}", x.shape, [x, y])


def function_of_two(g: Generator) -> None:
    x = g.pick()
    y = g.like(x.shape)
    form = g.one_of("maximum({}, {})", "minimum({}, {})", "{} / ({}^2 + 0.5)", "atan2({}, {}^2 + 0.5)",
                    "where({0} > {1}, {0}, {1} * 0.5)", "tanh({} * {})", "(0.5 * {} + 0.25 * {}) * 0.7")  # fmt: skip
    g.let(form.format(x.name, y.name), x.shape, [x, y])


def with_number(g: Generator) -> None:
    x = g.pick()
    number = g.one_of("0", "1", "2", "0.5", "-1", "3", "1e-3", "0.0", "-0.3")
    form = g.one_of("{x} * {n}", "{x} + {n}", "{n} - {x}", "{n} * {x}", "{x} - {n}", "{n} / ({x}^2 + 1)")
    g.let(form.format(x=x.name, n=number), x.shape, [x])


def lower_rank(g: Generator) -> None:
    """The trailing axes alone, or an axis of size 1 that stretches."""
    x = g.pick(low=1)
    if g.chance(0.5):
        shape = x.shape[g.rng.randint(1, x.rank) :]
    else:
        shape = replaced(x.shape, axis_of(g, x), 1)
    y = g.like(shape)
    g.let(f"{x.name} {g.one_of('+', '*', '-')} {y.name}", x.shape, [x, y])


def choose(g: Generator) -> None:
    x = g.pick()
    y, z = g.like(x.shape), g.like(x.shape)
    test = g.one_of("{} > 0.3", "{} <= {}", "not ({} < -0.2)", "{} > 0 and {} < 0.5", "isfinite({})")
    test = test.format(z.name, g.like(x.shape).name)
    g.let(f"where({test}, {x.name}, {y.name})", x.shape, [x, y])


def untaken(g: Generator) -> None:
    """The condition element by element, or for each row."""
    x = g.pick()
    y = g.like(x.shape)
    if x.rank and g.chance(0.4):
        axis = axis_of(g, x)
        row = g.let(f"sum({x.name}, axis = {axis}, keep = true)", replaced(x.shape, axis, 1), [x])
        form = g.one_of("where({r} > 0.3, {y} * log({r}), {x})", "where({r} < 0.3, {x}, {x} / ({r} + 0.1))",
                        "where({r} > 0.3, {y} + sqrt({r}), 0)")  # fmt: skip
        g.let(form.format(x=x.name, y=y.name, r=row.name), x.shape, [x, y])
    else:
        g.let(g.one_of(*UNTAKEN).format(x=x.name, y=y.name), x.shape, [x, y])


def chain(g: Generator) -> None:
    x = g.pick()
    y = g.let(x.name, x.shape, [x])
    body = g.one_of(*CHAINS).format(y=y.name, x=g.like(x.shape).name)
    g.write(f"repeat {g.one_of(2, 3, 5, 9, 14, 14, 20)} {{ {body} }}")


def condition(g: Generator) -> None:
    x = g.pick()
    g.let(f"{x.name} {g.one_of('>', '<', '>=')} {g.like(x.shape).name} - 0.1", x.shape, [], "bool")


def logic(g: Generator) -> None:
    a = g.pick(dtype="bool")
    b = g.like(a.shape, "bool")
    form = g.one_of("{} and {}", "{} or not {}", "not {}", "{} == {}", "{} != {}")
    g.let(form.format(a.name, b.name), a.shape, [], "bool")


def mask(g: Generator) -> None:
    a = g.pick(dtype="bool")
    x = g.like(a.shape)
    form = g.one_of("where({a}, {x}, 0)", "cast({a}, f32) * {x}", "where({a}, 1.5, {x})", "{x} - cast({a}, f32)")
    g.let(form.format(a=a.name, x=x.name), a.shape, [x])


# --- whole numbers ---------------------------------------------------------------------------------------------------


def whole_of(g: Generator, shape: Shape | None = None) -> Value:
    dtype = g.one_of("i32", "i64")
    return g.pick(dtype=dtype) if shape is None else g.like(shape, dtype)


def whole_arithmetic(g: Generator) -> None:
    k = whole_of(g)
    j = g.like(k.shape, k.dtype)
    form = g.one_of("{k} + {j}", "{k} - {j} * 2", "{k} * 3 - 1", "maximum({k}, {j})", "abs({k})", "-{k}",
                    "where({k} > {j}, {k}, 7)", "minimum({k}, 4)", "sign({k})",
                    "{k}^2", "{k}^3 + 1", "2^(abs({k}) % 5)")  # fmt: skip
    g.let(form.format(k=k.name, j=j.name), k.shape, [], k.dtype)


def divide(g: Generator) -> None:
    k = whole_of(g)
    by = g.one_of("2", "3", "7", "1", "(-1)", "(-3)", "0", "16", "(-2)", g.like(k.shape, k.dtype).name)
    g.let(f"{k.name} {g.one_of('//', '%')} {by}", k.shape, [], k.dtype)


def whole_reduction(g: Generator) -> None:
    k = g.pick(low=1, dtype=g.one_of("i32", "i64"), wanted=lambda v: known(v, 1))
    axis = axis_of(g, k)
    g.let(f"{g.one_of('sum', 'max', 'min', 'sum')}({k.name}, axis = {axis})", without(k.shape, axis), [], k.dtype)


def widen(g: Generator) -> None:
    k = whole_of(g)
    g.let(f"cast({k.name}, f32) * 0.1", k.shape, [])


def convert(g: Generator) -> None:
    x = g.pick()
    dtype = g.one_of("i32", "i64")
    g.let(f"cast({x.name} * 3, {dtype})", x.shape, [], dtype)


# --- along axes ------------------------------------------------------------------------------------------------------


def reduction(g: Generator) -> None:
    how = g.one_of("sum", "mean", "sum", "max", "min", "variance", "prod", "norm", "logsumexp")
    x = g.pick(low=1, wanted=lambda v: known(v, 1) or how in ("sum", "prod"))
    axes = sorted(g.rng.sample(range(x.rank), 1 if g.chance(0.7) or how == "logsumexp" else g.rng.randint(1, x.rank)))
    keep = g.chance(0.25) and how not in ("logsumexp", "norm")
    shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape) if keep or k not in axes)
    if how == "norm":
        shape = ()
        call = f"norm({x.name} + 0.5)"
    else:
        axis = axes[0] if len(axes) == 1 else axes
        call = f"{how}({x.name}, axis = {axis}{', keep = true' if keep else ''})"
    g.let(call, shape, [x])


def reduction_of_all(g: Generator) -> None:
    x = g.pick(wanted=lambda v: known(v, 1))
    g.let(f"{g.one_of('sum', 'mean', 'max', 'min')}({x.name})", (), [x])


def normalised(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: known(v, 1) or g.chance(0.3))
    form = g.one_of("softmax({x}, {a})", "log_softmax({x}, {a})", "{x} - mean({x}, {a}, keep = true)",
                    "{x} / (sum({x}^2, {a}, keep = true) + 1)", "cumsum({x}, {a})", "cumprod(tanh({x}), {a})",
                    "{x} - max({x}, {a}, keep = true)",
                    "{x} * rsqrt(mean({x}^2, {a}, keep = true) + 0.1)")  # fmt: skip
    g.let(form.format(x=x.name, a=f"axis = {axis_of(g, x)}"), x.shape, [x])


def ordered(g: Generator) -> None:
    how = g.one_of("sort", "sort", "argsort", "quantile", "top_k", "top_k")
    x = g.pick(low=1, wanted=lambda v: known(v, 1) or how in ("sort", "argsort"))
    axis = axis_of(g, x)
    if how in ("sort", "argsort"):
        real = how == "sort"
        call = f"{how}({x.name}, axis = {axis}{g.one_of('', ', descending = true')})"
        g.let(call, x.shape, [x] if real else [], "f32" if real else "i32")
    elif how == "quantile":
        share = g.one_of("0.5", "0.25", "0.9", "0", "1")
        g.let(f"quantile({x.name}, {share}, axis = {axis})", without(x.shape, axis), [x])
    elif known(x, 1):
        k = g.rng.randint(1, x.shape[-1])
        best, at = g.name(), g.name()
        g.write(f"({best}, {at}) = top_k({x.name}, {k})")
        shape = (*x.shape[:-1], k)
        g.add(Value(best, "f32", shape, x.needs | {x.name}))
        g.add(Value(at, "i32", shape))


def positions(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: known(v, 1))
    axis = axis_of(g, x)
    g.let(f"{g.one_of('argmax', 'argmin')}({x.name}, axis = {axis})", without(x.shape, axis), [], "i32")


def question(g: Generator) -> None:
    a = g.pick(low=1, dtype="bool")
    axis = axis_of(g, a)
    g.let(f"{g.one_of('any', 'all')}({a.name}, axis = {axis})", without(a.shape, axis), [], "bool")


def turned_around_a_reduction(g: Generator) -> None:
    """A square is turned, meets its rows, is turned back, and meets what it was made of."""
    x = g.pick(low=2, wanted=lambda v: v.rank == 3 and (known(v, 1) or not known(v)))
    axis = axis_of(g, x)
    u = x
    if x.rank == 3:
        u = g.let(f"{g.one_of('sum', 'mean', 'sum')}({x.name}, axis = {axis})", without(x.shape, axis), [x])
    m, n = u.shape
    v = g.like((m,) if g.chance(0.7) else (n, m))
    beside = f"expand({v.name}, {g.one_of(0, 0, 1) if m == n else 0})" if v.rank == 1 else v.name
    t = g.let(f"({u.name}.T {g.one_of('+', '*', '-')} {beside}).T", (m, n), [u, v])
    if x.rank == 3:
        places = [k for k in range(3) if without(x.shape, k) == t.shape]
        g.let(f"expand({t.name}, {g.rng.choice(places)}) {g.one_of('*', '+', '-')} {x.name}", x.shape, [t, x])


# --- layout ----------------------------------------------------------------------------------------------------------


def transpose(g: Generator) -> None:
    x = g.pick(low=2)
    if x.rank == 2 and g.chance(0.5):
        g.let(f"{x.name}.T", x.shape[::-1], [x])
        return
    perm = g.rng.sample(range(x.rank), x.rank)
    g.let(f"transpose({x.name}, {perm})", tuple(x.shape[k] for k in perm), [x])


def turned_and_met(g: Generator) -> None:
    """A value meets its own transpose, where sizes allow it."""
    x = g.pick(low=2)
    perm = g.rng.sample(range(x.rank), x.rank)
    y = g.like(tuple(x.shape[k] for k in perm))
    g.let(f"transpose({x.name}, {perm}) {g.one_of('+', '*')} {y.name}", y.shape, [x, y])


def expand(g: Generator) -> None:
    x = g.pick(wanted=lambda v: v.rank < 4)
    axis = g.rng.randint(0, x.rank)
    shape = with_axis(x.shape, axis, 1)
    if g.chance(0.5):
        wide = with_axis(x.shape, axis, g.size())
        if g.fits(wide):
            y = g.like(wide)
            g.let(f"expand({x.name}, {axis}) {g.one_of('+', '*', '-')} {y.name}", wide, [x, y])
            return
    g.let(f"expand({x.name}, {axis})", shape, [x])


def squeeze(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: 1 in v.shape)
    ones = [k for k, n in enumerate(x.shape) if n == 1]
    if ones:
        axis = g.rng.choice(ones)
        g.let(f"squeeze({x.name}, {axis})", without(x.shape, axis), [x])


def reshape(g: Generator) -> None:
    x = g.pick(low=1)
    joined = [k for k in range(x.rank - 1) if isinstance(x.shape[k], int) and isinstance(x.shape[k + 1], int)]
    parted = [(k, f) for k, n in enumerate(x.shape) if isinstance(n, int) for f in (2, 3, 4, 8) if n and n % f == 0]
    if joined and g.chance(0.6):
        k = g.rng.choice(joined)
        shape = (*x.shape[:k], x.shape[k] * x.shape[k + 1], *x.shape[k + 2 :])
    elif parted and x.rank < 4:
        k, f = g.rng.choice(parted)
        shape = (*x.shape[:k], f, x.shape[k] // f, *x.shape[k + 1 :])
    elif known(x, 1):
        shape = x.shape[::-1]
    else:
        shape = (1, *x.shape)
    if g.fits(shape):
        g.let(f"reshape({x.name}, {text_of(shape)})", shape, [x])


def joined(g: Generator) -> None:
    """Two axes of any size become one, perhaps after a turn, and two again."""
    x = g.pick(low=2)
    perm = g.rng.sample(range(x.rank), x.rank) if g.chance(0.5) else list(range(x.rank))
    turned = tuple(x.shape[k] for k in perm)
    k = g.rng.randrange(x.rank - 1)
    a, b = turned[k : k + 2]
    one = a * b if isinstance(a, int) and isinstance(b, int) else computed(f"{a} * {b}")
    shape = (*turned[:k], one, *turned[k + 2 :])
    start = x.name if perm == sorted(perm) else f"transpose({x.name}, {perm})"
    y = g.let(f"reshape({start}, {text_of(shape)})", shape, [x])
    if g.chance(0.5):
        back = (*turned[:k], b, a, *turned[k + 2 :])
        g.let(f"reshape({y.name}{g.one_of('', ' * 2')}, {text_of(back)})", back, [y])


def shifted(g: Generator) -> None:
    """All but the first, the last, or every second of an axis of any size, and what was beside."""
    x = g.pick(low=1)
    axis = axis_of(g, x)
    n = x.shape[axis]
    if isinstance(n, int) and n < 1:
        return
    less = n - 1 if isinstance(n, int) else computed(f"{n} - 1")
    first, last = (f"{x.name}[{', '.join([*[':'] * axis, part])}]" for part in ("1:", f"0:{less}"))
    form = g.one_of(f"{first} - {last}", f"{first} * {last}", first, last)
    g.let(form, replaced(x.shape, axis, less), [x])


def lengthened(g: Generator) -> None:
    """A concatenation along an axis of any size."""
    x = g.pick(low=1)
    axis = axis_of(g, x)
    n = x.shape[axis]
    other = g.like(replaced(x.shape, axis, g.one_of(1, 2, n)))
    m = other.shape[axis]
    total = n + m if isinstance(n, int) and isinstance(m, int) else computed(f"{n} + {m}")
    shape = replaced(x.shape, axis, total)
    if g.fits(shape):
        parts = g.rng.sample([x, other], 2)
        g.let(f"concat([{', '.join(p.name for p in parts)}], axis = {axis})", shape, [x, other])


def reshape_of_a_transpose(g: Generator) -> None:
    x = g.pick(low=2, wanted=lambda v: known(v))
    perm = g.rng.sample(range(x.rank), x.rank)
    turned = tuple(x.shape[k] for k in perm)
    if not known(x):
        return
    shape = g.one_of(x.shape, (turned[0] * turned[1], *turned[2:]), turned[::-1])
    g.let(f"reshape(transpose({x.name}, {perm}), {text_of(shape)}) * 2", shape, [x])


def flip(g: Generator) -> None:
    x = g.pick(low=1)
    g.let(f"flip({x.name}, {axis_of(g, x)})", x.shape, [x])


def slice_(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: any(isinstance(n, int) for n in v.shape))
    numbered = [k for k, n in enumerate(x.shape) if isinstance(n, int)]
    if not numbered:
        return
    axis = g.rng.choice(numbered)
    n = x.shape[axis]
    start, stop, step = g.rng.randint(0, n), g.rng.randint(0, n), g.one_of(1, 1, 2)
    start, stop = min(start, stop), max(start, stop)
    if n and g.chance(0.3):
        item, shape = str(g.rng.randrange(n)), without(x.shape, axis)
    else:
        item, shape = f"{start}:{stop}:{step}", replaced(x.shape, axis, len(range(start, stop, step)))
    g.let(f"{x.name}[{', '.join([':'] * axis + [item])}]", shape, [x])


def pad(g: Generator) -> None:
    x = g.pick(low=1, wanted=known)
    if not known(x):
        return
    sides = [[g.one_of(0, 0, 1, 2), g.one_of(0, 0, 1)] for _ in x.shape]
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, sides, strict=True))
    if g.fits(shape):
        g.let(f"pad({x.name}, {sides}{g.one_of('', '', ', value = 2')})", shape, [x])


def concat(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: any(isinstance(n, int) for n in v.shape))
    numbered = [k for k, n in enumerate(x.shape) if isinstance(n, int)]
    if not numbered:
        return
    axis = g.rng.choice(numbered)
    parts = [x, g.like(x.shape), *([g.like(replaced(x.shape, axis, g.one_of(1, 2, 3)))] if g.chance(0.4) else [])]
    g.rng.shuffle(parts)
    shape = replaced(x.shape, axis, sum(p.shape[axis] for p in parts))
    if g.fits(shape):
        g.let(f"concat([{', '.join(p.name for p in parts)}], axis = {axis})", shape, parts)


def stack(g: Generator) -> None:
    x = g.pick(wanted=lambda v: v.rank < 4)
    axis = g.rng.randint(0, x.rank)
    parts = [x, g.like(x.shape), *([g.like(x.shape)] if g.chance(0.4) else [])]
    shape = with_axis(x.shape, axis, len(parts))
    if g.fits(shape):
        g.let(f"stack([{', '.join(p.name for p in parts)}], axis = {axis})", shape, parts)


def split(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: any(isinstance(n, int) and n > 1 for n in v.shape))
    parted = [(k, f) for k, n in enumerate(x.shape) if isinstance(n, int) for f in (2, 3, 4) if n and n % f == 0]
    if not parted:
        return
    axis, parts = g.rng.choice(parted)
    names = [g.name() for _ in range(parts)]
    g.write(f"({', '.join(names)}) = split({x.name}, {parts}, axis = {axis})")
    for name in names:
        g.add(Value(name, "f32", replaced(x.shape, axis, x.shape[axis] // parts), x.needs | {x.name}))


# --- products and index notation -------------------------------------------------------------------------------------

LETTERS = "abcd"


def product(g: Generator) -> None:
    x = g.pick(low=1)
    w = g.like((x.shape[-1], g.size()) if g.chance(0.8) else (x.shape[-1],))
    shape = (*x.shape[:-1], *w.shape[1:])
    if g.fits(shape):
        g.let(g.one_of("{} @ {}", "tanh({} @ {})", "({} @ {}) * 0.5").format(x.name, w.name), shape, [x, w])


def product_turned(g: Generator) -> None:
    x = g.pick(low=2)
    w = g.like((g.size(), x.shape[-1]))
    shape = (*x.shape[:-1], w.shape[0])
    if g.fits(shape):
        g.let(f"{x.name} @ {w.name}.T", shape, [x, w])


def notation(g: Generator) -> None:
    """Two or three operands under three or four indices, some summed over."""
    n = g.rng.randint(2, 4)
    size = {c: g.size() for c in LETTERS[:n]}
    kept = g.rng.sample(LETTERS[:n], g.rng.randint(1, min(3, n)))
    operands: list[tuple[Value, list[str]]] = []
    for _ in range(g.one_of(1, 2, 2, 2, 3)):
        letters = g.rng.sample(LETTERS[:n], g.rng.randint(1, min(3, n)))
        operands.append((g.like(tuple(size[c] for c in letters)), letters))
    seen = {c for _, letters in operands for c in letters}
    kept = [c for c in kept if c in seen] or [sorted(seen)[0]]
    bound = sorted(seen - set(kept))
    terms = [f"{v.name}[{', '.join(letters)}]" for v, letters in operands]
    body = g.one_of(" * ", " * ", " + ").join(terms)
    body = g.one_of("{}", "{}", "tanh({})").format(body)
    empty = any(not (isinstance(size[c], int) and size[c] > 0) for c in bound)
    how = "sum" if empty else g.one_of("sum", "sum", "mean", "max", "min")
    body = f"{how}[{', '.join(bound)}]({body})" if bound else body
    shape = tuple(size[c] for c in kept)
    if g.fits(shape) and g.fits(tuple(size[c] for c in seen)):
        g.let(body, shape, [v for v, _ in operands], target=f"{{}}[{', '.join(kept)}]")


def whole_notation(g: Generator) -> None:
    k = g.pick(low=2, dtype=g.one_of("i32", "i64"), wanted=lambda v: v.rank == 2)
    if k.rank != 2:
        return
    j = g.like(k.shape[::-1], k.dtype)
    form, target, shape = g.one_of((f"sum[b]({k.name}[a, b] * {j.name}[b, a])", "{}[a]", k.shape[:1]),
                                   (f"{k.name}[a, b] - {j.name}[b, a]", "{}[a, b]", k.shape),
                                   (f"{k.name} @ {j.name}", "{}", (k.shape[0], k.shape[0])))  # fmt: skip
    g.let(form, shape, [], k.dtype, target)


def diagonal(g: Generator) -> None:
    x = g.pick(low=2, wanted=lambda v: v.rank == 2 and v.shape[0] == v.shape[1])
    if x.rank == 2 and x.shape[0] == x.shape[1]:
        form, target, shape = g.one_of(("{x}[a, a]", "{}[a]", x.shape[:1]),
                                       ("{x}[a, b] * {x}[b, a]", "{}[a, b]", x.shape),
                                       ("sum[b]({x}[a, b] * {x}[b, b])", "{}[a]", x.shape[:1]))  # fmt: skip
        g.let(form.format(x=x.name), shape, [x], target=target)


def windows(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: isinstance(v.shape[-1], int) and v.shape[-1] > 0)
    n = x.shape[-1]
    if not isinstance(n, int) or not n:
        return
    stride, dilation = g.one_of(1, 1, 2), g.one_of(1, 1, 2)
    wide = g.rng.randint(1, min(3, (n - 1) // dilation + 1))
    count = (n - (wide - 1) * dilation - 1) // stride + 1
    lead = [f"l{k}" for k in range(x.rank - 1)]
    w = g.like((wide,))
    at = f"{x.name}[{', '.join([*lead, f'i * {stride} + u * {dilation}'])}]"
    form = g.one_of(f"sum[u]({at} * {w.name}[u])", f"max[u in 0..{wide}]({at})", f"mean[u in 0..{wide}]({at}^2)")
    g.let(form, (*x.shape[:-1], count), [x, w], target=f"{{}}[{', '.join([*lead, 'i'])}]")


def windows_of_any_size(g: Generator) -> None:
    """A filter over an axis, both of sizes that only run time knows: it may be the longer one."""
    x = g.pick(low=1, wanted=lambda v: v.rank == 1)
    if x.rank != 1:
        return
    w = g.like((g.size(),))
    n, m = x.shape[0], w.shape[0]
    if isinstance(n, int) and isinstance(m, int):
        if m > n or m < 1:
            return
        count: Dim = n - m + 1
    else:
        count = computed(f"{n} - {m} + 1")
    g.let(f"sum[k]({x.name}[i + k] * {w.name}[k])", (count,), [x, w], target="{}[i]")


def quotients(g: Generator) -> None:
    """An axis read in steps that repeat, again and again, or from its end."""
    x = g.pick(low=1, wanted=lambda v: v.rank <= 3)
    n = x.shape[-1]
    lead = [f"l{k}" for k in range(x.rank - 1)]
    k = g.rng.randint(1, 3)
    times = n * k if isinstance(n, int) else computed(f"{n} * {k}")
    forms: list[tuple[str, str, Dim]] = [(f"i // {k}", "i", times), (f"{n} - 1 - i", "i", n),
                                         (f"{n} - 1 - i // {k}", f"i in 0..{k}", k)]  # fmt: skip
    if isinstance(n, int) and n > 0:
        by, m = g.rng.randint(1, n), g.rng.randint(1, 7)
        forms += [(f"i % {by}", f"i in 0..{m}", m), (f"i // {k} % {by}", f"i in 0..{m}", m),
                  (f"(i + {k}) // {k} - 1", "i", times), (f"{by - 1} - i", "i", by),
                  (f"{k} * (i // 2)", f"i in 0..{2 * ((n - 1) // k + 1)}", 2 * ((n - 1) // k + 1))]  # fmt: skip
    at, last, count = g.rng.choice(forms)
    form = g.one_of("{}", "{}", "{} * 0.5", "tanh({})").format(f"{x.name}[{', '.join([*lead, at])}]")
    if g.fits((*x.shape[:-1], count)) and (n != 0 or last == "i"):
        g.let(form, (*x.shape[:-1], count), [x], target=f"{{}}[{', '.join([*lead, last])}]")


def convolved(g: Generator) -> None:
    """A filter turned around, as the textbook has it, of any size: it may be the longer one."""
    x = g.pick(low=1, wanted=lambda v: v.rank == 1)
    w = g.like((g.size(),))
    n, m = x.shape[0], w.shape[0]
    if isinstance(n, int) and isinstance(m, int) and not 1 <= m <= n:
        return
    count = n - m + 1 if isinstance(n, int) and isinstance(m, int) else computed(f"{n} - {m} + 1")
    g.let(f"sum[u]({x.name}[i - u + {m} - 1] * {w.name}[u])", (count,), [x, w], target="{}[i]")


def indexed(g: Generator) -> None:
    """Indices as numbers."""
    x = g.pick(low=2, wanted=lambda v: v.rank == 2)
    if x.rank == 2:
        form = g.one_of("{x}[a, b] * b + a", "where(a == b, {x}[a, b], b % 3)", "{x}[a, b] + 0.5 * (b - a)",
                        "where(b <= a, {x}[a, b], 0)", "{x}[a, b] * (b // 2) - a / 4")  # fmt: skip
        g.let(form.format(x=x.name), x.shape, [x], target="{}[a, b]")


# --- indices that data decide ----------------------------------------------------------------------------------------


def index_below(g: Generator, n: Dim, shape: Shape) -> str:
    dtype = g.one_of("i32", "i32", "i64")
    return f"({g.like(shape, dtype).name} % {n})"


def gather(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: known(v, 1))
    axis = axis_of(g, x) if g.chance(0.3) else 0
    where = g.shape(0, 2)
    shape = (*x.shape[:axis], *where, *x.shape[axis + 1 :])
    if known(x, 1) and g.fits(shape):
        g.let(f"gather({x.name}, {index_below(g, x.shape[axis], where)}, axis = {axis})", shape, [x])


def scatter(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: isinstance(v.shape[0], int))
    n = g.one_of(1, 2, 3, 5, 17)
    shape = (n, *x.shape[1:])
    if g.fits(shape):
        at = index_below(g, n, x.shape[:1])
        if g.chance(0.5):
            g.let(f"scatter({x.name}, {at}, {n})", shape, [x])
            return
        y = g.let(f'scatter({x.name}, {at}, {n}, by = "{g.one_of("mul", "max", "min")}")', shape, [x])
        g.let(f"where(isfinite({y.name}), {y.name}, 0.5)", shape, [x])


def take(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: known(v, 1))
    if known(x, 1):
        axis = axis_of(g, x)
        shape = without(x.shape, axis)
        g.let(f"take({x.name}, {index_below(g, x.shape[axis], shape)}, axis = {axis})", shape, [x])


def solved(g: Generator) -> None:
    x = g.pick(low=2, wanted=lambda v: v.rank == 2 and known(v, 1) and v.shape[0] == v.shape[1])
    n = x.shape[0]
    if x.rank == 2 and isinstance(n, int) and x.shape == (n, n) and 0 < n <= 8:
        y = g.like(x.shape)
        form = g.one_of("solve(0.1 * tanh({x}) + eye({n}), {y})", "cholesky(0.1 * {y} @ {y}.T + eye({n})) + {x}")
        g.let(form.format(x=x.name, y=f"tanh({y.name})", n=n), x.shape, [x, y])


def one_hot(g: Generator) -> None:
    k = g.pick(dtype="i32", wanted=lambda v: v.rank < 3)
    n = g.one_of(1, 2, 3, 16)
    shape = (*k.shape, n)
    if g.fits(shape):
        w = g.like(shape)
        g.let(f"one_hot({k.name}, {n}) * {w.name}", shape, [w])


def counted(g: Generator) -> None:
    x = g.pick(low=1)
    axis = axis_of(g, x)
    n = x.shape[axis]
    count = f"cast(iota({n}), f32)"
    for k in range(x.rank - 1):
        count = f"expand({count}, {0 if k < axis else k + 1})"
    g.let(f"{x.name} * {count} * 0.2", x.shape, [x])


def constant(g: Generator) -> None:
    """A tensor whose numbers stand in the program; eighths, which every float holds."""
    shape = tuple(n for n in g.shape(1, 3) if isinstance(n, int) and n > 0) or (3,)
    if g.fits(shape) and prod(shape) <= 100:
        dtype = g.one_of("f32", "f32", "f32", "i32")
        numbers = [g.rng.randint(-16, 16) / (8 if dtype == "f32" else 1) for _ in range(prod(shape))]
        name = g.name("c")
        listed = np.array(numbers, float if dtype == "f32" else int).reshape(shape).tolist()
        g.constants.append(f"const {name}: {dtype}{text_of(shape)} = {listed}")
        g.scope.pool.append(Value(name, dtype, shape))


# --- images ----------------------------------------------------------------------------------------------------------


def _image(g: Generator) -> Value:
    """A value [B, C, *space] of one or two axes of space."""
    space = [g.one_of(1, 2, 3, 4, 5, 7, 8, 16, 17) for _ in range(g.one_of(1, 2, 2))]
    fit = [v for v in g.scope.pool if v.real and v.rank in (3, 4) and known(v, 1)]
    if fit and g.chance(0.6):
        return g.rng.choice(fit)
    return g.given((g.one_of(1, 2, 3, *(d for d in g.palette if d != 0)), g.one_of(1, 2, 3, 4), *space))


def _along(n: int, kernel: int, stride: int, dilation: int, pad: object, ceil: bool = False) -> tuple[int, bool]:
    """How many windows fit, and whether it is allowed."""
    span = (kernel - 1) * dilation + 1
    if pad == "same":
        lacking = span - 1 - (n - 1) % stride
        return -(-n // stride), lacking >= 0 or span >= stride
    sides = (pad, pad) if isinstance(pad, int) else (0, 0)
    room = n + sum(sides) - span
    return room // stride + 1, room >= 0


def convolution(g: Generator) -> None:
    x = _image(g)
    n = x.rank - 2
    groups = g.one_of(1, 1, 1, x.shape[1])
    filters = groups * g.one_of(1, 2, 3)
    kernel = [g.one_of(1, 2, 3, 5) for _ in range(n)]
    stride, dilation, pad_ = g.one_of(1, 1, 2, 3), g.one_of(1, 1, 2), g.one_of(0, 0, 1, 2, "same", "valid")
    counts = [_along(m, k, stride, dilation, pad_) for m, k in zip(x.shape[2:], kernel, strict=True)]
    if not all(ok for _, ok in counts):
        return
    w = g.like((filters, x.shape[1] // groups, *kernel))
    padding = f'"{pad_}"' if isinstance(pad_, str) else pad_
    shape = (x.shape[0], filters, *(m for m, _ in counts))
    if g.fits(shape):
        g.let(f"slide({x.name}, {w.name}, {stride}, {padding}, {dilation}, {groups}, false)", shape, [x, w])


def pooling(g: Generator) -> None:
    x = _image(g)
    kernel, stride, dilation = g.one_of(1, 2, 2, 3), g.one_of(1, 2, 2, 3), g.one_of(1, 1, 1, 2)
    pad_ = g.one_of(0, 0, 1, "same", "valid")
    largest = g.chance(0.5)
    counts = [_along(m, kernel, stride, dilation if largest else 1, pad_) for m in x.shape[2:]]
    span = (kernel - 1) * dilation + 1 if largest else kernel
    if not all(ok for _, ok in counts) or (isinstance(pad_, int) and pad_ >= span):
        return
    if largest and dilation > 1 and pad_ not in (0, "valid") and min(x.shape[2:]) < span:
        return  # a window of padding alone is -inf
    padding = f'"{pad_}"' if isinstance(pad_, str) else pad_
    shape = (*x.shape[:2], *(m for m, _ in counts))
    more = g.one_of("", ", count_pad = true") if not largest else f", dilation = {dilation}"
    g.let(f"{'max' if largest else 'avg'}_pool({x.name}, {kernel}, {stride}, {padding}{more})", shape, [x])


def adaptive(g: Generator) -> None:
    x = _image(g)
    sizes = [g.one_of(1, 2, 3, 5) for _ in x.shape[2:]]
    shape = (*x.shape[:2], *sizes)
    if g.fits(shape):
        g.let(f"{g.one_of('adaptive_max_pool', 'adaptive_avg_pool')}({x.name}, {sizes})", shape, [x])


def extended(g: Generator) -> None:
    x = g.pick(low=1, wanted=lambda v: known(v, 1))
    if not known(x, 1):
        return
    by = g.one_of("reflect", "replicate", "circular")
    most = [n - 1 if by == "reflect" else n if by == "circular" else 3 for n in x.shape]
    sides = [[g.rng.randint(0, min(m, 2)), g.rng.randint(0, min(m, 2))] for m in most]
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, sides, strict=True))
    if g.fits(shape):
        g.let(f'extend({x.name}, {sides}, "{by}")', shape, [x])


# --- sizes that run time must find equal ------------------------------------------------------------------------------


def named(v: Value) -> list[int]:
    """The axes whose size is a name."""
    return [k for k, n in enumerate(v.shape) if isinstance(n, str) and n.isidentifier()]


def with_names(g: Generator) -> list[Value]:
    return [v for v in g.scope.pool if v.real and named(v)]


def met_under_another_name(g: Generator) -> None:
    """Two values whose sizes have different names meet; the program is right where they are equal."""
    found = [v for v in with_names(g) if all(isinstance(n, int) or n.isidentifier() for n in v.shape)]
    if not found:
        return
    x = g.rng.choice(found)
    axis = g.rng.choice(named(x))
    y = g.like(replaced(x.shape, axis, g.one_of("P", "Q")))
    form = g.one_of("{x} * {y}", "{y} - {x}", "where({x} > {y}, {x}, {y})", "stack([{x}, {y}], axis = 0)",
                    "stack([{y}, {x}], axis = 0)", "concat([{x}, {y}], axis = {k})",
                    "{x} + broadcast({y}, {s})")  # fmt: skip
    others = [k for k in range(x.rank) if k != axis]
    if form.startswith("concat") and not others:
        return
    k = g.rng.choice(others) if form.startswith("concat") else 0
    shape: Shape = with_axis(x.shape, 0, 2) if form.startswith("stack") else x.shape
    if form.startswith("concat"):
        n = x.shape[k]
        shape = replaced(x.shape, k, 2 * n if isinstance(n, int) else computed(f"2 * {n}"))
    if g.fits(shape):
        g.let(form.format(x=x.name, y=y.name, k=k, s=text_of(x.shape)), shape, [x, y])


def halves(g: Generator) -> None:
    """What is right where a size divides: said by `require`, or by the operator itself."""
    found = with_names(g)
    if not found:
        return
    x = g.rng.choice(found)
    axis, f = g.rng.choice(named(x)), g.one_of(2, 2, 2, 3, 4)
    n, at = x.shape[axis], [":"] * axis
    if g.chance(0.5):
        g.write(g.one_of(f'require({n} % {f} == 0, "no")', f'require({n} % {f} == 0 and not ({n} > 99), "no")'))
    parts = (*x.shape[:axis], computed(f"{n} // {f}"), f, *x.shape[axis + 1 :])
    cut = f"{x.name}[{', '.join([*at, f'0:{f} * ({n} // {f})'])}]"
    if g.chance(0.4):
        g.let(f"{cut} {g.one_of('+', '*')} {x.name}", x.shape, [x])
    elif g.chance(0.5) and g.fits(parts):
        g.let(f"reshape({x.name}, {text_of(parts)})", parts, [x])
    else:
        shape = replaced(x.shape, axis, computed(f"{n} // {f}"))
        g.let(f"split({x.name}, {f}, axis = {axis})[{g.rng.randrange(f)}]", shape, [x])


def multiple(g: Generator) -> None:
    """An argument whose size is a multiple of a name, and one that says the name."""
    f, more = g.one_of(2, 3, 4), g.one_of(0, 0, 1)
    size = computed(f"{f} * P + {more}" if more else f"{f} * P")
    x, y = Value(g.name("x"), "f32", (size, *g.shape(0, 1))), g.like(("P",))
    g.inputs.append(x)
    rest = text_of(("P", f, *x.shape[1:]))
    beside = f"reshape({y.name}, {text_of(('P', *[1] * x.rank))})"
    g.let(f"reshape({x.name}[{more}:], {rest}) {g.one_of('*', '+')} {beside}", ("P", f, *x.shape[1:]), [x, y])


# --- random draws ----------------------------------------------------------------------------------------------------


def draw(g: Generator) -> None:
    x = g.pick()
    form = g.one_of(
        "uniform(-1, 1, shape = shape({x})) * {x}",
        "where(bernoulli(0.6, shape = shape({x})), {x} * 2, 0)",
        "{x} + 0.1 * normal(shape = shape({x}))",
        "where(uniform(shape = shape({x})) < 0.5, 0, {x})",
    )
    g.let(form.format(x=x.name), x.shape, [x])


PRODUCTIONS: dict[Callable[[Generator], None], float] = {
    smooth: 3, broken: 2, careful: 3, steps: 0.7, binary: 5, function_of_two: 2, with_number: 2, lower_rank: 2,
    choose: 2, untaken: 1.5, chain: 1.2, condition: 1, logic: 0.7, mask: 1, whole_arithmetic: 1, divide: 2,
    whole_reduction: 0.5, widen: 1, convert: 0.5, reduction: 5, reduction_of_all: 1, normalised: 2, ordered: 0.5,
    positions: 0.7, question: 0.4, turned_around_a_reduction: 2.5, transpose: 4, turned_and_met: 2, expand: 3,
    squeeze: 1, reshape: 2, reshape_of_a_transpose: 1.5, flip: 1, slice_: 2, pad: 1.2, concat: 1.5, stack: 1, split:
    1, product: 3, product_turned: 1.5, notation: 3, diagonal: 0.7, windows: 1.2, gather: 1, scatter: 1, take: 0.7,
    one_hot: 0.7, indexed: 0.7, convolution: 1, pooling: 1, draw: 0.7, joined: 2, shifted: 1.5, lengthened: 1,
    quotients: 0.7, convolved: 0.3, counted: 0.5, whole_notation: 0.5, windows_of_any_size: 0.5, constant: 1,
    adaptive: 0.4, extended: 0.5, met_under_another_name: 4, halves: 3, multiple: 0.5, solved: 0.3,
}  # fmt: skip

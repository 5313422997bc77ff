"""Productions that make blocks: loops with checkpoints, derivatives; and programs that train."""

from __future__ import annotations

import random
from collections.abc import Callable

from .generator import Dim, Generator, Scope, Value, computed, elements, text_of
from .productions import PRODUCTIONS
from .program import Program

INSIDE = {p: w for p, w in PRODUCTIONS.items() if p.__name__ not in ("convolution", "ordered", "scatter")}


def turns_over(g: Generator, x: Value, t: str) -> tuple[str, str, Dim]:
    """What each turn reads of x, the range of the index, and how many turns that is."""
    n = x.shape[0]
    whole = isinstance(n, int)
    less = n - 1 if whole else computed(f"{n} - 1")
    ways = [(f"{x.name}[{t}]", f"0..{n}", n)] * 5
    ways += [(f"{x.name}[{n} - 1 - {t}]", f"0..{n}", n)]
    seen = f"{x.name}[:{t} + 1]"  # whose size depends on the turn
    forms = (f"mean({seen}, axis = 0)", f"max({seen}, axis = 0)", f"sum(tanh({seen}) * sigmoid({seen}), axis = 0)",
             f"sum(softmax({seen}, axis = 0) * {seen}, axis = 0)", f"cumsum({seen}, axis = 0)[{t}]",
             f"sum({x.name}[{t}:]^2, axis = 0)")  # fmt: skip
    if x.real:
        ways += [(g.one_of(*forms), f"0..{n}", n)] * 3
        ways += [(f"({seen}.T @ {seen})[0]", f"0..{n}", n)] * (x.rank == 2)
    if not whole or n > 0:
        ways += [(f"{x.name}[{t}]", f"1..{n}", less), (f"{x.name}[{t}] - {x.name}[{t} - 1]", f"1..{n}", less),
                 (f"mean({x.name}[{t}:{t} + 2], axis = 0)", f"0..{less}", less)]  # fmt: skip
        ways += [(f"{x.name}[{t} + 1] * {t}", f"0..{less}", less)]
    if whole and n > 0:
        k = g.like((n,), "i32")
        ways += [(f"{x.name}[2 * {t}]", f"0..{n // 2}", n // 2), (f"{x.name}[{k.name}[{t}] % {n}]", f"0..{n}", n)]
    return g.rng.choice(ways)


def scan(g: Generator) -> None:
    """Carries one or two values over the rows of a value; checkpoints around, inside and behind."""
    if g.scope.depth >= 2:
        return
    x = g.pick(low=1, wanted=lambda v: elements(v.shape[:1]) <= (17 if g.scope.depth else 70))
    first = g.like(x.shape[1:]) if g.chance(0.6) else g.pick(wanted=lambda v: v.rank < 3)
    carried = [g.let(g.one_of("{}", "{} * 0", "tanh({})").format(first.name), first.shape, [first])]
    if g.chance(0.3):
        carried.append(g.let("0.5 * " + first.name, first.shape, [first]))
    if g.chance(0.15):
        k = g.pick(dtype="i32")
        carried.append(g.let(f"{k.name} % 5", k.shape, [], "i32"))
    t = g.name("t")
    row, over, count = turns_over(g, x, t)
    needs, collected = _body(g, x, carried, t, row, over)
    for s in carried:
        g.scope.pool.remove(s)
        g.add(Value(s.name, s.dtype, s.shape, needs if s.real else frozenset()))
    shape = (count, *collected.shape)
    all_turns = g.add(Value(collected.name, collected.dtype, shape, needs if collected.real else frozenset()))
    if g.chance(0.25):
        behind = g.rng.choice([carried[0], all_turns] if all_turns.real else carried[:1])
        form = g.one_of("checkpoint({})", "checkpoint({} * 2)", "checkpoint(sin({}))")
        g.let(form.format(behind.name), behind.shape, [Value(behind.name, "f32", behind.shape, needs)])


def _body(g: Generator, x: Value, carried: list[Value], t: str, row: str, over: str) -> tuple[frozenset[str], Value]:
    """The loop: through what a gradient could reach its results, and what one turn collects."""
    outside = g.scope
    g.write(f"scan {t} in {over} {{")
    g.scope = Scope(outside.lines, list(outside.pool), {s.name for s in carried}, outside.depth + 1)
    at_turn = g.let(row, x.shape[1:], [x])
    few = g.rng.sample(list(INSIDE), 8)
    for _ in range(g.one_of(0, 1, 1, 2, 3)):
        if g.scope.depth < 2 and g.chance(0.15):
            scan(g)
        elif g.chance(0.1):
            derivative(g)
        else:
            g.rng.choices(few, [INSIDE[p] for p in few])[0](g)
    needs = at_turn.needs
    for s in carried:
        new = g.like(s.shape, s.dtype, anew=0.05)
        form = g.one_of(
            "tanh(0.5 * {s} + {v})",
            "0.5 * {s} + {v}",
            "{s} * 0.9 + sin({v})",
            "tanh({v} * {s})",
            "checkpoint(tanh({s} + {v}))",
            "where({v} > {s}, {s} * 0.5, {v} + 0.1)",
            "maximum({s}, {v})",
        )
        if not s.real:
            form = g.one_of("{s} + {v}", "maximum({s}, {v})", "{s} * 3 % 7 - {v}")
        g.write(f"{s.name} = {form.format(s=s.name, v=new.name)}")
        needs |= s.needs | new.needs | ({new.name} if new.real else set())
    last = [v for v in g.scope.pool[-3:] if v.name in g.scope.local]
    shown = g.rng.choice([*carried, at_turn, *last])
    name = g.name("y")
    forms = ("{}", "{0} + 0.5", "{0} * {0}") if shown.real else ("{}",)
    g.write(f"{name}[{t}] = {g.one_of(*forms).format(shown.name)}")
    needs |= shown.needs | ({shown.name} if shown.real else set())
    inner, g.scope = g.scope, outside
    g.write("}")
    g.scope.pool += [v for v in inner.pool if v in g.inputs and v not in g.scope.pool]
    return needs, Value(name, shown.dtype, shown.shape)


def derivative(g: Generator) -> None:
    """The gradient of a sum with respect to something in the same block that it was made of."""
    inputs = {v.name: v for v in g.inputs} if g.scope.depth == 0 else {}
    here = {v.name: v for v in g.scope.pool if v.name in g.scope.local and v.real} | inputs
    made = [v for v in here.values() if v.needs & here.keys()]
    if not made:
        return
    y = g.rng.choice(made[-5:])
    x = here[g.rng.choice(sorted(y.needs & here.keys()))]
    if x.dtype != "f32":
        return
    form = g.one_of("sum({y})", "sum(sin({y}))", "sum({y}^2)", "sum({y} * {w})", "sum(tanh(checkpoint({y} * 2)))")
    w = g.like(y.shape)
    dx = g.let(f"grad({form.format(y=y.name, w=w.name)}, {x.name})", x.shape, [y, w, x])
    if g.chance(0.15):
        g.let(f"grad(sum({dx.name}^2), {x.name})", x.shape, [dx, x])


def derivatives(g: Generator) -> None:
    """The gradients of one sum with respect to several arguments at once."""
    if g.scope.depth:
        return
    inputs = {v.name: v for v in g.inputs if v.real}
    made = [v for v in g.scope.pool if v.real and len(v.needs & inputs.keys()) > 1]
    if not made:
        return
    y = g.rng.choice(made[-5:])
    xs = [inputs[k] for k in sorted(y.needs & inputs.keys())][:3]
    names = [g.name() for _ in xs]
    g.write(f"({', '.join(names)}) = grad(sum({y.name}^2), [{', '.join(x.name for x in xs)}])")
    for name, x in zip(names, xs, strict=True):
        g.add(Value(name, "f32", x.shape, y.needs | {y.name}))


def recomputed(g: Generator) -> None:
    x = g.pick()
    form = g.one_of("checkpoint({})", "checkpoint(tanh({}) * 1.5)", "checkpoint({0} * {0})")
    g.let(form.format(x.name), x.shape, [x])


def until(g: Generator) -> None:
    """A loop that values end has no derivative."""
    x = g.pick()
    s, n = g.name(), g.name()
    g.write(f"{s} = stop_grad(floor({x.name} * 2.3))")
    g.write(f"{n} = 0")
    t = g.name("t")
    g.write(f"scan {t} in 0..{g.one_of(1, 3, 9)} until sum(abs({s})) < 2.0 {{")
    g.write(f"    {s} = 0.6 * {s} + 0.1")
    g.write(f"    {n} = {n} + 1")
    g.write("}")
    g.add(Value(s, "f32", x.shape))
    g.add(Value(n, "i32", ()))


BLOCKS: dict[Callable[[Generator], None], float] = {scan: 5, derivative: 2.5, derivatives: 1, recomputed: 1, until: 0.3}


# --- programs that remember, and programs that train ------------------------------------------------------------------


def states(g: Generator) -> bool:
    """A few states, of sizes that are known when the model is made."""
    sizes = [n for n in g.palette if isinstance(n, int)]
    if not sizes:
        return False
    for k in range(g.one_of(1, 2, 2, 3)):
        shape = tuple(g.rng.choice(sizes) for _ in range(g.rng.randint(0, 2)))
        g.write(f"state s{k + 1}: f32{text_of(shape) if shape else ''} = 0")
        g.scope.pool.append(Value(f"s{k + 1}", "f32", shape))
    return True


IMAGE_LAYERS = ("Conv(3, 3, pad = 1)", "Conv(2, 2, stride = 2)", "BatchNorm", "relu", "InstanceNorm",
                "GroupNorm(1)", 'Conv(4, 3, pad = "same")', "max_pool(2, 1)", "avg_pool(2, 1)", "DepthwiseConv(1)",
                "spatial_dropout(0.3)", "ConvTranspose(2, 2)", "local_response_norm(3)", "tanh")  # fmt: skip
ROW_LAYERS = ("Dense(4)", "Dense(3, bias = false)", "relu", "tanh", "dropout(0.3)", "LayerNorm", "RmsNorm", "gelu",
              "softmax", "Dense(17)", "leaky_relu", "checkpoint", "elu")  # fmt: skip
SERIES_LAYERS = ("Rnn(3)", "Lstm(2)", "Gru(3)", "Dense(4)", "LayerNorm", "Attention(1)", "tanh", "checkpoint",
                 "TransformerBlock(1, causal = true)", "Lstm(4)", "Positions(20)", "dropout(0.2)")  # fmt: skip
OPTIMIZERS = ("SGD(lr = 0.1)", "Adam(lr = 0.01)", "Momentum(0.1)", "RMSProp(0.01)", "AdamW(0.01)", "Lion(0.01)",
              "AdaGrad(0.1)", "AdaDelta()", "Velocity(0.1, nesterov = true)")  # fmt: skip


PARTS = {
    "[B, 3]": ("Dense(4)", "Dense(3)", "LayerNorm", "RmsNorm", "Dense(2, bias = false)"),
    "[B, T, 3]": ("Rnn(3)", "Gru(2)", "Dense(3)", "LayerNorm", "Attention(1)"),
    "[B, 2, 5, 5]": ("Conv(3, 3, pad = 1)", "BatchNorm", "Conv(2, 2)", "GroupNorm(1)"),
}  # of a shape
LOSSES = ("mean(sin(y))", "mean(y^2) * w", "mean(tanh(y) * w) + 0.1 * l2(weights(M.a))", "mean(M.c(M.b(p)) * w)",
          "mean(M.a(x * 0.5)^2)", "mean(sin(p)) + mean(M.a(cos(x))) * w", "mean((q - stop_grad(sin(q)))^2)",
          "mean(cos(M.b(stop_grad(p))))")  # fmt: skip


def parted_program(rng: random.Random, seed: int) -> Program:
    """A model of named parts, which are called alone, and of which groups are trained, held and assigned."""
    shape, layers = rng.choice(list(PARTS.items()))
    a, b, c = (rng.choice(layers) for _ in range(3))
    kept = rng.choice(("q", "tanh(q)", "dropout(q, 0.3)"))

    def model(name: str) -> list[str]:
        return [f"model {name}(x: f32{shape}) -> (p: f32[B, *i], q: f32[B, *j], y: f32[B, *k]) {{",
                f"    p = x |> a: {a}", f"    q = p |> b: {b}", f"    y = {kept} |> c: {c}", "}"]  # fmt: skip

    groups = ["params(M.a)", "params(M.b)", "params(M.c)"]
    if rng.random() < 0.3:
        groups = rng.choice((["params([M.a, M.c])", "params(M.b)"], ["weights(M.a)", "biases(M)"], ["params(M)"]))
    train = _losses(rng, groups)
    text = model("M")
    if rng.random() < 0.4:
        text += model("Slow")
        group = rng.choice(("params({0})", "weights({0}.a)", "params([{0}.b, {0}.c])"))
        form = rng.choice(("{0} := 0.75 * {0} + 0.25 * {1}", "{0} := {0} - 0.5 * ({0} - {1})", "{0} := {1}"))
        train.append(form.format(group.format("Slow"), group.format("M")))
    text += ["train M(x, w: f32) {", *(f"    {line}" for line in train), "}", ""]
    sizes = tuple({"B": n, "T": t} for n, t in ((3, 3), (rng.choice((1, 2, 5, 16)), rng.choice((1, 2, 5, 17)))))
    return Program("\n".join(text), sizes, seed=seed)


def _losses(rng: random.Random, groups: list[str]) -> list[str]:
    """Lines that say what is made small: one loss, or several, each over some of the groups; some may be left out."""
    if rng.random() < 0.25:
        held = [f"freeze = {rng.choice(groups)}"] if len(groups) > 1 else []
        return [f"loss = {rng.choice(LOSSES)}", f"optimizer = {rng.choice(OPTIMIZERS)}", *held]
    lines: list[str] = []
    while groups and (not lines or rng.random() < 0.8):
        one, groups = (groups, []) if rng.random() < 0.4 else (groups[:1], groups[1:])
        over = ", ".join(f"{g} with {rng.choice((*OPTIMIZERS, 'SGD(0.1)', 'SGD(0.5)'))}" for g in one)
        lines.append(f"minimize loss{len(lines)} = {rng.choice(LOSSES)} over {over}")
    return lines


def training_program(rng: random.Random, seed: int) -> Program:
    """A model with parameters and states, and a step of its training."""
    if rng.random() < 0.35:
        return parted_program(rng, seed)
    kind = rng.choice(("rows", "series", "images"))
    shape, layers = {
        "rows": ("[B, 3]", ROW_LAYERS), "series": (rng.choice(("[B, T, 3]", "[B, 3, 3]", "[B, 4, 2]")), SERIES_LAYERS),
        "images": (rng.choice(("[B, 2, 6, 6]", "[B, 1, 5, 4]", "[B, 2, 8]")), IMAGE_LAYERS),
    }[kind]  # fmt: skip
    chosen = [rng.choice(layers) for _ in range(rng.randint(1, 4))]
    state = rng.random() < 0.3
    lines = [f"model M(x: f32{shape}) -> (y: f32[B, *out]) {{", f"    h = {' |> '.join(['x', *chosen])}"]
    if state:
        lines += ["    state seen: f32 = 0", "    seen := 0.9 * seen + mean(h)", "    h = h * (1 + seen)"]
    lines += ["    y = h", "}", "train M(x, w: f32) {"]
    lines += [f"    loss = {rng.choice(('mean(y^2) + w', 'mean(sin(y)) * w', 'mean(y^2) + 1e-3 * l2(weights)'))}"]
    lines += [f"    optimizer = {rng.choice(OPTIMIZERS)}"]
    if rng.random() < 0.2:
        lines.append("    clip = global_norm(1.0)")
    if rng.random() < 0.2:
        lines.append("    average = ema(0.9)")
    lines += ["}", ""]
    sizes = tuple({"B": b, "T": t} for b, t in ((3, 3), (rng.choice((1, 2, 5, 16)), rng.choice((1, 2, 5, 17)))))
    return Program("\n".join(lines), sizes, seed=seed)

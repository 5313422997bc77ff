"""Productions that make blocks: loops with checkpoints, derivatives; and programs that train."""

from __future__ import annotations

import random
from collections.abc import Callable

from .generator import Dim, Generator, Scope, Value, text_of
from .productions import PRODUCTIONS
from .program import Program

INSIDE = {p: w for p, w in PRODUCTIONS.items() if p.__name__ not in ("convolution", "ordered", "scatter")}


def scan(g: Generator) -> None:
    """Carries one or two values over the rows of a value; checkpoints around, inside and behind."""
    if g.scope.depth >= 2:
        return
    x = g.pick(low=1)
    turns: Dim = x.shape[0]
    first = g.like(x.shape[1:]) if g.chance(0.6) else g.pick(wanted=lambda v: v.rank < 3)
    carried = [g.let(g.one_of("{}", "{} * 0", "tanh({})").format(first.name), first.shape, [first])]
    if g.chance(0.3):
        carried.append(g.let("0.5 * " + first.name, first.shape, [first]))
    t, start = g.name("t"), g.one_of(0, 0, 0, 1) if isinstance(turns, int) and turns > 0 else 0
    collected = _body(g, x, carried, t, f"{start}..{turns}", turns)
    for s in carried:
        g.scope.pool.remove(s)
        g.add(Value(s.name, "f32", s.shape, s.needs | x.needs | {x.name} | collected.needs | {collected.name}))
    count = turns - start if isinstance(turns, int) else turns
    if isinstance(count, int) or start == 0:
        g.add(Value(collected.name, "f32", (count, *collected.shape), collected.needs))
    if g.chance(0.25):
        behind = g.rng.choice([carried[0], Value(collected.name, "f32", (count, *collected.shape))])
        g.let(g.one_of("checkpoint({})", "checkpoint({} * 2)", "checkpoint(sin({}))").format(behind.name), behind.shape,
              [behind, *[v for v in g.scope.pool if v.name == behind.name]])


def _body(g: Generator, x: Value, carried: list[Value], t: str, over: str, turns: Dim) -> Value:
    """The loop; what it collects, with all that the turns need."""
    outside = g.scope
    g.write(f"scan {t} in {over} {{")
    row = f"{x.name}[{t}]"
    if g.chance(0.2) and over.startswith("0.."):
        row = f"{x.name}[{turns} - 1 - {t}]"
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
    results = []
    for s in carried:
        new = g.like(s.shape, anew=0.05)
        form = g.one_of("tanh(0.5 * {s} + {v})", "0.5 * {s} + {v}", "{s} * 0.9 + sin({v})", "tanh({v} * {s})",
                        "checkpoint(tanh({s} + {v}))", "where({v} > {s}, {s} * 0.5, {v} + 0.1)", "maximum({s}, {v})")
        g.write(f"{s.name} = {form.format(s=s.name, v=new.name)}")
        results.append(Value(s.name, "f32", s.shape, new.needs | {new.name}))
    shown = g.rng.choice([*results, at_turn, *(v for v in g.scope.pool[-3:] if v.real and v.name in g.scope.local)])
    name = g.name("y")
    g.write(f"{name}[{t}] = {g.one_of('{}', '{} + 0.5', '{} * {}').format(shown.name, shown.name)}")
    needs = frozenset().union(*(r.needs for r in results), shown.needs, {shown.name, x.name}, x.needs)
    inner = g.scope
    g.scope = outside
    g.write("}")
    g.scope.pool += [v for v in inner.pool if v in g.inputs and v not in g.scope.pool]
    return Value(name, "f32", shown.shape, needs)


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
    g.write(f"{s} = stop_grad({x.name})")
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


def training_program(rng: random.Random, seed: int) -> Program:
    """A model with parameters and states, and a step of its training."""
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

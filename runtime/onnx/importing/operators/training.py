"""Steps of optimisers, which are operators of ONNX's preview of training: new parameters, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable

from ..node import Node, operator
from ..refusals import Refused
from ..values import Value, number

Step = Callable[[Node, Value, Value, list[Value]], list[Value]]


def _each(n: Node, memories: int, step: Step) -> list[Value]:
    """A step of each parameter; inputs are all parameters, all gradients, and all of what each memory holds."""
    count, left = divmod(len(n.inputs) - 2, memories + 2)
    if left or count < 1:
        raise Refused(f"its {len(n.inputs)} inputs are not {memories + 2} for each parameter")
    made = [
        step(n, n.input(0), n.input(1), [n.input(2 + i + k * count) for k in range(memories + 2)]) for i in range(count)
    ]
    return [results[k] for k in range(memories + 1) for results in made]


def _number(n: Node, name: str, default: float = 0.0) -> str:
    return number(n.attribute(name, default), "f32")


def _regularised(n: Node, x: Value, g: Value) -> Value:
    decay = n.attribute("norm_coefficient", 0.0)
    return n.emit(f"{number(decay, 'f32')} * {{0}} + {{1}}", x, g) if decay else g


@operator("ai.onnx.preview.training.Momentum")
def momentum(n: Node) -> list[Value]:
    """The gradient counts fully in step 0, and `beta` times after."""

    def step(n: Node, r: Value, t: Value, values: list[Value]) -> list[Value]:
        x, g, v = values
        g = _regularised(n, x, g)
        alpha = number(n.needed("alpha"), "f32")
        beta = number(n.needed("beta"), "f32")
        v = n.emit(f"{alpha} * {{0}} + where({{1}} > 0, {beta}, 1.0) * {{2}}", v, t, g)
        if n.needed("mode") == "nesterov":
            return [n.emit(f"{{0}} - {{1}} * ({{2}} + {alpha} * {{3}})", x, r, g, v), v]
        return [n.emit("{0} - {1} * {2}", x, r, v), v]

    return _each(n, 1, step)


@operator("ai.onnx.preview.training.Adagrad")
def adagrad(n: Node) -> list[Value]:
    def step(n: Node, r: Value, t: Value, values: list[Value]) -> list[Value]:
        x, g, h = values
        g = _regularised(n, x, g)
        h = n.emit("{0} + {1} * {1}", h, g)
        rate = n.emit(f"{{0}} / (1 + cast({{1}}, f32) * {_number(n, 'decay_factor')})", r, t)
        return [n.emit(f"{{0}} - {{1}} * {{2}} / (sqrt({{3}}) + {_number(n, 'epsilon', 1e-6)})", x, rate, g, h), h]

    return _each(n, 1, step)


@operator("ai.onnx.preview.training.Adam")
def adam(n: Node) -> list[Value]:
    """The averages are corrected from step 1 on; in step 0 they are taken as they are."""

    def step(n: Node, r: Value, t: Value, values: list[Value]) -> list[Value]:
        x, g, v, h = values
        g = _regularised(n, x, g)
        alpha, beta = n.attribute("alpha", 0.9), n.attribute("beta", 0.999)
        a, b = number(alpha, "f32"), number(beta, "f32")
        v = n.emit(f"{a} * {{0}} + {number(1 - alpha, 'f32')} * {{1}}", v, g)
        h = n.emit(f"{b} * {{0}} + {number(1 - beta, 'f32')} * {{1}} * {{1}}", h, g)
        corrected = f"{{0}} * sqrt(1 - {b}^cast({{1}}, f32)) / (1 - {a}^cast({{1}}, f32))"
        rate = n.emit(f"where({{1}} > 0, {corrected}, {{0}})", r, t)
        y = n.emit(f"{{0}} - {{1}} * {{2}} / (sqrt({{3}}) + {_number(n, 'epsilon', 1e-6)})", x, rate, v, h)
        after = n.attribute("norm_coefficient_post", 0.0)
        return [n.emit(f"{number(1 - after, 'f32')} * {{0}}", y) if after else y, v, h]

    return _each(n, 2, step)

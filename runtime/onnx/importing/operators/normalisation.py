"""Normalisation: layers of the library where what they learn is known, and their formulas where it is computed."""

from __future__ import annotations

from ..node import Node, operator
from ..refusals import Refused
from ..values import Value, number
from .products import is_weight

_NORMALISED = "({0} - {1}) / sqrt({2} + EPS) * {3} + {4}"


def _eps(n: Node, name: str = "epsilon") -> str:
    return number(n.attribute(name, 1e-5), "f32")


def _call(layer: str, eps: str, *more: str) -> str:
    arguments = [*more, *([] if eps in ("1e-05", "1e-5") else [f"eps = {eps}"])]
    return f"{layer}({', '.join(arguments)})" if arguments else layer


def per_channel(n: Node, v: Value) -> Value:
    """A vector with a number for each channel, which is axis 1 of x."""
    return n.reshaped(n.text.placed(v), [1, v.shape[0], *[1] * (n.x.rank - 2)]) if n.x.rank > 2 else v


@operator("BatchNormalization")
def batch_norm(n: Node) -> Value | list[Value]:
    x, learned = n.x, [n.input(k) for k in range(1, 5)]
    if n.attribute("training_mode", 0):
        return _batch_norm_in_training(n)
    if n.version < 9 and not n.attribute("spatial", 1):
        raise Refused("statistics for each element, `spatial = 0`, are not supported")
    if all(is_weight(v) for v in learned) and x.rank > 1:
        names = ("gamma", "beta", "running_mean", "running_var")
        arrays = {name: v.known for name, v in zip(names, learned, strict=True) if v.known is not None}
        momentum = n.attribute("momentum", 0.9)
        more = [] if abs(momentum - 0.9) < 1e-6 else [f"momentum = {number(round(1 - momentum, 6), 'f32')}"]
        return n.text.layer(x, n.label(learned[0]), _call("BatchNorm", _eps(n), *more), arrays)
    gamma, beta, mean, variance = (per_channel(n, v) for v in learned)
    return n.emit(_NORMALISED.replace("EPS", _eps(n)), x, mean, variance, gamma, beta)


def _batch_norm_in_training(n: Node) -> list[Value]:
    """Normalised by the batch; the running averages are results."""
    x, axes = n.x, [0, *range(2, n.x.rank)]
    momentum = n.attribute("momentum", 0.9)
    mean = n.emit(f"mean({{0}}, axis = {axes})", x)
    variance = n.emit(f"variance({{0}}, axis = {axes})", x)
    gamma, beta, mu, var = (per_channel(n, v) for v in (n.input(1), n.input(2), mean, variance))
    y = n.emit(_NORMALISED.replace("EPS", _eps(n)), x, mu, var, gamma, beta)
    old, new = number(momentum, "f32"), number(1 - momentum, "f32")
    running = [n.emit(f"{old} * {{0}} + {new} * {{1}}", n.input(k), v) for k, v in ((3, mean), (4, variance))]
    return [y, *running]


@operator("InstanceNormalization")
def instance_norm(n: Node) -> Value:
    x, gamma, beta = n.x, n.input(1), n.input(2)
    if is_weight(gamma) and is_weight(beta) and gamma.known is not None and beta.known is not None:
        arrays = {"gamma": gamma.known, "beta": beta.known}
        return n.text.layer(x, n.label(gamma), _call("InstanceNorm", _eps(n)), arrays)
    axes = list(range(2, x.rank))
    mu = n.emit(f"mean({{0}}, axis = {axes}, keep = true)", x)
    var = n.emit(f"variance({{0}}, axis = {axes}, keep = true)", x)
    gamma, beta = per_channel(n, gamma), per_channel(n, beta)
    return n.emit(_NORMALISED.replace("EPS", _eps(n)), x, mu, var, gamma, beta)


@operator("LayerNormalization")
def layer_norm(n: Node) -> Value | list[Value]:
    x, axis = n.x, n.axis(default=-1)
    gamma, beta = n.input(1), n.input(2) if n.has(2) else None
    alone = len([o for o in n.outputs if o]) == 1
    if (
        alone and axis == x.rank - 1 and is_weight(gamma) and gamma.known is not None and gamma.rank == 1
        and beta is not None and is_weight(beta) and beta.known is not None
    ):  # fmt: skip
        return n.text.layer(x, n.label(gamma), _call("LayerNorm", _eps(n)), {"gamma": gamma.known, "beta": beta.known})
    axes = list(range(axis, x.rank))
    mean = n.emit(f"mean({{0}}, axis = {axes}, keep = true)", x)
    centred = n.emit("{0} - {1}", x, mean)
    inverse = n.emit(f"rsqrt(mean({{0}} * {{0}}, axis = {axes}, keep = true) + {_eps(n)})", centred)
    y = n.emit("{0} * {1}", centred, inverse)
    y = n.emit("{0} * {1}", *n.meet(y, gamma))
    if beta is not None:
        y = n.emit("{0} + {1}", *n.meet(y, beta))
    return [y, mean, inverse][: max(len(n.outputs), 1)]


@operator("LRN")
def local_response(n: Node) -> Value:
    """x / (bias + alpha / size * the sum of squares over `size` channels around it)^beta."""
    size = int(n.needed("size"))
    alpha, beta = number(n.attribute("alpha", 1e-4), "f32"), number(n.attribute("beta", 0.75), "f32")
    bias = number(n.attribute("bias", 1.0), "f32")
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    channels = n.x.shape[1]
    wide = n.emit(f"pad({{0}} * {{0}}, [[0, 0], [{before}, {after}]{', [0, 0]' * (n.x.rank - 2)}])", n.x)
    (total,) = n.emit_whole(f"{{r0}}[b, c in 0..{channels}, *s] = sum[k in 0..{size}]({{0}}[b, c + k, *s])", wide)
    return n.emit(f"{{0}} / ({bias} + {alpha} / {size} * {{1}})^{beta}", n.x, total)


@operator("LpNormalization")
def unit_length(n: Node) -> Value:
    """Along an axis; of nothing but zeros 0."""
    axis = n.axis(default=-1)
    length = "norm({0}" if n.attribute("p", 2) == 2 else "sum(abs({0})"
    total = n.emit(f"{length}, axis = {axis}, keep = true)", n.x)
    return n.emit("{0} / where({1} == 0, 1, {1})", n.x, total)

"""JAX, compiled by XLA: a call, or a `scan` over the steps of an epoch.

Where there are convolutions the steps are a loop in Python, because XLA's are several times slower inside a scan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..rows import Array, Row

Params = dict[str, Any]
tree = jax.tree_util.tree_map
awaited: Any = jax.block_until_ready


class Layers:
    """The layers, of parameters that are traced; `moved` are the running averages after a step."""

    relu, tanh, exp = staticmethod(jax.nn.relu), staticmethod(jnp.tanh), staticmethod(jnp.exp)
    sigmoid = staticmethod(jax.nn.sigmoid)

    def __init__(self, p: Params, state: Params, training: bool) -> None:
        self.p, self.state, self.training, self.moved = p, state, training, dict(state)

    def gelu(self, x: Any) -> Any:
        return jax.nn.gelu(x, approximate=False)

    def dense(self, x: Any, path: str, units: int) -> Any:
        return x @ self.p[f"{path}.W"].T + self.p[f"{path}.b"]

    def conv(
        self, x: Any, path: str, filters: int, kernel: int, stride: int = 1, pad: int = 0, bias: bool = True
    ) -> Any:
        y = lax.conv_general_dilated(x, self.p[f"{path}.W"], (stride, stride), [(pad, pad)] * 2)
        return y + self.p[f"{path}.b"][:, None, None] if bias else y

    def norm(self, x: Any, path: str) -> Any:
        kept_mean, kept_var = f"{path}.running_mean", f"{path}.running_var"
        mean, var = self.state[kept_mean], self.state[kept_var]
        if self.training:
            mean, var, n = x.mean((0, 2, 3)), x.var((0, 2, 3)), x.size // x.shape[1]
            self.moved[kept_mean] = 0.9 * self.state[kept_mean] + 0.1 * mean
            self.moved[kept_var] = 0.9 * self.state[kept_var] + 0.1 * var * n / (n - 1)
        scale = self.p[f"{path}.gamma"] / jnp.sqrt(var + 1e-5)
        return (x - mean[:, None, None]) * scale[:, None, None] + self.p[f"{path}.beta"][:, None, None]

    def layer_norm(self, x: Any, path: str) -> Any:
        z = x - x.mean(-1, keepdims=True)
        scaled = z * lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.p[f"{path}.gamma"] + self.p[f"{path}.beta"]

    def max_pool(self, x: Any, size: int, stride: int, pad: int = 0) -> Any:
        margins = ((0, 0), (0, 0), (pad, pad), (pad, pad))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, size, size), (1, 1, stride, stride), margins)

    def mean_pool(self, x: Any) -> Any:
        return x.mean((2, 3))

    def flat(self, x: Any) -> Any:
        return x.reshape(x.shape[0], -1)

    def widened(self, x: Any) -> Any:
        c = x.shape[1] // 2
        return jnp.pad(x[:, :, ::2, ::2], ((0, 0), (c, c), (0, 0), (0, 0)))

    def lstm(self, x: Any, path: str, units: int) -> Any:
        w, u, b = (self.p[f"{path}.{name}"] for name in "WUb")

        def turn(carry: Any, z: Any) -> Any:
            s, c = carry
            i, f, g, o = jnp.split(z + s @ u.T, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            s = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (s, c), s

        zero = jnp.zeros((x.shape[0], units), jnp.float32)
        _, y = lax.scan(turn, (zero, zero), (x @ w.T + b).transpose(1, 0, 2))
        return y.transpose(1, 0, 2)

    def embedding(self, index: Any, path: str, n: int, width: int) -> Any:
        return self.p[f"{path}.W"][index]

    def positions(self, x: Any, path: str) -> Any:
        return x + self.p[f"{path}.W"]

    def attention(self, x: Any, path: str, heads: int) -> Any:
        b, t, d = x.shape
        q, k, v = (
            self.dense(x, f"{path}.{name}", d).reshape(b, t, heads, d // heads) for name in ("query", "key", "value")
        )
        score = jnp.einsum("bthc,bshc->bhts", q, k) / np.float32(np.sqrt(d // heads))
        weight = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((t, t), bool)), score, -jnp.inf))
        return self.dense(jnp.einsum("bhts,bshc->bthc", weight, v).reshape(b, t, d), f"{path}.result", d)

    def scores(self, x: Any, path: str) -> Any:
        return x @ self.p[f"{path}.W"].T


class Call:
    """Inference, or a loss and its gradient with respect to the input."""

    def __init__(self, row: Row, p: Params, state: Params, inputs: list[Any]) -> None:
        def forward(p: Params, state: Params, *inputs: Any) -> Any:
            return row.network(Layers(p, state, False), *inputs)

        def gradient(p: Params, state: Params, x: Any) -> Any:
            return jax.value_and_grad(lambda x: forward(p, state, x).sum())(x)

        self.f = jax.jit(gradient if row.differentiates else forward)
        self.operands = p, state, *inputs

    def run(self) -> Any:
        return awaited(self.f(*self.operands))

    def result(self, k: int) -> list[Array]:
        return [np.asarray(a) for a in jax.tree_util.tree_leaves(self.run())]


def _loss_of(row: Row) -> Any:
    def loss_of(p: Params, state: Params, x: Any, target: Any) -> Any:
        layers = Layers(p, state, True)
        y = row.network(layers, x)
        if row.loss == "squares":
            loss = jnp.mean((y - target) ** 2)
        else:
            loss = -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(y), target[..., None], -1))
        return loss, layers.moved

    return loss_of


def _step_of(row: Row) -> Any:
    """(parameters, running averages, moments, step), batch -> the same after the step, loss."""
    differentiated = jax.value_and_grad(_loss_of(row), has_aux=True)

    def step(carry: Any, batch: Any) -> Any:
        p, state, m, v, t = carry
        (loss, state), g = differentiated(p, state, *batch)
        if row.optimizer == "SGD":
            return (tree(lambda w, d: w - row.lr * d, p, g), state, m, v, t), loss
        t = t + 1
        m = tree(lambda a, d: 0.9 * a + 0.1 * d, m, g)
        v = tree(lambda a, d: 0.999 * a + 0.001 * d * d, v, g)
        rate = row.lr / (1 - 0.9**t)
        p = tree(lambda w, a, c: w - rate * a / (jnp.sqrt(c / (1 - 0.999**t)) + 1e-8), p, m, v)
        return (p, state, m, v, t), loss

    return step


class Training:
    def __init__(self, row: Row, p: Params, state: Params, arrays: list[Array]) -> None:
        self.epoch = [jnp.asarray(a.reshape(row.steps, -1, *a.shape[1:])) for a in arrays]
        self.scans, step = not row.convolves, _step_of(row)
        self.batches = [tuple(a[k : k + 1] if self.scans else a[k] for a in self.epoch) for k in range(row.steps)]
        epoch = (lambda carry, batches: lax.scan(step, carry, batches)) if self.scans else step
        self.f = jax.jit(epoch, donate_argnums=0)
        kept = {name: tree(jnp.zeros_like, p) if row.optimizer == "Adam" else {} for name in "mv"}
        self.carry: Any = (p, state, kept["m"], kept["v"], jnp.float32(0))

    def _advance(self, batches: Any) -> Any:
        self.carry, losses = self.f(self.carry, tuple(batches))
        return losses

    def run(self) -> Any:
        if self.scans:
            return awaited(self._advance(self.epoch))
        for batch in self.batches:
            loss = self._advance(batch)
        return awaited(loss)

    def result(self, k: int) -> list[Array]:
        return [np.asarray(self._advance(self.batches[k])).reshape(())]


def contender(
    who: str, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int, folder: Path
) -> Call | Training:
    p: Params = {}
    state: Params = {}
    for path in list(weights):
        (state if ".running_" in path else p)[path] = jnp.asarray(weights.pop(path))
    return Training(row, p, state, arrays) if row.trains else Call(row, p, state, [jnp.asarray(a) for a in arrays])

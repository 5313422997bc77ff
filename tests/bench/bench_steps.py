"""Training steps of dense networks beside PyTorch and JAX: `python tests/bench/bench_steps.py`.

Each contender trains the same network on the same data, whole epochs at a time, in the way that is fastest for it: nnc
inside `fit`'s native loop, JAX one jitted `lax.scan` over the steps, PyTorch a loop of compiled or eager steps. See
`race` for the rules.
"""

from __future__ import annotations

from race import Contender, arguments, race, torch_epoch  # first: it says how many threads there are

# ruff: isort: split
from dataclasses import dataclass

import numpy as np

import nnc


@dataclass(frozen=True)
class Net:
    name: str
    sizes: tuple[int, ...]
    activation: str  # tanh, relu
    optimizer: str  # sgd, adam
    lr: float
    batch: int
    steps: int

    @property
    def source(self) -> str:
        layers = "\n".join(f"    h = h |> Dense({n}) |> {self.activation}" for n in self.sizes[1:-1])
        rule = {"sgd": "SGD", "adam": "Adam"}[self.optimizer]
        return f"""
model Net(x: f32[B, {self.sizes[0]}]) -> (logits: f32[B, {self.sizes[-1]}]) {{
    h = x
{layers}
    logits = h |> Dense({self.sizes[-1]})
}}
train Net(x, label: i32[B]) {{
    loss = mean(cross_entropy(logits, label))
    optimizer = {rule}(lr = {self.lr})
    batch = {self.batch}
    shuffle = false
    epochs = 1
}}
"""


NETS = (
    Net("64-32-10 tanh, SGD, batch 32", (64, 32, 10), "tanh", "sgd", 0.1, 32, 2000),
    Net("784-256-128-10 relu, Adam, batch 64", (784, 256, 128, 10), "relu", "adam", 1e-3, 64, 100),
)


def data(net: Net) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n = net.batch * net.steps
    return rng.normal(size=(n, net.sizes[0])).astype(np.float32), rng.integers(0, net.sizes[-1], n).astype(np.int32)


def start(net: Net) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        ((rng.normal(size=(o, i)) / np.sqrt(i)).astype(np.float32), np.zeros(o, np.float32))
        for i, o in zip(net.sizes, net.sizes[1:], strict=False)
    ]


def with_nnc(net: Net) -> Contender:
    model = nnc.compile(net.source, threads=1)
    for k, (w, b) in enumerate(start(net), 1):
        model.params[f"Net.dense_{k}.W"], model.params[f"Net.dense_{k}.b"] = w, b
    x, label = data(net)
    return lambda: model.fit(x, label, epochs=1, shuffle=False)[-1]["loss"]


def with_jax(net: Net) -> Contender:
    import jax
    import jax.numpy as jnp

    x, label = data(net)
    xs = jnp.asarray(x.reshape(net.steps, net.batch, -1))
    ls = jnp.asarray(label.reshape(net.steps, net.batch))
    act = jnp.tanh if net.activation == "tanh" else jax.nn.relu

    def loss_of(params, x, label):
        h = x
        for w, b in params[:-1]:
            h = act(h @ w.T + b)
        w, b = params[-1]
        z = h @ w.T + b
        return -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(net.batch), label])

    def step(carry, example):
        params, m, v, t = carry
        loss, g = jax.value_and_grad(loss_of)(params, *example)
        tree = jax.tree_util.tree_map
        if net.optimizer == "sgd":
            return (tree(lambda p, d: p - net.lr * d, params, g), m, v, t), loss
        t = t + 1
        m = tree(lambda a, d: 0.9 * a + 0.1 * d, m, g)
        v = tree(lambda a, d: 0.999 * a + 0.001 * d * d, v, g)
        scale = net.lr / (1 - 0.9**t)
        params = tree(lambda p, a, c: p - scale * a / (jnp.sqrt(c / (1 - 0.999**t)) + 1e-8), params, m, v)
        return (params, m, v, t), loss

    epoch = jax.jit(lambda carry: jax.lax.scan(step, carry, (xs, ls)), donate_argnums=0)
    params = [(jnp.asarray(w), jnp.asarray(b)) for w, b in start(net)]
    zeros = jax.tree_util.tree_map(jnp.zeros_like, params)
    state = [(params, zeros, jax.tree_util.tree_map(jnp.zeros_like, params), jnp.float32(0))]

    def run() -> float:
        state[0], losses = epoch(state[0])
        return float(losses.mean())

    return run


def with_torch(net: Net, compiled: bool) -> Contender:
    import torch

    torch.set_num_threads(1)
    x, label = data(net)
    xs = torch.from_numpy(x.reshape(net.steps, net.batch, -1))
    ls = torch.from_numpy(label.reshape(net.steps, net.batch).astype(np.int64))
    act = torch.nn.Tanh if net.activation == "tanh" else torch.nn.ReLU
    layers: list[torch.nn.Module] = []
    for i, o in zip(net.sizes, net.sizes[1:], strict=False):
        layers += [torch.nn.Linear(i, o), act()]
    model = torch.nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for k, (w, b) in enumerate(start(net)):
            model[2 * k].weight.copy_(torch.from_numpy(w))
            model[2 * k].bias.copy_(torch.from_numpy(b))
    rule = torch.optim.SGD if net.optimizer == "sgd" else torch.optim.Adam
    optimizer = rule(model.parameters(), lr=net.lr, fused=True)
    forward = (
        torch.compile(lambda x, t: torch.nn.functional.cross_entropy(model(x), t))
        if compiled
        else (lambda x, t: torch.nn.functional.cross_entropy(model(x), t))
    )

    return torch_epoch(optimizer, forward, list(zip(xs, ls, strict=True)))


def main() -> None:
    options = arguments(__doc__ or "", ["nnc", "jax", "torch", "torch.compile"])
    for net in NETS:
        race(
            net.name,
            net.steps,
            options,
            {
                "nnc": lambda net=net: with_nnc(net),
                "jax": lambda net=net: with_jax(net),
                "torch": lambda net=net: with_torch(net, False),
                "torch.compile": lambda net=net: with_torch(net, True),
            },
        )


if __name__ == "__main__":
    main()

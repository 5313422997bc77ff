"""Training steps beside PyTorch and JAX, one thread, interleaved in one process: `python tests/bench/bench_steps.py`.

Each contender trains the same network on the same data, whole epochs at a time, in the way that is fastest for it: nnc
inside `fit`'s native loop, JAX one jitted `lax.scan` over the steps, PyTorch a loop of compiled or eager steps. The
rounds are interleaved, so that a noisy machine is noisy for all; the figure is the median over the rounds. Losses
after training are compared, so that nobody is timed on other work. Peers that are not installed are left out.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1",
                  XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")  # before any import

if hasattr(os, "sched_setaffinity"):  # XLA's own thread pool heeds nothing else
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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
Contender = Callable[[], float]  # trains one epoch, returns a loss-like number


def data(net: Net) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n = net.batch * net.steps
    return rng.normal(size=(n, net.sizes[0])).astype(np.float32), rng.integers(0, net.sizes[-1], n).astype(np.int32)


def start(net: Net) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [((rng.normal(size=(o, i)) / np.sqrt(i)).astype(np.float32), np.zeros(o, np.float32))
            for i, o in zip(net.sizes, net.sizes[1:], strict=False)]


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
    forward = torch.compile(lambda x, t: torch.nn.functional.cross_entropy(model(x), t)) if compiled else (
        lambda x, t: torch.nn.functional.cross_entropy(model(x), t))

    def run() -> float:
        total = 0.0
        for x, t in zip(xs, ls, strict=True):
            optimizer.zero_grad(set_to_none=True)
            loss = forward(x, t)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) / net.steps

    return run


def arguments(doc: str, contenders: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=contenders)
    return parser.parse_args()


def race(name: str, steps: int, options: argparse.Namespace, makers: Mapping[str, Callable[[], Contender]]) -> None:
    """Make the contenders, compare their losses, and print what a step takes each."""
    print(name)
    made: dict[str, Contender] = {}
    for who in options.only:
        try:
            made[who] = makers[who]()
        except ImportError:
            print(f"  {who}: not installed")
    first = {who: run() for who, run in made.items()}  # warm-up and compilation
    spread = max(first.values()) - min(first.values())
    assert spread < 1e-3 * max(1.0, *first.values()), f"they do not do the same work: {first}"
    times: dict[str, list[float]] = {who: [] for who in made}
    for _ in range(options.rounds):
        for who, run in made.items():
            begun = time.perf_counter()
            run()
            times[who].append((time.perf_counter() - begun) / steps * 1e6)
    median = {who: statistics.median(t) for who, t in times.items()}
    for who, t in times.items():
        ratio = f"  nnc is {median['nnc'] / median[who]:.2f} of it" if who != "nnc" and "nnc" in median else ""
        print(f"  {who:20} {median[who]:9.2f} us a step  (min {min(t):.2f}, max {max(t):.2f}){ratio}")


def main() -> None:
    options = arguments(__doc__ or "", ["nnc", "jax", "torch", "torch.compile"])
    for net in NETS:
        race(net.name, net.steps, options, {
            "nnc": lambda net=net: with_nnc(net), "jax": lambda net=net: with_jax(net),
            "torch": lambda net=net: with_torch(net, False), "torch.compile": lambda net=net: with_torch(net, True),
        })


if __name__ == "__main__":
    main()

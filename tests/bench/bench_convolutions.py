"""Training steps of convolutional networks beside PyTorch and JAX: `python tests/bench/bench_convolutions.py`.

As in `race`: one thread, the same weights, data and optimiser for all, rounds interleaved, losses compared
first. The networks are those of `models/`, trained with plain SGD, so that all do the same work.
"""

from __future__ import annotations

from race import Contender, arguments, race, torch_epoch  # first: it says how many threads there are

# ruff: isort: split
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nnc

MODELS = Path(nnc.__file__).parent / "models"
LR = 0.01


@dataclass(frozen=True)
class Net:
    name: str
    file: str
    model: str
    shape: tuple[int, ...]
    batch: int
    steps: int

    @property
    def source(self) -> str:
        text = (MODELS / self.file).read_text().replace(" |> random_crop(4) |> random_flip", "")  # no chance involved
        return (
            text[: text.index("\ntrain ")]
            + f"""
train {self.model}(x, label: i32[B]) {{
    loss = mean(cross_entropy(logits, label))
    optimizer = SGD(lr = {LR})
    batch = {self.batch}
    shuffle = false
    epochs = 1
}}
"""
        )


NETS = (
    Net("LeNet-5, batch 64", "lenet5.nn", "LeNet5", (1, 28, 28), 64, 20),
    Net("ResNet-20, batch 32", "resnet20.nn", "ResNet20", (3, 32, 32), 32, 3),
)
Params = dict[str, np.ndarray]


def data(net: Net) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n = net.batch * net.steps
    return rng.normal(size=(n, *net.shape)).astype(np.float32), rng.integers(0, 10, n).astype(np.int32)


def with_nnc(net: Net) -> tuple[Contender, Params]:
    model = nnc.compile(net.source, threads=1)
    start = {k.split(".", 1)[1]: np.array(v) for k, v in model.params.items()}
    x, label = data(net)
    return lambda: model.fit(x, label, epochs=1, shuffle=False)[-1]["loss"], start


# --- the networks, once for each peer: `f` has conv, norm, relu, pool, mean, flat, dense, pad_channels ----------------


def lenet5(f: Any, x: Any) -> Any:
    h = f.pool(f.relu(f.conv(x, "c1", 1, 2)))
    h = f.flat(f.pool(f.relu(f.conv(h, "c3", 1, 0))))
    return f.dense(f.relu(f.dense(f.relu(f.dense(h, "c5")), "f6")), "output")


def resnet20(f: Any, x: Any) -> Any:
    h = f.relu(f.norm(f.conv(x, "conv_1", 1, 1), "batchnorm_1"))
    for block in range(1, 10):
        stride = 2 if block in (4, 7) else 1
        name = f"block_{block}."
        y = f.relu(f.norm(f.conv(h, name + "conv_1", stride, 1), name + "batchnorm_1"))
        y = f.norm(f.conv(y, name + "conv_2", 1, 1), name + "batchnorm_2")
        h = f.relu(y + (f.widened(h) if stride == 2 else h))
    return f.dense(f.mean(h), "dense_1")


FORWARD = {"LeNet5": lenet5, "ResNet20": resnet20}


def with_torch(net: Net, start: Params, compiled: bool, channels_last: bool) -> Contender:
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(1)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    tensors = {k: torch.from_numpy(v.copy()) for k, v in start.items()}
    for k, t in tensors.items():
        tensors[k] = (t.contiguous(memory_format=memory) if t.ndim == 4 else t).requires_grad_()

    class Ops:
        relu, flat = staticmethod(F.relu), staticmethod(lambda x: x.flatten(1))
        pool, mean = staticmethod(lambda x: F.max_pool2d(x, 2)), staticmethod(lambda x: x.mean((2, 3)))

        @staticmethod
        def conv(x: Any, name: str, stride: int, pad: int) -> Any:
            return F.conv2d(x, tensors[name + ".W"], tensors.get(name + ".b"), stride, pad)

        @staticmethod
        def norm(x: Any, name: str) -> Any:
            return F.batch_norm(x, None, None, tensors[name + ".gamma"], tensors[name + ".beta"], True)

        @staticmethod
        def dense(x: Any, name: str) -> Any:
            return F.linear(x, tensors[name + ".W"], tensors[name + ".b"])

        @staticmethod
        def widened(x: Any) -> Any:
            c = x.shape[1] // 2
            return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, c, c))

    def loss_of(x: Any, t: Any) -> Any:
        return F.cross_entropy(FORWARD[net.model](Ops, x), t)

    x, label = data(net)
    batches = [torch.from_numpy(b).contiguous(memory_format=memory) for b in x.reshape(net.steps, -1, *net.shape)]
    labels = torch.from_numpy(label.reshape(net.steps, -1).astype(np.int64))
    optimizer = torch.optim.SGD([*tensors.values()], lr=LR, fused=True)
    loss_of = torch.compile(loss_of) if compiled else loss_of

    return torch_epoch(optimizer, loss_of, list(zip(batches, labels, strict=True)))


def with_jax(net: Net, start: Params) -> Contender:
    import jax
    import jax.numpy as jnp

    def ops(p: Any) -> Any:
        class Ops:
            relu, flat = staticmethod(jax.nn.relu), staticmethod(lambda x: x.reshape(x.shape[0], -1))
            mean = staticmethod(lambda x: x.mean((2, 3)))

            @staticmethod
            def pool(x: Any) -> Any:
                return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

            @staticmethod
            def conv(x: Any, name: str, stride: int, pad: int) -> Any:
                y = jax.lax.conv_general_dilated(x, p[name + ".W"], (stride, stride), [(pad, pad)] * 2)
                return y + p[name + ".b"][:, None, None] if name + ".b" in p else y

            @staticmethod
            def norm(x: Any, name: str) -> Any:
                mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
                gamma, beta = p[name + ".gamma"][:, None, None], p[name + ".beta"][:, None, None]
                return (x - mean) / jnp.sqrt(var + 1e-5) * gamma + beta

            @staticmethod
            def dense(x: Any, name: str) -> Any:
                return x @ p[name + ".W"].T + p[name + ".b"]

            @staticmethod
            def widened(x: Any) -> Any:
                c = x.shape[1] // 2
                return jnp.pad(x[:, :, ::2, ::2], ((0, 0), (c, c), (0, 0), (0, 0)))

        return Ops

    def loss_of(p: Any, x: Any, t: Any) -> Any:
        z = FORWARD[net.model](ops(p), x)
        return -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(net.batch), t])

    def step(p: Any, example: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, *example)
        return jax.tree_util.tree_map(lambda v, d: v - LR * d, p, g), loss

    x, label = data(net)
    xs, ls = jnp.asarray(x.reshape(net.steps, -1, *net.shape)), jnp.asarray(label.reshape(net.steps, -1))
    one = jax.jit(step, donate_argnums=0)  # XLA's convolutions are several times slower inside a scan
    state = [{k: jnp.asarray(v) for k, v in start.items()}]

    def run() -> float:
        total = 0.0
        for k in range(net.steps):
            state[0], loss = one(state[0], (xs[k], ls[k]))
            total += loss
        return float(total) / net.steps

    return run


def contenders(net: Net) -> dict[str, Callable[[], Contender]]:
    run, start = with_nnc(net)
    return {
        "nnc": lambda: run,
        "jax": lambda: with_jax(net, start),
        "torch": lambda: with_torch(net, start, False, False),
        "torch, channels last": lambda: with_torch(net, start, False, True),
        "torch.compile": lambda: with_torch(net, start, True, False),
    }


def main() -> None:
    options = arguments(__doc__ or "", ["nnc", "jax", "torch", "torch, channels last", "torch.compile"])
    for net in NETS:
        race(net.name, net.steps, options, contenders(net))


if __name__ == "__main__":
    main()

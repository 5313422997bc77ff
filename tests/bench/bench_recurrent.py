"""An LSTM's training step beside PyTorch and JAX: `python tests/bench/bench_recurrent.py`. See `race`."""

from __future__ import annotations

from race import Contender, arguments, race, torch_epoch  # first: it limits threads before NumPy is imported

import numpy as np  # isort: skip

import nnc  # isort: skip

BATCH, STEPS, INPUTS, UNITS, ROUNDS, LR = 32, 64, 128, 128, 20, 0.1
SOURCE = f"""
model Net(x: f32[B, T, {INPUTS}]) -> (y: f32[B, T, {UNITS}]) {{ y = x |> Lstm({UNITS}) }}
train Net(x, target: f32[B, T, {UNITS}]) {{
    loss = mean((y - target)^2)
    optimizer = SGD(lr = {LR})
    batch = {BATCH}
    shuffle = false
    epochs = 1
}}
"""


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n = BATCH * ROUNDS
    return tuple(rng.normal(size=(n, STEPS, k)).astype(np.float32) for k in (INPUTS, UNITS))  # type: ignore[return-value]


def start() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = (4 * UNITS, INPUTS), (4 * UNITS, UNITS), (4 * UNITS,)
    return [(rng.normal(size=s) / np.sqrt(UNITS)).astype(np.float32) for s in shapes]


def with_nnc() -> Contender:
    model = nnc.compile(SOURCE, threads=1)
    for name, value in zip("WUb", start(), strict=True):
        model.params[f"Net.lstm_1.{name}"] = value
    x, target = data()
    return lambda: model.fit(x, target, epochs=1, shuffle=False)[-1]["loss"]


def with_jax() -> Contender:
    import jax
    import jax.numpy as jnp

    xs, targets = (jnp.asarray(a.reshape(ROUNDS, BATCH, *a.shape[1:])) for a in data())

    def loss_of(params, x, target):
        W, U, b = params
        z = x @ W.T + b

        def turn(carry, z):
            s, c = carry
            i, f, g, o = jnp.split(z + s @ U.T, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            s = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (s, c), s

        zero = jnp.zeros((BATCH, UNITS), jnp.float32)
        _, y = jax.lax.scan(turn, (zero, zero), z.transpose(1, 0, 2))
        return jnp.mean((y.transpose(1, 0, 2) - target) ** 2)

    def step(params, example):
        loss, g = jax.value_and_grad(loss_of)(params, *example)
        return [p - LR * d for p, d in zip(params, g, strict=True)], loss

    epoch = jax.jit(lambda params: jax.lax.scan(step, params, (xs, targets)), donate_argnums=0)
    state = [[jnp.asarray(p) for p in start()]]

    def run() -> float:
        state[0], losses = epoch(state[0])
        return float(losses.mean())

    return run


def with_torch(compiled: bool) -> Contender:
    import torch

    torch.set_num_threads(1)
    xs, targets = (torch.from_numpy(a.reshape(ROUNDS, BATCH, *a.shape[1:])) for a in data())
    model = torch.nn.LSTM(INPUTS, UNITS, batch_first=True)
    W, U, b = map(torch.from_numpy, start())
    with torch.no_grad():
        for name, value in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), (W, U, b, 0 * b),
                               strict=True):  # fmt: skip
            getattr(model, name).copy_(value)
    model.bias_hh_l0.requires_grad_(False)  # the two are one
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LR)
    plain = lambda x, t: ((model(x)[0] - t) ** 2).mean()  # noqa: E731
    forward = torch.compile(plain) if compiled else plain

    return torch_epoch(optimizer, forward, list(zip(xs, targets, strict=True)))


def main() -> None:
    options = arguments(__doc__ or "", ["nnc", "jax", "torch", "torch.compile"])
    race(f"LSTM {INPUTS}-{UNITS}, {STEPS} steps, SGD, batch {BATCH}", ROUNDS, options, {
        "nnc": with_nnc, "jax": with_jax, "torch": lambda: with_torch(False), "torch.compile": lambda: with_torch(True),
    })  # fmt: skip


if __name__ == "__main__":
    main()

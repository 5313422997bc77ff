"""Training steps of a small character transformer beside PyTorch and JAX: `python tests/bench/bench_transformer.py`.

As in `race`: one thread, the same weights, data and optimiser (Adam) for all, rounds interleaved, losses
compared first. The network is a GPT of 4 layers, width 128, 4 heads and 65 characters, on 16 texts of 64 characters.
"""

from __future__ import annotations

from race import Contender, arguments, race, torch_epoch  # first: it says how many threads there are

# ruff: isort: split
from collections.abc import Callable
from typing import Any

import numpy as np

import nnc

LAYERS, WIDTH, HEADS, CHARACTERS, CONTEXT, BATCH, STEPS, LR = 4, 128, 4, 65, 64, 16, 5, 1e-3
SOURCE = f"""
model Gpt(x: i32[B, {CONTEXT}]) -> (logits: f32[B, {CONTEXT}, {CHARACTERS}]) {{
    share token = Embedding({CHARACTERS}, {WIDTH}, init = normal(0, 0.02))
    h = token(x) |> Positions({CONTEXT})
    repeat {LAYERS} {{ h = h |> TransformerBlock({HEADS}, causal = true) }}
    logits = (h |> LayerNorm) @ token.W.T
}}
train Gpt(x, y: i32[B, {CONTEXT}]) {{
    loss = mean(cross_entropy(logits, y))
    optimizer = Adam(lr = {LR})
    batch = {BATCH}
    shuffle = false
    epochs = 1
}}
"""
Params = dict[str, Any]


def data() -> tuple[np.ndarray, np.ndarray]:
    text = np.random.default_rng(0).integers(0, CHARACTERS, (2, BATCH * STEPS, CONTEXT)).astype(np.int32)
    return text[0], text[1]


def start() -> dict[str, np.ndarray]:
    return {name.removeprefix("Gpt."): np.array(a) for name, a in nnc.compile(SOURCE, threads=1).params.items()}


def with_nnc() -> Contender:
    net = nnc.compile(SOURCE, threads=1)
    x, y = data()
    return lambda: net.fit(x, y, epochs=1, shuffle=False)[-1]["loss"]


def with_jax() -> Contender:
    import jax
    import jax.numpy as jnp

    x, y = (jnp.asarray(a.reshape(STEPS, BATCH, CONTEXT)) for a in data())
    seen = jnp.tril(jnp.ones((CONTEXT, CONTEXT), bool))

    def norm(p: Params, name: str, h: Any) -> Any:
        z = h - h.mean(-1, keepdims=True)
        return z * jax.lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.gamma"] + p[f"{name}.beta"]

    def dense(p: Params, name: str, h: Any) -> Any:
        return h @ p[f"{name}.W"].T + p[f"{name}.b"]

    def loss_of(p: Params, x: Any, y: Any) -> Any:
        h = p["token.W"][x] + p["positions_1.W"]
        for k in range(1, LAYERS + 1):
            block = f"transformerblock_{k}"
            z = norm(p, f"{block}.layernorm_1", h)
            q, k_, v = (
                dense(p, f"{block}.attention_1.{part}", z).reshape(BATCH, CONTEXT, HEADS, WIDTH // HEADS)
                for part in ("query", "key", "value")
            )
            score = jnp.einsum("bthc,bshc->bhts", q, k_) / np.sqrt(WIDTH // HEADS).astype(np.float32)
            weight = jax.nn.softmax(jnp.where(seen, score, -jnp.inf))
            answer = jnp.einsum("bhts,bshc->bthc", weight, v).reshape(h.shape)
            h = h + dense(p, f"{block}.attention_1.result", answer)
            z = jax.nn.gelu(dense(p, f"{block}.dense_1", norm(p, f"{block}.layernorm_2", h)), approximate=False)
            h = h + dense(p, f"{block}.dense_2", z)
        z = jax.nn.log_softmax(norm(p, "layernorm_1", h) @ p["token.W"].T)
        return -jnp.mean(jnp.take_along_axis(z, y[..., None], -1))

    tree = jax.tree_util.tree_map

    def step(carry: Any, example: Any) -> Any:
        p, m, v, t = carry
        loss, g = jax.value_and_grad(loss_of)(p, *example)
        t = t + 1
        m = tree(lambda a, d: 0.9 * a + 0.1 * d, m, g)
        v = tree(lambda a, d: 0.999 * a + 0.001 * d * d, v, g)
        scale = LR / (1 - 0.9**t)
        p = tree(lambda w, a, c: w - scale * a / (jnp.sqrt(c / (1 - 0.999**t)) + 1e-8), p, m, v)
        return (p, m, v, t), loss

    epoch = jax.jit(lambda carry: jax.lax.scan(step, carry, (x, y)), donate_argnums=0)
    params = {name: jnp.asarray(a) for name, a in start().items()}
    state = [(params, tree(jnp.zeros_like, params), tree(jnp.zeros_like, params), jnp.float32(0))]

    def run() -> float:
        state[0], losses = epoch(state[0])
        return float(losses.mean())

    return run


def with_torch(compiled: bool) -> Contender:
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(1)
    p = {name: torch.tensor(a, requires_grad=True) for name, a in start().items()}
    for k in range(1, LAYERS + 1):  # as one product, which is faster for it
        part = f"transformerblock_{k}.attention_1"
        for name in ("W", "b"):
            joined = torch.cat([p.pop(f"{part}.{n}.{name}").detach() for n in ("query", "key", "value")])
            p[f"{part}.all.{name}"] = joined.requires_grad_()
    optimizer = torch.optim.Adam(p.values(), lr=LR, fused=True)
    x, y = (torch.from_numpy(a.reshape(STEPS, BATCH, CONTEXT).astype(np.int64)) for a in data())

    def norm(name: str, h: Any) -> Any:
        return F.layer_norm(h, (WIDTH,), p[f"{name}.gamma"], p[f"{name}.beta"])

    def dense(name: str, h: Any) -> Any:
        return F.linear(h, p[f"{name}.W"], p[f"{name}.b"])

    def loss_of(x: Any, y: Any) -> Any:
        h = F.embedding(x, p["token.W"]) + p["positions_1.W"]
        for k in range(1, LAYERS + 1):
            block = f"transformerblock_{k}"
            z = dense(f"{block}.attention_1.all", norm(f"{block}.layernorm_1", h))
            q, k_, v = z.reshape(BATCH, CONTEXT, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            answer = F.scaled_dot_product_attention(q, k_, v, is_causal=True).transpose(1, 2).reshape(h.shape)
            h = h + dense(f"{block}.attention_1.result", answer)
            h = h + dense(f"{block}.dense_2", F.gelu(dense(f"{block}.dense_1", norm(f"{block}.layernorm_2", h))))
        logits = F.linear(norm("layernorm_1", h), p["token.W"])
        return F.cross_entropy(logits.reshape(-1, CHARACTERS), y.reshape(-1))

    forward = torch.compile(loss_of) if compiled else loss_of

    return torch_epoch(optimizer, forward, list(zip(x, y, strict=True)))


def main() -> None:
    options = arguments(__doc__ or "", ["nnc", "jax", "torch", "torch.compile"])
    makers: dict[str, Callable[[], Contender]] = {
        "nnc": with_nnc,
        "jax": with_jax,
        "torch": lambda: with_torch(False),
        "torch.compile": lambda: with_torch(True),
    }
    race("char transformer, 4 layers, d 128, 4 heads, 16 x 64 characters, Adam", STEPS, options, makers)


if __name__ == "__main__":
    main()

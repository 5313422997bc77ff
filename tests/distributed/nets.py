"""Networks that processes train together, small enough for two processors: as a script, `nets.py THREADS [NAME ...]`
trains each for an epoch, alone or as ranks, and the first rank says the hashes of the weights."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

import nnc
import nnc.distributed

MODELS = Path(nnc.__file__).parent / "models"
PLAIN = "loss = mean(cross_entropy(y, label))\n metric accuracy = mean(argmax(y) == label)\n epochs = 1\n"

LENET = f"""
model Net(x: f32[B, 1, 28, 28]) -> (y: f32[B, 10]) {{
    h = x |> Conv(6, 5, pad = 2) |> relu |> max_pool(2) |> Conv(16, 5) |> relu |> max_pool(2) |> flatten
    y = h |> Dense(120) |> relu |> Dense(84) |> relu |> Dense(10)
}}
train Net(x, label: i32[B]) {{ {PLAIN} optimizer = Momentum(lr = 0.01)\n batch = 48 }}
"""
CONVNET = f"""
model Net(x: f32[B, 3, 8, 8]) -> (y: f32[B, 10]) {{
    h = x |> Conv(8, 3, pad = 1) |> BatchNorm |> relu |> max_pool(2)
    h = h |> Conv(16, 3, pad = 1) |> BatchNorm(sync = true) |> relu |> max_pool(2) |> flatten |> dropout(p = 0.3)
    y = h |> Dense(10)
}}
train Net(x, label: i32[B]) {{
    {PLAIN}
    optimizer = Adam(lr = 1e-3)
    average = ema(0.9)
    clip = global_norm(1.0)
    accumulate = 2
    batch = 64
}}
"""
LSTM = f"""
model Net(x: f32[B, 9, 8]) -> (y: f32[B, 10]) {{ h = x |> Lstm(16)\n y = h[:, -1, :] |> dropout(p = 0.1) |> Dense(10) }}
train Net(x, label: i32[B]) {{ {PLAIN} optimizer = Adam(lr = cosine(1e-2, warmup = 3))\n batch = 32 }}
"""


def examples(shape: tuple[int, ...], count: int = 150) -> tuple[np.ndarray, ...]:
    draw = np.random.default_rng(5)
    return draw.standard_normal((count, *shape)).astype(np.float32), draw.integers(0, 10, count).astype(np.int32)


def texts(count: int = 70, length: int = 16) -> tuple[np.ndarray, ...]:
    draw = np.random.default_rng(6)
    return tuple(draw.integers(0, 65, (count, length)).astype(np.int32) for _ in range(2))


NETS = {
    "digits": lambda threads: (nnc.compile(MODELS / "digits_mlp.nn", threads=threads), ()),
    "LeNet-5": lambda threads: (nnc.compile(LENET, threads=threads), examples((1, 28, 28))),
    "batch norm and dropout": lambda threads: (nnc.compile(CONVNET, threads=threads), examples((3, 8, 8))),
    "LSTM": lambda threads: (nnc.compile(LSTM, threads=threads), examples((9, 8))),
    "GPT": lambda threads: (
        nnc.compile(MODELS / "gpt.nn", threads=threads, hyper={"width": 32, "layers": 2, "context": 16}), texts()
    ),
}  # fmt: skip


def digest(net: nnc.Model) -> str:
    found = hashlib.sha256()
    for path in sorted(net.variables):
        found.update(net.variables[path].tobytes())
    return found.hexdigest()[:16]


def trained(name: str, threads: int, comm: object = None) -> nnc.Model:
    net, arrays = NETS[name](threads)
    net.fit(*arrays, epochs=1, shards=16, comm=comm)
    return net


if __name__ == "__main__":
    together = nnc.distributed.init()
    for chosen in sys.argv[2:] or NETS:
        made = digest(trained(chosen, int(sys.argv[1]), together))
        if together is None or together.rank == 0:
            print(f"{chosen}: {made}", flush=True)

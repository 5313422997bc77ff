"""The rows of the benchmark: a network as `.nn` text and as `networks` has it, its data and its start weights.

Everything is drawn from names and shapes, so that each process of a row makes the same numbers for itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import networks
from .networks import BLOCKS, CHARACTERS, CONTEXT, HEADS, WIDTH
from .shapes import Shapes

Array = npt.NDArray[Any]
MODELS = Path(__file__).parents[2] / "models"
LOSSES = {
    "cross_entropy": "mean(cross_entropy({output}, target))",
    "squares": "mean(({output} - target)^2)",
}


@dataclass(frozen=True)
class Data:
    """An input: its shape, the batch first, and how many values it has where it is whole numbers."""

    shape: tuple[int, ...]
    values: int = 0

    @property
    def type(self) -> str:
        sizes = ", ".join(["B", *map(str, self.shape[1:])])
        return f"{'i32' if self.values else 'f32'}[{sizes}]"

    def draw(self, name: str, steps: int) -> Array:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        shape = (steps * self.shape[0], *self.shape[1:])
        if self.values:
            return rng.integers(0, self.values, shape).astype(np.int32)
        return rng.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True)
class Row:
    """One line of a table. `steps` batches are an epoch, which is what is repeated and timed."""

    name: str
    kind: str  # training, inference, sweep
    text: str  # .nn, without the train block
    entry: str  # the model, or the function
    network: Callable[..., Any]
    inputs: Mapping[str, Data]
    target: Data | None = None
    output: str = "logits"
    loss: str = "cross_entropy"
    optimizer: str = "SGD"
    lr: float = 0.01
    steps: int = 1
    peers: tuple[str, ...] = ()  # empty: all that have its layers

    @property
    def source(self) -> str:
        if self.target is None:
            return self.text
        return f"""{self.text}
train {self.entry}({", ".join(self.inputs)}, target: {self.target.type}) {{
    loss = {LOSSES[self.loss].format(output=self.output)}
    optimizer = {self.optimizer}(lr = {self.lr})
    batch = {next(iter(self.inputs.values())).shape[0]}
    shuffle = false
    epochs = 1
}}
"""

    @cached_property
    def traced(self) -> tuple[Shapes, tuple[int, ...]]:
        """What the network has, and the shape of its result."""
        found = Shapes()
        result = self.network(found, *(found.input(d.shape) for d in self.inputs.values()))
        return found, result.shape

    @property
    def shapes(self) -> Shapes:
        return self.traced[0]

    @property
    def trains(self) -> bool:
        return self.target is not None

    @property
    def differentiates(self) -> bool:
        """It is a loss and its gradient with respect to the input."""
        return self.kind == "training" and self.target is None

    @property
    def convolves(self) -> bool:
        return any(len(shape) == 4 for shape in self.shapes.parameters.values())

    @property
    def flops(self) -> int:
        """Of a step: a multiplication and an addition for each product."""
        return 2 * (self.shapes.training_macs if self.trains else self.shapes.macs)

    @property
    def bytes(self) -> int:
        """What a step must at least read and write: parameters, with what the optimiser keeps; inputs and results."""
        parameters = sum(map(prod, self.shapes.parameters.values()))
        passes = {"SGD": 2, "Adam": 6}[self.optimizer] if self.trains else 1
        results = 0 if self.trains else prod(self.traced[1])
        return 4 * (passes * parameters + sum(prod(d.shape) for d in self.inputs.values()) + results)

    def arrays(self) -> list[Array]:
        """The inputs, of a training step also the target, for an epoch."""
        named = dict(self.inputs) if self.target is None else {**self.inputs, "target": self.target}
        return [d.draw(name, self.steps) for name, d in named.items()]

    def weights(self) -> dict[str, Array]:
        """Parameters and state by path: such that what layers give is neither small nor large."""
        return {path: _weight(path, shape) for path, shape in self.shapes.parameters.items()}


def _weight(path: str, shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    name = path.rpartition(".")[2]
    if name in ("gamma", "running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 0.1 if len(shape) == 1 else (2 / prod(shape[1:])) ** 0.5
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(scale)
    return values


def _definitions(file: str) -> str:
    """A file of `models/` without its training and tests, and without what only chance decides."""
    text = (MODELS / file).read_text("utf-8")
    text = text[: text.index("\ntrain ")].replace(" |> random_crop(4) |> random_flip", "")
    return text.replace('import "blocks.nn"', 'import "models/blocks.nn"')  # from the root, where children run


NORM_CNN = """model NormCnn(x: f32[B, 3, 32, 32]) -> (logits: f32[B, 10]) {
    h = x |> Conv(32, 3, pad = 1, bias = false) |> BatchNorm |> relu
    h = h |> Conv(32, 3, pad = 1, bias = false) |> BatchNorm |> relu |> max_pool(2)
    h = h |> Conv(64, 3, pad = 1, bias = false) |> BatchNorm |> relu
    h = h |> Conv(64, 3, pad = 1, bias = false) |> BatchNorm |> relu |> max_pool(2)
    logits = h |> flatten |> Dense(10)
}
"""
TRANSFORMER = f"""model Gpt(x: i32[B, {CONTEXT}]) -> (logits: f32[B, {CONTEXT}, {CHARACTERS}]) {{
    share token = Embedding({CHARACTERS}, {WIDTH})
    h = token(x) |> Positions({CONTEXT})
    repeat {BLOCKS} {{ h = h |> TransformerBlock({HEADS}, causal = true) }}
    logits = (h |> LayerNorm) @ token.W.T
}}
"""
LSTM = "model Net(x: f32[B, 64, 128]) -> (y: f32[B, 64, 128]) { y = x |> Lstm(128) }\n"
LONG = 4096  # positions
ATTENTION = f"""model Net(x: f32[B, {LONG}, {WIDTH}]) -> (y: f32[B, {LONG}, {WIDTH}]) {{
    y = x |> Attention({HEADS}, causal = true)
}}
"""
CHAIN = "sigmoid(exp(tanh(x))) * x"
ELEMENTS = 1 << 22
LIBRARIES = ("numpy", "torch")  # of matrix products


def _classes(batch: int) -> Data:
    return Data((batch,), 10)


def _row(
    name: str, text: str, entry: str, network: Callable[..., Any], shape: tuple[int, ...], values: int = 0, **more: Any
) -> Row:
    return Row(name, "inference", text, entry, network, {"x": Data(shape, values)}, **more)


def _mlp(name: str, batch: int, sizes: tuple[int, ...], activation: str) -> Row:
    layers = "".join(f" |> Dense({n}) |> {activation}" for n in sizes[1:-1])
    text = f"""model Mlp(x: f32[B, {sizes[0]}]) -> (logits: f32[B, {sizes[-1]}]) {{
    logits = x{layers} |> Dense({sizes[-1]})
}}
"""
    network = partial(networks.mlp, sizes=sizes[1:], activation=activation)
    return _row(name, text, "Mlp", network, (batch, sizes[0]))


NETWORKS = {  # at the batch with which they are trained
    row.name: row
    for row in (
        _mlp("tiny MLP b32", 32, (64, 32, 10), "tanh"),
        _mlp("MNIST MLP b64", 64, (784, 256, 128, 10), "relu"),
        _mlp("wide MLP b256", 256, (1024, 4096, 4096, 1024), "relu"),
        _row("LeNet-5 b64", _definitions("lenet5.nn"), "LeNet5", networks.lenet5, (64, 1, 28, 28)),
        _row("batch-norm CNN b64", NORM_CNN, "NormCnn", networks.norm_cnn, (64, 3, 32, 32)),
        _row("ResNet-20 b32", _definitions("resnet20.nn"), "ResNet20", networks.resnet20, (32, 3, 32, 32)),
        _row("ResNet-18 b8", _definitions("resnet.nn"), "ResNet18", networks.resnet18, (8, 3, 224, 224)),
        _row("transformer b16", TRANSFORMER, "Gpt", networks.transformer, (16, CONTEXT), CHARACTERS),
        _row(f"attention {LONG} b1", ATTENTION, "Net", networks.attention, (1, LONG, WIDTH), output="y"),
        _row("LSTM b32", LSTM, "Net", partial(networks.lstm, units=128), (32, 64, 128), output="y"),
    )
}


def _train(name: str, target: Data, steps: int, **more: Any) -> Row:
    row = NETWORKS[name]
    return replace(row, name=f"train {name}", kind="training", target=target, steps=steps, **more)


def _infer(name: str, batch: int | None = None) -> Row:
    row = NETWORKS[name]
    if batch is None:
        return replace(row, name=f"infer {name}")
    inputs = {k: replace(d, shape=(batch, *d.shape[1:])) for k, d in row.inputs.items()}
    return replace(row, name=f"infer {name.rpartition(' ')[0]} b{batch}", inputs=inputs)


def _training() -> Iterator[Row]:
    yield _train("tiny MLP b32", _classes(32), 2000, lr=0.1)
    yield _train("MNIST MLP b64", _classes(64), 50, optimizer="Adam", lr=1e-3)
    yield _train("wide MLP b256", Data((256,), 1024), 2)
    yield _train("LeNet-5 b64", _classes(64), 20)
    yield _train("batch-norm CNN b64", _classes(64), 2)
    yield _train("ResNet-20 b32", _classes(32), 3)
    yield _train("ResNet-18 b8", Data((8,), 1000), 1, lr=1e-3)
    yield _train("transformer b16", Data((16, CONTEXT), CHARACTERS), 5, optimizer="Adam", lr=1e-3)
    yield _train(f"attention {LONG} b1", Data((1, LONG, WIDTH)), 1, loss="squares", lr=0.1)
    yield _train("LSTM b32", Data((32, 64, 128)), 10, loss="squares", lr=0.1)
    text = f"""export chain(x: f32[N]) -> (loss: f32, gradient: f32[N]) {{
    loss = sum({CHAIN})
    gradient = grad(loss, x)
}}
"""
    yield replace(_row("chain with gradient 4M", text, "chain", networks.chain, (ELEMENTS,)), kind="training")


def _inference() -> Iterator[Row]:
    yield from (_infer(name) for name in NETWORKS if name != "ResNet-18 b8")
    small = ("tiny MLP b32", "MNIST MLP b64", "LeNet-5 b64", "batch-norm CNN b64", "ResNet-20 b32")
    yield from (_infer(name, 1) for name in (*small, "transformer b16", "LSTM b32"))
    yield _infer("ResNet-18 b8", 1)
    yield _row("infer AlexNet b1", _definitions("alexnet.nn"), "OneTower", networks.alexnet, (1, 3, 224, 224))
    yield _row("infer VGG-19 b1", _definitions("vgg.nn"), "Vgg19", networks.vgg19, (1, 3, 224, 224))
    text = f"model Chain(x: f32[B]) -> (y: f32[B]) {{ y = {CHAIN} }}\n"
    yield _row("infer chain 4M", text, "Chain", networks.chain, (ELEMENTS,))


def _sweep() -> Iterator[Row]:
    for n in (128, 256, 512, 1024, 2048):
        yield _product(n, n, n)
    for transposed in (False, True):
        yield _product(1, 4096, 4096, transposed)
    yield _product(256, 1024, 4096)
    for rows, d, units in ((1, 4096, 4096), (256, 1024, 4096)):
        text = f"model Net(x: f32[B, {d}]) -> (y: f32[B, {units}]) {{ y = x |> Dense({units}) }}\n"
        network = partial(networks.dense, units=units)
        row = _row(f"Dense {rows}x{d}x{units}", text, "Net", network, (rows, d), peers=LIBRARIES)
        yield replace(row, kind="sweep")
    for b, c, n, filters in ((64, 32, 32, 32), (64, 64, 16, 64), (1, 64, 56, 64), (1, 128, 28, 128), (1, 512, 7, 512)):
        image = f"{n}, {n}"
        layer = f"x |> Conv({filters}, 3, pad = 1)"
        text = f"model Net(x: f32[B, {c}, {image}]) -> (y: f32[B, {filters}, {image}]) {{ y = {layer} }}\n"
        network = partial(networks.convolution, filters=filters)
        row = _row(f"conv 3x3 {b}x{c}x{n}x{n} to {filters}", text, "Net", network, (b, c, n, n))
        yield replace(row, kind="sweep")


def _product(m: int, k: int, n: int, transposed: bool = False) -> Row:
    """Both operands are inputs: nothing about either is known before."""
    shape = (n, k) if transposed else (k, n)
    operand, name = ("b.T", "W.T") if transposed else ("b", "W")
    text = f"export product(a: f32[{m}, {k}], b: f32[{shape[0]}, {shape[1]}]) -> f32[{m}, {n}] = a @ {operand}\n"
    network = partial(networks.product, transposed=transposed)
    inputs = {"a": Data((m, k)), "b": Data(shape)}
    return Row(f"x @ {name} {m}x{k}x{n}", "sweep", text, "product", network, inputs, peers=LIBRARIES)


ROWS = {row.name: row for row in (*_training(), *_inference(), *_sweep())}

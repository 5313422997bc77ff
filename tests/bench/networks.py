"""The networks as their peers compute them, each written once.

`f` has the layers: those of one library (`peers/`), or those that only know shapes (`shapes`). A layer with parameters
is called with their path, which is the one that nnc gives them in the `.nn` text of the same network (`rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CHARACTERS, CONTEXT, WIDTH, BLOCKS, HEADS = 65, 64, 128, 4, 4  # of the transformer


def mlp(f: Any, x: Any, sizes: Sequence[int], activation: str) -> Any:
    for k, units in enumerate(sizes[:-1], 1):
        x = getattr(f, activation)(f.dense(x, f"dense_{k}", units))
    return f.dense(x, f"dense_{len(sizes)}", sizes[-1])


def lenet5(f: Any, x: Any) -> Any:
    h = f.max_pool(f.relu(f.conv(x, "c1", 6, 5, pad=2)), 2, 2)
    h = f.flat(f.max_pool(f.relu(f.conv(h, "c3", 16, 5)), 2, 2))
    return f.dense(f.relu(f.dense(f.relu(f.dense(h, "c5", 120)), "f6", 84)), "output", 10)


def norm_cnn(f: Any, h: Any) -> Any:
    """Two pairs of convolutions with batch normalisation, each pair with a pool behind it."""
    for k, filters in enumerate((32, 32, 64, 64), 1):
        h = f.relu(f.norm(f.conv(h, f"conv_{k}", filters, 3, pad=1, bias=False), f"batchnorm_{k}"))
        h = h if k % 2 else f.max_pool(h, 2, 2)
    return f.dense(f.flat(h), "dense_1", 10)


def resnet20(f: Any, x: Any) -> Any:
    h = f.relu(f.norm(f.conv(x, "conv_1", 16, 3, pad=1, bias=False), "batchnorm_1"))
    for block in range(1, 10):
        stride, filters = (2 if block in (4, 7) else 1), 16 * 2 ** ((block - 1) // 3)
        conv, norm = f"block_{block}.conv_", f"block_{block}.batchnorm_"
        y = f.relu(f.norm(f.conv(h, conv + "1", filters, 3, stride, 1, bias=False), norm + "1"))
        y = f.norm(f.conv(y, conv + "2", filters, 3, pad=1, bias=False), norm + "2")
        h = f.relu(y + (f.widened(h) if stride == 2 else h))
    return f.dense(f.mean_pool(h), "dense_1", 10)


def resnet18(f: Any, x: Any) -> Any:
    def convolved(x: Any, path: str, filters: int, kernel: int, stride: int = 1) -> Any:
        h = f.conv(x, f"{path}.conv_1", filters, kernel, stride, kernel // 2, bias=False)
        return f.norm(h, f"{path}.batchnorm_1")

    h = f.max_pool(f.relu(convolved(x, "resnet_1.normalconv_1", 64, 7, 2)), 3, 2, 1)
    for block in range(1, 9):
        stride, filters = (2 if block in (3, 5, 7) else 1), 64 * 2 ** ((block - 1) // 2)
        path = f"resnet_1.residual_{block}"
        y = f.relu(convolved(h, f"{path}.normalconv_1", filters, 3, stride))
        y = convolved(y, f"{path}.normalconv_2", filters, 3)
        if stride == 2:
            h = convolved(h, f"{path}.projected_1.normalconv_1", filters, 1, 2)
        h = f.relu(y + h)
    return f.dense(f.mean_pool(h), "resnet_1.dense_1", 1000)


def alexnet(f: Any, x: Any) -> Any:
    """In one tower, as `OneTower` of `models/alexnet.nn`."""
    h = f.max_pool(f.relu(f.conv(x, "conv1", 64, 11, 4, 2)), 3, 2)
    h = f.max_pool(f.relu(f.conv(h, "conv2", 192, 5, pad=2)), 3, 2)
    for k, filters in ((3, 384), (4, 256), (5, 256)):
        h = f.relu(f.conv(h, f"conv{k}", filters, 3, pad=1))
    h = f.flat(f.max_pool(h, 3, 2))
    h = f.relu(f.dense(f.relu(f.dense(h, "fc6", 4096)), "fc7", 4096))
    return f.dense(h, "fc8", 1000)


def vgg19(f: Any, h: Any) -> Any:
    k = 0
    for stage, count in enumerate((2, 2, 4, 4, 4)):
        for _ in range(count):
            k += 1
            h = f.relu(f.conv(h, f"vgg_1.conv_{k}", 64 * min(2**stage, 8), 3, pad=1))
        h = f.max_pool(h, 2, 2)
    h = f.relu(f.dense(f.relu(f.dense(f.flat(h), "vgg_1.dense_1", 4096)), "vgg_1.dense_2", 4096))
    return f.dense(h, "vgg_1.dense_3", 1000)


def transformer(f: Any, x: Any) -> Any:
    """A GPT of characters; the table that reads them also writes them."""
    h = f.positions(f.embedding(x, "token", CHARACTERS, WIDTH), "positions_1")
    for k in range(1, BLOCKS + 1):
        block = f"transformerblock_{k}"
        h = h + f.attention(f.layer_norm(h, f"{block}.layernorm_1"), f"{block}.attention_1", HEADS)
        z = f.gelu(f.dense(f.layer_norm(h, f"{block}.layernorm_2"), f"{block}.dense_1", 4 * WIDTH))
        h = h + f.dense(z, f"{block}.dense_2", WIDTH)
    return f.scores(f.layer_norm(h, "layernorm_1"), "token")


def attention(f: Any, x: Any) -> Any:
    return f.attention(x, "attention_1", HEADS)


def lstm(f: Any, x: Any, units: int) -> Any:
    return f.lstm(x, "lstm_1", units)


def chain(f: Any, x: Any) -> Any:
    return f.sigmoid(f.exp(f.tanh(x))) * x


def product(f: Any, a: Any, b: Any, transposed: bool = False) -> Any:
    return a @ (b.T if transposed else b)


def dense(f: Any, x: Any, units: int) -> Any:
    return f.dense(x, "dense_1", units)


def convolution(f: Any, x: Any, filters: int) -> Any:
    return f.conv(x, "conv_1", filters, 3, pad=1)

"""SqueezeNet 1.0 with its published weights in our model: it names what two photographs show."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.runtime import look

ROOT = Path(nnc.__file__).parent
DATA = ROOT.parent / "shared" / "data"
WEIGHTS, PHOTOS = DATA / "squeezenet", DATA / "photos"
PARTS = {"conv1x1_1": "squeeze1", "conv1x1_2": "expand1", "conv3x3_2": "expand3"}

needs_data = pytest.mark.skipif(
    not (WEIGHTS.is_dir() and PHOTOS.is_dir()),
    reason="the published weights or the photographs are not at ../shared/data/squeezenet and ../shared/data/photos",
)


def ours(theirs: str) -> str:
    """`fire2.conv1x1_1.weight` -> `SqueezeNet.fire2.squeeze1.W`."""
    *layer, kind = theirs.replace("conv_final", "conv10").split(".")
    return ".".join(["SqueezeNet", *(PARTS.get(part, part) for part in layer), {"weight": "W", "bias": "b"}[kind]])


def photo(name: str) -> np.ndarray:
    """f32[1, 3, H, W], 0 to 255, of a PNG with 8 bits of red, green and blue, not interlaced (ISO 15948)."""
    data = (PHOTOS / name).read_bytes()
    packed, at = b"", 8
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            assert tuple(body[8:]) == (8, 2, 0, 0, 0)
        packed += body if kind == b"IDAT" else b""
        at += size + 12
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + 3 * width)
    image = np.zeros((height + 1, width + 1, 3), np.int64)  # with a row above and a column to the left of zeros
    for i, (filter, *_) in enumerate(rows, start=1):
        line, up = rows[i - 1, 1:].reshape(width, 3).astype(np.int64), image[i - 1]
        if filter in (0, 2):
            image[i, 1:] = (line + (up[1:] if filter else 0)) % 256
            continue
        for j in range(1, width + 1):
            a, b, c = image[i, j - 1], up[j], up[j - 1]
            p = a + b - c
            da, db, dc = abs(p - a), abs(p - b), abs(p - c)
            paeth = np.where((da <= db) & (da <= dc), a, np.where(db <= dc, b, c))
            image[i, j] = (line[j - 1] + (a, (a + b) // 2, paeth)[(1, 3, 4).index(filter)]) % 256
    return image[1:, 1:].transpose(2, 0, 1)[None].astype(np.float32)


@pytest.fixture(scope="module")
def net() -> nnc.Model:
    """Our model with the published weights, every one of them and nothing else."""
    net = nnc.compile(ROOT / "models" / "squeezenet.nn")
    (weights,) = WEIGHTS.glob("*.npz")
    with np.load(weights) as published:
        assert {ours(name) for name in published} == set(net.params)
        for name in published:
            net.params[ours(name)] = published[name]
    return net


@needs_data
@pytest.mark.parametrize(("file", "name"), [("chelsea.png", "Egyptian cat"), ("coffee.png", "espresso")])
def test_what_a_photograph_shows(net: nnc.Model, file: str, name: str) -> None:
    probability, classes = net.recognize(photo(file))
    names = [line.partition(" ")[2] for line in (WEIGHTS / "synset.txt").read_text().splitlines()]
    assert names[classes[0, 0]].split(",")[0] == name, [names[k] for k in classes[0]]
    assert probability[0, 0] > 0.3 and np.all(np.diff(probability[0]) <= 0)


@needs_data
def test_activation_maximisation_rises_strictly_over_its_first_ten_steps(net: nnc.Model) -> None:
    """Of a channel of an inner layer, from grey noise."""
    found = look.dream(net, "fire5", 7, low=-123.0, high=151.0, rate=1.0, steps=10)
    assert np.all(np.diff(found.objective) > 0)
